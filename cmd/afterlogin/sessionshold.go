package main

import (
	"fmt"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/api"
)

func (p *program) sessionsFreezeCommand() *cobra.Command {
	var reason string
	c := &cobra.Command{
		Use: "freeze <id>", Short: "Put a session or an API key on hold", Args: oneID,
		Long: "Refuse a session, an API key or a grant, and everything below it, until it is thawed: for when somebody must decide first.\n" +
			"It goes on to end by time. Nothing is lost: \"afterlogin sessions thaw\" makes its tokens good again.",
		Example: "  afterlogin sessions freeze ses_B4k… --reason \"incident 7\"",
	}
	r := p.remoteFlags(c)
	c.Flags().StringVar(&reason, "reason", "", "why, in a word or a few; it is kept")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if reason == "" || len(reason) > 64 {
			return usage("say why, as in --reason \"incident 7\"", "--reason needs 1 to 64 bytes")
		}
		if err := r.call(cmd.Context(), http.MethodPost, "/v1/sessions/"+segment(args[0])+"/freeze", nil, api.FreezeRequest{Reason: reason}, nil); err != nil {
			return err
		}
		_, err := fmt.Fprintln(p.Out, "on hold", args[0])
		return err
	}
	return c
}

func (p *program) sessionsThawCommand() *cobra.Command {
	var reason string
	c := &cobra.Command{
		Use: "thaw <id>", Short: "Take a session or an API key off hold", Args: oneID,
		Long:    "Make the tokens of a session, an API key or a grant good again that was put on hold, unless it has ended meanwhile.",
		Example: "  afterlogin sessions thaw ses_B4k…",
	}
	r := p.remoteFlags(c)
	c.Flags().StringVar(&reason, "reason", "", "only if it is on hold for this reason")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		q := url.Values{}
		if reason != "" {
			q.Set("reason", reason)
		}
		if err := r.call(cmd.Context(), http.MethodPost, "/v1/sessions/"+segment(args[0])+"/thaw", q, nil, nil); err != nil {
			return err
		}
		_, err := fmt.Fprintln(p.Out, "off hold", args[0])
		return err
	}
	return c
}
