package config

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
)

func TestSessionLimits(t *testing.T) {
	l, err := load(t, "session_limits:\n  session:\n    max: 5\n    at_limit: deny\n  refresh_token: {max: 7}\nrehearsal:\n  session_limits:\n    session: 3\n",
		[]string{"AFTERLOGIN_SESSION_LIMITS_API_KEY_MAX=10"}, "--grant-at-limit=deny")
	if err != nil {
		t.Fatal(err)
	}
	want := map[afterlogin.Kind]afterlogin.SessionLimit{
		afterlogin.KindSession: {Max: 5, AtLimit: afterlogin.DenyNew},
		afterlogin.KindAPIKey:  {Max: 10, AtLimit: afterlogin.DenyNew},
		afterlogin.KindRefresh: {Max: 7, AtLimit: afterlogin.DenyNew},
	}
	if got := l.Config.Limits(); !reflect.DeepEqual(got, want) {
		t.Errorf("limits %v, want %v", got, want)
	}
	if got := l.Config.RehearsalLimits(); !reflect.DeepEqual(got, map[afterlogin.Kind]afterlogin.SessionLimit{afterlogin.KindSession: {Max: 3}}) {
		t.Errorf("rehearsed limits %v", got)
	}
	if l, err := load(t, "", nil); err != nil || len(l.Config.Limits()) != 0 || len(l.Config.RehearsalLimits()) != 0 {
		t.Error("there are limits by default")
	}
}

func TestRehearsal(t *testing.T) {
	l, err := load(t, "policies:\n  browser:\n    idle: 30m\nrehearsal:\n  policies:\n    browser:\n      idle: 15m\n      grace: 0s\n    api-key:\n      absolute: 90d\n",
		[]string{"AFTERLOGIN_REHEARSAL_POLICY_BROWSER_ABSOLUTE=12h"})
	if err != nil {
		t.Fatal(err)
	}
	browser, key := l.Config.Policies["browser"], l.Config.Policies["api-key"]
	browser.Idle, browser.Grace, browser.Absolute = 15*time.Minute, 0, 12*time.Hour
	key.Absolute = 90 * 24 * time.Hour
	if got := l.Config.StricterPolicies(); !reflect.DeepEqual(got, map[string]afterlogin.Policy{"browser": browser, "api-key": key}) {
		t.Errorf("got %+v", got)
	}
	if got := l.Source("rehearsal.policies.browser.absolute"); got != "env AFTERLOGIN_REHEARSAL_POLICY_BROWSER_ABSOLUTE" {
		t.Errorf("source %q", got)
	}
	values := make(map[string]string)
	for k, v := range l.Config.PolicyValues {
		values[k] = v
	}
	if values["rehearsal.policies.browser.idle"] != "15m" || values["rehearsal.policies.browser.grace"] != "0s" || values["policies.browser.idle"] != "30m" {
		t.Errorf("values %v", values)
	}
}

func TestBadLimits(t *testing.T) {
	for _, tt := range []struct{ text, want, hint string }{
		{"session_limits:\n  session:\n    max: 101\n", "101 is not between 1 and 100", "0 is no limit"},
		{"session_limits:\n  session:\n    max: -1\n", "-1 is not between", ""},
		{"session_limits:\n  session:\n    at_limit: newest\n", `"newest" is not end_oldest or deny`, ""},
		{"session_limits:\n  sesion:\n    max: 1\n", `unknown key "sesion" in session_limits`, `did you mean "session"?`},
		{"session_limits:\n  session:\n    maximum: 1\n", `unknown key "maximum" in session_limits.session`, "known are max, at_limit"},
		{"session_limits:\n  session: 5\n", "want keys and values, got the number 5", "write key: value"},
		{"session_limits:\n  session:\n    max: 3\nrehearsal:\n  session_limits:\n    session: 3\n", "3 is not less than the limit that holds, 3", ""},
		{"rehearsal:\n  session_limits:\n    api_key: 1000\n", "1000 is not between", "rehearses none"},
		{"rehearsal:\n  policies:\n    browser:\n      idle: 2h\n", "2h is not shorter than what holds, 1h", ""},
		{"rehearsal:\n  policies:\n    kiosk:\n      idle: 2h\n", `there is no policy "kiosk"`, "there are access"},
		{"rehearsal:\n  policies:\n    browser:\n      renewal: 1m\n", `unknown key "renewal" in rehearsal.policies.browser`, "known are idle, absolute, grace"},
		{"rehearsal:\n  policies:\n    browser:\n      idle: soon\n", `"soon" is not a duration`, ""},
		{"rehearsal:\n  policies:\n    browser:\n      idle: 1s\n", "idle: 1s is under two seconds", ""},
		{"rehearsal:\n  policies:\n    Browser!:\n      idle: 1m\n", "is not a name for a policy", ""},
		{"rehearsal:\n  polices:\n    browser: {idle: 1m}\n", `unknown key "polices" in rehearsal`, `did you mean "policies"?`},
	} {
		_, err := load(t, tt.text, nil)
		var faults Faults
		if !errors.As(err, &faults) || len(faults) != 1 {
			t.Errorf("%q: got %v, want one fault", tt.text, err)
			continue
		}
		f := faults[0]
		if !strings.Contains(f.Error(), tt.want) || !strings.Contains(f.Hint, tt.hint) || f.Line == 0 || !strings.Contains(f.Excerpt, "^") {
			t.Errorf("%q: got %d:%d %q, hint %q, excerpt %q", tt.text, f.Line, f.Column, f, f.Hint, f.Excerpt)
		}
	}
}
