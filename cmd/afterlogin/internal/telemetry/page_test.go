package telemetry

import (
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/afterlogin/afterlogin/store"
	"github.com/afterlogin/afterlogin/store/memstore"
)

var update = flag.Bool("update", false, "write the table of docs/metrics.md anew")

const root = "../../../.."

// page is the table of docs/metrics.md.
func page() string {
	var out strings.Builder
	out.WriteString("\n| metric | labels | what |\n|---|---|---|\n")
	for _, f := range Families() {
		what := strings.TrimSuffix(f.Help, ".")
		if f.Kind != "counter" {
			what = f.Kind + ": " + what
		}
		if f.When != "" {
			what += ". There if " + f.When
		}
		labels := "–"
		if len(f.Labels) > 0 {
			labels = "`" + strings.Join(f.Labels, "`, `") + "`"
		}
		fmt.Fprintf(&out, "| `%s` | %s | %s |\n", f.Name, labels, strings.ReplaceAll(what, "|", `\|`))
	}
	return out.String() + "\n"
}

// The table in docs/metrics.md has every family, and nothing else. TestFamilies holds the families to what is exposed.
func TestPage(t *testing.T) {
	path := filepath.Join(root, "docs", "metrics.md")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	begin := strings.Index(text, "<!-- families: ")
	end := strings.Index(text, "<!-- end of families -->")
	if begin < 0 || end < begin {
		t.Fatal("the place of the table is not there")
	}
	begin += strings.Index(text[begin:], "\n") + 1
	if text[begin:end] == page() {
		return
	}
	if !*update {
		t.Fatal("docs/metrics.md is not up to date: in cmd/afterlogin, go test ./internal/telemetry -run TestPage -update")
	}
	if err := os.WriteFile(path, []byte(text[:begin]+page()+text[end:]), 0o644); err != nil {
		t.Fatal(err)
	}
}

// expression is a PromQL expression of a file in deploy/.
type expression struct{ where, text string }

func expressions(t *testing.T) (all []expression) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, "deploy", "grafana", "afterlogin.json"))
	if err != nil {
		t.Fatal(err)
	}
	var dash struct {
		Panels []struct {
			ID      int
			Type    string
			Title   string
			GridPos struct{ X, Y, W, H int }
			Targets []struct{ Expr string }
		}
		Templating struct {
			List []struct{ Query any }
		}
	}
	if err := json.Unmarshal(b, &dash); err != nil {
		t.Fatal(err)
	}
	ids := make(map[int]bool)
	for i, p := range dash.Panels {
		if ids[p.ID] || p.Title == "" || p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %d %q: its id is not its own, or it shows nothing", p.ID, p.Title)
		}
		ids[p.ID] = true
		for _, q := range dash.Panels[:i] {
			a, b := p.GridPos, q.GridPos
			if a.X < b.X+b.W && b.X < a.X+a.W && a.Y < b.Y+b.H && b.Y < a.Y+a.H {
				t.Errorf("panels %q and %q lie on each other", p.Title, q.Title)
			}
		}
		for _, target := range p.Targets {
			all = append(all, expression{"panel " + p.Title, target.Expr})
		}
	}
	for _, v := range dash.Templating.List {
		if q, ok := v.Query.(map[string]any); ok {
			all = append(all, expression{"variable", q["query"].(string)})
		}
	}
	b, err = os.ReadFile(filepath.Join(root, "deploy", "prometheus", "rules.yml"))
	if err != nil {
		t.Fatal(err)
	}
	var rules struct {
		Groups []struct {
			Rules []struct {
				Alert, Expr string
				Annotations struct{ Summary, Description string }
			}
		}
	}
	if err := yaml.Unmarshal(b, &rules); err != nil {
		t.Fatal(err)
	}
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			if r.Annotations.Summary == "" || r.Annotations.Description == "" {
				t.Errorf("%s does not say what it means and what to do", r.Alert)
			}
			all = append(all, expression{r.Alert, r.Expr})
		}
	}
	if len(all) < 60 {
		t.Fatalf("%d expressions", len(all))
	}
	return all
}

var (
	selector = regexp.MustCompile(`([a-z]+_[a-z_]+|up)(\{[^}]*\})?`)
	matcher  = regexp.MustCompile(`([a-z_]+)(=~|!~|!=|=)"([^"]*)"`)
	grouping = regexp.MustCompile(`(?:by|without) \(([^)]*)\)`)
)

// Every name and every label in the dashboard and in the rules is one that there is, and every family is in one of them.
func TestDeployNames(t *testing.T) {
	s := memstore.New()
	defer s.Close()
	o := everything(newAuthority(t, s))
	collector, _ := newCollector(t)
	o.Getenv = environ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.URL)
	tel := open(t, o)
	tel.Store(writable{s}).Get(t.Context(), store.SubjectID(0, "mia"))
	for path := range routes {
		serve(tel, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), httptest.NewRequest("GET", path, nil))
	}
	serve(tel, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), httptest.NewRequest("GET", forwardAuth, nil))
	have := fetch(t, tel)
	values := make(map[string][]string) // of labels, as they are exposed
	for _, f := range have {
		for _, m := range f.Metric {
			for _, l := range m.Label {
				values[l.GetName()] = append(values[l.GetName()], l.GetValue())
			}
		}
	}
	values["call"] = callNames[:]
	values["code"] = []string{"1xx", "2xx", "3xx", "4xx", "5xx", "aborted"}
	values["route"] = append(values["route"], "/v1/events")
	values["outcome"] = append(values["outcome"], "conflict", "not_found", "canceled", "yes", "sign_in")
	values["job"] = []string{"afterlogin"}
	labelsOf := func(name string) []string {
		for _, f := range Families() {
			if base, ok := strings.CutPrefix(name, f.Name); ok && (base == "" || f.Kind == "histogram" && slices.Contains([]string{"_bucket", "_count", "_sum"}, base)) {
				labels := append([]string{"instance", "job"}, f.Labels...)
				if base == "_bucket" {
					labels = append(labels, "le")
				}
				return labels
			}
		}
		if name == "up" || (strings.HasPrefix(name, "go_") || strings.HasPrefix(name, "process_")) && have[name] != nil {
			return []string{"instance", "job"}
		}
		return nil
	}
	used := make(map[string]bool)
	for _, e := range expressions(t) {
		var known []string
		text := grouping.ReplaceAllString(e.text, "")
		for _, m := range selector.FindAllStringSubmatch(text, -1) {
			name := m[1]
			if slices.Contains([]string{"histogram_quantile", "label_values"}, name) || strings.HasPrefix(name, "__") {
				continue
			}
			if at := strings.Index(text, name); at > 0 && text[at-1] == '$' || name == "rate_interval__" || strings.Contains(name, "rate_interval") {
				continue
			}
			if !strings.HasPrefix(name, "afterlogin_") && !strings.HasPrefix(name, "go_") && !strings.HasPrefix(name, "process_") && name != "up" {
				continue // a label
			}
			labels := labelsOf(name)
			if labels == nil {
				t.Errorf("%s: there is no metric %s", e.where, name)
				continue
			}
			for _, f := range Families() {
				if strings.HasPrefix(name, f.Name) {
					used[f.Name] = true
				}
			}
			known = append(known, labels...)
			for _, l := range matcher.FindAllStringSubmatch(m[2], -1) {
				if !slices.Contains(labels, l[1]) {
					t.Errorf("%s: %s has no label %s", e.where, name, l[1])
				}
				if l[3] == "$instance" {
					continue
				}
				for v := range strings.SplitSeq(l[3], "|") {
					if !slices.Contains(values[l[1]], v) {
						t.Errorf("%s: %s is never %q", e.where, l[1], v)
					}
				}
			}
		}
		for _, m := range grouping.FindAllStringSubmatch(e.text, -1) {
			for l := range strings.SplitSeq(m[1], ",") {
				if !slices.Contains(known, strings.TrimSpace(l)) {
					t.Errorf("%s: what is grouped by %s has no such label", e.where, l)
				}
			}
		}
	}
	for _, f := range Families() {
		if !used[f.Name] {
			t.Errorf("%s is neither in the dashboard nor in a rule", f.Name)
		}
	}
}

// Prometheus itself takes the rules and every expression of the dashboard, and the rules fire when they should.
func TestPromtool(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Fatal("there is no promtool: run scripts/test.sh, which installs it (apt-get install prometheus)")
	}
	run := func(dir string, args ...string) {
		t.Helper()
		c := exec.CommandContext(t.Context(), promtool, args...)
		c.Dir = dir
		if out, err := c.CombinedOutput(); err != nil {
			t.Errorf("promtool %v: %v\n%s", args, err, out)
		}
	}
	dir := filepath.Join(root, "deploy", "prometheus")
	run(dir, "check", "rules", "rules.yml")
	run(dir, "check", "config", "prometheus.yml")
	run(dir, "test", "rules", "rules_test.yml")
	type rule struct {
		Record string `yaml:"record"`
		Expr   string `yaml:"expr"`
	}
	var rules []rule
	for i, e := range expressions(t) {
		if e.where == "variable" {
			continue
		}
		rules = append(rules, rule{fmt.Sprintf("panel_%d", i), strings.NewReplacer("$__rate_interval", "5m", "$instance", ".*").Replace(e.text)})
	}
	b, err := yaml.Marshal(map[string]any{"groups": []any{map[string]any{"name": "dashboard", "rules": rules}}})
	if err != nil {
		t.Fatal(err)
	}
	tmp := t.TempDir()
	if err := os.WriteFile(filepath.Join(tmp, "rules.yml"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	run(tmp, "check", "rules", "rules.yml")
}
