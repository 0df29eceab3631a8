package api

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
)

// Limits of answers that take as long as they take.
const (
	// backupTimeout is how long a piece of a backup may take to be taken.
	backupTimeout = 30 * time.Second
	// slowest is how many bytes a second a client must take, but for the first slowStart: others wait for their turn.
	slowest   = 128 << 10
	slowStart = time.Minute
)

var errTooSlow = fmt.Errorf("the client takes less than %d bytes a second", slowest)

func (a *API) backupRoutes() {
	r := route{
		method: http.MethodGet, path: "/v1/backup", scope: Admin, id: "backup", status: http.StatusOK,
		errors:  []int{http.StatusTooManyRequests},
		summary: "Back everything up",
		text: "Every record of the store, sealed as they are, and the sealed keys, in one file: for `afterlogin store restore`. The server goes on meanwhile. " +
			"A file whose end is missing is refused there, so an answer that broke off does no harm. The master key is not in it. One backup at a time.",
	}
	op := a.operation(r)
	problem := a.huma.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[Problem](), true, "")
	op.Responses = map[string]*huma.Response{"200": {Description: "The backup.", Content: map[string]*huma.MediaType{
		"application/octet-stream": {Schema: &huma.Schema{Type: "string", Format: "binary"}},
	}}}
	for _, status := range op.Errors {
		op.Responses[fmt.Sprint(status)] = &huma.Response{Description: http.StatusText(status), Content: map[string]*huma.MediaType{
			"application/problem+json": {Schema: problem},
		}}
	}
	a.huma.OpenAPI().AddOperation(&op)
	a.mux.HandleFunc("GET /v1/backup", func(w http.ResponseWriter, req *http.Request) {
		if p := a.writeBackup(w, req, a.act(r, req)); p != nil {
			p.Write(w, req)
		}
	})
}

// writeBackup answers with the backup. A problem is for before its first byte; afterwards the connection is cut.
func (a *API) writeBackup(w http.ResponseWriter, r *http.Request, act *act) *Problem {
	admitted, done, problem := a.admit(r, Admin)
	if problem != nil {
		a.refused(r.Context(), act, problem)
		return problem
	}
	done()
	if problem := a.begin(act); problem != nil {
		return problem
	}
	for name := range r.URL.Query() {
		return invalid("query."+clip(name), "there is no parameter of this name")
	}
	if a.backup == nil {
		return NewProblem(http.StatusNotFound, "no-backup", "this server's store cannot be backed up through it")
	}
	if !a.backingUp.TryLock() {
		p := NewProblem(http.StatusTooManyRequests, "backup-running", "a backup is being written already; try again when it is done")
		p.header = http.Header{"Retry-After": {"60"}}
		return p
	}
	defer a.backingUp.Unlock()
	if r.Method != http.MethodHead {
		if p := a.done(admitted, act, http.StatusOK, ""); p != nil {
			return p
		}
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Disposition", `attachment; filename="afterlogin.backup"`)
	if r.Method == http.MethodHead {
		return nil
	}
	ctx, cancel := context.WithCancel(r.Context())
	var watch sync.WaitGroup
	defer watch.Wait()
	defer cancel()
	watch.Go(func() { // a server that stops does not wait for a backup
		select {
		case <-a.streams.end:
			cancel()
		case <-ctx.Done():
		}
	})
	out := &slowly{w: w, conn: http.NewResponseController(w)}
	out.conn.SetReadDeadline(time.Time{}) // the server's is for a request, and would end this one
	if err := a.backup(ctx, out); err != nil {
		a.log.WarnContext(ctx, "a backup broke off", "request_id", RequestID(ctx), "err", err)
		if out.n == 0 {
			w.Header().Del("Content-Disposition")
			return a.problem(ctx, err)
		}
		panic(http.ErrAbortHandler) // nobody may take it for whole
	}
	return nil
}

// slowly writes an answer that may take longer than the server gives one, as long as the client takes it.
type slowly struct {
	w      io.Writer
	conn   *http.ResponseController
	n      int64
	waited time.Duration // for the client
}

func (s *slowly) Write(b []byte) (int, error) {
	began := time.Now()
	s.conn.SetWriteDeadline(began.Add(backupTimeout))
	n, err := s.w.Write(b)
	s.n += int64(n)
	s.waited += time.Since(began)
	if err == nil && s.waited > slowStart+time.Duration(s.n/slowest)*time.Second {
		err = errTooSlow
	}
	return n, err
}
