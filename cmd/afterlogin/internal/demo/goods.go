package demo

import (
	"net/http"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/httpauth"
)

// catalogue is the front page.
func (s *shop) catalogue(w http.ResponseWriter, r *http.Request) error {
	var n *notice
	if r.URL.Query().Has("signed-out") {
		n = &notice{Title: "You are signed out", Text: []string{"The cookie is gone from this browser, and a copy of it would be refused."}}
	}
	return s.show(w, r, "shop", "Shop", "shop", catalogue, n)
}

// product is the page of one product.
func (s *shop) product(w http.ResponseWriter, r *http.Request) error {
	p, ok := find(r.PathValue("id"))
	if !ok {
		s.answer(w, r, problem{Status: http.StatusNotFound, Title: "There is no such product", Text: "The shop does not have it, or not any more."})
		return nil
	}
	return s.show(w, r, "product", p.Name, "shop", p, nil)
}

// cart is the cart's page. With a cookie that is refused the answer is 401: whoever holds a cookie that opens nothing
// gets told so, the shopper by the page and a program by the status. The page is usable all the same.
func (s *shop) cart(w http.ResponseWriter, r *http.Request) error {
	d, err := s.auth.Data(r)
	if err != nil {
		return err
	}
	c, err := readCart(d)
	if err != nil {
		return err
	}
	v := s.bare(r, "Your cart", "cart", newBill(c.Items))
	v.CartCount = c.count()
	if p, ok := find(r.URL.Query().Get("added")); ok && v.Notice == nil && v.CartCount > 0 {
		v.Notice = &notice{Title: p.Name + " is in your cart"}
	}
	status := http.StatusOK
	if _, refused := httpauth.RefusalFrom(r.Context()); refused {
		challenge(w)
		status = http.StatusUnauthorized
	}
	return s.render(w, status, "cart", v)
}

// kept reports whether the request's cookie is that of a sign-in that was ended, whose cart comes back with the next
// sign-in. An anonymous cart must not take its place: the cookie is what the cart hangs on.
func (s *shop) kept(r *http.Request) bool {
	refusal, ok := httpauth.RefusalFrom(r.Context())
	if !ok {
		return false
	}
	n := s.outOfDate(r, refusal)
	return n != nil && n.Kept
}

// addToCart puts a product into the cart. The first one makes an anonymous session.
func (s *shop) addToCart(w http.ResponseWriter, r *http.Request) error {
	if err := readForm(r); err != nil {
		return err
	}
	p, err := parseProduct(r.PostForm.Get("product"))
	if err != nil {
		return err
	}
	n, err := parseQuantity(r.PostForm.Get("quantity"))
	if err != nil {
		return err
	}
	if s.kept(r) {
		return see(w, r, "/sign-in?return_to=/products/"+p.ID)
	}
	err = s.auth.UpdateData(w, r, changeCart(func(c *cart) error { return c.add(p, n) }))
	if err != nil {
		return err
	}
	return see(w, r, "/cart?added="+p.ID)
}

// changeQuantity sets how many of a product are in the cart.
func (s *shop) changeQuantity(w http.ResponseWriter, r *http.Request) error {
	if err := readForm(r); err != nil {
		return err
	}
	p, err := parseProduct(r.PathValue("id"))
	if err != nil {
		return err
	}
	n, err := parseQuantity(r.PostForm.Get("quantity"))
	if err != nil {
		return err
	}
	return s.change(w, r, func(c *cart) error { return c.set(p, n) })
}

// removeFromCart takes a product out of the cart.
func (s *shop) removeFromCart(w http.ResponseWriter, r *http.Request) error {
	p, err := parseProduct(r.PathValue("id"))
	if err != nil {
		return err
	}
	return s.change(w, r, func(c *cart) error { c.remove(p); return nil })
}

// change changes a cart that is there. Without a session there is nothing to change.
func (s *shop) change(w http.ResponseWriter, r *http.Request, change func(*cart) error) error {
	if _, ok := httpauth.Session(r.Context()); ok {
		if err := s.auth.UpdateData(w, r, changeCart(change)); err != nil {
			return err
		}
	}
	return see(w, r, "/cart")
}

// checkout shows what is about to be ordered.
func (s *shop) checkout(w http.ResponseWriter, r *http.Request) error {
	d, err := s.auth.Data(r)
	if err != nil {
		return err
	}
	c, err := readCart(d)
	if err != nil {
		return err
	}
	if c.count() == 0 {
		return see(w, r, "/cart")
	}
	return s.show(w, r, "checkout", "Checkout", "cart", newBill(c.Items), nil)
}

// order places the order and then empties the cart. In this order a crash between the two, or a button pressed twice,
// orders once: the order has the cart's id.
func (s *shop) order(w http.ResponseWriter, r *http.Request) error {
	session, _ := httpauth.Session(r.Context()) // Require has seen to it that there is one
	d, err := s.auth.Data(r)
	if err != nil {
		return err
	}
	c, err := readCart(d)
	if err != nil {
		return err
	}
	if c.count() == 0 {
		return see(w, r, "/orders")
	}
	if _, err := s.orders.place(session.Subject, c, s.now()); err != nil {
		return err
	}
	err = s.auth.UpdateData(w, r, func(d *afterlogin.Data) error {
		now, err := readCart(d)
		if err == nil && now.ID == c.ID { // not a new one, begun in another tab
			d.Delete(cartKey)
		}
		return err
	})
	if err != nil {
		return err
	}
	return see(w, r, "/orders?thanks")
}

// orderView is an order for people to read.
type orderView struct {
	order
	bill
}

// orderList shows the person's orders.
func (s *shop) orderList(w http.ResponseWriter, r *http.Request) error {
	session, _ := httpauth.Session(r.Context())
	var list []orderView
	for _, o := range s.orders.of(session.Subject) {
		o.At = o.At.Local()
		list = append(list, orderView{o, newBill(o.Items)})
	}
	var n *notice
	if r.URL.Query().Has("thanks") && len(list) > 0 {
		n = &notice{Title: "Thank you, " + displayName(session.Subject), Text: []string{"The order is placed. In a real shop it would be on its way to you."}}
	}
	return s.show(w, r, "orders", "Your orders", "orders", list, n)
}
