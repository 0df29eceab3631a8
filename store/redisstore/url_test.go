package redisstore

import (
	"reflect"
	"strings"
	"testing"
)

func TestParseURL(t *testing.T) {
	for text, want := range map[string]*target{
		"redis://localhost":            {addrs: []string{"localhost:6379"}},
		"redis://10.0.0.1:7000/0":      {addrs: []string{"10.0.0.1:7000"}},
		"redis://[::1]:7000/":          {addrs: []string{"[::1]:7000"}},
		"redis://[::1]":                {addrs: []string{"[::1]:6379"}},
		"rediss://mia:p%40ss%2F@h:1":   {addrs: []string{"h:1"}, user: "mia", pass: "p@ss/", tls: true},
		"redis://:secret@h":            {addrs: []string{"h:6379"}, pass: "secret"},
		"redis://a:1,b:2,c/?cluster":   {mode: cluster, addrs: []string{"a:1", "b:2", "c:6379"}},
		"rediss://a,b?cluster=true":    {mode: cluster, addrs: []string{"a:6379", "b:6379"}, tls: true},
		"redis+sentinel://a,b:2/main":  {mode: sentinel, addrs: []string{"a:26379", "b:2"}, master: "main"},
		"rediss+sentinel://:x@a/m%20n": {mode: sentinel, addrs: []string{"a:26379"}, master: "m n", pass: "x", tls: true},
		"redis+sentinel://a/m?sentinel_user=tom&sentinel_password=y%26": {
			mode: sentinel, addrs: []string{"a:26379"}, master: "m", sentinelUser: "tom", sentinelPass: "y&"},
	} {
		got, err := parseURL(text)
		if err != nil {
			t.Errorf("parseURL(%q) = %v", text, err)
		} else if !reflect.DeepEqual(got, want) {
			t.Errorf("parseURL(%q)\n got %+v\nwant %+v", text, got, want)
		}
	}
}

// A bad URL is refused by an error that names the part, and tells nothing of a password.
func TestBadURL(t *testing.T) {
	for text, part := range map[string]string{
		"":                                      "scheme",
		"localhost:6379":                        "scheme",
		"http://mia:hunter2@h":                  "scheme",
		"redis://mia:hunter2@":                  "host 1",
		"redis://mia:hunter2@h:port":            "port",
		"redis://mia:hunter2@h:0":               "port",
		"redis://mia:hunter2@h:99999":           "port",
		"redis://mia:hunter2@a,b":               "several hosts",
		"redis://mia:hunter2@a,,b/?cluster":     "host 2",
		"redis://mia:hunter2@h/1":               "path",
		"redis://mia:hunter2@h/x":               "path",
		"redis://mia:hunter2%zz@h":              "user and password",
		"redis://mia@h":                         "user without a password",
		"redis://:hunter2@h#x":                  "fragment",
		"redis://:hun#ter2@h":                   "fragment",
		"redis://:hunter2@h?db=3":               "query",
		"redis://:hunter2@h?cluster&cluster":    "query",
		"redis://:hunter2@h?cluster=hunter2":    "query",
		"redis://:hunter2@h?%zz":                "query",
		"redis://:hunter2@[::1":                 "host 1",
		"redis://:hunter2@::1":                  "port",
		"redis+sentinel://:hunter2@a,b":         "path",
		"redis+sentinel://:hunter2@a/":          "path",
		"redis+sentinel://:hunter2@a/m?cluster": "query",
		"redis+sentinel://mia:6/hunter2@a":      "path",
		"redis://:hunter2@h" + strings.Repeat(",h", 200) + "/?cluster": "hosts",
		"redis://:hunter2" + strings.Repeat("x", maxURL) + "@h":        "bytes",
	} {
		got, err := parseURL(text)
		if err == nil {
			t.Errorf("parseURL(%q) = %+v", text, got)
			continue
		}
		if !strings.Contains(err.Error(), part) {
			t.Errorf("parseURL(%q) = %v, want a word of %q", text, err, part)
		}
		if strings.Contains(err.Error(), "unter2") {
			t.Errorf("parseURL(%q) = %v, with the password", text, err)
		}
	}
}

func FuzzParseURL(f *testing.F) {
	for _, text := range []string{"redis://h", "rediss://u:p@[::1]:1/0", "redis://a,b:2/?cluster", "redis+sentinel://a/m?sentinel_user=x"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := parseURL(text)
		if err != nil {
			return
		}
		if len(got.addrs) == 0 || len(got.addrs) > 100 || (got.mode == sentinel) != (got.master != "") {
			t.Errorf("parseURL(%q) = %+v", text, got)
		}
	})
}
