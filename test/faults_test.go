package test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/keyring"
	"github.com/afterlogin/afterlogin/store"
	"github.com/afterlogin/afterlogin/store/memstore"
	"github.com/afterlogin/afterlogin/store/storetest"
)

// scene is an authority whose store can be told to fail, and another on the same store whose calls never do: it sees
// what is really so.
type scene struct {
	t      *testing.T
	clock  *clock
	faulty *storetest.Faulty
	a      *afterlogin.Authority // the one that suffers
	truth  *afterlogin.Authority

	in, other afterlogin.Issued // mia's sessions
	old       afterlogin.Token  // an out-of-date token of in's
	anon      afterlogin.Issued
	result    afterlogin.Issued // of the act

	grant   afterlogin.Grant // mia's, of the client app
	granted afterlogin.Grant // of the act
	once    afterlogin.Token // a code or a ticket
	key     afterlogin.Issued
}

func newScene(t *testing.T) *scene {
	s := &scene{t: t, clock: newClock()}
	base, keys := memstore.New(), keyring.New()
	s.faulty = storetest.NewFaulty(base, nil)
	s.a = authority(t, s.faulty, keys, s.clock)
	s.truth = authority(t, base, keys, s.clock)
	s.in = must[afterlogin.Issued](t)(s.truth.Issue(ctx, afterlogin.IssueRequest{Subject: "mia"}))
	s.other = must[afterlogin.Issued](t)(s.truth.Issue(ctx, afterlogin.IssueRequest{Subject: "mia"}))
	s.anon = must[afterlogin.Issued](t)(s.truth.Issue(ctx, afterlogin.IssueRequest{Data: map[string]json.RawMessage{"cart": json.RawMessage(`["mug"]`)}}))
	s.old = s.in.Token
	s.clock.pass(15 * time.Minute)
	next := must[afterlogin.Issued](t)(s.truth.Rotate(ctx, s.in.Token, session()))
	for _, a := range []*afterlogin.Authority{s.truth, s.a} { // both have seen it in use
		if got := answer(a, next.Token); got != "good" {
			t.Fatal(got)
		}
	}
	s.in.Token = next.Token
	s.clock.pass(time.Minute)
	return s
}

func (s *scene) cart(a *afterlogin.Authority, of *afterlogin.Session) string {
	d, err := a.Data(ctx, of)
	if err != nil {
		return err.Error()
	}
	return string(d.JSON("cart"))
}

// An act is one call of the authority, what must be so when it returned without an error, and what must be so in any
// case. After every act without success it is done again without faults, and must then succeed.
type act struct {
	name string
	set  func(s *scene) // what there is before, if anything
	do   func(s *scene) error
	done func(s *scene) string // "" or what is wrong, after success
	safe func(s *scene) string // "" or what is wrong, whatever happened
}

func want(what, got, want string) string {
	if got != want {
		return fmt.Sprintf("%s: %s, want %s", what, got, want)
	}
	return ""
}

// oneOf accepts several words.
func oneOf(what, got string, words ...string) string {
	for _, w := range words {
		if got == w {
			return ""
		}
	}
	return fmt.Sprintf("%s: %s, want one of %v", what, got, words)
}

var acts = []act{
	{
		name: "validate",
		do: func(s *scene) error {
			_, err := s.a.Validate(ctx, s.in.Token, session())
			return err
		},
		safe: func(s *scene) string { return want("the session", answer(s.truth, s.in.Token), "good") },
	},
	{
		name: "validate a revoked session",
		do: func(s *scene) error {
			if err := s.truth.Revoke(ctx, s.in.Session.ID, afterlogin.ReasonAdministrator); err != nil {
				return err
			}
			_, err := s.a.Validate(ctx, s.in.Token, session())
			if afterlogin.ReasonOf(err) == afterlogin.ReasonRevoked {
				return nil
			}
			if err == nil {
				s.t.Error("a yes")
			}
			return err
		},
	},
	{
		name: "reuse",
		do: func(s *scene) error {
			_, err := s.a.Validate(ctx, s.old, session())
			switch afterlogin.ReasonOf(err) {
			case afterlogin.ReasonReused, afterlogin.ReasonRevoked:
				return nil
			}
			if err == nil {
				s.t.Error("a yes to a stolen token")
			}
			return err
		},
		done: func(s *scene) string { return want("the newest token", answer(s.truth, s.in.Token), "revoked") },
	},
	{
		name: "sign-in",
		do: func(s *scene) (err error) {
			s.result, err = s.a.Issue(ctx, afterlogin.IssueRequest{Subject: "mia", From: s.anon.Token})
			return err
		},
		done: func(s *scene) string {
			return want("the new token", answer(s.truth, s.result.Token), "good") +
				want("the cart", s.cart(s.truth, s.result.Session), `["mug"]`) +
				want("the anonymous token", answer(s.truth, s.anon.Token), "superseded")
		},
		safe: func(s *scene) string {
			return oneOf("the anonymous token", answer(s.truth, s.anon.Token), "good", "superseded")
		},
	},
	{
		name: "first sign-in of a subject",
		do: func(s *scene) error {
			m, err := s.a.Begin(ctx, 0, "tom")
			if err != nil {
				return err
			}
			s.result, err = s.a.Issue(ctx, afterlogin.IssueRequest{Subject: "tom", Mark: m})
			return err
		},
		done: func(s *scene) string { return want("the new token", answer(s.truth, s.result.Token), "good") },
	},
	{
		name: "renewal",
		do: func(s *scene) (err error) {
			s.clock.pass(15 * time.Minute)
			s.result, err = s.a.Renew(ctx, s.in.Token, s.in.Session, afterlogin.Client{})
			return err
		},
		done: func(s *scene) string {
			if s.result.Token.IsZero() {
				return "no new token"
			}
			return want("the new token", answer(s.truth, s.result.Token), "good") +
				want("the old token, in its grace", answer(s.truth, s.in.Token), "good")
		},
		safe: func(s *scene) string { return want("the presented token", answer(s.truth, s.in.Token), "good") },
	},
	{
		name: "step-up",
		do: func(s *scene) (err error) {
			s.result, err = s.a.StepUp(ctx, s.in.Token, afterlogin.Authentication{Methods: []string{"otp"}}, afterlogin.Client{})
			if afterlogin.ReasonOf(err) == afterlogin.ReasonSuperseded {
				return nil // the first try happened, and its answer is lost: they sign in again
			}
			return err
		},
		done: func(s *scene) string {
			if s.result.Token.IsZero() {
				return ""
			}
			return want("the new token", answer(s.truth, s.result.Token), "good") +
				want("the old token", answer(s.truth, s.in.Token), "superseded")
		},
		safe: func(s *scene) string {
			return oneOf("the old token", answer(s.truth, s.in.Token), "good", "superseded")
		},
	},
	{
		name: "revoke",
		do:   func(s *scene) error { return s.a.Revoke(ctx, s.in.Session.ID, afterlogin.ReasonSignedOut) },
		done: func(s *scene) string { return want("the session", answer(s.truth, s.in.Token), "revoked") },
		safe: func(s *scene) string { return want("the other session", answer(s.truth, s.other.Token), "good") },
	},
	{
		name: "freeze",
		do:   func(s *scene) error { return s.a.Freeze(ctx, s.in.Session.ID, "incident") },
		done: func(s *scene) string { return want("the session", answer(s.truth, s.in.Token), "frozen") },
		safe: func(s *scene) string {
			return oneOf("the session", answer(s.truth, s.in.Token), "good", "frozen") +
				want("the other session", answer(s.truth, s.other.Token), "good")
		},
	},
	{
		name: "freeze and thaw",
		do: func(s *scene) error {
			if err := s.a.Freeze(ctx, s.in.Session.ID, "incident"); err != nil {
				return err
			}
			return s.a.Thaw(ctx, s.in.Session.ID, "incident")
		},
		done: func(s *scene) string { return want("the session", answer(s.truth, s.in.Token), "good") },
		safe: func(s *scene) string {
			return oneOf("the session", answer(s.truth, s.in.Token), "good", "frozen")
		},
	},
	{
		name: "revoke others",
		do:   func(s *scene) error { return s.a.RevokeOthers(ctx, s.in.Session.ID, afterlogin.ReasonSignedOutAll) },
		done: func(s *scene) string {
			return want("the other session", answer(s.truth, s.other.Token), "signed_out_all")
		},
		safe: func(s *scene) string { return want("the session", answer(s.truth, s.in.Token), "good") },
	},
	{
		name: "revoke subject",
		do: func(s *scene) error {
			return s.a.RevokeSubject(ctx, 0, "mia", afterlogin.Everything, afterlogin.ReasonAdministrator)
		},
		done: func(s *scene) string {
			return want("a session", answer(s.truth, s.in.Token), "signed_out_all") +
				want("the other session", answer(s.truth, s.other.Token), "signed_out_all")
		},
	},
	{
		name: "write data",
		do: func(s *scene) error {
			return s.a.UpdateData(ctx, s.anon.Session, func(d *afterlogin.Data) error { return d.Set("cart", []string{"mug", "pen"}) })
		},
		done: func(s *scene) string { return want("the cart", s.cart(s.truth, s.anon.Session), `["mug","pen"]`) },
		safe: func(s *scene) string {
			return oneOf("the cart", s.cart(s.truth, s.anon.Session), `["mug"]`, `["mug","pen"]`)
		},
	},
	{
		name: "list",
		do: func(s *scene) error {
			n := 0
			for _, err := range s.a.Sessions(ctx, afterlogin.Query{Subject: "mia"}) {
				if err != nil {
					return err
				}
				n++
			}
			if n != 2 {
				s.t.Errorf("%d sessions listed, want 2", n)
			}
			return nil
		},
	},
	{
		name: "explain",
		do: func(s *scene) error {
			ex, err := s.a.Explain(ctx, s.in.Token, afterlogin.Client{})
			if err == nil && !ex.Valid {
				s.t.Error("a good token is explained as bad")
			}
			return err
		},
	},
}

// faults are what can go wrong with one call of the store. Each comes twice: it did not happen, and it did.
var faults = map[string]storetest.Fault{
	"fails":                          {Before: storetest.ErrFault},
	"is unknown, and did not happen": {Before: store.ErrUnknown},
	"is unknown, and happened":       {After: store.ErrUnknown},
	"is full":                        {Before: store.ErrFull},
	"is closed":                      {Before: store.ErrClosed},
}

// Every act is done with every call of the store going wrong in turn, in every way. The only answers are the right one
// and ErrUnavailable.
func TestEveryCallFails(t *testing.T) {
	for _, act := range append(acts, childActs...) {
		t.Run(act.name, func(t *testing.T) {
			for fault, f := range faults {
				for k := 1; ; k++ {
					s := newScene(t)
					if act.set != nil {
						act.set(s)
					}
					calls := 0
					s.faulty.SetHook(func(c storetest.Call) storetest.Fault {
						if c.Method == "Notice" || c.Method == "Touch" {
							return storetest.Fault{}
						}
						if calls++; calls == k {
							return f
						}
						return storetest.Fault{}
					})
					err := act.do(s)
					s.faulty.SetHook(nil)
					where := fmt.Sprintf("call %d %s", k, fault)
					s.check(act, where, err)
					if t.Failed() {
						return
					}
					if calls < k {
						break // every call had its turn
					}
				}
			}
		})
	}
}

func (s *scene) check(act act, where string, err error) {
	s.t.Helper()
	if err != nil && !errors.Is(err, afterlogin.ErrUnavailable) {
		s.t.Errorf("%s: %v, want success or ErrUnavailable", where, err)
	}
	if err != nil && errors.Is(err, afterlogin.ErrInvalidToken) {
		s.t.Errorf("%s: %v is a refusal, too", where, err)
	}
	if act.safe != nil {
		if wrong := act.safe(s); wrong != "" {
			s.t.Errorf("%s: %v; %s", where, err, wrong)
		}
	}
	if err != nil {
		if strings.Contains(fmt.Sprint(err), s.in.Token.Reveal()[10:40]) {
			s.t.Errorf("%s: a token in the error", where)
		}
		if act.name == "sign-in" {
			s.clock.pass(31 * time.Second) // the cart thaws
		}
		if err := act.do(s); err != nil {
			s.t.Errorf("%s: once more, without faults: %v", where, err)
			return
		}
	}
	if act.done != nil {
		if wrong := act.done(s); wrong != "" {
			s.t.Errorf("%s: %s", where, wrong)
		}
	}
}

// A store that fails at random, now and then, for a long while: what was answered holds.
func TestAStoreThatFailsNowAndThen(t *testing.T) {
	for seed := range uint64(20) {
		s := newScene(t)
		s.faulty.SetHook(storetest.Random(seed, 0.2, false))
		tok := s.in.Token
		ended := false
		for range 300 {
			s.clock.pass(20 * time.Second)
			now, err := s.a.Validate(ctx, tok, session())
			if errors.Is(err, afterlogin.ErrUnavailable) {
				continue
			}
			if err != nil {
				t.Fatalf("seed %d: an honest session: %v", seed, err)
			}
			if got, err := s.a.Renew(ctx, tok, now, afterlogin.Client{}); err == nil && !got.Token.IsZero() {
				tok = got.Token
			}
		}
		for range 50 {
			if err := s.a.Revoke(ctx, s.in.Session.ID, afterlogin.ReasonSignedOut); err == nil {
				ended = true
				break
			}
		}
		for range 50 {
			if got := answer(s.a, tok); ended && got != "revoked" && got != "unavailable" {
				t.Fatalf("seed %d: after an answered revocation the session is %s", seed, got)
			}
		}
	}
}
