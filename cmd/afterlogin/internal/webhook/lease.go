package webhook

import (
	"context"
	"errors"

	"github.com/afterlogin/afterlogin"
)

// state brings into the record what is to be saved.
func (c *courier) state() {
	s := &c.r.State
	s.Cursor, s.LastAt = c.done, c.doneAt
	// What is pending will be read once more, and named once more.
	named := c.naming.seen
	for _, i := range c.pending {
		if i.named && len(named) > 0 {
			named = named[:len(named)-1]
		}
	}
	s.Twins = append([]twin(nil), named[max(0, len(named)-maxTwins):]...)
	if s.waiting() == 0 {
		s.Oldest = 0
	} else if c.front != nil {
		s.Oldest = c.front.At
	}
}

// save writes the record if it is time to, which renews the lease, too. While the store does not answer it is tried again
// later. It fails with errLost if the lease is lost.
func (c *courier) save(ctx context.Context, now bool) error {
	t := c.w.now()
	due := now || c.saveNow || c.dirty >= saveAfter || c.dirty > 0 && t.Sub(c.dirtyAt) >= saveEvery || !t.Before(c.renewAt)
	if !t.Before(c.until) {
		return errLost
	}
	if !due || t.Before(c.saveAt) && !now {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	for range 10 {
		c.state()
		began := c.w.now()
		if c.r.State.Holder != "" {
			c.r.State.Until = began.Add(leaseTime).UnixMilli()
		}
		b, err := c.r.encode()
		if err != nil {
			c.log.Error("the webhook's state cannot be written", "err", err)
			return errLost
		}
		write := c.w.authority.SaveEntry
		if c.loud {
			write = c.w.authority.ChangeEntry
		}
		e, err := write(ctx, c.entry, b)
		switch {
		case err == nil:
			c.entry = e
			c.seen.Store(e.Version)
			c.until = began.Add(leaseTime)
			c.renewAt = began.Add(renewEvery)
			c.dirty, c.saveNow, c.moved, c.loud = 0, false, false, false
			return nil
		case errors.Is(err, afterlogin.ErrEntryChanged):
			if err := c.refresh(ctx); err != nil {
				return err
			}
			continue
		case c.w.ctx.Err() == nil:
			c.log.Warn("how far the delivery is cannot be saved", "err", err)
		}
		break
	}
	c.saveNow = true
	c.saveAt = c.w.now().Add(storePause)
	return nil
}

// refresh takes over what others have changed in the entry. It fails with errLost if this server is not the one any more
// that delivers.
func (c *courier) refresh(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	f, err := c.w.read(ctx, c.id)
	if errors.Is(err, ErrNoWebhook) {
		return errLost
	}
	if err != nil {
		if !errors.Is(err, afterlogin.ErrUnavailable) && ctx.Err() == nil {
			c.log.Error("the webhook cannot be read", "err", err)
			return errLost
		}
		c.saveAt = c.w.now().Add(storePause)
		return nil
	}
	mine := &c.r.State
	if f.State.Holder != c.w.holder || f.State.Term != mine.Term {
		return errLost
	}
	if f.Kick != c.r.Kick {
		mine.NextTry, c.silent = 0, 0
	} else if c.r.Disabled && c.r.Why != "" { // by us, and not saved yet
		f.Disabled, f.Why, f.Changed = true, c.r.Why, c.r.Changed
	}
	f.record.State = *mine
	c.entry, c.r = f.entry, f.record
	c.seen.Store(f.entry.Version)
	c.forget()
	return nil
}

// forget drops the requests that are done.
func (c *courier) forget() {
	for len(c.r.Requests) > 0 && c.r.Requests[0].N <= c.r.State.Redone {
		c.r.Requests = c.r.Requests[1:]
	}
}

// handOver saves how far the delivery is, and gives the lease back.
func (c *courier) handOver() {
	c.r.State.Holder, c.r.State.Until = "", 0
	holder := c.w.holder
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.w.ctx), handOver)
	defer cancel()
	for range 10 {
		c.state()
		b, err := c.r.encode()
		if err != nil {
			return
		}
		write := c.w.authority.SaveEntry
		if c.loud {
			write = c.w.authority.ChangeEntry
		}
		_, err = write(ctx, c.entry, b)
		if errors.Is(err, afterlogin.ErrEntryChanged) {
			c.r.State.Holder = holder
			if c.refresh(ctx) != nil {
				return
			}
			c.r.State.Holder, c.r.State.Until = "", 0
			continue
		}
		if err != nil {
			c.log.Warn("how far the delivery is cannot be saved; the next server begins a little before", "err", err)
		}
		return
	}
}
