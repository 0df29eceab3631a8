// Package operate puts together what watches over an authority and steers it: the audit log, the figures over time, the
// index that searches use, jobs that revoke by query, webhooks, the JSON API over all of them, and the console, which is
// made of that API. It is the same for "afterlogin serve" and for "afterlogin demo", and knows nothing of listeners,
// flags and files but the directory that it is given.
//
// Start with [Open], as soon as there is an authority, so that the audit log misses nothing; then [Desk.Answer].
package operate

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net/http"
	"path/filepath"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/api"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/audit"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/console"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/console/entrance"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/pulse"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/revocation"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/roster"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/webhook"
	"github.com/afterlogin/afterlogin/keyring"
)

// auditDir is where the audit log lies in the data directory.
const auditDir = "audit"

// Options configure Open. Authority, Keys and Logger are required.
type Options struct {
	Authority *afterlogin.Authority
	Keys      *keyring.Ring
	// Dir is the data directory, in which the audit log lies. Empty: there is no audit log.
	Dir string
	// AuditKeep is for how long the audit log is kept. Zero: there is none.
	AuditKeep time.Duration
	// Index is how many sessions the search holds in memory; zero: none.
	Index int
	// WebhooksAllow, WebhooksGiveUp and Loopback are webhook.Options' Allow, GiveUp and Loopback.
	WebhooksAllow  []string
	WebhooksGiveUp time.Duration
	Loopback       bool
	// Shared says that other servers change the store, too.
	Shared bool
	// Latency, Ready and Skew are pulse.Options'.
	Latency func() ([]time.Duration, []uint64)
	Ready   func(context.Context) string
	Skew    func() time.Duration
	// Span is webhook.Options'.
	Span func(ctx context.Context, name string) (context.Context, func(error))

	Node, Version, Store string // names, for people
	Logger               *slog.Logger
	Now                  func() time.Time // the authority's clock; nil means time.Now
}

// A Desk is all of it. Close it before the authority.
type Desk struct {
	o           Options
	Audit       *audit.Log // nil: there is none
	Pulse       *pulse.Pulse
	Roster      *roster.Roster
	Revocations *revocation.Revocations
	Webhooks    *webhook.Webhooks
	API         *api.API         // since Answer
	Console     *console.Console // since Answer; nil: there is none
	Entrance    *entrance.Entrance
}

// Open opens the parts. What it has opened is closed again if it fails.
func Open(o Options) (_ *Desk, err error) {
	d := &Desk{o: o}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.Close())
		}
	}()
	if o.Dir != "" && o.AuditKeep > 0 {
		d.Audit, err = audit.New(audit.Options{
			Authority: o.Authority, Keys: o.Keys, Dir: filepath.Join(o.Dir, auditDir), Node: o.Node, Keep: o.AuditKeep, Logger: o.Logger, Now: o.Now,
		})
		if err != nil {
			return nil, fmt.Errorf("the audit log: %w", err)
		}
	}
	index := o.Index
	if index == 0 {
		index = -1
	}
	if d.Roster, err = roster.New(roster.Options{Authority: o.Authority, Max: index, Logger: o.Logger, Now: o.Now}); err != nil {
		return nil, err
	}
	var watch func(context.Context, string) (iter.Seq2[afterlogin.Event, error], error)
	if o.Shared {
		watch = o.Authority.Watch
	}
	d.Pulse, err = pulse.New(pulse.Options{
		Stats: o.Authority.Stats, Watch: watch, Latency: o.Latency, Live: d.live, Ready: o.Ready, Skew: o.Skew,
		Node: o.Node, Version: o.Version, Store: o.Store, Now: o.Now, Logger: o.Logger,
	})
	if err != nil {
		return nil, err
	}
	d.Webhooks, err = webhook.New(webhook.Options{
		Authority: o.Authority, Keys: o.Keys, Allow: o.WebhooksAllow, Loopback: o.Loopback, GiveUp: o.WebhooksGiveUp, Span: o.Span,
		Node: o.Node, Logger: o.Logger, Now: o.Now,
	})
	if err != nil {
		return nil, fmt.Errorf("webhooks: %w", err)
	}
	d.Revocations, err = revocation.New(revocation.Options{Authority: o.Authority, Skew: o.Skew, Node: o.Node, Logger: o.Logger, Now: o.Now})
	if err != nil {
		return nil, fmt.Errorf("revocations: %w", err)
	}
	return d, nil
}

// Site says how the console is reached. The zero value is no console.
type Site struct {
	// URL is where people find it, without a slash at the end: https://auth.example.com/console. Empty: that is not known.
	URL string
	// PlainLoopback is for plain HTTP on this machine.
	PlainLoopback bool
	// Origin is how browsers address its host; it may be empty.
	Origin string
	// Base is the path that it is below, /console.
	Base string
}

// Answer makes the API, which is told o besides what the desk has, and the console over it.
func (d *Desk) Answer(o api.Options, at Site) (err error) {
	o.Logger, o.Now, o.Keys, o.Node = d.o.Logger, d.o.Now, d.o.Keys, d.o.Node
	o.Pulse, o.Roster, o.Revocations, o.Webhooks = d.Pulse, d.Roster, d.Revocations, d.Webhooks
	if d.Audit != nil {
		o.Audit, o.EndedBy = d.Audit, d.Audit.EndedBy
	}
	if at.Base != "" {
		if o.Console, err = entrance.New(entrance.Options{Authority: d.o.Authority, URL: at.URL, Now: d.o.Now}); err != nil {
			return err
		}
		d.Entrance = o.Console
	}
	d.API = api.New(d.o.Authority, o)
	if o.Console == nil {
		return nil
	}
	d.Console, err = console.New(console.Options{
		Authority: d.o.Authority, API: d.API, Entrance: o.Console, Base: at.Base, Origin: at.Origin, PlainLoopback: at.PlainLoopback,
		ClientAddr: o.ClientAddr, Node: d.o.Node, Version: d.o.Version, Logger: d.o.Logger, Now: d.o.Now,
	})
	return err
}

// WithConsole answers what is below the console's base, and has next answer everything else.
func (d *Desk) WithConsole(base string, next http.Handler) http.Handler {
	if d.Console == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if path := r.URL.Path; path == base || len(path) > len(base) && path[:len(base)+1] == base+"/" {
			d.Console.ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// Observe takes an event, for afterlogin.Config.Observe.
func (d *Desk) Observe(e afterlogin.Event) { d.Pulse.Observe(e) }

// EndStreams ends what is live, for a server that stops: its clients go on elsewhere.
func (d *Desk) EndStreams() {
	if d.API != nil {
		d.API.EndStreams()
	}
	if d.Console != nil {
		d.Console.Close()
	}
}

// Close ends the parts and waits for their goroutines. No request may come any more.
func (d *Desk) Close() error {
	d.EndStreams()
	var errs []error
	if d.Revocations != nil {
		errs = append(errs, d.Revocations.Close())
	}
	if d.Webhooks != nil {
		errs = append(errs, d.Webhooks.Close())
	}
	if d.Pulse != nil {
		d.Pulse.Close()
	}
	if d.Roster != nil {
		errs = append(errs, d.Roster.Close())
	}
	if d.Audit != nil {
		errs = append(errs, d.Audit.Close())
	}
	return errors.Join(errs...)
}

// live counts what is live, from the index.
func (d *Desk) live() *pulse.Live {
	c, ok := d.Roster.Counts()
	if !ok {
		return nil
	}
	l := &pulse.Live{Complete: !c.Progress.Missed, At: c.Progress.AsOf, Total: c.Live, Kinds: make(map[string]int, len(c.Kinds)), Policies: c.Policies}
	for k, n := range c.Kinds {
		l.Kinds[k.String()] = n
	}
	return l
}
