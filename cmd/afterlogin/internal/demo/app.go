package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"time"
)

// Errors of the app.
var (
	// ErrNobodyKnown is for a person that the shop does not know.
	ErrNobodyKnown = errors.New("the shop knows mia and tom")
	// ErrNotAllowed means that nobody has signed in and said yes.
	ErrNotAllowed = errors.New("nobody has allowed the app")
)

// An App plays a program on somebody's phone that lives on refresh tokens: it signs its person in once, and then asks
// the shop again and again what is in the cart, until it is signed out.
type App struct {
	// StateDir is where the demo is found.
	StateDir string
	// Out receives the timeline.
	Out io.Writer
	// As is the person. Default mia.
	As string
	// Within is how long the app lives, and Refreshes how often it renews its tokens; it signs itself out then. Default:
	// until the context ends.
	Within    time.Duration
	Refreshes int
	// Every is how long it waits between two looks at the cart. Default two seconds.
	Every time.Duration
	// JWT has it get JWTs as access tokens.
	JWT bool
	// Browser leaves the sign-in to a person, who opens the address that is printed. Otherwise it is played.
	Browser bool
	// LoseAnswer loses the answer to the first refresh on its way.
	LoseAnswer bool
	// Steal has a thief copy the first refresh token, and use the copy when it is out of date.
	Steal bool
}

// life is an App under way.
type life struct {
	App
	timeline
	control *controller
	pocket  *pocket
	saw     string    // the last look at the cart
	copied  string    // the thief's refresh token, the secret itself; empty: there is none, or it is used
	due     time.Time // when the copy is out of date for certain
}

// Run plays until the app is signed out, or its time is over, and reports whether somebody else signed it out.
func (p App) Run(ctx context.Context) (signedOut bool, err error) {
	if p.As == "" {
		p.As = "mia"
	}
	if _, known := users[p.As]; !known {
		return false, fmt.Errorf("%w, not %.40q", ErrNobodyKnown, p.As)
	}
	if p.Every == 0 {
		p.Every = 2 * time.Second
	}
	l := &life{App: p, timeline: timeline{out: p.Out}}
	if l.control, err = dial(p.StateDir); err != nil {
		return false, err
	}
	id := pocketShop
	if p.JWT {
		id = pocketShopJWT
	}
	l.pocket = newPocket(l.control.addr.URL, l.control.addr.Shop, id, time.Now)
	defer l.pocket.client.CloseIdleConnections()
	limit, cancel := ctx, context.CancelFunc(func() {})
	if p.Within > 0 {
		limit, cancel = context.WithTimeout(ctx, p.Within)
	}
	defer cancel()
	if err := l.signIn(limit); err != nil {
		switch {
		case ctx.Err() != nil:
			return false, ctx.Err()
		case limit.Err() != nil:
			return false, fmt.Errorf("%w within %s", ErrNotAllowed, words(p.Within))
		}
		return false, l.unreachable(err)
	}
	for {
		over, err := l.step(limit)
		if limit.Err() != nil {
			return false, l.leave(ctx)
		}
		if over || err != nil {
			return over, l.unreachable(err)
		}
		if p.Refreshes > 0 && l.pocket.got > p.Refreshes {
			return false, l.leave(ctx)
		}
		wait := time.NewTimer(min(p.Every, max(0, time.Until(l.pocket.until))))
		select {
		case <-limit.Done():
			wait.Stop()
			return false, l.leave(ctx)
		case <-wait.C:
		}
	}
}

// unreachable says what is behind an error when the demo is there no more.
func (l *life) unreachable(err error) error {
	var refused *tokenError
	var broken interface{ Timeout() bool }
	if err == nil || errors.As(err, &refused) || !errors.As(err, &broken) {
		return err
	}
	return fmt.Errorf("%w at %s any more", ErrNoDemo, l.control.addr.Shop)
}

// signIn has the person sign in, in a browser, and gets the first tokens.
func (l *life) signIn(ctx context.Context) error {
	browse := func(ctx context.Context, address string) error {
		fmt.Fprintf(l.out, "open this in a browser, sign in, and allow it:\n\n  %s\n\n", address)
		return nil
	}
	var b *browser
	if !l.Browser {
		b = &browser{client: newClient(netip.Addr{}), base: l.control.addr.URL, userAgent: phoneAgent}
		defer b.client.CloseIdleConnections()
		browse = func(ctx context.Context, address string) error { return b.allow(ctx, address, l.As) }
	}
	if err := l.pocket.signIn(ctx, browse); err != nil {
		return err
	}
	l.say("", "", "%s signs in on the shop's own page and allows %q; the app gets a code, and no password", l.As, pocketName)
	l.tellTokens("POST /oauth/token, the code")
	l.copied = ""
	if l.Steal {
		l.copied = l.pocket.refresh
		l.say("", "", "a thief copies refresh token 1 from the phone")
	}
	if b == nil {
		return nil
	}
	if _, err := b.get(ctx, "/"); err != nil {
		return err
	}
	if _, err := b.post(ctx, "/sign-out", nil); err != nil {
		return err
	}
	l.say("", "", "the browser signs out again. The app does not mind: it asked for offline_access")
	return nil
}

// tellTokens says what the token endpoint has given.
func (l *life) tellTokens(what string) {
	kind := "opaque"
	if l.JWT {
		kind = "a JWT"
	}
	l.say(what, "200", "access token (%s) until %s, and refresh token %d", kind, clock(l.pocket.until), l.pocket.got)
	l.saw = ""
}

// step is one turn: renew if the access token is over, look at the cart, let the thief act.
func (l *life) step(ctx context.Context) (over bool, err error) {
	if !l.pocket.now().Before(l.pocket.until) {
		if over, err := l.renew(ctx); over || err != nil {
			return over, err
		}
	}
	if over, err = l.look(ctx); over || err != nil {
		return over, err
	}
	if l.copied != "" && !l.due.IsZero() && l.pocket.now().After(l.due) {
		return false, l.replay(ctx)
	}
	return false, nil
}

// look asks for the cart. A 401 is not the end: the access token may only have become too old.
func (l *life) look(ctx context.Context) (over bool, err error) {
	var cart apiBill
	status, why, err := l.pocket.call(ctx, "/api/cart", &cart)
	if err != nil {
		return false, err
	}
	saw := fmt.Sprintf("%d %s %d %s", status, why.Reason, len(cart.Items), cart.Total)
	known := saw == l.saw
	l.saw = saw
	const what = "GET /api/cart, the access token"
	switch {
	case status == http.StatusUnauthorized:
		l.say(what, "401", "%s", why.Reason)
		return l.renew(ctx)
	case known:
	case status != http.StatusOK:
		l.say(what, fmt.Sprint(status), "%s", why.Reason)
	case len(cart.Items) == 0:
		l.say(what, "200", "the cart is empty")
	default:
		l.say(what, "200", "%s, %s", count(len(cart.Items), "kind of thing", "kinds of things"), cart.Total)
	}
	return false, nil
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// renew gets the next tokens. An answer that is lost is asked for again, with the token that the app still has.
func (l *life) renew(ctx context.Context) (over bool, err error) {
	what := fmt.Sprintf("POST /oauth/token, refresh token %d", l.pocket.got)
	if l.LoseAnswer {
		l.LoseAnswer, l.pocket.lossy.lose = false, true
	}
	err = l.pocket.renew(ctx)
	lost := errors.Is(err, errLost)
	if lost {
		l.say(what, "  -", "%v: the app asks again with what it has", errLost)
		err = l.pocket.renew(ctx)
	}
	var refused *tokenError
	if errors.As(err, &refused) && refused.Code == "invalid_grant" {
		l.say(what, fmt.Sprint(refused.Status), "%v", refused)
		l.say("", "", "the app is signed out: it forgets its tokens, and %s has to sign in again", l.As)
		return true, nil
	}
	if errors.As(err, &refused) && refused.Status >= 429 {
		l.say(what, fmt.Sprint(refused.Status), "%v", refused)
		return false, nil // it has what it had: the next turn tries again
	}
	if err != nil {
		return false, err
	}
	l.tellTokens(what)
	if lost {
		if l.pocket.refresh != l.pocket.lossy.lost {
			return false, errors.New("the retry got another token than the one that was lost")
		}
		l.say("", "", "it is the very token that was lost: nobody was signed out, and there is one successor")
	}
	if l.copied != "" && l.due.IsZero() {
		l.due = l.pocket.now().Add(l.control.addr.Grace + time.Second)
		l.say("", "", "the thief's copy is out of date now; for %s an honest retry could still come with it", words(l.control.addr.Grace))
	}
	return false, nil
}

// replay has the thief use his copy.
func (l *life) replay(ctx context.Context) error {
	client, from := newThief(l.control.addr.URL)
	defer client.CloseIdleConnections()
	thief := *l.pocket
	thief.client, thief.refresh, l.copied = client, l.copied, ""
	thief.meta.Token = l.control.addr.URL + "oauth/token"
	const what = "POST /oauth/token, the thief's copy"
	err := thief.renew(ctx)
	var refused *tokenError
	switch {
	case errors.As(err, &refused):
		l.say(what, fmt.Sprint(refused.Status), "%v (from %s)", refused, from)
		return nil
	case err != nil:
		return err
	}
	l.say(what, "200", "nobody had used refresh token %d: it counts as an answer that was lost. The app's next refresh decides", l.pocket.got)
	return nil
}

// leave gives the app's tokens back when it ends: nobody else could.
func (l *life) leave(ctx context.Context) error {
	if l.pocket.refresh == "" {
		return ctx.Err()
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	status, err := l.pocket.signOut(ctx)
	if err != nil {
		return l.unreachable(err)
	}
	l.say(fmt.Sprintf("POST /oauth/revoke, refresh token %d", l.pocket.got), fmt.Sprint(status), "the app signs itself out")
	return nil
}
