package console

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/api"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/audit"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/console/entrance"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/query"
)

// policyText is written out here so that nobody loosens it in passing.
const policyText = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"

func TestEveryAnswerHasHeaders(t *testing.T) {
	h := newHouse(t)
	b := h.enter(entrance.Admin, "tom")
	stranger := h.browser()
	for what, a := range map[string]answer{
		"a page":                   b.get("/console/"),
		"the base":                 b.get("/console"),
		"nowhere":                  b.get("/console/nowhere"),
		"outside":                  b.get("/consoles"),
		"a wrong method":           b.get("/console/sign-out"),
		"a refusal":                b.send("/console/sign-out", url.Values{}, nil),
		"a stranger":               stranger.get("/console/sessions"),
		"the door":                 stranger.get("/console/enter"),
		"a style sheet":            stranger.get(asPath(h, "console.css")),
		"an old style sheet":       stranger.get("/console/static/0000000000000000/console.css"),
		"a path that is not clean": b.get("/console//sessions"),
	} {
		if got := a.header["Content-Security-Policy"]; len(got) != 1 || got[0] != policyText {
			t.Errorf("%s: Content-Security-Policy %q", what, got)
		}
		for name, want := range map[string]string{"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Cross-Origin-Opener-Policy": "same-origin"} {
			if got := a.header.Get(name); got != want {
				t.Errorf("%s: %s: %q", what, name, got)
			}
		}
		if cc := a.header.Get("Cache-Control"); what != "a style sheet" && cc != "no-store" {
			t.Errorf("%s: Cache-Control %q", what, cc)
		}
		if strings.Contains(a.body, "<style") || regexp.MustCompile(`<script[^>]*>[^<]`).MatchString(a.body) || regexp.MustCompile(` (style|on[a-z]+)=`).MatchString(a.body) {
			t.Errorf("%s: an inline style or script", what)
		}
	}
	for what, a := range map[string]answer{"nowhere": b.get("/console/nowhere"), "not clean": b.get("/console//sessions"), "dots": b.get("/console/x/../sessions")} {
		if a.status != http.StatusNotFound && what != "dots" { // the client cleans dots itself
			t.Errorf("%s: %d", what, a.status)
		}
	}
	if a := b.get("/console/sign-out"); a.status != http.StatusMethodNotAllowed || a.header.Get("Allow") != "POST" {
		t.Errorf("GET of an act: %d, Allow %q", a.status, a.header.Get("Allow"))
	}
}

func asPath(h *house, name string) string { return "/console" + h.console.assets[name].path }

// fill puts something into the wildcards of a route's path.
func fill(path string) string {
	path = strings.TrimSuffix(path, "{$}")
	return "/console" + regexp.MustCompile(`\{[a-z]+\}`).ReplaceAllString(path, "ses_"+strings.Repeat("A", 23))
}

// A viewer may look, and do nothing: what is not for the role is refused, and is not offered.
func TestViewerMayDoNothing(t *testing.T) {
	h := newHouse(t)
	town := h.seed()
	v := h.enter(entrance.Viewer, "mia")
	admin := h.enter(entrance.Admin, "tom")
	may := api.ConsoleScopes(entrance.Viewer)
	acts := 0
	for _, rt := range routes() {
		allowed := !slices.ContainsFunc(rt.Needs, func(s api.Scope) bool { return !slices.Contains(may, string(s)) })
		switch {
		case rt.Method == http.MethodPost && !allowed:
			acts++
			if a := v.post(fill(rt.Path), "name", "mia", "what", "x"); a.status != http.StatusForbidden {
				t.Errorf("a viewer: POST %s: %d", rt.Path, a.status)
			}
		case rt.Method == http.MethodGet && !allowed:
			if a := v.get(fill(rt.Path)); a.status != http.StatusForbidden {
				t.Errorf("a viewer: GET %s: %d", rt.Path, a.status)
			}
		case rt.Method == http.MethodPost && allowed && !readOnly[rt.Path]:
			t.Errorf("a viewer is allowed POST %s, which is not known to change nothing", rt.Path)
		}
	}
	if acts < 15 {
		t.Errorf("only %d acts were tried", acts)
	}
	// The API decides, whatever the routes say of themselves.
	for _, rt := range routes() {
		if rt.Method != http.MethodPost || readOnly[rt.Path] {
			continue
		}
		open := rt
		open.Needs = nil
		m := http.NewServeMux()
		m.HandleFunc(rt.Method+" /console"+rt.Path, func(w http.ResponseWriter, r *http.Request) { h.console.serve(w, r, open) })
		h.server.Config.Handler = h.console.auth.Optional(m)
		a := v.post(fill(rt.Path), formOf[rt.Path]...)
		h.server.Config.Handler = h.console
		if a.status != http.StatusForbidden {
			t.Errorf("a viewer, past the console's own check: POST %s: %d %s", rt.Path, a.status, words(a.body))
		}
	}
	links := regexp.MustCompile(`(?:href|action)="(/console[^"?]*)`)
	for _, path := range []string{"/", "/sessions", "/sessions/" + string(town.mia), "/sessions/" + string(town.key), "/subject?name=mia", "/keys", "/users", "/users/mia", "/signing-keys", "/explain", "/configuration", "/people"} {
		for _, m := range links.FindAllStringSubmatch(v.page("/console"+path), -1) {
			for _, rt := range routes() {
				pattern := regexp.MustCompile("^/console" + regexp.MustCompile(`\\\{[a-z]+\\\}`).ReplaceAllString(regexp.QuoteMeta(strings.TrimSuffix(rt.Path, "{$}")), "[^/]+") + "$")
				if !pattern.MatchString(m[1]) || strings.HasSuffix(rt.Path, "}") && slices.Contains([]string{"new", "link"}, m[1][strings.LastIndex(m[1], "/")+1:]) {
					continue
				}
				for _, s := range rt.Needs {
					if !slices.Contains(may, string(s)) {
						t.Errorf("%s offers a viewer %s", path, m[1])
					}
				}
			}
		}
		admin.page("/console" + path)
	}
	if status, _ := h.call(h.key("sessions:read"), "GET", "/v1/sessions/"+string(town.mia), nil); status != 200 {
		t.Fatal("the session is gone")
	}
}

// readOnly are the POSTs that change nothing: they are POSTs since what they carry must stand in no address.
var readOnly = map[string]bool{"/explain": true, "/audit/verify": true}

// formOf is what acts are sent that ask for something before they ask the API.
var formOf = map[string][]string{
	"/revocations/{id}/confirm": {"count", "1"},
	"/webhooks/{id}/change":     {"url", "https://shop.example/hook", "events", "*"},
	"/webhooks/{id}/redeliver":  {"number", "1"},
	"/keys/new":                 {"subject", "shop"},
	"/clients/new":              {"name", "x", "auth", "none"},
	"/users/new":                {"name", "x", "password", "a password that is long"},
	"/people/link":              {"name", "x", "role", "admin"},
	"/subject/sign-out":         {"name", "mia"},
}

func TestCrossSiteRequestsAreRefused(t *testing.T) {
	h := newHouse(t)
	s := h.signIn("mia")
	b := h.enter(entrance.Admin, "tom")
	other := h.enter(entrance.Admin, "ada")
	at := "/console/sessions/" + string(s.Session.ID) + "/revoke"
	for what, c := range map[string]struct {
		token  string
		header http.Header
	}{
		"no token":                    {"", nil},
		"a wrong token":               {strings.Repeat("A", 44), nil},
		"the token of another":        {other.csrf, nil},
		"a page of another site":      {b.csrf, http.Header{"Sec-Fetch-Site": {"cross-site"}}},
		"a page of a sister site":     {b.csrf, http.Header{"Sec-Fetch-Site": {"same-site"}}},
		"an origin of another site":   {b.csrf, http.Header{"Sec-Fetch-Site": nil, "Origin": {"https://evil.example"}}},
		"a form that is none of ours": {b.csrf, http.Header{"Content-Type": {"text/plain"}}},
	} {
		form := url.Values{}
		if c.token != "" {
			form.Set("csrf_token", c.token)
		}
		if a := b.send(at, form, c.header); a.status != http.StatusForbidden {
			t.Errorf("%s: %d", what, a.status)
		}
	}
	if !h.good(s) {
		t.Error("the session was ended")
	}
	if a := b.post(at, "x", strings.Repeat("y", maxForm)); a.status != http.StatusRequestEntityTooLarge {
		t.Errorf("a large form: %d", a.status)
	}
}

// A link from elsewhere comes without the cookie, which is SameSite=Strict: the browser is asked to come from here.
func TestFromElsewhere(t *testing.T) {
	h := newHouse(t)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, h.server.URL+"/console/subject?name=mia", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Sec-Fetch-Site", "cross-site")
	r.Header.Set("Sec-Fetch-Mode", "navigate")
	a := h.browser().do(r)
	if a.status != http.StatusUnauthorized || !strings.Contains(a.body, `content="0; url=/console/subject?name=mia"`) {
		t.Errorf("%d %s", a.status, a.body)
	}
	r.Header.Set("Cookie", "another=1") // of something else on this host
	if a := h.browser().do(r); !strings.Contains(a.body, `content="0; url=/console/subject?name=mia"`) {
		t.Errorf("with another cookie: %s", a.body)
	}
	r.Header.Set("Cookie", PlainCookieName+"=x") // and is not asked again
	if a := h.browser().do(r); strings.Contains(a.body, "refresh") {
		t.Error("who brings a cookie is sent in a circle")
	}
	r.Header.Del("Cookie")
	if a := h.browser().get("/console/subject?name=mia"); strings.Contains(a.body, "refresh") {
		t.Error("who comes from here is sent in a circle")
	}
	// Nobody is led to what stands in the audit log, in their name, by a link of somebody else's; nor told of what was not done.
	for link, want := range map[string]string{
		"/console/audit/export?subject=mia": "/console/", "/console/configuration": "/console/", "/console/signing-keys?x=1": "/console/", "/console/rehearsal": "/console/",
		"/console/subject?done=subject-out&live=1&name=mia": "/console/subject?name=mia", "/console/keys?done=x": "/console/keys",
	} {
		r.URL.Path, r.URL.RawQuery, _ = strings.Cut(link, "?")
		if a := h.browser().do(r); !strings.Contains(a.body, `content="0; url=`+want+`"`) {
			t.Errorf("%s: not to %s: %s", link, want, a.body)
		}
	}
}

// What is written into the audit log by looking at it is known to be, and nothing else is.
func TestWhatIsNoted(t *testing.T) {
	h := newHouse(t)
	b := h.enter(entrance.Admin, "tom")
	for _, rt := range routes() {
		if rt.Method != http.MethodGet {
			continue
		}
		before := must[audit.Page](h)(h.trail.List(t.Context(), audit.Query{Type: "api.*", Limit: 100}))
		b.get(fill(rt.Path))
		after := must[audit.Page](h)(h.trail.List(t.Context(), audit.Query{Type: "api.*", Limit: 100}))
		if noted := len(after.Entries) > len(before.Entries); noted != rt.noted {
			t.Errorf("%s: stands in the audit log: %t, is said to: %t", rt.Path, noted, rt.noted)
		}
	}
}

// What was done is told to whoever did it, and not to whoever follows a link that says so.
func TestDoneIsNotBelieved(t *testing.T) {
	h := newHouse(t)
	b := h.enter(entrance.Admin, "tom")
	for site, told := range map[string]bool{"same-origin": true, "none": false, "same-site": false, "cross-site": false, "": false} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, h.server.URL+"/console/keys?done=session-revoked", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Sec-Fetch-Site", site)
		if a := b.do(r); a.status != http.StatusOK || strings.Contains(a.body, done["session-revoked"]) != told {
			t.Errorf("from %q: %d, told: %t", site, a.status, !told)
		}
	}
}

// No page of the console holds a token, not even of what it shows.
func TestNoSecretInPages(t *testing.T) {
	h := newHouse(t)
	town := h.seed()
	b := h.enter(entrance.Admin, "tom")
	for _, rt := range routes() {
		if rt.Method != http.MethodGet {
			continue
		}
		path := rt.Path
		for name, value := range map[string]string{"{id}": string(town.mia), "{name}": "mia", "{$}": ""} {
			path = strings.ReplaceAll(path, name, value)
		}
		if strings.HasPrefix(path, "/clients/") {
			path = strings.ReplaceAll(path, string(town.mia), "mobile")
		}
		if strings.HasPrefix(path, "/keys/") {
			path = strings.ReplaceAll(path, string(town.mia), string(town.key))
		}
		a := b.get("/console" + path + "?name=mia")
		h.clean(path, a.body)
		if a.status >= 500 {
			t.Errorf("%s: %d %s", path, a.status, words(a.body))
		}
	}
}

// What is vendored is what its authors published. The hashes are those of htmx.org 4.0.1 on npm, dist/htmx.min.js and
// dist/ext/hx-sse.min.js.
func TestVendored(t *testing.T) {
	for name, want := range map[string]string{
		"htmx.min.js":   "a0abb04f2f45a1f89d1d4844023245537e5e6014c87b144553e0607b4cc32130",
		"hx-sse.min.js": "18ef2761356ec1fe0bb6d92612315b37517a7c1e9856b661c5ae81fef239d103",
	} {
		b, err := static.ReadFile("static/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if sum := sha256.Sum256(b); hex.EncodeToString(sum[:]) != want {
			t.Errorf("%s is another: %x", name, sum)
		}
	}
	if b, err := static.ReadFile("static/htmx.LICENSE"); err != nil || !strings.Contains(string(b), "Zero-Clause BSD") {
		t.Errorf("its licence: %v", err)
	}
}

func TestAssets(t *testing.T) {
	h := newHouse(t)
	b := h.browser()
	for name, a := range h.console.assets {
		got := b.get("/console" + a.path)
		if got.status != 200 || got.header.Get("Content-Type") != a.kind || !strings.Contains(got.header.Get("Cache-Control"), "immutable") || got.body != string(a.content) {
			t.Errorf("%s: %d %q %q", name, got.status, got.header.Get("Content-Type"), got.header.Get("Cache-Control"))
		}
	}
	if len(h.console.assets) != 5 {
		t.Errorf("%d assets", len(h.console.assets))
	}
}

// Each route has its line in docs/console.md, and each line a route.
func TestDocumentation(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "..", "..", "docs", "console.md"))
	if err != nil {
		t.Fatal(err)
	}
	var documented []string
	for _, m := range regexp.MustCompile("(?m)^\\| `(GET|POST) (/[^`]*)` \\|").FindAllStringSubmatch(string(text), -1) {
		documented = append(documented, m[1]+" "+m[2])
	}
	var there []string
	for _, rt := range Routes() {
		there = append(there, rt.Method+" "+strings.TrimSuffix(rt.Path, "{$}"))
	}
	for _, r := range there {
		if !slices.Contains(documented, r) {
			t.Errorf("docs/console.md has no line for %s", r)
		}
	}
	for _, r := range documented {
		if !slices.Contains(there, r) {
			t.Errorf("docs/console.md has a line for %s, which is not there", r)
		}
	}
}

// streamOf follows the live part of a page.
func (b *browser) streamOf(ctx context.Context, path string) (lines <-chan string, status int) {
	b.h.t.Helper()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, b.h.server.URL+path, nil)
	if err != nil {
		b.h.t.Fatal(err)
	}
	r.Header.Set("Accept", "text/html, text/event-stream")
	resp, err := b.http.Do(r)
	if err != nil {
		b.h.t.Fatal(err)
	}
	if resp.StatusCode != 200 {
		resp.Body.Close()
		return nil, resp.StatusCode
	}
	if kind := resp.Header.Get("Content-Type"); kind != "text/event-stream" {
		b.h.t.Errorf("the stream is %q", kind)
	}
	out := make(chan string, 10000)
	go func() {
		defer close(out)
		defer resp.Body.Close()
		s := bufio.NewScanner(resp.Body)
		s.Buffer(nil, 1<<20)
		for s.Scan() {
			out <- s.Text()
		}
	}()
	return out, resp.StatusCode
}

// until reads lines until one contains the text.
func until(t *testing.T, lines <-chan string, text string, within time.Duration) {
	t.Helper()
	over := time.After(within)
	for {
		select {
		case l, ok := <-lines:
			switch {
			case !ok:
				t.Fatalf("the stream ended before %q", text)
			case strings.Contains(l, text):
				return
			}
		case <-over:
			t.Fatalf("no %q within %v", text, within)
		}
	}
}

func TestLive(t *testing.T) {
	h := newHouse(t)
	b := h.enter(entrance.Viewer, "mia")
	admin := h.enter(entrance.Admin, "tom")
	victim := h.signIn("ada")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	lines, _ := b.streamOf(ctx, "/console/?live=1")
	until(t, lines, "Theft alarms", 5*time.Second)
	began := time.Now()
	h.theft(victim, afterlogin.Client{}, afterlogin.Client{UserAgent: "thief"})
	until(t, lines, "theft alarm", time.Second)
	t.Logf("the alarm was in the page after %v", time.Since(began))
	until(t, lines, "new event", 10*time.Second)
	// Who is signed out does not go on watching.
	if a := admin.post("/console/sessions/" + b.session() + "/revoke"); a.status != http.StatusSeeOther {
		t.Fatalf("end the session: %d", a.status)
	}
	until(t, lines, "event: over", time.Second)
	for range lines {
	}
	if _, status := h.browser().streamOf(ctx, "/console/?live=1"); status != http.StatusUnauthorized {
		t.Errorf("a stranger: %d", status)
	}
	for _, path := range []string{"/console/keys?live=1", "/console/audit/export?live=1", "/console/configuration?live=1"} {
		if _, status := admin.streamOf(ctx, path); status != http.StatusNotFound {
			t.Errorf("%s, which is not live: %d", path, status)
		}
	}
	// Close ends what is live, and waits for it.
	lines, _ = admin.streamOf(ctx, "/console/?live=1")
	until(t, lines, "Theft alarms", 5*time.Second)
	h.console.Close()
	for range lines {
	}
	if _, status := admin.streamOf(ctx, "/console/?live=1"); status != http.StatusServiceUnavailable {
		t.Errorf("a stream after Close: %d", status)
	}
}

func TestNewChecks(t *testing.T) {
	h := newHouse(t)
	for what, o := range map[string]Options{
		"nothing":        {},
		"a base of /":    {Authority: h.a, API: h.api, Entrance: h.entrance, Base: "/"},
		"a base of x":    {Authority: h.a, API: h.api, Entrance: h.entrance, Base: "x"},
		"a base of /{x}": {Authority: h.a, API: h.api, Entrance: h.entrance, Base: "/{x}"},
		"a bad origin":   {Authority: h.a, API: h.api, Entrance: h.entrance, Origin: "auth.example"},
	} {
		if c, err := New(o); err == nil {
			c.Close()
			t.Errorf("%s: no error", what)
		}
	}
	c, err := New(Options{Authority: h.a, API: h.api, Entrance: h.entrance, Base: "/ops/console/", PlainLoopback: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	h.server.Config.Handler = c
	if a := h.browser().get("/ops/console/"); a.status != http.StatusUnauthorized || !strings.Contains(a.body, `href="/ops/console/static/`) {
		t.Errorf("below another base: %d", a.status)
	}
}

// What the fields of the search say is what the query says, whatever was typed.
func FuzzCompose(f *testing.F) {
	f.Add("mia", "firefox", "mobile")
	f.Add(`a" or kind="session`, `\`, `*`)
	f.Add("a*", "b c", `"`)
	f.Fuzz(func(t *testing.T, subject, device, client string) {
		q, err := query.Parse(compose(url.Values{"subject": {subject}, "device": {device}, "client": {client}}))
		if err != nil {
			return // too long, or what no value can be: the API says so
		}
		want := 0
		for _, s := range []string{subject, device, client} {
			if strings.TrimSpace(s) != "" {
				want++
			}
		}
		if len(q.Terms()) != want {
			t.Fatalf("%q %q %q: %d terms, want %d: %s", subject, device, client, len(q.Terms()), want, q)
		}
		for _, term := range q.Terms() {
			typed := strings.TrimSpace(map[query.Field]string{query.Subject: subject, query.Device: device, query.Client: client}[term.Field])
			rest, star := strings.CutSuffix(typed, "*")
			if star && rest != "" {
				typed = rest
			}
			if len(term.Values) != 1 || term.Values[0].Text != typed {
				t.Fatalf("%s: %q, want %q", term.Field, term.Values[0].Text, typed)
			}
		}
	})
}

// Exactly one thing is asked, whatever was pasted.
func FuzzExplainRequest(f *testing.F) {
	for _, s := range []string{"", "ses_abcdef", "als_abcdef", "eyJhbGciOiJFZERTQSJ9.e30.AA", "key_AAAAAAAAAAAAAAAAAAAAAAA", "a_b", "_", "al"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r := explainRequest(s)
		if r.Token+r.ID+r.Prefix != s || (r.Token != "") && (r.ID != "" || r.Prefix != "") || (r.ID != "") && (r.Prefix != "") {
			t.Fatalf("%q: %+v", s, r)
		}
	})
}
