package demo

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/httpauth"
)

// TestPages opens every page, with and without a session.
func TestPages(t *testing.T) {
	t.Parallel()
	d := start(t, Config{})
	stranger := visitor(t, d, laptopAgent)
	mia := visitor(t, d, laptopAgent)
	post(t, mia, "/cart/items", url.Values{"product": {"honey"}})
	signIn(t, mia, "mia")
	for _, tt := range []struct {
		b      *browser
		path   string
		status int
		at     string // where it leads; empty: nowhere
		want   string
	}{
		{stranger, "/", 200, "", "Stoneware teapot"},
		{stranger, "/products/teapot", 200, "", "Thrown by hand"},
		{stranger, "/cart", 200, "", "Nothing in it yet"},
		{stranger, "/sign-in", 200, "", "Keep me signed in"},
		{stranger, "/sign-in?return_to=/orders", 200, "", `name="return_to" value="/orders"`},
		{stranger, "/sign-in?return_to=https://elsewhere.example/", 200, "", `name="return_to" value="/"`},
		{stranger, "/sign-in?return_to=//elsewhere.example/", 200, "", `name="return_to" value="/"`},
		{stranger, "/checkout", 200, "/sign-in", `name="return_to" value="/checkout"`},
		{stranger, "/orders", 200, "/sign-in", "Sign in"},
		{stranger, "/account/sessions", 200, "/sign-in", "Sign in"},
		{stranger, "/products/coffee", 404, "", "no such product"},
		{stranger, "/products/", 404, "", "nothing here"},
		{stranger, "/nothing", 404, "", "nothing here"},
		{stranger, "/cart/items", 404, "", "takes what a form sends"},
		{stranger, "/static/style.css", 200, "", "--paper"},
		{stranger, "/static/teapot.svg", 200, "", "<svg"},
		{stranger, "/static/favicon.svg", 200, "", "<svg"},
		{stranger, "/static/nothing.svg", 404, "", "no such file"},
		{stranger, "/static/..%2Fdemo.go", 404, "", "no such file"},
		{stranger, controlPath + "steal", 404, "", "nothing here"}, // this one has no thief
		{mia, "/", 200, "", "<strong data-name>Mia"},
		{mia, "/cart", 200, "", `data-line="honey"`},
		{mia, "/sign-in?return_to=/orders", 200, "/orders", "not ordered anything"},
		{mia, "/checkout", 200, "", "Place the order"},
		{mia, "/orders", 200, "", "not ordered anything"},
		{mia, "/account/sessions", 200, "", "Firefox on Linux <span class=\"badge\">This device"},
	} {
		a := get(t, tt.b, tt.path)
		at := tt.at
		if at == "" {
			at = pathOnly(tt.path)
		}
		if a.Status != tt.status || a.path != at && !strings.Contains(tt.path, "%2F") || !strings.Contains(a.body, tt.want) {
			t.Errorf("%s: %d at %s, want %d at %s with %q", tt.path, a.Status, a.path, tt.status, at, tt.want)
		}
		checkHeaders(t, tt.path, a)
		if strings.Contains(a.body, "<script") || strings.Contains(a.body, " style=") {
			t.Errorf("%s: a script, or a style that the CSP bars", tt.path)
		}
		if tt.b.cookie != "" && strings.Contains(a.body, tt.b.cookie) {
			t.Errorf("%s: the page shows the token", tt.path)
		}
	}
}

func checkHeaders(t *testing.T, path string, a answer) {
	t.Helper()
	for name, want := range map[string]string{
		"Content-Security-Policy":      "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
		"X-Content-Type-Options":       "nosniff",
		"X-Frame-Options":              "DENY",
		"Cross-Origin-Resource-Policy": "same-origin",
	} {
		if got := a.header.Get(name); got != want {
			t.Errorf("%s: %s: %q, want %q", path, name, got, want)
		}
	}
	cache := a.header.Get("Cache-Control")
	if static := strings.HasPrefix(path, "/static/") && a.Status == http.StatusOK; static && cache != "no-cache" || !static && cache != "no-store" {
		t.Errorf("%s: Cache-Control: %q", path, cache)
	}
	if a.Status == http.StatusUnauthorized && a.header.Get("Www-Authenticate") == "" {
		t.Errorf("%s: 401 without a challenge", path)
	}
}

// TestStaticRevalidates checks that a browser which has a picture is not sent it again.
func TestStaticRevalidates(t *testing.T) {
	t.Parallel()
	d := start(t, Config{})
	b := visitor(t, d, laptopAgent)
	etag := get(t, b, "/static/cup.svg").header.Get("Etag")
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, b.base+"static/cup.svg", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("If-None-Match", etag)
	if a, err := read(b.client, r); err != nil || a.Status != http.StatusNotModified || a.body != "" {
		t.Errorf("%d (%v), want 304", a.Status, err)
	}
}

// TestBadInput sends what no form of the shop sends.
func TestBadInput(t *testing.T) {
	t.Parallel()
	d := start(t, Config{})
	long := strings.Repeat("x", maxForm)
	for _, tt := range []struct {
		name   string
		path   string
		form   url.Values
		status int
		want   string // on the page: the field and what would do
	}{
		{"unknown product", "/cart/items", url.Values{"product": {"coffee"}}, 400, "product: the shop has no &#34;coffee&#34;"},
		{"no product", "/cart/items", nil, 400, "product:"},
		{"markup for a product", "/cart/items", url.Values{"product": {"<script>"}}, 400, "&lt;script&gt;"},
		{"quantity below zero", "/cart/items", url.Values{"product": {"cup"}, "quantity": {"-1"}}, 400, "quantity: want a whole number from 1 to 99"},
		{"quantity zero", "/cart/items", url.Values{"product": {"cup"}, "quantity": {"0"}}, 400, "quantity: want"},
		{"a million", "/cart/items", url.Values{"product": {"cup"}, "quantity": {"1000000"}}, 400, "quantity: want"},
		{"beyond int", "/cart/items", url.Values{"product": {"cup"}, "quantity": {"99999999999999999999999999"}}, 400, "quantity: want"},
		{"letters", "/cart/items", url.Values{"product": {"cup"}, "quantity": {"abc"}}, 400, "got &#34;abc&#34;"},
		{"a fraction", "/cart/items", url.Values{"product": {"cup"}, "quantity": {"1.5"}}, 400, "quantity: want"},
		{"many digits", "/cart/items", url.Values{"product": {"cup"}, "quantity": {strings.Repeat("0", 50) + "1"}}, 400, "quantity: want"},
		{"change to letters", "/cart/items/cup", url.Values{"quantity": {"abc"}}, 400, "quantity: want"},
		{"change what there is not", "/cart/items/coffee", url.Values{"quantity": {"1"}}, 400, "product:"},
		{"remove what there is not", "/cart/items/coffee/remove", nil, 400, "product:"},
		{"a form that is too long", "/cart/items", url.Values{"product": {long}}, 413, "larger than"},
		{"a sign-in that is too long", "/sign-in", url.Values{"user": {"mia"}, "password": {long}}, 413, "larger than"},
		{"a name that is too long", "/sign-in", url.Values{"user": {strings.Repeat("m", 65)}, "password": {"demo"}}, 422, "too long"},
		{"a password that is too long", "/sign-in", url.Values{"user": {"mia"}, "password": {strings.Repeat("m", 129)}}, 422, "too long"},
		{"no name", "/sign-in", url.Values{"password": {"demo"}}, 422, "The name is missing"},
		{"a name that there is not", "/sign-in", url.Values{"user": {"eve"}, "password": {"demo"}}, 422, "is wrong"},
		{"a name that is no text", "/sign-in", url.Values{"user": {"\xff\x00"}, "password": {"demo"}}, 422, "is wrong"},
		{"an empty password", "/sign-in", url.Values{"user": {"mia"}}, 422, "is wrong"},
		{"another's password", "/sign-in", url.Values{"user": {"mia"}, "password": {"Demo"}}, 422, "is wrong"},
		{"post to a page", "/", nil, 405, "takes GET"},
		{"post to nothing", "/nothing", nil, 404, "nothing here"},
	} {
		for _, b := range []*browser{visitor(t, d, laptopAgent), shopper(t, d)} {
			who := "a stranger"
			if b.cookie != "" {
				who = "a shopper"
			}
			a := post(t, b, tt.path, tt.form)
			if a.Status != tt.status || !strings.Contains(a.body, tt.want) {
				t.Errorf("%s, by %s: %d, want %d with %q", tt.name, who, a.Status, tt.status, tt.want)
			}
			if a.Status == http.StatusMethodNotAllowed && a.header.Get("Allow") != "GET" {
				t.Errorf("%s: Allow: %q", tt.name, a.header.Get("Allow"))
			}
			if b.cookie == "" && a.set != "" || a.line != "" {
				t.Errorf("%s: a cookie is set", tt.name)
			}
			checkHeaders(t, tt.path, a)
		}
	}
}

// shopper returns a visitor with something in an anonymous cart.
func shopper(t *testing.T, d *Demo) *browser {
	t.Helper()
	b := visitor(t, d, laptopAgent)
	if a := post(t, b, "/cart/items", url.Values{"product": {"cup"}}); a.Status != http.StatusOK || lines(a) != 1 {
		t.Fatalf("the cart: %d", a.Status)
	}
	return b
}

func TestMethods(t *testing.T) {
	t.Parallel()
	d := start(t, Config{})
	b := visitor(t, d, laptopAgent)
	for _, tt := range []struct {
		method, path string
		status       int
		allow        string
	}{
		{"HEAD", "/", 200, ""},
		{"HEAD", "/nothing", 404, ""},
		{"PUT", "/cart", 405, "GET"},
		{"DELETE", "/cart/items/cup", 405, "POST"},
		{"PUT", "/sign-in", 405, "GET, POST"},
		{"OPTIONS", "/", 405, "GET"},
		{"BREW", "/", 405, "GET"},
		{"GET", "/sign-out", 404, ""},
		{"HEAD", "/sign-out", 405, "POST"},
	} {
		a, err := b.request(t.Context(), tt.method, tt.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if a.Status != tt.status || a.header.Get("Allow") != tt.allow {
			t.Errorf("%s %s: %d, Allow %q; want %d, %q", tt.method, tt.path, a.Status, a.header.Get("Allow"), tt.status, tt.allow)
		}
	}
}

// TestCart changes a cart in every way there is.
func TestCart(t *testing.T) {
	t.Parallel()
	d := start(t, Config{})
	b := shopper(t, d)
	a := post(t, b, "/cart/items", url.Values{"product": {"cup"}, "quantity": {"60"}})
	if !strings.Contains(a.body, `name="quantity" value="61"`) {
		t.Error("1 and 60 do not make 61")
	}
	if a = post(t, b, "/cart/items", url.Values{"product": {"cup"}, "quantity": {"39"}}); a.Status != http.StatusBadRequest || !strings.Contains(a.body, "would hold 100") {
		t.Errorf("one too many: %d", a.Status)
	}
	a = post(t, b, "/cart/items/cup", url.Values{"quantity": {"99"}})
	if !strings.Contains(a.body, `name="quantity" value="99"`) || !strings.Contains(a.body, "€ 1584.00") {
		t.Error("the quantity or the total is not that of 99")
	}
	get(t, b, "/cart")
	if a = post(t, b, "/cart/items/cup/remove", nil); lines(a) != 0 || !strings.Contains(a.body, "Nothing in it yet") {
		t.Error("the cart is not empty")
	}
	if a = post(t, b, "/cart/items/cup/remove", nil); a.Status != http.StatusOK {
		t.Errorf("removing it once more: %d", a.Status)
	}
	stranger := visitor(t, d, laptopAgent)
	if a = post(t, stranger, "/cart/items/cup", url.Values{"quantity": {"2"}}); a.Status != http.StatusOK || a.set != "" || lines(a) != 0 {
		t.Errorf("changing a cart that is not there: %d, cookie %v", a.Status, a.set != "")
	}
	if a = signIn(t, b, "mia"); lines(a) != 0 {
		t.Error("the cart is not empty after the sign-in")
	}
	if a = get(t, b, "/checkout"); a.path != "/cart" {
		t.Errorf("the checkout of nothing leads to %s", a.path)
	}
}

// TestForms checks the CSRF token on every form of the shop.
func TestForms(t *testing.T) {
	t.Parallel()
	d := start(t, Config{})
	for _, path := range []string{
		"/cart/items", "/cart/items/cup", "/cart/items/cup/remove", "/sign-in", "/sign-out", "/start-over", "/checkout",
		"/account/sessions/sign-out-others", "/account/sessions/ses_x/sign-out",
	} {
		mia := shopper(t, d)
		signIn(t, mia, "mia")
		cookie := mia.cookie
		for _, token := range []string{"", "x", strings.Repeat("A", 44)} {
			b := *mia
			b.csrf = token
			if a := post(t, &b, path, url.Values{"product": {"tray"}}); a.Status != http.StatusForbidden || !strings.Contains(a.body, "out of date") {
				t.Errorf("%s with the CSRF token %q: %d", path, token, a.Status)
			}
		}
		if a := get(t, mia, "/cart"); a.Status != http.StatusOK || lines(a) != 1 || mia.cookie != cookie {
			t.Errorf("%s without a CSRF token changed something", path)
		}
	}
}

// TestStaleForm posts a form that was made before there was a session, as the back button does.
func TestStaleForm(t *testing.T) {
	t.Parallel()
	d := start(t, Config{})
	b := visitor(t, d, laptopAgent)
	get(t, b, "/")
	if b.csrf != "" {
		t.Error("a CSRF token without a session")
	}
	old := *b
	post(t, b, "/cart/items", url.Values{"product": {"cup"}})
	old.cookie = b.cookie
	if a := post(t, &old, "/cart/items", url.Values{"product": {"tray"}}); a.Status != http.StatusForbidden || !strings.Contains(a.body, "reload it") {
		t.Errorf("%d, want 403 and what to do", a.Status)
	}
}

// TestElsewhere checks that the shop answers nobody but this machine.
func TestElsewhere(t *testing.T) {
	t.Parallel()
	d := start(t, Config{})
	for name, change := range map[string]func(*http.Request){
		"another host": func(r *http.Request) { r.Host = "shop.example" },
		"a proxy":      func(r *http.Request) { r.Header.Set("X-Forwarded-For", "192.0.2.7") },
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, d.loopbackURL(), nil)
		if err != nil {
			t.Fatal(err)
		}
		change(r)
		if a, err := read(visitor(t, d, laptopAgent).client, r); err != nil || a.Status != http.StatusMisdirectedRequest || !strings.Contains(a.body, "will not do") {
			t.Errorf("%s: %d (%v), want 421", name, a.Status, err)
		}
	}
}

// TestDevices signs in in two places and ends the one from the other.
func TestDevices(t *testing.T) {
	t.Parallel()
	d := start(t, Config{})
	laptop, phone := visitor(t, d, laptopAgent), visitor(t, d, `evil<script>/2`)
	signIn(t, laptop, "mia")
	signIn(t, phone, "mia")
	tom := visitor(t, d, phoneAgent)
	tomsID := handle(signIn(t, tom, "tom"))

	a := get(t, laptop, "/account/sessions")
	if strings.Contains(a.body, "<script") || !strings.Contains(a.body, "&lt;script") {
		t.Error("the device's name is not escaped")
	}
	if strings.Count(a.body, "data-device=") != 2 || strings.Contains(a.body, tomsID) {
		t.Error("the list is not that of mia's two devices")
	}
	phoneID := handle(get(t, phone, "/"))
	for _, id := range []string{tomsID, "ses_x", "key_x", "%3Cscript%3E"} {
		if a := post(t, laptop, "/account/sessions/"+id+"/sign-out", nil); a.Status != http.StatusNotFound {
			t.Errorf("signing out %s: %d, want 404", id, a.Status)
		}
	}
	if a := get(t, tom, "/orders"); a.Status != http.StatusOK || a.path != "/orders" {
		t.Error("mia signed tom out")
	}
	get(t, laptop, "/account/sessions")
	a = post(t, laptop, "/account/sessions/"+phoneID+"/sign-out", nil)
	if strings.Count(a.body, "data-device=") != 1 || !strings.Contains(a.body, "it was signed out") {
		t.Error("the list does not show that the phone is out")
	}
	if a := get(t, phone, "/cart"); a.Status != http.StatusUnauthorized || !strings.Contains(a.Message, "signed out, here or from another device") {
		t.Errorf("the phone: %d, %q", a.Status, a.Message)
	}
	if a := post(t, phone, "/cart/items", url.Values{"product": {"cup"}}); a.Status != http.StatusOK || lines(a) != 1 {
		t.Errorf("the phone, going on without signing in: %d", a.Status)
	}
	here := handle(get(t, laptop, "/account/sessions"))
	if post(t, laptop, "/account/sessions/"+here+"/sign-out", nil); laptop.cookie != "" {
		t.Error("signing out this device by its entry keeps the cookie")
	}
}

// TestThrownOut checks what somebody can do whose session was ended for reuse: the cart is not lost by going on.
func TestThrownOut(t *testing.T) {
	t.Parallel()
	s := &story{}
	d := start(t, Config{Now: s.now})
	mia := shopper(t, d)
	signIn(t, mia, "mia")
	copied := *mia
	s.advance(DefaultRenewal)
	get(t, mia, "/")
	get(t, mia, "/")
	s.advance(DefaultGrace)
	if a := get(t, &copied, "/cart"); a.Reason != afterlogin.ReasonReused {
		t.Fatalf("the copy: %d %s", a.Status, a.Reason)
	}
	cookie := mia.cookie
	for _, path := range []string{"/", "/products/cup", "/sign-in", "/orders"} {
		if a := get(t, mia, path); a.Status != http.StatusOK || !strings.Contains(a.Message, "Your cart is safe") {
			t.Errorf("%s: %d, %q", path, a.Status, a.Message)
		}
	}
	if a := post(t, mia, "/cart/items", url.Values{"product": {"tray"}}); a.path != "/sign-in" || mia.cookie != cookie {
		t.Errorf("adding to the cart leads to %s, and must not take the cookie's place", a.path)
	}
	guest := *mia
	if a := post(t, &guest, "/start-over", nil); a.Status != http.StatusOK || guest.cookie != "" || a.Message != "" {
		t.Errorf("starting over: %d, cookie gone: %v", a.Status, guest.cookie == "")
	}
	if a := post(t, &guest, "/cart/items", url.Values{"product": {"tray"}}); lines(a) != 1 {
		t.Errorf("the guest's cart: %d", a.Status)
	}
	if a := signIn(t, mia, "mia"); lines(a) != 1 {
		t.Error("the cart is not back")
	}
	if a := post(t, mia, "/start-over", nil); mia.cookie == "" || a.Status != http.StatusOK {
		t.Error("starting over signs out somebody who is signed in")
	}
}

// TestPanic checks that a page which panics is answered, and the server goes on.
func TestPanic(t *testing.T) {
	t.Parallel()
	d := start(t, Config{})
	var log bytes.Buffer
	d.shop.log = slog.New(slog.NewTextHandler(&log, nil))
	w := httptest.NewRecorder()
	d.shop.safely(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("oops") })).
		ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	if w.Code != http.StatusInternalServerError || strings.Contains(w.Body.String(), "oops") || !strings.Contains(log.String(), "oops") {
		t.Errorf("%d %q; log %q", w.Code, w.Body, &log)
	}
}

// TestCatalogue checks that what the shop sells can be shown.
func TestCatalogue(t *testing.T) {
	t.Parallel()
	for _, p := range catalogue {
		if _, ok := assets[p.ID+".svg"]; !ok || p.Name == "" || p.Line == "" || p.Text == "" || p.Picture == "" || p.Cents <= 0 {
			t.Errorf("%s: something is missing", p.ID)
		}
	}
}

// TestBill checks that a cart from an older demo, with things that the shop no longer has, is shown without them.
func TestBill(t *testing.T) {
	t.Parallel()
	b := newBill([]item{{"coffee", 3}, {"cup", 2}})
	if len(b.Lines) != 1 || b.Total() != "€ 32.00" || b.Lines[0].Total() != "€ 32.00" {
		t.Errorf("%+v", b)
	}
}

// TestOrderBook checks that the book does not grow without end.
func TestOrderBook(t *testing.T) {
	t.Parallel()
	b := &orderBook{}
	for i := range maxOrders + 5 {
		if n, err := b.place("mia", cart{ID: words(time.Duration(i) * 24 * 100 * time.Hour)}, time.Time{}); err != nil || n != 1001+i {
			t.Fatalf("order %d has number %d (%v)", i, n, err)
		}
	}
	if n := len(b.of("mia")); n != maxOrders {
		t.Errorf("%d orders, want %d", n, maxOrders)
	}
}

func TestWords(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		-time.Second:            "0 seconds",
		time.Second:             "1 second",
		90 * time.Second:        "90 seconds",
		59 * time.Minute:        "59 minutes",
		time.Hour:               "1 hour",
		24 * time.Hour:          "24 hours",
		30 * 24 * time.Hour:     "30 days",
		1500 * time.Millisecond: "2 seconds",
	} {
		if got := words(d); got != want {
			t.Errorf("words(%v) = %q, want %q", d, got, want)
		}
	}
}

// FuzzForm sends anything at all to the forms: nothing may be answered with a failure of the server.
func FuzzForm(f *testing.F) {
	d, err := Start(Config{Addr: "127.0.0.1:0"})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { d.Close() })
	h := d.shop.handler()
	local := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}
	serve := func(path, body, cookie string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodPost, "http://localhost/", strings.NewReader(body))
		r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, local))
		r.URL.Path, r.RequestURI = path, path
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if cookie != "" {
			r.Header.Set("Cookie", httpauth.PlainCookieName+"="+cookie)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
	cookie := setCookie(serve("/cart/items", "product=cup", "").Header())
	if cookie == "" {
		f.Fatal("no cookie")
	}
	f.Add("/cart/items", "product=cup&quantity=1", false)
	f.Add("/cart/items/cup", "quantity=99", true)
	f.Add("/cart/items/cup/remove", "csrf_token=", true)
	f.Add("/sign-in", "user=mia&password=%zz", false)
	f.Add("/account/sessions/ses_x/sign-out", ";;", true)
	f.Fuzz(func(t *testing.T, path, body string, session bool) {
		if !strings.HasPrefix(path, "/") {
			path = "/" + path
		}
		with := ""
		if session {
			with = cookie
		}
		if w := serve(path, body, with); w.Code >= 500 {
			t.Errorf("POST %q with %q: %d", path, body, w.Code)
		}
	})
}
