package console

import (
	"strings"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/api"
)

func (v *visit) explain() error { return v.show("explain", "Explain", (*api.Explanation)(nil)) }

// explainIt explains what was typed: a token, a handle, or the beginning of one. It is kept nowhere, and not shown again.
func (v *visit) explainIt() error {
	text := v.field("what")
	in := explainRequest(text)
	if ip := v.field("ip"); ip != "" && in.Token != "" {
		in.Device = &api.DeviceInput{IP: ip}
	}
	v.form.Del("what")
	var ex api.Explanation
	err := error(nil)
	if text == "" {
		err = fieldProblem("token", "paste a token, a handle, or the beginning of one")
	} else {
		err = v.post("/v1/explain", in, &ex)
	}
	if err != nil {
		if p := problemOf(err); p != nil { // the form has one field for three of the API
			for i, e := range p.Errors {
				if e.Location == "body.id" || e.Location == "body.prefix" || e.Location == "body.token" {
					p.Errors[i].Location = "body.what"
				}
			}
		}
		return v.again("explain", "Explain", (*api.Explanation)(nil), err)
	}
	return v.show("explain", "Explain", &ex)
}

// tokenLength is the length of the shortest whole token that is no JWT.
const tokenLength = 88

// explainRequest tells by its form what was typed.
func explainRequest(text string) api.ExplainRequest {
	switch {
	case afterlogin.SessionID(text).Whole():
		return api.ExplainRequest{ID: text}
	case len(text) < tokenLength && strings.Contains(text, "_") && !strings.Contains(text, "."):
		return api.ExplainRequest{Prefix: text}
	}
	return api.ExplainRequest{Token: text}
}
