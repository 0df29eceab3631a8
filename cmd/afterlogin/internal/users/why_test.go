package users

import (
	"errors"
	"testing"

	"github.com/afterlogin/afterlogin"
)

// A session that a change has ended says by whom: the person, with another password, or an administrator.
func TestWhyChangesEnd(t *testing.T) {
	scopes := []string{"read"}
	for name, tt := range map[string]struct {
		change func(f *fixture) error
		want   afterlogin.Reason
	}{
		"own change of the password": {func(f *fixture) error { _, err := f.change("mia", other, ""); return err }, afterlogin.ReasonPasswordChanged},
		"own change, sparing one": {func(f *fixture) error {
			_, err := f.change("mia", other, f.signIn("mia", afterlogin.KindSession).Session.ID)
			return err
		}, afterlogin.ReasonPasswordChanged},
		"a password by an administrator": {func(f *fixture) error { _, err := f.SetPassword(t.Context(), "mia", other); return err }, afterlogin.ReasonAdministrator},
		"a scope less":                   {func(f *fixture) error { _, err := f.Update(t.Context(), "mia", Change{Scopes: &scopes}); return err }, afterlogin.ReasonAdministrator},
		"disabled":                       {func(f *fixture) error { _, err := f.Update(t.Context(), "mia", Change{Disabled: &yes}); return err }, afterlogin.ReasonAdministrator},
		"a scope less, after an own change": {func(f *fixture) error {
			if _, err := f.change("mia", other, ""); err != nil {
				return err
			}
			again := f.signIn("mia", afterlogin.KindSession)
			if _, err := f.Update(t.Context(), "mia", Change{Scopes: &scopes}); err != nil {
				return err
			}
			f.over(again, afterlogin.ReasonAdministrator)
			return nil
		}, afterlogin.ReasonPasswordChanged},
	} {
		f := open(t, nil, quick)
		f.add("mia")
		s := f.signIn("mia", afterlogin.KindSession)
		if err := tt.change(f); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		t.Log(name)
		f.over(s, tt.want)
	}
}

// over fails unless the session has ended for the reason.
func (f *fixture) over(s afterlogin.Issued, want afterlogin.Reason) {
	f.t.Helper()
	_, err := f.a.Validate(f.t.Context(), s.Token, afterlogin.Expect{Kinds: []afterlogin.Kind{s.Session.Kind}})
	var refused *afterlogin.Refusal
	if !errors.As(err, &refused) {
		f.t.Errorf("it is not over: %v", err)
		return
	}
	why := refused.Cause
	if why == "" {
		why = refused.Reason
	}
	if why != want {
		f.t.Errorf("it ended for %s, want %s", why, want)
	}
}
