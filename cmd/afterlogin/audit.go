package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/api"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/audit"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/config"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/transfer"
	"github.com/afterlogin/afterlogin/keyring"
)

func (p *program) auditCommand() *cobra.Command {
	return group("audit", "Read, export and check the audit log",
		"Read, export and check the audit log of a server: through the server, or, with --data, from its data directory.",
		p.auditListCommand(), p.auditExportCommand(), p.auditVerifyCommand())
}

// auditFlags are the flags that say which entries are meant.
type auditFlags struct {
	subject, session, actor, typ, since, until string
}

func (f *auditFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.subject, "subject", "", "only about this subject")
	c.Flags().StringVar(&f.session, "session", "", "only about this handle (ses_…, key_…, grant_…), and what lives under it")
	c.Flags().StringVar(&f.actor, "actor", "", "only what this one did: key_…, console/NAME, self")
	c.Flags().StringVar(&f.typ, "type", "", "only of this type; with * at its end, of the types that begin so: 'api.*'")
	c.Flags().StringVar(&f.since, "since", "", "only what happened since then: a time as 2026-02-28T09:00:00Z, or how long ago as 2h or 7d")
	c.Flags().StringVar(&f.until, "until", "", "only what happened before then")
}

// values are the flags as the parameters of a request.
func (f *auditFlags) values(now time.Time) (url.Values, error) {
	q := url.Values{}
	for name, value := range map[string]string{"subject": f.subject, "session": f.session, "actor": f.actor, "type": f.typ} {
		if value != "" {
			q.Set(name, value)
		}
	}
	for name, value := range map[string]string{"since": f.since, "until": f.until} {
		at, err := moment(value, now)
		if err != nil {
			return nil, usage("write a time as 2026-02-28T09:00:00Z, or how long ago as 2h or 7d", "--%s: %w", name, err)
		}
		if !at.IsZero() {
			q.Set(name, at.UTC().Format(time.RFC3339))
		}
	}
	return q, nil
}

// moment reads a time, or how long ago one is; empty is the zero time.
func moment(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return at, nil
	}
	d, err := config.ParseDuration(text)
	if err != nil || d < 0 {
		return time.Time{}, fmt.Errorf("%q is no time", printable(text))
	}
	return now.Add(-d), nil
}

// query is what the parameters mean to the log itself.
func (f *auditFlags) query(v url.Values) audit.Query {
	q := audit.Query{Subject: f.subject, Session: f.session, Actor: f.actor, Type: f.typ}
	q.Since, _ = time.Parse(time.RFC3339, v.Get("since"))
	q.Until, _ = time.Parse(time.RFC3339, v.Get("until"))
	return q
}

// auditDir is where the log lies in a data directory.
func auditDir(data string) string { return filepath.Join(data, "audit") }

// auditPlace is the data directory whose log is read, and where its keys are.
type auditPlace struct {
	p      *program
	data   string // empty: the server is asked
	at     *place
	master *string
}

func (p *program) auditPlace(c *cobra.Command) *auditPlace {
	f := &auditPlace{p: p}
	c.Flags().StringVar(&f.data, "data", "", "read the data directory of a server, and not the server")
	c.MarkFlagDirname("data")
	f.at = p.placeFlags(c, "store", "with --data, the store that the server shares with others", storeVariable)
	f.master = p.masterFlag(c)
	return f
}

// local reports whether the directory is to be read.
func (f *auditPlace) local() (bool, error) {
	if f.data == "" && (f.at.text != "" || f.at.file != "") {
		return false, usage("add --data with the data directory of the server, or leave --store away to ask the server", "--store without --data")
	}
	return f.data != "", nil
}

// keys opens the installation's keys. They are in the data directory, or in the store that servers share: then that is
// open, too, and else nil. text names the store.
func (f *auditPlace) keys(ctx context.Context) (ring *keyring.Ring, store *transfer.Place, text string, err error) {
	p := f.p
	if _, err := os.Stat(auditDir(f.data)); os.IsNotExist(err) {
		return nil, nil, "", logError(fmt.Errorf("%w in %s", audit.ErrNoLog, auditDir(f.data)))
	}
	text, shared := f.data, false
	if f.at.text != "" || f.at.file != "" || p.lookup(storeVariable) != "" || p.lookup(storeVariable+"_FILE") != "" {
		if text, err = f.at.resolve(); err != nil {
			return nil, nil, "", err
		}
		shared = strings.Contains(text, "://")
	}
	home := &transfer.Place{Dir: f.data}
	master, err := p.needMaster(*f.master, home)
	if err != nil {
		return nil, nil, "", err
	}
	if !shared {
		if _, err := home.SealedKeys(ctx); err != nil {
			if errors.Is(err, keyring.ErrNoRing) {
				return nil, nil, "", fail(exitError, "on a store that servers share the keys are in the store: name it with --store", "%w", err)
			}
			return nil, nil, "", err
		}
		if ring, err = keyring.Open(filepath.Join(f.data, "keys.json"), master); err != nil {
			return nil, nil, "", keysError(f.data, err)
		}
		return ring, nil, text, nil
	}
	if store, err = p.openPlace(ctx, "store", text, false); err != nil {
		return nil, nil, "", err
	}
	if _, err = store.SealedKeys(ctx); err == nil { // or they would be made
		ring, err = keyring.OpenShared(ctx, store, master, keyring.SharedOptions{})
	}
	if err != nil {
		return nil, nil, "", errors.Join(keysError(store.Name, err), store.Close())
	}
	return ring, store, text, nil
}

// archive opens the log in the directory.
func (f *auditPlace) archive(ctx context.Context) (*audit.Archive, error) {
	ring, store, _, err := f.keys(ctx)
	if err != nil {
		return nil, err
	}
	at, err := audit.OpenArchive(auditDir(f.data), ring)
	if err != nil {
		err = logError(err)
	}
	err = errors.Join(err, ring.Close())
	if store != nil {
		err = errors.Join(err, store.Close())
	}
	return at, err
}

// logError says what to do about an error of a log in a directory.
func logError(err error) error {
	if errors.Is(err, audit.ErrNoLog) || os.IsNotExist(err) {
		return fail(exitError, "name the data directory of a server, which has audit/ in it", "--data: %w", err)
	}
	return err
}

func (p *program) auditListCommand() *cobra.Command {
	var f auditFlags
	var limit int
	var cursor string
	var all, asJSON bool
	c := &cobra.Command{
		Use: "list", Short: "Read the audit log, newest first", Args: cobra.NoArgs,
		Long: "Read the audit log, newest first. If there is more, the cursor of the next page is printed to the error stream. With --json, one object on each line.\n" +
			"With --data this command reads it, with the installation's keys, as audit verify does.",
		Example: "  afterlogin audit list --subject mia\n  afterlogin audit list --type 'api.*' --since 7d --all --json",
	}
	r := p.remoteFlags(c)
	f.add(c)
	place := p.auditPlace(c)
	c.Flags().IntVar(&limit, "limit", 50, "at most this many, 1 to 1000")
	c.Flags().StringVar(&cursor, "cursor", "", "go on where a page ended")
	c.Flags().BoolVar(&all, "all", false, "all of them")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON, one object on each line")
	c.MarkFlagsMutuallyExclusive("limit", "all")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if limit < 1 || limit > 1000 {
			return usage("", "--limit %d is not between 1 and 1000", limit)
		}
		if all {
			limit = 1000
		}
		values, err := f.values(time.Now())
		if err != nil {
			return err
		}
		page := func(left int, cursor string) ([]*api.AuditEntry, string, int, error) {
			values.Set("limit", strconv.Itoa(left))
			if cursor != "" {
				values.Set("cursor", cursor)
			}
			var list api.AuditList
			err := r.call(cmd.Context(), http.MethodGet, "/v1/audit", values, nil, &list)
			return list.Data, list.Next, list.Damaged, err
		}
		local, err := place.local()
		if err != nil {
			return err
		}
		if local {
			at, err := place.archive(cmd.Context())
			if err != nil {
				return err
			}
			q := f.query(values)
			page = func(left int, cursor string) (out []*api.AuditEntry, next string, damaged int, err error) {
				q.Limit, q.Cursor = left, cursor
				list, err := at.List(cmd.Context(), q)
				for _, e := range list.Entries {
					out = append(out, api.NewAuditEntry(e))
				}
				return out, list.Next, list.Damaged, err
			}
		}
		return p.printAudit(page, limit, cursor, all, asJSON)
	}
	return c
}

// printAudit prints entries, page by page, until there are enough.
func (p *program) printAudit(page func(int, string) ([]*api.AuditEntry, string, int, error), limit int, cursor string, all, asJSON bool) error {
	out := json.NewEncoder(p.Out)
	out.SetEscapeHTML(false)
	w := tabwriter.NewWriter(p.Out, 0, 0, 2, ' ', 0)
	when := stamp
	if isTerminal(p.Out) {
		now := time.Now()
		when = func(at *time.Time) string { return relative(now, at) }
	}
	if !asJSON {
		fmt.Fprintln(w, "SEQ\tWHEN\tTYPE\tACTOR\tABOUT\tDETAIL")
	}
	damaged := 0
	for left := limit; ; {
		entries, next, bad, err := page(left, cursor)
		if err != nil {
			return err
		}
		damaged += bad
		for _, e := range entries {
			if asJSON {
				if err := out.Encode(e); err != nil {
					return err
				}
				continue
			}
			cells := []string{strconv.FormatUint(e.Seq, 10), when(&e.At), e.Type, or(e.Actor, "-"), or(strings.TrimSpace(e.Subject+" "+or(e.Session, e.Target)), "-"), detailOf(e)}
			for i, c := range cells {
				cells[i] = clip(printable(c), 80)
			}
			fmt.Fprintln(w, strings.Join(cells, "\t"))
		}
		cursor = next
		if left -= len(entries); cursor == "" || !all && left <= 0 {
			break
		}
		if all {
			left = limit
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if cursor != "" {
		fmt.Fprintf(p.Err, "afterlogin: there are more: --cursor %s, or --all\n", printable(cursor))
	}
	if damaged > 0 {
		fmt.Fprintf(p.Err, "afterlogin: %d lines or segments of the log could not be read: afterlogin audit verify says more\n", damaged)
	}
	return nil
}

// detailOf says of an entry what its other columns do not.
func detailOf(e *api.AuditEntry) string {
	parts := []string{e.Reason, e.Detail}
	if e.Via != "" {
		parts = append(parts, "via "+e.Via)
	}
	if e.Status != 0 {
		parts = append([]string{strconv.Itoa(e.Status)}, parts...)
	}
	return or(strings.Join(strings.Fields(strings.Join(parts, " ")), " "), "-")
}

func (p *program) auditExportCommand() *cobra.Command {
	var f auditFlags
	c := &cobra.Command{
		Use: "export", Short: "Write the audit log to the standard output", Args: cobra.NoArgs,
		Long: "Write the entries of the audit log to the standard output, oldest first: the lines of the log as they stand in it, one JSON object each, with their hashes.\n" +
			"That somebody exported it is in the log, unless it is read from the data directory, with --data, which needs the installation's keys, as audit verify does.",
		Example: "  afterlogin audit export --since 30d > audit.jsonl\n  afterlogin audit export --data /var/lib/afterlogin --subject mia",
	}
	r := p.remoteFlags(c)
	f.add(c)
	place := p.auditPlace(c)
	c.RunE = func(cmd *cobra.Command, args []string) error {
		values, err := f.values(time.Now())
		if err != nil {
			return err
		}
		local, err := place.local()
		if err != nil {
			return err
		}
		if !local {
			path := "/v1/audit/export"
			if len(values) > 0 {
				path += "?" + values.Encode()
			}
			return r.download(cmd.Context(), path, p.Out)
		}
		at, err := place.archive(cmd.Context())
		if err != nil {
			return err
		}
		out := bufio.NewWriter(p.Out)
		damaged, err := at.Export(cmd.Context(), f.query(values), func(line []byte) error {
			_, err := out.Write(line)
			return err
		})
		if err = errors.Join(err, out.Flush()); err != nil {
			return err
		}
		if damaged > 0 {
			return fail(exitError, "see afterlogin audit verify", "%d lines or segments of the log could not be read, and are not in this export", damaged)
		}
		return nil
	}
	return c
}

func (p *program) auditVerifyCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "verify", Short: "Say whether the audit log is as it was written", Args: cobra.NoArgs,
		Long: "Read all of the audit log and say whether it is as it was written: no byte changed, no entry removed, added or moved. The server\n" +
			"does that, or, with --data, this command, which needs the installation's keys, as the server does: an embedded store has\n" +
			"them in the data directory; for one that servers share, name it with --store. While an embedded store is in use by its\n" +
			"server, what it knows of the log's length cannot be compared.\n\n" +
			"Exit codes: 0 it is in order, 3 it is not, 1 another error.",
		Example: "  afterlogin audit verify\n  afterlogin audit verify --data /var/lib/afterlogin --json",
	}
	r := p.remoteFlags(c)
	place := p.auditPlace(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		var found api.AuditReport
		local, err := place.local()
		if err != nil {
			return err
		}
		if !local {
			if err := r.open(); err != nil {
				return err
			}
			r.http.Timeout = 0 // a large log takes its time
			if err := r.call(cmd.Context(), http.MethodPost, "/v1/audit/verify", nil, nil, &found); err != nil {
				return err
			}
		} else {
			report, err := p.verifyOffline(cmd.Context(), place)
			if err != nil {
				return err
			}
			found = api.AuditReport{InOrder: report.Count == 0, Report: *report}
		}
		return p.printVerified(&found, asJSON)
	}
	return c
}

// verifyOffline verifies the log in a data directory.
func (p *program) verifyOffline(ctx context.Context, at *auditPlace) (report *audit.Report, err error) {
	o := audit.VerifyOptions{Dir: auditDir(at.data)}
	ring, store, text, err := at.keys(ctx)
	if err != nil {
		return nil, err
	}
	o.Keys = ring
	note := ""
	if store == nil {
		if store, err = p.openPlace(ctx, "store", text, false); err != nil {
			if ctx.Err() != nil {
				return nil, errors.Join(err, ring.Close())
			}
			note = fmt.Sprintf("what the store knows of the log's length was not compared: %v", err) // the files can be checked without
		}
	}
	defer func() {
		err = errors.Join(err, ring.Close())
		if store != nil {
			err = errors.Join(err, store.Close())
		}
	}()
	if store != nil {
		a, err := afterlogin.New(afterlogin.Config{Store: store, Keys: o.Keys, CacheSize: -1, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
		if err != nil {
			return nil, err
		}
		defer a.Close()
		o.Authority = a
	}
	report, err = audit.Verify(ctx, o)
	if err != nil {
		return nil, logError(err)
	}
	if note != "" {
		report.Notes = append(report.Notes, note)
	}
	return report, nil
}

func (p *program) printVerified(found *api.AuditReport, asJSON bool) error {
	if asJSON {
		if err := json.NewEncoder(p.Out).Encode(found); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(p.Out, "log %s of %s: entries %d to %d in %d segments\n", printable(found.Log), printable(or(found.Node, "?")), found.First, found.Last, found.Segments)
		for _, c := range found.Compared {
			fmt.Fprintln(p.Out, "compared "+printable(c))
		}
		for _, n := range found.Notes {
			fmt.Fprintln(p.Out, "note: "+printable(n))
		}
		for _, f := range found.Problems {
			fmt.Fprintln(p.Out, "PROBLEM "+printable(f.String()))
		}
		if more := found.Count - len(found.Problems); more > 0 {
			fmt.Fprintf(p.Out, "and %d more\n", more)
		}
		if found.InOrder {
			fmt.Fprintln(p.Out, "in order")
		}
	}
	if !found.InOrder {
		return fail(exitNo, "what is missing or changed cannot be brought back from this log; compare it with exports, and with the logs of other servers on the same store", "the audit log is not as it was written: %d problems", found.Count)
	}
	return nil
}
