package api

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/config"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/revocation"
)

// CreateRevocationRequest says what to end.
type CreateRevocationRequest struct {
	Query      string `json:"query" doc:"What to end: client=mobile last_seen<90d. docs/search.md explains it." maxLength:"1000"`
	All        bool   `json:"all,omitempty" doc:"Everything that is not over is meant, by a query without a term. Without this such a query is refused."`
	UndoWindow string `json:"undo_window,omitempty" doc:"For how long what was confirmed is only on hold, and can be taken back: 10m, if absent; 0 ends it at once; at most 24h." maxLength:"32"`
	DryRun     bool   `json:"dry_run,omitempty" doc:"Only count: it cannot be confirmed."`
}

// ConfirmRequest confirms what was counted.
type ConfirmRequest struct {
	Count     int `json:"count" minimum:"0" doc:"The number that was seen: matched. If it is another one by now, the answer is 409."`
	Tolerance int `json:"tolerance,omitempty" minimum:"0" doc:"How far it may be off. No more than count and tolerance together are ended; if more match when it comes to it, nothing is."`
}

// Revocation is a job that ends sessions by a query.
type Revocation struct {
	ID        string    `json:"id" doc:"rev_…; also what the sessions that it holds are frozen for: why=rev_… finds them."`
	State     string    `json:"state" enum:"counting,ready,freezing,frozen,revoking,done,thawing,undone,cancelled,failed" doc:"counting, ready (to be confirmed), freezing, frozen (to be undone until undo_until), revoking, done; thawing, undone; cancelled; failed."`
	Query     string    `json:"query"`
	All       bool      `json:"all,omitempty"`
	DryRun    bool      `json:"dry_run,omitempty"`
	Undo      string    `json:"undo_window"`
	CreatedAt time.Time `json:"created_at" doc:"The query is meant as of then: last_seen<90d is 90 days before."`
	CreatedBy string    `json:"created_by,omitempty"`

	Matched  int      `json:"matched" doc:"How many there are to end, by the count."`
	Held     int      `json:"held,omitempty" doc:"Of these, how many are on hold already, for another reason. They stay so if the job is undone, and are ended with it if they still are; if somebody has taken them off hold, it fails. What is put on hold later, for another reason, is left alone."`
	LeftOut  int      `json:"left_out,omitempty" doc:"How many match besides, and are left alone: API keys and grants, if the caller lacks api-keys:write, and what is the server's own, if it lacks admin."`
	Kinds    []Share  `json:"kinds,omitempty"`
	Policies []Share  `json:"policies,omitempty" doc:"The largest first, at most 10."`
	Clients  []Share  `json:"clients,omitempty" doc:"OAuth clients, the largest first, at most 10."`
	Examples []*Found `json:"examples,omitempty" doc:"Up to 20 of them. Only when one revocation is asked for."`

	ConfirmedAt *time.Time   `json:"confirmed_at,omitempty"`
	ConfirmedBy string       `json:"confirmed_by,omitempty"`
	Most        int          `json:"most,omitempty" doc:"No more than these are ended; after a crash in the middle of a job without an undo window, what came to match in its last second may be ended besides (at_least)."`
	Frozen      int          `json:"frozen,omitempty" doc:"How many were put on hold."`
	FrozenAt    *time.Time   `json:"frozen_at,omitempty"`
	UndoUntil   *time.Time   `json:"undo_until,omitempty" doc:"When what is frozen is ended."`
	Revoked     int          `json:"revoked,omitempty" doc:"How many were ended, also by one that has failed."`
	Thawed      int          `json:"thawed,omitempty" doc:"How many were taken off hold."`
	Gone        int          `json:"gone,omitempty" doc:"How many had ended by themselves meanwhile, or were taken off hold one by one."`
	AtLeast     bool         `json:"at_least,omitempty" doc:"revoked, or thawed, is at least: a server has died in the middle, or the store did not answer."`
	FinishedAt  *time.Time   `json:"finished_at,omitempty"`
	StoppedBy   string       `json:"stopped_by,omitempty" doc:"Who undid or cancelled it."`
	FailedWhy   string       `json:"failed_why,omitempty" doc:"Why it has failed. What it froze is good again then, unless revoked says that it had begun to end it: the rest stays on hold, and why=rev_… finds it."`
	Progress    *JobProgress `json:"progress,omitempty" doc:"While something is done, or waits."`
}

// Share is how many have something in common.
type Share struct {
	Name  string `json:"name"`
	Count int    `json:"count"`
}

// JobProgress is how far the work at a revocation is. It is written about once a second.
type JobProgress struct {
	Done             int       `json:"done" doc:"While counting: how many match so far."`
	Total            int       `json:"total,omitempty" doc:"Absent if it is not known."`
	Looked           int       `json:"looked" doc:"How many sessions were looked at."`
	Rate             float64   `json:"rate,omitempty" doc:"How many a second."`
	RemainingSeconds int       `json:"remaining_seconds,omitempty" doc:"About; absent if it is not known."`
	BeganAt          time.Time `json:"began_at"`
	UpdatedAt        time.Time `json:"updated_at"`
	Waiting          string    `json:"waiting,omitempty" doc:"What it waits for, if it does: the store, or a clock."`
	Node             string    `json:"node,omitempty" doc:"The server that works at it."`
}

// RevocationList is all revocations that are kept.
type RevocationList struct {
	Data []*Revocation `json:"data" doc:"The latest first. Up to 200 are kept."`
}

type createRevocationInput struct{ Body CreateRevocationRequest }

// RevocationIDInput is the id in the path.
type RevocationIDInput struct {
	ID string `path:"id" doc:"A revocation's id, rev_…." maxLength:"64"`
}

type confirmInput struct {
	RevocationIDInput
	Body ConfirmRequest
}

type revocationOutput struct{ Body *Revocation }

type createdRevocationOutput struct {
	Location string `header:"Location"`
	Body     *Revocation
}

type revocationListOutput struct{ Body RevocationList }

func (a *API) revocationRoutes() {
	changes := []int{http.StatusNotFound, http.StatusConflict}
	register(a, route{
		method: http.MethodPost, path: "/v1/revocations", scope: SessionsWrite, id: "create-revocation", status: http.StatusCreated,
		errors:  append(slices.Clone(changes), http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType),
		summary: "Count what a query means, to end it",
		text: "Nothing is ended before the number is confirmed: ask for the revocation until it is `ready`, look at the number and the examples, and confirm. " +
			"API keys and grants are meant only if the caller has `api-keys:write` or `admin` besides, and what is the server's own only with `admin`. The key that asks is left alone.",
	}, a.createRevocation)
	register(a, route{
		method: http.MethodGet, path: "/v1/revocations", scope: SessionsRead, id: "list-revocations", status: http.StatusOK,
		errors: []int{http.StatusNotFound}, summary: "List revocations by query",
	}, a.listRevocations)
	register(a, route{
		method: http.MethodGet, path: "/v1/revocations/{id}", scope: SessionsRead, id: "show-revocation", status: http.StatusOK,
		errors: []int{http.StatusNotFound}, summary: "Show a revocation by query", text: "With its progress and examples.",
	}, func(ctx context.Context, in *RevocationIDInput) (*revocationOutput, error) {
		if a.jobs == nil {
			return nil, noJobs()
		}
		j, err := a.jobs.Job(ctx, in.ID)
		if err != nil {
			return nil, badJob(err)
		}
		out, err := a.withExamples(ctx, j)
		if err != nil {
			return nil, err
		}
		return &revocationOutput{out}, nil
	})
	register(a, route{
		method: http.MethodPost, path: "/v1/revocations/{id}/confirm", scope: SessionsWrite, id: "confirm-revocation", status: http.StatusOK,
		errors:  append(slices.Clone(changes), http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType),
		summary: "Confirm what was counted",
		text: "It is frozen at once, and ended after the undo window. Whoever confirms needs the scopes that the count was made with. " +
			"A number that is not the counted one is answered 409 `revocation-count`.",
	}, a.confirmRevocation)
	register(a, route{
		method: http.MethodPost, path: "/v1/revocations/{id}/undo", scope: SessionsWrite, id: "undo-revocation", status: http.StatusOK,
		errors: changes, summary: "Take back a revocation by query",
		text: "Everything that it froze, and nothing else, is good again. It takes no body, works until `undo_until`, and needs the scopes that confirming needs.",
	}, a.stopRevocation((*revocation.Revocations).Undo))
	register(a, route{
		method: http.MethodPost, path: "/v1/revocations/{id}/cancel", scope: SessionsWrite, id: "cancel-revocation", status: http.StatusOK,
		errors: changes, summary: "Give up a revocation that was not confirmed", text: "It takes no body, and needs the scopes that confirming needs.",
	}, a.stopRevocation((*revocation.Revocations).Cancel))
}

func noJobs() error {
	return NewProblem(http.StatusNotFound, "not-configured", "this server ends nothing by query")
}

// badJob turns the errors of revocations into answers.
func badJob(err error) error {
	switch {
	case errors.Is(err, revocation.ErrNoJob):
		return NewProblem(http.StatusNotFound, "no-such-revocation", "there is no such revocation, or it was made long ago")
	case errors.Is(err, revocation.ErrState):
		return NewProblem(http.StatusConflict, "revocation-state", err.Error())
	case errors.Is(err, revocation.ErrCount):
		return NewProblem(http.StatusConflict, "revocation-count", err.Error(), FieldError{"body.count", err.Error()})
	case errors.Is(err, revocation.ErrBusy):
		return NewProblem(http.StatusConflict, "revocations-busy", "too many revocations are under way: wait for one to end, or cancel one")
	case errors.Is(err, revocation.ErrEverything):
		return invalid("body.query", "a query without a term means everything that is not over: if that is meant, set all to true")
	case errors.Is(err, revocation.ErrUndo):
		return invalid("body.undo_window", "want a time of at most 24h, or 0 for none")
	}
	return err
}

// rights are what the caller may end besides sessions.
func rights(ctx context.Context) revocation.Rights {
	return revocation.Rights{Keys: need(ctx, "", APIKeysWrite, Admin) == nil, Admin: need(ctx, "", Admin) == nil}
}

func (a *API) createRevocation(ctx context.Context, in *createRevocationInput) (*createdRevocationOutput, error) {
	if a.jobs == nil {
		return nil, noJobs()
	}
	q, err := parseQuery("body.query", in.Body.Query)
	if err != nil {
		return nil, err
	}
	if in.Body.All && len(q.Terms()) > 0 {
		return nil, invalid("body.all", "goes with a query without a term: leave one of them away")
	}
	r := revocation.Request{Query: q, All: in.Body.All, DryRun: in.Body.DryRun, By: afterlogin.ActorOf(ctx), Rights: rights(ctx)}
	if c := caller(ctx); c != nil {
		r.Spared = c.ID
	}
	if text := in.Body.UndoWindow; text != "" {
		d, err := config.ParseDuration(text)
		if err != nil {
			return nil, invalid("body.undo_window", "%v", err)
		}
		r.Undo = &d
	}
	j, err := a.jobs.Create(ctx, r)
	if err != nil {
		return nil, badJob(err)
	}
	return &createdRevocationOutput{Location: "/v1/revocations/" + j.ID, Body: newRevocation(j)}, nil
}

// maySteer fails unless the caller may do to everything that the job means what is to be done to it.
func maySteer(ctx context.Context, j *revocation.Job) error {
	beyond := slices.ContainsFunc(j.Preview.Kinds, func(g revocation.Group) bool { return g.Name != afterlogin.KindSession.String() })
	switch mine := rights(ctx); {
	case j.Rights.Keys && beyond && !mine.Keys:
		return need(ctx, "a revocation of API keys and grants", APIKeysWrite, Admin)
	case j.Rights.Admin && !mine.Admin:
		return need(ctx, "what an administrator has asked for", Admin)
	}
	return nil
}

// stopRevocation undoes or cancels.
func (a *API) stopRevocation(how func(*revocation.Revocations, context.Context, string, string) (*revocation.Job, error)) func(context.Context, *RevocationIDInput) (*revocationOutput, error) {
	return func(ctx context.Context, in *RevocationIDInput) (*revocationOutput, error) {
		if a.jobs == nil {
			return nil, noJobs()
		}
		j, err := a.jobs.Job(ctx, in.ID)
		if err != nil {
			return nil, badJob(err)
		}
		if err := maySteer(ctx, j); err != nil {
			return nil, err
		}
		if j, err = how(a.jobs, ctx, in.ID, afterlogin.ActorOf(ctx)); err != nil {
			return nil, badJob(err)
		}
		return &revocationOutput{newRevocation(j)}, nil
	}
}

func (a *API) confirmRevocation(ctx context.Context, in *confirmInput) (*revocationOutput, error) {
	if a.jobs == nil {
		return nil, noJobs()
	}
	j, err := a.jobs.Job(ctx, in.ID)
	if err != nil {
		return nil, badJob(err)
	}
	if err := maySteer(ctx, j); err != nil {
		return nil, err
	}
	c := revocation.Confirmation{Count: in.Body.Count, Tolerance: in.Body.Tolerance, By: afterlogin.ActorOf(ctx), Rights: rights(ctx)}
	if key := caller(ctx); key != nil {
		c.Spared = key.ID
	}
	if j, err = a.jobs.Confirm(ctx, in.ID, c); err != nil {
		return nil, badJob(err)
	}
	return &revocationOutput{newRevocation(j)}, nil
}

func (a *API) listRevocations(ctx context.Context, _ *struct{}) (*revocationListOutput, error) {
	if a.jobs == nil {
		return nil, noJobs()
	}
	jobs, err := a.jobs.List(ctx)
	if err != nil {
		return nil, err
	}
	out := &revocationListOutput{RevocationList{Data: make([]*Revocation, 0, len(jobs))}}
	for _, j := range jobs {
		out.Body.Data = append(out.Body.Data, newRevocation(j))
	}
	return out, nil
}

func newRevocation(j *revocation.Job) *Revocation {
	out := &Revocation{
		ID: j.ID, State: string(j.State), Query: j.Query, All: j.All, DryRun: j.DryRun, Undo: config.Duration(j.Undo).String(),
		CreatedAt: j.Created, CreatedBy: j.By,
		Matched: j.Preview.Matched, Held: max(j.Preview.Held, j.Held), LeftOut: j.Preview.LeftOut,
		Kinds: shares(j.Preview.Kinds), Policies: shares(j.Preview.Policies), Clients: shares(j.Preview.Clients),
		ConfirmedAt: stamp(j.Confirmed), ConfirmedBy: j.ConfirmedBy, Most: j.Most,
		Frozen: j.Frozen, FrozenAt: stamp(j.FrozenAt), UndoUntil: stamp(j.UndoUntil), Revoked: j.Revoked, Thawed: j.Thawed, Gone: j.Gone, AtLeast: j.AtLeast,
		FinishedAt: stamp(j.Finished), StoppedBy: j.Stopped, FailedWhy: j.Why,
	}
	if p := j.Progress; !p.Began.IsZero() {
		out.Progress = &JobProgress{
			Done: p.Done, Total: p.Total, Looked: p.Looked, Rate: float64(int(p.Rate*10)) / 10, RemainingSeconds: int(p.Left / time.Second),
			BeganAt: p.Began, UpdatedAt: p.Updated, Waiting: p.Waiting, Node: p.Owner,
		}
	}
	return out
}

func shares(gs []revocation.Group) (out []Share) {
	for _, g := range gs {
		out = append(out, Share(g))
	}
	return out
}

// withExamples shows some of what a job is about, as it is now.
func (a *API) withExamples(ctx context.Context, j *revocation.Job) (*Revocation, error) {
	out := newRevocation(j)
	for _, id := range j.Preview.Examples {
		s, err := a.authority.Session(ctx, id)
		switch {
		case err == nil:
			out.Examples = append(out.Examples, newFound(s))
		case !errors.Is(err, afterlogin.ErrNoSession):
			return nil, err // fewer examples would look like the whole
		}
	}
	return out, nil
}
