package afterlogin_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"strings"
	"testing"

	"github.com/afterlogin/afterlogin"
)

// quiet are the reasons that a person is told nothing about by Message, and why.
var quiet = map[afterlogin.Reason]string{
	afterlogin.ReasonMalformed:     "not a token: whoever made it up learns nothing",
	afterlogin.ReasonForged:        "not ours: whoever made it up learns nothing",
	afterlogin.ReasonUnknown:       "no such session: it may never have been one",
	afterlogin.ReasonWrongKind:     "a mistake of a program's",
	afterlogin.ReasonWrongTenant:   "not of this installation's part",
	afterlogin.ReasonWrongClient:   "a mistake of a program's",
	afterlogin.ReasonWrongAudience: "a mistake of a program's",
	afterlogin.ReasonWrongNetwork:  "an API key's, which no person holds in a browser",
	afterlogin.ReasonWrongTarget:   "a ticket's",
	afterlogin.ReasonUsed:          "a ticket's or a code's",
	afterlogin.ReasonSuperseded:    "the same browser has a better one",
	afterlogin.ReasonRenew:         "nothing has ended",
	afterlogin.ReasonScope:         "nothing has ended",
	afterlogin.ReasonStaleAuth:     "nothing has ended",
	afterlogin.ReasonStaleSignIn:   "an error of Issue, not of a session",
	afterlogin.ReasonDuplicate:     "a mistake in the request",
	afterlogin.ReasonNoCredential:  "nobody was signed in",
	afterlogin.ReasonUnreadable:    "of lists only",
	afterlogin.ReasonNotMade:       "nobody ever held its token",
}

// Whoever adds a reason decides what people are told.
func TestEveryReasonHasWords(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "errors.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	ast.Inspect(file, func(n ast.Node) bool {
		v, ok := n.(*ast.ValueSpec)
		if !ok || !strings.HasPrefix(v.Names[0].Name, "Reason") || len(v.Values) != 1 {
			return true
		}
		text, err := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
		if err != nil {
			t.Fatal(err)
		}
		seen++
		why := afterlogin.Reason(text)
		_, silent := quiet[why]
		if why == afterlogin.ReasonRevoked { // its cause speaks
			silent = false
		}
		if message := (&afterlogin.Refusal{Reason: why}).Message(); (message == "") != silent {
			t.Errorf("%s: the message is %q, and it is quiet: %t", why, message, silent)
		}
		for _, r := range []*afterlogin.Refusal{{Reason: afterlogin.ReasonRevoked, Cause: why}, {Reason: afterlogin.ReasonSignedOutAll, Cause: why}} {
			if message := r.Message(); message == "" && why != afterlogin.ReasonSuperseded {
				t.Errorf("%s for %s: no message", r.Reason, why)
			}
		}
		return true
	})
	if seen < 30 {
		t.Errorf("%d reasons found in errors.go", seen)
	}
}

func TestMessages(t *testing.T) {
	for _, tt := range []struct {
		refusal afterlogin.Refusal
		want    string
	}{
		{afterlogin.Refusal{Reason: afterlogin.ReasonSignedOutAll, Cause: afterlogin.ReasonPasswordChanged}, "You were signed out because your password was changed on another device."},
		{afterlogin.Refusal{Reason: afterlogin.ReasonSignedOutAll, Cause: "migration"}, "You were signed out on all devices."},
		{afterlogin.Refusal{Reason: afterlogin.ReasonRevoked, Cause: "abuse"}, "This sign-in was ended."},
		{afterlogin.Refusal{Reason: afterlogin.ReasonFrozen, Cause: afterlogin.ReasonReused}, "This sign-in is on hold. Ask whoever runs this site."},
		{afterlogin.Refusal{Reason: afterlogin.ReasonRevoked, Cause: afterlogin.ReasonSuperseded}, ""},
	} {
		if got := tt.refusal.Message(); got != tt.want {
			t.Errorf("%v: %q, want %q", &tt.refusal, got, tt.want)
		}
	}
}
