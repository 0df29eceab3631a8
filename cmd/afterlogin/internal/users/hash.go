package users

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/alexedwards/argon2id"
)

// Params are the parameters of argon2id (RFC 9106).
type Params struct {
	Memory  uint32 // KiB
	Time    uint32 // passes over the memory
	Threads uint8
}

// DefaultParams are those that the OWASP Password Storage Cheat Sheet asks for at least: 19 MiB, two passes, one thread.
var DefaultParams = Params{Memory: 19 << 10, Time: 2, Threads: 1}

// Bounds of what is computed, whatever a record says.
const (
	maxMemory  = 1 << 20 // 1 GiB
	maxTime    = 64
	maxThreads = 64
)

// Check reports what is wrong with the parameters, if anything.
func (p Params) Check() error {
	switch {
	case p.Threads == 0 || p.Threads > maxThreads:
		return fmt.Errorf("argon2id threads: want 1 to %d", maxThreads)
	case p.Memory < 8*uint32(p.Threads) || p.Memory > maxMemory:
		return fmt.Errorf("argon2id memory: want 8 KiB for each thread to 1 GiB, not %d KiB", p.Memory)
	case p.Time == 0 || p.Time > maxTime:
		return fmt.Errorf("argon2id passes: want 1 to %d", maxTime)
	}
	return nil
}

func (p Params) lib() *argon2id.Params {
	return &argon2id.Params{Memory: p.Memory, Iterations: p.Time, Parallelism: p.Threads, SaltLength: 16, KeyLength: 32}
}

// risen reports whether p asks for more than have.
func (p Params) risen(have Params) bool {
	return p.Memory > have.Memory || p.Time > have.Time || p.Threads > have.Threads
}

const (
	// maxWait is how long a check waits until it is its turn.
	maxWait = 3 * time.Second
	// waitingFor is how many may wait for each hash that is being computed.
	waitingFor = 32
)

// hasher computes hashes, a few at a time: each takes its memory.
type hasher struct {
	params  Params
	dummy   string // the hash of nobody's password
	slots   chan struct{}
	waiting atomic.Int64
	made    atomic.Int64 // how many hashes were computed
}

func newHasher(parallel int, p Params) *hasher {
	if parallel <= 0 {
		parallel = min(max(runtime.GOMAXPROCS(0), 2), 8)
	}
	b := make([]byte, 16+32)
	rand.Read(b)
	return &hasher{
		params: p, slots: make(chan struct{}, parallel),
		// Salt and key are random: what it is the hash of, nobody knows. It costs what any other does.
		dummy: fmt.Sprintf("$argon2id$v=19$m=%d,t=%d,p=%d$%s$%s", p.Memory, p.Time, p.Threads,
			base64.RawStdEncoding.EncodeToString(b[:16]), base64.RawStdEncoding.EncodeToString(b[16:])),
	}
}

// enter waits for a turn, which the caller must leave. The error is ErrBusy, also if ctx ends first.
func (h *hasher) enter(ctx context.Context) error {
	select {
	case h.slots <- struct{}{}:
		return nil
	default:
	}
	defer h.waiting.Add(-1)
	if h.waiting.Add(1) > int64(waitingFor*cap(h.slots)) {
		return ErrBusy
	}
	t := time.NewTimer(maxWait)
	defer t.Stop()
	select {
	case h.slots <- struct{}{}:
		return nil
	case <-t.C:
		return ErrBusy
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrBusy, context.Cause(ctx))
	}
}

func (h *hasher) leave() { <-h.slots }

// make returns the hash of a new password.
func (h *hasher) make(ctx context.Context, password string) (string, error) {
	if err := h.enter(ctx); err != nil {
		return "", err
	}
	defer h.leave()
	h.made.Add(1)
	return argon2id.CreateHash(password, h.params.lib())
}

var errBadHash = errors.New("the hash in a user's record is none")

// compare reports whether it is the hash of the password, for who has entered, and with which parameters it was made.
func (h *hasher) compare(password, hash string) (bool, Params, error) {
	lib, _, _, err := argon2id.DecodeHash(hash)
	if err != nil {
		return false, Params{}, errBadHash
	}
	p := Params{lib.Memory, lib.Iterations, lib.Parallelism}
	if p.Check() != nil || lib.KeyLength < 16 || lib.KeyLength > 64 || lib.SaltLength < 8 || lib.SaltLength > 64 {
		return false, Params{}, errBadHash
	}
	h.made.Add(1)
	ok, err := argon2id.ComparePasswordAndHash(password, hash)
	return ok, p, err
}
