package httpauth_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/httpauth"
)

// A check decides as Require does, without an answer, a CSRF token or a renewal.
func TestCheck(t *testing.T) {
	s := open(t, httpauth.Options{}, nil)
	got, err := s.a.Issue(context.Background(), afterlogin.IssueRequest{Subject: "mia", Auth: afterlogin.Authentication{Methods: []string{"pwd", afterlogin.ACRMethod("silver")}}})
	if err != nil {
		t.Fatal(err)
	}
	key, err := s.a.Issue(context.Background(), afterlogin.IssueRequest{Subject: "robot", Kind: afterlogin.KindAPIKey})
	if err != nil {
		t.Fatal(err)
	}
	nobody, err := s.a.Issue(context.Background(), afterlogin.IssueRequest{Data: map[string]json.RawMessage{"cart": json.RawMessage("1")}})
	if err != nil {
		t.Fatal(err)
	}
	with := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	cookie := with("Cookie", httpauth.CookieName+"="+got.Token.Reveal())
	foreign := with("Sec-Fetch-Site", "cross-site")
	plain := s.auth.NewCheck()
	gold := s.auth.NewCheck(httpauth.ACR("gold", "platinum"))
	silver := s.auth.NewCheck(httpauth.ACR("silver"))
	machines := s.auth.NewCheck(httpauth.Kinds(afterlogin.KindAPIKey))
	s.store.fault.Store(writesFail) // a check writes nothing
	for name, tt := range map[string]struct {
		check  *httpauth.Check
		method string
		sent   []func(*http.Request)
		status int // 0: let in
		header string
	}{
		"cookie":              {plain, "GET", []func(*http.Request){cookie}, 0, "Cookie"},
		"cookie, POST":        {plain, "POST", []func(*http.Request){cookie}, 0, "Cookie"},
		"cookie, from afar":   {plain, "POST", []func(*http.Request){cookie, foreign}, 403, "Cookie"},
		"socket, from afar":   {plain, "GET", []func(*http.Request){cookie, foreign, with("Sec-Websocket-Key", "x")}, 403, "Cookie"},
		"bearer":              {plain, "POST", []func(*http.Request){with("Authorization", "Bearer "+got.Token.Reveal()), foreign}, 0, "Authorization"},
		"nothing, from afar":  {plain, "POST", []func(*http.Request){foreign}, 401, ""},
		"anonymous":           {plain, "GET", []func(*http.Request){with("Cookie", httpauth.CookieName+"="+nobody.Token.Reveal())}, 401, "Cookie"},
		"anonymous, gold":     {gold, "GET", []func(*http.Request){with("Cookie", httpauth.CookieName+"="+nobody.Token.Reveal())}, 401, "Cookie"},
		"junk":                {plain, "GET", []func(*http.Request){with("Authorization", "Bearer junk")}, 401, "Authorization"},
		"two":                 {plain, "GET", []func(*http.Request){cookie, with("Authorization", "Bearer junk")}, 401, ""},
		"another kind":        {plain, "GET", []func(*http.Request){with("X-Api-Key", key.Token.Reveal())}, 401, ""},
		"key":                 {machines, "GET", []func(*http.Request){with("X-Api-Key", key.Token.Reveal())}, 0, "X-Api-Key"},
		"key beside a cookie": {machines, "GET", []func(*http.Request){cookie, with("X-Api-Key", key.Token.Reveal())}, 0, "X-Api-Key"},
		"silver":              {silver, "GET", []func(*http.Request){cookie}, 0, "Cookie"},
		"gold":                {gold, "GET", []func(*http.Request){cookie}, 401, "Cookie"},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest(tt.method, "https://shop.example/x", nil)
			for _, f := range tt.sent {
				f(r)
			}
			found, err := tt.check.Examine(r)
			if found.Header != tt.header || (err == nil) != (tt.status == 0) || (found.Session != nil) != (err == nil) {
				t.Fatalf("%+v, %v", found, err)
			}
			if err != nil && httpauth.Status(err) != tt.status {
				t.Errorf("%d: %v", httpauth.Status(err), err)
			}
			if name == "gold" {
				w := httptest.NewRecorder()
				gold.Refuse(w, r, err)
				if c := w.Header().Get("WWW-Authenticate"); w.Code != 401 || !strings.Contains(c, `acr_values="gold platinum"`) || !strings.Contains(c, "insufficient_user_authentication") {
					t.Errorf("%d, %s", w.Code, c)
				}
			}
		})
	}
	s.offset.Store(int64(20 * time.Minute))
	r := httptest.NewRequest("GET", "https://shop.example/x", nil)
	cookie(r)
	if found, err := plain.Examine(r); err != nil || !found.Session.RenewalDue() {
		t.Errorf("%+v, %v", found, err)
	}
	for _, f := range []func(){
		func() { s.auth.NewCheck(httpauth.Kinds(afterlogin.KindTicket)) },
		func() { httpauth.ACR() }, func() { httpauth.ACR("a b") }, func() { httpauth.ACR(`a"`) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			f()
		}()
	}
}

// Require asks for the class of the authentication, too.
func TestRequireACR(t *testing.T) {
	s := open(t, httpauth.Options{}, nil)
	for class, want := range map[string]int{"gold": 200, "silver": 401, "": 401} {
		r := afterlogin.IssueRequest{Subject: "mia"}
		if class != "" {
			r.Auth.Methods = []string{afterlogin.ACRMethod(class)}
		}
		got, err := s.a.Issue(context.Background(), r)
		if err != nil {
			t.Fatal(err)
		}
		for name, h := range map[string]http.Handler{
			"alone":           s.auth.Require(http.HandlerFunc(s.home), httpauth.ACR("gold")),
			"behind Optional": s.auth.Optional(s.auth.Require(http.HandlerFunc(s.home), httpauth.ACR("gold"))),
		} {
			req := httptest.NewRequest("GET", "https://shop.example/", nil)
			req.Header.Set("Authorization", "Bearer "+got.Token.Reveal())
			w := httptest.NewRecorder()
			h.ServeHTTP(w, req)
			if w.Code != want {
				t.Errorf("%q, %s: %d, want %d", class, name, w.Code, want)
			}
			if want == 401 && !strings.Contains(w.Header().Get("WWW-Authenticate"), `acr_values="gold"`) {
				t.Errorf("%q, %s: %v", class, name, w.Header())
			}
		}
	}
}

// A Secure cookie is taken from http on a loopback host, so that is an origin; elsewhere http is none.
func TestLoopbackOrigin(t *testing.T) {
	s := open(t, httpauth.Options{}, nil)
	for origin, good := range map[string]bool{
		"http://shop.localhost:8080": true, "http://127.0.0.1:8080": true, "http://[::1]:8080": true, "https://shop.example": true,
		"http://shop.example": false, "http://localhost.example:8080": false, "http://localhost:80": false,
	} {
		_, err := httpauth.New(s.a, httpauth.Options{Origin: origin})
		if good != (err == nil) || err != nil && !errors.Is(err, httpauth.ErrBadOptions) {
			t.Errorf("%s: %v", origin, err)
		}
	}
}
