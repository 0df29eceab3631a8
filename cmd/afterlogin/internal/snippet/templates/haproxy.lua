-- What HAProxy asks afterlogin with: the action lua.afterlogin of haproxy.cfg, with the way to afterlogin, which is a
-- socket of HAProxy itself. One file serves any number of frontends. It sets txn.afterlogin to yes only at its end, when afterlogin has
-- said yes and every header is in its place; haproxy.cfg lets nothing pass without that.

local identity = { {{range $i, $h := .Identity}}{{if $i}}, {{end}}"{{$h}}"{{end}} }
local rest = { {{range $i, $h := .Rest}}{{if $i}}, {{end}}"{{$h}}"{{end}} }

-- Headers that say something of the connection or of the body, and none of that is the question's.
local kept = {
	["connection"] = true, ["content-length"] = true, ["expect"] = true, ["host"] = true, ["keep-alive"] = true,
	["te"] = true, ["trailer"] = true, ["transfer-encoding"] = true, ["upgrade"] = true,
}

-- Headers of an answer that are for the client.
local shown = { "cache-control", "content-type", "location", "retry-after", "strict-transport-security", "vary", "www-authenticate", "x-content-type-options" }

-- first returns the only value of a header, nil if there is none or several.
local function first(headers, name)
	local values = headers and headers[string.lower(name)]
	if values == nil or values[0] == nil or values[1] ~= nil then
		return nil
	end
	return values[0]
end

local function answer(txn, status, headers, body)
	local reply = txn:reply({ status = status })
	for _, name in ipairs(shown) do
		local values = headers and headers[name]
		local i = 0
		while values ~= nil and values[i] ~= nil do
			reply:add_header(name, values[i])
			i = i + 1
		end
	end
	if body ~= nil and body ~= "" then
		reply:set_body(body)
	end
	txn:done(reply)
end

core.register_action("afterlogin", { "http-req" }, function(txn, way)
	local headers = {}
	for name, values in pairs(txn.http:req_get_headers()) do
		if not kept[name] then
			headers[name] = values
		end
	end
	headers["host"] = txn.f:req_fhdr("host")
	headers["x-forwarded-method"] = txn.f:method()
	headers["x-forwarded-uri"] = txn.f:pathq()
	local values = {}
	for name, value in pairs(headers) do
		if type(value) ~= "table" then
			value = { [0] = value }
		end
		-- The client of HAProxy counts from one where its headers are counted from nought.
		values[name] = {}
		local i = 0
		while value[i] ~= nil do
			values[name][i + 1] = value[i]
			i = i + 1
		end
	end
	local response = core.httpclient():get({
		url = "http://127.0.0.1/forward-auth", dst = way, headers = values, timeout = 20000,
	})
	local status = response and response.status
	if status == nil or status < 200 or status > 599 then
		return answer(txn, 503, nil, nil)
	end
	if status > 299 then
		return answer(txn, status, response.headers, response.body)
	end

	-- Half an answer is none: every header once, and in it what may be in a header.
	local said = {}
	for _, name in ipairs(identity) do
		local value = first(response.headers, name)
		if value == nil or not value:find(name == "X-Auth-Scopes" and "^[ -~]+$" or "^[!-~]+$") then
			return answer(txn, 503, nil, nil)
		end
		said[name] = value
	end
	for _, name in ipairs(rest) do
		local value = first(response.headers, name)
		if value == nil or value:find("[%z\r\n]") then
			return answer(txn, 503, nil, nil)
		end
		said[name] = value
	end
	for _, name in ipairs(identity) do
		txn.http:req_set_header(name, said[name])
	end
	-- What is left of the credentials: cookies of the application, and an Authorization that is not for afterlogin.
	for name, from in pairs({ ["cookie"] = "X-Auth-Cookie", ["authorization"] = "X-Auth-Authorization" }) do
		txn.http:req_del_header(name)
		if said[from] ~= "" then
			txn.http:req_set_header(name, said[from])
		end
	end
	txn.http:req_del_header("x-api-key")
	txn:set_var("txn.afterlogin", "yes")
end, 1)
