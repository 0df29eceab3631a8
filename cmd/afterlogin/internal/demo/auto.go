package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/afterlogin/afterlogin"
)

// Auto plays the whole story with nobody watching: over HTTP, against a shop of its own on a free port, with a store on
// disk. Only the clock is not the wall's: it is moved on instead of waiting. Each step is checked and printed, and Auto
// reports whether all of them held. The error says why the story could not be played.
func Auto(ctx context.Context, out io.Writer, c Config) (held bool, err error) {
	s := &story{out: out}
	c.Addr, c.AnyPort, c.StateDir = "127.0.0.1:0", true, ""
	c.Now = s.now
	d, err := Start(c)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	s.demo = d
	s.mia, s.tom = s.visitor(laptopAgent), s.visitor(laptopAgent)
	s.phone = s.visitor(phoneAgent)
	s.thief = s.visitor(thiefAgent)
	s.thief.client, _ = newThief(d.loopbackURL())
	fmt.Fprintf(out, "The story, at %s, with the store in %s.\nToken renewal after %s of use, grace %s. The clock is moved on by hand.\n\n",
		d.URL(), d.Data(), words(d.config.Renewal), words(d.config.Grace))
	defer s.leave()
	for _, step := range s.steps() {
		s.play(ctx, step)
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
	}
	fmt.Fprintf(out, "\n%d of %d steps held.\n", s.played-s.failed, s.played)
	return s.failed == 0, nil
}

// A story is Auto under way: its people, and what they have held.
type story struct {
	out                    io.Writer
	demo                   *Demo
	offset                 atomic.Int64 // of the story's clock from the wall's
	mia, tom, phone, thief *browser
	visitors               []*browser // these, and those who come once
	app, jwtApp            *pocket
	apps                   []*pocket
	played, failed         int

	// mu guards tokens, since some requests go out at once.
	mu     sync.Mutex
	tokens []string // all that were ever handed out

	anonymous, first, second string // cookies of mia's that are kept for later
	session                  string // the page's word for mia's session
}

func (s *story) now() time.Time { return time.Now().Add(time.Duration(s.offset.Load())) }

func (s *story) advance(d time.Duration) { s.offset.Add(int64(d)) }

func (s *story) visitor(userAgent string) *browser {
	b := &browser{
		client: newClient(netip.Addr{}), base: s.demo.loopbackURL(), userAgent: userAgent, note: s.note,
	}
	s.visitors = append(s.visitors, b)
	return b
}

// note keeps a token that was handed out, to look for it later where it must not be.
func (s *story) note(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens = append(s.tokens, token)
}

// leave closes the visitors' connections.
func (s *story) leave() {
	for _, b := range s.visitors {
		b.client.CloseIdleConnections()
	}
	for _, p := range s.apps {
		p.client.CloseIdleConnections()
	}
}

// A step is one thing that happens, and must hold. It returns what to say beside it.
type step struct {
	what string
	do   func(context.Context) (string, error)
}

func (s *story) play(ctx context.Context, st step) {
	s.played++
	detail, err := st.do(ctx)
	verdict := "ok"
	if err != nil {
		s.failed++
		verdict, detail = "FAILED", err.Error()
	}
	fmt.Fprintf(s.out, "%-6s  %s\n", verdict, st.what)
	if detail != "" {
		fmt.Fprintf(s.out, "        %s\n", detail)
	}
}

// want checks the status of an answer, and why its cookie was refused.
func want(a answer, status int, why afterlogin.Reason) error {
	if a.Status != status || a.Reason != why {
		return fmt.Errorf("%s: want %d %s, got %d %s", a.path, status, why, a.Status, a.Reason)
	}
	return nil
}

// lines is how many kinds of things are in the cart that the page shows.
func lines(a answer) int { return strings.Count(a.body, "data-line=") }

// handle is the session that the page's foot names.
func handle(a answer) string {
	_, rest, _ := strings.Cut(a.body, "<code data-session>")
	id, _, _ := strings.Cut(rest, "</code>")
	return id
}
