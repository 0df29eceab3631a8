package api

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/afterlogin/afterlogin/store/memstore"
)

const referenceFile = "../../../../docs/api.md"

// TestReference keeps docs/api.md, where every operation has its line: go test ./internal/api -run TestReference -update
func TestReference(t *testing.T) {
	got := reference(t, newFixture(t, memstore.New()).api.OpenAPI())
	if *update {
		if err := os.WriteFile(referenceFile, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(referenceFile)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Error("docs/api.md is out of date: go test ./internal/api -run TestReference -update")
	}
}

func reference(t *testing.T, document []byte) string {
	t.Helper()
	var doc struct {
		Paths map[string]map[string]struct {
			Summary  string
			Security []map[string][]string
		}
	}
	if err := json.Unmarshal(document, &doc); err != nil {
		t.Fatal(err)
	}
	var rows []string
	for path, methods := range doc.Paths {
		for method, op := range methods {
			if op.Summary == "" || len(op.Security) == 0 || len(op.Security[0]["bearer"]) != 1 {
				t.Errorf("%s %s has no summary, or not one scope", method, path)
				continue
			}
			rows = append(rows, fmt.Sprintf("| `%s` | `%s` | %s | %s |", path, strings.ToUpper(method), op.Security[0]["bearer"][0], op.Summary))
		}
	}
	slices.Sort(rows)
	return "# The JSON API, call by call\n\n" +
		"This page is made from the program; [openapi.json](openapi.json), which a server answers at `/openapi.json`, has the fields of each call, its\n" +
		"answers and its errors ([errors.md](errors.md)). Every call needs an API key with the scope of its line, as `Authorization: Bearer alk_…` or\n" +
		"`x-api-key: alk_…`; some need another scope besides for some of what they can do, and say so. [server.md](server.md) shows the first calls.\n\n" +
		"| path | method | scope | what it does |\n|---|---|---|---|\n" + strings.Join(rows, "\n") + "\n"
}
