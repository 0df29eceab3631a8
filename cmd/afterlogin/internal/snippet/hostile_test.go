package snippet_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

// An attack is bytes that are sent to a proxy: HOST stands for the host, MIA for the cookie of somebody who is signed in,
// TOM for that of another, and TOKEN for mia's token. CRED is a line with mia's cookie, or nothing: what has it is sent
// in both ways.
type attack struct {
	name    string
	request string
	// arrives says that it comes to the application when it has mia's cookie, and then it is hers.
	arrives bool
	// nobody says that it is not for anybody, whoever's cookie it has.
	nobody bool
}

const end = "\r\n\r\n"

// neverTarget is public, and never asked for.
const neverTarget = "/public/never"

// forged are lines by which a client might be taken for somebody else, or its request for another.
var forged = []string{
	"X-Auth-Subject: admin",
	"x-auth-subject: admin",
	"X-AUTH-SUBJECT: admin",
	"x_auth_subject: admin",
	"X_AUTH_SUBJECT: admin",
	"X-Auth_Subject: admin",
	"X_Auth-Subject: admin",
	"X.Auth.Subject: admin",
	"X-Auth.Subject: admin",
	"X-Auth-Subject: admin\r\nX-Auth-Subject: root",
	"X-Auth-Subject:admin",
	"X-Auth-Subject: \t admin \t ",
	"X-Auth-Subject:",
	"X-Auth-Subject : admin",
	"X-Auth-Subject\t: admin",
	" X-Auth-Subject: admin",
	"Accept: */*\r\n X-Auth-Subject: admin",
	"Accept: */*\nX-Auth-Subject: admin",
	"Accept: */*\rX-Auth-Subject: admin",
	"Accept: */*\r\r\nX-Auth-Subject: admin",
	"Accept: a\x00b\r\nX-Auth-Subject: admin",
	"X-Auth-Subject\x00: admin",
	"\x01X-Auth-Subject: admin",
	"X-Auth-Session: ses_AAAAAAAAAAAAAAAAAAA",
	"X-Auth-Kind: session\r\nX_Auth_Kind: session",
	"X-Auth-Scopes: admin\r\nx_auth_scopes: admin",
	"X-Auth-Time: 4102444800",
	"X-Auth-Assertion: eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZG1pbiJ9.",
	"X_Auth_Assertion: eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZG1pbiJ9.",
	"X-Auth-Cookie: __Host-Http-session_id=al\r\nX_Auth_Cookie: theme=evil",
	"X-Auth-Authorization: Bearer admin",
	"X-Auth-User: admin\r\nX-Auth-Request-User: admin",
	"X-Forwarded-Uri: /public/x",
	"X_Forwarded_Uri: /public/x",
	"X-Forwarded-Uri: /public/x\r\nX-Forwarded-Uri: /public/y",
	"X-Forwarded-Path: /public/x\r\nX-Forwarded-Prefix: /public",
	"X-Forwarded-Method: OPTIONS",
	"X-Forwarded-Host: evil.example",
	"X-Forwarded-Proto: https\r\nX-Forwarded-Ssl: on\r\nX-Forwarded-Scheme: https",
	"X-Forwarded-For: 10.0.0.1, 127.0.0.1",
	"X-Forwarded-For: 10.0.0.1\r\nX-Forwarded-For: 127.0.0.1\r\nX-Real-IP: 10.0.0.1",
	"Forwarded: for=10.0.0.1;host=evil.example;proto=https",
	"X-Original-URL: /public/x",
	"X-Rewrite-URL: /public/x",
	"X-Original-URI: /public/x\r\nX-Original-Method: GET",
	"X-HTTP-Method-Override: DELETE\r\nX-HTTP-Method: DELETE\r\nX-Method-Override: DELETE",
	"Connection: X-Auth-Subject, X-Auth-Assertion",
	"Connection: close, X-Auth-Subject, X-Auth-Session, X-Auth-Kind, X-Auth-Scopes, X-Auth-Time, X-Auth-Assertion",
	"Connection: keep-alive, X-Forwarded-Uri, X-Forwarded-Host, X-Forwarded-For, X-Forwarded-Proto, X-Forwarded-Method",
	"Connection: close\r\nConnection: X-Auth-Subject",
	"Connection: Host, X-Real-IP",
	"Proxy-Connection: X-Auth-Subject\r\nKeep-Alive: X-Auth-Subject",
	"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings, X-Auth-Subject\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA",
	"TE: trailers\r\nTrailer: X-Auth-Subject",
	"Sec-Purpose: prefetch\r\nPurpose: prefetch\r\nX-Moz: prefetch\r\nX-Purpose: preview",
	"Range: bytes=0-1",
	"Expect: 100-continue",
	"X-Middleware-Subrequest: middleware",
	"X_Original_URL: /public/x\r\nX-Original_Url: /public/x",
	"X_Rewrite_Url: /public/x\r\nX_HTTP_Method_Override: DELETE\r\nX-Http_Method-Override: DELETE",
	"Remote-User: admin\r\nRemote_User: admin\r\nX-Remote-User: admin\r\nX_Remote_User: admin",
	"X-WEBAUTH-USER: admin\r\nX_Webauth_User: admin\r\nX-Authenticated-User: admin\r\nX-Forwarded-User: admin",
	"Proxy: http://evil.example",
	"X-WEBAUTH-NAME: admin\r\nX-WEBAUTH-EMAIL: admin\r\nX-WEBAUTH-GROUPS: admin\r\nX_WEBAUTH_ROLE: Admin",
	"X-Remote-Name: admin\r\nX-Remote-Email: admin\r\nX-Remote-Groups: admin\r\nX-Remote-Group: admin",
	"X-Forwarded-Client-Cert: By=a;Subject=admin\r\nX-Forwarded-Tls-Client-Cert: admin\r\nX_Forwarded_Client_Cert: admin",
	"True-Client-IP: 10.0.0.1\r\nCF-Connecting-IP: 10.0.0.1\r\nX-Cluster-Client-IP: 10.0.0.1\r\nTrue_Client_IP: 10.0.0.1",
	"X!Auth!Subject: admin",
	"X+Auth-Subject: admin",
	"X~Auth~Subject: admin",
	"X*Auth`Subject: admin\r\nX#Auth-Kind: session\r\nX$Auth$Kind: session\r\nX%Auth%Kind: session\r\nX&Auth&Kind: session",
	"X'Auth'Subject: admin\r\nX^Auth^Kind: session\r\nX|Auth|Kind: session\r\nX-Auth~Subject: admin\r\nX`Auth-Subject: admin",
	"X-Pad: " + strings.Repeat("a", 7000) + "\r\nX-Auth-Subject: admin",
}

// strange are lines that well-behaved proxies refuse, drop or let through; nobody is better than mia for any of them.
var strange = []string{
	" X-Auth-Subject: admin", "X-Auth-Subject : admin", "X-Auth-Subject\t: admin", "Accept: */*\r\n X-Auth-Subject: admin",
	"Accept: */*\nX-Auth-Subject: admin", "Accept: */*\rX-Auth-Subject: admin", "Accept: */*\r\r\nX-Auth-Subject: admin", "Accept: a\x00b\r\nX-Auth-Subject: admin",
	"X-Auth-Subject\x00: admin", "\x01X-Auth-Subject: admin", "X.Auth.Subject: admin", "X-Auth.Subject: admin",
	"TE: trailers\r\nTrailer: X-Auth-Subject",
}

// targets are ways to ask for what is not public as if it were, or for one thing as if it were another.
var targets = []string{
	"/private", "/private/x.css", "/private/avatar.png?.css", "/private;x.css", "/private%3b.css", "/private%0a.css", "/private%23.css", "/private%3f.css",
	"/private/%2e", "/private/.", "/private/./x", "/./private", "/private//x", "/private/", "/PUBLIC/x", "/Public/x", "/public", "/publicx", "/public%2fx", "/public%2Fx",
	"/public/../private", "/public/..%2fprivate", "/public/..%2Fprivate", "/public/%2e%2e/private", "/public/%2E%2E/private", "/public/%2e%2e%2fprivate", "/public/.%2e/private",
	"/public/x/../../private", "/public/./../private", "/public//../private", "/public/..//private", "/public/..%5cprivate", "/public/..%5c..%5cprivate", "/public/..\\private", "/public\\..\\private",
	"/public/..;/private", "/public/..;x=1/private", "/public;/../private", "/public/;/../private", "/public/%3b/../private", "/public/..%3b/private",
	"/public/%00/../private", "/public/x%00/../../private", "/public/x%0a/../../private", "/public/x%0d%0aX-Auth-Subject:%20admin", "/public/%0d%0aHost:%20evil",
	"/public/..%252fprivate", "/public/%252e%252e/private", "/public/%25%32%65%25%32%65/private", "/public/..%c0%afprivate", "/public/%c0%ae%c0%ae/private", "/public/%u002e%u002e/private",
	"/public/%zz/../private", "/public/%", "/public/%2", "/public/..%ff/private", "/public/x#/../../private", "/private#/public/x", "/private?/public/x", "/private?x=/public/", "/public/..?/private",
	"//private", "///private", "//public/../private", "//public/x", "/%2fprivate", "//evil.example/private", "/public/x/..%2f..%2fprivate", "/public/x/%2e%2e/%2e%2e/private",
	"/.afterlogin/../private", "/.afterlogin/..%2fprivate", "/.afterlogin/%2e%2e/private", "/.afterlogin//../private", "/.afterlogin/..;/private", "/.afterlogin\\..\\private", "/.afterlogin/..%5cprivate",
	"/.AFTERLOGIN/../private", "/x/../.afterlogin/../private", "/%2eafterlogin/../private", "/.afterlogin%2f..%2fprivate", "/.afterlogin/%00/../../private", "/.afterlogin", "/.afterlogin;/private",
	"/v1/subjects/..%2f..%2f.afterlogin%2fmia/sessions", "/forward-auth/../.afterlogin/x", "/oidc/..%2f.afterlogin/x", "/.AFTERLOGIN/x", "/.Afterlogin/login", "/x/..%2f.afterlogin/login",
	"/%2e%61fterlogin/login", "/.afterlogin%2flogin", "//.afterlogin/login", "/./.afterlogin/login", "/public/../.afterlogin/login", "http://HOST/.afterlogin/login", "/forward-auth/nginx/..%2f..%2f.afterlogin/x",
	"/.afterlogin/ask", "/.afterlogin/answer", "/public/../.afterlogin/ask", "/.afterlogin/../forward-auth", "/.afterlogin/..%2fforward-auth", "/.afterlogin/../v1/sessions", "/forward-auth",
	"http://evil.example/private", "http://HOST/private", "http://evil.example/public/../private", "http://HOST/public/../private", "http://evil.example@HOST/private", "http://HOST@evil.example/private",
	"https://HOST/private", "HTTP://HOST/private", "http:///private", "http://HOST", "http://HOST?/public/x", "http:/private", "http:private", "ftp://HOST/private", "urn:private", "HOST/private", "private", "*", "?/public/x", "#/public/x",
	"/private /public/x", "/public/x /private", "/pri\tvate", "/priv\x00ate", "/pri\x7fvate", "/priv\xc3\xa9", "/private?\x00", "/public/x?\x01",
	"/private?ticket=al&token=x", "/" + strings.Repeat("a", 9000), "/public/" + strings.Repeat("../", 2000) + "private",
}

// attacks returns all of them.
func attacks() []attack {
	var all []attack
	for _, target := range []string{"/private", "/public/x", "/.afterlogin/../private"} {
		for _, line := range forged {
			name := fmt.Sprintf("%s with %.60q", target, line)
			all = append(all, attack{name: name, request: "GET " + target + " HTTP/1.1\r\nHost: HOST\r\nCRED" + line + end,
				arrives: target == "/private" && !slices.Contains(strange, line)})
			if target == "/private" { // before the credential, and to afterlogin itself
				all = append(all, attack{name: name + " before", request: "GET " + target + " HTTP/1.1\r\nHost: HOST\r\n" + line + "\r\nCREDAccept: */*" + end})
				all = append(all, attack{name: name + " of the pages", request: "GET /.afterlogin/login HTTP/1.1\r\nHost: HOST\r\nCRED" + line + end})
			}
		}
	}
	for _, target := range targets {
		all = append(all, attack{name: fmt.Sprintf("GET %.80q", target), request: "GET " + target + " HTTP/1.1\r\nHost: HOST\r\nCREDAccept: */*" + end})
	}
	inner := "GET /private HTTP/1.1\r\nHost: HOST\r\nX-Auth-Subject: admin\r\nX-Auth-Kind: session" + end
	number := fmt.Sprint(len(inner) - len("HOST") + len("shop.localhost:12345"))
	// This is never more than the body of something else.
	never := "GET " + neverTarget + " HTTP/1.1\r\nHost: HOST" + end
	number2 := fmt.Sprint(len(never) - len("HOST") + len("shop.localhost:12345"))
	hex2 := fmt.Sprintf("%x", len(never)-len("HOST")+len("shop.localhost:12345"))
	return append(all, []attack{
		// Methods and request lines.
		{name: "method override", request: "POST /public/x HTTP/1.1\r\nHost: HOST\r\nCREDX-HTTP-Method-Override: DELETE\r\nContent-Length: 0" + end},
		{name: "a method of its own", request: "PRIVATE /private HTTP/1.1\r\nHost: HOST\r\nCREDAccept: */*" + end},
		{name: "a lower-case method", request: "get /private HTTP/1.1\r\nHost: HOST\r\nCREDAccept: */*" + end},
		{name: "TRACE", request: "TRACE /private HTTP/1.1\r\nHost: HOST\r\nCREDAccept: */*" + end},
		{name: "CONNECT", request: "CONNECT HOST HTTP/1.1\r\nHost: HOST\r\nCREDAccept: */*" + end},
		{name: "CONNECT a path", request: "CONNECT /private HTTP/1.1\r\nHost: HOST\r\nCREDAccept: */*" + end},
		{name: "OPTIONS *", request: "OPTIONS * HTTP/1.1\r\nHost: HOST\r\nCREDAccept: */*" + end},
		{name: "OPTIONS", request: "OPTIONS /private HTTP/1.1\r\nHost: HOST\r\nOrigin: https://evil.example\r\nAccess-Control-Request-Method: GET" + end},
		{name: "two blanks", request: "GET  /private HTTP/1.1\r\nHost: HOST\r\nCREDAccept: */*" + end},
		{name: "two versions", request: "GET /public/x HTTP/1.1 HTTP/1.1\r\nHost: HOST\r\nCREDAccept: */*" + end},
		{name: "HTTP/0.9", request: "GET /private\r\n"},
		{name: "HTTP/1.0 without a host", request: "GET /private HTTP/1.0\r\nCREDAccept: */*" + end},
		{name: "HTTP/1.0", request: "GET /private HTTP/1.0\r\nHost: HOST\r\nCREDConnection: keep-alive" + end},
		{name: "HTTP/2.0", request: "GET /private HTTP/2.0\r\nHost: HOST\r\nCREDAccept: */*" + end},
		{name: "HTTP/1.9", request: "GET /private HTTP/1.9\r\nHost: HOST\r\nCREDAccept: */*" + end},
		{name: "a preface of HTTP/2", request: "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"},
		{name: "lines before", request: "\r\n\r\nGET /private HTTP/1.1\r\nHost: HOST\r\nCREDAccept: */*" + end},
		{name: "bare line feeds", request: "GET /private HTTP/1.1\nHost: HOST\nX-Auth-Subject: admin\n\n"},
		// Hosts.
		{name: "no host", request: "GET /private HTTP/1.1\r\nCREDAccept: */*" + end, nobody: true},
		{name: "an empty host", request: "GET /private HTTP/1.1\r\nHost:\r\nCREDAccept: */*" + end},
		{name: "two hosts", request: "GET /private HTTP/1.1\r\nHost: HOST\r\nHost: evil.example\r\nCREDAccept: */*" + end},
		{name: "two hosts, the other first", request: "GET /private HTTP/1.1\r\nHost: evil.example\r\nHost: HOST\r\nCREDAccept: */*" + end},
		{name: "another host", request: "GET /public/x HTTP/1.1\r\nHost: evil.example\r\nCREDAccept: */*" + end},
		{name: "a host with a user", request: "GET /private HTTP/1.1\r\nHost: HOST@evil.example\r\nCREDAccept: */*" + end},
		{name: "a host behind a user", request: "GET /private HTTP/1.1\r\nHost: evil.example@HOST\r\nCREDAccept: */*" + end},
		{name: "a host with a path", request: "GET /private HTTP/1.1\r\nHost: HOST/public/x\r\nCREDAccept: */*" + end},
		{name: "a host in a list", request: "GET /private HTTP/1.1\r\nHost: HOST, evil.example\r\nCREDAccept: */*" + end},
		{name: "a host below", request: "GET /private HTTP/1.1\r\nHost: evil.HOST\r\nCREDAccept: */*" + end},
		{name: "a host with a dot", request: "GET /private HTTP/1.1\r\nHost: shop.localhost.\r\nCREDAccept: */*" + end},
		{name: "a host in a line of its own", request: "GET /private HTTP/1.1\r\nHost:\r\n HOST\r\nCREDAccept: */*" + end},
		// Credentials.
		{name: "two sessions in a cookie", request: "GET /private HTTP/1.1\r\nHost: HOST\r\nCookie: MIA; TOM" + end, nobody: true},
		{name: "two sessions in two cookies", request: "GET /private HTTP/1.1\r\nHost: HOST\r\nCookie: MIA\r\nCookie: TOM" + end, nobody: true},
		{name: "a session and a bad one", request: "GET /private HTTP/1.1\r\nHost: HOST\r\nCookie: MIA; __Host-Http-session_id=x" + end, nobody: true},
		{name: "a session in quotes", request: "GET /private HTTP/1.1\r\nHost: HOST\r\nCookie: a=\"; MIA; b=\"" + end},
		{name: "a session of another case", request: "GET /private HTTP/1.1\r\nHost: HOST\r\nCookie: __host-http-session_id=TOKEN" + end, nobody: true},
		{name: "a session with blanks", request: "GET /private HTTP/1.1\r\nHost: HOST\r\nCookie: __Host-Http-session_id =TOKEN" + end},
		{name: "a session in half", request: "GET /private HTTP/1.1\r\nHost: HOST\r\nCookie: __Host-Http-session_id=" + strings.Repeat("a", 88) + end, nobody: true},
		{name: "an empty cookie", request: "GET /private HTTP/1.1\r\nHost: HOST\r\nCookie:" + end, nobody: true},
		{name: "nonsense in a cookie", request: "GET /private HTTP/1.1\r\nHost: HOST\r\nCookie: ;;;=;\x80\xff=%%;__Host-Http-session_id" + end, nobody: true},
		{name: "cookie and bearer", request: "GET /private HTTP/1.1\r\nHost: HOST\r\nCookie: MIA\r\nAuthorization: Bearer TOKEN" + end, nobody: true},
		{name: "cookie and a bad bearer", request: "GET /private HTTP/1.1\r\nHost: HOST\r\nCREDAuthorization: Bearer nonsense" + end},
		{name: "two Authorizations", request: "GET /private HTTP/1.1\r\nHost: HOST\r\nCREDAuthorization: Bearer TOKEN\r\nAuthorization: Basic YTpi" + end},
		{name: "two Authorizations in a line", request: "GET /private HTTP/1.1\r\nHost: HOST\r\nCREDAuthorization: Bearer TOKEN, Basic YTpi" + end},
		{name: "two API keys", request: "GET /private HTTP/1.1\r\nHost: HOST\r\nCREDX-Api-Key: a\r\nX-Api-Key: TOKEN" + end},
		{name: "an API key with an underscore", request: "GET /private HTTP/1.1\r\nHost: HOST\r\nX_Api_Key: TOKEN" + end, nobody: true},
		{name: "a cookie with an underscore", request: "GET /private HTTP/1.1\r\nHost: HOST\r\nCookie_: MIA\r\n_Cookie: MIA" + end, nobody: true},
		{name: "a cookie that Connection names", request: "GET /private HTTP/1.1\r\nHost: HOST\r\nCREDConnection: close, cookie" + end},
		{name: "a bearer that Connection names", request: "GET /private HTTP/1.1\r\nHost: HOST\r\nAuthorization: Bearer nonsense\r\nCREDConnection: authorization" + end},
		{name: "a session in the address", request: "GET /public/x?access_token=TOKEN HTTP/1.1\r\nHost: HOST\r\nAccept: */*" + end, nobody: true},
		// Bodies, and requests in them.
		{name: "a body that is a request", request: "POST /private HTTP/1.1\r\nHost: HOST\r\nContent-Length: " + number + "\r\n\r\n" + inner, nobody: true},
		{name: "a body that is a request, sent by somebody", request: "POST /private HTTP/1.1\r\nHost: HOST\r\nCREDContent-Length: " + number + "\r\n\r\n" + inner},
		{name: "GET with a body", request: "GET /private HTTP/1.1\r\nHost: HOST\r\nCREDContent-Length: " + number + "\r\n\r\n" + inner},
		{name: "GET of the pages with a body", request: "GET /.afterlogin/login HTTP/1.1\r\nHost: HOST\r\nCREDContent-Length: " + number + "\r\n\r\n" + inner},
		{name: "length and chunks", request: "POST /public/x HTTP/1.1\r\nHost: HOST\r\nCREDContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + inner},
		{name: "chunks and length", request: "POST /public/x HTTP/1.1\r\nHost: HOST\r\nCREDTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + inner},
		{name: "two lengths", request: "POST /public/x HTTP/1.1\r\nHost: HOST\r\nCREDContent-Length: 0\r\nContent-Length: " + number + "\r\n\r\n" + inner},
		{name: "a length with a sign", request: "POST /public/x HTTP/1.1\r\nHost: HOST\r\nCREDContent-Length: +0\r\n\r\n" + inner},
		{name: "a negative length", request: "POST /public/x HTTP/1.1\r\nHost: HOST\r\nCREDContent-Length: -1\r\n\r\n" + inner},
		{name: "a length in a list", request: "POST /public/x HTTP/1.1\r\nHost: HOST\r\nCREDContent-Length: 0, 0\r\n\r\n" + inner},
		{name: "a length with an underscore", request: "POST /public/x HTTP/1.1\r\nHost: HOST\r\nCREDContent_Length: 5\r\nContent-Length: 0\r\n\r\n" + inner},
		{name: "chunks with a blank", request: "POST /public/x HTTP/1.1\r\nHost: HOST\r\nCREDTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + inner},
		{name: "chunks of another name", request: "POST /public/x HTTP/1.1\r\nHost: HOST\r\nCREDTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + inner},
		{name: "chunks, not last", request: "POST /public/x HTTP/1.1\r\nHost: HOST\r\nCREDTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + inner},
		{name: "chunks twice", request: "POST /public/x HTTP/1.1\r\nHost: HOST\r\nCREDTransfer-Encoding: chunked\r\nTransfer-Encoding: cow\r\n\r\n0\r\n\r\n" + inner},
		{name: "chunks in a fold", request: "POST /public/x HTTP/1.1\r\nHost: HOST\r\nCREDTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n" + inner},
		{name: "chunks with an underscore", request: "POST /public/x HTTP/1.1\r\nHost: HOST\r\nCREDTransfer_Encoding: chunked\r\nContent-Length: 0\r\n\r\n" + inner},
		{name: "chunks in HTTP/1.0", request: "POST /public/x HTTP/1.0\r\nHost: HOST\r\nCREDTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n0\r\n\r\n" + inner},
		{name: "a chunk with a sign", request: "POST /public/x HTTP/1.1\r\nHost: HOST\r\nCREDTransfer-Encoding: chunked\r\n\r\n+0\r\n\r\n" + inner},
		{name: "a chunk too long", request: "POST /public/x HTTP/1.1\r\nHost: HOST\r\nCREDTransfer-Encoding: chunked\r\n\r\n10000000000000000\r\n\r\n" + inner},
		{name: "a chunk with an extension", request: "POST /public/x HTTP/1.1\r\nHost: HOST\r\nCREDTransfer-Encoding: chunked\r\n\r\n0;\nx\r\n\r\n" + inner},
		{name: "a trailer of nobody we know", request: "POST /private HTTP/1.1\r\nHost: HOST\r\nCREDTransfer-Encoding: chunked\r\nTrailer: X-Role\r\n\r\n0\r\nX-Role: admin" + end},
		{name: "a trailer", request: "POST /private HTTP/1.1\r\nHost: HOST\r\nCREDTransfer-Encoding: chunked\r\nTrailer: X-Auth-Subject\r\n\r\n0\r\nX-Auth-Subject: admin\r\nX_Auth_Subject: admin" + end},
		{name: "a request behind a request", request: "GET /public/x HTTP/1.1\r\nHost: HOST\r\n\r\n" + inner},
		{name: "a request behind somebody's", request: "GET /private HTTP/1.1\r\nHost: HOST\r\nCREDAccept: */*\r\n\r\nGET /private/2 HTTP/1.1\r\nHost: HOST\r\nX-Auth-Subject: admin" + end},
		{name: "a request behind an upgrade", request: "GET /.afterlogin/login HTTP/1.1\r\nHost: HOST\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n" + inner},
		{name: "a request behind an upgrade that fails", request: "GET /public/x HTTP/1.1\r\nHost: HOST\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 99\r\n\r\n" + inner},
		{name: "a refused body that is a request for what is public", request: "POST /private HTTP/1.1\r\nHost: HOST\r\nContent-Length: " + number2 + "\r\n\r\n" + never},
		{name: "a body that is a request for what is public", request: "POST /private HTTP/1.1\r\nHost: HOST\r\nCREDContent-Length: " + number2 + "\r\n\r\n" + never},
		{name: "a refused body in chunks", request: fmt.Sprintf("POST /private HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n%s\r\n%s\r\n0\r\n\r\n", hex2, never)},
		{name: "a refused body that waits", request: "POST /private HTTP/1.1\r\nHost: HOST\r\nExpect: 100-continue\r\nContent-Length: " + number2 + "\r\n\r\n" + never},
		{name: "a body for the pages", request: "GET /.afterlogin/login HTTP/1.1\r\nHost: HOST\r\nContent-Length: " + number2 + "\r\n\r\n" + never},
		{name: "a body for what is no path", request: "POST /public/../private HTTP/1.1\r\nHost: HOST\r\nContent-Length: " + number2 + "\r\n\r\n" + never},
		{name: "a body for another host", request: "POST /public/x HTTP/1.1\r\nHost: evil.example\r\nContent-Length: " + number2 + "\r\n\r\n" + never},
		// Sizes.
		{name: "a header of 20 KiB", request: "GET /private HTTP/1.1\r\nHost: HOST\r\nX-Pad: " + strings.Repeat("a", 20<<10) + "\r\nCREDX-Auth-Subject: admin" + end},
		{name: "headers of 200 KiB", request: "GET /private HTTP/1.1\r\nHost: HOST\r\n" + strings.Repeat("X-Pad: "+strings.Repeat("a", 1000)+"\r\n", 200) + "CREDX-Auth-Subject: admin" + end},
		{name: "a cookie of 12 KiB", request: "GET /private HTTP/1.1\r\nHost: HOST\r\nCookie: a=" + strings.Repeat("b", 12<<10) + "; MIA" + end},
		{name: "a thousand headers", request: "GET /private HTTP/1.1\r\nHost: HOST\r\n" + strings.Repeat("X-Pad: a\r\n", 1000) + "CREDX-Auth-Subject: admin" + end},
	}...)
}

// A siege is a proxy under attack, and what that has won.
type siege struct {
	*house
	mia, tom      string // cookies
	token, other  string // their tokens
	mu            sync.Mutex
	won           []string
	sent, arrived int
}

// besiege sends all attacks, those that can be told apart at the application side by side.
func besiege(h *house) *siege {
	s := &siege{house: h}
	s.mia, _ = h.signIn("mia")
	s.tom, _ = h.signIn("tom")
	_, s.token, _ = strings.Cut(s.mia, "=")
	_, s.other, _ = strings.Cut(s.tom, "=")
	jobs, alone := make(chan func()), []func(){}
	var workers sync.WaitGroup
	for range 12 {
		workers.Go(func() {
			for job := range jobs {
				job()
			}
		})
	}
	for i, a := range attacks() {
		if !strings.Contains(a.request, "CRED") {
			alone = append(alone, func() { s.attack(a, "", strings.Contains(a.request, "MIA") || strings.Contains(a.request, "TOKEN")) })
			continue
		}
		for _, signedIn := range []bool{false, true} {
			jobs <- func() { s.attack(a, fmt.Sprintf("%d%v", i, signedIn), signedIn) }
		}
	}
	close(jobs)
	workers.Wait()
	for _, r := range h.app.take() { // what was in the body of something else, or came after its client had gone
		mark := r.Header.Get("X-Mark")
		s.judge(attack{name: fmt.Sprintf("between (%s)", mark)}, r, strings.Contains(mark, "true"))
	}
	for _, job := range alone {
		job()
	}
	s.stray()
	return s
}

// stray counts what came to afterlogin, and is neither a question nor a page.
func (s *siege) stray() {
	s.pages.mu.Lock()
	defer s.pages.mu.Unlock()
	for _, target := range s.pages.strays {
		s.lost(attack{name: "what came to afterlogin"}, false, "%.200q is neither a question nor a page", target)
	}
}

// attack sends an attack. mark is how the application tells it apart, empty if there is none beside it.
func (s *siege) attack(a attack, mark string, has bool) {
	credential := ""
	if mark != "" {
		credential = "X-Mark: " + mark + "\r\n"
		if has {
			credential += "Cookie: theme=dark; " + s.mia + "\r\n"
		}
	}
	method, _, _ := strings.Cut(a.request, " ")
	raw(s.addr, method, strings.NewReplacer("HOST", s.host, "CRED", credential, "MIA", s.mia, "TOM", s.tom, "TOKEN", s.token).Replace(a.request))
	got := s.app.takeMarked(mark)
	s.mu.Lock()
	s.sent++
	s.mu.Unlock()
	for _, r := range got {
		s.judge(a, r, has)
	}
	if a.arrives && mark != "" && has && (len(got) != 1 || got[0].subject() != "mia") {
		s.lost(a, has, "a header took the request of mia away: %.200v", got)
	}
}

func (s *siege) lost(a attack, has bool, format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.won = append(s.won, fmt.Sprintf("%s (signed in: %v): ", a.name, has)+fmt.Sprintf(format, args...))
}

// judge says what is wrong with a request that came to the application. has says whether mia's cookie was with it.
func (s *siege) judge(a attack, r seen, has bool) {
	s.mu.Lock()
	s.arrived++
	s.mu.Unlock()
	path, _, _ := strings.Cut(r.Target, "?")
	who, err := s.identity(r)
	switch {
	case err != nil:
		s.lost(a, has, "%v", err)
	case r.Target == neverTarget:
		s.lost(a, has, "a body was taken for a request")
	case who == nil && path != "/public" && !strings.HasPrefix(path, "/public/"):
		s.lost(a, has, "nobody came to %.100q", r.Target)
	case who == nil && leadsOut(path):
		s.lost(a, has, "nobody came to %.100q, which may be read as what is not public", r.Target)
	case who != nil && (!has || a.nobody || who.Subject != "mia"):
		s.lost(a, has, "it came as %s", who.Subject)
	}
	if err := s.clean(r, s.token, s.other); err != nil {
		s.lost(a, has, "%.300v", err)
	}
}

// leadsOut reports whether some program might read the path as one that is elsewhere.
func leadsOut(path string) bool {
	for _, s := range []string{"..", "%2e", "%2f", "%5c", "\\", ";", "%3b", "%25", "%00", "%0", "//", "#"} {
		if strings.Contains(strings.ToLower(path), s) {
			return true
		}
	}
	return false
}

func TestHostile(t *testing.T) {
	for _, kind := range proxies {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			hostile(t, kind)
		})
	}
}

func hostile(t *testing.T, kind string) {
	s := besiege(start(t, kind, setup{rules: public}))
	for _, w := range s.won {
		t.Error(w)
	}
	t.Logf("%d requests of %d attacks; %d came to the application", s.sent, len(attacks()), s.arrived)
	if s.arrived < 100 {
		t.Errorf("%d requests came to the application: the suite sees nothing", s.arrived)
	}
}

// errorDocuments has an Apache show pages of the application for errors.
func errorDocuments(config string) string {
	if !strings.Contains(config, "<VirtualHost ") {
		return config // the Lua file
	}
	var all strings.Builder
	for _, status := range []int{400, 403, 404, 405, 413, 421, 500, 501, 502, 503} {
		fmt.Fprintf(&all, "ErrorDocument %d /sorry\n", status)
	}
	return all.String() + config
}

// TestErrorDocuments attacks an Apache that shows pages of the application for errors elsewhere, and one where that goes
// for this host, too.
func TestErrorDocuments(t *testing.T) {
	weaken := map[string]func(string) string{
		"elsewhere": errorDocuments,
		"here": func(config string) string {
			return errorDocuments(regexp.MustCompile(`(?m)^\s*ErrorDocument .*\n`).ReplaceAllString(config, ""))
		},
	}
	for name, weaken := range weaken {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := besiege(start(t, "apache", setup{rules: public, weaken: weaken}))
			for _, w := range s.won {
				t.Error(w)
			}
			if s.arrived < 100 {
				t.Errorf("%d requests came to the application: the suite sees nothing", s.arrived)
			}
		})
	}
}

// TestCurrentCaddy is the whole suite with Caddy's current release, built from its module, which takes minutes.
func TestCurrentCaddy(t *testing.T) {
	if os.Getenv("AFTERLOGIN_LONG") == "" {
		t.Skip("AFTERLOGIN_LONG is not set")
	}
	dir := os.Getenv("AFTERLOGIN_CADDY") // where one was built already
	if dir == "" {
		dir = t.TempDir()
		build := exec.CommandContext(t.Context(), "go", "install", "github.com/caddyserver/caddy/v2/cmd/caddy@"+currentCaddy)
		build.Dir, build.Env = dir, append(os.Environ(), "GOBIN="+dir, "GOWORK=off", "GOFLAGS=")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("Caddy is not built: %v: %s", err, out)
		}
	}
	kind := "caddy=" + filepath.Join(dir, "caddy")
	t.Run("story", func(t *testing.T) { story(t, start(t, kind, setup{rules: public})) })
	t.Run("TLS", func(t *testing.T) { overTLS(t, kind) })
	t.Run("visit", func(t *testing.T) { visitThrough(t, kind) })
	t.Run("hostile", func(t *testing.T) { hostile(t, kind) })
	t.Run("hostile2", func(t *testing.T) { hostile2(t, kind) })
}

// currentCaddy is the release that is built.
const currentCaddy = "v2.11.9"

// TestWeak shows that the attacks win where the configuration is weak in one place.
func TestWeak(t *testing.T) {
	without := func(parts ...string) func(string) string {
		return func(config string) string {
			var kept []string
			for _, line := range strings.Split(config, "\n") {
				if !slices.ContainsFunc(parts, func(part string) bool { return strings.Contains(line, part) }) {
					kept = append(kept, line)
				}
			}
			return strings.Join(kept, "\n")
		}
	}
	instead := func(pairs ...string) func(string) string {
		return func(config string) string { return strings.NewReplacer(pairs...).Replace(config) }
	}
	tests := []struct {
		proxy, name string
		weaken      func(string) string
		want        string // what an attack wins
	}{
		{"nginx", "underscores", instead("ignore_invalid_headers on", "ignore_invalid_headers off", "underscores_in_headers off", "underscores_in_headers on"), "there is a header X_auth_subject"},
		{"nginx", "no question", func(config string) string {
			return without("auth_request ", "proxy_set_header X-Auth-")(instead("http://$to_", "http://app_")(config))
		}, "X-Auth-Subject is"},
		{"nginx", "no clearing", without("proxy_set_header X-Auth-Subject"), `X-Auth-Subject is ["admin"`},
		{"caddy", "no clearing", without("request_header -X_Auth"), "there is a header X_auth_subject"},
		{"caddy", "a path in disguise", without("respond @disguised"), "is neither a question nor a page"},
		{"caddy", "Connection", without("-Connection"), "X-Auth-Subject is []"},
		{"haproxy", "no clearing", without("del-header ^x.auth"), "there is a header X_auth_subject"},
		{"haproxy", "no target", without("set-uri", "unless { url_beg / }"), "was never let through"},
		{"apache", "pages for errors", func(config string) string {
			return errorDocuments(without("ErrorDocument ", "LuaHookFixups")(config))
		}, `X-Auth-Subject is`},
		{"apache", "no clearing", instead("if drop(name) then", "if false then"), "there is a header X_auth_subject"},
	}
	for _, tt := range tests {
		t.Run(tt.proxy+" "+tt.name, func(t *testing.T) {
			t.Parallel()
			s := besiege(start(t, tt.proxy, setup{rules: public, weaken: tt.weaken}))
			if !slices.ContainsFunc(s.won, func(w string) bool { return strings.Contains(w, tt.want) }) {
				t.Errorf("no attack wins %q; they win %d: %.1000q", tt.want, len(s.won), s.won)
			}
		})
	}
}
