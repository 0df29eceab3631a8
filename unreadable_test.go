package afterlogin

import (
	"bytes"
	"errors"
	"testing"

	"github.com/afterlogin/afterlogin/keyring"
	"github.com/afterlogin/afterlogin/store/memstore"
)

// A session of a layout that this node does not know, as a newer node writes it, is neither ended nor left out for a limit;
// one that opens nowhere is.
func TestALimitAndARecordThatDoesNotOpen(t *testing.T) {
	for _, listed := range []bool{false, true} {
		for _, newer := range []bool{true, false} {
			s, keys := memstore.New(), keyring.New()
			open := func(limits map[Kind]SessionLimit) *Authority {
				a, err := New(Config{Store: s, Keys: keys, Limits: limits})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { a.Close() })
				return a
			}
			limited := open(map[Kind]SessionLimit{KindSession: {Max: 1, AtLimit: EndOldest}})
			first := open(nil)
			if listed {
				first = limited
			}
			in, err := first.Issue(t.Context(), IssueRequest{Subject: "mia"})
			if err != nil {
				t.Fatal(err)
			}
			id, err := in.Session.ID.parse()
			if err != nil {
				t.Fatal(err)
			}
			rs, err := s.Get(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			op := limited.put(next(rs[0]), rs[0].Version, []byte{frozenLayout + 1, 1, 2, 3})
			if !newer {
				op.Record.Payload = bytes.Repeat([]byte{1}, len(op.Record.Payload))
			}
			if err := s.Apply(t.Context(), id, op); err != nil {
				t.Fatal(err)
			}
			_, err = limited.Issue(t.Context(), IssueRequest{Subject: "mia"})
			if newer != errors.Is(err, ErrUnavailable) || !newer && err != nil {
				t.Errorf("listed %v, newer %v: the next sign-in: %v", listed, newer, err)
			}
			if rs, err = s.Get(t.Context(), id); err != nil || (rs[0].Marked != 0) != (listed && !newer) {
				t.Errorf("listed %v, newer %v: marked at %d, %v", listed, newer, rs[0].Marked, err)
			}
		}
	}
}
