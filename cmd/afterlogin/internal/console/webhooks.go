package console

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/api"
)

// webhookState is how a webhook does: a word for its badge, and the tone of that.
type webhookState struct{ Word, Tone string }

func stateOfWebhook(h *api.Webhook) webhookState {
	switch {
	case h.Disabled:
		return webhookState{"disabled", "over"}
	case h.Failures > 0:
		return webhookState{"failing", "alarm"}
	case h.Waiting > 0:
		return webhookState{"catching up", "hold"}
	}
	return webhookState{"delivering", "live"}
}

// webhooks lists webhooks.
func (v *visit) webhooks() error {
	var list api.WebhookList
	if err := v.get("/v1/webhooks", nil, &list); err != nil {
		return err
	}
	return v.show("webhooks", "Webhooks", list)
}

// webhookForm is what the form of a webhook shows besides what stands in it.
type webhookForm struct {
	ID    string // empty: a new one
	Hook  api.Webhook
	Types []string
}

func newWebhookForm() webhookForm { return webhookForm{Types: eventTypes()} }

func (v *visit) newWebhook() error { return v.show("webhook-form", "Add a webhook", newWebhookForm()) }

// makeWebhook adds a webhook, and shows its secret once.
func (v *visit) makeWebhook() error {
	in := api.CreateWebhookRequest{URL: v.field("url"), Events: v.words("events"), Description: v.field("description")}
	var made api.CreatedWebhook
	if err := v.post("/v1/webhooks", in, &made); err != nil {
		return v.again("webhook-form", "Add a webhook", newWebhookForm(), err)
	}
	return v.show("secret", "The signing secret", secretData{
		What: "signing secret", Secret: made.Secret, Next: "/webhooks/" + seg(made.Webhook.ID), NextText: "To the webhook",
		Lines: []string{"The receiver needs it to check that requests come from here, in the manner of Standard Webhooks. Events are sent to it from now on."},
	})
}

// webhookData is what the page of one webhook shows.
type webhookData struct {
	*api.Webhook
	Letters []api.DeadLetter
	Next    string // the next page of letters
	MayRead bool   // the letters
	Lost    int    // of this page, how many were not sent again
}

// hook reads the webhook of the address.
func (v *visit) hook() (*api.Webhook, error) {
	var h api.Webhook
	err := v.get("/v1/webhooks/"+seg(v.r.PathValue("id")), nil, &h)
	return &h, err
}

// webhook shows one webhook, and the events that it did not take.
func (v *visit) webhook() error {
	h, err := v.hook()
	if err != nil {
		return err
	}
	d := webhookData{Webhook: h, MayRead: v.may(api.EventsRead)}
	if d.MayRead {
		var list api.DeadLetterList
		q := v.query("after")
		q.Set("limit", pageSize)
		if err := v.get("/v1/webhooks/"+seg(h.ID)+"/dead-letters", q, &list); err != nil {
			return err
		}
		d.Letters = list.Data
		if list.Next != 0 {
			d.Next = strconv.FormatUint(list.Next, 10)
		}
		for _, l := range list.Data {
			if l.RedeliveredAt == nil {
				d.Lost++
			}
		}
	}
	return v.show("webhook", "Webhook", d)
}

func (v *visit) editWebhook() error {
	h, err := v.hook()
	if err != nil {
		return err
	}
	return v.show("webhook-form", "Change the webhook", webhookForm{h.ID, *h, eventTypes()})
}

func (v *visit) changeWebhook() error {
	id := v.r.PathValue("id")
	form := webhookForm{ID: id, Types: eventTypes()}
	address, description := v.field("url"), v.field("description")
	in := api.ChangeWebhookRequest{URL: &address, Description: &description, Events: v.words("events")}
	err := error(fieldProblem("events", "name at least one type, such as session.*; * is all of them"))
	if len(in.Events) > 0 {
		err = v.call(http.MethodPatch, "/v1/webhooks/"+seg(id), nil, in, nil)
	}
	if err != nil {
		return v.again("webhook-form", "Change the webhook", form, err)
	}
	return v.done("/webhooks/"+seg(id), "webhook-changed")
}

// turnWebhook disables or enables a webhook.
func (v *visit) turnWebhook() error {
	id := v.r.PathValue("id")
	off := strings.HasSuffix(v.route.Path, "/disable")
	if err := v.call(http.MethodPatch, "/v1/webhooks/"+seg(id), nil, api.ChangeWebhookRequest{Disabled: &off}, nil); err != nil {
		return err
	}
	what := "webhook-enabled"
	if off {
		what = "webhook-disabled"
	}
	return v.done("/webhooks/"+seg(id), what)
}

// testData is what the page of a test shows.
type testData struct {
	ID, URL string
	Result  api.WebhookTest
}

// testWebhook sends a test event, and shows what came of it.
func (v *visit) testWebhook() error {
	d := testData{ID: v.r.PathValue("id")}
	if err := v.post("/v1/webhooks/"+seg(d.ID)+"/test", nil, &d.Result); err != nil {
		return err
	}
	h, err := v.hook()
	if err != nil {
		return err
	}
	d.URL = h.URL
	return v.show("webhook-test", "Test of the webhook", d)
}

func (v *visit) askWebhookSecret() error {
	h, err := v.hook()
	if err != nil {
		return err
	}
	return v.confirm("Give this webhook a new secret?", question{
		Text:   []string{"Requests to " + h.URL + " are signed with the new secret at once. For 24 hours they are signed with the old one, too, so that the receiver can be given the new one meanwhile."},
		Button: "Make a new secret", Action: "/webhooks/" + seg(h.ID) + "/secret", Back: "/webhooks/" + seg(h.ID), Gentle: true,
	})
}

func (v *visit) rotateWebhookSecret() error {
	id := v.r.PathValue("id")
	var made api.CreatedWebhook
	if err := v.post("/v1/webhooks/"+seg(id)+"/rotate-secret", nil, &made); err != nil {
		return err
	}
	return v.show("secret", "The new signing secret", secretData{
		What: "signing secret", Secret: made.Secret, Next: "/webhooks/" + seg(id), NextText: "To the webhook",
		Lines: []string{"Requests are signed with the old one, too, for 24 hours."},
	})
}

func (v *visit) askRemoveWebhook() error {
	h, err := v.hook()
	if err != nil {
		return err
	}
	q := question{
		Text:   []string{"Nothing is sent to " + h.URL + " any more. This cannot be taken back: a webhook that is added again has another secret, and begins anew."},
		Button: "Remove the webhook", Action: "/webhooks/" + seg(h.ID) + "/remove", Back: "/webhooks/" + seg(h.ID),
	}
	if h.Waiting > 0 || h.DeadLetters > 0 {
		q.Text = append(q.Text, plural(int(h.Waiting), "event that waits", "events that wait")+" for it, and "+plural(int(h.DeadLetters), "dead letter", "dead letters")+", are dropped.")
	}
	return v.confirm("Remove this webhook?", q)
}

func (v *visit) removeWebhook() error {
	if err := v.del("/v1/webhooks/"+seg(v.r.PathValue("id")), nil); err != nil {
		return err
	}
	return v.done("/webhooks", "webhook-removed")
}

// redeliver has dead letters sent again: one, or all.
func (v *visit) redeliver() error {
	id := v.r.PathValue("id")
	in := api.RedeliverRequest{All: v.form.Get("all") != ""}
	if !in.All {
		n, err := strconv.ParseUint(v.field("number"), 10, 64)
		if err != nil {
			return fieldProblem("number", "is not the number of a dead letter")
		}
		in.Numbers = []uint64{n}
	}
	if err := v.post("/v1/webhooks/"+seg(id)+"/dead-letters/redeliver", in, nil); err != nil {
		return err
	}
	return v.done("/webhooks/"+seg(id), "redelivered")
}

// hasWebhooks reports whether the server has webhooks.
func (v *visit) hasWebhooks() bool {
	return v.may(api.ServerRead) && v.has("/v1/webhooks", url.Values{})
}
