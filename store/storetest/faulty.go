package storetest

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/afterlogin/afterlogin/store"
)

// ErrFault is what a Faulty store fails with if a test names no error of its own.
var ErrFault = errors.New("storetest: fault")

// A Call is one thing that a Faulty store is about to do.
type Call struct {
	// Method is the name of a method of store.Store; or "Event" for one event that Watch is about to yield, or
	// "Notice" for one call of a function that was given to Notify.
	Method string
	// N counts the calls of the method, from 1.
	N int
	// Root is what Apply is called with, and what a Notice tells.
	Root    store.ID
	Ops     []store.Op
	IDs     []store.ID
	Touches []store.Touch
	Event   store.Event
}

// A Fault is what goes wrong with a call. The zero Fault is nothing.
type Fault struct {
	// Delay is waited for before anything else; the end of the call's context cuts it short. A Notice is then given
	// from another goroutine, as by a store that other processes change too.
	Delay time.Duration
	// Before is returned, and nothing happens.
	Before error
	// HangBefore waits for the end of the context, and nothing happens.
	HangBefore bool
	// After is returned although it happened: store.ErrUnknown from a store that knows its limits, any other error
	// from one that breaks the contract. For List and Watch it comes after the first thing yielded.
	After error
	// HangAfter waits for the end of the context after it happened, and then returns ErrUnknown from Apply, and the
	// context's error from other methods.
	HangAfter bool
	// Drop loses an Event or a Notice.
	Drop bool
	// Late gives an Event or a Notice after the one that follows it. If none follows, it is lost.
	Late bool
}

// Faulty is a store that fails on demand. It counts its calls, so that a test can tell that nothing was written. Every
// method is safe for concurrent use, as a store's methods are.
type Faulty struct {
	s store.Store

	mu    sync.Mutex
	hook  func(Call) Fault
	calls map[string]int

	notices sync.WaitGroup
}

var _ store.Store = (*Faulty)(nil)

// NewFaulty returns a store that does what s does, but for the faults that hook asks for. The hook is called once for
// each call, from the goroutine of the call. If it is nil there are no faults.
func NewFaulty(s store.Store, hook func(Call) Fault) *Faulty {
	f := &Faulty{s: s, calls: map[string]int{}}
	f.SetHook(hook)
	return f
}

// Random returns a hook that asks for a fault in the given share of calls, the same ones each time for the same seed
// if the calls come in the same order. It asks for errors before and after, and for lost and late notices and events
// (watchers that miss an event do not learn of it, so a caller that trusts in Watch cannot pass: leave them out with
// events false).
func Random(seed uint64, share float64, events bool) func(Call) Fault {
	var mu sync.Mutex
	rng := rand.New(rand.NewPCG(seed, seed))
	return func(c Call) Fault {
		mu.Lock()
		defer mu.Unlock()
		if rng.Float64() >= share {
			return Fault{}
		}
		kind := rng.IntN(3)
		switch c.Method {
		case "Close", "Watch":
			return Fault{}
		case "Event", "Notice":
			return Fault{Drop: events && kind == 0, Late: events && kind > 0}
		}
		switch {
		case kind == 0:
			return Fault{Before: ErrFault}
		case kind == 1 && c.Method == "Apply":
			return Fault{After: store.ErrUnknown}
		case c.Method == "Apply":
			return Fault{Before: store.ErrUnknown}
		}
		return Fault{After: ErrFault}
	}
}

// SetHook replaces the hook; nil ends the faults.
func (f *Faulty) SetHook(hook func(Call) Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if hook == nil {
		hook = func(Call) Fault { return Fault{} }
	}
	f.hook = hook
}

// Count returns how often a method was called, "Event" and "Notice" included.
func (f *Faulty) Count(method string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[method]
}

// Writes returns how often a method was called that writes what is not to be lost: Apply and Purge.
func (f *Faulty) Writes() int { return f.Count("Apply") + f.Count("Purge") }

// Reset begins to count anew.
func (f *Faulty) Reset() {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.calls)
}

// fault counts the call and asks what goes wrong with it.
func (f *Faulty) fault(c Call) Fault {
	f.mu.Lock()
	f.calls[c.Method]++
	c.N = f.calls[c.Method]
	hook := f.hook
	f.mu.Unlock()
	return hook(c)
}

// call does what a method does, with what goes wrong around it.
func (f *Faulty) call(ctx context.Context, c Call, do func() error) error {
	return f.fault(c).around(ctx, c, do)
}

func (t Fault) around(ctx context.Context, c Call, do func() error) error {
	if err := t.before(ctx); err != nil {
		return err
	}
	if err := do(); err != nil {
		return err
	}
	return t.after(ctx, c.Method == "Apply")
}

func (t Fault) before(ctx context.Context) error {
	if t.Delay > 0 {
		timer := time.NewTimer(t.Delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if t.HangBefore {
		<-ctx.Done()
		return ctx.Err()
	}
	return t.Before
}

func (t Fault) after(ctx context.Context, unknown bool) error {
	if t.HangAfter {
		<-ctx.Done()
		if unknown {
			return fmt.Errorf("%w: %w", store.ErrUnknown, ctx.Err())
		}
		return ctx.Err()
	}
	return t.After
}

// Apply implements store.Store.
func (f *Faulty) Apply(ctx context.Context, root store.ID, ops ...store.Op) error {
	return f.call(ctx, Call{Method: "Apply", Root: root, Ops: ops}, func() error { return f.s.Apply(ctx, root, ops...) })
}

// Get implements store.Store.
func (f *Faulty) Get(ctx context.Context, ids ...store.ID) (rs []*store.Record, err error) {
	err = f.call(ctx, Call{Method: "Get", IDs: ids}, func() (err error) {
		rs, err = f.s.Get(ctx, ids...)
		return err
	})
	if err != nil {
		return nil, err
	}
	return rs, nil
}

// Touch implements store.Store.
func (f *Faulty) Touch(ctx context.Context, touches []store.Touch) error {
	return f.call(ctx, Call{Method: "Touch", Touches: touches}, func() error { return f.s.Touch(ctx, touches) })
}

// List implements store.Store.
func (f *Faulty) List(ctx context.Context, q store.Query) iter.Seq2[*store.Record, error] {
	t := f.fault(Call{Method: "List"})
	return func(yield func(*store.Record, error) bool) {
		if err := t.before(ctx); err != nil {
			yield(nil, err)
			return
		}
		for r, err := range f.s.List(ctx, q) {
			if !yield(r, err) || err != nil {
				return
			}
			if t.After != nil || t.HangAfter {
				break
			}
		}
		if err := t.after(ctx, false); err != nil {
			yield(nil, err)
		}
	}
}

// Watch implements store.Store.
func (f *Faulty) Watch(ctx context.Context, since store.Cursor) (iter.Seq2[store.Event, error], error) {
	t := f.fault(Call{Method: "Watch"})
	if err := t.before(ctx); err != nil {
		return nil, err
	}
	seq, err := f.s.Watch(ctx, since)
	if err != nil {
		return nil, err
	}
	return func(yield func(store.Event, error) bool) {
		var late []store.Event
		for e, err := range seq {
			if err != nil {
				yield(e, err)
				return
			}
			ft := f.fault(Call{Method: "Event", Event: e})
			if err := ft.before(ctx); err != nil {
				yield(store.Event{}, err)
				return
			}
			if ft.Drop {
				continue
			}
			if ft.Late {
				late = append(late, e)
				continue
			}
			for _, e := range append([]store.Event{e}, late...) {
				if !yield(e, nil) {
					return
				}
			}
			late = nil
			if err := ft.after(ctx, false); err != nil {
				yield(store.Event{}, err)
				return
			}
			if err := t.after(ctx, false); err != nil {
				yield(store.Event{}, err)
				return
			}
		}
	}, nil
}

// Notify implements store.Store.
func (f *Faulty) Notify(g func(root store.ID)) (stop func()) {
	f.fault(Call{Method: "Notify"})
	var mu sync.Mutex // guards late and stopped, and is not held while g runs
	var late []store.ID
	stopped := false
	give := func(ids ...store.ID) {
		mu.Lock()
		ended := stopped
		mu.Unlock()
		for _, id := range ids {
			if !ended {
				g(id)
			}
		}
	}
	inner := f.s.Notify(func(root store.ID) {
		t := f.fault(Call{Method: "Notice", Root: root})
		switch {
		case t.Drop || t.Before != nil:
		case t.Late:
			mu.Lock()
			late = append(late, root)
			mu.Unlock()
		case t.Delay > 0:
			f.notices.Go(func() {
				timer := time.NewTimer(t.Delay)
				defer timer.Stop()
				<-timer.C
				give(root)
			})
		default:
			mu.Lock()
			ids := append([]store.ID{root}, late...)
			late = nil
			mu.Unlock()
			give(ids...)
		}
	})
	return func() {
		inner()
		mu.Lock()
		defer mu.Unlock()
		stopped = true
	}
}

// Purge implements store.Store.
func (f *Faulty) Purge(ctx context.Context, b store.Bucket) error {
	return f.call(ctx, Call{Method: "Purge"}, func() error { return f.s.Purge(ctx, b) })
}

// Close implements store.Store. It waits for delayed notices.
func (f *Faulty) Close() error {
	err := f.call(context.Background(), Call{Method: "Close"}, f.s.Close)
	f.notices.Wait()
	return err
}

var _ store.Bulk = (*Faulty)(nil)

// errNoBulk is what Scan and Load of a Faulty are on a store that does not have them.
var errNoBulk = errors.New("storetest: the store is no store.Bulk")

// Scan implements store.Bulk, if the store does. An error comes after the first batch.
func (f *Faulty) Scan(ctx context.Context, since store.Cursor) iter.Seq2[store.Batch, error] {
	t := f.fault(Call{Method: "Scan"})
	return func(yield func(store.Batch, error) bool) {
		b, ok := f.s.(store.Bulk)
		if !ok {
			yield(store.Batch{}, errNoBulk)
			return
		}
		if err := t.before(ctx); err != nil {
			yield(store.Batch{}, err)
			return
		}
		for batch, err := range b.Scan(ctx, since) {
			if !yield(batch, err) || err != nil {
				return
			}
			if t.After != nil || t.HangAfter {
				break
			}
		}
		if err := t.after(ctx, false); err != nil {
			yield(store.Batch{}, err)
		}
	}
}

// Load implements store.Bulk, if the store does.
func (f *Faulty) Load(ctx context.Context, records []*store.Record) error {
	b, ok := f.s.(store.Bulk)
	if !ok {
		return errNoBulk
	}
	return f.call(ctx, Call{Method: "Load"}, func() error { return b.Load(ctx, records) })
}
