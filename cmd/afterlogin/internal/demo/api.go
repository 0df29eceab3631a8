package demo

import (
	"cmp"
	"encoding/json"
	"net/http"
	"slices"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/httpauth"
)

// The scopes of the JSON API.
const (
	scopeCart   = "cart"
	scopeOrders = "orders"
	scopeStock  = "stock"
)

// api answers programs: the app on somebody's phone, with an access token that it got for a person, and the partner's,
// with an API key. The browser's cookie counts for nothing here, so that no other site's page can call it in somebody's
// name. Refusals are problem+json with the challenge of RFC 6750.
func (s *shop) api(auth *httpauth.Auth) http.Handler {
	mux := http.NewServeMux()
	app := httpauth.Kinds(afterlogin.KindAccess, afterlogin.KindJWT)
	key := httpauth.Kinds(afterlogin.KindAPIKey)
	either := httpauth.Kinds(afterlogin.KindAccess, afterlogin.KindJWT, afterlogin.KindAPIKey)
	mux.Handle("GET /api/cart", auth.Require(s.json(s.apiCart), app, httpauth.Scopes(scopeCart)))
	mux.Handle("GET /api/orders", auth.Require(s.json(s.apiOrders), either, httpauth.Scopes(scopeOrders)))
	mux.Handle("GET /api/stock", auth.Require(s.json(s.apiStock), key, httpauth.Scopes(scopeStock)))
	return mux
}

// json turns a function that returns what is to be answered into a handler.
func (s *shop) json(f func(*http.Request) (any, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v, err := f(r)
		if err != nil {
			httpauth.Answer(w, r, err)
			return
		}
		h := w.Header()
		h.Set("Content-Type", "application/json")
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
		json.NewEncoder(w).Encode(v)
	})
}

// apiBill is a cart, or an order, for programs.
type apiBill struct {
	Items  []item     `json:"items"`
	Cents  int        `json:"cents"`
	Total  string     `json:"total"`
	Number int        `json:"number,omitempty"` // of an order
	At     *time.Time `json:"at,omitempty"`     // of an order
}

func newAPIBill(items []item) apiBill {
	b := newBill(items)
	return apiBill{Items: append([]item{}, items...), Cents: b.Cents, Total: b.Total()}
}

// apiCart answers with the cart that the person filled last. Carts hang on sessions in browsers, and the app has none.
func (s *shop) apiCart(r *http.Request) (any, error) {
	who, _ := httpauth.Session(r.Context())
	var all []*afterlogin.Session
	for session, err := range s.authority.Sessions(r.Context(), afterlogin.Query{Subject: who.Subject, Kind: afterlogin.KindSession}) {
		if err != nil {
			return nil, err
		}
		all = append(all, session)
	}
	slices.SortFunc(all, func(x, y *afterlogin.Session) int {
		return cmp.Or(y.LastSeen.Compare(x.LastSeen), y.Created.Compare(x.Created))
	})
	for _, session := range all {
		d, err := s.authority.Data(r.Context(), session)
		if err != nil {
			return nil, err
		}
		c, err := readCart(d)
		if err != nil {
			return nil, err
		}
		if len(c.Items) > 0 {
			return newAPIBill(c.Items), nil
		}
	}
	return newAPIBill(nil), nil
}

// apiOrders answers with the orders of whoever asks.
func (s *shop) apiOrders(r *http.Request) (any, error) {
	who, _ := httpauth.Session(r.Context())
	bills := []apiBill{}
	for _, o := range s.orders.of(who.Subject) {
		b := newAPIBill(o.Items)
		b.Number, b.At = o.Number, &o.At
		bills = append(bills, b)
	}
	return map[string]any{"orders": bills}, nil
}

// shelf is how much of each product the shop had in the beginning.
const shelf = 200

// apiStock answers with what is left of each product.
func (s *shop) apiStock(*http.Request) (any, error) {
	left := make(map[string]int, len(catalogue))
	for _, p := range catalogue {
		left[p.ID] = shelf - s.orders.sold(p.ID)
	}
	return map[string]any{"stock": left}, nil
}
