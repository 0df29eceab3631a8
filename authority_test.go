package afterlogin_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/keyring"
	"github.com/afterlogin/afterlogin/store"
	"github.com/afterlogin/afterlogin/store/memstore"
)

// clock is the time of a test. It stands still unless told to go on.
type clock struct{ ms atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.ms.Store(time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC).UnixMilli())
	return c
}

func (c *clock) now() time.Time           { return time.UnixMilli(c.ms.Load()) }
func (c *clock) pass(d time.Duration)     { c.ms.Add(d.Milliseconds()) }
func (c *clock) config() func() time.Time { return c.now }

// house is an authority on memstore with a clock of its own.
type house struct {
	*afterlogin.Authority
	t      testing.TB
	clock  *clock
	store  store.Store
	keys   *keyring.Ring
	events chan afterlogin.Event
}

func newHouse(t testing.TB, change ...func(*afterlogin.Config)) *house {
	t.Helper()
	h := &house{t: t, clock: newClock(), store: memstore.New(), keys: keyring.New(), events: make(chan afterlogin.Event, 1<<16)}
	c := afterlogin.Config{Store: h.store, Keys: h.keys, Now: h.clock.config(), Observe: func(e afterlogin.Event) {
		select {
		case h.events <- e:
		default:
		}
	}}
	for _, f := range change {
		f(&c)
	}
	h.store = c.Store
	var err error
	if h.Authority, err = afterlogin.New(c); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

// The clients of the tests: the shopper, the shopper on the way, and somebody else.
var (
	home  = afterlogin.Client{Addr: netip.MustParseAddr("198.51.100.7"), UserAgent: "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/156.0.0.0 Safari/537.36"}
	train = afterlogin.Client{Addr: netip.MustParseAddr("203.0.113.80"), UserAgent: home.UserAgent}
	thief = afterlogin.Client{Addr: netip.MustParseAddr("192.0.2.66"), UserAgent: "curl/8.9.0"}
)

func sessionFrom(c afterlogin.Client) afterlogin.Expect {
	return afterlogin.Expect{Kinds: []afterlogin.Kind{afterlogin.KindSession}, CanRenew: true, From: c}
}

func (h *house) signIn(subject string) afterlogin.Issued {
	h.t.Helper()
	got, err := h.Issue(h.t.Context(), afterlogin.IssueRequest{Subject: subject, Device: home})
	if err != nil {
		h.t.Fatalf("sign-in of %s: %v", subject, err)
	}
	return got
}

// use validates the token as a request of the client's and fails the test unless the answer is the wanted one, "" for
// good.
func (h *house) use(t afterlogin.Token, c afterlogin.Client, want afterlogin.Reason) *afterlogin.Session {
	h.t.Helper()
	s, err := h.Validate(context.Background(), t, sessionFrom(c))
	if want == "" && err != nil || want != "" && afterlogin.ReasonOf(err) != want {
		h.t.Fatalf("Validate = %v, want %q", err, want)
	}
	return s
}

// renew is what the answer to a good request does: the new token, or the zero one.
func (h *house) renew(t afterlogin.Token, c afterlogin.Client) afterlogin.Token {
	h.t.Helper()
	s, err := h.Validate(context.Background(), t, sessionFrom(c))
	if err != nil {
		return afterlogin.Token{}
	}
	return h.renewFor(t, s, c)
}

// renewFor is the answer to a request that was validated before.
func (h *house) renewFor(t afterlogin.Token, s *afterlogin.Session, c afterlogin.Client) afterlogin.Token {
	h.t.Helper()
	got, err := h.Renew(context.Background(), t, s, c)
	if err != nil {
		h.t.Fatalf("Renew: %v", err)
	}
	return got.Token
}

// renewed lets the time of a renewal come, and renews.
func (h *house) renewed(t afterlogin.Token, c afterlogin.Client) afterlogin.Token {
	h.t.Helper()
	h.clock.pass(15 * time.Minute)
	if !h.use(t, c, "").RenewalDue() {
		h.t.Fatal("renewal is not due after 15 minutes")
	}
	got := h.renew(t, c)
	if got.IsZero() {
		h.t.Fatal("renewal was due, and no token came")
	}
	return got
}

func (h *house) cart(s *afterlogin.Session) string {
	h.t.Helper()
	d, err := h.Data(h.t.Context(), s)
	if err != nil {
		h.t.Fatal(err)
	}
	return string(d.JSON("cart"))
}

func jsonData(cart string) map[string]json.RawMessage {
	return map[string]json.RawMessage{"cart": json.RawMessage(cart)}
}

func same(a, b afterlogin.Token) bool { return a.Reveal() == b.Reveal() }

func TestNewRefusesNonsense(t *testing.T) {
	for name, c := range map[string]afterlogin.Config{
		"no store": {},
		"a session that never idles out": {Store: memstore.New(), Policies: map[string]afterlogin.Policy{
			"x": {Absolute: time.Hour}}},
		"a session that never ends": {Store: memstore.New(), Policies: map[string]afterlogin.Policy{
			"x": {Idle: time.Hour}}},
		"idle longer than absolute": {Store: memstore.New(), Policies: map[string]afterlogin.Policy{
			"x": {Idle: 2 * time.Hour, Absolute: time.Hour}}},
		"a grace of an hour": {Store: memstore.New(), Policies: map[string]afterlogin.Policy{
			"x": {Idle: time.Hour, Absolute: time.Hour, Grace: time.Hour}}},
		"renewal within the grace": {Store: memstore.New(), Policies: map[string]afterlogin.Policy{
			"x": {Idle: time.Hour, Absolute: time.Hour, Grace: time.Minute, Renewal: time.Second}}},
	} {
		if _, err := afterlogin.New(c); !errors.Is(err, afterlogin.ErrBadRequest) {
			t.Errorf("%s: New = %v, want ErrBadRequest", name, err)
		}
	}
}
