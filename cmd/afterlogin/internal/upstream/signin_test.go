package upstream

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin/httpauth"
)

func TestSignIn(t *testing.T) {
	f := newFixture(t)
	authTime := f.clock.Now().Add(-time.Hour).Unix()
	f.op.claims = func(c map[string]any) {
		c["auth_time"], c["amr"], c["acr"] = authTime, []string{"pwd", "otp", "acr:gold", "two words"}, "silver"
	}
	b := newBrowser(t)
	got, asked := f.signedIn(b, "?return_to=%2Forders%3Fpage%3D2")
	if got.status != http.StatusSeeOther || got.header.Get("Location") != "/orders?page=2" {
		t.Fatalf("callback: %d to %q: %s\n%s", got.status, got.header.Get("Location"), got.body, f.logged())
	}
	if got, want := f.who(b), fmt.Sprintf("example:248289761001 [pwd otp acr:silver] %d false", authTime); got != want {
		t.Errorf("signed in as %q, want %q", got, want)
	}
	if n := b.attempts(); len(n) != 0 {
		t.Errorf("the attempt's cookie stays: %v", n)
	}
	for name, want := range map[string]string{
		"client_id": "client", "response_type": "code", "scope": "openid", "code_challenge_method": "S256",
		"redirect_uri": f.url + "/.afterlogin/oidc/example/callback",
	} {
		if asked.Get(name) != want {
			t.Errorf("%s = %q, want %q", name, asked.Get(name), want)
		}
	}
	for _, name := range []string{"state", "nonce", "code_challenge"} {
		if len(asked.Get(name)) != 43 {
			t.Errorf("%s = %q, want 43 characters", name, asked.Get(name))
		}
	}
	for name := range asked {
		switch name {
		case "client_id", "response_type", "scope", "code_challenge_method", "redirect_uri", "state", "nonce", "code_challenge":
		default:
			t.Errorf("the provider was sent %s=%q, too", name, asked.Get(name))
		}
	}
	for h, want := range map[string]string{"Cache-Control": "no-store", "Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff"} {
		if v := got.header.Get(h); v != want {
			t.Errorf("%s: %q, want %q", h, v, want)
		}
	}
	for _, secret := range []string{clientSecret, asked.Get("state"), asked.Get("nonce"), "at-1", "rt-1", f.op.kept} {
		if strings.Contains(f.logged(), secret) {
			t.Errorf("the log holds %q", secret)
		}
	}
}

// The cookie of an attempt is one that no other host can plant and no script can read, and its value says nothing.
func TestAttemptCookie(t *testing.T) {
	f := newFixture(t)
	got := f.start(newBrowser(t), "?return_to=/a-place-to-return-to")
	if len(got.set) != 1 {
		t.Fatalf("cookies: %v", got.header["Set-Cookie"])
	}
	c := got.set[0]
	if !strings.HasPrefix(c.Name, "__Host-Http-") || !c.Secure || !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.Path != "/" || c.Domain != "" || c.MaxAge != 600 {
		t.Errorf("cookie: %s", c.Raw)
	}
	asked, _ := url.Parse(got.header.Get("Location"))
	if strings.Contains(c.Value, asked.Query().Get("nonce")) || strings.Contains(c.Value, "return") {
		t.Error("the cookie is not sealed")
	}
	if asked.Query().Get("state") == "" || strings.Contains(got.header.Get("Location"), "return") {
		t.Errorf("sent to %s", got.header.Get("Location"))
	}
}

// A provider that does not say when somebody proved who they are vouches for nothing recent.
func TestNoAuthTime(t *testing.T) {
	f := newFixture(t)
	b := newBrowser(t)
	f.signedIn(b, "")
	if got := f.who(b); got != "example:248289761001 [] 1 false" {
		t.Errorf("who: %q", got)
	}
}

func TestRemember(t *testing.T) {
	f := newFixture(t)
	b := newBrowser(t)
	f.signedIn(b, "?remember=1")
	if got := f.who(b); !strings.HasSuffix(got, " true") {
		t.Errorf("who: %q", got)
	}
}

func TestStepUp(t *testing.T) {
	f := newFixture(t)
	f.op.metadata = func(m map[string]any) { m["claims_parameter_supported"] = true }
	b := newBrowser(t)
	f.op.set(func() { f.op.claims = func(c map[string]any) { c["auth_time"] = f.clock.Now().Add(-time.Hour).Unix() } })
	f.signedIn(b, "")
	before := b.jar[strings.TrimPrefix(f.url, "http://")][httpauth.CookieName]

	t.Run("not fresh enough", func(t *testing.T) {
		got, asked := f.signedIn(b.copy(), "?max_age=60")
		if asked.Get("max_age") != "60" || got.status != http.StatusForbidden || !strings.Contains(got.body, "a short while ago") {
			t.Errorf("%v: %d %s", asked, got.status, got.body)
		}
	})
	t.Run("not said", func(t *testing.T) {
		f.op.set(func() { f.op.claims = nil })
		if got, _ := f.signedIn(b.copy(), "?max_age=60"); got.status != http.StatusForbidden {
			t.Errorf("%d %s", got.status, got.body)
		}
	})
	t.Run("another acr", func(t *testing.T) {
		f.op.set(func() { f.op.claims = func(c map[string]any) { c["acr"] = "bronze" } })
		got, asked := f.signedIn(b.copy(), "?acr_values=silver+gold")
		if asked.Has("acr_values") || got.status != http.StatusForbidden || !strings.Contains(got.body, "stronger") {
			t.Errorf("%v: %d %s", asked, got.status, got.body)
		}
		var c map[string]map[string]map[string]any
		if json.Unmarshal([]byte(asked.Get("claims")), &c) != nil || c["id_token"]["acr"]["essential"] != true || fmt.Sprint(c["id_token"]["acr"]["values"]) != "[silver gold]" {
			t.Errorf("claims: %s", asked.Get("claims"))
		}
	})
	t.Run("somebody else", func(t *testing.T) {
		f.op.set(func() {
			f.op.claims = func(c map[string]any) { c["sub"], c["auth_time"] = "tom", f.clock.Now().Unix() }
		})
		c := b.copy()
		if got, _ := f.signedIn(c, "?max_age=60&confirm=1"); got.status != http.StatusInternalServerError { // the fixture's Fail
			t.Errorf("%d %s", got.status, got.body)
		}
		if got := f.who(c); !strings.HasPrefix(got, "example:248289761001 ") {
			t.Errorf("who: %q", got)
		}
		// Who was not asked to confirm anything may be somebody else by now.
		if got, _ := f.signedIn(c, "?max_age=60"); got.status != http.StatusSeeOther || !strings.HasPrefix(f.who(c), "example:tom ") {
			t.Errorf("%d %s", got.status, got.body)
		}
	})
	t.Run("granted", func(t *testing.T) {
		now := f.clock.Now().Unix()
		f.op.set(func() {
			f.op.claims = func(c map[string]any) { c["auth_time"], c["acr"], c["amr"] = now, "gold", "hwk" }
		})
		if got, _ := f.signedIn(b, "?max_age=60&acr_values=silver+gold&return_to=/pay"); got.header.Get("Location") != "/pay" {
			t.Fatalf("%d %s", got.status, got.body)
		}
		if got, want := f.who(b), fmt.Sprintf("example:248289761001 [hwk acr:gold] %d false", now); got != want {
			t.Errorf("who: %q, want %q", got, want)
		}
		if after := b.jar[strings.TrimPrefix(f.url, "http://")][httpauth.CookieName]; after == before {
			t.Error("the token stays the same")
		}
	})
}

// What a provider's own settings ask for is asked for and checked at every sign-in.
func TestProviderSettings(t *testing.T) {
	f := newFixture(t, func(o *Options) {
		p := &o.Providers[0]
		p.Scopes, p.Prompt, p.MaxAge, p.ACRValues = []string{"email"}, "login consent", time.Hour, []string{"silver"}
	})
	got, asked := f.signedIn(newBrowser(t), "?max_age=7200")
	if got.status != http.StatusForbidden {
		t.Errorf("%d %s", got.status, got.body)
	}
	if !strings.Contains(got.body, "a short while ago") {
		t.Errorf("%s", got.body)
	}
	if asked.Get("scope") != "openid email" || asked.Get("prompt") != "login consent" || asked.Get("max_age") != "3600" || asked.Get("acr_values") != "silver" || asked.Has("claims") {
		t.Errorf("asked: %v", asked)
	}
}

// The address of a start can ask for more than the provider's settings do, and not for less.
func TestProviderSettingsCannotBeTakenAway(t *testing.T) {
	f := newFixture(t, func(o *Options) { o.Providers[0].ACRValues = []string{"silver", "gold"} })
	for _, c := range []struct {
		query, acr, asked string
		want              int
	}{
		{"", "bronze", "silver gold", http.StatusForbidden},
		{"?acr_values=bronze", "bronze", "silver gold", http.StatusForbidden},
		{"?acr_values=bronze&max_age=60&confirm=1", "bronze", "silver gold", http.StatusForbidden},
		{"?acr_values=bronze+gold", "bronze", "gold", http.StatusForbidden},
		{"?acr_values=bronze+gold", "silver", "gold", http.StatusForbidden},
		{"?acr_values=bronze+gold", "gold", "gold", http.StatusSeeOther},
		{"?acr_values=bronze", "silver", "silver gold", http.StatusSeeOther},
	} {
		f.with("acr", c.acr, "auth_time", f.clock.Now().Unix())
		b := newBrowser(t)
		got, asked := f.signedIn(b, c.query)
		if got.status != c.want || asked.Get("acr_values") != c.asked || (f.who(b) != "") != (c.want == http.StatusSeeOther) {
			t.Errorf("%q by %s: %d, asked for %q; want %d, %q", c.query, c.acr, got.status, asked.Get("acr_values"), c.want, c.asked)
		}
	}
}

// What leads to another try asks for the same.
func TestAgain(t *testing.T) {
	f := newFixture(t)
	got, _ := f.signedIn(newBrowser(t), "?acr_values=gold&max_age=60&confirm=1&remember=1&return_to=/pay")
	if want := "/.afterlogin/oidc/example/start?acr_values=gold&amp;confirm=1&amp;max_age=60&amp;remember=1&amp;return_to=%2Fpay"; got.status != http.StatusForbidden || !strings.Contains(got.body, want) {
		t.Errorf("%d %s", got.status, got.body)
	}
}

// A start that no page of the site asked for does not lead on by itself: whoever the provider knows would be signed in.
func TestStartFromElsewhere(t *testing.T) {
	f := newFixture(t)
	where := f.url + "/.afterlogin/oidc/example/start?return_to=%2Fa%22%3E%3Cb"
	for _, site := range []string{"cross-site", "same-site", ""} {
		got := newBrowser(t).get(where, "Sec-Fetch-Site", site)
		asked := site == "" && len(got.set) == 1 && got.set[0].Name == askedCookie
		if got.status != http.StatusOK || len(got.set) != 0 && !asked || !strings.Contains(got.body, `href="/.afterlogin/oidc/example/start?return_to=%2Fa%22%3E%3Cb"`) {
			t.Errorf("from %q: %d %v %s", site, got.status, got.set, got.body)
		}
		if !strings.Contains(got.header.Get("Content-Security-Policy"), "default-src 'none'") || got.header.Get("Cache-Control") != "no-store" ||
			got.header.Get("Cross-Origin-Opener-Policy") != "same-origin" {
			t.Errorf("headers: %v", got.header)
		}
	}
	// A browser that never says where a request comes from: its person is asked once, and led on by the click. What it sends
	// when another site leads here has no such cookie (SameSite=Strict).
	old := newBrowser(t)
	silent := []string{"Sec-Fetch-Site", "", "Sec-Fetch-Mode", "", "Sec-Fetch-Dest", ""}
	got := old.get(where, silent...)
	if got.status != http.StatusOK || len(got.set) != 1 || got.set[0].SameSite != http.SameSiteStrictMode || !got.set[0].Secure || !got.set[0].HttpOnly {
		t.Errorf("old browser: %d %v", got.status, got.header["Set-Cookie"])
	}
	if got := old.get(where, silent...); got.status != http.StatusSeeOther {
		t.Errorf("old browser, after the click: %d", got.status)
	}
	if got := newBrowser(t).get(where, append(silent, "Cookie", "a=b")...); got.status != http.StatusOK {
		t.Errorf("old browser, from elsewhere: %d", got.status)
	}
	if got := old.get(where, "Sec-Fetch-Site", "cross-site"); got.status != http.StatusOK {
		t.Errorf("with the cookie, from elsewhere: %d", got.status)
	}
	for _, h := range [][2]string{{"Sec-Fetch-Dest", "image"}, {"Sec-Fetch-Dest", "iframe"}, {"Sec-Fetch-Mode", "no-cors"}} {
		if got := newBrowser(t).get(where, h[0], h[1]); got.status != http.StatusForbidden || len(got.set) != 0 {
			t.Errorf("%v: %d %v", h, got.status, got.set)
		}
	}
	if got := newBrowser(t).get(where, "Sec-Fetch-Site", "none"); got.status != http.StatusSeeOther {
		t.Errorf("typed: %d", got.status)
	}
	if f.op.tokens.Load() != 0 {
		t.Error("the token endpoint was asked")
	}
}

func TestStartParameters(t *testing.T) {
	f := newFixture(t)
	for _, q := range []string{"?remember=yes", "?confirm=yes", "?max_age=-1", "?max_age=1.5", "?max_age=99999999999", "?acr_values=a++b", "?acr_values=%22",
		"?return_to=/a&return_to=/b", "?a=%zz", "?a=1;b=2", "?acr_values=1+2+3+4+5+6+7+8+9", "?x=" + strings.Repeat("a", maxQuery)} {
		if got := f.start(newBrowser(t), q); got.status != http.StatusBadRequest || len(got.set) != 0 {
			t.Errorf("%.60s: %d", q, got.status)
		}
	}
	// A place that is too long to keep, or leads back to here, is forgotten.
	for _, to := range []string{"/" + strings.Repeat("a", 3000), "/.afterlogin/oidc/example/start", f.url + "/.afterlogin/oidc/example/start", "/a\nb"} {
		b := newBrowser(t)
		if got, _ := f.signedIn(b, "?return_to="+url.QueryEscape(to)); got.header.Get("Location") != "/" {
			t.Errorf("%.60q: %d %s", to, got.status, got.header.Get("Location"))
		}
	}
	// The longest that is kept fits into a cookie with everything else.
	long := "/" + strings.Repeat("ä", 340) // 2041 bytes when escaped once
	b := newBrowser(t)
	got, _ := f.signedIn(b, "?return_to="+url.QueryEscape(long)+"&acr_values="+url.QueryEscape(strings.TrimSuffix(strings.Repeat(strings.Repeat("a", 90)+" ", 8), " ")))
	if got.status != http.StatusForbidden {
		t.Errorf("%d %s", got.status, got.body)
	}
}

// Several tabs may be at it at once, but not without end: what there is of cookies stays small.
func TestTabs(t *testing.T) {
	f := newFixture(t)
	b := newBrowser(t)
	var where []string
	for i := range 12 {
		got := f.start(b, "?return_to=/"+fmt.Sprint(i))
		where = append(where, got.header.Get("Location"))
		f.clock.pass(time.Second)
	}
	if n := len(b.attempts()); n != maxAttempts {
		t.Fatalf("%d cookies, want %d", n, maxAttempts)
	}
	for i := len(where) - maxAttempts; i < len(where); i++ {
		answer, _ := f.op.authorize(where[i])
		if got := b.get(f.callback(answer)); got.header.Get("Location") != "/"+fmt.Sprint(i) {
			t.Errorf("tab %d: %d %s", i, got.status, got.body)
		}
	}
	answer, _ := f.op.authorize(where[0])
	if got := b.get(f.callback(answer)); got.status != http.StatusBadRequest {
		t.Errorf("a tab that was forgotten: %d", got.status)
	}
	b = newBrowser(t)
	for range 6 {
		f.start(b, "?return_to=/"+strings.Repeat("a", 2000))
	}
	size := 0
	for name, value := range b.jar[strings.TrimPrefix(f.url, "http://")] {
		size += len(name) + len(value) + 3
	}
	if size > maxCookies+16 {
		t.Errorf("%d bytes of cookies", size)
	}
}

func TestOtherSite(t *testing.T) {
	f := newFixture(t)
	b := newBrowser(t)
	got := b.get(f.other + "/oidc/example/start?return_to=/x")
	answer, asked := f.op.authorize(got.header.Get("Location"))
	if asked.Get("redirect_uri") != f.other+"/oidc/example/callback" {
		t.Errorf("redirect_uri %q", asked.Get("redirect_uri"))
	}
	if got := b.get(f.other + "/oidc/example/callback?" + answer.Encode()); got.header.Get("Location") != "/x" {
		t.Errorf("%d %s", got.status, got.body)
	}
}

func TestSignedOut(t *testing.T) {
	f := newFixture(t, func(o *Options) { o.Providers[0].SignOut = true })
	b := newBrowser(t)
	f.signedIn(b, "")
	var s, nobody = *mustSession(t, f), *mustSession(t, f)
	r, _ := http.NewRequest("GET", "/", nil)
	site := f.sites[strings.TrimPrefix(f.url, "http://")]
	got, err := url.Parse(f.u.SignedOut(r, site, &s, "/bye"))
	if err != nil || got.Path != "/end" || got.Query().Get("client_id") != "client" || got.Query().Get("x") != "1" ||
		got.Query().Get("post_logout_redirect_uri") != f.url+"/.afterlogin/login" {
		t.Errorf("sent to %v", got)
	}
	// Nobody waits for a provider of which something is known, if only from yesterday; later it is left out.
	f.answering(discovery, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
	f.clock.pass(metadataFresh + time.Minute)
	if to := f.u.SignedOut(r, site, &s, "/bye"); to != got.String() {
		t.Errorf("sent to %v", to)
	}
	f.clock.pass(metadataStale)
	if to := f.u.SignedOut(r, site, &s, "/bye"); to != "/bye" {
		t.Errorf("sent to %v", to)
	}
	nobody.Subject = "mia"
	if got := f.u.SignedOut(r, site, &nobody, "/bye"); got != "/bye" {
		t.Errorf("a built-in user is sent to %s", got)
	}
}
