-- What comes to the socket of a new peer before it is connected, when the kernel gives it everybody's datagrams.

local child = require 'spec.support.child'
local hello = require 'spec.support.hello'

local build = os.getenv 'DTLS_BUILD' or 'build'

-- A client says hello and gets its echo while the intruder sends `datagram` in between: what is printed.
local function play(datagram, report)
  local stdout, stderr, status = child.run(([[
    local uv, dtls = require 'luv', require 'dtls'
    local identity = dtls.selfSigned()
    local server = dtls.createServer { cert = identity.cert, key = identity.key, demux = 'connected' }
    assert(server:listen(0, '127.0.0.1'))
    local accepted
    server:on('connection', function(conn)
      accepted = conn
      conn:on('message', function(data) conn:send(data) end)
    end)
    local conn = dtls.connect { host = '127.0.0.1', port = server:address().port, fingerprint = identity.fingerprint }
    conn:on('connection', function() conn:send 'echo' end)
    conn:on('message', function() conn:close() end)
    conn:on('close', function() server:close() end)
    uv.run()
    io.stdout:write('messages: ', accepted:stats().messagesIn, '\n')
    %s
    io.stdout:flush()]]):format(report), build .. '/faults/intruder.so', {
      DTLS_INTRUDER = datagram:gsub('.', function(byte) return ('%02x'):format(byte:byte()) end),
    })
  assert.same({ '', 0 }, { stderr, status })
  return stdout
end

describe('a datagram of a third party in the socket of a new peer', function()
  it('is the third party\'s: a hello is answered to it', function()
    local stdout = play(hello.build(), [[assert(server:stats().cookiesSent == 2 and server:stats().accepted == 1)]])
    local answer = stdout:match '^messages: 1\n(%x+)\n$'
    assert.truthy(answer, stdout)
    assert.equal('16feff', answer:sub(1, 6)) -- a handshake record
    assert.equal('03', answer:sub(27, 28)) -- HelloVerifyRequest
  end)

  it('does not count as the peer\'s, whatever it is', function()
    local forged = '\23\254\253\0\1\0\0\0\0\0\9\0\32' .. ('x'):rep(32)
    local stdout = play(forged, [[
      local drops = accepted:stats().drops
      drops.replay = nil -- a slow machine repeats flights
      print(server:stats().drops.stranger, next(drops))]])
    assert.equal('messages: 1\n1\tnil\n', stdout)
  end)
end)
