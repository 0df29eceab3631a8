package account

import (
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
)

// Nobody who is not signed in sees anything; a browser is sent to sign in and comes back, a program is told.
func TestSignedOut(t *testing.T) {
	f := open(t, nil)
	b := f.browser(f.app, firefox)
	back := base + "/login?return_to=" + url.QueryEscape(base+sessionsPath)
	if a := b.get(base + sessionsPath); a.status != http.StatusSeeOther || a.to != back {
		t.Errorf("%d to %s", a.status, a.to)
	}
	a := b.program("GET", sessionsPath, "", "")
	a.wants(t, "a program", 401, `"status":401`)
	b.program("GET", sessionsPath+"?embed=1", "", "").wants(t, "a program, for a frame", 401, `"status":401`)
	if a.header.Get("WWW-Authenticate") == "" || a.header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("%v", a.header)
	}
	b.do("POST", base+sessionsPath, "act=sign_out_others").wants(t, "a form", 401, "You are not signed in", back)
	// Within a frame the sign-in page is not shown: a link leads there.
	b.get(base+sessionsPath+"?embed=1").wants(t, "a frame", 401, "You are not signed in", `href="`+strings.ReplaceAll(back, "=", "=")+`" target="_top"`)
	// An anonymous session is nobody's.
	anonymous, err := f.a.Issue(t.Context(), afterlogin.IssueRequest{Data: map[string]json.RawMessage{"cart": json.RawMessage(`1`)}})
	if err != nil {
		t.Fatal(err)
	}
	cookie := "Cookie: __Host-Http-session_id=" + anonymous.Token.Reveal()
	if a := b.do("GET", base+sessionsPath, "", cookie); a.status != http.StatusSeeOther {
		t.Errorf("anonymous: %d %s", a.status, a.body)
	}
	if a := b.do("GET", base+sessionsPath+"?embed=1", "", cookie); a.status != http.StatusUnauthorized {
		t.Errorf("anonymous in a frame: %d %s", a.status, a.body)
	}
	// Neither an API key nor an access token opens the page.
	key, err := f.a.Issue(t.Context(), afterlogin.IssueRequest{Subject: "mia", Kind: afterlogin.KindAPIKey})
	if err != nil {
		t.Fatal(err)
	}
	b.do("GET", base+sessionsPath, "", "Authorization: Bearer "+key.Token.Reveal()).wants(t, "an API key", 401)
	b.do("GET", base+sessionsPath, "", "X-Api-Key: "+key.Token.Reveal(), "Accept: application/json").wants(t, "an API key", 401)
}

// What changes something must come from the site and carry the session's CSRF token.
func TestCrossSite(t *testing.T) {
	f := open(t, nil)
	here, phone := f.in("mia", firefox), f.in("mia", safari)
	tom := f.in("tom", chromium)
	page := here.list()
	form, csrf := page.form(t, "act", "sign_out_others"), page.csrf(t)
	_, toms := tom.json()
	id := phone.id()
	for what, a := range map[string]*reply{
		"another site":             here.do("POST", base+sessionsPath, form, "Sec-Fetch-Site: cross-site", "Origin: https://evil.example"),
		"another host of the site": here.do("POST", base+sessionsPath, form, "Sec-Fetch-Site: same-site", "Origin: "+f.home.Origin),
		"an old browser":           here.do("POST", base+sessionsPath, form, "Sec-Fetch-Site: ", "Origin: https://evil.example"),
		"no CSRF token":            here.do("POST", base+sessionsPath, "act=sign_out_others"),
		"somebody else's":          here.do("POST", base+sessionsPath, "act=sign_out_others&csrf_token="+url.QueryEscape(toms)),
		"two of them":              here.do("POST", base+sessionsPath, form+"&csrf_token="+url.QueryEscape(csrf)),
		"in the address":           here.do("POST", base+sessionsPath+"?csrf_token="+url.QueryEscape(csrf), "act=sign_out_others"),
		"JSON without":             here.program("POST", sessionsPath, `{"act":"sign_out_others"}`, ""),
		"JSON with another's":      here.program("POST", sessionsPath, `{"act":"sign_out_others"}`, toms),
		"DELETE without":           here.program("DELETE", sessionsPath+"/"+id, "", ""),
		"DELETE of another site":   here.program("DELETE", sessionsPath+"/"+id, "", csrf, "Sec-Fetch-Site: cross-site", "Origin: https://evil.example"),
		"plain text":               here.do("POST", base+sessionsPath, `{"act":"sign_out_others"}`, "Content-Type: text/plain"),
	} {
		if a.status != http.StatusForbidden {
			t.Errorf("%s: %d %s", what, a.status, a.body)
		}
	}
	if phone.over() != "" {
		t.Fatal("the phone is signed out")
	}
	here.do("POST", base+sessionsPath, "act=sign_out_others").wants(t, "a page that was open for long", 403, "open for too long", "Back to the list")
	// No page of another origin may read the list: nothing is said about CORS, and the answer may not be embedded.
	a := here.program("GET", sessionsPath, "", "", "Origin: https://evil.example", "Sec-Fetch-Site: cross-site")
	if a.header.Get("Access-Control-Allow-Origin") != "" || a.header.Get("Cross-Origin-Resource-Policy") != "same-origin" {
		t.Errorf("%v", a.header)
	}
	// With a bearer token of the session nothing of this is needed.
	native := f.browser(f.app, "Pocket/3.2")
	native.do("DELETE", base+sessionsPath+"/"+id, "", "Authorization: Bearer "+here.token(), "Accept: application/json", "Sec-Fetch-Site: ", "Origin: ").wants(t, "a bearer token", 204)
	if phone.over() != afterlogin.ReasonSignedOut {
		t.Errorf("the phone: %q", phone.over())
	}
}

// Programs say what they want in JSON.
func TestOrders(t *testing.T) {
	f := open(t, nil)
	here := f.in("mia", firefox)
	_, csrf := here.json()
	id := here.id()
	for name, tt := range map[string]struct {
		body   string
		status int
		kind   string
	}{
		"no JSON":            {`{`, 400, "malformed-json"},
		"a list":             {`[]`, 400, "malformed-json"},
		"two objects":        {`{"act":"report"}{}`, 400, "malformed-json"},
		"an unknown field":   {`{"act":"report","all":true}`, 400, "malformed-json"},
		"too large":          {`{"act":"` + strings.Repeat("a", maxBody) + `"}`, 413, "body-too-large"},
		"no act":             {`{}`, 422, "invalid-request"},
		"an unknown act":     {`{"act":"delete"}`, 422, "invalid-request"},
		"nothing named":      {`{"act":"sign_out"}`, 422, "invalid-request"},
		"others of one":      {`{"act":"sign_out_others","session":"` + id + `"}`, 422, "invalid-request"},
		"somebody's session": {`{"act":"sign_out","session":"ses_AAAAAAAAAAAAAAAAAAAAAAA"}`, 404, "no-such-session"},
		"a number":           {`{"act":"sign_out","session":7}`, 400, "malformed-json"},
	} {
		a := here.program("POST", sessionsPath, tt.body, csrf)
		var p struct {
			Type, Detail string
			Status       int
		}
		if err := json.Unmarshal([]byte(a.body), &p); err != nil || a.status != tt.status || p.Status != tt.status || !strings.HasSuffix(p.Type, "#"+tt.kind) || p.Detail == "" ||
			a.header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: %d %s (%v)", name, a.status, a.body, err)
		}
	}
	here.do("POST", base+sessionsPath, `<act>report</act>`, "Content-Type: application/xml", "Accept: application/json", "X-Csrf-Token: "+csrf).wants(t, "XML", 415, "#unsupported-media-type")
	here.do("POST", base+sessionsPath, "act=report&act=sign_out", "X-Csrf-Token: "+csrf).wants(t, "a field twice", 400, "each field once")
	here.do("POST", base+sessionsPath, "act=%zz", "X-Csrf-Token: "+csrf).wants(t, "no form", 400)
	if here.over() != "" {
		t.Fatalf("%q", here.over())
	}
	here.program("DELETE", sessionsPath, "", csrf).wants(t, "DELETE of all", 405, "#method-not-allowed")
	if a := here.program("PUT", sessionsPath, "{}", csrf); a.status != 405 || a.header.Get("Allow") != "GET, HEAD, POST" {
		t.Errorf("PUT: %d %s", a.status, a.header.Get("Allow"))
	}
	if a := here.get(base + sessionsPath + "/" + id); a.status != 405 || a.header.Get("Allow") != "DELETE" {
		t.Errorf("GET of one: %d %s", a.status, a.header.Get("Allow"))
	}
	for _, path := range []string{"/account/", "/account/nothing", "/account/sessions/", "/account/sessions/a/b", "/account/sessions%2f" + id, "/account/style-0000000000000000.css"} {
		here.get(base+path).wants(t, path, 404, "There is no such page")
	}
	if a := here.do("HEAD", base+sessionsPath, "", "Origin: ", "Content-Type: "); a.status != 200 || a.body != "" {
		t.Errorf("HEAD: %d %q", a.status, a.body)
	}
	// A site that nobody knows.
	r := f.browser(f.app, firefox)
	if a := r.do("GET", strings.Replace(f.app.Origin, "shop.", "other.", 1)+base+sessionsPath, ""); a.status != http.StatusMisdirectedRequest {
		t.Errorf("another host: %d %s", a.status, a.body)
	}
	here.program("POST", sessionsPath, `{"act":"report"}`, csrf).wants(t, "report", 200, `{"sign_in":"/.afterlogin/login?return_to=%2F.afterlogin%2Fpassword"}`)
	if here.over() != afterlogin.ReasonReported {
		t.Errorf("%q", here.over())
	}
}

// Within a page of the site's own the list has no frame of its own, and what leads away leaves that page.
func TestEmbedded(t *testing.T) {
	f := open(t, func(o *Options) { o.Product = "Example <Shop>" })
	here, phone := f.in("mia", firefox), f.in("mia", safari)
	page := here.list()
	page.wants(t, "the page", 200, `<p class="product">Example &lt;Shop&gt;</p>`, "Example &lt;Shop&gt;</title>")
	if page.header.Get("X-Frame-Options") != "DENY" {
		t.Errorf("X-Frame-Options %q", page.header.Get("X-Frame-Options"))
	}
	in := here.get(base + sessionsPath + "?embed=1")
	in.wants(t, "embedded", 200, `class="embedded"`, `action="/.afterlogin/account/sessions?embed=1"`, `href="/.afterlogin/logout" target="_top"`)
	in.lacks(t, "embedded", `class="product"`, "<header")
	if in.header.Get("X-Frame-Options") != "SAMEORIGIN" {
		t.Errorf("X-Frame-Options %q", in.header.Get("X-Frame-Options"))
	}
	a := here.do("POST", base+sessionsPath+"?embed=1", in.form(t, "session", phone.id()))
	if a.status != http.StatusSeeOther || a.to != base+sessionsPath+"?done=device&embed=1" {
		t.Errorf("%d to %s", a.status, a.to)
	}
	here.do("GET", a.to, "", "Sec-Fetch-Site: same-origin").wants(t, "afterwards", 200, "Signed out there.", `class="embedded"`)
	// The question, which ends everything, is never in a frame.
	if q := here.get(base + reportPath); q.header.Get("X-Frame-Options") != "DENY" {
		t.Errorf("the question: %v", q.header)
	}
	here.do("POST", base+sessionsPath+"?embed=1", "act=nothing&csrf_token="+url.QueryEscape(in.csrf(t))).wants(t, "a mistake", 422, `href="/.afterlogin/account/sessions?embed=1"`)
}

// The operator's stylesheet is a file of the site's own, which a browser may keep, and the only thing that the page's policy
// lets in besides its own style.
func TestStylesheet(t *testing.T) {
	css := []byte(":root{--afterlogin-accent:#7b1fa2}\n@media(prefers-color-scheme:dark){:root{--afterlogin-accent:#d9a7ec}}\n")
	f := open(t, func(o *Options) { o.Stylesheet = css })
	here := f.in("mia", firefox)
	path := base + f.account.style
	page := here.list()
	page.wants(t, "the page", 200, `<link rel="stylesheet" href="`+path+`">`)
	if csp := page.header.Get("Content-Security-Policy"); !strings.Contains(csp, "style-src "+styleHash+" "+f.app.Origin+path+";") {
		t.Errorf("the policy: %s", csp)
	}
	a := f.browser(f.app, firefox).get(path)
	if a.status != 200 || a.body != string(css) || a.header.Get("Content-Type") != "text/css; charset=utf-8" || !strings.Contains(a.header.Get("Cache-Control"), "immutable") ||
		a.header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("%d %v %s", a.status, a.header, a.body)
	}
	if a := here.do("POST", path, "a=b"); a.status != 405 {
		t.Errorf("POST: %d", a.status)
	}
}

func TestCheckStylesheet(t *testing.T) {
	for name, tt := range map[string]struct{ css, want string }{
		"properties":          {":root{--afterlogin-accent:#123}", ""},
		"a comment":           {"/* } < @import */ a{b:c}", ""},
		"texts":               {`a::before{content:"}<"} b{c:'\''}`, ""},
		"an escape":           {`a\{b{c:d}`, ""},
		"a mark at the start": {"\ufeffa{b:c}", ""},
		"nothing":             {"", "no rule"},
		"no rule":             {"/* nothing */", "no rule"},
		"HTML":                {"<!doctype html><style>a{b:c}</style>", "line 1: < does not stand in CSS"},
		"the end of a style":  {"a{b:c}\n</style><script>", "line 2: <"},
		"an import":           {"a{b:c}\n@IMPORT url(x.css);", "line 2: @import"},
		"cut short":           {"a{b:c}\nb{", "1 { without }"},
		"too many ends":       {"a{b:c}}", "} without {"},
		"an open comment":     {"a{b:c} /*", "a comment does not end"},
		"an open text":        {"a{b:\"c}", "a text in quotes does not end"},
		"a picture":           {"\x89PNG\r\n\x1a\n", "not UTF-8"},
		"a zero":              {"a{b:c}\x00", "a control character"},
		"too large":           {"a{b:c}" + strings.Repeat(" ", MaxStylesheet), "larger than 64 KiB"},
	} {
		err := CheckStylesheet([]byte(tt.css))
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
		path := filepath.Join(t.TempDir(), "a.css")
		if err := os.WriteFile(path, []byte(tt.css), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadStylesheet(path); (err == nil) != (tt.want == "") {
			t.Errorf("%s, from a file: %v", name, err)
		}
	}
	if _, err := ReadStylesheet(filepath.Join(t.TempDir(), "none.css")); err == nil {
		t.Error("a file that is not there")
	}
	if _, err := New(Options{Authority: &afterlogin.Authority{}, Site: func(*http.Request) (*Site, error) { return nil, nil }, Stylesheet: []byte("<")}); err == nil {
		t.Error("New takes what is no stylesheet")
	}
}

// What strangers send, as the name of a browser, an app or a key, is shown as text.
func TestHostileNames(t *testing.T) {
	f := open(t, nil)
	here := f.in("mia", firefox)
	f.in("mia", `<script>alert(1)</script>/1.0 "><img src=x onerror=alert(1)>`)
	s, err := here.session()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.a.IssueGrant(t.Context(), s, afterlogin.GrantRequest{Client: "x", Name: `</h3><script>alert(2)</script>`, Offline: true, Scopes: []string{"<b>"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.a.Issue(t.Context(), afterlogin.IssueRequest{Subject: "mia", Kind: afterlogin.KindAPIKey, Name: `{{.Token}}"onfocus="alert(3)`}); err != nil {
		t.Fatal(err)
	}
	page := here.list() // whose check looks for scripts
	page.lacks(t, "the page", "<img", "<b>", "<script")
	page.wants(t, "the page", 200, "{{.Token}}&#34;onfocus=&#34;alert(3)")
}

// A list that is too long says so, and this device is in it all the same.
func TestLongList(t *testing.T) {
	f := open(t, nil)
	issue := func(n int) {
		t.Helper()
		for range n {
			if _, err := f.a.Issue(t.Context(), afterlogin.IssueRequest{Subject: "mia"}); err != nil {
				t.Fatal(err)
			}
		}
	}
	issue(maxShown + 5)
	here := f.in("mia", firefox)
	got, _ := here.json()
	if len(got.Devices) != maxShown || !got.More || !got.Devices[0].Here {
		t.Errorf("%d devices, more: %t", len(got.Devices), got.More)
	}
	here.list().wants(t, "the page", 200, "There is more than fits on this page.")
	// However much has ended, no device is hidden behind it.
	issue(maxLooked)
	f.pass(2 * time.Hour) // what ends later stands behind
	f.in("mia", safari)
	here = f.in("mia", firefox)
	if got, _ = here.json(); len(got.Devices) != 2 || got.More || !got.Devices[0].Here || got.Devices[0].ID != here.id() || len(got.Ended) != maxEnded {
		t.Errorf("%+v, more: %t, %d ended", got.Devices, got.More, len(got.Ended))
	}
}
