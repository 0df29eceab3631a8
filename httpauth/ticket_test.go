package httpauth_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/httpauth"
)

// link asks for a ticket to the target in the browser's session.
func (s *shop) link(c *http.Client, target string) string {
	s.Helper()
	got := s.do(c, "GET", "/link?target="+url.QueryEscape(target), "")
	if got.StatusCode != 200 {
		s.Fatalf("no ticket for %s: %d %s", target, got.StatusCode, got.body)
	}
	return got.body
}

func withLinks(s *shop) *shop {
	s.mux.Handle("GET /link", s.auth.Optional(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		link, err := s.auth.TicketURL(r, r.FormValue("target"))
		if err != nil {
			httpauth.Answer(w, r, err)
			return
		}
		io.WriteString(w, link)
	})))
	return s
}

// A ticket lets in one request, at its address, without a cookie.
func TestTicket(t *testing.T) {
	s := withLinks(service(t, httpauth.Options{SignInURL: "/enter"}))
	c := s.signedIn("mia")
	any := s.anybody()

	link := s.link(c, "/files/a")
	if !strings.HasPrefix(link, "/files/a?ticket=alt_") {
		t.Fatalf("link %q", link)
	}
	// Nothing that only looks ahead uses it up, and nobody gets it in a return_to.
	for _, ahead := range [][]string{{"HEAD"}, {"GET", "Sec-Purpose: prefetch;prerender"}, {"GET", "Purpose: prefetch"}, {"GET", "X-Moz: prefetch"}, {"POST"}, {"OPTIONS"}} {
		got := s.do(any, ahead[0], link, "", append(ahead[1:], "Accept: text/html", "Sec-Fetch-Mode: navigate")...)
		if got.StatusCode != 425 || got.Header.Get("Location") != "" {
			t.Errorf("%v: %d %v", ahead, got.StatusCode, got.Header)
		}
	}
	s.want(s.do(any, "GET", strings.Replace(link, "/files/a", "/files/b", 1), ""), 403, "another address")
	s.want(s.do(any, "GET", link+"&x=1", ""), 403, "another address")
	got := s.do(any, "GET", link, "")
	s.want(got, 200, "mia")
	if h := got.Header; h.Get("Referrer-Policy") != "no-referrer" || h.Get("Cache-Control") != "private, no-store" || len(h["Set-Cookie"]) > 0 {
		t.Errorf("headers %v", h)
	}
	got = s.do(any, "GET", link, "", "Accept: text/html", "Sec-Fetch-Mode: navigate")
	s.want(got, 410, "has been used")
	if got.Header.Get("WWW-Authenticate") != "" {
		t.Error("a challenge, though to sign in would not help")
	}
	if _, why := s.check(s.held(c)); why != "" {
		t.Errorf("a replay ended the session: %s", why)
	}
	if n := len(s.saw(afterlogin.EventTicketUsed)); n != 1 {
		t.Errorf("%d events of use", n)
	}

	link = s.link(c, "/files/a?as=pdf&v=2")
	s.want(s.do(any, "GET", strings.Replace(link, "pdf", "zip", 1), ""), 403, "another address")
	s.want(s.do(any, "GET", link, ""), 200, "mia")
	for _, spelling := range [][2]string{{"/files/a~b", "/files/a%7eb"}, {"/files/caf%C3%A9", "/files/caf%c3%a9"}, {"/files/%61b", "/files/ab"}} {
		link = s.link(c, spelling[0])
		s.want(s.do(any, "GET", strings.Replace(link, spelling[0], spelling[1], 1), ""), 200, "mia")
	}
	link = s.link(c, "/files/a%2Fb")
	s.want(s.do(any, "GET", strings.Replace(link, "%2F", "/", 1), ""), 404, "")
	s.want(s.do(any, "GET", link, ""), 200, "mia")

	link = s.link(c, "/files/late")
	s.pass(31 * time.Second)
	got = s.do(any, "GET", link, "", "Accept: text/html", "Sec-Fetch-Mode: navigate")
	if to := got.Header.Get("Location"); got.StatusCode != 303 || to != "/enter?return_to=%2Ffiles%2Flate" {
		t.Errorf("a late ticket: %d to %q", got.StatusCode, to)
	}
	s.want(s.do(any, "GET", link, ""), 401, "good for a short time only")

	link = s.link(c, "/files/gone")
	s.do(c, "POST", "/sign-out", "", "X-Csrf-Token: "+s.csrf(c))
	s.want(s.do(any, "GET", link, ""), 401, "")
	s.want(s.do(c, "GET", "/link?target=/files/a", ""), 401, "not signed in")
	s.want(s.do(any, "GET", "/files/a?ticket=4711", ""), 401, "not signed in")
	s.want(s.do(any, "GET", "/files/a?ticket=alt_x", ""), 401, "")
	for token := range strings.SplitSeq(link, "ticket=") {
		if strings.Contains(s.log.String(), token) && strings.HasPrefix(token, "alt_") {
			t.Error("a ticket is in the log")
		}
	}
}

func TestTicketTargets(t *testing.T) {
	s := withLinks(service(t, httpauth.Options{}))
	c := s.signedIn("mia")
	for _, bad := range []string{
		"", "files/a", "//evil.example/a", "https://evil.example/a", "/a/../b", "/a#b", "/a#", "/a?x#", "/a\\b",
		"/a?ticket=alt_x", "/a?x=1&%74icket=%61lt_x", "/" + strings.Repeat("é", 1000),
	} {
		if got := s.do(c, "GET", "/link?target="+url.QueryEscape(bad), ""); got.StatusCode != 400 {
			t.Errorf("a ticket for %q: %d %s", bad, got.StatusCode, got.body)
		}
	}
	if strings.Contains(s.log.String(), "level=ERROR") {
		t.Error("what a client wrote is logged as an error")
	}
	// Scopes and the age of the sign-in are those of the session.
	s.want(s.do(s.anybody(), "GET", s.link(c, "/safe/a"), ""), 403, "may not do this")
	s.want(s.do(s.anybody(), "GET", s.link(c, "/fresh/a"), ""), 200, "mia")
	old := s.issue(afterlogin.IssueRequest{Subject: "mia", Auth: afterlogin.Authentication{At: time.Now().Add(-2 * time.Hour)}}).Token.Reveal()
	link := s.do(s.anybody(), "GET", "/link?target=/fresh/a", "", s.cookie(old)).body
	got := s.do(s.anybody(), "GET", link, "")
	s.want(got, 401, "too long ago")
	if h := got.Header.Get("WWW-Authenticate"); !strings.Contains(h, "insufficient_user_authentication") {
		t.Errorf("challenge %q", h)
	}
}

// A ticket beside a session cookie goes first; refused, it changes nothing.
func TestTicketBesideCookie(t *testing.T) {
	s := withLinks(service(t, httpauth.Options{}))
	mia, tom := s.signedIn("mia"), s.signedIn("tom")
	link := s.link(mia, "/both/a")
	s.want(s.do(tom, "HEAD", link, ""), 200, "")
	s.want(s.do(tom, "GET", link, "", "Sec-Purpose: prefetch"), 200, "tom")
	s.want(s.do(tom, "GET", link, ""), 200, "mia")
	s.want(s.do(tom, "GET", link, ""), 200, "tom") // a reload
	s.want(s.do(s.anybody(), "GET", link, ""), 410, "has been used")
	link = s.link(mia, "/both/a")
	s.want(s.do(s.anybody(), "GET", link, "", "Authorization: Bearer "+s.held(tom)), 401, "two credentials")
	s.want(s.do(s.anybody(), "GET", link+"&"+link[len("/both/a?"):], ""), 400, "where others can read it")
	s.want(s.do(tom, "GET", link, ""), 200, "tom") // the one that stood there twice is worthless
	link = s.link(mia, "/both/a")
	s.store.fault.Store(readsFail)
	s.want(s.do(tom, "GET", link, ""), 503, "")
	s.store.fault.Store(writesFail)
	s.want(s.do(tom, "GET", link, ""), 503, "")
	s.store.fault.Store(healthy)
	s.want(s.do(tom, "GET", link, ""), 200, "mia")
}

// Among many requests with one ticket, one is let in.
func TestTicketRace(t *testing.T) {
	s := withLinks(service(t, httpauth.Options{}))
	c := s.signedIn("mia")
	link := s.link(c, "/files/a")
	var wg sync.WaitGroup
	var mu sync.Mutex
	count := make(map[int]int)
	for range 20 {
		wg.Go(func() {
			got, err := s.try(s.anybody(), "GET", link, "")
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			count[got.StatusCode]++
		})
	}
	wg.Wait()
	if count[200] != 1 || count[410] != 19 {
		t.Errorf("answers %v", count)
	}
}

// A page elsewhere may open a WebSocket with a ticket, and with nothing else: not with junk beside the victim's cookie.
func TestTicketForWebSockets(t *testing.T) {
	s := withLinks(service(t, httpauth.Options{}))
	c := s.signedIn("mia")
	upgrade := []string{"Connection: Upgrade", "Upgrade: websocket", "Origin: https://elsewhere.example", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: websocket"}
	link := s.link(c, "/both/socket")
	s.want(s.do(s.anybody(), "GET", link, "", upgrade...), 200, "mia")
	beside := append(upgrade, s.cookie(s.held(c)))
	s.want(s.do(s.anybody(), "GET", link, "", beside...), 403, "another site")
	s.want(s.do(s.anybody(), "GET", "/both/socket?ticket=alt_junk", "", beside...), 403, "another site")
	s.want(s.do(s.anybody(), "GET", "/both/socket", "", beside...), 403, "another site")
	s.want(s.do(s.anybody(), "GET", s.link(c, "/both/socket"), "", beside...), 200, "mia")
}

// Nested: Optional outside, a ticket inside; and a page for sessions inside of one for tickets.
func TestTicketNested(t *testing.T) {
	s := withLinks(service(t, httpauth.Options{}))
	x := s.auth
	ticket := httpauth.Kinds(afterlogin.KindTicket, afterlogin.KindSession)
	page := http.HandlerFunc(s.home)
	s.mux.Handle("/nested", x.Optional(x.Require(page, ticket)))
	s.mux.Handle("/twice", x.Require(x.Require(page, ticket), ticket))
	s.mux.Handle("/inner", x.Require(x.Require(page), ticket))
	only := httpauth.Kinds(afterlogin.KindTicket)
	for path, h := range map[string]http.Handler{
		"/only/optional": x.Optional(x.Require(page, only)), "/only/twice": x.Require(x.Require(page, only), ticket),
		"/any/optional": x.Optional(x.Require(page, ticket)), "/any/twice": x.Require(x.Require(page, ticket), ticket),
		"/scoped/optional": x.Optional(x.Require(page, ticket, httpauth.Scopes("files"))),
	} {
		s.mux.Handle(path, h)
	}
	s.mux.Handle("/out", x.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := x.SignOut(w, r); err == nil {
			t.Error("a ticket signed its session out")
		}
		if _, err := x.StepUp(w, r, afterlogin.Authentication{}); err == nil {
			t.Error("a ticket stepped its session up")
		}
	}), ticket))
	c := s.signedIn("mia")
	s.want(s.do(s.anybody(), "GET", s.link(c, "/nested"), ""), 200, "mia")
	s.want(s.do(s.anybody(), "GET", s.link(c, "/twice"), ""), 200, "mia")
	s.want(s.do(s.anybody(), "GET", s.link(c, "/inner"), ""), 401, "not accepted here")
	s.want(s.do(s.anybody(), "GET", s.link(c, "/out"), ""), 200, "")
	s.want(s.do(c, "GET", "/account", ""), 200, "mia")

	// A cookie that came along is neither enough where tickets are wanted, nor in the way of a good ticket.
	anonymous := s.browser()
	s.do(anonymous, "POST", "/cart", "item=tea")
	if s.held(anonymous) == "" {
		t.Fatal("no cart")
	}
	for whose, browser := range map[string]*http.Client{"own": c, "foreign": s.signedIn("tom"), "anonymous": anonymous} {
		cookie := s.cookie(s.held(browser))
		for _, path := range []string{"/only/optional", "/only/twice", "/any/optional", "/any/twice"} {
			t.Run(whose+path, func(t *testing.T) {
				link := s.link(c, path)
				got := s.do(s.anybody(), "GET", link, "", cookie)
				if s.want(got, 200, "mia"); len(got.Header["Set-Cookie"]) > 0 {
					t.Errorf("cookies %q", got.Header["Set-Cookie"])
				}
				for _, bad := range []string{link, path + "?ticket=alt_junk"} {
					got := s.do(s.anybody(), "GET", bad, "", cookie)
					switch {
					case strings.HasPrefix(path, "/only"), whose == "anonymous":
						if got.StatusCode < 400 {
							t.Errorf("%s is let in: %s", bad, got.body)
						}
					default:
						s.want(got, 200, map[string]string{"own": "mia", "foreign": "tom"}[whose])
					}
				}
			})
		}
	}
	s.want(s.do(s.signedIn("tom"), "GET", s.link(c, "/scoped/optional"), ""), 403, "may not do this")
}

// What a ticket let in makes no other ticket, and no cookie; nor does a JWT in a cookie make the next one.
func TestTicketBegetsNothing(t *testing.T) {
	s := withLinks(service(t, httpauth.Options{JWTCookie: "__Host-Http-jwt", HandOverTo: []string{"https://b.example"}}))
	x := s.auth
	all := httpauth.Kinds(afterlogin.KindSession, afterlogin.KindTicket, afterlogin.KindJWT, afterlogin.KindAPIKey)
	s.mux.Handle("/beget/{what}", x.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var err error
		switch r.PathValue("what") {
		case "ticket":
			_, err = x.TicketURL(r, "/files/a")
		case "jwt":
			err = x.SetJWTCookie(w, r, afterlogin.AccessRequest{})
		case "hand-over":
			err = x.SendOver(w, r, "https://b.example/", strings.Repeat("A", 43))
		}
		if err != nil {
			httpauth.Answer(w, r, err)
		}
	}), all))
	c := s.signedIn("mia")
	bearer := "Authorization: Bearer " + s.held(c)
	jwt := "Cookie: __Host-Http-jwt=" + s.access(s.session(c), afterlogin.AccessRequest{JWT: true, Audience: []string{"orders"}})
	key := "X-Api-Key: " + s.issue(afterlogin.IssueRequest{Subject: "robot", Kind: afterlogin.KindAPIKey}).Token.Reveal()
	for _, what := range []string{"/beget/ticket", "/beget/jwt", "/beget/hand-over"} {
		if got := s.do(c, "GET", what, ""); got.StatusCode >= 400 {
			t.Errorf("%s with a session: %d %s", what, got.StatusCode, got.body)
		}
		if got := s.do(s.anybody(), "GET", what, "", bearer); got.StatusCode >= 400 {
			t.Errorf("%s with a bearer token: %d %s", what, got.StatusCode, got.body)
		}
		s.want(s.do(s.anybody(), "GET", s.link(c, what), ""), 401, "not accepted here")
		s.want(s.do(s.anybody(), "GET", what, "", jwt), 401, "not accepted here")
		s.want(s.do(s.anybody(), "GET", what, "", key), 401, "wrong_kind")
	}
}

// With an Origin a ticket is for that origin, or for the one that the link names, and for no other host.
func TestTicketOrigin(t *testing.T) {
	s := withLinks(service(t, httpauth.Options{Origin: "https://a.example", HandOverTo: []string{"https://b.example", "https://b.example:8443"}}))
	other, err := httpauth.New(s.a, httpauth.Options{Origin: "https://b.example"})
	if err != nil {
		t.Fatal(err)
	}
	plain, err := httpauth.New(s.a, httpauth.Options{})
	if err != nil {
		t.Fatal(err)
	}
	at := func(x *httpauth.Auth, link string) int {
		w := httptest.NewRecorder()
		x.Require(http.HandlerFunc(s.home), httpauth.Kinds(afterlogin.KindTicket)).ServeHTTP(w, httptest.NewRequest("GET", link, nil))
		return w.Code
	}
	c := s.signedIn("mia")
	for _, tt := range []struct {
		target      string
		here, there int
	}{{"/files/a", 200, 403}, {"https://b.example/files/a?x=1", 403, 200}, {"https://b.example:8443/files/a", 403, 403}} {
		link := s.link(c, tt.target)
		path := link[strings.Index(link, "/files"):]
		if got := at(plain, path); got != 403 {
			t.Errorf("%s where no origin is set: %d", tt.target, got)
		}
		if here, there := at(s.auth, path), at(other, path); here != tt.here || there != tt.there {
			t.Errorf("%s: %d here, %d there; want %d, %d", tt.target, here, there, tt.here, tt.there)
		}
	}
	// Not even a program's own ticket lets in an address that no browser sends.
	odd, err := s.a.IssueTicket(t.Context(), s.session(c), afterlogin.TicketRequest{Target: "https://a.example/files/a#"})
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest("GET", "/files/a?ticket="+odd.Token.Reveal(), nil)
	r.RequestURI = "/files/a#?ticket=" + odd.Token.Reveal()
	w := httptest.NewRecorder()
	s.auth.Require(http.HandlerFunc(s.home), httpauth.Kinds(afterlogin.KindTicket)).ServeHTTP(w, r)
	if w.Code != 403 {
		t.Errorf("a fragment: %d", w.Code)
	}
	for _, bad := range []string{"https://b.example.evil.example/", "https://b.example@evil.example/", "https://b.example/#", "https://b.example:1/", "https://b.example//x", "http://b.example/", "https://b.example/?ticket=alt_x"} {
		s.want(s.do(c, "GET", "/link?target="+url.QueryEscape(bad), ""), 400, "")
	}
}

// Whatever is answered to an address with a ticket, nobody stores it, and nobody learns the address from a referrer.
func TestTicketHeaders(t *testing.T) {
	s := withLinks(service(t, httpauth.Options{SignInURL: "/enter"}))
	s.mux.Handle("/cached", s.auth.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "public, max-age=3600")
		w.Header().Set("Cdn-Cache-Control", "max-age=3600")
		w.Header().Set("Referrer-Policy", "unsafe-url")
		s.home(w, r)
	}), httpauth.Kinds(afterlogin.KindTicket, afterlogin.KindSession)))
	c := s.signedIn("mia")
	link := s.link(c, "/cached")
	for _, tt := range []struct {
		name, method, link string
		client             *http.Client
		headers            []string
		status             int
		cache              string
	}{
		{"ahead", "HEAD", link, s.anybody(), nil, 425, "no-store"},
		{"another address", "GET", link + "&x=1", s.anybody(), nil, 403, "no-store"},
		{"let in", "GET", link, s.anybody(), nil, 200, "private, no-store"},
		{"used", "GET", link, s.anybody(), nil, 410, "no-store"},
		{"the cookie decides", "GET", link, c, nil, 200, "no-store"},
		{"junk", "GET", "/cached?ticket=alt_junk", s.anybody(), nil, 401, "no-store"},
		{"junk at the sign-in", "GET", "/cached?ticket=alt_junk", s.anybody(), []string{"Accept: text/html", "Sec-Fetch-Mode: navigate"}, 303, "no-store"},
		{"a page for everybody", "GET", "/?ticket=alt_junk", s.anybody(), nil, 200, "no-store"},
	} {
		got := s.do(tt.client, tt.method, tt.link, "", tt.headers...)
		if h := got.Header; got.StatusCode != tt.status || h.Get("Cache-Control") != tt.cache || h.Get("Cdn-Cache-Control") != "" ||
			len(h["Referrer-Policy"]) != 1 || h.Get("Referrer-Policy") != "no-referrer" {
			t.Errorf("%s: %d %v", tt.name, got.StatusCode, h)
		}
	}
	got := s.do(c, "GET", "/cached", "")
	if got.Header.Get("Cache-Control") != "public, max-age=3600" || got.Header.Get("Referrer-Policy") != "unsafe-url" {
		t.Errorf("without a ticket: %v", got.Header)
	}
}

// twoHosts is accounts.example, where people sign in, and shop.example, which gets their sessions by tickets.
type twoHosts struct {
	*shop // accounts
	auth  *httpauth.Auth
	shop2 *httptest.Server
	// at says under which names the two are reached.
	accounts, store string
}

func openTwo(t *testing.T) *twoHosts {
	t.Helper()
	two := &twoHosts{}
	mux := http.NewServeMux()
	two.shop2 = httptest.NewUnstartedServer(mux)
	two.shop2.Config.ErrorLog = nil
	two.shop2.StartTLS()
	t.Cleanup(two.shop2.Close)
	two.store = two.shop2.URL
	two.shop = openWith(t, httpauth.Options{HandOverTo: []string{two.store}}, nil, afterlogin.Config{Issuer: issuer})
	two.accounts = two.shop.URL
	two.mux.Handle("/hand-over", two.shop.auth.HandOver())
	var err error
	// One authority; in life the two may be processes on one store. Other cookies, as both are at 127.0.0.1 here.
	two.auth, err = httpauth.New(two.a, httpauth.Options{Origin: two.store, CookieName: "__Host-Http-store"})
	if err != nil {
		t.Fatal(err)
	}
	x := two.auth
	page := http.HandlerFunc(two.home)
	mux.Handle("GET /start", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := x.StartHandOver(w, r, two.accounts+"/hand-over", r.FormValue("return_to")); err != nil {
			httpauth.Answer(w, r, err)
		}
	}))
	mux.Handle("/", x.AcceptHandOver(x.Optional(page)))
	mux.Handle("/account", x.AcceptHandOver(x.Require(page)))
	return two
}

// at sends one request to an address of either host.
func (two *twoHosts) at(c *http.Client, method, address string, headers ...string) answer {
	two.Helper()
	r, err := http.NewRequestWithContext(two.Context(), method, address, nil)
	if err != nil {
		two.Fatal(err)
	}
	for _, h := range headers {
		k, v, _ := strings.Cut(h, ": ")
		r.Header.Add(k, v)
	}
	resp, err := c.Do(r)
	if err != nil {
		two.Fatal(err)
	}
	b, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	return answer{resp, string(b)}
}

// ticketFor lets the browser go as far as the address with the ticket.
func (two *twoHosts) ticketFor(c *http.Client, page string) string {
	two.Helper()
	start := two.at(c, "GET", two.store+"/start?return_to="+url.QueryEscape(page))
	over := two.at(c, "GET", start.Header.Get("Location"))
	to := over.Header.Get("Location")
	if over.StatusCode != 303 || !strings.HasPrefix(to, two.store+page) || !strings.Contains(to, "ticket=alt_") ||
		over.Header.Get("Referrer-Policy") != "no-referrer" || over.Header.Get("Cache-Control") != "no-store" {
		two.Fatalf("hand-over: %d %v %s", over.StatusCode, over.Header, over.body)
	}
	return to
}

func TestHandOver(t *testing.T) {
	two := openTwo(t)
	c := two.signedIn("mia")
	start := two.at(c, "GET", two.store+"/start?return_to=/account%3Ftab%3D2")
	set := start.Header.Get("Set-Cookie")
	if start.StatusCode != 303 || !strings.HasPrefix(set, "__Host-Http-ticket_nonce=") ||
		!strings.Contains(set, "; Path=/; Max-Age=600; HttpOnly; SameSite=Lax; Secure") || start.Header.Get("Cache-Control") != "no-store" {
		t.Fatalf("start: %d %v", start.StatusCode, start.Header)
	}
	secret, _, _ := strings.Cut(strings.TrimPrefix(set, "__Host-Http-ticket_nonce="), ";")
	if strings.Contains(start.Header.Get("Location"), secret) {
		t.Error("the secret of the cookie stands in the address")
	}
	link := two.ticketFor(c, "/account?tab=2")

	for _, ahead := range [][]string{{"HEAD"}, {"GET", "Sec-Purpose: prefetch"}, {"GET", "Sec-Fetch-Dest: iframe"}, {"GET", "Sec-Fetch-Dest: image"}} {
		if got := two.at(c, ahead[0], link, ahead[1:]...); got.StatusCode != 425 || len(got.Header["Set-Cookie"]) > 0 {
			t.Errorf("%v: %d %v", ahead, got.StatusCode, got.Header)
		}
	}
	got := two.at(c, "GET", link, "Sec-Fetch-Dest: document")
	if got.StatusCode != 303 || got.Header.Get("Location") != "/account?tab=2" || got.Header.Get("Referrer-Policy") != "no-referrer" ||
		got.Header.Get("Cache-Control") != "no-store" || len(got.Header["Set-Cookie"]) != 2 || !strings.HasPrefix(got.Header["Set-Cookie"][1], "__Host-Http-store=als_") ||
		got.Header["Set-Cookie"][0] != "__Host-Http-ticket_nonce=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax; Secure" {
		t.Fatalf("exchange: %d %v %s", got.StatusCode, got.Header, got.body)
	}
	two.want(two.at(c, "GET", two.store+"/account?tab=2"), 200, "mia")
	// A reload of what is already exchanged, by the same person, goes on; by somebody who is not signed in it is told.
	if got := two.at(c, "GET", link); got.StatusCode != 303 || got.Header.Get("Location") != "/account?tab=2" || len(got.Header["Set-Cookie"]) > 0 {
		t.Errorf("again: %d %v", got.StatusCode, got.Header)
	}
	nonceOnly := two.anybody()
	got = two.at(nonceOnly, "GET", link, "Cookie: __Host-Http-ticket_nonce="+secret)
	two.want(got, 410, "has been used")
	if got := two.at(two.anybody(), "GET", link); got.StatusCode != 403 || got.Header.Get("Referrer-Policy") != "no-referrer" {
		t.Errorf("used, in another browser: %d %v", got.StatusCode, got.Header)
	}
	two.want(two.at(c, "GET", two.store+"/account?tab=2"), 200, "mia")

	// The new session is one of its own, below the first, and ends with it.
	in := two.session(c)
	if err := two.a.Revoke(t.Context(), in.ID, afterlogin.ReasonSignedOut); err != nil {
		t.Fatal(err)
	}
	two.want(two.at(c, "GET", two.store+"/account"), 401, "")
	if strings.Contains(two.log.String(), "alt_") || strings.Contains(two.log.String(), secret) {
		t.Error("a secret is in the log")
	}
}

// Somebody else who is signed in on the target is replaced, and a person who is not signed in at the origin is asked to.
func TestHandOverToOthers(t *testing.T) {
	two := openTwo(t)
	mia, tom := two.signedIn("mia"), two.signedIn("tom")
	two.at(tom, "GET", two.ticketFor(tom, "/account"))
	var toms string
	u, _ := url.Parse(two.store)
	for _, k := range tom.Jar.Cookies(u) {
		if k.Name == "__Host-Http-store" {
			toms = k.Value
		}
	}
	// mia's browser holds tom's session on the target, somehow.
	mia.Jar.SetCookies(u, []*http.Cookie{{Name: "__Host-Http-store", Value: toms, Path: "/", Secure: true}})
	two.want(two.at(mia, "GET", two.store+"/account"), 200, "tom")
	got := two.at(mia, "GET", two.ticketFor(mia, "/account"))
	if got.StatusCode != 303 || len(got.Header["Set-Cookie"]) != 2 {
		t.Errorf("exchange: %d %v", got.StatusCode, got.Header)
	}
	two.want(two.at(mia, "GET", two.store+"/account"), 200, "mia")
	two.want(two.at(tom, "GET", two.store+"/account"), 401, "")

	link := two.ticketFor(mia, "/account")
	if got := two.at(mia, "GET", link, "Authorization: Bearer "+toms); got.StatusCode != 401 {
		t.Errorf("with a bearer token, too: %d", got.StatusCode)
	}
	two.store2down(func() {
		if got := two.at(mia, "GET", link); got.StatusCode != 503 || len(got.Header["Set-Cookie"]) > 0 {
			t.Errorf("while the store is down: %d %v", got.StatusCode, got.Header)
		}
	})

	nobody := two.browser()
	start := two.at(nobody, "GET", two.store+"/start")
	two.want(two.at(nobody, "GET", start.Header.Get("Location")), 401, "not signed in")
}

func (two *twoHosts) store2down(f func()) {
	two.shop.store.fault.Store(readsFail)
	defer two.shop.store.fault.Store(healthy)
	two.pass(2 * time.Second) // the lease of the cache is over
	f()
}

func TestHandOverRequests(t *testing.T) {
	two := openTwo(t)
	c := two.signedIn("mia")
	nonce := strings.Repeat("A", 43)
	for _, bad := range []string{
		"", "to=" + two.store + "/", "nonce=" + nonce, "to=" + two.store + "/&nonce=x", "to=" + two.store + "/&nonce=" + nonce + "&nonce=" + nonce,
		"to=https://evil.example/&nonce=" + nonce, "to=" + two.store + ".evil.example/&nonce=" + nonce,
		"to=" + strings.Replace(two.store, "https://", "https://x@", 1) + "/&nonce=" + nonce,
		"to=" + strings.Replace(two.store, "https", "http", 1) + "/&nonce=" + nonce,
		"to=" + two.store + "//evil.example&nonce=" + nonce, "to=" + two.store + "/../x&nonce=" + nonce,
		"to=" + two.store + "\\evil.example/&nonce=" + nonce, "to=" + two.store + "/%23frag&nonce=" + nonce,
		"to=" + two.store + "/account%23&nonce=" + nonce, "to=" + two.store + "/account%3Fa%23&nonce=" + nonce,
		"to=" + two.store + "/?ticket=alt_x&nonce=" + nonce, "to=" + two.store + "/" + strings.Repeat("%C3%A9", 1000) + "&nonce=" + nonce,
		"to=/account&nonce=" + nonce, "to=" + two.store + "@evil.example/&nonce=" + nonce,
	} {
		if got := two.at(c, "GET", two.accounts+"/hand-over?"+bad); got.StatusCode != 400 || got.Header.Get("Location") != "" {
			t.Errorf("%q: %d to %q", bad, got.StatusCode, got.Header.Get("Location"))
		}
	}
	if got := two.at(c, "GET", two.accounts+"/hand-over?to="+two.store+"&nonce="+nonce, "Sec-Fetch-Dest: iframe"); got.StatusCode != 425 {
		t.Errorf("in a frame: %d", got.StatusCode)
	}
	if got := two.at(c, "GET", two.accounts+"/hand-over?to="+two.store+"&nonce="+nonce); got.StatusCode != 303 {
		t.Errorf("without a path: %d %s", got.StatusCode, got.body)
	}
	// The way back is never to another host, and has no fragment.
	for _, back := range []string{"//evil.example/x?ticket=alt_x", "/x?a=%zz#&ticket=alt_x", "/x#?ticket=alt_x"} {
		r := httptest.NewRequest("GET", two.store+"/x", nil)
		r.RequestURI = back
		r.URL.RawQuery = back[strings.Index(back, "?")+1:]
		w := httptest.NewRecorder()
		two.auth.AcceptHandOver(http.NotFoundHandler()).ServeHTTP(w, r)
		if w.Code != 403 || w.Header().Get("Location") != "" {
			t.Errorf("%s: %d %v", back, w.Code, w.Header())
		}
	}
	// A ticket that is bound to no browser is for programs; it opens nothing here.
	got, err := two.a.IssueTicket(t.Context(), two.session(c), afterlogin.TicketRequest{Target: two.store + "/account"})
	if err != nil {
		t.Fatal(err)
	}
	if a := two.at(c, "GET", two.store+"/account?ticket="+got.Token.Reveal()); a.StatusCode != 403 {
		t.Errorf("without a nonce: %d", a.StatusCode)
	}
}

// A ticket that was seen in another browser, or on another page, is over in its own, too.
func TestHandOverSpoilt(t *testing.T) {
	two := openTwo(t)
	for name, spoil := range map[string]func(c *http.Client, link string) answer{
		"no nonce": func(_ *http.Client, link string) answer { return two.at(two.anybody(), "GET", link) },
		"another nonce": func(_ *http.Client, link string) answer {
			other := two.browser()
			two.at(other, "GET", two.store+"/start")
			return two.at(other, "GET", link)
		},
		"another page": func(c *http.Client, link string) answer {
			return two.at(c, "GET", strings.Replace(link, "tab=2", "tab=3", 1))
		},
		"a nonce of yesterday": func(c *http.Client, link string) answer {
			return two.at(two.anybody(), "GET", link, "Cookie: __Host-Http-ticket_nonce="+strings.Repeat("A", 43)+".1700000000")
		},
	} {
		c := two.signedIn("mia")
		link := two.ticketFor(c, "/account?tab=2")
		for range 3 { // and is ended once
			if got := spoil(c, link); got.StatusCode != 403 || len(got.Header["Set-Cookie"]) > 0 ||
				got.Header.Get("Referrer-Policy") != "no-referrer" || got.Header.Get("Cache-Control") != "no-store" {
				t.Errorf("%s: %d %v", name, got.StatusCode, got.Header)
			}
		}
		if got := two.at(c, "GET", link); got.StatusCode != 401 || len(got.Header["Set-Cookie"]) > 0 {
			t.Errorf("%s: afterwards it is answered %d %v", name, got.StatusCode, got.Header)
		}
		two.want(two.at(c, "GET", two.accounts+"/account"), 200, "mia") // the session that it was made from stays
	}
	if n := len(two.saw("ticket.revoked")); n != 4 {
		t.Errorf("%d events for 4 tickets", n)
	}

	c := two.signedIn("mia")
	link := two.ticketFor(c, "/account")
	two.store2down(func() {
		if got := two.at(two.anybody(), "GET", link); got.StatusCode != 503 {
			t.Errorf("while the store is down: %d", got.StatusCode)
		}
	})
	two.want(two.at(c, "GET", link), 303, "")
}

// A browser keeps its secret while it is young, and for one exchange: an old digest out of a log is good for nothing.
func TestHandOverNonce(t *testing.T) {
	two := openTwo(t)
	c := two.signedIn("mia")
	nonce := func(a answer) string {
		u, _ := url.Parse(a.Header.Get("Location"))
		return u.Query().Get("nonce")
	}
	first := two.at(c, "GET", two.store+"/start")
	again := two.at(c, "GET", two.store+"/start?return_to=/account%23part")
	if nonce(first) == "" || nonce(again) != nonce(first) || len(again.Header["Set-Cookie"]) > 0 {
		t.Errorf("a second tab: %v, after %v", again.Header, first.Header)
	}
	if to := again.Header.Get("Location"); strings.Contains(to, "%23") {
		t.Errorf("a fragment is sent along: %s", to)
	}
	secret, _, _ := strings.Cut(strings.TrimPrefix(first.Header.Get("Set-Cookie"), "__Host-Http-ticket_nonce="), ";")
	random, _, _ := strings.Cut(secret, ".")
	for _, made := range []time.Duration{-time.Hour, -6 * time.Minute, time.Hour} {
		old := fmt.Sprint("Cookie: __Host-Http-ticket_nonce=", random, ".", time.Now().Add(made).Unix())
		if got := two.at(two.anybody(), "GET", two.store+"/start", old); len(got.Header["Set-Cookie"]) != 1 || strings.Contains(got.Header.Get("Set-Cookie"), random) {
			t.Errorf("a secret made %v from now: %v", made, got.Header)
		}
	}
	link := two.ticketFor(c, "/account")
	other := two.ticketFor(c, "/account?tab=2")
	two.want(two.at(c, "GET", link), 303, "")
	two.want(two.at(c, "GET", other), 303, "") // a tab that was under way
	// tom knows the digest, and makes a ticket of his own for her.
	tom := two.signedIn("tom")
	toms := two.at(tom, "GET", two.accounts+"/hand-over?to="+two.store+"/account&nonce="+nonce(first)).Header.Get("Location")
	if got := two.at(c, "GET", toms); got.StatusCode != 403 || len(got.Header["Set-Cookie"]) > 0 {
		t.Errorf("with an old digest: %d %v", got.StatusCode, got.Header)
	}
	two.want(two.at(c, "GET", two.store+"/account"), 200, "mia")
}

func TestHandOverOptions(t *testing.T) {
	a := service(t, httpauth.Options{}).a
	for _, bad := range []httpauth.Options{
		{Origin: "shop.example"}, {Origin: "http://shop.example"}, {Origin: "https://shop.example/"}, {Origin: "https://Shop.example"},
		{Origin: "https://shop.example:443"}, {Origin: "http://localhost:80", PlainLoopback: true}, {Origin: "http://shop.example", PlainLoopback: true},
		{HandOverTo: []string{"https://*.example.com/"}}, {HandOverTo: []string{"https://x@shop.example"}}, {HandOverTo: []string{""}},
		{JWTCookie: "jwt"}, {JWTCookie: httpauth.CookieName}, {JWTCookie: "__Host-jwt", PlainLoopback: true}, {JWTCookie: "__Host-a b"},
	} {
		if _, err := httpauth.New(a, bad); err == nil {
			t.Errorf("%+v is accepted", bad)
		}
	}
	for _, good := range []httpauth.Options{
		{Origin: "https://shop.example", HandOverTo: []string{"https://a.example:8443"}, JWTCookie: "__Host-Http-jwt"},
		{Origin: "http://localhost:8080", HandOverTo: []string{"http://127.0.0.1:9090", "https://a.example"}, PlainLoopback: true, JWTCookie: "jwt"},
	} {
		x, err := httpauth.New(a, good)
		if err != nil {
			t.Error(err)
			continue
		}
		w := httptest.NewRecorder()
		for _, at := range []string{"/hand-over", "http://accounts.example/x", "https://a.example/x?y=1", "https://a.example/x?", "https://a.example/x#", "https://u@a.example/x", ""} {
			if err := x.StartHandOver(w, httptest.NewRequest("GET", "/", nil), at, "/"); err == nil || len(w.Header()) > 0 {
				t.Errorf("StartHandOver at %q: %v, %v", at, err, w.Header())
			}
		}
		if err := x.StartHandOver(w, httptest.NewRequest("GET", "/", nil), "https://a.example/x", "//evil.example"); err != nil ||
			w.Header().Get("Location") == "" || strings.Contains(w.Header().Get("Location"), "evil") {
			t.Errorf("%v %v", err, w.Header())
		}
	}
	x, _ := httpauth.New(a, httpauth.Options{})
	defer func() {
		if fmt.Sprint(recover()) == "<nil>" {
			t.Error("AcceptHandOver without an origin does not panic")
		}
	}()
	x.AcceptHandOver(http.NotFoundHandler())
}
