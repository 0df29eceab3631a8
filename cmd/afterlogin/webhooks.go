package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/api"
)

func (p *program) webhooksCommand() *cobra.Command {
	return group("webhooks", "Have events sent to other servers", "Have events sent to other servers as signed requests, and look after what did not arrive.",
		p.webhooksAddCommand(), p.webhooksListCommand(), p.webhooksShowCommand(), p.webhooksSetCommand(),
		p.webhooksSwitchCommand("disable", "Send nothing for a while", "Send nothing. What happens meanwhile is sent when the webhook is enabled again; what the store does not have any more by then is told of by the event events.missed.", true),
		p.webhooksSwitchCommand("enable", "Send events again", "Send events again, from where it stopped.", false),
		p.webhooksRemoveCommand(), p.webhooksRotateCommand(), p.webhooksTestCommand(), p.webhooksDeadLettersCommand(), p.webhooksRedeliverCommand())
}

// oneWebhook takes the id of one webhook.
func oneWebhook(cmd *cobra.Command, args []string) error {
	if len(args) != 1 || args[0] == "" {
		return usage("as in "+cmd.CommandPath()+" wh_…; \"afterlogin webhooks list\" shows them", "name one webhook")
	}
	return notAToken(args[0])
}

func webhookPath(id string, more ...string) string {
	return "/v1/webhooks/" + segment(id) + strings.Join(more, "")
}

// secretShown prints a webhook that was made or given a new secret: for people the secret is alone on standard output.
func (p *program) secretShown(made *api.CreatedWebhook, what string, asJSON bool) error {
	switch {
	case made.Webhook == nil || made.Secret == "":
		return fail(exitError, "is that an afterlogin server?", "the answer cannot be read")
	case asJSON:
		return json.NewEncoder(p.Out).Encode(made)
	}
	fmt.Fprintf(p.Err, "afterlogin: %s %s; this is the only time that its secret is shown\n", what, printable(made.Webhook.ID))
	_, err := fmt.Fprintln(p.Out, made.Secret)
	return err
}

func (p *program) webhooksAddCommand() *cobra.Command {
	var in api.CreateWebhookRequest
	var asJSON bool
	c := &cobra.Command{
		Use: "add <url>", Short: "Have events sent to an address",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usage("as in afterlogin webhooks add https://shop.example/hooks", "name one address")
			}
			return nil
		},
		Long: "Have events sent to an address, from now on. Without --event, whatever ends something is sent.\n\n" +
			"The secret that the requests are signed with is printed alone on standard output, this once. The receiver needs it to tell our requests from others'.",
		Example: "  afterlogin webhooks add https://shop.example/hooks > secret\n  afterlogin webhooks add https://shop.example/hooks --event 'session.*' --event subject.signed_out",
	}
	r := p.remoteFlags(c)
	c.Flags().StringSliceVar(&in.Events, "event", nil, "a type of events, or such as 'session.*', or '*'; several times, or with commas")
	c.Flags().StringVar(&in.Description, "description", "", "one line, for people")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		in.URL = args[0]
		var made api.CreatedWebhook
		if err := r.call(cmd.Context(), http.MethodPost, "/v1/webhooks", nil, in, &made); err != nil {
			return err
		}
		return p.secretShown(&made, "added", asJSON)
	}
	return c
}

// webhookState says in a few words how a webhook does.
func webhookState(h *api.Webhook) string {
	switch {
	case h.Disabled:
		return "disabled"
	case h.Failures > 0:
		return "failing"
	}
	return "ok"
}

func (p *program) webhooksListCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "list", Short: "List webhooks", Args: cobra.NoArgs, Long: "List webhooks, with how their deliveries go. With --json, one object on each line.",
		Example: "  afterlogin webhooks list",
	}
	r := p.remoteFlags(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON, one object on each line")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		var list api.WebhookList
		if err := r.call(cmd.Context(), http.MethodGet, "/v1/webhooks", nil, nil, &list); err != nil {
			return err
		}
		if asJSON {
			for _, h := range list.Data {
				if err := json.NewEncoder(p.Out).Encode(h); err != nil {
					return err
				}
			}
			return nil
		}
		w := tabwriter.NewWriter(p.Out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "ID\tSTATE\tWAITING\tDEAD\tLAST SUCCESS\tURL")
		for _, h := range list.Data {
			last := "-"
			if h.LastSuccessAt != nil {
				last = stamp(h.LastSuccessAt)
			}
			fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%s\t%s\n", printable(h.ID), webhookState(h), h.Waiting, h.DeadLetters, last, clip(printable(h.URL), 60))
		}
		return w.Flush()
	}
	return c
}

func (p *program) webhooksShowCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "show <id>", Short: "Show a webhook", Args: oneWebhook, Long: "Show a webhook, and how its deliveries go.",
		Example: "  afterlogin webhooks show wh_…",
	}
	r := p.remoteFlags(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		var h api.Webhook
		if err := r.call(cmd.Context(), http.MethodGet, webhookPath(args[0]), nil, nil, &h); err != nil {
			return err
		}
		return p.showWebhook(&h, asJSON)
	}
	return c
}

func (p *program) showWebhook(h *api.Webhook, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(p.Out).Encode(h)
	}
	w := tabwriter.NewWriter(p.Out, 0, 0, 2, ' ', 0)
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, "%s\t%s\n", name, printable(value))
		}
	}
	at := func(name string, t *time.Time) {
		if t != nil {
			line(name, stamp(t))
		}
	}
	line("id", h.ID)
	line("url", h.URL)
	line("description", h.Description)
	line("events", strings.Join(h.Events, " "))
	state := webhookState(h)
	if h.DisabledWhy != "" {
		state += ": " + h.DisabledWhy
	}
	line("state", state)
	line("added", stamp(&h.CreatedAt))
	line("changed", stamp(&h.ChangedAt))
	at("old secret until", h.OldSecretUntil)
	line("delivered by", h.Server)
	line("waiting", strconv.FormatUint(h.Waiting, 10))
	at("oldest waiting", h.OldestWaiting)
	at("next try", h.NextTryAt)
	line("dead letters", strconv.FormatUint(h.DeadLetters, 10))
	at("last success", h.LastSuccessAt)
	at("last failure", h.LastFailureAt)
	if h.Failures > 0 {
		line("failures", strconv.Itoa(h.Failures)+" in a row")
		line("last error", h.LastError)
	}
	return w.Flush()
}

func (p *program) webhooksSetCommand() *cobra.Command {
	var address, description string
	var events []string
	var asJSON bool
	c := &cobra.Command{
		Use: "set <id>", Short: "Change a webhook", Args: oneWebhook,
		Long:    "Change the address, the events or the description of a webhook. What waits goes to the new address, at once.",
		Example: "  afterlogin webhooks set wh_… --url https://shop.example/new\n  afterlogin webhooks set wh_… --event 'session.*'",
	}
	r := p.remoteFlags(c)
	c.Flags().StringVar(&address, "url", "", "the address")
	c.Flags().StringSliceVar(&events, "event", nil, "all types of events that are to be sent; several times, or with commas")
	c.Flags().StringVar(&description, "description", "", "one line, for people")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		in := api.ChangeWebhookRequest{Events: events}
		if cmd.Flags().Changed("url") {
			in.URL = &address
		}
		if cmd.Flags().Changed("description") {
			in.Description = &description
		}
		if in.URL == nil && in.Description == nil && len(events) == 0 {
			return usage("add --url, --event or --description", "nothing to change")
		}
		var h api.Webhook
		if err := r.call(cmd.Context(), http.MethodPatch, webhookPath(args[0]), nil, in, &h); err != nil {
			return err
		}
		if asJSON {
			return json.NewEncoder(p.Out).Encode(h)
		}
		_, err := fmt.Fprintln(p.Out, "changed", printable(h.ID))
		return err
	}
	return c
}

func (p *program) webhooksSwitchCommand(use, short, long string, disabled bool) *cobra.Command {
	c := &cobra.Command{Use: use + " <id>", Short: short, Args: oneWebhook, Long: long, Example: "  afterlogin webhooks " + use + " wh_…"}
	r := p.remoteFlags(c)
	c.RunE = func(cmd *cobra.Command, args []string) error {
		var h api.Webhook
		if err := r.call(cmd.Context(), http.MethodPatch, webhookPath(args[0]), nil, api.ChangeWebhookRequest{Disabled: &disabled}, &h); err != nil {
			return err
		}
		_, err := fmt.Fprintln(p.Out, use+"d", printable(h.ID))
		return err
	}
	return c
}

func (p *program) webhooksRemoveCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "remove <id>", Short: "Remove a webhook", Args: oneWebhook,
		Long:    "Remove a webhook, with what waits for it and its dead letters.",
		Example: "  afterlogin webhooks remove wh_…",
	}
	r := p.remoteFlags(c)
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if err := r.call(cmd.Context(), http.MethodDelete, webhookPath(args[0]), nil, nil, nil); err != nil {
			return err
		}
		_, err := fmt.Fprintln(p.Out, "removed", args[0])
		return err
	}
	return c
}

func (p *program) webhooksRotateCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "rotate-secret <id>", Short: "Give a webhook a new signing secret", Args: oneWebhook,
		Long: "Give a webhook a new signing secret, which is printed alone on standard output, this once. For 24 hours requests are signed with the one before, too.\n\n" +
			"It can be changed three times in 24 hours.",
		Example: "  afterlogin webhooks rotate-secret wh_… > secret",
	}
	r := p.remoteFlags(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		var made api.CreatedWebhook
		if err := r.call(cmd.Context(), http.MethodPost, webhookPath(args[0], "/rotate-secret"), nil, nil, &made); err != nil {
			return err
		}
		return p.secretShown(&made, "gave a new secret to", asJSON)
	}
	return c
}

func (p *program) webhooksTestCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "test <id>", Short: "Send a test event now", Args: oneWebhook,
		Long:    "Send one event of the type webhook.test now, and say what the receiver answered. It exits with 3 if the receiver did not take it.",
		Example: "  afterlogin webhooks test wh_…",
	}
	r := p.remoteFlags(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		var t api.WebhookTest
		if err := r.call(cmd.Context(), http.MethodPost, webhookPath(args[0], "/test"), nil, nil, &t); err != nil {
			return err
		}
		if asJSON {
			if err := json.NewEncoder(p.Out).Encode(t); err != nil {
				return err
			}
		} else if t.Delivered {
			fmt.Fprintf(p.Out, "the receiver answered %d after %d ms\n", t.Status, t.LatencyMS)
		}
		if !t.Delivered && asJSON {
			return &failure{code: exitNo}
		}
		if !t.Delivered {
			return fail(exitNo, "", "the receiver did not take it: %s", printable(t.Error))
		}
		return nil
	}
	return c
}

func (p *program) webhooksDeadLettersCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "dead-letters <id>", Short: "List events that were given up", Args: oneWebhook,
		Long:    "List the events that a receiver did not take, and that were given up in the last 30 days. With --json, one object on each line.",
		Example: "  afterlogin webhooks dead-letters wh_…",
	}
	r := p.remoteFlags(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON, one object on each line")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		w := tabwriter.NewWriter(p.Out, 0, 0, 2, ' ', 0)
		if !asJSON {
			fmt.Fprintln(w, "NUMBER\tEVENT\tTYPE\tSUBJECT\tGIVEN UP\tATTEMPTS\tWHY\tSENT AGAIN")
		}
		q := url.Values{"limit": {"200"}}
		for {
			var page api.DeadLetterList
			if err := r.call(cmd.Context(), http.MethodGet, webhookPath(args[0], "/dead-letters"), q, nil, &page); err != nil {
				return err
			}
			for _, l := range page.Data {
				if asJSON {
					if err := json.NewEncoder(p.Out).Encode(l); err != nil {
						return err
					}
					continue
				}
				again := "-"
				if l.RedeliveredAt != nil {
					again = stamp(l.RedeliveredAt)
				}
				fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%d\t%s\t%s\n", l.Number, printable(l.ID), printable(l.Event.Type), clip(printable(or(l.Event.Subject, "-")), 40),
					stamp(&l.DiedAt), l.Attempts, clip(printable(or(l.Error, "-")), 60), again)
			}
			if page.Next == 0 {
				return w.Flush()
			}
			q.Set("after", strconv.FormatUint(page.Next, 10))
		}
	}
	return c
}

func (p *program) webhooksRedeliverCommand() *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use: "redeliver <id> (<number>... | --all)", Short: "Send dead letters again",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usage("as in afterlogin webhooks redeliver wh_… --all", "name a webhook")
			}
			return notAToken(args[0])
		},
		Long: "Send dead letters again, by their numbers in dead-letters, or all that were not sent again yet. They keep the ids of their events.\n\n" +
			"They go behind what is waiting, and become dead letters once more if the receiver does not take them.",
		Example: "  afterlogin webhooks redeliver wh_… --all\n  afterlogin webhooks redeliver wh_… 3 4",
	}
	r := p.remoteFlags(c)
	c.Flags().BoolVar(&all, "all", false, "all that were not sent again yet")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		in := api.RedeliverRequest{All: all}
		for _, text := range args[1:] {
			n, err := strconv.ParseUint(text, 10, 53)
			if err != nil || n == 0 {
				return usage("numbers are in \"afterlogin webhooks dead-letters "+printable(args[0])+"\"", "%q is no number of a dead letter", printable(text))
			}
			in.Numbers = append(in.Numbers, n)
		}
		if all == (len(in.Numbers) > 0) {
			return usage("", "want numbers, or --all")
		}
		var out api.Redelivery
		if err := r.call(cmd.Context(), http.MethodPost, webhookPath(args[0], "/dead-letters/redeliver"), nil, in, &out); err != nil {
			return err
		}
		_, err := fmt.Fprintf(p.Out, "%d will be sent again\n", out.Asked)
		return err
	}
	return c
}
