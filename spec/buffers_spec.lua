--- The kernel's socket buffers: the sizes that the options ask for and the kernel gives, and the messages that find
--- no room.

local uv = require 'luv'
local dtls = require 'dtls'
local loop = require 'spec.support.loop'
local pair = require 'spec.support.pair'
local needs = require('spec.support.platform').needs

local BURST = 300
local SMALL = 4096 -- room for about ten datagrams, and so for a handshake

local function limit(name)
  local file = assert(io.open('/proc/sys/net/core/' .. name))
  local value = tonumber(file:read '*l')
  file:close()
  return value
end

-- What getsockopt(2) returns after so many bytes were asked for: Linux counts its own overhead, too (socket(7),
-- SO_RCVBUF).
local function given(asked, max) return 2 * math.min(asked, limit(max)) end

-- Sends a burst of messages without a turn of the loop, so that the receiver reads none of them meanwhile. Each is longer than the one
-- before, so that none leaves in one run with others (UDP GSO), which the kernel would count as one when it drops it (UDP GRO).
local function burst(from)
  for i = 1, BURST do assert(from:send(('x'):rep(i))) end
end

-- Waits until every message of a burst has been read or counted.
local function settled(reader, counter)
  loop.till(function()
    return reader:stats().messagesIn + (counter:stats().drops.overflow or 0) == BURST
  end, 'each message to be read or counted')
  return counter:stats().drops.overflow
end

pair.eachStrategy(function(demux)
  local ownSockets = demux == 'connected' and 'epoll'

  describe('a burst that does not fit a server\'s receive buffer', function()
    it('loses the messages that drops.overflow counts, and no others', needs('drop_count', loop.run(function()
      local server = pair.listening { demux = demux, recvBufferSize = SMALL }
      local conn, accepted = pair.open(server)
      assert.is_nil(server:stats().drops.overflow)
      burst(conn)
      local lost = settled(accepted, server)
      assert.is_true(lost > BURST / 2)
      assert.equal(demux == 'connected' and lost or nil, accepted:stats().drops.overflow)
      pair.close(accepted)
      assert.equal(demux == 'connected' and lost or nil, accepted:stats().drops.overflow)
      assert.equal(lost, server:stats().drops.overflow)
      pair.close(conn, server)
      assert.equal(lost, server:stats().drops.overflow)
    end)))

    it('is counted once, also when stats() is first called after the connection has closed', needs('drop_count', loop.run(function()
      local server = pair.listening { demux = demux, recvBufferSize = SMALL }
      local conn, accepted = pair.open(server)
      burst(conn)
      local heard = 0
      accepted:on('message', function() heard = heard + 1 end)
      pair.close(conn) -- close_notify may be lost, too
      pair.close(accepted)
      loop.till(function() return heard > 0 and server:stats().drops.overflow end, 'the counter')
      assert.is_true(server:stats().drops.overflow >= BURST - heard)
      assert.is_true(server:stats().drops.overflow <= BURST - heard + 1)
      pair.close(server)
    end)))
  end)

  describe('the buffers of a server', function()
    it('are as large as the options ask for, also in the sockets of its peers', needs(ownSockets, loop.run(function()
      local server = pair.listening { demux = demux, recvBufferSize = 50000, sendBufferSize = 60000 }
      local conn, accepted = pair.open(server)
      local own, peers = server:stats(), accepted:stats()
      assert.equal(given(50000, 'rmem_max'), own.recvBufferSize)
      assert.equal(given(60000, 'wmem_max'), own.sendBufferSize)
      assert.equal(demux == 'connected' and own.recvBufferSize or nil, peers.recvBufferSize)
      assert.equal(demux == 'connected' and own.sendBufferSize or nil, peers.sendBufferSize)
      pair.close(conn, server)
      assert.equal(own.recvBufferSize, server:stats().recvBufferSize)
      assert.equal(peers.recvBufferSize, accepted:stats().recvBufferSize)
    end)))

    it('are asked for as 4 MB in the listening socket, which gets all hellos, and not for each peer', needs(ownSockets, loop.run(function()
      local server = pair.listening { demux = demux }
      local conn, accepted = pair.open(server)
      assert.equal(given(4 * 1024 * 1024, 'rmem_max'), server:stats().recvBufferSize)
      assert.equal(demux == 'connected' and limit 'rmem_default' or nil, accepted:stats().recvBufferSize)
      pair.close(conn, server)
    end)))
  end)

  describe('a socket that lost datagrams before it was given to a server', function()
    it('adds no earlier loss to the server\'s drops.overflow', loop.run(function()
      local udp, other = uv.new_udp(), uv.new_udp()
      assert(udp:bind('127.0.0.1', 0))
      assert(uv.recv_buffer_size(udp, 1) == 0)
      local port = udp:getsockname().port
      for _ = 1, BURST do assert(other:try_send('lost', '127.0.0.1', port)) end
      assert(uv.recv_buffer_size(udp, 50000) == 0)
      local server = pair.server { demux = demux }
      assert(server:listen(udp))
      server.ip, server.port = '127.0.0.1', port
      local conn = pair.open(server)
      assert.is_nil(server:stats().drops.overflow)
      assert.equal(given(50000, 'rmem_max'), server:stats().recvBufferSize)
      pair.close(conn, server)
      udp:close()
      other:close()
    end))
  end)
end)

describe('a burst that does not fit a client\'s receive buffer', function()
  it('loses the messages that drops.overflow counts, and no others', needs('drop_count', loop.run(function()
    local server = pair.listening()
    local conn, accepted = pair.open(server, nil, { recvBufferSize = SMALL })
    burst(accepted)
    local lost = settled(conn, conn)
    assert.is_true(lost > BURST / 2)
    pair.close(conn)
    assert.equal(lost, conn:stats().drops.overflow)
    pair.close(server)
  end)))
end)

describe('the buffers of a client', function()
  it('are as large as the options ask for', loop.run(function()
    local server = pair.listening()
    local conn = pair.open(server, nil, { recvBufferSize = 50000, sendBufferSize = 60000 })
    assert.equal(given(50000, 'rmem_max'), conn:stats().recvBufferSize)
    assert.equal(given(60000, 'wmem_max'), conn:stats().sendBufferSize)
    local other = pair.open(server)
    assert.equal(limit 'rmem_default', other:stats().recvBufferSize)
    pair.close(conn, other, server)
    assert.equal(given(50000, 'rmem_max'), conn:stats().recvBufferSize)
  end))

  it('cannot be set by options when the caller brings the handle', loop.run(function()
    local udp = uv.new_udp()
    assert(udp:bind('127.0.0.1', 0))
    for _, option in ipairs { 'recvBufferSize', 'sendBufferSize' } do
      local conn, err = dtls.connect {
        handle = udp, host = '127.0.0.1', port = 1, fingerprint = pair.identity.fingerprint, [option] = 50000,
      }
      assert.is_nil(conn)
      assert.equal('ERR_DTLS_CONFIG', err.code)
      assert.truthy(err.message:find(option, 1, true), err.message)
    end
    udp:close()
  end))
end)
