package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/api"
)

// eventsRetry is how long the command waits before it asks again a server that does not answer, or not now.
const eventsRetry = 2 * time.Second

func (p *program) eventsCommand() *cobra.Command {
	var after, typ, subject string
	var limit int
	var asJSON bool
	c := &cobra.Command{
		Use: "events", Short: "Follow what happens", Args: cobra.NoArgs,
		Long: "Follow what happens, on every server of the store, until it is interrupted: each event on a line. If the server goes away it is asked\n" +
			"again, and nothing is missed; where events were missed nevertheless, the command says so.",
		Example: "  afterlogin events\n  afterlogin events --type 'session.*' --json | jq -r .session",
	}
	r := p.remoteFlags(c)
	c.Flags().StringVar(&after, "after", "", "begin behind the event with this id")
	c.Flags().StringVar(&typ, "type", "", "only of this type; with * at its end, of the types that begin so")
	c.Flags().StringVar(&subject, "subject", "", "only what is about this subject")
	c.Flags().IntVar(&limit, "limit", 0, "end after this many events; 0: never")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON, one object on each line")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if limit < 0 {
			return usage("", "--limit %d is below 0", limit)
		}
		return p.follow(cmd.Context(), r, after, typ, subject, limit, asJSON)
	}
	return c
}

func (p *program) follow(ctx context.Context, r *remote, after, typ, subject string, limit int, asJSON bool) error {
	out := json.NewEncoder(p.Out)
	out.SetEscapeHTML(false)
	prefix, wild := strings.CutSuffix(typ, "*")
	printed, answered, quiet := 0, false, false
	for {
		q := url.Values{"wait": {"20"}, "limit": {"1000"}}
		if after != "" {
			q.Set("after", after)
		}
		if subject != "" {
			q.Set("subject", subject)
		}
		var list api.EventList
		if err := r.call(ctx, http.MethodGet, "/v1/events", q, nil, &list); err != nil {
			var f *failure
			if !answered || ctx.Err() != nil || !errors.As(err, &f) || f.code != exitUnreachable && !f.again {
				return err
			}
			if !quiet {
				quiet = true
				fmt.Fprintf(p.Err, "afterlogin: %v; trying again\n", err)
			}
			select {
			case <-time.After(eventsRetry):
			case <-ctx.Done():
				return context.Canceled
			}
			continue
		}
		answered, quiet = true, false
		if list.Gap {
			fmt.Fprintln(p.Err, "afterlogin: events were missed here")
		}
		for _, e := range list.Data {
			if typ != "" && e.Type != typ && !(wild && strings.HasPrefix(e.Type, prefix)) {
				continue
			}
			var err error
			if asJSON {
				err = out.Encode(e)
			} else {
				_, err = fmt.Fprintln(p.Out, eventLine(e))
			}
			if err != nil {
				return err
			}
			if printed++; limit > 0 && printed == limit {
				return nil
			}
		}
		after = list.Next
	}
}

// eventLine is an event for people.
func eventLine(e api.Event) string {
	parts := []string{e.At.UTC().Format(time.RFC3339), fmt.Sprintf("%-22s", e.Type), e.Session}
	for _, f := range [][2]string{{"subject", e.Subject}, {"reason", e.Reason}, {"by", e.Actor}} {
		if f[1] != "" {
			parts = append(parts, f[0]+"="+f[1])
		}
	}
	if e.Detail != "" {
		parts = append(parts, "("+e.Detail+")")
	}
	return clip(printable(strings.Join(parts, " ")), 300)
}
