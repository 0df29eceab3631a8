package main

import (
	"bufio"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/breached"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/grade"
)

// exitFindings is the exit code of grade and doctor if something is as it should not be. That they could not look has
// others: 2 (wrong use), 4 (the sign-in was refused), 5 (not reached).
const exitFindings = exitNo

const maxSecretsFile = 64 << 20

// visitorPassword says where the password of somebody who can already sign in comes from. It is never an argument, which others can see.
type visitorPassword struct {
	stdin bool
	file  string
}

func (f *visitorPassword) add(c *cobra.Command) {
	c.Flags().BoolVar(&f.stdin, "password-stdin", false, "read the password from standard input, up to the end of its first line")
	c.Flags().StringVar(&f.file, "password-file", "", "read the password from the first line of this file")
	c.MarkFlagsMutuallyExclusive("password-stdin", "password-file")
	c.MarkFlagFilename("password-file")
}

func (f *visitorPassword) set() bool { return f.stdin || f.file != "" }

func (p *program) readPassword(ctx context.Context, f *visitorPassword) (string, error) {
	in := p.In
	if f.file != "" {
		file, err := os.Open(f.file)
		if err != nil {
			return "", fail(exitError, "", "read the password: %w", err)
		}
		defer file.Close()
		in = file
	}
	b, err := answer(ctx, func() ([]byte, error) {
		return bufio.NewReaderSize(io.LimitReader(in, maxTyped+1), maxTyped+2).ReadBytes('\n')
	})
	if ctx.Err() != nil {
		return "", context.Canceled
	}
	if err != nil && err != io.EOF {
		return "", fail(exitError, "", "read the password: %w", err)
	}
	switch line := strings.TrimRight(string(b), "\r\n"); {
	case line == "":
		return "", usage("", "there is no password")
	case len(b) > maxTyped:
		return "", usage("", "that is over %d bytes, and a password is not", maxTyped)
	default:
		return line, nil
	}
}

// readRoots reads a file of certificates to trust beside the system's.
func readRoots(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fail(exitError, "", "read the certificates: %w", err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, usage("want certificates in PEM, BEGIN CERTIFICATE", "--ca-file: there is no certificate in %s", file)
	}
	return pool, nil
}

func (p *program) gradeCommand() *cobra.Command {
	var o grade.Options
	var pw visitorPassword
	var fields []string
	var rate float64
	var timeout time.Duration
	var secrets, roots, failOn string
	var asJSON bool
	c := &cobra.Command{
		Use:   "grade <url>",
		Short: "Examine the session tokens of a site that you run",
		Long: `Examine the session tokens of a web site, as a visitor with a name and a password:
how they are made, how they travel, and what happens to them at sign-in and sign-out.
It signs in a few hundred times, compares the tokens, and sends altered and old ones,
all with its own sessions. Each finding comes with what was seen, why it matters, what
to do, and the requirement of OWASP ASVS 5.0 and the test of the WSTG that ask for it.

Only sites on this machine are examined, and hosts that are named with --allow-host:
examine what is yours. The form is found by itself; the flags are for when it is not.
The sessions that it makes are left to expire, but for those that it signs out.

Grades: A nothing, B low findings, C one or two medium ones, D one high or three medium
ones, F two high ones. Without a grade: it ended early, and nothing was found by then.

Exit codes: 0 no finding as bad as --fail-on, 3 there is one, 1 something went wrong or the
requests were used up, 2 wrong use, 4 the sign-in was not found or refused, also later on,
5 not reached.`,
		Example: `  echo demo | afterlogin grade http://localhost:7071/ --user mia --password-stdin
  afterlogin grade https://shop.example.com/ --allow-host shop.example.com --user mia@example.com --password-file pw --page /account
  afterlogin grade http://localhost:8080/ --json-login --login /api/login --page /api/me --user mia --password-stdin --json < pw`,
		Args: cobra.ExactArgs(1),
	}
	f := c.Flags()
	f.StringVar(&o.User, "user", "", "name to sign in with")
	pw.add(c)
	f.StringVar(&o.Login, "login", "", "path of the sign-in page, or of what takes the JSON")
	f.BoolVar(&o.JSON, "json-login", false, "sign in by a JSON object, to --login")
	f.StringVar(&o.UserField, "user-field", "", "name of the field for the name")
	f.StringVar(&o.PasswordField, "password-field", "", "name of the field for the password")
	f.StringArrayVar(&fields, "field", nil, "name=value to send along; may be given several times")
	f.StringVar(&o.CookieName, "cookie-name", "", "cookie that holds the token")
	f.StringVar(&o.Page, "page", "", "path of a page that only those who are signed in can see (default: where the sign-in leads)")
	f.StringVar(&o.Expect, "expect", "", "text of that page that nobody else sees")
	f.StringVar(&o.Logout, "logout", "", "path that signs out")
	f.StringArrayVar(&o.AllowHosts, "allow-host", nil, "host that may be asked beside this machine; may be given several times")
	f.IntVar(&o.Samples, "samples", grade.DefaultSamples, fmt.Sprintf("how often to sign in, 2 to %d", grade.MaxSamples))
	f.IntVar(&o.MaxRequests, "max-requests", grade.DefaultMaxRequests, fmt.Sprintf("at most this many requests, 20 to %d", grade.MaxMaxRequests))
	f.Float64Var(&rate, "rate", 50, "at most this many requests a second, 0.1 to 1000")
	f.DurationVar(&timeout, "timeout", 10*time.Minute, "give up after this time")
	f.StringVar(&secrets, "secrets", "", "file with further secrets to try on JWTs, one on each line")
	f.StringVar(&roots, "ca-file", "", "certificates to trust beside the system's, in PEM")
	f.StringVar(&failOn, "fail-on", grade.Medium, "exit 3 for findings as bad as this: high, medium, low or none")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	for _, name := range []string{"secrets", "ca-file"} {
		c.MarkFlagFilename(name)
	}
	c.RegisterFlagCompletionFunc("fail-on", cobra.FixedCompletions([]string{grade.High, grade.Medium, grade.Low, "none"}, cobra.ShellCompDirectiveNoFileComp))
	c.RunE = func(cmd *cobra.Command, args []string) (err error) {
		o.URL = args[0]
		switch {
		case o.User == "":
			return usage("add --user, and --password-stdin or --password-file", "whose tokens? There is no name to sign in with")
		case !pw.set():
			return usage("add --password-stdin or --password-file; a password is not given as an argument, which others can see", "there is no password")
		case rate < 0.1 || rate > 1000:
			return usage("", "--rate %g is not between 0.1 and 1000", rate)
		case timeout < time.Second:
			return usage("durations are written 30s, 5m or 1h", "--timeout: want at least 1s")
		case !slices.Contains([]string{grade.High, grade.Medium, grade.Low, "none"}, failOn):
			return usage("write high, medium, low or none", "--fail-on: %.40q is no severity", failOn)
		}
		o.Every = time.Duration(float64(time.Second) / rate)
		if o.Fields, err = formFields(fields); err != nil {
			return err
		}
		if o.Roots, err = readRoots(roots); err != nil {
			return err
		}
		if o.Secrets, err = knownSecrets(secrets); err != nil {
			return err
		}
		if o.Password, err = p.readPassword(cmd.Context(), &pw); err != nil {
			return err
		}
		o.Progress = func(what string) { fmt.Fprintln(p.Err, "afterlogin:", printable(what)) }
		ctx, cancel := context.WithTimeoutCause(cmd.Context(), timeout, fail(exitError, "give it more time with --timeout, or take fewer --samples", "not finished after %v", timeout))
		defer cancel()
		report, err := grade.Run(ctx, o)
		if err != nil {
			return gradeError(err)
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
		case report.Err() != nil && failOn != "none":
			return endedEarly(report.Err()) // what was not looked at is not fine
		}
		return nil
	}
	return c
}

// gradeError says what to do about an examination that could not be made.
func gradeError(err error) error {
	switch {
	case errors.Is(err, grade.ErrOption):
		return usage("see afterlogin grade --help", "%w", err)
	case errors.Is(err, grade.ErrNotAllowed):
		return usage("if the site is yours, name its host with --allow-host", "%w", err)
	case errors.Is(err, grade.ErrSignIn):
		return fail(exitDenied, "say how with --login, --user-field, --password-field and --field, or --json-login; check the name and the password", "%w", err)
	case errors.Is(err, grade.ErrTell):
		return fail(exitDenied, "--page names a page that only those who are signed in can see, --expect a text of it", "%w", err)
	case errors.Is(err, grade.ErrUnreachable):
		return fail(exitUnreachable, "", "%w", err)
	case errors.Is(err, grade.ErrBudget):
		return fail(exitError, "allow more with --max-requests", "%w", err)
	}
	return err
}

// endedEarly is for an examination that has a report, and is not whole.
func endedEarly(err error) error {
	if errors.Is(err, grade.ErrSignIn) {
		return fail(exitDenied, "if the site limits sign-ins, take fewer with --samples or let them be slower with --rate", "the examination ended early: %w", err)
	}
	return gradeError(fmt.Errorf("the examination ended early: %w", err))
}

// formFields reads name=value.
func formFields(list []string) (url.Values, error) {
	v := url.Values{}
	for _, f := range list {
		name, value, ok := strings.Cut(f, "=")
		if !ok || name == "" {
			return nil, usage("write it as --field remember=no", "--field: want name=value")
		}
		v.Add(name, value)
	}
	return v, nil
}

// knownSecrets are the breached passwords that the program knows, and the lines of the file.
func knownSecrets(file string) (iter.Seq[string], error) {
	var more []byte
	if file != "" {
		f, err := os.Open(file)
		if err != nil {
			return nil, fail(exitError, "", "read the secrets: %w", err)
		}
		defer f.Close()
		if more, err = io.ReadAll(io.LimitReader(f, maxSecretsFile+1)); err != nil {
			return nil, fail(exitError, "", "read the secrets: %w", err)
		}
		if len(more) > maxSecretsFile {
			return nil, usage("split it", "--secrets: the file is over %d MiB", maxSecretsFile>>20)
		}
	}
	return func(yield func(string) bool) {
		for s := range strings.Lines(string(more)) {
			if !yield(strings.TrimRight(s, "\r\n")) {
				return
			}
		}
		for s := range breached.All() {
			if !yield(s) {
				return
			}
		}
	}, nil
}
