package afterlogin_test

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/jwt"
	"github.com/afterlogin/afterlogin/store"
	"github.com/afterlogin/afterlogin/store/memstore"
)

// Every reason that there is has a place of its own among those by which refusals are counted.
func TestReasonsAreComplete(t *testing.T) {
	f, err := parser.ParseFile(token.NewFileSet(), "errors.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	have := afterlogin.Reasons()
	n := 0
	ast.Inspect(f, func(node ast.Node) bool {
		s, ok := node.(*ast.ValueSpec)
		if !ok || len(s.Names) != 1 || !strings.HasPrefix(s.Names[0].Name, "Reason") || len(s.Values) != 1 {
			return true
		}
		lit, ok := s.Values[0].(*ast.BasicLit)
		if !ok {
			return true
		}
		text, err := strconv.Unquote(lit.Value)
		if err != nil {
			t.Fatal(err)
		}
		n++
		if !slices.Contains(have, afterlogin.Reason(text)) {
			t.Errorf("%s (%q) is not among Reasons: its refusals would be counted as others", s.Names[0].Name, text)
		}
		return true
	})
	if n < 30 || len(have) != n+1 || have[n] != afterlogin.ReasonOther {
		t.Errorf("%d reasons are declared, %d are counted by: want one more, the last of them %q", n, len(have), afterlogin.ReasonOther)
	}
}

// refusals are those that were counted.
func refusals(s afterlogin.Stats) string {
	var out []string
	for _, r := range afterlogin.Reasons() {
		if n := s.Refused[r]; n > 0 {
			out = append(out, fmt.Sprintf("%s:%d", r, n))
		}
	}
	return strings.Join(out, " ")
}

// What happens is counted, once, where it belongs.
func TestStats(t *testing.T) {
	h := newHouse(t, func(c *afterlogin.Config) { c.Issuer = "https://auth.example"; c.Algorithm = jwt.EdDSA })
	mia := h.signIn("mia")
	for range 3 {
		h.use(mia.Token, home, "")
	}
	h.use(afterlogin.TokenFrom("junk"), home, afterlogin.ReasonMalformed)
	forged := mia.Token.Reveal()
	forged = forged[:len(forged)-1] + string("AQgw"[strings.IndexByte("QgwA", forged[len(forged)-1])&3])
	if _, err := h.Validate(t.Context(), afterlogin.TokenFrom(forged), sessionFrom(home)); err == nil {
		t.Fatal("a forged token is good")
	}
	h.check(mia.Token, afterlogin.KindAPIKey, afterlogin.ReasonWrongKind)
	s := h.Stats()
	if v := s.Validations; v.Valid != 3 || v.Refused != 3 || v.Unavailable != 0 || s.Hits+s.Misses != 3 {
		t.Errorf("validations: %+v, %d hits, %d misses", v, s.Hits, s.Misses)
	}
	if got := refusals(s); got != "malformed:1 wrong_kind:1 forged:1" {
		t.Errorf("refusals: %s", got)
	}

	h.clock.pass(20 * time.Minute)
	next := h.renewed(mia.Token, home)
	h.use(mia.Token, home, "") // within its grace
	h.use(next, home, "")
	h.clock.pass(time.Minute)
	h.use(mia.Token, thief, afterlogin.ReasonReused)
	h.use(next, home, afterlogin.ReasonRevoked)
	s = h.Stats()
	if s.Grace == 0 || s.Renewed[afterlogin.KindSession] != 1 || s.Reused[afterlogin.KindSession] != 1 || s.Revoked != (afterlogin.Revocations{}) {
		t.Errorf("grace %d, renewed %v, reused %v, revoked %+v", s.Grace, s.Renewed, s.Reused, s.Revoked)
	}
	if got := refusals(s); got != "malformed:1 wrong_kind:1 forged:1 revoked:1 reused:1" {
		t.Errorf("refusals: %s", got)
	}

	// A lost answer.
	tom := h.signIn("tom")
	h.use(tom.Token, home, "")
	h.clock.pass(20 * time.Minute)
	h.renewed(tom.Token, home)
	h.clock.pass(time.Minute)
	h.renewed(tom.Token, home)
	if s = h.Stats(); s.Forgiven != 1 || s.Renewed[afterlogin.KindSession] != 3 {
		t.Errorf("forgiven %d, renewed %v", s.Forgiven, s.Renewed)
	}

	// Ends.
	ann, eve := h.signIn("ann"), h.signIn("ann")
	if err := h.Revoke(t.Context(), eve.Session.ID, afterlogin.ReasonSignedOut); err != nil {
		t.Fatal(err)
	}
	if err := h.Revoke(t.Context(), eve.Session.ID, afterlogin.ReasonSignedOut); err != nil { // once more ends nothing
		t.Fatal(err)
	}
	if err := h.RevokeOthers(t.Context(), ann.Session.ID, afterlogin.ReasonSignedOutAll); err != nil {
		t.Fatal(err)
	}
	for _, scope := range []afterlogin.Scope{afterlogin.Sessions, afterlogin.Everything} {
		if err := h.RevokeSubject(afterlogin.WithActor(t.Context(), "console/tom"), 0, "bob", scope, afterlogin.ReasonAdministrator); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := h.Issue(t.Context(), afterlogin.IssueRequest{Subject: "ann", Kind: afterlogin.KindAPIKey, Origin: ann.Session.ID}); err != nil {
		t.Fatal(err)
	}
	if _, err := h.RevokeFrom(t.Context(), ann.Session.ID, afterlogin.ReasonAdministrator); err != nil {
		t.Fatal(err)
	}
	s = h.Stats()
	if r := s.Revoked; r.One < 2 || r.Others != 1 || r.Sessions != 1 || r.Everything != 1 || r.One+r.Origin != 3 {
		t.Errorf("revoked: %+v", r)
	}

	// What is made, by kind, and limits.
	ann = h.signIn("ann")
	g := h.grant(ann.Session, afterlogin.GrantRequest{Client: "app", Scopes: []string{"read"}})
	h.refresh(g.Refresh.Token, "")
	j := h.jwt(ann.Session, afterlogin.AccessRequest{Audience: []string{"https://orders.example"}})
	h.jwtAt(j.Token, "https://orders.example", "")
	valid := h.Stats().Validations.Valid
	h.jwtAt(j.Token, "https://elsewhere.example", afterlogin.ReasonWrongAudience)
	if _, err := h.Validate(t.Context(), j.Token, afterlogin.Expect{
		Kinds: []afterlogin.Kind{afterlogin.KindJWT}, Audience: []string{"https://orders.example"}, Scopes: []string{"admin"},
	}); afterlogin.ReasonOf(err) != afterlogin.ReasonScope {
		t.Fatal(err)
	}
	k := h.key(afterlogin.IssueRequest{Subject: "ann", Rate: 1})
	h.keyFrom(k.Token, home)
	if _, err := h.keyFrom(k.Token, home); !errors.Is(err, afterlogin.ErrRateLimited) {
		t.Fatal(err)
	}
	s = h.Stats()
	if s.Validations.Valid != valid+1 || s.Validations.Limited != 1 {
		t.Errorf("valid %d, want %d; limited %d", s.Validations.Valid, valid+1, s.Validations.Limited)
	}
	made := s.Issued
	if made[afterlogin.KindSession] != 5 || made[afterlogin.KindAPIKey] != 2 || made[afterlogin.KindRefresh] != 1 || made[afterlogin.KindAccess] != 2 || made[afterlogin.KindJWT] != 1 {
		t.Errorf("issued: %v", made)
	}
	if s.Renewed[afterlogin.KindRefresh] != 1 {
		t.Errorf("renewed: %v", s.Renewed)
	}
	h.refresh(g.Access.Token, afterlogin.ReasonWrongKind)
	if n := h.Stats().Refused[afterlogin.ReasonWrongKind]; n != s.Refused[afterlogin.ReasonWrongKind]+1 || h.Stats().Validations.Refused != s.Validations.Refused {
		t.Errorf("a refresh that is refused is a refusal and no validation: %d", n)
	}
}

// The counts of validations are right when many run at once, and what the store cannot answer is no refusal.
func TestStatsParallel(t *testing.T) {
	s := &switched{Store: memstore.New()}
	h := newHouse(t, func(c *afterlogin.Config) { c.Store = s })
	mia := h.signIn("mia")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 500 {
				h.Validate(t.Context(), mia.Token, sessionFrom(home))
				h.Validate(t.Context(), afterlogin.TokenFrom("junk"), sessionFrom(home))
				h.Stats()
			}
		})
	}
	wg.Wait()
	st := h.Stats()
	if v := st.Validations; v.Valid != 4000 || v.Refused != 4000 || st.Refused[afterlogin.ReasonMalformed] != 4000 {
		t.Errorf("%+v", v)
	}
	s.broken.Store(true)
	e := sessionFrom(home)
	e.Fresh = true
	if _, err := h.Validate(t.Context(), mia.Token, e); !errors.Is(err, afterlogin.ErrUnavailable) {
		t.Fatal(err)
	}
	if v := h.Stats().Validations; v.Valid != 4000 || v.Unavailable != 1 || v.Refused != 4000 {
		t.Errorf("%+v", v)
	}
}

// switched is a store that can be made to fail.
type switched struct {
	store.Store
	broken atomic.Bool
}

func (s *switched) Get(ctx context.Context, ids ...store.ID) ([]*store.Record, error) {
	if s.broken.Load() {
		return nil, errors.New("the disk is gone")
	}
	return s.Store.Get(ctx, ids...)
}

func (s *switched) Touch(ctx context.Context, touches []store.Touch) error {
	if s.broken.Load() {
		return errors.New("the disk is gone")
	}
	return s.Store.Touch(ctx, touches)
}

func (s *switched) Purge(ctx context.Context, b store.Bucket) error {
	if s.broken.Load() {
		return errors.New("the disk is gone")
	}
	return s.Store.Purge(ctx, b)
}

// What the janitor, the toucher and the cache have left to do can be seen.
func TestStatsBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &switched{Store: memstore.New()}
		a, err := afterlogin.New(afterlogin.Config{Store: s, CacheSize: 256})
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		time.Sleep(90 * time.Minute)
		if j := a.Stats().Janitor; j.Last.IsZero() || j.Backlog > 1 || j.Failures != 0 {
			t.Errorf("after an hour: %+v", j)
		}
		s.broken.Store(true)
		time.Sleep(5 * time.Hour)
		j := a.Stats().Janitor
		if j.Backlog < 4 || j.Backlog > 6 || j.Failures != 5 {
			t.Errorf("after 5 hours without the store: %+v", j)
		}
		s.broken.Store(false)
		time.Sleep(time.Hour)
		if j := a.Stats().Janitor; j.Backlog > 1 || j.Failures != 5 || time.Since(j.Last) > time.Hour {
			t.Errorf("when it is back: %+v", j)
		}
		pending := 0 // at most: whenever all of this waits, the touches are written
		for i := range 1000 {
			got, err := a.Issue(t.Context(), afterlogin.IssueRequest{Subject: fmt.Sprint(i)})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := a.Validate(t.Context(), got.Token, sessionFrom(home)); err != nil {
				t.Fatal(err)
			}
			pending = max(pending, a.Stats().Touches.Pending)
		}
		st := a.Stats()
		if pending == 0 || st.Touches.Lost != 0 {
			t.Errorf("touches: %+v, at most %d pending", st.Touches, pending)
		}
		if c := st.Cache; c.Entries == 0 || c.Entries > 256 || c.Evictions == 0 || c.Entries+int(c.Evictions) != 1000 {
			t.Errorf("cache: %+v", c)
		}
		time.Sleep(time.Second)
		if st := a.Stats(); st.Touches.Pending != 0 {
			t.Errorf("touches: %+v", st.Touches)
		}
	})
}

// hanging is a store that can be made to answer no more.
type hanging struct {
	store.Store
	on atomic.Bool
}

func (s *hanging) Get(ctx context.Context, ids ...store.ID) ([]*store.Record, error) {
	if s.on.Load() {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return s.Store.Get(ctx, ids...)
}

// Counts never go down, which whoever collects them would take for a new start: what waits for the store is not valid yet.
// And a caller who hangs up at once has not found the store unavailable.
func TestStatsWhileTheStoreHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &hanging{Store: memstore.New()}
		a, err := afterlogin.New(afterlogin.Config{Store: s})
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		mia, err := a.Issue(t.Context(), afterlogin.IssueRequest{Subject: "mia"})
		if err != nil {
			t.Fatal(err)
		}
		fresh := sessionFrom(home)
		fresh.Fresh = true
		for _, e := range []afterlogin.Expect{fresh, sessionFrom(home), sessionFrom(home)} {
			if _, err := a.Validate(t.Context(), mia.Token, e); err != nil {
				t.Fatal(err)
			}
		}
		s.on.Store(true)
		var wg sync.WaitGroup
		for i := range 9 {
			ctx, cancel := context.WithCancel(t.Context())
			if i >= 6 {
				ctx, cancel = context.WithTimeout(t.Context(), 3*time.Second)
			}
			defer cancel()
			wg.Go(func() {
				if i < 3 {
					time.AfterFunc([]time.Duration{500 * time.Millisecond, 900 * time.Millisecond, 2 * time.Second}[i], cancel)
				}
				if _, err := a.Validate(ctx, mia.Token, fresh); !errors.Is(err, afterlogin.ErrUnavailable) {
					t.Error(err)
				}
			})
		}
		time.Sleep(400 * time.Millisecond)
		if st := a.Stats(); st.Validations != (afterlogin.Validations{Valid: 3}) || st.Misses != 10 || st.Hits != 2 {
			t.Errorf("while the store hangs: %+v, %d misses, %d hits", st.Validations, st.Misses, st.Hits)
		}
		wg.Wait()
		if v := a.Stats().Validations; v != (afterlogin.Validations{Valid: 3, Canceled: 2, Unavailable: 7}) {
			t.Errorf("two hung up soon, one late, three had set a time, three waited: %+v", v)
		}
	})
}

// What a rate refuses, and what a JWT is not good for, was never valid, although the cache had an answer.
func TestStatsOfPartialHits(t *testing.T) {
	h := newHouse(t, func(c *afterlogin.Config) { c.Issuer = "https://auth.example"; c.Algorithm = jwt.EdDSA })
	k := h.key(afterlogin.IssueRequest{Subject: "ann", Rate: 3})
	for range 5 {
		h.keyFrom(k.Token, home)
	}
	if s := h.Stats(); s.Validations != (afterlogin.Validations{Valid: 3, Limited: 2}) || s.Hits+s.Misses != 5 || s.Hits < 4 {
		t.Errorf("%+v, %d hits, %d misses", s.Validations, s.Hits, s.Misses)
	}
	j := h.jwt(h.signIn("ann").Session, afterlogin.AccessRequest{Audience: []string{"https://orders.example"}, Scopes: []string{"read"}})
	before := h.Stats()
	for _, scope := range []string{"read", "write", "write"} {
		h.Validate(t.Context(), j.Token, afterlogin.Expect{
			Kinds: []afterlogin.Kind{afterlogin.KindJWT}, Audience: []string{"https://orders.example"}, Scopes: []string{scope},
		})
	}
	s := h.Stats()
	if s.Validations.Valid != before.Validations.Valid+1 || s.Validations.Refused != before.Validations.Refused+2 || s.Hits+s.Misses != before.Hits+before.Misses+3 {
		t.Errorf("%+v, before %+v", s.Validations, before.Validations)
	}
}
