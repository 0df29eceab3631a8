package api

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/device"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/query"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/roster"
)

// Found is a session that a search has found.
type Found struct {
	Session
	State      string `json:"state" enum:"live,frozen,ended" doc:"live is good; frozen is on hold; ended says in ended_reason why."`
	DeviceName string `json:"device_name,omitempty" doc:"What to call the device that it was made on: Firefox on Windows."`
}

func newFound(s *afterlogin.Session) *Found {
	f := &Found{Session: *newSession(s), State: "live"}
	switch {
	case !s.Ended.IsZero():
		f.State = "ended"
	case s.Frozen():
		f.State = "frozen"
	}
	if s.Device.UserAgent != "" {
		f.DeviceName = device.Name(s.Device.UserAgent)
	}
	return f
}

// FoundList is a page of what a search has found.
type FoundList struct {
	Data     []*Found `json:"data"`
	Next     string   `json:"next_cursor,omitempty" doc:"The cursor of the next page. Absent on the last. A page may hold fewer than the limit, or none, and still not be the last."`
	Query    string   `json:"query" doc:"The query as it was understood."`
	Total    int      `json:"total" doc:"How many there are in all; total_is says how exact that is."`
	TotalIs  string   `json:"total_is" enum:"exact,at_least,about" doc:"exact: as of as_of. at_least: there may be more. about: it hangs on last uses, counts what is over and may be cleaned away, or changes since as_of were missed and are looked for."`
	Sort     string   `json:"sort" doc:"The order of the answer. store: by the hour in which they end, since there is no index to sort with."`
	AsOf     string   `json:"as_of,omitempty" doc:"Up to when changes are known to what the search goes by. What is shown was read from the store for this answer."`
	UsesAsOf string   `json:"uses_as_of,omitempty" doc:"Up to when last uses are known at least, for last_seen and for that order."`
	Indexing Indexing `json:"indexing" doc:"What the answer was made from."`
}

// Indexing is the state of the index of sessions of the server that answers.
type Indexing struct {
	State   string `json:"state" enum:"ready,building,off,too-many,direct" doc:"ready: the index. building, off, too-many: there is none yet, none by the setting console.index, or none since there are too many; pages come from a bounded look through the store, and may be short. direct: the sessions of one subject, from the store."`
	Rows    int    `json:"rows" doc:"How many rows the index has; while it is being built, so far."`
	Percent int    `json:"percent,omitempty" doc:"How far the building is, if that can be told."`
}

type searchInput struct {
	Q      string `query:"q" doc:"The query: client=mobile last_seen<90d. Absent: everything that is not over. docs/search.md explains it." maxLength:"1000"`
	Sort   string `query:"sort" enum:"-created,created,-last_seen,last_seen,expires,-expires" default:"-created" doc:"The order; - is the latest first."`
	Limit  int    `query:"limit" minimum:"1" maximum:"1000" default:"50"`
	Cursor string `query:"cursor" doc:"next_cursor of the page before, with the same q and sort." maxLength:"128"`
}

type searchOutput struct{ Body FoundList }

func (a *API) searchRoutes() {
	register(a, route{
		method: http.MethodGet, path: "/v1/search", scope: SessionsRead, id: "search-sessions", status: http.StatusOK,
		errors: []int{http.StatusNotFound}, summary: "Search sessions, grants and API keys",
		text: "Terms that must all hold: `client=mobile last_seen<90d`, `ip in 203.0.113.0/24 state=frozen`. " +
			"Without a term about `state` or `why`, only what is not over.",
	}, a.search)
}

// parseQuery reads a query that stands at the location of the request.
func parseQuery(location, text string) (*query.Query, error) {
	q, err := query.Parse(text)
	var bad *query.Error
	if errors.As(err, &bad) {
		return nil, NewProblem(http.StatusUnprocessableEntity, "bad-search", location+": "+bad.Error(), FieldError{location, bad.Error()})
	}
	return q, err
}

func (a *API) search(ctx context.Context, in *searchInput) (*searchOutput, error) {
	if a.roster == nil {
		return nil, NewProblem(http.StatusNotFound, "not-configured", "this server does not search")
	}
	q, err := parseQuery("query.q", in.Q)
	if err != nil {
		return nil, err
	}
	p, err := a.roster.Search(ctx, roster.Request{Query: q, Limit: in.Limit, Sort: roster.Sort(in.Sort), Cursor: in.Cursor})
	switch {
	case errors.Is(err, roster.ErrCursor):
		return nil, afterlogin.ErrBadCursor
	case errors.Is(err, roster.ErrRequest):
		return nil, invalid("query.sort", "there is no such order")
	case err != nil:
		return nil, err
	}
	out := &searchOutput{FoundList{
		Data: make([]*Found, 0, len(p.Sessions)), Next: p.Next, Query: q.String(),
		Total: p.Total, TotalIs: p.TotalIs, Sort: string(p.Sort), AsOf: moment(p.Progress.AsOf), UsesAsOf: moment(p.Progress.UsesAsOf),
		Indexing: Indexing{State: string(p.Progress.State), Rows: p.Progress.Rows, Percent: p.Progress.Percent},
	}}
	if p.Direct {
		out.Body.Indexing.State = "direct"
	}
	for _, s := range p.Sessions {
		out.Body.Data = append(out.Body.Data, newFound(s))
	}
	return out, nil
}

// moment writes a time, and nothing for none.
func moment(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}
