package grade

import (
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestSetCookie(t *testing.T) {
	t.Parallel()
	at := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	for line, want := range map[string]setCookie{
		"a=b": {Name: "a", Value: "b"},
		" a = b=c ; secure;HTTPONLY; SameSite=LAX; Path=/x ;Domain=.Shop.Example": {Name: "a", Value: "b=c", Secure: true, HTTPOnly: true, SameSite: "lax", Path: "/x", Domain: "shop.example"},
		"a=; Max-Age=0":                               {Name: "a", HasMaxAge: true},
		"a=b; max-age=-9":                             {Name: "a", Value: "b", HasMaxAge: true, MaxAge: -time.Second},
		"a=b; Max-Age=9999999999999":                  {Name: "a", Value: "b", HasMaxAge: true, MaxAge: 100 * 365 * 24 * time.Hour},
		"a=b; Max-Age=soon":                           {Name: "a", Value: "b"},
		"a=b; Expires=Wed, 02 Jan 2030 03:04:05 GMT":  {Name: "a", Value: "b", Expires: at},
		"a=b; Expires=Wed, 02-Jan-2030 03:04:05 GMT":  {Name: "a", Value: "b", Expires: at},
		"a=b; SameSite=None; SameSite=Strict; Path=x": {Name: "a", Value: "b", SameSite: "strict", Path: "x"},
		"__Host-a=\"b\"; Secure; Path=/":              {Name: "__Host-a", Value: `"b"`, Secure: true, Path: "/"},
	} {
		if got, ok := parseSetCookie(line); !ok || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v, want %+v", line, got, want)
		}
	}
	for _, line := range []string{"", "a", "=b", " =", "a=b\r\nX: y", "a=" + strings.Repeat("x", maxSetCookie)} {
		if got, ok := parseSetCookie(line); ok {
			t.Errorf("%.40q: %+v, want nothing", line, got)
		}
	}
}

func TestJar(t *testing.T) {
	t.Parallel()
	at := func(s string) *url.URL {
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	now := time.Now()
	var j jar
	take := func(from string, lines ...string) {
		var set []setCookie
		for _, l := range lines {
			c, _ := parseSetCookie(l)
			set = append(set, c)
		}
		j.take(at(from), set, now)
	}
	take("https://shop.example/a", "a=1; Path=/", "b=2; Path=/b", "c=3; Secure", "d=4; Domain=shop.example", "e=5; Domain=other.example")
	for u, want := range map[string]string{
		"https://shop.example/":         "a=1; c=3; d=4",
		"https://shop.example/b":        "a=1; b=2; c=3; d=4",
		"https://shop.example/b/c":      "a=1; b=2; c=3; d=4",
		"https://shop.example/bc":       "a=1; c=3; d=4",
		"http://shop.example/":          "a=1; d=4",
		"https://api.shop.example/":     "d=4",
		"https://notshop.example/":      "",
		"https://shop.example.evil.io/": "",
	} {
		if got := j.header(at(u)); got != want {
			t.Errorf("%s: %q, want %q", u, got, want)
		}
	}
	take("https://shop.example/", "a=; Max-Age=0; Path=/", "d=; Domain=shop.example; Expires=Thu, 01 Jan 1970 00:00:00 GMT")
	if got := j.header(at("https://shop.example/")); got != "c=3" {
		t.Errorf("after the end of two: %q", got)
	}
	take("http://localhost/", "s=1; Secure")
	if got := j.header(at("http://localhost/")); got != "s=1" {
		t.Errorf("Secure on this machine: %q", got)
	}
	for i := range 2 * maxJar {
		take("http://localhost/", fmt.Sprintf("n%d=1", i))
	}
	if len(j.cookies) != maxJar {
		t.Errorf("%d cookies, want %d", len(j.cookies), maxJar)
	}
}

func TestForms(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, html, action, user, password, values string }{
		{"plain", `<form action=/in method=post><input type=hidden name=csrf value=x><input name=who><input type=password name=pw><input type=submit name=go value=In></form>`,
			"/in", "who", "pw", "csrf=x&go=In&pw=&who="},
		{"search first", `<form><input name=q></form><form method=POST action="/session"><input name="user[email]" type=email><input name="user[password]" type=password><input type=checkbox name=r></form>`,
			"/session", "user[email]", "user[password]", "user%5Bemail%5D=&user%5Bpassword%5D="},
		{"registration beside it", `<form method=post action=/register><input name=email><input type=password name=p1><input type=password name=p2></form>
			<form method=post action=/login><input name=email><input type=password name=p></form>`, "/login", "email", "p", "email=&p="},
		{"never closed", `<form method=post action=/login><input name=name><input type=password name=p>`, "/login", "name", "p", "name=&p="},
		{"hint", `<form method=post action=/x><input name=a><input name=b autocomplete=username><input name=c type=password autocomplete=current-password></form>`, "/x", "b", "c", "a=&b=&c="},
		{"select and checked", `<form method=post action=/x><input name=u><input name=p type=password><select name=s><option value=1>a<option value=2 selected>b</select><input type=checkbox name=k checked></form>`,
			"/x", "u", "p", "k=on&p=&s=2&u="},
		{"in a comment", `<!-- <form method=post><input name=u><input type=password name=p></form> --><p>nothing`, "", "", "", ""},
		{"in a script", `<script>var f = '<form method=post><input name=u><input type=password name=p></form>'</script>`, "", "", "", ""},
		{"no name", `<form method=post><input name=u><input type=password></form>`, "", "", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, user, password := readPage([]byte(tt.html)).signIn("", "")
			if f == nil {
				if tt.action != "" {
					t.Fatal("no form")
				}
				return
			}
			if f.action != tt.action || user != tt.user || password != tt.password || f.values().Encode() != tt.values {
				t.Errorf("%q %q %q %q", f.action, user, password, f.values().Encode())
			}
		})
	}
	f, user, password := readPage([]byte(`<form method=post action=/x><input name=a type=number><input name=b></form>`)).signIn("a", "b")
	if f == nil || user != "a" || password != "b" {
		t.Errorf("named fields: %v %q %q", f, user, password)
	}
}

func TestSignOutFound(t *testing.T) {
	t.Parallel()
	for html, want := range map[string]string{
		`<form method=post action=/bye><button>Sign out</button></form>`:                       "form /bye",
		`<a href=/x>About</a><a href=/logout>Leave</a>`:                                        "link /logout",
		`<a href="/a" title="Log out"><img></a>`:                                               "link /a",
		`<form method=post action=/login?next=/logout><input type=password name=p></form>`:     "none",
		`<a href=/logout>x</a><form method=post action=/signout></form>`:                       "form /signout",
		`<form action=/users/sign_out method=post><input name=_method value=delete></form>`:    "form /users/sign_out",
		`<p>You can log out at any time.</p><a href=/help>Help</a>`:                            "none",
		`<form method=post action=/a><input type=submit value="Abmelden"></form>`:              "form /a",
		`<button>Sign out</button><form method=post action=/search><button>Go</button></form>`: "none",
	} {
		got := "none"
		switch f, l := readPage([]byte(html)).signOut(); {
		case f != nil:
			got = "form " + f.action
		case l != nil:
			got = "link " + l.href
		}
		if got != want {
			t.Errorf("%s: %s, want %s", html, got, want)
		}
	}
}

func TestJWTParts(t *testing.T) {
	t.Parallel()
	good := "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJtaWEifQ.AAAA"
	if j := parseJWT(good); j == nil || j.alg() != "HS256" || j.claims["sub"] != "mia" {
		t.Errorf("%+v", j)
	}
	for _, bad := range []string{"", ".", "..", "a.b.c", "eyJhbGciOiJIUzI1NiJ9..", good + ".x", "W10.W10.", strings.Replace(good, "eyJz", "!!!!", 1)} {
		if j := parseJWT(bad); j != nil {
			t.Errorf("%q: %+v", bad, j)
		}
	}
	if flip("AAAA") == "AAAA" || flip("") == "" || flip("!") == "!" {
		t.Error("flip changes nothing")
	}
}

func TestMask(t *testing.T) {
	t.Parallel()
	for token, want := range map[string]string{
		"als_AbCdEfGh": "als_… (12 characters)", "12": "… (2 characters)", "abc": "a… (3 characters)", "": "… (0 characters)", "\x1b[31mxxxxxxxxxxx": "?[31… (16 characters)",
	} {
		if got := mask(token); got != want {
			t.Errorf("%q: %q, want %q", token, got, want)
		}
	}
}

func TestCachePolicy(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]policy{
		"no-store":                     {noStore: true},
		"No-Store, max-age=0":          {noStore: true},
		"private, no-cache":            {private: true, noCache: true},
		"public, max-age=60":           {kept: true},
		"s-maxage=\"10\"":              {kept: true},
		"max-age=0":                    {},
		"private, max-age=600":         {private: true, kept: true},
		"":                             {},
		"x-no-store=1, my no-store":    {},
		"no-cache=\"Set-Cookie\", ,,=": {noCache: true},
	} {
		if got := cachePolicy(http.Header{"Cache-Control": {line}}); got != want {
			t.Errorf("%q: %+v, want %+v", line, got, want)
		}
	}
}

func FuzzSetCookie(f *testing.F) {
	for _, s := range []string{"a=b; Path=/; Secure", "=;;;=", "a=b; Expires=Wed, 02-Jan-2030 03:04:05 GMT; Max-Age=1", "a=b; Domain=."} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		c, ok := parseSetCookie(line)
		if !ok {
			return
		}
		if c.Name == "" || strings.ContainsAny(c.Name+c.Value, ";\r\n\x00") {
			t.Errorf("%q: %+v", line, c)
		}
		u := &url.URL{Scheme: "https", Host: "shop.example", Path: "/"}
		var j jar
		now := time.Now()
		j.take(u, []setCookie{c}, now)
		if v, kept := j.value(u, c.Name); kept && (v != c.Value || c.gone(now)) {
			t.Errorf("%q: kept %q", line, v)
		}
	})
}

func FuzzForm(f *testing.F) {
	for _, s := range []string{`<form method=post><input name=u><input type=password name=p></form>`, `<a href=/logout>`, `<select><option><form><textarea name=x>`, "<!--", `<meta http-equiv=refresh content="0;url='/x'">`} {
		f.Add(s)
	}
	at := &url.URL{Scheme: "https", Host: "shop.example", Path: "/"}
	f.Fuzz(func(t *testing.T, html string) {
		p := readPage([]byte(html))
		if len(p.forms) > maxForms || len(p.links) > maxLinks || len(p.urls) > maxLinks+1 {
			t.Error("too much")
		}
		if len(p.prose) > 3*len(html)+64 { // attributes and text once each; entities are shorter when they are read
			t.Errorf("%d bytes of %d", len(p.prose), len(html))
		}
		if form, user, password := p.signIn("", ""); form != nil {
			if user == "" || password == "" {
				t.Error("a form without fields")
			}
			form.request(at, form.values())
		}
		if form, _ := p.signOut(); form != nil && form.asksPassword() {
			t.Error("a sign-out with a password")
		}
	})
}

// FuzzAnswer reads answers of APIs, and what they say about being kept.
func FuzzAnswer(f *testing.F) {
	f.Add(`{"data":{"access_token":"abcdef"}}`, "no-store")
	f.Add(`{"token":7,"a":{"b":{"c":{"d":{"jwt":"abcdef"}}}}}`, "max-age=1, ,=;")
	f.Add(`[{}]`, "")
	f.Fuzz(func(t *testing.T, body, control string) {
		if token := bearerOf(&answer{body: []byte(body)}); token != "" && (len(token) < 4 || strings.ContainsAny(token, " \t\r\n")) {
			t.Errorf("%q: %q", body, token)
		}
		if p := cachePolicy(http.Header{"Cache-Control": {control}}); p.noStore && !strings.Contains(strings.ToLower(control), "no-store") {
			t.Errorf("%q: %+v", control, p)
		}
	})
}
