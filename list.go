package afterlogin

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"iter"
	"time"

	"github.com/afterlogin/afterlogin/keyring"
	"github.com/afterlogin/afterlogin/store"
)

// A Query names the sessions and API keys to list.
type Query struct {
	Tenant  uint32
	Subject string // empty: of everybody, the anonymous too
	Kind    Kind   // zero: of every kind but clients
	// Ended includes sessions that are over but not cleaned up yet, with when and why.
	Ended bool
	// After is the cursor of a Page: only what comes behind it.
	After string
	// Limit is the most sessions in a Page, 1 to 1000; zero means 50. Sessions ignores it.
	Limit int
}

// ErrBadCursor is returned for a cursor that this installation did not make for this query.
var ErrBadCursor = errors.New("not a cursor of this list")

// Sessions yields the sessions that the query names, in a stable order (by the hour they end in), however many there
// are. It yields an error, ErrUnavailable or ErrBadCursor, as the last thing, if at all. A record that does not open is
// yielded with what can be read of it and ReasonUnreadable: it opens nothing, and can be revoked.
func (a *Authority) Sessions(ctx context.Context, q Query) iter.Seq2[*Session, error] {
	return func(yield func(*Session, error) bool) {
		for s, err := range a.records(ctx, q) {
			if err != nil {
				yield(nil, err)
				return
			}
			if q.shows(s) && !yield(s, nil) {
				return
			}
		}
	}
}

// shows reports whether the query asks for the session, of those that its store query found.
func (q *Query) shows(s *Session) bool {
	return s.Kind != KindEntry && (s.Kind == q.Kind || q.Kind == 0 && !impersonal(s.Kind)) && (q.Ended || s.Ended.IsZero()) &&
		(s.Why != ReasonNotMade || s.frozen)
}

// records yields every session that the store finds for the query, shown or not.
func (a *Authority) records(ctx context.Context, q Query) iter.Seq2[*Session, error] {
	return func(yield func(*Session, error) bool) {
		after, err := a.parseCursor(q)
		if err != nil {
			yield(nil, err)
			return
		}
		subjects := make(map[string]*subjectState) // of this listing only, and bounded
		for r, err := range a.store.List(ctx, store.Query{Tenant: q.Tenant, Subject: q.Subject, After: after}) {
			if err != nil {
				yield(nil, unavailable("list", err))
				return
			}
			s, err := a.listed(ctx, r, subjects)
			if err != nil {
				yield(nil, err)
				return
			}
			if !yield(s, nil) {
				return
			}
		}
	}
}

// listed turns a record into a session with its standing.
func (a *Authority) listed(ctx context.Context, r *store.Record, subjects map[string]*subjectState) (*Session, error) {
	x := &exam{now: a.now(), standpoint: standpoint{rec: r}}
	plain, err := a.sealer.Open(r)
	if err == nil {
		x.state, err = decodeState(plain)
	}
	if err != nil {
		a.log.Error("a record does not open", "record", r.ID, "err", err)
		x.state = &state{}
		s := x.session()
		s.Ended, s.Why = x.now, ReasonUnreadable
		if r.Marked != 0 {
			s.Ended = fromMillis(r.Marked)
		}
		return s, nil
	}
	x.policy = a.policy(x.state.policy)
	// The record was read before the look at what this node has seen; that a use is missed costs a list nothing.
	overlay(r, a.touches.peek(r.ID))
	if hasEpochs(r) {
		st, ok := subjects[r.Subject]
		if !ok {
			if st, _, err = a.subject(ctx, store.SubjectID(r.Tenant, r.Subject)); err != nil {
				return nil, err
			}
			if len(subjects) >= 1000 {
				clear(subjects)
			}
			subjects[r.Subject] = st
		}
		x.subject = st
	}
	return x.described(), nil
}

// A Page is a part of a list. Next is the cursor of the rest, empty at the end. A page may hold fewer sessions than its
// limit, or none, and still not be the last.
type Page struct {
	Sessions []*Session
	Next     string
}

// pageWork bounds how many records one page looks at, shown or not.
const pageWork = 5000

// Page returns up to Limit sessions of the query.
func (a *Authority) Page(ctx context.Context, q Query) (Page, error) {
	switch {
	case q.Limit == 0:
		q.Limit = 50
	case q.Limit < 0 || q.Limit > 1000:
		return Page{}, badRequest("limit: %d is not between 1 and 1000", q.Limit)
	}
	var p Page
	var last store.ID
	looked := 0
	for s, err := range a.records(ctx, q) {
		if err != nil {
			return Page{}, err
		}
		if looked == pageWork || len(p.Sessions) == q.Limit && q.shows(s) {
			p.Next = a.cursor(q, last)
			break
		}
		looked, last = looked+1, s.record
		if q.shows(s) {
			p.Sessions = append(p.Sessions, s)
		}
	}
	return p, nil
}

// Session returns the session, API key, grant or other credential with the id, ended or not. It fails with ErrNoSession
// if there is none.
func (a *Authority) Session(ctx context.Context, id SessionID) (*Session, error) {
	rid, err := id.parse()
	if err != nil {
		return nil, err
	}
	if rid.IsRoot() {
		rs, err := a.store.Get(ctx, rid)
		if err != nil {
			return nil, unavailable("read", err)
		}
		if rs[0] == nil || Kind(rs[0].Kind) == KindEntry {
			return nil, ErrNoSession
		}
		return a.listed(ctx, rs[0], make(map[string]*subjectState, 1))
	}
	x := &exam{now: a.now()}
	if err := a.read(ctx, x, rid); err != nil {
		return nil, err
	}
	if x.rec == nil || Kind(x.rec.Kind) == kindData {
		return nil, ErrNoSession
	}
	return x.described(), nil
}

// described returns the session with its standing.
func (x *exam) described() *Session {
	s := x.session()
	why, cause, at := x.standing()
	if s.Why = why; cause != "" {
		s.Why = cause
	}
	if why == ReasonFrozen {
		s.frozen, at = true, time.Time{}
	}
	s.Ended = at
	return s
}

// cursor names a place in the list of the query: the id of the last session shown, and a MAC over it and the query, so
// that a cursor made by hand, or for another subject, is refused.
func (a *Authority) cursor(q Query, last store.ID) string {
	key := a.keys.Active(keyring.Sealing)
	b := last.Append([]byte{key.ID})
	return base64.RawURLEncoding.EncodeToString(append(b, cursorMAC(key, q, b)...))
}

func (a *Authority) parseCursor(q Query) (store.ID, error) {
	if q.After == "" {
		return store.ID{}, nil
	}
	b, err := base64.RawURLEncoding.DecodeString(q.After)
	if len(q.After) > 64 || err != nil || len(b) != 1+17+16 {
		return store.ID{}, ErrBadCursor
	}
	key, err := a.keys.Lookup(keyring.Sealing, b[0])
	if errors.Is(err, keyring.ErrUnavailable) {
		return store.ID{}, unavailable("keys", err)
	}
	if err != nil || !hmac.Equal(cursorMAC(key, q, b[:18]), b[18:]) {
		return store.ID{}, ErrBadCursor
	}
	id, err := store.ParseID(b[1:18])
	if err != nil {
		return store.ID{}, ErrBadCursor
	}
	return id, nil
}

func cursorMAC(key keyring.Key, q Query, place []byte) []byte {
	h := hmac.New(sha256.New, key.Secret())
	b := append([]byte("afterlogin/cursor/1\x00"), place...)
	b = binary.BigEndian.AppendUint32(b, q.Tenant)
	h.Write(append(b, q.Subject...))
	return h.Sum(nil)[:16]
}
