package upstream

import (
	"html"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/login"
	"github.com/afterlogin/afterlogin/httpauth"
)

// withLogin is a fixture with the real sign-in page in front of it, as the server has it.
func withLogin(t *testing.T) *fixture {
	t.Helper()
	var l *login.Login
	f := newFixture(t, func(o *Options) {
		o.SignIn = func(w http.ResponseWriter, r *http.Request, site *Site, id Identity) (*afterlogin.Session, error) {
			return l.SignIn(w, r, (*login.Site)(site), login.Identity{
				Subject: id.Subject, Mark: id.Mark, Methods: id.Methods, At: id.At, Remember: id.Remember, Confirm: id.Confirm,
			})
		}
		o.Leave = func(w http.ResponseWriter, r *http.Request, site *Site, to string) {
			l.Leave(w, r, (*login.Site)(site), to)
		}
		o.Fail = func(w http.ResponseWriter, r *http.Request, site *Site, err error) {
			l.Fail(w, r, (*login.Site)(site), err)
		}
	})
	var err error
	l, err = login.New(login.Options{
		Authority: f.a, Providers: []login.Provider{{ID: "example", Name: "Example"}}, Now: f.clock.Now,
		Site: func(r *http.Request) (*login.Site, error) { return (*login.Site)(f.sites[r.Host]), nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	f.pages = l
	return f
}

var startLink = regexp.MustCompile(`href="(/\.afterlogin/oidc/example/start\?[^"]*)"`)

// through follows the page's link to the provider, and comes back.
func (f *fixture) through(t *testing.T, b *browser, page string) (reply, url.Values) {
	t.Helper()
	got := b.get(f.url + "/.afterlogin/login?" + page)
	link := startLink.FindStringSubmatch(got.body)
	if link == nil {
		t.Fatalf("no link: %d %s", got.status, got.body)
	}
	got = b.get(f.url + html.UnescapeString(link[1]))
	if got.status != http.StatusSeeOther {
		t.Fatalf("start: %d %s", got.status, got.body)
	}
	answer, asked := f.op.authorize(got.header.Get("Location"))
	return b.get(f.callback(answer), "Sec-Fetch-Site", "cross-site"), asked
}

// A built-in user who is asked for what a password cannot give signs in with a provider, as somebody else: it is no
// confirmation of who they are.
func TestPasswordUserSignsInThere(t *testing.T) {
	f := withLogin(t)
	issued, err := f.a.Issue(t.Context(), afterlogin.IssueRequest{Subject: "mia", Auth: afterlogin.Authentication{Methods: []string{"pwd"}}})
	if err != nil {
		t.Fatal(err)
	}
	b := newBrowser(t)
	b.jar[strings.TrimPrefix(f.url, "http://")] = map[string]string{httpauth.CookieName: issued.Token.Reveal()}
	f.with("acr", "gold", "auth_time", f.clock.Now().Unix())
	got, asked := f.through(t, b, "acr_values=gold&return_to=%2Fpay")
	if asked.Get("acr_values") != "gold" || got.status != http.StatusSeeOther || got.header.Get("Location") != "/pay" {
		t.Errorf("asked %v: %d %s", asked, got.status, got.body)
	}
	if who := f.who(b); !strings.HasPrefix(who, "example:248289761001 ") {
		t.Errorf("signed in as %q", who)
	}
}

// Who came from the provider confirms there who they are: the same person, with the session that they have.
func TestConfirmThere(t *testing.T) {
	f := withLogin(t)
	b := f.in("auth_time", f.clock.Now().Add(-time.Hour).Unix())
	before := mustSession(t, f).ID
	f.clock.pass(time.Minute)
	now := f.clock.Now().Unix()
	f.with("sub", "tom", "auth_time", now)
	got, asked := f.through(t, b, "max_age=60&reason=stale_auth&return_to=%2Fpay")
	if asked.Get("max_age") != "60" || got.status != http.StatusConflict || hasCookie(got) || !strings.HasPrefix(f.who(b), "example:248289761001 ") {
		t.Errorf("somebody else: %d %s", got.status, got.body)
	}
	f.with("auth_time", now)
	if got, _ := f.through(t, b, "max_age=60&reason=stale_auth&return_to=%2Fpay"); got.header.Get("Location") != "/pay" {
		t.Errorf("%d %s", got.status, got.body)
	}
	if s := mustSession(t, f); s.ID != before || s.Auth.At.Unix() != now {
		t.Errorf("the session: %s of %v, want %s of %d", s.ID, s.Auth.At, before, now)
	}
}
