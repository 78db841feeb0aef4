--- Many clients at once, in a process of their own: port, fingerprints (with commas), how many. Says when every one of them has had
--- its echo, and then waits to be killed; says which failed.

local uv = require 'luv'
local dtls = require 'dtls'

local port, count, fingerprints = tonumber(arg[1]), tonumber(arg[3]), {}
for each in arg[2]:gmatch '[^,]+' do fingerprints[#fingerprints + 1] = each end
local context = assert(dtls.createContext('client', { fingerprint = fingerprints }))
local patience = tonumber(os.getenv 'SPEC_PATIENCE' or nil) or 1
local echoed = 0
io.stdout:setvbuf 'line'
for i = 1, count do
  local text = 'client ' .. i
  local conn = assert(dtls.connect { host = '127.0.0.1', port = port, context = context, handshakeTimeout = 30000 * patience })
  conn:on('connection', function() assert(conn:send(text)) end)
  conn:on('message', function(data)
    assert(data == text)
    echoed = echoed + 1
    if echoed == count then print('all', echoed) end
  end)
  conn:on('error', function(err) print('failed', tostring(err)) end)
end
uv.run()
