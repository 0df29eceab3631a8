package httpauth

import (
	"context"

	"github.com/afterlogin/afterlogin"
)

// ClientFrom returns where the request came from, as Options.ClientAddr tells, behind Optional and Require. It returns
// false outside of them.
func ClientFrom(ctx context.Context) (afterlogin.Client, bool) {
	v, _ := ctx.Value(visitKey{}).(*visit)
	if v == nil {
		return afterlogin.Client{}, false
	}
	return v.from, true
}
