package oauth

import (
	"strconv"
	"testing"
	"time"
)

// Assertions are remembered until they are over; one client's leave room for the others', and making room is not done for
// each request.
func TestAssertionsAreRemembered(t *testing.T) {
	var a assertions
	now := time.Unix(1_800_000_000, 0)
	until := now.Add(maxAssertion)
	use := func(client, id string, wantFirst, wantFull bool) {
		t.Helper()
		if first, full := a.use(client, id, until, now); first != wantFirst || full != wantFull {
			t.Errorf("%s's %s: first %v, full %v", client, id, first, full)
		}
	}
	use("one", "x", true, false)
	use("one", "x", false, false)
	use("other", "x", true, false)
	for i := range maxAssertionsOfOne - 1 {
		a.use("one", strconv.Itoa(i), until, now)
	}
	use("one", "one too many", false, true)
	use("one", "x", false, false)
	use("other", "y", true, false)
	now = until.Add(time.Second)
	a.swept = now.Unix()
	until = now.Add(maxAssertion)
	use("one", "in the second of a sweep", false, true)
	now = now.Add(time.Second)
	use("one", "after it", true, false)
	if a.count != 1 || len(a.used) != 1 {
		t.Errorf("%d of %d clients are remembered after everything else is over", a.count, len(a.used))
	}
	for i := range maxAssertions {
		a.use(strconv.Itoa(i%10), strconv.Itoa(i), until, now)
	}
	use("yet another", "x", false, true)
	if a.count != maxAssertions {
		t.Errorf("%d", a.count)
	}
}
