package afterlogin

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/afterlogin/afterlogin/jwt"
	"github.com/afterlogin/afterlogin/store"
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
	var said struct {
		Audience json.RawMessage `json:"aud"`
	}
	var aud []string
	err := json.Unmarshal(payload, &said)
	if err == nil && json.Unmarshal(said.Audience, &aud) != nil {
		aud = make([]string, 1)
		err = json.Unmarshal(said.Audience, &aud[0])
	}
	v := jwt.Verifier{Keys: a.jwtKeys, Issuer: a.issuer, Audience: aud, Type: jwt.TypeAccessToken, Now: a.now}
	var c *jwt.Claims
	if err == nil {
		c, err = v.Verify(ctx, t.Reveal())
	}
	why := ReasonForged
	if r := ReasonOf(jwtRefusal(err)); err != nil && r != "" {
		why = r
	}
	var of store.ID
	if err == nil {
		_, of, err = jwtRecords(c)
	}
	if !ex.step("claims", err == nil, why, map[bool]string{
		true:  fmt.Sprintf("for %.200s", said.Audience),
		false: "signed, but over, of another type, or without a session",
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
	ex.describe(a, x)
	why, cause, at := x.standing()
	ex.Valid = ex.step("standing", why == "", why, map[bool]string{true: x.life(), false: ended(why, cause, at)})
	return ex
}
