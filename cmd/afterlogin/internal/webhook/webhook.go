// Package webhook sends events to receivers of the operator's choosing: signed requests in the manner of Standard Webhooks,
// retried for days, in order, each event under one id however often it is sent.
//
// What is configured and how far each delivery is stands in entries of the store (Realm), which all servers of the store
// share: any of them can be asked, and one at a time delivers, by a lease. Events that a receiver does not take wait in
// the store, too, and in the end are dead letters there, which can be sent again.
//
// Start with [New]; [Webhooks.Close] hands what is under way to the next server.
package webhook

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/keyring"
)

// The realms of the entries that webhooks are kept in.
const (
	Realm       = "webhooks"
	RealmOutbox = "webhook-outbox"
	RealmDead   = "dead-letters"
)

// Times.
const (
	leaseTime  = 15 * time.Second // how long a server may deliver without renewing its lease
	renewEvery = 5 * time.Second
	saveEvery  = time.Second     // how long what was delivered may go unsaved
	saveAfter  = 100             // and how much
	pollEvery  = 2 * time.Second // how soon a server sees what others changed
	// DefaultGiveUp is how long an event is tried.
	DefaultGiveUp = 72 * time.Hour
	// MaxGiveUp is the longest that it can be: the outbox keeps events for a day more.
	MaxGiveUp  = 7 * 24 * time.Hour
	outboxTime = MaxGiveUp + 24*time.Hour
	// DeadTime is how long dead letters are kept.
	DeadTime = 30 * 24 * time.Hour
	// handOver is how long Close waits for requests that are under way.
	handOver = 5 * time.Second
	// storeTimeout bounds a look at the store.
	storeTimeout = 5 * time.Second
)

// Errors.
var (
	// ErrNoWebhook: there is none with this id (any more).
	ErrNoWebhook = errors.New("no such webhook")
	// ErrTooMany: there are Max webhooks already.
	ErrTooMany = fmt.Errorf("there are %d webhooks, and that is the most", Max)
	// ErrChanged: others are changing the webhook at the same time.
	ErrChanged = errors.New("the webhook is being changed by others")
	// ErrRotated: as many secrets sign a webhook's requests as there may be.
	ErrRotated = fmt.Errorf("the secret was changed %d times in a day", maxOld)
	// ErrBusy: too many requests to send dead letters again are under way.
	ErrBusy = errors.New("dead letters are being sent again")
)

// Options configure New. Authority is required.
type Options struct {
	Authority *afterlogin.Authority
	// Keys are the authority's: ids of events differ between installations. Nil is none.
	Keys *keyring.Ring
	// Allow is which addresses, of those that are not on the internet, webhooks may go to: host names, addresses, networks.
	Allow []string
	// Loopback says that only this machine can reach the server: then webhooks may go to this machine, too.
	Loopback bool
	// GiveUp is how long an event is tried before it becomes a dead letter, up to MaxGiveUp. Zero is DefaultGiveUp.
	GiveUp time.Duration
	// Roots verify receivers' certificates. Nil: the system's.
	Roots *x509.CertPool
	// Span begins a span of a trace for each request; what it returns ends it. Nil: there are none.
	Span func(ctx context.Context, name string) (context.Context, func(error))
	// Node names this server, for people. Empty is the host's name.
	Node   string
	Logger *slog.Logger     // nil discards; never gets a secret
	Now    func() time.Time // the authority's clock; nil means time.Now
}

// Webhooks keeps the list of webhooks and delivers to them. It is safe for concurrent use.
type Webhooks struct {
	authority *afterlogin.Authority
	issuer    string
	install   [16]byte
	allow     *Allowance
	giveUp    time.Duration
	holder    string // this server, this time
	log       *slog.Logger
	now       func() time.Time
	span      func(context.Context, string) (context.Context, func(error))
	secure    *http.Client
	plain     *http.Client

	ctx     context.Context // ends with Close
	stop    context.CancelFunc
	killed  context.Context // tests end it: as if the process died
	running sync.WaitGroup
	wake    chan struct{}        // the list may have changed
	still   map[string]stillness // of supervise alone

	mu       sync.Mutex
	couriers map[string]*courier
	last     []WebhookStats // of the last look at the list

	results [len(resultNames)]atomic.Uint64
}

// New returns webhooks over the authority, and begins to deliver. Errors name the option that is wrong.
func New(o Options) (*Webhooks, error) {
	return newWebhooks(o, nil, context.Background())
}

// newWebhooks is New with a connection of the test's, if dial is not nil.
func newWebhooks(o Options, dial *http.Transport, killed context.Context) (*Webhooks, error) {
	if o.Authority == nil {
		return nil, errors.New("webhook: Options.Authority is nil")
	}
	allow, err := NewAllowance(o.Allow, o.Loopback)
	if err != nil {
		return nil, fmt.Errorf("webhook: allow: %w", err)
	}
	if o.GiveUp == 0 {
		o.GiveUp = DefaultGiveUp
	}
	if o.GiveUp < time.Minute || o.GiveUp > MaxGiveUp {
		return nil, fmt.Errorf("webhook: give up: want a time of 1m to %v", MaxGiveUp)
	}
	w := &Webhooks{
		authority: o.Authority, issuer: o.Authority.Issuer(), allow: allow, giveUp: o.GiveUp, log: o.Logger, now: o.Now,
		wake: make(chan struct{}, 1), couriers: make(map[string]*courier), still: make(map[string]stillness), killed: killed,
	}
	if o.Keys != nil {
		w.install = o.Keys.Installation()
	}
	if w.log == nil {
		w.log = slog.New(slog.DiscardHandler)
	}
	if w.now == nil {
		w.now = time.Now
	}
	if o.Node == "" {
		o.Node, _ = os.Hostname()
	}
	w.holder = clean(o.Node, maxHolder-12) + "/" + rand.Text()[:8]
	w.secure, w.plain = newClients(allow, o.Roots)
	if w.span = o.Span; w.span == nil {
		w.span = func(ctx context.Context, _ string) (context.Context, func(error)) { return ctx, func(error) {} }
	}
	if dial != nil {
		w.secure.Transport, w.plain.Transport = dial, dial
	}
	w.ctx, w.stop = context.WithCancel(killed)
	w.running.Go(w.supervise)
	return w, nil
}

// maxHolder is the greatest size of what names a server, in bytes.
const maxHolder = 76

// Close ends the deliveries and returns when they have ended, after five seconds and a little at most: requests that are
// under way are waited for, and what was delivered is saved, so that the next server goes on behind it. The authority and
// its store must still be open.
func (w *Webhooks) Close() error {
	w.stop()
	w.running.Wait()
	w.secure.CloseIdleConnections()
	w.plain.CloseIdleConnections()
	return nil
}

// Allowed says whether a webhook could have the address, as far as its text tells.
func (w *Webhooks) Allowed(address string) error {
	_, err := w.allow.checkURL(address)
	return err
}

// nudge has the list looked at now.
func (w *Webhooks) nudge() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// An id is the name of the webhook's entry and 13 bytes in base64. There are as many entries as there may be webhooks, wh_00
// and so on, and each is used again when its webhook was removed: entries that stay cannot be taken away, and all of them
// are read at every look.
const (
	nameSize = len("wh_00")
	idSize   = nameSize + 18
)

// newID returns the id of a new webhook in the entry of that number.
func newID(n int) string {
	var b [13]byte
	rand.Read(b[:])
	return fmt.Sprintf("wh_%02d", n) + base64.RawURLEncoding.EncodeToString(b[:])
}

// entryName is the name of the entry of the webhook with the id.
func entryName(id string) string { return id[:nameSize] }

func validID(id string) bool {
	if len(id) != idSize || id[:3] != "wh_" || strings.Trim(id[3:nameSize], "0123456789") != "" {
		return false
	}
	_, err := base64.RawURLEncoding.Strict().DecodeString(id[nameSize:])
	return err == nil
}

// The results of deliveries.
const (
	resultDelivered = iota // the receiver took the event
	resultFailed           // an attempt that is made again
	resultDead             // an event that became a dead letter
	resultMissed           // an event that says that others were missed was put in line
	resultAgain            // a dead letter was put in line again
)

var resultNames = [...]string{"delivered", "failed", "dead_letter", "missed", "redelivered"}

func (w *Webhooks) count(result int) { w.results[result].Add(1) }

// Stats are numbers for metrics. Those of Deliveries are this server's since it started, the others all servers'.
type Stats struct {
	// Deliveries by result: delivered, failed (an attempt, made again later), dead_letter, missed, redelivered.
	Deliveries  map[string]uint64
	Webhooks    int // that are not disabled
	Disabled    int
	Waiting     uint64    // events in the outboxes
	Oldest      time.Time // when the one came that waits the longest; zero: none waits
	DeadLetters uint64    // that were not sent again
	Each        []WebhookStats
}

// WebhookStats are the numbers of one webhook: there are at most Max.
type WebhookStats struct {
	ID          string
	Disabled    bool
	Waiting     uint64
	Oldest      time.Time
	DeadLetters uint64
	Failures    int  // attempts that failed since the last that did not
	Here        bool // this server delivers
}

// Stats returns numbers of up to two seconds ago, without asking the store.
func (w *Webhooks) Stats() Stats {
	s := Stats{Deliveries: make(map[string]uint64, len(resultNames))}
	for i, name := range resultNames {
		s.Deliveries[name] = w.results[i].Load()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, h := range w.last {
		_, h.Here = w.couriers[h.ID]
		s.Each = append(s.Each, h)
		if h.Disabled {
			s.Disabled++
		} else {
			s.Webhooks++
		}
		s.Waiting += h.Waiting
		s.DeadLetters += h.DeadLetters
		if !h.Oldest.IsZero() && (s.Oldest.IsZero() || h.Oldest.Before(s.Oldest)) {
			s.Oldest = h.Oldest
		}
	}
	return s
}

func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func fromMillis(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}
