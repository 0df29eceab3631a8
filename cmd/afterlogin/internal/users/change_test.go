package users

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/store"
	"github.com/afterlogin/afterlogin/store/memstore"
	"github.com/afterlogin/afterlogin/store/storetest"
)

var yes, no = true, false

func TestPasswordChange(t *testing.T) {
	f := open(t, nil, quick)
	f.add("mia")
	f.add("tom")
	here, there, key, toms := f.signIn("mia", afterlogin.KindSession), f.signIn("mia", afterlogin.KindSession), f.signIn("mia", afterlogin.KindAPIKey), f.signIn("tom", afterlogin.KindSession)
	u, err := f.change("mia", other, here.Session.ID)
	if err != nil || u.Pending {
		t.Fatalf("%+v, %v", u, err)
	}
	if !f.alive(here) || f.alive(there) || !f.alive(key) || !f.alive(toms) {
		t.Errorf("the session that changed it %t, the other %t, the API key %t, somebody else's %t", f.alive(here), f.alive(there), f.alive(key), f.alive(toms))
	}
	f.wants("mia", good, false)
	here = f.signIn("mia", afterlogin.KindSession)
	f.wants("mia", other, true)
	if _, err := f.SetPassword(t.Context(), "mia", good); err != nil || f.alive(here) || !f.alive(key) {
		t.Errorf("without a session to spare: %v", err)
	}
	if _, err := f.SetPassword(t.Context(), "nobody", good); !errors.Is(err, ErrNoUser) {
		t.Errorf("nobody: %v", err)
	}
	var field *FieldError
	if _, err := f.SetPassword(t.Context(), "mia", "password"); !errors.As(err, &field) {
		t.Errorf("a bad one: %v", err)
	}
	// A session to spare that is over already, or somebody else's, or none at all.
	over := f.signIn("mia", afterlogin.KindSession)
	f.a.Revoke(t.Context(), over.Session.ID, afterlogin.ReasonSignedOut)
	left := f.signIn("mia", afterlogin.KindSession)
	if _, err := f.change("mia", other, over.Session.ID); err != nil || f.alive(left) {
		t.Errorf("with a session to spare that is over: %v, %t", err, f.alive(left))
	}
}

func TestDisable(t *testing.T) {
	f := open(t, nil, quick)
	f.add("mia")
	s, key := f.signIn("mia", afterlogin.KindSession), f.signIn("mia", afterlogin.KindAPIKey)
	u, err := f.Update(t.Context(), "mia", Change{Disabled: &yes})
	if err != nil || !u.Disabled || u.Pending || f.alive(s) || f.alive(key) {
		t.Fatalf("%+v, %v; session %t, API key %t", u, err, f.alive(s), f.alive(key))
	}
	f.wants("mia", good, false)
	if _, err := f.SetPassword(t.Context(), "mia", other); err != nil {
		t.Fatal(err)
	}
	f.wants("mia", other, false) // a new password does not enable
	if u, err = f.Update(t.Context(), "mia", Change{Disabled: &no}); err != nil || u.Disabled || f.alive(s) || f.alive(key) {
		t.Errorf("enabled: %+v, %v", u, err)
	}
	f.wants("mia", other, true)
}

func TestScopes(t *testing.T) {
	f := open(t, nil, quick)
	f.add("mia")
	s := f.signIn("mia", afterlogin.KindSession)
	if u, err := f.Update(t.Context(), "mia", Change{Scopes: &[]string{"write", "read", "more"}}); err != nil || len(u.Scopes) != 3 || !f.alive(s) {
		t.Errorf("one more: %+v, %v, %t", u, err, f.alive(s))
	}
	if u, err := f.Update(t.Context(), "mia", Change{Scopes: &[]string{"read", "more"}}); err != nil || len(u.Scopes) != 2 || f.alive(s) {
		t.Errorf("one less: %+v, %v, %t", u, err, f.alive(s))
	}
	if v, err := f.verify("mia", good); err != nil || len(v.User.Scopes) != 2 {
		t.Errorf("%+v, %v", v, err)
	}
}

// A change while a password is being checked wins.
func TestChangeDuringSignIn(t *testing.T) {
	for name, change := range map[string]func(*fixture) error{
		"password": func(f *fixture) error { _, err := f.SetPassword(t.Context(), "mia", other); return err },
		"disable":  func(f *fixture) error { _, err := f.Update(t.Context(), "mia", Change{Disabled: &yes}); return err },
		"scopes": func(f *fixture) error {
			_, err := f.Update(t.Context(), "mia", Change{Scopes: &[]string{}})
			return err
		},
	} {
		for _, known := range []bool{false, true} { // whether the subject has ever signed in
			f := open(t, nil, quick)
			f.add("mia")
			if known {
				f.signIn("mia", afterlogin.KindSession)
			}
			v, err := f.verify("mia", good)
			if err != nil {
				t.Fatal(err)
			}
			if err := change(f); err != nil {
				t.Fatal(err)
			}
			if _, err := f.a.Issue(t.Context(), afterlogin.IssueRequest{Subject: "mia", Mark: v.Mark}); !errors.Is(err, afterlogin.ErrStaleSignIn) {
				t.Errorf("%s, known %t: %v", name, known, err)
			}
		}
	}
}

// A change takes three writes. Whichever fails, before it happened or after, and whether it is the last thing that this
// node does: the old password is refused from the first write on, sessions from before the change are ended or the record
// says that they are not, and whoever comes next ends them.
func TestChangeThatFails(t *testing.T) {
	changes := map[string]func(*fixture) error{
		"password": func(f *fixture) error { _, err := f.SetPassword(t.Context(), "mia", other); return err },
		"disable":  func(f *fixture) error { _, err := f.Update(t.Context(), "mia", Change{Disabled: &yes}); return err },
		"scopes": func(f *fixture) error {
			_, err := f.Update(t.Context(), "mia", Change{Scopes: &[]string{}})
			return err
		},
	}
	next := map[string]func(*fixture) error{
		"again": nil,
		"finish": func(f *fixture) error {
			f.pass(underWay)
			n, err := f.Finish(t.Context())
			if n > 1 {
				t.Errorf("%d finished", n)
			}
			return err
		},
		"sign-in": func(f *fixture) error {
			for _, p := range []string{good, other} {
				f.pass(time.Hour)
				if _, err := f.verify("mia", p); err != nil && !errors.Is(err, ErrWrong) {
					return err
				}
			}
			return nil
		},
	}
	for what, change := range changes {
		for write := 1; write <= 3; write++ {
			for _, after := range []bool{false, true} {
				for who, then := range next {
					faulty := storetest.NewFaulty(memstore.New(), nil)
					f := open(t, faulty, quick)
					f.add("mia")
					s, key := f.signIn("mia", afterlogin.KindSession), f.signIn("mia", afterlogin.KindAPIKey)
					count, down := 0, false
					faulty.SetHook(func(c storetest.Call) storetest.Fault {
						if c.Method == "Apply" {
							count++
						}
						switch {
						case down: // the rest of this node's life
							return storetest.Fault{Before: storetest.ErrFault}
						case c.Method == "Apply" && count == write:
							down = true
							if after {
								return storetest.Fault{After: store.ErrUnknown}
							}
							return storetest.Fault{Before: storetest.ErrFault}
						}
						return storetest.Fault{}
					})
					if err := change(f); err == nil {
						t.Errorf("%s: write %d fails (after %t), and the change does not", what, write, after)
					}
					faulty.SetHook(nil)
					u, err := f.User(t.Context(), "mia")
					if err != nil {
						t.Fatal(err)
					}
					made := write > 1 || after // the first write is there
					ended := write > 2 || write == 2 && after
					if u.Pending != (made && !(write == 3 && after)) {
						t.Errorf("%s, write %d, after %t: pending %t", what, write, after, u.Pending)
					}
					if f.alive(s) == ended {
						t.Errorf("%s, write %d, after %t: the session's life is %t", what, write, after, f.alive(s))
					}
					if what != "scopes" && made {
						if what == "disable" {
							// Not with verify, which would make up for the change.
							_, d, _ := f.read(t.Context(), "mia")
							if !d.Disabled {
								t.Errorf("%s, write %d: not disabled", what, write)
							}
						} else if ok, _, _ := f.hasher.compare(good, hashOf(f)); ok {
							t.Errorf("%s, write %d: the old password is good", what, write)
						}
					}
					if then == nil {
						err = change(f)
					} else {
						err = then(f)
					}
					if err != nil {
						t.Fatal(err)
					}
					u, err = f.User(t.Context(), "mia")
					if err != nil {
						t.Fatal(err)
					}
					if who == "sign-in" && what == "disable" && made && !(write == 3 && after) {
						// Nobody signs in, so that nobody makes up for it there; Finish does.
						if !u.Pending {
							t.Errorf("%s by %s: not pending", what, who)
						}
						continue
					}
					if u.Pending || (made || who == "again") && f.alive(s) {
						t.Errorf("%s, write %d, after %t, then %s: pending %t, the session lives %t", what, write, after, who, u.Pending, f.alive(s))
					}
					if dead := what == "disable"; (made || who == "again") && f.alive(key) == dead {
						t.Errorf("%s, write %d, after %t, then %s: the API key lives %t", what, write, after, who, f.alive(key))
					}
				}
			}
		}
	}
}

func hashOf(f *fixture) string {
	_, d, err := f.read(f.t.Context(), "mia")
	if err != nil {
		f.t.Fatal(err)
	}
	return d.Hash
}

// A disable that meets a change of the password ends API keys, too, whichever of them carries it through.
func TestTwoChanges(t *testing.T) {
	faulty := storetest.NewFaulty(memstore.New(), nil)
	f := open(t, faulty, quick)
	f.add("mia")
	here, key := f.signIn("mia", afterlogin.KindSession), f.signIn("mia", afterlogin.KindAPIKey)
	count := 0
	faulty.SetHook(func(c storetest.Call) storetest.Fault {
		if c.Method == "Apply" {
			if count++; count > 1 {
				return storetest.Fault{Before: storetest.ErrFault}
			}
		}
		return storetest.Fault{}
	})
	if _, err := f.Update(t.Context(), "mia", Change{Disabled: &yes}); !errors.Is(err, afterlogin.ErrUnavailable) || !f.alive(key) {
		t.Fatalf("%v", err)
	}
	faulty.SetHook(nil)
	if _, err := f.SetPassword(t.Context(), "mia", other); err != nil || f.alive(key) || f.alive(here) {
		t.Errorf("%v; the API key lives %t, the session %t", err, f.alive(key), f.alive(here))
	}
}

// What an operator's change was to end is not spared by the next one, which meant to spare the session it was made in.
func TestPendingSparesNothing(t *testing.T) {
	faulty := storetest.NewFaulty(memstore.New(), nil)
	f := open(t, faulty, quick)
	f.add("mia")
	here := f.signIn("mia", afterlogin.KindSession)
	count := 0
	faulty.SetHook(func(c storetest.Call) storetest.Fault {
		if c.Method == "Apply" {
			if count++; count > 1 {
				return storetest.Fault{Before: storetest.ErrFault}
			}
		}
		return storetest.Fault{}
	})
	if _, err := f.SetPassword(t.Context(), "mia", other); !errors.Is(err, afterlogin.ErrUnavailable) || !f.alive(here) {
		t.Fatalf("%v", err)
	}
	faulty.SetHook(nil)
	if u, err := f.change("mia", good, here.Session.ID); err != nil || u.Pending || f.alive(here) {
		t.Errorf("%+v, %v; the session lives %t", u, err, f.alive(here))
	}
}

// change is a change of the password by the user, which spares a session.
func (f *fixture) change(name, password string, spare afterlogin.SessionID) (*User, error) {
	f.t.Helper()
	u, err := f.User(f.t.Context(), name)
	if err != nil {
		f.t.Fatal(err)
	}
	return f.ChangePassword(f.t.Context(), &Verified{User: u}, password, spare)
}

// Run ends what was left as soon as it begins, and itself when it is told to.
func TestRun(t *testing.T) {
	faulty := storetest.NewFaulty(memstore.New(), nil)
	f := open(t, faulty, quick)
	f.add("mia")
	s := f.signIn("mia", afterlogin.KindSession)
	count := 0
	faulty.SetHook(func(c storetest.Call) storetest.Fault {
		if c.Method == "Apply" {
			if count++; count == 2 {
				return storetest.Fault{Before: storetest.ErrFault}
			}
		}
		return storetest.Fault{}
	})
	if _, err := f.Update(t.Context(), "mia", Change{Disabled: &yes}); err == nil {
		t.Fatal("no fault")
	}
	f.pass(underWay)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.Run(ctx)
	}()
	for f.alive(s) {
		runtime.Gosched()
	}
	cancel()
	<-done
}

// A store that does not answer is no answer, and no try.
func TestUnavailable(t *testing.T) {
	faulty := storetest.NewFaulty(memstore.New(), nil)
	f := open(t, faulty, quick)
	f.add("mia")
	faulty.SetHook(func(c storetest.Call) storetest.Fault { return storetest.Fault{Before: storetest.ErrFault} })
	for range 100 {
		if _, err := f.verify("mia", good); !errors.Is(err, afterlogin.ErrUnavailable) || errors.Is(err, ErrWrong) {
			t.Fatalf("%v", err)
		}
	}
	faulty.SetHook(nil)
	if _, err := f.verify("mia", good); err != nil {
		t.Errorf("after it: %v", err)
	}
}

// An administrator who takes an account back wins against somebody who knows the old password, whenever the reset comes.
func TestResetWins(t *testing.T) {
	const theirs = "a password of the thief's"
	for _, when := range []string{"after Verify", "first read", "first write"} {
		faulty := storetest.NewFaulty(memstore.New(), nil)
		f := open(t, faulty, quick)
		f.add("mia")
		s := f.signIn("mia", afterlogin.KindSession)
		v, err := f.verify("mia", good)
		if err != nil {
			t.Fatal(err)
		}
		reset := func() {
			faulty.SetHook(nil)
			if _, err := f.SetPassword(t.Context(), "mia", other); err != nil {
				t.Error(err)
			}
		}
		switch when {
		case "after Verify": // in the same millisecond
			reset()
		default:
			method := map[string]string{"first read": "Get", "first write": "Apply"}[when]
			faulty.SetHook(func(c storetest.Call) storetest.Fault {
				if c.Method == method {
					reset()
				}
				return storetest.Fault{}
			})
		}
		if _, err := f.ChangePassword(t.Context(), v, theirs, s.Session.ID); !errors.Is(err, ErrChanged) {
			t.Errorf("%s: %v", when, err)
		}
		if f.alive(s) {
			t.Errorf("%s: the session lives on", when)
		}
		f.wants("mia", theirs, false)
		f.wants("mia", other, true)
	}
}

// The same, over and over, while the other tries all the time.
func TestResetWinsALoop(t *testing.T) {
	const theirs = "a password of the thief's"
	f := open(t, nil, quick)
	f.add("mia")
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var tries atomic.Int64
	for range 4 {
		wg.Go(func() {
			for ctx.Err() == nil {
				tries.Add(1)
				// What he knows is the old password, and any that he sets.
				for _, p := range []string{good, theirs} {
					if v, err := f.verify("mia", p); err == nil {
						f.ChangePassword(ctx, v, theirs, "")
					}
				}
				f.pass(time.Minute)
			}
		})
	}
	for tries.Load() < 8 {
		runtime.Gosched()
	}
	var err error
	for { // it meets the other's changes
		if _, err = f.SetPassword(t.Context(), "mia", other); !errors.Is(err, ErrChanged) {
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	for end := tries.Load() + 40; tries.Load() < end; {
		runtime.Gosched()
	}
	cancel()
	wg.Wait()
	f.wants("mia", theirs, false)
	f.wants("mia", other, true)
}

// A hash that is made anew is no other password, and a user who was disabled meanwhile changes none.
func TestChangeAfterRehash(t *testing.T) {
	f := open(t, nil, quick)
	f.add("mia")
	v, err := f.verify("mia", good)
	if err != nil {
		t.Fatal(err)
	}
	had := hashOf(f)
	stronger := quick
	stronger.Time++
	if _, err := f.list(stronger).Verify(t.Context(), "mia", good, From{Addr: elsewhere}); err != nil || hashOf(f) == had {
		t.Fatalf("%v, or the hash is the same", err)
	}
	if _, err := f.ChangePassword(t.Context(), v, other, ""); err != nil {
		t.Errorf("after a rehash: %v", err)
	}
	if v, err = f.verify("mia", other); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Update(t.Context(), "mia", Change{Disabled: &yes}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.ChangePassword(t.Context(), v, good, ""); !errors.Is(err, ErrChanged) {
		t.Errorf("disabled meanwhile: %v", err)
	}
}

// Finish looks at a list that is of a while ago. Who signed in after the change was carried through stays signed in, and a
// change that is under way is not touched.
func TestFinishLeavesTheNew(t *testing.T) {
	faulty := storetest.NewFaulty(memstore.New(), nil)
	f := open(t, faulty, quick)
	f.add("mia")
	count := 0
	faulty.SetHook(func(c storetest.Call) storetest.Fault {
		if c.Method == "Apply" {
			if count++; count > 1 {
				return storetest.Fault{Before: storetest.ErrFault}
			}
		}
		return storetest.Fault{}
	})
	if _, err := f.SetPassword(t.Context(), "mia", other); err == nil {
		t.Fatal("no fault")
	}
	faulty.SetHook(nil)
	// It may be under way.
	if n, err := f.Finish(t.Context()); n != 0 || err != nil {
		t.Errorf("at once: %d, %v", n, err)
	}
	f.pass(underWay)
	// It is made up for by the next sign-in, between the list and what Finish does with it.
	var s afterlogin.Issued
	listed := false
	faulty.SetHook(func(c storetest.Call) storetest.Fault {
		switch {
		case c.Method == "List":
			listed = true
		case (c.Method == "Get" || c.Method == "Apply") && listed:
			faulty.SetHook(nil)
			if _, err := f.verify("mia", other); err != nil {
				t.Error(err)
			}
			s = f.signIn("mia", afterlogin.KindSession)
		}
		return storetest.Fault{}
	})
	if n, err := f.Finish(t.Context()); n != 0 || err != nil {
		t.Errorf("after it was made up for: %d, %v", n, err)
	}
	faulty.SetHook(nil)
	if s.Session == nil { // it asked for nothing after the list: then there was nothing to get wrong
		t.Fatal("the store was not asked")
	}
	if !f.alive(s) {
		t.Error("a session from after the change was ended")
	}
}

// A record that cannot be read hides its own user, and nobody else.
func TestUnreadable(t *testing.T) {
	f := open(t, nil, quick)
	f.add("mia")
	f.add("tom")
	if _, err := f.a.AddEntry(t.Context(), afterlogin.EntryRequest{Realm: Realm, Name: "later", Detail: []byte(`{"version":9}`)}); err != nil {
		t.Fatal(err)
	}
	var names []string
	for u, err := range f.All(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, u.Name)
	}
	if len(names) != 2 || !strings.Contains(f.log.String(), "user=later") {
		t.Errorf("%v; %s", names, f.log.String())
	}
	if _, err := f.User(t.Context(), "later"); err == nil || errors.Is(err, ErrNoUser) {
		t.Errorf("the user itself: %v", err)
	}
}
