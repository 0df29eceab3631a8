package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/snippet"
)

func (p *program) snippetCommand() *cobra.Command {
	var sub []*cobra.Command
	for _, proxy := range snippet.Proxies() {
		sub = append(sub, p.snippetOfCommand(proxy))
	}
	return group("snippet", "Print the configuration of a proxy in front of an application",
		"Print the configuration of a reverse proxy that asks afterlogin before each request, so that an application that knows nothing of afterlogin gets sign-in, sessions, API keys and tokens.\n\n"+
			"See docs/proxies.md for what each proxy can do.", sub...)
}

func (p *program) snippetOfCommand(proxy snippet.Proxy) *cobra.Command {
	var o snippet.Options
	var plain, lua, force bool
	var out string
	file := strings.ReplaceAll(proxy.Files[0], "SITE", "shop_example_com")
	if len(proxy.Files) > 1 {
		file = "./" + proxy.Name
	}
	c := &cobra.Command{
		Use: proxy.Name, Short: "Print a configuration of " + proxy.Title, Args: cobra.NoArgs,
		Long: "Print a configuration of " + proxy.Title + " that asks afterlogin before each request. It says at its beginning how to use it, and which afterlogin serve goes with it.\n\n" +
			"Without flags it is for trying out: an application on localhost:3000, which people open at http://shop.localhost:8080.",
		Example: "  afterlogin snippet " + proxy.Name + " --app localhost:3000 --host shop.localhost:8080\n" +
			"  afterlogin snippet " + proxy.Name + " --app 10.0.0.7:8000 --host shop.example.com -o " + file,
	}
	f := c.Flags()
	f.StringVar(&o.App, "app", "localhost:3000", "host and port of the application, which speaks plain HTTP")
	f.StringVar(&o.Host, "host", "shop.localhost", "host that people see, with the port if it is not the usual one")
	f.StringVar(&o.Afterlogin, "afterlogin", "127.0.0.1:7070", "host and port of afterlogin")
	f.StringVar(&o.Listen, "listen", "", "where the proxy listens, as :443 (default the port of --host; in plain HTTP 127.0.0.1:8080)")
	f.BoolVar(&plain, "plain", false, "plain HTTP, for localhost and names below it (default there, unless --tls-cert is given)")
	f.StringVar(&o.TLSCert, "tls-cert", "", "file of the certificate"+map[string]string{
		"caddy": " (default: Caddy gets one by itself)", "haproxy": " and its key (default /etc/haproxy/certs/HOST.pem)",
	}[proxy.Name])
	if proxy.Name != "haproxy" {
		f.StringVar(&o.TLSKey, "tls-key", "", "file of the certificate's key")
	}
	if len(proxy.Files) > 1 {
		f.BoolVar(&lua, "lua", false, "print the Lua file instead")
		f.StringVar(&o.LuaPath, "lua-path", "", "where the Lua file will be (default beside the configuration on Debian; in the directory of --out)")
	}
	f.StringVarP(&out, "out", "o", "", "write into this file, or what belongs together into this directory")
	f.BoolVar(&force, "force", false, "overwrite what is there")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if cmd.Flags().Changed("plain") {
			o.Plain = &plain
		}
		for _, name := range []string{"app", "host", "afterlogin"} {
			if v, _ := cmd.Flags().GetString(name); v == "" {
				return usage("leave it away for "+cmd.Flags().Lookup(name).DefValue, "--%s is empty", name)
			}
		}
		if force && out == "" {
			return usage("name a file or a directory with --out", "--force overwrites nothing without --out")
		}
		if lua && out != "" {
			return usage("leave --lua away: --out writes both files", "--lua prints, and --out does not")
		}
		dir := ""
		if len(proxy.Files) > 1 && out != "" {
			var err error
			if dir, err = filepath.Abs(out); err != nil {
				return err
			}
			if info, err := os.Stat(dir); err == nil && !info.IsDir() {
				return usage("name a directory: there are two files to write", "--out: %q is a file", out)
			}
		}
		files, err := snippet.Render(proxy.Name, o)
		if err == nil && dir != "" && o.LuaPath == "" {
			o.LuaPath = filepath.Join(dir, files[1].Name)
			files, err = snippet.Render(proxy.Name, o)
		}
		var bad *snippet.OptionError
		if errors.As(err, &bad) {
			if bad.Option == "lua-path" && dir != "" {
				return usage("name another directory, or where the Lua file will be with --lua-path", "--out: %s", bad.Reason)
			}
			return usage(bad.Remedy, "%s", bad.Error())
		}
		if err != nil {
			return err
		}
		switch {
		case lua:
			_, err = fmt.Fprint(p.Out, files[1].Content)
			return err
		case out == "":
			_, err = fmt.Fprint(p.Out, files[0].Content)
			return err
		}
		return p.writeSnippet(out, files, force)
	}
	return c
}

// writeSnippet writes the files into the directory out, or the only one into out if that is no directory.
func (p *program) writeSnippet(out string, files []snippet.File, force bool) error {
	paths := []string{out}
	if info, err := os.Stat(out); len(files) > 1 || err == nil && info.IsDir() || strings.HasSuffix(out, string(filepath.Separator)) {
		if err := os.MkdirAll(out, 0o755); err != nil {
			return err
		}
		paths = nil
		for _, f := range files {
			paths = append(paths, filepath.Join(out, f.Name))
		}
	}
	if !force {
		for _, path := range paths {
			if _, err := os.Lstat(path); err == nil {
				return fail(exitError, "add --force to overwrite it", "%q is there already", path)
			}
		}
	}
	for i, path := range paths {
		how := os.O_WRONLY | os.O_CREATE | os.O_EXCL
		if force {
			how = os.O_WRONLY | os.O_CREATE | os.O_TRUNC
		}
		f, err := os.OpenFile(path, how, 0o644)
		if errors.Is(err, fs.ErrExist) {
			return fail(exitError, "add --force to overwrite it", "%q is there already", path)
		}
		if err != nil {
			return err
		}
		_, err = f.WriteString(files[i].Content)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
		fmt.Fprintf(p.Err, "wrote %s\n", path)
	}
	return nil
}
