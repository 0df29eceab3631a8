package redisstore

import (
	"crypto/sha1"
	"encoding/hex"
)

// A script runs on the server.
type script struct {
	text, sha string
}

// What may be said of a script. The server refuses one before it has changed anything where it may not write (a replica),
// or has no room for it.
const (
	needsRoom = "#!lua\n"
	evenFull  = "#!lua flags=allow-oom\n" // is run without room, too
	readsOnly = "#!lua flags=no-writes\n"
)

func newScript(head, text string) *script {
	text = head + text
	sum := sha1.Sum([]byte(text))
	return &script{text, hex.EncodeToString(sum[:])}
}

// Offsets in an encoded record, from 1: version 31-38, last seen 39-46, seen generation 47-50, seen at 51-58. Integers
// are compared as two halves, since Lua's numbers are not exact beyond 53 bits, and never as strings, which Lua compares
// by the server's locale.
const luaRecord = `
local function u32(s, i) return struct.unpack('>I4', s, i) end
local function less(a, b)
  local ah, bh = struct.unpack('>i4', a), struct.unpack('>i4', b)
  if ah ~= bh then return ah < bh end
  return u32(a, 5) < u32(b, 5)
end
local function lessUnsigned(a, b)
  local ah, bh = u32(a, 1), u32(b, 1)
  if ah ~= bh then return ah < bh end
  return u32(a, 5) < u32(b, 5)
end
local function plusOne(v)
  local h, l = u32(v, 1), u32(v, 5)
  if l == 4294967295 then return struct.pack('>I4I4', h + 1, 0) end
  return struct.pack('>I4I4', h, l + 1)
end
-- what stands in new, with the times of use of old where those are newer
local function keepSeen(new, old)
  local last, seen = new:sub(39, 46), new:sub(47, 58)
  if less(last, old:sub(39, 46)) then last = old:sub(39, 46) end
  if u32(old, 47) >= u32(new, 47) then seen = old:sub(47, 58) end
  return new:sub(1, 38) .. last .. seen .. new:sub(59)
end
local function write(key, record, old, pxat)
  if old then redis.call('SET', key, record, 'KEEPTTL')
  elseif pxat == '0' then redis.call('SET', key, record)
  else redis.call('SET', key, record, 'PXAT', pxat) end
end
`

// Adding to a subject's index. Its first entries are those that end first: what ended four hours ago, by the clock that
// the server forgets records by, is removed where it is met, and the index goes with its last root. Milliseconds, 0: never.
const luaIndex = `
local function index(key, id, pxat)
  redis.call('ZADD', key, 0, id)
  local hour = math.floor(redis.call('TIME')[1] / 3600) - 4
  local ended = struct.pack('>I4', hour):sub(2)
  local old = redis.call('ZRANGE', key, '-', '(' .. ended, 'BYLEX', 'LIMIT', 0, 8)
  if #old > 0 then redis.call('ZREM', key, unpack(old)) end
  if pxat == '0' then redis.call('PERSIST', key)
  else
    local ttl = redis.call('PEXPIRETIME', key)
    if redis.call('ZCARD', key) == 1 or ttl >= 0 and ttl < tonumber(pxat) then redis.call('PEXPIREAT', key, pxat) end
  end
end
`

// Appending to a stream, with the server's time in microseconds as id, or behind the last id if that is later.
const luaAppend = `
local clock = redis.call('TIME')
local us = string.format('%.0f', clock[1] * 1000000 + clock[2])
local function append(key, max, ...)
  local r = redis.pcall('XADD', key, 'MAXLEN', '~', max, us .. '-*', ...)
  if type(r) == 'table' and r.err then
    -- Not the last entry: a stream that was emptied goes on behind what it had.
    local info, last = redis.call('XINFO', 'STREAM', key), nil
    for i = 1, #info, 2 do
      if info[i] == 'last-generated-id' then last = info[i + 1] end
    end
    r = redis.call('XADD', key, 'MAXLEN', '~', max, last:match('^%d+') .. '-*', ...)
  end
  return r
end
`

// applyText makes the changes of one Apply, or none. KEYS: change log, events, then what the operations name. ARGV: sizes
// of the log and of the events, root and writer if the log is to be written, then for each operation its kind and
// arguments. Behind the version that a put expects may stand how the record that it replaces has to end. It answers "=" and the
// ends of the records that were replaced, "C" and the index of the operation that met another version, or "N" and that of
// a mark without its record.
const applyText = luaRecord + luaIndex + luaAppend + `
local logged, kept, root, writer = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local old, a, k, op, ends = {}, 5, 3, 0, '='
while a <= #ARGV do
  local kind = ARGV[a]
  if kind == 'E' then a = a + 2
  else
    local r = redis.call('GET', KEYS[k])
    old[op] = r
    if kind == 'P' then
      local want, have = ARGV[a + 1], '\0\0\0\0\0\0\0\0'
      if r then
        have = r:sub(31, 38)
        if #want > 8 then have = have .. r:sub(-40) end
        ends = ends .. r:sub(-40)
      end
      if have ~= want then return 'C' .. op end
      k = k + 1 + tonumber(ARGV[a + 4])
      a = a + 5
    else
      if not r then return 'N' .. op end
      k = k + 1
      a = a + 3
    end
  end
  op = op + 1
end
a, k, op = 5, 3, 0
while a <= #ARGV do
  local kind = ARGV[a]
  if kind == 'E' then
    append(KEYS[2], kept, 'e', ARGV[a + 1])
    a = a + 2
  elseif kind == 'P' then
    local r, pxat, indexes = ARGV[a + 2], ARGV[a + 3], tonumber(ARGV[a + 4])
    if old[op] then r = keepSeen(r, old[op]) end
    write(KEYS[k], r, old[op], pxat)
    if indexes > 0 then
      local id, tenant = r:sub(69, 85), r:sub(3, 6)
      redis.call('SADD', KEYS[k + 1], tenant)
      redis.call('ZADD', KEYS[k + 2], 0, id)
      if indexes > 2 then index(KEYS[k + 3], id, pxat) end
    end
    k = k + 1 + indexes
    a = a + 5
  else
    local r, at, reason = old[op], ARGV[a + 1], ARGV[a + 2]
    if r:sub(23, 30) == '\0\0\0\0\0\0\0\0' then
      local texts = 69 + r:byte(59) + struct.unpack('>I2', r, 60) + struct.unpack('>I2', r, 62)
      r = r:sub(1, 22) .. at .. plusOne(r:sub(31, 38)) .. r:sub(39, 63) .. string.char(#reason) ..
        r:sub(65, texts - 1) .. reason .. r:sub(texts)
      redis.call('SET', KEYS[k], r, 'KEEPTTL')
    end
    k = k + 1
    a = a + 3
  end
  op = op + 1
end
if root ~= '' then append(KEYS[1], logged, 'r', root, 'w', writer) end
return ends
`

var (
	applyScript = newScript(needsRoom, applyText)
	// reviseScript is applyScript for what makes no new record: it is taken when the server is full, too.
	reviseScript = newScript(evenFull, applyText)

	// indexScript notes a root that is not in its subject's group. KEYS: the subject's roots. ARGV: as of luaIndex.
	indexScript = newScript(needsRoom, luaIndex+`
index(KEYS[1], ARGV[1], ARGV[2])
return ''
`)

	// touchScript notes times of use. KEYS: records. ARGV: time and generation of each.
	touchScript = newScript(evenFull, luaRecord+`
for i, key in ipairs(KEYS) do
  local r = redis.call('GETRANGE', key, 22, 57)
  if #r == 36 and r:sub(1, 8) == '\0\0\0\0\0\0\0\0' then
    local at, gen = ARGV[2 * i - 1], ARGV[2 * i]
    local last, seen = r:sub(17, 24), r:sub(25, 36)
    if less(last, at) then last = at end
    if u32(gen, 1) > u32(seen, 1) then seen = gen .. at end
    if last .. seen ~= r:sub(17) then redis.call('SETRANGE', key, 38, last .. seen) end
  end
end
return ''
`)

	// getScript reads records with those of their roots' subjects. KEYS: records. ARGV: for each "", or, to have the record
	// of the subject that this root's names, the beginning of the records' keys. A subject that has no record
	// here is answered by the hash in its id alone: it may be in another group, or, while the slot moves, on another server,
	// where Redis says nothing of it (the old one gives an error, the new one an absent key).
	getScript = newScript(readsOnly, `
local out = {}
for i, key in ipairs(KEYS) do
  local r = redis.call('GET', key)
  if r and ARGV[i] ~= '' then
    local hash = r:sub(69 + r:byte(59) + struct.unpack('>I2', r, 60) + struct.unpack('>I2', r, 62) + r:byte(64) +
      struct.unpack('>I4', r, 65))
    if hash == '' then r = false
    else
      r = redis.pcall('GET', ARGV[i] .. '\255\255\255' .. hash) or hash
      if type(r) == 'table' then r = hash end
    end
  end
  out[i] = r
end
return out
`)

	// headScript reads when records were marked, and their versions. KEYS: records.
	headScript = newScript(readsOnly, `
local out = {}
for i, key in ipairs(KEYS) do out[i] = redis.call('GETRANGE', key, 22, 37) end
return out
`)

	// joinScript prepares a group and returns its layout and, if that is ours, the last ids of its change log and of its
	// events. Both have an entry then, so that there is a place to go on behind. KEYS: change log, events, layout. ARGV:
	// the layout.
	joinScript = newScript(evenFull, luaAppend+`
local layout = redis.call('GET', KEYS[3])
if layout and layout ~= ARGV[1] then return layout end
if not layout then redis.call('SET', KEYS[3], ARGV[1]) end
local function last(key)
  local e = redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1)
  if #e > 0 then return e[1][1] end
  return append(key, 1000, 'b', '')
end
return ARGV[1] .. ' ' .. last(KEYS[1]) .. ' ' .. last(KEYS[2])
`)

	// loadScript is store.Newer. KEYS: what is written to in any case, then of each record its key and those of its
	// indexes. ARGV: of each record itself, the end of its life, and the number of its indexes.
	loadScript = newScript(needsRoom, luaRecord+luaIndex+`
local k = 2
for a = 1, #ARGV, 3 do
  local r, pxat, indexes = ARGV[a], ARGV[a + 1], tonumber(ARGV[a + 2])
  local old = redis.call('GET', KEYS[k])
  if not old then write(KEYS[k], r, old, pxat)
  elseif lessUnsigned(old:sub(31, 38), r:sub(31, 38)) then write(KEYS[k], keepSeen(r, old), old, pxat)
  else
    local seen = keepSeen(old, r)
    if seen ~= old then write(KEYS[k], seen, old, pxat) end
  end
  if indexes > 0 then
    local id, tenant = r:sub(69, 85), r:sub(3, 6)
    redis.call('SADD', KEYS[k + 1], tenant)
    redis.call('ZADD', KEYS[k + 2], 0, id)
    if indexes > 2 then index(KEYS[k + 3], id, pxat) end
  end
  k = k + 1 + indexes
end
redis.call('SET', KEYS[1], '1')
return ''
`)
)

// layout is the version of how records are kept.
const layout = "1"
