package revocation

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/afterlogin/afterlogin"
)

// revoke ends what the job froze, which it knows without the query, and what it meant then and somebody else had frozen
// before.
func (p *pass) revoke(ctx context.Context) error {
	p.l.begin(Revoking, p.j.Frozen+p.j.Held)
	var gone atomic.Int64
	seen := 0
	err := p.twice(ctx, func(s *afterlogin.Session) (bool, error) {
		if !p.j.own(s) {
			return false, nil
		}
		if seen++; seen > p.j.Most {
			return false, errTooMany
		}
		return true, nil
	}, p.end(&gone))
	if errors.Is(err, errTooMany) {
		return p.stop(ctx, fmt.Sprintf("more than the %d that were confirmed are on hold for it: the rest stays so", p.j.Most))
	}
	freed := 0
	if err == nil && p.j.Held > 0 {
		freed, err = p.revokeHeld(ctx, &gone)
	}
	if errors.Is(err, errTooMany) {
		return p.stop(ctx, fmt.Sprintf("with what is on hold for other reasons more than the %d that were confirmed match by now: what it froze was ended, and the others stay on hold", p.j.Most))
	}
	if err != nil {
		return err
	}
	if freed > 0 {
		return p.stop(ctx, fmt.Sprintf("%d of those that were confirmed have been taken off hold by somebody meanwhile, and were left alone; the others were ended: count again", freed))
	}
	if pr := p.l.progress(); !pr.AtLeast { // most that end by themselves are not seen any more
		gone.Store(int64(max(0, p.j.Frozen+p.j.Held-pr.Done)))
	}
	return p.done(ctx, &gone)
}

// revokeHeld ends what somebody else had put on hold before the job had frozen the rest: what was put on hold since is no
// part of what was confirmed, and need not be meant. There cannot be more of them by and by, so that they are counted first.
// If there are fewer, it returns how many are live that the job means: it did not freeze them, and they are not held any more.
func (p *pass) revokeHeld(ctx context.Context, gone *atomic.Int64) (freed int, err error) {
	if p.q == nil {
		return 0, errors.New("its query cannot be read any more: what it froze was ended, and what is on hold for other reasons stays so")
	}
	want := func(s *afterlogin.Session) (bool, error) {
		hit, allowed := p.j.aims(p.q, s)
		return hit && allowed && s.Frozen() && s.Why != p.j.Reason(), nil
	}
	then := func(act func(context.Context, *afterlogin.Session) error) func(context.Context, *afterlogin.Session) error {
		return func(ctx context.Context, s *afterlogin.Session) error {
			at, err := p.r.authority.FrozenSince(ctx, s.ID)
			switch {
			case over(err):
				return nil
			case err != nil || at.IsZero() || at.After(p.j.FrozenAt):
				return err
			}
			return act(ctx, s)
		}
	}
	var there, ended atomic.Int64
	err = p.each(ctx, want, then(func(context.Context, *afterlogin.Session) error {
		if there.Add(1) > int64(p.j.Most-p.j.Frozen) {
			return errTooMany
		}
		return nil
	}))
	if err != nil {
		return 0, err
	}
	end := p.end(gone)
	err = p.each(ctx, want, then(func(ctx context.Context, s *afterlogin.Session) error {
		ended.Add(1)
		return end(ctx, s)
	}))
	if err != nil || ended.Load() >= int64(p.j.Held) {
		return 0, err
	}
	err = p.each(ctx, func(s *afterlogin.Session) (bool, error) {
		if hit, allowed := p.j.aims(p.q, s); hit && allowed && !s.Frozen() {
			freed++
		}
		return false, nil
	}, nil)
	return freed, err
}

// revokeNow ends what the query means, without having frozen it.
func (p *pass) revokeNow(ctx context.Context) error {
	p.l.begin(Revoking, p.j.Preview.Matched)
	if !p.j.Began {
		v, err := p.preview(ctx)
		if err != nil {
			return err
		}
		if v.Matched > p.j.Most {
			return p.stop(ctx, fmt.Sprintf("%d match by now, more than the %d that were confirmed: nothing was ended, count again", v.Matched, p.j.Most))
		}
		if j, err := p.r.moved(ctx, p.j.ID, Revoking, func(j *Job) { j.Began = true }); err != nil || j == nil {
			return err
		}
	}
	var gone atomic.Int64
	aimed := p.l.progress().Done
	err := p.twice(ctx, func(s *afterlogin.Session) (bool, error) {
		if hit, allowed := p.j.aims(p.q, s); !hit || !allowed {
			return false, nil
		}
		if aimed++; aimed-int(gone.Load()) > p.j.Most {
			return false, errTooMany
		}
		return true, nil
	}, p.end(&gone))
	if errors.Is(err, errTooMany) {
		return p.stop(ctx, fmt.Sprintf("more than the %d that were confirmed match by now: the rest was left alone, count again", p.j.Most))
	}
	if err != nil {
		return err
	}
	return p.done(ctx, &gone)
}

// end ends one session, and counts it.
func (p *pass) end(gone *atomic.Int64) func(context.Context, *afterlogin.Session) error {
	return func(ctx context.Context, s *afterlogin.Session) error {
		err := p.r.authority.Revoke(ctx, s.ID, afterlogin.ReasonAdministrator)
		if over(err) {
			gone.Add(1)
			return nil
		}
		p.counted(err)
		return err
	}
}

// counted counts a session that was ended or thawed. Of one that failed nobody knows.
func (p *pass) counted(err error) {
	p.l.set(func(pr *Progress) {
		if err == nil {
			pr.Done++
		} else {
			pr.AtLeast = true
		}
	})
}

// done says that all was ended.
func (p *pass) done(ctx context.Context, gone *atomic.Int64) error {
	_, err := p.r.moved(ctx, p.j.ID, Revoking, func(j *Job) {
		pr := p.l.progress()
		j.State, j.Finished, j.Revoked, j.AtLeast, j.Gone = Done, p.r.now().UTC(), pr.Done, pr.AtLeast, j.Gone+int(gone.Load())
	})
	return err
}

// stop ends a job in the middle of the ending. What it froze and did not end stays on hold: a thief is never let in again.
func (p *pass) stop(ctx context.Context, why string) error {
	_, err := p.r.moved(ctx, p.j.ID, Revoking, func(j *Job) { j.failed(why, p.l.progress(), p.r.now()) })
	return err
}

// thaw takes off hold what the job froze, and nothing else.
func (p *pass) thaw(ctx context.Context) error {
	reason := p.j.Reason()
	total := p.j.Frozen
	if was := p.l.progress(); total == 0 && was.Phase == Freezing {
		total = was.Done
	}
	if was := p.l.progress(); was.Phase == Thawing {
		total = was.Total
	}
	p.l.begin(Thawing, total)
	var gone atomic.Int64
	err := p.twice(ctx, func(s *afterlogin.Session) (bool, error) {
		return p.j.own(s), nil
	}, func(ctx context.Context, s *afterlogin.Session) error {
		err := p.r.authority.Thaw(ctx, s.ID, reason)
		if over(err) {
			gone.Add(1)
			return nil
		}
		p.counted(err)
		return err
	})
	if err != nil {
		return err
	}
	_, err = p.r.moved(ctx, p.j.ID, Thawing, func(j *Job) {
		pr := p.l.progress()
		j.State, j.Finished, j.Thawed, j.AtLeast, j.Gone = Undone, p.r.now().UTC(), pr.Done, pr.AtLeast, j.Gone+int(gone.Load())
		if j.Why != "" {
			j.State = Failed
		}
	})
	return err
}

// over reports whether there is nothing left to do about a session: it has ended by itself.
func over(err error) bool {
	return errors.Is(err, afterlogin.ErrNoSession) || errors.Is(err, afterlogin.ErrInvalidToken)
}
