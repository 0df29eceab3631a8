package api

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/query"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/revocation"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/roster"
	"github.com/afterlogin/afterlogin/store"
	"github.com/afterlogin/afterlogin/store/memstore"
)

// job makes a revocation that the operation can be called on.
func (f *fixture) job(operation string) string {
	f.t.Helper()
	q, err := query.Parse("client=mobile")
	if err != nil {
		f.t.Fatal(err)
	}
	j, err := f.jobs.Create(f.t.Context(), revocation.Request{Query: q})
	if err != nil {
		f.t.Fatal(err)
	}
	f.await(j.ID, revocation.Ready)
	if operation == "undo-revocation" {
		if _, err := f.jobs.Confirm(f.t.Context(), j.ID, revocation.Confirmation{By: "test"}); err != nil {
			f.t.Fatal(err)
		}
		f.await(j.ID, revocation.Frozen)
	}
	return j.ID
}

// await returns when the job is in the state.
func (f *fixture) await(id string, want revocation.State) *revocation.Job {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), 20*time.Second)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		j, err := f.jobs.Job(ctx, id)
		if err != nil {
			f.t.Fatal(err)
		}
		if j.State == want {
			return j
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			f.t.Fatalf("%s is %s, not %s: %s", id, j.State, want, j.Why)
		}
	}
}

func (f *fixture) search(q string, more ...string) FoundList {
	f.t.Helper()
	v := url.Values{"q": {q}}
	for i := 0; i < len(more); i += 2 {
		v.Set(more[i], more[i+1])
	}
	if q == "" {
		v.Del("q")
	}
	var out FoundList
	f.ok("GET", "/v1/search?"+v.Encode(), "", &out)
	return out
}

// indexed returns when the index is there.
func (f *fixture) indexed() {
	f.t.Helper()
	f.search("")
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for f.roster.Progress().State != roster.Ready {
		select {
		case <-tick.C:
		case <-f.t.Context().Done():
			f.t.Fatal("there is no index")
		}
	}
}

func TestSearch(t *testing.T) {
	f := newFixture(t, memstore.New())
	for i := range 7 {
		f.signIn(fmt.Sprintf(`{"subject":"user%d","device":{"ip":"203.0.113.%d","user_agent":"Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"}}`, i, i))
		f.pass(time.Second)
	}
	mia := f.signIn(`{"subject":"mia","remember":true}`).Session.ID
	f.indexed()
	got := f.search("device=firefox ip in 203.0.113.0/30")
	if got.Total != 4 || got.TotalIs != "exact" || got.Indexing.State != "ready" || got.Indexing.Rows != 9 || len(got.Data) != 4 {
		t.Errorf("%+v", got)
	}
	if s := got.Data[0]; s.Subject != "user3" || s.State != "live" || s.DeviceName != "Firefox on Linux" || s.Device.IP != "203.0.113.3" {
		t.Errorf("the newest is %+v", s)
	}
	// Page by page, the oldest first.
	var subjects []string
	for cursor, page := "", 0; page == 0 || cursor != ""; page++ {
		more := []string{"sort", "created", "limit", "3"}
		if cursor != "" {
			more = append(more, "cursor", cursor)
		}
		got = f.search("subject=user*", more...)
		for _, s := range got.Data {
			subjects = append(subjects, s.Subject)
		}
		cursor = got.Next
	}
	if strings.Join(subjects, " ") != "user0 user1 user2 user3 user4 user5 user6" {
		t.Errorf("page by page: %v", subjects)
	}
	// One subject comes from the store; what is over is there only if it is asked for.
	f.ok("DELETE", "/v1/sessions/"+mia, "", nil)
	if got = f.search("subject=mia"); got.Total != 0 || got.Indexing.State != "direct" {
		t.Errorf("%+v", got)
	}
	if got = f.search("subject=mia why=administrator"); len(got.Data) != 1 || got.Data[0].State != "ended" || got.Data[0].EndedWhy != "administrator" {
		t.Errorf("%+v", got)
	}
	first := f.search("", "limit", "2")
	for q, a := range map[string]*answer{
		"a wrong field":  f.do("GET", "/v1/search?q=last_sen%3C90d", f.key, ""),
		"another search": f.do("GET", "/v1/search?q=kind%3Dsession&cursor="+first.Next, f.key, ""),
		"another order":  f.do("GET", "/v1/search?sort=created&cursor="+first.Next, f.key, ""),
		"no cursor":      f.do("GET", "/v1/search?cursor=xx", f.key, ""),
	} {
		want := "bad-cursor"
		if q == "a wrong field" {
			want = "bad-search"
			if !strings.Contains(a.problem.Detail, "column 1") || !strings.Contains(a.problem.Detail, "did you mean last_seen?") {
				t.Error(a.problem.Detail)
			}
		}
		if a.kind() != want {
			t.Errorf("%s: %d %s", q, a.status, a.body)
		}
	}
	bare := New(f.a, Options{})
	f.api = bare
	for _, path := range []string{"/v1/search", "/v1/revocations"} {
		if a := f.do("GET", path, f.key, ""); a.kind() != "not-configured" {
			t.Errorf("%s without its part: %s", path, a.body)
		}
	}
}

func TestRevocations(t *testing.T) {
	f := newFixture(t, memstore.New())
	var ids []string
	for i := range 5 {
		ids = append(ids, f.signIn(fmt.Sprintf(`{"subject":"user%d","scopes":["shop"]}`, i)).Session.ID)
	}
	mine := f.signIn(`{"subject":"mia"}`)
	robot := f.robot()
	create := func(key, body string) *Revocation {
		t.Helper()
		a := f.do("POST", "/v1/revocations", key, body)
		var r Revocation
		if err := json.Unmarshal([]byte(a.body), &r); a.status != 201 || err != nil || a.header.Get("Location") != "/v1/revocations/"+r.ID {
			t.Fatalf("%d %s", a.status, a.body)
		}
		f.await(r.ID, revocation.Ready)
		f.ok("GET", "/v1/revocations/"+r.ID, "", &r)
		return &r
	}
	r := create(f.key, `{"query":"subject=user*"}`)
	if r.Matched != 5 || len(r.Examples) != 5 || r.Examples[0].State != "live" || r.Undo != "10m" || r.Kinds[0] != (Share{"session", 5}) || r.Policies[0].Name != "browser" {
		t.Errorf("%+v", r)
	}
	if a := f.do("POST", "/v1/revocations/"+r.ID+"/confirm", f.key, `{"count":4}`); a.status != 409 || a.kind() != "revocation-count" {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := f.do("POST", "/v1/revocations/"+r.ID+"/undo", f.key, ""); a.kind() != "revocation-state" {
		t.Errorf("%d %s", a.status, a.body)
	}
	f.ok("POST", "/v1/revocations/"+r.ID+"/confirm", `{"count":5}`, nil)
	f.await(r.ID, revocation.Frozen)
	var s Session
	f.ok("GET", "/v1/sessions/"+ids[0], "", &s)
	if !s.Frozen || s.FrozenWhy != r.ID {
		t.Errorf("%+v", s)
	}
	f.ok("POST", "/v1/revocations/"+r.ID+"/undo", "", nil)
	if j := f.await(r.ID, revocation.Undone); j.Thawed != 5 || !strings.HasPrefix(j.Stopped, "key_") {
		t.Errorf("%+v", j)
	}
	f.ok("GET", "/v1/sessions/"+ids[0], "", &s)
	// Again, and for good.
	r = create(f.key, `{"query":"scope=shop","undo_window":"0"}`)
	f.ok("POST", "/v1/revocations/"+r.ID+"/confirm", `{"count":4,"tolerance":1}`, nil)
	if j := f.await(r.ID, revocation.Done); j.Revoked != 5 {
		t.Errorf("%+v", j)
	}
	for _, id := range ids {
		f.ok("GET", "/v1/sessions/"+id, "", &s)
		if s.EndedWhy != "administrator" {
			t.Errorf("%+v", s)
		}
	}
	if !f.validate(mine.Token).Active {
		t.Error("somebody else was signed out")
	}
	found := false
	f.mu.Lock()
	for _, e := range f.seen {
		found = found || e.Type == afterlogin.EventRevoked && e.Session == afterlogin.SessionID(ids[0]) && strings.HasSuffix(e.Actor, " "+r.ID) && strings.HasPrefix(e.Actor, "key_")
	}
	f.mu.Unlock()
	if !found {
		t.Error("no event names the job")
	}
	// API keys need a scope, the server's own another one, and the key that asks is spared.
	writer := f.apiKey(SessionsWrite, SessionsRead)
	if r := create(writer, `{"query":"kind=api_key"}`); r.Matched != 0 || r.LeftOut != 2 { // the fixture's and the robot's; the one that asks is spared
		t.Errorf("without api-keys:write: %+v", r)
	}
	keys := f.apiKey(SessionsWrite, SessionsRead, APIKeysWrite)
	r = create(keys, `{"query":"kind=api_key"}`)
	if r.Matched != 1 || r.LeftOut != 2 || r.Examples[0].ID != robot.ID {
		t.Errorf("with api-keys:write: %+v", r)
	}
	if a := f.do("POST", "/v1/revocations/"+r.ID+"/confirm", writer, `{"count":1}`); a.kind() != "insufficient-scope" {
		t.Errorf("%d %s", a.status, a.body)
	}
	if r := create(f.key, `{"query":"kind=api_key","dry_run":true}`); r.Matched != 3 || r.LeftOut != 0 { // all but the one that asks
		t.Errorf("with admin: %+v", r)
	} else if a := f.do("POST", "/v1/revocations/"+r.ID+"/confirm", f.key, `{"count":3}`); a.kind() != "revocation-state" {
		t.Errorf("a dry run was confirmed: %s", a.body)
	}
	f.ok("POST", "/v1/revocations/"+r.ID+"/cancel", "", nil) // the one that was not confirmed
	for body, kind := range map[string]string{
		`{"query":""}`: "invalid-request", `{"query":"  "}`: "invalid-request", `{"query":"subject=mia","all":true}`: "invalid-request",
		`{"query":"subject=mia","undo_window":"25h"}`: "invalid-request", `{"query":"subject=mia","undo_window":"soon"}`: "invalid-request", `{"query":"sbject=mia"}`: "bad-search",
	} {
		if a := f.do("POST", "/v1/revocations", f.key, body); a.status != 422 || a.kind() != kind {
			t.Errorf("%s: %d %s", body, a.status, a.body)
		}
	}
	if r := create(f.key, `{"query":"","all":true}`); r.Matched == 0 || !r.All {
		t.Errorf("%+v", r)
	}
	if a := f.do("GET", "/v1/revocations/rev_aaaaaaaaaaaaaaaa", f.key, ""); a.kind() != "no-such-revocation" {
		t.Errorf("%d %s", a.status, a.body)
	}
	var list RevocationList
	f.ok("GET", "/v1/revocations", "", &list)
	if len(list.Data) != 6 {
		t.Errorf("%d revocations", len(list.Data))
	}
}

// TestRevocationRights: whoever takes a revocation back, or holds sessions in its name, needs the rights that it was made with.
// What another job had frozen by the time that this one froze is held as well.
func TestHeld(t *testing.T) {
	for _, j := range []revocation.Job{{Held: 2}, {Preview: revocation.Preview{Held: 2}}} {
		if got := newRevocation(&j).Held; got != 2 {
			t.Errorf("%+v: %d", j, got)
		}
	}
}

func TestRevocationRights(t *testing.T) {
	f := newFixture(t, memstore.New())
	robot, mia := f.robot(), f.signIn(`{"subject":"mia"}`).Session.ID
	keys, writer := f.apiKey(SessionsWrite, SessionsRead, APIKeysWrite), f.apiKey(SessionsWrite, SessionsRead)
	create := func(key, query string) (r Revocation) {
		t.Helper()
		if a := f.do("POST", "/v1/revocations", key, `{"query":"`+query+`"}`); a.status != 201 || json.Unmarshal([]byte(a.body), &r) != nil {
			t.Fatalf("%d %s", a.status, a.body)
		}
		f.await(r.ID, revocation.Ready)
		return r
	}
	refused := func(id string, verbs ...string) {
		t.Helper()
		for _, verb := range verbs {
			if a := f.do("POST", "/v1/revocations/"+id+"/"+verb, writer, `{"count":1}`); a.status != 403 || a.kind() != "insufficient-scope" {
				t.Errorf("%s: %d %s", verb, a.status, a.body)
			}
		}
	}
	r := create(keys, "kind=api_key subject="+robot.Subject)
	refused(r.ID, "confirm", "cancel")
	if a := f.do("POST", "/v1/revocations/"+r.ID+"/confirm", keys, `{"count":1}`); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	f.await(r.ID, revocation.Frozen)
	refused(r.ID, "undo")
	if a := f.do("POST", "/v1/sessions/"+mia+"/freeze", f.key, `{"reason":"`+r.ID+`"}`); a.status != 422 || a.kind() != "invalid-request" {
		t.Errorf("a freeze in the revocation's name: %d %s", a.status, a.body)
	}
	if a := f.do("POST", "/v1/revocations/"+r.ID+"/undo", keys, ""); a.status != 200 {
		t.Errorf("%d %s", a.status, a.body)
	}
	f.await(r.ID, revocation.Undone)
	// An administrator's is an administrator's, and one of sessions alone is anybody's who may end sessions.
	refused(create(f.key, "subject=mia").ID, "cancel")
	if a := f.do("POST", "/v1/revocations/"+create(keys, "subject=mia").ID+"/cancel", writer, ""); a.status != 200 {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// goneStore is a store that can be switched off while others use it.
type goneStore struct {
	store.Store
	gone atomic.Bool
}

func (g *goneStore) Get(ctx context.Context, ids ...store.ID) ([]*store.Record, error) {
	if g.gone.Load() {
		return nil, errDown
	}
	return g.Store.Get(ctx, ids...)
}

func (g *goneStore) Apply(ctx context.Context, root store.ID, ops ...store.Op) error {
	if g.gone.Load() {
		return errDown
	}
	return g.Store.Apply(ctx, root, ops...)
}

func (g *goneStore) List(ctx context.Context, q store.Query) iter.Seq2[*store.Record, error] {
	if g.gone.Load() {
		return func(yield func(*store.Record, error) bool) { yield(nil, errDown) }
	}
	return g.Store.List(ctx, q)
}

// What cannot be known now is 503 here, too.
func TestSearchStoreTrouble(t *testing.T) {
	down := &goneStore{Store: memstore.New()}
	f := newFixture(t, down)
	f.signIn(`{"subject":"mia"}`)
	f.indexed()
	id := f.job("show-revocation")
	f.do("GET", "/v1/search", f.key, "") // the key is in the cache
	down.gone.Store(true)
	for _, tt := range []struct{ method, path, body string }{
		{"GET", "/v1/search", ""}, {"GET", "/v1/search?q=subject%3Dmia", ""}, {"GET", "/v1/search?q=state%3Dany", ""},
		{"POST", "/v1/revocations", `{"query":"subject=mia"}`}, {"GET", "/v1/revocations", ""}, {"GET", "/v1/revocations/" + id, ""},
		{"POST", "/v1/revocations/" + id + "/confirm", `{"count":0}`}, {"POST", "/v1/revocations/" + id + "/undo", ""}, {"POST", "/v1/revocations/" + id + "/cancel", ""},
	} {
		if a := f.do(tt.method, tt.path, f.key, tt.body); a.status != 503 || a.kind() != "temporarily-unavailable" || a.header.Get("Retry-After") == "" {
			t.Errorf("%s %s: %d %s", tt.method, tt.path, a.status, a.body)
		}
	}
	down.gone.Store(false)
}
