-- Sends three messages to echo_server.lua:  luvit echo_client.lua host port fingerprint

local dtls = require 'dtls'

-- luvit has its command line, itself included, in `args`; luajit has the script's in `arg`.
local luvit = rawget(_G, 'args')
local uv = require(luvit and 'uv' or 'luv')
local host, port, fingerprint = unpack(luvit or arg, luvit and 2 or 1)

local function fail(err)
  io.stderr:write('echo_client: ', tostring(err), '\n')
  os.exit(1)
end

if not fingerprint then fail 'usage: echo_client.lua host port fingerprint' end

local messages = { 'one', 'two', 'three' }

local conn, err = dtls.connect { host = host, port = tonumber(port), fingerprint = fingerprint, timeout = 5000 }
if not conn then fail(err) end

local function sendNext()
  local message = table.remove(messages, 1)
  if not message then return conn:close() end
  print('sent: ' .. message)
  conn:send(message)
end

conn:on('connection', function()
  print(('connected: %s, %s'):format(conn:getProtocol(), conn:getCipher().name))
  sendNext()
end)
conn:on('message', function(data)
  print('received: ' .. data)
  sendNext()
end)
conn:on('timeout', function() fail 'no answer; datagrams can get lost, DTLS does not repeat them' end)
conn:on('error', fail)
conn:on('close', function() print 'closed' end)

if not luvit then uv.run() end -- luvit does it by itself
