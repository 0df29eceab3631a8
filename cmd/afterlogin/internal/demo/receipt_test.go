package demo

import (
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestReceipt checks who gets a receipt: the person, with the cookie, and whoever has a link, once and soon.
func TestReceipt(t *testing.T) {
	t.Parallel()
	var later atomic.Int64
	d := start(t, Config{Now: func() time.Time { return time.Now().Add(time.Duration(later.Load())) }})
	mia, tom, stranger := visitor(t, d, laptopAgent), visitor(t, d, laptopAgent), visitor(t, d, thiefAgent)
	signIn(t, mia, "mia")
	signIn(t, tom, "tom")
	post(t, mia, "/cart/items", url.Values{"product": {"kettle"}})
	get(t, mia, "/checkout")
	if a := post(t, mia, "/checkout", nil); !strings.Contains(a.body, `data-order="1001"`) {
		t.Fatalf("no order: %d", a.Status)
	}
	link := func() string {
		t.Helper()
		a := post(t, mia, "/orders/1001/link", nil)
		_, rest, found := strings.Cut(a.body, "<code data-link>"+d.loopbackURL())
		link, _, _ := strings.Cut(rest, "</code>")
		if a.Status != http.StatusOK || !found {
			t.Fatalf("no link: %d", a.Status)
		}
		return "/" + link
	}
	ticket := func(link string) string { _, ticket, _ := strings.Cut(link, "?"); return ticket }
	first, late := link(), link()
	for _, tt := range []struct {
		name string
		who  *browser
		path string
		want int
		gets bool
	}{
		{"her browser", mia, "/orders/1001/receipt", 200, true},
		{"another number", mia, "/orders/1002/receipt", 404, false},
		{"no number", mia, "/orders/x/receipt", 404, false},
		{"tom's browser", tom, "/orders/1001/receipt", 404, false},
		{"another number, with the ticket", stranger, "/orders/1002/receipt?" + ticket(first), 403, false},
		{"a page, with the ticket", stranger, "/account/sessions?" + ticket(first), 200, false}, // that of the sign-in
		{"the link", stranger, first, 200, true},
		{"the link again", stranger, first, 410, false},
		{"half a link", stranger, first[:len(first)-4], 200, false}, // that, too
	} {
		a := get(t, tt.who, tt.path)
		if a.Status != tt.want || strings.Contains(a.body, "Receipt for order") != tt.gets {
			t.Errorf("%s: %d at %s, want %d and a receipt: %v", tt.name, a.Status, a.path, tt.want, tt.gets)
		}
		if a.set != "" && tt.who == stranger {
			t.Errorf("%s: the answer sets a cookie", tt.name)
		}
	}
	if a := post(t, tom, "/orders/1001/link", nil); a.Status != http.StatusNotFound {
		t.Errorf("tom makes a link to mia's receipt: %d", a.Status)
	}
	later.Add(int64(31 * time.Second))
	if a := get(t, stranger, late); a.path != "/sign-in" {
		t.Errorf("after 31 seconds: %d at %s", a.Status, a.path)
	}
}
