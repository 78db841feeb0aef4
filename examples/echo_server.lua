-- Sends back what it gets, until Ctrl-C:  luvit echo_server.lua [port [host]]
-- luajit works as well, see examples/echo_client.lua for the other side.

local dtls = require 'dtls'

-- luvit has its command line, itself included, in `args`; luajit has the script's in `arg`.
local luvit = rawget(_G, 'args')
local uv = require(luvit and 'uv' or 'luv')
local port, host = unpack(luvit or arg, luvit and 2 or 1)

local function check(value, err)
  if value then return value end
  io.stderr:write('echo_server: ', tostring(err), '\n')
  os.exit(1)
end

-- There is no connection when not even a socket could be had for it.
local function name(conn)
  if not conn then return 'a client' end
  local address = conn:remoteAddress()
  return address.ip .. ' port ' .. address.port
end

io.stdout:setvbuf 'line'

-- A certificate for this run. The client is told its fingerprint and trusts no other.
local identity = check(dtls.selfSigned())
local server = check(dtls.createServer { cert = identity.cert, key = identity.key })

server:on('connection', function(conn)
  print('connected: ' .. name(conn))
  conn:on('message', function(data) conn:send(data) end)
  conn:on('error', function(err) print(name(conn) .. ': ' .. err.message) end)
  conn:on('close', function() print('closed: ' .. name(conn)) end)
end)
server:on('clientError', function(err, conn) print(name(conn) .. ' did not get in: ' .. err.message) end)

check(server:listen(tonumber(port or 4433), host or '127.0.0.1'))
local address = server:address()
print(('listening; talk to it with: echo_client.lua %s %d %s'):format(address.ip, address.port, identity.fingerprint))

local interrupt = uv.new_signal()
interrupt:start('sigint', function()
  interrupt:close()
  server:close(function() print 'closed' end)
end)

if not luvit then uv.run() end -- luvit does it by itself
