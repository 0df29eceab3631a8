package console

import (
	"net/http"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/api"
)

// signingKeys lists the keys that sign JWTs.
func (v *visit) signingKeys() error {
	var list api.SigningKeys
	if err := v.get("/v1/keys", nil, &list); err != nil {
		return err
	}
	return v.show("signing-keys", "Signing keys", list)
}

func (v *visit) rotateSigning() error {
	in := api.RotateSigningRequest{Algorithm: v.field("algorithm"), Lead: v.field("lead")}
	if err := v.post("/v1/keys/rotate", in, nil); err != nil {
		if p := problemOf(err); p == nil || p.Status == http.StatusForbidden {
			return err
		}
		var list api.SigningKeys
		if err := v.get("/v1/keys", nil, &list); err != nil {
			return err
		}
		return v.again("signing-keys", "Signing keys", list, err)
	}
	return v.done("/signing-keys", "key-rotated")
}

func (v *visit) askRetire() error {
	kid := v.r.PathValue("kid")
	return v.confirm("Take this signing key away?", question{
		Text: []string{
			"Do this if the private half of the key got out. What it signed is refused here at once, and elsewhere when verifiers read the keys again, within 10 minutes.",
			"Until then they refuse what the next key signs, too: people may have to try again. To replace a key in peace, rotate instead.",
			"The key is " + kid + ".",
		},
		Button: "Take the key away", Action: "/signing-keys/" + seg(kid) + "/retire", Back: "/signing-keys",
	})
}

func (v *visit) retire() error {
	if err := v.call(http.MethodPost, "/v1/keys/"+seg(v.r.PathValue("kid"))+"/retire", nil, nil, nil); err != nil {
		return err
	}
	return v.done("/signing-keys", "key-retired")
}
