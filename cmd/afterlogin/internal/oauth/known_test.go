package oauth

import (
	"testing"
	"time"
)

// A client is not read again for a second by both clocks: a machine that slept for an hour does not know it any more.
func TestKnownByBothClocks(t *testing.T) {
	for _, c := range []struct {
		age, wall time.Duration
		want      bool
	}{
		{0, 0, true}, {knownFor - 1, knownFor - 1, true}, {knownFor, 0, false}, {0, time.Hour, false}, {0, -time.Hour, false}, {-1, 0, false},
	} {
		if got := within(c.age, c.wall); got != c.want {
			t.Errorf("%v by the monotonic clock, %v by the other: %v", c.age, c.wall, got)
		}
	}
}
