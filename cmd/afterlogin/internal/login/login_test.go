package login

import (
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/users"
	"github.com/afterlogin/afterlogin/httpauth"
	"github.com/afterlogin/afterlogin/store/storetest"
)

func TestSignInAndOut(t *testing.T) {
	f := open(t, nil)
	b := f.browser(f.app)
	page := b.get("/.afterlogin/login?return_to=/reports%3Fq%3D3")
	page.wants(t, "the page", 200, "Sign in", `autocomplete="username"`, `autocomplete="current-password"`, "Stay signed in", "Sign in with Example Corp",
		`<button class="plain" name="provider" value="corp" formnovalidate>`)
	a := b.do("POST", "/.afterlogin/login", page.fill("name", "Mia ", "password", good))
	if a.status != http.StatusSeeOther || a.to != "/reports?q=3" {
		t.Fatalf("%d %s %s", a.status, a.to, a.body)
	}
	s := b.session()
	if s == nil || s.Subject != "mia" || !slices.Equal(s.Auth.Methods, []string{"pwd"}) || !slices.Equal(s.Scopes, []string{"read"}) || s.Policy != afterlogin.PolicyBrowser || s.Device.Addr != f.from {
		t.Fatalf("%+v", s)
	}
	device := ""
	for _, c := range a.header["Set-Cookie"] {
		if strings.HasPrefix(c, DeviceCookie+"=") {
			device = c
		}
	}
	if !strings.Contains(device, "; Secure") || !strings.Contains(device, "; HttpOnly") || !strings.Contains(device, "Path=/;") || !strings.Contains(device, "Max-Age=31536000") || strings.Contains(device, "mia") {
		t.Errorf("the device cookie: %s", device)
	}
	b.get("/.afterlogin/login?return_to=/reports").wants(t, "signed in already", 200, "You are signed in as <b>mia</b>", `href="/reports"`, "Sign out and use another account", "Change password")
	page = b.get("/.afterlogin/logout")
	page.wants(t, "the question", 200, "Sign out?", "mia")
	if b.session() == nil {
		t.Error("a GET signs out")
	}
	token := b.token()
	a = b.do("POST", "/.afterlogin/logout", page.form())
	if a.status != 303 || b.token() != "" {
		t.Errorf("sign-out: %d, %s", a.status, b.token())
	}
	if _, err := f.a.Validate(t.Context(), afterlogin.TokenFrom(token), afterlogin.Expect{Kinds: []afterlogin.Kind{afterlogin.KindSession}}); err == nil {
		t.Error("the token is still good")
	}
	b.get(a.to).wants(t, "after it", 200, "You are signed out.", `name="password"`)
	b.get("/.afterlogin/logout").wants(t, "without a session", 200, "You are not signed in")
}

func TestRemember(t *testing.T) {
	f := open(t, nil)
	b := f.browser(f.app)
	a := b.signIn("mia", good, "", "remember", "on")
	if s := b.session(); s == nil || s.Policy != afterlogin.PolicyRemember || a.to != "/" || !strings.Contains(strings.Join(a.header["Set-Cookie"], "\n"), "Max-Age=2592000") {
		t.Errorf("%+v, %s", s, a.to)
	}
	f = open(t, func(o *Options) { o.NoRemember = true })
	b = f.browser(f.app)
	if b.signIn("mia", good, "", "remember", "on"); b.session().Policy != afterlogin.PolicyBrowser {
		t.Error("remembered, though nobody is asked")
	}
	// Nor are a provider's people, whatever they write into an address.
	for remember, want := range map[bool]string{false: afterlogin.PolicyRemember, true: afterlogin.PolicyBrowser} {
		f := open(t, func(o *Options) { o.NoRemember = remember })
		b := f.browser(f.app)
		if b.get("/test/complete?subject=corp:7&remember=1"); b.session().Policy != want {
			t.Errorf("NoRemember %v: %s", remember, b.session().Policy)
		}
	}
}

// The answer is the same for a wrong password, a name that nobody has, and a user who is disabled.
func TestWrong(t *testing.T) {
	f := open(t, nil)
	yes := true
	if _, err := f.users.Add(t.Context(), "gone", good, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := f.users.Update(t.Context(), "gone", users.Change{Disabled: &yes}); err != nil {
		t.Fatal(err)
	}
	var bodies []string
	for _, try := range [][2]string{{"mia", bad}, {"gone", good}, {"nobody", good}, {"gone", bad}} {
		f.pass(time.Hour)
		b := f.browser(f.app)
		a := b.signIn(try[0], try[1], "/x", "remember", "on")
		a.wants(t, try[0], 422, "The name or the password is wrong.", `role="alert"`, `aria-invalid="true"`, `aria-describedby="error"`, `value="`+try[0]+`"`, "<title>Error: ", " checked")
		if b.token() != "" || len(b.do("GET", "/.afterlogin/login", nil).header["Set-Cookie"]) > 0 {
			t.Errorf("%s: cookies", try[0])
		}
		form := a.form()
		if form.Get("return_to") != "/x" {
			t.Errorf("the way back is lost: %v", form)
		}
		bodies = append(bodies, strings.ReplaceAll(strings.ReplaceAll(a.body, try[0], "NAME"), form.Get("csrf_token"), "TOKEN"))
		// And the form that came back works.
		if try[0] == "mia" {
			if a = b.do("POST", "/.afterlogin/login", a.fill("name", "mia", "password", good)); a.to != "/x" {
				t.Errorf("the second try: %d %s", a.status, a.to)
			}
		}
	}
	for _, body := range bodies[1:] {
		if body != bodies[0] {
			t.Errorf("the answers are not the same:\n%s\n%s", bodies[0], body)
		}
	}
	// What was typed may be a password in the wrong field, and may be anything.
	f.pass(time.Hour)
	b := f.browser(f.app)
	a := b.signIn(`"><script>alert(1)</script>`, bad, "")
	a.wants(t, "markup", 422, "&lt;script&gt;")
	b.signIn("nobody-at-all", bad, "")
	if strings.Contains(f.log.String(), "nobody-at-all") {
		t.Errorf("the log has a name that no user has: %s", f.log.String())
	}
	if !strings.Contains(f.log.String(), "user=mia") {
		t.Error("the log does not say whose password was wrong")
	}
}

func TestThrottled(t *testing.T) {
	f := open(t, nil)
	b := f.browser(f.app)
	for range 5 {
		b.signIn("mia", bad, "").wants(t, "wrong", 422)
	}
	hashes := f.users.Stats().Hashes
	a := b.signIn("mia", good, "/x")
	a.wants(t, "throttled", 429, "too many wrong passwords", "Try again in a second", `value="mia"`)
	if a.header.Get("Retry-After") != "1" || f.users.Stats().Hashes != hashes {
		t.Errorf("Retry-After %q, %d hashes", a.header.Get("Retry-After"), f.users.Stats().Hashes-hashes)
	}
	f.pass(time.Second)
	if a = b.signIn("mia", good, "/x"); a.to != "/x" {
		t.Errorf("in its turn: %d", a.status)
	}
	// That browser is known now; what others do does not keep it out.
	u, _ := url.Parse(f.app.Origin)
	known := b.http.Jar.Cookies(u)
	for range 20 {
		f.browser(f.app).signIn("mia", bad, "")
	}
	b.do("POST", "/.afterlogin/logout", b.get("/.afterlogin/logout").form())
	if a = b.signIn("mia", good, "/x"); a.to != "/x" {
		t.Errorf("the owner's browser: %d %s (cookies %d)", a.status, a.body, len(known))
	}
	f.browser(f.app).signIn("mia", good, "").wants(t, "another browser", 429)
}

// Without the token of the form nobody signs in, whoever's browser it is.
func TestCrossSite(t *testing.T) {
	f := open(t, nil)
	form := func(b *browser) url.Values {
		return b.get("/.afterlogin/login").fill("name", "mia", "password", good)
	}
	foreign := form(f.browser(f.app))
	for name, try := range map[string]func(b *browser) *answer{
		"no cookie":       func(b *browser) *answer { return b.do("POST", "/.afterlogin/login", foreign) },
		"another's token": func(b *browser) *answer { form(b); return b.do("POST", "/.afterlogin/login", foreign) },
		"no token": func(b *browser) *answer {
			v := form(b)
			v.Del("csrf_token")
			return b.do("POST", "/.afterlogin/login", v)
		},
		"cross-site": func(b *browser) *answer {
			return b.do("POST", "/.afterlogin/login", form(b), "Sec-Fetch-Site: cross-site", "Origin: https://evil.example")
		},
		"same-site": func(b *browser) *answer {
			return b.do("POST", "/.afterlogin/login", form(b), "Sec-Fetch-Site: same-site")
		},
		"another origin, from a browser without Sec-Fetch": func(b *browser) *answer {
			return b.do("POST", "/.afterlogin/login", form(b), "Sec-Fetch-Site: ", "Origin: https://evil.example")
		},
		"no origin": func(b *browser) *answer {
			return b.do("POST", "/.afterlogin/login", form(b), "Sec-Fetch-Site: ", "Origin: null")
		},
		"two cookies": func(b *browser) *answer {
			v := form(b)
			return b.do("POST", "/.afterlogin/login", v, "Cookie: "+FormCookie+"=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
		},
	} {
		b := f.browser(f.app)
		if a := try(b); a.status != 403 || b.token() != "" {
			t.Errorf("%s: %d, token %t", name, a.status, b.token() != "")
		}
	}
	// Old browsers, which send neither Sec-Fetch-Site nor Origin, have the token.
	b := f.browser(f.app)
	if a := b.do("POST", "/.afterlogin/login", form(b), "Sec-Fetch-Site: ", "Origin: "); a.status != 303 {
		t.Errorf("an old browser: %d", a.status)
	}
	// With a session it is the session's token.
	page := b.get("/.afterlogin/password")
	v := page.fill("password", good, "new", other, "repeat", other)
	v.Set("csrf_token", foreign.Get("csrf_token"))
	if a := b.do("POST", "/.afterlogin/password", v); a.status != 403 {
		t.Errorf("with a session, another token: %d", a.status)
	}
	if a := b.do("POST", "/.afterlogin/logout", url.Values{}); a.status != 403 || b.session() == nil {
		t.Errorf("a sign-out without a token: %d", a.status)
	}
}

func TestReturnTo(t *testing.T) {
	f := open(t, nil)
	for text, want := range map[string]target{
		"":                            {path: "/"},
		"/":                           {path: "/"},
		"/a?b=c":                      {path: "/a?b=c"},
		"//evil.example":              {path: "/"},
		`/\evil.example`:              {path: "/"},
		"/\tevil":                     {path: "/"},
		"/a/../b":                     {path: "/"},
		"/%2e%2e/b":                   {path: "/"},
		"javascript:alert(1)":         {path: "/"},
		f.app.Origin:                  {path: "/"},
		f.app.Origin + "/x":           {path: "/x"},
		f.app.Origin + "//x":          {path: "/"},
		f.app.Origin + ".evil":        {path: "/"},
		f.app.Origin + "@evil":        {path: "/"},
		f.app.Origin + "0/x":          {path: "/"},
		f.app.Origin + `\x`:           {path: "/"},
		f.app.Origin + "?x":           {path: "/"},
		"https://other.example":       {"https://other.example", "/"},
		"https://other.example/a?b":   {"https://other.example", "/a?b"},
		"https://other.example:443/":  {path: "/"},
		"https://other.example:8443/": {path: "/"},
		"https://other.example.":      {path: "/"},
		"https://mia@other.example/":  {path: "/"},
		"https://other.example@evil/": {path: "/"},
		"HTTPS://other.example/":      {path: "/"},
		"http://other.example/":       {path: "/"},
		"https:/other.example/":       {path: "/"},
		"https:other.example":         {path: "/"},
		" https://other.example/":     {path: "/"},
		"https://other.example/\n":    {path: "/"},
		"https://other.exämple/":      {path: "/"},
		"//other.example/":            {path: "/"},
		f.home.Origin + "/oauth":      {f.home.Origin, "/oauth"},
	} {
		if got := f.login.target(f.app, text); got != want {
			t.Errorf("%q: %+v, want %+v", text, got, want)
		}
	}
	b := f.browser(f.app)
	if a := b.signIn("mia", good, "https://evil.example/"); a.to != "/" {
		t.Errorf("sent to %s", a.to)
	}
}

func FuzzReturnTo(f *testing.F) {
	l := &Login{o: Options{Returns: []string{"https://other.example", "http://shop.localhost:8080"}, Home: "https://auth.example", HandOver: []string{"https://other.example"}}}
	shop, home := &Site{Origin: "https://shop.example", Base: "/.afterlogin"}, &Site{Origin: "https://auth.example"}
	for _, s := range []string{"/a", "//a", `/\a`, "https://other.example/x", "https://other.example@evil/", "http://shop.localhost:8080/", "https://shop.example/a#b", "/a?redirect_uri=com.app:/cb"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		site := shop
		if len(text)%2 == 1 {
			site = home
		}
		to := l.target(site, text)
		base, err := url.Parse(site.Origin + "/.afterlogin/login")
		if err != nil {
			t.Fatal(err)
		}
		u, err := base.Parse(l.location(site, to))
		if err != nil {
			t.Fatalf("%q leads to %q: %v", text, l.location(site, to), err)
		}
		origin := u.Scheme + "://" + u.Host
		if u.User != nil || origin != site.Origin && origin != l.o.Home && !slices.Contains(l.o.Returns, origin) {
			t.Errorf("%q leads to %s", text, u)
		}
		if where := l.location(site, to); strings.ContainsAny(where, "\\\r\n\t ") || strings.HasPrefix(where, "//") {
			t.Errorf("%q leads to %q", text, where)
		}
		if p := formAction(site, to); strings.ContainsAny(p, ";,\r\n") || strings.Contains(p, "javascript") || strings.Contains(p, "*") {
			t.Errorf("%q makes the policy %q", text, p)
		}
	})
}

// Who is signed in already, but too long ago, or not in the way that is asked for, confirms it, and stays in the session.
func TestStepUp(t *testing.T) {
	f := open(t, func(o *Options) { o.PasswordACR = "silver" })
	b := f.browser(f.app)
	b.signIn("mia", good, "")
	was, token := b.session(), b.token()
	f.pass(10 * time.Minute)
	ask := "/.afterlogin/login?return_to=/safe&reason=stale_auth&max_age=60"
	page := b.get(ask)
	page.wants(t, "the question", 200, "Confirm it is you", "mia", `autocomplete="current-password"`)
	if strings.Contains(page.body, `name="name"`) || strings.Contains(page.body, "Stay signed in") {
		t.Error("asks for a name, too")
	}
	b.do("POST", "/.afterlogin/login", page.fill("password", bad)).wants(t, "a wrong one", 422, "The password is wrong.", "Confirm it is you")
	// A name that is slipped in does not count.
	a := b.do("POST", "/.afterlogin/login", page.fill("password", good, "name", "tom"))
	s := b.session()
	if a.to != "/safe" || s == nil || s.ID != was.ID || s.Subject != "mia" || s.Generation != was.Generation+1 || !s.Auth.At.Equal(f.clock().Truncate(time.Millisecond)) {
		t.Fatalf("%d %s %+v", a.status, a.to, s)
	}
	if _, err := f.a.Validate(t.Context(), afterlogin.TokenFrom(token), afterlogin.Expect{Kinds: []afterlogin.Kind{afterlogin.KindSession}}); err == nil {
		t.Error("the token from before is still good")
	}
	b.get(ask).wants(t, "fresh enough by now", 200, "You are signed in", `href="/safe"`)
	b.get("/.afterlogin/login?return_to=/safe&acr_values=silver").wants(t, "has the class", 200, "You are signed in", `href="/safe"`)
	// What a password cannot give, a provider can, for its own people; for others there is no way but theirs.
	b.get("/.afterlogin/login?return_to=/safe&acr_values=gold").wants(t, "a class that a password does not give", 200,
		"another kind of sign-in", `href="/.afterlogin/oidc/corp/start?acr_values=gold&amp;return_to=%2Fsafe"`)
	b.get("/.afterlogin/login?return_to=/safe&acr_values=platinum").wants(t, "a class that nobody gives", 200, "Nothing here can give it")
	b.do("POST", "/.afterlogin/login", b.get(ask).fill("confirm", "on", "password", good, "acr_values", "gold")).wants(t, "all the same", 409)
	b.get("/test/complete?subject=corp:17")
	b.get("/.afterlogin/login?return_to=/safe&acr_values=gold&reason=stale_auth").wants(t, "somebody of the provider's", 200, "Confirm with Example Corp",
		`href="/.afterlogin/oidc/corp/start?acr_values=gold&amp;confirm=1&amp;max_age=0&amp;return_to=%2Fsafe"`)
	b.get("/.afterlogin/login?return_to=/safe&acr_values=silver").wants(t, "a class that the provider does not give", 200, "cannot give it")
	// A disabled user confirms nothing: the session is over.
	b = f.browser(f.app)
	b.signIn("tom", good, "")
	page = b.get("/.afterlogin/login?return_to=/safe&reason=stale_auth")
	yes := true
	if _, err := f.users.Update(t.Context(), "tom", users.Change{Disabled: &yes}); err != nil {
		t.Fatal(err)
	}
	a = b.do("POST", "/.afterlogin/login", page.fill("password", good))
	a.wants(t, "a disabled user", 409, "This sign-in was ended by an administrator.", `name="name"`)
	if b.session() != nil {
		t.Error("a disabled user is signed in")
	}
}

// Complete has one path for whoever proved who they are.
func TestComplete(t *testing.T) {
	f := open(t, nil)
	b := f.browser(f.app)
	if a := b.get("/test/complete?subject=corp:17&acr=gold&return_to=/x"); a.status != 303 || a.to != "/x" {
		t.Fatalf("%d %s", a.status, a.to)
	}
	s := b.session()
	if s.Subject != "corp:17" || s.Auth.ACR() != "gold" || !slices.Contains(s.Auth.Methods, "otp") {
		t.Errorf("%+v", s)
	}
	// Once more, by the same person: the same session, a new token.
	b.get("/test/complete?subject=corp:17&acr=gold")
	if again := b.session(); again.ID != s.ID || again.Generation != s.Generation+1 {
		t.Errorf("%+v", again)
	}
	// Another person is another session, unless this one was to confirm.
	b.get("/test/complete?subject=corp:18&confirm").wants(t, "another confirms", 409, "another account")
	if b.session().Subject != "corp:17" {
		t.Error("another person has the session")
	}
	b.get("/test/complete?subject=corp:18")
	if again := b.session(); again.Subject != "corp:18" || again.ID == s.ID {
		t.Errorf("%+v", again)
	}
	f.browser(f.app).get("/test/complete?subject=corp:19&confirm").wants(t, "nobody confirms", 409)
	stale := f.browser(f.app)
	stale.get("/test/complete?subject=corp:20&stale").wants(t, "signed out meanwhile", 409, "while you were signing in")
	if stale.token() != "" {
		t.Error("a stale sign-in sets a cookie")
	}
}

func TestAnotherAccount(t *testing.T) {
	f := open(t, nil)
	b := f.browser(f.app)
	b.signIn("mia", good, "")
	mias := b.token()
	page := b.get("/.afterlogin/login?return_to=/x")
	a := b.do("POST", "/.afterlogin/logout", page.form())
	if a.status != 303 || !strings.Contains(a.to, "/.afterlogin/login?") || !strings.Contains(a.to, "return_to=%2Fx") || b.token() != "" {
		t.Fatalf("%d %s", a.status, a.to)
	}
	a = b.do("POST", "/.afterlogin/login", b.get(a.to).fill("name", "tom", "password", good))
	if a.to != "/x" || b.session().Subject != "tom" {
		t.Errorf("%d %s", a.status, a.to)
	}
	if _, err := f.a.Validate(t.Context(), afterlogin.TokenFrom(mias), afterlogin.Expect{Kinds: []afterlogin.Kind{afterlogin.KindSession}}); err == nil {
		t.Error("the first session lives on")
	}
}

// Why somebody is not signed in any more is said.
func TestWhyItEnded(t *testing.T) {
	f := open(t, nil)
	b := f.browser(f.app)
	b.signIn("mia", good, "")
	if _, err := f.users.SetPassword(t.Context(), "mia", other); err != nil {
		t.Fatal(err)
	}
	b.get("/.afterlogin/login").wants(t, "a new password by an administrator", 200, "This sign-in was ended by an administrator.", `role="status"`)
	for _, tt := range []struct {
		why  afterlogin.Reason
		want string
	}{
		{afterlogin.ReasonSignedOutAll, "You were signed out on all devices."},
		{afterlogin.ReasonReported, "one of your sign-ins was reported as not yours"},
	} {
		b := f.browser(f.app)
		b.signIn("tom", good, "")
		if err := f.a.RevokeSubject(t.Context(), 0, "tom", afterlogin.Sessions, tt.why); err != nil {
			t.Fatal(err)
		}
		b.get("/.afterlogin/login").wants(t, string(tt.why), 200, tt.want, `role="status"`)
	}
	// The person changes it in one browser, and the other one says so.
	old, changer := f.browser(f.app), f.browser(f.app)
	old.signIn("mia", other, "")
	changer.signIn("mia", other, "")
	page := changer.get("/.afterlogin/password")
	changer.do("POST", "/.afterlogin/password", page.fill("password", other, "new", good, "repeat", good)).wants(t, "the change", 200, "Your password is changed")
	old.get("/.afterlogin/login").wants(t, "after a new password", 200, "You were signed out because your password was changed on another device.", `role="status"`)
	if changer.session() == nil {
		t.Error("who changed the password is signed out")
	}
	// Frozen.
	frozen := f.browser(f.app)
	frozen.signIn("tom", good, "")
	if err := f.a.Freeze(t.Context(), frozen.session().ID, "incident 7"); err != nil {
		t.Fatal(err)
	}
	frozen.get("/.afterlogin/login").wants(t, "on hold", 200, "This sign-in is on hold.", `role="status"`)
	// Nobody is told anything about a token that is not ours, or whose session never was.
	for name, token := range map[string]string{
		"junk": "als_junk", "of another installation": "als_" + strings.Repeat("A", 84), "altered": old.token()[:60] + "AAAA" + old.token()[64:],
	} {
		a := f.browser(f.app).do("GET", "/.afterlogin/login", nil, "Cookie: "+httpauth.CookieName+"="+token)
		if a.status != 200 || strings.Contains(a.body, `role="status"`) || strings.Contains(a.body, "signed out") {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	if b.token() == "" {
		t.Error("a refusal clears the cookie")
	}
	if a := b.signIn("mia", good, "/x"); a.to != "/x" || b.session() == nil {
		t.Errorf("after it: %d", a.status)
	}
}

// Who is signed in on as many devices as may be is told so, there or on the device that gave way.
func TestSessionLimit(t *testing.T) {
	for _, at := range []afterlogin.AtLimit{afterlogin.DenyNew, afterlogin.EndOldest} {
		f := openLimited(t, "example.com", map[afterlogin.Kind]afterlogin.SessionLimit{afterlogin.KindSession: {Max: 1, AtLimit: at}}, nil)
		first, second := f.browser(f.app), f.browser(f.app)
		first.signIn("mia", good, "/x")
		f.pass(time.Second)
		a := second.signIn("mia", good, "/x")
		if at == afterlogin.DenyNew {
			a.wants(t, "one too many", 409, "You are signed in elsewhere", "Sign out on one of them")
			if second.token() != "" || first.session() == nil {
				t.Error("it was not refused, or the first one ended")
			}
			continue
		}
		if a.to != "/x" || second.session() == nil {
			t.Errorf("%d to %s: %s", a.status, a.to, a.body)
		}
		first.get("/.afterlogin/login").wants(t, "the one that gave way", 200, "You were signed out here to make room", `role="status"`)
	}
}

// A store that does not answer is neither a yes nor a no: 503, the form stays, and nobody loses a cookie.
func TestStoreDown(t *testing.T) {
	f := open(t, nil)
	b, in := f.browser(f.app), f.browser(f.app)
	page := b.get("/.afterlogin/login?return_to=/x")
	in.signIn("mia", good, "")
	out := in.get("/.afterlogin/logout?return_to=/x")
	token := in.token()
	f.store.SetHook(func(storetest.Call) storetest.Fault { return storetest.Fault{Before: storetest.ErrFault} })
	a := b.do("POST", "/.afterlogin/login", page.fill("name", "mia", "password", good))
	a.wants(t, "a sign-in", 503, "Nothing is lost", `value="mia"`, `value="/x"`)
	if a.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	for what, a := range map[string]*answer{
		"the page": in.get("/.afterlogin/login"), "a sign-out": in.do("POST", "/.afterlogin/logout", out.form()), "the password page": in.get("/.afterlogin/password"),
	} {
		if a.status != 503 || a.header.Get("Retry-After") == "" || len(a.header["Set-Cookie"]) > 0 {
			t.Errorf("%s: %d %v", what, a.status, a.header)
		}
	}
	if in.token() != token {
		t.Error("the cookie is gone")
	}
	// It answers what it reads, and takes nothing.
	f.store.SetHook(func(c storetest.Call) storetest.Fault {
		if c.Method == "Apply" {
			return storetest.Fault{Before: storetest.ErrFault}
		}
		return storetest.Fault{}
	})
	a = b.do("POST", "/.afterlogin/login", page.fill("name", "mia", "password", good))
	a.wants(t, "a sign-in that is not stored", 503, `value="mia"`)
	a = in.do("POST", "/.afterlogin/logout", out.form())
	a.wants(t, "a sign-out that is not stored", 503, "You are still signed in", `href="/.afterlogin/logout?return_to=%2Fx"`)
	if in.token() != token || b.token() != "" {
		t.Error("cookies change")
	}
	f.store.SetHook(nil)
	if a = b.do("POST", "/.afterlogin/login", page.fill("name", "mia", "password", good)); a.to != "/x" {
		t.Errorf("the same form, later: %d", a.status)
	}
}

func TestPages(t *testing.T) {
	f := open(t, nil)
	b := f.browser(f.app)
	for _, tt := range []struct {
		method, path string
		status       int
		headers      []string
	}{
		{"GET", "/.afterlogin/", 404, nil}, {"GET", "/.afterlogin/login/", 404, nil}, {"GET", "/login", 404, nil}, {"GET", "/.afterlogin/%6cogin", 404, nil},
		{"PUT", "/.afterlogin/login", 405, nil}, {"DELETE", "/.afterlogin/logout", 405, nil}, {"OPTIONS", "/.afterlogin/login", 405, nil},
		{"HEAD", "/.afterlogin/login", 200, nil}, {"GET", "/.afterlogin/login?return_to=/a&return_to=/b", 400, nil}, {"GET", "/.afterlogin/login?return_to=%zz", 400, nil},
		{"GET", "/.afterlogin/login?utm=1&utm=2&return_to=/a", 200, nil},
		{"GET", "/.afterlogin/password", 303, nil}, {"GET", "/.afterlogin/handover", 303, nil}, {"GET", "/.afterlogin/arrive?return_to=/x", 303, nil},
	} {
		if a := b.do(tt.method, tt.path, nil, tt.headers...); a.status != tt.status || (a.status == 405) != (a.header.Get("Allow") != "") {
			t.Errorf("%s %s: %d", tt.method, tt.path, a.status)
		}
	}
	form := b.get("/.afterlogin/login").fill("name", "mia", "password", good)
	if a := b.do("POST", "/.afterlogin/login", form, "Content-Type: application/json"); a.status != 415 {
		t.Errorf("JSON: %d", a.status)
	}
	if a := b.do("POST", "/.afterlogin/login", url.Values{"name": {strings.Repeat("x", maxBody)}}); a.status != 413 {
		t.Errorf("a large form: %d", a.status)
	}
	twice := url.Values{"name": {"mia", "tom"}, "password": {good}, "csrf_token": form["csrf_token"]}
	if a := b.do("POST", "/.afterlogin/login", twice); a.status != 400 {
		t.Errorf("two names: %d", a.status)
	}
	// A password that is pasted is not cut on the way: what is too long is wrong, not shortened.
	if page := b.get("/.afterlogin/login"); strings.Contains(page.body, `type="password"`) && regexp.MustCompile(`type="password"[^>]*maxlength`).MatchString(page.body) {
		t.Error("the browser cuts passwords")
	}
	if a := b.do("POST", "/.afterlogin/login", b.get("/.afterlogin/login").fill("name", "mia", "password", good+strings.Repeat("x", 1024))); a.status != 422 {
		t.Errorf("a long password: %d", a.status)
	}
	if a := b.do("GET", "/.afterlogin/login", nil, "Host: x"); a.status != 200 { // Go sends the URL's host
		t.Errorf("%d", a.status)
	}
	// The server's own host has the same pages, without a base.
	h := f.browser(f.home)
	if a := h.signIn("mia", good, ""); a.to != "/login" {
		t.Errorf("at home: %d %s", a.status, a.to)
	}
	h.get("/login").wants(t, "at home", 200, "You are signed in as <b>mia</b>", `href="/password"`)
	// Without users there is no form for a password.
	f = open(t, func(o *Options) { o.Users = nil })
	b = f.browser(f.app)
	page := b.get("/.afterlogin/login")
	page.wants(t, "without users", 200, "Sign in with Example Corp")
	if strings.Contains(page.body, `name="password"`) {
		t.Error("asks for a password")
	}
	b.do("POST", "/.afterlogin/login", form).wants(t, "a password all the same", 404)
	b.get("/.afterlogin/password").wants(t, "the password page", 404)
}

func TestOptions(t *testing.T) {
	f := open(t, nil)
	for name, change := range map[string]func(*Options){
		"no authority":  func(o *Options) { o.Authority = nil },
		"no site":       func(o *Options) { o.Site = nil },
		"a path":        func(o *Options) { o.Returns = []string{"https://a.example/"} },
		"upper case":    func(o *Options) { o.Returns = []string{"https://A.example"} },
		"plain http":    func(o *Options) { o.Returns = []string{"http://a.example"} },
		"no name":       func(o *Options) { o.Providers = []Provider{{ID: "x"}} },
		"an odd id":     func(o *Options) { o.Providers = []Provider{{ID: "a/b", Name: "x"}} },
		"an id with a:": func(o *Options) { o.Providers = []Provider{{ID: "a:b", Name: "x"}} },
	} {
		o := f.login.o
		change(&o)
		if _, err := New(o); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

// A confirmation with the old password does not outlive a change of the password, even one that spares the session: whoever
// holds a copy of its cookie gets no new token, whenever the change comes.
func TestConfirmDuringChange(t *testing.T) {
	for n := 1; ; n++ {
		f := open(t, nil)
		b := f.browser(f.app)
		b.signIn("mia", good, "")
		v, err := f.users.Verify(t.Context(), "mia", good, users.From{Addr: f.from})
		if err != nil {
			t.Fatal(err)
		}
		in, token := b.session(), b.token()
		f.pass(10 * time.Minute)
		form := b.get("/.afterlogin/login?return_to=/safe&reason=stale_auth&max_age=60").fill("password", good)
		calls, changed := 0, false
		f.store.SetHook(func(c storetest.Call) storetest.Fault {
			if c.Method == "Get" || c.Method == "Apply" {
				if calls++; calls == n {
					f.store.SetHook(nil)
					if _, err := f.users.ChangePassword(t.Context(), v, other, in.ID); err != nil {
						t.Error(err)
					}
					changed = true
				}
			}
			return storetest.Fault{}
		})
		a := b.do("POST", "/.afterlogin/login", form)
		f.store.SetHook(nil)
		if !changed { // there is no such call: the change would come after it
			if a.status != 303 || b.token() == token {
				t.Errorf("without a change: %d", a.status)
			}
			if n < 6 {
				t.Errorf("%d calls only", n-1)
			}
			return
		}
		if a.status != 409 && a.status != 422 || b.token() != token || strings.Contains(strings.Join(a.header["Set-Cookie"], " "), httpauth.CookieName) {
			t.Errorf("the change before call %d: %d, another token %t", n, a.status, b.token() != token)
		}
	}
}

// Every answer to a request for these pages is a page, whatever keeps httpauth from letting it through.
func TestRefusals(t *testing.T) {
	f := open(t, nil)
	isPage := func(what string, a *answer, status int, parts ...string) {
		t.Helper()
		a.wants(t, what, status, parts...)
		if !strings.HasPrefix(a.header.Get("Content-Type"), "text/html") || !strings.Contains(a.body, "<h1>") {
			t.Errorf("%s: %s %s", what, a.header.Get("Content-Type"), a.body)
		}
	}
	// Two tabs, and one of them signs in.
	b := f.browser(f.app)
	first := b.get("/.afterlogin/login?return_to=/x")
	b.signIn("mia", good, "")
	token := b.token()
	a := b.do("POST", "/.afterlogin/login", first.fill("name", "tom", "password", good))
	isPage("the other tab", a, 403, oldForm, "You are signed in as <b>mia</b>", `href="/x"`)
	if a.form().Get("csrf_token") == "" || b.token() != token {
		t.Error("the page that comes back does not work")
	}
	isPage("the other tab, which signs out", b.do("POST", "/.afterlogin/logout", url.Values{"csrf_token": {"x"}, "return_to": {"/x"}}), 403, oldForm, `href="/.afterlogin/logout?return_to=%2Fx"`)
	isPage("and changes the password", b.do("POST", "/.afterlogin/password", url.Values{"csrf_token": {"x"}}), 403, oldForm, `href="/.afterlogin/password"`)
	isPage("from another site", b.do("POST", "/.afterlogin/login", first.form(), "Sec-Fetch-Site: cross-site"), 403, "page of another site")
	// Other paths of the site are not the pages'.
	if a := b.do("POST", "/test/who", url.Values{}); a.status != 403 || strings.Contains(a.body, "<h1>") {
		t.Errorf("another path: %d %s", a.status, a.body)
	}
	f.pass(10 * time.Minute)
	confirm := b.get("/.afterlogin/login?return_to=/safe&reason=stale_auth&max_age=60").fill("password", good)
	out, change := b.get("/.afterlogin/logout?return_to=/x").form(), b.get("/.afterlogin/password").fill("password", good, "new", other, "repeat", other)
	f.store.SetHook(func(storetest.Call) storetest.Fault { return storetest.Fault{Before: storetest.ErrFault} })
	for what, try := range map[string]struct {
		a    *answer
		back string
	}{
		"the page":        {b.get("/.afterlogin/login?return_to=/x"), "/.afterlogin/login?return_to=%2Fx"},
		"a confirmation":  {b.do("POST", "/.afterlogin/login", confirm), "/.afterlogin/login?max_age=60&amp;reason=stale_auth&amp;return_to=%2Fsafe"},
		"the question":    {b.get("/.afterlogin/logout?return_to=/x"), "/.afterlogin/logout?return_to=%2Fx"},
		"a sign-out":      {b.do("POST", "/.afterlogin/logout", out), "/.afterlogin/logout?return_to=%2Fx"},
		"a new password":  {b.do("POST", "/.afterlogin/password", change), "/.afterlogin/password"},
		"a hand-over":     {b.get("/.afterlogin/handover?return_to=/x"), "/.afterlogin/handover?return_to=%2Fx"},
		"the end of it":   {b.get("/.afterlogin/arrive?return_to=/x&ticket=alt_x"), "/.afterlogin/arrive?return_to=%2Fx"},
		"markup in there": {b.get(`/.afterlogin/login?return_to="><script>`), "/.afterlogin/login?return_to=%22%3E%3Cscript%3E"},
	} {
		isPage(what, try.a, 503, unavailableText, `href="`+try.back+`"`)
		if try.a.header.Get("Retry-After") == "" || len(try.a.header["Set-Cookie"]) > 0 {
			t.Errorf("%s: %v", what, try.a.header)
		}
	}
	if b.token() != token {
		t.Error("the cookie is gone")
	}
}

// The box holds for the providers' buttons, too, which need neither a name nor a password.
func TestProviderButtons(t *testing.T) {
	f := open(t, func(o *Options) { o.Providers = append(o.Providers, Provider{ID: "other", Name: "Other"}) })
	b := f.browser(f.app)
	page := b.get("/.afterlogin/login?return_to=/x%3Fa%3D1&max_age=60")
	for _, tt := range []struct {
		fields []string
		status int
		to     string
	}{
		{[]string{"provider", "corp", "remember", "on"}, 303, "/.afterlogin/oidc/corp/start?max_age=60&remember=1&return_to=%2Fx%3Fa%3D1"},
		{[]string{"provider", "corp"}, 303, "/.afterlogin/oidc/corp/start?max_age=60&return_to=%2Fx%3Fa%3D1"},
		{[]string{"provider", "other", "name", "mia", "password", good, "remember", "on"}, 303, "/.afterlogin/oidc/other/start?max_age=60&remember=1&return_to=%2Fx%3Fa%3D1"},
		{[]string{"provider", "evil"}, 404, ""},
		{[]string{"provider", ""}, 404, ""},
		{[]string{"provider", "corp", "csrf_token", "x"}, 403, ""},
	} {
		if a := b.do("POST", "/.afterlogin/login", page.fill(tt.fields...)); a.status != tt.status || a.to != tt.to || b.token() != "" {
			t.Errorf("%v: %d %q", tt.fields, a.status, a.to)
		}
	}
	// A class that one of them does not give.
	page = b.get("/.afterlogin/login?return_to=/x&acr_values=silver")
	if strings.Contains(page.body, `value="corp"`) || !strings.Contains(page.body, `value="other"`) {
		t.Error(page.body)
	}
	// Providers alone, and where nobody is remembered.
	f = open(t, func(o *Options) { o.Users = nil })
	b = f.browser(f.app)
	page = b.get("/.afterlogin/login")
	page.wants(t, "providers alone", 200, "Stay signed in on this device", `value="corp"`)
	if a := b.do("POST", "/.afterlogin/login", page.fill("provider", "corp", "remember", "on")); a.to != "/.afterlogin/oidc/corp/start?remember=1&return_to=%2F" {
		t.Errorf("%d %q", a.status, a.to)
	}
	f = open(t, func(o *Options) { o.NoRemember = true })
	b = f.browser(f.app)
	page = b.get("/.afterlogin/login")
	if a := b.do("POST", "/.afterlogin/login", page.fill("provider", "corp", "remember", "on")); strings.Contains(page.body, "Stay signed in") || a.to != "/.afterlogin/oidc/corp/start?return_to=%2F" {
		t.Errorf("%d %q", a.status, a.to)
	}
}
