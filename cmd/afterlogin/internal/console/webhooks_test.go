package console

import (
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/console/entrance"
)

// receiver is a server that takes events, or does not.
type receiver struct {
	*httptest.Server
	status atomic.Int64
	got    chan string
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{got: make(chan string, 1000)}
	r.status.Store(http.StatusNoContent)
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		b, _ := io.ReadAll(q.Body)
		status := int(r.status.Load())
		if status < 300 {
			select {
			case r.got <- string(b):
			default: // nobody waits
			}
		}
		w.WriteHeader(status)
	}))
	t.Cleanup(r.Close)
	return r
}

// wait returns when the receiver has taken something with the text.
func (r *receiver) wait(t *testing.T, text string) {
	t.Helper()
	over := time.After(20 * time.Second)
	for {
		select {
		case b := <-r.got:
			if strings.Contains(b, text) {
				return
			}
		case <-over:
			t.Fatalf("the receiver did not get %q", text)
		}
	}
}

func TestWebhooks(t *testing.T) {
	h := newHouse(t)
	b, v := h.enter(entrance.Admin, "tom"), h.enter(entrance.Viewer, "mia")
	to := newReceiver(t)
	b.says("/console/webhooks", "No webhooks.")

	// Bad input, beside the field.
	for field, c := range map[string][]string{
		"url":         {"url", "ftp://x.example/", "events", "*"},
		"events":      {"url", to.URL, "events", "session.revokd"},
		"description": {"url", to.URL, "description", "a\u0007b"},
	} {
		a := b.post("/console/webhooks/new", c...)
		if a.status != http.StatusUnprocessableEntity || !strings.Contains(a.body, `id="e-`+field+`"`) || !strings.Contains(a.body, `value="`+c[1]+`"`) {
			t.Errorf("a bad %s: %d %s", field, a.status, words(a.body))
		}
	}

	a := b.post("/console/webhooks/new", "url", to.URL+"/hook", "events", "session.created\r\nsession.revoked", "description", "the shop")
	if secret := b.secretOf(a); !strings.HasPrefix(secret, "whsec_") {
		t.Errorf("the secret is %.8s…", secret)
	}
	at := regexp.MustCompile(`/console/webhooks/wh_[A-Za-z0-9_-]+`).FindString(a.body)
	b.says("/console/webhooks", to.URL+"/hook", "delivering", "the shop")
	b.says(at, "session.created, session.revoked", "Send a test event", "the shop", "Dead letters")
	if page := words(v.page(at)); strings.Contains(page, "Send a test event") || strings.Contains(page, "Remove") || !strings.Contains(page, "delivering") {
		t.Errorf("a viewer sees: %s", page)
	}
	h.signIn("ada")
	to.wait(t, "ada")
	if a := b.post(at + "/test"); a.status != http.StatusOK || !strings.Contains(words(a.body), "The receiver took it: it answered 204 after") {
		t.Errorf("the test: %d %s", a.status, words(a.body))
	}
	to.wait(t, "webhook.test")
	to.status.Store(http.StatusTeapot)
	if a := b.post(at + "/test"); a.status != http.StatusOK || !strings.Contains(words(a.body), "did not take it: it answered 418 after") {
		t.Errorf("a test that fails: %d %s", a.status, words(a.body))
	}

	// Waiting, and why.
	h.signIn("kim")
	b.eventually("/console/webhooks", "failing")
	b.eventually(at, "418")
	b.says(at, "Waiting 1, the oldest since", "tried again")

	// Change.
	b.says(at+"/change", "session.created session.revoked")
	if page := b.page(at + "/change"); !strings.Contains(page, `value="`+to.URL+`/hook"`) || !strings.Contains(page, `value="the shop"`) {
		t.Error("the form does not have what is set")
	}
	if a := b.post(at+"/change", "url", to.URL+"/hook", "events", " "); a.status != http.StatusUnprocessableEntity || !strings.Contains(a.body, `id="e-events"`) {
		t.Errorf("no events: %d", a.status)
	}
	if a := b.post(at+"/change", "url", "https://10.0.0.1/", "events", "*"); a.status != http.StatusUnprocessableEntity || !strings.Contains(a.body, `id="e-url"`) {
		t.Errorf("an address that is not allowed: %d %s", a.status, words(a.body))
	}
	to.status.Store(http.StatusOK)
	b.want(at+"?done=webhook-changed", at+"/change", "url", to.URL+"/other", "events", "session.*", "description", "")
	to.wait(t, "kim")
	b.says(at, "session.*")

	// Off and on: what happened meanwhile arrives.
	b.want(at+"?done=webhook-disabled", at+"/disable")
	b.says(at, "disabled", "Enable")
	h.signIn("lea")
	b.want(at+"?done=webhook-enabled", at+"/enable")
	to.wait(t, "lea")

	b.says(at+"/secret", "For 24 hours they are signed with the old one, too")
	if secret := b.secretOf(b.post(at + "/secret")); !strings.HasPrefix(secret, "whsec_") {
		t.Errorf("the new secret is %.8s…", secret)
	}
	b.says(at, "Old secret signs, too: 23 h")

	b.says(at+"/remove", "cannot be taken back")
	b.want("/console/webhooks?done=webhook-removed", at+"/remove")
	if a := b.get(at); a.status != http.StatusNotFound {
		t.Errorf("a webhook that was removed: %d", a.status)
	}
	b.says("/console/webhooks", "No webhooks.")
}

func TestDeadLetters(t *testing.T) {
	h := newHouse(t)
	b, v := h.enter(entrance.Admin, "tom"), h.enter(entrance.Viewer, "mia")
	to := newReceiver(t)
	to.status.Store(http.StatusBadGateway)
	a := b.post("/console/webhooks/new", "url", to.URL, "events", "session.created")
	b.secretOf(a)
	at := regexp.MustCompile(`/console/webhooks/wh_[A-Za-z0-9_-]+`).FindString(a.body)
	b.says(at, "None.")
	h.signIn("ada")
	h.signIn("kim")
	b.eventually(at, "Last failure")
	h.later(80 * time.Hour) // more than it is tried for; the console's sessions end meanwhile
	b, v = h.enter(entrance.Admin, "tom"), h.enter(entrance.Viewer, "mia")
	kick := func() { b.post(at + "/disable"); b.post(at + "/enable") }
	kick()
	b.eventually(at, "Send all of them again")
	b.eventually(at, "kim")
	if page := words(v.page(at)); strings.Contains(page, "Send again") || !strings.Contains(page, "ada") {
		t.Errorf("a viewer sees: %s", page)
	}
	for _, bad := range []string{"", "x", "-1"} {
		if a := b.post(at+"/redeliver", "number", bad); a.status != http.StatusUnprocessableEntity {
			t.Errorf("number %q: %d", bad, a.status)
		}
	}
	to.status.Store(http.StatusOK)
	m := regexp.MustCompile(`name="number" value="(\d+)"`).FindStringSubmatch(b.page(at))
	if m == nil {
		t.Fatal("no dead letter can be sent again")
	}
	b.want(at+"?done=redelivered", at+"/redeliver", "number", m[1])
	to.wait(t, "ada")
	b.want(at+"?done=redelivered", at+"/redeliver", "all", "on")
	to.wait(t, "kim")
}
