package api

import (
	"context"
	"net/http"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/pulse"
)

type overviewInput struct {
	Seconds int `query:"seconds" minimum:"0" maximum:"300" default:"300" doc:"How many points of a second to answer with."`
	Minutes int `query:"minutes" minimum:"0" maximum:"1440" default:"1440" doc:"How many points of a minute to answer with."`
}

type overviewOutput struct{ Body *pulse.Overview }

func (a *API) overviewRoutes() {
	register(a, route{
		method: http.MethodGet, path: "/v1/overview", scope: ServerRead, id: "overview", status: http.StatusOK,
		errors:  []int{http.StatusNotFound},
		summary: "See how the server does",
		text: "What is live, what happened over the last five minutes and the last 24 hours, how long validations took, and the latest signs of theft: from memory, at once. " +
			"It begins anew when the server does. Validations, refusals and times are those of the server that answers; sign-ins, endings and alarms are those of all servers on the store. " +
			"The alarms name sessions and subjects, and are there for keys that have the scope sessions:read, too; others see how many there were.",
	}, func(ctx context.Context, in *overviewInput) (*overviewOutput, error) {
		if a.pulse == nil {
			return nil, NewProblem(http.StatusNotFound, "not-configured", "this server keeps no figures over time")
		}
		o := a.pulse.Overview(in.Seconds, in.Minutes)
		if need(ctx, "the alarms", SessionsRead) != nil {
			o.Alarms = []pulse.Alarm{}
		}
		return &overviewOutput{o}, nil
	})
}

// Streams returns how many clients follow the events of this node now.
func (a *API) Streams() int {
	a.streams.mu.Lock()
	defer a.streams.mu.Unlock()
	return a.streams.open
}
