package api

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/webhook"
)

// Webhook is an address that events are sent to, and how it goes.
type Webhook struct {
	ID             string     `json:"id" doc:"wh_…"`
	URL            string     `json:"url" doc:"Without the scope webhooks:write only up to the host: what follows is often a secret."`
	Events         []string   `json:"events" doc:"The types of events that are sent; session.* is all that begin so, * is all."`
	Description    string     `json:"description,omitempty"`
	Disabled       bool       `json:"disabled" doc:"Nothing is sent. What happens meanwhile is sent when it is enabled again, as far as the store still has it."`
	DisabledWhy    string     `json:"disabled_why,omitempty" doc:"If nobody disabled it: the receiver answered 410."`
	CreatedAt      time.Time  `json:"created_at"`
	ChangedAt      time.Time  `json:"changed_at"`
	OldSecretUntil *time.Time `json:"old_secret_until,omitempty" doc:"Requests are signed with the secret before the last rotation, too, until then."`

	Server        string     `json:"server,omitempty" doc:"The server that delivers. Absent between two."`
	Waiting       uint64     `json:"waiting" doc:"How many events wait because the receiver did not take one."`
	OldestWaiting *time.Time `json:"oldest_waiting,omitempty" doc:"Since when the first of them has waited."`
	NextTryAt     *time.Time `json:"next_try_at,omitempty"`
	DeadLetters   uint64     `json:"dead_letters" doc:"About how many events were given up and not sent again."`
	Failures      int        `json:"failures" doc:"How many attempts have failed since the last that did not."`
	LastSuccessAt *time.Time `json:"last_success_at,omitempty"`
	LastFailureAt *time.Time `json:"last_failure_at,omitempty"`
	LastStatus    int        `json:"last_status,omitempty" doc:"The status of the last answer. Absent if there was none."`
	LastError     string     `json:"last_error,omitempty" doc:"What was wrong with the last attempt."`
}

// CreatedWebhook is a webhook with its secret.
type CreatedWebhook struct {
	Webhook *Webhook `json:"webhook"`
	Secret  string   `json:"secret" doc:"whsec_…, what requests are signed with. This is the only time that it is shown."`
}

// CreateWebhookRequest says what webhook to add.
type CreateWebhookRequest struct {
	URL         string   `json:"url" doc:"https://…, or http:// on this machine. It must lead to an address on the internet, or one that the setting webhooks.allow names." maxLength:"1024"`
	Events      []string `json:"events,omitempty" doc:"Types of events, or such as session.*, or *. Without it: whatever ends something." maxItems:"20"`
	Description string   `json:"description,omitempty" doc:"One line, for people." maxLength:"200"`
}

// ChangeWebhookRequest changes what it names, and nothing else.
type ChangeWebhookRequest struct {
	URL         *string  `json:"url,omitempty" maxLength:"1024"`
	Events      []string `json:"events,omitempty" doc:"All of them." minItems:"1" maxItems:"20"`
	Description *string  `json:"description,omitempty" maxLength:"200"`
	Disabled    *bool    `json:"disabled,omitempty"`
}

// WebhookList is all webhooks.
type WebhookList struct {
	Data []*Webhook `json:"data" doc:"By when they were added; at most 100."`
}

// WebhookTest is what a receiver answered to a test event.
type WebhookTest struct {
	ID        string `json:"id" doc:"The event's: webhook-id."`
	Delivered bool   `json:"delivered" doc:"The receiver answered 2xx."`
	Status    int    `json:"status,omitempty" doc:"What it answered. Absent if it did not."`
	Error     string `json:"error,omitempty"`
	LatencyMS int64  `json:"latency_ms"`
}

// WebhookEvent is an event as receivers get it, in plain words.
type WebhookEvent webhook.Event

// DeadLetter is an event that was given up.
type DeadLetter struct {
	Number        uint64       `json:"number" doc:"Names it, to have it sent again."`
	ID            string       `json:"id" doc:"The event's: webhook-id."`
	Event         WebhookEvent `json:"event"`
	CameAt        time.Time    `json:"came_at" doc:"When it was to be sent first."`
	DiedAt        time.Time    `json:"died_at" doc:"When it was given up."`
	Attempts      int          `json:"attempts"`
	Status        int          `json:"status,omitempty" doc:"The status of the last answer. Absent if there was none."`
	Error         string       `json:"error,omitempty"`
	RedeliveredAt *time.Time   `json:"redelivered_at,omitempty" doc:"When it was put in line once more."`
}

// DeadLetterList is a page of dead letters.
type DeadLetterList struct {
	Data []DeadLetter `json:"data" doc:"In the order in which they died. They are kept for 30 days."`
	Next uint64       `json:"next_after,omitempty" doc:"The parameter after of the next page. Absent on the last."`
}

// RedeliverRequest says what dead letters to send again.
type RedeliverRequest struct {
	Numbers []uint64 `json:"numbers,omitempty" doc:"These." minItems:"1" maxItems:"8"`
	All     bool     `json:"all,omitempty" doc:"All that were not sent again yet."`
}

// Redelivery says how many dead letters will be sent again.
type Redelivery struct {
	Asked uint64 `json:"asked"`
}

// WebhookIDInput is the id in the path.
type WebhookIDInput struct {
	ID string `path:"id" doc:"A webhook's id, wh_…." maxLength:"64"`
}

type webhookOutput struct{ Body *Webhook }

type createdWebhookOutput struct {
	Location     string `header:"Location"`
	CacheControl string `header:"Cache-Control"`
	Body         *CreatedWebhook
}

func newWebhook(h *webhook.Webhook) *Webhook {
	return &Webhook{
		ID: h.ID, URL: h.URL, Events: h.Events, Description: h.Description, Disabled: h.Disabled, DisabledWhy: h.Why,
		CreatedAt: h.Created.UTC(), ChangedAt: h.Changed.UTC(), OldSecretUntil: instant(h.OldSecret), Server: h.Server,
		Waiting: h.Waiting, OldestWaiting: instant(h.Oldest), NextTryAt: instant(h.NextTry), DeadLetters: h.DeadLetters, Failures: h.Failures,
		LastSuccessAt: instant(h.LastSuccess), LastFailureAt: instant(h.LastFailure), LastStatus: h.LastStatus, LastError: h.LastError,
	}
}

// webhookFor is the webhook as the caller may see it: what stands behind the host in addresses is often what lets
// in whoever knows it.
func webhookFor(ctx context.Context, h *webhook.Webhook) *Webhook {
	out := newWebhook(h)
	if need(ctx, "", WebhooksWrite) != nil {
		out.URL = h.Site()
	}
	return out
}

// sends fails unless the caller may read events, too: who says where they are sent, and which, reads them.
func sends(ctx context.Context) error {
	return need(ctx, "saying where events are sent, or which,", EventsRead)
}

// instant returns the time, nil for none.
func instant(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// webhookCall is a handler that is only called if there are webhooks.
func webhookCall[I, O any](a *API, handler func(context.Context, *I) (*O, error)) func(context.Context, *I) (*O, error) {
	return func(ctx context.Context, in *I) (*O, error) {
		if a.webhooks == nil {
			return nil, NewProblem(http.StatusNotFound, "not-configured", "this server has no webhooks")
		}
		out, err := handler(ctx, in)
		if err != nil {
			return nil, badWebhook(err)
		}
		return out, nil
	}
}

// badWebhook turns the errors of webhooks into answers.
func badWebhook(err error) error {
	var field *webhook.FieldError
	switch {
	case errors.As(err, &field):
		return invalid("body."+field.Field, "%s", field.Message)
	case errors.Is(err, webhook.ErrNoWebhook):
		return NewProblem(http.StatusNotFound, "no-such-webhook", "there is no webhook with this id (any more)")
	case errors.Is(err, webhook.ErrTooMany):
		return NewProblem(http.StatusConflict, "too-many-webhooks", err.Error()+": remove one first")
	case errors.Is(err, webhook.ErrChanged):
		return NewProblem(http.StatusConflict, "webhook-changed", "others are changing this webhook right now: try again")
	case errors.Is(err, webhook.ErrRotated):
		return NewProblem(http.StatusConflict, "rotated-too-often", err.Error()+", and all of those still sign, since nobody here knows which one the receiver has: wait until the first is a day old")
	case errors.Is(err, webhook.ErrBusy):
		p := NewProblem(http.StatusTooManyRequests, "redelivery-running", "dead letters are being sent again: wait until these have gone, or ask for all at once")
		p.header = http.Header{"Retry-After": {"5"}}
		return p
	}
	return err
}

func (a *API) webhookRoutes() {
	one := []int{http.StatusNotFound}
	changes := []int{http.StatusNotFound, http.StatusConflict}
	bodies := append([]int{http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType}, changes...)
	register(a, route{
		method: http.MethodPost, path: "/v1/webhooks", scope: WebhooksWrite, id: "create-webhook", status: http.StatusCreated,
		errors: bodies, summary: "Have events sent to an address",
		text: "From now on, in order, each under one id however often it is sent. Requests are signed in the manner of Standard Webhooks. Durable when answered. It needs the scope events:read, too.",
	}, webhookCall(a, a.createWebhook))
	register(a, route{
		method: http.MethodGet, path: "/v1/webhooks", scope: ServerRead, id: "list-webhooks", status: http.StatusOK,
		errors: one, summary: "List webhooks", text: "With how their deliveries go, as of up to 5 s ago.",
	}, webhookCall(a, func(ctx context.Context, _ *struct{}) (*struct{ Body WebhookList }, error) {
		hs, err := a.webhooks.List(ctx)
		out := &struct{ Body WebhookList }{WebhookList{Data: []*Webhook{}}}
		for _, h := range hs {
			out.Body.Data = append(out.Body.Data, webhookFor(ctx, h))
		}
		return out, err
	}))
	register(a, route{
		method: http.MethodGet, path: "/v1/webhooks/{id}", scope: ServerRead, id: "show-webhook", status: http.StatusOK,
		errors: one, summary: "Show a webhook",
	}, webhookCall(a, func(ctx context.Context, in *WebhookIDInput) (*webhookOutput, error) {
		h, err := a.webhooks.Webhook(ctx, in.ID)
		if err != nil {
			return nil, err
		}
		return &webhookOutput{webhookFor(ctx, h)}, nil
	}))
	register(a, route{
		method: http.MethodPatch, path: "/v1/webhooks/{id}", scope: WebhooksWrite, id: "change-webhook", status: http.StatusOK,
		errors: bodies, summary: "Change, disable or enable a webhook",
		text: "Durable when answered; the server that delivers follows within two seconds. What waits goes to the new address, at once. To change url or events takes the scope events:read, too.",
	}, webhookCall(a, a.changeWebhook))
	register(a, route{
		method: http.MethodDelete, path: "/v1/webhooks/{id}", scope: WebhooksWrite, id: "delete-webhook", status: http.StatusNoContent,
		errors: changes, summary: "Remove a webhook", text: "What waits for it is not sent any more.",
	}, webhookCall(a, func(ctx context.Context, in *WebhookIDInput) (*struct{}, error) {
		return &struct{}{}, a.webhooks.Remove(ctx, in.ID)
	}))
	register(a, route{
		method: http.MethodPost, path: "/v1/webhooks/{id}/rotate-secret", scope: WebhooksWrite, id: "rotate-webhook-secret", status: http.StatusOK,
		errors: changes, summary: "Give a webhook a new signing secret",
		text: "For 24 hours requests are signed with the one before, too; the new one comes first. Three times in 24 hours at most.",
	}, webhookCall(a, func(ctx context.Context, in *WebhookIDInput) (*createdWebhookOutput, error) {
		h, secret, err := a.webhooks.RotateSecret(ctx, in.ID)
		if err != nil {
			return nil, err
		}
		return &createdWebhookOutput{CacheControl: "no-store", Body: &CreatedWebhook{newWebhook(h), secret.Reveal()}}, nil
	}))
	register(a, route{
		method: http.MethodPost, path: "/v1/webhooks/{id}/test", scope: WebhooksWrite, id: "test-webhook", status: http.StatusOK,
		errors: one, summary: "Send a test event now",
		text: "Once, from the server that answers, and signed as any other. The answer is what the receiver said.",
	}, webhookCall(a, func(ctx context.Context, in *WebhookIDInput) (*struct{ Body WebhookTest }, error) {
		r, err := a.webhooks.Test(ctx, in.ID)
		if err != nil {
			return nil, err
		}
		return &struct{ Body WebhookTest }{WebhookTest{r.ID, r.Delivered, r.Status, r.Error, r.Took.Milliseconds()}}, nil
	}))
	register(a, route{
		method: http.MethodGet, path: "/v1/webhooks/{id}/dead-letters", scope: EventsRead, id: "list-dead-letters", status: http.StatusOK,
		errors: one, summary: "List events that were given up", text: "Page by page; a page may be short and not the last.",
	}, webhookCall(a, a.listDeadLetters))
	register(a, route{
		method: http.MethodPost, path: "/v1/webhooks/{id}/dead-letters/redeliver", scope: WebhooksWrite, id: "redeliver-dead-letters", status: http.StatusAccepted,
		errors: append([]int{http.StatusTooManyRequests}, bodies...), summary: "Send dead letters again",
		text: "They go behind what is waiting, under the ids that they have. It begins within two seconds, or when the webhook is enabled.",
	}, webhookCall(a, a.redeliver))
}

func (a *API) createWebhook(ctx context.Context, in *struct{ Body CreateWebhookRequest }) (*createdWebhookOutput, error) {
	if err := sends(ctx); err != nil {
		return nil, err
	}
	h, secret, err := a.webhooks.Add(ctx, webhook.Request{URL: in.Body.URL, Events: in.Body.Events, Description: in.Body.Description})
	if err != nil {
		return nil, err
	}
	return &createdWebhookOutput{Location: "/v1/webhooks/" + h.ID, CacheControl: "no-store", Body: &CreatedWebhook{newWebhook(h), secret.Reveal()}}, nil
}

func (a *API) changeWebhook(ctx context.Context, in *struct {
	WebhookIDInput
	Body ChangeWebhookRequest
}) (*webhookOutput, error) {
	c := webhook.Change{URL: in.Body.URL, Description: in.Body.Description, Disabled: in.Body.Disabled}
	if in.Body.Events != nil {
		c.Events = &in.Body.Events
	}
	if c == (webhook.Change{}) {
		return nil, invalid("body", "names nothing to change: want url, events, description or disabled")
	}
	if c.URL != nil || c.Events != nil {
		if err := sends(ctx); err != nil {
			return nil, err
		}
	}
	h, err := a.webhooks.Change(ctx, in.ID, c)
	if err != nil {
		return nil, err
	}
	return &webhookOutput{newWebhook(h)}, nil
}

func (a *API) listDeadLetters(ctx context.Context, in *struct {
	WebhookIDInput
	After uint64 `query:"after" doc:"next_after of the page before." maximum:"9007199254740991"`
	Limit int    `query:"limit" minimum:"1" maximum:"200" default:"50"`
}) (*struct{ Body DeadLetterList }, error) {
	letters, next, err := a.webhooks.DeadLetters(ctx, in.ID, in.After, in.Limit)
	if err != nil {
		return nil, err
	}
	out := &struct{ Body DeadLetterList }{DeadLetterList{Data: []DeadLetter{}, Next: next}}
	for _, l := range letters {
		out.Body.Data = append(out.Body.Data, DeadLetter{
			Number: l.Number, ID: l.ID, Event: WebhookEvent(l.Event), CameAt: l.Came, DiedAt: l.Died, Attempts: l.Tries, Status: l.Status, Error: l.Error,
			RedeliveredAt: instant(l.Again),
		})
	}
	return out, nil
}

func (a *API) redeliver(ctx context.Context, in *struct {
	WebhookIDInput
	Body RedeliverRequest
}) (*struct{ Body Redelivery }, error) {
	if in.Body.All == (len(in.Body.Numbers) > 0) {
		return nil, invalid("body", "want numbers, or all")
	}
	n, err := a.webhooks.Redeliver(ctx, in.ID, in.Body.All, in.Body.Numbers)
	if err != nil {
		return nil, err
	}
	return &struct{ Body Redelivery }{Redelivery{n}}, nil
}
