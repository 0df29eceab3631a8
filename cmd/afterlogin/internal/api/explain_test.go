package api

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin/store/memstore"
)

func TestExplainAll(t *testing.T) {
	f := newFixture(t, memstore.New())
	in := f.signIn(`{"subject":"mia"}`)
	explain := func(body string, status int) (ex Explanation) {
		t.Helper()
		a := f.do("POST", "/v1/explain", f.key, body)
		if a.status != status {
			t.Fatalf("%s: %d %s", body, a.status, a.body)
		}
		json.Unmarshal([]byte(a.body), &ex)
		return ex
	}
	for _, body := range []string{`{"token":"` + in.Token + `"}`, `{"id":"` + in.Session.ID + `"}`, `{"prefix":"` + in.Session.ID[:24] + `"}`, `{"prefix":"` + in.Token[:40] + `"}`} {
		ex := explain(body, http.StatusOK)
		if !ex.Valid || ex.Session == nil || ex.Session.ID != in.Session.ID || ex.Node != "east-1" || ex.Source != "store" || ex.Binding != "none" || len(ex.Timers) < 3 {
			t.Errorf("%s: %+v", body[:12], ex)
		}
	}
	explain(`{}`, http.StatusUnprocessableEntity)
	explain(`{"id":"`+in.Session.ID+`","prefix":"ses_AbCdEfGh"}`, http.StatusUnprocessableEntity)
	explain(`{"id":"ses_1"}`, http.StatusBadRequest)
	explain(`{"prefix":"ses_1"}`, http.StatusUnprocessableEntity)
	explain(`{"prefix":"ses_AAAAAAAAAA"}`, http.StatusNotFound)
	other := f.signIn(`{"subject":"mia"}`)
	if other.Session.ID[:9] == in.Session.ID[:9] || strings.HasPrefix(other.Session.ID, in.Session.ID[:10]) {
		if ex := explain(`{"prefix":"`+in.Session.ID[:10]+`"}`, http.StatusOK); len(ex.Matches) == 1 {
			t.Errorf("one match is no list: %+v", ex)
		}
	}
	// Signed out because the password was changed elsewhere: the person is told so.
	if a := f.do("DELETE", "/v1/subjects/mia/sessions?reason=password_changed&except="+other.Session.ID, f.key, ""); a.status != http.StatusNoContent {
		t.Fatalf("%d %s", a.status, a.body)
	}
	ex := explain(`{"id":"`+in.Session.ID+`"}`, http.StatusOK)
	if ex.Valid || ex.Reason != "signed_out_all" || ex.Session.EndedWhy != "password_changed" || !strings.Contains(ex.Message, "password") {
		t.Errorf("%+v", ex)
	}
}

func TestFreezeAndThaw(t *testing.T) {
	f := newFixture(t, memstore.New())
	in := f.signIn(`{"subject":"mia"}`)
	path := "/v1/sessions/" + in.Session.ID
	want := func(method, path, body string, status int, kind string) {
		t.Helper()
		if a := f.do(method, path, f.key, body); a.status != status || a.kind() != kind {
			t.Errorf("%s %s: %d %s", method, path, a.status, a.body)
		}
	}
	want("POST", path+"/freeze", `{"reason":"incident 7"}`, 204, "")
	var s Session
	json.Unmarshal([]byte(f.do("GET", path, f.key, "").body), &s)
	if !s.Frozen || s.FrozenWhy != "incident 7" || s.EndedAt != nil || s.EndedWhy != "" {
		t.Errorf("%+v", s)
	}
	if a := f.do("POST", "/v1/validate", f.key, `{"token":"`+in.Token+`"}`); !strings.Contains(a.body, `"reason":"frozen","cause":"incident 7"`) {
		t.Errorf("validated: %s", a.body)
	}
	want("POST", path+"/thaw?reason=other", "", 204, "")
	if a := f.do("POST", "/v1/validate", f.key, `{"token":"`+in.Token+`"}`); !strings.Contains(a.body, `"active":false`) {
		t.Errorf("thawed for another reason: %s", a.body)
	}
	want("POST", path+"/thaw", "", 204, "")
	if a := f.do("POST", "/v1/validate", f.key, `{"token":"`+in.Token+`"}`); !strings.Contains(a.body, `"active":true`) {
		t.Errorf("thawed: %s", a.body)
	}
	want("POST", path+"/freeze", `{}`, 422, "invalid-request")
	want("POST", path+"/freeze", `{"reason":"`+strings.Repeat("x", 65)+`"}`, 422, "invalid-request")
	want("POST", "/v1/sessions/ses_AAAAAAAAAAAAAAAAAAAAAAA/freeze", `{"reason":"x"}`, 404, "no-such-session")
	want("DELETE", path, "", 204, "")
	want("POST", path+"/freeze", `{"reason":"x"}`, 409, "session-over")
	// An API key is put on hold by who may end it.
	key := f.robot().ID
	if a := f.do("POST", "/v1/sessions/"+key+"/freeze", f.apiKey(SessionsWrite), `{"reason":"x"}`); a.status != 403 {
		t.Errorf("an API key without the scope: %d %s", a.status, a.body)
	}
	if a := f.do("POST", "/v1/sessions/"+key+"/freeze", f.apiKey(SessionsWrite, APIKeysWrite), `{"reason":"x"}`); a.status != 204 {
		t.Errorf("an API key: %d %s", a.status, a.body)
	}
	// Events say who did it.
	deadline := time.Now().Add(5 * time.Second)
	for found := false; !found; {
		f.mu.Lock()
		for _, e := range f.seen {
			found = found || e.Type == "api_key.frozen" && strings.HasPrefix(e.Actor, "key_")
		}
		f.mu.Unlock()
		if time.Now().After(deadline) {
			t.Fatal("no event names the API key that put it on hold")
		}
	}
}
