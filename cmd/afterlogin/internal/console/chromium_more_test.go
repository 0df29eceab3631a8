//go:build browser

package console

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/console/entrance"
)

// guests are how many sessions the script ends by a query: so many that the progress can be watched.
const guests = 20_000

// TestSteeringInChromium is about events, the audit log, webhooks, revocation by query and the rehearsal:
// test/browser/console-more.mjs says what must hold. With AFTERLOGIN_SHOTS=1 its pictures are written to docs/images.
func TestSteeringInChromium(t *testing.T) {
	h := newHouse(t)
	b := h.enter(entrance.Admin, "tom")
	good, bad := newReceiver(t), newReceiver(t)
	bad.status.Store(http.StatusBadGateway)
	at := func(fields ...string) string {
		a := b.post("/console/webhooks/new", fields...)
		b.secretOf(a)
		return regexp.MustCompile(`wh_[A-Za-z0-9_-]+`).FindString(a.body)
	}
	dead := at("url", bad.URL+"/audit", "events", "session.created", "description", "the archive")
	h.signIn("ada")
	b.eventually("/console/webhooks/"+dead, "Last failure")
	h.later(80 * time.Hour)
	b = h.enter(entrance.Admin, "tom")
	b.post("/console/webhooks/" + dead + "/disable")
	b.post("/console/webhooks/" + dead + "/enable")
	b.eventually("/console/webhooks/"+dead, "Send all of them again")
	hook := at("url", good.URL+"/afterlogin", "events", "session.*", "description", "the shop")
	town := h.seed()
	for i := range guests {
		if _, err := h.a.Issue(t.Context(), afterlogin.IssueRequest{Subject: fmt.Sprintf("guest-%d", i), Device: afterlogin.Client{UserAgent: agents[i%len(agents)]}}); err != nil {
			t.Fatal(err)
		}
	}
	control := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		switch r.URL.Path {
		case "/link":
			l, err := h.entrance.MakeLink(r.Context(), entrance.LinkRequest{Role: entrance.Role(q.Get("role")), Name: q.Get("name")})
			if err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			io.WriteString(w, h.server.URL+l.URL)
		case "/sign-in":
			if _, err := h.a.Issue(r.Context(), afterlogin.IssueRequest{Subject: q.Get("subject")}); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
			}
		case "/receive":
			bad.status.Store(http.StatusOK)
		case "/tamper":
			files, err := filepath.Glob(filepath.Join(h.auditDir, "*.jsonl"))
			if err == nil && len(files) > 0 {
				var text []byte
				if text, err = os.ReadFile(files[0]); err == nil {
					text[len(text)/2] ^= 1
					err = os.WriteFile(files[0], text, 0o600)
				}
			}
			if err != nil || len(files) == 0 {
				http.Error(w, fmt.Sprint(err, files), http.StatusInternalServerError)
			}
		default:
			http.NotFound(w, r)
		}
	}))
	defer control.Close()
	shots := t.ArtifactDir()
	if os.Getenv("AFTERLOGIN_SHOTS") != "" {
		dir, err := filepath.Abs(filepath.Join("..", "..", "..", "..", "docs", "images"))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		shots = dir
	}
	runScript(t, "console-more.mjs", "CONSOLE_URL="+h.server.URL+"/console", "CONTROL_URL="+control.URL, "SHOTS="+shots,
		"WEBHOOK="+hook, "DEAD="+dead, fmt.Sprint("GUESTS=", guests), "SESSION="+string(town.mia))
}
