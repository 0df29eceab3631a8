package httpauth

import (
	"strconv"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
)

// However many tokens are made, few are kept, and the latest are among them; to put one there never takes a search.
func TestMadeJWTs(t *testing.T) {
	var m madeJWTs
	now := time.Unix(1_800_000_000, 0)
	key := func(i int) jwtKey { return jwtKey{wish: strconv.Itoa(i)} }
	for i := range 3 * maxJWTs {
		m.put(key(i), afterlogin.TokenFrom(strconv.Itoa(i)), 10*time.Minute, now)
		if n := len(m.young) + len(m.old); n > maxJWTs {
			t.Fatalf("%d are kept", n)
		}
		for _, j := range []int{i, max(0, i-maxJWTs/2+1)} {
			if got, left := m.get(key(j), now); got.Reveal() != strconv.Itoa(j) || left != 10*time.Minute {
				t.Fatalf("after %d: %d is lost", i, j)
			}
		}
	}
	if _, left := m.get(key(0), now); left != 0 {
		t.Error("the first is still there")
	}
	if _, left := m.get(key(3*maxJWTs-1), now.Add(5*time.Minute)); left != 0 {
		t.Error("one that is half over is handed out")
	}
}
