package gateway_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/afterlogin/afterlogin/gateway"
)

// The program in docs/gateway.md compiles, and the page names every header and every path.
func TestDocs(t *testing.T) {
	page := string(must[[]byte](t)(os.ReadFile("../docs/gateway.md")))
	_, program, ok := strings.Cut(page, "```go\n")
	if !ok {
		t.Fatal("there is no program")
	}
	program, _, _ = strings.Cut(program, "```")
	file := filepath.Join(t.TempDir(), "main.go")
	if err := os.WriteFile(file, []byte(program), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("go", "vet", file).CombinedOutput(); err != nil {
		t.Errorf("the program: %v\n%s", err, out)
	}
	contains(t, program, `"`+gateway.TypeAssertion+`"`)
	for _, name := range identityHeaders {
		contains(t, page, "`"+name+"`")
	}
	for _, path := range []string{"", "/traefik", "/nginx", "/answer", "/envoy/…"} {
		contains(t, page, "`"+gateway.Path+path+"`")
	}
	contains(t, page, "`"+gateway.BasePath+gateway.RenewPath+"`")
}
