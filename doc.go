// Package afterlogin is everything that happens after login: it issues, checks, rotates, revokes and watches session
// tokens. The application authenticates a person however it likes; from then on the [Authority] answers for the token.
//
// Which call do I need?
//
//   - Somebody signed in: [Authority.Begin] before the password is checked, [Authority.Issue] after it.
//   - A request came with a token: [Authority.Validate].
//   - The answer to that request goes out, and may set a cookie: [Authority.Renew].
//   - The person proved more (a second factor, the password again): [Authority.StepUp].
//   - Somebody signs out, or loses a laptop: [Authority.Revoke], [Authority.RevokeOthers], [Authority.RevokeSubject].
//   - Where is this person signed in: [Authority.Sessions].
//   - What happened: [Authority.Watch].
//   - A shopping cart: [Authority.UpdateData].
//
// Web applications use package httpauth, which makes these calls at the right moments. This package knows no HTTP.
//
// # What it promises
//
// A token is stored only as a hash. It changes at every sign-in and renewal; the old one is good for a short grace, and
// its use after that ends the session. A revocation is durable before the call returns, and no validation that starts
// later on this node accepts what it ended. When the answer is not known, because the store cannot be asked, the error
// is [ErrUnavailable], never a refusal, and a yes only for a second from when the store was last heard of. Validation
// never waits for a write.
package afterlogin
