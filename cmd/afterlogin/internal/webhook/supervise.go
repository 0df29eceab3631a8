package webhook

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/afterlogin/afterlogin"
)

// supervise looks at the list every two seconds, and when something here changes it, takes what nobody delivers to, and
// waits for its couriers in the end.
func (w *Webhooks) supervise() {
	t := time.NewTicker(pollEvery)
	defer t.Stop()
	for {
		if err := w.look(w.ctx); err != nil && w.ctx.Err() == nil {
			w.log.Warn("webhooks cannot be listed", "err", err)
		}
		select {
		case <-t.C:
		case <-w.wake:
		case <-w.ctx.Done():
			return
		}
	}
}

// look reads the list and acts on it.
func (w *Webhooks) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	fs, _, err := w.all(ctx)
	if err != nil {
		return err
	}
	stats := make([]WebhookStats, 0, len(fs))
	for _, f := range fs {
		s := &f.State
		stats = append(stats, WebhookStats{
			ID: f.ID, Disabled: f.Disabled, Waiting: s.waiting(), Oldest: fromMillis(s.Oldest), DeadLetters: s.dead(), Failures: s.Failures,
		})
	}
	w.mu.Lock()
	w.last = stats
	here := make(map[string]*courier, len(w.couriers))
	for id, c := range w.couriers {
		here[id] = c
	}
	w.mu.Unlock()
	for _, f := range fs {
		if c := here[f.ID]; c != nil {
			delete(here, f.ID)
			c.see(f.entry.Version)
			continue
		}
		if f.Disabled || w.held(f) {
			continue
		}
		if err := w.take(ctx, f); err != nil {
			return err
		}
	}
	for _, c := range here { // removed
		c.see(0)
	}
	for id := range w.still {
		if !slices.ContainsFunc(fs, func(f found) bool { return f.ID == id }) {
			delete(w.still, id)
		}
	}
	return nil
}

// A stillness is since when an entry has had a version, by this server's clock.
type stillness struct {
	version uint64
	since   time.Time
}

// held reports whether another server has the lease. That of one whose clock is ahead is over when it was not renewed for
// two leases' time, whatever it says.
func (w *Webhooks) held(f found) bool {
	now := w.now()
	s := w.still[f.ID]
	if s.version != f.entry.Version {
		s = stillness{f.entry.Version, now}
		w.still[f.ID] = s
	}
	return f.State.Holder != "" && now.UnixMilli() < f.State.Until && now.Sub(s.since) < 2*leaseTime
}

// take makes this server the one that delivers to the webhook, unless another one is faster.
func (w *Webhooks) take(ctx context.Context, f found) error {
	began := w.now()
	r := f.record
	r.State.Holder, r.State.Term, r.State.Until = w.holder, r.State.Term+1, began.Add(leaseTime).UnixMilli()
	b, err := r.encode()
	if err != nil {
		return err
	}
	e, err := w.authority.SaveEntry(ctx, f.entry, b)
	if errors.Is(err, afterlogin.ErrEntryChanged) {
		return nil
	}
	if err != nil {
		return err
	}
	c := newCourier(w, e, r, began.Add(leaseTime))
	w.mu.Lock()
	w.couriers[c.id] = c
	w.mu.Unlock()
	w.running.Go(func() {
		c.run(w.ctx)
		w.mu.Lock()
		delete(w.couriers, c.id)
		w.mu.Unlock()
	})
	return nil
}
