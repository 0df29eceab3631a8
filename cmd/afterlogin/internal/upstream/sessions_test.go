package upstream

import (
	"testing"

	"github.com/afterlogin/afterlogin"
)

// sessions returns those of the fixture that are live.
func sessions(t testing.TB, f *fixture) (out []*afterlogin.Session) {
	t.Helper()
	for s, err := range f.a.Sessions(t.Context(), afterlogin.Query{}) {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, s)
	}
	return out
}

func mustSession(t testing.TB, f *fixture) *afterlogin.Session {
	t.Helper()
	got := sessions(t, f)
	if len(got) != 1 {
		t.Fatalf("%d sessions, want 1", len(got))
	}
	return got[0]
}
