package pgstore

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// hintGap is the time between two hints of one node at least.
	hintGap = 10 * time.Millisecond
	// hintTimeout is how long a hint may take. Who misses it reads the log all the same.
	hintTimeout = time.Second
	// listenPing is how often the connection that listens is tried.
	listenPing = 5 * time.Second
)

// channel is what hints are sent on.
func (s *Store) channel() string { return "afterlogin/" + s.o.Schema }

// kick has a hint sent soon.
func (s *Store) kick() {
	select {
	case s.hints <- struct{}{}:
	default:
	}
}

// hint tells this node's watchers, and the other nodes, that something was changed: at once, and then again after a while
// if there was more. It is apart from the changes, which would otherwise queue for PostgreSQL's one notification lock, and
// has a connection of its own, so that it does not queue behind changes either.
func (s *Store) hint(ctx context.Context) {
	var c *pgx.Conn
	defer func() { disconnect(c) }()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.hints:
		}
		s.watchers.ring()
		var err error
		if c, err = s.hintOnce(ctx, c); err != nil {
			if ctx.Err() == nil {
				s.log.Debug("store: a hint was lost", "err", err)
			}
			disconnect(c)
			c = nil
		}
		if !sleep(ctx, hintGap) {
			return
		}
	}
}

// hintOnce sends a hint over c, or over a new connection if c is nil. It returns the connection.
func (s *Store) hintOnce(ctx context.Context, c *pgx.Conn) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, hintTimeout)
	defer cancel()
	if c == nil {
		var err error
		if c, _, err = s.connect(ctx); err != nil {
			return nil, err
		}
	}
	_, err := c.Exec(ctx, `SELECT hint1($1)`, s.channel())
	return c, err
}

// listen waits for hints, on a connection of its own, until ctx ends. The feed does not depend on it.
func (s *Store) listen(ctx context.Context) {
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		began := time.Now()
		err := s.listenOnce(ctx)
		if ctx.Err() != nil {
			return
		}
		s.log.Debug("store: the connection that listens ended", "err", err)
		if time.Since(began) > listenPing {
			pause = 10 * time.Millisecond
		}
		if !sleep(ctx, pause) {
			return
		}
	}
}

func (s *Store) listenOnce(ctx context.Context) error {
	starting, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	c, _, err := s.connect(starting)
	if err != nil {
		return err
	}
	defer disconnect(c)
	if _, err := c.Exec(starting, `LISTEN `+pgx.Identifier{s.channel()}.Sanitize()); err != nil {
		return err
	}
	s.feed.hinted() // what was changed before there was somebody to listen
	for {
		if err := s.listenFor(ctx, c); err != nil {
			return err
		}
	}
}

// listenFor waits for a hint, for a while, and tries the connection if none comes.
func (s *Store) listenFor(ctx context.Context, c *pgx.Conn) error {
	waiting, cancel := context.WithTimeout(ctx, listenPing)
	defer cancel()
	if _, err := c.WaitForNotification(waiting); err == nil {
		s.feed.hinted()
		return nil
	} else if waiting.Err() == nil || ctx.Err() != nil {
		return err
	}
	pinging, cancel := context.WithTimeout(ctx, hintTimeout)
	defer cancel()
	return c.Ping(pinging)
}
