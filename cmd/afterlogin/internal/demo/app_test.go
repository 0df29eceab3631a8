package demo

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/httpauth"
)

// secret is what no timeline may hold: a token of ours, a JWT, or an authorization code.
var secret = regexp.MustCompile(`al[a-z]_[A-Za-z0-9_-]{84}|eyJ`)

// phones runs a demo whose access tokens end every second, and returns where it is found.
func phones(t *testing.T) (*Demo, string) {
	state := t.TempDir()
	return start(t, Config{StateDir: state, Renewal: 10 * time.Second, Grace: time.Second, Now: fast(10)}), state
}

func tells(t *testing.T, out string, lines ...string) {
	t.Helper()
	if secret.MatchString(out) {
		t.Error("a token stands in the timeline")
	}
	rest := out
	for _, line := range lines {
		at := regexp.MustCompile(line).FindStringIndex(rest)
		if at == nil {
			t.Errorf("the timeline lacks %q, or has it earlier:\n%s", line, out)
			return
		}
		rest = rest[at[1]:]
	}
}

func TestAppLosesAnswer(t *testing.T) {
	t.Parallel()
	_, state := phones(t)
	var out strings.Builder
	signedOut, err := App{StateDir: state, Out: &out, As: "tom", Every: 100 * time.Millisecond, Within: 3 * time.Second, LoseAnswer: true}.Run(t.Context())
	if err != nil || signedOut {
		t.Errorf("Run: %v, %v", signedOut, err)
	}
	tells(t, out.String(), `tom signs in`, `200  access token \(opaque\) .*refresh token 1`, `the browser signs out`, `GET /api/cart.*200  the cart is empty`,
		`401  expired`, `refresh token 1 .* -  the connection broke`, `refresh token 1 .*200  .*refresh token 2`, `the very token that was lost`, `/oauth/revoke.*200  the app signs itself out`)
}

func TestAppRobbed(t *testing.T) {
	t.Parallel()
	_, state := phones(t)
	var out strings.Builder
	signedOut, err := App{StateDir: state, Out: &out, Every: 100 * time.Millisecond, Within: time.Minute, Steal: true}.Run(t.Context())
	if err != nil || !signedOut {
		t.Errorf("Run: %v, %v", signedOut, err)
	}
	tells(t, out.String(), `a thief copies refresh token 1`, `refresh token 1 .*200`, `copy is out of date`, `thief's copy .*400  invalid_grant`,
		`GET /api/cart.*401  revoked`, `400  invalid_grant`, `the app is signed out`)
}

// TestAppOnDevices has mia sign the app out on the page of her devices; tom can do nothing about it.
func TestAppOnDevices(t *testing.T) {
	t.Parallel()
	d, state := phones(t)
	mia, tom := visitor(t, d, laptopAgent), visitor(t, d, laptopAgent)
	post(t, mia, "/cart/items", url.Values{"product": {"kettle"}})
	signIn(t, mia, "mia")
	signIn(t, tom, "tom")
	r, w := io.Pipe()
	type end struct {
		signedOut bool
		err       error
	}
	ended := make(chan end, 1)
	go func() {
		signedOut, err := App{StateDir: state, Out: w, Every: 100 * time.Millisecond, JWT: true, Within: time.Minute}.Run(t.Context())
		w.Close()
		ended <- end{signedOut, err}
	}()
	lines := bufio.NewScanner(r)
	var out strings.Builder
	for lines.Scan() {
		out.WriteString(lines.Text() + "\n")
		if !strings.Contains(lines.Text(), "1 kind of thing, € 79.00") {
			continue
		}
		_, rest, _ := strings.Cut(get(t, mia, "/account/sessions").body, `data-app="`)
		id, _, _ := strings.Cut(rest, `"`)
		if !strings.HasPrefix(id, "grant_") || !strings.Contains(rest, "Pocket Shop (app)") || !strings.Contains(rest, "May see: cart, orders") {
			t.Errorf("the list of devices does not show the app")
		}
		if a := get(t, tom, "/account/sessions"); strings.Contains(a.body, "data-app") {
			t.Error("tom sees mia's app")
		}
		if a := post(t, tom, "/account/sessions/"+id+"/sign-out", nil); a.Status != http.StatusNotFound {
			t.Errorf("tom signs mia's app out: %d", a.Status)
		}
		a := post(t, mia, "/account/sessions/"+id+"/sign-out", nil)
		if a.Status != http.StatusOK || strings.Contains(a.body, "data-app") || !strings.Contains(a.body, `data-ended="`+id) {
			t.Errorf("mia signs her app out: %d", a.Status)
		}
		break
	}
	rest, _ := io.ReadAll(r)
	out.Write(rest)
	if e := <-ended; e.err != nil || !e.signedOut {
		t.Errorf("Run: %v, %v", e.signedOut, e.err)
	}
	tells(t, out.String(), `access token \(a JWT\)`, `GET /api/cart.*200`, `401  revoked`, `400  invalid_grant`)
	if a := get(t, mia, "/cart"); a.Status != http.StatusOK {
		t.Errorf("mia's browser: %d", a.Status)
	}
}

// TestAppInterrupted checks that an app which is stopped gives its tokens back.
func TestAppInterrupted(t *testing.T) {
	t.Parallel()
	d, state := phones(t)
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		_, err := App{StateDir: state, Out: w, Every: 100 * time.Millisecond}.Run(ctx)
		w.Close()
		ended <- err
	}()
	lines := bufio.NewScanner(r)
	for lines.Scan() && !strings.Contains(lines.Text(), "GET /api/cart") {
	}
	cancel()
	rest, _ := io.ReadAll(r)
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
	tells(t, string(rest), `the app signs itself out`)
	for s, err := range d.authority.Sessions(t.Context(), afterlogin.Query{Subject: "mia", Kind: afterlogin.KindRefresh}) {
		t.Errorf("the grant %v is still good (%v)", s.ID, err)
	}
}

func TestAppRefuses(t *testing.T) {
	t.Parallel()
	if _, err := (App{StateDir: t.TempDir(), Out: io.Discard}).Run(t.Context()); !errors.Is(err, ErrNoDemo) {
		t.Errorf("without a demo: %v", err)
	}
	if _, err := (App{StateDir: t.TempDir(), Out: io.Discard, As: "eve"}).Run(t.Context()); !errors.Is(err, ErrNobodyKnown) {
		t.Errorf("as eve: %v", err)
	}
	_, state := phones(t)
	if _, err := (App{StateDir: state, Out: io.Discard, Browser: true, Within: 10 * time.Millisecond}).Run(t.Context()); !errors.Is(err, ErrNotAllowed) {
		t.Errorf("with nobody at the browser: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := (App{StateDir: state, Out: io.Discard}).Run(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted at once: %v", err)
	}
	if _, err := (Partner{StateDir: t.TempDir(), Out: io.Discard}).Run(t.Context()); !errors.Is(err, ErrNoDemo) {
		t.Errorf("a partner without a demo: %v", err)
	}
}

func TestPartner(t *testing.T) {
	t.Parallel()
	state := t.TempDir()
	start(t, Config{StateDir: state, Grace: time.Second})
	var out strings.Builder
	held, err := Partner{StateDir: state, Out: &out}.Run(t.Context())
	if err != nil || !held {
		t.Errorf("Run: %v, %v", held, err)
	}
	tells(t, out.String(), `401  no_credential`, `200  what is left of 9 products`, `403  scope`, `the shop makes another key`,
		`new key .*200`, `old key .*200`, `old key .*401  expired`, `429  rate_limited: the next one in \d+ s`)
	// The key that it has now is in a hurry still; that is not what is to be seen.
	if held, err = (Partner{StateDir: state, Out: &out}).Run(t.Context()); err != nil || held {
		t.Errorf("at once again: %v, %v; want that it does not hold", held, err)
	}
}

// TestAPI checks what the JSON API takes, and what it does not.
func TestAPI(t *testing.T) {
	t.Parallel()
	d := start(t, Config{})
	mia := visitor(t, d, laptopAgent)
	signIn(t, mia, "mia")
	session, err := d.authority.Validate(t.Context(), afterlogin.TokenFrom(mia.cookie), afterlogin.Expect{Kinds: []afterlogin.Kind{afterlogin.KindSession}})
	if err != nil {
		t.Fatal(err)
	}
	access := func(jwt bool, scopes ...string) string {
		t.Helper()
		got, err := d.authority.IssueAccess(t.Context(), session, afterlogin.AccessRequest{Scopes: scopes, JWT: jwt})
		if err != nil {
			t.Fatal(err)
		}
		return "Bearer " + got.Token.Reveal()
	}
	key := d.key.now.Token.Reveal()
	elsewhere, err := d.authority.IssueAccess(t.Context(), session, afterlogin.AccessRequest{Scopes: []string{"cart"}, Audience: []string{"https://other.example"}, JWT: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, method, path string
		header             http.Header
		status             int
		reason             string
	}{
		{"nothing", "GET", "/api/cart", nil, 401, "no_credential"},
		{"a cookie", "GET", "/api/cart", http.Header{"Cookie": {httpauth.PlainCookieName + "=" + mia.cookie}}, 401, "no_credential"},
		{"the cookie's token", "GET", "/api/cart", http.Header{"Authorization": {"Bearer " + mia.cookie}}, 401, "wrong_kind"},
		{"an access token", "GET", "/api/cart", http.Header{"Authorization": {access(false, "cart")}}, 200, ""},
		{"a JWT", "GET", "/api/cart", http.Header{"Authorization": {access(true, "cart")}}, 200, ""},
		{"a JWT for another service", "GET", "/api/cart", http.Header{"Authorization": {"Bearer " + elsewhere.Token.Reveal()}}, 401, "wrong_audience"},
		{"another scope", "GET", "/api/cart", http.Header{"Authorization": {access(false, "orders")}}, 403, "scope"},
		{"a JWT of another scope", "GET", "/api/cart", http.Header{"Authorization": {access(true, "orders")}}, 403, "scope"},
		{"the orders", "GET", "/api/orders", http.Header{"Authorization": {access(false, "orders")}}, 200, ""},
		{"an access token for the stock", "GET", "/api/stock", http.Header{"Authorization": {access(false, "stock")}}, 401, "wrong_kind"},
		{"a key for a cart", "GET", "/api/cart", http.Header{"X-Api-Key": {key}}, 401, "no_credential"},
		{"a key for orders", "GET", "/api/orders", http.Header{"X-Api-Key": {key}}, 403, "scope"},
		{"a key", "GET", "/api/stock", http.Header{"X-Api-Key": {key}}, 200, ""},
		{"a key as bearer", "GET", "/api/stock", http.Header{"Authorization": {"Bearer " + key}}, 200, ""},
		{"two credentials", "GET", "/api/orders", http.Header{"X-Api-Key": {key}, "Authorization": {access(false, "orders")}}, 401, "duplicate"},
		{"another method", "POST", "/api/cart", http.Header{"Authorization": {access(false, "cart")}}, 405, ""},
		{"another path", "GET", "/api/nonsense", http.Header{"Authorization": {access(false, "cart")}}, 404, ""},
	} {
		r, err := http.NewRequestWithContext(t.Context(), tt.method, strings.TrimSuffix(d.loopbackURL(), "/")+tt.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if tt.header != nil {
			r.Header = tt.header
		}
		r.Header.Set("Accept", "application/json")
		a, err := read(mia.client, r)
		if err != nil {
			t.Fatal(err)
		}
		if a.Status != tt.status || tt.reason != "" && !strings.Contains(a.body, `"reason":"`+tt.reason+`"`) {
			t.Errorf("%s: %d %s; want %d %s", tt.name, a.Status, a.body, tt.status, tt.reason)
		}
		if a.Status == 401 && a.header.Get("WWW-Authenticate") == "" {
			t.Errorf("%s: a 401 without a challenge", tt.name)
		}
		if a.header.Get("Set-Cookie") != "" || a.Status == 200 && a.header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: the answer sets a cookie, or may be stored", tt.name)
		}
	}
}

// TestKeptPrograms checks that with a directory of its own the demo comes back with the same clients, as they are to be
// today, and with another key for the partner.
func TestKeptPrograms(t *testing.T) {
	t.Parallel()
	c := Config{Addr: "127.0.0.1:0", Data: filepath.Join(t.TempDir(), "kept")}
	first, err := Start(c)
	if err != nil {
		t.Fatal(err)
	}
	old := first.key.now.Token.Reveal()
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	c.Renewal = time.Minute
	second := start(t, c)
	client := newClient(netip.Addr{})
	t.Cleanup(client.CloseIdleConnections)
	for key, want := range map[string]int{old: http.StatusUnauthorized, second.key.now.Token.Reveal(): http.StatusOK} {
		if a, err := askWithKey(t.Context(), client, second.loopbackURL(), "/api/stock", key); err != nil || a.status != want {
			t.Errorf("a key: %d, %v; want %d", a.status, err, want)
		}
	}
	p := newPocket(second.loopbackURL(), second.URL(), pocketShop, time.Now)
	t.Cleanup(p.client.CloseIdleConnections)
	mia := visitor(t, second, phoneAgent)
	if err := p.signIn(t.Context(), func(ctx context.Context, address string) error { return mia.allow(ctx, address, "mia") }); err != nil {
		t.Fatal(err)
	}
	if left := time.Until(p.until); left < 50*time.Second {
		t.Errorf("the access token is good for %v, want a minute", left)
	}
}
