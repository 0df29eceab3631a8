package afterlogin_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/store/memstore"
)

func TestSmoke(t *testing.T) {
	now := time.Now()
	a, err := afterlogin.New(afterlogin.Config{Store: memstore.New(), Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	ctx := t.Context()
	anon, err := a.Issue(ctx, afterlogin.IssueRequest{Data: map[string]json.RawMessage{"cart": json.RawMessage(`[1]`)}})
	if err != nil {
		t.Fatal(err)
	}
	in, err := a.Issue(ctx, afterlogin.IssueRequest{Subject: "mia", From: anon.Token})
	if err != nil {
		t.Fatal(err)
	}
	e := afterlogin.Expect{Kinds: []afterlogin.Kind{afterlogin.KindSession}, CanRenew: true}
	if _, err := a.Validate(ctx, anon.Token, e); afterlogin.ReasonOf(err) != afterlogin.ReasonSuperseded {
		t.Fatal(err)
	}
	s, err := a.Validate(ctx, in.Token, e)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Validate(ctx, in.Token, e); err != nil {
		t.Fatal(err)
	}
	d, err := a.Data(ctx, s)
	if err != nil || string(d.JSON("cart")) != "[1]" {
		t.Fatal(err, d)
	}
	now = now.Add(16 * time.Minute)
	s, err = a.Validate(ctx, in.Token, e)
	if err != nil || !s.RenewalDue() {
		t.Fatal(err)
	}
	r, err := a.Renew(ctx, in.Token, afterlogin.Client{})
	if err != nil || r.Token.IsZero() {
		t.Fatal(err)
	}
	r2, err := a.Renew(ctx, in.Token, afterlogin.Client{})
	if err != nil || r2.Token.Reveal() != r.Token.Reveal() {
		t.Fatal(err)
	}
	if _, err := a.Validate(ctx, r.Token, e); err != nil {
		t.Fatal(err)
	}
	now = now.Add(time.Minute)
	if _, err := a.Validate(ctx, in.Token, e); afterlogin.ReasonOf(err) != afterlogin.ReasonReused {
		t.Fatal(err)
	}
	if _, err := a.Validate(ctx, r.Token, e); afterlogin.ReasonOf(err) != afterlogin.ReasonRevoked {
		t.Fatal(err)
	}
}
