package api

import (
	"context"
	"net/http"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/rehearsal"
)

type rehearsalOutput struct{ Body *rehearsal.Report }

func (a *API) rehearsalRoutes() {
	register(a, route{
		method: http.MethodGet, path: "/v1/rehearsal", scope: ServerRead, id: "rehearsal", status: http.StatusOK,
		errors:  []int{http.StatusNotFound},
		summary: "See whom stricter rules would have signed out",
		text: "What the rules under `rehearsal` in the configuration would have done since the server's start, while the real ones went on. " +
			"The counts are of the server that answers, and begin anew with it. " +
			"The examples name sessions and subjects, and are there for keys that have the scope sessions:read, too.",
	}, func(ctx context.Context, _ *struct{}) (*rehearsalOutput, error) {
		if a.rehearsal == nil || !a.rehearsal.Any() {
			return nil, NewProblem(http.StatusNotFound, "not-configured", "no rule is rehearsed: set rehearsal.policies or rehearsal.session_limits")
		}
		r := a.rehearsal.Report()
		if need(ctx, "the examples", SessionsRead) != nil {
			for i := range r.Rules {
				r.Rules[i].Examples = []rehearsal.Example{}
			}
		}
		return &rehearsalOutput{r}, nil
	})
}
