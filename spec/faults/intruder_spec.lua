-- What comes to the socket of a new peer before it is connected, when the kernel gives it everybody's datagrams; and what the
-- kernel looked up then and queues in it afterwards.

local child = require 'spec.support.child'
local hello = require 'spec.support.hello'
local needs = require('spec.support.platform').needs

local build = os.getenv 'DTLS_BUILD' or 'build'

-- A client says hello and gets its echo while the intruder sends `datagram` in between: what is printed. `late`: it is
-- queued only after the socket was emptied for the first time. `options`: the client's, in Lua.
local function play(datagram, late, report, options)
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
    local options = { host = '127.0.0.1', port = server:address().port, fingerprint = identity.fingerprint }
    for name, value in pairs(%s) do options[name] = value end
    local conn = dtls.connect(options)
    conn:on('connection', function() conn:send 'echo' end)
    conn:on('message', function() conn:close() end)
    conn:on('close', function() server:close() end)
    uv.run()
    io.stdout:write('messages: ', accepted:stats().messagesIn, '\n')
    %s
    io.stdout:flush()]]):format(options or '{}', report), build .. '/faults/intruder.so', {
      DTLS_INTRUDER = datagram:gsub('.', function(byte) return ('%02x'):format(byte:byte()) end),
      DTLS_INTRUDER_LATE = late and '1' or nil,
    })
  assert.same({ '', 0 }, { stderr, status })
  return stdout
end

local forged = '\23\254\253\0\1\0\0\0\0\0\9\0\32' .. ('x'):rep(32)

for _, late in ipairs { false, true } do
  local when = late and 'queued after connect' or 'before connect'
  describe(('a datagram of a third party in the socket of a new peer (%s)'):format(when), function()
    it('is the third party\'s: a hello is answered to it', needs('epoll', function()
      local stdout = play(hello.build(), late, [[assert(server:stats().cookiesSent >= 2 and server:stats().accepted == 1)]])
      local answer = stdout:match '^messages: 1\n(%x+)\n$'
      assert.truthy(answer, stdout)
      assert.equal('16feff', answer:sub(1, 6)) -- a handshake record
      assert.equal('03', answer:sub(27, 28)) -- HelloVerifyRequest
    end))

    it('does not count as the peer\'s, whatever it is', needs('epoll', function()
      local stdout = play(forged, late, [[
        local drops = accepted:stats().drops
        drops.replay = nil -- a slow machine repeats flights
        print(server:stats().drops.stranger >= 1, next(drops))]])
      assert.equal('messages: 1\ntrue\tnil\n', stdout)
    end))
  end)
end

describe('a datagram of a third party in the socket of a client', function()
  it('is dropped, and counted as a stranger\'s', function()
    local stdout = play(forged, true, [[
      local drops = conn:stats().drops
      print(drops.stranger, next(drops, next(drops)))]], [[{ localAddress = '127.0.0.1' }]])
    assert.equal('messages: 1\n1\tnil\n', stdout)
  end)
end)
