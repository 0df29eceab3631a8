package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/api"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/oauth"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/oauth/clients"
)

// openOAuth makes the OAuth endpoints, if there is an issuer, and sees to the clients of the configuration file.
func (s *Server) openOAuth(ctx context.Context) error {
	if s.authority.Issuer() == "" {
		return nil
	}
	o, err := oauth.New(oauth.Options{
		Authority: s.authority, SignInURL: s.signInURL(), Policies: s.config.Policies, Logger: s.log,
		Algorithm: string(s.config.Algorithm()), Shared: s.data.shared, ClientAddr: s.clientAddr(),
		Sign: func(typ string, payload []byte) (string, error) {
			key, err := s.data.keys.Signer(s.config.Algorithm(), time.Now())
			if err != nil {
				return "", err
			}
			return key.SignPayload(typ, payload)
		},
	})
	if err != nil {
		return err
	}
	if err := s.enrol(ctx); err != nil {
		return err
	}
	s.oauth.Store(o)
	return nil
}

// observe is told of every event of the authority.
func (s *Server) observe(log func(afterlogin.Event)) func(afterlogin.Event) {
	return func(e afterlogin.Event) {
		log(e)
		if o := s.oauth.Load(); o != nil {
			o.Observe(e)
		}
		if d := s.desk.Load(); d != nil {
			d.Observe(e)
		}
	}
}

// withOAuth answers the OAuth endpoints, and has next answer everything else.
func (s *Server) withOAuth(next http.Handler) http.Handler {
	paths := oauth.Paths()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !slices.Contains(paths, r.URL.Path) {
			next.ServeHTTP(w, r)
			return
		}
		o := s.oauth.Load()
		if o == nil {
			api.NewProblem(http.StatusNotFound, "no-issuer",
				"there is no OAuth here, since the server does not know its own address: set issuer to it, as in --issuer https://auth.example.com").Write(w, r)
			return
		}
		o.ServeHTTP(w, r)
	})
}

// enrol registers the clients of the configuration file, and changes those that stand there differently now. One that does
// not stand there any more is refused from now on, and kept: a client_id is never used for another client. Servers that
// share a store may do so at once; what counts is what the last one to start has in its file.
func (s *Server) enrol(ctx context.Context) error {
	list, err := s.config.OAuthClients()
	if err != nil {
		return err
	}
	named := make(map[string]bool)
	for _, c := range list {
		named[c.ID] = true
		if err := again(func() error { return s.enrolOne(ctx, c.ID, &c.Settings) }); err != nil {
			return err
		}
	}
	for reg, err := range s.authority.Clients(ctx, 0) {
		if err != nil { // a record that does not open lets nobody in, and must not keep everybody out
			s.log.Error("not every OAuth client can be read", "err", err)
			break
		}
		if named[reg.Client] {
			continue
		}
		if err := again(func() error { return s.disable(ctx, reg.Client) }); err != nil {
			return err
		}
	}
	return nil
}

// again does f until no other server was faster. Each time, one of them has got on.
func again(f func() error) (err error) {
	for range 100 {
		if err = f(); !errors.Is(err, afterlogin.ErrClientChanged) && !errors.Is(err, afterlogin.ErrClientExists) {
			return err
		}
	}
	return err
}

func (s *Server) enrolOne(ctx context.Context, id string, want *clients.Settings) error {
	reg, err := s.authority.Client(ctx, 0, id)
	if errors.Is(err, afterlogin.ErrNoClient) {
		_, err = s.authority.AddClient(ctx, 0, id, want.JSON())
		if errors.Is(err, afterlogin.ErrClientExists) {
			if _, err := s.authority.Client(ctx, 0, id); !errors.Is(err, afterlogin.ErrNoClient) {
				return afterlogin.ErrClientExists // another server has just added it, or it is not known now: look again
			}
			return setup("choose another id", "OAuth client %s: there was a client of this name, and it was removed; old tokens must not become those of a namesake", id)
		}
	} else if err == nil {
		had, perr := clients.Parse(reg.Settings)
		switch {
		case perr != nil:
			return fmt.Errorf("OAuth client %s: %w", id, perr)
		case !had.FromFile:
			return setup("choose another id, or take the client out of the file", "OAuth client %s of the configuration file was made with afterlogin clients add already", id)
		case string(reg.Settings) == string(want.JSON()):
			return nil
		}
		_, err = s.authority.ChangeClient(ctx, 0, id, want.JSON(), reg.Version)
	}
	if err != nil {
		return fmt.Errorf("OAuth client %s: %w", id, err)
	}
	return nil
}

// disable has a client of an earlier configuration file refused. Another one stays as it is.
func (s *Server) disable(ctx context.Context, id string) error {
	reg, err := s.authority.Client(ctx, 0, id)
	if errors.Is(err, afterlogin.ErrNoClient) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("OAuth client %s: %w", id, err)
	}
	had, err := clients.Parse(reg.Settings)
	if err != nil || !had.FromFile || had.Disabled {
		return nil
	}
	had.Disabled = true
	if _, err := s.authority.ChangeClient(ctx, 0, id, had.JSON(), reg.Version); err != nil {
		return fmt.Errorf("OAuth client %s: %w", id, err)
	}
	s.log.Warn("an OAuth client is not in the configuration file any more and is refused from now on", "client", id)
	return nil
}
