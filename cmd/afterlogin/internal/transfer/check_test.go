package transfer

import (
	"context"
	"fmt"
	"iter"
	"strings"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin/keyring"
	"github.com/afterlogin/afterlogin/store"
	"github.com/afterlogin/afterlogin/store/memstore"
)

func TestCheck(t *testing.T) {
	for name, open := range stores {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			h := newHouse(t, s)
			h.furnish()
			for i := range 50 {
				h.signIn(fmt.Sprint("s", i%7))
			}
			if err := keyring.PlaceShared(t.Context(), s, h.sealed(), h.master); err != nil {
				t.Fatal(err)
			}
			h.clock.pass(time.Minute)
			c := &Check{Store: s, Open: h.opener(), worker: worker{now: h.clock.now}}
			got, err := c.Run(t.Context())
			if err != nil || got.Problems != 0 || int(got.Records) != len(all(t, s)) {
				t.Fatalf("%+v, %v", got, err)
			}
			for kind, want := range map[string]Kind{
				"session": {Live: 54, Ended: 1}, "data": {Live: 2}, "subject": {Live: 10}, "api_key": {Live: 1}, "refresh_token": {Live: 2},
				"client": {Live: 1}, "used_once": {Live: 1}, "keys": {Live: 1},
			} {
				if got.Kinds[kind] != want {
					t.Errorf("%s: %+v, want %+v", kind, got.Kinds[kind], want)
				}
			}
		})
	}
}

func TestCheckFinds(t *testing.T) {
	for what, change := range map[string]func(r *store.Record){
		"version 0":                           func(r *store.Record) { r.Version = 0 },
		"a time before 1970":                  func(r *store.Record) { r.LastSeen = -1 },
		"a reason without":                    func(r *store.Record) { r.Reason = "x" },
		"a mark without":                      func(r *store.Record) { r.Marked = 5 },
		"kind":                                func(r *store.Record) { r.Kind = '?' },
		"it is cleaned away":                  func(r *store.Record) { r.Absolute += 1000 * 3600_000 },
		"does not open":                       func(r *store.Record) { r.Subject = "eve" },
		"its root":                            func(r *store.Record) { r.ID = store.NewChildID(r.ID, r.ID.Bucket(), [6]byte{1}) },
		"the record of another subject":       func(r *store.Record) { r.ID, r.Kind = store.SubjectID(0, "eve"), 'u' },
		"data that is not where":              func(r *store.Record) { r.ID, r.Kind = store.NewChildID(r.ID, r.ID.Bucket(), [6]byte{1}), 'd' },
		"for a subject's record":              func(r *store.Record) { r.ID = store.SubjectID(0, r.Subject) },
		"it is of tenant 0, and its root of ": nil,
	} {
		s := memstore.New()
		h := newHouse(t, memstore.New())
		now := h.clock.now().UnixMilli()
		r := &store.Record{Kind: 's', Subject: "mia", Created: now - 1000, Absolute: now + 3600_000, Version: 1, Payload: []byte("x")}
		r.ID = store.NewRootID(store.BucketOf(r.Absolute), [14]byte{1}, 0, "mia")
		records := []*store.Record{r}
		if change != nil {
			change(r)
		} else {
			r.Tenant = 7
			records = append(records, &store.Record{ID: store.NewChildID(r.ID, r.ID.Bucket(), [6]byte{1}), Kind: 'a', Version: 1, Absolute: r.Absolute})
		}
		if err := s.Load(t.Context(), records); err != nil {
			t.Fatal(err)
		}
		got, err := (&Check{Store: s, Open: h.opener(), worker: worker{now: h.clock.now}}).Run(t.Context())
		text := fmt.Sprint(got.Examples)
		if err != nil || got.Problems == 0 || !strings.Contains(text, what) {
			t.Errorf("%s: %s, %v", what, text, err)
		}
		if strings.Contains(text, "eve") || strings.Contains(text, "mia") {
			t.Errorf("%s: says what a record holds: %s", what, text)
		}
	}
}

// forgetful is a store whose lists leave somebody out.
type forgetful struct {
	store.Bulk
	leave func(store.Query, *store.Record) bool
}

func (f forgetful) List(ctx context.Context, q store.Query) iter.Seq2[*store.Record, error] {
	return func(yield func(*store.Record, error) bool) {
		for r, err := range f.Bulk.List(ctx, q) {
			if err == nil && f.leave(q, r) {
				continue
			}
			if !yield(r, err) {
				return
			}
		}
	}
}

func TestCheckLists(t *testing.T) {
	s := memstore.New()
	many(t, s, 3000)
	var lost store.ID
	for id := range all(t, s) {
		lost = id
	}
	for what, leave := range map[string]func(store.Query, *store.Record) bool{
		"the list of its subject's roots": func(q store.Query, r *store.Record) bool { return q.Subject != "" && r.ID == lost },
		"the list of all roots":           func(q store.Query, r *store.Record) bool { return q.Subject == "" && r.ID == lost },
	} {
		got, err := (&Check{Store: forgetful{s, leave}}).Run(t.Context())
		if err != nil || got.Problems != 1 || !strings.Contains(got.Examples[0].What, what) || got.Examples[0].ID != lost.String() {
			t.Errorf("%s: %+v, %v", what, got, err)
		}
	}
}

// finding is a store that says by itself whether lists find roots.
type finding struct {
	store.Bulk
	not string // whose roots it does not find
}

func (f finding) Found(_ context.Context, roots []*store.Record) ([]bool, error) {
	found := make([]bool, len(roots))
	for i, r := range roots {
		found[i] = r.Subject != f.not
	}
	return found, nil
}

// A store that is asked for many roots at once is believed when it does not find one, and looked after when it does.
func TestCheckFinder(t *testing.T) {
	s := memstore.New()
	many(t, s, 3000)
	if got, err := (&Check{Store: finding{s, "s7"}}).Run(t.Context()); err != nil || got.Problems < 3 || !strings.Contains(fmt.Sprint(got.Examples), "the list of its subject's") {
		t.Errorf("%+v, %v", got, err)
	}
	lost := forgetful{s, func(q store.Query, r *store.Record) bool { return q.Subject != "" }}
	if got, err := (&Check{Store: finding{lost, ""}}).Run(t.Context()); err != nil || !strings.Contains(fmt.Sprint(got.Examples), "the list of its subject's") {
		t.Errorf("lists that find nothing: %+v, %v", got, err)
	}
}
