package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/doctor"
)

func (p *program) doctorCommand() *cobra.Command {
	var o doctor.Options
	var pw visitorPassword
	var cookies, roots, failOn string
	var timeout time.Duration
	var asJSON bool
	c := &cobra.Command{
		Use:   "doctor --url <url>",
		Short: "Examine a site that has afterlogin in front of it",
		Long: `Examine, from outside, a site that has afterlogin in front of it by a proxy: whether
strangers are sent to the sign-in and come back, whether programs get a challenge,
whether forged headers and odd paths get anybody in, whether what is for the inside is
hidden, and how TLS, clocks, cookies and caches are set. It sends up to 150 harmless
requests, one after the other.

With --user and a password, or --cookie-file, it also looks at what somebody gets who is
signed in; with --echo, a page of the application that answers with the headers of the
request, also at what reaches the application. With --afterlogin it asks afterlogin
itself whether it is ready.

Exit codes: 0 nothing as bad as --fail-on, 3 there is something, 1 something went wrong, 2
wrong use, 5 not reached.`,
		Example: `  afterlogin doctor --url https://shop.example.com/account
  afterlogin doctor --url https://shop.example.com/ --user mia --password-stdin --echo /headers < pw
  afterlogin doctor --url https://shop.example.com/ --cookie-file cookie.txt --afterlogin http://127.0.0.1:7070 --json`,
		Args: cobra.NoArgs,
	}
	f := c.Flags()
	f.StringVar(&o.URL, "url", "", "the site, as people open it")
	f.StringVar(&o.Path, "path", "", "path of a page that needs a sign-in (default: that of --url)")
	f.StringVar(&o.User, "user", "", "name to sign in with on the page of afterlogin")
	pw.add(c)
	f.StringVar(&cookies, "cookie-file", "", "file with the Cookie header of somebody who is signed in: NAME=VALUE; NAME=VALUE")
	f.StringVar(&o.Echo, "echo", "", "path of the application that answers with the headers of the request")
	f.StringVar(&o.Afterlogin, "afterlogin", "", "afterlogin's own address, such as "+defaultServer)
	f.StringVar(&roots, "ca-file", "", "certificates to trust beside the system's, in PEM")
	f.DurationVar(&timeout, "timeout", 2*time.Minute, "give up after this time")
	f.StringVar(&failOn, "fail-on", doctor.Fail, "exit 3 for results as bad as this: fail, warn or none")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	c.MarkFlagsMutuallyExclusive("cookie-file", "user")
	for _, name := range []string{"cookie-file", "ca-file"} {
		c.MarkFlagFilename(name)
	}
	c.RegisterFlagCompletionFunc("fail-on", cobra.FixedCompletions([]string{doctor.Fail, doctor.Warn, "none"}, cobra.ShellCompDirectiveNoFileComp))
	c.RunE = func(cmd *cobra.Command, args []string) (err error) {
		switch {
		case o.URL == "":
			return usage("add --url https://shop.example.com/", "which site? There is no --url")
		case o.User != "" && !pw.set():
			return usage("add --password-stdin or --password-file; a password is not given as an argument, which others can see", "there is no password for %s", printable(o.User))
		case o.User == "" && pw.set():
			return usage("add --user", "whose password is that?")
		case timeout < time.Second:
			return usage("durations are written 30s, 5m or 1h", "--timeout: want at least 1s")
		case !slices.Contains([]string{doctor.Fail, doctor.Warn, "none"}, failOn):
			return usage("write fail, warn or none", "--fail-on: %.40q is no result", failOn)
		}
		if o.Roots, err = readRoots(roots); err != nil {
			return err
		}
		if cookies != "" {
			if o.Cookies, err = readCookies(cookies); err != nil {
				return err
			}
		}
		if pw.set() {
			if o.Password, err = p.readPassword(cmd.Context(), &pw); err != nil {
				return err
			}
		}
		ctx, cancel := context.WithTimeoutCause(cmd.Context(), timeout, fail(exitError, "give it more time with --timeout", "not finished after %v", timeout))
		defer cancel()
		report, err := doctor.Run(ctx, o)
		switch {
		case errors.Is(err, doctor.ErrOption):
			return usage("see afterlogin doctor --help", "%w", err)
		case errors.Is(err, doctor.ErrUnreachable):
			return fail(exitUnreachable, "is the name right, and does the proxy run?", "%w", err)
		case err != nil:
			return err
		}
		if asJSON {
			e := json.NewEncoder(p.Out)
			e.SetIndent("", "  ")
			err = e.Encode(report)
		} else {
			err = report.Text(p.Out)
		}
		switch {
		case err != nil:
			return err
		case report.Worst(failOn):
			return &failure{code: exitFindings} // the report says which
		case report.Stopped != "" && failOn != "none":
			return fail(exitError, "", "the examination ended early: %s", report.Stopped) // what was not looked at is not fine
		}
		return nil
	}
	return c
}

// readCookies reads a Cookie header from a file, with or without its name.
func readCookies(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", fail(exitError, "", "read the cookie: %w", err)
	}
	defer f.Close()
	const most = 16 << 10
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return "", fail(exitError, "", "read the cookie: %w", err)
	}
	text := strings.TrimSpace(string(b))
	if name, rest, ok := strings.Cut(text, ":"); ok && strings.EqualFold(name, "Cookie") {
		text = strings.TrimSpace(rest)
	}
	var pairs []string
	for pair := range strings.SplitSeq(text, ";") {
		pair = strings.TrimSpace(pair)
		if name, _, ok := strings.Cut(pair, "="); !ok || name == "" || strings.ContainsAny(pair, " \t\r\n") || len(b) > most {
			return "", usage("write it on one line, as a browser sends it: NAME=VALUE; NAME=VALUE", "%s does not hold a Cookie header", file)
		}
		pairs = append(pairs, pair)
	}
	return strings.Join(pairs, "; "), nil
}
