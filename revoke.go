package afterlogin

import (
	"context"
	"errors"
	"unicode/utf8"

	"github.com/afterlogin/afterlogin/store"
)

// A Scope says how much of a subject's ends.
type Scope uint8

// The scopes of RevokeSubject.
const (
	// Sessions ends every session of the subject, and what hangs below them. API keys stay.
	Sessions Scope = iota
	// Everything ends the API keys, too.
	Everything
)

// RevokeSubject signs the subject out everywhere: one write, however many sessions there are. Sign-ins that are under
// way fail (see Begin). It is durable when it returns nil. A subject that never signed in is signed out, too, so that a
// sign-in under way does not slip through. why is what the person is told: ReasonSignedOutAll, ReasonPasswordChanged,
// ReasonReported, ReasonAdministrator or another of 1 to 64 bytes; the last eight are remembered.
func (a *Authority) RevokeSubject(ctx context.Context, tenant uint32, subject string, scope Scope, why Reason) error {
	return a.bump(ctx, tenant, subject, scope, store.ID{}, why)
}

// RevokeOthers ends every session of the subject but this one: one write. API keys stay. It fails with ErrNoSession if
// the session is not there, and with a Refusal if it is over, since then there is nothing to spare. why is as for
// RevokeSubject.
func (a *Authority) RevokeOthers(ctx context.Context, id SessionID, why Reason) error {
	rid, err := id.parse()
	if err != nil {
		return err
	}
	ctx, cancel := unhurried(ctx)
	defer cancel()
	x, err := a.examine(ctx, rid)
	if err != nil {
		return err
	}
	root := x.root().rec
	if root.Subject == "" || Kind(root.Kind) != KindSession {
		return badRequest("%s is anonymous, or no session: it has no others", id)
	}
	return a.bump(ctx, root.Tenant, root.Subject, Sessions, root.ID, why)
}

func (a *Authority) bump(ctx context.Context, tenant uint32, subject string, scope Scope, except store.ID, why Reason) error {
	if err := checkSubject(subject); err != nil {
		return err
	}
	if err := checkReason(why); err != nil {
		return err
	}
	ctx, cancel := unhurried(ctx)
	defer cancel()
	sid := store.SubjectID(tenant, subject)
	for range attempts {
		_, rec, err := a.subject(ctx, sid)
		if err != nil {
			return err
		}
		var spared *exam
		if !except.IsZero() { // looked at after the subject was read: who was signed out meanwhile is not spared
			if spared, err = a.examine(ctx, except); err != nil {
				return err
			}
		}
		now := a.now()
		e := store.Event{At: now.UnixMilli(), Type: EventSubject, ID: sid, Tenant: tenant, Subject: subject, Reason: string(why)}
		switch {
		case scope == Everything:
			e.Detail = detailEverything
		case spared != nil:
			e.Detail = detailOthers + string(newSessionID(KindSession, except))
		default:
			e.Detail = detailAll
		}
		err = a.putSubject(ctx, tenant, subject, rec, func(st *subjectState) {
			ms := now.UnixMilli()
			st.epochs.sessions = renewEpoch(st.epochs.sessions, ms)
			if scope == Everything {
				st.epochs.everything = renewEpoch(st.epochs.everything, ms)
			}
			st.bumps++
			st.except, st.stamp = store.ID{}, epochs{}
			if spared != nil {
				st.except, st.stamp = except, spared.state.stamp
			}
			st.remember(why)
		}, e)
		if err != errConflict {
			return err
		}
	}
	return exhausted("sign out")
}

// examine reads a credential by its id and fails unless it is good as such.
func (a *Authority) examine(ctx context.Context, id store.ID) (*exam, error) {
	x := &exam{now: a.now()}
	if err := a.read(ctx, x, id); err != nil {
		return nil, err
	}
	if x.rec == nil || Kind(x.rec.Kind) == kindData {
		return nil, ErrNoSession
	}
	if why, cause, at := x.standing(); why != "" {
		return nil, x.refusal(why, cause, at)
	}
	return x, nil
}

// Revoke ends the session, API key, grant or other credential, and everything below it, even if the context is cancelled meanwhile: nobody stays
// signed in because a client hung up. It is durable when it returns nil; a second call does no
// harm and is durable, too. why is shown where the session is listed; ReasonSignedOut and ReasonAdministrator are usual.
// It fails with ErrNoSession if there is none.
func (a *Authority) Revoke(ctx context.Context, id SessionID, why Reason) error {
	rid, err := id.parse()
	if err != nil {
		return err
	}
	if err := checkReason(why); err != nil {
		return err
	}
	ctx, cancel := unhurried(ctx)
	defer cancel()
	rs, err := a.store.Get(ctx, rid, rid.Root())
	if err != nil {
		return unavailable("read", err)
	}
	if rs[0] == nil || rs[1] == nil || Kind(rs[0].Kind) == kindData || Kind(rs[0].Kind) == KindEntry {
		return ErrNoSession
	}
	return a.revoke(ctx, rs[0], rs[1], why)
}

func checkReason(why Reason) error {
	if why == "" || len(why) > store.MaxReason || !utf8.ValidString(string(why)) {
		return badRequest("reason: want 1 to %d bytes of UTF-8", store.MaxReason)
	}
	if why == ReasonNotMade { // lists leave it out
		return badRequest("reason: %s is for what was never made", why)
	}
	return nil
}

// revoke marks the record, which lives under the root or is it.
func (a *Authority) revoke(ctx context.Context, r, root *store.Record, why Reason) error {
	now := a.now().UnixMilli()
	ops := []store.Op{store.Mark(r.ID, now, string(why))}
	if r.Marked == 0 { // otherwise the event is out already; the write still waits until the mark is durable
		e := store.Event{
			At: now, Type: eventType(kinds[Kind(r.Kind)].event+"revoked", root), ID: r.ID,
			Tenant: r.Tenant, Subject: eventSubject(root), Reason: string(why),
		}
		ops = append(ops, store.Emit(e))
	}
	err := a.apply(ctx, r.ID.Root(), nil, ops...)
	if errors.Is(err, store.ErrNotFound) {
		return ErrNoSession
	}
	return err
}

// RevokeToken ends what the token belongs to: a session, a grant with its access tokens, a single access token. A token that is not ours ends nothing and is refused; one that
// is out of date ends its session all the same, since somebody holds it and wants it ended.
func (a *Authority) RevokeToken(ctx context.Context, t Token, why Reason) (SessionID, error) {
	ctx, cancel := unhurried(ctx)
	defer cancel()
	x, err := a.genuine(ctx, t)
	if err != nil {
		return "", err
	}
	id := newSessionID(Kind(x.rec.Kind), x.rec.ID)
	return id, a.revoke(ctx, x.rec, x.root().rec, why)
}

// genuine looks up a token that may be out of date, or whose session may be over. It fails if the token is not ours.
func (a *Authority) genuine(ctx context.Context, t Token) (*exam, error) {
	tok, err := a.parse(t, []Kind{KindAPIKey})
	if err != nil {
		return nil, err
	}
	x, err := a.look(ctx, &tok, a.now())
	if err != nil {
		return nil, err
	}
	if x.rec == nil {
		return nil, refuse(ReasonUnknown)
	}
	if tok.Kind != x.rec.Kind || a.judge(x, clientHash{}) == forged {
		return nil, refuse(ReasonForged)
	}
	return x, nil
}
