package upstream

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/store/storetest"
)

// with has ID tokens say something.
func (f *fixture) with(claims ...any) {
	f.op.set(func() {
		f.op.claims = func(c map[string]any) {
			for i := 0; i < len(claims); i += 2 {
				c[claims[i].(string)] = claims[i+1]
			}
		}
	})
}

// in signs somebody in who has the claims.
func (f *fixture) in(claims ...any) *browser {
	f.t.Helper()
	f.with(claims...)
	b := newBrowser(f.t)
	if got, _ := f.signedIn(b, ""); got.status != http.StatusSeeOther {
		f.t.Fatalf("sign-in: %d %s\n%s", got.status, got.body, f.logged())
	}
	return b
}

// naming makes a logout token name what it is to end.
func naming(sub, sid string) func(h, p map[string]any) {
	return func(h, p map[string]any) {
		delete(p, "sub")
		if sub != "" {
			p["sub"] = sub
		}
		if sid != "" {
			p["sid"] = sid
		}
	}
}

func (f *fixture) loggedOut(t *testing.T, token string) {
	t.Helper()
	got := f.backchannel(token)
	if got.status != http.StatusOK || got.header.Get("Cache-Control") != "no-store" || got.body != "" {
		t.Fatalf("logout: %d %v %q\n%s", got.status, got.header, got.body, f.logged())
	}
}

func (f *fixture) expect(t *testing.T, want map[string]*browser, in ...string) {
	t.Helper()
	for name, b := range want {
		is := f.who(b) != ""
		should := false
		for _, n := range in {
			should = should || n == name
		}
		if is != should {
			t.Errorf("%s: signed in %v, want %v", name, is, should)
		}
	}
}

func TestLogout(t *testing.T) {
	const tom = "248289761001"
	for name, c := range map[string]struct {
		token func(h, p map[string]any)
		left  []string
	}{
		"a session":                       {naming("", "s1"), []string{"s2", "none", "mia", "mia without sid"}},
		"a session and its subject":       {naming(tom, "s1"), []string{"s2", "none", "mia", "mia without sid"}},
		"a subject":                       {naming(tom, ""), []string{"mia", "mia without sid"}},
		"a session that nobody has":       {naming("", "s9"), []string{"s1", "again", "s2", "none", "mia", "mia without sid"}},
		"a subject by an unknown session": {naming("mia", "s9"), []string{"s1", "again", "s2", "none"}},
		"a subject that nobody is":        {naming("eve", ""), []string{"s1", "again", "s2", "none", "mia", "mia without sid"}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			people := map[string]*browser{
				"s1": f.in("sid", "s1"), "again": f.in("sid", "s1"), "s2": f.in("sid", "s2"), "none": f.in(),
				"mia": f.in("sub", "mia", "sid", "s3"), "mia without sid": f.in("sub", "mia"),
			}
			f.loggedOut(t, f.op.logoutToken(c.token))
			f.expect(t, people, c.left...)
			// Who signs in again afterwards is in, with the same upstream session, too.
			f.clock.pass((tolerance + 1) * time.Second)
			if got := f.who(f.in("sid", "s1")); got == "" {
				t.Error("signed in again, and out at once")
			}
		})
	}
}

// Sites are not asked one by one: what came from the upstream session ends on all of them.
func TestLogoutOnAllSites(t *testing.T) {
	f := newFixture(t)
	b := f.in("sid", "s1")
	got := b.get(f.other + "/oidc/example/start")
	answer, _ := f.op.authorize(got.header.Get("Location"))
	b.get(f.other + "/oidc/example/callback?" + answer.Encode())
	if got := b.get(f.other + "/"); got.status != http.StatusOK {
		t.Fatalf("the other site: %d", got.status)
	}
	f.loggedOut(t, f.op.logoutToken(naming("", "s1")))
	if got := b.get(f.other + "/"); got.status != http.StatusUnauthorized || f.who(b) != "" {
		t.Errorf("the other site: %d", got.status)
	}
}

// Days later, and on the day after, the sessions are still found.
func TestLogoutLater(t *testing.T) {
	for _, wait := range []time.Duration{time.Hour, 25 * time.Hour, 10 * 24 * time.Hour, 29 * 24 * time.Hour} {
		f := newFixture(t)
		f.with("sid", "s1")
		b := newBrowser(t)
		f.signedIn(b, "?remember=1")
		for passed := time.Duration(0); passed < wait; passed += 12 * time.Hour {
			f.clock.pass(min(12*time.Hour, wait-passed))
			if f.who(b) == "" { // which keeps it from idling out
				t.Fatalf("not signed in after %v", passed)
			}
		}
		f.loggedOut(t, f.op.logoutToken(naming("", "s1")))
		if f.who(b) != "" {
			t.Errorf("after %v the session is not found", wait)
		}
	}
}

func TestBadLogoutToken(t *testing.T) {
	f := newFixture(t)
	b := f.in("sid", "s1")
	idToken := f.op.kept
	set := func(name string, value any) func(h, p map[string]any) {
		return func(h, p map[string]any) { p[name] = value }
	}
	drop := func(name string) func(h, p map[string]any) { return func(h, p map[string]any) { delete(p, name) } }
	head := func(name string, value any) func(h, p map[string]any) {
		return func(h, p map[string]any) { h[name] = value }
	}
	tokens := make(map[string]string)
	for name, spoil := range map[string]func(h, p map[string]any){
		"nonce":              set("nonce", "x"),
		"nonce null":         set("nonce", nil),
		"no events":          drop("events"),
		"events a list":      set("events", []string{logoutEvent}),
		"events empty":       set("events", map[string]any{}),
		"another event":      set("events", map[string]any{logoutEvent + "x": map[string]any{}}),
		"event a text":       set("events", map[string]any{logoutEvent: ""}),
		"event null":         set("events", map[string]any{logoutEvent: nil}),
		"typ JWT":            head("typ", "JWT"),
		"no typ":             func(h, p map[string]any) { delete(h, "typ") },
		"typ a number":       head("typ", 1),
		"another typ":        head("typ", "at+jwt"),
		"old":                func(h, p map[string]any) { p["iat"] = f.clock.Now().Add(-time.Hour).Unix() },
		"from the future":    func(h, p map[string]any) { p["iat"] = f.clock.Now().Add(time.Hour).Unix() },
		"no iat":             drop("iat"),
		"over":               func(h, p map[string]any) { p["exp"] = f.clock.Now().Add(-time.Second).Unix() },
		"no exp":             drop("exp"),
		"no jti":             drop("jti"),
		"empty jti":          set("jti", ""),
		"jti a number":       set("jti", 5),
		"long jti":           set("jti", strings.Repeat("a", 1025)),
		"another iss":        set("iss", "https://login.example.com"),
		"another aud":        set("aud", "another"),
		"no aud":             drop("aud"),
		"two aud":            set("aud", []string{"client", "another"}),
		"neither sub or sid": drop("sub"),
		"empty sid":          set("sid", ""),
		"sid a number":       set("sid", 1),
		"long sid":           set("sid", strings.Repeat("a", 256)),
		"empty sub":          set("sub", ""),
		"sub twice":          set("SUB", "mia"),
		"alg none":           head("alg", "none"),
		"alg HS256":          head("alg", "HS256"),
	} {
		tokens[name] = f.op.logoutToken(spoil)
	}
	good := f.op.logoutToken(nil)
	tokens["an ID token"] = idToken
	tokens["an ID token called a logout token"] = f.op.jws(map[string]any{"alg": "RS256", "kid": "k1", "typ": "logout+jwt"}, payloadOf(t, idToken))
	tokens["HMAC by the secret"] = hs256([]byte(clientSecret), map[string]any{"alg": "HS256", "typ": "logout+jwt"}, payloadOf(t, good))
	tokens["by another key"] = (&op{key: rsaKeys()[1]}).jws(map[string]any{"alg": "RS256", "kid": "k1", "typ": "logout+jwt"}, payloadOf(t, good))
	tokens["in the JSON form"] = jsonForm(good)
	tokens["cut"] = good[:len(good)-8]
	tokens["empty"] = ""
	tokens["text"] = "hello"
	tokens["large"] = good + strings.Repeat("a", maxToken)
	for name, token := range tokens {
		t.Run(name, func(t *testing.T) {
			got := f.backchannel(token)
			var body struct {
				Error       string `json:"error"`
				Description string `json:"error_description"`
			}
			if got.status != http.StatusBadRequest || json.Unmarshal([]byte(got.body), &body) != nil || body.Error != "invalid_request" || body.Description == "" {
				t.Errorf("%d %s", got.status, got.body)
			}
			if got.header.Get("Cache-Control") != "no-store" || got.header.Get("Content-Type") != "application/json" {
				t.Errorf("headers: %v", got.header)
			}
			if f.who(b) == "" {
				t.Error("signed out")
			}
		})
	}
	f.loggedOut(t, good) // the table was refused for its own sake
	if f.who(b) != "" {
		t.Error("not signed out")
	}
}

func payloadOf(t *testing.T, token string) (out map[string]any) {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(strings.NewReader(string(b)))
	d.UseNumber()
	if err := d.Decode(&out); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestBadLogoutRequest(t *testing.T) {
	f := newFixture(t)
	b := f.in("sid", "s1")
	where := f.url + "/.afterlogin/oidc/example/backchannel-logout"
	token := url.QueryEscape(f.op.logoutToken(nil))
	const form = "application/x-www-form-urlencoded"
	for name, c := range map[string][3]string{ // type, query, body
		"JSON":            {"application/json", "", `{"logout_token":"x"}`},
		"no type":         {"", "", "logout_token=" + token},
		"twice":           {form, "", "logout_token=" + token + "&logout_token=" + token},
		"in the query":    {form, "?logout_token=" + token, ""},
		"beside a query":  {form, "?x=1", "logout_token=" + token},
		"a bad escape":    {form, "", "logout_token=" + token + "&x=%zz"},
		"a large body":    {form, "", "logout_token=" + token + "&x=" + strings.Repeat("a", maxLogoutBody)},
		"nothing":         {form, "", ""},
		"another's field": {form, "", "id_token=" + token},
	} {
		got := newBrowser(t).send("POST", where+c[1], c[2], "Content-Type", c[0])
		if got.status != http.StatusBadRequest || !strings.Contains(got.body, "invalid_request") {
			t.Errorf("%s: %d %s", name, got.status, got.body)
		}
	}
	if f.who(b) == "" {
		t.Error("signed out")
	}
	// Further fields are the future's.
	if got := newBrowser(t).send("POST", where, "x=1&logout_token="+token, "Content-Type", form+"; charset=utf-8"); got.status != http.StatusOK {
		t.Errorf("%d %s", got.status, got.body)
	}
}

func TestUntypedLogout(t *testing.T) {
	f := newFixture(t, func(o *Options) { o.Providers[0].UntypedLogout = true })
	for _, typ := range []any{nil, "JWT", "logout+jwt", "application/logout+jwt", "Logout+JWT"} {
		b := f.in()
		f.loggedOut(t, f.op.logoutToken(func(h, p map[string]any) {
			delete(h, "typ")
			if typ != nil {
				h["typ"] = typ
			}
		}))
		if f.who(b) != "" {
			t.Errorf("typ %v: still in", typ)
		}
		f.clock.pass((tolerance + 1) * time.Second)
	}
	// Even then an ID token is none.
	b := f.in("events", map[string]any{logoutEvent: map[string]any{}}, "jti", "x")
	if got := f.backchannel(f.op.kept); got.status != http.StatusBadRequest || f.who(b) == "" {
		t.Errorf("%d %s", got.status, got.body)
	}
}

// A token that was heeded is not heeded again: whoever kept it could throw people out.
func TestLogoutReplay(t *testing.T) {
	f := newFixture(t)
	for _, token := range []string{f.op.logoutToken(nil), f.op.logoutToken(naming("", "s1"))} {
		f.in("sid", "s1")
		f.loggedOut(t, token)
		f.clock.pass((tolerance + 1) * time.Second)
		b := f.in("sid", "s1")
		got := f.backchannel(token)
		if got.status != http.StatusBadRequest || f.who(b) == "" {
			t.Errorf("%d %s", got.status, got.body)
		}
	}
}

// A logout that could not be done is done when the provider sends the same token again, wherever the store failed, and
// whether what it did then happened or not. There is a session that is listed, one of another day, and one of somebody
// that is not listed.
func TestLogoutWhileTheStoreFails(t *testing.T) {
	for _, sid := range []string{"s1", ""} {
		prepare := func(t *testing.T) (f *fixture, people map[string]*browser, token string) {
			f = newFixture(t)
			f.with("sid", "s1")
			people = map[string]*browser{"first": newBrowser(t)}
			f.signedIn(people["first"], "?remember=1")
			f.clock.pass(24 * time.Hour)
			people["second"] = f.in("sid", "s1")
			if sid == "" {
				return f, people, f.op.logoutToken(nil)
			}
			f.between = func() {
				f.store.SetHook(func(storetest.Call) storetest.Fault { return storetest.Fault{Before: storetest.ErrFault} })
			}
			people["pending"] = f.in("sub", "mia", "sid", "s1")
			f.store.SetHook(nil)
			f.between = nil
			f.expect(t, people, "first", "second", "pending")
			return f, people, f.op.logoutToken(naming("", sid))
		}
		counted := func(c storetest.Call) bool { return c.Method == "Apply" || c.Method == "Get" }

		f, people, token := prepare(t)
		calls := 0
		f.store.SetHook(func(c storetest.Call) storetest.Fault {
			if counted(c) {
				calls++
			}
			return storetest.Fault{}
		})
		f.loggedOut(t, token)
		f.store.SetHook(nil)
		f.expect(t, people)
		if min := map[string]int{"s1": 20, "": 6}[sid]; calls < min {
			t.Fatalf("sid %q: %d calls of the store, want %d at least", sid, calls, min)
		}
		for _, after := range []bool{false, true} {
			for _, only := range []bool{false, true} { // that call, or it and all later ones
				for n := range calls {
					t.Run(fmt.Sprintf("sid %q, call %d, happened %v, once %v", sid, n, after, only), func(t *testing.T) {
						f, people, token := prepare(t)
						i := 0
						f.store.SetHook(func(c storetest.Call) storetest.Fault {
							if !counted(c) {
								return storetest.Fault{}
							}
							if i++; i <= n || only && i > n+1 {
								return storetest.Fault{}
							}
							if after {
								return storetest.Fault{After: storetest.ErrFault}
							}
							return storetest.Fault{Before: storetest.ErrFault}
						})
						got := f.backchannel(token)
						f.store.SetHook(nil)
						if i <= n {
							t.Fatalf("%d calls only", i)
						}
						if got.status == http.StatusOK {
							f.expect(t, people)
							return
						}
						if got.status != http.StatusServiceUnavailable || got.header.Get("Retry-After") == "" {
							t.Errorf("%d %s", got.status, got.body)
						}
						got = f.backchannel(token)
						if got.status != http.StatusOK && got.status != http.StatusBadRequest { // done before, and noted
							t.Errorf("again: %d %s", got.status, got.body)
						}
						f.expect(t, people)
					})
				}
			}
		}
	}
}

// A logout at each moment of a sign-in: nobody is in afterwards.
func TestLogoutDuringSignIn(t *testing.T) {
	for _, sid := range []string{"s1", ""} {
		for _, when := range []string{"before the ID token is used", "before the session is made", "before it is listed"} {
			t.Run(fmt.Sprintf("sid %q, %s", sid, when), func(t *testing.T) {
				f := newFixture(t)
				claims := []any{}
				if sid != "" {
					claims = append(claims, "sid", sid)
				}
				f.with(claims...)
				token := f.op.logoutToken(naming("", sid))
				if sid == "" {
					token = f.op.logoutToken(nil)
				}
				logout := func() { f.loggedOut(t, token) }
				switch when {
				case "before the session is made":
					f.before = logout
				case "before it is listed":
					f.between = logout
				default: // the provider sends it between its answer and our looking at it
					f.op.set(func() {
						sign := f.op.jws
						f.op.sign = func(h, p map[string]any) string {
							id := sign(h, p)
							f.op.sign = nil
							var err error
							if p := f.u.providers["example"]; sid != "" {
								_, err = f.u.attached.endSession(t.Context(), p, sid, f.clock.Now())
							} else {
								err = f.u.attached.endSubject(t.Context(), p, "248289761001", f.clock.Now())
							}
							if err != nil {
								t.Error(err)
							}
							return id
						}
					})
				}
				b := newBrowser(t)
				got, _ := f.signedIn(b, "")
				if got.status == http.StatusSeeOther && sid != "" {
					t.Errorf("signed in: %d %s", got.status, got.body)
				}
				if got.status != http.StatusSeeOther && hasCookie(got) {
					t.Errorf("%d, with a cookie", got.status)
				}
				if f.who(b) != "" {
					t.Error("signed in")
				}
				for _, s := range sessions(t, f) {
					t.Errorf("a session is left: %s of %s", s.ID, s.Subject)
				}
				f.before, f.between = nil, nil
				f.clock.pass((tolerance + 1) * time.Second)
				if got := f.who(f.in(claims...)); got == "" {
					t.Error("cannot sign in again")
				}
			})
		}
	}
}

// A sign-in that stopped half-way, with a session that is not listed: a logout ends it all the same.
func TestLogoutAfterCrash(t *testing.T) {
	f := newFixture(t)
	f.between = func() {
		f.store.SetHook(func(storetest.Call) storetest.Fault { return storetest.Fault{Before: storetest.ErrFault} })
	}
	b := newBrowser(t)
	f.with("sid", "s1")
	got, _ := f.signedIn(b, "")
	f.store.SetHook(nil)
	f.between = nil
	if got.status != http.StatusSeeOther || f.who(b) == "" { // pending is as good as listed
		t.Errorf("%d %s", got.status, got.body)
	}
	f.loggedOut(t, f.op.logoutToken(naming("", "s1")))
	if f.who(b) != "" {
		t.Error("the session slipped through")
	}
}

// More sessions than an entry lists, people who share an upstream session, and sign-ins at the same time.
func TestManySessions(t *testing.T) {
	f := newFixture(t)
	var all []*browser
	for range maxSessions + 5 {
		all = append(all, f.in("sid", "s1"))
	}
	mia := f.in("sub", "mia", "sid", "s1")
	other := f.in("sub", "tom", "sid", "s2")
	f.loggedOut(t, f.op.logoutToken(naming("", "s1")))
	for i, b := range append(all, mia) {
		if f.who(b) != "" {
			t.Errorf("session %d is left", i)
		}
	}
	if f.who(other) == "" {
		t.Error("somebody else was signed out")
	}
}

func TestSignInsAtOnce(t *testing.T) {
	f := newFixture(t)
	f.with("sid", "s1")
	type result struct {
		b   *browser
		got reply
	}
	results := make(chan result)
	const n = 16
	for range n {
		b := newBrowser(t)
		answer, _ := f.op.authorize(f.start(b, "").header.Get("Location"))
		go func() { results <- result{b, b.get(f.callback(answer))} }()
	}
	var all []*browser
	for range n {
		r := <-results
		if r.got.status != http.StatusSeeOther {
			t.Errorf("%d %s", r.got.status, r.got.body)
		}
		all = append(all, r.b)
	}
	entries, err := f.u.attached.look(t.Context(), realmSession, nameOf(f.u.providers["example"], "s1"), 40*24*time.Hour)
	if err != nil || len(entries) != 1 || len(entries[0].record.Sessions) != n || len(entries[0].record.Pending) != 0 {
		t.Fatalf("entries: %+v, %v", entries, err)
	}
	f.loggedOut(t, f.op.logoutToken(naming("", "s1")))
	for _, b := range all {
		if f.who(b) != "" {
			t.Error("still in")
		}
	}
}

// Logouts and sign-ins at the same time: who is answered that he is in before a logout, is out after it; and whoever is
// told that he is not in has no session.
func TestLogoutsAndSignInsAtOnce(t *testing.T) {
	f := newFixture(t)
	f.with("sid", "s1")
	for range 10 {
		done := make(chan *browser)
		for range 6 {
			b := newBrowser(t)
			answer, _ := f.op.authorize(f.start(b, "").header.Get("Location"))
			go func() { b.get(f.callback(answer)); done <- b }()
		}
		token := f.op.logoutToken(naming("", "s1"))
		out := make(chan reply)
		go func() { out <- f.backchannel(token) }()
		var all []*browser
		for range 6 {
			all = append(all, <-done)
		}
		if got := <-out; got.status != http.StatusOK {
			t.Fatalf("logout: %d %s", got.status, got.body)
		}
		for _, b := range all { // every ID token is as old as the logout token, or older
			if f.who(b) != "" {
				t.Error("a sign-in slipped through")
			}
		}
		if n := len(sessions(t, f)); n != 0 {
			t.Errorf("%d sessions are left", n)
		}
		f.clock.pass((tolerance + 1) * time.Second)
	}
}

// A session that is stepped up is listed once, and with the upstream session of the step-up, too.
func TestLogoutAfterStepUp(t *testing.T) {
	for _, sid := range []string{"s1", "s2"} {
		f := newFixture(t)
		b := f.in("sid", "s1")
		for range 3 {
			f.with("sid", "s2", "auth_time", f.clock.Now().Unix())
			if got, _ := f.signedIn(b, "?max_age=0"); got.status != http.StatusSeeOther {
				t.Fatalf("%d %s", got.status, got.body)
			}
		}
		if len(sessions(t, f)) != 1 {
			t.Fatal("a second session")
		}
		f.loggedOut(t, f.op.logoutToken(naming("", sid)))
		if f.who(b) != "" {
			t.Errorf("still in after the logout of %s", sid)
		}
	}
}

// A provider that names its sessions in logout tokens and not in ID tokens: what it can be taken at is the subject, each
// time. One that names them in both does not sign people out of more than it says, however often it says it.
func TestLogoutSidUnknownToIDTokens(t *testing.T) {
	f := newFixture(t)
	for range 3 {
		b := f.in()
		f.loggedOut(t, f.op.logoutToken(func(h, p map[string]any) { p["sid"] = "s1" }))
		if f.who(b) != "" {
			t.Error("still in")
		}
		f.clock.pass((tolerance + 1) * time.Second)
	}
	one, two := f.in("sid", "s2"), f.in("sid", "s3")
	for range 3 {
		f.loggedOut(t, f.op.logoutToken(func(h, p map[string]any) { p["sid"] = "s2" }))
		if f.who(one) != "" || f.who(two) == "" {
			t.Errorf("s2 %q, s3 %q", f.who(one), f.who(two))
		}
		f.clock.pass((tolerance + 1) * time.Second)
	}
}

// An entry that is gone when the session is to be listed, as after a store was restored, is made anew.
func TestEntryGone(t *testing.T) {
	f := newFixture(t)
	p := f.u.providers["example"]
	h := hold{t: &f.u.attached, id: holdID(), name: nameOf(p, "s1"), end: endOfDay(f.clock.Now().Add(f.u.attached.longest)), subject: "example:a", issued: f.clock.Now()}
	got, err := f.a.Issue(t.Context(), afterlogin.IssueRequest{Subject: "example:a"})
	if err != nil {
		t.Fatal(err)
	}
	h.drop(t.Context())
	if err := h.settle(t.Context(), got.Session.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := f.u.attached.endSession(t.Context(), p, "s1", f.clock.Now()); err != nil {
		t.Fatal(err)
	}
	if n := len(sessions(t, f)); n != 0 {
		t.Errorf("%d sessions are left", n)
	}
}

// What an entry holds at most fits into one.
func TestLargestEntry(t *testing.T) {
	r := record{Ended: 1 << 40, Seen: true, Done: true}
	for i := range maxPending {
		subject := strings.Repeat("p", 32) + ":" + strings.Repeat(`\`, maxSubject-1) + fmt.Sprint(i)
		for range maxHolds {
			r.put(hold{id: holdID(), subject: subject})
		}
		if n := len(r.Pending[subject]); n != maxHolds {
			t.Errorf("%d holds", n)
		}
	}
	for range maxSessions {
		r.Sessions = append(r.Sessions, "grant_"+afterlogin.SessionID(strings.Repeat("A", 35))) // the longest of all handles
	}
	f := newFixture(t)
	q := afterlogin.EntryRequest{Realm: realmSession, Name: "x", Detail: r.encode(), Until: f.clock.Now().Add(time.Hour)}
	if _, err := f.a.AddEntry(t.Context(), q); err != nil {
		t.Errorf("%d bytes: %v", len(q.Detail), err)
	}
	// One more, and the subject is pending for good; it takes no more room.
	for subject := range r.Pending {
		h := hold{id: holdID(), subject: subject}
		r.put(h)
		if r.take(h) || len(r.Pending[subject]) != 1 {
			t.Errorf("pending: %v", r.Pending[subject])
		}
	}
}

// Built-in users and people of other providers are not this provider's to sign out.
func TestLogoutOfOthers(t *testing.T) {
	f := newFixture(t)
	for _, subject := range []string{"248289761001", "other:248289761001", "example"} {
		if _, err := f.a.Issue(t.Context(), afterlogin.IssueRequest{Subject: subject}); err != nil {
			t.Fatal(err)
		}
	}
	f.loggedOut(t, f.op.logoutToken(nil))
	if n := len(sessions(t, f)); n != 3 {
		t.Errorf("%d of 3 sessions are left", n)
	}
}
