package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/api"
)

func (p *program) consoleCommand() *cobra.Command {
	return group("console", "Let people into the console", "Let people into the console, the administration in a browser, and see who is in.",
		p.consoleLinkCommand(), p.consoleLinksCommand(), p.consoleCancelCommand(), p.consolePeopleCommand(), p.consoleRevokeCommand())
}

func (p *program) consoleLinkCommand() *cobra.Command {
	var role, name, life string
	var asJSON bool
	c := &cobra.Command{
		Use: "link", Short: "Make a link into the console", Args: cobra.NoArgs,
		Long: "Make a link that lets one person into the console, once. Whoever opens it and confirms is signed in, so hand it on as you would\n" +
			"a password. To open it without confirming, as the preview of a chat does, does not use it up.\n\n" +
			"An admin may do everything; a viewer sees everything but secrets, and changes nothing. The name is for the audit log.\n\n" +
			"It needs an API key with the scope admin, and with all scopes of the role, which of an admin are all. Once that key is ended, the\n" +
			"link is not good any more, either.",
		Example: "  afterlogin console link\n  afterlogin console link --role viewer --name ada --for 2h",
	}
	r := p.remoteFlags(c)
	c.Flags().StringVar(&role, "role", "admin", "admin or viewer")
	c.Flags().StringVar(&name, "name", "", "who it is for: a to z, 0 to 9 and . _ @ -; the role, if empty")
	c.Flags().StringVar(&life, "for", "30m", "for how long the link is good, 1s to 24h")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if role != "admin" && role != "viewer" {
			return usage("write --role admin or --role viewer", "--role %q is no role", role)
		}
		var made api.ConsoleLink
		in := api.ConsoleLinkRequest{Role: role, Name: name, Lifetime: life}
		if err := r.call(cmd.Context(), http.MethodPost, "/v1/console/links", nil, in, &made); err != nil {
			return err
		}
		if strings.HasPrefix(made.URL, "/") { // the server does not know its own address, but we do
			made.URL = r.base.String() + made.URL
			fmt.Fprintln(p.Err, "afterlogin: the server does not know by what address browsers reach it (the setting issuer says so): open the link there, if that is another than this")
		}
		if asJSON {
			return json.NewEncoder(p.Out).Encode(made)
		}
		if _, err := fmt.Fprintln(p.Out, made.URL); err != nil {
			return err
		}
		fmt.Fprintf(p.Err, "afterlogin: it lets %s in as %s, once, until %s\n", printable(made.Name), printable(made.Role), stamp(&made.ExpiresAt))
		return nil
	}
	return c
}

func (p *program) consoleLinksCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "links", Short: "List the links that are open", Args: cobra.NoArgs,
		Long:    "List the links into the console that nobody has used yet, without their secrets. With --json, one object on each line.",
		Example: "  afterlogin console links",
	}
	r := p.remoteFlags(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON, one object on each line")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		var list api.ConsoleLinks
		if err := r.call(cmd.Context(), http.MethodGet, "/v1/console/links", nil, nil, &list); err != nil {
			return err
		}
		w := tabwriter.NewWriter(p.Out, 0, 0, 2, ' ', 0)
		if !asJSON {
			fmt.Fprintln(w, "NAME\tROLE\tLINK\tMADE\tGOOD UNTIL\tMADE BY")
		}
		for _, l := range list.Data {
			if asJSON {
				if err := json.NewEncoder(p.Out).Encode(l); err != nil {
					return err
				}
				continue
			}
			fmt.Fprintln(w, strings.Join([]string{
				printable(l.Name), printable(l.Role), printable(l.ID), stamp(&l.CreatedAt), stamp(&l.ExpiresAt), printable(or(l.By, "-")),
			}, "\t"))
		}
		return w.Flush()
	}
	return c
}

func (p *program) consoleCancelCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "cancel <id>...", Short: "Cancel links into the console", Args: cobra.MinimumNArgs(1),
		Long:    "Cancel links into the console, by the ids that \"afterlogin console links\" prints. It needs the scope admin.",
		Example: "  afterlogin console cancel link_Zk3…",
	}
	r := p.remoteFlags(c)
	c.RunE = func(cmd *cobra.Command, args []string) error {
		return r.endEach(cmd.Context(), args, "/v1/console/links/", nil, "cancelled")
	}
	return c
}

func (p *program) consolePeopleCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "people", Short: "List who is signed in to the console", Args: cobra.NoArgs,
		Long:    "List who is signed in to the console. With --json, one object on each line.",
		Example: "  afterlogin console people",
	}
	r := p.remoteFlags(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON, one object on each line")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		w := tabwriter.NewWriter(p.Out, 0, 0, 2, ' ', 0)
		if !asJSON {
			fmt.Fprintln(w, "NAME\tROLE\tSESSION\tSINCE\tLAST SEEN\tFROM\tLET IN BY")
		}
		q := url.Values{"limit": {"500"}}
		for {
			var page api.ConsolePeople
			if err := r.call(cmd.Context(), http.MethodGet, "/v1/console/people", q, nil, &page); err != nil {
				return err
			}
			for _, who := range page.Data {
				if asJSON {
					if err := json.NewEncoder(p.Out).Encode(who); err != nil {
						return err
					}
					continue
				}
				s := who.Session
				fmt.Fprintln(w, strings.Join([]string{
					printable(who.Name), printable(who.Role), printable(s.ID), stamp(&s.CreatedAt), stamp(&s.LastSeenAt), printable(or(s.Device.IP, "-")), printable(or(who.By, "-")),
				}, "\t"))
			}
			if page.Next == "" {
				return w.Flush()
			}
			q.Set("cursor", page.Next)
		}
	}
	return c
}

func (p *program) consoleRevokeCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "revoke <id>...", Short: "Sign somebody out of the console", Args: cobra.MinimumNArgs(1),
		Long:    "End sessions of the console, by the ids that \"afterlogin console people\" prints. It needs the scopes sessions:write and admin.",
		Example: "  afterlogin console revoke ses_B4k…",
	}
	r := p.remoteFlags(c)
	c.RunE = func(cmd *cobra.Command, args []string) error {
		return r.endEach(cmd.Context(), args, "/v1/sessions/", url.Values{"wait": {"true"}}, "ended")
	}
	return c
}
