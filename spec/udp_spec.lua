local child = require 'spec.support.child'

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

  it('that comes together with a datagram is nothing that it complains about either', function()
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
  end)
end)
