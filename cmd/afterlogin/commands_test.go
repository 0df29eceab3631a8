package main

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

var update = flag.Bool("update", false, "write docs/commands.md anew")

const commandsFile = "../../docs/commands.md"

// TestCommandsPage keeps docs/commands.md, where every command has its line: go test . -run TestCommandsPage -update
func TestCommandsPage(t *testing.T) {
	p := &program{}
	var b strings.Builder
	b.WriteString("# The commands\n\nThis page is made from the program. `afterlogin help COMMAND` says more of each, with examples and flags; `afterlogin help exit-codes` and\n" +
		"`afterlogin help environment` say what their names say.\n\n| command | what it does |\n|---|---|\n")
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Hidden {
			return
		}
		if c.Runnable() && c.HasParent() {
			if c.Short == "" {
				t.Errorf("%s does not say what it does", c.CommandPath())
			}
			use := strings.TrimPrefix(c.UseLine(), "afterlogin ")
			use = strings.ReplaceAll(strings.TrimSuffix(use, " [flags]"), "|", "\\|")
			fmt.Fprintf(&b, "| `%s` | %s |\n", use, c.Short)
		}
		names := map[string]bool{}
		for _, sub := range c.Commands() {
			if names[sub.Name()] {
				t.Errorf("%s is there twice", sub.CommandPath())
			}
			names[sub.Name()] = true
			walk(sub)
		}
	}
	walk(p.root())
	if *update {
		if err := os.WriteFile(commandsFile, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(commandsFile)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Error("docs/commands.md is out of date: go test . -run TestCommandsPage -update (in cmd/afterlogin)")
	}
}
