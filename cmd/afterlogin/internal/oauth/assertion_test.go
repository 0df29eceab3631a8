package oauth

import (
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/oauth/clients"
	"github.com/afterlogin/afterlogin/jwt"
	"github.com/afterlogin/afterlogin/store/memstore"
)

// Assertions are remembered until they are over; one client's leave room for the others', and making room is not done for
// each request.
func TestAssertionsAreRemembered(t *testing.T) {
	var a assertions
	now := time.Unix(1_800_000_000, 0)
	until := now.Add(maxAssertion)
	use := func(client, id string, wantFirst, wantFull bool) {
		t.Helper()
		if first, full := a.use(client, id, until, now); first != wantFirst || full != wantFull {
			t.Errorf("%s's %s: first %v, full %v", client, id, first, full)
		}
	}
	use("one", "x", true, false)
	use("one", "x", false, false)
	use("other", "x", true, false)
	for i := range maxAssertionsOfOne - 1 {
		a.use("one", strconv.Itoa(i), until, now)
	}
	use("one", "one too many", false, true)
	use("one", "x", false, false)
	use("other", "y", true, false)
	now = until.Add(time.Second)
	a.swept = now.Unix()
	until = now.Add(maxAssertion)
	use("one", "in the second of a sweep", false, true)
	now = now.Add(time.Second)
	use("one", "after it", true, false)
	if a.count != 1 || len(a.used) != 1 {
		t.Errorf("%d of %d clients are remembered after everything else is over", a.count, len(a.used))
	}
	for i := range maxAssertions {
		a.use(strconv.Itoa(i%10), strconv.Itoa(i), until, now)
	}
	use("yet another", "x", false, true)
	if a.count != maxAssertions {
		t.Errorf("%d", a.count)
	}
}

// Where servers share a store, an assertion that one of them has taken is refused by the others, and one that cannot be
// looked up is neither.
func TestAssertionOnAnotherServer(t *testing.T) {
	f := newFixture(t, memstore.New())
	key, err := jwt.GenerateKey(jwt.EdDSA)
	if err != nil {
		t.Fatal(err)
	}
	set, err := jwt.NewKeys(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	jwks, err := set.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	f.client("signer", clients.Settings{Auth: clients.KeyJWT, Keys: jwks, GrantTypes: []string{clients.ClientCredentials}})
	var servers [3]*Server
	for i := range servers {
		if servers[i], err = New(Options{Authority: f.a, Now: f.clock, Shared: true}); err != nil {
			t.Fatal(err)
		}
	}
	sign := func(id string) string {
		now := f.clock()
		text, err := key.Sign(jwt.TypeUntyped, &jwt.Claims{Issuer: "signer", Subject: "signer", Audience: []string{f.url}, ID: id, IssuedAt: now, Expiry: now.Add(time.Minute)})
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	present := func(s *Server, text string) int {
		form := url.Values{"grant_type": {clients.ClientCredentials}, "client_assertion_type": {assertionType}, "client_assertion": {text}}
		r := httptest.NewRequest("POST", TokenPath, strings.NewReader(form.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		return w.Code
	}
	captured := sign("1")
	if got := present(servers[0], captured); got != 200 {
		t.Fatalf("a good assertion: %d", got)
	}
	for i, s := range servers {
		if got := present(s, captured); got != 401 {
			t.Errorf("again, on server %d: %d", i, got)
		}
	}
	var took atomic.Int64
	var wg sync.WaitGroup
	once := sign("2")
	for i := range 12 {
		wg.Go(func() {
			if present(servers[i%3], once) == 200 {
				took.Add(1)
			}
		})
	}
	wg.Wait()
	if took.Load() != 1 {
		t.Errorf("%d of 12 at once were taken, want 1", took.Load())
	}
	if _, err := servers[0].known.get(t.Context(), "signer"); err != nil { // so that only the assertion needs the store
		t.Fatal(err)
	}
	f.store.set(true)
	defer f.store.set(false)
	if got := present(servers[0], sign("3")); got != 503 {
		t.Errorf("with the store down: %d", got)
	}
}
