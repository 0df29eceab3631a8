package api

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/afterlogin/afterlogin"
)

// TicketRequest says what ticket to make. Exactly one of session and token is given.
type TicketRequest struct {
	Session  string `json:"session,omitempty" doc:"The session it is made below, ses_…" maxLength:"64"`
	Token    string `json:"token,omitempty" doc:"Or the session's token, as the browser sent it." maxLength:"4096"`
	Target   string `json:"target" doc:"Where it is good, and nowhere else: a path, /downloads/7, or origin and path, https://b.example/start. Redeem names the same text." minLength:"1" maxLength:"2048"`
	Nonce    string `json:"nonce,omitempty" doc:"Binds it to what the browser keeps in a cookie on the target's host. Absent: it is good for whoever holds it." maxLength:"256"`
	Lifetime string `json:"lifetime,omitempty" doc:"Shorter than that of the policy ticket: 10s." maxLength:"32"`
}

// Ticket is the answer that hands out a ticket.
type Ticket struct {
	Ticket    string    `json:"ticket" doc:"The one token that may stand in a URL, as the parameter ticket. Good once."`
	ExpiresAt time.Time `json:"expires_at"`
}

// RedeemRequest says where a ticket was presented.
type RedeemRequest struct {
	Ticket string       `json:"ticket" maxLength:"4096"`
	Target string       `json:"target" doc:"The address it was presented at, without it: the text that it was made with." minLength:"1" maxLength:"2048"`
	Nonce  string       `json:"nonce,omitempty" doc:"What the browser's cookie says." maxLength:"256"`
	Open   bool         `json:"open,omitempty" doc:"Also make a session of its own on this host, below the one that the ticket was made from, and answer its token."`
	Device *DeviceInput `json:"device,omitempty" doc:"Where it was presented from."`
}

// Redeemed is the verdict on a ticket.
type Redeemed struct {
	Token string `json:"token,omitempty" doc:"With open: the new session's token, shown this once."`
	Verdict
}

func (a *API) ticketRoutes() {
	register(a, route{
		method: http.MethodPost, path: "/v1/tickets", scope: TokensIssue, id: "create-ticket", status: http.StatusCreated,
		errors:  []int{http.StatusNotFound, http.StatusConflict, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType, http.StatusTooManyRequests},
		summary: "Make a ticket",
		text:    "For hand-over between hosts, WebSockets and download links: good once, for half a minute, at its target.",
	}, a.createTicket)
	register(a, route{
		method: http.MethodPost, path: "/v1/tickets/redeem", scope: TokensIssue, id: "redeem-ticket", status: http.StatusOK,
		errors:  []int{http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType},
		summary: "Use a ticket up",
		text: "Answers 200 for a ticket that is not good, too: `used` if it was redeemed before, which ends nothing; `wrong_target` for another address or browser, and then it stays good. " +
			"Do not call it for a HEAD request or a prefetch. `open` needs the scope `sessions:write` besides.",
	}, a.redeemTicket)
}

func (a *API) createTicket(ctx context.Context, in *struct{ Body TicketRequest }) (*struct{ Body Ticket }, error) {
	life, err := duration("lifetime", in.Body.Lifetime)
	if err != nil {
		return nil, err
	}
	var s *afterlogin.Session
	switch {
	case (in.Body.Session == "") == (in.Body.Token == ""):
		return nil, invalid("body.session", "give session or token, one of them")
	case in.Body.Session != "":
		s, err = a.authority.Session(ctx, afterlogin.SessionID(in.Body.Session))
		if errors.Is(err, afterlogin.ErrBadSessionID) {
			return nil, NewProblem(http.StatusBadRequest, "bad-session-id", "body.session: "+err.Error(), FieldError{"body.session", err.Error()})
		}
	default:
		s, err = a.authority.Validate(ctx, afterlogin.TokenFrom(in.Body.Token), afterlogin.Expect{Kinds: []afterlogin.Kind{afterlogin.KindSession}})
	}
	if err != nil {
		return nil, err
	}
	if s.Kind != afterlogin.KindSession {
		return nil, invalid("body.session", "is no session")
	}
	if s.Anonymous() {
		return nil, anonymous(string(s.ID))
	}
	if err := mayTouch(ctx, s); err != nil {
		return nil, err
	}
	got, err := a.authority.IssueTicket(ctx, s, afterlogin.TicketRequest{Target: in.Body.Target, Nonce: in.Body.Nonce, Lifetime: life})
	if err != nil {
		return nil, err
	}
	return &struct{ Body Ticket }{Ticket{got.Token.Reveal(), got.Session.Absolute.UTC()}}, nil
}

func (a *API) redeemTicket(ctx context.Context, in *struct{ Body RedeemRequest }) (*struct{ Body Redeemed }, error) {
	if in.Body.Open {
		if err := need(ctx, "making a session", SessionsWrite); err != nil {
			return nil, err
		}
	}
	from, err := in.Body.Device.client()
	if err != nil {
		return nil, err
	}
	got, err := a.authority.RedeemTicket(ctx, afterlogin.TokenFrom(in.Body.Ticket), afterlogin.TicketUse{
		Target: in.Body.Target, Nonce: in.Body.Nonce, Open: in.Body.Open, Device: from,
	})
	v, err := verdict(got.Session, err)
	if err != nil {
		return nil, err
	}
	return &struct{ Body Redeemed }{Redeemed{Token: got.Token.Reveal(), Verdict: v}}, nil
}
