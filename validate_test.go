package afterlogin_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/store"
)

func TestIdleAndAbsolute(t *testing.T) {
	for _, cached := range []bool{true, false} {
		h := newHouse(t, func(c *afterlogin.Config) {
			if !cached {
				c.CacheSize = -1
			}
		})
		tok := h.signIn("mia").Token
		h.clock.pass(time.Hour - time.Millisecond)
		h.use(tok, home, "")
		h.clock.pass(time.Hour - time.Millisecond)
		h.use(tok, home, "")
		h.clock.pass(time.Hour)
		h.use(tok, home, afterlogin.ReasonIdle)
		h.clock.pass(-time.Millisecond)
		h.use(tok, home, "")

		// In use all day, and over all the same.
		tok = h.signIn("mia").Token
		for range 24*4 - 1 {
			h.clock.pass(15 * time.Minute)
			h.use(tok, home, "")
			if next := h.renew(tok, home); !next.IsZero() {
				tok = next
			}
		}
		h.clock.pass(15*time.Minute - time.Millisecond)
		h.use(tok, home, "")
		h.clock.pass(time.Millisecond)
		h.use(tok, home, afterlogin.ReasonExpired)
	}
}

// To watch is no use, whether it is answered from the cache or from the store.
func TestWatchingIsNoUse(t *testing.T) {
	for _, cached := range []bool{true, false} {
		h := newHouse(t, func(c *afterlogin.Config) {
			if !cached {
				c.CacheSize = -1
			}
		})
		tok := h.signIn("mia").Token
		h.use(tok, home, "")
		e := sessionFrom(home)
		e.Watch = true
		var idle time.Time
		for range 3 {
			h.clock.pass(19 * time.Minute)
			s, err := h.Validate(t.Context(), tok, e)
			if err != nil {
				t.Fatalf("cached %t: %v", cached, err)
			}
			if idle.IsZero() {
				idle = s.Idle
			}
			if !s.Idle.Equal(idle) {
				t.Errorf("cached %t: it ends at %v by now, and not at %v", cached, s.Idle, idle)
			}
		}
		h.clock.pass(3 * time.Minute)
		if _, err := h.Validate(t.Context(), tok, e); afterlogin.ReasonOf(err) != afterlogin.ReasonIdle {
			t.Errorf("cached %t: watched for an hour and not idle: %v", cached, err)
		}
		h.use(tok, home, afterlogin.ReasonIdle)
	}
}

// Whoever only watches after a renewal has the new token all the same: an old copy is a theft.
func TestWatchingBetraysACopy(t *testing.T) {
	for _, cached := range []bool{true, false} {
		h := newHouse(t, func(c *afterlogin.Config) {
			if !cached {
				c.CacheSize = -1
			}
		})
		old := h.signIn("mia").Token
		h.use(old, home, "")
		h.clock.pass(16 * time.Minute)
		tok := h.renew(old, home)
		e := sessionFrom(home)
		e.Watch = true
		var idle time.Time
		for range 3 {
			h.clock.pass(time.Minute)
			s, err := h.Validate(t.Context(), tok, e)
			if err != nil {
				t.Fatalf("cached %t: %v", cached, err)
			}
			if idle.IsZero() {
				idle = s.Idle
			}
			if !s.Idle.Equal(idle) {
				t.Errorf("cached %t: it ends at %v by now, and not at %v", cached, s.Idle, idle)
			}
		}
		h.use(old, train, afterlogin.ReasonReused)
	}
}

// So it is while the cache answers.
func TestWatchingFromTheCache(t *testing.T) {
	h := newHouse(t, func(c *afterlogin.Config) {
		c.Policies = afterlogin.DefaultPolicies()
		c.Policies[afterlogin.PolicyBrowser] = afterlogin.Policy{Idle: 20 * time.Second, Absolute: time.Hour}
	})
	tok := h.signIn("mia").Token
	idle := h.use(tok, home, "").Idle
	e := sessionFrom(home)
	e.Watch = true
	h.clock.pass(1500 * time.Millisecond)
	h.use(h.signIn("tom").Token, home, "") // asks the store, and so extends the lease
	hits := h.Stats().Hits
	s, err := h.Validate(t.Context(), tok, e)
	if err != nil || !s.Idle.Equal(idle) {
		t.Fatalf("it ends at %v by now, and not at %v: %v", s.Idle, idle, err)
	}
	if h.Stats().Hits == hits {
		t.Fatal("the cache has not answered")
	}
	if s = h.use(tok, home, ""); !s.Idle.After(idle) {
		t.Error("a use is none")
	}
}

func TestRemember(t *testing.T) {
	h := newHouse(t)
	in, err := h.Issue(t.Context(), afterlogin.IssueRequest{Subject: "mia", Policy: afterlogin.PolicyRemember})
	if err != nil {
		t.Fatal(err)
	}
	tok := in.Token
	for range 2 {
		h.clock.pass(14*24*time.Hour - time.Hour)
		h.use(tok, train, "")
		next := h.renew(tok, train)
		h.use(next, train, "")
		tok = next
	}
	h.clock.pass(2*24*time.Hour + 2*time.Hour)
	h.use(tok, train, afterlogin.ReasonExpired)
}

func TestExpectations(t *testing.T) {
	h := newHouse(t)
	in, err := h.Issue(t.Context(), afterlogin.IssueRequest{Subject: "mia", Client: "app", Tenant: 7, Scopes: []string{"read"}})
	if err != nil {
		t.Fatal(err)
	}
	kinds := []afterlogin.Kind{afterlogin.KindSession}
	for range 2 { // the first look at the store, and the cache
		for _, tt := range []struct {
			name string
			e    afterlogin.Expect
			want afterlogin.Reason
		}{
			{"what it is", afterlogin.Expect{Kinds: kinds, Tenant: 7}, ""},
			{"all of it", afterlogin.Expect{Kinds: kinds, Tenant: 7, Client: "app", Scopes: []string{"read"}, MaxAge: time.Hour}, ""},
			{"another tenant", afterlogin.Expect{Kinds: kinds}, afterlogin.ReasonWrongTenant},
			{"another client", afterlogin.Expect{Kinds: kinds, Tenant: 7, Client: "other"}, afterlogin.ReasonWrongClient},
			{"another scope", afterlogin.Expect{Kinds: kinds, Tenant: 7, Scopes: []string{"write"}}, afterlogin.ReasonScope},
			{"another kind", afterlogin.Expect{Kinds: []afterlogin.Kind{afterlogin.KindAPIKey}, Tenant: 7}, afterlogin.ReasonWrongKind},
		} {
			_, err := h.Validate(t.Context(), in.Token, tt.e)
			if afterlogin.ReasonOf(err) != tt.want || tt.want == "" && err != nil {
				t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
			}
		}
	}
	if _, err := h.Validate(t.Context(), in.Token, afterlogin.Expect{}); !errors.Is(err, afterlogin.ErrBadRequest) {
		t.Errorf("no expectation at all: %v, want ErrBadRequest", err)
	}
	h.clock.pass(30 * time.Minute)
	if _, err := h.Validate(t.Context(), in.Token, afterlogin.Expect{Kinds: kinds, Tenant: 7, MaxAge: 29 * time.Minute}); afterlogin.ReasonOf(err) != afterlogin.ReasonStaleAuth {
		t.Errorf("signed in 30 minutes ago, 29 allowed: %v", err)
	}
}

// Who lacks what stands before the generation in the order of checks cannot end a session with an old token.
func TestAFailedCheckRevokesNothing(t *testing.T) {
	h := newHouse(t)
	in, err := h.Issue(t.Context(), afterlogin.IssueRequest{Subject: "mia", Client: "app"})
	if err != nil {
		t.Fatal(err)
	}
	next := h.renewed(in.Token, home)
	h.use(next, home, "")
	h.clock.pass(time.Minute)
	for name, e := range map[string]afterlogin.Expect{
		"another client": {Client: "other"}, "another tenant": {Tenant: 3},
	} {
		e.Kinds = []afterlogin.Kind{afterlogin.KindSession}
		if _, err := h.Validate(t.Context(), in.Token, e); !errors.Is(err, afterlogin.ErrInvalidToken) {
			t.Errorf("%s: %v", name, err)
		}
	}
	h.use(next, home, "")
}

// mute is a store that fails the test when it is written to.
type mute struct {
	store.Store
	t     *testing.T
	deaf  bool // reads count, too
	fails bool // and every call fails
}

func (m *mute) Apply(ctx context.Context, root store.ID, ops ...store.Op) error {
	m.t.Error("a write")
	return m.Store.Apply(ctx, root, ops...)
}

func (m *mute) Get(ctx context.Context, ids ...store.ID) ([]*store.Record, error) {
	if m.deaf {
		m.t.Error("a read")
	}
	if m.fails {
		return nil, errors.New("the disk is on fire")
	}
	return m.Store.Get(ctx, ids...)
}

func TestJunkNeverReachesTheStore(t *testing.T) {
	h := newHouse(t)
	good := h.signIn("mia").Token.Reveal()
	quiet := newHouse(t, func(c *afterlogin.Config) {
		c.Store, c.Keys = &mute{Store: h.store, t: t, deaf: true}, h.keys
	})
	for i := range good {
		b := []byte(good)
		b[i] ^= 1
		for _, s := range []string{string(b), good[:i], good + good[:i+1], strings.Repeat(good, 100)} {
			if s == good {
				continue
			}
			if _, err := quiet.Validate(t.Context(), afterlogin.TokenFrom(s), sessionFrom(home)); !errors.Is(err, afterlogin.ErrInvalidToken) {
				t.Fatalf("junk is accepted: %v", err)
			}
		}
	}
}

func TestValidationWritesNothing(t *testing.T) {
	h := newHouse(t)
	old := h.signIn("mia").Token
	next := h.renewed(old, home)
	ended := h.signIn("tom")
	if err := h.Revoke(t.Context(), ended.Session.ID, afterlogin.ReasonAdministrator); err != nil {
		t.Fatal(err)
	}
	m := &mute{Store: h.store, t: t}
	quiet := newHouse(t, func(c *afterlogin.Config) { c.Store, c.Keys, c.Now = m, h.keys, h.clock.now })
	quiet.use(old, home, "")
	quiet.use(next, home, "")
	quiet.use(next, home, "")
	quiet.use(ended.Token, home, afterlogin.ReasonRevoked)
	h.clock.pass(2 * time.Hour)
	quiet.use(next, home, afterlogin.ReasonIdle)
}

// An unknown answer is ErrUnavailable: never a yes past the cache, never a no.
func TestStoreTroubleIsUnavailable(t *testing.T) {
	h := newHouse(t)
	in := h.signIn("mia")
	m := &mute{Store: h.store, t: t, fails: true}
	q := newHouse(t, func(c *afterlogin.Config) { c.Store, c.Keys, c.Now = m, h.keys, h.clock.now })
	_, err := q.Validate(t.Context(), in.Token, sessionFrom(home))
	if !errors.Is(err, afterlogin.ErrUnavailable) || errors.Is(err, afterlogin.ErrInvalidToken) {
		t.Errorf("Validate = %v", err)
	}
	if _, err := q.Renew(t.Context(), in.Token, in.Session, home); !errors.Is(err, afterlogin.ErrUnavailable) {
		t.Errorf("Renew = %v", err)
	}
	if _, err := q.Issue(t.Context(), afterlogin.IssueRequest{Subject: "mia"}); !errors.Is(err, afterlogin.ErrUnavailable) {
		t.Errorf("Issue = %v", err)
	}
	if err := q.Revoke(t.Context(), in.Session.ID, afterlogin.ReasonSignedOut); !errors.Is(err, afterlogin.ErrUnavailable) {
		t.Errorf("Revoke = %v", err)
	}
	if err := q.RevokeSubject(t.Context(), 0, "mia", afterlogin.Sessions, afterlogin.ReasonAdministrator); !errors.Is(err, afterlogin.ErrUnavailable) {
		t.Errorf("RevokeSubject = %v", err)
	}
	if err := q.Ping(t.Context()); !errors.Is(err, afterlogin.ErrUnavailable) {
		t.Errorf("Ping = %v", err)
	}
}

// A record that was changed behind the authority's back does not open, whatever was changed.
func TestATamperedRecordDoesNotOpen(t *testing.T) {
	for name, tamper := range map[string]func(*store.Record){
		"another subject":   func(r *store.Record) { r.Subject = "eve" },
		"a later end":       func(r *store.Record) { r.Absolute += 1000 },
		"another kind":      func(r *store.Record) { r.Kind = 'k' },
		"another tenant":    func(r *store.Record) { r.Tenant = 9 },
		"another client":    func(r *store.Record) { r.Client = "x" },
		"another payload":   func(r *store.Record) { r.Payload[len(r.Payload)-1] ^= 1 },
		"no payload":        func(r *store.Record) { r.Payload = nil },
		"another creation":  func(r *store.Record) { r.Created++ },
		"the version alone": func(r *store.Record) {},
	} {
		h := newHouse(t)
		in := h.signIn("mia")
		var rec *store.Record
		for r, err := range h.store.List(t.Context(), store.Query{}) {
			if err != nil {
				t.Fatal(err)
			}
			rec = r
		}
		tamper(rec)
		rec.Version++
		if err := h.store.Apply(t.Context(), rec.ID, store.Put(rec, rec.Version-1)); err != nil {
			t.Fatal(err)
		}
		if _, err := h.Validate(t.Context(), in.Token, sessionFrom(home)); !errors.Is(err, afterlogin.ErrUnavailable) && afterlogin.ReasonOf(err) != afterlogin.ReasonWrongKind {
			t.Errorf("%s: %v, want a refusal to say yes", name, err)
		}
	}
}

func TestTokensDoNotPrint(t *testing.T) {
	h := newHouse(t)
	in := h.signIn("mia")
	secret := in.Token.Reveal()
	holder := struct {
		Token  afterlogin.Token
		hidden afterlogin.Token
	}{in.Token, in.Token}
	var out strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&out, verb+"\n", in.Token)
		fmt.Fprintf(&out, verb+"\n", holder)
		fmt.Fprintf(&out, verb+"\n", []afterlogin.Token{in.Token})
		fmt.Fprintf(&out, verb+"\n", &holder)
	}
	for _, log := range []*slog.Logger{slog.New(slog.NewTextHandler(&out, nil)), slog.New(slog.NewJSONHandler(&out, nil))} {
		log.Info("x", "token", in.Token, "holder", holder, "issued", in)
	}
	b, err := json.Marshal(map[string]any{"t": in.Token, "s": in.Session})
	if err != nil {
		t.Fatal(err)
	}
	out.Write(b)
	if strings.Contains(out.String(), secret[4:20]) || strings.Contains(out.String(), fmt.Sprintf("%x", secret[4:20])) {
		t.Errorf("the token prints:\n%s", out.String())
	}
	if !strings.Contains(out.String(), "[token]") {
		t.Error("nothing says [token]")
	}
}

func TestExplain(t *testing.T) {
	h := newHouse(t)
	tok := h.signIn("mia").Token
	explain := func(s afterlogin.Token) *afterlogin.Explanation {
		ex, err := h.Explain(t.Context(), s, home)
		if err != nil {
			t.Fatal(err)
		}
		for _, st := range ex.Steps {
			if st.Note == "" || strings.Contains(st.Note, tok.Reveal()[5:]) {
				t.Errorf("step %s: note %q", st.Check, st.Note)
			}
		}
		return ex
	}
	if ex := explain(tok); !ex.Valid || len(ex.Steps) != 5 {
		t.Errorf("a good token: %+v", ex)
	}
	if ex := explain(afterlogin.TokenFrom("hello")); ex.Valid || ex.Reason != afterlogin.ReasonMalformed {
		t.Errorf("not a token: %+v", ex)
	}
	next := h.renewed(tok, home)
	h.use(next, home, "")
	h.clock.pass(time.Minute)
	for range 2 { // explaining a theft does not act on it
		if ex := explain(tok); ex.Valid || ex.Reason != afterlogin.ReasonReused {
			t.Errorf("an old token: %+v", ex)
		}
	}
	h.use(next, home, "")
	h.use(tok, thief, afterlogin.ReasonReused)
	if ex := explain(next); ex.Valid || ex.Reason != afterlogin.ReasonRevoked || ex.Session == nil {
		t.Errorf("after the theft: %+v", ex)
	}
}
