// Package device puts a User-Agent header into the words of a list of sessions: "Firefox on Windows". It owns what is
// left out because it would be wrong: browsers freeze the version of the system, and Safari on an iPad says that it is a
// Mac. Start with [Name].
package device

import (
	"strings"
	"unicode"

	"github.com/mileusna/useragent"
)

// maxLength is how much of a header is looked at, in bytes.
const maxLength = 512

// Name returns what to call the device that sent the User-Agent header, in at most 80 characters: "Unknown device" if
// the header is empty or says nothing. The name is made of what a stranger sent: escape it.
func Name(userAgent string) string {
	userAgent = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, userAgent[:min(len(userAgent), maxLength)])
	ua := useragent.Parse(userAgent)
	name := ua.Name
	switch {
	case name == "" || name == useragent.Mozilla:
		name = "Unknown device"
	case ua.Bot && name != useragent.HeadlessChrome:
		return cut("bot: " + name)
	case ua.OS == "" && ua.Version != "":
		return cut(name + " " + short(ua.Version)) // curl 8.9: for a program the version tells
	}
	if os := system(ua); os != "" {
		name += " on " + os
	}
	return cut(name)
}

// system names the operating system without its version, which browsers have frozen: Windows 11 says 10, every Mac says
// 10.15.7, and Android 10 on a "K" is any Android at all.
func system(ua useragent.UserAgent) string {
	switch ua.OS {
	case useragent.MacOS:
		if ua.Name == useragent.Safari {
			return "Mac or iPad" // an iPad asks for the desktop's pages as a Mac
		}
		return "Mac"
	case useragent.IOS:
		return ua.Device // iPhone or iPad
	}
	return ua.OS
}

// short cuts a version after its second number.
func short(version string) string {
	parts := strings.SplitN(version, ".", 3)
	return strings.Join(parts[:min(len(parts), 2)], ".")
}

func cut(name string) string {
	if r := []rune(name); len(r) > 80 {
		return string(r[:79]) + "…"
	}
	return name
}
