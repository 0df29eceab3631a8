// Command quickstart is the program of the README: sign in, be known, sign out.
package main

import (
	"fmt"
	"log"
	"net/http"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/httpauth"
	"github.com/afterlogin/afterlogin/store/memstore"
)

func main() {
	authority, err := afterlogin.New(afterlogin.Config{Store: memstore.New()})
	if err != nil {
		log.Fatal(err)
	}
	auth, err := httpauth.New(authority, httpauth.Options{})
	if err != nil {
		log.Fatal(err)
	}
	http.Handle("POST /sign-in", auth.Optional(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Check the password here, however you like.
		if _, err := auth.SignIn(w, r, httpauth.SignIn{Subject: r.FormValue("name")}); err != nil {
			httpauth.Answer(w, r, err)
		}
	})))
	http.Handle("GET /", auth.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		session, _ := httpauth.Session(r.Context())
		fmt.Fprintln(w, "hello", session.Subject)
	})))
	log.Fatal(http.ListenAndServe("localhost:4000", nil))
}
