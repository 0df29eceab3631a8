package api

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/rehearsal"
	"github.com/afterlogin/afterlogin/store/memstore"
)

func TestRehearsal(t *testing.T) {
	f := newFixture(t, memstore.New())
	in := func() string {
		var got struct{ Token string }
		f.ok("POST", "/v1/sessions", `{"subject":"mia"}`, &got)
		return f.issued(got.Token)
	}
	token := in()
	validate := func() {
		t.Helper()
		if a := f.do("POST", "/v1/validate", f.key, `{"token":"`+token+`","kinds":["session"]}`); a.status != 200 {
			t.Fatalf("%d %s", a.status, a.body)
		}
	}
	validate()
	f.pass(20 * time.Minute)
	validate()
	in()
	a := f.do("GET", "/v1/rehearsal", f.key, "")
	var r rehearsal.Report
	if err := json.Unmarshal([]byte(a.body), &r); err != nil || a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if len(r.Rules) != 2 || r.Rules[0].People != 1 || r.Rules[0].Seen.People != 1 || r.Rules[0].Examples[0].Subject != "mia" || r.Rules[1].Occasions != 1 || r.Twice != 1 {
		t.Errorf("%+v", r)
	}
	f.noTokenIn("the answer", a.body)
	var part rehearsal.Report
	b := f.do("GET", "/v1/rehearsal", f.apiKey(ServerRead), "")
	if err := json.Unmarshal([]byte(b.body), &part); err != nil || b.status != 200 || part.Rules[0].People != 1 || len(part.Rules[0].Examples) != 0 ||
		strings.Contains(b.body, "mia") || strings.Contains(b.body, "ses_") || strings.Contains(b.body, "null") {
		t.Errorf("without sessions:read: %d %s", b.status, b.body)
	}
	if a := f.do("GET", "/v1/rehearsal", f.apiKey(SessionsRead), ""); a.status != 403 {
		t.Errorf("without the scope: %d", a.status)
	}
	f.api.rehearsal = nil
	if a := f.do("GET", "/v1/rehearsal", f.key, ""); a.status != 404 || a.kind() != "not-configured" {
		t.Errorf("with nothing to rehearse: %d %s", a.status, a.body)
	}
}

func TestSessionLimit(t *testing.T) {
	f := newFixture(t, memstore.New(), func(c *afterlogin.Config) {
		c.Limits = map[afterlogin.Kind]afterlogin.SessionLimit{
			afterlogin.KindSession: {Max: 1, AtLimit: afterlogin.DenyNew}, afterlogin.KindAPIKey: {Max: 3, AtLimit: afterlogin.DenyNew},
		}
	})
	for what, do := range map[string]func() *answer{
		"a session":  func() *answer { return f.do("POST", "/v1/sessions", f.key, `{"subject":"mia"}`) },
		"an API key": func() *answer { return f.do("POST", "/v1/api-keys", f.key, `{"subject":"mia","lifetime":"24h"}`) },
	} {
		a := do()
		for range 5 {
			if a.status >= 300 {
				break
			}
			a = do()
		}
		if a.status != 409 || a.kind() != "session-limit" {
			t.Errorf("%s too many: %d %s", what, a.status, a.body)
		}
	}
}
