package pebblestore

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/afterlogin/afterlogin/store"
	"github.com/afterlogin/afterlogin/store/storetest"
)

func BenchmarkStore(b *testing.B) {
	storetest.Bench(b, func(b *testing.B) store.Store { return openBench(b) })
}

func openBench(b *testing.B) *Store {
	s, err := Open(b.TempDir(), Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Close() })
	return s
}

// BenchmarkAgainstRaw creates sessions, and beside it appends as many bytes to a file with one fsync for whatever is
// queued, which is about the best that any store can do. It reports both and the ratio, each round's in turn.
func BenchmarkAgainstRaw(b *testing.B) {
	for _, goroutines := range []int{1, 64, 256} {
		b.Run(fmt.Sprint(goroutines), func(b *testing.B) {
			s := openBench(b)
			raw := openRaw(b)
			size := 0
			create := func() error {
				ops := newSession()
				return s.Apply(b.Context(), ops[0].ID, ops...)
			}
			{
				ops := newSession()
				c, err := s.prepare(ops[0].ID, ops)
				if err != nil {
					b.Fatal(err)
				}
				size = c.batch.Len() + len(appendEvent(nil, &ops[1].Event)) + 12
				c.drop()
			}
			line := make([]byte, size)
			rand.Read(line)
			var ratios, stores, raws, cpus []float64
			for b.Loop() {
				r := perSecond(b, goroutines, func() error { return raw.append(line) })
				before := cpuTime(b)
				p := perSecond(b, goroutines, create)
				cpus = append(cpus, float64((cpuTime(b)-before).Microseconds())/p)
				ratios, stores, raws = append(ratios, p/r), append(stores, p), append(raws, r)
			}
			b.ReportMetric(median(raws), "raw/s")
			b.ReportMetric(median(stores), "creates/s")
			b.ReportMetric(median(ratios), "ratio")
			b.ReportMetric(median(cpus), "cpu-us/create")
			b.ReportMetric(float64(size), "bytes")
		})
	}
}

// cpuTime returns how long the process has computed.
func cpuTime(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func newSession() []store.Op {
	var random [14]byte
	rand.Read(random[:])
	const absolute = 1_900_000_000_000
	r := &store.Record{ID: store.NewRootID(store.BucketOf(absolute), random, 1, "user@example.org"), Kind: 'b', Tenant: 1,
		Subject: "user@example.org", Absolute: absolute, Version: 1, Payload: make([]byte, storetest.BenchPayload)}
	copy(r.Payload, random[:])
	return []store.Op{store.Put(r, 0),
		store.Emit(store.Event{Type: "session.created", ID: r.ID, Tenant: 1, Subject: r.Subject})}
}

// perSecond runs do on a number of goroutines for a second and returns how often that went.
func perSecond(b *testing.B, goroutines int, do func() error) float64 {
	var n atomic.Int64
	var stop atomic.Bool
	var wg sync.WaitGroup
	start := time.Now()
	time.AfterFunc(time.Second, func() { stop.Store(true) })
	for range goroutines {
		wg.Go(func() {
			for !stop.Load() {
				if err := do(); err != nil {
					b.Error(err)
					return
				}
				n.Add(1)
			}
		})
	}
	wg.Wait()
	return float64(n.Load()) / time.Since(start).Seconds()
}

func median(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}

// rawLog is a file that is appended to.
type rawLog struct {
	file  *os.File
	queue chan rawLine
}

type rawLine struct {
	line []byte
	done chan error
}

func openRaw(b *testing.B) *rawLog {
	f, err := os.Create(filepath.Join(b.TempDir(), "raw"))
	if err != nil {
		b.Fatal(err)
	}
	r := &rawLog{f, make(chan rawLine, 512)}
	b.Cleanup(func() {
		close(r.queue)
		f.Close()
	})
	go r.run()
	return r
}

func (r *rawLog) append(line []byte) error {
	done := make(chan error, 1)
	r.queue <- rawLine{line, done}
	return <-done
}

func (r *rawLog) run() {
	var waiting []chan error
	var buf []byte
	for l := range r.queue {
		buf, waiting = append(buf[:0], l.line...), append(waiting[:0], l.done)
		for len(waiting) < 512 && len(r.queue) > 0 {
			l := <-r.queue
			buf, waiting = append(buf, l.line...), append(waiting, l.done)
		}
		_, err := r.file.Write(buf)
		if err == nil {
			err = unix.Fdatasync(int(r.file.Fd()))
		}
		for _, done := range waiting {
			done <- err
		}
	}
}
