package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/pulse"
)

// alarmsShown is how many alarms are printed at most.
const alarmsShown = 10

func (p *program) overviewCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "overview", Short: "Say how the server does", Args: cobra.NoArgs,
		Long: "Say how the server does: whether it is ready, what is live, how many people signed in, how many tokens were renewed, refused and stolen, and how\n" +
			"long validations took. The figures begin anew when the server does. Exit code 0 if it is ready, 3 if not.",
		Example: "  afterlogin overview\n  afterlogin overview --json",
	}
	r := p.remoteFlags(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON, with the figures of every second and minute")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		var o pulse.Overview
		if err := r.call(cmd.Context(), http.MethodGet, "/v1/overview", url.Values{}, nil, &o); err != nil {
			return err
		}
		var err error
		if asJSON {
			err = json.NewEncoder(p.Out).Encode(&o)
		} else {
			err = printOverview(p.Out, &o)
		}
		if err == nil && !o.Server.Ready {
			err = &failure{code: exitNo}
		}
		return err
	}
	return c
}

func printOverview(out io.Writer, o *pulse.Overview) error {
	state := "ready"
	if !o.Server.Ready {
		state = "NOT READY: " + printable(o.Server.Reason)
	}
	fmt.Fprintf(out, "%s on %s, %s, up %v, %s\n", printable("afterlogin "+o.Server.Version), printable(o.Server.Node), printable(o.Server.Store),
		time.Duration(o.Server.Uptime)*time.Second, state)
	if s := o.Server.Skew; s != nil {
		fmt.Fprintf(out, "its clock is %+.3f s ahead of the store's\n", *s)
	}
	switch {
	case o.Live == nil:
		fmt.Fprintln(out, "live: not counted yet")
	case !o.Live.Complete:
		fmt.Fprintf(out, "live: %d so far%s\n", o.Live.Total, byCount(o.Live.Kinds, ": "))
	default:
		fmt.Fprintf(out, "live: %d%s\n", o.Live.Total, byCount(o.Live.Kinds, ": "))
	}
	fmt.Fprintln(out)
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\tlast minute\tlast hour\tlast 24 hours\tin all\t")
	m := &o.Minutes
	for _, row := range []struct {
		name       string
		minute     uint64
		minutes    []uint64
		everything uint64
	}{
		{"sign-ins", o.Minute.SignIns, m.SignIns, o.Totals.SignIns},
		{"renewals", o.Minute.Renewals, m.Renewals, o.Totals.Renewals},
		{"sign-outs", o.Minute.SignOuts, m.SignOuts, o.Totals.SignOuts},
		{"revocations", o.Minute.Revocations, m.Revocations, o.Totals.Revocations},
		{"validations", o.Minute.Validations, m.Validations, o.Totals.Validations},
		{"refusals", o.Minute.Refusals, m.Refusals, o.Totals.Refusals},
		{"alarms", o.Minute.Alarms, m.Alarms, o.Totals.Alarms},
	} {
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t\n", row.name, row.minute, total(row.minutes[max(0, len(row.minutes)-60):]), total(row.minutes), row.everything)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if len(o.Refused) > 0 {
		fmt.Fprintf(out, "\nrefused%s\n", byCount(o.Refused, ": "))
	}
	for i := len(m.P50) - 1; i >= 0; i-- { // the last minute in which there was one
		if m.P50[i] > 0 {
			at := m.Start.Add(time.Duration(i*m.Step) * time.Second)
			fmt.Fprintf(out, "\nvalidations at %s took %.3g ms (p50), %.3g ms (p95), %.3g ms (p99)\n", at.Local().Format("15:04"), m.P50[i], m.P95[i], m.P99[i])
			break
		}
	}
	if len(o.Alarms) == 0 {
		return nil
	}
	fmt.Fprintln(out, "\nalarms:")
	w = tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, a := range o.Alarms[:min(len(o.Alarms), alarmsShown)] {
		fmt.Fprintf(w, "  %s\t%s\t%s\t%s\t%s\n", a.At.Local().Format(time.DateTime), printable(a.Type), printable(a.Session), printable(a.Subject), printable(a.Detail))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if n := len(o.Alarms) - alarmsShown; n > 0 {
		fmt.Fprintf(out, "  and %d more: --json has them\n", n)
	}
	return nil
}

func total(all []uint64) (n uint64) {
	for _, v := range all {
		n += v
	}
	return n
}

// byCount lists counts, the largest first, behind the text; "" if there are none.
func byCount[N int | uint64](counts map[string]N, before string) string {
	names := slices.SortedFunc(maps.Keys(counts), func(a, b string) int { return cmp.Or(cmp.Compare(counts[b], counts[a]), strings.Compare(a, b)) })
	var out []string
	for _, name := range names {
		if counts[name] > 0 {
			out = append(out, fmt.Sprintf("%d %s", counts[name], printable(name)))
		}
	}
	if len(out) == 0 {
		return ""
	}
	return before + strings.Join(out, ", ")
}
