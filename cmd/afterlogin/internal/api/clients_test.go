package api

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/oauth/clients"
	"github.com/afterlogin/afterlogin/store/memstore"
)

const job = `"name":"Job","auth":"secret","grant_types":["client_credentials"],"scopes":["read"]`

// Who may only look sees clients, and changes none; who may change them sees them as ever.
func TestClientScopes(t *testing.T) {
	f := newFixture(t, memstore.New())
	f.ok("POST", "/v1/clients", `{"id":"job",`+job+`}`, &CreatedClient{})
	for _, c := range []struct {
		method, path, body string
		reads              int
	}{
		{"GET", "/v1/clients", "", 200}, {"GET", "/v1/clients/job", "", 200},
		{"POST", "/v1/clients", `{"id":"other",` + job + `}`, 403}, {"PUT", "/v1/clients/job", `{` + job + `}`, 403}, {"POST", "/v1/clients/job/secret", `{}`, 403}, {"DELETE", "/v1/clients/job", "", 403},
	} {
		if a := f.do(c.method, c.path, f.apiKey(ClientsRead), c.body); a.status != c.reads {
			t.Errorf("%s %s with clients:read: %d %s", c.method, c.path, a.status, a.body)
		}
		if a := f.do(c.method, c.path, f.apiKey(ClientsWrite), c.body); a.status == 403 || c.method == "GET" && a.status != 200 {
			t.Errorf("%s %s with clients:write: %d %s", c.method, c.path, a.status, a.body)
		}
		if a := f.do(c.method, c.path, f.apiKey(SessionsRead), c.body); a.status != 403 {
			t.Errorf("%s %s with neither: %d %s", c.method, c.path, a.status, a.body)
		}
	}
}

func TestClients(t *testing.T) {
	f := newFixture(t, memstore.New())
	var made CreatedClient
	a := f.ok("POST", "/v1/clients", `{"id":"job",`+job+`,"access_lifetime":"5m"}`, &made)
	if a.status != http.StatusCreated || a.header.Get("Location") != "/v1/clients/job" || !strings.HasPrefix(made.Secret, "cs_") || made.Client.AccessLifetime != "5m" {
		t.Errorf("%d %v %+v", a.status, a.header, made.Client)
	}
	good := func(secret string) bool {
		t.Helper()
		reg, err := f.a.Client(t.Context(), 0, "job")
		if err != nil {
			t.Fatal(err)
		}
		s, err := clients.Parse(reg.Settings)
		if err != nil {
			t.Fatal(err)
		}
		return s.Sums().Match(secret, f.now)
	}
	if !good(made.Secret) {
		t.Error("the secret is not the client's")
	}
	var shown Client
	if a := f.ok("GET", "/v1/clients/job", "", &shown); strings.Contains(a.body, made.Secret) || strings.Contains(a.body, "sha256") || len(shown.Secrets) != 1 {
		t.Errorf("%s", a.body)
	}
	if a := f.do("PUT", "/v1/clients/job", f.key, `{"version":99,`+job+`}`); a.status != 409 || a.kind() != "client-changed" {
		t.Errorf("another version: %d %s", a.status, a.body)
	}
	var changed Client
	f.ok("PUT", "/v1/clients/job", `{"version":`+strconv.FormatUint(shown.Version, 10)+`,"name":"Nightly job","auth":"secret","grant_types":["client_credentials"]}`, &changed)
	if changed.Name != "Nightly job" || changed.Scopes != nil || !good(made.Secret) {
		t.Errorf("%+v", changed)
	}
	var rotated CreatedClient
	f.ok("POST", "/v1/clients/job/secret", `{"overlap":"1h"}`, &rotated)
	if !good(made.Secret) || !good(rotated.Secret) || len(rotated.Client.Secrets) != 2 {
		t.Error("during the overlap a secret is not good")
	}
	f.pass(time.Hour)
	if good(made.Secret) || !good(rotated.Secret) {
		t.Error("after the overlap the old secret is good, or the new one is not")
	}
	var again CreatedClient
	f.ok("POST", "/v1/clients/job/secret", `{}`, nil) // its answer is lost
	f.ok("POST", "/v1/clients/job/secret", `{}`, &again)
	if !good(rotated.Secret) || !good(again.Secret) || len(again.Client.Secrets) != 3 {
		t.Error("a rotation that is tried again ends the secret in use")
	}
	if a := f.do("POST", "/v1/clients/job/secret", f.key, `{}`); a.status != 409 || a.kind() != "too-many-secrets" {
		t.Errorf("a fourth secret: %d %s", a.status, a.body)
	}
	f.ok("POST", "/v1/clients/job/secret", `{"overlap":"0s"}`, &made)
	if good(rotated.Secret) || !good(made.Secret) {
		t.Error("without an overlap the old secret is good, or the new one is not")
	}
	var other CreatedClient
	f.ok("POST", "/v1/clients", `{"name":"App","auth":"none","grant_types":["authorization_code"],"redirect_uris":["http://127.0.0.1/cb"]}`, &other)
	if !strings.HasPrefix(other.Client.ID, "cli_") || other.Secret != "" {
		t.Errorf("%+v", other)
	}
	var list ClientList
	if f.ok("GET", "/v1/clients", "", &list); len(list.Data) != 2 {
		t.Errorf("%d clients", len(list.Data))
	}
	f.ok("DELETE", "/v1/clients/job", "", nil)
	for method, path := range map[string]string{"GET": "/v1/clients/job", "DELETE": "/v1/clients/job"} {
		if a := f.do(method, path, f.key, ""); a.status != 404 || a.kind() != "no-such-client" {
			t.Errorf("%s after the removal: %d %s", method, a.status, a.body)
		}
	}
	if a := f.do("POST", "/v1/clients", f.key, `{"id":"job",`+job+`}`); a.status != 409 || a.kind() != "client-exists" {
		t.Errorf("a name again: %d %s", a.status, a.body)
	}
}

func TestBadClients(t *testing.T) {
	f := newFixture(t, memstore.New())
	for name, tt := range map[string]struct{ body, field string }{
		"no name":              {`{"auth":"none","grant_types":["authorization_code"],"redirect_uris":["https://a.example/"]}`, "body.name"},
		"an odd id":            {`{"id":"a b",` + job + `}`, "body.id"},
		"an odd auth":          {`{"name":"x","auth":"basic","grant_types":["client_credentials"]}`, "body.auth"},
		"a hash that is none":  {`{"secret_sha256":"abc",` + job + `}`, "body.secret_sha256"},
		"no keys":              {`{"name":"x","auth":"private_key_jwt","grant_types":["client_credentials"]}`, "body.jwks"},
		"no grant":             {`{"name":"x","auth":"secret"}`, "body.grant_types"},
		"a public service":     {`{"name":"x","auth":"none","grant_types":["client_credentials"]}`, "body.grant_types"},
		"no redirect":          {`{"name":"x","auth":"none","grant_types":["authorization_code"]}`, "body.redirect_uris"},
		"a redirect over http": {`{"name":"x","auth":"none","grant_types":["authorization_code"],"redirect_uris":["http://a.example/"]}`, "body.redirect_uris.0"},
		"openid":               {`{"name":"x","auth":"secret","grant_types":["client_credentials"],"scopes":["openid"]}`, "body.scopes.0"},
		"a long lifetime":      {`{"access_lifetime":"90d",` + job + `}`, "body.access_lifetime"},
		"an unknown field":     {`{"secret":"x",` + job + `}`, "body.secret"},
	} {
		a := f.do("POST", "/v1/clients", f.key, tt.body)
		if a.status < 400 || a.status > 422 || len(a.problem.Errors) == 0 || a.problem.Errors[0].Location != tt.field {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	s := clients.Settings{Name: "x", Auth: clients.None, GrantTypes: []string{clients.AuthorizationCode}, RedirectURIs: []string{"https://a.example/"}, FromFile: true}
	if _, err := f.a.AddClient(t.Context(), 0, "file", s.JSON()); err != nil {
		t.Fatal(err)
	}
	if a := f.do("DELETE", "/v1/clients/file", f.key, ""); a.status != 409 || a.kind() != "client-in-file" {
		t.Errorf("a client of the file: %d %s", a.status, a.body)
	}
	// Taken out of the file it is still the file's: a change here would let it in again. It can be removed.
	reg, err := f.a.Client(t.Context(), 0, "file")
	if err != nil {
		t.Fatal(err)
	}
	s.Disabled = true
	if reg, err = f.a.ChangeClient(t.Context(), 0, "file", s.JSON(), reg.Version); err != nil {
		t.Fatal(err)
	}
	for method, path := range map[string]string{"PUT": "/v1/clients/file", "POST": "/v1/clients/file/secret"} {
		body := `{}`
		if method == "PUT" {
			body = `{"version":` + strconv.FormatUint(reg.Version, 10) + `,"name":"x","auth":"none","grant_types":["authorization_code"],"redirect_uris":["https://a.example/"]}`
		}
		if a := f.do(method, path, f.key, body); a.status != 409 || a.kind() != "client-in-file" {
			t.Errorf("%s of a client that was in the file: %d %s", method, a.status, a.body)
		}
	}
	f.ok("DELETE", "/v1/clients/file", "", nil)
	// One whose settings this version cannot read does not hide the others, and can be removed.
	f.ok("POST", "/v1/clients", `{"id":"job",`+job+`}`, nil)
	if _, err := f.a.AddClient(t.Context(), 0, "later", json.RawMessage(`{"require_dpop":true}`)); err != nil {
		t.Fatal(err)
	}
	var list ClientList
	if f.ok("GET", "/v1/clients", "", &list); len(list.Data) != 2 || list.Data[0].Unreadable == list.Data[1].Unreadable {
		t.Errorf("%+v", list)
	}
	f.ok("DELETE", "/v1/clients/later", "", nil)
	if a := f.do("GET", "/v1/clients", f.apiKey(SessionsRead, Admin), ""); a.status != 403 {
		t.Errorf("without the scope: %d", a.status)
	}
}
