package afterlogin_test

import (
	"context"
	"encoding/json"
	"errors"
	"testing"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/store"
)

// Who did it stands in the event's detail in the store. What comes with a request must not look like it.
func TestActorIsNotForged(t *testing.T) {
	h := newHouse(t, func(c *afterlogin.Config) { c.Issuer = "https://auth.example.com" })
	in := h.signIn("mia")
	ctx := afterlogin.WithActor(t.Context(), "key_1")
	const forged = "app\x1fconsole/root"
	for name, err := range map[string]error{
		"access token": second(h.IssueAccess(ctx, in.Session, afterlogin.AccessRequest{Client: forged})),
		"grant":        second(h.IssueGrant(ctx, in.Session, afterlogin.GrantRequest{Client: forged})),
		"code":         second(h.IssueCode(ctx, in.Session, afterlogin.CodeRequest{Client: forged})),
		"session":      second(h.Issue(ctx, afterlogin.IssueRequest{Subject: "mia", Client: forged})),
		"client":       second(h.AddClient(ctx, 0, forged, []byte("{}"))),
		"entry":        second(h.AddEntry(ctx, afterlogin.EntryRequest{Realm: "x", Name: forged, Detail: json.RawMessage("{}")})),
	} {
		if !errors.Is(err, afterlogin.ErrBadRequest) {
			t.Errorf("%s with a control character in a name: %v", name, err)
		}
	}
	// What gets there all the same is no mark.
	for _, ctx := range []context.Context{ctx, t.Context()} {
		op := store.Emit(store.Event{Type: afterlogin.EventCreated, Detail: "by " + forged})
		if detail, who := afterlogin.Signed(ctx, op); who != afterlogin.ActorOf(ctx) || detail != "by app console/root" {
			t.Errorf("%q by %q, want %q", detail, who, afterlogin.ActorOf(ctx))
		}
	}
}

func failure[T any](_ T, err error) error { return err }

func TestActorIsSeen(t *testing.T) {
	for _, c := range []string{"a\x00b", "a\x1fb", "a\u0085b", "a\u009bb", "a\u202eb", "a\u2028b", "a\u200bb", "a\u061cb", "a\ufeffb", "a\xffb"} {
		if got := afterlogin.ActorOf(afterlogin.WithActor(t.Context(), c)); got != "ab" {
			t.Errorf("%q became %q", c, got)
		}
	}
	for _, name := range []string{"Zoë Müller 7", "👩\u200d💻 laptop", "می\u200cخواهم"} {
		if got := afterlogin.ActorOf(afterlogin.WithActor(t.Context(), name)); got != name {
			t.Errorf("%q became %q", name, got)
		}
	}
}
