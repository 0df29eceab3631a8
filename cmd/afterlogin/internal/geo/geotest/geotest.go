// Package geotest writes small databases of places for tests, in the MaxMind DB format, version 2.0.
package geotest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"sort"
)

// Map is a record, or a part of one. Its values are Map, string, uint16, uint32, uint64 and []string.
type Map map[string]any

// City returns a record as GeoLite2 City and DB-IP City have it. Names go by language.
func City(city, country map[string]string) Map {
	named := func(names map[string]string) Map {
		m := make(Map)
		for k, v := range names {
			m[k] = v
		}
		return Map{"names": m}
	}
	m := Map{"country": named(country)}
	if city != nil {
		m["city"] = named(city)
	}
	return m
}

// marker stands before the metadata.
const marker = "\xab\xcd\xefMaxMind.com"

// Database returns the file of a database of that type with a record for each network. No network may lie within
// another one.
func Database(typ string, records map[string]Map) []byte {
	type node [2]int // 0: nothing; n > 0: node n; n < 0: record -n-1
	nodes := []node{{}}
	var data bytes.Buffer
	var offsets []int
	var names []string
	for p := range records {
		names = append(names, p)
	}
	sort.Strings(names)
	for _, name := range names {
		p := netip.MustParsePrefix(name)
		bits, addr := p.Bits(), p.Addr().As16()
		if p.Addr().Is4() { // IPv4 stands at ::/96
			bits += 96
			addr = [16]byte{}
			four := p.Addr().As4()
			copy(addr[12:], four[:])
		}
		at := 0
		for i := range bits {
			bit := int(addr[i/8]>>(7-i%8)) & 1
			if i == bits-1 {
				nodes[at][bit] = -len(offsets) - 1
				break
			}
			if nodes[at][bit] == 0 {
				nodes = append(nodes, node{})
				nodes[at][bit] = len(nodes) - 1
			}
			at = nodes[at][bit]
		}
		offsets = append(offsets, data.Len())
		write(&data, records[name])
	}
	var out bytes.Buffer
	for _, n := range nodes {
		for _, to := range n {
			v := to
			switch {
			case to == 0:
				v = len(nodes)
			case to < 0:
				v = len(nodes) + 16 + offsets[-to-1]
			}
			out.Write([]byte{byte(v >> 16), byte(v >> 8), byte(v)})
		}
	}
	out.Write(make([]byte, 16))
	out.Write(data.Bytes())
	out.WriteString(marker)
	write(&out, Map{
		"node_count": uint32(len(nodes)), "record_size": uint16(24), "ip_version": uint16(6), "database_type": typ,
		"languages": []string{"en", "de"}, "binary_format_major_version": uint16(2), "binary_format_minor_version": uint16(0),
		"build_epoch": uint64(1_795_000_000), "description": Map{"en": typ},
	})
	return out.Bytes()
}

// write writes a value with its control byte.
func write(b *bytes.Buffer, v any) {
	number := func(kind int, n uint64) {
		digits := bytes.TrimLeft(binary.BigEndian.AppendUint64(nil, n), "\x00")
		control(b, kind, len(digits))
		b.Write(digits)
	}
	switch v := v.(type) {
	case string:
		control(b, 2, len(v))
		b.WriteString(v)
	case uint16:
		number(5, uint64(v))
	case uint32:
		number(6, uint64(v))
	case uint64:
		number(9, v)
	case []string:
		control(b, 11, len(v))
		for _, s := range v {
			write(b, s)
		}
	case Map:
		control(b, 7, len(v))
		var keys []string
		for k := range v {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		for _, k := range keys {
			write(b, k)
			write(b, v[k])
		}
	default:
		panic(fmt.Sprintf("geotest: %T", v))
	}
}

func control(b *bytes.Buffer, kind, size int) {
	first := min(size, 29)
	if size >= 285 {
		panic("geotest: too long")
	}
	if kind > 7 {
		b.WriteByte(byte(first))
		b.WriteByte(byte(kind - 7))
	} else {
		b.WriteByte(byte(kind<<5 | first))
	}
	if size >= 29 {
		b.WriteByte(byte(size - 29))
	}
}
