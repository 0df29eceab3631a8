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
	EventFrozen     = "session.frozen" // put on hold, and taken off
	EventThawed     = "session.thawed"
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
	EventKeyFrozen  = "api_key.frozen"
	EventKeyThawed  = "api_key.thawed"

	EventGrantCreated = "grant.created"
	EventGrantRenewed = "grant.renewed"
	EventGrantRevoked = "grant.revoked"
	EventGrantReuse   = "grant.reuse_detected"
	EventGrantFrozen  = "grant.frozen"
	EventGrantThawed  = "grant.thawed"

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
	EventEntryCreated  = "entry.created" // a named record; the detail names its realm and it
	EventEntryChanged  = "entry.changed"
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
	Actor   string // who caused it, as WithActor was told; "" if that is not known
	// Of a subject.signed_out: Except is the session that was spared, if any, and Everything says that API keys ended, too.
	Except     SessionID
	Everything bool
	// Reported says that the event was only passed to Report: no stream has it.
	Reported bool
}

// What the detail of a subject.signed_out says. Stores keep the text; newEvent reads it.
const (
	detailAll        = "all sessions"
	detailOthers     = "all sessions but "
	detailEverything = "all sessions and API keys"
)

func newEvent(e store.Event) Event {
	out := Event{
		Cursor: string(e.Cursor), At: fromMillis(e.At), Type: e.Type,
		Tenant: e.Tenant, Subject: e.Subject, Reason: Reason(e.Reason), Detail: e.Detail,
	}
	rootKind := KindSession
	out.Detail, out.Actor, _ = strings.Cut(e.Detail, actorMark)
	if typ, letter, ok := strings.Cut(e.Type, "@"); ok && letter != "" {
		out.Type, rootKind = typ, Kind(letter[0])
	}
	switch {
	case e.ID.IsChild():
		out.Session, out.Root = newSessionID(eventKind(out.Type), e.ID), newSessionID(rootKind, e.ID.Root())
	case e.ID.IsRoot():
		out.Session = newSessionID(rootKind, e.ID)
		out.Root = out.Session
	}
	if out.Type == EventSubject {
		out.Everything = out.Detail == detailEverything
		if id, ok := strings.CutPrefix(out.Detail, detailOthers); ok {
			out.Except = SessionID(id)
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
	return KindSession
}

// eventType is what a store keeps as the type of an event below the root: with @ and the kind of the root behind it, if
// that is no session, since an id alone does not say of which kind it is.
func eventType(typ string, root *store.Record) string {
	if Kind(root.Kind) == KindSession {
		return typ
	}
	return typ + "@" + string(rune(root.Kind))
}

// eventSubject is the subject that an event below the root is about: nobody, if that is a client.
func eventSubject(root *store.Record) string {
	if impersonal(Kind(root.Kind)) {
		return ""
	}
	return root.Subject
}

// Report passes an event about a request to the configured observer, without keeping it: it is for what a stranger can
// cause as often as he likes, such as two cookies in one request.
func (a *Authority) Report(e Event) {
	if e.At.IsZero() {
		e.At = a.now()
	}
	e.Reported = true
	a.counts.event(e.Type, e.Reason, e.Detail)
	if a.observe != nil {
		a.observe(e)
	}
}

// observed reports the events among the operations that a store has just made durable.
func (a *Authority) observed(ops []store.Op) {
	a.counts.applied(ops)
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
