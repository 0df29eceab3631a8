package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/api"
)

func (p *program) tokenCommand() *cobra.Command {
	return group("token", "Look into a token", "Ask a server what it thinks of a token.", p.tokenExplainCommand())
}

func (p *program) tokenExplainCommand() *cobra.Command {
	var file string
	var asJSON bool
	c := &cobra.Command{
		Use: "explain", Short: "Say why a token is good, or is not",
		Long: "Say what the server thinks of a token, check by check: exit code 0 if it is valid, 3 if not. Nothing is changed.\n\n" +
			"The token is read from standard input or a file; it is never an argument, which others can see.",
		Example: "  afterlogin token explain < token.txt\n  pbpaste | afterlogin token explain --json",
	}
	r := p.remoteFlags(c)
	c.Flags().StringVar(&file, "token-file", "", "read the token from this file")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.MarkFlagFilename("token-file")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 1 && afterlogin.SessionID(args[0]).Whole() {
			return usage("for a handle: afterlogin sessions explain "+args[0], "a token is not given as an argument, and this is a handle")
		}
		if len(args) > 0 {
			return usage("other users of this machine can see arguments, and the shell keeps them: take the token for lost, and give others on standard input, as in: afterlogin token explain < token.txt",
				"a token is not given as an argument")
		}
		token, err := p.readToken(cmd.Context(), file)
		if err != nil {
			return err
		}
		var ex api.Explanation
		if err := r.call(cmd.Context(), http.MethodPost, "/v1/explain", nil, api.ExplainRequest{Token: token}, &ex); err != nil {
			return err
		}
		return p.explained(&ex, asJSON)
	}
	return c
}

func (p *program) readToken(ctx context.Context, file string) (string, error) {
	in := p.In
	if file != "" {
		f, err := os.Open(file)
		if err != nil {
			return "", fail(exitError, "", "read the token: %w", err)
		}
		defer f.Close()
		in = f
	} else if isTerminal(p.In) {
		fmt.Fprintln(p.Err, "Paste the token, then Enter and Ctrl-D:")
	}
	b, err := answer(ctx, func() ([]byte, error) { return io.ReadAll(io.LimitReader(in, 4096+1)) })
	if ctx.Err() != nil {
		return "", context.Canceled
	}
	if err != nil {
		return "", fail(exitError, "", "read the token: %w", err)
	}
	token := strings.TrimSpace(string(b))
	switch {
	case token == "":
		return "", usage("give it on standard input, as in: afterlogin token explain < token.txt", "there is no token")
	case len(b) > 4096:
		return "", usage("give the token alone", "that is over 4096 bytes, and a token is not")
	}
	return token, nil
}
