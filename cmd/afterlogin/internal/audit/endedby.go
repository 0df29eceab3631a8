package audit

import (
	"context"
	"strings"
	"time"

	"github.com/afterlogin/afterlogin"
)

// endedWithin is by how much an event's time may differ from the time that stands in a session's record, since servers'
// clocks do.
const endedWithin = 10 * time.Second

// EndedBy returns who ended a session, grant or API key that is over, as far as the log knows: the actor of the event that
// ended it, what it lives under, or all that its subject has. It is "" if the log does not know, or would take long to tell.
func (l *Log) EndedBy(ctx context.Context, s *afterlogin.Session) string {
	if s.Ended.IsZero() {
		return ""
	}
	at := Query{Since: s.Ended.Add(-endedWithin), Until: s.Ended.Add(endedWithin), Limit: MaxPage}
	for _, id := range []afterlogin.SessionID{s.ID, s.Root} {
		if id == "" {
			continue
		}
		q := at
		q.Session = string(id)
		if e, ok := l.lastEnding(ctx, q, func(e Entry) bool {
			return e.Session == string(id) && !strings.HasPrefix(e.Type, "api.") && (strings.HasSuffix(e.Type, ".revoked") || strings.HasSuffix(e.Type, ".reuse_detected"))
		}); ok {
			return e.Actor
		}
	}
	if s.Subject == "" {
		return ""
	}
	q := at
	q.Subject, q.Type = s.Subject, afterlogin.EventSubject
	e, _ := l.lastEnding(ctx, q, func(e Entry) bool { return e.Tenant == s.Tenant && e.Except != string(s.ID) })
	return e.Actor
}

// lastEnding returns the newest entry that the query names and is meant, looking through a few pages at most.
func (l *Log) lastEnding(ctx context.Context, q Query, meant func(Entry) bool) (Entry, bool) {
	for range 4 {
		page, err := l.List(ctx, q)
		if err != nil {
			return Entry{}, false
		}
		for _, e := range page.Entries {
			if meant(e) {
				return e, true
			}
		}
		if q.Cursor = page.Next; q.Cursor == "" {
			break
		}
	}
	return Entry{}, false
}
