package main

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/keyring"
	"github.com/afterlogin/afterlogin/store"
	"github.com/afterlogin/afterlogin/store/pebblestore"
)

// durableRound is how long one side signs in, or appends, in a round.
const durableRound = 1500 * time.Millisecond

func durableComparisons() []comparison {
	const against = "against a log of the same bytes with group commit"
	var out []comparison
	for _, c := range []struct {
		goroutines int
		target     float64
	}{{1, 0.7}, {16, 0.7}, {64, 0.7}, {256, 0.45}} {
		out = append(out, comparison{
			name: fmt.Sprintf("durable/sign-in-%d", c.goroutines), target: c.target,
			what: fmt.Sprintf("durable sign-ins on Pebble from %d goroutines, %s", c.goroutines, against),
			set: func() (func() (float64, error), func() (float64, error), func(), error) {
				return setDurable(c.goroutines, openSignIns)
			},
		})
	}
	for _, n := range []int{64, 256} { // no target: it is what we build on, and shows how much of the distance is ours
		out = append(out, comparison{
			name: fmt.Sprintf("durable/pebble-%d", n),
			what: fmt.Sprintf("synced writes of the same keys to bare Pebble from %d goroutines, %s", n, against),
			set: func() (func() (float64, error), func() (float64, error), func(), error) {
				return setDurable(n, openBare)
			},
		})
	}
	return out
}

// weighed is a store that weighs what it is given.
type weighed struct {
	store.Store
	bytes, applies atomic.Int64
}

func (w *weighed) Apply(ctx context.Context, root store.ID, ops ...store.Op) error {
	n := 0
	for i := range ops {
		switch ops[i].Kind {
		case store.OpPut: // the record under its key, and its subject's index entry
			n += len(store.AppendRecord(nil, ops[i].Record)) + 21 + 40
		case store.OpEvent:
			e := &ops[i].Event
			n += 9 + 8 + 30 + len(e.Type) + len(e.Subject) + len(e.Reason) + len(e.Detail)
		}
	}
	w.bytes.Add(int64(n))
	w.applies.Add(1)
	return w.Store.Apply(ctx, root, ops...)
}

// setDurable prepares one side in a directory, and a log that gets as many bytes for each of its writes.
func setDurable(goroutines int, open func(dir string) (side, error)) (ours, reference func() (float64, error), done func(), err error) {
	dir, err := os.MkdirTemp("", "afterlogin-bench-")
	if err != nil {
		return nil, nil, nil, err
	}
	one, err := open(dir)
	if err != nil {
		return nil, nil, nil, err
	}
	log, err := openLog(filepath.Join(dir, "log"))
	if err != nil {
		return nil, nil, nil, err
	}
	entry := make([]byte, one.size)
	rand.Read(entry)
	ours = func() (float64, error) { return concurrently(goroutines, durableRound, one.write) }
	reference = func() (float64, error) {
		return concurrently(goroutines, durableRound, func(int64) error { return log.append(entry) })
	}
	done = func() {
		one.close()
		log.close()
		os.RemoveAll(dir)
	}
	return ours, reference, done, nil
}

// side is what is compared with the log: write makes the i-th write durable, which is of size bytes.
type side struct {
	write func(i int64) error
	size  int
	close func()
}

// openSignIns opens a store, and an authority that signs people in on it.
func openSignIns(dir string) (side, error) {
	p, err := pebblestore.Open(filepath.Join(dir, "store"), pebblestore.Options{})
	if err != nil {
		return side{}, err
	}
	w := &weighed{Store: p}
	keys := keyring.New()
	a, err := afterlogin.New(afterlogin.Config{Store: w, Keys: keys})
	if err != nil {
		return side{}, err
	}
	ctx := context.Background()
	const subjects = 256
	signIn := func(i int64) error {
		_, err := a.Issue(ctx, afterlogin.IssueRequest{Subject: fmt.Sprint("subject-", i%subjects)})
		return err
	}
	for i := range int64(subjects) {
		if err := signIn(i); err != nil {
			return side{}, err
		}
	}
	w.bytes.Store(0)
	w.applies.Store(0)
	if err := signIn(1); err != nil {
		return side{}, err
	}
	size := int(w.bytes.Load() / w.applies.Load())
	if err := a.Close(); err != nil {
		return side{}, err
	}
	if a, err = afterlogin.New(afterlogin.Config{Store: p, Keys: keys}); err != nil { // weighing costs, too
		return side{}, err
	}
	return side{signIn, size, func() { a.Close(); p.Close() }}, nil
}

// openBare opens a Pebble database that is given the three keys of a sign-in, without a question or a lock of ours.
func openBare(dir string) (side, error) {
	weighed, err := openSignIns(dir)
	if err != nil {
		return side{}, err
	}
	weighed.close()
	db, err := pebble.Open(filepath.Join(dir, "bare"), &pebble.Options{MemTableSize: 32 << 20, Logger: silent{}})
	if err != nil {
		return side{}, err
	}
	const recordKey, indexKey, eventKey, event = 28, 47, 9, 80
	value := make([]byte, weighed.size-recordKey-indexKey-eventKey)
	rand.Read(value)
	write := func(i int64) error {
		var random [64]byte
		rand.Read(random[:])
		random[0] = 'r'
		b := db.NewBatch()
		if err := b.Set(random[:recordKey], value[event:], nil); err != nil {
			return err
		}
		random[0] = 'x'
		if err := b.Set(random[:indexKey], nil, nil); err != nil {
			return err
		}
		if err := b.Set(binary.BigEndian.AppendUint64([]byte{'e'}, uint64(i)), value[:event], nil); err != nil {
			return err
		}
		if err := b.Commit(pebble.Sync); err != nil {
			return err
		}
		return b.Close()
	}
	return side{write, weighed.size, func() { db.Close() }}, nil
}

// silent drops what Pebble has to say.
type silent struct{}

func (silent) Infof(string, ...any)  {}
func (silent) Errorf(string, ...any) {}

func (silent) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

// concurrently calls f from n goroutines for about d, and returns the calls per second.
func concurrently(n int, d time.Duration, f func(i int64) error) (float64, error) {
	var count atomic.Int64
	var failed atomic.Pointer[error]
	var wg sync.WaitGroup
	start := time.Now()
	for range n {
		wg.Go(func() {
			for time.Since(start) < d && failed.Load() == nil {
				if err := f(count.Add(1)); err != nil {
					failed.Store(&err)
				}
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		return 0, *err
	}
	return float64(count.Load()) / time.Since(start).Seconds(), nil
}

// appendLog is the plainest durable log: whoever waits is written together with the others, in one write and one
// fdatasync.
type appendLog struct {
	file  *os.File
	queue chan waiting
	ended sync.WaitGroup
}

type waiting struct {
	entry []byte
	done  chan error
}

func openLog(path string) (*appendLog, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	l := &appendLog{file: f, queue: make(chan waiting, 512)}
	l.ended.Go(l.commit)
	return l, nil
}

func (l *appendLog) append(entry []byte) error {
	w := waiting{entry, make(chan error, 1)}
	l.queue <- w
	return <-w.done
}

func (l *appendLog) commit() {
	var buf []byte
	var batch []waiting
	for first := range l.queue {
		buf, batch = append(buf[:0], first.entry...), append(batch[:0], first)
	more:
		for len(batch) < 512 {
			select {
			case w, ok := <-l.queue:
				if !ok {
					break more
				}
				buf, batch = append(buf, w.entry...), append(batch, w)
			default:
				break more
			}
		}
		_, err := l.file.Write(buf)
		if err == nil {
			err = syscall.Fdatasync(int(l.file.Fd()))
		}
		for _, w := range batch {
			w.done <- err
		}
	}
}

func (l *appendLog) close() {
	close(l.queue)
	l.ended.Wait()
	l.file.Close()
}
