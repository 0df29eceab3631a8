package login

import (
	"net/url"
	"strings"
	"testing"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/httpauth"
	"github.com/afterlogin/afterlogin/store/storetest"
)

// follow goes on until there is no redirect, or it leads to the path.
func (b *browser) follow(a *answer, until string) (*answer, []string) {
	b.f.t.Helper()
	var way []string
	at := b.site.Origin
	for a.status == 303 {
		base, err := url.Parse(at)
		if err != nil {
			b.f.t.Fatal(err)
		}
		u, err := base.Parse(a.to)
		if err != nil {
			b.f.t.Fatal(err)
		}
		way = append(way, u.String())
		if len(way) > 10 {
			b.f.t.Fatalf("a loop: %v", way)
		}
		if strings.HasPrefix(u.String(), until) {
			break
		}
		at = u.String()
		a = b.get(at)
	}
	return a, way
}

// Who signs in at the server's own host for a page of an application is signed in there.
func TestHandOver(t *testing.T) {
	f := open(t, nil)
	b := f.browser(f.home)
	a, way := b.follow(b.signIn("mia", good, f.app.Origin+"/reports?q=3"), f.app.Origin+"/reports")
	if len(way) == 0 || way[len(way)-1] != f.app.Origin+"/reports?q=3" {
		t.Fatalf("%d %s %v", a.status, a.body, way)
	}
	home := b.session()
	u, _ := url.Parse(f.app.Origin)
	there := &browser{f, b.http, f.app}
	s := there.session()
	if home == nil || s == nil || s.Subject != "mia" || s.Root != home.ID && s.ID != home.ID {
		t.Errorf("at home %+v, there %+v (%v)", home, s, b.http.Jar.Cookies(u))
	}
	// Somebody else is signed in there: who goes over now takes the place.
	other := f.browser(f.home)
	at := &browser{f, other.http, f.app}
	at.signIn("tom", good, "")
	toms := at.token()
	other.follow(other.signIn("mia", good, f.app.Origin+"/x"), f.app.Origin+"/x")
	if s := at.session(); s == nil || s.Subject != "mia" {
		t.Errorf("there, after it: %+v", s)
	}
	if _, err := f.a.Validate(t.Context(), afterlogin.TokenFrom(toms), afterlogin.Expect{Kinds: []afterlogin.Kind{afterlogin.KindSession}}); err == nil {
		t.Error("the session that gave way lives on")
	}
	// Signed in already: the page at home leads on, too.
	page := b.get("/login?return_to=" + url.QueryEscape(f.app.Origin+"/x"))
	page.wants(t, "at home", 200, "Continue", f.app.Origin+"/.afterlogin/handover?")
	// The ends of it cannot be bent.
	for _, bad := range []string{
		"/handover?to=" + url.QueryEscape("https://evil.example/x") + "&nonce=" + strings.Repeat("A", 43),
		"/handover?to=" + url.QueryEscape(f.app.Origin+"/x"),
	} {
		if a := b.get(bad); a.status != 400 || a.to != "" {
			t.Errorf("%s: %d %s", bad, a.status, a.to)
		}
	}
	if a := b.get("/handover?return_to=/x"); a.status != 400 || a.to != "" {
		t.Errorf("a hand-over to where it comes from: %d %s", a.status, a.to)
	}
	// A host that is no site of ours is only gone to.
	if a := b.get("/login?return_to=https://other.example/x"); !strings.Contains(a.body, `href="https://other.example/x"`) {
		t.Errorf("%s", a.body)
	}
	if a := f.browser(f.app).get("/.afterlogin/handover?return_to=https://evil.example/x"); a.status != 303 || strings.Contains(a.to, "evil") || !strings.HasPrefix(a.to, f.home.Origin+"/handover?") {
		t.Errorf("%d %s", a.status, a.to)
	}
	// A ticket of somebody else's signs nobody in.
	victim := f.browser(f.app)
	start := f.browser(f.app).get("/.afterlogin/handover?return_to=/x")
	_, way = b.follow(start, f.app.Origin+"/.afterlogin/arrive")
	if got := victim.get(way[len(way)-1]); got.status != 403 || victim.token() != "" {
		t.Errorf("another's ticket: %d %v", got.status, way)
	}
	if strings.Contains(strings.Join(way, " "), httpauth.CookieName) {
		t.Error("a cookie stands in an address")
	}
}

// Who signs out where a session was handed over to is signed out at home, too, or the next page would sign them in again;
// and a change of the password there ends all sessions, since none can be spared alone.
func TestSignOutOfHandOver(t *testing.T) {
	for _, what := range []string{"sign-out", "change", "change at home", "sign-out, the store fails behind the root"} {
		f := open(t, nil)
		b := f.browser(f.home)
		b.follow(b.signIn("mia", good, f.app.Origin+"/x"), f.app.Origin+"/x")
		there := &browser{f, b.http, f.app}
		elsewhere := f.browser(f.app)
		elsewhere.signIn("mia", good, "")
		home, child := b.token(), there.token()
		if s := there.session(); s == nil || s.Root == s.ID {
			t.Fatalf("not handed over: %+v", s)
		}
		switch what {
		case "sign-out":
			a := there.do("POST", "/.afterlogin/logout", there.get("/.afterlogin/logout").form())
			if a.status != 303 || there.token() != "" {
				t.Errorf("%d", a.status)
			}
			if elsewhere.session() == nil {
				t.Error("another device is signed out")
			}
		case "sign-out, the store fails behind the root":
			form, n := there.get("/.afterlogin/logout").form(), 0
			f.store.SetHook(func(c storetest.Call) (fault storetest.Fault) {
				if c.Method == "Apply" {
					if n++; n > 1 {
						fault.Before = storetest.ErrFault
					}
				}
				return fault
			})
			a := there.do("POST", "/.afterlogin/logout", form)
			f.store.SetHook(nil)
			if a.status != 303 {
				t.Errorf("%s: %d", what, a.status)
			}
		case "change at home":
			a := b.do("POST", "/password", b.get("/password").fill("password", good, "new", other, "repeat", other))
			a.wants(t, "the change", 200, "Your password is changed", "All your devices are signed out, this one too")
		case "change":
			a := there.do("POST", "/.afterlogin/password", there.get("/.afterlogin/password").fill("password", good, "new", other, "repeat", other))
			a.wants(t, "the change", 200, "Your password is changed", "All your devices are signed out, this one too")
			if elsewhere.session() != nil {
				t.Error("another device is still signed in")
			}
		}
		for name, token := range map[string]string{"home": home, "child": child} {
			if _, err := f.a.Validate(t.Context(), afterlogin.TokenFrom(token), afterlogin.Expect{Kinds: []afterlogin.Kind{afterlogin.KindSession}}); err == nil {
				t.Errorf("%s: the token of %s is still good", what, name)
			}
		}
	}
	// If home cannot be signed out, nothing is, and it is said.
	f := open(t, nil)
	b := f.browser(f.home)
	b.follow(b.signIn("mia", good, f.app.Origin+"/x"), f.app.Origin+"/x")
	there := &browser{f, b.http, f.app}
	form := there.get("/.afterlogin/logout").form()
	f.store.SetHook(func(c storetest.Call) storetest.Fault {
		if c.Method == "Apply" {
			return storetest.Fault{Before: storetest.ErrFault}
		}
		return storetest.Fault{}
	})
	there.do("POST", "/.afterlogin/logout", form).wants(t, "the store is down", 503, "You are still signed in")
	f.store.SetHook(nil)
	if there.session() == nil || b.session() == nil {
		t.Error("half signed out")
	}
}
