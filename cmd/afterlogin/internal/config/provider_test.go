package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/upstream"
)

const goodProvider = `sign_in:
  providers:
  - id: example
    issuer: https://login.example.com
    client_id: afterlogin
`

// What package upstream would refuse when the server starts is a fault of the line that says it.
func TestProvidersThatCannotBe(t *testing.T) {
	if _, err := load(t, goodProvider, nil); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		from, to, want string
		line           int
	}{
		"an id of 33":           {"id: example", "id: " + strings.Repeat("a", 33), "1 to 32", 3},
		"a class of two":        {"id: example", "id: example\n    acr_values: [\"a b\"]", "authentication context", 4},
		"nine classes":          {"id: example", "id: example\n    acr_values: [a, b, c, d, e, f, g, h, i]", "at most 8", 4},
		"a scope of two":        {"id: example", "id: example\n    scopes: [\"a b\"]", "is not a scope", 4},
		"a prompt of none":      {"id: example", "id: example\n    prompt: none", "select_account", 4},
		"a max_age in the past": {"id: example", "id: example\n    max_age: -5s", "max_age", 4},
		"a max_age of a part":   {"id: example", "id: example\n    max_age: 1500ms", "whole seconds", 4},
		"basic without secret":  {"id: example", "id: example\n    auth: basic", "needs a secret", 4},
		"a long name":           {"id: example", "id: example\n    name: " + strings.Repeat("a", 65), "64 bytes", 4},
		"an issuer with a ?":    {"login.example.com", "login.example.com/?", "query", 4},
		"reserved":              {"id: example", "id: client", "reserved", 3},
	} {
		text := strings.Replace(goodProvider, tt.from, tt.to, 1)
		_, err := load(t, text, nil)
		var faults Faults
		if !errors.As(err, &faults) {
			t.Errorf("%s is taken: %v", name, err)
			continue
		}
		if len(faults) != 1 || !strings.Contains(faults[0].Error(), tt.want) || faults[0].Line != tt.line {
			t.Errorf("%s: %v, line %d; want %q in line %d", name, faults, faults[0].Line, tt.want, tt.line)
		}
	}
}

// Sessions that live longer than they can be found for are a fault beside a provider, and only there.
func TestPoliciesBesideProviders(t *testing.T) {
	const long = "policies:\n  remember:\n    absolute: 400d\n"
	if _, err := load(t, long, nil); err != nil {
		t.Errorf("without providers: %v", err)
	}
	_, err := load(t, goodProvider+long, nil)
	var faults Faults
	if !errors.As(err, &faults) || len(faults) != 1 || faults[0].Key != "policies.remember.absolute" || faults[0].Line != 8 || !strings.Contains(err.Error(), "390d") {
		t.Errorf("with a provider: %v", err)
	}
	if _, err := load(t, goodProvider+strings.Replace(long, "400d", "390d", 1), nil); err != nil {
		t.Errorf("with a provider, 390 days: %v", err)
	}
}

// A provider that config check takes is one that the server takes, with the secret that the file names.
func TestUpstreamOfProvider(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte("hunter2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := load(t, goodProvider+"    auth: basic\n    client_secret_file: "+file+"\n", nil)
	if err != nil {
		t.Fatal(err)
	}
	ps, err := l.Config.SignInProviders()
	if err != nil {
		t.Fatal(err)
	}
	if p := ps[0].Upstream(); p.ClientSecret.Reveal() != "hunter2" || upstream.CheckProvider(p) != nil {
		t.Errorf("%+v", p)
	}
}
