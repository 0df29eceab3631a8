package roster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/query"
	"github.com/afterlogin/afterlogin/store"
	"github.com/afterlogin/afterlogin/store/memstore"
)

const day = 24 * time.Hour

func parse(t testing.TB, text string) *query.Query {
	t.Helper()
	q, err := query.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// house is an authority with a roster, in a bubble of time.
type house struct {
	t     testing.TB
	store store.Store
	a     *afterlogin.Authority
	r     *Roster
}

func newHouse(t testing.TB, o Options) *house {
	t.Helper()
	h := &house{t: t, store: memstore.New()}
	a, err := afterlogin.New(afterlogin.Config{Store: h.store})
	if err != nil {
		t.Fatal(err)
	}
	o.Authority = a
	r, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	h.a, h.r = a, r
	return h
}

func (h *house) close() {
	h.r.Close()
	h.a.Close()
	h.store.Close()
}

func (h *house) signIn(r afterlogin.IssueRequest) afterlogin.Issued {
	h.t.Helper()
	got, err := h.a.Issue(h.t.Context(), r)
	if err != nil {
		h.t.Fatal(err)
	}
	return got
}

// settle lets the index catch up with everything.
func (h *house) settle() {
	h.t.Helper()
	for range 20 {
		time.Sleep(sweepEvery + time.Second)
		synctest.Wait()
		h.r.mu.RLock()
		quiet := h.r.state == Ready && !h.r.lagging && !h.r.gap && h.r.dirty.len() == 0
		h.r.mu.RUnlock()
		if quiet {
			return
		}
	}
	h.t.Fatal("the index does not catch up")
}

// truth lists what a query means, in order, without the index.
func (h *house) truth(q *query.Query, by Sort) (ids []afterlogin.SessionID) {
	h.t.Helper()
	now := time.Now()
	type item struct {
		place
		handle afterlogin.SessionID
	}
	var items []item
	for s, err := range h.a.Sessions(h.t.Context(), afterlogin.Query{Ended: true}) {
		if err != nil {
			h.t.Fatal(err)
		}
		if q.Match(s, now) {
			id, _ := parseID(s.ID)
			items = append(items, item{place{keyOf(s, by), id}, s.ID})
		}
	}
	slices.SortFunc(items, func(a, b item) int {
		if a.less(&b.place, down(by)) {
			return -1
		}
		return 1
	})
	for _, i := range items {
		ids = append(ids, i.handle)
	}
	return ids
}

// all searches page by page.
func (h *house) all(q *query.Query, by Sort, limit int) (ids []afterlogin.SessionID, first *Page) {
	h.t.Helper()
	r := Request{Query: q, Sort: by, Limit: limit}
	for range 1000 {
		p, err := h.r.Search(h.t.Context(), r)
		if err != nil {
			h.t.Fatal(err)
		}
		if first == nil {
			first = p
		}
		if len(p.Sessions) > limit {
			h.t.Errorf("a page of %d, limit %d", len(p.Sessions), limit)
		}
		for _, s := range p.Sessions {
			ids = append(ids, s.ID)
		}
		if r.Cursor = p.Next; r.Cursor == "" {
			return ids, first
		}
	}
	h.t.Fatal("the search has no end")
	return nil, nil
}

var agents = []string{
	"Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
	"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.0 Safari/605.1.15", "curl/8.9.1", "",
}

// TestEqualsTheStore is the index against a full listing, after random histories: whatever is asked, in whatever order.
func TestEqualsTheStore(t *testing.T) {
	for seed := range seeds() {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { synctest.Test(t, func(t *testing.T) { history(t, seed) }) })
	}
}

func history(t *testing.T, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 1))
	h := newHouse(t, Options{})
	defer h.close()
	ctx := t.Context()
	queries := []string{
		"", "state=any", "state=live", "state=frozen", "state=ended", "state=expired", "state=idle", "state=revoked", "state!=live",
		"why=administrator", "why in signed_out_all,idle", `why=""`, "kind=api_key", "kind=session policy=remember", "policy!=browser", "subject=user1", "subject=user1*", "subject!=user1", `subject=""`,
		"subject in user1,user2,nobody", "subject not in user1,user2", "device=firefox", `device="mac or ipad"`, `device=""`, "ip in 203.0.113.0/30", "ip not in 203.0.113.0/24", `ip=""`,
		"method=otp", "acr=gold", "scope=shop:*", "name=key*", "created<1h", "created>1h", "last_seen<30m", "last_seen>2h", "expires<6h", "expires=never", `origin=""`, `origin!=""`,
		"device=curl state=any ip in 203.0.113.0/24 created>1d",
	}
	var live []afterlogin.Issued
	started := rnd.IntN(60)
	for step := range 150 {
		if step == started { // in the middle of it
			h.r.need()
		}
		switch n := rnd.IntN(20); {
		case n < 8 || len(live) == 0:
			r := afterlogin.IssueRequest{
				Subject: fmt.Sprintf("user%d", rnd.IntN(12)), Policy: []string{"", "remember", "console"}[rnd.IntN(3)],
				Device: afterlogin.Client{UserAgent: agents[rnd.IntN(len(agents))]}, Scopes: [][]string{nil, {"shop:read"}, {"shop:read", "shop:write"}}[rnd.IntN(3)],
			}
			if rnd.IntN(3) > 0 {
				r.Device.Addr = netip.AddrFrom4([4]byte{203, 0, 113, byte(rnd.IntN(8))})
			}
			if rnd.IntN(4) == 0 {
				r.Auth.Methods = []string{"pwd", "otp", afterlogin.ACRMethod("gold")}
			}
			switch rnd.IntN(8) {
			case 0:
				r.Kind, r.Policy, r.Name = afterlogin.KindAPIKey, "", fmt.Sprintf("key%d", step)
			case 1:
				r.Subject, r.Policy, r.Auth, r.Data = "", "", afterlogin.Authentication{}, map[string]json.RawMessage{"cart": json.RawMessage("1")}
			}
			live = append(live, h.signIn(r))
		case n < 10:
			at := rnd.IntN(len(live))
			s, err := h.a.Validate(ctx, live[at].Token, afterlogin.Expect{})
			if err != nil {
				continue
			}
			if got, err := h.a.Renew(ctx, live[at].Token, s, afterlogin.Client{}); err == nil && got.Token.Reveal() != "" {
				live[at].Token = got.Token
			}
		case n < 12:
			h.a.Validate(ctx, live[rnd.IntN(len(live))].Token, afterlogin.Expect{Kinds: []afterlogin.Kind{afterlogin.KindSession, afterlogin.KindAPIKey}})
		case n == 12:
			h.a.Revoke(ctx, live[rnd.IntN(len(live))].Session.ID, afterlogin.ReasonAdministrator)
		case n == 13:
			scope := afterlogin.Sessions
			if rnd.IntN(3) == 0 {
				scope = afterlogin.Everything
			}
			h.a.RevokeSubject(ctx, 0, fmt.Sprintf("user%d", rnd.IntN(12)), scope, afterlogin.ReasonSignedOutAll)
		case n == 14:
			h.a.RevokeOthers(ctx, live[rnd.IntN(len(live))].Session.ID, afterlogin.ReasonSignedOutAll)
		case n == 15:
			h.a.Freeze(ctx, live[rnd.IntN(len(live))].Session.ID, afterlogin.Reason(fmt.Sprintf("incident %d", rnd.IntN(2))))
		case n == 16:
			h.a.Thaw(ctx, live[rnd.IntN(len(live))].Session.ID, "")
		default:
			time.Sleep(time.Duration(rnd.Int64N(int64([]time.Duration{time.Second, 20 * time.Minute, 3 * time.Hour}[rnd.IntN(3)]))))
		}
		if step%50 != 49 {
			continue
		}
		h.r.need()
		h.settle()
		if rnd.IntN(2) == 0 { // what time has ended since nobody has told
			time.Sleep(time.Duration(rnd.Int64N(int64(2 * time.Hour))))
			h.settle()
		}
		h.r.askForScan() // a use is no event
		time.Sleep(time.Second)
		h.settle()
		for _, text := range queries {
			q := parse(t, text)
			by := sorts[rnd.IntN(len(sorts))]
			want := h.truth(q, by)
			got, first := h.all(q, by, 1+rnd.IntN(30))
			if !slices.Equal(got, want) {
				t.Errorf("step %d, %q by %s: %d found, %d there are\n got %v\nwant %v", step, text, by, len(got), len(want), got, want)
			}
			switch _, one := q.Subject(); {
			case one != first.Direct:
				t.Errorf("%q: direct %v", text, first.Direct)
			case first.TotalIs == Exact && first.Total != len(want), first.TotalIs == AtLeast && first.Total > len(want), first.TotalIs == About && first.Total != len(want):
				t.Errorf("step %d, %q: %s %d, there are %d", step, text, first.TotalIs, first.Total, len(want))
			}
		}
		h.counts(t)
	}
}

// counts compares Counts with a full listing.
func (h *house) counts(t *testing.T) {
	t.Helper()
	time.Sleep(2 * countsFor)
	got, ok := h.r.Counts()
	if !ok {
		t.Fatal("no counts")
	}
	want := Counts{Kinds: map[afterlogin.Kind]int{}, Policies: map[string]int{}}
	subjects := map[string]bool{}
	for s, err := range h.a.Sessions(t.Context(), afterlogin.Query{}) {
		if err != nil {
			t.Fatal(err)
		}
		if s.Frozen() {
			want.Frozen++
			continue
		}
		want.Live++
		want.Kinds[s.Kind]++
		want.Policies[s.Policy]++
		if s.Subject != "" {
			want.Signed++
			if s.Kind != afterlogin.KindAPIKey {
				subjects[s.Subject] = true
			}
		}
	}
	if got.Live != want.Live || got.Frozen != want.Frozen || got.Signed != want.Signed || got.Subjects != len(subjects) || fmt.Sprint(got.Kinds, got.Policies) != fmt.Sprint(want.Kinds, want.Policies) {
		t.Errorf("counted %+v, there are %+v and %d subjects", got, want, len(subjects))
	}
}

// While there is no index, pages come from the store: all of it is found, and the answer says what it is.
func TestWithoutIndex(t *testing.T) {
	for name, o := range map[string]Options{"off": {Max: -1}, "too many": {Max: 50}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHouse(t, o)
				defer h.close()
				var want []afterlogin.SessionID
				for i := range 2500 {
					s := h.signIn(afterlogin.IssueRequest{Subject: fmt.Sprintf("user%d", i)}).Session
					if i%7 == 0 {
						want = append(want, s.ID)
					}
					if i%7 != 0 || i%2 == 0 {
						if err := h.a.Freeze(t.Context(), s.ID, "x"); err != nil && i%7 == 0 {
							t.Fatal(err)
						}
					}
				}
				frozen := 0
				for i := range want {
					if i*7%2 == 0 {
						frozen++
					}
				}
				h.r.need()
				time.Sleep(time.Minute)
				synctest.Wait()
				got, first := h.all(parse(t, "state=live"), NewestFirst, 13)
				if len(got) != len(want)-frozen || first.Sort != ByStore || first.Progress.State == Ready || first.Progress.State == Building {
					t.Errorf("%d found, %d there are: %+v", len(got), len(want)-frozen, first)
				}
				seen := map[afterlogin.SessionID]bool{}
				for _, id := range got {
					if seen[id] {
						t.Fatalf("%s is there twice", id)
					}
					seen[id] = true
				}
				if _, ok := h.r.Counts(); ok {
					t.Error("counts without an index")
				}
				if name == "too many" && h.r.Progress().Rows != 0 {
					t.Error("an index that nobody uses is kept")
				}
			})
		})
	}
}

// While the index is being made, a search does not wait for it.
func TestWhileBuilding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wait := make(chan struct{})
		s := &watchStore{Store: memstore.New(), wait: wait}
		a, err := afterlogin.New(afterlogin.Config{Store: s})
		if err != nil {
			t.Fatal(err)
		}
		r, err := New(Options{Authority: a})
		if err != nil {
			t.Fatal(err)
		}
		h := &house{t: t, store: s, a: a, r: r}
		defer h.close()
		for i := range 20 {
			h.signIn(afterlogin.IssueRequest{Subject: fmt.Sprintf("user%d", i)})
		}
		p, err := h.r.Search(t.Context(), Request{Limit: 5})
		if err != nil || len(p.Sessions) != 5 || p.Sort != ByStore || p.Next == "" {
			t.Fatalf("%+v %v", p, err)
		}
		close(wait)
		h.settle()
		// A search that was begun without the index goes on without it.
		rest, err := h.r.Search(t.Context(), Request{Limit: 50, Cursor: p.Next})
		if err != nil || len(rest.Sessions) != 15 || rest.Next != "" {
			t.Fatalf("%+v %v", rest, err)
		}
		if p, err = h.r.Search(t.Context(), Request{}); err != nil || p.Progress.State != Ready || p.Total != 20 || p.TotalIs != Exact {
			t.Errorf("%+v %v", p, err)
		}
	})
}

// watchStore loses an event when it is told to.
type watchStore struct {
	store.Store
	gaps chan struct{}
	wait chan struct{} // nobody watches before it is closed; nil: anybody
}

func (s *watchStore) Watch(ctx context.Context, since store.Cursor) (iter.Seq2[store.Event, error], error) {
	if s.wait != nil {
		select {
		case <-s.wait:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	events, err := s.Store.Watch(ctx, since)
	if err != nil {
		return nil, err
	}
	return func(yield func(store.Event, error) bool) {
		for e, err := range events {
			select {
			case <-s.gaps:
				yield(store.Event{}, store.ErrGap)
				return
			default:
			}
			if !yield(e, err) {
				return
			}
		}
	}, nil
}

// After a gap the index is made anew, and says until then how old it is.
func TestGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &watchStore{Store: memstore.New(), gaps: make(chan struct{}, 1)}
		a, err := afterlogin.New(afterlogin.Config{Store: s})
		if err != nil {
			t.Fatal(err)
		}
		r, err := New(Options{Authority: a, Eager: true})
		if err != nil {
			t.Fatal(err)
		}
		h := &house{t: t, store: s, a: a, r: r}
		defer h.close()
		first := h.signIn(afterlogin.IssueRequest{Subject: "mia"})
		h.settle()
		before := time.Now()
		s.gaps <- struct{}{}
		if err := a.Revoke(t.Context(), first.Session.ID, afterlogin.ReasonAdministrator); err != nil { // the event is lost
			t.Fatal(err)
		}
		h.signIn(afterlogin.IssueRequest{Subject: "tom"})
		synctest.Wait()
		if p := r.Progress(); p.AsOf.After(before) {
			t.Errorf("as of %v, and events were lost at %v", p.AsOf, before)
		}
		h.settle()
		p, err := r.Search(t.Context(), Request{})
		if err != nil || p.Total != 1 || len(p.Sessions) != 1 || p.Sessions[0].Subject != "tom" || !p.Progress.AsOf.After(before) {
			t.Errorf("%+v %v", p, err)
		}
	})
}

func TestBadRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, Options{Eager: true})
		defer h.close()
		for range 3 {
			h.signIn(afterlogin.IssueRequest{Subject: "mia"})
		}
		h.settle()
		p, err := h.r.Search(t.Context(), Request{Limit: 1})
		if err != nil || p.Next == "" {
			t.Fatalf("%+v %v", p, err)
		}
		for _, tt := range []struct {
			r    Request
			want error
		}{
			{Request{Limit: 1001}, ErrRequest}, {Request{Sort: "age"}, ErrRequest}, {Request{Sort: ByStore}, ErrRequest}, {Request{Cursor: "x"}, ErrCursor},
			{Request{Cursor: p.Next + "A"}, ErrCursor}, {Request{Cursor: p.Next, Sort: OldestFirst}, ErrCursor}, {Request{Cursor: p.Next, Query: parse(t, "kind=session")}, ErrCursor},
			{Request{Cursor: "." + p.Next}, ErrCursor}, {Request{Cursor: p.Next + "."}, ErrCursor},
		} {
			if _, err := h.r.Search(t.Context(), tt.r); !errors.Is(err, tt.want) {
				t.Errorf("%+v: %v", tt.r, err)
			}
		}
	})
	if _, err := New(Options{}); !errors.Is(err, ErrNoAuthority) {
		t.Error(err)
	}
}

func FuzzCursor(f *testing.F) {
	q := Request{Query: &query.Query{}, Sort: NewestFirst}
	c := cursor{at: place{key: 7}}
	f.Add(c.String(&q, 0))
	c = cursor{store: true, list: "abc"}
	f.Add(c.String(&q, 0))
	f.Fuzz(func(t *testing.T, text string) {
		q := q
		q.Cursor = text
		c, err := parseCursor(&q, 0)
		if err == nil && text != "" {
			if again, err := parseCursor(&Request{Query: q.Query, Sort: q.Sort, Cursor: c.String(&q, 0)}, 0); err != nil || again != c {
				t.Errorf("%q is %+v, and that is %+v, %v", text, c, again, err)
			}
		}
	})
}

// The table finds what was put into it, whatever else came and went.
func TestTable(t *testing.T) {
	rnd := rand.New(rand.NewPCG(7, 7))
	tab := newTable()
	have := map[rootID]string{}
	for range 60_000 {
		var id rootID
		id[3], id[16] = byte(rnd.IntN(32)), byte(rnd.IntN(200))
		if subject, has := have[id]; has && rnd.IntN(2) == 0 {
			i := tab.find(&id)
			if tab.subjectOf(tab.at(i)) != subject {
				t.Fatal("another subject")
			}
			tab.remove(i)
			delete(have, id)
		} else if !has {
			have[id] = fmt.Sprintf("user%d", rnd.IntN(500))
			tab.put(&afterlogin.Session{Subject: have[id], Kind: afterlogin.KindSession, Policy: "browser"}, id)
		}
		if rnd.IntN(10_000) == 0 {
			tab.compact()
		}
	}
	counts := map[string]int{}
	for id, subject := range have {
		i := tab.find(&id)
		if i == noRow || tab.at(i).id != id || tab.subjectOf(tab.at(i)) != subject {
			t.Fatalf("%v is not there", id)
		}
		counts[subject]++
	}
	if tab.rows != len(have) || tab.names.live != len(counts) {
		t.Errorf("%d rows of %d, %d subjects of %d", tab.rows, len(have), tab.names.live, len(counts))
	}
	for subject, want := range counts {
		n := 0
		for i := tab.names.first(tab.names.find(subject)); i != noRow; i = tab.at(i).next {
			n++
		}
		if n != want {
			t.Errorf("%s has %d rows, %d are found", subject, want, n)
		}
	}
	if size := unsafe.Sizeof(row{}); size != rowSize {
		t.Errorf("a row takes %d bytes", size)
	}
}

// What has no room among the words costs time, and never truth.
func TestTooManyWords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, Options{Eager: true})
		defer h.close()
		h.settle()
		h.r.mu.Lock()
		for i := range unknown + 10 {
			h.r.table.agents.code(fmt.Sprint("agent ", i))
			if len(h.r.table.devices) < len(h.r.table.agents.texts) {
				h.r.table.devices = append(h.r.table.devices, "")
			}
		}
		h.r.mu.Unlock()
		h.signIn(afterlogin.IssueRequest{Subject: "mia", Device: afterlogin.Client{UserAgent: "Netscape/4"}})
		h.signIn(afterlogin.IssueRequest{Subject: "tom", Device: afterlogin.Client{UserAgent: "Lynx/2"}})
		h.settle()
		p, err := h.r.Search(t.Context(), Request{Query: parse(t, "device=netscape")})
		if err != nil || len(p.Sessions) != 1 || p.Sessions[0].Subject != "mia" || p.TotalIs != AtLeast {
			t.Errorf("%+v %v", p, err)
		}
	})
}

// seeds is how many histories are tried: more of them with AFTERLOGIN_LONG=1.
func seeds() uint64 {
	if os.Getenv("AFTERLOGIN_LONG") == "1" {
		return 60
	}
	return 4
}
