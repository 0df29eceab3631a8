package login

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/store/storetest"
)

func TestChangePassword(t *testing.T) {
	f := open(t, nil)
	here, there := f.browser(f.app), f.browser(f.app)
	here.signIn("mia", good, "")
	there.signIn("mia", good, "", "remember", "on")
	was, token := here.session(), here.token()
	page := here.get("/.afterlogin/password")
	page.wants(t, "the page", 200, "Change password", `autocomplete="new-password"`, "At least 15 characters")
	send := func(old, fresh, repeat string) *answer {
		return here.do("POST", "/.afterlogin/password", page.fill("password", old, "new", fresh, "repeat", repeat))
	}
	send(good, other, other+"x").wants(t, "two ways", 422, "typed in two ways")
	send(good, "too short", "too short").wants(t, "short", 422, "at least 15 characters")
	send(good, "passwordpassword", "passwordpassword").wants(t, "a known one", 422, "tried first")
	send(bad, other, other).wants(t, "another current one", 422, "The current password is wrong.")
	if there.session() == nil || here.token() != token {
		t.Fatal("what failed changed something")
	}
	send(good, other, other).wants(t, "changed", 200, "Your password is changed", "All other devices are signed out.")
	s := here.session()
	if s == nil || s.ID != was.ID || s.Generation != was.Generation+1 || there.session() != nil {
		t.Errorf("this session %+v, the other %+v", s, there.session())
	}
	if _, err := f.a.Validate(t.Context(), afterlogin.TokenFrom(token), afterlogin.Expect{Kinds: []afterlogin.Kind{afterlogin.KindSession}}); err == nil {
		t.Error("the token from before is still good")
	}
	f.browser(f.app).signIn("mia", good, "").wants(t, "the old one", 422)
	if a := f.browser(f.app).signIn("mia", other, "/x"); a.to != "/x" {
		t.Errorf("the new one: %d", a.status)
	}
	// Somebody who did not sign in with a password has none.
	b := f.browser(f.app)
	b.get("/test/complete?subject=corp:17")
	b.get("/.afterlogin/password").wants(t, "without a password", 409, "There is no password to change")
	// Guessing here is guessing: it counts.
	for range 10 {
		send(bad, good, good)
	}
	send(other, good, good).wants(t, "after many wrong ones", 429, "too many wrong passwords")
}

// A store that fails at any of the writes of a change: the person is told what is known, no copy of the cookie is good once
// anything was said, and they can go on.
func TestChangePasswordStoreDown(t *testing.T) {
	for n := 1; n <= 4; n++ { // a new token; the hash; the end of the others; that it is done
		f := open(t, nil)
		b, there := f.browser(f.app), f.browser(f.app)
		b.signIn("mia", good, "")
		there.signIn("mia", good, "")
		old := b.token()
		page := b.get("/.afterlogin/password")
		form := page.fill("password", good, "new", other, "repeat", other)
		writes := 0
		f.store.SetHook(func(c storetest.Call) storetest.Fault {
			if c.Method == "Apply" {
				if writes++; writes >= n {
					return storetest.Fault{Before: storetest.ErrFault}
				}
			}
			return storetest.Fault{}
		})
		a := b.do("POST", "/.afterlogin/password", form)
		f.store.SetHook(nil)
		text := "It is not known whether your password was changed"
		if n == 1 {
			text = "Your password is what it was"
		}
		a.wants(t, "a write fails", 503, text)
		if a.header.Get("Retry-After") == "" || strings.Contains(a.body, "are signed out. Sign in again") {
			t.Errorf("write %d: Retry-After %q: %s", n, a.header.Get("Retry-After"), a.body)
		}
		if _, err := f.a.Validate(t.Context(), afterlogin.TokenFrom(old), afterlogin.Expect{Kinds: []afterlogin.Kind{afterlogin.KindSession}}); (err == nil) != (n == 1) {
			t.Errorf("write %d: the token from before: %v", n, err)
		}
		if b.session() == nil || (b.token() == old) != (n == 1) {
			t.Errorf("write %d: this session %+v", n, b.session())
		}
		if (there.session() == nil) != (n == 4) {
			t.Errorf("write %d: the other session %+v", n, there.session())
		}
		f.pass(time.Minute)
		if n <= 2 {
			if a := f.browser(f.app).signIn("mia", good, "/x"); a.to != "/x" {
				t.Errorf("write %d: the old password: %d", n, a.status)
			}
			continue
		}
		f.browser(f.app).signIn("mia", good, "").wants(t, "the old password", 422)
		if a := f.browser(f.app).signIn("mia", other, "/x"); a.to != "/x" {
			t.Errorf("write %d: the new password: %d", n, a.status)
		}
		if there.session() != nil {
			t.Errorf("write %d: a session from before the change lives on after a sign-in with the new password", n)
		}
	}
}

// An administrator's reset wins against somebody who knows the old password and has a session, whenever it comes.
func TestResetDuringChange(t *testing.T) {
	const theirs = "a password of the thief's"
	for n := 1; ; n++ {
		f := open(t, nil)
		b := f.browser(f.app)
		b.signIn("mia", good, "")
		form := b.get("/.afterlogin/password").fill("password", good, "new", theirs, "repeat", theirs)
		calls, reset := 0, false
		f.store.SetHook(func(c storetest.Call) storetest.Fault {
			if c.Method == "Get" || c.Method == "Apply" {
				if calls++; calls == n {
					f.store.SetHook(nil)
					if _, err := f.users.SetPassword(t.Context(), "mia", other); err != nil {
						t.Error(err)
					}
					reset = true
				}
			}
			return storetest.Fault{}
		})
		a := b.do("POST", "/.afterlogin/password", form)
		f.store.SetHook(nil)
		if !reset {
			a.wants(t, "without a reset", 200, "Your password is changed")
			if n < 10 {
				t.Errorf("%d calls only", n-1)
			}
			return
		}
		if b.session() != nil {
			t.Errorf("reset before call %d: the session lives on (%d)", n, a.status)
		}
		// In the end, what the administrator has set is the password, whatever was said.
		f.pass(time.Hour)
		f.browser(f.app).signIn("mia", theirs, "").wants(t, "the thief's", 422)
		f.pass(time.Hour)
		if got := f.browser(f.app).signIn("mia", other, "/x"); got.to != "/x" {
			t.Errorf("reset before call %d, which was answered %d: the administrator's password: %d", n, a.status, got.status)
		}
	}
}

// The browser in which the password was changed is known afterwards; other browsers are strangers.
func TestKnownAfterChange(t *testing.T) {
	f := open(t, nil)
	b, there := f.browser(f.app), f.browser(f.app)
	b.signIn("mia", good, "")
	there.signIn("mia", good, "")
	a := b.do("POST", "/.afterlogin/password", b.get("/.afterlogin/password").fill("password", good, "new", other, "repeat", other))
	a.wants(t, "the change", 200, "is changed")
	for i := range 10 {
		f.from = netip.AddrFrom4([4]byte{203, 0, byte(i), 1})
		f.browser(f.app).signIn("mia", bad, "")
	}
	b.do("POST", "/.afterlogin/logout", b.get("/.afterlogin/logout").form())
	if a := b.signIn("mia", other, "/x"); a.to != "/x" {
		t.Errorf("this browser: %d", a.status)
	}
	there.signIn("mia", other, "/x").wants(t, "another, which knew the old one", 429)
}
