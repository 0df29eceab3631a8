package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/api"
)

func (p *program) revocationsCommand() *cobra.Command {
	return group("revocations", "End sessions by a query, with a way back",
		"End sessions by a query, in steps: preview counts what the query means and shows examples; confirm has exactly these frozen, and ended when the undo window is over; undo takes it back until then.\n\n"+
			"\"afterlogin sessions revoke --query\" does all of it in one command.",
		p.revocationsPreviewCommand(), p.revocationsConfirmCommand(), p.revocationsUndoCommand(), p.revocationsCancelCommand(), p.revocationsShowCommand(), p.revocationsListCommand())
}

// revocationFlags say what is to be ended.
type revocationFlags struct {
	all  bool
	undo string
}

func (f *revocationFlags) add(c *cobra.Command) {
	c.Flags().BoolVar(&f.all, "all", false, "everything that is not over, instead of a query")
	c.Flags().StringVar(&f.undo, "undo", "", "for how long it is only on hold and can be undone: 10m if you do not say; 0 for none, at most 24h")
}

// request reads the query.
func (f *revocationFlags) request(args []string) (*api.CreateRevocationRequest, error) {
	text, err := queryOf(args)
	switch {
	case err != nil:
		return nil, err
	case text == "" && !f.all:
		return nil, usage("give a query, as in 'client=mobile last_seen<90d', or --all", "without a query this would be about everything")
	case text != "" && f.all:
		return nil, usage("leave one of them away", "a query and --all do not go together")
	}
	return &api.CreateRevocationRequest{Query: text, All: f.all, UndoWindow: f.undo}, nil
}

func (p *program) revocationsPreviewCommand() *cobra.Command {
	var f revocationFlags
	var asJSON, dry bool
	c := &cobra.Command{
		Use: "preview <query>", Short: "Count what a query means, and show examples", Args: cobra.ArbitraryArgs,
		Long:    "Count what a query means, by a look through the whole store, and show examples. Nothing is ended before \"afterlogin revocations confirm\", within an hour.",
		Example: "  afterlogin revocations preview 'client=mobile last_seen<90d'",
	}
	r := p.remoteFlags(c)
	f.add(c)
	c.Flags().BoolVar(&dry, "dry-run", false, "only count: it cannot be confirmed")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		in, err := f.request(args)
		if err != nil {
			return err
		}
		in.DryRun = dry
		j, err := p.preview(cmd.Context(), r, in)
		if err != nil {
			return err
		}
		if asJSON {
			return json.NewEncoder(p.Out).Encode(j)
		}
		if err := p.showPreview(j); err != nil {
			return err
		}
		if !dry && j.Matched > 0 {
			fmt.Fprintf(p.Err, "afterlogin: to end them: afterlogin revocations confirm %s --count %d\n", j.ID, j.Matched)
		}
		return nil
	}
	return c
}

// preview makes a revocation and returns when it is counted.
func (p *program) preview(ctx context.Context, r *remote, in *api.CreateRevocationRequest) (*api.Revocation, error) {
	var j api.Revocation
	if err := r.call(ctx, http.MethodPost, "/v1/revocations", nil, in, &j); err != nil {
		return nil, err
	}
	return p.watch(ctx, r, j.ID, "ready")
}

// showPreview prints how many there are, of what, and some of them.
func (p *program) showPreview(j *api.Revocation) error {
	w := tabwriter.NewWriter(p.Out, 0, 0, 2, ' ', 0)
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, "%s\t%s\n", name, printable(value))
		}
	}
	line("revocation", j.ID)
	line("query", or(j.Query, "(everything)"))
	line("state", j.State)
	line("matches", strconv.Itoa(j.Matched))
	shares := func(list []api.Share) string {
		var parts []string
		for _, s := range list {
			parts = append(parts, fmt.Sprintf("%s %d", s.Name, s.Count))
		}
		return strings.Join(parts, ", ")
	}
	line("by kind", shares(j.Kinds))
	line("by policy", shares(j.Policies))
	line("by client", shares(j.Clients))
	if j.Held > 0 {
		line("on hold already", strconv.Itoa(j.Held))
	}
	if j.LeftOut > 0 {
		line("left out", fmt.Sprintf("%d: API keys and grants need api-keys:write, the server's own keys admin", j.LeftOut))
	}
	line("can be undone for", j.Undo)
	if err := w.Flush(); err != nil || len(j.Examples) == 0 {
		return err
	}
	fmt.Fprintln(p.Out)
	t := p.foundTable(false)
	for _, s := range j.Examples {
		if err := t.row(s); err != nil {
			return err
		}
	}
	return t.flush()
}

func (p *program) revocationsConfirmCommand() *cobra.Command {
	var count, tolerance int
	var detach bool
	c := &cobra.Command{
		Use: "confirm <id>", Short: "Have what was counted frozen, and ended when the undo window is over", Args: cobra.ExactArgs(1),
		Long: "Have what was counted frozen at once, and ended when the undo window is over. Name the number that the preview showed.\n\n" +
			"No more than count and tolerance together are ended: if more match when it comes to it, nothing is.",
		Example: "  afterlogin revocations confirm rev_… --count 1234 --tolerance 20",
	}
	r := p.remoteFlags(c)
	c.Flags().IntVar(&count, "count", -1, "the number that the preview showed")
	c.Flags().IntVar(&tolerance, "tolerance", 0, "how far it may be off by now")
	c.Flags().BoolVar(&detach, "detach", false, "do not wait until they are frozen")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if count < 0 || tolerance < 0 {
			return usage("the preview showed it: --count 1234", "--count is missing, or below zero")
		}
		return p.confirm(cmd.Context(), r, args[0], count, tolerance, detach)
	}
	return c
}

// confirm confirms a number, and shows what comes of it until it is frozen or done.
func (p *program) confirm(ctx context.Context, r *remote, id string, count, tolerance int, detach bool) error {
	var j api.Revocation
	goesOn := func() {
		hint := "take it back with: afterlogin revocations undo " + id
		if j.Undo == "0s" {
			hint = "it cannot be taken back"
		}
		fmt.Fprintln(p.Err, "\nafterlogin: the revocation goes on without this command; "+hint)
	}
	if err := r.call(ctx, http.MethodPost, "/v1/revocations/"+segment(id)+"/confirm", nil, api.ConfirmRequest{Count: count, Tolerance: tolerance}, &j); err != nil {
		if ctx.Err() != nil { // it may have been heard
			goesOn()
		}
		return err
	}
	if detach {
		fmt.Fprintf(p.Out, "%s goes on by itself\n", id)
		return nil
	}
	last, err := p.watch(ctx, r, id, "frozen")
	if err != nil {
		if ctx.Err() != nil {
			goesOn()
		}
		return err
	}
	switch last.State {
	case "frozen":
		fmt.Fprintf(p.Out, "froze %s; ended at %s\n", many(last.Frozen), stamp(last.UndoUntil))
		fmt.Fprintf(p.Err, "afterlogin: to take it back until then: afterlogin revocations undo %s\n", id)
	case "done":
		fmt.Fprintf(p.Out, "ended %s\n", atLeast(last)+many(last.Revoked))
	case "failed":
		return fail(exitError, "count again: afterlogin revocations preview", "%s has failed: %s", id, last.FailedWhy)
	default:
		fmt.Fprintf(p.Out, "%s is %s\n", id, last.State)
	}
	return nil
}

// atLeast stands before a number of which it is only known that it is not smaller.
func atLeast(j *api.Revocation) string {
	if j.AtLeast {
		return "at least "
	}
	return ""
}

func many(n int) string {
	if n == 1 {
		return "1 session"
	}
	return strconv.Itoa(n) + " sessions"
}

// pollEvery is how often a revocation is asked for.
const pollEvery = 500 * time.Millisecond

// away is for how long the server may not answer while a revocation is watched.
const away = time.Minute

// watch shows the progress of a revocation until it is in the state, or in one that it does not leave. With an error it
// returns what it saw last, if anything.
func (p *program) watch(ctx context.Context, r *remote, id, until string) (*api.Revocation, error) {
	m := &meter{p: p, bar: isTerminal(p.Err)}
	defer m.end()
	var last *api.Revocation
	heard := time.Now()
	wait := 20 * time.Millisecond // small ones are done in a moment
	for {
		var j api.Revocation
		if err := r.call(ctx, http.MethodGet, "/v1/revocations/"+segment(id), nil, nil, &j); err != nil {
			var f *failure
			if ctx.Err() != nil {
				return last, context.Canceled
			}
			// The job goes on while the server is away for a moment; only a refusal ends the look.
			if last == nil || errors.As(err, &f) && f.code != exitUnreachable || time.Since(heard) > away {
				return last, err
			}
			m.note("the server does not answer; the revocation goes on when it can")
		} else {
			last, heard = &j, time.Now()
			if j.State == until || over(j.State) || j.State == "frozen" && until == "ready" {
				return last, nil
			}
			m.show(&j)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return last, context.Canceled
		}
		wait = min(wait*2, pollEvery)
	}
}

func over(state string) bool {
	return state == "done" || state == "undone" || state == "cancelled" || state == "failed"
}

// meter prints progress: a bar that moves on a terminal, and otherwise a line now and then.
type meter struct {
	p     *program
	bar   bool
	drawn bool
	said  time.Time
	phase string
	noted string
}

// sayEvery is how often a line is printed where nobody sees a bar.
const sayEvery = 5 * time.Second

func (m *meter) show(j *api.Revocation) {
	g := j.Progress
	if g == nil {
		return
	}
	text := j.State
	if g.Total > 0 {
		text += fmt.Sprintf(" %d of %d", g.Done, g.Total)
	} else {
		text += fmt.Sprintf(": %d match, %d looked at", g.Done, g.Looked)
	}
	if g.Rate >= 1 {
		text += fmt.Sprintf(", %.0f/s", g.Rate)
	}
	if g.RemainingSeconds > 0 {
		text += ", about " + (time.Duration(g.RemainingSeconds) * time.Second).String() + " left"
	}
	if g.Waiting != "" {
		text += ", waiting: " + g.Waiting
	}
	if m.bar {
		const width = 30
		full := 0
		if g.Total > 0 {
			full = min(width, width*g.Done/g.Total)
		}
		fmt.Fprintf(m.p.Err, "\r\033[K[%s%s] %s", strings.Repeat("#", full), strings.Repeat(".", width-full), text)
		m.drawn = true
		return
	}
	if now := time.Now(); j.State != m.phase || now.Sub(m.said) >= sayEvery {
		m.phase, m.said = j.State, now
		fmt.Fprintln(m.p.Err, "afterlogin: "+text)
	}
}

func (m *meter) note(text string) {
	if m.noted != text {
		m.end()
		fmt.Fprintln(m.p.Err, "afterlogin: "+text)
	}
	m.noted = text
}

// end leaves the line of the bar.
func (m *meter) end() {
	if m.drawn {
		fmt.Fprint(m.p.Err, "\r\033[K")
	}
	m.drawn = false
}

func (p *program) revocationsUndoCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "undo <id>", Short: "Take back a revocation: thaw what it froze", Args: cobra.ExactArgs(1),
		Long:    "Have everything that the revocation froze be good again, and nothing else. It works until its undo window is over.",
		Example: "  afterlogin revocations undo rev_…",
	}
	r := p.remoteFlags(c)
	c.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		if err := r.call(ctx, http.MethodPost, "/v1/revocations/"+segment(args[0])+"/undo", nil, nil, nil); err != nil {
			return err
		}
		j, err := p.watch(ctx, r, args[0], "undone")
		if err != nil {
			return err
		}
		if j.State != "undone" {
			return fail(exitError, "", "%s is %s", j.ID, j.State)
		}
		fmt.Fprintf(p.Out, "undone: thawed %s\n", atLeast(j)+many(j.Thawed))
		return nil
	}
	return c
}

func (p *program) revocationsCancelCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "cancel <id>", Short: "Give up a revocation that was not confirmed", Args: cobra.ExactArgs(1),
		Long: "Give up a revocation that was not confirmed. Nothing of it is frozen.", Example: "  afterlogin revocations cancel rev_…",
	}
	r := p.remoteFlags(c)
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if err := r.call(cmd.Context(), http.MethodPost, "/v1/revocations/"+segment(args[0])+"/cancel", nil, nil, nil); err != nil {
			return err
		}
		fmt.Fprintln(p.Out, "cancelled", args[0])
		return nil
	}
	return c
}

func (p *program) revocationsShowCommand() *cobra.Command {
	var asJSON, wait bool
	c := &cobra.Command{
		Use: "show <id>", Short: "Show a revocation, with its progress", Args: cobra.ExactArgs(1),
		Long: "Show a revocation by query, with its progress.", Example: "  afterlogin revocations show rev_…\n  afterlogin revocations show rev_… --wait",
	}
	r := p.remoteFlags(c)
	c.Flags().BoolVar(&wait, "wait", false, "show the progress, and end when the revocation does")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		var j *api.Revocation
		var err error
		if wait {
			j, err = p.watch(cmd.Context(), r, args[0], "done")
		} else {
			j = &api.Revocation{}
			err = r.call(cmd.Context(), http.MethodGet, "/v1/revocations/"+segment(args[0]), nil, nil, j)
		}
		if err != nil {
			return err
		}
		if asJSON {
			return json.NewEncoder(p.Out).Encode(j)
		}
		w := tabwriter.NewWriter(p.Out, 0, 0, 2, ' ', 0)
		line := func(name, value string) {
			if value != "" && value != "0" {
				fmt.Fprintf(w, "%s\t%s\n", name, printable(value))
			}
		}
		line("revocation", j.ID)
		line("query", or(j.Query, "(everything)"))
		line("state", j.State)
		line("asked for", stamp(&j.CreatedAt)+" by "+or(j.CreatedBy, "?"))
		line("matches", strconv.Itoa(j.Matched))
		if j.ConfirmedAt != nil {
			line("confirmed", stamp(j.ConfirmedAt)+" by "+or(j.ConfirmedBy, "?"))
		}
		line("frozen", strconv.Itoa(j.Frozen))
		if j.State == "frozen" {
			line("can be undone until", stamp(j.UndoUntil))
		}
		line("ended", strconv.Itoa(j.Revoked))
		line("thawed", strconv.Itoa(j.Thawed))
		if j.AtLeast {
			line("at least", "a server has died in the middle, or the store did not answer: there may be more")
		}
		line("had ended before", strconv.Itoa(j.Gone))
		line("failed", j.FailedWhy)
		if g := j.Progress; g != nil {
			line("progress", fmt.Sprintf("%d of %d", g.Done, g.Total))
			line("waits", g.Waiting)
		}
		if j.FinishedAt != nil {
			line("finished", stamp(j.FinishedAt))
		}
		return w.Flush()
	}
	return c
}

func (p *program) revocationsListCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "list", Short: "List revocations by query", Args: cobra.NoArgs,
		Long: "List the revocations by query that are kept, the latest first. With --json, one object on each line.", Example: "  afterlogin revocations list",
	}
	r := p.remoteFlags(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON, one object on each line")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		var list api.RevocationList
		if err := r.call(cmd.Context(), http.MethodGet, "/v1/revocations", nil, nil, &list); err != nil {
			return err
		}
		w := tabwriter.NewWriter(p.Out, 0, 0, 2, ' ', 0)
		if !asJSON && len(list.Data) > 0 {
			fmt.Fprintln(w, "ID\tSTATE\tMATCHES\tENDED\tASKED FOR\tBY\tQUERY")
		}
		for _, j := range list.Data {
			if asJSON {
				if err := json.NewEncoder(p.Out).Encode(j); err != nil {
					return err
				}
				continue
			}
			fmt.Fprintln(w, strings.Join([]string{j.ID, j.State, strconv.Itoa(j.Matched), strconv.Itoa(j.Revoked), stamp(&j.CreatedAt),
				clip(printable(or(j.CreatedBy, "-")), 30), clip(printable(or(j.Query, "(everything)")), 60)}, "\t"))
		}
		return w.Flush()
	}
	return c
}

// revokeByQuery counts, asks and confirms: "afterlogin sessions revoke --query".
func (p *program) revokeByQuery(ctx context.Context, r *remote, text, undo string, yes bool) error {
	f := revocationFlags{undo: undo}
	in, err := f.request([]string{text})
	if err != nil {
		return err
	}
	if !yes && !isTerminal(p.In) {
		return usage("add --yes, or look first: afterlogin revocations preview", "there is nobody to ask whether they should end")
	}
	j, err := p.preview(ctx, r, in)
	if err != nil {
		return err
	}
	if j.State != "ready" {
		return fail(exitError, "", "%s is %s: %s", j.ID, j.State, j.FailedWhy)
	}
	if err := p.showPreview(j); err != nil {
		return err
	}
	giveUp := func() { // nobody will confirm it
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		r.call(ending, http.MethodPost, "/v1/revocations/"+segment(j.ID)+"/cancel", nil, nil, nil)
	}
	if j.Matched == 0 {
		giveUp()
		fmt.Fprintln(p.Out, "nothing to end")
		return nil
	}
	if !yes {
		fmt.Fprintf(p.Err, "End %s? [y/N] ", many(j.Matched))
		line, _ := answer(ctx, func() (string, error) { return bufio.NewReader(p.In).ReadString('\n') })
		if ctx.Err() != nil {
			fmt.Fprintln(p.Err)
			giveUp()
			return context.Canceled
		}
		if a := strings.ToLower(strings.TrimSpace(line)); a != "y" && a != "yes" {
			giveUp()
			return fail(exitError, "", "nothing was ended")
		}
	}
	// Somebody may have signed in while the question was read.
	return p.confirm(ctx, r, j.ID, j.Matched, 10+j.Matched/100, false)
}
