package console

import (
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/api"
)

// clients lists OAuth clients.
func (v *visit) clients() error {
	var list api.ClientList
	if err := v.get("/v1/clients", nil, &list); err != nil {
		return err
	}
	return v.show("clients", "Clients", list)
}

// client shows one.
func (v *visit) client() error {
	var c api.Client
	if err := v.get("/v1/clients/"+seg(v.r.PathValue("id")), nil, &c); err != nil {
		return err
	}
	return v.show("client", "Client", c)
}

// grantTypes are what a client may use, with what they are for.
var grantTypes = []struct{ Value, Label string }{
	{"authorization_code", "people sign in to it (authorization_code)"},
	{"refresh_token", "it stays signed in (refresh_token)"},
	{"client_credentials", "it acts for itself (client_credentials)"},
	{"urn:ietf:params:oauth:grant-type:token-exchange", "it exchanges tokens (token-exchange)"},
}

type newClientData struct {
	Grants []struct{ Value, Label string }
	Chosen map[string]bool
}

func (v *visit) newClient() error {
	return v.show("client-new", "Register a client", newClientData{grantTypes, map[string]bool{"authorization_code": true, "refresh_token": true}})
}

// makeClient registers a client, and shows its secret once.
func (v *visit) makeClient() error {
	in := api.CreateClientRequest{ID: v.field("id"), ClientSettings: api.ClientSettings{
		Name: v.field("name"), Auth: v.field("auth"), GrantTypes: v.form["grant_types"], RedirectURIs: v.words("redirect_uris"),
		Scopes: v.words("scopes"), Resources: v.words("resources"), FirstParty: v.form.Get("first_party") != "", Offline: v.form.Get("offline") != "",
	}}
	if k := v.field("jwks"); k != "" {
		in.JWKS = []byte(k)
	}
	var made api.CreatedClient
	err := error(nil)
	if in.JWKS != nil && !validJSON(in.JWKS) {
		err = fieldProblem("jwks", "want a JWK Set: a JSON object with keys")
	} else {
		err = v.post("/v1/clients", in, &made)
	}
	if err != nil {
		d := newClientData{grantTypes, map[string]bool{}}
		for _, g := range in.GrantTypes {
			d.Chosen[g] = true
		}
		return v.again("client-new", "Register a client", d, err)
	}
	next := "/clients/" + seg(made.Client.ID)
	if made.Secret == "" {
		return v.done(next, "client-made")
	}
	return v.show("secret", "The client's secret", secretData{
		What: "client secret", Secret: made.Secret, Next: next, NextText: "To the client", Lines: []string{"The client_id is " + made.Client.ID + "."},
	})
}

func secretQuestion(id string) question {
	return question{
		Text:   []string{"The old secret stays good for the overlap, so that the client can be given the new one. With 0s it ends at once, and so do all others."},
		Button: "Make a new secret", Action: "/clients/" + seg(id) + "/secret", Back: "/clients/" + seg(id), Gentle: true,
		Field: "overlap", Label: "Overlap", Hint: "For how long the old secret is still good: 0s to 30d.", Val: "24h",
	}
}

const secretTitle = "Make a new secret?"

func (v *visit) askSecret() error {
	return v.confirm(secretTitle, secretQuestion(v.r.PathValue("id")))
}

func (v *visit) rotateSecret() error {
	id := v.r.PathValue("id")
	var made api.CreatedClient
	if err := v.post("/v1/clients/"+seg(id)+"/secret", api.RotateSecretRequest{Overlap: v.field("overlap")}, &made); err != nil {
		return v.again("confirm", secretTitle, secretQuestion(id), err)
	}
	return v.show("secret", "The client's new secret", secretData{What: "client secret", Secret: made.Secret, Next: "/clients/" + seg(id), NextText: "To the client"})
}

func (v *visit) askRemoveClient() error {
	id := v.r.PathValue("id")
	return v.confirm("Remove this client?", question{
		Text:   []string{"Its own access tokens end with it, and what people granted it can no longer be refreshed. Its name, " + id + ", is never given again."},
		Button: "Remove the client", Action: "/clients/" + seg(id) + "/remove", Back: "/clients/" + seg(id),
	})
}

func (v *visit) removeClient() error {
	if err := v.del("/v1/clients/"+seg(v.r.PathValue("id")), nil); err != nil {
		return err
	}
	return v.done("/clients", "client-removed")
}
