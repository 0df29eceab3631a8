package api

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin/store/memstore"
)

// webhook adds a webhook over the API.
func (f *fixture) webhook(url string) CreatedWebhook {
	f.t.Helper()
	var c CreatedWebhook
	f.ok("POST", "/v1/webhooks", `{"url":"`+url+`","events":["session.revoked"]}`, &c)
	return c
}

func TestWebhooks(t *testing.T) {
	everyStore(t, func(t *testing.T, f *fixture) {
		var status atomic.Int32
		status.Store(204)
		receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Webhook-Id") == "" || !strings.HasPrefix(r.Header.Get("Webhook-Signature"), "v1,") {
				t.Errorf("headers %v", r.Header)
			}
			w.WriteHeader(int(status.Load()))
		}))
		defer receiver.Close()
		a := f.do("POST", "/v1/webhooks", f.key, `{"url":"`+receiver.URL+`","description":"the shop"}`)
		if a.status != 201 || a.header.Get("Cache-Control") != "no-store" || !strings.HasPrefix(a.header.Get("Location"), "/v1/webhooks/wh_") {
			t.Fatalf("%d %v %s", a.status, a.header, a.body)
		}
		f.pass(time.Second)
		made := f.webhook(receiver.URL)
		if !strings.HasPrefix(made.Secret, "whsec_") || made.Webhook.ID == "" {
			t.Fatalf("%+v", made)
		}
		path := "/v1/webhooks/" + made.Webhook.ID
		var list WebhookList
		a = f.ok("GET", "/v1/webhooks", "", &list)
		if len(list.Data) != 2 || list.Data[0].Description != "the shop" || list.Data[1].Events[0] != "session.revoked" || strings.Contains(a.body, "whsec_") {
			t.Errorf("list %s", a.body)
		}
		var h Webhook
		if a = f.ok("PATCH", path, `{"description":"","events":["grant.*"],"disabled":true}`, &h); !h.Disabled || h.Events[0] != "grant.*" || strings.Contains(a.body, "whsec_") {
			t.Errorf("changed %s", a.body)
		}
		var again CreatedWebhook
		if a = f.ok("POST", path+"/rotate-secret", "", &again); again.Secret == made.Secret || again.Webhook.OldSecretUntil == nil || a.header.Get("Cache-Control") != "no-store" {
			t.Errorf("rotated %s", a.body)
		}
		for range 2 {
			f.ok("POST", path+"/rotate-secret", "", nil)
		}
		if a = f.do("POST", path+"/rotate-secret", f.key, ""); a.status != 409 || a.kind() != "rotated-too-often" {
			t.Errorf("rotated four times: %d %s", a.status, a.body)
		}
		var result WebhookTest
		if f.ok("POST", path+"/test", "", &result); !result.Delivered || result.Status != 204 || result.ID == "" {
			t.Errorf("test %+v", result)
		}
		status.Store(500)
		if f.ok("POST", path+"/test", "", &result); result.Delivered || result.Status != 500 || result.Error != "the receiver answered 500" {
			t.Errorf("test %+v", result)
		}
		var dead DeadLetterList
		if a = f.ok("GET", path+"/dead-letters", "", &dead); dead.Data == nil || len(dead.Data) != 0 {
			t.Errorf("dead letters %s", a.body)
		}
		if a = f.ok("POST", path+"/dead-letters/redeliver", `{"all":true}`, nil); a.status != 202 {
			t.Errorf("redeliver %d %s", a.status, a.body)
		}
		if a = f.ok("DELETE", path, "", nil); a.status != 204 {
			t.Errorf("removed %d", a.status)
		}
		for _, tt := range []struct {
			method, path, body string
			status             int
			want               string
		}{
			{"GET", path, "", 404, "no-such-webhook"},
			{"DELETE", path, "", 404, "no-such-webhook"},
			{"POST", path + "/test", "", 404, "no-such-webhook"},
			{"GET", "/v1/webhooks/nonsense", "", 404, "no-such-webhook"},
			{"POST", "/v1/webhooks", `{}`, 422, "body.url: is missing"},
			{"POST", "/v1/webhooks", `{"url":"http://shop.example/"}`, 422, "body.url: write https://"},
			{"POST", "/v1/webhooks", `{"url":"https://169.254.169.254/latest"}`, 422, "body.url: the address is not on the internet"},
			{"POST", "/v1/webhooks", `{"url":"https://shop.example/","events":["session.revokd"]}`, 422, `did you mean \"session.revoked\"`},
			{"POST", "/v1/webhooks", `{"url":"https://shop.example/","description":"a\nb"}`, 422, "body.description: want one line"},
			{"PATCH", "/v1/webhooks/" + list.Data[0].ID, `{}`, 422, "nothing to change"},
			{"POST", "/v1/webhooks/" + list.Data[0].ID + "/dead-letters/redeliver", `{}`, 422, "want numbers, or all"},
			{"POST", "/v1/webhooks/" + list.Data[0].ID + "/dead-letters/redeliver", `{"numbers":[1]}`, 422, "body.numbers: there is no dead letter 1"},
		} {
			if a := f.do(tt.method, tt.path, f.key, tt.body); a.status != tt.status || !strings.Contains(a.body, tt.want) {
				t.Errorf("%s %s %s: %d %s", tt.method, tt.path, tt.body, a.status, a.body)
			}
		}
		for _, secret := range []string{made.Secret, again.Secret} {
			if strings.Contains(f.log.String(), secret[6:]) {
				t.Error("a secret stands in the log")
			}
		}
	})
}

// Who says where events are sent, and which, reads them: that takes the scope for it, too. Who may not change a webhook
// does not see what stands behind the host in its address.
func TestWebhookScopes(t *testing.T) {
	f := newFixture(t, memstore.New())
	made := f.webhook("http://127.0.0.1:1/T0/hook?token=hunter2")
	path := "/v1/webhooks/" + made.Webhook.ID
	writer, both, viewer := f.apiKey(WebhooksWrite), f.apiKey(WebhooksWrite, EventsRead), f.apiKey(ServerRead, EventsRead)
	for _, tt := range []struct{ method, path, body string }{
		{"POST", "/v1/webhooks", `{"url":"http://127.0.0.1:2/","events":["*"]}`},
		{"PATCH", path, `{"url":"http://127.0.0.1:2/"}`},
		{"PATCH", path, `{"events":["*"]}`},
	} {
		if a := f.do(tt.method, tt.path, writer, tt.body); a.status != 403 || a.kind() != "insufficient-scope" || !strings.Contains(a.header.Get("Www-Authenticate"), `scope="events:read"`) {
			t.Errorf("%s %s: %d %s", tt.method, tt.body, a.status, a.body)
		}
	}
	if hs, err := f.hooks.List(t.Context()); err != nil || len(hs) != 1 || hs[0].URL != made.Webhook.URL || hs[0].Events[0] != "session.revoked" {
		t.Errorf("%+v %v", hs, err)
	}
	if a := f.do("PATCH", path, writer, `{"disabled":true,"description":"the shop"}`); a.status != 200 || !strings.Contains(a.body, "hunter2") {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := f.do("PATCH", path, both, `{"events":["session.*"]}`); a.status != 200 {
		t.Errorf("%d %s", a.status, a.body)
	}
	for _, p := range []string{path, "/v1/webhooks"} {
		if a := f.do("GET", p, viewer, ""); a.status != 200 || strings.Contains(a.body, "hunter2") || strings.Contains(a.body, "T0") || !strings.Contains(a.body, `"url":"http://127.0.0.1:1/…"`) {
			t.Errorf("%s: %d %s", p, a.status, a.body)
		}
		if a := f.ok("GET", p, "", nil); !strings.Contains(a.body, "token=hunter2") {
			t.Errorf("%s: %s", p, a.body)
		}
	}
}

func TestNoWebhooks(t *testing.T) {
	f := newFixture(t, memstore.New())
	f.api = New(f.a, Options{})
	for _, path := range []string{"/v1/webhooks", "/v1/webhooks/wh_x"} {
		if a := f.do("GET", path, f.key, ""); a.status != 404 || a.kind() != "not-configured" {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
}
