package demo

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/httpauth"
)

// find returns the subject's order with the number. Somebody else's is as if there were none.
func (b *orderBook) find(subject, number string) (order, bool) {
	n, err := strconv.Atoi(number)
	if err != nil || len(number) > 10 {
		return order{}, false
	}
	for _, o := range b.of(subject) {
		if o.Number == n {
			return o, true
		}
	}
	return order{}, false
}

var noOrder = problem{Status: http.StatusNotFound, Title: "There is no such order", Text: "The number has a mistake in it, or the order is somebody else's."}

// receipts serves receipts: to the browser with its cookie, and to whoever comes with a ticket, once. It stands outside
// of the shop's Optional, which knows no tickets: to it one is a token in an address like any other.
func (s *shop) receipts() http.Handler {
	return s.safely(s.auth.Require(s.page(s.receipt), httpauth.Kinds(afterlogin.KindSession, afterlogin.KindTicket)))
}

// receipt answers with a file.
func (s *shop) receipt(w http.ResponseWriter, r *http.Request) error {
	session, _ := httpauth.Session(r.Context())
	o, ok := s.orders.find(session.Subject, r.PathValue("number"))
	if !ok {
		s.answer(w, r, noOrder)
		return nil
	}
	var b strings.Builder
	fmt.Fprintf(&b, "Second Steep\nReceipt for order %d of %s\n\n", o.Number, o.At.Local().Format("2 January 2006, 15:04"))
	bill := newBill(o.Items)
	for _, l := range bill.Lines {
		fmt.Fprintf(&b, "%3d x %-28s %10s\n", l.Quantity, l.Product.Name, l.Total())
	}
	fmt.Fprintf(&b, "%6s%-28s %10s\n", "", "Total", bill.Total())
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Content-Disposition", fmt.Sprintf(`attachment; filename="receipt-%d.txt"`, o.Number))
	h.Set("Cache-Control", "no-store")
	_, err := w.Write([]byte(b.String()))
	return err
}

// receiptLink shows a link to a receipt that is good once, for a program that has no cookie: a printer's, or curl. It is
// a secret for as long as it is good, so it stands in the page that asked for it and in nothing that is kept.
func (s *shop) receiptLink(w http.ResponseWriter, r *http.Request) error {
	session, _ := httpauth.Session(r.Context())
	o, ok := s.orders.find(session.Subject, r.PathValue("number"))
	if !ok {
		s.answer(w, r, noOrder)
		return nil
	}
	link, err := s.auth.TicketURL(r, fmt.Sprintf("/orders/%d/receipt", o.Number))
	if err != nil {
		return err
	}
	return s.show(w, r, "link", "A link for elsewhere", "orders", struct {
		Number int
		Link   string
	}{o.Number, "http://" + r.Host + link}, nil)
}
