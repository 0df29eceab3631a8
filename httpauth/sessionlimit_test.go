package httpauth_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/httpauth"
)

// Who may not sign in on one more device is told what to do, and it is no fault of the server's.
func TestSessionLimitAnswer(t *testing.T) {
	err := fmt.Errorf("sign in: %w", afterlogin.ErrSessionLimit)
	if got := httpauth.Status(err); got != http.StatusConflict {
		t.Errorf("status %d", got)
	}
	w, r := httptest.NewRecorder(), httptest.NewRequest("POST", "/sign-in", nil)
	r.Header.Set("Accept", "application/json")
	httpauth.Answer(w, r, err)
	if w.Code != http.StatusConflict || !strings.Contains(w.Body.String(), `"reason":"session_limit"`) || !strings.Contains(w.Body.String(), "Sign out on one of them") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
