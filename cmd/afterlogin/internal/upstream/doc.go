// Package upstream has people sign in with OpenID providers, and ends their sessions when the provider says so. It owns
// the protocol: it finds out who somebody is. What session they get is another package's (Options.SignIn), and so are the
// pages around it.
//
// Below the Base of a site, for each provider, are
//
//	oidc/ID/start               sends the browser to the provider
//	oidc/ID/callback            takes the provider's answer
//	oidc/ID/backchannel-logout  takes the provider's logout tokens
//
// Start with [New]. It needs no network: metadata and keys are fetched by the first request that needs them. A provider
// that does not answer is a page with the status 503, for its people alone.
//
// # A sign-in
//
// It is the authorization code flow with PKCE (S256), state and nonce (OpenID Connect Core 1.0, 3.1; RFC 9700). What must
// come back is kept in a cookie of the attempt's own, sealed by the installation's keys: nothing is kept on the server,
// any server can finish it, and several tabs can be at it at once. A state is good once (Authority.FirstUse), in the
// browser that began, for ten minutes, on its site, with its provider. Every provider has a redirect_uri of its own, and
// if it says so its answers name it (RFC 9207). A start that no page of the site has asked for is a page with a link: who
// follows a link from elsewhere is not signed in without a word.
//
// The ID token is checked by go-oidc, by keys and algorithms that the provider publishes, and once more here, by the names
// of its claims as they stand there. max_age and acr_values, where they were asked for, must have been heeded. The subject
// is the provider's ID, a colon, and sub: never an e-mail address, which providers hand to somebody else one day. Nothing
// of the provider's tokens is kept.
//
// # What came from which upstream session
//
// A provider's logout token names a session of its own (sid), a subject (sub), or both. So there is a temporary entry of
// the authority for each sid, with the sessions that came from it, for as long as the longest of them lives; one for each
// day that such an entry may end on. Nobody waits for another and nothing is locked: an entry changes by compare-and-set.
//
// A sign-in does this, in this order:
//
//  1. takes a mark (Authority.Begin) of the subject
//  2. looks whether all of the subject's upstream sessions were ended, and writes itself down as pending in the entry of
//     its sid, unless that was ended. Ended means: at or after the second in which the ID token was made, by the
//     provider's clock
//  3. makes the session, with the mark
//  4. puts the session in the place of the pending sign-in; if the entry was ended meanwhile it ends its own session and
//     lets nobody in
//
// A logout with a sid does this:
//
//  1. notes the token (jti)
//  2. marks the entries of the sid as ended, also those that a sign-in would make now
//  3. ends the sessions that were listed there, and all sessions of the subjects that were pending
//  4. empties the entries, notes that the token is done, and answers 200
//
// A logout with a sub alone marks an entry of the subject as ended, which sign-ins look at (step 2), and ends all sessions
// of the subject (Authority.RevokeSubject). So does one whose sid nobody has heard of, if it names the subject, too.
//
// Whatever crashes where, no session slips through. A sign-in that stops between 2 and 4 is pending for ever, and a
// logout then ends more than it would have to. If it is still under way, the logout's step 3 ends the session that it has
// made, or makes its mark a stale one, and step 4 finds the end. If a logout stops anywhere before its end it has not
// answered 200; the same token does all of it again, and after that it is refused as a replay. An entry with more than 40
// sessions stays pending for the others.
//
// # What strangers can cause
//
// A start costs a cookie. A callback without a cookie of ours costs one decryption; with one, it uses up its state, which
// is one small write, and asks the provider once about a code that may be made up, 32 at once at most. A logout token costs
// one check of a signature, 16 requests at once at most; if it names a key that is not known, the keys are fetched anew, but
// not twice in ten seconds. Nothing else is written before a signature of the provider is verified.
package upstream
