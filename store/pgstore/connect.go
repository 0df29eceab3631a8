package pgstore

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	// connectTimeout is how long it may take to reach the server, and for the feed to connect.
	connectTimeout = 2 * time.Second
	// poolTimeout is how long it may take to make a connection for a call, where a busy server is better late than not at all.
	poolTimeout = callTimeout - time.Second
)

// statementTimeout ends a statement on the server, whoever has given it up by then.
const statementTimeout = "10s"

// minVersion is the oldest server that will do: the first that detaches a partition without stopping everybody.
const minVersion = 140000

// warned is the key of a connection's CustomData that is set when the server has warned.
const warned = "warned"

// parse turns the URL into the pool's configuration.
func parse(url string, o Options) (*pgxpool.Config, error) {
	if !strings.HasPrefix(url, "postgres://") && !strings.HasPrefix(url, "postgresql://") {
		return nil, errors.New("pgstore: the URL does not begin with postgres:// or postgresql://")
	}
	config, err := pgxpool.ParseConfig(url)
	// A URL that is cut at the wrong places may show parts of the password in what pgx says of it, and where it connects to.
	if err != nil || strings.ContainsAny(config.ConnConfig.Database, "@:") || strings.ContainsAny(config.ConnConfig.Host, "@") {
		return nil, errors.New("pgstore: the URL cannot be read: want postgres://user:password@host:5432/database?sslmode=verify-full, " +
			"with characters such as @ : / ? # % in the password percent-encoded")
	}
	config.MaxConns = int32(o.MaxConns)
	config.PingTimeout = time.Second
	// The feed sees when the server goes away, and has the pool reset. A ping before a call would be a round trip.
	config.ShouldPing = func(_ context.Context, p pgxpool.ShouldPingParams) bool { return p.IdleDuration > 30*time.Second }
	config.AfterConnect = func(ctx context.Context, c *pgx.Conn) error {
		_, err := setUp(ctx, c, o.Schema)
		return err
	}
	c := config.ConnConfig
	if c.ConnectTimeout == 0 || c.ConnectTimeout > poolTimeout {
		c.ConnectTimeout = poolTimeout
	}
	if c.RuntimeParams["application_name"] == "" {
		c.RuntimeParams["application_name"] = "afterlogin"
	}
	if c.ValidateConnect == nil { // several hosts: the one that takes writes
		c.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	}
	c.DialFunc = dial
	c.OnNotice = func(c *pgconn.PgConn, n *pgconn.Notice) {
		if n.SeverityUnlocalized == "WARNING" {
			c.CustomData()[warned] = n.Message
		}
	}
	return config, nil
}

// A server says what it is.
type server struct {
	version     int
	synchronous string // its synchronous_commit for this role and database
	standbys    string // synchronous_standby_names
	fsync       string
	fullPages   string
	system      int64 // its identifier; a restored copy of the data has another
}

// setUp makes the connection ready for this package: everything that answers depend on is set, whatever the server, the
// database or the role has been configured to. It refuses a server that would forget what it answers.
//
// Plans are made anew for every statement, because only then are partitions left out, and their locks; and they use
// indexes, because a partition is read before anybody has gathered statistics about it.
func setUp(ctx context.Context, c *pgx.Conn, schema string) (server, error) {
	var v server
	err := c.QueryRow(ctx, `SELECT current_setting('server_version_num')::int, current_setting('synchronous_commit'),
			current_setting('synchronous_standby_names'), current_setting('fsync'), current_setting('full_page_writes'),
			(SELECT system_identifier FROM pg_control_system())`, pgx.QueryExecModeExec).
		Scan(&v.version, &v.synchronous, &v.standbys, &v.fsync, &v.fullPages, &v.system)
	if err != nil {
		return v, err
	}
	if err := v.check(); err != nil {
		return v, err
	}
	synchronous := "on"
	if v.synchronous == "remote_apply" {
		synchronous = v.synchronous // more than on
	}
	_, err = c.PgConn().Exec(ctx, `SELECT set_config('search_path', '`+schema+`', false),
		set_config('synchronous_commit', '`+synchronous+`', false),
		set_config('default_transaction_isolation', 'read committed', false),
		set_config('statement_timeout', '`+statementTimeout+`', false),
		set_config('lock_timeout', '4s', false),
		set_config('idle_in_transaction_session_timeout', '10s', false),
		set_config('plan_cache_mode', 'force_custom_plan', false),
		set_config('enable_seqscan', 'off', false),
		set_config('enable_bitmapscan', 'off', false),
		set_config('jit', 'off', false)`).ReadAll()
	return v, err
}

// connect makes a connection beside the pool's.
func (s *Store) connect(ctx context.Context) (*pgx.Conn, server, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	c, err := pgx.ConnectConfig(ctx, s.feed.config)
	if err != nil {
		return nil, server{}, err
	}
	v, err := setUp(ctx, c, s.o.Schema)
	if err != nil {
		disconnect(c)
		return nil, v, err
	}
	return c, v, nil
}

// disconnect ends a connection, if there is one.
func disconnect(c *pgx.Conn) {
	if c == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	c.Close(ctx)
}

// check refuses a server that cannot do what this package promises, and says what to change.
func (v *server) check() error {
	if v.version < minVersion {
		return fmt.Errorf("pgstore: PostgreSQL %d is too old: want 14 or later", v.version/10000)
	}
	switch {
	case v.synchronous == "off":
		return errors.New("pgstore: synchronous_commit is off: the server would forget changes that it has answered. " +
			"Set it to on, in postgresql.conf or with ALTER ROLE … SET synchronous_commit = on")
	case v.standbys != "" && (v.synchronous == "local" || v.synchronous == "remote_write"):
		return fmt.Errorf("pgstore: synchronous_commit is %s, though there are synchronous standbys: a standby that takes over would have forgotten "+
			"changes that were answered. Set it to on or remote_apply", v.synchronous)
	}
	return nil
}

// dial connects. A connection on which nothing at all comes back for a while is closed: pgx waits longer for the answer to
// a request to cancel, and keeps the connection's place in the pool until then.
func dial(ctx context.Context, network, addr string) (net.Conn, error) {
	d := net.Dialer{
		Timeout:         connectTimeout,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 2 * time.Second, Count: 3},
	}
	c, err := d.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	g := &guarded{Conn: c}
	g.silence = time.AfterFunc(2*connectTimeout, func() { c.Close() })
	return g, nil
}

// guarded is a connection that is closed if it stays silent after it was made, and does not linger when it ends.
type guarded struct {
	net.Conn
	silence *time.Timer // ends the connection unless it is stopped by what comes first
	first   sync.Once
}

func (g *guarded) Read(b []byte) (int, error) {
	n, err := g.Conn.Read(b)
	if n > 0 {
		g.first.Do(func() { g.silence.Stop() })
	}
	return n, err
}

func (g *guarded) Close() error {
	g.silence.Stop()
	return g.Conn.Close()
}

// SetDeadline shortens a deadline that is far away: pgx gives a connection that it has given up 15 seconds to say goodbye.
func (g *guarded) SetDeadline(t time.Time) error {
	if limit := time.Now().Add(connectTimeout); t.After(limit) {
		t = limit
	}
	return g.Conn.SetDeadline(t)
}

// isPlain reports whether what goes over the connection can be read on its way: it leaves this machine, and has no TLS.
func isPlain(c *pgx.Conn) bool {
	conn := c.PgConn().Conn()
	if _, ok := conn.(*tls.Conn); ok {
		return false
	}
	a, ok := conn.RemoteAddr().(*net.TCPAddr)
	return ok && !a.IP.IsLoopback()
}

// hash makes a number for an advisory lock out of what it is for.
func hash(parts ...string) uint64 {
	h := fnv.New64a()
	for _, p := range parts {
		h.Write([]byte(p))
		h.Write([]byte{0})
	}
	return h.Sum64()
}
