// Package layertest holds the rules of the house: who may import whom, and why. They are tests, so that breaking one
// says which, with its reason, before a reviewer has to.
package layertest

import (
	"encoding/json"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/afterlogin/afterlogin"

// rule says what the packages below a path (relative to the module) may not import.
type rule struct {
	from   string
	except []string // packages below from that the rule does not mean
	never  []string // import path prefixes
	but    []string // of these, what may be imported nevertheless
	reason string
}

var rules = []rule{
	{from: "store", except: []string{"store/memstore", "store/storetest", "store/pebblestore", "store/redisstore", "store/pgstore"}, never: []string{module, "."},
		reason: "the contract is a leaf: whoever writes a store must not get the rest of the house with it"},
	{from: "store/memstore", never: []string{module + "/keyring", module + "/internal", module + "/httpauth", "."},
		reason: "a store imports the contract and its driver, nothing else of ours"},
	{from: "store/pebblestore", never: []string{module + "/keyring", module + "/internal", module + "/httpauth", "net/http"},
		reason: "a store imports the contract and its driver, nothing else of ours"},
	{from: "store/redisstore", never: []string{module + "/keyring", module + "/internal", module + "/httpauth", "net/http"},
		reason: "a store imports the contract and its driver, nothing else of ours"},
	{from: "store/pgstore", never: []string{module + "/keyring", module + "/internal", module + "/httpauth", "net/http"},
		reason: "a store imports the contract and its driver, nothing else of ours"},
	{from: "keyring", never: []string{module, "net/http", "."}, but: []string{module + "/jwt", module + "/store"},
		reason: "a verifier uses keys alone, without the authority; of a store the ring knows the contract, for keys that nodes share"},
	{from: "jwt", except: []string{"jwt/remote", "jwt/revoked"}, never: []string{module, "net", "net/http", "os", "flag", "."},
		reason: "tokens are verified by whoever likes, wherever the keys come from; see docs/design/0008-jwt-on-the-standard-library.md"},
	{from: "jwt/remote", never: []string{module, "os", "flag", "."}, but: []string{module + "/jwt"},
		reason: "a service that verifies alone gets HTTP and keys, and nothing else of the house"},
	{from: "jwt/revoked", never: []string{module, "net", "net/http", "os", "flag", "."}, but: []string{module + "/jwt"},
		reason: "a service that verifies alone follows the events however they reach it"},
	{from: "internal/opaque", never: []string{module + "/httpauth", "net/http", "."},
		reason: "the token format knows keys and ids, nothing above"},
	{from: "internal/seal", never: []string{module + "/httpauth", "net/http", "."},
		reason: "sealing knows keys and records, nothing above"},
	{from: "", except: []string{"httpauth", "gateway", "store", "keyring", "jwt", "internal", "cmd", "bench", "examples", "test"}, never: []string{"net/http", module + "/httpauth", module + "/gateway", module + "/jwt/remote", module + "/cmd", "os", "flag", "."},
		reason: "the core knows no HTTP, no files, no flags: what it judges must not depend on how the question came"},
	{from: "httpauth", never: []string{module + "/internal", module + "/keyring", module + "/store", module + "/cmd", "os", "flag", "."},
		reason: "httpauth stands on the authority's exported calls alone, as anybody's middleware could"},
	{from: "gateway", never: []string{module + "/internal", module + "/keyring", module + "/store", module + "/cmd", "os", "flag", "."},
		reason: "whoever writes a server of his own asks the gateway as ours does: it stands on exported calls alone, and is told who signs"},
	{from: "bench", never: []string{module + "/internal"}, but: []string{module + "/internal/servers"}, reason: "other modules use what users can use"},
	{from: "examples", never: []string{module + "/internal"}, but: []string{module + "/internal/servers"}, reason: "other modules use what users can use"},
}

// "." in a rule's never stands for everything that is neither of the standard library nor of this module: the library's
// users get no dependency that they did not ask for. The allow-list is empty so far.
var allowed = []string{}

func TestLayers(t *testing.T) {
	root := repository(t)
	for path, imports := range packages(t, root) {
		for _, r := range rules {
			if !covers(r, path) {
				continue
			}
			for _, imp := range imports {
				for _, never := range r.never {
					if breaks(imp, never, r) {
						t.Errorf("%s imports %s: %s", orRoot(path), imp, r.reason)
					}
				}
			}
		}
	}
}

func breaks(imp, never string, r rule) bool {
	if slices.Contains(r.but, imp) {
		return false
	}
	switch never {
	case ".":
		first, _, _ := strings.Cut(imp, "/")
		return strings.Contains(first, ".") && !within(imp, module) && !slices.Contains(allowed, imp)
	case module: // the root package and all of ours, but the store's own contract for its neighbours
		return within(imp, module) && !(r.from != "store" && within(imp, module+"/store"))
	}
	return within(imp, never)
}

func within(path, prefix string) bool { return path == prefix || strings.HasPrefix(path, prefix+"/") }

func covers(r rule, path string) bool {
	if r.from != "" && !within(path, r.from) {
		return false
	}
	for _, e := range r.except {
		if within(path, e) {
			return false
		}
	}
	return true
}

func orRoot(path string) string {
	if path == "" {
		return "the root package"
	}
	return path
}

// packages maps each folder with Go code to what its code, tests aside, imports.
func packages(t *testing.T, root string) map[string][]string {
	t.Helper()
	out := make(map[string][]string)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") && path != root || d.Name() == "testdata" || d.Name() == "node_modules") {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		dir, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		dir = strings.TrimPrefix(filepath.ToSlash(dir), ".")
		for _, i := range f.Imports {
			out[dir] = append(out[dir], strings.Trim(i.Path.Value, `"`))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(out) < 5 {
		t.Fatalf("only %d packages found below %s", len(out), root)
	}
	return out
}

func repository(t *testing.T) string {
	t.Helper()
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// Every package says what it owns.
func TestPackageComments(t *testing.T) {
	root := repository(t)
	for path := range packages(t, root) {
		pkgs, err := parser.ParseDir(token.NewFileSet(), filepath.Join(root, path), func(i fs.FileInfo) bool {
			return !strings.HasSuffix(i.Name(), "_test.go")
		}, parser.ParseComments|parser.PackageClauseOnly)
		if err != nil {
			t.Fatal(err)
		}
		for name, pkg := range pkgs {
			documented := false
			for _, f := range pkg.Files {
				documented = documented || f.Doc != nil && len(f.Doc.Text()) > 40
			}
			if !documented {
				t.Errorf("package %s (%s) has no package comment that says what it owns", name, orRoot(path))
			}
		}
	}
}

// The library pulls in nothing: its go.mod requires nothing, and no go.mod replaces anything, which would break
// `go install …@version`.
func TestModules(t *testing.T) {
	root := repository(t)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "node_modules" || d.Name() == ".git") {
			return filepath.SkipDir
		}
		if d.Name() != "go.mod" {
			return nil
		}
		cmd := exec.Command("go", "mod", "edit", "-json", path)
		cmd.Stderr = os.Stderr
		b, err := cmd.Output()
		if err != nil {
			return err
		}
		var mod struct {
			Module  struct{ Path string }
			Require []struct{ Path, Version string }
			Replace []json.RawMessage
		}
		if err := json.Unmarshal(b, &mod); err != nil && err != io.EOF {
			return err
		}
		if len(mod.Replace) > 0 {
			t.Errorf("%s replaces modules: only go.work may", mod.Module.Path)
		}
		for _, r := range mod.Require {
			if mod.Module.Path == module {
				t.Errorf("the library requires %s: the default answer is no", r.Path)
			}
			if within(r.Path, module) && r.Version != "v0.1.0" {
				t.Errorf("%s requires %s at %s, all modules have one version", mod.Module.Path, r.Path, r.Version)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
