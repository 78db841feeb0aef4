-- Names, application protocols, SRTP profiles and exported keying material, with programs of other implementations.

local dtls = require 'dtls'
local uv = require 'luv'
local interop = require 'spec.support.interop'
local loop = require 'spec.support.loop'
local merged = require('spec.support.pair').merged
local peers = require 'spec.support.peers'
local pki = require 'spec.support.pki'
local raw = require 'spec.support.raw'

local LABEL = 'EXTRACTOR-dtls_srtp'
local SHA1_80, SHA1_32 = 'SRTP_AES128_CM_SHA1_80', 'SRTP_AES128_CM_SHA1_32'

describe('extensions:', function()
  local files, own, one, other

  setup(function()
    files = pki.new()
    own = files:store('own', assert(dtls.selfSigned { altNames = { 'localhost', '127.0.0.1' } }))
    one = files:store('one', assert(dtls.selfSigned { commonName = 'one.example' }))
    other = files:store('other', assert(dtls.selfSigned { commonName = 'other.example' }))
  end)

  teardown(function() files:remove() end)

  local function serve(tool, more)
    local port = raw.freePort '127.0.0.1'
    return peers.server(tool, merged({ ip = '127.0.0.1', port = port, cert = one.cert, key = one.key }, more)), port
  end

  local function connect(port, more)
    return interop.client(merged({ host = '127.0.0.1', port = port, fingerprint = one.fingerprint, retransmitTimeout = 200 }, more))
  end

  for _, tool in ipairs(peers.names) do
    -- Of an alert that OpenSSL 3.2 and later send in answer to a hello, GnuTLS takes no notice (seen with 3.5.7 and
    -- 3.8).
    local function told(peer)
      if tool == 'openssl' or dtls.OPENSSL.number < 0x30200000 then peer:refused() end
    end

    for _, demux in ipairs { 'connected', 'shared' } do
      local function listen(more)
        return interop.server('127.0.0.1', merged({
          cert = own.pem.cert, key = own.pem.key, demux = demux,
        }, more))
      end

      local function visit(port, more)
        return peers.client(tool, merged({ ip = '127.0.0.1', port = port }, more))
      end

      it(('our server chooses the protocol and the profile of a client of %s, %s sockets'):format(tool, demux), interop.run(function()
        local _, events, port = listen { ALPNProtocols = { 'coap', 'echo' }, srtpProfiles = { SHA1_32, SHA1_80 } }
        local peer = visit(port, { alpn = { 'other', 'echo', 'coap' }, srtp = { SHA1_80, SHA1_32 }, exports = LABEL })
        local conn = events:take 'connection'
        assert.equal('coap', conn.alpnProtocol)
        assert.equal('coap', peer:protocol())
        assert.equal(SHA1_32, conn.srtpProfile)
        assert.equal(SHA1_32, peer:profile())
        assert.equal(peer:exported(), conn:exportKeyingMaterial(60, LABEL))
        assert.is_true(conn.extendedMasterSecret)
      end))

      it(('our server accepts a client of %s without protocol and profile, %s sockets'):format(tool, demux), interop.run(function()
        local _, events, port = listen { ALPNProtocols = 'coap', srtpProfiles = SHA1_80 }
        local peer = visit(port, { exports = 'EXPERIMENTAL' })
        local conn = events:take 'connection'
        assert.is_nil(conn.alpnProtocol)
        assert.is_nil(conn.srtpProfile)
        assert.equal(peer:exported(), conn:exportKeyingMaterial(60, 'EXPERIMENTAL'))
      end))

      it(('our server refuses a client of %s that has another protocol, %s sockets'):format(tool, demux), interop.run(function()
        local _, events, port = listen { ALPNProtocols = 'coap' }
        local peer = visit(port, { alpn = { 'echo' } })
        local err = events:take 'clientError'
        assert.equal('ERR_DTLS_PROTOCOL', err.code)
        assert.matches('no application protocol', err.message)
        told(peer)
        assert.equal(0, events:count 'connection')
      end))

      it(('our server shows a client of %s the identity of its name, %s sockets'):format(tool, demux), interop.run(function()
        local _, events, port = listen { sni = { ['one.example'] = one.pem, ['*.example'] = other.pem } }
        for _, case in ipairs { { one, 'one.example' }, { other, 'other.example' }, { own } } do
          local identity, name = unpack(case)
          local peer = visit(port, { ca = identity.cert, servername = name }) -- the peer verifies the certificate
          local conn, its = events:take 'connection'
          assert.equal(name, conn.servername)
          peer:send 'as expected'
          assert.equal('as expected\n', its:take 'message')
          peer:quit()
          its:take 'close'
        end
      end))

      it(('our server refuses the name that a client of %s asks for, %s sockets'):format(tool, demux), interop.run(function()
        local _, events, port = listen { sni = { ['one.example'] = one.pem } }
        local peer = visit(port, { servername = 'unknown.example' })
        assert.equal('ERR_DTLS_SERVERNAME', events:take 'clientError'.code)
        told(peer)
        assert.equal(0, events:count 'connection')
      end))

      it(('our server lets a client of %s wait for the answer of SNICallback, %s sockets'):format(tool, demux), interop.run(function()
        local _, events, port = listen {
          SNICallback = function(name)
            local thread, timer = coroutine.running(), uv.new_timer()
            timer:start(50, 0, function()
              timer:close()
              assert(coroutine.resume(thread))
            end)
            coroutine.yield()
            return name == 'one.example' and one.pem
          end,
        }
        local peer = visit(port, { ca = one.cert, servername = 'one.example' })
        local _, its = events:take 'connection'
        peer:send 'at last'
        assert.equal('at last\n', its:take 'message')
        peer = visit(port, { servername = 'unknown.example' })
        assert.equal('ERR_DTLS_SERVERNAME', events:take 'clientError'.code)
        told(peer)
      end))
    end

    -- Servers of GnuTLS take the first profile of the client's that they have.
    local chosen = tool == 'openssl' and SHA1_32 or SHA1_80

    it(('our client agrees on a protocol and a profile with a server of %s'):format(tool), interop.run(function()
      local peer, port = serve(tool, { alpn = { 'coap', 'echo' }, srtp = { SHA1_32, SHA1_80 }, exports = LABEL })
      local conn, its = connect(port, { ALPNProtocols = { 'other', 'echo' }, srtpProfiles = { SHA1_80, SHA1_32 } })
      its:take 'connection'
      assert.equal('echo', conn.alpnProtocol)
      assert.equal(chosen, conn.srtpProfile)
      assert.is_true(conn.extendedMasterSecret)
      if tool == 'openssl' then
        assert.equal('echo', peer:protocol())
        assert.equal(chosen, peer:profile())
        assert.equal(peer:exported(), conn:exportKeyingMaterial(60, LABEL))
      end
    end))

    it(('our client connects without protocol and profile when a server of %s has none'):format(tool), interop.run(function()
      local _, port = serve(tool)
      local conn, its = connect(port, { ALPNProtocols = 'coap', srtpProfiles = SHA1_80 })
      its:take 'connection'
      assert.is_nil(conn.alpnProtocol)
      assert.is_nil(conn.srtpProfile)
    end))
  end

  it('our client is refused by a server of openssl that has another protocol', interop.run(function()
    local _, port = serve('openssl', { alpn = { 'coap' } })
    local _, its = connect(port, { ALPNProtocols = 'echo' })
    local err = its:take 'error'
    assert.equal('ERR_DTLS_ALERT', err.code)
    assert.equal('no_application_protocol', err.alert)
  end))

  it('our client gets the identity of the name that it asks a server of openssl for', interop.run(function()
    local _, port = serve('openssl', { named = { name = 'other.example', cert = other.cert, key = other.key } })
    for _, case in ipairs { { 'other.example', other }, { nil, one } } do
      local conn, its = connect(port, { servername = case[1], fingerprint = case[2].fingerprint })
      its:take 'connection'
      assert.equal(case[1], conn.servername)
      conn:close()
      its:take 'close'
    end
    local _, its = connect(port, { servername = 'unknown.example' })
    assert.equal('unrecognized_name', its:take 'error'.alert)
  end))

  -- gnutls-serv sends nothing to a client that asks for another name.
  it('our client asks a server of gnutls for its name', interop.run(function()
    local _, port = serve('gnutls', { named = { name = 'one.example' } })
    local _, its = connect(port, { servername = 'one.example' })
    its:take 'connection'
    _, its = connect(port, { servername = 'unknown.example', handshakeTimeout = 1000 * loop.patience })
    assert.equal('ERR_DTLS_HANDSHAKE_TIMEOUT', its:take 'error'.code)
  end))

  it('our server knows that a client of gnutls has no extended master secret', interop.run(function()
    local _, events, port = interop.server('127.0.0.1', { cert = own.pem.cert, key = own.pem.key })
    local peer = peers.client('gnutls', { ip = '127.0.0.1', port = port, priority = 'NORMAL:%NO_SESSION_HASH', exports = LABEL })
    local conn = events:take 'connection'
    assert.is_false(conn.extendedMasterSecret)
    assert.equal(peer:exported(), conn:exportKeyingMaterial(60, LABEL))
  end))
end)
