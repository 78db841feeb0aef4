--- The server of the benchmarks: what bench/peers/reference.c does, in Lua with this module.
---
---   luajit bench/server.lua CERT KEY MODE shared|connected [PORT]         MODE: echo, push, pull, psk, as in load.c
---
--- With a port, or 0 for any, others can share it.

package.path = 'bench/?.lua;' .. package.path

local uv = require 'luv'
local dtls = require 'dtls'
local answer = require 'answer'

local function contents(path)
  local file = assert(io.open(path))
  local text = file:read '*a'
  file:close()
  return text
end

local modes = {}

function modes.echo(conn)
  conn:on('message', function(data) conn:send(data) end)
end

modes.psk = modes.echo

function modes.push(conn)
  local count = 0
  conn:on('message', function(data)
    count = count + 1
    if count % 64 == 0 then conn:send(data:sub(1, 1)) end
  end)
end

function modes.pull(conn)
  conn:on('message', function(data)
    for _ = 1, tonumber(data:match '%d+') do conn:send(data) end
  end)
end

local cert, key, mode, demux, port = unpack(arg)
local server = assert(dtls.createServer({
  cert = contents(cert), key = contents(key), psk = mode == 'psk' and { bench = ('k'):rep(16) } or nil, demux = demux, mtu = 1472,
  maxHandshakes = 16384, reusePort = port ~= nil, cookieSecret = ('bench'):rep(8),
}, modes[mode]))
assert(server:listen(tonumber(port or 0), '127.0.0.1'))
answer(server:address().port)
uv.run()
