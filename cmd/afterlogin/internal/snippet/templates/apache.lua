-- What Apache asks afterlogin with, for {{.Origin}}: mod_lua calls afterlogin(r) before anything of a request is served.
-- It lets a request pass only at its end, when afterlogin has said yes and every header is in its place; an error anywhere
-- is a 503.

local socket = require("socket")

local pages = "proxy:http://{{.Afterlogin}}/.afterlogin/"
local app = "proxy:http://{{.App}}"
local identity = { {{range $i, $h := .Identity}}{{if $i}}, {{end}}"{{$h}}"{{end}} }

-- Names of headers of a client that reach neither afterlogin nor the application, in lower case and with - for every other
-- character than letters and digits: much that reads X_Auth_Subject takes it for X-Auth-Subject.
local foreign = {
{{- range .Foreign}}
	["{{lower .}}"] = true,
{{- end}}
}
local function drop(name)
	name = name:lower():gsub("[^a-z0-9]", "-")
	return foreign[name] or name:find("^x%-auth") or name:find("^x%-webauth") or name:find("^x%-forwarded") or name == "x-real-ip"
end

-- Headers that say something of the connection or of the body, and none of that is the question's.
local kept = {
	["connection"] = true, ["content-length"] = true, ["expect"] = true, ["host"] = true, ["keep-alive"] = true,
	["te"] = true, ["trailer"] = true, ["transfer-encoding"] = true, ["upgrade"] = true,
}

-- Headers of an answer that are for the client.
local shown = {
	["cache-control"] = true, ["location"] = true, ["retry-after"] = true, ["strict-transport-security"] = true, ["vary"] = true, ["www-authenticate"] = true,
	["x-content-type-options"] = true,
}

local most_head, most_headers, most_body, most_seconds = 65536, 64, 65536, 10

-- The connection to afterlogin of this thread, kept from one question to the next.
local connection

-- within has the next thing that is done with a connection end at that time.
local function within(c, deadline)
	local left = math.min(deadline - socket.gettime(), most_seconds)
	assert(left > 0, "afterlogin: no answer in time")
	c:settimeout(left)
	c:settimeout(left, "t")
end

-- more returns what has come by now, at least a byte of it, or nil and why there is no more.
local function more(c, deadline)
	within(c, deadline)
	local first, err = c:receive(1)
	if first == nil then
		return nil, err
	end
	c:settimeout(0)
	local rest, _, partial = c:receive(8191)
	return first .. (rest or partial or "")
end

-- kept_alive returns the connection that was kept, unless it has ended or something has come that nobody asked for.
local function kept_alive()
	local c = connection
	connection = nil
	if c == nil then
		return nil
	end
	c:settimeout(0)
	local byte, err, partial = c:receive(1)
	if byte == nil and err == "timeout" and (partial == nil or partial == "") then
		return c
	end
	c:close()
	return nil
end

local function connected()
	local c = assert(socket.tcp())
	c:settimeout(5)
	local done, err = c:connect("{{.Afterlogin.Host}}", {{.Afterlogin.Port}})
	if not done then
		c:close()
		error("afterlogin: " .. tostring(err))
	end
	c:setoption("tcp-nodelay", true)
	return c
end

-- read returns status, headers and body of an answer, and whether the connection can be used again.
local function read(c, deadline, came)
	local head
	repeat
		head = came:find("\r\n\r\n", 1, true)
		assert((head or #came) <= most_head, "afterlogin: headers without an end")
		if head == nil then
			local data, err = more(c, deadline)
			assert(data, err)
			came = came .. data
		end
	until head
	local first, fields = came:sub(1, head + 1):match("^([^\r\n]*)\r\n(.*)$")
	local status = tonumber(first:match("^HTTP/1%.[01] (%d%d%d)"))
	assert(status and status >= 200 and status <= 599, "afterlogin: no answer of HTTP")
	local headers, count = {}, 0
	for line in fields:gmatch("([^\n]*)\n") do
		local name, value = line:match("^([%w%-_]+):[ \t]*([^%z\r\n]-)[ \t]*\r$")
		count = count + 1
		assert(name and count <= most_headers, "afterlogin: headers that are none")
		name = name:lower()
		headers[name] = headers[name] or {}
		table.insert(headers[name], value)
	end
	assert(headers["transfer-encoding"] == nil, "afterlogin: a body that is none")
	local length
	if status == 204 or status == 304 then
		length = 0
	elseif headers["content-length"] then
		local values = headers["content-length"]
		assert(#values == 1 and values[1]:find("^%d+$") and #values[1] < 10, "afterlogin: a length that is none")
		length = tonumber(values[1])
		assert(length <= most_body, "afterlogin: a body that is too long")
	end
	local body = came:sub(head + 4)
	while length == nil or #body < length do
		assert(#body <= most_body, "afterlogin: a body without an end")
		local data, err = more(c, deadline)
		if data == nil then
			assert(length == nil and err == "closed", "afterlogin: half an answer")
			break
		end
		body = body .. data
	end
	local says = headers["connection"]
	-- What comes behind the answer is none to the next question.
	local again = length ~= nil and #body == length and says ~= nil and #says == 1 and says[1]:lower() == "keep-alive"
	return status, headers, length and body:sub(1, length) or body, again
end

-- exchange asks, and returns status, headers and body of the answer, all of it within seconds.
local function exchange(question)
	local deadline = socket.gettime() + most_seconds
	local c = kept_alive()
	local fresh = c == nil
	c = c or connected()
	local came, err
	while true do
		within(c, deadline)
		local sent
		sent, err = c:send(question)
		if sent then
			came, err = more(c, deadline)
		end
		if came then break end
		c:close()
		-- afterlogin ends connections that nobody uses.
		if fresh or err ~= "closed" then
			error("afterlogin: " .. tostring(err))
		end
		fresh, c = true, connected()
	end
	local good, status, headers, body, again = pcall(read, c, deadline, came)
	if good and again then
		connection = c
	else
		c:close()
	end
	if not good then
		error(status, 0)
	end
	return status, headers, body
end

-- only returns the only value of a header, which matches the pattern.
local function only(headers, name, pattern)
	local values = headers[name:lower()]
	assert(values and #values == 1 and values[1]:find(pattern), "afterlogin: no " .. name)
	return values[1]
end

local function has_body(r)
	return r.headers_in["Transfer-Encoding"] ~= nil or (r.headers_in["Content-Length"] or "0") ~= "0"
end

-- answer gives the client the answer of afterlogin. What has a body that nobody has read must not leave it behind on the
-- connection, where it would be the next request.
local function answer(r, status, headers, body)
	for name, values in pairs(headers) do
		if shown[name] then
			r.err_headers_out[name] = table.concat(values, ", ")
		end
	end
{{- if .TLS}}
	if headers["strict-transport-security"] == nil then
		r.err_headers_out["Strict-Transport-Security"] = "max-age=63072000"
	end
{{- end}}
	r.status = status
	r.content_type = headers["content-type"] and headers["content-type"][1] or "text/plain; charset=utf-8"
	if has_body(r) then
		r.headers_out["Connection"] = "close"
	end
	if r.method ~= "HEAD" then
		r:write(body)
	end
	return apache2.DONE
end

local function judge(r)
	local lines = {}
	local connection_says = (r.headers_in["Connection"] or ""):lower()
	local target = r.unparsed_uri
	for name in pairs(r:headers_in_table()) do
		if drop(name) then
			r.headers_in[name] = nil
		end
	end
	-- Another host than this one is not judged as if it were this one.
	if r.hostname == nil or r.hostname:lower() ~= "{{.Name}}" then
		return 421
	end
	-- Connection names no other header: Apache would drop those it names, also what afterlogin says.
	if connection_says:find("close", 1, true) then
		r.headers_in["Connection"] = "close"
	elseif connection_says:find("keep-alive", 1, true) then
		r.headers_in["Connection"] = "keep-alive"
	else
		r.headers_in["Connection"] = nil
	end
	-- WebSocket is the only thing that a connection is upgraded to.
	if (r.headers_in["Upgrade"] or ""):lower() ~= "websocket" then
		r.headers_in["Upgrade"] = nil
	end

	-- It is where a request goes that says whether it has to be asked for, and what goes to the application has to be what
	-- was judged.
	if r.filename:sub(1, #pages) == pages then
		return apache2.OK
	end
	if target:sub(1, 1) ~= "/" or r.filename ~= app .. target then
		return 400
	end

	for name, value in pairs(r:headers_in_table()) do
		if not kept[name:lower()] then
			assert(not value:find("[\r\n%z]"), "a header with a line in it")
			table.insert(lines, name .. ": " .. value)
		end
	end
	local question = "GET /forward-auth HTTP/1.0\r\nConnection: keep-alive\r\nHost: {{.Authority}}\r\n"
		.. "X-Forwarded-Method: " .. r.method .. "\r\nX-Forwarded-Uri: " .. target .. "\r\n"
		.. "X-Forwarded-Host: {{.Authority}}\r\nX-Forwarded-Proto: {{.Scheme}}\r\nX-Forwarded-For: " .. r.useragent_ip .. "\r\n"
		.. table.concat(lines, "\r\n") .. (#lines > 0 and "\r\n" or "") .. "\r\n"
	local status, headers, body = exchange(question)
	if status > 299 then
		return answer(r, status, headers, body)
	end

	-- Half an answer is none: every header once, and in it what may be in a header.
	for _, name in ipairs(identity) do
		r.headers_in[name] = only(headers, name, name == "X-Auth-Scopes" and "^[ -~]+$" or "^[!-~]+$")
	end
	-- What is left of the credentials: cookies of the application, and an Authorization that is not for afterlogin.
	local cookie, authorization = only(headers, "X-Auth-Cookie", ""), only(headers, "X-Auth-Authorization", "")
	r.headers_in["Cookie"] = cookie ~= "" and cookie or nil
	r.headers_in["Authorization"] = authorization ~= "" and authorization or nil
	r.headers_in["X-Api-Key"] = nil
	return apache2.OK
end

-- afterlogin is called once for a request; judged for whatever Apache makes of it, too.
function afterlogin(r)
	local done, verdict = pcall(judge, r)
	if not done then
		r:err(tostring(verdict))
		r.err_headers_out["Retry-After"] = "1"
		return 503
	end
	if verdict == apache2.OK then
		r.notes["afterlogin"] = "judged"
	end
	return verdict
end

function judged(r)
	if r.notes["afterlogin"] ~= "judged" then
		return 403
	end
	return apache2.DECLINED
end
