package console

import (
	"strconv"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/api"
)

// keys lists API keys.
func (v *visit) keys() error {
	q := v.query("subject", "cursor")
	q.Set("limit", pageSize)
	if v.r.URL.Query().Get("ended") != "" {
		q.Set("ended", "true")
	}
	var list api.List
	if err := v.get("/v1/api-keys", q, &list); err != nil {
		return v.again("keys", "API keys", api.List{}, err)
	}
	return v.show("keys", "API keys", list)
}

func (v *visit) newKey() error { return v.show("key-new", "Make an API key", nil) }

// makeKey makes an API key, and shows it once.
func (v *visit) makeKey() error {
	in := api.CreateKeyRequest{
		Subject: v.field("subject"), Name: v.field("name"), Scopes: v.words("scopes"), Lifetime: v.field("lifetime"),
		NoExpiry: v.form.Get("no_expiry") != "", Networks: v.words("networks"), Audience: v.words("audience"),
	}
	if text := v.field("rate"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 {
			return v.again("key-new", "Make an API key", nil, fieldProblem("rate", "want a whole number of requests a minute, or nothing"))
		}
		in.Rate = n
	}
	var made api.CreatedKey
	if err := v.post("/v1/api-keys", in, &made); err != nil {
		return v.again("key-new", "Make an API key", nil, err)
	}
	return v.show("secret", "The API key", secretData{
		What: "API key", Secret: made.Token, Next: "/sessions/" + seg(made.APIKey.ID), NextText: "To the key",
		Lines: []string{"It belongs to " + in.Subject + "."},
	})
}

// fieldProblem is the problem of a field that the console itself cannot read.
func fieldProblem(field, message string) *api.Problem {
	return api.NewProblem(422, "invalid-request", field+": "+message, api.FieldError{Location: "body." + field, Message: message})
}

// secretData is what the page shows that hands out a secret, once.
type secretData struct {
	What, Secret   string
	Lines          []string
	Next, NextText string // the way on, below the base
}

// askRotateKey asks how to rotate an API key.
func (v *visit) askRotateKey() error {
	id := v.r.PathValue("id")
	if err := v.get("/v1/api-keys/"+seg(id), nil, nil); err != nil {
		return err
	}
	return v.confirm(rotateKeyTitle, rotateKeyQuestion(id))
}

const rotateKeyTitle = "Rotate this API key?"

func rotateKeyQuestion(id string) question {
	return question{
		Text:   []string{"A new key is made, with the same settings. The old one stays good for the overlap, so that whatever uses it can be given the new one."},
		Button: "Rotate the API key", Action: "/keys/" + seg(id) + "/rotate", Back: "/sessions/" + seg(id), Gentle: true,
		Field: "overlap", Label: "Overlap", Hint: "For how long the old key is still good: 0s to 30d.", Val: "24h",
	}
}

func (v *visit) rotateKey() error {
	id := v.r.PathValue("id")
	var made api.CreatedKey
	if err := v.post("/v1/api-keys/"+seg(id)+"/rotate", api.RotateKeyRequest{Overlap: v.field("overlap")}, &made); err != nil {
		return v.again("confirm", rotateKeyTitle, rotateKeyQuestion(id), err)
	}
	return v.show("secret", "The new API key", secretData{
		What: "API key", Secret: made.Token, Next: "/sessions/" + seg(made.APIKey.ID), NextText: "To the new key",
		Lines: []string{"The old one is good for another " + v.field("overlap") + "."},
	})
}
