-- Our server and clients of other implementations.

local dtls = require 'dtls'
local interop = require 'spec.support.interop'
local loop = require 'spec.support.loop'
local peers = require 'spec.support.peers'
local pki = require 'spec.support.pki'
local proxy = require 'spec.support.proxy'
local raw = require 'spec.support.raw'
local needs = require('spec.support.platform').needs

local suites = { ec = 'ECDHE-ECDSA-AES128-GCM-SHA256', rsa = 'ECDHE-RSA-AES128-GCM-SHA256' }

describe('our server', function()
  local files, identities

  setup(function()
    files = pki.new()
    identities = {
      ec = files:store('ec', assert(dtls.selfSigned { type = 'ec' })),
      rsa = files:certificate('rsa', { type = 'rsa' }),
    }
  end)

  teardown(function() files:remove() end)

  local function talk(demux, ip, tool, kind)
    local identity = identities[kind]
    local _, events, port = interop.server(ip, { cert = identity.pem.cert, key = identity.pem.key, demux = demux })
    local peer = peers.client(tool, { ip = ip, port = port, ca = identity.cert, servername = 'localhost' })
    local conn, its = events:take 'connection'
    assert.equal(suites[kind], peer:cipher())
    assert.equal(suites[kind], conn:getCipher().name)
    assert.equal('DTLSv1.2', conn:getProtocol())
    assert.equal('localhost', conn.servername)

    peer:send 'a line from the client'
    assert.equal('a line from the client\n', its:take 'message')
    assert(conn:send 'a line from the server\n')
    peer:receive 'a line from the server'

    peer:quit()
    assert.is_false(its:take 'close')
    assert.equal(0, peer.child:wait())
    assert.equal(0, its:count 'error')
  end

  for _, demux in ipairs { 'connected', 'shared' } do
    for _, tool in ipairs(peers.names) do
      for _, case in ipairs { { '127.0.0.1', 'ec' }, { '127.0.0.1', 'rsa' }, { '::1', 'ec' } } do
        local ip, kind = unpack(case)
        it(('talks with a client of %s that checks its %s certificate, on %s, %s sockets'):format(tool, kind:upper(), ip, demux),
          interop.run(function() talk(demux, ip, tool, kind) end))
      end

      it(('closes its connection to a client of %s with a close_notify, %s sockets'):format(tool, demux), interop.run(function()
        local identity = identities.ec
        local _, events, port = interop.server('127.0.0.1', { cert = identity.pem.cert, key = identity.pem.key, demux = demux })
        local peer = peers.client(tool, { ip = '127.0.0.1', port = port })
        local conn, its = events:take 'connection'
        peer:cipher()
        conn:close()
        assert.is_false(its:take 'close')
        peer.child:expect(tool == 'openssl' and '(closed)' or '(Peer has closed)')
      end))

      it(('accepts a client of %s that started before the server, %s sockets'):format(tool, demux), interop.run(function()
        local identity = identities.ec
        local port = raw.freePort '127.0.0.1'
        local relay = interop.proxy('127.0.0.1', port, proxy.filters.mute 'server')
        local peer = peers.client(tool, { ip = '127.0.0.1', port = relay.port, ca = identity.cert, servername = 'localhost' })
        loop.till(function() return relay.recorded.server[1] end, 'the first hello')
        local _, events = interop.server('127.0.0.1', { cert = identity.pem.cert, key = identity.pem.key, demux = demux }, port)
        relay.filter = nil
        local _, its = events:take 'connection'
        peer:send 'at last'
        assert.equal('at last\n', its:take 'message')
      end))

      it(('gets the alert of a client of %s that does not trust the server, %s sockets'):format(tool, demux), interop.run(function()
        local identity = identities.ec
        local server, events, port = interop.server('127.0.0.1', {
          cert = identity.pem.cert, key = identity.pem.key, demux = demux, retransmitTimeout = 200,
        })
        peers.client(tool, { ip = '127.0.0.1', port = port, ca = identities.rsa.cert, servername = 'localhost' })
        local err = events:take 'clientError'
        assert.equal('ERR_DTLS_ALERT', err.code)
        assert.equal(tool == 'openssl' and 'unknown_ca' or 'bad_certificate', err.alert)
        assert.equal(0, events:count 'connection')
        assert.equal(0, server:stats().active)
      end))
    end

    for _, tool in ipairs(peers.names) do
      it(('accepts a client of %s whose cookie secret was replaced, %s sockets'):format(tool, demux), interop.run(function()
        local identity = identities.ec
        local server, events, port = interop.server('127.0.0.1', { cert = identity.pem.cert, key = identity.pem.key, demux = demux })
        local between = interop.proxy('127.0.0.1', port, function(towards, index, data)
          if towards == 'server' and index == 2 then assert(server:setCookieSecret(('s'):rep(32))) end
          return data
        end)
        local peer = peers.client(tool, { ip = '127.0.0.1', port = between.port })
        events:take 'connection'
        peer:cipher()
        assert.equal(1, server:stats().cookiesRefused)
        peer:quit()
      end))
    end

    it(('refuses renegotiation, %s sockets'):format(demux), interop.run(function()
      local identity = identities.ec
      local _, events, port = interop.server('127.0.0.1', { cert = identity.pem.cert, key = identity.pem.key, demux = demux })
      local peer = peers.client('openssl', { ip = '127.0.0.1', port = port })
      local conn, its = events:take 'connection'
      peer:cipher()
      peer.child:write 'R\n'
      peer.child:expect '(RENEGOTIATING)'
      peer.child:expect '(no renegotiation)'
      assert.equal('handshake_failure', its:take 'error'.alert) -- s_client does not take no for an answer
      assert.is_true(conn.destroyed)
      assert.equal(1, events:count 'connection')
    end))

    local ownSockets = demux == 'connected' and 'epoll'
    it(('keeps its connection when a client is killed and says nothing, %s sockets'):format(demux), needs(ownSockets, interop.run(function()
      local identity = identities.ec
      local _, events, port = interop.server('127.0.0.1', { cert = identity.pem.cert, key = identity.pem.key, demux = demux })
      local peer = peers.client('openssl', { ip = '127.0.0.1', port = port })
      local conn, its = events:take 'connection'
      peer:cipher()
      peer.child:kill()
      -- An ICMP message could be forged, and ends no connection; a shared socket does not even receive it.
      for _ = 1, 3 do conn:send 'is anybody there?' end
      if demux == 'connected' then loop.till(function() return conn:stats().drops.ECONNREFUSED end, 'a refused datagram') end
      -- The next client is served as if the killed one had not existed.
      peers.client('openssl', { ip = '127.0.0.1', port = port })
      events:take 'connection'
      assert.equal(0, its:count 'error')
      assert.equal(0, its:count 'close')
    end)))

    it(('fails a handshake without a common cipher suite, %s sockets'):format(demux), interop.run(function()
      local identity = identities.ec
      local server, events, port = interop.server('127.0.0.1', { cert = identity.pem.cert, key = identity.pem.key, demux = demux })
      local peer = peers.client('openssl', { ip = '127.0.0.1', port = port, ciphers = 'ECDHE-ECDSA-AES128-SHA256:ECDHE-ECDSA-AES128-SHA' })
      local err = events:take 'clientError'
      assert.equal('ERR_DTLS_PROTOCOL', err.code)
      assert.matches('no shared cipher', err.message)
      peer:refused()
      assert.equal(0, server:stats().active)
      assert.equal(0, events:count 'connection')
    end))
  end
end)
