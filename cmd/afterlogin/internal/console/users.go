package console

import (
	"encoding/json"
	"net/http"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/api"
)

func validJSON(b []byte) bool { return json.Valid(b) }

// users lists the built-in users.
func (v *visit) users() error {
	q := v.query("cursor")
	q.Set("limit", pageSize)
	var list api.UserList
	if err := v.get("/v1/users", q, &list); err != nil {
		return err
	}
	return v.show("users", "Users", list)
}

// user shows one.
func (v *visit) user() error {
	var u api.User
	if err := v.get("/v1/users/"+seg(v.r.PathValue("name")), nil, &u); err != nil {
		return err
	}
	return v.show("user", "User", u)
}

func (v *visit) newUser() error { return v.show("user-new", "Add a user", nil) }

func (v *visit) makeUser() error {
	in := api.CreateUserRequest{Name: v.field("name"), Password: v.form.Get("password"), Scopes: v.words("scopes")}
	if err := v.post("/v1/users", in, nil); err != nil {
		return v.again("user-new", "Add a user", nil, err)
	}
	return v.done("/users/"+seg(in.Name), "user-made")
}

func (v *visit) askDisable() error {
	name := v.r.PathValue("name")
	return v.confirm("Disable "+name+"?", question{
		Text:   []string{name + " cannot sign in any more, and all sessions, grants and API keys end at once. You can enable the user again; what ended stays ended."},
		Button: "Disable the user", Action: "/users/" + seg(name) + "/disable", Back: "/users/" + seg(name),
	})
}

func (v *visit) disable() error { return v.setDisabled(true, "user-disabled") }

func (v *visit) enable() error { return v.setDisabled(false, "user-enabled") }

func (v *visit) setDisabled(is bool, what string) error {
	name := v.r.PathValue("name")
	if err := v.call(http.MethodPatch, "/v1/users/"+seg(name), nil, api.ChangeUserRequest{Disabled: &is}, nil); err != nil {
		return err
	}
	return v.done("/users/"+seg(name), what)
}

// setPassword gives a user another password. What was typed is never shown again.
func (v *visit) setPassword() error {
	name := v.r.PathValue("name")
	err := v.call(http.MethodPut, "/v1/users/"+seg(name)+"/password", nil, api.SetPasswordRequest{Password: v.form.Get("password")}, nil)
	if err == nil {
		return v.done("/users/"+seg(name), "password-set")
	}
	if p := problemOf(err); p == nil || p.Status != http.StatusUnprocessableEntity {
		return err
	}
	var u api.User
	if err := v.get("/v1/users/"+seg(name), nil, &u); err != nil {
		return err
	}
	return v.again("user", "User", u, err)
}
