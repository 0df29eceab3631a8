package console

import "github.com/afterlogin/afterlogin/cmd/afterlogin/internal/api"

// configuration shows what the server is set to.
func (v *visit) configuration() error {
	var s api.Settings
	if err := v.get("/v1/config", nil, &s); err != nil {
		return err
	}
	return v.show("configuration", "Effective configuration", s)
}
