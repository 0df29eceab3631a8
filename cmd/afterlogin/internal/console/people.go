package console

import (
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/api"
)

type peopleData struct {
	api.ConsolePeople
	Links []api.ConsoleOpenLink
	Self  string // the session that looks
}

// people lists who is signed in to the console, and the links that would let somebody in.
func (v *visit) people() error {
	q := v.query("cursor")
	q.Set("limit", pageSize)
	var list api.ConsolePeople
	if err := v.get("/v1/console/people", q, &list); err != nil {
		return err
	}
	var open api.ConsoleLinks
	if err := v.get("/v1/console/links", nil, &open); err != nil {
		return err
	}
	return v.show("people", "People with access", peopleData{list, open.Data, string(v.caller.ID)})
}

// cancelLink cancels a link. It is not asked whether that is meant: another one is soon made.
func (v *visit) cancelLink() error {
	if err := v.del("/v1/console/links/"+seg(v.r.PathValue("id")), nil); err != nil {
		return err
	}
	return v.done("/people", "link-cancelled")
}

func (v *visit) newLink() error { return v.show("link-new", "Let somebody in", nil) }

// makeLink makes a link, and shows it once.
func (v *visit) makeLink() error {
	in := api.ConsoleLinkRequest{Role: v.field("role"), Name: v.field("name"), Lifetime: v.field("lifetime")}
	var made api.ConsoleLink
	if err := v.post("/v1/console/links", in, &made); err != nil {
		return v.again("link-new", "Let somebody in", nil, err)
	}
	return v.show("secret", "The link", secretData{
		What: "link", Secret: v.absolute(made.URL), Next: "/people", NextText: "To the list of people",
		Lines: []string{"It lets " + made.Name + " in as " + made.Role + ", once, until " + stamp(made.ExpiresAt) + "."},
	})
}

// absolute makes an address of a link that is only a path: the server does not know what it is called, but the browser that
// asks does.
func (v *visit) absolute(link string) string {
	if link == "" || link[0] != '/' {
		return link
	}
	scheme := "https://"
	if v.c.o.PlainLoopback {
		scheme = "http://"
	}
	return scheme + v.r.Host + link
}
