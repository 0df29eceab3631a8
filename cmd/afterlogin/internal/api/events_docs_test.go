package api

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Every type of event stands in docs/events.md, and no other does.
func TestEventsAreExplained(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "../../../../event.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var types []string
	ast.Inspect(file, func(n ast.Node) bool {
		if v, ok := n.(*ast.ValueSpec); ok && strings.HasPrefix(v.Names[0].Name, "Event") && len(v.Values) == 1 {
			if lit, ok := v.Values[0].(*ast.BasicLit); ok {
				s, err := strconv.Unquote(lit.Value)
				if err != nil {
					t.Fatal(err)
				}
				types = append(types, s)
			}
		}
		return true
	})
	if len(types) < 30 {
		t.Fatalf("%d types of events in event.go", len(types))
	}
	page, err := os.ReadFile("../../../../docs/events.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(page), "## The types")
	var explained []string
	for line := range strings.Lines(table) {
		if cells := strings.SplitN(line, "|", 3); len(cells) == 3 {
			for _, m := range regexp.MustCompile("`([a-z_]+\\.[a-z_]+)`").FindAllStringSubmatch(cells[1], -1) {
				explained = append(explained, m[1])
			}
		}
	}
	for _, typ := range types {
		if !slices.Contains(explained, typ) {
			t.Errorf("docs/events.md does not explain %s", typ)
		}
	}
	for _, typ := range explained {
		if !slices.Contains(types, typ) {
			t.Errorf("docs/events.md explains %s, which there is not", typ)
		}
	}
}
