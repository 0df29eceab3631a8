package revocation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/afterlogin/afterlogin"
)

// Jobs are permanent entries, which cannot be removed: there is a fixed number of them, and a new job takes the place of
// the one that has been over for the longest time. What changes every second, the lease and the progress, is a temporary
// entry beside it, which is no event.
const (
	realm     = "revocations"
	slots     = 200
	maxActive = 20
	// workFor is for how long the entry with the progress is kept: longer than a job can take.
	workFor = 7 * 24 * time.Hour
	casTry  = 64
)

func slotName(n int) string { return fmt.Sprintf("slot-%03d", n) }

// List returns the jobs that are kept, the latest first: at most 200. Errors: afterlogin.ErrUnavailable.
func (r *Revocations) List(ctx context.Context) ([]*Job, error) {
	jobs, err := r.jobs(ctx)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(jobs, func(a, b *Job) int { return b.Created.Compare(a.Created) })
	for _, j := range jobs {
		if err := r.withProgress(ctx, j); err != nil {
			return nil, err
		}
	}
	return jobs, nil
}

func (r *Revocations) jobs(ctx context.Context) (jobs []*Job, err error) {
	for e, err := range r.authority.Entries(ctx, 0, realm) {
		if err != nil {
			return nil, err
		}
		j, err := decodeJob(e)
		if err != nil {
			r.log.Error("a revocation cannot be read", "entry", e.Name, "err", err)
			continue
		}
		jobs = append(jobs, j)
	}
	return jobs, nil
}

// Job returns the job with the id, with its progress. Errors: ErrNoJob, afterlogin.ErrUnavailable.
func (r *Revocations) Job(ctx context.Context, id string) (*Job, error) {
	j, err := r.read(ctx, id)
	if err != nil {
		return nil, err
	}
	return j, r.withProgress(ctx, j)
}

func (r *Revocations) read(ctx context.Context, id string) (*Job, error) {
	slot, ok := slotOf(id)
	if !ok {
		return nil, ErrNoJob
	}
	e, err := r.authority.Entry(ctx, 0, realm, slotName(slot))
	if errors.Is(err, afterlogin.ErrNoEntry) {
		return nil, ErrNoJob
	}
	if err != nil {
		return nil, err
	}
	j, err := decodeJob(e)
	if err != nil {
		return nil, err
	}
	if j.ID != id { // the slot has another job by now
		return nil, ErrNoJob
	}
	return j, nil
}

// add writes a new job into a free slot.
func (r *Revocations) add(ctx context.Context, j *Job) error {
	var blocked [slots]bool // there is something, and be it none that can be read
	for range casTry {
		jobs, err := r.jobs(ctx)
		if err != nil {
			return err
		}
		now := r.now()
		taken := blocked
		var oldest *Job
		active := 0
		for _, o := range jobs {
			slot, ok := slotOf(o.ID)
			if !ok {
				continue
			}
			taken[slot] = true
			switch {
			case !o.over(now):
				active++
			case oldest == nil || o.Created.Before(oldest.Created):
				oldest = o
			}
		}
		if active >= maxActive {
			return ErrBusy
		}
		slot := slices.Index(taken[:], false)
		if slot < 0 && oldest == nil {
			return ErrBusy
		}
		if slot < 0 {
			slot, _ = slotOf(oldest.ID)
			j.ID = newID(slot)
			err = r.put(ctx, j, oldest.entry)
		} else {
			j.ID = newID(slot)
			var detail []byte
			if detail, err = j.encode(); err != nil {
				return err
			}
			j.entry, err = r.authority.AddEntry(ctx, afterlogin.EntryRequest{Realm: realm, Name: slotName(slot), Detail: detail})
		}
		switch {
		case errors.Is(err, afterlogin.ErrEntryExists):
			blocked[slot] = true
		case !errors.Is(err, afterlogin.ErrEntryChanged):
			return err
		}
	}
	return ErrBusy
}

// put writes the job in place of what was read, if nobody else has meanwhile.
func (r *Revocations) put(ctx context.Context, j *Job, over *afterlogin.Entry) error {
	detail, err := j.encode()
	if err != nil {
		return err
	}
	e, err := r.authority.ChangeEntry(ctx, over, detail)
	if err == nil {
		j.entry = e
	}
	return err
}

// change reads the job, lets f change it and writes it, until nobody was in between. f may return errSame.
func (r *Revocations) change(ctx context.Context, id string, f func(*Job) error) (*Job, error) {
	for range casTry {
		j, err := r.read(ctx, id)
		if err != nil {
			return nil, err
		}
		switch err := f(j); {
		case errors.Is(err, errSame):
			return j, r.withProgress(ctx, j)
		case err != nil:
			return nil, err
		}
		err = r.put(ctx, j, j.entry)
		if errors.Is(err, afterlogin.ErrEntryChanged) {
			continue
		}
		if err != nil {
			return nil, err
		}
		r.poke()
		return j, r.withProgress(ctx, j)
	}
	return nil, ErrBusy
}

// work is the entry of a job's lease and progress. A progress that cannot be read is that of a server nobody knows: it is
// silent, so that its lease runs out.
func (r *Revocations) work(ctx context.Context, j *Job) (*afterlogin.Entry, *Progress, error) {
	left := j.Created.Add(workFor).Sub(r.now())
	if left <= 0 {
		left = time.Hour
	}
	es, err := r.authority.TemporaryEntries(ctx, 0, realm, j.ID, left)
	if err != nil || len(es) == 0 {
		return nil, nil, err
	}
	e := es[len(es)-1]
	p := &Progress{}
	if err := json.Unmarshal(e.Detail, p); err != nil {
		r.log.Error("the progress of a revocation cannot be read", "revocation", j.ID, "err", err)
		p = &Progress{Owner: "?", Phase: j.State}
	}
	return e, p, nil
}

// withProgress adds how far a job is, or that it waits for this server's clock, if nobody else works at it.
func (r *Revocations) withProgress(ctx context.Context, j *Job) error {
	if j.State.working() {
		_, p, err := r.work(ctx, j)
		if err != nil {
			return err
		}
		if p != nil && p.Phase == j.State {
			j.Progress = *p
		}
	}
	if j.Progress.Owner == "" && j.timed(r.now()) && r.clock() != nil {
		if j.Progress.Phase == "" {
			j.Progress = Progress{Phase: j.State, Done: j.Frozen, Total: j.Preview.Matched, Began: j.Confirmed, Updated: r.now().UTC()}
		}
		j.Progress.Waiting = waitClock
	}
	return nil
}
