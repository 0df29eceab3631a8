package roster

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/afterlogin/afterlogin"
)

const (
	rescanEvery  = 10 * time.Minute // from the end of one scan to the next
	sweepEvery   = 5 * time.Second  // how often rows are looked for that time may have ended
	retryAfter   = 2 * time.Second  // after trouble with the store
	retryTooMany = time.Hour
	maxSigned    = 50_000 // subjects signed out during one scan
	lookups      = 64     // roots that are looked up together
	parallel     = 8      // reads under way at once
	eventBuffer  = 4096
	maxSkew      = 2 * time.Second // of the clocks of servers and stores that are ready
)

// run keeps the index until Close.
func (r *Roster) run() {
	for r.ctx.Err() == nil {
		wait := retryAfter
		if r.follow() {
			wait = retryTooMany
		}
		r.sleep(wait)
	}
}

// follow makes the index and keeps it up until it has to be begun anew. It reports whether there are too many rows.
func (r *Roster) follow() (tooMany bool) {
	ctx, cancel := context.WithCancel(r.ctx)
	defer cancel()
	events, err := r.authority.Watch(ctx, "")
	if err != nil {
		r.trouble(ctx, "the index of sessions cannot follow what happens", err)
		return false
	}
	var parts sync.WaitGroup
	defer parts.Wait()
	defer cancel()

	heard := make(chan afterlogin.Event, eventBuffer)
	parts.Go(func() {
		defer close(heard)
		for e, err := range events {
			if err != nil {
				r.trouble(ctx, "the index of sessions has missed what happened, and is made anew", err)
				return
			}
			select {
			case heard <- e:
			case <-ctx.Done():
				return
			}
		}
	})
	over := make(chan bool, 1)
	parts.Go(func() { over <- r.scans(ctx) })
	parts.Go(func() { r.sweeps(ctx) })

	for {
		select {
		case e, ok := <-heard:
			if !ok {
				r.missed()
				return false
			}
			r.hear(e, heard)
		case <-r.dirty.wake:
		case tooMany = <-over:
			return tooMany
		case <-ctx.Done():
			return false
		}
		r.lookUp(ctx, len(heard) > 0)
	}
}

func (r *Roster) trouble(ctx context.Context, what string, err error) {
	if ctx.Err() == nil && !errors.Is(err, context.Canceled) {
		r.log.Warn(what, "err", err)
	}
}

// missed notes that the index may be out of date from now on.
func (r *Roster) missed() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ctx.Err() == nil {
		r.openGap()
	}
}

// openGap notes that something will be out of date until it is scanned. The caller holds the lock.
func (r *Roster) openGap() {
	if !r.gap && !r.lagging {
		r.asOf = r.now()
	}
	r.gap = true
	r.gaps++
}

// hear applies an event, and those that wait behind it.
func (r *Roster) hear(e afterlogin.Event, more <-chan afterlogin.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.lagging && !r.gap {
		r.asOf = r.now()
	}
	r.lagging = true
	for n := 0; ; n++ {
		r.apply(&e)
		if n == 256 {
			return
		}
		select {
		case next, ok := <-more:
			if !ok {
				return
			}
			e = next
		default:
			return
		}
	}
}

// apply brings the index up to an event. What the event does not tell in full is looked up later; that an older event
// comes after a newer look does no harm, since the newer event is still to come.
func (r *Roster) apply(e *afterlogin.Event) {
	if e.Tenant != 0 {
		return
	}
	if e.Type == afterlogin.EventSubject {
		r.signedOut(e)
		return
	}
	if e.Session == "" || e.Session != e.Root {
		return // of a request, or of what lives below a root
	}
	id, ok := parseID(e.Session)
	if !ok {
		return
	}
	kind := kindOf(e.Session)
	i := r.table.find(&id)
	if i == noRow {
		r.dirty.add(id, kind)
		return
	}
	row := r.table.at(i)
	row.flags |= touched
	switch e.Type {
	case afterlogin.EventRenewed, afterlogin.EventGrantRenewed:
		if at := stampOf(e.At); at.millis() > row.seen.millis() {
			row.seen = at
		}
		if row.flags&over != 0 { // it seemed to be idle, and was not
			r.dirty.add(id, kind)
		}
	case afterlogin.EventRevoked, afterlogin.EventKeyRevoked, afterlogin.EventGrantRevoked:
		if ended, _, _ := r.table.standing(row, e.At.UnixMilli()); ended {
			r.dirty.add(id, kind) // what had ended before: the store says which of the two counts
		} else {
			r.table.end(row, e.Reason)
		}
	case afterlogin.EventFrozen, afterlogin.EventKeyFrozen, afterlogin.EventGrantFrozen:
		if row.flags&over == 0 {
			row.flags |= frozen
			row.why = r.table.reason(e.Reason)
		}
	case afterlogin.EventThawed, afterlogin.EventKeyThawed, afterlogin.EventGrantThawed:
		if row.flags&over == 0 {
			row.flags &^= frozen
			row.why = 0
		}
	default:
		r.dirty.add(id, kind)
	}
}

// signedOut ends the rows of a subject.
func (r *Roster) signedOut(e *afterlogin.Event) {
	if r.scanning { // which may have read them before, and bring them yet
		if len(r.signed) < maxSigned {
			r.signed[e.Subject] = true
		} else {
			r.openGap()
			r.askForScan()
		}
	}
	place := r.table.names.find(e.Subject)
	if place == noName {
		return
	}
	spared, _ := parseID(e.Except)
	for i := r.table.names.first(place); i != noRow; i = r.table.at(i).next {
		row := r.table.at(i)
		if row.id == spared || afterlogin.Kind(row.kind) == afterlogin.KindAPIKey && !e.Everything {
			continue
		}
		switch ended, _, _ := r.table.standing(row, e.At.UnixMilli()); {
		case ended && r.table.byTime(row), !ended && row.created.millis() > e.At.Add(-maxSkew).UnixMilli():
			// The store says which of the two counts: an end by time or this one; and whether somebody signed in before it, or
			// after it by a clock that is behind.
			row.flags |= touched
			r.dirty.add(row.id, afterlogin.Kind(row.kind))
		case !ended:
			row.flags |= touched
			r.table.end(row, e.Reason)
		}
	}
}

// lookUp reads what is dirty, until nothing is or, if events wait, once.
func (r *Roster) lookUp(ctx context.Context, once bool) {
	for ctx.Err() == nil {
		ids, lost := r.dirty.take(lookups)
		if lost {
			r.mu.Lock()
			r.openGap()
			r.mu.Unlock()
			r.askForScan()
		}
		if len(ids) == 0 {
			break
		}
		if err := r.read(ctx, ids); err != nil {
			r.trouble(ctx, "the index of sessions cannot look something up", err)
			r.sleep(retryAfter)
		}
		if once {
			return // events come first
		}
	}
	r.mu.Lock()
	r.lagging = false
	if r.table.rows > r.max {
		r.askForScan() // which finds that out, and lets go of the index
	}
	if r.table.names.wasteful() {
		r.table.compact()
	}
	r.mu.Unlock()
}

// read looks the roots up and puts what they are now into the index. What could not be read is dirty again.
func (r *Roster) read(ctx context.Context, ids []afterlogin.SessionID) error {
	found, err := r.sessions(ctx, ids)
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, id := range ids {
		root, ok := parseID(id)
		switch s := found[i]; {
		case !ok:
		case s.err != nil:
			r.dirty.add(root, kindOf(id))
		case s.session == nil:
			if at := r.table.find(&root); at != noRow {
				r.table.remove(at)
			}
		default:
			r.table.put(s.session, root).flags |= touched
		}
	}
	return err
}

func kindOf(id afterlogin.SessionID) afterlogin.Kind {
	switch {
	case strings.HasPrefix(string(id), "key_"):
		return afterlogin.KindAPIKey
	case strings.HasPrefix(string(id), "grant_"):
		return afterlogin.KindRefresh
	}
	return afterlogin.KindSession
}

// looked is what came of one read: the session, or nil if there is none.
type looked struct {
	session *afterlogin.Session
	err     error
}

// sessions reads sessions from the store, several at once. The error is that of one of those that failed.
func (r *Roster) sessions(ctx context.Context, ids []afterlogin.SessionID) ([]looked, error) {
	out := make([]looked, len(ids))
	var readers sync.WaitGroup
	for n := range min(parallel, len(ids)) {
		readers.Go(func() {
			for i := n; i < len(ids); i += parallel {
				s, err := r.authority.Session(ctx, ids[i])
				switch {
				case err == nil:
					if s.Tenant == 0 {
						out[i].session = s
					}
				case !errors.Is(err, afterlogin.ErrNoSession):
					out[i].err = err
				}
			}
		})
	}
	readers.Wait()
	for i := range out {
		if out[i].err != nil {
			return out, out[i].err
		}
	}
	return out, nil
}

// sweeps looks up, again and again, what seems to have been idle for too long: a use is no event.
func (r *Roster) sweeps(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			r.sweep()
		case <-ctx.Done():
			return
		}
	}
}

func (r *Roster) sweep() {
	r.mu.RLock()
	defer r.mu.RUnlock()
	now, room := r.now().UnixMilli(), maxDirty/2-r.dirty.len()
	for i := uint32(0); i < r.table.top && room > 0; i++ {
		row := r.table.at(i)
		if row.flags&taken == 0 {
			continue
		}
		if _, perhaps, _ := r.table.standing(row, now); perhaps {
			r.dirty.add(row.id, afterlogin.Kind(row.kind))
			room--
		}
	}
}

func (r *Roster) askForScan() {
	select {
	case r.rescan <- struct{}{}:
	default:
	}
}

func (r *Roster) sleep(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-r.ctx.Done():
	}
}
