package main

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/api"
)

func (p *program) apiKeysCommand() *cobra.Command {
	return group("api-keys", "Make, list, rotate and end API keys", "Make, import, list, show, rotate and end the API keys of a server.",
		p.apiKeysCreateCommand(), p.apiKeysImportCommand(), p.apiKeysListCommand(), p.apiKeysShowCommand(), p.apiKeysRotateCommand(), p.apiKeysRevokeCommand())
}

// keyFlags adds the flags that say what a key is to be.
func keyFlags(c *cobra.Command) *api.CreateKeyRequest {
	in := &api.CreateKeyRequest{}
	c.Flags().StringVar(&in.Subject, "subject", "", "whom or what it belongs to; required")
	c.Flags().StringVar(&in.Name, "name", "", "what people call it")
	c.Flags().StringSliceVar(&in.Scopes, "scope", nil, "what it may do; several times, or with commas")
	c.Flags().StringVar(&in.Lifetime, "lifetime", "", "ends it earlier than its policy, as in 30d")
	c.Flags().BoolVar(&in.NoExpiry, "no-expiry", false, "it never ends; the policy api-key must allow that")
	c.Flags().StringSliceVar(&in.Networks, "network", nil, "where it may be used from, as in 203.0.113.0/24; several times, or with commas")
	c.Flags().IntVar(&in.Rate, "rate", 0, "how many requests a minute it may make on each node")
	c.Flags().StringSliceVar(&in.Audience, "audience", nil, "the services it is for")
	c.Flags().StringVar(&in.Origin, "origin", "", "the session that the person made it in, ses_…")
	c.MarkFlagsMutuallyExclusive("lifetime", "no-expiry")
	return in
}

func checkKey(in *api.CreateKeyRequest) error {
	if in.Subject == "" {
		return usage("add --subject, as in --subject build-server", "whose key is it?")
	}
	return nil
}

func (p *program) apiKeysCreateCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "create --subject <name>", Short: "Make an API key", Args: cobra.NoArgs,
		Long: "Make an API key. Its secret is printed alone on standard output, this once; everything else goes to standard error.",
		Example: "  afterlogin api-keys create --subject build-server --scope orders:read --lifetime 90d > key.txt\n" +
			"  afterlogin api-keys create --subject partner --network 203.0.113.0/24 --rate 600",
	}
	r := p.remoteFlags(c)
	in := keyFlags(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON, with the secret")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if err := checkKey(in); err != nil {
			return err
		}
		var made api.CreatedKey
		if err := r.call(cmd.Context(), http.MethodPost, "/v1/api-keys", nil, in, &made); err != nil {
			return err
		}
		return p.printKey(&made, asJSON)
	}
	return c
}

// printKey prints a key that was just made. Its secret is not shown again.
func (p *program) printKey(made *api.CreatedKey, asJSON bool) error {
	if made.APIKey == nil {
		return fail(exitError, "is that an afterlogin server?", "the answer cannot be read")
	}
	if asJSON {
		e := json.NewEncoder(p.Out)
		e.SetEscapeHTML(false)
		return e.Encode(made)
	}
	k := made.APIKey
	fmt.Fprintf(p.Err, "afterlogin: made %s for %s, good until %s; this is the only time that it is shown\n", k.ID, printable(k.Subject), stamp(k.ExpiresAt))
	_, err := fmt.Fprintln(p.Out, made.Token)
	return err
}

func (p *program) apiKeysImportCommand() *cobra.Command {
	var sum, file string
	var asJSON bool
	c := &cobra.Command{
		Use: "import --subject <name> (--sha256 <hash> | --file <file>)", Short: "Take over an API key that was made elsewhere", Args: cobra.NoArgs,
		Long: "Take over an API key that was made elsewhere, by the SHA-256 of its text: its holder goes on using it. The server must have api_keys.imported set.\n\n" +
			"The key must have at least 128 random bits. With --file, the file holds the key itself, which stays on this machine: only its hash is sent.",
		Example: "  afterlogin api-keys import --subject partner --sha256 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\n" +
			"  afterlogin api-keys import --subject partner --file partner.key --scope orders:read",
	}
	r := p.remoteFlags(c)
	in := keyFlags(c)
	c.Flags().StringVar(&sum, "sha256", "", "the SHA-256 of the key's text, in hexadecimal or base64")
	c.Flags().StringVar(&file, "file", "", "file with the key")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.MarkFlagFilename("file")
	c.MarkFlagsMutuallyExclusive("sha256", "file")
	c.MarkFlagsOneRequired("sha256", "file")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if err := checkKey(in); err != nil {
			return err
		}
		if in.SHA256 = sum; file != "" {
			b, err := os.ReadFile(file)
			if err != nil {
				return fail(exitError, "", "read the key: %w", err)
			}
			text := strings.TrimSpace(string(b))
			if len(text) < 16 || len(text) > 512 || strings.ContainsAny(text, " \t\r\n") {
				return usage("it should hold the key alone, on one line", "%s does not hold a key of 16 to 512 characters", file)
			}
			in.SHA256 = fmt.Sprintf("%x", sha256.Sum256([]byte(text)))
		}
		var made api.CreatedKey
		if err := r.call(cmd.Context(), http.MethodPost, "/v1/api-keys", nil, in, &made); err != nil {
			return err
		}
		if asJSON {
			return json.NewEncoder(p.Out).Encode(made.APIKey)
		}
		if made.APIKey == nil {
			return fail(exitError, "is that an afterlogin server?", "the answer cannot be read")
		}
		_, err := fmt.Fprintln(p.Out, "imported", made.APIKey.ID)
		return err
	}
	return c
}

func (p *program) apiKeysListCommand() *cobra.Command {
	var subject string
	var ended, all, asJSON bool
	var limit int
	c := &cobra.Command{
		Use: "list", Short: "List API keys", Args: cobra.NoArgs,
		Long:    "List API keys, of one subject or of all. With --json, one object on each line.",
		Example: "  afterlogin api-keys list --subject build-server\n  afterlogin api-keys list --all --json | jq -r .id",
	}
	r := p.remoteFlags(c)
	c.Flags().StringVar(&subject, "subject", "", "only of this subject")
	c.Flags().BoolVar(&ended, "ended", false, "also those that are over")
	c.Flags().IntVar(&limit, "limit", 50, "at most this many, 1 to 1000")
	c.Flags().BoolVar(&all, "all", false, "all of them")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON, one object on each line")
	c.MarkFlagsMutuallyExclusive("limit", "all")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if cmd.Flags().Changed("subject") && subject == "" {
			return usage("leave --subject away for all", "--subject is empty")
		}
		if limit < 1 || limit > 1000 {
			return usage("", "--limit %d is not between 1 and 1000", limit)
		}
		q := url.Values{"limit": {strconv.Itoa(limit)}}
		if all {
			q.Set("limit", "500")
		}
		if subject != "" {
			q.Set("subject", subject)
		}
		if ended {
			q.Set("ended", "true")
		}
		t := p.table(asJSON, ended)
		t.keys = true
		for {
			var page api.List
			if err := r.call(cmd.Context(), http.MethodGet, "/v1/api-keys", q, nil, &page); err != nil {
				return err
			}
			for _, s := range page.Data {
				if err := t.row(s); err != nil {
					return err
				}
			}
			if page.Next == "" || !all {
				if err := t.flush(); err != nil {
					return err
				}
				if page.Next != "" {
					fmt.Fprintln(p.Err, "afterlogin: there are more; --all shows them")
				}
				return nil
			}
			q.Set("cursor", page.Next)
		}
	}
	return c
}

func (p *program) apiKeysShowCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "show <id>", Short: "Show an API key", Args: cobra.ExactArgs(1),
		Long:    "Show an API key (key_…), also one that is over. The secret is not shown: nobody has it but its holder.",
		Example: "  afterlogin api-keys show key_B4k…",
	}
	r := p.remoteFlags(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if err := notAToken(args[0]); err != nil {
			return err
		}
		var s api.Session
		if err := r.call(cmd.Context(), http.MethodGet, "/v1/api-keys/"+segment(args[0]), nil, nil, &s); err != nil {
			return err
		}
		if asJSON {
			return json.NewEncoder(p.Out).Encode(s)
		}
		w := tabwriter.NewWriter(p.Out, 0, 0, 2, ' ', 0)
		line := func(name, value string) {
			if value != "" {
				fmt.Fprintf(w, "%s\t%s\n", name, printable(value))
			}
		}
		line("id", s.ID)
		line("subject", s.Subject)
		line("name", s.Name)
		line("scopes", strings.Join(s.Scopes, " "))
		line("audience", strings.Join(s.Audience, " "))
		line("networks", strings.Join(s.Networks, " "))
		if s.Rate > 0 {
			line("rate", strconv.Itoa(s.Rate)+" a minute")
		}
		line("policy", s.Policy)
		line("made in", s.Origin)
		line("created", stamp(&s.CreatedAt))
		line("last used", stamp(&s.LastSeenAt))
		line("expires", stamp(s.ExpiresAt))
		if s.EndedAt != nil {
			line("ended", stamp(s.EndedAt)+" "+s.EndedWhy)
		}
		return w.Flush()
	}
	return c
}

func (p *program) apiKeysRotateCommand() *cobra.Command {
	var overlap string
	var asJSON bool
	c := &cobra.Command{
		Use: "rotate <id>", Short: "Replace an API key by a new one", Args: cobra.ExactArgs(1),
		Long: "Make a new API key with the settings of the one with the id, and end the old one after the overlap, so that whoever uses it has time to change.\n\n" +
			"The new secret is printed alone on standard output, this once.",
		Example: "  afterlogin api-keys rotate key_B4k… > key.txt\n  afterlogin api-keys rotate key_B4k… --overlap 7d",
	}
	r := p.remoteFlags(c)
	c.Flags().StringVar(&overlap, "overlap", "24h", "for how long the old key is still good, 0s to 30d")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON, with the secret")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if err := notAToken(args[0]); err != nil {
			return err
		}
		if overlap == "" {
			return usage("leave it away for 24h", "--overlap is empty")
		}
		var made api.CreatedKey
		if err := r.call(cmd.Context(), http.MethodPost, "/v1/api-keys/"+segment(args[0])+"/rotate", nil, api.RotateKeyRequest{Overlap: overlap}, &made); err != nil {
			return err
		}
		if err := p.printKey(&made, asJSON); err != nil {
			return err
		}
		if asJSON {
			return nil
		}
		fmt.Fprintf(p.Err, "afterlogin: %s is good for %s more\n", args[0], overlap)
		return nil
	}
	return c
}

func (p *program) apiKeysRevokeCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "revoke <id>...", Short: "End API keys", Args: cobra.ArbitraryArgs,
		Long:    "End API keys at once. What has been ended stays ended; ending it again does no harm.",
		Example: "  afterlogin api-keys revoke key_B4k…",
	}
	r := p.remoteFlags(c)
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return usage("name ids, key_…", "nothing to revoke")
		}
		return r.endEach(cmd.Context(), args, "/v1/api-keys/", nil, "ended")
	}
	return c
}
