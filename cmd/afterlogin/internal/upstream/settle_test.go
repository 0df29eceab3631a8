package upstream

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/httpauth"
	"github.com/afterlogin/afterlogin/store/storetest"
)

// hasCookie reports whether the answer sets or clears the session cookie.
func hasCookie(got reply) bool {
	return slices.ContainsFunc(got.set, func(c *http.Cookie) bool { return c.Name == httpauth.CookieName })
}

// A shorter policy finds the sessions that were made before it all the same.
func TestLogoutAfterPolicyChange(t *testing.T) {
	f := newFixture(t)
	f.with("sid", "s1")
	b := newBrowser(t)
	f.signedIn(b, "?remember=1")
	o := f.u.options
	o.Longest = 24 * time.Hour
	var err error
	if f.u, err = New(o); err != nil {
		t.Fatal(err)
	}
	f.loggedOut(t, f.op.logoutToken(naming("", "s1")))
	if f.who(b) != "" {
		t.Error("still in")
	}
}

// The longest policy there may be: an entry reaches as far as its sessions, and the authority takes it.
func TestLongestPolicy(t *testing.T) {
	f := newFixture(t, func(o *Options) { o.Longest = MaxLongest })
	b := f.in("sid", "s1")
	p := f.u.providers["example"]
	es, err := f.u.attached.look(t.Context(), realmSession, nameOf(p, "s1"), farthest)
	if err != nil || len(es) != 1 || es[0].Until.Before(f.clock.Now().Add(MaxLongest)) {
		t.Fatalf("%v, %v", es, err)
	}
	calls := 0
	f.store.SetHook(func(c storetest.Call) storetest.Fault {
		if c.Method == "Get" && len(c.IDs) > 2 {
			calls++
		}
		return storetest.Fault{}
	})
	f.loggedOut(t, f.op.logoutToken(naming("", "s1")))
	f.store.SetHook(nil)
	if f.who(b) != "" {
		t.Error("still in")
	}
	if calls > 7 { // 391 days, 64 in a read
		t.Errorf("%d large reads for a logout, want 7 at most", calls)
	}
}

// A sign-in and a logout at the same time on two servers whose policies are not the same: the one does not look where the
// other writes, and they do not miss each other.
func TestLogoutOnServerWithOtherPolicies(t *testing.T) {
	f := newFixture(t)
	o := f.u.options
	o.Longest = 24 * time.Hour
	other, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	f.with("sid", "s1")
	f.op.set(func() {
		f.op.sign = func(h, p map[string]any) string {
			id := f.op.jws(h, p)
			if _, err := other.attached.endSession(t.Context(), other.providers["example"], "s1", f.clock.Now()); err != nil {
				t.Error(err)
			}
			return id
		}
	})
	b := newBrowser(t)
	got, _ := f.signedIn(b, "")
	f.refused(t, b, got, http.StatusConflict)
}

// A sign-in that ends without a session takes nobody's place but its own: another one, of the same person, whose server
// stopped before it was listed, stays known.
func TestPendingOfAnother(t *testing.T) {
	f := newFixture(t)
	f.with("sid", "s1")
	second := newBrowser(t)
	f.before = func() { // the first has begun
		f.before = nil
		f.loggedOut(t, f.op.logoutToken(naming("", "s1")))
		f.clock.pass((tolerance + 1) * time.Second)
		f.between = func() {
			f.store.SetHook(func(storetest.Call) storetest.Fault { return storetest.Fault{Before: storetest.ErrFault} })
		}
		got, _ := f.signedIn(second, "")
		f.between = nil
		f.store.SetHook(nil)
		if got.status != http.StatusSeeOther || f.who(second) == "" {
			t.Errorf("the second: %d %s", got.status, got.body)
		}
	}
	first := newBrowser(t)
	if got, _ := f.signedIn(first, ""); got.status == http.StatusSeeOther || f.who(first) != "" {
		t.Errorf("the first: %d %s", got.status, got.body)
	}
	f.clock.pass((tolerance + 1) * time.Second)
	f.loggedOut(t, f.op.logoutToken(naming("", "s1")))
	if f.who(second) != "" {
		t.Error("the second slipped through")
	}
}

// Who is not let in gets no cookie of a session that could not be ended, and keeps the one that they have.
func TestNoCookieWithoutSignIn(t *testing.T) {
	for _, again := range []bool{false, true} {
		for _, fails := range []bool{false, true} {
			t.Run(fmt.Sprintf("signed in before %v, the store fails %v", again, fails), func(t *testing.T) {
				f := newFixture(t)
				b := newBrowser(t)
				if again {
					b = f.in("sid", "s1", "sub", "mia")
					f.clock.pass(time.Minute)
				}
				jar := strings.TrimPrefix(f.url, "http://")
				before := b.jar[jar][httpauth.CookieName]
				f.with("sid", "s2", "sub", "mia")
				f.between = func() {
					// The logout of a server that has stopped after its first steps: it has ended no session.
					p := f.u.providers["example"]
					end := endOfDay(f.clock.Now().Add(f.u.attached.longest + apart))
					_, err := f.u.attached.change(t.Context(), realmSession, nameOf(p, "s2"), end, func(r *record) bool {
						r.Ended = f.clock.Now().Unix()
						return true
					})
					if err != nil {
						t.Error(err)
					}
					if fails {
						f.store.SetHook(func(c storetest.Call) storetest.Fault {
							if c.Method == "Apply" {
								return storetest.Fault{Before: storetest.ErrFault}
							}
							return storetest.Fault{}
						})
					}
				}
				got, _ := f.signedIn(b, "")
				f.store.SetHook(nil)
				want := http.StatusConflict
				if fails {
					want = http.StatusServiceUnavailable
					if got.header.Get("Retry-After") == "" || strings.Contains(got.body, "Nothing has changed") {
						t.Errorf("%v %s", got.header, got.body)
					}
				}
				if got.status != want || hasCookie(got) || b.jar[jar][httpauth.CookieName] != before {
					t.Errorf("%d %v", got.status, got.header)
				}
				if got.header.Get("Cache-Control") != "no-store" || len(b.attempts()) != 0 {
					t.Errorf("%v, attempts %v", got.header, b.attempts())
				}
				if f.who(b) != "" {
					t.Error("signed in")
				}
				if n := len(sessions(t, f)); !fails && n != 0 {
					t.Errorf("%d sessions", n)
				}
			})
		}
	}
}

// A browser that leaves before the end of its sign-in does not keep the last step from being done.
func TestSettleWithoutBrowser(t *testing.T) {
	f := newFixture(t)
	p, a := f.u.providers["example"], &f.u.attached
	ctx, cancel := context.WithCancel(t.Context())
	var holds [2]hold
	for i := range holds {
		var err error
		if holds[i], err = a.begin(ctx, p, "s1", "example:mia", "mia", f.clock.Now()); err != nil {
			t.Fatal(err)
		}
	}
	got, err := f.a.Issue(ctx, afterlogin.IssueRequest{Subject: "example:mia"})
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := holds[0].settle(ctx, got.Session.ID); err != nil {
		t.Error(err)
	}
	holds[1].drop(ctx)
	es, err := a.look(t.Context(), realmSession, nameOf(p, "s1"), farthest)
	if err != nil || len(es) != 1 || len(es[0].record.Pending) != 0 || !slices.Equal(es[0].record.Sessions, []afterlogin.SessionID{got.Session.ID}) {
		t.Errorf("%+v, %v", es, err)
	}
}

// What the provider said within two seconds after a logout may have been said before it, by a machine of its own whose clock
// is ahead.
func TestLogoutByAnotherClock(t *testing.T) {
	for _, sid := range []string{"s1", ""} {
		for ahead, want := range map[int]int{0: http.StatusConflict, tolerance: http.StatusConflict, tolerance + 1: http.StatusSeeOther} {
			f := newFixture(t)
			claims := []any{"iat", f.clock.Now().Add(time.Duration(ahead) * time.Second).Unix()}
			token := f.op.logoutToken(nil)
			if sid != "" {
				claims = append(claims, "sid", sid)
				token = f.op.logoutToken(naming("", sid))
			}
			f.loggedOut(t, token)
			f.with(claims...)
			if got, _ := f.signedIn(newBrowser(t), ""); got.status != want {
				t.Errorf("sid %q, %d s: %d, want %d", sid, ahead, got.status, want)
			}
		}
	}
}

// Requests that are sent slowly take nobody's place.
func TestSlowLogouts(t *testing.T) {
	f := newFixture(t)
	b := f.in("sid", "s1")
	f.u.logoutWait = time.Millisecond
	at, err := url.Parse(f.url)
	if err != nil {
		t.Fatal(err)
	}
	for range maxLogouts {
		c, err := net.Dial("tcp", at.Host)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprintf(c, "POST /.afterlogin/oidc/example/backchannel-logout HTTP/1.1\r\nHost: %s\r\nContent-Type: application/x-www-form-urlencoded\r\n"+
			"Content-Length: 1000\r\nExpect: 100-continue\r\n\r\n", at.Host)
		// The server asks for the body when the handler begins to read it.
		if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || !strings.Contains(line, "100 Continue") {
			t.Fatalf("%q, %v", line, err)
		}
		fmt.Fprint(c, "logout_token=")
	}
	f.loggedOut(t, f.op.logoutToken(naming("", "s1")))
	if f.who(b) != "" {
		t.Error("still in")
	}
}

// A provider that hangs keeps nobody signed in who comes from another, and what has not the form of a token waits for
// nothing.
func TestLogoutBesideHungProvider(t *testing.T) {
	second := newOP(t, &clock{now: time.Now()})
	hung := make(chan struct{})
	second.set(func() {
		second.answer = func(http.ResponseWriter, *http.Request) bool { <-hung; return false }
	})
	f := newFixture(t, func(o *Options) {
		o.Providers = append(o.Providers, Provider{ID: "second", Issuer: second.url, ClientID: "client"})
	})
	b := f.in("sid", "s1")
	f.u.logoutWait = time.Minute
	const form = "application/x-www-form-urlencoded"
	post := func(token string) reply {
		return newBrowser(t).send("POST", f.url+"/.afterlogin/oidc/second/backchannel-logout", "logout_token="+token, "Content-Type", form)
	}
	token := second.logoutToken(nil)
	done := make(chan reply)
	for range maxLogouts {
		go func() { done <- post(token) }()
	}
	for p := f.u.providers["second"]; len(p.logouts) < maxLogouts; { // until all of them are at it
		if t.Context().Err() != nil {
			t.Fatal("they do not come")
		}
		runtime.Gosched()
	}
	if got := post("hello"); got.status != http.StatusBadRequest {
		t.Errorf("no token: %d", got.status)
	}
	f.loggedOut(t, f.op.logoutToken(naming("", "s1")))
	if f.who(b) != "" {
		t.Error("still in")
	}
	close(hung)
	for range maxLogouts {
		if got := <-done; got.status != http.StatusOK && got.status != http.StatusBadRequest {
			t.Errorf("when it is back: %d %s", got.status, got.body)
		}
	}
}

// An answer whose state was used up by a request that then failed: its person is not signed in, and is not told so.
func TestUsedUpAndNotSignedIn(t *testing.T) {
	f := newFixture(t)
	b := newBrowser(t)
	answer, _ := f.op.authorize(f.start(b, "?return_to=/x").header.Get("Location"))
	first := true
	f.store.SetHook(func(c storetest.Call) storetest.Fault {
		if c.Method != "Apply" || !first {
			return storetest.Fault{}
		}
		first = false
		return storetest.Fault{After: storetest.ErrFault}
	})
	if got := b.get(f.callback(answer)); got.status != http.StatusServiceUnavailable {
		t.Fatalf("%d %s", got.status, got.body)
	}
	f.store.SetHook(nil)
	got := b.get(f.callback(answer))
	if got.status != http.StatusBadRequest || !strings.Contains(got.body, "cannot be finished") || strings.Contains(got.body, "You can go on") ||
		!strings.Contains(got.body, `href="/.afterlogin/oidc/example/start?return_to=%2Fx"`) {
		t.Errorf("%d %s", got.status, got.body)
	}
	// Somebody who is signed in by another provider, or here, is not signed in by this one either.
	issued, err := f.a.Issue(t.Context(), afterlogin.IssueRequest{Subject: "mia"})
	if err != nil {
		t.Fatal(err)
	}
	c := newBrowser(t)
	answer, _ = f.op.authorize(f.start(c, "").header.Get("Location"))
	d := c.copy()
	if got := c.get(f.callback(answer)); got.status != http.StatusSeeOther {
		t.Fatalf("%d %s", got.status, got.body)
	}
	d.jar[strings.TrimPrefix(f.url, "http://")][httpauth.CookieName] = issued.Token.Reveal()
	if got := d.get(f.callback(answer)); !strings.Contains(got.body, "cannot be finished") {
		t.Errorf("%d %s", got.status, got.body)
	}
}

// Strangers write nothing into the log that an operator sees.
func TestStrangersAndTheLog(t *testing.T) {
	f := newFixture(t)
	f.in()
	had := f.logged()
	newBrowser(t).get(f.callback(url.Values{"code": {"x"}, "state": {strings.Repeat("a", 43)}}))
	evil := &op{key: rsaKeys()[1]}
	good := payloadOf(t, f.op.logoutToken(nil))
	for _, token := range []string{
		"", "hello", "a.b.c", evil.jws(map[string]any{"alg": "RS256", "typ": "logout+jwt", "kid": "k1"}, good),
		evil.jws(map[string]any{"alg": "RS256", "typ": "logout+jwt", "kid": "k9"}, good),
	} {
		if got := f.backchannel(token); got.status < 400 {
			t.Errorf("%d", got.status)
		}
	}
	for line := range strings.Lines(strings.TrimPrefix(f.logged(), had)) {
		if !strings.Contains(line, "level=DEBUG") {
			t.Error(line)
		}
	}
	// What the provider has signed is an operator's business.
	f.backchannel(f.op.logoutToken(func(h, p map[string]any) { delete(p, "exp") }))
	if !strings.Contains(f.logged(), "level=WARN") {
		t.Error("a token of the provider's was refused in silence")
	}
}
