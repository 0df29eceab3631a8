package main

import (
	"bufio"
	"context"
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

func (p *program) sessionsCommand() *cobra.Command {
	return group("sessions", "List, show and end sessions", "List, show and end the sessions and API keys of a server.",
		p.sessionsListCommand(), p.sessionsShowCommand(), p.sessionsExplainCommand(), p.sessionsRevokeCommand(), p.sessionsFreezeCommand(), p.sessionsThawCommand())
}

func (p *program) sessionsListCommand() *cobra.Command {
	var subject, kind string
	var ended, all, asJSON bool
	var limit int
	c := &cobra.Command{
		Use: "list", Short: "List sessions", Args: cobra.NoArgs,
		Long:    "List sessions and API keys, of one subject or of all. With --json, one object on each line.",
		Example: "  afterlogin sessions list --subject mia\n  afterlogin sessions list --all --json | jq -r .id",
	}
	r := p.remoteFlags(c)
	c.Flags().StringVar(&subject, "subject", "", "only of this subject")
	c.Flags().StringVar(&kind, "kind", "", "only of this kind: session, api_key or refresh_token")
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
		for name, value := range map[string]string{"subject": subject, "kind": kind} {
			if value != "" {
				q.Set(name, value)
			}
		}
		if ended {
			q.Set("ended", "true")
		}
		t := p.table(asJSON, ended)
		for {
			var page api.List
			if err := r.call(cmd.Context(), http.MethodGet, "/v1/sessions", q, nil, &page); err != nil {
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

// table prints sessions as they come.
type table struct {
	json  *json.Encoder
	tabs  *tabwriter.Writer
	ended bool
	keys  bool // of API keys
	when  func(*time.Time) string
	begun bool
}

func (p *program) table(asJSON, ended bool) *table {
	t := &table{ended: ended, when: stamp}
	if asJSON {
		t.json = json.NewEncoder(p.Out)
		return t
	}
	t.tabs = tabwriter.NewWriter(p.Out, 0, 0, 2, ' ', 0)
	if isTerminal(p.Out) {
		now := time.Now()
		t.when = func(at *time.Time) string { return relative(now, at) }
	}
	return t
}

func (t *table) row(s *api.Session) error {
	if t.json != nil {
		return t.json.Encode(s)
	}
	if !t.begun {
		t.begun = true
		head := "ID\tSUBJECT\tPOLICY\tCREATED\tLAST SEEN\tEXPIRES\tFROM"
		if t.keys {
			head = "ID\tSUBJECT\tNAME\tCREATED\tLAST USED\tEXPIRES\tSCOPES"
		}
		if t.ended {
			head += "\tENDED"
		}
		fmt.Fprintln(t.tabs, head)
	}
	cells := []string{s.ID, s.Subject, s.Policy, t.when(&s.CreatedAt), t.when(&s.LastSeenAt), t.when(s.ExpiresAt), or(s.Device.IP, "-")}
	if t.keys {
		cells[2], cells[6] = or(s.Name, "-"), or(strings.Join(s.Scopes, " "), "-")
	}
	if t.ended {
		cell := "-"
		if s.EndedAt != nil {
			cell = s.EndedWhy + " " + t.when(s.EndedAt)
		}
		cells = append(cells, cell)
	}
	for i, c := range cells {
		cells[i] = clip(printable(c), 60)
	}
	_, err := fmt.Fprintln(t.tabs, strings.Join(cells, "\t"))
	return err
}

func (t *table) flush() error {
	if t.tabs != nil {
		return t.tabs.Flush()
	}
	return nil
}

func clip(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return s
}

func stamp(at *time.Time) string {
	if at == nil {
		return "never"
	}
	return at.UTC().Format(time.RFC3339)
}

// relative says how long ago, or in how long, for people.
func relative(now time.Time, at *time.Time) string {
	if at == nil {
		return "never"
	}
	d := at.Sub(now)
	text := func(d time.Duration) string {
		switch {
		case d < time.Minute:
			return fmt.Sprintf("%ds", d/time.Second)
		case d < time.Hour:
			return fmt.Sprintf("%dm", d/time.Minute)
		case d < 48*time.Hour:
			return fmt.Sprintf("%dh", d/time.Hour)
		}
		return fmt.Sprintf("%dd", d/(24*time.Hour))
	}
	if d < 0 {
		return text(-d) + " ago"
	}
	return "in " + text(d)
}

func (p *program) sessionsShowCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "show <id>", Short: "Show a session", Args: cobra.ExactArgs(1),
		Long:    "Show a session (ses_…) or an API key (key_…), also one that is over.",
		Example: "  afterlogin sessions show ses_B4k…",
	}
	r := p.remoteFlags(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if err := notAToken(args[0]); err != nil {
			return err
		}
		var s api.Session
		if err := r.call(cmd.Context(), http.MethodGet, "/v1/sessions/"+segment(args[0]), nil, nil, &s); err != nil {
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
		line("kind", s.Kind)
		line("subject", or(s.Subject, "(anonymous)"))
		line("name", s.Name)
		line("policy", s.Policy)
		line("created", stamp(&s.CreatedAt))
		line("last seen", stamp(&s.LastSeenAt))
		line("expires", stamp(s.ExpiresAt))
		if s.IdleAt != nil {
			line("expires if idle", stamp(s.IdleAt))
		}
		if s.Auth.At != nil {
			line("proved at", stamp(s.Auth.At))
		}
		line("proved by", strings.Join(s.Auth.Methods, " "))
		line("from", s.Device.IP)
		line("user agent", s.Device.UserAgent)
		line("generation", strconv.FormatUint(uint64(s.Generation), 10))
		line("scopes", strings.Join(s.Scopes, " "))
		if s.Frozen {
			line("on hold", s.FrozenWhy)
		}
		if s.EndedAt != nil {
			line("ended", stamp(s.EndedAt)+" "+s.EndedWhy)
		}
		return w.Flush()
	}
	return c
}

// oneID wants one argument that is an id.
func oneID(cmd *cobra.Command, args []string) error {
	if err := cobra.ExactArgs(1)(cmd, args); err != nil {
		return err
	}
	return notAToken(args[0])
}

// notAToken refuses a token where an id is wanted. It has been seen by then: by the shell's history, for one.
func notAToken(arg string) error {
	if api.Redact(arg) != arg {
		return usage("other users of this machine can see arguments: take the token for lost, and end its session with its ses_… id. \"afterlogin token explain\" reads a token from standard input",
			"that is a token, and an id is wanted")
	}
	return nil
}

func (p *program) sessionsRevokeCommand() *cobra.Command {
	var subject, but, search, undo, reason string
	var everything, derived, yes, wait bool
	c := &cobra.Command{
		Use: "revoke (<id>... | --subject <name> | --query <query>)", Short: "End sessions",
		Long: "End sessions and API keys by id, or all sessions of a subject. What has been ended stays ended; ending it again does no harm.\n\n" +
			"Ending all sessions of a subject asks first, with their number. Without a terminal, say --yes.\n\n" +
			"With --query, everything that the query means: it is counted and shown, and asked about; then it is frozen at once, and ended when the undo window is over. Until then \"afterlogin revocations undo\" takes it back. Ctrl-C leaves it going on.\n\n" +
			"With --derived, everything that came from the session ends, too: the offline grants and the API keys that the person made while signed in to it.\n\n" +
			"Where several servers share a store, the others hear of it within milliseconds, and within a second in any case. With --wait, the command ends when none can accept it any more.",
		Example: "  afterlogin sessions revoke ses_B4k…\n  afterlogin sessions revoke --subject mia --others-than ses_B4k…\n  afterlogin sessions revoke --subject build-server --everything --yes\n  afterlogin sessions revoke --query 'client=mobile last_seen<90d' --undo 1h",
	}
	r := p.remoteFlags(c)
	c.Flags().StringVar(&subject, "subject", "", "all sessions of this subject")
	c.Flags().StringVar(&but, "others-than", "", "all but this session")
	c.Flags().BoolVar(&everything, "everything", false, "API keys, too")
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	c.Flags().BoolVar(&derived, "derived", false, "also everything that came from the session, API keys, too")
	c.Flags().StringVar(&reason, "reason", "", "what the person is told: administrator (if you do not say), signed_out, signed_out_all, password_changed or reported")
	c.Flags().BoolVar(&wait, "wait", false, "until no server can accept them any more")
	c.Flags().StringVar(&search, "query", "", "everything that this means: client=mobile last_seen<90d")
	c.Flags().StringVar(&undo, "undo", "", "with --query: for how long it can be undone; 10m if you do not say, 0 for none, at most 24h")
	c.MarkFlagsMutuallyExclusive("query", "subject")
	c.MarkFlagsMutuallyExclusive("query", "derived")
	c.MarkFlagsMutuallyExclusive("query", "wait")
	c.MarkFlagsMutuallyExclusive("query", "reason")
	c.MarkFlagsMutuallyExclusive("others-than", "everything")
	c.MarkFlagsMutuallyExclusive("subject", "derived")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		switch byQuery := cmd.Flags().Changed("query"); {
		case !byQuery && undo != "":
			return usage("add --query", "--undo is about a query")
		case byQuery && (len(args) > 0 || but != "" || everything):
			return usage("give one of them", "--query goes with neither ids nor a subject")
		case byQuery:
			return p.revokeByQuery(cmd.Context(), r, search, undo, yes)
		case len(args) == 0 && subject == "":
			return usage("name ids, a subject with --subject, or a query with --query", "nothing to revoke")
		case len(args) > 0 && subject != "":
			return usage("give one of them", "ids and --subject do not go together")
		case subject == "" && (but != "" || everything):
			return usage("add --subject", "--others-than and --everything are about a subject")
		case subject != "":
			return p.revokeSubject(cmd.Context(), r, subject, but, reason, everything, yes, wait)
		}
		for _, id := range args {
			if err := notAToken(id); err != nil {
				return err
			}
		}
		for i, id := range args {
			q := because(reason)
			if derived {
				q.Set("derived", "true")
			}
			if wait && i == len(args)-1 {
				q.Set("wait", "true")
			}
			if err := r.call(cmd.Context(), http.MethodDelete, "/v1/sessions/"+segment(id), q, nil, nil); err != nil {
				return err
			}
			fmt.Fprintln(p.Out, "ended", id)
		}
		return nil
	}
	return c
}

// because is the query of a call that ends something, with the reason if one is given.
func because(reason string) url.Values {
	q := url.Values{}
	if reason != "" {
		q.Set("reason", reason)
	}
	return q
}

func (p *program) revokeSubject(ctx context.Context, r *remote, subject, but, reason string, everything, yes, wait bool) error {
	path := "/v1/subjects/" + segment(subject) + "/sessions"
	what := "sessions"
	count := url.Values{"limit": {"1000"}, "kind": {"session"}}
	q := because(reason)
	if wait {
		q.Set("wait", "true")
	}
	if everything {
		q.Set("scope", "everything")
		what = "sessions and API keys"
		count.Del("kind")
	}
	if but != "" {
		q.Set("except", but)
		what = "other sessions"
	}
	if !yes {
		if !isTerminal(p.In) {
			return usage("add --yes", "there is nobody to ask whether all %s of %s should end", what, printable(subject))
		}
		var page api.List
		if err := r.call(ctx, http.MethodGet, path, count, nil, &page); err != nil {
			return err
		}
		n := len(page.Data)
		for _, s := range page.Data {
			if s.ID == but {
				n--
			}
		}
		question := fmt.Sprintf("End %d %s", n, what)
		switch {
		case page.Next != "":
			question = fmt.Sprintf("End more than %d %s", n, what)
		case n == 1 && !everything:
			question = "End 1 " + strings.TrimSuffix(what, "s")
		}
		fmt.Fprintf(p.Err, "%s of %s? [y/N] ", question, printable(subject))
		line, _ := answer(ctx, func() (string, error) { return bufio.NewReader(p.In).ReadString('\n') })
		if ctx.Err() != nil {
			fmt.Fprintln(p.Err)
			return context.Canceled
		}
		if answer := strings.ToLower(strings.TrimSpace(line)); answer != "y" && answer != "yes" {
			return fail(exitError, "", "nothing was ended")
		}
	}
	if err := r.call(ctx, http.MethodDelete, path, q, nil, nil); err != nil {
		return err
	}
	fmt.Fprintf(p.Out, "ended all %s of %s\n", what, printable(subject))
	return nil
}
