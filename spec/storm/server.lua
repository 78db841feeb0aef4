--- An echo server in a process of its own. Prints its port and fingerprint; for every line on stdin, what it has lived through.

local uv = require 'luv'
local dtls = require 'dtls'

local pair = assert(dtls.selfSigned())
local server = assert(dtls.createServer {
  cert = pair.cert, key = pair.key, demux = arg[1], handshakeTimeout = 30000 * (tonumber(os.getenv 'SPEC_PATIENCE' or nil) or 1),
})
server:on('connection', function(conn)
  conn:on('message', function(data) conn:send(data) end)
end)
assert(server:listen(0, '127.0.0.1'))
io.stdout:setvbuf 'line'
print('listening', server:address().port, pair.fingerprint)

local input = uv.new_pipe(false)
input:open(0)
input:read_start(function(_, data)
  if not data then
    input:close()
    return server:destroy()
  end
  local stats = server:stats()
  print('stats', stats.connections, stats.replaced, stats.handshaking)
end)
uv.run()
