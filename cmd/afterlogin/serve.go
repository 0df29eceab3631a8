package main

import (
	"fmt"
	"net"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/config"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/server"
)

func (p *program) serveCommand() *cobra.Command {
	var file string
	var newKey bool
	c := &cobra.Command{
		Use:   "serve",
		Short: "Run the server",
		Long: "Run the server on the embedded store in the data directory, or on a Redis or PostgreSQL that --store names and\n" +
			"any number of servers share.\n\n" +
			"At the first start it makes the directory, its keys, and an API key in <data>/admin.key with which the other\n" +
			"commands work. On a shared store the first server does, and the others need the same master key. It stops at SIGTERM or SIGINT without losing a request; a second signal ends it at once.",
		Example: "  afterlogin serve\n" +
			"  afterlogin serve --data /var/lib/afterlogin --listen 0.0.0.0:7070 --behind-proxy\n" +
			"  afterlogin serve --store redis://10.0.0.5:6379 --master-key-file /run/secrets/master.key\n" +
			"  afterlogin serve --config /etc/afterlogin.yaml",
		Args: cobra.NoArgs,
	}
	flags := config.Bind(c.Flags())
	p.configFlag(c, &file)
	c.Flags().BoolVar(&newKey, "new-admin-key", false, "make a new admin key, and end the old one")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		l, err := config.Load(file, p.environ, flags)
		if err != nil {
			return err
		}
		if err := l.CheckFiles(); err != nil {
			return err
		}
		asJSON := l.Config.LogFormat == "json" || l.Config.LogFormat == "auto" && !isTerminal(p.Err)
		log := server.NewLogger(p.Err, l.Config.LogLevel, asJSON)
		for _, w := range l.Warnings {
			log.Warn(w)
		}
		if l.Config.Data, err = filepath.Abs(l.Config.Data); err != nil {
			return fmt.Errorf("data directory: %w", err)
		}
		listener, err := server.Listen(l.Config)
		if err != nil {
			return err
		}
		s, err := server.Open(cmd.Context(), server.Options{Config: l.Config, Settings: settingsOf(l), Logger: log, NewAdminKey: newKey, Version: version(), Addr: listener.Addr()})
		if err != nil {
			listener.Close()
			return err
		}
		url := baseURL(l.Config, listener.Addr())
		if asJSON {
			log.Info("listening", "url", url, "data", l.Config.Data, "store", s.Store, "admin_key", s.AdminKey, "version", version())
		} else {
			fmt.Fprintf(p.Err, "afterlogin %s  %s\n  data       %s\n  store      %s\n  admin key  %s\n", version(), url, l.Config.Data, s.Store, s.AdminKey)
			if l.Config.Console {
				fmt.Fprintf(p.Err, "  console    %s/console/, with a link from: afterlogin console link\n", url)
			}
		}
		err = s.Run(cmd.Context(), listener)
		if cerr := s.Close(); err == nil {
			err = cerr
		}
		return err
	}
	return c
}

// configFlag adds --config, whose default is in the environment.
func (p *program) configFlag(c *cobra.Command, file *string) {
	c.Flags().StringVar(file, "config", p.lookup(config.Prefix+"CONFIG"), "configuration file (environment "+config.Prefix+"CONFIG)")
	c.MarkFlagFilename("config", "yaml", "yml")
}

// baseURL is where the server answers.
func baseURL(c config.Config, addr net.Addr) string {
	scheme := "http"
	if c.TLSCert != "" {
		scheme = "https"
	}
	return scheme + "://" + addr.String()
}
