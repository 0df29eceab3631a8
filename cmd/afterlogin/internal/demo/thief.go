package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/afterlogin/afterlogin"
)

// Errors of the thief.
var (
	// ErrNoDemo means that no demo is running that the thief could find.
	ErrNoDemo = errors.New("no demo is running")
	// ErrNobody means that there is nothing to steal yet.
	ErrNobody = errors.New("nobody is signed in yet")
	// ErrNothingStolen means that there is no copy to replay.
	ErrNothingStolen = errors.New("nothing is stolen yet")
)

// thiefAddr is where the thief calls from. All of 127.0.0.0/8 is this machine, and another /24 is another client.
var thiefAddr = netip.MustParseAddr("127.0.1.9")

// newThief returns the client of the thief for the shop, and where it calls from. Where the system knows one loopback
// address only, his User-Agent alone tells him from the shopper.
func newThief(shop string) (*http.Client, string) {
	if u, err := url.Parse(shop); err == nil && u.Hostname() == "127.0.0.1" {
		if l, err := net.Listen("tcp", net.JoinHostPort(thiefAddr.String(), "0")); err == nil {
			l.Close()
			return newClient(thiefAddr), thiefAddr.String()
		}
	}
	return newClient(netip.Addr{}), "this machine"
}

// A controller talks to the control endpoint of a running demo.
type controller struct {
	addr   address
	client *http.Client
}

// dial finds the demo by its file.
func dial(stateDir string) (*controller, error) {
	c := &controller{client: newClient(netip.Addr{})}
	if stateDir == "" {
		return nil, fmt.Errorf("%w that could be found: set XDG_RUNTIME_DIR or HOME for both", ErrNoDemo)
	}
	err := readPrivate(filepath.Join(stateDir, controlFile), &c.addr)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNoDemo
	}
	if err != nil {
		return nil, err
	}
	if u, err := url.Parse(c.addr.URL); err != nil || !loopback(u.Hostname()) {
		return nil, fmt.Errorf("%s does not name a demo on this machine: remove it", filepath.Join(stateDir, controlFile))
	}
	return c, nil
}

func loopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback()
}

// call asks the endpoint. The error is ErrNoDemo if there is none, and ErrNobody for 404.
func (c *controller) call(ctx context.Context, method, path string, query url.Values, v any) error {
	r, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(c.addr.URL, "/")+controlPath+path+"?"+query.Encode(), nil)
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+c.addr.Secret)
	resp, err := c.client.Do(r)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("%w at %s any more", ErrNoDemo, c.addr.URL)
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
		return json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(v)
	case http.StatusNotFound:
		return ErrNobody
	case http.StatusForbidden:
		return fmt.Errorf("%w at %s: something else answers there", ErrNoDemo, c.addr.URL)
	}
	return fmt.Errorf("the demo answered %s", resp.Status)
}

// Steal copies the cookie of whoever used the running demo last and is signed in, and keeps the copy for Replay. It
// prints what was stolen, never the token.
func Steal(ctx context.Context, stateDir string, out io.Writer) error {
	c, err := dial(stateDir)
	if err != nil {
		return err
	}
	var s stolen
	if err := c.call(ctx, http.MethodPost, "steal", nil, &s); err != nil {
		if errors.Is(err, ErrNobody) {
			return fmt.Errorf("%w: open %s and sign in as mia, password demo", ErrNobody, c.addr.Shop)
		}
		return err
	}
	if err := writePrivate(filepath.Join(stateDir, stolenFile), s); err != nil {
		return err
	}
	fmt.Fprintf(out, "stolen  als_…[token] (generation %d of %s, %s, %s)\n", s.Generation, s.Session, s.Subject, s.Device)
	fmt.Fprintf(out, "        the copy is perfect: until %s's token is renewed it works for the thief, too\n", s.Subject)
	return nil
}

// A Replay plays the thief with the copy that Steal made.
type Replay struct {
	// StateDir is where the demo and the copy are found.
	StateDir string
	// Out receives the timeline.
	Out io.Writer
	// Within is how long to try. Default two minutes.
	Within time.Duration
	// Every is how long the thief waits between two requests. Default a second.
	Every time.Duration
	// Greedy lets the thief use the copy without a pause, so that it is he who gets the renewed token. Otherwise he tries
	// the copy once and then waits until the shopper's token is renewed.
	Greedy bool
	// Shop plays the shopper, too: mia signs in, is robbed, shops on, and signs in again.
	Shop bool
}

// heist is a Replay under way.
type heist struct {
	Replay
	timeline
	control  *controller
	thief    *browser
	stolen   stolen
	mia      *browser // with Shop
	held     uint32   // the generation that the thief holds
	won      bool     // he was given a renewed token
	seq      int
	requests int
	served   int
	began    time.Time
}

// Run plays until the thief is thrown out or the time is over, and reports which.
func (p Replay) Run(ctx context.Context) (thrownOut bool, err error) {
	if p.Within == 0 {
		p.Within = 2 * time.Minute
	}
	if p.Every == 0 {
		p.Every = time.Second
	}
	h := &heist{Replay: p, timeline: timeline{out: p.Out}, began: time.Now()}
	if h.control, err = dial(p.StateDir); err != nil {
		return false, err
	}
	limit, cancel := context.WithTimeout(ctx, p.Within)
	defer cancel()
	if err := h.prepare(limit); err != nil {
		return false, err
	}
	tick := time.NewTicker(p.Every)
	defer tick.Stop()
	for first := true; ; first = false {
		over, err := h.step(limit, first)
		if over || err != nil && limit.Err() == nil {
			return over, err
		}
		select {
		case <-limit.Done():
			if ctx.Err() != nil {
				return false, ctx.Err()
			}
			h.say("", "", "the thief is still in after %s: %s", words(p.Within), h.hope())
			return false, nil
		case <-tick.C:
		}
	}
}

// hope says what it takes to throw the thief out.
func (h *heist) hope() string {
	if h.won {
		return h.stolen.Subject + " has to load a page with her old token, and that ends it"
	}
	return h.stolen.Subject + " has to load a page or two, so that her token is renewed and used"
}

// prepare reads the copy, or has mia sign in and takes one of her cookie.
func (h *heist) prepare(ctx context.Context) error {
	client, from := newThief(h.control.addr.URL)
	if h.Shop {
		if err := h.enterMia(ctx); err != nil {
			return err
		}
	} else {
		err := readPrivate(filepath.Join(h.StateDir, stolenFile), &h.stolen)
		if errors.Is(err, fs.ErrNotExist) {
			return ErrNothingStolen
		}
		if err != nil {
			return err
		}
		if h.stolen.From != strconv.Itoa(h.control.addr.PID)+"@"+h.control.addr.URL {
			return fmt.Errorf("%w from this demo: the copy is of one that has ended", ErrNothingStolen)
		}
	}
	h.thief = &browser{client: client, base: h.control.addr.URL, userAgent: thiefAgent, cookie: h.stolen.Token}
	h.held, h.seq = h.stolen.Generation, h.stolen.Seq
	fmt.Fprintf(h.Out, "the thief calls from %s as %s, with a copy of generation %d of %s (%s, %s)\n",
		from, thiefAgent, h.held, h.stolen.Session, h.stolen.Subject, h.stolen.Device)
	return nil
}

// enterMia has mia fill her cart and sign in.
func (h *heist) enterMia(ctx context.Context) error {
	h.mia = &browser{client: newClient(netip.Addr{}), base: h.control.addr.URL, userAgent: laptopAgent}
	for _, thing := range []string{"teapot", "sencha"} {
		if _, err := h.mia.post(ctx, "/cart/items", url.Values{"product": {thing}}); err != nil {
			return err
		}
	}
	if err := h.signInMia(ctx); err != nil {
		return err
	}
	// The copy is of what she holds; whose it is, is asked as for any other.
	if err := h.control.call(ctx, http.MethodPost, "steal", nil, &h.stolen); err != nil {
		return err
	}
	if h.stolen.Token != h.mia.cookie {
		return errors.New("somebody else used the demo in this moment: try again")
	}
	h.say("", "", "mia puts two things into her cart and signs in")
	return nil
}

func (h *heist) signInMia(ctx context.Context) error {
	if _, err := h.mia.get(ctx, "/sign-in?return_to=/cart"); err != nil {
		return err
	}
	a, err := h.mia.post(ctx, "/sign-in", url.Values{"user": {"mia"}, "password": {"demo"}, "return_to": {"/cart"}})
	if err != nil {
		return err
	}
	if a.Status != http.StatusOK || a.path != "/cart" {
		return fmt.Errorf("mia could not sign in: the shop answered %d", a.Status)
	}
	return nil
}

// step is one turn: look what has happened, let the thief act, let mia load a page.
func (h *heist) step(ctx context.Context, first bool) (over bool, err error) {
	st, err := h.look(ctx)
	if err != nil {
		return false, err
	}
	fresh := st.Generation == h.held // nobody has renewed since
	switch {
	case h.Greedy, h.won, !fresh, st.Over, first && !st.Due:
		if over, err = h.use(ctx, st); over || err != nil {
			return over, err
		}
	case h.Shop:
	case st.Due:
		h.once("her token is due for renewal: the thief waits for %s's next page, since whoever comes first gets the new one (--greedy lets him be first)", h.stolen.Subject)
	default:
		h.once("waiting for %s to load a page; after some time of use that renews her token", h.stolen.Subject)
	}
	if h.mia != nil {
		_, err = h.mia.get(ctx, "/")
	}
	return false, err
}

// look asks how the session stands and tells what others did to it.
func (h *heist) look(ctx context.Context) (standing, error) {
	st, err := h.standing(ctx)
	if err != nil {
		return st, err
	}
	h.seq = st.Seq
	for _, e := range st.Events {
		switch {
		case e.Type == afterlogin.EventRenewed && e.Detail != fmt.Sprintf("generation %d", h.held):
			h.print(e.At, "", "", "%s loads a page: her token is renewed to %s", h.stolen.Subject, e.Detail)
		case e.Type == afterlogin.EventReuse && h.won:
			h.print(e.At, "", "", "%s loads a page with her old token, and that gives him away: %s is revoked, %s", h.stolen.Subject, e.Session, e.Detail)
		case e.Type == afterlogin.EventReuse:
			h.print(e.At, "", "", "%s is revoked: %s", e.Session, e.Detail)
		case e.Type == afterlogin.EventRevoked, e.Type == afterlogin.EventSuperseded:
			h.print(e.At, "", "", "%s is over: %s", e.Session, whyEnded(e.Reason))
		}
	}
	return st, nil
}

// standing asks how the session stands.
func (h *heist) standing(ctx context.Context) (st standing, err error) {
	err = h.control.call(ctx, http.MethodGet, "watch",
		url.Values{"session": {string(h.stolen.Session)}, "after": {strconv.Itoa(h.seq)}}, &st)
	return st, err
}

// use has the thief open the cart with what he holds.
func (h *heist) use(ctx context.Context, st standing) (over bool, err error) {
	a, err := h.thief.get(ctx, "/cart")
	if err != nil {
		return false, err
	}
	h.requests++
	what := fmt.Sprintf("GET /cart as the thief, generation %d", h.held)
	if a.Status == http.StatusUnauthorized {
		h.say(what, "401", "%s", a.Reason)
		return true, h.finish(ctx)
	}
	if a.Status != http.StatusOK {
		return false, fmt.Errorf("the shop answered the thief %d", a.Status)
	}
	h.served++
	held := h.held
	if a.set != "" {
		now, err := h.standing(ctx) // what he was given is the newest
		if err != nil {
			return false, err
		}
		h.held, h.won = now.Generation, true
	}
	switch {
	case a.set != "" && held == st.Generation:
		h.say(what, "200", "he came first: the renewed token, generation %d, is his. %s still holds the old one", h.held, h.stolen.Subject)
	case a.set != "":
		h.say(what, "200", "nobody has used generation %d yet, so it counts as an answer that was lost: he is given generation %d. %s's next page decides", st.Generation, h.held, h.stolen.Subject)
	case h.held < st.Generation:
		h.say(what, "200", "within the grace for requests that were under way; he is not given the new token")
	default:
		h.say(what, "200", "works: nobody has renewed since")
	}
	return false, nil
}

// finish tells what became of the shopper.
func (h *heist) finish(ctx context.Context) error {
	if _, err := h.look(ctx); err != nil {
		return err
	}
	took := time.Since(h.began)
	if err := h.askShopper(ctx); err != nil {
		return err
	}
	fmt.Fprintf(h.Out, "          the theft bought him %d answers in %s. Renewal limits a theft; only a token that is bound to a key prevents it\n", h.served, words(took))
	return nil
}

// askShopper shows what the shopper is told, and, if she is played here, that she gets her cart back.
func (h *heist) askShopper(ctx context.Context) error {
	var a answer
	var err error
	if h.mia != nil {
		a, err = h.mia.get(ctx, "/cart")
	} else if err = h.control.call(ctx, http.MethodPost, "shopper", url.Values{"session": {string(h.stolen.Session)}}, &a); err != nil {
		return nil // she has signed in again meanwhile, or was never seen: there is nothing to show
	}
	if err != nil {
		return err
	}
	h.say(fmt.Sprintf("GET /cart as %s, with her newest cookie", h.stolen.Subject), strconv.Itoa(a.Status), "%s", a.Reason)
	if a.Message != "" {
		fmt.Fprintf(h.Out, "          she reads: %s\n", a.Message)
	}
	if h.mia == nil {
		return nil
	}
	if err := h.signInMia(ctx); err != nil {
		return err
	}
	if a, err = h.mia.get(ctx, "/cart"); err != nil {
		return err
	}
	h.say("GET /cart as mia, signed in again", strconv.Itoa(a.Status), "a new session; the cart holds %d things", strings.Count(a.body, "data-line="))
	return nil
}
