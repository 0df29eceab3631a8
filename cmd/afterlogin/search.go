package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/api"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/query"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/roster"
)

func (p *program) searchCommand() *cobra.Command {
	var sort string
	var limit int
	var all, asJSON bool
	c := &cobra.Command{
		Use: "search <query>", Short: "Search sessions, grants and API keys", Args: cobra.ArbitraryArgs,
		Long: "Search sessions, grants and API keys by terms that must all hold, such as client=mobile, last_seen<90d (used last before 90 days ago),\n" +
			"\"ip in 203.0.113.0/24\", subject=mia*, device=firefox, state=frozen. Without a term about state or why, only what is not over.\n\n" +
			"Fields: " + strings.Join(query.Fields(), ", ") + ". docs/search.md explains them.\n\n" +
			"Put the query in single quotes, so that the shell leaves < and > alone. With --json, one object on each line.",
		Example: "  afterlogin search 'client=mobile last_seen<90d'\n  afterlogin search 'ip in 203.0.113.0/24 kind=session' --sort last_seen\n  afterlogin search 'why=reused' --all --json | jq -r .subject",
	}
	r := p.remoteFlags(c)
	c.Flags().StringVar(&sort, "sort", string(roster.NewestFirst), "order: created, last_seen or expires, with - in front for the latest first")
	c.Flags().IntVar(&limit, "limit", 50, "at most this many, 1 to 1000")
	c.Flags().BoolVar(&all, "all", false, "all of them")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON, one object on each line")
	c.MarkFlagsMutuallyExclusive("limit", "all")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if limit < 1 || limit > 1000 {
			return usage("", "--limit %d is not between 1 and 1000", limit)
		}
		text, err := queryOf(args)
		if err != nil {
			return err
		}
		q := url.Values{"limit": {strconv.Itoa(limit)}, "sort": {sort}}
		if all {
			q.Set("limit", "500")
		}
		if text != "" {
			q.Set("q", text)
		}
		t := p.foundTable(asJSON)
		shown := 0
		for {
			var page api.FoundList
			if err := r.call(cmd.Context(), http.MethodGet, "/v1/search", q, nil, &page); err != nil {
				return err
			}
			for _, s := range page.Data {
				if !all && shown == limit {
					break
				}
				if err := t.row(s); err != nil {
					return err
				}
				shown++
			}
			if page.Next == "" || !all && shown >= limit {
				if err := t.flush(); err != nil {
					return err
				}
				p.afterSearch(&page, shown)
				return nil
			}
			q.Set("cursor", page.Next) // a page may be short
		}
	}
	return c
}

// afterSearch says on stderr what the rows do not.
func (p *program) afterSearch(page *api.FoundList, shown int) {
	total := map[string]string{"at_least": "at least ", "about": "about "}[page.TotalIs] + strconv.Itoa(page.Total)
	if page.Next != "" {
		fmt.Fprintf(p.Err, "afterlogin: %d of %s; --all shows them\n", shown, total)
	}
	switch in := page.Indexing; in.State {
	case "building":
		how := fmt.Sprintf("%d so far", in.Rows)
		if in.Percent > 0 {
			how = fmt.Sprintf("%d %%", in.Percent)
		}
		fmt.Fprintf(p.Err, "afterlogin: the server is still indexing its sessions (%s): the order is the store's\n", how)
	case "off", "too-many":
		fmt.Fprintln(p.Err, "afterlogin: the server has no index of its sessions (console.index): the order is the store's")
	}
}

// queryOf joins the words of a query and reads it here already, so that a mistake is shown where it is.
func queryOf(args []string) (string, error) {
	text := strings.Join(args, " ")
	q, err := query.Parse(text)
	var bad *query.Error
	if errors.As(err, &bad) {
		shown := "  " + printable(text) + "\n  " + strings.Repeat(" ", min(bad.Column-1, utf8.RuneCountInString(text))) + "^"
		if len(text) > 200 || strings.Contains(bad.Message, "token") {
			shown = ""
		}
		hint := bad.Hint
		if shown != "" {
			hint += "\n" + shown
		}
		return "", usage(hint, "column %d: %s", bad.Column, bad.Message)
	}
	if err != nil {
		return "", err
	}
	return q.String(), nil
}

// foundTable prints what a search found as it comes.
type foundTable struct {
	json  *json.Encoder
	tabs  *tabwriter.Writer
	when  func(*time.Time) string
	begun bool
}

func (p *program) foundTable(asJSON bool) *foundTable {
	if asJSON {
		return &foundTable{json: json.NewEncoder(p.Out)}
	}
	t := &foundTable{tabs: tabwriter.NewWriter(p.Out, 0, 0, 2, ' ', 0), when: stamp}
	if isTerminal(p.Out) {
		now := time.Now()
		t.when = func(at *time.Time) string { return relative(now, at) }
	}
	return t
}

func (t *foundTable) row(s *api.Found) error {
	if t.json != nil {
		return t.json.Encode(s)
	}
	if !t.begun {
		t.begun = true
		fmt.Fprintln(t.tabs, "ID\tSUBJECT\tSTATE\tPOLICY\tCREATED\tLAST SEEN\tFROM\tDEVICE")
	}
	state := s.State
	switch s.State {
	case "ended":
		state = s.EndedWhy
	case "frozen":
		state = "frozen " + s.FrozenWhy
	}
	cells := []string{s.ID, or(s.Subject, "-"), state, s.Policy, t.when(&s.CreatedAt), t.when(&s.LastSeenAt), or(s.Device.IP, "-"), or(or(s.DeviceName, s.Name), "-")}
	for i, c := range cells {
		cells[i] = clip(printable(c), 60)
	}
	_, err := fmt.Fprintln(t.tabs, strings.Join(cells, "\t"))
	return err
}

func (t *foundTable) flush() error {
	if t.tabs != nil {
		return t.tabs.Flush()
	}
	return nil
}
