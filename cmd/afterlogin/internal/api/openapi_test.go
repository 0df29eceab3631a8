//go:build browser

package api

import (
	"os/exec"
	"strings"
	"testing"
)

// The document keeps to the specification, by a validator that nobody here wrote.
func TestOpenAPIIsValid(t *testing.T) {
	check := func(file string) (string, error) {
		out, err := exec.Command("node", "../../../../test/oauth/openapi.mjs", file).CombinedOutput()
		return string(out), err
	}
	if out, err := check(documentFile); err != nil || !strings.Contains(out, "OpenAPI 3.1") {
		t.Errorf("%v (is npm ci done in test/oauth? run scripts/test.sh)\n%s", err, out)
	}
	if out, err := check("../../../../test/oauth/package.json"); err == nil {
		t.Errorf("anything is valid: %s", out)
	}
}
