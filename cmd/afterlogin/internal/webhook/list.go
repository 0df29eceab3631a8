package webhook

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/internal/seal"
)

// A Webhook is where events are sent, and how it goes. It does not hold its secret.
type Webhook struct {
	ID          string
	URL         string
	Events      []string // types, or such as session.*, or *
	Description string
	Disabled    bool
	Why         string // why it was disabled, if nobody did it
	Created     time.Time
	Changed     time.Time
	OldSecret   time.Time // until when the secret before the last rotation signs, too; zero: only the current one does

	Server      string    // the one that delivers; "" between two
	Waiting     uint64    // events that the receiver did not take yet
	Oldest      time.Time // when the first of them came
	NextTry     time.Time // zero: as soon as there is something to send
	DeadLetters uint64    // events that were given up and not sent again
	Failures    int       // attempts that failed since the last that did not
	LastSuccess time.Time
	LastFailure time.Time
	LastStatus  int    // of the last answer; 0: there was none
	LastError   string // what was wrong with it
}

// Site is the URL up to the host, and that there is more: what follows is for those who may change it.
func (h *Webhook) Site() string {
	u, err := url.Parse(h.URL)
	if err != nil {
		return "…"
	}
	site := u.Scheme + "://" + u.Host + "/"
	if h.URL != site && h.URL+"/" != site {
		site += "…"
	}
	return site
}

func (w *Webhooks) webhook(r *record) *Webhook {
	s := &r.State
	h := &Webhook{
		ID: r.ID, URL: r.URL, Events: slices.Clone(r.Events), Description: r.Description, Disabled: r.Disabled, Why: r.Why,
		Created: fromMillis(r.Created), Changed: fromMillis(cmp.Or(r.Changed, r.Created)),
		Waiting: s.waiting(), Oldest: fromMillis(s.Oldest), DeadLetters: s.dead(), Failures: s.Failures,
		LastSuccess: fromMillis(s.LastSuccess), LastFailure: fromMillis(s.LastFailure), LastStatus: s.LastStatus, LastError: s.LastError,
	}
	now := w.now().UnixMilli()
	if len(r.Old) > 0 && now < r.Old[0].Until {
		h.OldSecret = fromMillis(r.Old[0].Until)
	}
	if s.Holder != "" && now < s.Until {
		h.Server, _, _ = strings.Cut(s.Holder, "/")
	}
	if s.NextTry > now {
		h.NextTry = fromMillis(s.NextTry)
	}
	return h
}

// found is a webhook that was read.
type found struct {
	entry *afterlogin.Entry
	*record
}

// all reads the webhooks, by when they were added, and the entries of those that were removed. One whose entry cannot be
// read, or does not open for good, is named in the log, and left out: it stops no other one.
func (w *Webhooks) all(ctx context.Context) (out []found, free []*afterlogin.Entry, err error) {
	for e, err := range w.authority.Entries(ctx, 0, Realm) {
		if errors.Is(err, seal.ErrBroken) { // the last thing that comes
			w.log.Error("a webhook does not open, and nothing is delivered to it", "err", err)
			break
		}
		if err != nil {
			return nil, nil, err
		}
		r, err := decodeRecord(e.Detail)
		if err != nil {
			w.log.Error("a webhook cannot be read, and nothing is delivered to it", "webhook", e.Name, "err", err)
			continue
		}
		if r.Deleted {
			free = append(free, e)
		} else {
			out = append(out, found{e, r})
		}
	}
	slices.SortFunc(out, func(a, b found) int { return cmp.Or(cmp.Compare(a.Created, b.Created), strings.Compare(a.ID, b.ID)) })
	return out, free, nil
}

// read reads one webhook. Errors: ErrNoWebhook, afterlogin.ErrUnavailable.
func (w *Webhooks) read(ctx context.Context, id string) (found, error) {
	if !validID(id) {
		return found{}, ErrNoWebhook
	}
	e, err := w.authority.Entry(ctx, 0, Realm, entryName(id))
	if errors.Is(err, afterlogin.ErrNoEntry) {
		return found{}, ErrNoWebhook
	}
	if err != nil {
		return found{}, err
	}
	r, err := decodeRecord(e.Detail)
	if err == nil && (r.Deleted || r.ID != id) {
		err = ErrNoWebhook
	}
	return found{e, r}, err
}

// List returns the webhooks, by when they were added. Error: afterlogin.ErrUnavailable.
func (w *Webhooks) List(ctx context.Context) ([]*Webhook, error) {
	fs, _, err := w.all(ctx)
	if err != nil {
		return nil, err
	}
	out := []*Webhook{}
	for _, f := range fs {
		out = append(out, w.webhook(f.record))
	}
	return out, nil
}

// Webhook returns one. Errors: ErrNoWebhook, afterlogin.ErrUnavailable.
func (w *Webhooks) Webhook(ctx context.Context, id string) (*Webhook, error) {
	f, err := w.read(ctx, id)
	if err != nil {
		return nil, err
	}
	return w.webhook(f.record), nil
}

// A Request says what webhook to add.
type Request struct {
	URL         string
	Events      []string // none: DefaultEvents
	Description string
}

// Add makes a webhook, which gets what happens from now on, and returns the secret that its requests are signed with: this
// is the only time that it is shown. It is durable when it returns nil. Errors: a *FieldError, ErrTooMany,
// afterlogin.ErrUnavailable.
func (w *Webhooks) Add(ctx context.Context, q Request) (*Webhook, Secret, error) {
	var none Secret
	address, err := w.allow.checkURL(q.URL)
	if err != nil {
		return nil, none, err
	}
	events, err := checkEvents(q.Events)
	if err != nil {
		return nil, none, err
	}
	if err := checkDescription(q.Description); err != nil {
		return nil, none, err
	}
	fs, free, err := w.all(ctx)
	if err != nil {
		return nil, none, err
	}
	secret := newSecret()
	r := &record{URL: address, Events: events, Description: q.Description, Secret: secret.Reveal()}
	if err := r.fits(); err != nil {
		return nil, none, bad("url", "the URL, the events and the description are too long together")
	}
	// Nobody takes it before it is known where in the stream it begins.
	r.State = state{Holder: w.holder, Until: w.now().Add(2 * storeTimeout).UnixMilli()}
	watching, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	stream, err := w.authority.Watch(watching, "")
	if err != nil {
		return nil, none, err
	}
	e, err := w.place(ctx, r, fs, free)
	if err != nil {
		return nil, none, err
	}
	id := r.ID
	cursor, at := "", int64(0)
	for ev, err := range stream {
		if err != nil {
			break // it begins when a server takes it, and the receiver is told that it may have missed something
		}
		if (ev.Type == afterlogin.EventEntryCreated || ev.Type == afterlogin.EventEntryChanged) && ev.Detail == Realm+" "+e.Name {
			cursor, at = ev.Cursor, ev.At.UnixMilli()
			break
		}
	}
	// If this fails the webhook is there, and begins when a server takes it.
	f, err := w.change(ctx, id, false, func(r *record) error {
		if r.State.Holder == w.holder && r.State.Term == 0 {
			r.State.Holder, r.State.Until = "", 0
			r.State.Cursor, r.State.LastAt = cursor, at
		}
		return nil
	})
	if err != nil {
		w.log.Warn("a webhook begins late", "webhook", id, "err", err)
		f = found{e, r}
	}
	w.nudge()
	return w.webhook(f.record), secret, nil
}

// place writes the record of a new webhook into the first entry that is not in use: there are no more than Max of them,
// however many are added at once.
func (w *Webhooks) place(ctx context.Context, r *record, used []found, free []*afterlogin.Entry) (*afterlogin.Entry, error) {
	for n := range Max {
		r.ID, r.Created = newID(n), w.now().UnixMilli()
		name := entryName(r.ID)
		if slices.ContainsFunc(used, func(f found) bool { return f.entry.Name == name }) {
			continue
		}
		b, err := r.encode()
		if err != nil {
			return nil, err
		}
		var e *afterlogin.Entry
		if k := slices.IndexFunc(free, func(e *afterlogin.Entry) bool { return e.Name == name }); k >= 0 {
			e, err = w.authority.ChangeEntry(ctx, free[k], b)
		} else {
			e, err = w.authority.AddEntry(ctx, afterlogin.EntryRequest{Realm: Realm, Name: name, Detail: b})
		}
		if errors.Is(err, afterlogin.ErrEntryChanged) || errors.Is(err, afterlogin.ErrEntryExists) {
			continue // somebody else was faster, or it does not open
		}
		return e, err
	}
	return nil, ErrTooMany
}

// change changes a webhook's record. That is news if loud.
func (w *Webhooks) change(ctx context.Context, id string, loud bool, do func(*record) error) (found, error) {
	for range 20 {
		f, err := w.read(ctx, id)
		if err != nil {
			return f, err
		}
		if err := do(f.record); err != nil {
			return f, err
		}
		b, err := f.record.encode()
		if err != nil {
			if errors.Is(err, errTooLarge) {
				err = bad("url", "%v", err)
			}
			return f, err
		}
		write := w.authority.SaveEntry
		if loud {
			write = w.authority.ChangeEntry
		}
		e, err := write(ctx, f.entry, b)
		if errors.Is(err, afterlogin.ErrEntryChanged) {
			continue
		}
		if err == nil {
			f.entry = e
		}
		w.nudge()
		return f, err
	}
	return found{}, ErrChanged
}

// A Change changes what it names, and nothing else.
type Change struct {
	URL         *string
	Events      *[]string
	Description *string
	Disabled    *bool
}

// Change changes a webhook. One that is enabled again goes on where it was: what happened meanwhile is sent, and if the
// store does not have it all any more, events.missed says so. A request that is under way still goes to where it was sent.
// It is durable when it returns nil. Errors: a *FieldError, ErrNoWebhook, ErrChanged, afterlogin.ErrUnavailable.
func (w *Webhooks) Change(ctx context.Context, id string, c Change) (*Webhook, error) {
	var address string
	var events []string
	var err error
	if c.URL != nil {
		if address, err = w.allow.checkURL(*c.URL); err != nil {
			return nil, err
		}
	}
	if c.Events != nil {
		if events, err = checkEvents(*c.Events); err != nil {
			return nil, err
		}
	}
	if c.Description != nil {
		if err := checkDescription(*c.Description); err != nil {
			return nil, err
		}
	}
	f, err := w.change(ctx, id, true, func(r *record) error {
		if c.URL != nil {
			r.URL = address
		}
		if c.Events != nil {
			r.Events = events
		}
		if c.Description != nil {
			r.Description = *c.Description
		}
		if c.Disabled != nil {
			r.Disabled, r.Why = *c.Disabled, ""
		}
		r.Kick++
		r.Changed = w.now().UnixMilli()
		return r.fits()
	})
	if errors.Is(err, errTooLarge) {
		err = bad("url", "%v", errTooLarge)
	}
	if err != nil {
		return nil, err
	}
	return w.webhook(f.record), nil
}

// Remove removes a webhook with what waits for it. Nothing is sent to it any more, but what is under way. It is durable
// when it returns nil. Errors: ErrNoWebhook, ErrChanged, afterlogin.ErrUnavailable.
func (w *Webhooks) Remove(ctx context.Context, id string) error {
	_, err := w.change(ctx, id, true, func(r *record) error {
		*r = record{Deleted: true, Changed: w.now().UnixMilli()}
		return nil
	})
	return err
}

// RotateSecret gives a webhook a new secret. For a day requests are signed with the one before, too, so that the receiver
// can change over. It is durable when it returns nil. Errors: ErrNoWebhook, ErrRotated, ErrChanged,
// afterlogin.ErrUnavailable.
func (w *Webhooks) RotateSecret(ctx context.Context, id string) (*Webhook, Secret, error) {
	secret := newSecret()
	f, err := w.change(ctx, id, true, func(r *record) error {
		if !r.rotate(secret, w.now()) {
			return ErrRotated
		}
		r.Changed = w.now().UnixMilli()
		return nil
	})
	if err != nil {
		return nil, Secret{}, err
	}
	return w.webhook(f.record), secret, nil
}

// A TestResult is what a receiver answered to a test event.
type TestResult struct {
	ID        string // of the event
	Delivered bool
	Status    int // 0: there was no answer
	Error     string
	Took      time.Duration
}

// Test sends an event of the type webhook.test now, once, from this server, whether the webhook is disabled or not.
// Errors: ErrNoWebhook, afterlogin.ErrUnavailable, the context's.
func (w *Webhooks) Test(ctx context.Context, id string) (*TestResult, error) {
	f, err := w.read(ctx, id)
	if err != nil {
		return nil, err
	}
	i := &item{ID: "evt_test_" + rand.Text(), Event: Event{Type: EventTest, At: w.now().UTC().Truncate(time.Millisecond), Detail: "a test, asked for by an operator"}}
	o := w.attempt(ctx, id, f.record, i)
	if o.ended {
		return nil, context.Cause(ctx)
	}
	return &TestResult{ID: i.ID, Delivered: o.ok, Status: o.status, Error: o.err, Took: o.took}, nil
}
