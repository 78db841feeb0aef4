local child = require 'spec.support.child'
local needs = require('spec.support.platform').needs

local build = os.getenv 'DTLS_BUILD' or 'build'

local echo = [[
local uv = require 'luv'
local dtls = require 'dtls'
local pair = assert(dtls.selfSigned())
local server = assert(dtls.createServer { cert = pair.cert, key = pair.key, demux = '%s' })
server:on('connection', function(conn) conn:on('message', function(data) conn:send(data) end) end)
assert(server:listen(0, '127.0.0.1'))
local conn = assert(dtls.connect { host = '127.0.0.1', port = server:address().port, fingerprint = pair.fingerprint })
conn:on('connection', function() conn:send 'hello' end)
conn:on('message', function(data)
  print(data)
  conn:close()
end)
conn:on('close', function() server:close() end)
uv.run()
]]

describe('a batch of datagrams', function()
  it('is read one by one where there is no recvmmsg', function()
    local output, errors, status = child.run(echo:format 'shared', build .. '/host/no_recvmmsg.so')
    assert.equal('', errors)
    assert.equal('hello\n', output)
    assert.equal(0, status)
  end)
end)

describe('an ICMP error', function()
  for _, demux in ipairs { 'connected', 'shared' } do
    it(('of whatever kind does not end an open connection (%s sockets)'):format(demux), function()
      -- Every second read reports one: EACCES, ENONET, EPROTO, …
      local output, errors, status = child.run(echo:format(demux), build .. '/host/icmp_errors.so')
      assert.equal('', errors)
      assert.equal('hello\n', output)
      assert.equal(0, status)
    end)
  end

  it('is an error of the connection and nothing that the event loop complains about', function()
    local output, errors, status = child.run [[
      local uv, dtls = require 'luv', require 'dtls'
      local unused = uv.new_udp()
      unused:bind('127.0.0.1', 0)
      local port = unused:getsockname().port
      unused:close()
      local conn = dtls.connect { host = '127.0.0.1', port = port, psk = { identity = 'me', key = 'secret' }, retransmitTimeout = 100 }
      conn:on('error', function(err) print(err.code) end)
      uv.run()
    ]]
    assert.equal('', errors)
    assert.equal('ECONNREFUSED\n', output)
    assert.equal(0, status)
  end)

  it('that comes together with a datagram is nothing that the event loop complains about', needs('error_events', function()
    local output, errors, status = child.run [[
      local uv, dtls = require 'luv', require 'dtls'
      local pair = assert(dtls.selfSigned())
      local server, accepted = assert(dtls.createServer { cert = pair.cert, key = pair.key, demux = 'shared' }), nil
      assert(server:listen(0, '127.0.0.1'))
      server:on('connection', function(conn) accepted = conn end)
      local conn = assert(dtls.connect { host = '127.0.0.1', port = server:address().port, fingerprint = pair.fingerprint })
      conn:on('connection', function()
        local timer = uv.new_timer() -- outside of reading
        timer:start(0, 0, function()
          timer:close()
          assert(accepted:send 'the last one')
          server:destroy()
          assert(conn:send 'is anybody there?')
        end)
      end)
      conn:on('message', function(text)
        print(text)
        conn:destroy()
      end)
      uv.run()
    ]]
    assert.equal('', errors)
    assert.equal('the last one\n', output)
    assert.equal(0, status)
  end))

  for _, demux in ipairs { 'connected', 'shared' } do
    it(('does not keep the loop busy when a given socket queues them (%s sockets)'):format(demux), needs('error_events', function()
      local output, errors, status = child.run(([[
        local ffi, uv, dtls, core = require 'ffi', require 'luv', require 'dtls', require 'dtls.core'
        local hello = require 'spec.support.hello'
        ffi.cdef 'int setsockopt(int fd, int level, int name, const void *value, unsigned size);'
        local IPPROTO_IP, IP_RECVERR = 0, 11
        local identity, udp, stranger = assert(dtls.selfSigned()), uv.new_udp 'inet', uv.new_udp 'inet'
        udp:bind('127.0.0.1', 0)
        assert(ffi.C.setsockopt(core.fd(udp), IPPROTO_IP, IP_RECVERR, ffi.new('int[1]', 1), 4) == 0)
        local server = assert(dtls.createServer { cert = identity.cert, key = identity.key, demux = '%s' })
        local dispatch, dispatched = server._dispatch, 0
        function server:_dispatch()
          dispatched = dispatched + 1
          return dispatch(self)
        end
        assert(server:listen(udp))
        stranger:bind('127.0.0.1', 0)
        stranger:try_send(hello.build(), '127.0.0.1', udp:getsockname().port)
        stranger:close() -- the answer meets a closed port
        repeat uv.run 'once' until server:stats().cookiesSent == 1
        for _ = 1, 100 do uv.run 'nowait' end
        print(dispatched > 0 and dispatched < 10)
        server:close()
        udp:close()
        uv.run()
      ]]):format(demux))
      assert.equal('', errors)
      assert.equal('true\n', output)
      assert.equal(0, status)
    end))
  end
end)
