package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const canary = "pw-canary-77"

// The password of a store's address is nowhere to be seen: not in what is shown, not in a fault, not in an excerpt.
func TestStorePassword(t *testing.T) {
	good := "redis://mia:" + canary + "@10.0.0.1:6379/3"
	l, err := load(t, "", []string{"AFTERLOGIN_STORE=" + good})
	if err != nil || len(l.Warnings) > 0 {
		t.Fatal(err, l.Warnings)
	}
	for _, s := range Settings() {
		if text := s.Text(&l.Config); strings.Contains(text, canary) || s.Key == "store" && text != "redis://10.0.0.1:6379/3" {
			t.Errorf("%s is shown as %q", s.Name(), text)
		}
	}
	if l, err = load(t, "", nil, "--store="+good); err != nil || len(l.Warnings) != 1 || strings.Contains(l.Warnings[0], canary) {
		t.Errorf("a password on the command line: %v, %q", err, l.Warnings)
	}
	if l, err = load(t, "", nil, "--store=redis://10.0.0.1:6379"); err != nil || len(l.Warnings) > 0 {
		t.Errorf("no password on the command line: %v, %q", err, l.Warnings)
	}
	for name, bad := range map[string]string{
		"another scheme": "store: mysql://mia:" + canary + "@10.0.0.1/db\n",
		"no scheme":      "store: mia:" + canary + "@10.0.0.1\n",
		"a wrong line":   "store: " + good + "\nlisten: nonsense\n",
		"a list":         "store: [\"" + good + "\"]\n",
		"a fragment":     "store: \"postgres://mia:" + canary + "#x@10.0.0.1/db\"\n",
		"a question":     "store: postgres://mia:" + canary + "?x@10.0.0.1/db\n",
		"a slash":        "store: postgres://mia:" + canary + "/x@10.0.0.1/db\n",
		"a lone #":       "store: postgres://10.0.0.1/db#" + canary + "\n",
		"a space":        "store: \"postgres://mia:" + canary + " @10.0.0.1/db\"\n",
		"a query":        "store: \"postgres://10.0.0.1/db?password=" + canary + "\"\nnonsense: 1\n",
	} {
		_, err := load(t, bad, nil)
		if err == nil {
			t.Errorf("%s is accepted", name)
			continue
		}
		for _, f := range err.(Faults) {
			if text := f.Error() + f.Excerpt + f.Hint; strings.Contains(text, canary) {
				t.Errorf("%s: the password stands in\n%s", name, text)
			}
		}
	}
}

func TestStoreFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "store")
	check := func(text, want string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := load(t, "", []string{"AFTERLOGIN_STORE_FILE=" + file})
		if err != nil {
			t.Fatal(err)
		}
		err = l.CheckFiles()
		if got, aerr := l.Config.StoreAddress(); got != want || (aerr == nil) != (want != "") || (err == nil) != (want != "") {
			t.Errorf("%q: address %q, %v; check %v", text, got, aerr, err)
		}
		if err != nil && strings.Contains(err.Error(), canary) {
			t.Errorf("the password stands in %v", err)
		}
	}
	check("postgres://mia:"+canary+"@db/afterlogin\n", "postgres://mia:"+canary+"@db/afterlogin")
	check("", "") // must not mean the embedded store
	check("mysql://mia:"+canary+"@db/x", "")
	if _, err := load(t, "", []string{"AFTERLOGIN_STORE_FILE=" + file, "AFTERLOGIN_STORE=redis://h"}); err == nil {
		t.Error("both are accepted")
	}
}
