package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/api"
)

func (p *program) sessionsExplainCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "explain <id or the beginning of one>", Short: "Say how a session stands, and why it ended", Args: oneID,
		Long: "Say how a session, an API key or a grant stands: what it lives under, what is left of its times, its last renewals, and, if it is over, why\n" +
			"and by whom. The beginning of a handle, or of a token, will do: 6 characters behind the underscore. Exit code 0 if it is good, 3 if not.\n\n" +
			"A whole token is read from standard input by \"afterlogin token explain\".",
		Example: "  afterlogin sessions explain ses_B4k…\n  afterlogin sessions explain als_AQFz7Q9k",
	}
	r := p.remoteFlags(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		body := api.ExplainRequest{Prefix: args[0]}
		if afterlogin.SessionID(args[0]).Whole() {
			body = api.ExplainRequest{ID: args[0]}
		}
		var ex api.Explanation
		if err := r.call(cmd.Context(), http.MethodPost, "/v1/explain", nil, body, &ex); err != nil {
			return err
		}
		return p.explained(&ex, asJSON)
	}
	return c
}

// explained prints an explanation and exits with 3 if it is a no.
func (p *program) explained(ex *api.Explanation, asJSON bool) error {
	switch {
	case asJSON:
		if err := json.NewEncoder(p.Out).Encode(ex); err != nil {
			return err
		}
	case len(ex.Matches) > 0:
		t := p.table(false, true)
		for _, s := range ex.Matches {
			if err := t.row(s); err != nil {
				return err
			}
		}
		if err := t.flush(); err != nil {
			return err
		}
		return fail(exitNo, "give more of it", "%d begin with that", len(ex.Matches))
	default:
		if err := p.printExplanation(ex); err != nil {
			return err
		}
	}
	if !ex.Valid {
		return &failure{code: exitNo}
	}
	return nil
}

func (p *program) printExplanation(ex *api.Explanation) error {
	w := tabwriter.NewWriter(p.Out, 0, 0, 2, ' ', 0)
	for _, s := range ex.Steps {
		mark := "ok"
		if !s.OK {
			mark = "NO"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", mark, s.Check, printable(s.Note))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if s := ex.Session; s != nil {
		p.printStanding(ex, s)
	}
	verdict := "valid"
	if !ex.Valid {
		verdict = "not valid: " + ex.Reason
	}
	_, err := fmt.Fprintln(p.Out, verdict)
	return err
}

// printStanding prints what is known of the credential, whichever token was asked about.
func (p *program) printStanding(ex *api.Explanation, s *api.Session) {
	fmt.Fprintf(p.Out, "%s %s of %s\n", strings.ReplaceAll(s.Kind, "_", " "), s.ID, printable(or(s.Subject, "nobody yet")))
	for _, up := range ex.Above {
		fmt.Fprintf(p.Out, "under %s %s\n", strings.ReplaceAll(up.Kind, "_", " "), up.ID)
	}
	for _, t := range ex.Timers {
		of := ""
		if t.Of != s.ID {
			of = " of " + t.Of
		}
		left, ago := time.Duration(t.LeftSeconds)*time.Second, ""
		if left < 0 {
			left, ago = -left, " ago"
		}
		fmt.Fprintf(p.Out, "%s%s: %v%s, at %s\n", t.Name, of, left, ago, stamp(&t.At))
	}
	for _, r := range ex.Rotations {
		fmt.Fprintf(p.Out, "generation %d: since %s\n", r.Generation, stamp(&r.At))
	}
	if ex.Forgiven > 0 {
		fmt.Fprintf(p.Out, "lost answers forgiven in a row: %d\n", ex.Forgiven)
	}
	if s.Frozen {
		fmt.Fprintf(p.Out, "on hold: %s\n", printable(s.FrozenWhy))
	}
	if s.EndedAt != nil {
		fmt.Fprintf(p.Out, "ended: %s, %s\n", printable(s.EndedWhy), stamp(s.EndedAt))
	}
	if ex.EndedBy != "" {
		fmt.Fprintf(p.Out, "ended by: %s\n", printable(ex.EndedBy))
	}
	if ex.Message != "" {
		fmt.Fprintf(p.Out, "the person is told: %s\n", printable(ex.Message))
	}
	memory := "not in memory"
	if ex.Cached {
		memory = "in memory, too"
	}
	fmt.Fprintf(p.Out, "proof of possession: %s; answered from the store%s, %s\n", ex.Binding, by(ex.Node), memory)
}

func by(node string) string {
	if node == "" {
		return ""
	}
	return " by " + printable(node)
}
