package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/oauth/clients"
)

const sum = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func TestClients(t *testing.T) {
	dir := t.TempDir()
	secret, _ := clients.NewSecret(time.Unix(1_800_000_000, 0))
	file := filepath.Join(dir, "secret")
	if err := os.WriteFile(file, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	text := "oauth:\n  clients:\n  - id: shop\n    name: Web shop\n    auth: secret\n    secret_file: " + file + "\n" +
		"    grant_types: [authorization_code, refresh_token]\n    redirect_uris: ['https://shop.example.com/cb']\n" +
		"    scopes: [read]\n    first_party: true\n    access_lifetime: 5m\n" +
		"  - id: job\n    name: Job\n    auth: secret\n    secret_sha256: " + sum + "\n    grant_types: [client_credentials]\n"
	l, err := load(t, text, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.CheckFiles(); err != nil {
		t.Fatal(err)
	}
	all, err := l.Config.OAuthClients()
	if err != nil || len(all) != 2 {
		t.Fatalf("%v %v", all, err)
	}
	shop, job := all[0].Settings, all[1].Settings
	if !shop.Sums().Match(secret, time.Unix(1_800_000_000, 0)) || !shop.FromFile || !shop.FirstParty || shop.AccessSeconds != 300 || shop.RedirectURIs[0] != "https://shop.example.com/cb" {
		t.Errorf("%+v", shop)
	}
	if job.Secrets[0].SHA256 != sum || all[1].ID != "job" {
		t.Errorf("%+v", job)
	}
}

func TestBadClients(t *testing.T) {
	good := "oauth:\n  clients:\n  - id: job\n    name: Job\n    auth: secret\n    secret_sha256: " + sum + "\n    grant_types: [client_credentials]\n"
	if _, err := load(t, good, nil); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct{ text, want string }{
		"no list":                {"oauth:\n  clients: job\n", "want a list"},
		"a text for a client":    {"oauth:\n  clients: [job]\n", "want keys and values"},
		"an unknown key":         {good + "    scope: [read]\n", `did you mean "scopes"?`},
		"an unknown section":     {"oauth:\n  client: []\n", `did you mean "clients"?`},
		"a secret in the file":   {strings.Replace(good, "secret_sha256: "+sum, "secret: hunter2", 1), "does not belong into this file"},
		"two secrets":            {good + "    secret_file: x\n", "secret_sha256 is there, too"},
		"no secret":              {strings.Replace(good, "    secret_sha256: "+sum+"\n", "", 1), "needs secret_sha256 or secret_file"},
		"a hash that is none":    {strings.Replace(good, sum, "abc", 1), "64 hexadecimal digits"},
		"a number for a name":    {strings.Replace(good, "name: Job", "name: 3", 1), "want a text"},
		"a text for a list":      {strings.Replace(good, "[client_credentials]", "client_credentials", 1), "want a list"},
		"a number in a list":     {strings.Replace(good, "[client_credentials]", "[3]", 1), "want a list of texts"},
		"a text for a flag":      {good + "    offline: maybe\n", "want true or false"},
		"a bad lifetime":         {good + "    access_lifetime: soon\n", "access_lifetime"},
		"an id with a blank":     {strings.Replace(good, "id: job", "id: a job", 1), "letters, digits"},
		"an id twice":            {good + strings.TrimPrefix(good, "oauth:\n  clients:\n"), "another client above"},
		"an open redirect":       {strings.Replace(good, "[client_credentials]", "[authorization_code]\n    redirect_uris: ['http://shop.example.com/']", 1), "plain http"},
		"no issuer":              {"listen: 0.0.0.0:7070\nbehind_proxy: true\n" + good, "needs an issuer"},
		"an issuer with a path":  {"issuer: https://example.com/auth\n", "without a path"},
		"an issuer with a slash": {"issuer: https://example.com/\n", "without a path"},
		"an issuer without TLS":  {"issuer: http://example.com\n", "want https"},
		"an unknown algorithm":   {"jwt_algorithm: HS256\n", "is not one of"},
		"a sign-in elsewhere":    {"sign_in_url: http://evil.example/\n", "neither a path"},
	} {
		_, err := load(t, tt.text, nil)
		var faults Faults
		if !errors.As(err, &faults) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		all := ""
		for _, f := range faults {
			all += f.Error() + "\n" + f.Hint + "\n" + f.Excerpt + "\n"
			if f.Line == 0 {
				t.Errorf("%s: %s: says not where", name, f)
			}
		}
		if !strings.Contains(all, tt.want) {
			t.Errorf("%s: %s", name, all)
		}
		if strings.Contains(all, "hunter2") {
			t.Errorf("%s: the secret is shown:\n%s", name, all)
		}
	}
}

func TestIssuerURL(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"listen: 127.0.0.1:7070\n", "http://127.0.0.1:7070"},
		{"listen: 0.0.0.0:7070\nbehind_proxy: true\n", ""},
		{"listen: 127.0.0.1:0\n", ""},
		{"listen: 0.0.0.0:7070\nbehind_proxy: true\nissuer: https://auth.example.com\n", "https://auth.example.com"},
	} {
		l, err := load(t, tt.text, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := l.Config.IssuerURL(); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.text, got, tt.want)
		}
	}
}
