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
// if it says so its answers name it (RFC 9207). A start that another site has asked for is a page with a link: who follows a
// link from elsewhere is not signed in without a word. A link in a program that is no browser cannot be told from what
// somebody types.
//
// A start takes return_to, remember=1, confirm=1 (the person of the session is asked once more: anybody else is refused),
// and max_age and acr_values, which can ask for more than the provider's settings do, and never for less.
//
// The ID token is checked by go-oidc, by keys and algorithms that the provider publishes, and once more here, by the names
// of its claims as they stand there. max_age and acr_values, where they were asked for, must have been heeded. The subject
// is the provider's ID, a colon, and sub: never an e-mail address, which providers hand to somebody else one day. Nothing
// of the provider's tokens is kept.
//
// # What came from which upstream session
//
// A provider's logout token names a session of its own (sid), a subject (sub), or both. So there is a temporary entry of
// the authority for each sid, with the sessions that came from it, for as long as the longest of them lives: one for each
// day that such an entry may end on. There are two more that live for an hour or a day, for sign-ins that are under way: when
// an upstream session was ended, by sid, and when all of a subject's were, by sub. Nobody waits for another and nothing is
// locked: an entry changes by compare-and-set.
//
// A sign-in does this, in this order:
//
//  1. takes a mark (Authority.Begin) of the subject
//  2. looks whether all of the subject's upstream sessions were ended
//  3. writes itself down as pending in the entry of its sid, by a random id of its own with the subject, unless that entry
//     was ended
//  4. looks whether the upstream session was ended, in the entry that is there for that
//  5. makes the session, with the mark
//  6. puts the session in its own pending place, and touches nobody else's; if the entry was ended meanwhile it ends its own
//     session and lets nobody in. The answer carries no cookie of it then, whether the session could be ended or not
//
// Ended means: up to two seconds before the ID token was made, or later, by the provider's clock. The two seconds are for a
// provider of several machines, whose clocks are not quite one. Steps 6, and what takes a pending sign-in back that made no
// session, go on when the browser has left.
//
// A logout with a sid does this:
//
//  1. notes the token (jti)
//  2. notes that the upstream session was ended, where step 4 of a sign-in looks
//  3. looks for the entries of the sid on all of the next 391 days, and marks each as ended
//  4. ends the sessions that were listed there, and all sessions of the subjects that were pending
//  5. empties the entries, notes that the token is done, and answers 200
//
// A logout with a sub alone notes that all of the subject's were ended, which sign-ins look at (step 2), and ends all sessions
// of the subject (Authority.RevokeSubject). So does one whose sid nobody has heard of, if it names the subject, too.
//
// A sign-in's entry is either there when the logout looks (step 3), and is marked; or it is written later, and then the
// sign-in looks (step 4) after the logout has noted (step 2). That does not depend on how long sessions live, so that neither
// a policy that was changed nor a server that has another one lets a session slip through. It is also why a sign-in need
// look no further than an hour ahead: what it looks for is written for that long, however the policies are, and an ID token
// is too old after ten minutes. The logout's look is seven reads of 64 records each, for a token that the provider has
// signed; nobody else can cause it.
//
// Whatever crashes where, no session slips through. A sign-in that stops between 3 and 6 is pending for ever, and a
// logout then ends more than it would have to. If it is still under way, the logout's step 4 ends the session that it has
// made, or makes its mark a stale one, and step 6 finds the end. If a logout stops anywhere before its end it has not
// answered 200; the same token does all of it again, and after that it is refused as a replay. In an entry with more than 40
// sessions, or 16 sign-ins of one subject at once, the subject stays pending until a logout.
//
// # What strangers can cause
//
// A start costs a cookie. A callback without a cookie of ours costs one decryption; with one, it uses up its state, which
// is one small write, and asks the provider once about a code that may be made up, 32 at once at most. A logout token costs
// one check of a signature; if no key of the provider's made it, the keys are fetched anew, but not twice in ten seconds.
// Sixteen of each provider are under way at once, others wait for up to five seconds; a request that is not read to its end,
// or has not the form of a logout, takes no place. So neither slow requests nor a provider that hangs keep anybody signed in
// who comes from another. Nothing else is written before a signature of the provider is verified, and nothing at all into the
// log, but for Debug.
package upstream
