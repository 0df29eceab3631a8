package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/api"
)

func (p *program) keysCommand() *cobra.Command {
	return group("keys", "List, rotate and retire signing keys", "List, rotate and retire the keys that sign JWTs.",
		p.keysListCommand(), p.keysRotateCommand(), p.keysRetireCommand())
}

func (p *program) keysListCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "list", Short: "List signing keys", Args: cobra.NoArgs,
		Long:    "List the keys that sign JWTs, those that will, and those that did, until a month after their end. With --json, one object on each line.",
		Example: "  afterlogin keys list",
	}
	r := p.remoteFlags(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON, one object on each line")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		var keys api.SigningKeys
		if err := r.call(cmd.Context(), http.MethodGet, "/v1/keys", nil, nil, &keys); err != nil {
			return err
		}
		e := json.NewEncoder(p.Out)
		w := tabwriter.NewWriter(p.Out, 0, 0, 2, ' ', 0)
		if !asJSON {
			fmt.Fprintln(w, "KID\tALG\tSTATE\tCREATED\tSIGNS FROM\tUNTIL")
		}
		for _, k := range keys.Data {
			if asJSON {
				if err := e.Encode(k); err != nil {
					return err
				}
				continue
			}
			from := "the first"
			if k.SignsFrom != nil {
				from = stamp(k.SignsFrom)
			}
			until := "-"
			if k.Until != nil {
				until = stamp(k.Until)
			}
			fmt.Fprintln(w, strings.Join([]string{printable(k.ID), printable(k.Algorithm), printable(k.State), stamp(&k.CreatedAt), from, until}, "\t"))
		}
		return w.Flush()
	}
	return c
}

func (p *program) keysRotateCommand() *cobra.Command {
	var in api.RotateSigningRequest
	var asJSON bool
	c := &cobra.Command{
		Use: "rotate", Short: "Replace the signing key by a new one", Args: cobra.NoArgs,
		Long: "Publish a new signing key. It begins to sign after the lead, when every verifier has read it, and the old one is accepted until its last token is dead: no request fails.\n\n" +
			"For a key that got out, see \"afterlogin keys retire\".",
		Example: "  afterlogin keys rotate\n  afterlogin keys rotate --algorithm ES256 --lead 1d",
	}
	r := p.remoteFlags(c)
	c.Flags().StringVar(&in.Algorithm, "algorithm", "", "EdDSA, ES256 or RS256 (default what the server signs with); the first key of an algorithm signs at once")
	c.Flags().StringVar(&in.Lead, "lead", "15m", "how long it is published before it signs, 15m to 30d")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.RegisterFlagCompletionFunc("algorithm", cobra.FixedCompletions([]string{"EdDSA", "ES256", "RS256"}, cobra.ShellCompDirectiveNoFileComp))
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if in.Lead == "" {
			return usage("leave it away for 15m", "--lead is empty")
		}
		var k api.SigningKey
		if err := r.call(cmd.Context(), http.MethodPost, "/v1/keys/rotate", nil, in, &k); err != nil {
			return err
		}
		if asJSON {
			return json.NewEncoder(p.Out).Encode(k)
		}
		when := "signs now"
		if k.SignsFrom != nil && k.State == "next" {
			when = "signs from " + k.SignsFrom.UTC().Format(time.RFC3339)
		}
		_, err := fmt.Fprintf(p.Out, "published %s %s, which %s\n", printable(k.Algorithm), printable(k.ID), when)
		return err
	}
	return c
}

func (p *program) keysRetireCommand() *cobra.Command {
	var yes, asJSON bool
	c := &cobra.Command{
		Use: "retire <kid>", Short: "Take a signing key away, in an emergency", Args: oneID,
		Long: "Take a signing key away at once, because its private half got out. This server refuses what it signed at once, and other verifiers when they read the keys again, within 10 minutes. " +
			"Until then they also refuse what the key that takes its place signs.\n\n" +
			"It asks first. Without a terminal, say --yes.",
		Example: "  afterlogin keys retire 4DDLGP6rZm8t…",
	}
	r := p.remoteFlags(c)
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if !yes {
			if !isTerminal(p.In) {
				return usage("add --yes", "there is nobody to ask whether %s should be retired", printable(args[0]))
			}
			fmt.Fprintf(p.Err, "Refuse every JWT that %s signed? [y/N] ", printable(args[0]))
			line, err := answer(cmd.Context(), func() (string, error) { return bufio.NewReader(p.In).ReadString('\n') })
			if cmd.Context().Err() != nil {
				fmt.Fprintln(p.Err)
				return err
			}
			if reply := strings.ToLower(strings.TrimSpace(line)); reply != "y" && reply != "yes" {
				return fail(exitError, "", "nothing was retired")
			}
		}
		var k api.SigningKey
		if err := r.call(cmd.Context(), http.MethodPost, "/v1/keys/"+segment(args[0])+"/retire", nil, nil, &k); err != nil {
			return err
		}
		if asJSON {
			return json.NewEncoder(p.Out).Encode(k)
		}
		_, err := fmt.Fprintf(p.Out, "retired %s; %s %s signs now\n", printable(args[0]), printable(k.Algorithm), printable(k.ID))
		return err
	}
	return c
}
