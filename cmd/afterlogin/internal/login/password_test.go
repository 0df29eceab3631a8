package login

import (
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

// A store that fails between the steps of a change: the person is told that it is not known, and can go on.
func TestChangePasswordStoreDown(t *testing.T) {
	f := open(t, nil)
	b, there := f.browser(f.app), f.browser(f.app)
	b.signIn("mia", good, "")
	there.signIn("mia", good, "")
	page := b.get("/.afterlogin/password")
	form := page.fill("password", good, "new", other, "repeat", other)
	writes := 0
	f.store.SetHook(func(c storetest.Call) storetest.Fault {
		if c.Method == "Apply" {
			if writes++; writes > 1 {
				return storetest.Fault{Before: storetest.ErrFault}
			}
		}
		return storetest.Fault{}
	})
	a := b.do("POST", "/.afterlogin/password", form)
	a.wants(t, "the second write fails", 503, "It is not known whether your password was changed")
	if a.header.Get("Retry-After") == "" || there.session() == nil {
		t.Errorf("Retry-After %q, the other session %+v", a.header.Get("Retry-After"), there.session())
	}
	f.store.SetHook(nil)
	f.pass(time.Minute)
	f.browser(f.app).signIn("mia", good, "").wants(t, "the old password", 422)
	if a := f.browser(f.app).signIn("mia", other, "/x"); a.to != "/x" {
		t.Errorf("the new password: %d", a.status)
	}
	if there.session() != nil {
		t.Error("a session from before the change lives on after a sign-in with the new password")
	}
}
