package demo

import (
	"sync"
	"time"

	"github.com/afterlogin/afterlogin"
)

// keptEvents is how many events the demo remembers for the thief's timeline.
const keptEvents = 500

// An eventLog keeps the latest events of the authority.
type eventLog struct {
	mu     sync.Mutex
	events []event // the newest last
	last   int
}

// An event is what the thief's timeline is told of an afterlogin.Event.
type event struct {
	Seq     int                  `json:"seq"`
	At      time.Time            `json:"at"`
	Type    string               `json:"type"`
	Session afterlogin.SessionID `json:"session,omitempty"`
	Subject string               `json:"subject,omitempty"`
	Reason  afterlogin.Reason    `json:"reason,omitempty"`
	Detail  string               `json:"detail,omitempty"`
}

func newEventLog() *eventLog { return &eventLog{} }

// add is afterlogin.Config.Observe.
func (l *eventLog) add(e afterlogin.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last++
	if len(l.events) == keptEvents {
		l.events = append(l.events[:0], l.events[1:]...)
	}
	l.events = append(l.events, event{l.last, e.At, e.Type, e.Session, e.Subject, e.Reason, e.Detail})
}

// of returns the events about the session after the one with the number, oldest first, and the number of the newest
// event of all.
func (l *eventLog) of(id afterlogin.SessionID, after int) ([]event, int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []event
	for _, e := range l.events {
		if e.Seq > after && e.Session == id {
			out = append(out, e)
		}
	}
	return out, l.last
}
