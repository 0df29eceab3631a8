package httpauth_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/httpauth"
	"github.com/afterlogin/afterlogin/store/memstore"
)

// site is an authority with a middleware, for handlers that are called in process.
func site(t *testing.T) (*afterlogin.Authority, *httpauth.Auth) {
	t.Helper()
	a, err := afterlogin.New(afterlogin.Config{Store: memstore.New()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	auth, err := httpauth.New(a, httpauth.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return a, auth
}

func ask(h http.Handler, method string, headers ...string) *http.Response {
	r := httptest.NewRequest(method, "https://shop.example/", nil)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

var ok = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "ok") })

// An API key that an outer Require lets through does not pass an inner one that wants sessions.
func TestNestedRequireLooksAtTheKind(t *testing.T) {
	a, auth := site(t)
	key, err := a.Issue(t.Context(), afterlogin.IssueRequest{Subject: "robot", Kind: afterlogin.KindAPIKey})
	if err != nil {
		t.Fatal(err)
	}
	h := auth.Require(auth.Require(ok), httpauth.Kinds(afterlogin.KindSession, afterlogin.KindAPIKey))
	if got := ask(h, "GET", "X-Api-Key", key.Token.Reveal()); got.StatusCode != http.StatusUnauthorized {
		t.Errorf("an API key where sessions are wanted: %s", got.Status)
	}
}

// A request that was under way at a sign-in or a step-up does not push the new cookie out with an anonymous one.
func TestALateRequestDoesNotTakeTheCookiesPlace(t *testing.T) {
	for name, replace := range map[string]func(*afterlogin.Authority, afterlogin.Token) error{
		"sign-in": func(a *afterlogin.Authority, old afterlogin.Token) error {
			_, err := a.Issue(t.Context(), afterlogin.IssueRequest{Subject: "mia", From: old})
			return err
		},
		"step-up": func(a *afterlogin.Authority, old afterlogin.Token) error {
			_, err := a.StepUp(t.Context(), old, afterlogin.Authentication{Methods: []string{"otp"}}, afterlogin.Client{})
			return err
		},
	} {
		a, auth := site(t)
		in, err := a.Issue(t.Context(), afterlogin.IssueRequest{Subject: "mia"})
		if err != nil {
			t.Fatal(err)
		}
		if err := replace(a, in.Token); err != nil {
			t.Fatal(err)
		}
		h := auth.Optional(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			err := auth.UpdateData(w, r, func(d *afterlogin.Data) error { return d.Set("seen", "mug") })
			if err != nil {
				httpauth.Answer(w, r, err)
			}
		}))
		got := ask(h, "GET", "Cookie", httpauth.CookieName+"="+in.Token.Reveal())
		if got.StatusCode != http.StatusUnauthorized || len(got.Cookies()) != 0 {
			t.Errorf("%s: %s, %d cookies", name, got.Status, len(got.Cookies()))
		}
	}
}

// Who presses "sign out" and closes the tab is signed out.
func TestSignOutOfAClientThatIsGone(t *testing.T) {
	a, auth := site(t)
	in, err := a.Issue(t.Context(), afterlogin.IssueRequest{Subject: "mia"})
	if err != nil {
		t.Fatal(err)
	}
	h := auth.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		gone, cancel := context.WithCancel(r.Context())
		cancel()
		if err := auth.SignOut(w, r.WithContext(gone)); err != nil {
			t.Error(err)
		}
	}))
	ask(h, "GET", "Cookie", httpauth.CookieName+"="+in.Token.Reveal())
	if _, err := a.Validate(t.Context(), in.Token, afterlogin.Expect{Kinds: []afterlogin.Kind{afterlogin.KindSession}}); afterlogin.ReasonOf(err) != afterlogin.ReasonRevoked {
		t.Errorf("still %v", err)
	}
}

// A step-up that a time limit overtakes does not end the session.
func TestALateStepUpKeepsTheSession(t *testing.T) {
	a, auth := site(t)
	in, err := a.Issue(t.Context(), afterlogin.IssueRequest{Subject: "mia"})
	if err != nil {
		t.Fatal(err)
	}
	slow := make(chan struct{})
	h := auth.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		go func() {
			defer close(slow)
			<-r.Context().Done()
			auth.StepUp(w, r.WithContext(context.WithoutCancel(r.Context())), afterlogin.Authentication{Methods: []string{"otp"}})
		}()
		ctx, cancel := context.WithTimeout(r.Context(), time.Millisecond)
		defer cancel()
		<-ctx.Done()
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	r := httptest.NewRequest("GET", "https://shop.example/", nil)
	ctx, cancel := context.WithCancel(r.Context())
	r = r.WithContext(ctx)
	r.Header.Set("Cookie", httpauth.CookieName+"="+in.Token.Reveal())
	h.ServeHTTP(httptest.NewRecorder(), r)
	cancel()
	<-slow
	s, err := a.Session(t.Context(), in.Session.ID)
	if err != nil || !s.Ended.IsZero() {
		t.Errorf("ended %v (%s): %v", s.Ended, s.Why, err)
	}
}

// Any policy may keep the cookie beyond the browser's end.
func TestPersistentPolicies(t *testing.T) {
	policy := afterlogin.Policy{Idle: time.Hour, Absolute: 2 * time.Hour, Persistent: true}
	a, err := afterlogin.New(afterlogin.Config{Store: memstore.New(), Policies: map[string]afterlogin.Policy{"kiosk": policy}})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	auth, err := httpauth.New(a, httpauth.Options{})
	if err != nil {
		t.Fatal(err)
	}
	h := auth.Optional(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := auth.SignIn(w, r, httpauth.SignIn{Subject: "mia", Policy: "kiosk"}); err != nil {
			t.Error(err)
		}
	}))
	cookies := ask(h, "POST").Cookies()
	if len(cookies) != 1 || cookies[0].MaxAge < 7190 || cookies[0].MaxAge > 7200 {
		t.Errorf("cookies %v", cookies)
	}
}
