package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/rehearsal"
)

// examplesShown is how many examples of a rule are printed at most.
const examplesShown = 5

func (p *program) rehearsalCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "rehearsal", Short: "Say whom stricter rules would have signed out", Args: cobra.NoArgs,
		Long: "Say whom the rules under rehearsal in the server's configuration would have signed out, while the real ones went on: how many people and sessions,\n" +
			"by rule and by day, with examples. The counts are those of the server that answers, since its start.",
		Example: "  afterlogin rehearsal\n  afterlogin rehearsal --json",
	}
	r := p.remoteFlags(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		var report rehearsal.Report
		if err := r.call(cmd.Context(), http.MethodGet, "/v1/rehearsal", url.Values{}, nil, &report); err != nil {
			return err
		}
		if asJSON {
			return json.NewEncoder(p.Out).Encode(&report)
		}
		return printRehearsal(p.Out, &report)
	}
	return c
}

func printRehearsal(out io.Writer, r *rehearsal.Report) error {
	on := ""
	if r.Node != "" {
		on = " on " + printable(r.Node)
	}
	fmt.Fprintf(out, "since %s (%v)%s, all rules together would have signed out %s%s\n", r.Since.Local().Format(time.DateTime),
		r.At.Sub(r.Since).Round(time.Second), on, plural(r.People, "person", "people"), twice(r.Twice))
	for i := range r.Rules {
		x := &r.Rules[i]
		what := printable(x.Policy) + " " + x.Rule
		if x.Kind != "" {
			what = "limit of " + x.Kind
		}
		about := ""
		if x.Estimated {
			about = "about "
		}
		fmt.Fprintf(out, "\n%s %s instead of %s: would have signed out %s%s of %s in use%s, in %s of %d, %s\n", what, x.Setting, x.Real, about,
			plural(x.People, "person", "people"), plural(x.Seen.People, "person", "people"), twice(x.Twice), plural(x.Sessions, "session", "sessions"), x.Seen.Sessions,
			plural(x.Occasions, "time", "times"))
		w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		for _, d := range x.Days {
			fmt.Fprintf(w, "  %s\t%d\n", d.Day, d.Occasions)
		}
		for i, e := range x.Examples {
			if i == examplesShown {
				break
			}
			by := fmt.Sprintf("%v too late", time.Duration(e.By)*time.Second)
			if e.Count > 0 {
				by = fmt.Sprintf("one of %d", e.Count)
			}
			fmt.Fprintf(w, "  e.g. %s\t%s\t%s\t%s\n", e.At.Local().Format(time.DateTime), printable(e.Session), printable(e.Subject), by)
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
	return nil
}

func twice(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(", %d of them more than once", n)
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
