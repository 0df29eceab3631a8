package api

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/store"
	"github.com/afterlogin/afterlogin/store/memstore"
)

// everyStore runs the test on each store.
func everyStore(t *testing.T, test func(t *testing.T, f *fixture)) {
	for name, open := range stores {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, newFixture(t, open(t)))
		})
	}
}

func TestLife(t *testing.T) {
	everyStore(t, func(t *testing.T, f *fixture) {
		var begun struct{ Mark string }
		f.ok("POST", "/v1/subjects/mia/begin", "", &begun)
		a := f.do("POST", "/v1/sessions", f.key, `{"subject":"mia","policy":"browser","mark":"`+begun.Mark+`",
			"auth":{"methods":["pwd","otp"],"at":"`+f.now.Add(-time.Minute).Format(time.RFC3339)+`"},
			"device":{"ip":"203.0.113.9","user_agent":"Mozilla/5.0 Firefox/140.0"},
			"lifetime":"2h","scopes":["orders:read"],"data":{"cart":[{"id":7,"n":2}]}}`)
		var c Created
		if err := json.Unmarshal([]byte(a.body), &c); err != nil || a.status != 201 {
			t.Fatal(a.status, a.body, err)
		}
		f.issued(c.Token)
		if got, want := a.header.Get("Location"), "/v1/sessions/"+c.Session.ID; got != want {
			t.Errorf("Location %q, want %q", got, want)
		}
		v := f.validate(c.Token)
		s := v.Session
		if !v.Active || s == nil {
			t.Fatalf("not active: %+v", v)
		}
		if s.ID != c.Session.ID || s.Subject != "mia" || s.Kind != "session" || s.Policy != "browser" || s.Generation != 1 ||
			!slices.Equal(s.Auth.Methods, []string{"pwd", "otp"}) || s.Auth.At.Unix() != f.now.Add(-time.Minute).Unix() ||
			s.Device != (Device{"203.0.113.9", "Mozilla/5.0 Firefox/140.0"}) || !slices.Equal(s.Scopes, []string{"orders:read"}) ||
			s.ExpiresAt.Sub(s.CreatedAt) != 2*time.Hour || s.IdleAt.Sub(s.LastSeenAt) != time.Hour || s.EndedAt != nil {
			t.Errorf("got %+v", s)
		}
		as, err := f.a.Validate(t.Context(), afterlogin.TokenFrom(c.Token), afterlogin.Expect{Kinds: []afterlogin.Kind{afterlogin.KindSession}})
		if err != nil {
			t.Fatal(err)
		}
		d, err := f.a.Data(t.Context(), as)
		if err != nil || string(d.JSON("cart")) != `[{"id":7,"n":2}]` {
			t.Errorf("data: %v %s", err, d.JSON("cart"))
		}

		// Renewal: the new token is good, the old one for its grace, and after that it ends the session.
		var r Renewed
		f.pass(16 * time.Minute)
		if v := f.validate(c.Token); !v.RenewalDue {
			t.Errorf("no renewal due after 16 minutes: %+v", v)
		}
		f.ok("POST", "/v1/renew", `{"token":"`+c.Token+`","device":{"ip":"203.0.113.9","user_agent":"Mozilla/5.0 Firefox/140.0"}}`, &r)
		f.issued(r.Token)
		if !r.Active || r.Token == "" || r.Token == c.Token || r.Session.Generation != 2 || r.Session.ID != s.ID {
			t.Fatalf("renewed: %+v", r)
		}
		var again Renewed
		f.ok("POST", "/v1/renew", `{"token":"`+c.Token+`","device":{"ip":"203.0.113.9","user_agent":"Mozilla/5.0 Firefox/140.0"}}`, &again)
		if again.Token != r.Token {
			t.Error("a lost answer is not given again")
		}
		if v := f.validate(r.Token); !v.Active {
			t.Errorf("the new token: %+v", v)
		}
		f.pass(2 * time.Minute)
		if v := f.validate(c.Token); v.Active || v.Reason != "reused" || !strings.Contains(v.Message, "out-of-date copy") || v.Session != nil {
			t.Errorf("the old token: %+v", v)
		}
		if v := f.validate(r.Token); v.Active || v.Reason != "revoked" || v.Cause != "reused" {
			t.Errorf("the new token after the theft: %+v", v)
		}
		var over Session
		f.ok("GET", "/v1/sessions/"+s.ID, "", &over)
		if over.EndedAt == nil || over.EndedWhy != "reused" {
			t.Errorf("ended session: %+v", over)
		}
	})
}

func TestRevoke(t *testing.T) {
	everyStore(t, func(t *testing.T, f *fixture) {
		one := f.signIn(`{"subject":"mia"}`)
		two := f.signIn(`{"subject":"mia","remember":true}`)
		tom := f.signIn(`{"subject":"tom"}`)
		if two.Session.Policy != "remember" {
			t.Errorf("policy %q", two.Session.Policy)
		}
		for range 2 { // the second does no harm
			if a := f.ok("DELETE", "/v1/sessions/"+one.Session.ID, "", nil); a.status != 204 || a.body != "" {
				t.Errorf("revoke: %d %q", a.status, a.body)
			}
		}
		if v := f.validate(one.Token); v.Reason != "revoked" || v.Cause != "administrator" {
			t.Errorf("after revoke: %+v", v)
		}
		three := f.signIn(`{"subject":"mia"}`)
		f.ok("DELETE", "/v1/subjects/mia/sessions?except="+three.Session.ID, "", nil)
		if f.validate(two.Token).Active || !f.validate(three.Token).Active || !f.validate(tom.Token).Active {
			t.Error("except: the wrong ones ended")
		}
		var begun struct{ Mark string }
		f.ok("POST", "/v1/subjects/mia/begin", "", &begun)
		f.ok("DELETE", "/v1/subjects/mia/sessions", "", nil)
		if v := f.validate(three.Token); v.Reason != "signed_out_all" || v.Message == "" {
			t.Errorf("after sign-out everywhere: %+v", v)
		}
		if a := f.do("POST", "/v1/sessions", f.key, `{"subject":"mia","mark":"`+begun.Mark+`"}`); a.status != 409 || a.kind() != "stale-sign-in" {
			t.Errorf("a sign-in that was overtaken: %d %s", a.status, a.body)
		}
		// API keys stay, unless everything is meant.
		robot, err := f.a.Issue(t.Context(), afterlogin.IssueRequest{Subject: "mia", Kind: afterlogin.KindAPIKey})
		if err != nil {
			t.Fatal(err)
		}
		ask := func() (v Verdict) {
			f.ok("POST", "/v1/validate", `{"kinds":["api_key"],"token":"`+f.issued(robot.Token.Reveal())+`"}`, &v)
			return v
		}
		f.ok("DELETE", "/v1/subjects/mia/sessions", "", nil)
		if v := ask(); !v.Active || v.Session.Kind != "api_key" || v.Session.IdleAt != nil {
			t.Errorf("the key: %+v", v)
		}
		f.ok("DELETE", "/v1/subjects/mia/sessions?scope=everything", "", nil)
		if ask().Active {
			t.Error("the key lives on")
		}
	})
}

func TestList(t *testing.T) {
	everyStore(t, func(t *testing.T, f *fixture) {
		want := make(map[string]bool)
		for range 7 {
			want[f.signIn(`{"subject":"a/b ü"}`).Session.ID] = true
		}
		f.signIn(`{"subject":"tom"}`)
		gone := f.signIn(`{"subject":"a/b ü"}`)
		f.ok("DELETE", "/v1/sessions/"+gone.Session.ID, "", nil)
		for _, base := range []string{"/v1/subjects/a%2Fb%20%C3%BC/sessions?limit=3", "/v1/sessions?limit=3&subject=a%2Fb+%C3%BC"} {
			got := make(map[string]bool)
			pages := 0
			for cursor := ""; ; pages++ {
				path := base
				if cursor != "" {
					path += "&cursor=" + cursor
				}
				var l List
				f.ok("GET", path, "", &l)
				for _, s := range l.Data {
					if got[s.ID] || !want[s.ID] {
						t.Errorf("%s comes twice, or should not be there", s.ID)
					}
					got[s.ID] = true
				}
				if cursor = l.Next; cursor == "" {
					break
				}
			}
			if len(got) != 7 || pages != 2 {
				t.Errorf("%s: %d sessions on %d pages", base, len(got), pages+1)
			}
		}
		var all, ended, keys List
		f.ok("GET", "/v1/sessions", "", &all)
		f.ok("GET", "/v1/sessions?ended=true&subject=a%2Fb+%C3%BC", "", &ended)
		f.ok("GET", "/v1/sessions?kind=api_key", "", &keys)
		if len(all.Data) != 9 || len(ended.Data) != 8 || len(keys.Data) != 1 {
			t.Errorf("all %d, ended %d, keys %d", len(all.Data), len(ended.Data), len(keys.Data))
		}
		var none List
		if a := f.ok("GET", "/v1/subjects/nobody/sessions", "", &none); none.Data == nil || len(none.Data) != 0 {
			t.Errorf("nobody: %s", a.body)
		}
		for _, a := range []*answer{f.do("GET", "/v1/sessions", f.key, "")} {
			f.noTokenIn("a list", a.body)
		}
	})
}

func TestValidate(t *testing.T) {
	everyStore(t, func(t *testing.T, f *fixture) {
		mia := f.signIn(`{"subject":"mia","scopes":["a","b"]}`)
		gone := f.signIn(`{"subject":"mia"}`)
		f.ok("DELETE", "/v1/sessions/"+gone.Session.ID, "", nil)
		flipped := []byte(mia.Token)
		if flipped[60]++; !strings.Contains("BCDEFGHIJKLMNOPQRSTUVWXYZbcdefghijklmnopqrstuvwxyz123456789", string(flipped[60])) {
			flipped[60] = 'A' // behind Z, z, 9, - and _ comes what is in no token
		}
		tests := []struct {
			name, token, more string
			want              string // the reason; empty: active
		}{
			{"good", mia.Token, "", ""},
			{"good for its scopes", mia.Token, `,"scopes":["b","a"]`, ""},
			{"good for an age", mia.Token, `,"max_age":"15m"`, ""},
			{"good past the cache", mia.Token, `,"fresh":true`, ""},
			{"good as one of two kinds", mia.Token, `,"kinds":["api_key","session"]`, ""},
			{"empty", "", "", "malformed"},
			{"truncated", mia.Token[:87], "", "malformed"},
			{"over-long", mia.Token + "A", "", "malformed"},
			{"very long", strings.Repeat("A", 60_000), "", "malformed"},
			{"bit flipped", string(flipped), "", "forged"},
			{"other kind's letter", "alk" + mia.Token[3:], `,"kinds":["api_key"]`, "forged"},
			{"not of the wanted kind", mia.Token, `,"kinds":["api_key"]`, "wrong_kind"},
			{"an API key as a session", f.key, "", "wrong_kind"},
			{"without the scope", mia.Token, `,"scopes":["c"]`, "scope"},
			{"revoked", gone.Token, "", "revoked"},
			{"line break", mia.Token[:50] + `\n` + mia.Token[50:], "", "malformed"},
		}
		var batch []string
		for _, tt := range tests {
			var v Verdict
			f.ok("POST", "/v1/validate", `{"token":"`+tt.token+`"`+tt.more+`}`, &v)
			if v.Active != (tt.want == "") || v.Reason != tt.want || v.Active != (v.Session != nil) {
				t.Errorf("%s: %+v, want %q", tt.name, v, tt.want)
			}
			if tt.more == "" && len(tt.token) < 1000 {
				batch = append(batch, `"`+tt.token+`"`)
			}
		}
		for len(batch) < MaxBatch {
			batch = append(batch, `"`+mia.Token+`"`)
		}
		var all Verdicts
		f.ok("POST", "/v1/validate", `{"tokens":[`+strings.Join(batch, ",")+`]}`, &all)
		if len(all.Results) != MaxBatch {
			t.Fatalf("%d results", len(all.Results))
		}
		i := 0
		for _, tt := range tests {
			if tt.more != "" || len(tt.token) >= 1000 {
				continue
			}
			if v := all.Results[i]; v.Reason != tt.want {
				t.Errorf("batch, %s: %+v, want %q", tt.name, v, tt.want)
			}
			i++
		}
		f.pass(20 * time.Minute)
		var v Verdict
		f.ok("POST", "/v1/validate", `{"max_age":"15m","scopes":["a"],"token":"`+mia.Token+`"}`, &v)
		if v.Reason != "stale_auth" {
			t.Errorf("after 20 minutes: %+v", v)
		}
	})
}

func TestExplain(t *testing.T) {
	everyStore(t, func(t *testing.T, f *fixture) {
		c := f.signIn(`{"subject":"mia"}`)
		var ex Explanation
		f.ok("POST", "/v1/explain", `{"token":"`+c.Token+`"}`, &ex)
		if !ex.Valid || len(ex.Steps) != 5 || ex.Session == nil || ex.Session.ID != c.Session.ID || !ex.At.Equal(f.now) {
			t.Errorf("got %+v", ex)
		}
		f.ok("DELETE", "/v1/sessions/"+c.Session.ID, "", nil)
		f.ok("POST", "/v1/explain", `{"token":"`+c.Token+`"}`, &ex)
		if ex.Valid || ex.Reason != "revoked" || ex.Session.EndedWhy != "administrator" {
			t.Errorf("after revoke: %+v", ex)
		}
		ex = Explanation{}
		f.ok("POST", "/v1/explain", `{"token":"junk"}`, &ex)
		if ex.Valid || ex.Reason != "malformed" || ex.Session != nil {
			t.Errorf("junk: %+v", ex)
		}
	})
}

// TestBadInput sends everything that can be wrong with a request to every route.
func TestBadInput(t *testing.T) {
	everyStore(t, func(t *testing.T, f *fixture) {
		c := f.signIn(`{"subject":"mia"}`)
		other := f.signIn(`{"subject":"tom"}`)
		deep := strings.Repeat(`[`, 40) + strings.Repeat(`]`, 40)
		unknown := "ses_" + strings.Repeat("B", 22) + "A"
		tests := []struct {
			method, path, body string
			status             int
			kind, want         string
		}{
			// creating
			{"POST", "/v1/sessions", ``, 400, "malformed-json", "JSON body is required"},
			{"POST", "/v1/sessions", `{`, 400, "malformed-json", "ends too early"},
			{"POST", "/v1/sessions", `{"subject":"mia"} {}`, 400, "malformed-json", "after top-level value at line 1, column 19"},
			{"POST", "/v1/sessions", "{\n  \"subject\": mia}", 400, "malformed-json", "line 2, column 14"},
			{"POST", "/v1/sessions", `{"subject":"mia","subject":"tom"}`, 400, "malformed-json", `\"subject\" stands twice in the body`},
			{"POST", "/v1/sessions", `{"subject":"mia","data":{"a":{"x":1,"x":2}}}`, 400, "malformed-json", "stands twice in body.data.a"},
			{"POST", "/v1/sessions", "{\"subject\":\"\xff\"}", 400, "malformed-json", "not UTF-8"},
			{"POST", "/v1/sessions", `{"subject":"a\ud800"}`, 400, "malformed-json", "half of a surrogate pair"},
			{"POST", "/v1/sessions", `{"subject":"mia","data":{"a":` + deep + `}}`, 400, "malformed-json", "nested over 16 levels"},
			{"POST", "/v1/sessions", `null`, 422, "invalid-request", "body"},
			{"POST", "/v1/sessions", `[]`, 422, "invalid-request", "want object"},
			{"POST", "/v1/sessions", `{}`, 422, "invalid-request", "body.subject: is missing"},
			{"POST", "/v1/sessions", `{"subject":""}`, 422, "invalid-request", "want 1 to 512 bytes"},
			{"POST", "/v1/sessions", `{"subject":"` + strings.Repeat("x", 513) + `"}`, 422, "invalid-request", "want 1 to 512 bytes"},
			{"POST", "/v1/sessions", `{"subject":7}`, 422, "invalid-request", "body.subject: want string"},
			{"POST", "/v1/sessions", `{"subject":null}`, 422, "invalid-request", "body.subject"},
			{"POST", "/v1/sessions", `{"Subject":"mia"}`, 422, "invalid-request", `did you mean \"subject\"?`},
			{"POST", "/v1/sessions", `{"subject":"mia","frobnicate":1}`, 422, "invalid-request", "known are auth, data, device"},
			{"POST", "/v1/sessions", `{"subject":"mia","auth":{"methds":[]}}`, 422, "invalid-request", `body.auth.methds: there is no field of this name; did you mean \"methods\"?`},
			{"POST", "/v1/sessions", `{"subject":"mia","` + c.Token + `":1}`, 422, "invalid-request", "[token]"},
			{"POST", "/v1/sessions", `{"subject":"` + c.Token + `"}`, 422, "invalid-request", "looks like a token"},
			{"POST", "/v1/sessions", `{"subject":"afterlogin/admin"}`, 422, "invalid-request", "belong to the server"},
			{"POST", "/v1/sessions", `{"subject":"mia","policy":"nope"}`, 422, "invalid-request", "body.policy"},
			{"POST", "/v1/sessions", `{"subject":"mia","policy":"api-key"}`, 422, "invalid-request", "for API keys"},
			{"POST", "/v1/sessions", `{"subject":"mia","policy":"browser","remember":true}`, 422, "invalid-request", "body.remember"},
			{"POST", "/v1/sessions", `{"subject":"mia","remember":"yes"}`, 422, "invalid-request", "body.remember: want boolean"},
			{"POST", "/v1/sessions", `{"subject":"mia","mark":"x"}`, 422, "invalid-request", "body.mark"},
			{"POST", "/v1/sessions", `{"subject":"mia","lifetime":"soon"}`, 422, "invalid-request", "body.lifetime"},
			{"POST", "/v1/sessions", `{"subject":"mia","lifetime":"0s"}`, 422, "invalid-request", "must not be zero"},
			{"POST", "/v1/sessions", `{"subject":"mia","lifetime":"1ms"}`, 422, "invalid-request", "body.lifetime"},
			{"POST", "/v1/sessions", `{"subject":"mia","lifetime":3600}`, 422, "invalid-request", "body.lifetime: want string"},
			{"POST", "/v1/sessions", `{"subject":"mia","auth":{"at":"yesterday"}}`, 422, "invalid-request", "body.auth.at"},
			{"POST", "/v1/sessions", `{"subject":"mia","auth":{"at":"2199-01-01T00:00:00Z"}}`, 422, "invalid-request", "in the future"},
			{"POST", "/v1/sessions", `{"subject":"mia","auth":{"at":"0001-01-01T00:00:00Z"}}`, 422, "invalid-request", "before 1970"},
			{"POST", "/v1/sessions", `{"subject":"mia","auth":{"methods":"pwd"}}`, 422, "invalid-request", "body.auth.methods: want array"},
			{"POST", "/v1/sessions", `{"subject":"mia","auth":{"methods":[""]}}`, 422, "invalid-request", "body.auth.methods: want 1 to 128 bytes"},
			{"POST", "/v1/sessions", `{"subject":"mia","device":{"ip":"1.2.3.4:80"}}`, 422, "invalid-request", "body.device.ip"},
			{"POST", "/v1/sessions", `{"subject":"mia","device":{"ip":"fe80::1%eth0"}}`, 422, "invalid-request", "body.device.ip"},
			{"POST", "/v1/sessions", `{"subject":"mia","data":[]}`, 422, "invalid-request", "body.data: want object"},
			{"POST", "/v1/sessions", `{"subject":"mia","data":{"":1}}`, 422, "invalid-request", "body.data: want 1 to 128 bytes"},
			{"POST", "/v1/sessions", `{"subject":"mia","data":{"x":"` + strings.Repeat("x", 65_600) + `"}}`, 422, "invalid-request", "session data would come to"},
			{"POST", "/v1/sessions", `{"subject":"mia","data":{"x":"` + strings.Repeat("x", MaxBodyWithData) + `"}}`, 413, "body-too-large", "over 81920 bytes"},
			{"POST", "/v1/sessions?x=1", `{"subject":"mia"}`, 422, "invalid-request", "query.x"},
			// reading
			{"GET", "/v1/sessions?limit=0", ``, 422, "invalid-request", "query.limit"},
			{"GET", "/v1/sessions?limit=1001", ``, 422, "invalid-request", "query.limit"},
			{"GET", "/v1/sessions?limit=many", ``, 422, "invalid-request", "query.limit"},
			{"GET", "/v1/sessions?limit=1&limit=2", ``, 400, "bad-query", "query.limit stands there twice"},
			{"GET", "/v1/sessions?subject=", ``, 400, "bad-query", "query.subject has no value"},
			{"GET", "/v1/sessions?ended", ``, 400, "bad-query", "query.ended has no value"},
			{"GET", "/v1/sessions?ended=perhaps", ``, 422, "invalid-request", "query.ended"},
			{"GET", "/v1/sessions?subjct=mia", ``, 422, "invalid-request", `did you mean \"subject\"?`},
			{"GET", "/v1/sessions?kind=cookie", ``, 422, "invalid-request", "query.kind"},
			{"GET", "/v1/sessions?cursor=x", ``, 400, "bad-cursor", "next_cursor"},
			{"GET", "/v1/sessions?a=%zz", ``, 400, "bad-query", "cannot be read"},
			{"GET", "/v1/sessions/nonsense", ``, 400, "bad-session-id", "path.id"},
			{"GET", "/v1/sessions/" + strings.Repeat("s", 300), ``, 422, "invalid-request", "path.id"},
			{"GET", "/v1/sessions/" + unknown, ``, 404, "no-such-session", ""},
			{"GET", "/v1/sessions/" + c.Token, ``, 400, "token-in-url", "header"},
			{"GET", "/v1/subjects/" + strings.Repeat("x", 513) + "/sessions", ``, 422, "invalid-request", "path.sub"},
			{"GET", "/v1/subjects/%ff/sessions", ``, 422, "invalid-request", "path.sub"},
			// ending
			{"DELETE", "/v1/sessions/nonsense", ``, 400, "bad-session-id", "path.id"},
			{"DELETE", "/v1/sessions/" + unknown, ``, 404, "no-such-session", ""},
			{"DELETE", "/v1/subjects/mia/sessions?except=nonsense", ``, 400, "bad-session-id", "query.except"},
			{"DELETE", "/v1/subjects/mia/sessions?except=" + unknown, ``, 404, "no-such-session", ""},
			{"DELETE", "/v1/subjects/mia/sessions?except=" + other.Session.ID, ``, 422, "invalid-request", "not a session of this subject"},
			{"DELETE", "/v1/subjects/tom/sessions?scope=everything&except=" + other.Session.ID, ``, 422, "invalid-request", "spares nothing"},
			{"DELETE", "/v1/subjects/mia/sessions?scope=all", ``, 422, "invalid-request", "query.scope"},
			{"POST", "/v1/subjects/afterlogin%2Fx/begin", ``, 422, "invalid-request", "belong to the server"},
			// validating
			{"POST", "/v1/validate", ``, 400, "malformed-json", "JSON body is required"},
			{"POST", "/v1/validate", `{"token":`, 400, "malformed-json", "ends too early"},
			{"POST", "/v1/validate", `{"token":"a","token":"b"}`, 400, "malformed-json", "stands twice"},
			{"POST", "/v1/validate", `{"token":"a"}{"token":"b"}`, 400, "malformed-json", "after top-level value"},
			{"POST", "/v1/validate", deep, 400, "malformed-json", "nested"},
			{"POST", "/v1/validate", `null`, 422, "invalid-request", "want object"},
			{"POST", "/v1/validate", `"x"`, 422, "invalid-request", "want object"},
			{"POST", "/v1/validate", `{}`, 422, "invalid-request", "give token, or tokens"},
			{"POST", "/v1/validate", `{"token":1}`, 422, "invalid-request", "body.token: want a text"},
			{"POST", "/v1/validate", `{"token":null}`, 422, "invalid-request", "body.token: want a text"},
			{"POST", "/v1/validate", `{"Token":"x"}`, 422, "invalid-request", `did you mean \"token\"?`},
			{"POST", "/v1/validate", `{"token":"x","purpose":"y"}`, 422, "invalid-request", "known are token"},
			{"POST", "/v1/validate", `{"token":"x","tokens":["y"]}`, 422, "invalid-request", "not both"},
			{"POST", "/v1/validate", `{"tokens":[]}`, 422, "invalid-request", "want 1 to 100"},
			{"POST", "/v1/validate", `{"tokens":["x"` + strings.Repeat(`,"x"`, 100) + `]}`, 422, "invalid-request", "got 101"},
			{"POST", "/v1/validate", `{"tokens":"x"}`, 422, "invalid-request", "want a list"},
			{"POST", "/v1/validate", `{"token":"x","kinds":["cookie"]}`, 422, "invalid-request", "want session, api_key, access_token or jwt"},
			{"POST", "/v1/validate", `{"token":"x","kinds":[]}`, 422, "invalid-request", "at least one kind"},
			{"POST", "/v1/validate", `{"token":"x","max_age":"soon"}`, 422, "invalid-request", "body.max_age"},
			{"POST", "/v1/validate", `{"token":"x","fresh":"yes"}`, 422, "invalid-request", "body.fresh"},
			{"DELETE", "/v1/subjects/mia/sessions?wait=perhaps", "", 422, "invalid-request", "query.wait"},
			{"POST", "/v1/validate", `{"token":"x","max_age":60}`, 422, "invalid-request", "body.max_age"},
			{"POST", "/v1/validate", `{"token":"` + strings.Repeat("x", MaxBody) + `"}`, 413, "body-too-large", "over 65536 bytes"},
			{"POST", "/v1/validate", `{"` + c.Token + `":"x"}`, 422, "invalid-request", "no field"},
			// renewing and explaining
			{"POST", "/v1/renew", `{}`, 422, "invalid-request", "body.token: is missing"},
			{"POST", "/v1/renew", `{"token":"x","device":{"ip":"nowhere"}}`, 422, "invalid-request", "body.device.ip"},
			{"POST", "/v1/renew", `{"token":"` + strings.Repeat("x", 5000) + `"}`, 422, "invalid-request", "body.token"},
			{"POST", "/v1/explain", `{"tokn":"x"}`, 422, "invalid-request", `did you mean \"token\"?`},
			{"POST", "/v1/explain", `{"token":"x","device":{"addr":"1.2.3.4"}}`, 422, "invalid-request", "body.device.addr"},
			{"POST", "/v1/explain", `{"token":"` + strings.Repeat("x", MaxBody) + `"}`, 413, "body-too-large", "65536"},
			// paths and methods
			{"GET", "/", ``, 404, "no-such-path", ""},
			{"GET", "/v1", ``, 404, "no-such-path", ""},
			{"GET", "/v1/session", ``, 404, "no-such-path", ""},
			{"GET", "/v1/sessions/", ``, 404, "no-such-path", ""},
			{"GET", "/v1/../v1/sessions", ``, 404, "no-such-path", ""},
			{"GET", "//v1/sessions", ``, 404, "no-such-path", ""},
			{"GET", "/v1/subjects//sessions", ``, 404, "no-such-path", ""},
			{"PUT", "/v1/sessions", `{}`, 405, "method-not-allowed", "GET, POST, HEAD"},
			{"POST", "/v1/sessions/" + c.Session.ID, `{}`, 405, "method-not-allowed", "DELETE, GET, HEAD"},
			{"GET", "/v1/validate", ``, 405, "method-not-allowed", "takes POST"},
			{"OPTIONS", "/v1/sessions", ``, 405, "method-not-allowed", ""},
			{"POST", "/openapi.json", `{}`, 405, "method-not-allowed", ""},
		}
		for _, tt := range tests {
			got := f.do(tt.method, tt.path, f.key, tt.body)
			if got.status != tt.status || got.kind() != tt.kind || !strings.Contains(got.body, tt.want) {
				t.Errorf("%s %.80s %.120s\n got %d %s\nwant %d %s with %q", tt.method, tt.path, tt.body, got.status, got.body, tt.status, tt.kind, tt.want)
			}
			if got.status == 405 && got.header.Get("Allow") == "" {
				t.Errorf("%s %s: 405 without Allow", tt.method, tt.path)
			}
		}
		if v := f.validate(other.Token); !v.Active {
			t.Errorf("something ended tom's session: %+v", v)
		}
		if v := f.validate(c.Token); v.Active || v.Cause != "token_in_url" {
			t.Errorf("mia's token stood in a URL: %+v", v)
		}
	})
}

func TestMaximalData(t *testing.T) {
	f := newFixture(t, memstore.New())
	value := strings.Repeat("x", afterlogin.MaxData-3)
	c := f.signIn(`{"subject":"mia","data":{"k":"` + value + `"}}`)
	s, err := f.a.Validate(t.Context(), afterlogin.TokenFrom(c.Token), afterlogin.Expect{Kinds: []afterlogin.Kind{afterlogin.KindSession}})
	if err != nil {
		t.Fatal(err)
	}
	d, err := f.a.Data(t.Context(), s)
	var got string
	if ok, derr := d.Get("k", &got); err != nil || !ok || derr != nil || got != value {
		t.Errorf("64 KiB of data do not come back: %v %v", err, derr)
	}
}

func TestContentType(t *testing.T) {
	f := newFixture(t, memstore.New())
	for _, path := range []string{"/v1/sessions", "/v1/validate", "/v1/explain", "/v1/renew"} {
		for _, h := range []string{"Content-Type: ", "Content-Type: text/plain", "Content-Type: application/x-www-form-urlencoded", "Content-Type: application/json; charset=latin1", "Content-Type: ;;;"} {
			headers := []string{"Content-Type: ", h}
			if h == "Content-Type: " {
				headers = headers[:1]
			}
			if a := f.do("POST", path, f.key, `{"token":"x"}`, headers...); a.status != 415 || a.kind() != "unsupported-media-type" {
				t.Errorf("%s with %q: %d %s", path, h, a.status, a.body)
			}
		}
		if a := f.do("POST", path, f.key, `{"token":"x"}`, "Content-Encoding: gzip"); a.status != 415 {
			t.Errorf("%s, compressed: %d", path, a.status)
		}
		if a := f.do("POST", path, f.key, `{"token":"x"}`, "Content-Type: ", "Content-Type: application/json; charset=UTF-8"); a.status == 415 {
			t.Errorf("%s with a charset: %d", path, a.status)
		}
	}
}

func TestAuthentication(t *testing.T) {
	everyStore(t, func(t *testing.T, f *fixture) {
		session := f.signIn(`{"subject":"mia"}`)
		ended := f.apiKey(Scopes()...)
		s, err := f.a.Validate(t.Context(), afterlogin.TokenFrom(ended), afterlogin.Expect{Kinds: []afterlogin.Kind{afterlogin.KindAPIKey}})
		if err != nil {
			t.Fatal(err)
		}
		if err := f.a.Revoke(t.Context(), s.ID, afterlogin.ReasonAdministrator); err != nil {
			t.Fatal(err)
		}
		tests := []struct {
			name    string
			headers []string
			status  int
			kind    string
			want    string // in WWW-Authenticate
		}{
			{"nothing", nil, 401, "no-key", `Bearer realm="afterlogin"`},
			{"empty bearer", []string{"Authorization: Bearer"}, 401, "no-key", ""},
			{"basic", []string{"Authorization: Basic bWlhOmRlbW8="}, 401, "no-key", ""},
			{"junk", []string{"Authorization: Bearer junk"}, 401, "invalid-key", `error="invalid_token"`},
			{"junk in x-api-key", []string{"x-api-key: junk"}, 401, "invalid-key", `error="invalid_token"`},
			{"session", []string{"Authorization: Bearer " + session.Token}, 401, "invalid-key", `error="invalid_token"`},
			{"ended", []string{"x-api-key: " + ended}, 401, "invalid-key", `error="invalid_token"`},
			{"twice", []string{"Authorization: Bearer " + f.key, "x-api-key: " + f.key}, 400, "two-credentials", `error="invalid_request"`},
			{"twice bearer", []string{"Authorization: Bearer " + f.key, "Authorization: Bearer " + f.key}, 400, "two-credentials", ""},
			{"bearer", []string{"Authorization: Bearer " + f.key}, 200, "", ""},
			{"bearer in lower case", []string{"Authorization: bearer " + f.key}, 200, "", ""},
			{"x-api-key", []string{"x-api-key: " + f.key}, 200, "", ""},
		}
		for _, tt := range tests {
			a := f.do("GET", "/v1/sessions", "", "", tt.headers...)
			if a.status != tt.status || a.kind() != tt.kind || !strings.Contains(a.header.Get("Www-Authenticate"), tt.want) {
				t.Errorf("%s: %d %s, WWW-Authenticate %q", tt.name, a.status, a.body, a.header.Get("Www-Authenticate"))
			}
		}
	})
}

// TestScopes calls every operation of the document with a key that has every scope but its own, and with one that has
// only that.
func TestScopes(t *testing.T) {
	f := newFixture(t, memstore.New())
	bodies := map[string]string{
		"create-session": `{"subject":"mia"}`, "validate-token": `{"token":"x"}`, "renew-token": `{"token":"x"}`, "explain-token": `{"token":"x"}`, "freeze-session": `{"reason":"incident 7"}`,
		"create-webhook": `{"url":"https://shop.example/hooks"}`, "change-webhook": `{"disabled":true}`, "redeliver-dead-letters": `{"all":true}`,
		"create-revocation": `{"query":"client=mobile"}`, "confirm-revocation": `{"count":0}`,
		"create-console-link": `{"role":"viewer"}`,
		"create-access-token": `{}`, "create-ticket": `{"session":"{id}","target":"/x"}`, "redeem-ticket": `{"ticket":"x","target":"/x"}`,
		"create-api-key": `{"subject":"robot"}`, "rotate-api-key": `{}`, "rotate-signing-key": `{}`,
		"create-user": `{"name":"mia","password":"correct horse battery"}`, "change-user": `{"disabled":false}`, "set-user-password": `{"password":"staple the battery"}`,
	}
	if _, err := f.list.Add(t.Context(), "tom", "correct horse battery", nil); err != nil {
		t.Fatal(err)
	}
	also := map[string][]Scope{"create-webhook": {EventsRead}, "create-console-link": viewerScopes} // see TestWebhookScopes, TestConsoleLinkGivesNoMore
	calls := 0
	for path, item := range f.api.huma.OpenAPI().Paths {
		for method, op := range map[string]any{"GET": item.Get, "POST": item.Post, "PUT": item.Put, "PATCH": item.Patch, "DELETE": item.Delete} {
			b, _ := json.Marshal(op)
			var o struct {
				ID       string                `json:"operationId"`
				Security []map[string][]string `json:"security"`
			}
			if string(b) == "null" {
				continue
			}
			json.Unmarshal(b, &o)
			if len(o.Security) != 2 || len(o.Security[0]["bearer"]) != 1 || len(o.Security[1]["apiKey"]) != 1 {
				t.Errorf("%s %s does not say which scope it needs", method, path)
				continue
			}
			scope := Scope(o.Security[0]["bearer"][0])
			var rest []Scope
			for _, s := range Scopes() {
				if s != scope && !(scope == ClientsRead && s == ClientsWrite) {
					rest = append(rest, s)
				}
			}
			id := f.signIn(`{"subject":"mia"}`).Session.ID
			if strings.HasPrefix(path, "/v1/api-keys") {
				id = f.robot().ID
			}
			if strings.HasPrefix(path, "/v1/webhooks/") {
				id = f.webhook("http://127.0.0.1:1/").Webhook.ID
			}
			if strings.HasPrefix(path, "/v1/revocations/") {
				id = f.job(o.ID)
			}
			if strings.HasPrefix(path, "/v1/console/links/") {
				id = f.consoleLink(`{"role":"viewer"}`).ID
			}
			keys := f.ring.SigningKeys()
			values := strings.NewReplacer("{id}", id, "{sub}", "mia", "{name}", "tom", "{kid}", keys[len(keys)-1].ID)
			target, body := values.Replace(path), values.Replace(bodies[o.ID])
			if path == "/v1/events" {
				target += "?wait=0" // or it would not end
			}
			if a := f.do(method, target, f.apiKey(rest...), body); a.status != 403 || a.kind() != "insufficient-scope" ||
				!strings.Contains(a.header.Get("Www-Authenticate"), `scope="`+string(scope)+`"`) {
				t.Errorf("%s without %s: %d %s", o.ID, scope, a.status, a.body)
			}
			if scope == ClientsRead || scope == ClientsWrite {
				// What it takes to be let in is a matter of clients_test.go.
			} else if a := f.do(method, target, f.apiKey(append(slices.Clone(also[o.ID]), scope)...), body); a.status >= 300 {
				t.Errorf("%s with %s and %v: %d %s", o.ID, scope, also[o.ID], a.status, a.body)
			} else if o.ID == "create-session" {
				var c Created
				json.Unmarshal([]byte(a.body), &c)
				f.issued(c.Token)
			}
			if a := f.do(method, target, "", body); a.status != 401 {
				t.Errorf("%s without a key: %d", o.ID, a.status)
			}
			calls++
		}
	}
	if calls < 28 {
		t.Errorf("%d operations, want 28 or more", calls)
	}
	// API keys are for the scopes api-keys:write and admin.
	writer := f.apiKey(SessionsWrite)
	key, err := f.a.Issue(t.Context(), afterlogin.IssueRequest{Subject: "robot", Kind: afterlogin.KindAPIKey})
	if err != nil {
		t.Fatal(err)
	}
	f.issued(key.Token.Reveal())
	asSession := "ses_" + strings.TrimPrefix(string(key.Session.ID), "key_")
	for _, path := range []string{"/v1/sessions/" + string(key.Session.ID), "/v1/sessions/" + asSession, "/v1/subjects/robot/sessions?scope=everything"} {
		if a := f.do("DELETE", path, writer, ""); a.status != 403 {
			t.Errorf("DELETE %s without admin: %d %s", path, a.status, a.body)
		}
	}
	for _, s := range []Scope{Admin, APIKeysWrite} {
		if a := f.do("DELETE", "/v1/sessions/"+string(key.Session.ID), f.apiKey(SessionsWrite, s), ""); a.status != 204 {
			t.Errorf("with %s: %d %s", s, a.status, a.body)
		}
	}
}

func TestRouteWithoutScope(t *testing.T) {
	f := newFixture(t, memstore.New())
	for _, scope := range []Scope{"", "everything"} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("a route with the scope %q was registered", scope)
				}
			}()
			f.api.operation(route{method: "GET", path: "/v1/x", scope: scope})
		}()
	}
}

func TestTokenInURL(t *testing.T) {
	for _, form := range []string{"/v1/sessions?token=%s", "/anything?return_to=%%2Fx%%3Ft%%3D%s", "/x/%s", "/v1/subjects/%s/sessions"} {
		f := newFixture(t, memstore.New())
		c := f.signIn(`{"subject":"mia"}`)
		if a := f.do("GET", fmt.Sprintf(form, c.Token), "", ""); a.status != 400 || a.kind() != "token-in-url" {
			t.Errorf("%s: %d %s", form, a.status, a.body)
		}
		if v := f.validate(c.Token); v.Cause != "token_in_url" {
			t.Errorf("%s: %+v", form, v)
		}
		if !slices.ContainsFunc(f.seen, func(e afterlogin.Event) bool {
			return e.Type == afterlogin.EventInURL && string(e.Session) == c.Session.ID
		}) {
			t.Errorf("%s: no event", form)
		}
		// What only looks like one is refused, too, and ends nothing.
		junk := c.Token[:50] + "AAAAAAAA" + c.Token[58:]
		if a := f.do("GET", fmt.Sprintf(form, junk), "", ""); a.status != 400 {
			t.Errorf("%s, junk: %d", form, a.status)
		}
	}
}

// downStore fails every call while down.
type downStore struct {
	store.Store
	down bool
}

var errDown = errors.New("the disk is on fire")

func (d *downStore) Get(ctx context.Context, ids ...store.ID) ([]*store.Record, error) {
	if d.down {
		return nil, errDown
	}
	return d.Store.Get(ctx, ids...)
}

func (d *downStore) Apply(ctx context.Context, root store.ID, ops ...store.Op) error {
	if d.down {
		return errDown
	}
	return d.Store.Apply(ctx, root, ops...)
}

// A store that does not answer is 503 everywhere: never a yes, never a no, and the cause is in the log alone.
func TestStoreTrouble(t *testing.T) {
	down := &downStore{Store: memstore.New()}
	f := newFixture(t, down)
	c := f.signIn(`{"subject":"mia"}`)
	fresh := f.apiKey(Scopes()...) // not in the cache: authentication needs the store
	f.validate(c.Token)            // and this fills it
	robot := f.robot().ID
	ticket, err := f.a.IssueTicket(t.Context(), session(t, f, c.Session.ID), afterlogin.TicketRequest{Target: "/x"})
	if err != nil {
		t.Fatal(err)
	}
	f.issued(ticket.Token.Reveal())
	down.down = true
	for _, tt := range []struct{ method, path, body string }{
		{"POST", "/v1/sessions", `{"subject":"mia"}`},
		{"POST", "/v1/subjects/mia/begin", ""},
		{"GET", "/v1/sessions/" + c.Session.ID, ""},
		{"DELETE", "/v1/sessions/" + c.Session.ID, ""},
		{"DELETE", "/v1/subjects/mia/sessions", ""},
		{"POST", "/v1/renew", `{"token":"` + c.Token + `"}`},
		{"POST", "/v1/explain", `{"token":"` + c.Token + `"}`},
		{"POST", "/v1/validate", `{"token":"` + fresh + `","kinds":["api_key"]}`},
		{"POST", "/v1/validate", `{"tokens":["` + c.Token + `","` + fresh + `"],"kinds":["session","api_key"]}`},
		{"GET", "/v1/sessions?token=" + c.Token, ""},
		{"POST", "/v1/sessions/" + c.Session.ID + "/tokens", `{}`},
		{"DELETE", "/v1/sessions/" + c.Session.ID + "?derived=true&wait=true", ""},
		{"POST", "/v1/tickets", `{"session":"` + c.Session.ID + `","target":"/x"}`},
		{"POST", "/v1/tickets/redeem", `{"ticket":"` + ticket.Token.Reveal() + `","target":"/x"}`},
		{"POST", "/v1/api-keys", `{"subject":"robot"}`},
		{"POST", "/v1/api-keys/" + robot + "/rotate", `{}`},
		{"DELETE", "/v1/api-keys/" + robot, ""},
	} {
		for _, key := range []string{f.key, fresh} {
			a := f.do(tt.method, tt.path, key, tt.body)
			if a.status != 503 || a.kind() != "temporarily-unavailable" || a.header.Get("Retry-After") == "" || strings.Contains(a.body, "fire") {
				t.Errorf("%s %s: %d %v %s", tt.method, tt.path, a.status, a.header, a.body)
			}
		}
	}
	if !strings.Contains(f.log.String(), "fire") {
		t.Error("the cause is not in the log")
	}
	down.down = false
	if !f.validate(c.Token).Active {
		t.Error("the session did not live through it")
	}
}

var update = flag.Bool("update", false, "write docs/openapi.json")

const documentFile = "../../../../docs/openapi.json"

// TestDocument keeps the copy in the repository up to date: go test ./internal/api -run TestDocument -update
func TestDocument(t *testing.T) {
	f := newFixture(t, memstore.New())
	got := f.api.OpenAPI()
	if *update {
		if err := os.MkdirAll("../../../../docs", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(documentFile, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(documentFile)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Error("docs/openapi.json is out of date: go test ./internal/api -run TestDocument -update")
	}
	if again := New(f.a, Options{}).OpenAPI(); string(again) != string(got) {
		t.Error("the document is not the same every time")
	}
	a := f.do("GET", "/openapi.json", "", "")
	if a.status != http.StatusOK || a.body != string(got) || a.header.Get("Content-Type") != "application/openapi+json" {
		t.Errorf("/openapi.json: %d %v", a.status, a.header)
	}
	var doc struct {
		OpenAPI string
		Paths   map[string]any
	}
	if err := json.Unmarshal(got, &doc); err != nil || !strings.HasPrefix(doc.OpenAPI, "3.1") || len(doc.Paths) < 16 {
		t.Errorf("%v %q, %d paths", err, doc.OpenAPI, len(doc.Paths))
	}
	for _, name := range []string{"Problem", "FieldError"} {
		if b, err := json.Marshal(f.api.huma.OpenAPI().Components.Schemas.Map()[name]); err != nil || len(b) < 100 || strings.Contains(string(b), `"value"`) {
			t.Errorf("%s speaks of values in errors, or is not there: %s", name, b)
		}
	}
}

func TestRedact(t *testing.T) {
	f := newFixture(t, memstore.New())
	for _, text := range []string{f.key, "x " + f.key + " y", f.key[:60], "%" + f.key + "é"} {
		if got := Redact(text); strings.Contains(got, f.key[10:50]) || !strings.Contains(got, "[token]") {
			t.Errorf("Redact(%q) = %q", text, got)
		}
	}
	for _, text := range []string{"", "also_this", "ses_B5w2qLeCWckf8H4XEcZB2RA", "all_hands_meeting_room_12", "journal_of_mia"} {
		if got := Redact(text); got != text {
			t.Errorf("Redact(%q) = %q", text, got)
		}
	}
}

// FuzzBody checks that no body makes a route panic, answer 500, or accept what is not what it says.
func FuzzBody(f *testing.F) {
	x := newFixture(f, memstore.New())
	for _, s := range []string{
		`{"subject":"mia"}`, `{"token":"x"}`, `{"tokens":["a","b"],"kinds":["session"],"scopes":[],"max_age":"1h"}`, `{"subject":"mia","data":{"a":[{}]}}`,
		`{"a":1,"a":2}`, `{"A":1}`, `"\ud800"`, `"\\ud800"`, `[[[[`, `{"token":"\u0000"}`, "\xff", `{"subject":"mia","auth":{"methods":["pwd"],"at":"2026-01-01T00:00:00Z"}}`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, body string) {
		if body == "" {
			return
		}
		x.t = t
		for _, path := range []string{"/v1/sessions", "/v1/validate", "/v1/renew", "/v1/explain"} {
			a := x.do("POST", path, x.key, body)
			if a.status == 500 || a.status >= 300 && a.status < 400 {
				t.Errorf("%s %q: %d %s", path, body, a.status, a.body)
			}
			if a.status < 300 && !json.Valid([]byte(body)) {
				t.Errorf("%s took %q", path, body)
			}
		}
	})
}

// FuzzStrict checks the strict reader against the lax one: what it takes, encoding/json takes, and writing and reading
// it again gives the same.
func FuzzStrict(f *testing.F) {
	for _, s := range []string{`{"a":[1,"\ud83d\ude00",null]}`, `{"a":{"b":1,"c":2}}`, `"\u00e9\\u"`, `{"a":1}x`, `1e999`, `"\uD800\uDC00"`, `"\udc00"`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if err := checkJSON([]byte(text)); err != nil {
			return
		}
		if !json.Valid([]byte(text)) {
			t.Fatalf("%q is not JSON, and was taken", text)
		}
		var v, again any
		if err := json.Unmarshal([]byte(text), &v); err != nil {
			return // a number out of range
		}
		if strings.Contains(text, `\u`) && strings.Contains(fmt.Sprint(v), "\uFFFD") && !strings.Contains(strings.ToLower(text), `\ufffd`) && !strings.Contains(text, "\uFFFD") {
			t.Errorf("%q lost a character", text)
		}
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		if err := checkJSON(b); err != nil {
			t.Errorf("%q, written again, is %q, and refused: %v", text, b, err)
		}
		if err := json.Unmarshal(b, &again); err != nil || fmt.Sprint(v) != fmt.Sprint(again) {
			t.Errorf("%q does not come back", text)
		}
	})
}

// FuzzValidateRequest holds the hand-written reader of validations against a strict decoder.
func FuzzValidateRequest(f *testing.F) {
	f.Add(`{"token":"x"}`)
	f.Add(`{"tokens":["x"],"kinds":["session"],"scopes":["a"],"max_age":"1h"}`)
	f.Fuzz(func(t *testing.T, body string) {
		in, err := parseValidate([]byte(body))
		if err != nil {
			var p *Problem
			if !errors.As(err, &p) || p.Status != 400 && p.Status != 422 {
				t.Errorf("%q: %v", body, err)
			}
			return
		}
		d := json.NewDecoder(strings.NewReader(body))
		d.DisallowUnknownFields()
		var want ValidateRequest
		if err := d.Decode(&want); err != nil {
			t.Fatalf("%q: %v", body, err)
		}
		if got, want := fmt.Sprint(*in), fmt.Sprint(want); got != want {
			t.Errorf("%q: got %s, want %s", body, got, want)
		}
	})
}

// TestKindsAreExplained holds docs/errors.md, to which every problem links, against the kinds in the source.
func TestKindsAreExplained(t *testing.T) {
	doc, err := os.ReadFile("../../../../docs/errors.md")
	if err != nil {
		t.Fatal(err)
	}
	kind := regexp.MustCompile(`(?:NewProblem\([^"\n]*|kind(?:, detail)? :?= |status, kind, detail = [^"\n]*)"([a-z-]+)"`)
	count := 0
	for _, dir := range []string{".", "../server"} {
		files, _ := filepath.Glob(dir + "/*.go")
		for _, f := range files {
			source, err := os.ReadFile(f)
			if err != nil || strings.HasSuffix(f, "_test.go") {
				continue
			}
			for _, m := range kind.FindAllSubmatch(source, -1) {
				count++
				if !strings.Contains(string(doc), "\n## "+string(m[1])+"\n") {
					t.Errorf("%s: docs/errors.md has no heading for %s", f, m[1])
				}
			}
		}
	}
	if count < 30 {
		t.Errorf("only %d kinds found", count)
	}
}
