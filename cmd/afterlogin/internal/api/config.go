package api

import (
	"context"
	"net/http"
)

// Setting is one setting of the server as it is in effect.
type Setting struct {
	Key    string `json:"key" doc:"As in the configuration file."`
	Value  string `json:"value" doc:"Secrets are masked."`
	Source string `json:"source" doc:"Where it came from: default, the file with its line, a variable, a flag."`
	Doc    string `json:"doc,omitempty" doc:"What it does."`
}

// Settings are all settings of the server.
type Settings struct {
	Data []Setting `json:"data"`
}

type settingsOutput struct{ Body Settings }

func (a *API) configRoutes() {
	register(a, route{
		method: http.MethodGet, path: "/v1/config", scope: ServerRead, id: "show-config", status: http.StatusOK,
		errors: []int{http.StatusNotFound}, summary: "Show the effective configuration of this server",
		text: "Every setting, with its value and where that came from. Secrets are masked. Servers that share a store have each their own.",
	}, func(context.Context, *struct{}) (*settingsOutput, error) {
		if a.settings == nil {
			return nil, NewProblem(http.StatusNotFound, "not-configured", "this server was started without a configuration")
		}
		return &settingsOutput{Settings{Data: a.settings()}}, nil
	})
}
