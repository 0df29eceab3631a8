package afterlogin_test

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/store"
	"github.com/afterlogin/afterlogin/store/memstore"
)

// hooked is a store that calls a function before each Get and Apply, which may change it meanwhile, or make the call fail.
type hooked struct {
	store.Store
	mu   sync.Mutex
	hook func(method string) error
}

func newHooked() *hooked { return &hooked{Store: memstore.New()} }

func (h *hooked) set(hook func(method string) error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.hook = hook
}

func (h *hooked) call(method string) error {
	h.mu.Lock()
	hook := h.hook
	h.mu.Unlock()
	if hook == nil {
		return nil
	}
	return hook(method)
}

func (h *hooked) Get(ctx context.Context, ids ...store.ID) ([]*store.Record, error) {
	if err := h.call("Get"); err != nil {
		return nil, err
	}
	return h.Store.Get(ctx, ids...)
}

func (h *hooked) Apply(ctx context.Context, root store.ID, ops ...store.Op) error {
	if err := h.call("Apply"); err != nil {
		return err
	}
	return h.Store.Apply(ctx, root, ops...)
}

// A password that is taken back while it is checked confirms nothing, even in the session that the change spared: whoever
// holds a copy of that session's token and the old password gets no new one. The change comes before the step-up looks,
// between its look and its write, or right after that.
func TestStepUpMark(t *testing.T) {
	for _, when := range []string{"before", "Apply", "Get"} {
		for _, all := range []bool{false, true} {
			faulty := newHooked()
			h := newHouse(t, func(c *afterlogin.Config) { c.Store = faulty })
			in := h.signIn("mia")
			mark, err := h.Begin(t.Context(), 0, "mia")
			if err != nil {
				t.Fatal(err)
			}
			change := func() {
				faulty.set(nil)
				err := h.RevokeOthers(t.Context(), in.Session.ID, afterlogin.ReasonSignedOutAll)
				if all {
					err = h.RevokeSubject(t.Context(), 0, "mia", afterlogin.Sessions, afterlogin.ReasonAdministrator)
				}
				if err != nil {
					t.Error(err)
				}
			}
			written := false
			faulty.set(func(method string) error {
				switch {
				case method == "Apply" && when == "Apply", method == "Get" && when == "Get" && written:
					change()
				case method == "Apply":
					written = true
				}
				return nil
			})
			if when == "before" {
				change()
			}
			got, err := h.StepUpSince(t.Context(), in.Token, mark, afterlogin.Authentication{Methods: []string{"pwd"}}, thief)
			if !got.Token.IsZero() || got.Session != nil {
				t.Errorf("%s, all %t: a token is handed out", when, all)
			}
			if !errors.Is(err, afterlogin.ErrStaleSignIn) && !(all && when == "before" && errors.Is(err, afterlogin.ErrInvalidToken)) {
				t.Errorf("%s, all %t: %v", when, all, err)
			}
			if !all && when == "before" { // nothing has changed for the owner
				h.use(in.Token, home, "")
			}
		}
	}
}

func TestStepUpMarkOfAnother(t *testing.T) {
	h := newHouse(t)
	early, err := h.Begin(t.Context(), 0, "mia") // before there is a record of the subject
	if err != nil {
		t.Fatal(err)
	}
	in := h.signIn("mia")
	toms, err := h.Begin(t.Context(), 0, "tom")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.StepUpSince(t.Context(), in.Token, toms, afterlogin.Authentication{}, home); !errors.Is(err, afterlogin.ErrBadRequest) {
		t.Errorf("with the mark of somebody else: %v", err)
	}
	up, err := h.StepUpSince(t.Context(), in.Token, early, afterlogin.Authentication{Methods: []string{"pwd"}}, home)
	if err != nil {
		t.Fatalf("with a mark from before the first sign-in: %v", err)
	}
	// A mark from after a change that spared the session is good.
	if err := h.RevokeOthers(t.Context(), in.Session.ID, afterlogin.ReasonSignedOutAll); err != nil {
		t.Fatal(err)
	}
	if _, err := h.StepUpSince(t.Context(), up.Token, early, afterlogin.Authentication{}, home); !errors.Is(err, afterlogin.ErrStaleSignIn) {
		t.Errorf("with a mark from before the change: %v", err)
	}
	late, err := h.Begin(t.Context(), 0, "mia")
	if err != nil {
		t.Fatal(err)
	}
	if up, err = h.StepUpSince(t.Context(), up.Token, late, afterlogin.Authentication{}, home); err != nil {
		t.Fatalf("with a mark from after the change: %v", err)
	}
	h.use(up.Token, home, "")
}

// Where the second look fails nobody learns the new token, and it is said that the answer is not known.
func TestStepUpMarkStoreDown(t *testing.T) {
	faulty := newHooked()
	h := newHouse(t, func(c *afterlogin.Config) { c.Store = faulty })
	in := h.signIn("mia")
	mark, err := h.Begin(t.Context(), 0, "mia")
	if err != nil {
		t.Fatal(err)
	}
	written := false
	faulty.set(func(method string) error {
		if method == "Get" && written {
			return errors.New("the disk is gone")
		}
		if method == "Apply" {
			written = true
		}
		return nil
	})
	got, err := h.StepUpSince(t.Context(), in.Token, mark, afterlogin.Authentication{}, home)
	if !errors.Is(err, afterlogin.ErrUnavailable) || !got.Token.IsZero() {
		t.Errorf("%v, a token: %t", err, !got.Token.IsZero())
	}
	faulty.set(nil)
	h.use(in.Token, home, afterlogin.ReasonSuperseded)
}
