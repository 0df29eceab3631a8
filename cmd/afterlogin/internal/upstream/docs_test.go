package upstream_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/config"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/upstream"
)

// The configurations in docs/upstream.md are taken, by whoever reads the file and by New.
func TestDocumentedProviders(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "..", "..", "docs", "upstream.md"))
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(string(text), -1)
	if len(blocks) < 5 {
		t.Fatalf("%d configurations", len(blocks))
	}
	ids := make(map[string]bool)
	for _, b := range blocks {
		yaml := b[1]
		if !strings.HasPrefix(yaml, "sign_in:") {
			yaml = "sign_in:\n  providers:\n" + yaml
		}
		file := filepath.Join(t.TempDir(), "afterlogin.yaml")
		if err := os.WriteFile(file, []byte(yaml), 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := config.Load(file, nil, nil)
		if err != nil || len(l.Config.Providers) != 1 {
			t.Errorf("%s\n%v", yaml, err)
			continue
		}
		p := l.Config.Providers[0]
		ids[p.ID] = true
		if !strings.HasPrefix(p.SecretFile, "/run/secrets/") || p.ClientID == "" {
			t.Errorf("%s\nis read as %+v", yaml, p)
		}
		if err := upstream.CheckProvider(p.Upstream()); err != nil {
			t.Errorf("%s\n%v", yaml, err)
		}
	}
	if len(ids) != len(blocks) {
		t.Errorf("%d configurations, and the IDs %v", len(blocks), ids)
	}
}
