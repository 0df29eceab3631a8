package httpauth

import (
	"encoding/json"
	"net/http"

	"github.com/afterlogin/afterlogin"
)

// Data returns the data of the request's session, and empty data if there is no session. Changes go through UpdateData.
func (x *Auth) Data(r *http.Request) (*afterlogin.Data, error) {
	v := x.visitOf(r.Context())
	if v == nil {
		return nil, x.outside(r)
	}
	s, _ := v.result()
	if s == nil {
		return afterlogin.NewData(), nil
	}
	return x.authority.Data(r.Context(), s)
}

// UpdateData calls change with the data of the request's session and stores what change made of it, or nothing if change
// returns an error. change may be called more than once; see Authority.UpdateData.
//
// Without a session, it makes an anonymous one and has the answer set its cookie, if change stored something; that must
// happen before the headers are written. Two first requests of one browser at the same time make two sessions, and the
// browser keeps the cookie that arrives last: what the other one stored is lost.
//
// A request with a bearer token gets no anonymous session: if its token was refused, so is this. Neither does one whose
// cookie a sign-in or a step-up replaced a moment ago: the browser has a better one by now, which must not be pushed out.
// Nor one whose session is on hold: it may be good again later.
func (x *Auth) UpdateData(w http.ResponseWriter, r *http.Request, change func(*afterlogin.Data) error) error {
	v := x.visitOf(r.Context())
	if v == nil {
		return x.outside(r)
	}
	if s, _ := v.result(); s != nil {
		return x.authority.UpdateData(r.Context(), s, change)
	}
	v, err := x.open(r)
	if err != nil {
		return err
	}
	_, refusal := v.result()
	_, transport := v.credential()
	if refusal != nil && (transport != cookie || refusal.Recent || refusal.Reason == afterlogin.ReasonRenew || refusal.Reason == afterlogin.ReasonFrozen) {
		return refusal
	}
	d := afterlogin.NewData()
	if err := change(d); err != nil {
		return err
	}
	first := make(map[string]json.RawMessage)
	for key := range d.Keys() {
		first[key] = d.JSON(key)
	}
	if len(first) == 0 {
		return nil
	}
	got, err := x.authority.Issue(r.Context(), afterlogin.IssueRequest{
		Tenant: x.options.Tenant, Device: v.from, Data: first,
	})
	if err != nil {
		return err
	}
	noStore(w.Header())
	_, err = v.adopt(r, got)
	return err
}
