package afterlogin_test

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/internal/opaque"
	"github.com/afterlogin/afterlogin/keyring"
)

// The five rules of rotation, one by one (DESIGN 4.3).

func TestRenewalIsDueByUse(t *testing.T) {
	h := newHouse(t)
	tok := h.signIn("mia").Token
	if h.use(tok, home, "").RenewalDue() || !h.renew(tok, home).IsZero() {
		t.Error("a fresh token is renewed")
	}
	h.clock.pass(15*time.Minute - time.Millisecond)
	if h.use(tok, home, "").RenewalDue() {
		t.Error("renewal is due a millisecond early")
	}
	h.clock.pass(time.Millisecond)
	s := h.use(tok, home, "")
	if !s.RenewalDue() {
		t.Error("renewal is not due in time")
	}
	next := h.renew(tok, home)
	after := h.use(next, home, "")
	if after.ID != s.ID || after.Generation != 2 || !after.Absolute.Equal(s.Absolute) {
		t.Errorf("after the renewal: %+v, want the same session in generation 2", after)
	}
	if len(next.Reveal()) != len(tok.Reveal()) {
		t.Error("the token changed its length")
	}
}

func TestTheSuccessorGoesToItsClientOnly(t *testing.T) {
	h := newHouse(t)
	old := h.signIn("mia").Token
	next := h.renewed(old, home)
	if again := h.renew(old, home); !same(again, next) {
		t.Error("a duplicate of the request that rotated gets another token, or none")
	}
	if !h.renew(old, thief).IsZero() || !h.renew(old, train).IsZero() {
		t.Error("the successor goes to another client")
	}
	h.use(old, thief, "") // served in grace, and told nothing
	h.use(next, home, "")
	if !h.renew(old, home).IsZero() {
		t.Error("a successor that is in use is handed out again")
	}
}

func TestGraceEndsAndSightCutsIt(t *testing.T) {
	h := newHouse(t)
	old := h.signIn("mia").Token
	next := h.renewed(old, home)
	h.clock.pass(10 * time.Second)
	h.use(old, home, "")
	h.use(next, home, "") // the first sight
	h.clock.pass(5*time.Second - time.Millisecond)
	h.use(old, home, "")
	h.clock.pass(time.Millisecond)
	h.use(old, home, afterlogin.ReasonReused)
	h.use(next, home, afterlogin.ReasonRevoked)
	if !h.renew(next, home).IsZero() {
		t.Error("a revoked session is renewed")
	}
}

func TestGraceToTheMillisecond(t *testing.T) {
	h := newHouse(t)
	old := h.signIn("mia").Token
	mid := h.renewed(old, home)
	h.use(mid, home, "")
	h.clock.pass(time.Minute)
	next := h.renewed(mid, home)
	h.clock.pass(30*time.Second - time.Millisecond)
	h.use(mid, train, "")
	h.clock.pass(time.Millisecond)
	// Nobody has used next and mid is its parent: a lost answer, not reuse.
	if !h.use(mid, train, "").RenewalDue() {
		t.Error("a lost answer is not renewed")
	}
	h.use(old, train, afterlogin.ReasonReused)
	h.use(next, home, afterlogin.ReasonRevoked)
}

func TestLostAnswer(t *testing.T) {
	h := newHouse(t)
	old := h.signIn("mia").Token
	lost := h.renewed(old, home) // the phone locks; nobody ever sees this one
	h.clock.pass(10 * time.Minute)

	e := sessionFrom(train)
	e.CanRenew = false
	if _, err := h.Validate(t.Context(), old, e); afterlogin.ReasonOf(err) != afterlogin.ReasonRenew {
		t.Errorf("on a path that cannot set a cookie: %v, want renew", err)
	}
	h.use(old, train, "")
	second := h.renew(old, train)
	if second.IsZero() || same(second, lost) {
		t.Fatal("a lost answer is not replaced by a fresh token")
	}
	if again := h.renew(old, train); !same(again, second) {
		t.Error("the replacement is not handed out again")
	}
	h.use(lost, thief, "") // in its grace since the replacement
	h.clock.pass(time.Minute)
	third := h.renew(old, home) // and lost once more
	if third.IsZero() || same(third, second) {
		t.Fatal("a second lost answer is not forgiven")
	}
	h.clock.pass(time.Minute)
	h.use(old, home, afterlogin.ReasonReused) // not a third time
	h.use(third, home, afterlogin.ReasonRevoked)
}

func TestForgivenessStartsAnewAfterAnOrdinaryRenewal(t *testing.T) {
	h := newHouse(t)
	tok := h.signIn("mia").Token
	for range 5 {
		h.renewed(tok, home)
		h.clock.pass(time.Minute)
		h.use(tok, home, "")
		second := h.renew(tok, home)
		h.use(second, home, "")
		tok = second
	}
}

// Whoever took the unseen successor by waiting is betrayed when the owner comes back, and the other way round.
func TestTheThiefWhoWaits(t *testing.T) {
	h := newHouse(t)
	old := h.signIn("mia").Token
	lost := h.renewed(old, home)
	h.clock.pass(time.Minute)
	stolen := h.renew(old, thief) // the thief has a copy of old, and plays the lost answer
	h.use(stolen, thief, "")
	h.clock.pass(time.Minute)
	h.use(lost, home, afterlogin.ReasonReused)
	h.use(stolen, thief, afterlogin.ReasonRevoked)
}

func TestReuseIsToldAndDurable(t *testing.T) {
	h := newHouse(t)
	in := h.signIn("mia")
	next := h.renewed(in.Token, home)
	h.use(next, home, "")
	h.clock.pass(time.Minute)
	_, err := h.Validate(t.Context(), in.Token, sessionFrom(thief))
	var r *afterlogin.Refusal
	if !errors.As(err, &r) || r.Reason != afterlogin.ReasonReused || r.Session != in.Session.ID || r.Message() == "" {
		t.Fatalf("reuse: %v", err)
	}
	_, err = h.Validate(t.Context(), next, sessionFrom(home))
	if !errors.As(err, &r) || r.Reason != afterlogin.ReasonRevoked || r.Cause != afterlogin.ReasonReused || r.Message() == "" {
		t.Fatalf("the newest token after reuse: %v", err)
	}
	// Another authority on the same store, without a cache to blame, agrees.
	other := newHouse(t, func(c *afterlogin.Config) { c.Store, c.Keys, c.Now = h.store, h.keys, h.clock.now })
	other.use(next, home, afterlogin.ReasonRevoked)
	var reuse bool
	for len(h.events) > 0 {
		e := <-h.events
		reuse = reuse || e.Type == afterlogin.EventReuse && e.Session == in.Session.ID
	}
	if !reuse {
		t.Error("no event tells of the reuse")
	}
}

func TestStepUp(t *testing.T) {
	h := newHouse(t)
	in := h.signIn("mia")
	up, err := h.StepUp(t.Context(), in.Token, afterlogin.Authentication{Methods: []string{"otp"}}, home)
	if err != nil {
		t.Fatal(err)
	}
	if up.Session.ID != in.Session.ID || len(up.Session.Auth.Methods) != 1 || up.Session.Auth.Methods[0] != "otp" {
		t.Errorf("after the step-up: %+v", up.Session)
	}
	h.use(in.Token, home, afterlogin.ReasonSuperseded) // nine requests of other tabs were under way
	h.use(up.Token, home, "")
	h.clock.pass(time.Minute - time.Millisecond)
	h.use(in.Token, home, afterlogin.ReasonSuperseded)
	h.use(up.Token, home, "")
	h.clock.pass(time.Millisecond)
	h.use(in.Token, home, afterlogin.ReasonReused)
	h.use(up.Token, home, afterlogin.ReasonRevoked)
}

func TestStepUpEndsEveryGrace(t *testing.T) {
	h := newHouse(t)
	first := h.signIn("mia").Token
	second := h.renewed(first, home)
	up, err := h.StepUp(t.Context(), second, afterlogin.Authentication{Methods: []string{"pwd"}}, home)
	if err != nil {
		t.Fatal(err)
	}
	h.use(first, home, afterlogin.ReasonSuperseded) // its own grace would have lasted 30 s
	h.use(second, home, afterlogin.ReasonSuperseded)
	h.use(up.Token, home, "")
}

func TestARingFullOfGracesStopsRotation(t *testing.T) {
	h := newHouse(t)
	tok := h.signIn("mia").Token
	first := tok
	for i := range 10 {
		got, err := h.Rotate(t.Context(), tok, sessionFrom(home))
		if err != nil {
			t.Fatal(err)
		}
		if i < 4 == got.Token.IsZero() {
			t.Fatalf("rotation %d within the grace of the others: a token %v", i+1, !got.Token.IsZero())
		}
		if !got.Token.IsZero() {
			tok = got.Token
		}
		h.clock.pass(time.Second)
	}
	h.use(tok, home, "")
	if s := h.use(tok, home, ""); s.Generation != 5 {
		t.Errorf("generation %d, want 5", s.Generation)
	}
	h.clock.pass(time.Minute)
	h.use(first, home, afterlogin.ReasonReused)
}

func TestRotateHandsOutTheSameSuccessor(t *testing.T) {
	h := newHouse(t)
	tok := h.signIn("mia").Token
	one, err := h.Rotate(t.Context(), tok, sessionFrom(home))
	if err != nil {
		t.Fatal(err)
	}
	two, err := h.Rotate(t.Context(), tok, sessionFrom(home))
	if err != nil || !same(one.Token, two.Token) {
		t.Fatalf("a retry gets another successor, or none: %v", err)
	}
	three, err := h.Rotate(t.Context(), tok, sessionFrom(thief))
	if err != nil || !three.Token.IsZero() {
		t.Fatalf("another client: %v", err)
	}
	h.clock.pass(time.Minute)
	h.use(one.Token, home, "")
	if _, err := h.Rotate(t.Context(), tok, sessionFrom(home)); afterlogin.ReasonOf(err) != afterlogin.ReasonReused {
		t.Fatalf("late: %v, want reused", err)
	}
}

// The successor is recomputed over several rotations: whoever still holds the first gets the newest, while it is unseen.
func TestHandOutOverSeveralRotations(t *testing.T) {
	h := newHouse(t)
	first := h.signIn("mia").Token
	second, err := h.Rotate(t.Context(), first, sessionFrom(home))
	if err != nil {
		t.Fatal(err)
	}
	third, err := h.Rotate(t.Context(), second.Token, sessionFrom(home))
	if err != nil {
		t.Fatal(err)
	}
	if got := h.renew(first, home); !same(got, third.Token) {
		t.Error("the grandparent does not get the newest token")
	}
	h.use(third.Token, home, "")
}

func TestKeysOutliveTheirRotation(t *testing.T) {
	h := newHouse(t)
	tok := h.signIn("mia").Token
	next := h.renewed(tok, home)
	for _, p := range []keyring.Purpose{keyring.MAC, keyring.Rotation, keyring.Sealing} {
		if _, err := h.keys.Rotate(p); err != nil {
			t.Fatal(err)
		}
	}
	if got := h.renew(tok, home); got.IsZero() {
		t.Error("after the rotation of all keys the successor is not handed out again")
	}
	h.use(next, home, "")
	h.use(h.renewed(next, home), home, "")
}

func (h *house) distrustMAC() {
	h.t.Helper()
	if _, err := h.keys.Rotate(keyring.MAC); err != nil {
		h.t.Fatal(err)
	}
	if err := h.keys.SetState(keyring.MAC, 1, keyring.Distrusted); err != nil {
		h.t.Fatal(err)
	}
}

func TestALeakedMACKeySignsNobodyOut(t *testing.T) {
	h := newHouse(t)
	tok := h.signIn("mia").Token
	h.distrustMAC()
	next := h.renewed(tok, home)
	if got := h.renew(tok, home); !same(got, next) { // a parallel request of the same page
		t.Error("the successor is not handed out again")
	}
	h.clock.pass(10 * time.Minute)
	again := h.renew(tok, home) // the answer was lost
	if again.IsZero() {
		t.Error("a lost answer is not forgiven")
	}
	h.use(again, home, "")
}

// Whoever has the MAC key and knows a session's id can make tokens of any generation with a right MAC. None of them
// enters, whatever the state of the lineage; and once the key is distrusted, none ends the session either.
func TestTheMACKeyAloneDoesNotEnter(t *testing.T) {
	for _, distrusted := range []bool{false, true} {
		h := newHouse(t)
		tok := h.signIn("mia").Token
		lost := h.renewed(tok, home)
		h.clock.pass(time.Minute)
		now := h.renew(tok, home) // a forgiven lost answer: lost is in its grace beside the path
		if now.IsZero() || same(now, lost) {
			t.Fatal("no forgiven answer to begin with")
		}
		if _, err := h.keys.Rotate(keyring.Rotation); err != nil {
			t.Fatal(err)
		}
		if err := h.keys.SetState(keyring.Rotation, 1, keyring.Dead); err != nil {
			t.Fatal(err)
		}
		forge := opaque.NewCodec(h.keys)
		made, err := opaque.Parse(now.Reveal())
		if err != nil {
			t.Fatal(err)
		}
		made.Secret = [opaque.SecretSize]byte{1, 2, 3}
		var tokens []afterlogin.Token
		for gen := uint32(1); gen <= 3; gen++ {
			made.Generation = gen
			tokens = append(tokens, afterlogin.TokenFrom(forge.Format(made)))
		}
		if distrusted {
			h.distrustMAC()
		}
		for i, forged := range tokens {
			h.use(forged, home, afterlogin.ReasonForged)
			if up, err := h.StepUp(t.Context(), forged, afterlogin.Authentication{}, home); err == nil {
				t.Errorf("generation %d: a step-up with a made-up secret: %v", i+1, up)
			}
			if !h.renewFor(forged, nil, home).IsZero() {
				t.Errorf("generation %d: a renewal with a made-up secret", i+1)
			}
		}
		h.use(lost, home, "")
		h.use(now, home, "")
	}
}

// A slow answer to a request that came before a renewal says nothing about a lost answer: it leaves the new token alone.
func TestASlowAnswerForgivesNothing(t *testing.T) {
	h := newHouse(t)
	tok := h.signIn("mia").Token
	h.clock.pass(15 * time.Minute)
	slow := h.use(tok, home, "") // a long poll
	next := h.renew(tok, home)   // another request of the page; the browser has this now, and sleeps
	h.clock.pass(time.Minute)
	if !h.renewFor(tok, slow, home).IsZero() {
		t.Error("the long poll's answer replaces a token that was received")
	}
	h.clock.pass(10 * time.Minute)
	h.use(next, home, "")
}

// Two clients of one browser come back late, and the one's answer is lost again: the other's token is its sibling.
func TestTheSiblingOfAForgivenAnswerIsForgivenToo(t *testing.T) {
	h := newHouse(t)
	tok := h.signIn("mia").Token
	sibling := h.renewed(tok, home)
	h.clock.pass(time.Minute)
	h.renew(tok, home) // forgiven, and lost again: nobody ever uses it
	h.clock.pass(10 * time.Minute)
	if !h.use(sibling, home, "").RenewalDue() {
		t.Error("not renewed")
	}
	h.use(h.renew(sibling, home), home, "")
}

// The grace of a client that was forgiven outlasts the next rotation.
func TestAForgivenGraceOutlastsARotation(t *testing.T) {
	h := newHouse(t)
	tok := h.signIn("mia").Token
	h.renewed(tok, home)
	h.clock.pass(time.Minute)
	again := h.renew(tok, home)
	h.use(again, home, "")
	if _, err := h.Rotate(t.Context(), again, sessionFrom(home)); err != nil {
		t.Fatal(err)
	}
	h.clock.pass(2 * time.Second)
	h.use(tok, home, "")
}

func TestStepUpInATenant(t *testing.T) {
	h := newHouse(t)
	in, err := h.Issue(t.Context(), afterlogin.IssueRequest{Subject: "mia", Tenant: 7})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.StepUp(t.Context(), in.Token, afterlogin.Authentication{Methods: []string{"otp"}}, home); err != nil {
		t.Error(err)
	}
	many := make([]string, 256)
	for i := range many {
		many[i] = "m"
	}
	if _, err := h.StepUp(t.Context(), in.Token, afterlogin.Authentication{Methods: many}, home); !errors.Is(err, afterlogin.ErrBadRequest) {
		t.Errorf("256 methods: %v", err)
	}
}

func TestClockThatGoesBack(t *testing.T) {
	h := newHouse(t)
	tok := h.signIn("mia").Token
	next := h.renewed(tok, home)
	h.use(next, home, "")
	h.clock.pass(-10 * time.Minute)
	h.use(tok, thief, afterlogin.ReasonSuperseded) // a grace does not get longer by it; and it is nobody's fault
	third, err := h.Rotate(t.Context(), next, sessionFrom(home))
	if err != nil {
		t.Fatal(err)
	}
	h.use(third.Token, home, "")
	h.clock.pass(11 * time.Minute) // a minute after next was retired, by the clock as it was
	h.use(next, thief, afterlogin.ReasonReused)
}

// However many requests present one token at once, over and over, there is exactly one successor.
func TestOneSuccessor(t *testing.T) {
	h := newHouse(t)
	tok := h.signIn("mia").Token
	for round := range 50 {
		h.clock.pass(15 * time.Minute / 50)
		h.clock.pass(30 * time.Second)
		const n = 64
		got := make([]afterlogin.Issued, n)
		errs := make([]error, n)
		var wg sync.WaitGroup
		start := make(chan struct{})
		for i := range n {
			wg.Go(func() {
				<-start
				if _, errs[i] = h.Validate(t.Context(), tok, sessionFrom(home)); errs[i] == nil {
					got[i], errs[i] = h.Rotate(t.Context(), tok, sessionFrom(home))
				}
			})
		}
		close(start)
		wg.Wait()
		for i := range n {
			if errs[i] != nil || !same(got[i].Token, got[0].Token) || got[i].Token.IsZero() {
				t.Fatalf("round %d, presenter %d: another successor, or none: %v", round, i, errs[i])
			}
		}
		if s := h.use(got[0].Token, home, ""); s.Generation != uint32(round+2) {
			t.Fatalf("round %d: generation %d, want %d", round, s.Generation, round+2)
		}
		tok = got[0].Token
	}
}

// The class of a session is that of the last authentication: a step-up to a higher one is seen, and one without a class
// does not keep the old one's.
func TestStepUpReplacesTheClass(t *testing.T) {
	h := newHouse(t)
	tok := h.signIn("mia").Token
	for _, step := range []struct {
		methods []string
		class   string
	}{
		{[]string{"pwd", afterlogin.ACRMethod("silver")}, "silver"},
		{[]string{"otp", afterlogin.ACRMethod("gold")}, "gold"},
		{[]string{"pwd"}, ""},
	} {
		up, err := h.StepUp(t.Context(), tok, afterlogin.Authentication{Methods: step.methods}, home)
		if err != nil {
			t.Fatal(err)
		}
		tok = up.Token
		if s := h.use(tok, home, ""); s.Auth.ACR() != step.class {
			t.Errorf("after %v the class is %q, of %v", step.methods, s.Auth.ACR(), s.Auth.Methods)
		}
	}
	if s := h.use(tok, home, ""); len(s.Auth.AMR()) != 2 {
		t.Errorf("the methods are %v, want pwd and otp", s.Auth.AMR())
	}
}
