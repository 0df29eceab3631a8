// Package demo is the shop of "afterlogin demo": a small web shop on the loopback interface whose sign-ins, carts and
// devices are real sessions in a real store; a thief who copies a cookie and uses it; an app that lives on refresh tokens
// and a partner's program with an API key; and the whole story played headless with every step checked.
//
// It is written against the exported calls of afterlogin and httpauth, as any application is, so that it doubles as the
// example of how a server-rendered site uses them. One thing in it no application may copy, and only the demo does it:
// it keeps the last cookie of each session in memory, so that the thief has something to steal (see sightings), and the
// partner's key, so that the partner can come and ask for it (see partnerKey).
//
// Start with [Start]; [Steal] and [Replay] are the thief, [App] and [Partner] the programs, [Auto] is the story.
package demo

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/operate"
	"github.com/afterlogin/afterlogin/httpauth"
	"github.com/afterlogin/afterlogin/keyring"
	"github.com/afterlogin/afterlogin/store/pebblestore"
)

// The demo's defaults: short enough to see everything within 90 seconds.
const (
	DefaultAddr    = "127.0.0.1:7071"
	DefaultRenewal = 20 * time.Second
	DefaultGrace   = 10 * time.Second
)

// Config says how to run the demo. The zero value works.
type Config struct {
	// Addr is where the shop listens: a loopback address and a port. Default DefaultAddr.
	Addr string
	// AnyPort takes a free port if that of Addr is taken.
	AnyPort bool
	// Data is a directory to keep sessions, keys and orders in. Empty: a temporary one, which Close removes.
	Data string
	// Renewal and Grace replace those of the policies for browsers. Default DefaultRenewal and DefaultGrace.
	Renewal, Grace time.Duration
	// StateDir is where the thief finds the demo, and puts what he stole. Empty: there is no thief.
	StateDir string
	// Command is how to call the program, for the pages that name it. Default "afterlogin".
	Command string
	// Now is the clock. Default time.Now.
	Now func() time.Time
	// Logger receives what goes wrong. Nil discards it.
	Logger *slog.Logger
}

// A Demo is a running shop. Close it.
type Demo struct {
	config    Config
	data      string // where sessions, keys and orders lie
	store     *pebblestore.Store
	authority *afterlogin.Authority
	shop      *shop
	key       partnerKey
	control   *control
	desk      atomic.Pointer[operate.Desk]
	console   *http.Server
	consoleAt string
	server    *http.Server
	listeners []net.Listener
	served    chan error // one for each listener, when it has ended
	cleanup   []func() error
}

// Errors of Start.
var (
	// ErrNotLoopback is for an address that others could reach.
	ErrNotLoopback = errors.New("not a loopback address, and the demo must not be reached by others: its cookies go without Secure, and everybody knows its passwords")
	// ErrBadAddr is for text that is no address.
	ErrBadAddr = errors.New("want host:port, such as " + DefaultAddr)
)

// Start starts the shop. What it has opened is closed again if it fails.
func Start(c Config) (_ *Demo, err error) {
	c.setDefaults()
	d := &Demo{config: c}
	defer func() {
		if err != nil {
			d.Close()
		}
	}()
	if err := d.listen(); err != nil {
		return nil, err
	}
	if err := d.openStore(); err != nil {
		return nil, err
	}
	auth, err := httpauth.New(d.authority, httpauth.Options{
		PlainLoopback: true, SignInURL: "/sign-in", Refuse: d.shop.refuse, Logger: c.Logger,
	})
	if err != nil {
		return nil, err
	}
	d.shop.auth = auth
	site, err := d.openPrograms(context.Background())
	if err != nil {
		return nil, err
	}
	if err := d.makeKey(context.Background()); err != nil {
		return nil, err
	}
	if d.control, err = d.openControl(); err != nil {
		return nil, err
	}
	if err := d.serveConsole(); err != nil {
		return nil, err
	}
	d.serve(site)
	return d, nil
}

func (c *Config) setDefaults() {
	if c.Addr == "" {
		c.Addr = DefaultAddr
	}
	if c.Renewal == 0 {
		c.Renewal = DefaultRenewal
	}
	if c.Grace == 0 {
		c.Grace = min(DefaultGrace, c.Renewal)
	}
	if c.Command == "" {
		c.Command = "afterlogin"
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
}

// policies are the built-in ones for browsers, and for the app, with the demo's times.
func (c *Config) policies() map[string]afterlogin.Policy {
	all := afterlogin.DefaultPolicies()
	out := make(map[string]afterlogin.Policy)
	for _, name := range []string{afterlogin.PolicyBrowser, afterlogin.PolicyRemember, afterlogin.PolicyAnonymous} {
		p := all[name]
		p.Renewal, p.Grace = c.Renewal, c.Grace
		out[name] = p
	}
	p := all[afterlogin.PolicyRefreshPublic]
	p.Grace = c.Grace
	out[afterlogin.PolicyRefreshPublic] = p
	return out
}

// listen opens the loopback address, of both families if there are two: localhost means either.
func (d *Demo) listen() error {
	host, port, err := net.SplitHostPort(d.config.Addr)
	if _, bad := strconv.ParseUint(port, 10, 16); err != nil || bad != nil {
		return fmt.Errorf("%.60q: %w", d.config.Addr, ErrBadAddr)
	}
	if host == "localhost" {
		host = "127.0.0.1"
	}
	if addr, err := netip.ParseAddr(host); err != nil || !addr.IsLoopback() {
		return fmt.Errorf("%.60q: %w", d.config.Addr, ErrNotLoopback)
	}
	first, err := net.Listen("tcp", net.JoinHostPort(host, port))
	if errors.Is(err, syscall.EADDRINUSE) && d.config.AnyPort {
		first, err = net.Listen("tcp", net.JoinHostPort(host, "0"))
	}
	if err != nil {
		return err
	}
	d.listeners = append(d.listeners, first)
	if host == "127.0.0.1" {
		second, err := net.Listen("tcp", net.JoinHostPort("::1", strconv.Itoa(d.Port())))
		if err == nil {
			d.listeners = append(d.listeners, second)
		}
		// Otherwise there is no IPv6 here, or another program has the port there; browsers try both.
	}
	return nil
}

// openStore opens the store, the keys and the orders, and makes the authority over them.
func (d *Demo) openStore() error {
	c := &d.config
	ring := keyring.New()
	orders := ""
	if d.data = c.Data; d.data == "" {
		dir, err := os.MkdirTemp("", "afterlogin-demo-*")
		if err != nil {
			return err
		}
		d.data = dir
		d.cleanup = append(d.cleanup, func() error { return os.RemoveAll(dir) })
	} else {
		if err := os.MkdirAll(d.data, 0o700); err != nil {
			return err
		}
		// Beside the data, since this is a demo: a server keeps its master key elsewhere.
		master, err := keyring.Master(filepath.Join(d.data, "master.key"))
		if err != nil {
			return err
		}
		if ring, err = keyring.Open(filepath.Join(d.data, "keys.json"), master); err != nil {
			return err
		}
		orders = filepath.Join(d.data, "orders.json")
	}
	book, err := openOrders(orders)
	if err != nil {
		return err
	}
	d.store, err = pebblestore.Open(filepath.Join(d.data, "store"), pebblestore.Options{Logger: c.Logger, CacheSize: 8 << 20})
	if err != nil {
		return err
	}
	d.cleanup = append(d.cleanup, d.store.Close)
	log := newEventLog()
	observe := func(e afterlogin.Event) {
		log.add(e)
		if desk := d.desk.Load(); desk != nil {
			desk.Observe(e)
		}
	}
	d.authority, err = afterlogin.New(afterlogin.Config{
		Store: d.store, Keys: ring, Policies: c.policies(), Issuer: d.issuer(), Observe: observe, Logger: c.Logger, Now: c.Now,
	})
	if err != nil {
		return err
	}
	d.cleanup = append(d.cleanup, d.authority.Close)
	if err := d.openDesk(ring); err != nil {
		return err
	}
	d.shop = &shop{
		authority: d.authority, orders: book, events: log, policies: c.policies(),
		command: c.Command, now: c.Now, log: c.Logger,
	}
	return nil
}

// serve serves the site on the listeners.
func (d *Demo) serve(site http.Handler) {
	d.server = &http.Server{
		Handler:           d.control.around(site),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(d.config.Logger.Handler(), slog.LevelWarn),
	}
	d.served = make(chan error, len(d.listeners))
	for _, l := range d.listeners {
		go func() { d.served <- d.server.Serve(l) }()
	}
}

// Port is the port that the shop listens on.
func (d *Demo) Port() int { return d.listeners[0].Addr().(*net.TCPAddr).Port }

// URL is the shop's address, with a slash at the end.
func (d *Demo) URL() string {
	addr := d.listeners[0].Addr().(*net.TCPAddr)
	host := "localhost"
	if !addr.IP.Equal(net.IPv4(127, 0, 0, 1)) {
		host = addr.IP.String()
	}
	return "http://" + net.JoinHostPort(host, strconv.Itoa(addr.Port)) + "/"
}

// Data is the directory that the store lies in.
func (d *Demo) Data() string { return d.data }

// Wait returns when the context ends, with nil, or when the shop cannot be served any more.
func (d *Demo) Wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case err := <-d.served:
		d.served <- err // for Close
		return err
	}
}

// Close stops the shop, waits for the requests that are under way, closes the store and removes what is temporary.
func (d *Demo) Close() error {
	var errs []error
	if d.server != nil {
		// Browsers hold connections open on which they have not asked for anything yet, for which Shutdown would wait.
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		if err := d.server.Shutdown(ctx); err != nil {
			errs = append(errs, d.server.Close())
		}
		cancel()
		for range d.listeners {
			if err := <-d.served; !errors.Is(err, http.ErrServerClosed) {
				errs = append(errs, err)
			}
		}
	} else {
		for _, l := range d.listeners {
			errs = append(errs, l.Close())
		}
	}
	if d.control != nil {
		errs = append(errs, d.control.close())
	}
	for i := len(d.cleanup) - 1; i >= 0; i-- {
		errs = append(errs, d.cleanup[i]())
	}
	return errors.Join(errs...)
}
