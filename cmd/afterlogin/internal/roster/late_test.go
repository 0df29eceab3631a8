package roster

import (
	"context"
	"fmt"
	"iter"
	"testing"
	"testing/synctest"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/store"
	"github.com/afterlogin/afterlogin/store/memstore"
)

// slowList is a store whose list takes time.
type slowList struct {
	*watchStore
	takes time.Duration
}

func (s *slowList) List(ctx context.Context, q store.Query) iter.Seq2[*store.Record, error] {
	return func(yield func(*store.Record, error) bool) {
		time.Sleep(s.takes)
		s.watchStore.List(ctx, q)(yield)
	}
}

// A gap is over when a scan that began after it has ended, and not before: until then nothing claims to be complete, whatever
// is heard meanwhile.
func TestGapWhileScanning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &slowList{watchStore: &watchStore{Store: memstore.New(), gaps: make(chan struct{}, 1)}}
		a, err := afterlogin.New(afterlogin.Config{Store: s})
		if err != nil {
			t.Fatal(err)
		}
		r, err := New(Options{Authority: a, Eager: true})
		if err != nil {
			t.Fatal(err)
		}
		h := &house{t: t, store: s, a: a, r: r}
		defer h.close()
		h.signIn(afterlogin.IssueRequest{Subject: "mia"})
		h.settle()
		s.takes = 20 * time.Second
		before := time.Now()
		s.gaps <- struct{}{}
		h.signIn(afterlogin.IssueRequest{Subject: "thief"}) // the event is lost
		for i := range 4 {
			time.Sleep(5 * time.Second)
			h.signIn(afterlogin.IssueRequest{Subject: "tom"})
			synctest.Wait()
			p, err := r.Search(t.Context(), Request{})
			if err != nil || p.Progress.AsOf.After(before) || !p.Progress.Missed || p.TotalIs != About {
				t.Errorf("after %d: as of %v, %d %s, %v", i, p.Progress.AsOf.Sub(before), p.Total, p.TotalIs, err)
			}
			if c, ok := r.Counts(); !ok || !c.Progress.Missed {
				t.Errorf("after %d: %+v", i, c)
			}
		}
		h.settle()
		p, err := r.Search(t.Context(), Request{})
		if err != nil || p.Total != 6 || p.TotalIs != Exact || p.Progress.Missed || !p.Progress.AsOf.After(before) {
			t.Errorf("%+v %v", p, err)
		}
	})
}

// What has no room during a scan is made good by the next one.
func TestLostWhileScanning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &slowList{watchStore: &watchStore{Store: memstore.New(), gaps: make(chan struct{}, 1)}}
		a, err := afterlogin.New(afterlogin.Config{Store: s})
		if err != nil {
			t.Fatal(err)
		}
		r, err := New(Options{Authority: a, Eager: true})
		if err != nil {
			t.Fatal(err)
		}
		h := &house{t: t, store: s, a: a, r: r}
		defer h.close()
		h.settle()
		s.takes = 20 * time.Second
		r.askForScan()
		time.Sleep(5 * time.Second)
		r.dirty.mu.Lock()
		r.dirty.lost = true
		r.dirty.mu.Unlock()
		r.dirty.add(rootID{1}, afterlogin.KindSession)
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if p := r.Progress(); !p.Missed {
			t.Errorf("%+v", p)
		}
		h.settle()
		if p := r.Progress(); p.Missed {
			t.Errorf("%+v", p)
		}
	})
}

// While changes are missed no number is a least one: what it counts may be over.
func TestMissedIsAbout(t *testing.T) {
	f := &found{unsure: 1}
	if got := totalIs(parse(t, ""), f); got != AtLeast {
		t.Error(got)
	}
	f.progress.Missed = true
	if got := totalIs(parse(t, ""), f); got != About {
		t.Error(got)
	}
}

// A sign-out that comes late by a clock that is behind does not end the sign-in after it.
func TestSignedOutBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, Options{Eager: true})
		defer h.close()
		h.signIn(afterlogin.IssueRequest{Subject: "mia"})
		h.settle()
		h.r.mu.Lock()
		h.r.apply(&afterlogin.Event{Type: afterlogin.EventSubject, Subject: "mia", At: time.Now().Add(-time.Minute), Reason: afterlogin.ReasonAdministrator})
		h.r.mu.Unlock()
		h.settle()
		if c, ok := h.r.Counts(); !ok || c.Live != 1 {
			t.Errorf("%+v", c)
		}
	})
}

// TestPerhaps: a search whose candidates mostly are none goes through the rows a few times, and not once a page.
func TestPerhaps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		h := newHouse(t, Options{Now: func() time.Time { asked++; return time.Now() }})
		defer h.close()
		h.r.start.Do(func() {}) // the index is what the test makes of it
		like := *h.signIn(afterlogin.IssueRequest{Subject: "mia"}).Session
		like.Origin = like.ID
		for i := range 3 * maxReads {
			var id rootID
			id[3], id[14], id[15] = 7, byte(i), byte(i>>8)
			like.Subject = fmt.Sprint("user", i)
			h.r.table.put(&like, id)
		}
		h.r.state = Ready
		asked = 0
		p, err := h.r.Search(t.Context(), Request{Query: parse(t, "origin="+string(handle(afterlogin.KindSession, &rootID{9}))), Limit: 1})
		if err != nil || len(p.Sessions) != 0 || p.Next == "" || asked > 10 {
			t.Errorf("%+v %v, and the time was asked for %d times", p, err, asked)
		}
	})
}
