package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/api"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/config"
)

func (p *program) configCommand() *cobra.Command {
	return group("config", "Check and show the server's configuration",
		"Check and show the server's configuration.\n\nFlags win over environment variables, which win over the file.",
		p.configCheckCommand(), p.configShowCommand(), p.configExampleCommand())
}

// loadConfig is what check and show have in common with serve.
func (p *program) loadConfig(c *cobra.Command) (load func() (*config.Loaded, error)) {
	var file string
	flags := config.Bind(c.Flags())
	p.configFlag(c, &file)
	return func() (*config.Loaded, error) {
		l, err := config.Load(file, p.environ, flags)
		if l != nil {
			for _, w := range l.Warnings {
				fmt.Fprintf(p.Err, "afterlogin: warning: %s\n", w)
			}
		}
		return l, err
	}
}

func (p *program) configCheckCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "check", Short: "Say whether the configuration is valid", Args: cobra.NoArgs,
		Long: "Say whether the server would start with the configuration, and with the certificate and the master key that it names:\n" +
			"exit code 0 if so, 3 if not.",
		Example: "  afterlogin config check --config afterlogin.yaml",
	}
	load := p.loadConfig(c)
	c.RunE = func(cmd *cobra.Command, args []string) error {
		l, err := load()
		if err == nil {
			err = l.CheckFiles()
		}
		var faults config.Faults
		if errors.As(err, &faults) {
			p.reportFaults(faults)
			return &failure{code: exitNo}
		}
		if err == nil {
			fmt.Fprintln(p.Out, "ok")
		}
		return err
	}
	return c
}

// reportFaults prints everything that is wrong with a configuration.
func (p *program) reportFaults(faults config.Faults) {
	for _, f := range faults {
		fmt.Fprintf(p.Err, "afterlogin: %v\n", f)
		if f.Excerpt != "" {
			fmt.Fprintln(p.Err, f.Excerpt)
		}
		if f.Hint != "" {
			fmt.Fprintf(p.Err, "hint: %s\n", f.Hint)
		}
	}
}

func (p *program) configShowCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "show", Short: "Show every setting and where it came from", Args: cobra.NoArgs,
		Long: "Show every setting with its value and where that came from. Secrets are masked.",
	}
	load := p.loadConfig(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		l, err := load()
		if err != nil {
			return err
		}
		all := settingsOf(l)
		if asJSON {
			return json.NewEncoder(p.Out).Encode(all)
		}
		w := tabwriter.NewWriter(p.Out, 0, 0, 2, ' ', 0)
		for _, s := range all {
			fmt.Fprintf(w, "%s\t%s\t(%s)\n", s.Key, s.Value, s.Source)
		}
		return w.Flush()
	}
	return c
}

// settingsOf lists every setting in effect, with where it came from. Secrets are masked.
func settingsOf(l *config.Loaded) (all []api.Setting) {
	for _, s := range config.Settings() {
		all = append(all, api.Setting{Key: s.Name(), Value: s.Text(&l.Config), Source: l.Source(s.Name()), Doc: s.Doc})
	}
	for key, value := range l.Config.PolicyValues {
		all = append(all, api.Setting{Key: key, Value: value, Source: l.Source(key)})
	}
	return all
}

func (p *program) configExampleCommand() *cobra.Command {
	return &cobra.Command{
		Use: "example", Short: "Print a configuration file with every setting", Args: cobra.NoArgs,
		Long:    "Print a configuration file with every setting at its default, commented out.",
		Example: "  afterlogin config example > afterlogin.yaml",
		RunE: func(cmd *cobra.Command, args []string) error {
			_, err := fmt.Fprint(p.Out, config.Example())
			return err
		},
	}
}

// topics are the pages of help that belong to no command.
func topics() []*cobra.Command {
	env := "Environment variables.\n\nOf the commands that talk to a server:\n\n"
	env += "  AFTERLOGIN_SERVER    its address; default " + defaultServer + "\n"
	env += "  AFTERLOGIN_KEY       the API key\n"
	env += "  AFTERLOGIN_KEY_FILE  a file with the API key; default " + defaultKeyFile + "\n"
	env += "\nOf serve (a flag wins over its variable, a variable over the file):\n\n"
	env += "  AFTERLOGIN_CONFIG    the configuration file\n"
	settings := config.Settings()
	width := 0
	for _, s := range settings {
		width = max(width, len(s.Env))
	}
	slices.SortFunc(settings, func(a, b config.Setting) int {
		if a.Env < b.Env {
			return -1
		}
		return 1
	})
	for _, s := range settings {
		env += fmt.Sprintf("  %-*s  %s\n", width, s.Env, s.Doc)
	}
	env += "  " + config.PolicyVariable + "\n"
	env += fmt.Sprintf("  %-*s  a duration of a policy, as in AFTERLOGIN_POLICY_BROWSER_IDLE=30m\n", width, "")
	env += "  " + config.RehearsalVariable + "\n"
	env += fmt.Sprintf("  %-*s  a stricter one to rehearse, as in AFTERLOGIN_REHEARSAL_POLICY_BROWSER_IDLE=15m\n", width, "")
	return []*cobra.Command{
		{Use: "exit-codes", Short: "What the exit codes mean", Long: "Exit codes.\n\n" +
			"    0  ok, or the answer is yes\n" +
			"    1  something went wrong\n" +
			"    2  the command, or the configuration that it was given, is wrong\n" +
			"    3  the answer is no: a token is not valid, a configuration has mistakes, grade or doctor found something\n" +
			"    4  not authenticated, or not allowed\n" +
			"    5  the server could not be reached, or does not know the answer now\n" +
			"  130  interrupted"},
		{Use: "environment", Short: "The environment variables", Long: env},
	}
}
