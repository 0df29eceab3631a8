// Package device puts a User-Agent header into the words of a list of sessions: "Firefox on Windows". It owns what is
// left out because it would be wrong: browsers freeze the version of the system, and Safari on an iPad says that it is a
// Mac. Start with [Name], or with [Describe] for words in another language than English.
package device

import (
	"strings"
	"unicode"

	"github.com/mileusna/useragent"
)

// Limits, in bytes and in characters.
const (
	maxLength = 512 // how much of a header is looked at
	maxName   = 80
)

// A Device is what a User-Agent header says. It is made of what a stranger sent: escape it.
type Device struct {
	// Program is the browser, "Firefox", or another program with its version, "curl 8.9". It is empty for an app that does
	// not say its name, and for what is unknown.
	Program string
	// System is what it runs on, without a version: "Windows", "iPhone", "Mac or iPad". It may be empty.
	System string
	// Bot says that it is a program that visits pages by itself, such as a search engine's.
	Bot bool
	// App says that a page was shown inside of an app, whose name is not known.
	App bool
}

// Name returns what to call the device that sent the User-Agent header, in English and in at most 80 characters:
// "Unknown device" if the header is empty or says nothing.
func Name(userAgent string) string {
	d := Describe(userAgent)
	name := d.Program
	switch {
	case d.App:
		name = "An app"
	case name == "" && d.System == "":
		return "Unknown device"
	case name == "":
		name = "Unknown browser"
	case d.Bot:
		return cut("bot: " + name)
	}
	if d.System != "" {
		name += " on " + d.System
	}
	return cut(name)
}

// Describe returns what the header says.
func Describe(userAgent string) Device {
	userAgent = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, userAgent[:min(len(userAgent), maxLength)])
	ua := useragent.Parse(userAgent)
	d := Device{Program: ua.Name, System: system(ua, userAgent)}
	switch {
	case ua.Name == "" || ua.Name == useragent.Mozilla || strings.HasPrefix(ua.Name, "Mozilla/"):
		d.Program = ""
	case ua.Name == useragent.HeadlessChrome: // somebody's test, and no search engine
	case ua.Bot || strings.Contains(strings.ToLower(ua.Name), "bot"):
		d.Bot, d.System = true, ""
	case ua.Name == ua.Device, strings.Contains(userAgent, "; wv)"): // a page inside of an app
		d.Program, d.App = "", true
	case ua.Name == "Trident":
		d.Program = useragent.InternetExplorer
	case ua.Name == "Android browser":
		d.Program = "Browser"
	}
	if d.System == "" && !d.Bot && d.Program != "" && ua.Version != "" && !strings.Contains(userAgent, "Mozilla/") {
		d.Program += " " + short(ua.Version) // curl 8.9: of a program the version tells something
	}
	d.Program = cut(d.Program)
	return d
}

// system names the operating system without its version, which browsers have frozen: Windows 11 says 10, every Mac says
// 10.15.7, and Android 10 on a "K" is any Android at all.
func system(ua useragent.UserAgent, userAgent string) string {
	switch ua.OS {
	case useragent.MacOS:
		if ua.Name == useragent.Safari {
			return "Mac or iPad" // an iPad asks for the desktop's pages as a Mac
		}
		return "Mac"
	case useragent.IOS:
		return ua.Device // iPhone or iPad
	case "":
		if strings.Contains(userAgent, useragent.FreeBSD) {
			return useragent.FreeBSD
		}
	}
	return cut(ua.OS)
}

// short cuts a version after its second number.
func short(version string) string {
	parts := strings.SplitN(version, ".", 3)
	return strings.Join(parts[:min(len(parts), 2)], ".")
}

func cut(name string) string {
	if r := []rune(name); len(r) > maxName {
		return string(r[:maxName-1]) + "…"
	}
	return name
}
