package console

import (
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/console/entrance"
)

// want posts a form and fails unless it redirects to the path.
func (b *browser) want(where, path string, fields ...string) {
	b.h.t.Helper()
	a := b.post(path, fields...)
	if a.status != http.StatusSeeOther || a.location() != where {
		b.h.t.Errorf("POST %s: %d to %q, want %q: %s", path, a.status, a.location(), where, words(a.body))
		return
	}
	b.page(where)
}

// says fails unless the page has all the texts.
func (b *browser) says(path string, texts ...string) {
	b.h.t.Helper()
	page := words(b.page(path))
	for _, text := range texts {
		if !strings.Contains(page, text) {
			b.h.t.Errorf("%s does not say %q: %s", path, text, page)
		}
	}
}

// good reports whether a token is.
func (h *house) good(got afterlogin.Issued) bool {
	h.t.Helper()
	_, err := h.a.Validate(h.t.Context(), got.Token, afterlogin.Expect{Kinds: []afterlogin.Kind{got.Session.Kind}, Fresh: true})
	if err != nil && afterlogin.ReasonOf(err) == "" {
		h.t.Fatal(err)
	}
	return err == nil
}

func TestSessionActs(t *testing.T) {
	h := newHouse(t)
	b := h.enter(entrance.Admin, "tom")
	s := h.signIn("mia")
	at := "/console/sessions/" + string(s.Session.ID)
	b.says(at, "live", "Firefox on Linux", "mia", "ends, if it is not used", "made, generation 1")

	b.want(at+"?done=session-frozen", at+"/freeze", "reason", "incident 7")
	b.says(at+"?done=session-frozen", "on hold", "incident 7", "The session is frozen")
	if h.good(s) {
		t.Error("it is good although it is on hold")
	}
	b.want(at+"?done=session-thawed", at+"/thaw")
	if !h.good(s) {
		t.Error("it is not good although it was thawed")
	}
	key := must[afterlogin.Issued](h)(h.a.Issue(t.Context(), afterlogin.IssueRequest{Kind: afterlogin.KindAPIKey, Subject: "mia", Name: "from a session", Origin: s.Session.ID}))
	h.keep(key.Token.Reveal())
	b.says(at, "from a session", "(this one)")
	b.says(at+"/revoke", "mia has to sign in again", "Also everything that came from it")
	b.want(at+"?done=derived-revoked", at+"/revoke", "derived", "on")
	if h.good(s) || h.good(key) {
		t.Error("it is good although it was ended with everything that came from it")
	}
	b.says(at, "ended by an administrator", "It is over", "what the person is told")
	if page := b.page(at); strings.Contains(page, "/freeze") || strings.Contains(page, "/revoke") {
		t.Error("acts are offered on what is over")
	}
	if a := b.post(at+"/freeze", "reason", "late"); a.status != http.StatusConflict {
		t.Errorf("to freeze what is over: %d", a.status)
	}
	if a := b.get("/console/sessions/ses_" + strings.Repeat("A", 23)); a.status != http.StatusNotFound && a.status != http.StatusBadRequest {
		t.Errorf("a session that is none: %d", a.status)
	}
	if a := b.get("/console/sessions/nonsense"); a.status != http.StatusBadRequest {
		t.Errorf("what is no handle: %d", a.status)
	}
	// The audit log says who did it.
	if status, body := h.call(h.key("audit:read"), "GET", "/v1/audit?limit=100", nil); status != 200 || !strings.Contains(body, "console/tom") || !strings.Contains(body, "freeze-session") || !strings.Contains(body, "revoke-session") {
		t.Errorf("the audit log: %d %s", status, body)
	}
}

// What lives under a session is drawn below it.
func TestGraph(t *testing.T) {
	h := newHouse(t)
	b := h.enter(entrance.Viewer, "mia")
	s := h.signIn("ada")
	lines, _ := b.streamOf(t.Context(), "/console/sessions/"+string(s.Session.ID)+"?live=1")
	until(t, lines, "(this one)", 5*time.Second)
	got := must[afterlogin.Issued](h)(h.a.IssueAccess(t.Context(), s.Session, afterlogin.AccessRequest{Client: "mobile"}))
	h.keep(got.Token.Reveal())
	until(t, lines, "<li class=\"depth-1\">access token", 20*time.Second)
	b.says("/console/sessions/"+string(got.Session.ID), "Access token", "session ses_", "(this one)")
}

func TestSubjectActs(t *testing.T) {
	h := newHouse(t)
	b := h.enter(entrance.Admin, "tom")
	name := "mia/o'neil & sons <1>"
	one, two := h.signIn(name), h.signIn(name)
	key := must[afterlogin.Issued](h)(h.a.Issue(t.Context(), afterlogin.IssueRequest{Kind: afterlogin.KindAPIKey, Subject: name}))
	h.keep(key.Token.Reveal())
	at := subjectPath(name)
	b.says("/console"+at, "Sign out everywhere", "API key")
	b.says("/console/subject/sign-out?name="+url.QueryEscape(name), "API keys stay good")
	b.want("/console"+at+"&done=subject-out", "/console/subject/sign-out", "name", name)
	if h.good(one) || h.good(two) || !h.good(key) {
		t.Errorf("signed out everywhere: good are %v %v, the key %v", h.good(one), h.good(two), h.good(key))
	}
	b.want("/console"+at+"&done=subject-out-all", "/console/subject/sign-out", "name", name, "everything", "on")
	if h.good(key) {
		t.Error("the key is good")
	}
	b.says("/console"+at+"&ended=on", "ended by an administrator")
	if a := b.get("/console/subject"); a.status != http.StatusBadRequest {
		t.Errorf("no subject: %d", a.status)
	}
}

var shown = regexp.MustCompile(`<code id="secret"[^>]*>([^<]+)</code>`)

// secretOf returns the secret that a page shows once.
func (b *browser) secretOf(a answer) string {
	b.h.t.Helper()
	m := shown.FindStringSubmatch(a.body)
	if a.status != http.StatusOK || m == nil {
		b.h.t.Fatalf("no secret: %d %s", a.status, words(a.body))
	}
	if cc := a.header.Get("Cache-Control"); cc != "no-store" {
		b.h.t.Errorf("a page with a secret says Cache-Control: %q", cc)
	}
	return b.h.keep(m[1])
}

func TestKeyActs(t *testing.T) {
	h := newHouse(t)
	b := h.enter(entrance.Admin, "tom")
	token := b.secretOf(b.post("/console/keys/new", "subject", "shop", "name", "checkout", "scopes", "validate, sessions:read", "networks", "192.0.2.0/24 10.0.0.1", "rate", "60", "lifetime", "30d"))
	if status, _ := h.call(token, "GET", "/v1/sessions", nil); status != 200 {
		t.Errorf("the key: %d", status) // httptest's requests come from 192.0.2.1
	}
	b.says("/console/keys", "checkout", "shop", "validate, sessions:read", "in 29 days")
	id := regexp.MustCompile(`/console/sessions/(key_[A-Za-z0-9_-]+)`).FindStringSubmatch(b.page("/console/keys"))[1]
	b.says("/console/sessions/"+id, "checkout", "60 requests a minute", "192.0.2.0/24")
	b.says("/console/keys/"+id+"/rotate", "The old one stays good for the overlap")
	if a := b.post("/console/keys/"+id+"/rotate", "overlap", "a while"); a.status != 422 || !strings.Contains(a.body, `id="e-overlap"`) {
		t.Errorf("a bad overlap: %d %s", a.status, words(a.body))
	}
	next := b.secretOf(b.post("/console/keys/"+id+"/rotate", "overlap", "1h"))
	for _, k := range []string{token, next} {
		if status, _ := h.call(k, "GET", "/v1/sessions", nil); status != 200 {
			t.Errorf("within the overlap: %d", status)
		}
	}
	b.want("/console/sessions/"+id+"?done=session-revoked", "/console/sessions/"+id+"/revoke")
	if status, _ := h.call(token, "GET", "/v1/sessions", nil); status != 401 {
		t.Errorf("the old key: %d", status)
	}
	for field, form := range map[string][]string{
		"subject":  {"subject", ""},
		"networks": {"subject", "shop", "networks", "everywhere"},
		"rate":     {"subject", "shop", "rate", "many"},
		"lifetime": {"subject", "shop", "lifetime", "soon"},
	} {
		a := b.post("/console/keys/new", form...)
		if a.status != 422 || !strings.Contains(a.body, `id="e-`+field+`"`) || !strings.Contains(a.body, `role="alert"`) {
			t.Errorf("%s: %d %s", field, a.status, words(a.body))
		}
		if field != "subject" && !strings.Contains(a.body, `value="shop"`) {
			t.Errorf("%s: what was typed is gone", field)
		}
	}
}

func TestClientActs(t *testing.T) {
	h := newHouse(t)
	b := h.enter(entrance.Admin, "tom")
	b.secretOf(b.post("/console/clients/new", "id", "shop-web", "name", "Shop", "auth", "secret", "grant_types", "authorization_code", "redirect_uris", "https://shop.example/back"))
	b.says("/console/clients", "shop-web", "Shop", "secret")
	b.says("/console/clients/shop-web", "https://shop.example/back", "Make a new secret")
	b.secretOf(b.post("/console/clients/shop-web/secret", "overlap", "1h"))
	b.want("/console/clients/app?done=client-made", "/console/clients/new", "id", "app", "name", "App", "auth", "none", "grant_types", "authorization_code", "redirect_uris", "https://app.example/back")
	for field, form := range map[string][]string{
		"redirect_uris": {"name", "X", "auth", "none", "grant_types", "authorization_code", "redirect_uris", "nonsense"},
		"jwks":          {"name", "X", "auth", "private_key_jwt", "jwks", "{", "grant_types", "client_credentials"},
		"id":            {"id", "app", "name", "X", "auth", "none", "grant_types", "authorization_code", "redirect_uris", "https://app.example/back"},
	} {
		if a := b.post("/console/clients/new", form...); a.status != 422 && a.status != 409 || !strings.Contains(a.body, `id="e-`+field+`"`) {
			t.Errorf("%s: %d %s", field, a.status, words(a.body))
		}
	}
	b.says("/console/clients/app/remove", "never given again")
	b.want("/console/clients?done=client-removed", "/console/clients/app/remove")
	if strings.Contains(b.page("/console/clients"), ">app<") {
		t.Error("it is still there")
	}
}

func TestUserActs(t *testing.T) {
	h := newHouse(t)
	b := h.enter(entrance.Admin, "tom")
	const password = "correct horse battery staple"
	h.keep(password)
	b.want("/console/users/mia?done=user-made", "/console/users/new", "name", "mia", "password", password, "scopes", "orders:read")
	s := h.signIn("mia")
	b.says("/console/users", "mia", "orders:read")
	if a := b.post("/console/users/new", "name", "tom", "password", "short"); a.status != 422 || !strings.Contains(a.body, `id="e-password"`) || strings.Contains(a.body, "short<") {
		t.Errorf("a short password: %d %s", a.status, words(a.body))
	}
	if a := b.post("/console/users/mia/password", "password", "x"); a.status != 422 || !strings.Contains(a.body, `id="e-password"`) {
		t.Errorf("a short password: %d %s", a.status, words(a.body))
	}
	b.want("/console/users/mia?done=password-set", "/console/users/mia/password", "password", "another horse battery staple")
	if h.good(s) {
		t.Error("the session is good although the password was changed")
	}
	b.want("/console/users/mia?done=user-disabled", "/console/users/mia/disable")
	b.says("/console/users/mia", "disabled")
	b.want("/console/users/mia?done=user-enabled", "/console/users/mia/enable")
	b.says("/console/subject?name=mia", "The user")
}

func TestSigningKeyActs(t *testing.T) {
	h := newHouse(t)
	b := h.enter(entrance.Admin, "tom")
	b.page("/console/signing-keys")
	b.want("/console/signing-keys?done=key-rotated", "/console/signing-keys/rotate", "algorithm", "", "lead", "")
	if a := b.post("/console/signing-keys/rotate", "lead", "1s"); a.status != 422 || !strings.Contains(a.body, `id="e-lead"`) {
		t.Errorf("a bad lead: %d %s", a.status, words(a.body))
	}
	if a := b.post("/console/signing-keys/rotate"); a.status != http.StatusConflict {
		t.Errorf("a second rotation: %d", a.status)
	}
	kid := regexp.MustCompile(`signing-keys/([A-Za-z0-9_-]{43})/retire`).FindStringSubmatch(b.page("/console/signing-keys"))
	if kid == nil {
		t.Fatal("no key can be taken away")
	}
	b.says("/console/signing-keys/"+kid[1]+"/retire", "private half", kid[1])
	b.want("/console/signing-keys?done=key-retired", "/console/signing-keys/"+kid[1]+"/retire")
	b.says("/console/signing-keys", "retired")
}

func TestPeopleActs(t *testing.T) {
	h := newHouse(t)
	b := h.enter(entrance.Admin, "tom")
	link := b.secretOf(b.post("/console/people/link", "name", "ada", "role", "viewer", "lifetime", "1h"))
	if !strings.HasPrefix(link, h.server.URL+"/console/enter?link=") {
		t.Fatalf("the link is %.40s", link)
	}
	h.keep(link[strings.Index(link, "all_"):])
	ada := h.browser()
	ada.get(strings.TrimPrefix(link, h.server.URL))
	if a := ada.send("/console/enter", url.Values{}, nil); a.status != http.StatusSeeOther {
		t.Fatalf("the link does not open: %d", a.status)
	}
	b.says("/console/people", "ada viewer", "tom you admin")
	for field, form := range map[string][]string{
		"name": {"name", "Ada L.", "role", "viewer"}, "lifetime": {"name", "ada", "role", "viewer", "lifetime", "2d"},
	} {
		if a := b.post("/console/people/link", form...); a.status != 422 || !strings.Contains(a.body, `id="e-`+field+`"`) {
			t.Errorf("%s: %d %s", field, a.status, words(a.body))
		}
	}
}

func TestExplain(t *testing.T) {
	h := newHouse(t)
	b := h.enter(entrance.Viewer, "mia")
	s := h.signIn("ada")
	ended := h.signIn("ada")
	if err := h.a.RevokeSubject(t.Context(), 0, "ada", afterlogin.Sessions, afterlogin.ReasonAdministrator); err != nil {
		t.Fatal(err)
	}
	live := h.signIn("ada")
	for what, c := range map[string]struct{ in, says string }{
		"a token":              {live.Token.Reveal(), "It is good"},
		"a token that is over": {s.Token.Reveal(), "It is refused: signed out everywhere"},
		"a handle":             {string(live.Session.ID), "It is good"},
		"a handle of an end":   {string(ended.Session.ID), "It is refused"},
		"a beginning":          {string(live.Session.ID)[:20], "It is good"},
		"of a token":           {live.Token.Reveal()[:40], "It is good"},
		"junk":                 {"a sentence from a log", "It is refused: not a token"},
	} {
		a := b.post("/console/explain", "what", c.in)
		if a.status != 200 || !strings.Contains(words(a.body), c.says) {
			t.Errorf("%s: %d %s", what, a.status, words(a.body))
		}
		h.clean(what, a.body)
		if len(c.in) > 60 && strings.Contains(a.body, c.in[8:60]) {
			t.Errorf("%s: what was pasted is shown again", what)
		}
	}
	for what, in := range map[string]string{"nothing": "", "a short beginning": "ses_ab", "no such": "ses_" + strings.Repeat("B", 10)} {
		if a := b.post("/console/explain", "what", in); a.status < 400 || a.status >= 500 || !strings.Contains(a.body, `role="alert"`) {
			t.Errorf("%s: %d %s", what, a.status, words(a.body))
		}
	}
}

// The state of a session over a list: search, cursors.
func TestLists(t *testing.T) {
	h := newHouse(t)
	b := h.enter(entrance.Viewer, "mia")
	for i := range 120 {
		h.signIn(fmt.Sprintf("person-%03d", i))
		if i%2 == 0 {
			k := must[afterlogin.Issued](h)(h.a.Issue(t.Context(), afterlogin.IssueRequest{Kind: afterlogin.KindAPIKey, Subject: "shop"}))
			h.keep(k.Token.Reveal())
		}
		h.signIn("many")
	}
	// The index hears of sessions a moment after they were made.
	for began := time.Now(); !strings.Contains(words(b.page("/console/sessions")), "300 found"); {
		if time.Since(began) > 20*time.Second {
			t.Fatalf("the index does not find all: %.600s", words(b.page("/console/sessions")))
		}
	}
	next := regexp.MustCompile(`href="(\?[^"]*)" rel="next"`)
	handles := regexp.MustCompile(`/console/sessions/((?:ses|key)_[A-Za-z0-9_-]+)`)
	for path, want := range map[string]int{"/console/keys": 60, "/console/subject?name=many": 120, "/console/sessions?subject=many": 120, "/console/sessions?kind=api_key": 60, "/console/sessions": 300} {
		seen := map[string]bool{}
		at := path
		for range 20 {
			page := b.page(at)
			for _, m := range handles.FindAllStringSubmatch(page, -1) {
				seen[m[1]] = true
			}
			m := next.FindStringSubmatch(page)
			if m == nil {
				break
			}
			base, _, _ := strings.Cut(path, "?")
			at = base + strings.ReplaceAll(m[1], "&amp;", "&")
		}
		if len(seen) != want {
			t.Errorf("%s: %d on all pages, want %d", path, len(seen), want)
		}
	}
	if a := b.get("/console/keys?cursor=nonsense"); a.status != http.StatusBadRequest || !strings.Contains(words(a.body), "cursor") {
		t.Errorf("a bad cursor: %d %s", a.status, words(a.body))
	}
	if a := b.get("/console/sessions?q=" + url.QueryEscape("subjekt=mia")); a.status != 422 || !strings.Contains(a.body, `id="e-q"`) || !strings.Contains(words(a.body), "did you mean subject") {
		t.Errorf("a bad query: %d %s", a.status, words(a.body))
	}
	s := h.signIn("last")
	if a := b.get("/console/sessions?q=" + string(s.Session.ID)); a.location() != "/console/sessions/"+string(s.Session.ID) {
		t.Errorf("a handle: %d %q", a.status, a.location())
	}
	b.says("/console/sessions?subject=last&device=firefox&state=live", "1 found", "last")
	h.later(2 * time.Hour)
	b = h.enter(entrance.Viewer, "mia")
	b.says("/console/sessions?subject=last&state=ended", "1 found", "not used for too long")
}
