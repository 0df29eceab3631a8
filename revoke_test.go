package afterlogin_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/store"
	"github.com/afterlogin/afterlogin/store/memstore"
)

func TestRevokeIsSeenAtOnce(t *testing.T) {
	h := newHouse(t)
	in := h.signIn("mia")
	h.use(in.Token, home, "")
	for range 2 {
		if err := h.Revoke(t.Context(), in.Session.ID, afterlogin.ReasonAdministrator); err != nil {
			t.Fatal(err)
		}
		h.use(in.Token, home, afterlogin.ReasonRevoked)
	}
	for _, id := range []afterlogin.SessionID{"", "ses_", "ses_x", "mia", afterlogin.SessionID("ses_" + strings.Repeat("A", 24))} {
		if err := h.Revoke(t.Context(), id, afterlogin.ReasonSignedOut); !errors.Is(err, afterlogin.ErrBadSessionID) {
			t.Errorf("Revoke(%q) = %v", id, err)
		}
	}
	if err := h.Revoke(t.Context(), afterlogin.SessionID("ses_"+strings.Repeat("A", 23)), afterlogin.ReasonSignedOut); err == nil {
		t.Error("revoking nobody's session succeeds")
	}
}

func TestRevokeOthers(t *testing.T) {
	h := newHouse(t)
	a, b, c := h.signIn("mia"), h.signIn("mia"), h.signIn("mia")
	tom := h.signIn("tom")
	for _, x := range []afterlogin.Issued{a, b, c, tom} {
		h.use(x.Token, home, "") // all cached
	}
	if err := h.RevokeOthers(t.Context(), a.Session.ID, afterlogin.ReasonSignedOutAll); err != nil {
		t.Fatal(err)
	}
	h.use(a.Token, home, "")
	h.use(b.Token, home, afterlogin.ReasonSignedOutAll)
	h.use(c.Token, home, afterlogin.ReasonSignedOutAll)
	h.use(tom.Token, home, "")

	d := h.signIn("mia")
	if err := h.RevokeOthers(t.Context(), a.Session.ID, afterlogin.ReasonSignedOutAll); err != nil { // again, by the one that was spared
		t.Fatal(err)
	}
	h.use(a.Token, home, "")
	h.use(d.Token, home, afterlogin.ReasonSignedOutAll)
	if err := h.RevokeOthers(t.Context(), b.Session.ID, afterlogin.ReasonSignedOutAll); afterlogin.ReasonOf(err) != afterlogin.ReasonSignedOutAll {
		t.Errorf("a session that is over ends the others: %v", err)
	}
	next := h.renewed(a.Token, home)
	h.use(next, home, "")
	e := h.signIn("mia")
	if err := h.RevokeOthers(t.Context(), e.Session.ID, afterlogin.ReasonSignedOutAll); err != nil {
		t.Fatal(err)
	}
	h.use(next, home, afterlogin.ReasonSignedOutAll)
	h.use(e.Token, home, "")
}

func TestSignedOutEverywhere(t *testing.T) {
	h := newHouse(t)
	var tokens []afterlogin.Token
	for range 100 {
		tok := h.signIn("mia").Token
		h.use(tok, home, "")
		tokens = append(tokens, tok)
	}
	if err := h.RevokeSubject(t.Context(), 0, "mia", afterlogin.Sessions, afterlogin.ReasonAdministrator); err != nil {
		t.Fatal(err)
	}
	for _, tok := range tokens {
		h.use(tok, home, afterlogin.ReasonSignedOutAll)
	}
	h.use(h.signIn("mia").Token, home, "")
}

// No validation that starts after a revocation returned says yes, whatever the cache was doing.
func TestNoYesAfterRevocation(t *testing.T) {
	h := newHouse(t)
	for round := range 200 {
		in := h.signIn("mia")
		var wg sync.WaitGroup
		stop := make(chan struct{})
		for range 4 {
			wg.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
						h.Validate(context.Background(), in.Token, sessionFrom(home))
					}
				}
			})
		}
		var err error
		switch round % 3 {
		case 0:
			err = h.Revoke(t.Context(), in.Session.ID, afterlogin.ReasonSignedOut)
		case 1:
			err = h.RevokeSubject(t.Context(), 0, "mia", afterlogin.Sessions, afterlogin.ReasonAdministrator)
		case 2:
			err = h.RevokeOthers(t.Context(), h.signIn("mia").Session.ID, afterlogin.ReasonSignedOutAll)
		}
		if err != nil {
			t.Fatal(err)
		}
		for range 50 {
			if _, err := h.Validate(t.Context(), in.Token, sessionFrom(home)); err == nil {
				t.Fatalf("round %d: a yes after the revocation returned", round)
			}
		}
		close(stop)
		wg.Wait()
	}
}

func TestListAndPage(t *testing.T) {
	h := newHouse(t)
	want := make(map[afterlogin.SessionID]bool)
	for range 25 {
		h.clock.pass(10 * time.Minute)
		want[h.signIn("mia").Session.ID] = true
		h.signIn("tom")
	}
	h.clock.pass(-240 * time.Minute) // nobody is idle
	ended := h.signIn("mia").Session.ID
	if err := h.Revoke(t.Context(), ended, afterlogin.ReasonSignedOut); err != nil {
		t.Fatal(err)
	}
	got := make(map[afterlogin.SessionID]bool)
	q := afterlogin.Query{Subject: "mia", Limit: 10}
	for pages := 1; ; pages++ {
		p, err := h.Page(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range p.Sessions {
			if got[s.ID] || s.Subject != "mia" || !s.Ended.IsZero() {
				t.Errorf("%+v is listed twice, or is not hers, or is over", s)
			}
			got[s.ID] = true
		}
		if p.Next == "" {
			if pages != 3 {
				t.Errorf("%d pages, want 3", pages)
			}
			break
		}
		q.After = p.Next
	}
	if len(got) != len(want) {
		t.Errorf("%d sessions listed, want %d", len(got), len(want))
	}
	p, err := h.Page(t.Context(), afterlogin.Query{Subject: "mia", Ended: true, Limit: 100})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range p.Sessions {
		if (s.ID == ended) != (s.Why == afterlogin.ReasonSignedOut) || (s.ID == ended) == s.Ended.IsZero() {
			t.Errorf("%s: ended %v, why %q", s.ID, s.Ended, s.Why)
		}
	}
	for name, bad := range map[string]afterlogin.Query{
		"junk":              {Subject: "mia", After: "xxxx"},
		"another subject's": {Subject: "tom", After: q.After},
		"a changed one":     {Subject: "mia", After: "B" + q.After[1:]},
		"an over-long one":  {Subject: "mia", After: strings.Repeat("A", 1<<20)},
	} {
		if _, err := h.Page(t.Context(), bad); !errors.Is(err, afterlogin.ErrBadCursor) {
			t.Errorf("cursor %s: %v", name, err)
		}
	}
	if _, err := h.Page(t.Context(), afterlogin.Query{Limit: 1001}); !errors.Is(err, afterlogin.ErrBadRequest) {
		t.Errorf("limit 1001: %v", err)
	}
}

func TestDataLimitsAndCompareAndSet(t *testing.T) {
	h := newHouse(t)
	s := h.signIn("mia").Session
	set := func(f func(*afterlogin.Data) error) error { return h.UpdateData(t.Context(), s, f) }
	if err := set(func(d *afterlogin.Data) error { return d.Set("a", 1) }); err != nil {
		t.Fatal(err)
	}
	if err := set(func(d *afterlogin.Data) error { return d.SetIf("a", 2, 1) }); err != nil {
		t.Fatal(err)
	}
	if err := set(func(d *afterlogin.Data) error { return d.SetIf("a", 3, 1) }); !errors.Is(err, afterlogin.ErrDataConflict) {
		t.Errorf("SetIf with an old version: %v", err)
	}
	if err := set(func(d *afterlogin.Data) error { return d.SetIf("b", 3, 0) }); err != nil {
		t.Errorf("SetIf of a new key: %v", err)
	}
	var large *afterlogin.DataTooLargeError
	err := set(func(d *afterlogin.Data) error { return d.Set("big", strings.Repeat("x", afterlogin.MaxData)) })
	if !errors.As(err, &large) || large.Key != "big" || large.Size <= afterlogin.MaxData {
		t.Errorf("too large: %v", err)
	}
	if err := set(func(d *afterlogin.Data) error { return d.Set("big", strings.Repeat("x", afterlogin.MaxData-20)) }); err != nil {
		t.Errorf("just below the limit: %v", err)
	}
	if err := set(func(d *afterlogin.Data) error { d.Delete("big"); d.Delete("nothing"); return nil }); err != nil {
		t.Error(err)
	}
	for _, key := range []string{"", strings.Repeat("k", 129), "\xff"} {
		if err := set(func(d *afterlogin.Data) error { return d.Set(key, 1) }); !errors.Is(err, afterlogin.ErrBadRequest) {
			t.Errorf("key %q: %v", key, err)
		}
	}
	d, err := h.Data(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	var a int
	if ok, err := d.Get("a", &a); !ok || err != nil || a != 2 || d.Version("a") != 2 {
		t.Errorf("a = %d, version %d: %v", a, d.Version("a"), err)
	}
	if ok, err := d.Get("none", &a); ok || err != nil {
		t.Errorf("a key that is not there: %v, %v", ok, err)
	}
	var text string
	if _, err := d.Get("a", &text); err == nil {
		t.Error("a number decodes into a string")
	}
}

// Many keys that are each tiny: refused cleanly, not lost.
func TestDataWithManyKeys(t *testing.T) {
	h := newHouse(t)
	s := h.signIn("mia").Session
	err := h.UpdateData(t.Context(), s, func(d *afterlogin.Data) error {
		for i := range 2000 {
			if err := d.Set(fmt.Sprint(i), i); err != nil {
				return err
			}
		}
		return nil
	})
	if !errors.Is(err, afterlogin.ErrBadRequest) {
		t.Errorf("2000 keys: %v", err)
	}
}

func TestDataOfASessionThatIsOverCannotBeWritten(t *testing.T) {
	for name, end := range map[string]func(*house, afterlogin.Issued) error{
		"revoked": func(h *house, in afterlogin.Issued) error {
			return h.Revoke(t.Context(), in.Session.ID, afterlogin.ReasonSignedOut)
		},
		"signed out everywhere": func(h *house, in afterlogin.Issued) error {
			return h.RevokeSubject(t.Context(), 0, "mia", afterlogin.Sessions, afterlogin.ReasonAdministrator)
		},
		"idle": func(h *house, in afterlogin.Issued) error { h.clock.pass(time.Hour); return nil },
	} {
		h := newHouse(t)
		in := h.signIn("mia")
		if err := end(h, in); err != nil {
			t.Fatal(err)
		}
		err := h.UpdateData(t.Context(), in.Session, func(d *afterlogin.Data) error { return d.Set("a", 1) })
		if !errors.Is(err, afterlogin.ErrInvalidToken) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Who hangs up is signed out all the same.
func TestRevocationsDoNotNeedTheirClient(t *testing.T) {
	h := newHouse(t)
	a, b, c := h.signIn("mia"), h.signIn("mia"), h.signIn("tom")
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := h.RevokeToken(gone, c.Token, afterlogin.ReasonSignedOut); err != nil {
		t.Error(err)
	}
	if err := h.RevokeOthers(gone, a.Session.ID, afterlogin.ReasonSignedOutAll); err != nil {
		t.Error(err)
	}
	if err := h.Revoke(gone, a.Session.ID, afterlogin.ReasonSignedOut); err != nil {
		t.Error(err)
	}
	h.use(a.Token, home, afterlogin.ReasonRevoked)
	h.use(b.Token, home, afterlogin.ReasonSignedOutAll)
	h.use(c.Token, home, afterlogin.ReasonRevoked)
}

// One record that does not open is shown as what it is, and hides no other.
func TestListWithABadRecord(t *testing.T) {
	h := newHouse(t)
	for range 3 {
		h.signIn("mia")
	}
	var bad *store.Record
	for r, err := range h.store.List(t.Context(), store.Query{}) {
		if err != nil {
			t.Fatal(err)
		}
		bad = r
	}
	bad.Version++
	bad.Payload[30] ^= 1
	if err := h.store.Apply(t.Context(), bad.ID, store.Put(bad, bad.Version-1)); err != nil {
		t.Fatal(err)
	}
	p, err := h.Page(t.Context(), afterlogin.Query{Subject: "mia", Ended: true})
	if err != nil || len(p.Sessions) != 3 {
		t.Fatalf("%d sessions: %v", len(p.Sessions), err)
	}
	for _, s := range p.Sessions {
		if s.Why == afterlogin.ReasonUnreadable {
			if err := h.Revoke(t.Context(), s.ID, afterlogin.ReasonAdministrator); err != nil {
				t.Error(err)
			}
			return
		}
	}
	t.Error("the record that does not open is not shown")
}

// The cache is believed for a second, and not longer, without a word from the store.
func TestTheCacheNeedsTheStore(t *testing.T) {
	h := newHouse(t)
	in := h.signIn("mia")
	h.use(in.Token, home, "")
	if err := h.store.Close(); err != nil {
		t.Fatal(err)
	}
	h.clock.pass(time.Second)
	if _, err := h.Validate(t.Context(), in.Token, sessionFrom(home)); !errors.Is(err, afterlogin.ErrUnavailable) {
		t.Errorf("a second after the store is gone: %v", err)
	}
}

// reads is a store that counts reads.
type reads struct {
	store.Store
	n atomic.Int64
}

func (r *reads) Get(ctx context.Context, ids ...store.ID) ([]*store.Record, error) {
	r.n.Add(1)
	return r.Store.Get(ctx, ids...)
}

// Anonymous sessions are cached, too, whoever signs in meanwhile.
func TestAnonymousSessionsAreCached(t *testing.T) {
	r := &reads{Store: memstore.New()}
	h := newHouse(t, func(c *afterlogin.Config) { c.Store = r })
	anon := h.anonymous("[]")
	h.use(anon.Token, home, "")
	for i := range 500 {
		if err := h.RevokeSubject(t.Context(), 0, fmt.Sprint("u", i), afterlogin.Sessions, afterlogin.ReasonAdministrator); err != nil {
			t.Fatal(err)
		}
	}
	r.n.Store(0)
	for range 10 {
		h.use(anon.Token, home, "")
	}
	if n := r.n.Load(); n != 0 {
		t.Errorf("%d reads for 10 validations", n)
	}
}

// What was seen last is written when the authority is closed.
func TestCloseWritesLastUses(t *testing.T) {
	h := newHouse(t)
	in := h.signIn("mia")
	h.clock.pass(30 * time.Minute)
	h.use(in.Token, home, "")
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	for r, err := range h.store.List(t.Context(), store.Query{}) {
		if err != nil || r.LastSeen != h.clock.ms.Load() || r.SeenGen != 1 {
			t.Errorf("last seen %d, generation %d: %v", r.LastSeen, r.SeenGen, err)
		}
	}
}

func TestConcurrentDataWritesAreAllThere(t *testing.T) {
	h := newHouse(t)
	s := h.signIn("mia").Session
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			err := h.UpdateData(t.Context(), s, func(d *afterlogin.Data) error {
				var n int
				if _, err := d.Get("n", &n); err != nil {
					return err
				}
				return d.Set("n", n+1)
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	d, err := h.Data(t.Context(), s)
	if err != nil || string(d.JSON("n")) != "32" {
		t.Errorf("n = %s after 32 increments: %v", d.JSON("n"), err)
	}
}

func TestCSRFToken(t *testing.T) {
	h := newHouse(t)
	a, b := h.signIn("mia"), h.signIn("mia")
	text := h.CSRFToken(a.Session)
	good := func(s *afterlogin.Session, text string) bool {
		ok, err := h.CheckCSRF(s, text)
		if err != nil {
			t.Error(err)
		}
		return ok
	}
	if !good(a.Session, text) || good(b.Session, text) || good(a.Session, "") || good(a.Session, text[:43]+"!") {
		t.Error("the CSRF token is not the session's alone")
	}
	if s := h.use(h.renewed(a.Token, home), home, ""); !good(s, text) {
		t.Error("a form that was open during a renewal does not work any more")
	}
}

func TestWatch(t *testing.T) {
	h := newHouse(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	events, err := h.Watch(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	in := h.signIn("mia")
	h.renewed(in.Token, home)
	if err := h.Revoke(t.Context(), in.Session.ID, afterlogin.ReasonSignedOut); err != nil {
		t.Fatal(err)
	}
	var got []string
	var cursor string
	for e, err := range events {
		if err != nil {
			t.Fatal(err)
		}
		if e.Session != in.Session.ID || e.Subject != "mia" {
			t.Errorf("event %+v", e)
		}
		if got = append(got, e.Type); len(got) == 2 {
			cursor = e.Cursor
		}
		if len(got) == 3 {
			break
		}
	}
	if fmt.Sprint(got) != fmt.Sprint([]string{afterlogin.EventCreated, afterlogin.EventRenewed, afterlogin.EventRevoked}) {
		t.Errorf("events %v", got)
	}
	again, err := h.Watch(ctx, cursor)
	if err != nil {
		t.Fatal(err)
	}
	for e, err := range again {
		if err != nil || e.Type != afterlogin.EventRevoked {
			t.Errorf("behind the cursor: %+v, %v", e, err)
		}
		break
	}
	if _, err := h.Watch(ctx, "yesterday"); !errors.Is(err, afterlogin.ErrGap) {
		t.Errorf("a cursor that is none: %v, want ErrGap", err)
	}
}

// Expired records are cleaned up, and a clock that jumps to 2040 cleans up nothing.
func TestJanitor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		count := func(s *memstore.Store) (n int) {
			for range s.List(t.Context(), store.Query{}) {
				n++
			}
			return n
		}
		var jump atomic.Int64 // the clock is wrong by that many nanoseconds
		s := memstore.New()
		a, err := afterlogin.New(afterlogin.Config{Store: s, Now: func() time.Time { return time.Now().Add(time.Duration(jump.Load())) }})
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		if _, err := a.Issue(t.Context(), afterlogin.IssueRequest{Subject: "mia"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Hour)
		jump.Store(int64(14 * 365 * 24 * time.Hour))
		time.Sleep(2 * time.Hour)
		if count(s) != 1 {
			t.Error("a jump of the clock deleted a session")
		}
		jump.Store(0)
		time.Sleep(3 * time.Hour)
		if count(s) != 1 {
			t.Error("cleaned up too early")
		}
		time.Sleep(3 * time.Hour)
		if count(s) != 0 {
			t.Error("not cleaned up 4 hours after the end")
		}
	})
}
