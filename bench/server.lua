--- The server of the benchmarks: what bench/peers/reference.c does, in Lua with this module.
---
---   luajit bench/server.lua CERT KEY MODE [shared|connected]         MODE: echo, push, pull, as in load.c
---
--- Prints its port; each line on its standard input prints "CPU seconds, resident bytes".

local uv = require 'luv'
local dtls = require 'dtls'

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

local input, output = uv.new_pipe(false), uv.new_pipe(false)
input:open(0)
output:open(1)

local cert, key, mode, demux = unpack(arg)
local server = assert(dtls.createServer({ cert = contents(cert), key = contents(key), demux = demux, mtu = 1472 }, modes[mode]))
assert(server:listen(0, '127.0.0.1'))
output:write(server:address().port .. '\n')
input:read_start(function(_, line)
  if not line then os.exit(0) end
  local usage = uv.getrusage()
  local seconds = usage.utime.sec + usage.stime.sec + (usage.utime.usec + usage.stime.usec) / 1e6
  output:write(('%.6f %d\n'):format(seconds, uv.resident_set_memory()))
end)
uv.run()
