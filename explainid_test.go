package afterlogin_test

import (
	"errors"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
)

func TestExplainID(t *testing.T) {
	h := newHouse(t)
	ctx := t.Context()
	in := h.signIn("mia")
	h.clock.pass(16 * time.Minute)
	next := h.renew(in.Token, home)
	x, err := h.ExplainID(ctx, in.Session.ID)
	h.must(err)
	if !x.Valid || x.Session.ID != in.Session.ID || len(x.Rotations) != 1 || x.Rotations[0].Generation != 2 || x.Rotations[0].Fresh {
		t.Errorf("%+v", x)
	}
	left := map[string]time.Duration{}
	for _, timer := range x.Timers {
		if timer.Of != in.Session.ID {
			t.Errorf("a timer of %s", timer.Of)
		}
		left[timer.Name] = timer.Left
	}
	if left["absolute"] != 24*time.Hour-16*time.Minute || left["renewal"] != 15*time.Minute || left["grace"] != 30*time.Second || left["idle"] != time.Hour {
		t.Errorf("timers: %v", left)
	}
	if x.Cached {
		t.Error("the new token was not used yet")
	}
	h.use(next, home, "")
	if x, err = h.ExplainID(ctx, in.Session.ID); err != nil || !x.Cached {
		t.Errorf("in memory: %+v, %v", x, err)
	}
	h.must(h.Revoke(ctx, in.Session.ID, afterlogin.ReasonAdministrator))
	if x, err = h.ExplainID(ctx, in.Session.ID); err != nil || x.Valid || x.Reason != afterlogin.ReasonRevoked || x.Session.Why != afterlogin.ReasonAdministrator {
		t.Errorf("ended: %+v, %v", x, err)
	}
	if _, err := h.ExplainID(ctx, "ses_AAAAAAAAAAAAAAAAAAAAAAA"); !errors.Is(err, afterlogin.ErrNoSession) {
		t.Errorf("unknown: %v", err)
	}
}

func TestFindPrefix(t *testing.T) {
	h := newHouse(t)
	ctx := t.Context()
	var all []afterlogin.Issued
	for range 200 {
		all = append(all, h.signIn("mia"))
	}
	ended := all[7]
	h.must(h.Revoke(ctx, ended.Session.ID, afterlogin.ReasonAdministrator))
	for i, in := range all[:20] {
		id, token := string(in.Session.ID), in.Token.Reveal()
		for _, prefix := range []string{id, id[:20], id[:len(id)-1], token, token[:31], token[:26]} {
			got, err := h.FindPrefix(ctx, 0, prefix, 5)
			if err != nil || len(got) != 1 || got[0].ID != in.Session.ID {
				t.Fatalf("%d, %d characters: %d found, %v", i, len(prefix), len(got), err)
			}
		}
	}
	if got, err := h.FindPrefix(ctx, 0, string(ended.Session.ID)[:22], 5); err != nil || len(got) != 1 || got[0].Ended.IsZero() {
		t.Errorf("one that is over: %v, %v", got, err)
	}
	// The first characters are the hour of the end, and those behind them are the subject's partition: all are alike.
	got, err := h.FindPrefix(ctx, 0, string(all[0].Session.ID)[:10], 1000)
	if err != nil || len(got) < 2 {
		t.Errorf("%d found, %v", len(got), err)
	}
	if got, err = h.FindPrefix(ctx, 0, string(all[0].Session.ID)[:10], 1); err != nil || len(got) != 1 {
		t.Errorf("with a limit: %d found, %v", len(got), err)
	}
	if got, err = h.FindPrefix(ctx, 1, string(all[0].Session.ID), 5); err != nil || len(got) != 0 {
		t.Errorf("of another tenant: %d found, %v", len(got), err)
	}
	for _, bad := range []string{"", "ses", "ses_", "ses_abc", "als_abcdefg", "xyz_abcdefghijk", "ses_!!!!!!!!!!!", "ses_abcdef\nghijk", "al_abcdefghijklmn"} {
		if _, err := h.FindPrefix(ctx, 0, bad, 5); !errors.Is(err, afterlogin.ErrBadRequest) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func FuzzFindPrefix(f *testing.F) {
	h := newHouse(f)
	in := h.signIn("mia")
	f.Add(string(in.Session.ID))
	f.Add("als_AQEHb9Bk")
	f.Fuzz(func(t *testing.T, prefix string) {
		got, err := h.FindPrefix(t.Context(), 0, prefix, 3)
		if err != nil && !errors.Is(err, afterlogin.ErrBadRequest) {
			t.Fatal(err)
		}
		if len(got) > 1 {
			t.Fatalf("%d of one session", len(got))
		}
	})
}

// What has ended can be asked about for as long as the configuration says.
func TestKeepEnded(t *testing.T) {
	for _, c := range []struct {
		keep, after time.Duration
		there       bool
	}{{0, 90 * time.Minute, true}, {0, 5 * time.Hour, false}, {48 * time.Hour, 47 * time.Hour, true}, {48 * time.Hour, 52 * time.Hour, false}} {
		h := newHouse(t, func(cfg *afterlogin.Config) { cfg.KeepEnded = c.keep })
		in := h.signIn("mia")
		h.clock.pass(24*time.Hour + c.after)
		afterlogin.PurgeNow(h.Authority)
		_, err := h.Session(t.Context(), in.Session.ID)
		if there := err == nil; there != c.there {
			t.Errorf("kept for %v, after %v: %v", c.keep, c.after, err)
		}
	}
	if _, err := afterlogin.New(afterlogin.Config{Store: newHouse(t).store, KeepEnded: 401 * 24 * time.Hour}); !errors.Is(err, afterlogin.ErrBadRequest) {
		t.Errorf("over the limit: %v", err)
	}
}

// A whole handle is told from the beginning of one, and from a token, by its form.
func TestWholeSessionID(t *testing.T) {
	h := newHouse(t)
	mia := h.signIn("mia")
	below, err := h.IssueAccess(t.Context(), mia.Session, afterlogin.AccessRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []afterlogin.SessionID{mia.Session.ID, below.Session.ID} {
		if !id.Whole() {
			t.Errorf("%s is one", id)
		}
		for what, text := range map[string]string{
			"its beginning": string(id)[:len(id)-1], "longer": string(id) + "A", "another prefix": "x" + string(id), "none": string(id)[4:],
			"a dot in it": string(id)[:10] + "." + string(id)[11:], "a line in it": string(id)[:10] + "\n" + string(id)[11:], "nothing": "",
		} {
			if afterlogin.SessionID(text).Whole() {
				t.Errorf("%s: %q is none", what, text)
			}
		}
	}
	if afterlogin.SessionID(mia.Token.Reveal()).Whole() {
		t.Error("a token is none")
	}
}
