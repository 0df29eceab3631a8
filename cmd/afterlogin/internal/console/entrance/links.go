package entrance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/afterlogin/afterlogin"
)

// Which links are open is kept in one entry beside them, since entries that come and go can be found by their names alone.
// It may name links that are open no more: what a link's own entry says decides.

// MaxOpen is how many links may be open at once: that entry has room for them.
const MaxOpen = 100

// openName is what the entry is called.
const openName = "open"

// openLinks is what it says: until when each link is good, in Unix seconds, by id.
type openLinks map[string]int64

// noteTries is how often a list that others change is read anew.
const noteTries = 20

// openList reads the list; the entry is nil if there has been none.
func (e *Entrance) openList(ctx context.Context) (*afterlogin.Entry, openLinks, error) {
	entry, err := e.authority.Entry(ctx, 0, linksRealm, openName)
	if errors.Is(err, afterlogin.ErrNoEntry) {
		return nil, openLinks{}, nil
	}
	if err != nil {
		return nil, nil, err
	}
	list := openLinks{}
	if err := json.Unmarshal(entry.Detail, &list); err != nil {
		return nil, nil, fmt.Errorf("%w: the list of links: %w", afterlogin.ErrUnavailable, err)
	}
	maps.DeleteFunc(list, func(_ string, until int64) bool { return until < e.now().Unix() })
	return entry, list, nil
}

// note puts a link into the list.
func (e *Entrance) note(ctx context.Context, id string, until time.Time) error {
	for range noteTries {
		entry, list, err := e.openList(ctx)
		if err != nil {
			return err
		}
		if len(list) >= MaxOpen { // those that were used are still in it
			open, err := e.openOf(ctx, list)
			if err != nil {
				return err
			}
			if len(open) >= MaxOpen {
				return ErrTooManyLinks
			}
			good := make(openLinks, len(open))
			for _, l := range open {
				good[l.ID] = list[l.ID]
			}
			list = good
		}
		list[id] = until.Unix() + 1 // what is cut off
		detail, err := json.Marshal(list)
		if err != nil {
			return err
		}
		if entry == nil {
			_, err = e.authority.AddEntry(ctx, afterlogin.EntryRequest{Realm: linksRealm, Name: openName, Detail: detail})
		} else {
			_, err = e.authority.SaveEntry(ctx, entry, detail)
		}
		if !errors.Is(err, afterlogin.ErrEntryExists) && !errors.Is(err, afterlogin.ErrEntryChanged) {
			return err
		}
	}
	return fmt.Errorf("%w: others are making links", afterlogin.ErrUnavailable)
}

// noted sees to it that a link whose entry has been made is in the list: whoever makes room in a full list leaves out what
// has no entry yet.
func (e *Entrance) noted(ctx context.Context, id string, until time.Time) error {
	_, list, err := e.openList(ctx)
	if _, ok := list[id]; err != nil || ok {
		return err
	}
	return e.note(ctx, id, until)
}

// Links returns the links that are open, the first to end first. Errors: afterlogin.ErrUnavailable.
func (e *Entrance) Links(ctx context.Context) ([]*Link, error) {
	_, list, err := e.openList(ctx)
	if err != nil {
		return nil, err
	}
	return e.openOf(ctx, list)
}

func (e *Entrance) openOf(ctx context.Context, list openLinks) ([]*Link, error) {
	var out []*Link
	for id := range list {
		switch l, err := e.open(ctx, id); {
		case errors.Is(err, ErrNoLink):
		case err != nil:
			return nil, err
		default:
			out = append(out, l)
		}
	}
	slices.SortFunc(out, func(x, y *Link) int {
		if c := x.Until.Compare(y.Until); c != 0 {
			return c
		}
		return strings.Compare(x.ID, y.ID)
	})
	return out, nil
}

// Cancel has a link be good no more. It is durable when it returns nil. Errors: ErrNoLink, afterlogin.ErrUnavailable.
func (e *Entrance) Cancel(ctx context.Context, id string) error {
	if !strings.HasPrefix(id, idPrefix) || len(id) > 64 {
		return ErrNoLink
	}
	l, err := e.open(ctx, id)
	if err != nil {
		return err
	}
	return e.close(ctx, l)
}

// open returns a link that is open. Errors: ErrNoLink, afterlogin.ErrUnavailable.
func (e *Entrance) open(ctx context.Context, id string) (*Link, error) {
	found, err := e.authority.TemporaryEntries(ctx, 0, linksRealm, id, MaxLifetime)
	if err != nil {
		return nil, err
	}
	for _, entry := range found {
		var d linkDetail
		if err := json.Unmarshal(entry.Detail, &d); err != nil {
			return nil, fmt.Errorf("%w: a link's entry: %w", afterlogin.ErrUnavailable, err)
		}
		if d.Used != 0 || e.now().UnixMilli() >= d.Until || d.Role != Admin && d.Role != Viewer {
			continue
		}
		switch out, err := e.thrownOut(ctx, d.Maker); {
		case err != nil:
			return nil, err
		case !out:
			return newLink(entry, d), nil
		}
	}
	return nil, ErrNoLink
}

// thrownOut reports whether what a link was made with has been taken from whoever had it: ended by somebody, or put on
// hold. A console session that has run out, or was signed out of, has not. An API key that is over has, whyever: one that
// was rotated looks as if it had run out, and whoever ends its successor means the links, too.
func (e *Entrance) thrownOut(ctx context.Context, maker afterlogin.SessionID) (bool, error) {
	if maker == "" {
		return false, nil
	}
	s, err := e.authority.Session(ctx, maker)
	switch {
	case errors.Is(err, afterlogin.ErrNoSession): // cleaned up: why it ended is not known any more
		return true, nil
	case err != nil:
		return false, err
	case s.Frozen():
		return true, nil
	case s.Ended.IsZero():
		return false, nil
	}
	if s.Kind == afterlogin.KindAPIKey {
		return true, nil
	}
	switch s.Why {
	case afterlogin.ReasonExpired, afterlogin.ReasonIdle, afterlogin.ReasonSignedOut, afterlogin.ReasonSuperseded:
		return false, nil
	}
	return true, nil
}

// close writes down that a link is open no more. Errors: ErrNoLink, if it was not already; afterlogin.ErrUnavailable, after
// which it may not be.
func (e *Entrance) close(ctx context.Context, l *Link) error {
	d := l.detail
	d.Used = e.now().UnixMilli()
	detail, err := json.Marshal(d)
	if err != nil {
		return err
	}
	_, err = e.authority.ChangeEntry(ctx, l.entry, detail)
	if errors.Is(err, afterlogin.ErrEntryChanged) {
		return ErrNoLink
	}
	return err
}
