package httpauth

import (
	"net/http"
	"net/url"
	"path"
	"strings"
	"testing"

	"github.com/afterlogin/afterlogin"
)

// sample has the form of a token and is none.
var sample = "als_" + strings.Repeat("AQ-bcd_WxyZ0", 7)

// The reader of cookies agrees with a naive one, never takes another name for ours, and reads a bounded amount.
func FuzzCookieHeader(f *testing.F) {
	for _, s := range []string{
		"", "a=1; b=2", CookieName + "=" + sample, CookieName + "=x; " + CookieName + "=y", "__host-http-session_id=x",
		" " + CookieName + "=x", "\t" + CookieName + "=x", CookieName + "=\"x\"", CookieName + " =x", ";;;=;" + CookieName,
		"$Version=1; " + CookieName + "=\"a; b=c\"", "a=1\n" + CookieName + "=x", strings.Repeat("a=1; ", 5000),
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		lines := strings.Split(s, "\n")
		value, count, err := findCookie(lines, CookieName)
		size := 0
		var want []string
		for _, line := range lines {
			size += len(line) + 2
			for _, pair := range strings.Split(line, ";") {
				if v, ok := strings.CutPrefix(strings.TrimLeft(pair, " "), CookieName+"="); ok {
					want = append(want, v)
				}
			}
		}
		if err != nil {
			if size <= maxCookies {
				t.Fatalf("%d bytes are too large", size)
			}
			return
		}
		if min(len(want), 2) != count && size <= maxCookies {
			t.Fatalf("count %d, want %d", count, len(want))
		}
		if count == 1 && value != want[0] {
			t.Fatalf("value %q, want %q", value, want[0])
		}
		// What net/http calls our cookie without any repair is one for us, too: nobody gets in past the count.
		if size <= maxCookies && count == 0 {
			for _, c := range (&http.Request{Header: http.Header{"Cookie": lines}}).CookiesNamed(CookieName) {
				if strings.Contains(s, "; "+CookieName+"="+c.Value) || strings.HasPrefix(s, CookieName+"="+c.Value) {
					t.Fatalf("net/http sees %q", c.Value)
				}
			}
		}
	})
}

func FuzzAuthorization(f *testing.F) {
	for _, s := range []string{"", "Bearer", "Bearer ", "bearer " + sample, "Bearer a b", "Basic eDp5", "Bearer\t" + sample, "Bearer " + sample + "\nBearer x", "BEARER  a,b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		lines := strings.Split(s, "\n")
		token, ok, err := findBearer(lines)
		switch {
		case err != nil:
			if ok || token != "" {
				t.Fatal("a token beside an error")
			}
		case ok:
			if len(lines) != 1 || token == "" || strings.ContainsAny(token, " \t") || !strings.HasSuffix(s, token) || !strings.EqualFold(s[:6], "bearer") {
				t.Fatalf("took %q out of %q", token, s)
			}
		}
	})
}

// Whatever SafeReturn lets through stays on the host, for a strict reader of URLs and for a sloppy one.
func FuzzSafeReturn(f *testing.F) {
	for _, s := range append(badReturns(), goodReturns...) {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := SafeReturn(s)
		if got != s && got != "/" {
			t.Fatalf("SafeReturn(%q) = %q: neither the path nor /", s, got)
		}
		base, _ := url.Parse("https://shop.example/sign-in")
		u, err := base.Parse(got)
		if err != nil || u.Host != "shop.example" || u.Scheme != "https" || u.User != nil {
			t.Fatalf("SafeReturn(%q) leads to %v (%v)", s, u, err)
		}
		// As browsers do: drop tabs and line breaks, take \ for /, trim, resolve dots; twice decoded, for careless proxies.
		sloppy := strings.TrimSpace(strings.NewReplacer("\t", "", "\n", "", "\r", "", "\\", "/").Replace(got))
		for range 2 {
			if !strings.HasPrefix(sloppy, "/") || strings.HasPrefix(sloppy, "//") || strings.HasPrefix(path.Clean(sloppy), "//") {
				t.Fatalf("SafeReturn(%q) = %q may lead elsewhere", s, got)
			}
			p, _, _ := strings.Cut(sloppy, "?")
			if p, err = url.PathUnescape(p); err != nil {
				break
			}
			sloppy = strings.ReplaceAll(p, "\\", "/")
		}
		if SafeReturn(got) != got {
			t.Fatalf("SafeReturn(%q) = %q, which it refuses itself", s, got)
		}
		if strings.ContainsAny(got, "\r\n\t\x00 ") {
			t.Fatalf("SafeReturn(%q) = %q", s, got)
		}
	})
}

var goodReturns = []string{
	"/", "/orders", "/orders/", "/orders/7?page=2&q=a%20b", "/x#part", "/?next=//x", "/a%3Ab", "/%C3%A9t%C3%A9", "/été", "/a.b/c..d", "/x?u=https://evil.example/", "/~mia", "/x?code=" + sample[:80],
}

func badReturns() []string {
	return []string{
		"", "orders", "//evil.example", "///evil.example", "/\\evil.example", "\\/evil.example", "/\t/evil.example", "/\n/evil.example",
		"\t//evil.example", " /x", "/ x", "https://evil.example", "https:evil.example", "javascript:alert(1)", "//mia@evil.example",
		"/.//evil.example", "/..//evil.example", "/x/../y", "/a//b", "/%2f/evil.example", "/%5cevil.example", "/%2e%2e//evil.example",
		"/x\x00", "/x%00", "/%0d%0aSet-Cookie:x", "/%zz", "/\x7f", "/x\r\nSet-Cookie: a=b", "/\xff", "/" + strings.Repeat("a", 2048),
		"/x?token=" + sample, "/x?a=%2Fy%3Ftoken%3D" + sample, "/" + sample, "?x", "#x", "/.", "/..", "/%2f", "/%2F%2Fevil.example",
	}
}

func TestSafeReturn(t *testing.T) {
	for _, s := range goodReturns {
		if got := SafeReturn(s); got != s {
			t.Errorf("SafeReturn(%q) = %q", s, got)
		}
	}
	for _, s := range badReturns() {
		if got := SafeReturn(s); got != "/" {
			t.Errorf("SafeReturn(%q) = %q, want /", s, got)
		}
	}
}

// A token is found wherever it stands, and nothing that is none.
func FuzzTokenInURL(f *testing.F) {
	for _, s := range []string{"", "a=1", "x=%", "%61", "a=%zz&b=", "als_", sample, "&&&", "a=" + sample[:87]} {
		f.Add(s, "")
		f.Add(s+"&", "&b=1")
	}
	f.Fuzz(func(t *testing.T, before, after string) {
		for _, found := range tokensIn(before) {
			if !isToken(found) {
				t.Fatalf("found %q", found)
			}
		}
		if strings.Contains(before+after, "%") || tokensIn(before) != nil {
			return
		}
		if n := len(before); n > 0 && base64url(before[n-1]) || after != "" && base64url(after[0]) {
			return // part of something longer
		}
		if got := tokensIn(before + sample + after); len(got) == 0 || got[0] != sample {
			t.Fatalf("not found between %q and %q: %q", before, after, got)
		}
	})
}

// What is cut out of a query is a ticket and nothing else, cutting again finds no more, and a target has one spelling.
func FuzzTicketInQuery(f *testing.F) {
	ticket := "alt_" + strings.Repeat("AQ-bcd_WxyZ0", 8)
	for _, s := range []string{"", "a=1&ticket=" + ticket, "ticket=" + ticket + "&ticket=" + ticket, "%74icket=%61lt_x", "ticket=4711", "ticket", "&&ticket=alt_&=", "ticket=%zz", "a=%", "x=alt_;ticket=alt_", "%0%61"} {
		f.Add(s, "/a%2fb/"+s)
	}
	for _, s := range []string{"/a#", "/a?b#", "/a?#", "/a?&", "/a?", "/#?ticket=" + ticket, "/a?b&ticket=" + ticket} {
		f.Add("", s)
	}
	f.Fuzz(func(t *testing.T, query, path string) {
		rest, found, count := cutTicket(query)
		if count == 0 && (rest != query || found != "") || count > 0 && !strings.HasPrefix(found, ticketPrefix) || len(rest) > len(query) {
			t.Fatalf("cutTicket(%q) = %q, %q, %d", query, rest, found, count)
		}
		if again, _, n := cutTicket(rest); n != 0 || again != rest {
			t.Fatalf("a ticket is left in %q", rest)
		}
		if target, ok := bind("https://shop.example", path); ok {
			// The link has one ticket and no fragment, and what comes back is what it was bound to.
			link := withTicket(path, afterlogin.TokenFrom(ticket))
			u, err := url.Parse("https://shop.example" + link)
			if err != nil || strings.Contains(link, "#") || u.Host != "shop.example" || len(target) > maxTarget {
				t.Fatalf("a link %q (%v)", link, err)
			}
			if _, found, count := cutTicket(u.RawQuery); count != 1 || found != ticket {
				t.Fatalf("%d tickets in the link %q", count, link)
			}
			r := &http.Request{RequestURI: link, URL: u}
			if back, ok := bind("https://shop.example", here(r)); !ok || back != target {
				t.Fatalf("the link %q is bound to %q, and comes to %q", link, target, back)
			}
		}
		path, _, _ = strings.Cut(path, "?")
		once := canonical(path)
		if twice := canonical(once); twice != once {
			t.Fatalf("canonical(%q) = %q, and then %q", path, once, twice)
		}
		if want, err := url.PathUnescape(path); err == nil {
			if got, err := url.PathUnescape(once); err != nil || got != want {
				t.Fatalf("canonical(%q) = %q means %q, not %q (%v)", path, once, got, want, err)
			}
		}
		for i := range len(once) {
			if once[i] <= ' ' || once[i] >= 0x7f {
				t.Fatalf("canonical(%q) = %q", path, once)
			}
		}
	})
}
