package remote_test

import (
	"os"
	"strings"
	"testing"
)

// The program in docs/jwt.md is the Example here, which compiles.
func TestProgramInDocs(t *testing.T) {
	body := func(file, begin, end string) string {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		_, rest, ok := strings.Cut(string(b), begin)
		program, _, ok2 := strings.Cut(rest, end)
		if !ok || !ok2 {
			t.Fatalf("%s has no %q", file, begin)
		}
		return program
	}
	docs, example := body("../../docs/jwt.md", "func main() {\n", "\n}\n"), body("example_test.go", "func Example() {\n", "\n}\n")
	if docs != example {
		t.Errorf("docs/jwt.md has\n%s\nthe example is\n%s", docs, example)
	}
}
