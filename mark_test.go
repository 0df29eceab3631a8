package afterlogin_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/store/memstore"
)

func markAuthority(t testing.TB) *afterlogin.Authority {
	t.Helper()
	a, err := afterlogin.New(afterlogin.Config{Store: memstore.New()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	return a
}

func TestMarkAsText(t *testing.T) {
	a := markAuthority(t)
	ctx := t.Context()
	sign := func(text string) error {
		m, err := a.DecodeMark(text)
		if err != nil {
			return err
		}
		_, err = a.Issue(ctx, afterlogin.IssueRequest{Subject: "mia", Mark: m})
		return err
	}
	begin := func() string {
		m, err := a.Begin(ctx, 0, "mia")
		if err != nil {
			t.Fatal(err)
		}
		text := a.EncodeMark(m)
		if len(text) != 76 {
			t.Fatalf("EncodeMark: %d characters, want 76", len(text))
		}
		return text
	}
	unknown := begin() // mia has no record yet
	if err := sign(unknown); err != nil {
		t.Fatalf("sign-in with the mark of an unknown subject: %v", err)
	}
	known := begin()
	if err := sign(known); err != nil {
		t.Fatalf("sign-in with a mark: %v", err)
	}
	if err := a.RevokeSubject(ctx, 0, "mia", afterlogin.Sessions, afterlogin.ReasonAdministrator); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{unknown, known} {
		if err := sign(text); !errors.Is(err, afterlogin.ErrStaleSignIn) {
			t.Errorf("sign-in with a mark from before a sign-out everywhere: %v, want ErrStaleSignIn", err)
		}
	}
	if err := sign(""); err != nil {
		t.Errorf("sign-in without a mark: %v", err)
	}
	if a.EncodeMark(afterlogin.Mark{}) != "" {
		t.Error("the zero mark is not the empty text")
	}
}

func TestMarkMadeByHand(t *testing.T) {
	a := markAuthority(t)
	m, err := a.Begin(t.Context(), 0, "mia")
	if err != nil {
		t.Fatal(err)
	}
	good := a.EncodeMark(m)
	bad := []string{"x", good[:75], good + "A", good[:74] + "\r\n", strings.Repeat("A", 76), " " + good[1:], markAuthority(t).EncodeMark(m)}
	for i := range good {
		c := byte('A')
		if good[i] == c {
			c = 'B'
		}
		bad = append(bad, good[:i]+string(c)+good[i+1:])
	}
	for _, text := range bad {
		if _, err := a.DecodeMark(text); !errors.Is(err, afterlogin.ErrBadMark) {
			t.Errorf("DecodeMark(%q) = %v, want ErrBadMark", text, err)
		}
	}
}

func FuzzDecodeMark(f *testing.F) {
	a := markAuthority(f)
	m, err := a.Begin(f.Context(), 0, "mia")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(a.EncodeMark(m))
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		got, err := a.DecodeMark(text)
		if err == nil && a.EncodeMark(got) != text {
			t.Errorf("DecodeMark accepted %q, which EncodeMark does not make", text)
		}
	})
}
