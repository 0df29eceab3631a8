package audit

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/afterlogin/afterlogin/keyring"
	"github.com/afterlogin/afterlogin/store/memstore"
)

func newRing() *keyring.Ring { return keyring.New() }

// While the log cannot be written an act is refused, events wait in the store, and the log says so; afterwards everything
// is there, once.
func TestFailing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, memstore.New())
		l := f.open()
		f.issue("before")
		settle()
		away := f.dir + ".away"
		if err := os.Rename(f.dir, away); err != nil {
			t.Fatal(err)
		}
		if err := l.Record(t.Context(), Entry{Type: "api.x", Actor: "key_lost"}); !errors.Is(err, ErrFailing) {
			t.Errorf("Record without a directory: %v", err)
		}
		began := time.Now()
		for range 3000 { // more than a batch
			f.issue("during")
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		s := l.Stats()
		if s.FailingSince.IsZero() || s.Failure == nil || l.Failing() == nil || s.Lag < 9*time.Second || time.Since(s.FailingSince) < 9*time.Second {
			t.Errorf("%+v", s)
		}
		if err := l.Record(t.Context(), Entry{Type: "api.x", Actor: "key_lost"}); !errors.Is(err, ErrFailing) {
			t.Errorf("Record while it fails: %v", err)
		}
		if err := os.Rename(away, f.dir); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * retry)
		settle()
		if s := l.Stats(); !s.FailingSince.IsZero() || s.Lag != 0 || l.Failing() != nil {
			t.Errorf("%+v", s)
		}
		if err := l.Record(t.Context(), Entry{Type: "api.x", Actor: "key_kept"}); err != nil {
			t.Error(err)
		}
		f.issue("after")
		settle()
		for subject, want := range map[string]int{"before": 1, "during": 3000, "after": 1} {
			if n := len(f.all(l, Query{Subject: subject, Limit: MaxPage})); n != want {
				t.Errorf("%d entries of %s, want %d", n, subject, want)
			}
		}
		failed := f.all(l, Query{Type: TypeFailed})
		if len(failed) != 1 || !strings.Contains(failed[0].Detail, "could not be written since "+stamp(began)) {
			t.Errorf("%+v", failed)
		}
		if n := len(f.all(l, Query{Actor: "key_kept"})); n != 1 {
			t.Errorf("%d acts", n)
		}
		f.inOrder()
	})
}

// A log on a full volume that is closed and opened has lost nothing.
func TestFailingAtClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, memstore.New())
		l := f.open()
		away := f.dir + ".away"
		if err := os.Rename(f.dir, away); err != nil {
			t.Fatal(err)
		}
		f.issue("mia")
		settle()
		if err := l.Close(); !errors.Is(err, ErrFailing) {
			t.Errorf("Close: %v", err)
		}
		if err := os.Rename(away, f.dir); err != nil {
			t.Fatal(err)
		}
		l = f.open()
		settle()
		if n := len(f.all(l, Query{Subject: "mia"})); n != 1 {
			t.Errorf("%d entries of mia, want 1", n)
		}
		f.inOrder()
	})
}

// Many acts at once are durable together, each in its place.
func TestConcurrentRecords(t *testing.T) {
	f := newFixture(t, memstore.New())
	f.o.segmentSize = 10_000
	l := f.open()
	var wg sync.WaitGroup
	for range 200 {
		wg.Go(func() {
			if err := l.Record(context.Background(), Entry{Type: "api.x", Actor: "key_a"}); err != nil {
				t.Error(err)
			}
			l.Stats()
		})
	}
	wg.Go(func() {
		for range 5 {
			if r, err := l.Verify(context.Background()); err != nil && !errors.Is(err, ErrBusy) || err == nil && r.Count != 0 {
				t.Errorf("while it is written: %v %+v", err, r)
			}
		}
	})
	wg.Wait()
	l.Close()
	if n := len(f.all2(Query{Actor: "key_a", Limit: MaxPage})); n != 200 {
		t.Errorf("%d entries", n)
	}
	f.inOrder()
}

// Close returns while a store does not answer.
func TestCloseWithoutStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memstore.New()
		f := newFixture(t, s)
		l := f.open()
		settle()
		s.Close()
		began := time.Now()
		time.Sleep(storeHeadEvery)
		synctest.Wait()
		if l.Stats().Deaf == nil {
			t.Error("a closed store is followed")
		}
		if err := l.Record(t.Context(), Entry{Type: "api.x"}); err != nil {
			t.Errorf("Record without a store: %v", err)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if time.Since(began) > time.Minute {
			t.Error("it took long")
		}
	})
}

func TestPrivate(t *testing.T) {
	f := newFixture(t, memstore.New())
	f.open().Close()
	filepath.WalkDir(f.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			t.Fatal(err)
		}
		info, err := d.Info()
		if err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v %v", path, info.Mode(), err)
		}
		return nil
	})
}
