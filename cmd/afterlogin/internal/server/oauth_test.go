package server

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/config"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/oauth"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/oauth/clients"
)

// The clients of the configuration file are there at the start, change with it, are refused when they are not in it any
// more, and come back with it.
func TestClientsOfTheFile(t *testing.T) {
	dir := t.TempDir()
	secret, hash := clients.NewSecret(time.Now())
	job := config.Client{ID: "job", Settings: clients.Settings{
		Name: "Job", Auth: clients.Secret, Secrets: []clients.SecretHash{hash}, GrantTypes: []string{clients.ClientCredentials}, Scopes: []string{"read"},
	}}
	run := func(list ...config.Client) *Server {
		t.Helper()
		c := settings(dir)
		c.Issuer, c.Clients = "http://127.0.0.1:7070", list
		s, _ := open(t, c, false)
		return s
	}
	// token asks for a token with the scope, and returns the error if there is none.
	token := func(s *Server, scope string) string {
		t.Helper()
		body := "grant_type=client_credentials&client_id=job&client_secret=" + secret + "&scope=" + scope
		resp, text := askForm(s, oauth.TokenPath, body)
		var a struct {
			Error       string `json:"error"`
			AccessToken string `json:"access_token"`
		}
		if err := json.Unmarshal([]byte(text), &a); err != nil || (a.Error == "") != (resp.StatusCode == 200) {
			t.Fatalf("%d %s", resp.StatusCode, text)
		}
		return a.Error
	}
	s := run(job)
	if got := token(s, "read"); got != "" {
		t.Errorf("a client of the file: %s", got)
	}
	if got := token(s, "write"); got != oauth.InvalidScope {
		t.Errorf("a scope too many: %s", got)
	}
	// One of the API's with the same name as one of the file's is a mistake that nobody should learn of later.
	made := clients.Settings{Name: "x", Auth: clients.None, GrantTypes: []string{clients.AuthorizationCode}, RedirectURIs: []string{"https://a.example.com/"}}
	if _, err := s.authority.AddClient(t.Context(), 0, "api", made.JSON()); err != nil {
		t.Fatal(err)
	}
	s.Close()
	job.Settings.Scopes = []string{"read", "write"}
	s = run(job)
	if got := token(s, "write"); got != "" {
		t.Errorf("a client that changed in the file: %s", got)
	}
	s.Close()
	s = run()
	if got := token(s, "read"); got != oauth.InvalidClient {
		t.Errorf("a client that is not in the file any more: %s", got)
	}
	s.Close()
	s = run(job)
	if got := token(s, "read"); got != "" {
		t.Errorf("a client that is in the file again: %s", got)
	}
	// A change takes effect at once.
	if err := s.authority.RemoveClient(t.Context(), 0, "job"); err != nil {
		t.Fatal(err)
	}
	if got := token(s, "read"); got != oauth.InvalidClient {
		t.Errorf("a client that was removed: %s", got)
	}
	s.Close()
	for _, id := range []string{"job", "api"} {
		c := settings(dir)
		job.ID = id
		c.Issuer, c.Clients = "http://127.0.0.1:7070", []config.Client{job}
		var setup *SetupError
		if _, _, err := tryOpen(t, c, false); !errors.As(err, &setup) || !strings.Contains(setup.Hint, "choose another id") {
			t.Errorf("%s: %v", id, err)
		}
	}
}

// A server that does not know its own address says so instead of handing out tokens with a wrong one.
func TestNoIssuer(t *testing.T) {
	s, _ := open(t, settings(t.TempDir()), false)
	for _, path := range oauth.Paths() {
		if resp, text := askForm(s, path, "grant_type=client_credentials"); resp.StatusCode != 404 || !strings.Contains(text, "no-issuer") {
			t.Errorf("%s: %d %s", path, resp.StatusCode, text)
		}
	}
	if s.authority.Issuer() != "" {
		t.Error("there is an issuer")
	}
}

// askForm posts a form to the server.
func askForm(s *Server, path, body string) (*http.Response, string) {
	r := httptest.NewRequest("POST", "http://127.0.0.1:7070"+path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, r)
	b, _ := io.ReadAll(w.Result().Body)
	return w.Result(), string(b)
}
