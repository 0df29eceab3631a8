package entrance

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
)

// names are whom the open links are for, the first to end first.
func (d *door) names(t *testing.T) string {
	t.Helper()
	all, err := d.Links(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s := ""
	for _, l := range all {
		if l.URL != "" || l.ID == "" || l.Created.IsZero() {
			t.Errorf("in the list: %+v", l)
		}
		s += l.Name + " "
	}
	return s
}

func TestOpenLinks(t *testing.T) {
	d := newDoor(t)
	if got := d.names(t); got != "" {
		t.Errorf("at first: %q", got)
	}
	mia, _ := d.link(t, LinkRequest{Role: Admin, Name: "mia", Lifetime: 2 * time.Hour, By: "key_x"})
	_, tom := d.link(t, LinkRequest{Role: Viewer, Name: "tom", Lifetime: time.Hour})
	d.link(t, LinkRequest{Role: Viewer, Name: "ada", Lifetime: time.Minute})
	if got := d.names(t); got != "ada tom mia " {
		t.Errorf("three: %q", got)
	}
	all, _ := d.Links(t.Context())
	if l := all[2]; l.ID != mia.ID || l.Role != Admin || l.By != "key_x" || !l.Until.Equal(mia.Until.Truncate(time.Millisecond)) {
		t.Errorf("in the list: %+v, made: %+v", l, mia)
	}
	if _, err := d.Use(t.Context(), tom); err != nil {
		t.Fatal(err)
	}
	if got := d.names(t); got != "ada mia " {
		t.Errorf("after tom has come in: %q", got)
	}
	d.ahead.Store(int64(61 * time.Second))
	if got := d.names(t); got != "mia " {
		t.Errorf("after ada's is over: %q", got)
	}
}

func TestCancel(t *testing.T) {
	d := newDoor(t)
	l, secret := d.link(t, LinkRequest{Role: Admin, Name: "mia"})
	for _, id := range []string{"", "open", "link_", "link_" + secret[4:26], secret} {
		if err := d.Cancel(t.Context(), id); !errors.Is(err, ErrNoLink) {
			t.Errorf("%q: %v", id, err)
		}
	}
	if err := d.Cancel(t.Context(), l.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Use(t.Context(), secret); !errors.Is(err, ErrNoLink) {
		t.Errorf("a link that was cancelled: %v", err)
	}
	if got := d.names(t); got != "" {
		t.Errorf("the list: %q", got)
	}
	if err := d.Cancel(t.Context(), l.ID); !errors.Is(err, ErrNoLink) {
		t.Errorf("once more: %v", err)
	}
}

// A link that was made with a stolen key is worth no more than the key.
func TestLinkOfWhoWasThrownOut(t *testing.T) {
	for what, c := range map[string]struct {
		then func(t *testing.T, d *door, maker *afterlogin.Session)
		good bool
	}{
		"nothing": {func(*testing.T, *door, *afterlogin.Session) {}, true},
		"ended": {func(t *testing.T, d *door, s *afterlogin.Session) {
			must(t, d.a.Revoke(t.Context(), s.ID, afterlogin.ReasonAdministrator))
		}, false},
		"everything of its subject ended": {func(t *testing.T, d *door, s *afterlogin.Session) {
			must(t, d.a.RevokeSubject(t.Context(), s.Tenant, s.Subject, afterlogin.Everything, afterlogin.ReasonAdministrator))
		}, false},
		"on hold": {func(t *testing.T, d *door, s *afterlogin.Session) {
			must(t, d.a.Freeze(t.Context(), s.ID, afterlogin.ReasonAdministrator))
		}, false},
		"signed out": {func(t *testing.T, d *door, s *afterlogin.Session) {
			must(t, d.a.Revoke(t.Context(), s.ID, afterlogin.ReasonSignedOut))
		}, true},
		"idle": {func(t *testing.T, d *door, s *afterlogin.Session) { d.ahead.Store(int64(16 * time.Minute)) }, true},
	} {
		t.Run(what, func(t *testing.T) {
			d := newDoor(t)
			maker, err := d.a.Issue(t.Context(), afterlogin.IssueRequest{Tenant: Tenant, Policy: afterlogin.PolicyConsole, Subject: SubjectPrefix + "xavier"})
			must(t, err)
			l, secret := d.link(t, LinkRequest{Role: Admin, Name: "mia", Maker: maker.Session.ID})
			c.then(t, d, maker.Session)
			if _, err := d.Look(t.Context(), secret); (err == nil) != c.good || err != nil && !errors.Is(err, ErrNoLink) {
				t.Errorf("a look: %v, want good %v", err, c.good)
			}
			if got := d.names(t) != ""; got != c.good {
				t.Errorf("in the list: %v, want %v", got, c.good)
			}
			if _, err := d.Use(t.Context(), secret); (err == nil) != c.good {
				t.Errorf("%s is used: %v, want good %v", l.ID, err, c.good)
			}
		})
	}
}

// A key takes its links with it however it ends: one that was rotated looks as if it had run out.
func TestLinkOfAKey(t *testing.T) {
	for what, then := range map[string]func(t *testing.T, d *door, s *afterlogin.Session){
		"rotated": func(t *testing.T, d *door, s *afterlogin.Session) {
			_, err := d.a.RotateKey(t.Context(), s.ID, 0)
			must(t, err)
			d.ahead.Store(int64(time.Second))
		},
		"run out": func(t *testing.T, d *door, s *afterlogin.Session) { d.ahead.Store(int64(2 * time.Minute)) },
	} {
		t.Run(what, func(t *testing.T) {
			d := newDoor(t)
			key, err := d.a.Issue(t.Context(), afterlogin.IssueRequest{Kind: afterlogin.KindAPIKey, Subject: "svc", Lifetime: time.Minute})
			must(t, err)
			_, secret := d.link(t, LinkRequest{Role: Admin, Maker: key.Session.ID})
			_, err = d.Look(t.Context(), secret)
			must(t, err)
			then(t, d, key.Session)
			if _, err := d.Use(t.Context(), secret); !errors.Is(err, ErrNoLink) {
				t.Errorf("used: %v", err)
			}
		})
	}
}

// A link that somebody else's making has pushed out of the list, before it had an entry, is in it again.
func TestLinkIsNotedAgain(t *testing.T) {
	d := newDoor(t)
	until := d.now().Add(time.Hour)
	must(t, d.note(t.Context(), "link_x", until))
	for i := range MaxOpen - 1 {
		l, _ := d.link(t, LinkRequest{Role: Admin, Name: fmt.Sprint(i)})
		must(t, d.Cancel(t.Context(), l.ID))
	}
	d.link(t, LinkRequest{Role: Admin}) // makes room
	if _, list, err := d.openList(t.Context()); err != nil || list["link_x"] != 0 {
		t.Fatalf("link_x, which has no entry, is still in the list: %v %v", list, err)
	}
	must(t, d.noted(t.Context(), "link_x", until))
	if _, list, err := d.openList(t.Context()); err != nil || list["link_x"] == 0 {
		t.Errorf("it is not in the list again: %v %v", list, err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// What nobody has used fills the list up; what was used does not.
func TestTooManyLinks(t *testing.T) {
	d := newDoor(t)
	var last *Link
	for i := range MaxOpen {
		last, _ = d.link(t, LinkRequest{Role: Admin, Name: fmt.Sprint(i)})
	}
	if _, err := d.MakeLink(t.Context(), LinkRequest{Role: Admin}); !errors.Is(err, ErrTooManyLinks) {
		t.Errorf("one too many: %v", err)
	}
	must(t, d.Cancel(t.Context(), last.ID))
	d.link(t, LinkRequest{Role: Admin})
	d.ahead.Store(int64(DefaultLifetime + 2*time.Second))
	d.link(t, LinkRequest{Role: Admin, Name: "mia"})
	if got := d.names(t); got != "mia " {
		t.Errorf("after all are over: %q", got)
	}
}

func TestLinksMadeAtOnce(t *testing.T) {
	d := newDoor(t)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			if _, err := d.MakeLink(t.Context(), LinkRequest{Role: Viewer, Name: fmt.Sprint(i)}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if all, err := d.Links(t.Context()); err != nil || len(all) != 8 {
		t.Errorf("of 8 that were made at once the list has %d (%v)", len(all), err)
	}
}
