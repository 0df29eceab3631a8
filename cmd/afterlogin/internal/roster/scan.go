package roster

import (
	"context"
	"time"

	"github.com/afterlogin/afterlogin"
)

// scans looks through the whole store, again and again. It reports, and ends, when there are too many rows.
func (r *Roster) scans(ctx context.Context) (tooMany bool) {
	for ctx.Err() == nil {
		done, tooMany := r.scan(ctx)
		if tooMany {
			return true
		}
		wait := rescanEvery
		if !done {
			wait = retryAfter
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-r.rescan:
			timer.Stop()
		case <-ctx.Done():
			timer.Stop()
		}
	}
	return false
}

// Pacing of a scan: after each part it rests for as many times as long as the part took.
const (
	scanPart    = 512
	restFirst   = 1  // somebody waits for the index
	restRefresh = 15 // it is there, and only last uses are to be brought up to date
)

// scan looks through the store once. Rows that an event has changed since the scan began stay as they are: what the scan
// brings may have been read before. It reports whether it came to the end.
func (r *Roster) scan(ctx context.Context) (done, tooMany bool) {
	begun := r.now()
	r.mu.Lock()
	first := r.state != Ready || r.gap
	r.expected, r.scanned, r.scanning, r.signed = r.table.rows, 0, true, make(map[string]bool)
	gaps := r.gaps
	for i := range r.table.top {
		r.table.at(i).flags &^= visited | touched
	}
	r.mu.Unlock()

	rest := restRefresh
	if first {
		rest = restFirst
	}
	part := make([]*afterlogin.Session, 0, scanPart)
	failed := false
	started := time.Now()
	for s, err := range r.authority.Sessions(ctx, afterlogin.Query{Ended: true}) {
		if err != nil {
			r.trouble(ctx, "the index of sessions could not be made, and is tried again", err)
			failed = true
			break
		}
		if part = append(part, s); len(part) < scanPart {
			continue
		}
		if tooMany = r.bring(part); tooMany {
			break
		}
		part = part[:0]
		r.pause(ctx, time.Since(started)*time.Duration(rest))
		started = time.Now()
	}
	if !failed && !tooMany {
		tooMany = r.bring(part)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.scanning = false
	if tooMany {
		r.log.Warn("there are more sessions than the index may hold: searches go through the store", "max", r.max)
		r.state, r.table, r.signed = TooMany, newTable(), nil
		return false, true
	}
	r.lookAtSigned()
	if failed || ctx.Err() != nil {
		return false, false
	}
	for i := range r.table.top {
		if row := r.table.at(i); row.flags&taken != 0 && row.flags&(visited|touched) == 0 {
			r.table.remove(i)
		}
	}
	if r.state != Ready {
		r.log.Info("the index of sessions is made", "rows", r.table.rows, "bytes", r.table.bytes(), "took", r.now().Sub(begun).Round(time.Millisecond))
	}
	if r.gaps == gaps { // what came later waits for the next scan
		r.gap = false
	}
	r.state, r.usesAsOf = Ready, begun
	return true, false
}

// lookAtSigned has the rows of everybody looked up who was signed out during the scan: it may have brought them as they were
// before.
func (r *Roster) lookAtSigned() {
	for subject := range r.signed {
		if place := r.table.names.find(subject); place != noName {
			for i := r.table.names.first(place); i != noRow; i = r.table.at(i).next {
				row := r.table.at(i)
				r.dirty.add(row.id, afterlogin.Kind(row.kind))
				r.lagging = true
			}
		}
	}
	r.signed = nil
}

// bring puts what a scan has found into the index. It reports whether there are too many rows.
func (r *Roster) bring(part []*afterlogin.Session) (tooMany bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.scanned += len(part)
	for _, s := range part {
		id, ok := parseID(s.ID)
		if !ok {
			continue
		}
		if i := r.table.find(&id); i != noRow && r.table.at(i).flags&touched != 0 {
			r.table.at(i).flags |= visited
			if at := stampOf(s.LastSeen); at.millis() > r.table.at(i).seen.millis() {
				r.table.at(i).seen = at
			}
			continue
		}
		r.table.put(s, id).flags |= visited
	}
	return r.table.rows > r.max
}

// pause rests, in pieces that are long enough to be worth a timer.
func (r *Roster) pause(ctx context.Context, d time.Duration) {
	if d < 100*time.Microsecond {
		return
	}
	t := time.NewTimer(min(d, time.Second))
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
