package webhook

import (
	"context"
	"time"

	"github.com/afterlogin/afterlogin"
)

// tidyEvery is how often dead letters that are over are looked for.
const tidyEvery = time.Hour

// bury makes a dead letter of what is at the outbox's head, and reports whether it did.
func (c *courier) bury(ctx context.Context, i *item, o outcome) bool {
	s := &c.r.State
	letter := *i
	letter.Died, letter.Tries, letter.Status, letter.Error = c.w.now().UnixMilli(), s.Tries, o.status, clean(o.err, maxError)
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	if err := c.put(ctx, RealmDead, s.DeadTo, &letter); err != nil {
		if ctx.Err() == nil {
			c.log.Warn("a dead letter cannot be written", "err", err)
		}
		c.loadAt = c.w.now().Add(storePause) // it is tried once more, and then
		return false
	}
	if s.DeadFrom == s.DeadTo {
		s.DeadAgain = 0
	}
	s.DeadTo++
	c.w.count(resultDead)
	c.log.Warn("an event is given up", "event", i.ID, "type", i.Event.Type, "attempts", letter.Tries, "reason", letter.Error)
	if o.status == 0 {
		if c.silent++; c.silent == maxSilent+unheard {
			c.silent = maxSilent - 1
		}
	}
	next := s.NextTry
	c.advance()
	if s.Failures > 0 && o.status/100 != 4 {
		// The receiver is away, for the next event, too. But there may be many that are to be tried once.
		s.NextTry = min(next, c.w.now().Add(firstPause).UnixMilli())
	}
	c.saveNow = true
	return true
}

// again puts dead letters that were asked for into the outbox.
func (c *courier) again(ctx context.Context) {
	const most = 64
	c.forget()
	if len(c.r.Requests) == 0 || c.r.State.full() || c.w.now().Before(c.loadAt) || c.w.now().Before(c.saveAt) {
		return
	}
	s := &c.r.State
	q := c.r.Requests[0]
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	var items []*item
	var from []*afterlogin.Entry
	var letters []*item
	n := max(q.From, s.RedoneTo, s.DeadFrom)
	for looked := 0; n < q.To && looked < most; n, looked = n+1, looked+1 {
		e, letter, err := c.w.load(ctx, RealmDead, c.id, n)
		if err != nil {
			c.loadAt = c.w.now().Add(storePause)
			return
		}
		if letter == nil || letter.Again != 0 {
			continue
		}
		from, letters = append(from, e), append(letters, letter)
		items = append(items, &item{ID: letter.ID, At: c.w.now().UnixMilli(), Event: letter.Event})
	}
	if len(items) > 0 && (!c.parkPending(ctx) || !c.park(ctx, items)) {
		return
	}
	s.DeadAgain += uint64(len(items))
	s.RedoneTo = n
	if n >= q.To {
		if q.From <= s.DeadFrom && q.To >= s.DeadTo {
			s.DeadFrom, s.DeadAgain = s.DeadTo, 0
		}
		s.Redone, s.RedoneTo = q.N, 0
	}
	c.saveNow, c.onceMore = true, true
	// If this is where it ends, they are still listed, and can be sent once more: the receiver knows them by their ids.
	for k, letter := range letters {
		c.w.count(resultAgain)
		letter.Again = c.w.now().UnixMilli()
		if b, err := letter.encode(); err == nil {
			c.w.authority.ChangeEntry(ctx, from[k], b)
		}
	}
}

// tidy forgets, once an hour, dead letters that are gone or were sent again.
func (c *courier) tidy(ctx context.Context) {
	s := &c.r.State
	now := c.w.now()
	if now.Before(c.tidyAt) || s.DeadFrom == s.DeadTo {
		return
	}
	c.tidyAt = now.Add(tidyEvery)
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	for range 64 {
		if s.DeadFrom == s.DeadTo {
			s.DeadAgain = 0
			return
		}
		_, letter, err := c.w.load(ctx, RealmDead, c.id, s.DeadFrom)
		if err != nil || letter != nil && letter.Again == 0 {
			return
		}
		s.DeadFrom++
		if letter != nil && s.DeadAgain > 0 {
			s.DeadAgain--
		}
		c.saveNow = true
	}
	c.tidyAt, c.onceMore = now, true
}

// A DeadLetter is an event that was given up.
type DeadLetter struct {
	Number uint64 // names it for Redeliver
	ID     string // the event's
	Event  Event
	Came   time.Time
	Died   time.Time
	Tries  int
	Status int // of the last answer; 0: there was none
	Error  string
	Again  time.Time // when it was sent again; zero: it was not
}

// DeadLetters returns dead letters of the last 30 days in the order in which they died, at most limit of those behind the
// number after; next is the number to go on behind, 0 on the last page. Numbers begin with 1. Errors: ErrNoWebhook,
// afterlogin.ErrUnavailable.
func (w *Webhooks) DeadLetters(ctx context.Context, id string, after uint64, limit int) (out []DeadLetter, next uint64, err error) {
	f, err := w.read(ctx, id)
	if err != nil {
		return nil, 0, err
	}
	out = []DeadLetter{}
	s := &f.State
	n := max(after, s.DeadFrom)
	for looked := 0; n < s.DeadTo && len(out) < limit && looked < 1000; n, looked = n+1, looked+1 {
		_, i, err := w.load(ctx, RealmDead, id, n)
		if err != nil {
			return nil, 0, err
		}
		if i == nil {
			continue
		}
		e := i.Event
		e.ID = i.ID
		out = append(out, DeadLetter{
			Number: n + 1, ID: i.ID, Event: e, Came: fromMillis(i.At), Died: fromMillis(i.Died), Tries: i.Tries, Status: i.Status, Error: i.Error,
			Again: fromMillis(i.Again),
		})
	}
	if n < s.DeadTo {
		next = n
	}
	return out, next, nil
}

// Redeliver has dead letters sent again, behind what is waiting: those of the numbers, or all that were not. It returns how
// many were asked for. The server that delivers does it within seconds; while the webhook is disabled, it waits. Who asks
// for one that was sent again already asks for nothing. It is durable when it returns nil. Errors: a *FieldError,
// ErrNoWebhook, ErrBusy, ErrChanged, afterlogin.ErrUnavailable.
func (w *Webhooks) Redeliver(ctx context.Context, id string, all bool, numbers []uint64) (n uint64, err error) {
	_, err = w.change(ctx, id, false, func(r *record) error {
		s := &r.State
		n = 0
		for len(r.Requests) > 0 && r.Requests[0].N <= s.Redone {
			r.Requests = r.Requests[1:]
		}
		ask := func(from, to uint64) error {
			if len(r.Requests) >= maxRequests {
				return ErrBusy
			}
			r.Asked++
			r.Requests = append(r.Requests, again{r.Asked, from, to})
			return nil
		}
		if all {
			if s.DeadFrom == s.DeadTo {
				return nil
			}
			n = s.dead()
			return ask(s.DeadFrom, s.DeadTo)
		}
		for _, number := range numbers {
			if number == 0 || number-1 < s.DeadFrom || number-1 >= s.DeadTo {
				return bad("numbers", "there is no dead letter %d", number)
			}
			if err := ask(number-1, number); err != nil {
				return err
			}
			n++
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return n, nil
}
