package revocation

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/query"
)

// pass is one look through the sessions, for one phase of a job.
type pass struct {
	r *Revocations
	j *Job
	q *query.Query // nil if it cannot be read any more, in phases that need not
	l *lease
}

// sessions is what the passes look at: of one subject, if the query names one, and otherwise all.
func (p *pass) sessions() afterlogin.Query {
	var q afterlogin.Query
	if p.q != nil {
		q.Subject, _ = p.q.Subject()
	}
	return q
}

// count looks how many the query means.
func (p *pass) count(ctx context.Context) error {
	p.l.begin(Counting, 0)
	v, err := p.preview(ctx)
	if err != nil {
		return err
	}
	_, err = p.r.moved(ctx, p.j.ID, Counting, func(j *Job) { j.State, j.Preview = Ready, *v })
	return err
}

func (p *pass) preview(ctx context.Context) (*Preview, error) {
	v := &Preview{}
	kinds, policies, clients := tally{}, tally{}, tally{}
	looked := 0
	for s, err := range p.r.authority.Sessions(ctx, p.sessions()) {
		if err != nil {
			return nil, err
		}
		if looked++; looked%256 == 0 {
			p.l.set(func(pr *Progress) {
				if pr.Looked = looked; p.j.State == Counting { // in another phase Done is what was ended
					pr.Done = v.Matched
				}
			})
		}
		aimed, allowed := p.j.aims(p.q, s)
		if !aimed {
			continue
		}
		if !allowed {
			v.LeftOut++
			continue
		}
		v.Matched++
		if s.Frozen() {
			v.Held++
		}
		kinds.add(s.Kind.String())
		policies.add(s.Policy)
		if s.Client != "" {
			clients.add(s.Client)
		}
		if len(v.Examples) < MaxExamples {
			v.Examples = append(v.Examples, s.ID)
		}
	}
	v.Kinds, v.Policies, v.Clients, v.At = kinds.top(maxGroups), policies.top(maxGroups), clients.top(maxGroups), p.r.now().UTC()
	return v, nil
}

// tooMany ends a phase that finds more than were confirmed.
var errTooMany = errors.New("more match by now than were confirmed")

// freeze puts what the query means on hold. What the job froze before, it knows again.
func (p *pass) freeze(ctx context.Context) error {
	p.l.begin(Freezing, p.j.Preview.Matched)
	p.l.set(func(pr *Progress) { pr.Done = 0 }) // what is frozen already is counted again
	reason := p.j.Reason()
	var aimed, done, held, gone atomic.Int64
	err := p.each(ctx, func(s *afterlogin.Session) (bool, error) {
		own := p.j.own(s)
		if hit, allowed := p.j.aims(p.q, s); !own && (!hit || !allowed) {
			return false, nil
		}
		if aimed.Add(1)-gone.Load() > int64(p.j.Most) {
			return false, errTooMany
		}
		switch {
		case own:
			done.Add(1)
			p.l.set(func(pr *Progress) { pr.Done++ })
			return false, nil
		case s.Frozen(): // by somebody else: it stays theirs
			held.Add(1)
			return false, nil
		}
		return true, nil
	}, func(ctx context.Context, s *afterlogin.Session) error {
		err := p.r.authority.Freeze(ctx, s.ID, reason)
		switch {
		case over(err):
			gone.Add(1)
			return nil
		case errors.Is(err, afterlogin.ErrOnHold): // somebody else was quicker
			held.Add(1)
			return nil
		case err == nil:
			done.Add(1)
			p.l.set(func(pr *Progress) { pr.Done++ })
		default:
			p.l.set(func(pr *Progress) { pr.Unsure = true })
		}
		return err
	})
	if errors.Is(err, errTooMany) {
		_, err = p.r.moved(ctx, p.j.ID, Freezing, func(j *Job) {
			j.State = Thawing
			j.Why = fmt.Sprintf("more than the %d that were confirmed match by now: count again", j.Most)
		})
		return err
	}
	if err != nil {
		return err
	}
	if err := p.r.clock(); err != nil { // which says when the undo window ends
		return err
	}
	_, err = p.r.moved(ctx, p.j.ID, Freezing, func(j *Job) {
		now := p.r.now().UTC()
		j.State, j.Frozen, j.Held, j.Gone = Frozen, int(done.Load()), int(held.Load()), int(gone.Load())
		j.FrozenAt, j.UndoUntil = now, now.Add(j.Undo)
	})
	return err
}

// twice goes through all sessions, and, if another server worked at the job before, once more after its lease is over:
// it may have been about to freeze one. So may the store, if it did not answer.
func (p *pass) twice(ctx context.Context, want func(*afterlogin.Session) (bool, error), act func(context.Context, *afterlogin.Session) error) error {
	if err := p.each(ctx, want, act); err != nil {
		return err
	}
	if pr := p.l.progress(); pr.Taken == 0 && !pr.Unsure {
		return nil
	}
	if sleep(ctx, leaseTime); ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return p.each(ctx, want, act)
}

// each looks at every session, and acts on those that are wanted: several at once, and no more in a second than the
// setting allows. It returns the first error, after what was under way has ended, which nothing breaks off: a freeze that
// nobody waited for could come true behind the thaw.
func (p *pass) each(ctx context.Context, want func(*afterlogin.Session) (bool, error), act func(context.Context, *afterlogin.Session) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	todo := make(chan *afterlogin.Session)
	var workers sync.WaitGroup
	for range p.r.parallel {
		workers.Go(func() {
			for s := range todo {
				if ctx.Err() != nil {
					continue
				}
				if !p.l.held() {
					cancel(errLost)
					continue
				}
				acting, done := context.WithTimeout(context.WithoutCancel(ctx), actTime)
				if err := act(acting, s); err != nil {
					cancel(err)
				}
				done()
			}
		})
	}
	err := p.feed(ctx, want, todo)
	close(todo)
	workers.Wait()
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// feed gives the workers what is wanted.
func (p *pass) feed(ctx context.Context, want func(*afterlogin.Session) (bool, error), todo chan<- *afterlogin.Session) error {
	looked := 0
	for s, err := range p.r.authority.Sessions(ctx, p.sessions()) {
		if err != nil {
			return err
		}
		if looked++; looked%256 == 0 {
			p.l.set(func(pr *Progress) { pr.Looked = looked })
		}
		wanted, err := want(s)
		if err != nil {
			return err
		}
		if !wanted {
			continue
		}
		if ahead := p.r.turn(); ahead > burst {
			sleep(ctx, ahead)
		}
		select {
		case todo <- s:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	p.l.set(func(pr *Progress) { pr.Looked = looked })
	return nil
}

// burst is how far the work may be ahead of the rate, or catch up: less than that is not worth a timer.
const burst = 10 * time.Millisecond

// turn takes the next place in the row of all jobs of this server, and returns how far it is ahead of the rate.
func (r *Revocations) turn() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if late := now.Add(-burst); r.next.Before(late) {
		r.next = late
	}
	ahead := r.next.Sub(now)
	r.next = r.next.Add(time.Second / time.Duration(r.rate))
	return ahead
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
