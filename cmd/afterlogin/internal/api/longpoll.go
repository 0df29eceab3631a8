package api

import (
	"context"
	"net/http"
	"time"
)

// Limits of lists of events. A list that waits must be answered within what the server gives an answer, 30 s.
const (
	defaultWait   = 20 // seconds
	maxWait       = 25
	defaultEvents = 100
	maxEvents     = 1000
	// together is for how long a list with an event waits for others that happened with it.
	together = 10 * time.Millisecond
)

// EventList is what happened behind a place in the stream.
type EventList struct {
	Data []Event `json:"data"`
	Next string  `json:"next" doc:"Ask with this as after for what comes behind. Empty if no place is known yet, since nothing has happened; what happens until you ask again is then missed."`
	Gap  bool    `json:"gap,omitempty" doc:"Events were missed before or among these: what was derived from earlier ones is out of date."`
}

// listEvents answers with events as a list, as soon as there are any behind the place that is named, or with an empty one
// when the time is up.
func (a *API) listEvents(w http.ResponseWriter, r *http.Request, want following) *Problem {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Vary", "Accept")
	if r.Method == http.MethodHead {
		h.Set("Content-Type", "application/json")
		return nil
	}
	http.NewResponseController(w).SetReadDeadline(time.Time{}) // the server's is for a request, and would end this one
	ctx, cancel := context.WithCancel(r.Context())
	var source source
	defer func() { cancel(); source.pumping.Wait() }()
	list := EventList{Data: []Event{}, Next: want.after}
	if list.Next == "" && a.audit != nil { // a place to begin from, which a quiet store has not
		list.Next = a.audit.Cursor()
	}
	gap, err := source.open(ctx, a.authority, list.Next)
	if err != nil {
		return a.problem(ctx, err)
	}
	lost := list.Next // a place that is gone is not offered again
	miss := func() {
		list.Gap = true
		if len(list.Data) > 0 {
			return
		}
		list.Next = ""
		if a.audit != nil {
			if list.Next = a.audit.Cursor(); list.Next == lost {
				list.Next = ""
			}
		}
	}
	if gap {
		miss()
	}
	timeout := time.NewTimer(max(want.wait, together))
	defer timeout.Stop()
	due := timeout.C
	for waiting := !list.Gap || list.Next == ""; waiting && len(list.Data) < want.limit; {
		select {
		case <-a.streams.end:
			waiting = false
		case <-due:
			waiting = false
		case <-ctx.Done():
			return nil
		case next, ok := <-source.next:
			switch {
			case !ok:
				waiting = false
			case next.err != nil && len(list.Data) == 0 && !list.Gap:
				return a.problem(ctx, next.err)
			case next.err != nil:
				waiting = false
			case next.gap:
				miss()
			default:
				list.Next = next.event.Cursor
				if !want.about(&next.event) {
					continue
				}
				e := newEvent(next.event)
				e.ID = list.Next
				list.Data = append(list.Data, e)
				if len(list.Data) == 1 {
					due = time.After(together)
				}
			}
		}
	}
	// What happened meanwhile may be the end of the key itself.
	look, done := context.WithTimeout(ctx, requestTimeout)
	defer done()
	if _, err := a.authenticate(look, r, EventsRead); err != nil {
		return a.problem(ctx, err)
	}
	h.Set("Content-Type", "application/json")
	if err := writeJSON(w, list); err != nil {
		a.log.DebugContext(ctx, "the client hung up", "request_id", RequestID(ctx), "err", err)
	}
	return nil
}
