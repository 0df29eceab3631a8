package afterlogin

import (
	"context"
	"errors"

	"github.com/afterlogin/afterlogin/store"
)

// RevokeFrom ends the session and everything that came from it: what lives below it, and the offline grants and API keys
// that were made while signed in to it, with the successors of those keys. It returns how many roots were ended. It is
// durable when it returns nil; after an error, call it again. A record that does not open is passed over until the rest
// is done, and is then the error: it opens nothing for anybody.
//
// The session itself is ended first, and what is made from it meanwhile looks back: one of the two sees the other.
//
// Errors: ErrNoSession, also some time after the session's absolute end (Config.KeepEnded), when its record is gone: then revoke by
// subject; ErrBadRequest for what is no root; ErrUnavailable.
func (a *Authority) RevokeFrom(ctx context.Context, id SessionID, why Reason) (int, error) {
	rid, err := id.parse()
	if err != nil {
		return 0, err
	}
	if !rid.IsRoot() {
		return 0, badRequest("%s lives under another session: revoke it alone, or that one", id)
	}
	ctx, cancel := unhurried(ctx)
	defer cancel()
	rs, err := a.store.Get(ctx, rid)
	if err != nil {
		return 0, unavailable("read", err)
	}
	if rs[0] == nil {
		return 0, ErrNoSession
	}
	root := rs[0]
	if err := a.Revoke(ctx, id, why); err != nil {
		return 0, err
	}
	if root.Subject == "" || impersonal(Kind(root.Kind)) {
		return 1, nil
	}
	ended := map[store.ID]bool{rid: true}
	for more := true; more; {
		if more, err = a.revokeDerived(ctx, root, ended, why); err != nil && !more {
			return len(ended), err
		}
	}
	return len(ended), nil
}

// revokeDerived ends the subject's roots that came from what has been ended, and reports whether there were any.
func (a *Authority) revokeDerived(ctx context.Context, root *store.Record, ended map[store.ID]bool, why Reason) (more bool, err error) {
	var broken error
	for r, err := range a.store.List(ctx, store.Query{Tenant: root.Tenant, Subject: root.Subject}) {
		if err != nil {
			return false, unavailable("list", err)
		}
		if ended[r.ID] {
			continue
		}
		p, err := a.open(r, a.touches.peek(r.ID))
		if err != nil {
			broken = err
			continue
		}
		if !ended[p.state.origin] || p.state.origin.IsZero() {
			continue
		}
		if err := a.revoke(ctx, r, r, why); err != nil && !errors.Is(err, ErrNoSession) {
			return false, err
		}
		ended[r.ID], more = true, true
	}
	return more, broken
}

// originOf returns the session that an API key is made in, which must be the subject's own and good.
func (a *Authority) originOf(ctx context.Context, r *IssueRequest) (store.ID, error) {
	if r.Origin == "" {
		return store.ID{}, nil
	}
	id, err := r.Origin.parse()
	if err != nil {
		return store.ID{}, badRequest("origin: %v", err)
	}
	x, err := a.examine(ctx, id)
	if err == ErrNoSession {
		return store.ID{}, badRequest("origin: there is no such session")
	}
	if err != nil {
		return store.ID{}, err
	}
	switch root := x.root().rec; {
	case Kind(root.Kind) != KindSession:
		return store.ID{}, badRequest("origin: %s is no session", r.Origin)
	case root.Subject != r.Subject || root.Tenant != r.Tenant:
		return store.ID{}, badRequest("origin: %s is another subject's", r.Origin)
	}
	return id.Root(), nil
}

// lookBack fails if the origin of a root that was just made has been ended on purpose meanwhile, and ends the root: who
// ends a session with all that came from it ends the session first and looks for the rest afterwards. One that is on hold
// may be taken off again, and does not hold what came from it.
func (a *Authority) lookBack(ctx context.Context, made *Session, origin store.ID) error {
	if origin.IsZero() {
		return nil
	}
	_, err := a.examine(ctx, origin)
	if why := ReasonOf(err); err == nil || why == ReasonExpired || why == ReasonIdle || why == ReasonFrozen || err == ErrNoSession {
		return nil
	}
	if rerr := a.Revoke(ctx, made.ID, ReasonOrigin); rerr != nil {
		return rerr
	}
	return err
}
