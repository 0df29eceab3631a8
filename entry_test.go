package afterlogin_test

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/store/memstore"
)

func entries(t *testing.T, a *afterlogin.Authority, realm string) (names []string) {
	t.Helper()
	for e, err := range a.Entries(t.Context(), 0, realm) {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, e.Name+"="+string(e.Detail))
	}
	slices.Sort(names)
	return names
}

func newEntryAuthority(t *testing.T, s *memstore.Store, observe ...func(afterlogin.Event)) *afterlogin.Authority {
	t.Helper()
	c := afterlogin.Config{Store: s}
	if observe != nil {
		c.Observe = observe[0]
	}
	a, err := afterlogin.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	return a
}

func TestEntries(t *testing.T) {
	var events []afterlogin.Event
	a := newEntryAuthority(t, memstore.New(), func(e afterlogin.Event) { events = append(events, e) })
	ctx := t.Context()
	if _, err := a.Entry(ctx, 0, "users", "mia"); !errors.Is(err, afterlogin.ErrNoEntry) {
		t.Fatalf("before: %v", err)
	}
	add := func(realm, name, detail string) (*afterlogin.Entry, error) {
		return a.AddEntry(ctx, afterlogin.EntryRequest{Realm: realm, Name: name, Detail: json.RawMessage(detail)})
	}
	mia, err := add("users", "mia", `{"n":1}`)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := add("users", "mia", `{}`); !errors.Is(err, afterlogin.ErrEntryExists) {
		t.Errorf("a second mia: %v", err)
	}
	if _, err := add("machines", "mia", `{}`); err != nil {
		t.Errorf("the same name in another realm: %v", err)
	}
	if _, err := add("users", "tom", `{"n":2}`); err != nil {
		t.Fatal(err)
	}
	if got := entries(t, a, "users"); !slices.Equal(got, []string{`mia={"n":1}`, `tom={"n":2}`}) {
		t.Errorf("listed: %q", got)
	}
	if _, err := a.Entry(ctx, 1, "users", "mia"); !errors.Is(err, afterlogin.ErrNoEntry) {
		t.Errorf("another tenant sees it: %v", err)
	}
	later, err := a.ChangeEntry(ctx, mia, json.RawMessage(`{"n":3}`))
	if err != nil || later.Version <= mia.Version || !later.Created.Equal(mia.Created) {
		t.Fatalf("change: %+v, %v", later, err)
	}
	if _, err := a.ChangeEntry(ctx, mia, json.RawMessage(`{"n":4}`)); !errors.Is(err, afterlogin.ErrEntryChanged) {
		t.Errorf("a change of what was read before: %v", err)
	}
	if got, err := a.Entry(ctx, 0, "users", "mia"); err != nil || string(got.Detail) != `{"n":3}` || got.Name != "mia" || got.Realm != "users" {
		t.Errorf("read again: %+v, %v", got, err)
	}
	// None of it is a session, whatever handle somebody makes up for it.
	for s, err := range a.Sessions(ctx, afterlogin.Query{}) {
		t.Errorf("listed as a session: %+v, %v", s, err)
	}
	for s, err := range a.Sessions(ctx, afterlogin.Query{Kind: afterlogin.KindEntry}) {
		t.Errorf("listed as a session of its own kind: %+v, %v", s, err)
	}
	if len(events) != 4 || events[0].Type != afterlogin.EventEntryCreated || events[3].Type != afterlogin.EventEntryChanged ||
		events[0].Detail != "users mia" || events[0].Subject != "" {
		t.Fatalf("events: %+v", events)
	}
	for _, e := range events {
		for _, handle := range []afterlogin.SessionID{e.Session, "ses_" + e.Session[len("entry_"):]} {
			if err := a.Revoke(ctx, handle, afterlogin.ReasonAdministrator); !errors.Is(err, afterlogin.ErrNoSession) {
				t.Errorf("revoke %s: %v", handle, err)
			}
			if _, err := a.Session(ctx, handle); !errors.Is(err, afterlogin.ErrNoSession) {
				t.Errorf("session %s: %v", handle, err)
			}
		}
	}
}

func TestEntryBadRequests(t *testing.T) {
	a := newEntryAuthority(t, memstore.New())
	for name, r := range map[string]afterlogin.EntryRequest{
		"no realm":      {Name: "x", Detail: json.RawMessage(`{}`)},
		"a bad realm":   {Realm: "Users", Name: "x", Detail: json.RawMessage(`{}`)},
		"no name":       {Realm: "users", Detail: json.RawMessage(`{}`)},
		"no JSON":       {Realm: "users", Name: "x", Detail: json.RawMessage(`{`)},
		"a big detail":  {Realm: "users", Name: "x", Detail: json.RawMessage(`"` + string(make([]byte, 6000)) + `"`)},
		"in the past":   {Realm: "users", Name: "x", Detail: json.RawMessage(`{}`), Until: time.Now().Add(-time.Hour)},
		"too far ahead": {Realm: "users", Name: "x", Detail: json.RawMessage(`{}`), Until: time.Now().Add(401 * 24 * time.Hour)},
	} {
		if _, err := a.AddEntry(t.Context(), r); !errors.Is(err, afterlogin.ErrBadRequest) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := a.ChangeEntry(t.Context(), &afterlogin.Entry{Realm: "users", Name: "x"}, json.RawMessage(`{}`)); !errors.Is(err, afterlogin.ErrBadRequest) {
		t.Errorf("an entry that was never read: %v", err)
	}
}

func TestOneOfManyMakesAnEntry(t *testing.T) {
	s := memstore.New()
	var wg sync.WaitGroup
	var mu sync.Mutex
	made := 0
	for range 16 {
		a := newEntryAuthority(t, s)
		wg.Go(func() {
			_, err := a.AddEntry(context.Background(), afterlogin.EntryRequest{Realm: "users", Name: "mia", Detail: json.RawMessage(`{}`)})
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				made++
			} else if !errors.Is(err, afterlogin.ErrEntryExists) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if made != 1 {
		t.Errorf("%d entries of one name were made", made)
	}
}

func TestTemporaryEntries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, err := afterlogin.New(afterlogin.Config{Store: memstore.New()})
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		ctx := t.Context()
		find := func(within time.Duration) (details []string) {
			es, err := a.TemporaryEntries(ctx, 0, "heard", "s1", within)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range es {
				details = append(details, string(e.Detail))
			}
			return details
		}
		const day = 24 * time.Hour
		for detail, until := range map[string]time.Duration{"1": day, "30": 30 * day, "400": 399 * day} {
			if _, err := a.AddEntry(ctx, afterlogin.EntryRequest{Realm: "heard", Name: "s1", Detail: json.RawMessage(detail), Until: time.Now().Add(until)}); err != nil {
				t.Fatal(err)
			}
		}
		if got := find(31 * day); !slices.Equal(got, []string{"1", "30"}) {
			t.Errorf("within 31 days: %q", got)
		}
		if got := find(400 * day); !slices.Equal(got, []string{"1", "30", "400"}) {
			t.Errorf("all: %q", got)
		}
		if _, err := a.Entry(ctx, 0, "heard", "s1"); !errors.Is(err, afterlogin.ErrNoEntry) {
			t.Errorf("found as a permanent one: %v", err)
		}
		if got := entries(t, a, "heard"); got != nil {
			t.Errorf("listed: %q", got)
		}
		time.Sleep(29 * day) // of the bubble
		if got := find(400 * day); !slices.Equal(got, []string{"30", "400"}) {
			t.Errorf("a month later: %q", got)
		}
		time.Sleep(400 * day)
		if got := find(400 * day); got != nil {
			t.Errorf("in the end: %q", got)
		}
	})
}

// SaveEntry changes an entry as ChangeEntry does, and makes no event.
func TestSaveEntry(t *testing.T) {
	var events []afterlogin.Event
	a := newEntryAuthority(t, memstore.New(), func(e afterlogin.Event) { events = append(events, e) })
	e, err := a.AddEntry(t.Context(), afterlogin.EntryRequest{Realm: "jobs", Name: "one", Detail: json.RawMessage(`{"n":1}`)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.SaveEntry(t.Context(), e, json.RawMessage(`{"n":2}`)); err != nil {
		t.Fatal(err)
	}
	if _, err := a.SaveEntry(t.Context(), e, json.RawMessage(`{"n":3}`)); !errors.Is(err, afterlogin.ErrEntryChanged) {
		t.Errorf("one that was changed meanwhile: %v", err)
	}
	if got := entries(t, a, "jobs"); !slices.Equal(got, []string{`one={"n":2}`}) {
		t.Errorf("kept %v", got)
	}
	if len(events) != 1 || events[0].Type != afterlogin.EventEntryCreated {
		t.Errorf("events %+v", events)
	}
}
