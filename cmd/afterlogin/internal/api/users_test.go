package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/users"
	"github.com/afterlogin/afterlogin/store"
	"github.com/afterlogin/afterlogin/store/memstore"
	"github.com/afterlogin/afterlogin/store/storetest"
)

const userPassword = "correct horse battery"

// does reports whether the password is the user's.
func (f *fixture) does(name, password string) bool {
	f.t.Helper()
	_, err := f.list.Verify(f.t.Context(), name, password, users.From{})
	return err == nil
}

func TestUsers(t *testing.T) {
	for name, open := range stores {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, open(t))
			var made User
			a := f.ok("POST", "/v1/users", `{"name":"mia@example.com","password":"`+userPassword+`","scopes":["read","write"]}`, &made)
			if a.status != http.StatusCreated || a.header.Get("Location") != "/v1/users/mia@example.com" || made.Name != "mia@example.com" || made.Disabled || len(made.Scopes) != 2 || !made.CreatedAt.Equal(made.PasswordChangedAt) {
				t.Fatalf("%d %v %s", a.status, a.header, a.body)
			}
			if strings.Contains(a.body, userPassword) || strings.Contains(a.body, "argon2") || !f.does("mia@example.com", userPassword) {
				t.Errorf("%s", a.body)
			}
			if a := f.do("POST", "/v1/users", f.key, `{"name":"mia@example.com","password":"`+userPassword+`"}`); a.status != 409 || a.kind() != "user-exists" {
				t.Errorf("again: %d %s", a.status, a.body)
			}
			session := f.signIn(`{"subject":"mia@example.com"}`)
			key, err := f.a.Issue(t.Context(), afterlogin.IssueRequest{Subject: "mia@example.com", Kind: afterlogin.KindAPIKey})
			if err != nil {
				t.Fatal(err)
			}
			f.issued(key.Token.Reveal())
			alive := func() (s, k bool) {
				_, err := f.a.Validate(t.Context(), key.Token, afterlogin.Expect{Kinds: []afterlogin.Kind{afterlogin.KindAPIKey}})
				return f.validate(session.Token).Active, err == nil
			}
			var u User
			f.ok("PATCH", "/v1/users/mia%40example.com", `{"scopes":["read","write","more"]}`, &u)
			if s, _ := alive(); !s || len(u.Scopes) != 3 {
				t.Errorf("one scope more: %+v, the session lives %t", u, s)
			}
			f.ok("PUT", "/v1/users/mia%40example.com/password?wait=true", `{"password":"staple the battery"}`, &u)
			if s, k := alive(); s || !k || f.does("mia@example.com", userPassword) || !f.does("mia@example.com", "staple the battery") {
				t.Errorf("a new password: the session lives %t, the API key %t", s, k)
			}
			session = f.signIn(`{"subject":"mia@example.com"}`)
			f.ok("PATCH", "/v1/users/mia%40example.com", `{"disabled":true}`, &u)
			if s, k := alive(); s || k || !u.Disabled || f.does("mia@example.com", "staple the battery") {
				t.Errorf("disabled: %+v, the session lives %t, the API key %t", u, s, k)
			}
			u = User{}
			f.ok("PATCH", "/v1/users/mia%40example.com", `{"disabled":false,"scopes":[]}`, &u)
			if s, k := alive(); s || k || u.Disabled || len(u.Scopes) != 0 || !f.does("mia@example.com", "staple the battery") {
				t.Errorf("enabled: %+v, the session lives %t, the API key %t", u, s, k)
			}
			f.ok("GET", "/v1/users/mia%40example.com", "", &u)
			for method, path := range map[string]string{"GET": "/v1/users/nobody", "PATCH": "/v1/users/nobody", "PUT": "/v1/users/nobody/password"} {
				body := map[string]string{"PATCH": `{"disabled":true}`, "PUT": `{"password":"` + userPassword + `"}`}[method]
				if a := f.do(method, path, f.key, body); a.status != 404 || a.kind() != "no-such-user" {
					t.Errorf("%s nobody: %d %s", method, a.status, a.body)
				}
			}
		})
	}
}

func TestBadUsers(t *testing.T) {
	f := newFixture(t, memstore.New())
	f.ok("POST", "/v1/users", `{"name":"tom","password":"`+userPassword+`"}`, nil)
	for name, tt := range map[string]struct{ method, path, body, field string }{
		"no password":          {"POST", "/v1/users", `{"name":"mia"}`, "body.password"},
		"a short password":     {"POST", "/v1/users", `{"name":"mia","password":"too-short-it-is"}`[:35] + `"}`, "body.password"},
		"a known password":     {"POST", "/v1/users", `{"name":"mia","password":"password12345678"}`, "body.password"},
		"a name in it":         {"POST", "/v1/users", `{"name":"mia","password":"i am mia, who else"}`, "body.password"},
		"a long password":      {"POST", "/v1/users", `{"name":"mia","password":"` + strings.Repeat("a b", 400) + `"}`, "body.password"},
		"a name in upper case": {"POST", "/v1/users", `{"name":"Mia","password":"` + userPassword + `"}`, "body.name"},
		"a name with a colon":  {"POST", "/v1/users", `{"name":"a:b","password":"` + userPassword + `"}`, "body.name"},
		"no name":              {"POST", "/v1/users", `{"password":"` + userPassword + `"}`, "body.name"},
		"an odd scope":         {"POST", "/v1/users", `{"name":"mia","password":"` + userPassword + `","scopes":["a b"]}`, "body.scopes"},
		"another field":        {"POST", "/v1/users", `{"name":"mia","password":"` + userPassword + `","admin":true}`, "body.admin"},
		"no change":            {"PATCH", "/v1/users/tom", `{}`, "body"},
		"an odd change":        {"PATCH", "/v1/users/tom", `{"disabled":"yes"}`, "body.disabled"},
		"a bad new password":   {"PUT", "/v1/users/tom/password", `{"password":"tom"}`, "body.password"},
	} {
		a := f.do(tt.method, tt.path, f.key, tt.body)
		if a.status < 400 || a.status > 422 || len(a.problem.Errors) == 0 || a.problem.Errors[0].Location != tt.field {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
		if strings.Contains(a.body, "password12345678") || strings.Contains(a.body, "who else") || strings.Contains(a.body, userPassword) {
			t.Errorf("%s: a password stands in the answer: %s", name, a.body)
		}
	}
	if strings.Contains(f.log.String(), userPassword) || strings.Contains(f.log.String(), "argon2id") {
		t.Errorf("a password stands in the log: %s", f.log.String())
	}
	// Without a list there are no users.
	none := New(f.a, Options{})
	f.api = none
	for _, call := range [][3]string{{"GET", "/v1/users", ""}, {"POST", "/v1/users", `{"name":"mia","password":"` + userPassword + `"}`}, {"GET", "/v1/users/tom", ""}, {"PATCH", "/v1/users/tom", `{"disabled":true}`}, {"PUT", "/v1/users/tom/password", `{"password":"` + userPassword + `"}`}} {
		if a := f.do(call[0], call[1], f.key, call[2]); a.status != 404 || a.kind() != "no-users" {
			t.Errorf("%s %s without a list: %d %s", call[0], call[1], a.status, a.body)
		}
	}
}

func TestListUsers(t *testing.T) {
	f := newFixture(t, memstore.New())
	const n = 60
	for i := range n {
		if _, err := f.list.Add(t.Context(), fmt.Sprintf("user-%02d", (i*37)%n), userPassword, nil); err != nil {
			t.Fatal(err)
		}
	}
	for _, limit := range []int{1, 7, 59, 60, 1000} {
		var names []string
		query := fmt.Sprintf("?limit=%d", limit)
		for {
			var page UserList
			f.ok("GET", "/v1/users"+query, "", &page)
			if len(page.Data) == 0 || len(page.Data) > limit {
				t.Fatalf("limit %d: a page of %d", limit, len(page.Data))
			}
			for _, u := range page.Data {
				names = append(names, u.Name)
			}
			if page.Next == "" {
				break
			}
			query = fmt.Sprintf("?limit=%d&cursor=%s", limit, page.Next)
		}
		for i := range n {
			if len(names) != n || names[i] != fmt.Sprintf("user-%02d", i) {
				t.Fatalf("limit %d: %v", limit, names)
			}
		}
	}
	for query, kind := range map[string]string{"?limit=0": "invalid-request", "?limit=1001": "invalid-request", "?cursor=No%20name": "bad-cursor", "?cursor=junk": "bad-cursor", "?subject=x": "invalid-request"} {
		if a := f.do("GET", "/v1/users"+query, f.key, ""); a.status < 400 || a.status > 422 || a.kind() != kind {
			t.Errorf("%s: %d %s", query, a.status, a.body)
		}
	}
}

// A change that the store took in part is answered 503, shows as pending, and is made up for by the same call.
func TestUserChangeThatFails(t *testing.T) {
	faulty := storetest.NewFaulty(memstore.New(), nil)
	f := newFixture(t, faulty)
	f.ok("POST", "/v1/users", `{"name":"mia","password":"`+userPassword+`"}`, nil)
	session := f.signIn(`{"subject":"mia"}`)
	count := 0
	faulty.SetHook(func(c storetest.Call) storetest.Fault {
		if c.Method == "Apply" {
			if count++; count == 2 {
				return storetest.Fault{Before: store.ErrFull}
			}
		}
		return storetest.Fault{}
	})
	a := f.do("PATCH", "/v1/users/mia", f.key, `{"disabled":true}`)
	var u User
	f.ok("GET", "/v1/users/mia", "", &u)
	if a.status != 503 || a.header.Get("Retry-After") == "" || !u.Disabled || !u.Pending || !f.validate(session.Token).Active {
		t.Fatalf("%d %s; %+v", a.status, a.body, u)
	}
	var again User
	f.ok("PATCH", "/v1/users/mia", `{"disabled":true}`, &again)
	if again.Pending || f.validate(session.Token).Active {
		b, _ := json.Marshal(again)
		t.Errorf("again: %s, the session lives %t", b, f.validate(session.Token).Active)
	}
}
