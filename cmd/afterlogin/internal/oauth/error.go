package oauth

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"
)

// The error codes of RFC 6749 (4.1.2.1 and 5.2), RFC 8693, RFC 8707, RFC 7009, RFC 6750 and OpenID Connect that are used.
const (
	InvalidRequest          = "invalid_request"
	InvalidClient           = "invalid_client"
	InvalidGrant            = "invalid_grant"
	UnauthorizedClient      = "unauthorized_client"
	UnsupportedGrantType    = "unsupported_grant_type"
	UnsupportedResponseType = "unsupported_response_type"
	UnsupportedTokenType    = "unsupported_token_type"
	InvalidScope            = "invalid_scope"
	InvalidTarget           = "invalid_target"
	InvalidToken            = "invalid_token"
	InsufficientScope       = "insufficient_scope"
	AccessDenied            = "access_denied"
	ServerError             = "server_error"
	TemporarilyUnavailable  = "temporarily_unavailable"
	LoginRequired           = "login_required"
	ConsentRequired         = "consent_required"
	RequestNotSupported     = "request_not_supported"
	RequestURINotSupported  = "request_uri_not_supported"
)

// An Error is an answer that is not a success. Its texts are fixed here: nothing of the request is repeated.
type Error struct {
	Code        string
	Description string // of the characters that RFC 6749 allows: printable ASCII without " and \
	Status      int    // 0 is 400

	challenge  string // WWW-Authenticate
	retryAfter int    // seconds
	allow      string
}

// Error implements error.
func (e *Error) Error() string { return e.Code + ": " + e.Description }

func fail(code, description string) *Error { return &Error{Code: code, Description: description} }

// basicChallenge stands in every 401, since a 401 without a challenge is none (RFC 9110, 15.5.2).
const basicChallenge = `Basic realm="afterlogin", charset="UTF-8"`

func badClient(description string) *Error {
	return &Error{Code: InvalidClient, Description: description, Status: http.StatusUnauthorized, challenge: basicChallenge}
}

// slowDown is 429. No RFC has a code for it at these endpoints; this one says the right thing, and clients that know only
// the status are served, too.
func slowDown(wait time.Duration) *Error {
	return &Error{Code: TemporarilyUnavailable, Description: "too many requests: try again later", Status: http.StatusTooManyRequests,
		retryAfter: max(1, int(math.Ceil(wait.Seconds())))}
}

// unavailable is never invalid_grant: clients throw their tokens away at that.
func unavailable() *Error {
	return &Error{Code: TemporarilyUnavailable, Description: "the answer is not known now: try again with the same request, and a new client_assertion if it has one", Status: http.StatusServiceUnavailable, retryAfter: 1}
}

// write answers with the error.
func (e *Error) write(w http.ResponseWriter) {
	h := w.Header()
	if e.challenge != "" {
		h.Set("WWW-Authenticate", e.challenge)
	}
	if e.retryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(e.retryAfter))
	}
	if e.allow != "" {
		h.Set("Allow", e.allow)
	}
	status := e.Status
	if status == 0 {
		status = http.StatusBadRequest
	}
	writeJSON(w, status, struct {
		Error       string `json:"error"`
		Description string `json:"error_description,omitempty"`
	}{e.Code, e.Description})
}

// writeJSON writes the value, which can be marshalled.
func writeJSON(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("oauth: an answer that is not JSON: %v", err))
	}
	writeBytes(w, status, "application/json", b)
}

// Values of headers of every answer, which nobody changes in place.
var (
	typeJSON = []string{"application/json"}
	noStore  = []string{"no-store"}
	noCache  = []string{"no-cache"}
	noSniff  = []string{"nosniff"}
)

func writeBytes(w http.ResponseWriter, status int, media string, b []byte) {
	h := w.Header()
	if media == "application/json" {
		h["Content-Type"] = typeJSON
	} else {
		h.Set("Content-Type", media)
	}
	w.WriteHeader(status) // net/http counts the bytes
	w.Write(b)
}
