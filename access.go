package afterlogin

import (
	"context"
	"strings"
	"time"

	"github.com/afterlogin/afterlogin/jwt"
	"github.com/afterlogin/afterlogin/store"
)

// AccessRequest says what access token to make.
type AccessRequest struct {
	Client string // the OAuth client it is for, if any
	// Scopes are what it is good for. None: all that its parent has. From a session they may be any, since the
	// application vouches for them; from everything else they must be among the parent's.
	Scopes []string
	// Audience are the services it is for (RFC 8707). None: those of its parent. If the parent names any, they must be
	// among them.
	Audience []string
	// Lifetime shortens that of the policy "access", or "jwt".
	Lifetime time.Duration
	// JWT asks for a signed token, which services verify without a call. Config.Issuer must be set.
	JWT bool
	// Actor is who acts for the subject, if it is not the subject (RFC 8693, act). Who acted before stays behind it; empty:
	// whoever acts with the parent.
	Actor string
}

func (r *AccessRequest) check() error {
	if !plain(r.Client, store.MaxText) || !plain(r.Actor, store.MaxText) {
		return badRequest("client, actor: want at most %d bytes of UTF-8 without control characters", store.MaxText)
	}
	if r.Lifetime < 0 || r.Lifetime > 0 && r.Lifetime < time.Second {
		return badRequest("lifetime: %v is under a second", r.Lifetime)
	}
	if err := checkNames("scope", r.Scopes, maxScopes); err != nil {
		return err
	}
	return checkAudience(r.Audience)
}

// IssueAccess makes an access token below s, which Validate, Client or Redeem returned: below a session, an API key, a
// grant, a client, or another access token. It ends with s at the latest, and with everything that s ends with; nothing
// else of s changes. An opaque one is durable when IssueAccess returns nil.
//
// Errors: a *Refusal if s is over meanwhile, or more is asked for than it has; ErrBadRequest; a *LimitError; and
// ErrUnavailable.
func (a *Authority) IssueAccess(ctx context.Context, s *Session, r AccessRequest) (Issued, error) {
	if err := r.check(); err != nil {
		return Issued{}, err
	}
	x, err := a.live(ctx, s)
	if err != nil {
		return Issued{}, err
	}
	if s.Kind == KindJWT { // it has no record that could say when it ends
		left := s.Absolute.Sub(x.now)
		if left < time.Second {
			return Issued{}, &Refusal{Reason: ReasonExpired, Session: s.ID, At: s.Absolute}
		}
		r.Lifetime = shorter(left, r.Lifetime)
	}
	if err := a.budget(x); err != nil {
		return Issued{}, err
	}
	st, err := a.accessState(x, s, &r)
	if err != nil {
		return Issued{}, err
	}
	if r.JWT {
		return a.signAccess(x, st, &r)
	}
	c, err := a.newChild(x, KindAccess, st, shorter(a.policy(PolicyAccess).Absolute, r.Lifetime), r.Client)
	if err != nil {
		return Issued{}, err
	}
	y := x.examOf(c)
	err = a.apply(ctx, c.rec.ID.Root(), a.wrote(c.rec.ID, c.state.op), c.op, store.Emit(y.event(EventAccessCreated, "", "for "+forWhom(r.Client))))
	if err != nil {
		return Issued{}, unlikely(err)
	}
	return Issued{Token: c.token, Session: y.session()}, nil
}

// accessState is the payload of an access token below x, as whose snapshot the caller holds s.
func (a *Authority) accessState(x *exam, s *Session, r *AccessRequest) (*state, error) {
	scopes, err := r.Scopes, error(nil)
	if s.Kind != KindSession && s.Kind != KindClient {
		if scopes, err = narrower(x, s.Scopes, r.Scopes); err != nil {
			return nil, err
		}
	}
	audience := r.Audience
	if len(s.Audience) > 0 {
		if len(audience) == 0 {
			audience = s.Audience
		} else if !has(s.Audience, audience) {
			return nil, x.refusal(ReasonWrongAudience, "", time.Time{})
		}
	}
	above, err := x.under()
	if err != nil {
		return nil, err
	}
	if r.Actor != "" && len(s.Actors()) >= jwt.MaxActors {
		return nil, badRequest("actor: %d have acted already, the most there may be", jwt.MaxActors)
	}
	return &state{
		policy: PolicyAccess, scopes: scopes, audience: audience, actor: actors(r.Actor, s.actors), above: above,
		authAt: x.state.authAt, methods: x.state.methods, device: x.state.device,
	}, nil
}

// actors puts the one who acts now in front of those who acted before, one a line.
func actors(now, before string) string {
	switch {
	case now == "":
		return before
	case before == "":
		return now
	}
	return now + "\n" + before
}

func forWhom(client string) string {
	if client == "" {
		return "no client"
	}
	return "client " + strings.ToValidUTF8(client[:min(len(client), 400)], "")
}

// unlikely says of a conflict with a record that nobody else can know of that its random id came twice.
func unlikely(err error) error {
	if err == errConflict {
		return unavailable("write", errIDTaken)
	}
	return err
}
