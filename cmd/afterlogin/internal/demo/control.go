package demo

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/device"
	"github.com/afterlogin/afterlogin/httpauth"
)

// The demo's files in the state directory. Both are readable by their owner only.
const (
	controlFile = "demo.json"        // where the demo is, and what opens its control endpoint
	stolenFile  = "demo-stolen.json" // the thief's copy
)

// controlPath is where the control endpoint lies. It is not part of the shop.
const controlPath = "/demo/control/"

// StateDir returns the directory in which the demo and its thief find each other: that of the user's session, or of
// the user's caches. It is empty if there is neither.
func StateDir() string {
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "afterlogin")
	}
	if dir, err := os.UserCacheDir(); err == nil {
		return filepath.Join(dir, "afterlogin")
	}
	return ""
}

// address is the content of the control file.
type address struct {
	Shop   string `json:"shop"`   // its URL for people
	URL    string `json:"url"`    // and for programs: the very address that it listens on
	Secret string `json:"secret"` // for the control endpoint
	PID    int    `json:"pid"`
	// Grace is for how long what was renewed is still good. No thief could ask that; it is for the timelines.
	Grace time.Duration `json:"grace"`
}

// control is the endpoint that the demo's other commands talk to. Whoever knows the secret gets cookies from it: that is
// what the demo is for, and why nothing but the demo has it.
type control struct {
	shop   *shop
	key    *partnerKey
	dir    string // empty: there is no endpoint
	addr   address
	seen   sightings
	client *http.Client
}

// openControl makes the endpoint and its file.
func (d *Demo) openControl() (*control, error) {
	c := &control{
		shop: d.shop, key: &d.key, dir: d.config.StateDir, client: newClient(netip.Addr{}),
		addr: address{Shop: d.URL(), URL: d.loopbackURL(), Secret: rand.Text() + rand.Text(), PID: os.Getpid(), Grace: d.config.Grace},
	}
	if c.dir == "" {
		return c, nil
	}
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return nil, fmt.Errorf("the thief's directory: %w", err)
	}
	if err := writePrivate(filepath.Join(c.dir, controlFile), c.addr); err != nil {
		return nil, fmt.Errorf("the thief's directory: %w", err)
	}
	return c, nil
}

// loopbackURL is the shop's address for programs: the very address that it listens on.
func (d *Demo) loopbackURL() string { return "http://" + d.listeners[0].Addr().String() + "/" }

// close removes the files, unless another demo has written its own meanwhile.
func (c *control) close() error {
	c.client.CloseIdleConnections()
	if c.dir == "" {
		return nil
	}
	var now address
	err := readPrivate(filepath.Join(c.dir, controlFile), &now)
	if errors.Is(err, fs.ErrNotExist) || err == nil && now != c.addr {
		return nil
	}
	err = os.Remove(filepath.Join(c.dir, stolenFile))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, os.Remove(filepath.Join(c.dir, controlFile)))
}

// around puts the endpoint beside the shop, and notes the cookies that the shop's visitors hold.
func (c *control) around(next http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+controlPath+"steal", c.steal)
	mux.HandleFunc("GET "+controlPath+"watch", c.watch)
	mux.HandleFunc("POST "+controlPath+"shopper", c.shopper)
	mux.HandleFunc("POST "+controlPath+"partner", c.partner)
	mux.HandleFunc("POST "+controlPath+"rotate", c.rotate)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, controlPath) || c.dir == "" {
			next.ServeHTTP(&seer{ResponseWriter: w, note: func() { c.see(w.Header(), r) }}, r)
			return
		}
		w.Header().Set("Cache-Control", "no-store")
		got, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if !ok || subtle.ConstantTimeCompare([]byte(got), []byte(c.addr.Secret)) != 1 {
			http.Error(w, "this is for the other commands of "+c.shop.command+" demo, which know the secret", http.StatusForbidden)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// A seer calls note before the headers of an answer are written: whoever has read the answer finds the cookie noted.
type seer struct {
	http.ResponseWriter
	note func()
	done bool
}

// Unwrap lets http.ResponseController find what the server's writer can do.
func (s *seer) Unwrap() http.ResponseWriter { return s.ResponseWriter }

func (s *seer) WriteHeader(status int) {
	if !s.done && status >= 200 {
		s.done = true
		s.note()
	}
	s.ResponseWriter.WriteHeader(status)
}

func (s *seer) Write(b []byte) (int, error) {
	if !s.done {
		s.done = true
		s.note()
	}
	return s.ResponseWriter.Write(b)
}

// A sighting is the last cookie that the demo saw a session's browser hold.
//
// Only the demo does this. An application must not keep the cookies of its visitors, in memory or anywhere else.
type sighting struct {
	token     string // the secret itself
	session   *afterlogin.Session
	userAgent string
	at        time.Time
}

// maxSightings is how many sessions' cookies are remembered.
const maxSightings = 64

type sightings struct {
	mu     sync.Mutex
	latest map[afterlogin.SessionID]sighting
}

// see notes the cookie with which a browser leaves: the one that the answer sets, or the one that it came with. What
// the thief holds is not noted.
func (c *control) see(answer http.Header, r *http.Request) {
	if c.dir == "" || r.UserAgent() == thiefAgent {
		return
	}
	token := setCookie(answer)
	fresh := token != ""
	if !fresh {
		cookie, err := r.Cookie(httpauth.PlainCookieName)
		if err != nil {
			return
		}
		token = cookie.Value
	}
	c.seen.mu.Lock()
	defer c.seen.mu.Unlock()
	for id, s := range c.seen.latest {
		if s.token == token {
			s.at = time.Now()
			c.seen.latest[id] = s
			return
		}
	}
	e, err := c.shop.authority.Explain(r.Context(), afterlogin.TokenFrom(token), afterlogin.Client{})
	if err != nil || !e.Valid || e.Session.Anonymous() {
		return
	}
	if _, known := c.seen.latest[e.Session.ID]; known && !fresh {
		return // a page that was under way with the cookie from before
	}
	if c.seen.latest == nil {
		c.seen.latest = make(map[afterlogin.SessionID]sighting)
	}
	c.seen.latest[e.Session.ID] = sighting{token, e.Session, r.UserAgent(), time.Now()}
	if len(c.seen.latest) > maxSightings {
		var oldest afterlogin.SessionID
		for id, s := range c.seen.latest {
			if oldest == "" || s.at.Before(c.seen.latest[oldest].at) {
				oldest = id
			}
		}
		delete(c.seen.latest, oldest)
	}
}

// newest returns the sighting of the session that was used last and is still good.
func (c *control) newest(r *http.Request) (sighting, bool) {
	c.seen.mu.Lock()
	defer c.seen.mu.Unlock()
	var best sighting
	for _, s := range c.seen.latest {
		if !s.at.After(best.at) {
			continue
		}
		now, err := c.shop.authority.Session(r.Context(), s.session.ID)
		if err == nil && now.Ended.IsZero() {
			best = s
		}
	}
	return best, best.token != ""
}

// setCookie returns the session cookie that an answer sets, and "" if it sets none.
func setCookie(h http.Header) string {
	for _, line := range h["Set-Cookie"] {
		if c, err := http.ParseSetCookie(line); err == nil && c.Name == httpauth.PlainCookieName {
			return c.Value
		}
	}
	return ""
}

// A Stolen is a copy of somebody's cookie, as it lies in the thief's file.
type stolen struct {
	Token      string               `json:"token"` // the secret itself
	Session    afterlogin.SessionID `json:"session"`
	Generation uint32               `json:"generation"`
	Subject    string               `json:"subject"`
	Device     string               `json:"device"`
	Seq        int                  `json:"seq"`  // of the newest event when it was taken
	From       string               `json:"from"` // a name for the demo it is from, so that no other is asked about it
}

// steal answers with a copy of the cookie that was used last by somebody signed in.
func (c *control) steal(w http.ResponseWriter, r *http.Request) {
	s, ok := c.newest(r)
	if !ok {
		http.Error(w, "nobody is signed in", http.StatusNotFound)
		return
	}
	_, seq := c.shop.events.of("", 0)
	reply(w, stolen{
		Token: s.token, Session: s.session.ID, Generation: s.session.Generation, Subject: s.session.Subject,
		Device: device.Name(s.userAgent), Seq: seq, From: strconv.Itoa(c.addr.PID) + "@" + c.addr.URL,
	})
}

// A standing is how a session stands, and what happened to it.
type standing struct {
	Generation uint32            `json:"generation"`
	Due        bool              `json:"due"` // the next page renews the token, whoever loads it
	Over       bool              `json:"over"`
	Why        afterlogin.Reason `json:"why,omitempty"`
	Events     []event           `json:"events"`
	Seq        int               `json:"seq"`
}

// watch answers how a session stands. No thief could ask that; it is for the timeline.
func (c *control) watch(w http.ResponseWriter, r *http.Request) {
	id := afterlogin.SessionID(r.FormValue("session"))
	after, _ := strconv.Atoi(r.FormValue("after"))
	s, err := c.shop.authority.Session(r.Context(), id)
	if err != nil {
		http.Error(w, err.Error(), httpauth.Status(err))
		return
	}
	st := standing{Generation: s.Generation, Over: !s.Ended.IsZero(), Why: s.Why}
	p := c.shop.policies[s.Policy]
	st.Due = !st.Over && c.shop.now().Sub(s.Renewed) >= p.Renewal
	st.Events, st.Seq = c.shop.events.of(id, after)
	reply(w, st)
}

// shopper answers what the shopper's own browser will be told: it fetches the cart with the last cookie that it was
// seen to hold. Only when the session is over, since otherwise the answer might renew a cookie that the browser would
// never get.
func (c *control) shopper(w http.ResponseWriter, r *http.Request) {
	id := afterlogin.SessionID(r.FormValue("session"))
	c.seen.mu.Lock()
	s, ok := c.seen.latest[id]
	c.seen.mu.Unlock()
	now, err := c.shop.authority.Session(r.Context(), id)
	if !ok || err != nil || now.Ended.IsZero() {
		http.Error(w, "no such shopper, or her session is not over", http.StatusConflict)
		return
	}
	got, err := visit(r.Context(), c.client, c.addr.URL, s.userAgent, s.token)
	if err != nil {
		http.Error(w, "the shop did not answer", http.StatusBadGateway)
		return
	}
	got.set = ""
	reply(w, got)
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v)
}

// readPrivate reads a file of writePrivate. It refuses one that others can read.
func readPrivate(path string, v any) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("%s can be read by others (mode %04o): remove it and start the demo again", path, info.Mode().Perm())
	}
	if err := json.NewDecoder(io.LimitReader(f, 64<<10)).Decode(v); err != nil {
		return fmt.Errorf("%s: not a file of the demo: %w", path, err)
	}
	return nil
}

// newClient returns a client that connects from the address, if it is one, and follows no redirects.
func newClient(from netip.Addr) *http.Client {
	dialer := &net.Dialer{Timeout: 5 * time.Second}
	if from.IsValid() {
		dialer.LocalAddr = &net.TCPAddr{IP: from.AsSlice()}
	}
	return &http.Client{
		Timeout:       10 * time.Second,
		Transport:     &http.Transport{DialContext: dialer.DialContext},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}
