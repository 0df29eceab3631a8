package grade

import "net/url"

// A Form is a form of a page as a browser sends it by its first button. Package doctor signs in with it, too.
type Form struct {
	Action, Method string
	Values         url.Values
	User, Password string // names of the two fields; empty: it is no sign-in
}

// SignInForm returns the form of the page that looks most like a sign-in; nil: there is none.
func SignInForm(page []byte) *Form {
	f, user, password := readPage(page).signIn("", "")
	if f == nil {
		return nil
	}
	return &Form{f.action, f.method, f.values(), user, password}
}

// SignOutForm returns the form with POST that signs out; nil: there is none.
func SignOutForm(page []byte) *Form {
	f, _ := readPage(page).signOut()
	if f == nil || f.method != "POST" {
		return nil
	}
	return &Form{Action: f.action, Method: f.method, Values: f.values()}
}

// A Cookie is one Set-Cookie line as a browser reads it.
type Cookie = setCookie

// ParseSetCookie reads a Set-Cookie line. It reports false for what a browser would ignore.
func ParseSetCookie(line string) (Cookie, bool) { return parseSetCookie(line) }
