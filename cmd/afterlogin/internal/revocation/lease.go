package revocation

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/afterlogin/afterlogin"
)

// lease is this server's hold on a job, and the job's progress, which is written with it.
type lease struct {
	r   *Revocations
	job string

	mu    sync.Mutex
	entry *afterlogin.Entry
	p     Progress
	sure  time.Time // when it was last known to be ours; with the monotonic clock
	taken bool      // from another server, which may have done more in its last second than it said

	rated     int // Done when the rate was last taken
	ratedAt   time.Time
	ratedOnce bool
}

// claim takes the job's lease, if it is nobody's. It returns nil if it is another server's.
func (r *Revocations) claim(ctx context.Context, j *Job) (*lease, error) {
	l := &lease{r: r, job: j.ID, sure: time.Now()}
	e, p, err := r.work(ctx, j)
	if err != nil {
		return nil, err
	}
	if e == nil {
		l.p = Progress{Owner: r.node, Phase: j.State, Began: r.now().UTC(), Updated: r.now().UTC()}
		detail, err := encode(&l.p)
		if err != nil {
			return nil, err
		}
		until := j.Created.Add(workFor)
		if until.Before(r.now()) {
			until = r.now().Add(time.Hour)
		}
		l.entry, err = r.authority.AddEntry(ctx, afterlogin.EntryRequest{Realm: realm, Name: j.ID, Detail: detail, Until: until})
		if errors.Is(err, afterlogin.ErrEntryExists) {
			return nil, nil
		}
		return l, err
	}
	l.p = *p
	if p.Owner != "" && p.Owner != r.node {
		r.mu.Lock()
		seen, has := r.others[j.ID]
		if !has || seen.version != e.Version {
			seen = sighting{e.Version, time.Now()}
			r.others[j.ID] = seen
		}
		r.mu.Unlock()
		if time.Since(seen.at) < leaseTime {
			return nil, nil
		}
		l.p.Taken++
		l.taken = true
		r.log.Warn("a server has stopped working at a revocation: this one goes on", "revocation", j.ID, "was", p.Owner)
	}
	l.p.Owner = r.node
	detail, err := encode(&l.p)
	if err != nil {
		return nil, err
	}
	l.entry, err = r.authority.ChangeEntry(ctx, e, detail)
	if errors.Is(err, afterlogin.ErrEntryChanged) {
		return nil, nil
	}
	return l, err
}

// held reports whether the lease is ours for certain: nobody else has gone on with the job.
func (l *lease) held() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Since(l.sure) < leaseTime*2/3
}

var errLost = errors.New("the lease was lost")

// beat renews the lease, with the progress.
func (l *lease) beat(ctx context.Context) error {
	l.mu.Lock()
	now := time.Now()
	if since := now.Sub(l.ratedAt); since > beat/2 && l.ratedAt != (time.Time{}) {
		rate := float64(l.p.Done-l.rated) / since.Seconds()
		if l.ratedOnce {
			rate = 0.7*l.p.Rate + 0.3*rate
		}
		l.p.Rate, l.ratedOnce, l.p.Left = rate, true, 0
		if left := l.p.Total - l.p.Done; left > 0 && rate > 0 {
			l.p.Left = min(time.Duration(float64(left)/rate*float64(time.Second)), 7*24*time.Hour).Round(time.Second)
		}
	}
	l.rated, l.ratedAt = l.p.Done, now
	l.p.Updated = l.r.now().UTC()
	detail, err := encode(&l.p)
	entry := l.entry
	l.mu.Unlock()
	if err != nil {
		return err
	}
	e, err := l.r.authority.ChangeEntry(ctx, entry, detail)
	if errors.Is(err, afterlogin.ErrEntryChanged) {
		return errLost
	}
	if err != nil {
		return err
	}
	l.mu.Lock()
	l.entry, l.sure = e, now
	l.mu.Unlock()
	return nil
}

// begin starts a phase. What was done of it before is kept if it is the same one, gone on with.
func (l *lease) begin(phase State, total int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.p.Phase != phase {
		l.p = Progress{Phase: phase, Owner: l.p.Owner, Taken: l.p.Taken, Unsure: l.p.Unsure, Began: l.r.now().UTC()}
	}
	l.p.AtLeast, l.taken = l.p.AtLeast || l.taken, false
	l.p.Total, l.p.Looked, l.p.Waiting = total, 0, ""
	l.rated, l.ratedAt, l.ratedOnce = l.p.Done, time.Now(), false
}

// set changes the progress.
func (l *lease) set(f func(*Progress)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f(&l.p)
}

// progress returns it as it is.
func (l *lease) progress() Progress {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.p
}

// release lets another server go on at once.
func (l *lease) release(ctx context.Context) {
	l.set(func(p *Progress) { p.Owner = "" })
	if err := l.beat(ctx); err != nil && !errors.Is(err, errLost) {
		l.r.log.Debug("the lease of a revocation ends by itself", "revocation", l.job, "err", err)
	}
}
