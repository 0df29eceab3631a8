package transfer

import (
	"bytes"

	"github.com/afterlogin/afterlogin/store"
)

// newer is the difference of a record that was changed in the destination.
const newer = "newer in the destination"

// difference says in what a copy is not what it should be, "" if in nothing. Its times of use may be later.
func difference(want, got *store.Record) string {
	switch {
	case got == nil:
		return "missing"
	case got.ID != want.ID:
		return "another id"
	case got.Version > want.Version:
		return newer
	case got.Version < want.Version:
		return "older in the destination"
	case got.Kind != want.Kind:
		return "kind"
	case got.Tenant != want.Tenant:
		return "tenant"
	case got.Subject != want.Subject:
		return "subject"
	case got.Client != want.Client:
		return "client"
	case got.Created != want.Created || got.Absolute != want.Absolute:
		return "times of creation or expiry"
	case got.Marked != want.Marked || got.Reason != want.Reason:
		return "mark"
	case !bytes.Equal(got.Payload, want.Payload):
		return "payload"
	case got.LastSeen < want.LastSeen || got.SeenGen < want.SeenGen:
		return "times of use are older in the destination"
	}
	return ""
}
