package console

import (
	"strings"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/api"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/rehearsal"
)

// rehearsalData is what the page of the rehearsal shows.
type rehearsalData struct {
	Report *rehearsal.Report // nil: nothing is rehearsed
	Limits []api.Setting     // that hold
}

// rehearsal shows whom stricter rules would have signed out, and the session limits that hold.
func (v *visit) rehearsal() error {
	var d rehearsalData
	var report rehearsal.Report
	switch err := v.get("/v1/rehearsal", nil, &report); {
	case err == nil:
		d.Report = &report
	case problemOf(err) == nil || problemOf(err).Kind() != "not-configured":
		return err
	}
	var settings api.Settings
	switch err := v.get("/v1/config", nil, &settings); {
	case err == nil:
		for _, s := range settings.Data {
			if strings.HasPrefix(s.Key, "session_limits") || strings.HasPrefix(s.Key, "rehearsal.") {
				d.Limits = append(d.Limits, s)
			}
		}
	case problemOf(err) == nil || problemOf(err).Kind() != "not-configured":
		return err
	}
	return v.show("rehearsal", "Rehearsal and limits", d)
}

// share is how much of a whole a part is, in words.
func share(part, whole int) string {
	switch {
	case whole == 0:
		return "none"
	case part == 0:
		return "0 %"
	case part*100 < whole:
		return "under 1 %"
	}
	return thousands(part*100/whole) + " %"
}

// ruleWords says what a rule does.
func ruleWords(r rehearsal.Rule) string {
	switch r.Rule {
	case "idle":
		return "ended after " + r.Setting + " without use"
	case "absolute":
		return "ended after " + r.Setting + " in any case"
	case "grace":
		return "an old token is good for " + r.Setting
	}
	what := "at most " + r.Setting + " at once"
	switch r.AtLimit {
	case "deny":
		return what + ", no more are made"
	case "end_oldest":
		return what + ", the oldest is ended"
	}
	return what
}
