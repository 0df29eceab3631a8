package entrance

import (
	"errors"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/store"
	"github.com/afterlogin/afterlogin/store/memstore"
)

// door is an entrance with a clock that is moved by hand.
type door struct {
	*Entrance
	a     *afterlogin.Authority
	store store.Store
	ahead atomic.Int64
}

func newDoor(t *testing.T) *door {
	t.Helper()
	d := &door{store: memstore.New()}
	now := func() time.Time { return time.Now().Add(time.Duration(d.ahead.Load())) }
	var err error
	if d.a, err = afterlogin.New(afterlogin.Config{Store: d.store, Now: now}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.a.Close() })
	if d.Entrance, err = New(Options{Authority: d.a, URL: "https://auth.example/console", Now: now}); err != nil {
		t.Fatal(err)
	}
	return d
}

func (d *door) link(t *testing.T, r LinkRequest) (*Link, string) {
	t.Helper()
	l, err := d.MakeLink(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(l.URL)
	if err != nil || u.Host != "auth.example" || u.Path != "/console/enter" {
		t.Fatalf("the link is %q", l.URL)
	}
	return l, u.Query().Get(Param)
}

func TestLinkIsGoodOnce(t *testing.T) {
	d := newDoor(t)
	_, secret := d.link(t, LinkRequest{Role: Admin, Name: "mia"})
	for range 3 { // to look uses nothing up
		l, err := d.Look(t.Context(), secret)
		if err != nil || l.Name != "mia" || l.Role != Admin || l.URL != "" {
			t.Fatalf("a look: %+v %v", l, err)
		}
	}
	var used atomic.Int32
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			switch _, err := d.Use(t.Context(), secret); {
			case err == nil:
				used.Add(1)
			case !errors.Is(err, ErrNoLink):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if used.Load() != 1 {
		t.Errorf("20 at once: %d were let in, want 1", used.Load())
	}
	if _, err := d.Look(t.Context(), secret); !errors.Is(err, ErrNoLink) {
		t.Errorf("after its use: %v", err)
	}
}

func TestLinkEnds(t *testing.T) {
	d := newDoor(t)
	_, short := d.link(t, LinkRequest{Role: Viewer, Lifetime: time.Minute})
	_, usual := d.link(t, LinkRequest{Role: Viewer})
	_, long := d.link(t, LinkRequest{Role: Viewer, Lifetime: MaxLifetime})
	good := func(after time.Duration, want map[string]bool) {
		t.Helper()
		d.ahead.Store(int64(after))
		for secret, ok := range want {
			if _, err := d.Look(t.Context(), secret); (err == nil) != ok {
				t.Errorf("after %v: %v, want good %v", after, err, ok)
			}
		}
	}
	good(59*time.Second, map[string]bool{short: true, usual: true, long: true})
	good(61*time.Second, map[string]bool{short: false, usual: true, long: true})
	good(31*time.Minute, map[string]bool{short: false, usual: false, long: true})
	good(MaxLifetime-time.Second, map[string]bool{long: true})
	good(MaxLifetime+time.Second, map[string]bool{long: false})
}

func TestLinkRequest(t *testing.T) {
	d := newDoor(t)
	for field, r := range map[string]LinkRequest{
		"role":     {Role: "owner"},
		"name":     {Role: Admin, Name: "Mia Example"},
		"lifetime": {Role: Admin, Lifetime: MaxLifetime + time.Second},
	} {
		var bad *FieldError
		if _, err := d.MakeLink(t.Context(), r); !errors.As(err, &bad) || bad.Field != field {
			t.Errorf("%+v: %v, want a fault of %s", r, err, field)
		}
	}
	if l, _ := d.link(t, LinkRequest{Role: Viewer}); l.Name != "viewer" {
		t.Errorf("without a name: %q, want the role", l.Name)
	}
}

// What is no secret costs no look at the store.
func TestIsSecret(t *testing.T) {
	d := newDoor(t)
	_, secret := d.link(t, LinkRequest{Role: Admin})
	if !IsSecret(secret) {
		t.Errorf("%q is one", secret)
	}
	for _, s := range []string{"", "all_", secret[1:], secret + "A", "als_" + secret[4:], secret[:len(secret)-1] + "!", strings.ToUpper(secret)} {
		if IsSecret(s) {
			t.Errorf("%q is none", s)
		}
		if _, err := d.Look(t.Context(), s); !errors.Is(err, ErrNoLink) {
			t.Errorf("%q: %v", s, err)
		}
	}
}

// The store gets a hash.
func TestSecretIsNotKept(t *testing.T) {
	d := newDoor(t)
	_, secret := d.link(t, LinkRequest{Role: Admin})
	found, err := d.a.TemporaryEntries(t.Context(), 0, linksRealm, linkName(secret), MaxLifetime)
	if err != nil || len(found) != 1 {
		t.Fatalf("the entry: %v %v", found, err)
	}
	if text := found[0].Name + string(found[0].Detail); strings.Contains(text, secret) || strings.Contains(text, secret[4:]) {
		t.Errorf("the entry holds the secret: %s", text)
	}
}

// A session that nobody has admitted is nobody's, whatever it says of itself.
func TestPerson(t *testing.T) {
	d := newDoor(t)
	l, _ := d.link(t, LinkRequest{Role: Viewer, Name: "mia"})
	issue := func(r afterlogin.IssueRequest) *afterlogin.Session {
		t.Helper()
		got, err := d.a.Issue(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		return got.Session
	}
	ours := afterlogin.IssueRequest{Tenant: Tenant, Policy: afterlogin.PolicyConsole, Subject: SubjectPrefix + "mia", Scopes: []string{"admin"}}
	s := issue(ours)
	if _, err := d.Person(t.Context(), s); !errors.Is(err, ErrNobody) {
		t.Errorf("before it is admitted: %v", err)
	}
	if err := d.Admit(t.Context(), s, l); err != nil {
		t.Fatal(err)
	}
	if p, err := d.Person(t.Context(), s); err != nil || p.Name != "mia" || p.Role != Viewer {
		t.Errorf("admitted: %+v %v, want a viewer whatever its scopes say", p, err)
	}
	if other := issue(ours); true {
		if _, err := d.Person(t.Context(), other); !errors.Is(err, ErrNobody) {
			t.Errorf("another session of the same person: %v", err)
		}
	}
	for what, change := range map[string]func(*afterlogin.IssueRequest){
		"of another tenant": func(r *afterlogin.IssueRequest) { r.Tenant = 0 },
		"of another policy": func(r *afterlogin.IssueRequest) { r.Policy = afterlogin.PolicyBrowser },
		"of a person":       func(r *afterlogin.IssueRequest) { r.Subject = "mia" },
	} {
		r := ours
		change(&r)
		s := issue(r)
		if err := d.Admit(t.Context(), s, l); !errors.Is(err, ErrNobody) {
			t.Errorf("a session %s is admitted: %v", what, err)
		}
		if _, err := d.Person(t.Context(), s); !errors.Is(err, ErrNobody) {
			t.Errorf("a session %s: %v", what, err)
		}
	}
	page, err := d.People(t.Context(), "", 10)
	if err != nil || len(page.People) != 1 || page.People[0].Session.ID != s.ID {
		t.Errorf("the list: %+v %v, want mia alone", page, err)
	}
}
