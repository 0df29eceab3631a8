package jwt

import "errors"

// A Reason says why a token was refused. The texts are stable; programs may branch on them.
type Reason string

// Why a token is refused, in the order in which it is looked at.
const (
	ReasonMalformed   Reason = "malformed"     // not three canonical parts with a strict JSON header, or too large
	ReasonAlgorithm   Reason = "algorithm"     // an algorithm that is not allowed, or not the key's
	ReasonType        Reason = "type"          // a token of another type, or of none
	ReasonUnknownKey  Reason = "unknown_key"   // signed with a key that the issuer does not publish (any more)
	ReasonSignature   Reason = "signature"     // altered, or signed by somebody else
	ReasonClaims      Reason = "claims"        // signed, but its claims are not strict JSON of the right types
	ReasonIssuer      Reason = "issuer"        // of another issuer
	ReasonAudience    Reason = "audience"      // for somebody else
	ReasonExpired     Reason = "expired"       // its time is over
	ReasonNotYetValid Reason = "not_yet_valid" // its time has not come, or it was issued in the future
)

// Errors of this package. Every refusal is ErrInvalid and one of the reasons below; errors.Is tells them apart. No error
// holds any text of the token.
var (
	// ErrInvalid is every refusal of a token: "no", for whatever reason.
	ErrInvalid = errors.New("invalid JWT")

	ErrMalformed   error = &Refusal{Reason: ReasonMalformed}
	ErrAlgorithm   error = &Refusal{Reason: ReasonAlgorithm}
	ErrType        error = &Refusal{Reason: ReasonType}
	ErrUnknownKey  error = &Refusal{Reason: ReasonUnknownKey}
	ErrSignature   error = &Refusal{Reason: ReasonSignature}
	ErrClaims      error = &Refusal{Reason: ReasonClaims}
	ErrIssuer      error = &Refusal{Reason: ReasonIssuer}
	ErrAudience    error = &Refusal{Reason: ReasonAudience}
	ErrExpired     error = &Refusal{Reason: ReasonExpired}
	ErrNotYetValid error = &Refusal{Reason: ReasonNotYetValid}

	// ErrUnavailable means that the issuer's keys are not known now: neither a yes nor a no. Answer 503 with
	// Retry-After, and try again.
	ErrUnavailable = errors.New("keys temporarily unavailable")
	// ErrVerifier is a Verifier that leaves out what it must have: a mistake of the program's. The text says which.
	ErrVerifier = errors.New("jwt: bad verifier")
	// ErrKey is a key that this package does not use. The text says why.
	ErrKey = errors.New("jwt: bad key")
	// ErrUnsignable is a set of claims, or a type, that cannot be signed: a mistake of the program's. The text says which.
	ErrUnsignable = errors.New("jwt: cannot be signed")
)

// A Refusal is the error of a token that is not accepted. It is ErrInvalid, and the Err… of its reason.
type Refusal struct {
	Reason Reason
	// Detail says more, in fixed words that hold nothing of the token. It may be empty.
	Detail string
}

func (r *Refusal) Error() string {
	if r.Detail == "" {
		return "invalid JWT: " + string(r.Reason)
	}
	return "invalid JWT: " + string(r.Reason) + ": " + r.Detail
}

// Unwrap makes every refusal ErrInvalid.
func (r *Refusal) Unwrap() error { return ErrInvalid }

// Is reports whether target is the error of the same reason.
func (r *Refusal) Is(target error) bool {
	t, ok := target.(*Refusal)
	return ok && t.Reason == r.Reason && (t.Detail == "" || t.Detail == r.Detail)
}

// ReasonOf returns the reason of a refusal, and "" for any other error.
func ReasonOf(err error) Reason {
	var r *Refusal
	if errors.As(err, &r) {
		return r.Reason
	}
	return ""
}

func refuse(reason Reason, detail string) error { return &Refusal{Reason: reason, Detail: detail} }

// flaw is what is wrong with a JSON text, in words that hold nothing of it.
type flaw string

func (f flaw) Error() string { return string(f) }
