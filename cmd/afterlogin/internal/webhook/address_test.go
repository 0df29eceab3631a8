package webhook

import (
	"errors"
	"net/netip"
	"net/url"
	"strings"
	"testing"
)

func allowance(t testing.TB, loopback bool, list ...string) *Allowance {
	t.Helper()
	a, err := NewAllowance(list, loopback)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestCheckURL(t *testing.T) {
	strict, lax := allowance(t, false), allowance(t, true)
	for _, tt := range []struct {
		allow *Allowance
		in    string
		want  string // "": refused
		field string // what the error says
	}{
		{strict, "https://shop.example/hooks?a=b", "https://shop.example/hooks?a=b", ""},
		{strict, "https://SHOP.example:8443/Hooks", "https://shop.example:8443/Hooks", ""},
		{strict, "HTTPS://shop.example", "https://shop.example", ""},
		{strict, "https://8.8.8.8/", "https://8.8.8.8/", ""},
		{strict, "https://[2a00:1450::1]/x", "https://[2a00:1450::1]/x", ""},
		{strict, "", "", "want an address"},
		{strict, "shop.example/hooks", "", "want an address"},
		{strict, "ftp://shop.example/", "", "want an address"},
		{strict, "https:shop.example", "", "want an address"},
		{strict, "https:///x", "", "want an address"},
		{strict, "http://shop.example/", "", "write https://"},
		{strict, "https://mia:pw@shop.example/", "", "has no place"},
		{strict, "https://shop.example/#x", "", "leave away"},
		{strict, "https://shop.example/#", "", "leave away"},
		{strict, "https://shop.example/\n", "", "ASCII"},
		{strict, "https://sh\u00f6p.example/", "", "xn--"},
		{strict, "https://shop.example:0/", "", "port"},
		{strict, "https://shop.example:65536/", "", "port"},
		{strict, "https://shop.example:/", "", "port"},
		{strict, "https://shop.example:0443/", "", "port"},
		{strict, "https://" + strings.Repeat("x", 1100) + ".example/", "", "1024"},
		{strict, "https://2130706433/", "", "host name"},
		{strict, "https://0x7f.1/", "", "host name"},
		{strict, "https://127.1/", "", "host name"},
		{strict, "https://0177.0.0.1/", "", "host name"},
		{strict, "https://a..b/", "", "host name"},
		{strict, "https://127.0.0.1/", "", "not on the internet"},
		{strict, "https://localhost/", "", "not on the internet"},
		{strict, "http://localhost/", "", "not on the internet"},
		{strict, "https://[::1]/", "", "not on the internet"},
		{strict, "https://[::ffff:127.0.0.1]/", "", "not on the internet"},
		{strict, "https://[::ffff:169.254.169.254]/", "", "not on the internet"},
		{strict, "https://[64:ff9b::a9fe:a9fe]/", "", "not on the internet"},
		{strict, "https://[fe80::1%25eth0]/", "", "zone"},
		{strict, "https://169.254.169.254/latest/meta-data", "", "not on the internet"},
		{strict, "https://10.0.0.1/", "", "not on the internet"},
		{strict, "https://100.64.0.1/", "", "not on the internet"},
		{lax, "http://localhost:8080/x", "http://localhost:8080/x", ""},
		{lax, "http://127.0.0.1:8080/x", "http://127.0.0.1:8080/x", ""},
		{lax, "http://[::1]:8080/x", "http://[::1]:8080/x", ""},
		{lax, "http://10.0.0.1/", "", "write https://"},
		{lax, "https://10.0.0.1/", "", "not on the internet"},
		{allowance(t, false, "10.0.0.0/8"), "https://10.0.0.1/", "https://10.0.0.1/", ""},
		{allowance(t, false, "10.0.0.0/8"), "http://10.0.0.1/", "", "write https://"},
		{allowance(t, false, "10.0.0.0/8"), "https://192.168.0.1/", "", "not on the internet"},
		{allowance(t, false, "127.0.0.1"), "http://127.0.0.1/", "http://127.0.0.1/", ""},
		{allowance(t, false, "localhost"), "http://localhost/", "http://localhost/", ""},
	} {
		got, err := tt.allow.checkURL(tt.in)
		if got != tt.want || (err == nil) != (tt.want != "") || err != nil && !strings.Contains(err.Error(), tt.field) {
			t.Errorf("%.80q: %q, %v; want %q or an error with %q", tt.in, got, err, tt.want, tt.field)
		}
		var f *FieldError
		if err != nil && (!errors.As(err, &f) || f.Field != "url") {
			t.Errorf("%.80q: %T", tt.in, err)
		}
	}
}

func TestAllowanceRefuses(t *testing.T) {
	for _, item := range []string{"", "*", "10.0.0.1/8", "10.0.0.0/99", "a b", "http://x", "-x", "fe80::1%eth0", "a..b", "127.1"} {
		if _, err := NewAllowance([]string{item}, false); err == nil {
			t.Errorf("%q is taken", item)
		}
	}
}

// Whatever is not everybody's is refused, in each of its spellings.
func TestPermits(t *testing.T) {
	a := allowance(t, false)
	for _, text := range []string{
		"0.0.0.0", "0.1.2.3", "10.1.2.3", "100.64.0.1", "100.127.255.255", "127.0.0.1", "127.255.255.254", "169.254.169.254", "172.16.0.1", "172.31.255.255",
		"192.0.0.1", "192.0.2.1", "192.168.1.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
		"::", "::1", "::127.0.0.1", "::ffff:10.0.0.1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::1", "100::1", "2001::1", "2001:db8::1", "2002:7f00:1::",
		"fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1",
		"::ffff:0:127.0.0.1", "5f00::1", "4000::1", "1fff::1", "168.63.129.16", "::ffff:168.63.129.16",
	} {
		if err := a.permits("x.example", netip.MustParseAddr(text), true); !errors.Is(err, errAddress) {
			t.Errorf("%s: %v", text, err)
		}
	}
	for _, text := range []string{"1.1.1.1", "8.8.8.8", "172.15.0.1", "172.32.0.1", "100.63.0.1", "100.128.0.1", "168.63.129.17", "2606:4700::1111", "3ffe::1", "::ffff:8.8.8.8"} {
		if err := a.permits("x.example", netip.MustParseAddr(text), true); err != nil {
			t.Errorf("%s: %v", text, err)
		}
		if err := a.permits("x.example", netip.MustParseAddr(text), false); err == nil {
			t.Errorf("%s without TLS", text)
		}
	}
	if err := a.permits("x", netip.Addr{}, true); err == nil {
		t.Error("no address")
	}
}

// What is taken is an https address of a host that may be dialled, or this machine, has no credentials, and is its own form.
func FuzzCheckURL(f *testing.F) {
	for _, seed := range []string{
		"https://shop.example/hooks", "http://localhost:80/", "https://a:b@c/", "https://[::1]:1/", "https://127.0.0.1\\@x.example/", "https://x.example#@127.0.0.1/",
		"https://127.0.0.1%2f@x/", "https://x.example:443:80/", "https://%31/", "https://x?\x00", "https://[::ffff:7f00:1]", "//x", "https://1.2.3.4.", "https://localhost.",
	} {
		f.Add(seed)
	}
	a := allowance(f, false)
	f.Fuzz(func(t *testing.T, in string) {
		out, err := a.checkURL(in)
		if err != nil {
			var field *FieldError
			if !errors.As(err, &field) || len(err.Error()) > 300 {
				t.Fatalf("%q: %v", in, err)
			}
			return
		}
		if again, err := a.checkURL(out); err != nil || again != out {
			t.Fatalf("%q is taken as %q, and that as %q, %v", in, out, again, err)
		}
		u, err := url.Parse(out)
		if err != nil || u.Scheme != "https" || u.User != nil || u.Fragment != "" || u.Host == "" {
			t.Fatalf("%q: %q", in, out)
		}
		if ip, err := netip.ParseAddr(strings.TrimSuffix(u.Hostname(), ".")); err == nil && !public(ip.Unmap()) {
			t.Fatalf("%q: %q is not public", in, out)
		}
	})
}
