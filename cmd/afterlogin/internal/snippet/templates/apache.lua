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
	["cache-control"] = true, ["location"] = true, ["retry-after"] = true, ["vary"] = true, ["www-authenticate"] = true,
	["x-content-type-options"] = true,
}

local most_headers, most_line, most_body = 64, 65536, 65536

-- The connection to afterlogin of this thread, kept from one question to the next.
local connection

local function exchange(question)
	local fresh = connection == nil
	if fresh then
		local c = assert(socket.tcp())
		c:settimeout(5)
		assert(c:connect("{{.Afterlogin.Host}}", {{.Afterlogin.Port}}))
		c:setoption("tcp-nodelay", true)
		c:settimeout(10)
		connection = c
	end
	local c = connection
	connection = nil -- it is kept only if all goes well
	local line
	local sent, err = c:send(question)
	if sent then
		line, err = c:receive("*l")
	end
	if line == nil then
		c:close()
		-- afterlogin ends connections that nobody uses.
		if not fresh and err == "closed" then
			return exchange(question)
		end
		error("afterlogin: " .. tostring(err))
	end
	local status = tonumber(line:match("^HTTP/1%.[01] (%d%d%d)"))
	assert(status and status >= 200 and #line < most_line, "afterlogin: no answer of HTTP")
	local headers, count, size = {}, 0, 0
	while true do
		line, err = c:receive("*l")
		assert(line, err)
		if line == "" then break end
		local name, value = line:match("^([%w%-_]+):[ \t]*(.-)[ \t]*$")
		count, size = count + 1, size + #line
		assert(name and count <= most_headers and size <= most_line, "afterlogin: headers that are none")
		name = name:lower()
		headers[name] = headers[name] or {}
		table.insert(headers[name], value)
	end
	local length = tonumber(headers["content-length"] and headers["content-length"][1])
	assert(headers["transfer-encoding"] == nil and (length == nil or length <= most_body), "afterlogin: a body that is none")
	local body = ""
	if status == 204 or status == 304 then
		length = 0
	end
	if length == nil then
		local rest, partial
		rest, err, partial = c:receive(most_body)
		assert(err == "closed", "afterlogin: a body without an end")
		body = rest or partial
	elseif length > 0 then
		body = assert(c:receive(length))
	end
	local keep = headers["connection"] and headers["connection"][1]:lower()
	if length ~= nil and keep == "keep-alive" then
		connection = c
	else
		c:close()
	end
	return status, headers, body
end

-- only returns the only value of a header.
local function only(headers, name)
	local values = headers[name:lower()]
	assert(values and #values == 1, "afterlogin: no " .. name)
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
	-- Another host than this one is not judged as if it were this one.
	if r.hostname == nil or r.hostname:lower() ~= "{{.Name}}" then
		return 421
	end
	local lines = {}
	local connection_says = (r.headers_in["Connection"] or ""):lower()
	local target = r.unparsed_uri
	for name in pairs(r:headers_in_table()) do
		if drop(name) then
			r.headers_in[name] = nil
		end
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

	for _, name in ipairs(identity) do
		r.headers_in[name] = only(headers, name)
	end
	-- What is left of the credentials: cookies of the application, and an Authorization that is not for afterlogin.
	local cookie, authorization = only(headers, "X-Auth-Cookie"), only(headers, "X-Auth-Authorization")
	r.headers_in["Cookie"] = cookie ~= "" and cookie or nil
	r.headers_in["Authorization"] = authorization ~= "" and authorization or nil
	r.headers_in["X-Api-Key"] = nil
	return apache2.OK
end

function afterlogin(r)
	local judged, verdict = pcall(judge, r)
	if not judged then
		r:err(tostring(verdict))
		return 503
	end
	return verdict
end
