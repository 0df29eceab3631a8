package httpauth_test

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/httpauth"
	"github.com/afterlogin/afterlogin/store/memstore"
)

// A site with a sign-in, a page for those who are signed in, and a sign-out.
func Example() {
	authority, err := afterlogin.New(afterlogin.Config{Store: memstore.New()})
	if err != nil {
		log.Fatal(err)
	}
	defer authority.Close()
	auth, err := httpauth.New(authority, httpauth.Options{})
	if err != nil {
		log.Fatal(err)
	}

	mux := http.NewServeMux()
	mux.Handle("POST /sign-in", auth.Optional(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := r.FormValue("name")
		mark, err := auth.Begin(r, name) // before the password is checked
		if err == nil && r.FormValue("password") != "correct horse" {
			http.Error(w, "wrong name or password", http.StatusForbidden)
			return
		}
		if err == nil {
			_, err = auth.SignIn(w, r, httpauth.SignIn{Subject: name, Mark: mark, Methods: []string{"pwd"}})
		}
		if err != nil {
			httpauth.Answer(w, r, err)
			return
		}
		http.Redirect(w, r, httpauth.SafeReturn(r.FormValue("return_to")), http.StatusSeeOther)
	})))
	mux.Handle("GET /", auth.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		session, _ := httpauth.Session(r.Context())
		fmt.Fprintf(w, "hello, %s", session.Subject)
	})))
	mux.Handle("GET /csrf", auth.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, auth.CSRFToken(r)) // usually a hidden field of a form
	})))
	mux.Handle("POST /sign-out", auth.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := auth.SignOut(w, r); err != nil {
			httpauth.Answer(w, r, err)
		}
	})))

	// A browser.
	server := httptest.NewTLSServer(mux)
	defer server.Close()
	browser := server.Client()
	browser.Jar, _ = cookiejar.New(nil)
	say := func(resp *http.Response, err error) (body string) {
		if err != nil {
			log.Fatal(err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return fmt.Sprint(resp.StatusCode, " ", string(b))
	}
	fmt.Print(say(browser.Get(server.URL)))
	fmt.Println(say(browser.PostForm(server.URL+"/sign-in", url.Values{"name": {"mia"}, "password": {"correct horse"}})))
	token := say(browser.Get(server.URL + "/csrf"))[len("200 "):]
	fmt.Print(say(browser.PostForm(server.URL+"/sign-out", url.Values{})))
	fmt.Println(say(browser.PostForm(server.URL+"/sign-out", url.Values{httpauth.CSRFField: {token}})) + "signed out")
	fmt.Print(say(browser.Get(server.URL)))

	// Output:
	// 401 You are not signed in.
	// 200 hello, mia
	// 403 The form's CSRF token is missing or belongs to another session. Reload the page and try again; scripts send it in the header X-CSRF-Token.
	// 200 signed out
	// 401 You are not signed in.
}

// Two applications on two hosts: people sign in on accounts.example, and are handed over to shop.example.
func ExampleAuth_AcceptHandOver() {
	authority, err := afterlogin.New(afterlogin.Config{Store: memstore.New()})
	if err != nil {
		log.Fatal(err)
	}
	defer authority.Close()

	shop, err := httpauth.New(authority, httpauth.Options{Origin: "https://shop.example", SignInURL: "/enter"})
	if err != nil {
		log.Fatal(err)
	}
	onShop := http.NewServeMux()
	onShop.HandleFunc("GET /enter", func(w http.ResponseWriter, r *http.Request) {
		if err := shop.StartHandOver(w, r, "https://accounts.example/hand-over", r.FormValue("return_to")); err != nil {
			httpauth.Answer(w, r, err)
		}
	})
	onShop.Handle("/orders", shop.AcceptHandOver(shop.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		session, _ := httpauth.Session(r.Context())
		fmt.Fprintf(w, "the orders of %s", session.Subject)
	}))))

	accounts, err := httpauth.New(authority, httpauth.Options{SignInURL: "/sign-in", HandOverTo: []string{"https://shop.example"}})
	if err != nil {
		log.Fatal(err)
	}
	onAccounts := http.NewServeMux()
	onAccounts.Handle("/hand-over", accounts.HandOver())

	// Somebody who is signed in nowhere is sent to /enter, from there to accounts.example, and there to sign in.
	nobody := httptest.NewRecorder()
	r := httptest.NewRequest("GET", "https://shop.example/orders", nil)
	r.Header.Set("Accept", "text/html")
	onShop.ServeHTTP(nobody, r)
	fmt.Println(nobody.Code, nobody.Header().Get("Location"))
	entering := httptest.NewRecorder()
	onShop.ServeHTTP(entering, httptest.NewRequest("GET", "https://shop.example"+nobody.Header().Get("Location"), nil))
	to, _ := url.Parse(entering.Header().Get("Location"))
	fmt.Println(entering.Code, to.Host+to.Path, to.Query().Get("to"))
	asked := httptest.NewRecorder()
	r = httptest.NewRequest("GET", to.String(), nil)
	r.Header.Set("Accept", "text/html")
	onAccounts.ServeHTTP(asked, r)
	back, _ := url.Parse(asked.Header().Get("Location"))
	fmt.Println(asked.Code, back.Path)

	// Output:
	// 303 /enter?return_to=%2Forders
	// 303 accounts.example/hand-over https://shop.example/orders
	// 303 /sign-in
}
