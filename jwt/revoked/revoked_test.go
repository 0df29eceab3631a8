package revoked_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/jwt"
	"github.com/afterlogin/afterlogin/jwt/revoked"
	"github.com/afterlogin/afterlogin/store/memstore"
)

const issuer = "https://auth.example"

// world is an issuer, and a service that verifies its tokens and follows its events.
type world struct {
	*testing.T
	a        *afterlogin.Authority
	verifier jwt.Verifier
	list     *revoked.List
}

// inWorld runs the test in a bubble, a minute after the service began to follow.
func inWorld(t *testing.T, o revoked.Options, test func(*world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		a, err := afterlogin.New(afterlogin.Config{Store: memstore.New(), Issuer: issuer})
		if err != nil {
			t.Fatal(err)
		}
		w := &world{T: t, a: a, list: revoked.New(o)}
		w.verifier = jwt.Verifier{Keys: a.JWKS(), Issuer: issuer, Audience: []string{"orders"}, Type: jwt.TypeAccessToken}
		ctx, cancel := context.WithCancel(context.Background())
		events, err := a.Watch(ctx, "")
		if err != nil {
			t.Fatal(err)
		}
		var followed sync.WaitGroup
		followed.Go(func() {
			for e, err := range events {
				if err != nil {
					if !errors.Is(err, context.Canceled) {
						w.list.Gap()
					}
					return
				}
				w.list.Add(revoked.Event{
					Type: e.Type, At: e.At, Session: string(e.Session), Root: string(e.Root), Tenant: e.Tenant,
					Subject: e.Subject, Except: string(e.Except), Everything: e.Everything,
				})
			}
		})
		defer func() {
			cancel()
			followed.Wait()
			a.Close()
		}()
		time.Sleep(time.Minute)
		test(w)
	})
}

func (w *world) signIn(subject string) afterlogin.Issued {
	w.Helper()
	return w.issue(afterlogin.IssueRequest{Subject: subject})
}

func (w *world) issue(r afterlogin.IssueRequest) afterlogin.Issued {
	w.Helper()
	got, err := w.a.Issue(w.Context(), r)
	if err != nil {
		w.Fatal(err)
	}
	return got
}

func (w *world) token(s *afterlogin.Session) string {
	w.Helper()
	got, err := w.a.IssueAccess(w.Context(), s, afterlogin.AccessRequest{JWT: true, Audience: []string{"orders"}})
	if err != nil {
		w.Fatal(err)
	}
	return got.Token.Reveal()
}

// check verifies the token as the service does.
func (w *world) check(token string) error {
	w.Helper()
	synctest.Wait() // until the events so far have been followed
	c, err := w.verifier.Verify(w.Context(), token)
	if err != nil {
		w.Fatalf("Verify: %v", err)
	}
	return w.list.Check(c)
}

func (w *world) want(token string, want error) {
	w.Helper()
	got := w.check(token)
	if !errors.Is(got, want) {
		w.Errorf("got %v, want %v", got, want)
	}
	if want == revoked.ErrRevoked && (!errors.Is(got, jwt.ErrInvalid) || jwt.ReasonOf(got) != revoked.ReasonRevoked) {
		w.Errorf("%v is no refusal", got)
	}
	// The issuer itself must be of the same mind.
	_, err := w.a.Validate(w.Context(), afterlogin.TokenFrom(token), afterlogin.Expect{Kinds: []afterlogin.Kind{afterlogin.KindJWT}, Audience: []string{"orders"}})
	if want != revoked.ErrUnknown && (err == nil) != (want == nil) {
		w.Errorf("the list says %v, the issuer %v", got, err)
	}
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func TestRevokeSession(t *testing.T) {
	inWorld(t, revoked.Options{}, func(w *world) {
		mia, also := w.signIn("mia"), w.signIn("mia")
		one, other := w.token(mia.Session), w.token(also.Session)
		w.want(one, nil)
		w.must(w.a.Revoke(w.Context(), mia.Session.ID, afterlogin.ReasonSignedOut))
		w.want(one, revoked.ErrRevoked)
		w.want(other, nil)
		time.Sleep(4 * time.Minute)
		w.want(one, revoked.ErrRevoked)
	})
}

// A session whose token is used by a copy ends, and its JWTs with it.
func TestReuse(t *testing.T) {
	inWorld(t, revoked.Options{}, func(w *world) {
		mia := w.signIn("mia")
		token := w.token(mia.Session)
		session := afterlogin.Expect{Kinds: []afterlogin.Kind{afterlogin.KindSession}}
		next, err := w.a.Rotate(w.Context(), mia.Token, session)
		w.must(err)
		_, err = w.a.Validate(w.Context(), next.Token, session)
		w.must(err)
		time.Sleep(2 * time.Minute)
		w.want(token, nil)
		if _, err := w.a.Validate(w.Context(), mia.Token, session); afterlogin.ReasonOf(err) != afterlogin.ReasonReused {
			w.Fatalf("the copy: %v", err)
		}
		w.want(token, revoked.ErrRevoked)
	})
}

func TestSuperseded(t *testing.T) {
	inWorld(t, revoked.Options{}, func(w *world) {
		mia := w.signIn("mia")
		token := w.token(mia.Session)
		again := w.issue(afterlogin.IssueRequest{Subject: "mia", From: mia.Token})
		w.want(token, revoked.ErrRevoked)
		w.want(w.token(again.Session), nil)
	})
}

func TestRevokeSubject(t *testing.T) {
	inWorld(t, revoked.Options{}, func(w *world) {
		a, b, tom := w.signIn("mia"), w.signIn("mia"), w.signIn("tom")
		key := w.issue(afterlogin.IssueRequest{Subject: "mia", Kind: afterlogin.KindAPIKey})
		tokens := []string{w.token(a.Session), w.token(b.Session)}
		toms, keys := w.token(tom.Session), w.token(key.Session)
		w.must(w.a.RevokeSubject(w.Context(), 0, "mia", afterlogin.Sessions, afterlogin.ReasonAdministrator))
		for _, token := range tokens {
			w.want(token, revoked.ErrRevoked)
		}
		w.want(toms, nil)
		w.want(keys, nil)
		// Who signs in again at once, in the same second, is let in at once.
		again := w.token(w.signIn("mia").Session)
		w.want(again, nil)
		w.must(w.a.RevokeSubject(w.Context(), 0, "mia", afterlogin.Everything, afterlogin.ReasonAdministrator))
		w.want(again, revoked.ErrRevoked)
		w.want(keys, revoked.ErrRevoked)
		w.want(toms, nil)
		for _, token := range tokens {
			w.want(token, revoked.ErrRevoked)
		}
		w.want(w.token(w.issue(afterlogin.IssueRequest{Subject: "mia", Kind: afterlogin.KindAPIKey}).Session), nil)
	})
}

// An API key that was made right after everything ended is good, whatever happens to the sessions then.
func TestKeysBetweenSignOuts(t *testing.T) {
	inWorld(t, revoked.Options{}, func(w *world) {
		w.signIn("mia")
		newKey := func() string {
			return w.token(w.issue(afterlogin.IssueRequest{Subject: "mia", Kind: afterlogin.KindAPIKey}).Session)
		}
		old := newKey()
		w.must(w.a.RevokeSubject(w.Context(), 0, "mia", afterlogin.Everything, afterlogin.ReasonAdministrator))
		key := newKey()
		session := w.token(w.signIn("mia").Session)
		w.want(key, nil)
		time.Sleep(time.Second)
		w.must(w.a.RevokeSubject(w.Context(), 0, "mia", afterlogin.Sessions, afterlogin.ReasonAdministrator))
		w.want(key, nil)
		w.want(session, revoked.ErrRevoked)
		w.want(old, revoked.ErrRevoked)
		here := w.signIn("mia")
		w.must(w.a.RevokeOthers(w.Context(), here.Session.ID, afterlogin.ReasonSignedOutAll))
		w.want(key, nil)
		w.want(w.token(here.Session), nil)
		w.must(w.a.RevokeSubject(w.Context(), 0, "mia", afterlogin.Everything, afterlogin.ReasonAdministrator))
		w.want(key, revoked.ErrRevoked)
		w.want(newKey(), nil)
	})
}

func TestRevokeOthers(t *testing.T) {
	inWorld(t, revoked.Options{}, func(w *world) {
		here, there := w.signIn("mia"), w.signIn("mia")
		mine, other := w.token(here.Session), w.token(there.Session)
		w.must(w.a.RevokeOthers(w.Context(), here.Session.ID, afterlogin.ReasonSignedOutAll))
		w.want(mine, nil)
		w.want(other, revoked.ErrRevoked)
		w.want(w.token(here.Session), nil)
		time.Sleep(2 * time.Minute)
		w.want(w.token(w.signIn("mia").Session), nil)
		w.must(w.a.RevokeOthers(w.Context(), w.signIn("mia").Session.ID, afterlogin.ReasonSignedOutAll)) // of another: the first is not spared any more
		w.want(mine, revoked.ErrRevoked)
	})
}

// An online grant ends alone, and its tokens with it; a client's own tokens end with the client.
func TestGrantsAndClients(t *testing.T) {
	inWorld(t, revoked.Options{}, func(w *world) {
		mia := w.signIn("mia")
		grant := func(offline bool) (afterlogin.Grant, string) {
			g, err := w.a.IssueGrant(w.Context(), mia.Session, afterlogin.GrantRequest{
				Client: "app", Offline: offline, Audience: []string{"orders"}, Access: afterlogin.AccessRequest{JWT: true},
			})
			w.must(err)
			return g, g.Access.Token.Reveal()
		}
		online, token := grant(false)
		_, other := grant(false)
		_, offline := grant(true)
		w.must(w.a.Revoke(w.Context(), online.Refresh.Session.ID, afterlogin.ReasonAdministrator))
		w.want(token, revoked.ErrRevoked)
		w.want(other, nil)
		w.want(offline, nil)
		w.must(w.a.Revoke(w.Context(), mia.Session.ID, afterlogin.ReasonAdministrator))
		w.want(other, revoked.ErrRevoked)
		w.want(offline, nil)

		c, err := w.a.AddClient(w.Context(), 0, "app", []byte(`{}`))
		w.must(err)
		own := w.token(c.Session)
		w.must(w.a.RevokeSubject(w.Context(), 0, "app", afterlogin.Everything, afterlogin.ReasonAdministrator)) // a subject of the same name
		w.want(own, nil)
		w.must(w.a.RemoveClient(w.Context(), 0, "app"))
		w.want(own, revoked.ErrRevoked)
	})
}

// What was handed over to another host, and what was exchanged, can be ended by itself.
func TestBetween(t *testing.T) {
	inWorld(t, revoked.Options{}, func(w *world) {
		mia := w.signIn("mia")
		ticket, err := w.a.IssueTicket(w.Context(), mia.Session, afterlogin.TicketRequest{Target: "https://b.example/"})
		w.must(err)
		there, err := w.a.RedeemTicket(w.Context(), ticket.Token, afterlogin.TicketUse{Target: "https://b.example/", Open: true})
		w.must(err)
		opaque, err := w.a.IssueAccess(w.Context(), there.Session, afterlogin.AccessRequest{})
		w.must(err)
		here, one, two := w.token(mia.Session), w.token(there.Session), w.token(opaque.Session)
		w.must(w.a.Revoke(w.Context(), opaque.Session.ID, afterlogin.ReasonAdministrator))
		w.want(two, revoked.ErrRevoked)
		w.want(one, nil)
		w.must(w.a.Revoke(w.Context(), there.Session.ID, afterlogin.ReasonSignedOut))
		w.want(one, revoked.ErrRevoked)
		w.want(here, nil)
	})
}

// A list that missed something says so, and still refuses what it knows.
func TestUnknown(t *testing.T) {
	inWorld(t, revoked.Options{Silence: time.Minute}, func(w *world) {
		mia, tom := w.signIn("mia"), w.signIn("tom")
		mias, toms := w.token(mia.Session), w.token(tom.Session)
		w.must(w.a.Revoke(w.Context(), mia.Session.ID, afterlogin.ReasonSignedOut))
		w.want(toms, nil)
		synctest.Wait()
		w.list.Gap()
		w.want(toms, revoked.ErrUnknown)
		w.want(mias, revoked.ErrRevoked)
		time.Sleep(45 * time.Second)
		later := w.token(tom.Session)
		w.want(later, nil)
		w.want(toms, revoked.ErrUnknown)
		time.Sleep(45 * time.Second)
		w.want(later, revoked.ErrUnknown) // silence
		w.want(mias, revoked.ErrRevoked)
		w.list.Heard()
		w.want(later, nil)
	})
	l := revoked.New(revoked.Options{})
	for name, c := range map[string]*jwt.Claims{
		"nil":                       nil,
		"no session":                {Subject: "mia", IssuedAt: time.Now().Add(time.Hour)},
		"a session without a kind":  {SessionID: "x", IssuedAt: time.Now().Add(time.Hour)},
		"under what is no list":     {SessionID: "ses_x", IssuedAt: time.Now().Add(time.Hour), Extra: map[string]json.RawMessage{"under": json.RawMessage("1")}},
		"from before the list":      {SessionID: "ses_x", IssuedAt: time.Now().Add(-time.Second)},
		"from the list's beginning": {SessionID: "ses_x", IssuedAt: time.Now()},
	} {
		if err := l.Check(c); !errors.Is(err, revoked.ErrUnknown) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What is remembered is bounded, in time and in number, and what is forgotten too early is not known.
func TestBounds(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	l := revoked.New(revoked.Options{Max: 100, Keep: 10 * time.Minute, Now: func() time.Time { return now }})
	claims := func(i int) *jwt.Claims { return &jwt.Claims{SessionID: fmt.Sprintf("ses_%d", i), IssuedAt: now} }
	end := func(i int) { l.Add(revoked.Event{Type: "session.revoked", At: now, Session: fmt.Sprintf("ses_%d", i)}) }
	now = now.Add(time.Minute)
	old := claims(1000)
	end(0)
	for i := range 60 { // over half of Max: a second generation
		end(i)
	}
	for i := range 60 {
		if err := l.Check(claims(i)); err != revoked.ErrRevoked {
			t.Fatalf("%d: %v", i, err)
		}
	}
	if err := l.Check(old); err != nil {
		t.Fatal(err)
	}
	for i := range 1000 {
		end(i)
	}
	if err := l.Check(old); !errors.Is(err, revoked.ErrUnknown) {
		t.Errorf("after an overflow: %v", err)
	}
	if err := l.Check(claims(999)); err != revoked.ErrRevoked {
		t.Errorf("the latest: %v", err)
	}
	now = now.Add(12 * time.Minute)
	end(5000)
	now = now.Add(12 * time.Minute)
	end(5001)
	if err := l.Check(claims(999)); err != nil {
		t.Errorf("long forgotten: %v", err)
	}
	if err := l.Check(claims(5000)); err != revoked.ErrRevoked {
		t.Errorf("of the generation before: %v", err)
	}
	for i := range 1000 { // sign-ins right after a sign-out: some are refused too much, none too little
		if i == 0 {
			l.Add(revoked.Event{Type: "subject.signed_out", At: now, Subject: "mia"})
		}
		id := fmt.Sprintf("ses_m%d", i)
		l.Add(revoked.Event{Type: "session.created", At: now, Subject: "mia", Session: id, Root: id})
	}
	last := &jwt.Claims{Subject: "mia", SessionID: "ses_m999", IssuedAt: now}
	if err := l.Check(last); err != nil {
		t.Error(err)
	}
	last.SessionID = "ses_other"
	if err := l.Check(last); err != revoked.ErrRevoked {
		t.Error(err)
	}
	last.Tenant = 1
	if err := l.Check(last); err != nil {
		t.Error(err)
	}
}

// The session that a sign-out spared is spared however many follow, and across the generations.
func TestExcept(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	l := revoked.New(revoked.Options{Keep: 10 * time.Minute, Now: func() time.Time { return now }})
	now = now.Add(time.Minute)
	add := func(typ, id string) {
		l.Add(revoked.Event{Type: typ, At: now, Subject: "mia", Session: id, Root: id})
	}
	want := func(id string, issued time.Time, want error) {
		t.Helper()
		if err := l.Check(&jwt.Claims{Subject: "mia", SessionID: id, IssuedAt: issued}); err != want {
			t.Errorf("%s: %v, want %v", id, err, want)
		}
	}
	l.Add(revoked.Event{Type: "subject.signed_out", At: now, Subject: "mia", Everything: true})
	add("api_key.created", "key_k")
	l.Add(revoked.Event{Type: "subject.signed_out", At: now, Subject: "mia", Except: "ses_here"})
	for i := range 200 {
		add("session.created", fmt.Sprintf("ses_%d", i))
	}
	for i := range 60 {
		add("grant.created", fmt.Sprintf("grant_%d", i))
	}
	signedOut := now
	for generation := range 2 {
		want("ses_here", signedOut, nil)
		want("key_k", signedOut, nil)
		want("key_other", signedOut, revoked.ErrRevoked)
		want("ses_199", signedOut, nil)
		want("ses_there", signedOut, revoked.ErrRevoked)
		if generation == 0 {
			now = now.Add(12 * time.Minute)
			l.Add(revoked.Event{Type: "session.revoked", At: now, Session: "ses_x", Root: "ses_x"})
		}
	}
	// A sign-out now takes what is left of the one before into its own generation.
	l.Add(revoked.Event{Type: "subject.signed_out", At: now, Subject: "mia"})
	want("ses_here", now, revoked.ErrRevoked)
	want("key_k", signedOut, nil)
	want("key_other", signedOut, revoked.ErrRevoked)
	want("key_other", now, nil)
}

// Whatever the events say, Check answers, and an ended session stays ended.
func FuzzEvents(f *testing.F) {
	f.Add("session.revoked", "ses_a", "ses_a", "mia", "ses_b", true)
	f.Add("subject.signed_out", "", "", "mia", "_", false)
	f.Add("store.rolled_back", "ses_", "x", "", "", false)
	f.Fuzz(func(t *testing.T, typ, session, root, subject, except string, everything bool) {
		l := revoked.New(revoked.Options{})
		l.Add(revoked.Event{Type: "session.revoked", Session: "ses_ended", Root: "ses_ended"})
		l.Add(revoked.Event{Type: typ, Session: session, Root: root, Subject: subject, Except: except, Everything: everything, At: time.Now()})
		if err := l.Check(&jwt.Claims{SessionID: "ses_ended", Subject: subject}); err != revoked.ErrRevoked {
			t.Fatal(err)
		}
		l.Check(&jwt.Claims{SessionID: session, Subject: subject})
	})
}
