package webhook

import (
	"context"
	"errors"
	"math/bits"
	"strconv"
	"sync"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/internal/seal"
)

// writers is how many items are written at a time.
const writers = 8

// errSuperseded means that a later holder of the lease has been there.
var errSuperseded = errors.New("another server has written there")

// The name of an item is its webhook and its number. There can be more than one of a name, of different days, if servers
// fell over each other: the one of the highest term is meant, and of those the last.
func itemName(webhook string, n uint64) string { return webhook + "/" + strconv.FormatUint(n, 10) }

// load reads an item; nil if there is none (any more), or one that does not open for good.
func (w *Webhooks) load(ctx context.Context, realm, webhook string, n uint64) (*afterlogin.Entry, *item, error) {
	within := outboxTime
	if realm == RealmDead {
		within = DeadTime
	}
	es, err := w.authority.TemporaryEntries(ctx, 0, realm, itemName(webhook, n), within+24*time.Hour)
	if errors.Is(err, seal.ErrBroken) {
		w.log.Error("an event that waits does not open", "webhook", webhook, "number", n, "err", err)
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	var best *item
	var from *afterlogin.Entry
	for _, e := range es {
		i, err := decodeItem(e.Detail)
		if err != nil {
			w.log.Error("an event that waits cannot be read", "webhook", webhook, "number", n, "err", err)
			continue
		}
		if best == nil || i.Term >= best.Term {
			best, from = i, e
		}
	}
	return from, best, nil
}

// put writes an item under a number that is not in use yet: what stands there was left by somebody who did not get as far
// as saying so. It is written over, always, so that whoever else has read it before cannot write over it afterwards.
func (c *courier) put(ctx context.Context, realm string, n uint64, i *item) error {
	copied := *i
	copied.Term = c.r.State.Term
	b, err := copied.encode()
	if err != nil {
		return err
	}
	within := outboxTime
	if realm == RealmDead {
		within = DeadTime
	}
	q := afterlogin.EntryRequest{Realm: realm, Name: itemName(c.id, n), Detail: b, Until: c.w.now().Add(within)}
	for range 10 {
		_, err = c.w.authority.AddEntry(ctx, q)
		if !errors.Is(err, afterlogin.ErrEntryExists) {
			return err
		}
		e, old, lerr := c.w.load(ctx, realm, c.id, n)
		if lerr != nil {
			return lerr
		}
		if e == nil { // what stands there does not open: the next day has another place
			q.Until = c.w.now().Add(within + 24*time.Hour)
			continue
		}
		if old.Term > copied.Term {
			return errSuperseded
		}
		// Read first, then see that the lease is still there, then write what was read: one who has the lease by now has
		// written, or will.
		if f, err := c.w.read(ctx, c.id); err != nil || f.State.Holder != c.w.holder || f.State.Term != copied.Term {
			return errSuperseded
		}
		if _, err = c.w.authority.ChangeEntry(ctx, e, b); !errors.Is(err, afterlogin.ErrEntryChanged) {
			return err
		}
	}
	return ErrChanged
}

// putAll writes items under the numbers from n on.
func (c *courier) putAll(ctx context.Context, n uint64, items []*item) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	var wg sync.WaitGroup
	errs := make([]error, len(items))
	for first := range min(writers, len(items)) {
		wg.Go(func() {
			for k := first; k < len(items); k += writers {
				if errs[k] = c.put(ctx, RealmOutbox, n+uint64(k), items[k]); errs[k] != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// park puts items at the outbox's end.
func (c *courier) park(ctx context.Context, items []*item) bool {
	s := &c.r.State
	if err := c.putAll(ctx, s.Tail, items); err != nil {
		if ctx.Err() == nil {
			c.log.Warn("events cannot be kept for later", "err", err)
		}
		c.saveAt = c.w.now().Add(storePause)
		return false
	}
	if s.waiting() == 0 {
		c.front = items[0]
	}
	s.Tail += uint64(len(items))
	c.saveNow = true
	return true
}

// parkPending parks what is pending. What is under way is in front there, too, afterwards.
func (c *courier) parkPending(ctx context.Context) bool {
	if len(c.pending) == 0 {
		return true
	}
	if !c.park(ctx, c.pending) {
		return false
	}
	c.pending = nil
	c.done, c.doneAt = c.read, c.readAt
	return true
}

// miss puts in line, behind what is pending, that events were missed. The stream is being read again already, so that
// whoever looks around after hearing of it misses nothing that comes later.
func (c *courier) miss() {
	s := &c.r.State
	s.Gaps++
	now := c.w.now()
	e := Event{Type: EventMissed, At: now.UTC().Truncate(time.Millisecond), Detail: "events were dropped before they could be sent: look at what you need to know"}
	if c.readAt != 0 {
		since := fromMillis(c.readAt)
		e.Since = &since
	}
	c.log.Warn("events were missed; the receiver is told")
	if n := len(c.pending); n == 0 || c.pending[n-1].Event.Type != EventMissed || c.pending[n-1] == c.flying {
		c.w.count(resultMissed)
		c.pending = append(c.pending, &item{ID: c.naming.missed(c.id, "stream", s.Gaps), At: now.UnixMilli(), Event: e})
	}
	// Until an event comes there is no cursor. This change of the webhook is one.
	c.read, c.saveNow, c.loud = "", true, true
}

// behind returns one behind the outbox's head that was not taken yet, and how far; nil if there is none that can be read
// now. With each further fault of the head it is another one, since those next to it may be such, too.
func (c *courier) behind(ctx context.Context) (uint64, *item) {
	s := &c.r.State
	most := min(int(s.waiting()), 64) - 1
	from := max(1, bits.Len64(s.Taken)) + s.Faults - maxFaults // not before one that was taken, if there are others
	for k := range max(0, most) {
		n := 1 + uint64((from+k-1)%most)
		if s.Taken>>n&1 != 0 {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, storeTimeout)
		defer cancel()
		_, i, err := c.w.load(ctx, RealmOutbox, c.id, s.Head+n)
		if err != nil && c.w.ctx.Err() == nil {
			c.log.Warn("events that wait cannot be read", "err", err)
		}
		return n, i
	}
	return 0, nil
}

// head returns what is at the outbox's head, nil if it cannot be read now.
func (c *courier) head(ctx context.Context) *item {
	s := &c.r.State
	if c.front != nil {
		return c.front
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	from := s.Head
	for s.waiting() > 0 {
		_, i, err := c.w.load(ctx, RealmOutbox, c.id, s.Head)
		if err != nil {
			if c.w.ctx.Err() == nil {
				c.log.Warn("events that wait cannot be read", "err", err)
			}
			s.Head = from
			c.loadAt = c.w.now().Add(storePause)
			return nil
		}
		if i != nil && s.Head == from {
			c.front = i
			return i
		}
		if i != nil || s.Tail-s.Head == 1 || s.Head-from == 1000 {
			if i == nil {
				s.Head++
			}
			break
		}
		s.Head++
	}
	// They lay there for too long, or do not open. The receiver is told in their place.
	n := s.Head - from
	s.Passed = false
	now := c.w.now()
	e := Event{Type: EventMissed, At: now.UTC().Truncate(time.Millisecond), Missed: n, Detail: "events that waited are gone: look at what you need to know"}
	i := &item{ID: c.naming.missed(c.id, "outbox", s.Head), At: now.UnixMilli(), Event: e}
	if err := c.put(ctx, RealmOutbox, s.Head-1, i); err != nil {
		s.Head = from
		c.loadAt = c.w.now().Add(storePause)
		return nil
	}
	s.Head--
	s.Taken >>= s.Head - from
	c.log.Warn("events that waited are gone; the receiver is told", "events", n)
	c.w.count(resultMissed)
	c.front, c.saveNow = i, true
	return i
}
