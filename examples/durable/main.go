// Command durable is quickstart with sessions that survive a restart: the embedded store and a key file, side by side in
// a directory of their own.
package main

import (
	"fmt"
	"log"
	"net/http"
	"os"
	"path/filepath"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/httpauth"
	"github.com/afterlogin/afterlogin/keyring"
	"github.com/afterlogin/afterlogin/store/pebblestore"
)

func main() {
	dir := "sessions"
	if len(os.Args) > 1 {
		dir = os.Args[1]
	}
	log.Fatal(run(dir, "localhost:4000"))
}

func run(dir, address string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	// The master key seals the others. Better keep it elsewhere: in a secret store, or on another volume.
	master, err := keyring.Master(filepath.Join(dir, "master.key"))
	if err != nil {
		return err
	}
	keys, err := keyring.Open(filepath.Join(dir, "keys.json"), master)
	if err != nil {
		return err
	}
	store, err := pebblestore.Open(filepath.Join(dir, "store"), pebblestore.Options{})
	if err != nil {
		return err
	}
	defer store.Close()
	authority, err := afterlogin.New(afterlogin.Config{Store: store, Keys: keys})
	if err != nil {
		return err
	}
	defer authority.Close()
	handler, err := site(authority)
	if err != nil {
		return err
	}
	return http.ListenAndServe(address, handler)
}

// site counts the visits of each session, anonymous ones included.
func site(authority *afterlogin.Authority) (http.Handler, error) {
	auth, err := httpauth.New(authority, httpauth.Options{})
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /sign-in", func(w http.ResponseWriter, r *http.Request) {
		if _, err := auth.SignIn(w, r, httpauth.SignIn{Subject: r.FormValue("name")}); err != nil {
			httpauth.Answer(w, r, err)
		}
	})
	mux.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) {
		visits := 0
		err := auth.UpdateData(w, r, func(d *afterlogin.Data) error {
			if _, err := d.Get("visits", &visits); err != nil {
				return err
			}
			visits++
			return d.Set("visits", visits)
		})
		if err != nil {
			httpauth.Answer(w, r, err)
			return
		}
		fmt.Fprintln(w, "visits:", visits)
	})
	return auth.Optional(mux), nil
}
