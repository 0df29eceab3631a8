package console

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/api"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/console/entrance"
	"github.com/afterlogin/afterlogin/httpauth"
	"github.com/afterlogin/afterlogin/store/storetest"
)

var errDown = errors.New("the store is down")

func TestEnter(t *testing.T) {
	h := newHouse(t)
	link := h.link(entrance.Viewer, "mia")
	b := h.browser()
	for _, method := range []string{http.MethodHead, http.MethodGet, http.MethodGet} { // previews, scanners, a second click
		r, err := http.NewRequestWithContext(t.Context(), method, h.server.URL+link, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Sec-Purpose", "prefetch")
		a := h.browser().do(r)
		if a.status != http.StatusSeeOther || a.location() != "/console/enter" || a.header.Get("Referrer-Policy") != "no-referrer" {
			t.Fatalf("%s of the link: %d to %q, Referrer-Policy %q", method, a.status, a.location(), a.header.Get("Referrer-Policy"))
		}
	}
	if a := b.get("/console/"); a.status != http.StatusUnauthorized || !strings.Contains(words(a.body), "afterlogin console link") {
		t.Errorf("without a session: %d %s", a.status, words(a.body))
	}
	b.get(link)
	if text := words(b.page("/console/enter")); !strings.Contains(text, "mia") || !strings.Contains(text, "viewer") {
		t.Errorf("the door does not say who one will be: %s", text)
	}
	// A page of another site cannot push somebody through the door.
	for _, header := range []http.Header{{"Sec-Fetch-Site": {"cross-site"}}, {"Sec-Fetch-Site": nil, "Origin": {"https://evil.example"}}} {
		if a := b.send("/console/enter", url.Values{}, header); a.status != http.StatusForbidden {
			t.Errorf("%v: %d", header, a.status)
		}
	}
	a := b.send("/console/enter", url.Values{}, nil)
	if a.status != http.StatusSeeOther || a.location() != "/console/" {
		t.Fatalf("the door: %d %q", a.status, a.location())
	}
	cookies := strings.Join(a.header["Set-Cookie"], "\n")
	if !strings.Contains(cookies, PlainCookieName+"=als_") || !strings.Contains(cookies, "SameSite=Strict") || !strings.Contains(cookies, "HttpOnly") || strings.Contains(cookies, "Max-Age=2") {
		t.Errorf("the cookies: %s", likeSecret.ReplaceAllString(cookies, "[token]"))
	}
	if !strings.Contains(cookies, plainLinkCookie+"=; ") {
		t.Error("the link's cookie stays")
	}
	if text := words(b.page("/console/")); !strings.Contains(text, "mia viewer") {
		t.Errorf("the overview does not say who one is: %s", text)
	}
	// The link is used up.
	other := h.browser()
	other.get(link)
	if a := other.get("/console/enter"); a.status != http.StatusGone {
		t.Errorf("the link a second time: %d", a.status)
	}
	if a := other.send("/console/enter", url.Values{}, nil); a.status != http.StatusGone {
		t.Errorf("the door a second time: %d", a.status)
	}
	if a := other.get("/console/enter?link=nonsense"); a.status != http.StatusGone || len(a.header["Set-Cookie"]) != 0 {
		t.Errorf("what is no link: %d", a.status)
	}
}

func TestSecureCookies(t *testing.T) {
	h := newHouse(t)
	c, err := New(Options{Authority: h.a, API: h.api, Entrance: h.entrance, Now: h.now})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	h.server.Config.Handler = c
	b := h.browser()
	a := b.get(h.link(entrance.Admin, "mia"))
	link := (&http.Response{Header: a.header}).Cookies()
	if len(link) != 1 || link[0].Name != linkCookie || !link[0].Secure || !link[0].HttpOnly || link[0].SameSite != http.SameSiteLaxMode || link[0].Path != "/" {
		t.Fatalf("the link's cookie: %v %v", len(link), a.status)
	}
	a = h.browser().send("/console/enter", url.Values{}, http.Header{"Cookie": {link[0].Name + "=" + link[0].Value}})
	found := false
	for _, k := range (&http.Response{Header: a.header}).Cookies() {
		if k.Name != CookieName {
			continue
		}
		found = true
		if !k.Secure || !k.HttpOnly || k.SameSite != http.SameSiteStrictMode || k.Path != "/" || k.Domain != "" || k.MaxAge != 0 {
			t.Errorf("the session's cookie: %s", likeSecret.ReplaceAllString(k.Raw, "[token]"))
		}
	}
	if !found {
		t.Errorf("no session: %d %s", a.status, words(a.body))
	}
}

// An application with an API key that can sign in whom it likes, with the scopes that it likes, must not get in.
func TestApplicationsCannotEnter(t *testing.T) {
	h := newHouse(t)
	key := h.key("sessions:write", "sessions:read", "tokens:issue", "api-keys:write", "users:write")
	for _, in := range []map[string]any{
		{"subject": "mallory", "policy": "console", "scopes": []string{"admin"}},
		{"subject": entrance.SubjectPrefix + "mallory", "policy": "browser"},
		{"subject": entrance.SubjectPrefix + "mallory"},
	} {
		if status, body := h.call(key, "POST", "/v1/sessions", in); status != http.StatusUnprocessableEntity {
			t.Errorf("%v: %d %s", in, status, body)
		}
	}
	if status, body := h.call(key, "POST", "/v1/console/links", map[string]any{"role": "admin"}); status != http.StatusForbidden {
		t.Errorf("a link without the scope admin: %d %s", status, body)
	}
	issue := func(r afterlogin.IssueRequest) string {
		t.Helper()
		got := must[afterlogin.Issued](h)(h.a.Issue(t.Context(), r))
		return h.keep(got.Token.Reveal())
	}
	tom := h.enter(entrance.Admin, "tom")
	// A ticket, which somebody with enough rights can make for any session, opens one below it.
	own := must[*afterlogin.Session](h)(h.a.Session(t.Context(), afterlogin.SessionID(tom.session())))
	ticket := must[afterlogin.Issued](h)(h.a.IssueTicket(t.Context(), own, afterlogin.TicketRequest{Target: "/console/"}))
	opened := must[afterlogin.Issued](h)(h.a.RedeemTicket(t.Context(), ticket.Token, afterlogin.TicketUse{Target: "/console/", Tenant: entrance.Tenant, Open: true}))
	h.keep(opened.Token.Reveal())
	tokens := map[string]string{
		"an application's session": h.signIn("mallory").Token.Reveal(),
		"with the policy console":  issue(afterlogin.IssueRequest{Subject: "mallory", Policy: afterlogin.PolicyConsole, Scopes: api.ConsoleScopes(entrance.Admin)}),
		"with an operator's name":  issue(afterlogin.IssueRequest{Subject: entrance.SubjectPrefix + "tom", Policy: afterlogin.PolicyConsole, Scopes: []string{"console:admin"}}),
		"of the console's tenant, but of no link": issue(afterlogin.IssueRequest{
			Tenant: entrance.Tenant, Subject: entrance.SubjectPrefix + "tom", Policy: afterlogin.PolicyConsole, Scopes: []string{"console:admin"}}),
		"a session below an operator's": opened.Token.Reveal(),
		"an API key with all scopes":    h.key(api.ConsoleScopes(entrance.Admin)...),
	}
	for what, token := range tokens {
		for _, header := range []http.Header{{"Cookie": {PlainCookieName + "=" + token}}, {"Authorization": {"Bearer " + token}}, {"X-Api-Key": {token}}} {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, h.server.URL+"/console/people", nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header = header
			if a := h.browser().do(r); a.status != http.StatusUnauthorized {
				t.Errorf("%s in %v: %d, want 401", what, sortedKeys(header), a.status)
			}
		}
	}
	// Nor can it end or use the session of somebody who is in, whose handle it may know.
	id := tom.session()
	for _, c := range [][2]string{{"DELETE", "/v1/sessions/" + id}, {"POST", "/v1/sessions/" + id + "/tokens"}, {"POST", "/v1/sessions/" + id + "/freeze"}} {
		in := map[string]any{}
		if strings.HasSuffix(c[1], "freeze") {
			in["reason"] = "because"
		}
		if status, body := h.call(key, c[0], c[1], in); status != http.StatusForbidden {
			t.Errorf("%s %s: %d %s", c[0], c[1], status, body)
		}
	}
	tom.page("/console/")
}

func sortedKeys(h http.Header) string {
	for k := range h {
		return k
	}
	return ""
}

// The console's session is good in the console and nowhere else.
func TestConsoleSessionIsGoodNowhereElse(t *testing.T) {
	h := newHouse(t)
	b := h.enter(entrance.Admin, "tom")
	u, err := url.Parse(h.server.URL)
	if err != nil {
		t.Fatal(err)
	}
	token := ""
	for _, k := range b.http.Jar.Cookies(u) {
		if k.Name == PlainCookieName {
			token = h.keep(k.Value)
		}
	}
	if token == "" {
		t.Fatal("no cookie")
	}
	for _, header := range []string{"X-Api-Key", "Authorization"} {
		if status, body := h.call(token, "GET", "/v1/sessions", nil); status != http.StatusUnauthorized {
			t.Errorf("/v1 with it in %s: %d %s", header, status, body)
		}
	}
	if status, body := h.call(h.key("validate"), "POST", "/v1/validate", map[string]any{"token": token}); status != 200 || !strings.Contains(body, `"active":false`) {
		t.Errorf("/v1/validate: %d %s", status, body)
	}
	if status, body := h.call(h.key("sessions:write"), "POST", "/v1/renew", map[string]any{"token": token}); status != 200 || !strings.Contains(body, `"active":false`) {
		t.Errorf("/v1/renew: %d %s", status, body)
	}
	// An application, the sign-in pages, the account page and the gateway are httpauth without this tenant.
	app := must[*httpauth.Auth](h)(httpauth.New(h.a, httpauth.Options{PlainLoopback: true}))
	h.server.Config.Handler = app.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Write([]byte("let in")) }))
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, h.server.URL+"/account", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Cookie", httpauth.PlainCookieName+"="+token)
	if a := h.browser().do(r); a.status != http.StatusUnauthorized {
		t.Errorf("an application with it: %d %s", a.status, a.body)
	}
}

func TestAccessEnds(t *testing.T) {
	h := newHouse(t)
	admin := h.enter(entrance.Admin, "tom")
	out := func(b *browser, what string) {
		t.Helper()
		if a := b.get("/console/sessions"); a.status != http.StatusUnauthorized {
			t.Errorf("%s: %d", what, a.status)
		}
	}
	first := h.enter(entrance.Viewer, "mia")
	if a := first.post("/console/sign-out"); a.status != http.StatusSeeOther {
		t.Errorf("sign out: %d", a.status)
	}
	out(first, "signed out")

	second := h.enter(entrance.Viewer, "mia")
	id := second.session()
	if text := words(admin.page("/console/people")); !strings.Contains(text, "mia viewer") || !strings.Contains(text, "tom you admin") {
		t.Errorf("the list of people: %s", text)
	}
	if a := admin.post("/console/sessions/" + id + "/revoke"); a.status != http.StatusSeeOther {
		t.Fatalf("end it: %d %s", a.status, words(a.body))
	}
	out(second, "ended by an administrator")
	if a := second.get("/console/"); !strings.Contains(words(a.body), "ended by an administrator") {
		t.Errorf("it does not say why: %s", words(a.body))
	}

	third := h.enter(entrance.Viewer, "mia")
	h.later(14 * time.Minute)
	third.page("/console/")
	h.later(14 * time.Minute)
	third.page("/console/")
	h.later(16 * time.Minute)
	out(third, "idle for 16 minutes")

	busy := h.enter(entrance.Viewer, "mia")
	for range 7 * 5 {
		h.later(12 * time.Minute)
		busy.page("/console/")
	}
	h.later(12 * time.Minute)
	for range 5 {
		h.later(12 * time.Minute)
		busy.get("/console/")
	}
	out(busy, "8 hours old")
}

// While the store is down nobody is signed out, and nobody is told that they are.
func TestStoreDown(t *testing.T) {
	h := newHouse(t)
	s := h.signIn("mia")
	b := h.enter(entrance.Admin, "tom")
	link := h.link(entrance.Viewer, "ada")
	other := h.browser()
	other.get(link)
	h.faulty.SetHook(func(storetest.Call) storetest.Fault { return storetest.Fault{Before: errDown} })
	for what, a := range map[string]answer{
		"a page":              b.get("/console/sessions/" + string(s.Session.ID)),
		"another":             b.get("/console/keys"),
		"an act":              b.post("/console/sessions/" + string(s.Session.ID) + "/revoke"),
		"the door":            other.get("/console/enter"),
		"the door, confirmed": other.send("/console/enter", url.Values{}, nil),
	} {
		if a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" {
			t.Errorf("%s: %d, Retry-After %q: %s", what, a.status, a.header.Get("Retry-After"), words(a.body))
		}
		if len(a.header["Set-Cookie"]) != 0 {
			t.Errorf("%s: sets cookies", what)
		}
		if !strings.Contains(words(a.body), "Nobody is signed out") {
			t.Errorf("%s: %s", what, words(a.body))
		}
	}
	h.faulty.SetHook(nil)
	b.page("/console/keys")
	if a := other.send("/console/enter", url.Values{}, nil); a.status != http.StatusSeeOther {
		t.Errorf("the link afterwards: %d %s", a.status, words(a.body))
	}
}
