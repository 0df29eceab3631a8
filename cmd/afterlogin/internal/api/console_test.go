package api

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/console/entrance"
	"github.com/afterlogin/afterlogin/store/memstore"
)

func TestConsoleLinks(t *testing.T) {
	f := newFixture(t, memstore.New())
	a := f.do("POST", "/v1/console/links", f.key, `{"role":"viewer","name":"ada","lifetime":"2h"}`)
	var made ConsoleLink
	if err := json.Unmarshal([]byte(a.body), &made); err != nil || a.status != 201 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	u, err := url.Parse(made.URL)
	if err != nil || u.Host != "auth.example" || u.Path != "/console/enter" || !entrance.IsSecret(u.Query().Get(entrance.Param)) {
		t.Errorf("the link is %q", Redact(made.URL))
	}
	if made.Role != "viewer" || made.Name != "ada" || made.ExpiresAt.Sub(f.now) < 2*time.Hour-2*time.Second || made.ExpiresAt.Sub(f.now) > 2*time.Hour {
		t.Errorf("%+v", made)
	}
	if strings.Contains(Redact(a.body), u.Query().Get(entrance.Param)) {
		t.Error("what keeps tokens out of logs lets a link's secret through")
	}
	for body, field := range map[string]string{
		`{"role":"owner"}`: "body.role", `{"name":"Ada L."}`: "body.name", `{"lifetime":"25h"}`: "body.lifetime", `{"lifetime":"soon"}`: "body.lifetime", `{"for":"2h"}`: "body.for",
	} {
		if a := f.do("POST", "/v1/console/links", f.key, body); a.status != 422 || !strings.Contains(a.body, `"location":"`+field+`"`) {
			t.Errorf("%s: %d %s", body, a.status, a.body)
		}
	}
	if a := f.do("GET", "/v1/console/people?cursor=nonsense", f.key, ""); a.status != 400 || a.kind() != "bad-cursor" {
		t.Errorf("a bad cursor: %d %s", a.status, a.body)
	}
	bare := New(f.a, Options{Now: f.api.now})
	f.api, bare = bare, f.api
	for _, c := range [][3]string{{"POST", "/v1/console/links", "{}"}, {"GET", "/v1/console/links", ""}, {"DELETE", "/v1/console/links/link_x", ""}, {"GET", "/v1/console/people", ""}} {
		if a := f.do(c[0], c[1], f.key, c[2]); a.status != 404 || a.kind() != "not-configured" {
			t.Errorf("without a console: %s: %d %s", c[1], a.status, a.body)
		}
	}
	f.api = bare
}

func (f *fixture) consoleLink(body string) (made ConsoleLink) {
	f.t.Helper()
	f.ok("POST", "/v1/console/links", body, &made)
	return made
}

// Nobody gets at more by letting somebody in, themselves first of all.
func TestConsoleLinkGivesNoMore(t *testing.T) {
	f := newFixture(t, memstore.New())
	for _, c := range []struct {
		scopes []Scope
		body   string
		status int
		lacks  Scope
	}{
		{[]Scope{Admin}, `{"role":"admin"}`, 403, SessionsRead},
		{[]Scope{Admin}, `{}`, 403, SessionsRead},
		{[]Scope{Admin}, `{"role":"viewer"}`, 403, SessionsRead},
		{append(slices.Clone(viewerScopes), Admin), `{"role":"viewer"}`, 201, ""},
		{append(slices.Clone(viewerScopes), Admin), `{"role":"admin"}`, 403, SessionsWrite},
		{slices.DeleteFunc(Scopes(), func(s Scope) bool { return s == UsersWrite }), `{"role":"admin"}`, 403, UsersWrite},
		{Scopes(), `{"role":"admin"}`, 201, ""},
	} {
		a := f.do("POST", "/v1/console/links", f.apiKey(c.scopes...), c.body)
		if a.status != c.status || c.lacks != "" && (a.kind() != "insufficient-scope" || !strings.Contains(a.header.Get("Www-Authenticate"), `scope="`+string(c.lacks)+`"`)) {
			t.Errorf("a key with %v, %s: %d %s", c.scopes, c.body, a.status, a.body)
		}
	}
}

// A link is listed until it is used, is over or is cancelled, and is worth no more than the key that it was made with.
func TestConsoleOpenLinks(t *testing.T) {
	f := newFixture(t, memstore.New())
	open := func() (names string) {
		var list ConsoleLinks
		a := f.ok("GET", "/v1/console/links", "", &list)
		for _, l := range list.Data {
			names += l.Name + " "
		}
		if strings.Contains(a.body, "all_") || strings.Contains(a.body, "url") {
			t.Errorf("a secret is in the list: %s", Redact(a.body))
		}
		return names
	}
	thief := f.apiKey(Scopes()...)
	key, err := f.a.Validate(t.Context(), afterlogin.TokenFrom(thief), afterlogin.Expect{Kinds: []afterlogin.Kind{afterlogin.KindAPIKey}})
	if err != nil {
		t.Fatal(err)
	}
	mia := f.consoleLink(`{"name":"mia"}`)
	if a := f.do("POST", "/v1/console/links", thief, `{"name":"mallory","lifetime":"24h"}`); a.status != 201 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	var list ConsoleLinks
	f.ok("GET", "/v1/console/links", "", &list)
	if got := open(); got != "mia mallory " || list.Data[1].By != string(key.ID) || list.Data[0].ID != mia.ID || list.Data[0].Role != "admin" {
		t.Errorf("%q: %+v", got, list)
	}
	if a := f.do("DELETE", "/v1/api-keys/"+string(key.ID), f.key, ""); a.status != 204 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if got := open(); got != "mia " {
		t.Errorf("after the end of the key: %q", got)
	}
	for _, want := range []int{204, 404} {
		if a := f.do("DELETE", "/v1/console/links/"+mia.ID, f.key, ""); a.status != want || want == 404 && a.kind() != "no-such-link" {
			t.Errorf("to cancel it: %d %s", a.status, a.body)
		}
	}
	if got := open(); got != "" {
		t.Errorf("after it was cancelled: %q", got)
	}
	for range entrance.MaxOpen {
		f.consoleLink(`{}`)
	}
	if a := f.do("POST", "/v1/console/links", f.key, `{}`); a.status != 409 || a.kind() != "too-many-links" {
		t.Errorf("one too many: %d %s", a.status, a.body)
	}
}

// The audit log says who was let in, in what role, by whom, and which of two people of one name did something.
func TestConsoleActsAreTold(t *testing.T) {
	f := newFixture(t, memstore.New())
	as := func(name string) (*afterlogin.Session, context.Context) {
		t.Helper()
		got, err := f.a.Issue(t.Context(), afterlogin.IssueRequest{Tenant: entrance.Tenant, Subject: entrance.SubjectPrefix + name, Policy: afterlogin.PolicyConsole})
		if err != nil {
			t.Fatal(err)
		}
		f.issued(got.Token.Reveal())
		s := *got.Session
		s.Scopes = ConsoleScopes(entrance.Admin)
		return &s, As(afterlogin.WithActor(t.Context(), "console/"+name), &s)
	}
	call := func(ctx context.Context, method, path, body string) *httptest.ResponseRecorder {
		r := httptest.NewRequestWithContext(ctx, method, path, strings.NewReader(body))
		if r.Body = http.NoBody; body != "" {
			r.Body = io.NopCloser(strings.NewReader(body))
			r.Header.Set("Content-Type", "application/json")
		}
		w := httptest.NewRecorder()
		f.api.ServeHTTP(w, r)
		return w
	}
	xavier, ctx := as("xavier")
	w := call(ctx, "POST", "/v1/console/links", `{"name":"mia","role":"viewer"}`)
	var made ConsoleLink
	if err := json.Unmarshal(w.Body.Bytes(), &made); err != nil || w.Code != 201 {
		t.Fatalf("%d %s", w.Code, Redact(w.Body.String()))
	}
	e := f.acts("api.create-console-link")
	if len(e) != 1 || e[0].Actor != "console/xavier" || e[0].Via != string(xavier.ID) || e[0].Target != made.ID || !strings.HasSuffix(e[0].Detail, " for mia as viewer") {
		t.Errorf("a link: %+v", e)
	}
	one, ctx1 := as("mia")
	two, ctx2 := as("mia")
	id := f.signIn(`{"subject":"tom"}`).Session.ID
	call(ctx1, "POST", "/v1/sessions/"+id+"/freeze", `{"reason":"looked into"}`)
	call(ctx2, "DELETE", "/v1/sessions/"+id, "")
	frozen, ended := f.acts("api.freeze-session"), f.acts("api.revoke-session")
	if len(frozen) != 1 || len(ended) != 1 || frozen[0].Via != string(one.ID) || ended[0].Via != string(two.ID) || ended[0].Actor != "console/mia" || ended[0].Session != id {
		t.Errorf("%+v %+v", frozen, ended)
	}
	var list AuditList
	f.ok("GET", "/v1/audit?type=api.*&session="+string(two.ID), "", &list)
	if len(list.Data) != 1 || list.Data[0].Type != "api.revoke-session" || list.Data[0].Via != string(two.ID) {
		t.Errorf("what was done with one session: %+v", list.Data)
	}
	// A key's own handle is its name already.
	if f.do("DELETE", "/v1/console/links/"+made.ID, f.key, ""); f.acts("api.cancel-console-link")[0].Via != "" || f.acts("api.cancel-console-link")[0].Target != made.ID {
		t.Errorf("%+v", f.acts("api.cancel-console-link"))
	}
}

// What makes sessions makes none of the console's, and what ends sessions ends none of the console's without the scope
// admin.
func TestConsoleSessionsAreApart(t *testing.T) {
	f := newFixture(t, memstore.New())
	app := f.apiKey(SessionsRead, SessionsWrite, TokensIssue, APIKeysWrite)
	for _, body := range []string{`{"subject":"mia","policy":"console"}`, `{"subject":"afterlogin/console/mia"}`, `{"subject":"afterlogin/console/mia","policy":"console","scopes":["admin"]}`} {
		if a := f.do("POST", "/v1/sessions", app, body); a.status != 422 {
			t.Errorf("%s: %d %s", body, a.status, a.body)
		}
	}
	got, err := f.a.Issue(t.Context(), afterlogin.IssueRequest{Tenant: entrance.Tenant, Subject: entrance.SubjectPrefix + "mia", Policy: afterlogin.PolicyConsole})
	if err != nil {
		t.Fatal(err)
	}
	f.issued(got.Token.Reveal())
	at := "/v1/sessions/" + string(got.Session.ID)
	for _, c := range [][3]string{{"DELETE", at, ""}, {"DELETE", at + "?derived=true", ""}, {"POST", at + "/freeze", `{"reason":"x"}`}, {"POST", at + "/thaw", ""}, {"POST", at + "/tokens", `{"format":"opaque"}`}, {"POST", "/v1/tickets", `{"session":"` + string(got.Session.ID) + `","target":"/console/"}`}} {
		if a := f.do(c[0], c[1], app, c[2]); a.status != 403 || a.kind() != "insufficient-scope" {
			t.Errorf("%s %s: %d %s", c[0], c[1], a.status, a.body)
		}
	}
	if a := f.do("POST", "/v1/validate", f.key, `{"token":"`+got.Token.Reveal()+`"}`); a.status != 200 || !strings.Contains(a.body, `"reason":"wrong_tenant"`) {
		t.Errorf("to validate it: %d %s", a.status, a.body)
	}
	if a := f.do("POST", "/v1/renew", f.key, `{"token":"`+got.Token.Reveal()+`"}`); a.status != 200 || !strings.Contains(a.body, `"reason":"wrong_tenant"`) {
		t.Errorf("to renew it: %d %s", a.status, a.body)
	}
	if a := f.do("DELETE", at, f.apiKey(SessionsWrite, Admin), ""); a.status != 204 {
		t.Errorf("an administrator: %d %s", a.status, a.body)
	}
}
