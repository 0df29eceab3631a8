package afterlogin

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"iter"
	"time"
	"unicode/utf8"

	"github.com/afterlogin/afterlogin/store"
)

// A Registration is a registered OAuth client: its name and its settings, which belong to whoever speaks OAuth. It is a
// root of its own, below which the client's own access tokens live (client_credentials).
type Registration struct {
	Client   string // the client_id
	Settings json.RawMessage
	Version  uint64 // for ChangeClient
	Created  time.Time
	// Session is what IssueAccess takes. Its Subject is the client_id, its Kind KindClient.
	Session *Session
}

// maxSettings is the greatest size of a client's settings, in bytes.
const maxSettings = maxDetail

// Errors of clients.
var (
	// ErrNoClient is returned for a client_id that names no client, or one that was removed.
	ErrNoClient = errors.New("no such client")
	// ErrClientExists is returned by AddClient. A client_id is never used again, even after its client was removed: old
	// tokens must not become those of a namesake.
	ErrClientExists = errors.New("there is, or was, a client of this name")
	// ErrClientChanged is returned by ChangeClient if the version is not the current one.
	ErrClientChanged = errors.New("the client was changed meanwhile")
)

// clientSubject is the subject under which clients are listed. No sign-in can name it.
const clientSubject = "\x00clients"

// clientRecordID returns the id of a client's record, which is found by its name alone.
func clientRecordID(tenant uint32, client string) store.ID {
	b := binary.BigEndian.AppendUint32([]byte("afterlogin/client-id/1\x00"), tenant)
	h := sha256.Sum256(append(b, client...))
	return store.NewRootID(store.NoBucket, [14]byte(h[:14]), tenant, clientSubject)
}

func checkClient(client string, settings json.RawMessage) error {
	if client == "" || len(client) > 128 || !utf8.ValidString(client) {
		return badRequest("client_id: want 1 to 128 bytes of UTF-8")
	}
	for i := range len(client) {
		if c := client[i]; c <= ' ' || c > '~' {
			return badRequest("client_id: printable ASCII without blanks")
		}
	}
	if len(settings) > maxSettings || !json.Valid(settings) {
		return badRequest("settings: want JSON of at most %d bytes", maxSettings)
	}
	return nil
}

// AddClient registers a client. It is durable when it returns nil. Errors: ErrClientExists, ErrBadRequest,
// ErrUnavailable.
func (a *Authority) AddClient(ctx context.Context, tenant uint32, client string, settings json.RawMessage) (*Registration, error) {
	if err := checkClient(client, settings); err != nil {
		return nil, err
	}
	now := a.now()
	rec := &store.Record{
		ID: clientRecordID(tenant, client), Kind: byte(KindClient), Tenant: tenant, Subject: clientSubject, Client: client,
		Created: now.UnixMilli(), LastSeen: now.UnixMilli(),
	}
	st := &state{generation: 1, renewed: now.UnixMilli(), policy: PolicyClient}
	reg, err := a.putClient(ctx, rec, 0, st, settings, EventClientCreated)
	if err == errConflict {
		return nil, ErrClientExists
	}
	return reg, err
}

// ChangeClient replaces a client's settings if their version is still the given one.
func (a *Authority) ChangeClient(ctx context.Context, tenant uint32, client string, settings json.RawMessage, version uint64) (*Registration, error) {
	if err := checkClient(client, settings); err != nil {
		return nil, err
	}
	x, err := a.client(ctx, tenant, client)
	if err != nil {
		return nil, err
	}
	if x.rec.Version != version {
		return nil, ErrClientChanged
	}
	reg, err := a.putClient(ctx, next(x.rec), version, x.state.clone(), settings, EventClientChanged)
	if err == errConflict {
		return nil, ErrClientChanged
	}
	return reg, err
}

// putClient writes the client's record.
func (a *Authority) putClient(ctx context.Context, rec *store.Record, expect uint64, st *state, settings json.RawMessage, event string) (*Registration, error) {
	st.detail, st.op = string(settings), newOp()
	payload, err := st.encode()
	if err != nil {
		return nil, err
	}
	x := &exam{now: a.now(), standpoint: standpoint{rec, st, a.policy(PolicyClient)}}
	if err := a.apply(ctx, rec.ID, a.wrote(rec.ID, st.op), a.put(rec, expect, payload), store.Emit(x.event(event, "", forWhom(rec.Client)))); err != nil {
		return nil, err
	}
	return x.registration(), nil
}

func (x *exam) registration() *Registration {
	return &Registration{
		Client: x.rec.Client, Settings: json.RawMessage(x.state.detail), Version: x.rec.Version,
		Created: fromMillis(x.rec.Created), Session: x.session(),
	}
}

// client reads a client that was not removed.
func (a *Authority) client(ctx context.Context, tenant uint32, client string) (*exam, error) {
	if checkClient(client, json.RawMessage("{}")) != nil {
		return nil, ErrNoClient
	}
	x, err := a.examine(ctx, clientRecordID(tenant, client))
	switch {
	case err == ErrNoSession || ReasonOf(err) != "":
		return nil, ErrNoClient
	case err != nil:
		return nil, err
	case x.rec.Client != client || x.rec.Tenant != tenant:
		return nil, ErrNoClient
	}
	return x, nil
}

// Client returns the client with the client_id. It fails with ErrNoClient if there is none.
func (a *Authority) Client(ctx context.Context, tenant uint32, client string) (*Registration, error) {
	x, err := a.client(ctx, tenant, client)
	if err != nil {
		return nil, err
	}
	return x.registration(), nil
}

// Clients yields the tenant's clients. It yields an error as the last thing, if at all: also one for clients whose records
// do not open.
func (a *Authority) Clients(ctx context.Context, tenant uint32) iter.Seq2[*Registration, error] {
	return func(yield func(*Registration, error) bool) {
		var broken error
		for r, err := range a.store.List(ctx, store.Query{Tenant: tenant, Subject: clientSubject}) {
			if err != nil {
				yield(nil, unavailable("list", err))
				return
			}
			p, err := a.open(r, a.touches.peek(r.ID))
			if err != nil { // logged; the others can be read
				broken = err
				continue
			}
			x := &exam{now: a.now(), standpoint: p}
			if why, _, _ := x.standing(); why == "" && !yield(x.registration(), nil) {
				return
			}
		}
		if broken != nil {
			yield(nil, broken)
		}
	}
}

// RemoveClient ends a client and the access tokens of its own. Grants that people gave it are no longer refreshed, since
// the client cannot present itself any more. It is durable when it returns nil.
func (a *Authority) RemoveClient(ctx context.Context, tenant uint32, client string) error {
	x, err := a.client(ctx, tenant, client)
	if err != nil {
		return err
	}
	return a.revoke(ctx, x.rec, x.rec, ReasonAdministrator)
}
