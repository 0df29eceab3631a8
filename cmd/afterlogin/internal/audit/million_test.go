package audit

import (
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin/store/memstore"
)

// TestMillion verifies and reads 20,000 entries, or a million if AFTERLOGIN_LONG is set, in memory that does not grow with
// them.
func TestMillion(t *testing.T) {
	entries := 20_000
	if os.Getenv("AFTERLOGIN_LONG") != "" {
		entries = 1_000_000
	}
	f := newFixture(t, memstore.New())
	l := f.open()
	began := time.Now()
	for i := range entries {
		e := Entry{
			At: began, Type: "session.created", Session: fmt.Sprintf("ses_%042d", i), Root: fmt.Sprintf("ses_%042d", i), Subject: fmt.Sprint("subject-", i%1000),
			Actor: "key_0123456789abcdefghijklmnopqrstuvwxyzABCDEF", Cursor: fmt.Sprintf("cursor-%d", i),
		}
		if !l.hand(e) {
			t.Fatal("closed")
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	wrote := time.Since(began)
	peak := func(do func()) (uint64, time.Duration) {
		runtime.GC()
		var before, now runtime.MemStats
		runtime.ReadMemStats(&before)
		stop, highest := make(chan struct{}), make(chan uint64)
		go func() {
			var top uint64
			for {
				runtime.ReadMemStats(&now)
				top = max(top, now.HeapAlloc)
				select {
				case <-stop:
					highest <- top
					return
				case <-time.After(5 * time.Millisecond):
				}
			}
		}()
		began := time.Now()
		do()
		took := time.Since(began)
		close(stop)
		return max(<-highest, before.HeapAlloc) - before.HeapAlloc, took
	}
	var r *Report
	memory, took := peak(func() { r = f.inOrder() })
	if r.Entries < uint64(entries) || memory > 32<<20 {
		t.Errorf("%d entries in %d bytes of memory", r.Entries, memory)
	}
	t.Logf("%d entries, %d segments, %d MiB: written in %v, verified in %v with %d KiB", r.Entries, r.Segments, r.Bytes>>20, wrote.Round(time.Millisecond), took.Round(time.Millisecond), memory>>10)
	a, err := OpenArchive(f.dir, f.ring)
	if err != nil {
		t.Fatal(err)
	}
	for name, q := range map[string]Query{"newest": {}, "rare": {Subject: "nobody"}, "one subject": {Subject: "subject-7", Limit: 100}} {
		var p Page
		memory, took := peak(func() {
			if p, err = a.List(t.Context(), q); err != nil {
				t.Fatal(err)
			}
		})
		if memory > 64<<20 {
			t.Errorf("a page in %d bytes", memory)
		}
		t.Logf("page %s: %d entries in %v with %d KiB, more: %v", name, len(p.Entries), took.Round(time.Microsecond), memory>>10, p.Next != "")
	}
}
