package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/api"
)

func (p *program) usersCommand() *cobra.Command {
	return group("users", "Add and change built-in users", "Add, list, show, disable and enable the users of a server that people sign in as at /login, and give them passwords.",
		p.usersAddCommand(), p.usersListCommand(), p.usersShowCommand(), p.usersPasswdCommand(),
		p.usersChangeCommand("disable", "Keep a user from signing in", "Keep a user from signing in, and end everything that the user has: sessions, grants and API keys. Running it again does no harm.\n\n"+
			"It is about the sign-in page. An application that makes sessions or API keys itself, with a key of its own, can still make them for this name.", true),
		p.usersChangeCommand("enable", "Let a user sign in again", "Let a user sign in again. What was ended stays ended.", false))
}

// oneUser takes the name of one user.
func oneUser(cmd *cobra.Command, args []string) error {
	if len(args) != 1 || args[0] == "" {
		return usage("as in "+cmd.CommandPath()+" mia", "name one user")
	}
	return nil
}

func userPath(name string) string { return "/v1/users/" + segment(name) }

// passwordFlags say where a password comes from.
type passwordFlags struct {
	stdin, generate bool
}

func bindPassword(c *cobra.Command) *passwordFlags {
	f := &passwordFlags{}
	c.Flags().BoolVar(&f.stdin, "password-stdin", false, "read the password from standard input: one line, as it is")
	c.Flags().BoolVar(&f.generate, "generate", false, "make a password, and print it alone on standard output")
	c.MarkFlagsMutuallyExclusive("password-stdin", "generate")
	return f
}

// maxTyped is the longest line that is read for a password, in bytes. The server takes 1024.
const maxTyped = 4096

// password returns the new password: from standard input, from the person at the terminal, who types it twice, or made.
func (p *program) password(ctx context.Context, f *passwordFlags, name string) (string, error) {
	switch {
	case f.generate:
		return newPassword(), nil
	case f.stdin:
		return answer(ctx, func() (string, error) {
			b, err := io.ReadAll(io.LimitReader(p.In, maxTyped))
			if err != nil {
				return "", fail(exitError, "", "read the password: %w", err)
			}
			line, rest, _ := strings.Cut(string(b), "\n")
			if line = strings.TrimSuffix(line, "\r"); line == "" || rest != "" {
				return "", usage("write one line, as in printf '%s\\n' \"$PASSWORD\" | afterlogin users …", "standard input does not hold one password")
			}
			return line, nil
		})
	case !isTerminal(p.In):
		return "", usage("add --password-stdin or --generate", "there is nobody to ask for a password")
	}
	fd := int(p.In.(*os.File).Fd())
	had, err := term.GetState(fd)
	if err != nil {
		return "", fail(exitError, "add --password-stdin", "the terminal cannot hide what is typed: %w", err)
	}
	ask := func(what string) (string, error) {
		fmt.Fprint(p.Err, what)
		defer fmt.Fprintln(p.Err)
		b, err := answer(ctx, func() ([]byte, error) { return term.ReadPassword(fd) })
		if errors.Is(err, context.Canceled) {
			term.Restore(fd, had) // the read is left alone, and would leave the terminal mute
			return "", err
		}
		if err != nil {
			return "", fail(exitError, "", "read the password: %w", err)
		}
		return string(b), nil
	}
	first, err := ask("New password of " + printable(name) + ": ")
	if err != nil {
		return "", err
	}
	second, err := ask("Once more: ")
	if err != nil {
		return "", err
	}
	switch {
	case first != second:
		return "", fail(exitError, "", "the two are not the same; nothing has changed")
	case first == "":
		return "", fail(exitError, "", "no password; nothing has changed")
	}
	return first, nil
}

// newPassword returns 100 random bits in letters and figures that nobody takes for others.
func newPassword() string {
	const letters = "abcdefghjkmnpqrstuvwxyz023456789"
	var b [20]byte
	rand.Read(b[:])
	var out strings.Builder
	for i, c := range b {
		if i > 0 && i%5 == 0 {
			out.WriteByte('-')
		}
		out.WriteByte(letters[c&31])
	}
	return out.String()
}

func (p *program) usersAddCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "add <name>", Short: "Add a user", Args: oneUser,
		Long: "Add a user. The password is asked for at the terminal, twice. Names are of a to z, 0 to 9 and . _ @ -, and are never used again: a user who leaves is disabled.\n\n" +
			"With --generate a password is made, and printed alone on standard output, this once. If it fails because the server does not answer, or cannot tell, the user may be there, with a password that nobody knows: users passwd gives another.",
		Example: "  afterlogin users add mia\n  afterlogin users add mia --scope reports:read --generate > mia.txt\n  printf '%s\\n' \"$PASSWORD\" | afterlogin users add mia --password-stdin",
	}
	r := p.remoteFlags(c)
	f := bindPassword(c)
	var scopes []string
	c.Flags().StringSliceVar(&scopes, "scope", nil, "what the user's sessions may do; several times, or with commas")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.MarkFlagsMutuallyExclusive("generate", "json")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		password, err := p.password(cmd.Context(), f, args[0])
		if err != nil {
			return err
		}
		var made api.User
		in := api.CreateUserRequest{Name: args[0], Password: password, Scopes: scopes}
		if err := r.call(cmd.Context(), http.MethodPost, "/v1/users", nil, in, &made); err != nil {
			return err
		}
		return p.userChanged(&made, "added", asJSON, f, password)
	}
	return c
}

// userChanged prints what became of a user, and the password if it was made here.
func (p *program) userChanged(u *api.User, what string, asJSON bool, f *passwordFlags, password string) error {
	switch {
	case u.Name == "":
		return fail(exitError, "is that an afterlogin server?", "the answer cannot be read")
	case asJSON:
		return json.NewEncoder(p.Out).Encode(u)
	case f.generate:
		fmt.Fprintf(p.Err, "afterlogin: %s %s; this is the only time that the password is shown\n", what, printable(u.Name))
		_, err := fmt.Fprintln(p.Out, password)
		return err
	}
	_, err := fmt.Fprintln(p.Out, what, printable(u.Name))
	return err
}

func (p *program) usersPasswdCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "passwd <name>", Short: "Give a user a new password", Args: oneUser,
		Long: "Give a user a new password, which ends the user's sessions; API keys stay. It is asked for at the terminal, twice.\n\n" +
			"With --generate a password is made, and printed alone on standard output, this once. If it fails, run it again: the old password may be gone already.",
		Example: "  afterlogin users passwd mia\n  afterlogin users passwd mia --generate",
	}
	r := p.remoteFlags(c)
	f := bindPassword(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.MarkFlagsMutuallyExclusive("generate", "json")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		password, err := p.password(cmd.Context(), f, args[0])
		if err != nil {
			return err
		}
		var got api.User
		in := api.SetPasswordRequest{Password: password}
		if err := r.call(cmd.Context(), http.MethodPut, userPath(args[0])+"/password", waiting(), in, &got); err != nil {
			return err
		}
		return p.userChanged(&got, "changed the password of", asJSON, f, password)
	}
	return c
}

// waiting asks for an answer when no server takes what was ended.
func waiting() url.Values { return url.Values{"wait": {"true"}} }

func (p *program) usersChangeCommand(use, short, long string, disable bool) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{Use: use + " <name>", Short: short, Args: oneUser, Long: long, Example: "  afterlogin users " + use + " mia"}
	r := p.remoteFlags(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		var got api.User
		if err := r.call(cmd.Context(), http.MethodPatch, userPath(args[0]), waiting(), api.ChangeUserRequest{Disabled: &disable}, &got); err != nil {
			return err
		}
		return p.userChanged(&got, use+"d", asJSON, &passwordFlags{}, "")
	}
	return c
}

func (p *program) usersShowCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{Use: "show <name>", Short: "Show a user", Args: oneUser, Long: "Show a user. The password is not known to the server."}
	r := p.remoteFlags(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		var u api.User
		if err := r.call(cmd.Context(), http.MethodGet, userPath(args[0]), nil, nil, &u); err != nil {
			return err
		}
		if asJSON {
			return json.NewEncoder(p.Out).Encode(u)
		}
		w := tabwriter.NewWriter(p.Out, 0, 0, 2, ' ', 0)
		fmt.Fprintf(w, "name\t%s\n", printable(u.Name))
		fmt.Fprintf(w, "state\t%s\n", userState(&u))
		if len(u.Scopes) > 0 {
			fmt.Fprintf(w, "scopes\t%s\n", printable(strings.Join(u.Scopes, " ")))
		}
		fmt.Fprintf(w, "added\t%s\n", stamp(&u.CreatedAt))
		fmt.Fprintf(w, "password changed\t%s\n", stamp(&u.PasswordChangedAt))
		return w.Flush()
	}
	return c
}

func userState(u *api.User) string {
	state := "enabled"
	if u.Disabled {
		state = "disabled"
	}
	if u.Pending {
		state += ", sessions from before the last change may be left: make it again"
	}
	return state
}

func (p *program) usersListCommand() *cobra.Command {
	var asJSON, all bool
	var limit int
	c := &cobra.Command{
		Use: "list", Short: "List users", Args: cobra.NoArgs, Long: "List users, by name. With --json, one object on each line.",
		Example: "  afterlogin users list --all --json | jq -r .name",
	}
	r := p.remoteFlags(c)
	c.Flags().IntVar(&limit, "limit", 50, "at most this many, 1 to 1000")
	c.Flags().BoolVar(&all, "all", false, "all of them")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON, one object on each line")
	c.MarkFlagsMutuallyExclusive("limit", "all")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if limit < 1 || limit > 1000 {
			return usage("", "--limit %d is not between 1 and 1000", limit)
		}
		q := url.Values{"limit": {strconv.Itoa(limit)}}
		if all {
			q.Set("limit", "1000")
		}
		w := tabwriter.NewWriter(p.Out, 0, 0, 2, ' ', 0)
		if !asJSON {
			fmt.Fprintln(w, "NAME\tSTATE\tSCOPES\tADDED\tPASSWORD CHANGED")
		}
		for {
			var page api.UserList
			if err := r.call(cmd.Context(), http.MethodGet, "/v1/users", q, nil, &page); err != nil {
				return err
			}
			for _, u := range page.Data {
				if asJSON {
					if err := json.NewEncoder(p.Out).Encode(u); err != nil {
						return err
					}
					continue
				}
				state, _, _ := strings.Cut(userState(u), ", ")
				if u.Pending {
					state += " (unfinished)"
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", printable(u.Name), state, clip(printable(strings.Join(u.Scopes, ",")), 40), stamp(&u.CreatedAt), stamp(&u.PasswordChangedAt))
			}
			if page.Next == "" || !all {
				if err := w.Flush(); err != nil {
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
