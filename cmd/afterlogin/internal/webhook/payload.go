package webhook

import (
	"strconv"
	"strings"

	"github.com/afterlogin/afterlogin"
)

// The names of events of the OpenID Continuous Access Evaluation Profile 1.0, and of ours.
const (
	caep = "https://schemas.openid.net/secevent/caep/event-type/"
	urn  = "urn:afterlogin:event:"
)

// A payload is the body of a request: the claims of a security event token (RFC 8417) with a subject identifier (RFC 9493)
// and, where there is one, an event of CAEP; and the same in plain words. It is the same for every attempt.
type payload struct {
	Issuer  string           `json:"iss,omitempty"`
	Issued  int64            `json:"iat"`
	ID      string           `json:"jti"`
	Subject any              `json:"sub_id"`
	Events  map[string]claim `json:"events"`
	Event   Event            `json:"event"`
}

// A claim is what CAEP says of every event (section 2).
type claim struct {
	At          int64             `json:"event_timestamp"`
	Initiator   string            `json:"initiating_entity,omitempty"`
	ReasonAdmin map[string]string `json:"reason_admin,omitempty"`
	ReasonUser  map[string]string `json:"reason_user,omitempty"`
}

// A simple subject identifier (RFC 9493, 3.2.3 and 3.2.4).
type simple struct {
	Format  string `json:"format"`
	ID      string `json:"id,omitempty"`
	Issuer  string `json:"iss,omitempty"`
	Subject string `json:"sub,omitempty"`
}

// A complex one (Shared Signals Framework 1.0, 3.3).
type complexSubject struct {
	Format  string  `json:"format"`
	Session *simple `json:"session,omitempty"`
	User    *simple `json:"user,omitempty"`
	Tenant  *simple `json:"tenant,omitempty"`
}

func opaque(id string) *simple { return &simple{Format: "opaque", ID: id} }

// subject names what the event is about.
func subject(issuer, webhook string, e *Event) any {
	var user, session *simple
	if e.Subject != "" {
		user = opaque(e.Subject)
		if issuer != "" {
			user = &simple{Format: "iss_sub", Issuer: issuer, Subject: e.Subject}
		}
	}
	if e.Session != "" {
		session = opaque(e.Session)
	}
	switch {
	case session == nil && user == nil:
		return opaque(webhook)
	case session != nil && user == nil && e.Tenant == 0:
		return session
	case session == nil && user != nil && e.Tenant == 0:
		return user
	}
	c := complexSubject{Format: "complex", Session: session, User: user}
	if e.Tenant != 0 {
		c.Tenant = opaque(strconv.FormatUint(uint64(e.Tenant), 10))
	}
	return c
}

// uri names the event. CAEP has no words for "all sessions but one", nor for what is no session: a receiver that knows
// CAEP alone must not end more than was ended.
func uri(e *Event) string {
	switch e.Type {
	case afterlogin.EventRevoked, afterlogin.EventReuse, afterlogin.EventSuperseded:
		return caep + "session-revoked"
	case afterlogin.EventSubject:
		if e.Except == "" {
			return caep + "session-revoked"
		}
	case afterlogin.EventCreated:
		return caep + "session-established"
	}
	return urn + e.Type
}

// initiator is who caused the event, in CAEP's words: admin, user, policy or system.
func initiator(e *Event) string {
	switch afterlogin.Reason(e.Reason) {
	case afterlogin.ReasonReused, afterlogin.ReasonLimit, afterlogin.ReasonInURL, afterlogin.ReasonSuperseded, afterlogin.ReasonUsed:
		return "policy"
	case afterlogin.ReasonRolledBack, afterlogin.ReasonRestored, afterlogin.ReasonUnreadable:
		return "system"
	}
	switch {
	case e.Actor == "self":
		return "user"
	case e.Actor != "":
		return "admin"
	}
	switch afterlogin.Reason(e.Reason) {
	case afterlogin.ReasonSignedOut, afterlogin.ReasonPasswordChanged, afterlogin.ReasonReported:
		return "user"
	case afterlogin.ReasonAdministrator:
		return "admin"
	}
	if e.Type == afterlogin.EventCreated || e.Type == afterlogin.EventStepUp {
		return "user"
	}
	return "system"
}

// body returns the request's body.
func body(issuer, webhook string, i *item) ([]byte, error) {
	e := i.Event
	e.ID = i.ID
	c := claim{At: e.At.Unix(), Initiator: initiator(&e)}
	var why []string
	for _, part := range []string{e.Reason, e.Detail} {
		if part != "" {
			why = append(why, part)
		}
	}
	if len(why) > 0 {
		c.ReasonAdmin = map[string]string{"en": strings.Join(why, ": ")}
	}
	name := uri(&e)
	if name == caep+"session-revoked" {
		refusal := &afterlogin.Refusal{Reason: afterlogin.ReasonRevoked, Cause: afterlogin.Reason(e.Reason)}
		if text := refusal.Message(); text != "" {
			c.ReasonUser = map[string]string{"en": text}
		}
	}
	return encode(payload{
		Issuer: issuer, Issued: e.At.Unix(), ID: i.ID, Subject: subject(issuer, webhook, &e),
		Events: map[string]claim{name: c}, Event: e,
	})
}
