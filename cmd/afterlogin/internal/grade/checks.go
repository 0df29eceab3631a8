package grade

// Severities, the worst first.
const (
	High   = "high"
	Medium = "medium"
	Low    = "low"
)

// A kind is a check: what it is about, why it matters, what to do, and where OWASP asks for it: requirements of the
// Application Security Verification Standard 5.0.0 and tests of the Web Security Testing Guide.
type kind struct {
	title, why, remedy string
	severity           string // of a finding, unless the examination says otherwise
	references         []string
}

const newToken = "Make tokens of at least 16 bytes from the operating system's random source (crypto/rand, /dev/urandom, secrets, SecureRandom), with nothing else in them, and keep what belongs to them on the server."

var kinds = map[string]kind{
	"token-entropy": {
		title: "tokens cannot be guessed", severity: High,
		why:        "Whoever can guess a token is signed in as somebody else, without a password. With 128 bits of chance nobody can; with less than 64, trying is a matter of time.",
		remedy:     newToken,
		references: []string{"ASVS v5.0.0-7.2.3", "ASVS v5.0.0-11.5.1", "WSTG-SESS-01"},
	},
	"token-repeats": {
		title: "every sign-in gets a token of its own", severity: High,
		why:        "A token that comes again can be known from an earlier time, and signing out on one device says nothing about the other.",
		remedy:     newToken,
		references: []string{"ASVS v5.0.0-7.2.3", "ASVS v5.0.0-7.2.2", "WSTG-SESS-01"},
	},
	"token-counter": {
		title: "tokens do not count", severity: High,
		why:        "A number that rises from one sign-in to the next tells everybody the tokens of the others.",
		remedy:     newToken,
		references: []string{"ASVS v5.0.0-7.2.3", "WSTG-SESS-01"},
	},
	"token-time": {
		title: "tokens are not made of the time", severity: High,
		why:        "When somebody signed in can be seen or guessed, and what was made from it, too.",
		remedy:     newToken,
		references: []string{"ASVS v5.0.0-7.2.3", "WSTG-SESS-01"},
	},
	"token-user-data": {
		title: "tokens say nothing about the user", severity: Medium,
		why:        "What is in a token is in browsers, proxies and logs. Data about the user there can be read, and a token that is made of it can be made by others.",
		remedy:     newToken,
		references: []string{"ASVS v5.0.0-7.2.3", "ASVS v5.0.0-14.3.3", "WSTG-SESS-01"},
	},
	"token-hash": {
		title: "tokens are not hashes of what can be guessed", severity: High,
		why:        "A hash looks random and is as easy to guess as what went into it: everybody has the same MD5 and SHA-256.",
		remedy:     newToken,
		references: []string{"ASVS v5.0.0-7.2.3", "ASVS v5.0.0-11.5.1", "WSTG-SESS-01"},
	},
	"token-lenient": {
		title: "only the very token is accepted", severity: Low,
		why:        "A token that is accepted in several spellings has less in it than its length says, and gets past lists of tokens that are over.",
		remedy:     "Look up or verify the text exactly as it was given out, all of it, and refuse everything else.",
		references: []string{"ASVS v5.0.0-7.2.3", "WSTG-SESS-01"},
	},
	"transport": {
		title: "tokens travel encrypted", severity: High,
		why:        "Over plain HTTP everybody on the way reads the password and the token.",
		remedy:     "Serve the whole site over HTTPS, and send Strict-Transport-Security.",
		references: []string{"ASVS v5.0.0-12.2.1", "WSTG-SESS-04"},
	},
	"cookie-secure": {
		title: "the cookie is Secure", severity: Medium,
		why:        "Without Secure a browser sends the cookie over plain HTTP, too: one http:// link or picture is enough to lose it.",
		remedy:     "Set Secure on the cookie.",
		references: []string{"ASVS v5.0.0-3.3.1", "WSTG-SESS-02"},
	},
	"cookie-httponly": {
		title: "the cookie is HttpOnly", severity: Medium,
		why:        "Any script in the page, also one that was smuggled in, can read the cookie and send it away.",
		remedy:     "Set HttpOnly on the cookie. Scripts need not know it: the browser sends it by itself.",
		references: []string{"ASVS v5.0.0-3.3.4", "WSTG-SESS-02"},
	},
	"cookie-samesite": {
		title: "the cookie has SameSite", severity: Medium,
		why:        "Other sites can have the browser send requests with the cookie: forged forms. Some browsers take Lax when SameSite is missing, and not all do.",
		remedy:     "Set SameSite=Lax, or Strict where nobody comes from elsewhere.",
		references: []string{"ASVS v5.0.0-3.3.2", "WSTG-SESS-02", "WSTG-SESS-05"},
	},
	"cookie-prefix": {
		title: "the cookie's name has a protecting prefix", severity: Low,
		why:        "Without the prefix a neighbouring host, or somebody on the way of a plain HTTP request, can set a cookie of the same name.",
		remedy:     "Call the cookie __Host-NAME (with Secure, Path=/ and no Domain), or __Secure-NAME if hosts have to share it.",
		references: []string{"ASVS v5.0.0-3.3.1", "ASVS v5.0.0-3.3.3", "WSTG-SESS-02"},
	},
	"cookie-domain": {
		title: "the cookie belongs to one host", severity: Medium,
		why:        "With Domain the cookie goes to every host below it: the least of them, or one that somebody else took over, reads the token and can set it.",
		remedy:     "Leave Domain away. Hosts that have to share a sign-in do it by a sign-in of their own.",
		references: []string{"ASVS v5.0.0-3.3.3", "WSTG-SESS-02"},
	},
	"cookie-lifetime": {
		title: "the cookie does not stay for months", severity: Low,
		why:        "A cookie that lies on the disk for long is found there: by the next user of the machine, in backups, by malware.",
		remedy:     "Leave Max-Age and Expires away, or set at most 30 days and only if the person asks to be remembered; the server has to end the session by itself in any case.",
		references: []string{"WSTG-SESS-02"},
	},
	"cookie-size": {
		title: "the cookie fits", severity: Low,
		why:        "Browsers drop cookies of more than 4,096 bytes, without a word: people are signed out for no reason that they could see.",
		remedy:     "Keep data on the server and only a token in the cookie.",
		references: []string{"ASVS v5.0.0-3.3.5"},
	},
	"fixation": {
		title: "signing in gives a new token", severity: High,
		why:        "Whoever knew or planted the token before the sign-in is signed in afterwards, too.",
		remedy:     "Make a new token when somebody signs in, and refuse the one from before.",
		references: []string{"ASVS v5.0.0-7.2.4", "WSTG-SESS-03"},
	},
	"fixation-adopted": {
		title: "unknown tokens are not adopted", severity: High,
		why:        "A site that takes a token which it never gave out lets others choose it: they plant one, wait for the sign-in, and are in.",
		remedy:     "Treat a token that is unknown as none, and make a new one.",
		references: []string{"ASVS v5.0.0-7.2.4", "WSTG-SESS-03"},
	},
	"sign-in-again": {
		title: "signing in again gives a new token and ends the old one", severity: Medium,
		why:        "Somebody who signs in again, perhaps because something seemed wrong, means the session from before to be over.",
		remedy:     "Make a new token at every sign-in, and end the session that the browser had.",
		references: []string{"ASVS v5.0.0-7.2.4", "WSTG-SESS-03"},
	},
	"sign-out": {
		title: "signing out ends the session on the server", severity: High,
		why:        "A copy of the token is as good after the sign-out as before: on a shared machine, or after a theft, there is no way to end it.",
		remedy:     "End the session on the server, and refuse its token. For JWTs keep a list of those that are over, by jti or sid.",
		references: []string{"ASVS v5.0.0-7.4.1", "WSTG-SESS-06"},
	},
	"sign-out-cookie": {
		title: "signing out clears the cookie", severity: Low,
		why:        "The token stays in the browser, and the browser goes on sending it.",
		remedy:     "Delete the cookie in the answer to the sign-out: Max-Age=0 with the same Path and Domain.",
		references: []string{"ASVS v5.0.0-14.3.1", "WSTG-SESS-06"},
	},
	"token-in-url": {
		title: "no token in an address", severity: High,
		why:        "Addresses are in histories, logs of servers and proxies, and in the Referer that other sites get.",
		remedy:     "Carry the token in a cookie or in the Authorization header, nowhere else.",
		references: []string{"ASVS v5.0.0-14.2.1", "WSTG-SESS-04"},
	},
	"token-in-body": {
		title: "no token in a page", severity: Medium,
		why:        "A token in a page can be read by every script in it, HttpOnly or not, and is kept wherever the page is.",
		remedy:     "Send the token in Set-Cookie only.",
		references: []string{"ASVS v5.0.0-3.3.4", "WSTG-SESS-04"},
	},
	"token-in-query": {
		title: "a token in the query is not accepted", severity: Medium,
		why:        "A link with a token in it signs in whoever follows it: that leaks sessions, and plants them.",
		remedy:     "Read the token from where it belongs only; frameworks have a setting for it (session.use_only_cookies, tracking-mode COOKIE).",
		references: []string{"ASVS v5.0.0-14.2.1", "WSTG-SESS-03", "WSTG-SESS-04"},
	},
	"cache-page": {
		title: "pages with a session are not kept", severity: Medium,
		why:        "Without no-store a browser keeps the page on its disk and shows it to the next user, and a cache on the way may show it to everybody.",
		remedy:     "Send Cache-Control: no-store with every answer that depends on who is signed in.",
		references: []string{"ASVS v5.0.0-14.3.2", "ASVS v5.0.0-14.2.2", "WSTG-SESS-04"},
	},
	"cache-cookie": {
		title: "answers that hand out the token are not kept", severity: High,
		why:        "A cache that keeps the answer hands one person's token to all who come after.",
		remedy:     "Send Cache-Control: no-store with every answer that sets the cookie, or has the token in it.",
		references: []string{"ASVS v5.0.0-14.2.2", "WSTG-SESS-04"},
	},
	"cookie-twice": {
		title: "two cookies of the name are refused", severity: Low,
		why:        "A second cookie of the same name was planted, by a neighbouring host for one. Whichever of the two wins, somebody may be using a session that is not theirs.",
		remedy:     "Refuse requests that carry the cookie twice, or use the prefix __Host-, with which browsers let nobody plant one.",
		references: []string{"ASVS v5.0.0-3.3.1", "WSTG-SESS-03"},
	},
	"jwt-none": {
		title: "unsigned JWTs are refused", severity: High,
		why:        "Anybody can write a JWT with alg none, for anybody.",
		remedy:     "Verify with a fixed list of algorithms, never with the one that the token names.",
		references: []string{"ASVS v5.0.0-9.1.2", "WSTG-SESS-10"},
	},
	"jwt-signature": {
		title: "the signature of a JWT is checked", severity: High,
		why:        "Without it everything in the token is what its bearer says.",
		remedy:     "Verify the signature before anything in the token is used, and refuse the token if it fails.",
		references: []string{"ASVS v5.0.0-9.1.1", "WSTG-SESS-10"},
	},
	"jwt-payload": {
		title: "altered JWTs are refused", severity: High,
		why:        "A payload that can be changed makes any user of the token into any other.",
		remedy:     "Verify the signature over exactly the bytes that are then read.",
		references: []string{"ASVS v5.0.0-9.1.1", "WSTG-SESS-10"},
	},
	"jwt-secret": {
		title: "the secret of JWTs cannot be guessed", severity: High,
		why:        "The secret can be tried offline, from a single token; with it anybody signs tokens for anybody.",
		remedy:     "Take a random secret of at least 32 bytes, or an asymmetric algorithm (EdDSA, ES256), and replace the one in use now: all tokens that it signed are in doubt.",
		references: []string{"ASVS v5.0.0-11.2.3", "WSTG-SESS-10"},
	},
	"jwt-expiry": {
		title: "JWTs end", severity: Medium,
		why:        "A JWT is good until its exp, whoever has it by then; without one it is good for ever.",
		remedy:     "Set exp, some minutes ahead for access tokens, and refuse tokens without it.",
		references: []string{"ASVS v5.0.0-9.2.1", "ASVS v5.0.0-7.3.2", "WSTG-SESS-10"},
	},
	"jwt-claims": {
		title: "JWTs hold no secrets", severity: Medium,
		why:        "A JWT is signed, not encrypted: whoever has it reads it.",
		remedy:     "Keep such data on the server.",
		references: []string{"ASVS v5.0.0-14.3.3", "WSTG-SESS-10"},
	},
}

// order is that of the report.
var order = []string{
	"token-entropy", "token-repeats", "token-counter", "token-time", "token-hash", "token-user-data", "token-lenient",
	"transport", "cookie-secure", "cookie-httponly", "cookie-samesite", "cookie-prefix", "cookie-domain", "cookie-lifetime", "cookie-size", "cookie-twice",
	"fixation", "fixation-adopted", "sign-in-again", "sign-out", "sign-out-cookie",
	"token-in-url", "token-in-body", "token-in-query", "cache-page", "cache-cookie",
	"jwt-none", "jwt-signature", "jwt-payload", "jwt-secret", "jwt-expiry", "jwt-claims",
}

// notExamined is what every report says.
var notExamined = []string{
	"how fast passwords can be tried (ASVS v5.0.0-6.3.1): that would be an attack",
	"how long a session lives, idle and in all (ASVS v5.0.0-7.3.1, 7.3.2, WSTG-SESS-07): that takes as long as it lives",
	"forged requests from other sites (WSTG-SESS-05), beyond SameSite",
	"random generators with a small or known seed, and anything else that looks random from outside",
	"what happens to sessions when a password is changed or a user is disabled (ASVS v5.0.0-7.4.2, 7.4.3)",
}
