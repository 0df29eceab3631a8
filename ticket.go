package afterlogin

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"strings"
	"time"

	"github.com/afterlogin/afterlogin/store"
)

// TicketRequest says what ticket to make.
type TicketRequest struct {
	// Target is where the ticket is good, and nowhere else: a path ("/downloads/7"), or host and path
	// ("https://b.example/start"). Redeem names the same text. 1 to 2048 bytes.
	Target string
	// Nonce binds the ticket to the browser that asked for it: what that keeps in a cookie on the target's host. Empty:
	// whoever holds the ticket. For a hand-over between hosts it is what keeps others from handing their session to
	// somebody.
	Nonce string
	// Lifetime shortens that of the policy "ticket".
	Lifetime time.Duration
}

// maxTarget is the greatest size of a ticket's target, in bytes.
const maxTarget = 2048

// IssueTicket makes a ticket below the session: the one kind of token that may stand in a URL. It is good once, for half
// a minute, at its target.
func (a *Authority) IssueTicket(ctx context.Context, s *Session, r TicketRequest) (Issued, error) {
	if r.Target == "" || len(r.Target) > maxTarget || strings.ContainsAny(r.Target, "\r\n\x00") || len(r.Nonce) > 256 {
		return Issued{}, badRequest("target: want 1 to %d bytes; nonce: at most 256", maxTarget)
	}
	x, err := a.signedIn(ctx, s, "a ticket")
	if err != nil {
		return Issued{}, err
	}
	return a.once(ctx, x, KindTicket, PolicyTicket, "", ticketDetail(r.Target, r.Nonce), r.Lifetime)
}

// ticketDetail is what a ticket's record keeps of where it is good: neither address nor nonce in clear.
func ticketDetail(target, nonce string) string {
	h := sha256.Sum256([]byte("afterlogin/ticket/1\x00" + target + "\x00" + nonce))
	return base64.RawURLEncoding.EncodeToString(h[:])
}

// TicketUse says where a ticket is presented.
type TicketUse struct {
	Tenant uint32
	Target string // as in TicketRequest
	Nonce  string // as in TicketRequest
	// Open asks for a session of its own on this host: a child of the one that the ticket was made below, with its own
	// token, that ends with it. Otherwise the ticket lets in this one request.
	Open   bool
	Device Client
}

// RedeemTicket uses the ticket up, durably, and returns the session that it was made below, or with Open a new one below
// that and its token. Nothing else uses a ticket up: do not call it for HEAD, or for a prefetch.
//
// A ticket that was used before is refused with ReasonUsed, and ends nothing: a reload is no theft. One for another
// target, or from another browser, is refused with ReasonWrongTarget and stays good.
func (a *Authority) RedeemTicket(ctx context.Context, t Token, u TicketUse) (_ Issued, err error) {
	defer a.counts.noted(&err)
	tok, err := a.parse(t, nil)
	if err != nil {
		return Issued{}, err
	}
	if Kind(tok.Kind) != KindTicket {
		return Issued{}, refuse(ReasonWrongKind)
	}
	for range attempts {
		x, err := a.look(ctx, &tok, a.now())
		if err != nil {
			return Issued{}, err
		}
		got, err := a.redeemTicket(ctx, x, &u)
		if err != errConflict {
			return got, err
		}
	}
	return Issued{}, exhausted("redeem")
}

func (a *Authority) redeemTicket(ctx context.Context, x *exam, u *TicketUse) (Issued, error) {
	switch {
	case x.rec == nil:
		return Issued{}, refuse(ReasonUnknown)
	case Kind(x.rec.Kind) != KindTicket || a.judge(x, clientHash{}) != current:
		return Issued{}, refuse(ReasonForged)
	case x.rec.Tenant != u.Tenant:
		return Issued{}, x.refusal(ReasonWrongTenant, "", time.Time{})
	case subtle.ConstantTimeCompare([]byte(x.state.detail), []byte(ticketDetail(u.Target, u.Nonce))) != 1:
		return Issued{}, x.refusal(ReasonWrongTarget, "", time.Time{})
	case x.state.used != 0:
		return Issued{}, x.refusal(ReasonUsed, "", fromMillis(x.state.used))
	}
	if why, cause, at := x.standing(); why != "" {
		return Issued{}, x.refusal(why, cause, at)
	}
	parent := &exam{now: x.now, standpoint: x.above[0], subject: x.subject, above: x.above[1:]}
	st := x.state.clone()
	st.used, st.op = x.now.UnixMilli(), newOp()
	var opened *child
	if u.Open {
		var err error
		if opened, err = a.handedOver(parent, u); err != nil {
			return Issued{}, err
		}
		st.made = opened.rec.ID
	}
	payload, err := st.encode()
	if err != nil {
		return Issued{}, err
	}
	rec := next(x.rec)
	ops := []store.Op{a.put(rec, x.rec.Version, payload), store.Emit(x.event(EventTicketUsed, "", ""))}
	if opened != nil {
		ops = append(ops, opened.op, store.Emit(parent.examOf(opened).event(EventCreated, "", "handed over by a ticket")))
	}
	if err := a.apply(ctx, rec.ID.Root(), a.wrote(rec.ID, st.op), ops...); err != nil {
		return Issued{}, err
	}
	if opened == nil {
		return Issued{Session: parent.session()}, nil
	}
	return Issued{Token: opened.token, Session: parent.examOf(opened).session()}, nil
}

// handedOver makes a session below the one that a ticket was made from: same person, same policy, same end.
func (a *Authority) handedOver(parent *exam, u *TicketUse) (*child, error) {
	above, err := parent.under()
	if err != nil {
		return nil, err
	}
	st := &state{
		policy: parent.state.policy, name: parent.state.name, authAt: parent.state.authAt, methods: parent.state.methods,
		scopes: parent.state.scopes, device: u.Device.trimmed(), above: above,
	}
	return a.newChild(parent, KindSession, st, a.policy(st.policy).Absolute, "")
}
