package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/api"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/oauth/clients"
)

func (p *program) clientsCommand() *cobra.Command {
	return group("clients", "Register and change OAuth clients", "Register, list, show, change and remove the OAuth clients of a server, and give them new secrets.",
		p.clientsAddCommand(), p.clientsListCommand(), p.clientsShowCommand(), p.clientsChangeCommand(), p.clientsRemoveCommand(), p.clientsRotateCommand())
}

// clientFlags are the settings of a client on a command line.
type clientFlags struct {
	set      *pflag.FlagSet
	values   api.ClientSettings
	jwksFile string
}

func bindClient(set *pflag.FlagSet) *clientFlags {
	f := &clientFlags{set: set}
	v := &f.values
	set.StringVar(&v.Name, "name", "", "what people read when they are asked for consent")
	set.StringVar(&v.Auth, "auth", clients.Secret, "how it authenticates: secret, private_key_jwt, or none for apps that cannot keep a secret")
	set.StringSliceVar(&v.GrantTypes, "grant-type", nil, "authorization_code, refresh_token, client_credentials or token-exchange; several times, or with commas")
	set.StringArrayVar(&v.RedirectURIs, "redirect-uri", nil, "where answers may go; several times")
	set.StringSliceVar(&v.Scopes, "scope", nil, "what it may ask for; several times, or with commas")
	set.StringSliceVar(&v.DefaultScopes, "default-scope", nil, "what it gets if it asks for nothing")
	set.StringSliceVar(&v.Resources, "resource", nil, "the services that its tokens may be for")
	set.StringSliceVar(&v.Introspects, "introspects", nil, "the services that it is, about whose tokens it may ask; * is all")
	set.BoolVar(&v.FirstParty, "first-party", false, "it is your own: people are not asked for consent")
	set.BoolVar(&v.Offline, "offline", false, "it may have offline_access: grants that outlive the session")
	set.StringVar(&v.AccessFormat, "access-format", "", "of its access tokens: opaque or jwt")
	set.StringVar(&v.AccessLifetime, "access-lifetime", "", "shortens the lifetime of its access tokens, as in 5m")
	set.StringVar(&f.jwksFile, "jwks-file", "", "file with its public keys, for private_key_jwt")
	return f
}

// apply puts what was given over the settings.
func (f *clientFlags) apply(s *api.ClientSettings) error {
	for i, g := range f.values.GrantTypes {
		if g == "token-exchange" {
			f.values.GrantTypes[i] = clients.TokenExchange
		}
	}
	v := &f.values
	for name, take := range map[string]func(){
		"name": func() { s.Name = v.Name }, "auth": func() { s.Auth = v.Auth }, "grant-type": func() { s.GrantTypes = v.GrantTypes },
		"redirect-uri": func() { s.RedirectURIs = v.RedirectURIs }, "scope": func() { s.Scopes = v.Scopes },
		"default-scope": func() { s.DefaultScopes = v.DefaultScopes }, "resource": func() { s.Resources = v.Resources },
		"introspects": func() { s.Introspects = v.Introspects }, "first-party": func() { s.FirstParty = v.FirstParty },
		"offline": func() { s.Offline = v.Offline }, "access-format": func() { s.AccessFormat = v.AccessFormat },
		"access-lifetime": func() { s.AccessLifetime = v.AccessLifetime },
	} {
		if f.set.Changed(name) {
			take()
		}
	}
	if f.jwksFile == "" {
		return nil
	}
	file, err := os.Open(f.jwksFile)
	if err != nil {
		return fail(exitError, "", "the keys: %w", err)
	}
	defer file.Close()
	b, err := io.ReadAll(io.LimitReader(file, 64<<10))
	if err != nil {
		return fail(exitError, "", "the keys: %w", err)
	}
	if !json.Valid(b) {
		return fail(exitError, "", "%s does not hold JSON", f.jwksFile)
	}
	s.JWKS = b
	return nil
}

func (p *program) clientsAddCommand() *cobra.Command {
	var id, sum string
	var asJSON, quiet bool
	c := &cobra.Command{
		Use: "add", Short: "Register an OAuth client", Args: cobra.NoArgs,
		Long: "Register an OAuth client. Its secret, if it has one, is printed this once.",
		Example: "  afterlogin clients add --name \"Web shop\" --grant-type authorization_code,refresh_token --redirect-uri https://shop.example.com/callback --scope orders:read\n" +
			"  afterlogin clients add --id nightly-job --name \"Nightly job\" --grant-type client_credentials --scope orders:read --quiet > job.secret",
	}
	r := p.remoteFlags(c)
	f := bindClient(c.Flags())
	c.Flags().StringVar(&id, "id", "", "its client_id; made if not given")
	c.Flags().StringVar(&sum, "secret-sha256", "", "the SHA-256 of a secret that was made elsewhere")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "print the secret alone, or the client_id if there is none")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		in := api.CreateClientRequest{ID: id, SecretSHA256: sum, ClientSettings: api.ClientSettings{Auth: clients.Secret}}
		if err := f.apply(&in.ClientSettings); err != nil {
			return err
		}
		var made api.CreatedClient
		if err := r.call(cmd.Context(), http.MethodPost, "/v1/clients", nil, in, &made); err != nil {
			return err
		}
		return p.printSecret(&made, asJSON, quiet)
	}
	return c
}

func (p *program) printSecret(made *api.CreatedClient, asJSON, quiet bool) error {
	switch {
	case made.Client == nil:
		return fail(exitError, "is that an afterlogin server?", "the answer cannot be read")
	case asJSON:
		return json.NewEncoder(p.Out).Encode(made)
	case quiet:
		_, err := fmt.Fprintln(p.Out, or(made.Secret, made.Client.ID))
		return err
	}
	fmt.Fprintf(p.Out, "client_id      %s\n", printable(made.Client.ID))
	if made.Secret != "" {
		fmt.Fprintf(p.Out, "client_secret  %s\n", printable(made.Secret))
		fmt.Fprintln(p.Err, "afterlogin: the secret is shown this once")
	}
	return nil
}

func (p *program) clientsListCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{Use: "list", Short: "List OAuth clients", Args: cobra.NoArgs, Long: "List the OAuth clients. With --json, one object on each line."}
	r := p.remoteFlags(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON, one object on each line")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		var list api.ClientList
		if err := r.call(cmd.Context(), http.MethodGet, "/v1/clients", nil, nil, &list); err != nil {
			return err
		}
		if list.More {
			fmt.Fprintln(p.Err, "afterlogin: there are more than these")
		}
		if asJSON {
			e := json.NewEncoder(p.Out)
			for _, c := range list.Data {
				if err := e.Encode(c); err != nil {
					return err
				}
			}
			return nil
		}
		w := tabwriter.NewWriter(p.Out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "ID\tNAME\tAUTH\tGRANT TYPES\tFROM")
		for _, c := range list.Data {
			from := "api"
			switch {
			case c.Unreadable:
				from = "unreadable: see the server's log, or remove it"
			case c.Disabled:
				from = "file (not any more: refused)"
			case c.FromFile:
				from = "file"
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", printable(c.ID), clip(printable(c.Name), 40), c.Auth, grantNames(c.GrantTypes), from)
		}
		return w.Flush()
	}
	return c
}

func grantNames(list []string) string {
	return strings.ReplaceAll(printable(strings.Join(list, ",")), clients.TokenExchange, "token-exchange")
}

func clientPath(id string) string { return "/v1/clients/" + segment(id) }

func (p *program) clientsShowCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{Use: "show <id>", Short: "Show an OAuth client", Args: oneID, Long: "Show an OAuth client. Its secrets are not known to the server."}
	r := p.remoteFlags(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		var got api.Client
		if err := r.call(cmd.Context(), http.MethodGet, clientPath(args[0]), nil, nil, &got); err != nil {
			return err
		}
		return p.printClient(&got, asJSON)
	}
	return c
}

func (p *program) printClient(c *api.Client, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(p.Out).Encode(c)
	}
	w := tabwriter.NewWriter(p.Out, 0, 0, 2, ' ', 0)
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, "%s\t%s\n", name, printable(value))
		}
	}
	line("id", c.ID)
	line("name", c.Name)
	line("auth", c.Auth)
	for _, s := range c.Secrets {
		line("secret", "made "+stamp(s.CreatedAt)+", ends "+stamp(s.ExpiresAt))
	}
	line("grant types", grantNames(c.GrantTypes))
	line("redirect uris", strings.Join(c.RedirectURIs, " "))
	line("scopes", strings.Join(c.Scopes, " "))
	line("default scopes", strings.Join(c.DefaultScopes, " "))
	line("resources", strings.Join(c.Resources, " "))
	line("introspects", strings.Join(c.Introspects, " "))
	line("first party", strconv.FormatBool(c.FirstParty))
	line("offline", strconv.FormatBool(c.Offline))
	line("access tokens", strings.TrimSpace(c.AccessFormat+" "+c.AccessLifetime))
	line("created", stamp(&c.CreatedAt))
	switch {
	case c.Disabled:
		line("from", "the configuration file, where it does not stand any more: refused")
	case c.FromFile:
		line("from", "the configuration file")
	}
	return w.Flush()
}

func (p *program) clientsChangeCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "change <id>", Short: "Change an OAuth client", Args: oneID,
		Long:    "Change the settings of an OAuth client that are given; a list is replaced as a whole. Grants and tokens that were made before keep what they have.",
		Example: "  afterlogin clients change web-shop --redirect-uri https://shop.example.com/callback --redirect-uri https://new.example.com/callback",
	}
	r := p.remoteFlags(c)
	f := bindClient(c.Flags())
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		var had, got api.Client
		if err := r.call(cmd.Context(), http.MethodGet, clientPath(args[0]), nil, nil, &had); err != nil {
			return err
		}
		in := api.ChangeClientRequest{Version: had.Version, ClientSettings: had.ClientSettings}
		if err := f.apply(&in.ClientSettings); err != nil {
			return err
		}
		if err := r.call(cmd.Context(), http.MethodPut, clientPath(args[0]), nil, in, &got); err != nil {
			return err
		}
		return p.printClient(&got, asJSON)
	}
	return c
}

func (p *program) clientsRemoveCommand() *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use: "remove <id>", Short: "Remove an OAuth client", Args: oneID,
		Long: "Remove an OAuth client: its own tokens end, and grants that people gave it can no longer be refreshed. Its client_id cannot be used again.\n\n" +
			"It asks first. Without a terminal, say --yes.",
	}
	r := p.remoteFlags(c)
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if !yes {
			if !isTerminal(p.In) {
				return usage("add --yes", "there is nobody to ask whether %s should be removed", printable(args[0]))
			}
			fmt.Fprintf(p.Err, "Remove %s, for good? [y/N] ", printable(args[0]))
			line, err := answer(cmd.Context(), func() (string, error) { return bufio.NewReader(p.In).ReadString('\n') })
			if errors.Is(err, context.Canceled) {
				return err
			}
			if said := strings.ToLower(strings.TrimSpace(line)); said != "y" && said != "yes" {
				return fail(exitError, "", "nothing was removed")
			}
		}
		if err := r.call(cmd.Context(), http.MethodDelete, clientPath(args[0]), nil, nil, nil); err != nil {
			return err
		}
		fmt.Fprintln(p.Out, "removed", printable(args[0]))
		return nil
	}
	return c
}

func (p *program) clientsRotateCommand() *cobra.Command {
	var overlap string
	var asJSON, quiet bool
	c := &cobra.Command{
		Use: "rotate-secret <id>", Short: "Give an OAuth client a new secret", Args: oneID,
		Long: "Give an OAuth client a new secret, which is printed this once. The old one stays good for the overlap; 0s ends it now.\n\n" +
			"If the answer is lost, run it again: that ends no secret which is in use. Three are good at a time.",
	}
	r := p.remoteFlags(c)
	c.Flags().StringVar(&overlap, "overlap", "24h", "for how long the old secret is still good, up to 30d")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "print the secret alone")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		var made api.CreatedClient
		if err := r.call(cmd.Context(), http.MethodPost, clientPath(args[0])+"/secret", nil, api.RotateSecretRequest{Overlap: overlap}, &made); err != nil {
			return err
		}
		return p.printSecret(&made, asJSON, quiet)
	}
	return c
}
