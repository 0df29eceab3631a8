package afterlogin

import (
	"strings"
	"time"

	"github.com/afterlogin/afterlogin/store"
)

// The types of events.
const (
	EventCreated    = "session.created"
	EventRenewed    = "session.renewed"
	EventStepUp     = "session.stepped_up"
	EventRevoked    = "session.revoked"
	EventSuperseded = "session.superseded"      // replaced by a sign-in in the same browser
	EventReuse      = "session.reuse_detected"  // an out-of-date token was used
	EventRolledBack = "store.rolled_back"       // a token newer than the store was used
	EventSubject    = "subject.signed_out"      // every session of a subject, or every other, was ended
	EventDuplicate  = "request.duplicate_token" // two session cookies in one request
	EventInURL      = "request.token_in_url"    // a token stood in a URL

	EventKeyCreated = "api_key.created"
	EventKeyRevoked = "api_key.revoked"
	EventKeyReuse   = "api_key.reuse_detected"
	EventKeyRotated = "api_key.rotated"

	EventGrantCreated = "grant.created"
	EventGrantRenewed = "grant.renewed"
	EventGrantRevoked = "grant.revoked"
	EventGrantReuse   = "grant.reuse_detected"

	EventAccessCreated = "access_token.created"
	EventAccessRevoked = "access_token.revoked"
	EventCodeCreated   = "authorization_code.created"
	EventCodeRedeemed  = "authorization_code.redeemed"
	EventCodeReplayed  = "authorization_code.replayed" // a code was used again: what it was redeemed for has been ended
	EventTicketCreated = "ticket.created"
	EventTicketUsed    = "ticket.used"
	EventClientCreated = "client.created"
	EventClientChanged = "client.changed"
	EventClientRevoked = "client.revoked"
)

// An Event tells what happened to a session. It holds no secret.
type Event struct {
	// Cursor is the event's place in the stream: give it to Watch to go on behind it. Empty on events that are only
	// observed, not kept.
	Cursor  string
	At      time.Time
	Type    string
	Session SessionID // empty if the event is about a subject or a request
	Root    SessionID // what Session lives under; Session itself if that is a root
	Tenant  uint32
	Subject string
	Reason  Reason
	Detail  string // in plain words
}

func newEvent(e store.Event) Event {
	out := Event{
		Cursor: string(e.Cursor), At: fromMillis(e.At), Type: e.Type,
		Tenant: e.Tenant, Subject: e.Subject, Reason: Reason(e.Reason), Detail: e.Detail,
	}
	if !e.ID.IsZero() && !e.ID.IsSubject() {
		out.Session = newSessionID(eventKind(e.Type), e.ID)
		if out.Root = out.Session; e.ID.IsChild() {
			out.Root = newSessionID(KindSession, e.ID.Root())
		}
	}
	return out
}

// eventKind returns the kind that events of the type are about.
func eventKind(typ string) Kind {
	for k, w := range kinds {
		if strings.HasPrefix(typ, w.event) {
			return k
		}
	}
	return KindSession // store.rolled_back, of whatever was presented
}

// Report passes an event about a request to the configured observer, without keeping it: it is for what a stranger can
// cause as often as he likes, such as two cookies in one request.
func (a *Authority) Report(e Event) {
	if e.At.IsZero() {
		e.At = a.now()
	}
	if a.observe != nil {
		a.observe(e)
	}
}

// observed reports the events among the operations that a store has just made durable.
func (a *Authority) observed(ops []store.Op) {
	if a.observe == nil {
		return
	}
	for i := range ops {
		if ops[i].Kind == store.OpEvent {
			a.observe(newEvent(ops[i].Event))
		}
	}
}

func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func fromMillis(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}
