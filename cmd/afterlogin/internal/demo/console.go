package demo

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"syscall"
	"time"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/api"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/console/entrance"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/operate"
	"github.com/afterlogin/afterlogin/keyring"
)

// linkTime is how long the link into the console is good: as long as somebody tries the demo out.
const linkTime = 24 * time.Hour

// openDesk opens what watches over the shop: it is what a server has, too.
func (d *Demo) openDesk(keys *keyring.Ring) error {
	c := &d.config
	desk, err := operate.Open(operate.Options{
		Authority: d.authority, Keys: keys, Dir: d.data, AuditKeep: 400 * 24 * time.Hour, Index: 100_000, Loopback: true,
		Node: "demo", Store: "embedded", Logger: c.Logger, Now: c.Now,
	})
	if err != nil {
		return err
	}
	d.desk.Store(desk)
	d.cleanup = append(d.cleanup, desk.Close)
	return nil
}

// serveConsole serves the console and the API on a second port, since a server, too, keeps them apart from applications.
func (d *Demo) serveConsole() error {
	host, port, err := net.SplitHostPort(d.listeners[0].Addr().String())
	if err != nil {
		return err
	}
	next := "0"
	if n, err := strconv.Atoi(port); err == nil && n < 65535 && d.config.Addr == DefaultAddr {
		next = strconv.Itoa(n + 1)
	}
	l, err := net.Listen("tcp", net.JoinHostPort(host, next))
	if errors.Is(err, syscall.EADDRINUSE) {
		l, err = net.Listen("tcp", net.JoinHostPort(host, "0"))
	}
	if err != nil {
		return err
	}
	d.consoleAt = "http://" + l.Addr().String()
	desk := d.desk.Load()
	if err := desk.Answer(api.Options{}, operate.Site{URL: d.consoleAt + "/console", Base: "/console", Origin: d.consoleAt, PlainLoopback: true}); err != nil {
		l.Close()
		return err
	}
	d.console = &http.Server{
		Handler:           desk.WithConsole("/console", desk.API),
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 64 << 10,
		ErrorLog:       slog.NewLogLogger(d.config.Logger.Handler(), slog.LevelWarn),
	}
	ended := make(chan error, 1)
	go func() { ended <- d.console.Serve(l) }()
	d.cleanup = append(d.cleanup, func() error {
		desk.EndStreams()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		err := d.console.Shutdown(ctx)
		if err != nil {
			err = d.console.Close()
		}
		<-ended
		return err
	})
	return nil
}

// ConsoleLink makes a link into the console, good once.
func (d *Demo) ConsoleLink(ctx context.Context) (string, error) {
	link, err := d.desk.Load().Entrance.MakeLink(ctx, entrance.LinkRequest{Role: entrance.Admin, Lifetime: linkTime, By: "demo"})
	if err != nil {
		return "", err
	}
	return link.URL, nil
}
