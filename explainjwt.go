package afterlogin

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/afterlogin/afterlogin/jwt"
)

// explainJWT examines a signed token: its signature, its time, and what it was made from. Who it is for it only says.
func (a *Authority) explainJWT(ctx context.Context, t Token, ex *Explanation) (*Explanation, error) {
	var payload []byte
	for _, k := range a.JWKS().All() {
		if b, err := k.VerifyJWS(t.Reveal()); err == nil {
			payload = b
			break
		}
	}
	if !ex.step("signature", payload != nil, ReasonForged, map[bool]string{
		true:  "a JWT, signed by this installation",
		false: "not a JWT of this installation: altered, signed by somebody else, or its key was retired",
	}) {
		return ex, nil
	}
	var c struct {
		SessionID string          `json:"sid"`
		Grant     json.RawMessage `json:"grant"`
		Expiry    int64           `json:"exp"`
		Audience  json.RawMessage `json:"aud"`
	}
	claims := &jwt.Claims{}
	err := json.Unmarshal(payload, &c)
	if claims.SessionID = c.SessionID; c.Grant != nil {
		claims.Extra = map[string]json.RawMessage{grantClaim: c.Grant}
	}
	_, of, rerr := jwtRecords(claims)
	if !ex.step("claims", err == nil && rerr == nil, ReasonForged, map[bool]string{
		true:  fmt.Sprintf("for %.200s, below %.60s", c.Audience, c.SessionID),
		false: "signed, but it names no session: another type of token",
	}) {
		return ex, nil
	}
	end := time.Unix(c.Expiry, 0).UTC()
	if !ex.step("time", ex.At.Before(end), ReasonExpired, map[bool]string{
		true: "good until " + end.Format(time.RFC3339), false: "over since " + end.Format(time.RFC3339),
	}) {
		return ex, nil
	}
	x := &exam{now: ex.At}
	if err := a.read(ctx, x, of); err != nil {
		return nil, err
	}
	return a.explainStanding(x, ex), nil
}

// explainStanding takes the two steps that every token with a record has in common, and reports the session.
func (a *Authority) explainStanding(x *exam, ex *Explanation) *Explanation {
	if !ex.step("record", x.rec != nil, ReasonUnknown, map[bool]string{
		true:  "found",
		false: "there is no such session (any more)",
	}) {
		return ex
	}
	ex.Session = x.described()
	why, cause, at := x.standing()
	ex.Valid = ex.step("standing", why == "", why, map[bool]string{true: x.life(), false: ended(why, cause, at)})
	return ex
}
