package breached

import (
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
)

func TestKnown(t *testing.T) {
	for _, s := range []string{"123456", "password", "Password", "PASSWORD1234", "qwertyuiop123", "changeme", "iloveyou"} {
		if !Known(s) {
			t.Errorf("%q is not known", s)
		}
	}
	for _, s := range []string{"", " password", "password ", "password\n", "\npassword", "passwordz9", "123456\npassword", "correct horse battery staple", strings.Repeat("password", 40), "p\xff"} {
		if Known(s) {
			t.Errorf("%q is known", s)
		}
	}
}

func TestAll(t *testing.T) {
	n, first := 0, ""
	seen := make(map[string]bool)
	for s := range All() {
		if n == 0 {
			first = s
		}
		n++
		if s == "" || strings.ContainsAny(s, "\r\n") || s != strings.ToLower(s) || seen[s] {
			t.Errorf("%q stands in the list", s)
		}
		seen[s] = true
		// The text of each, and with one letter in the other case.
		at := rand.IntN(len(s))
		if !Known(s) || !Known(s[:at]+strings.ToUpper(s[at:at+1])+s[at+1:]) {
			t.Errorf("%q is not known", s)
		}
	}
	if n != 30_000 || first != "123456" {
		t.Errorf("%d passwords, the first is %q", n, first)
	}
	for range All() { // may be left early
		break
	}
}

func TestParallel(t *testing.T) {
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if !Known("dragon") || Known("no such thing") {
				t.Error("not the same for all")
			}
		})
	}
	wg.Wait()
}

func BenchmarkKnown(b *testing.B) {
	for b.Loop() {
		Known("correct horse battery staple")
	}
}
