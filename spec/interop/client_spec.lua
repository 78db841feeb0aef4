-- Our client and servers of other implementations.

local interop = require 'spec.support.interop'
local loop = require 'spec.support.loop'
local peers = require 'spec.support.peers'
local pki = require 'spec.support.pki'
local proxy = require 'spec.support.proxy'
local raw = require 'spec.support.raw'

local NAME = 'server.example'

describe('our client', function()
  local files, root, stranger, ec, rsa

  setup(function()
    files = pki.new()
    root = files:certificate('root', { authority = true })
    stranger = files:certificate('stranger', { authority = true })
    ec = files:certificate('ec', { issuer = root, altNames = { NAME } })
    rsa = files:certificate('rsa', { issuer = root, altNames = { NAME }, type = 'rsa' })
  end)

  teardown(function() files:remove() end)

  local function serve(tool, ip, identity, more)
    local options = { ip = ip, port = raw.freePort(ip), cert = identity.cert, key = identity.key }
    for name, value in pairs(more or {}) do options[name] = value end
    return peers.server(tool, options), options.port
  end

  local function connect(ip, port, how)
    local options = { host = ip, port = port, retransmitTimeout = 200 }
    for name, value in pairs(how) do options[name] = value end
    return interop.client(options)
  end

  -- Both servers print the line; gnutls-serv sends the line back, s_server sends its standard input.
  local function talk(tool, peer, conn, its, line)
    assert(conn:send(line .. '\n'))
    peer:receive(line)
    if tool == 'openssl' then peer:send(line) end
    assert.equal(line .. '\n', its:take 'message')
  end

  local checks = {
    { 'pins its certificate', function(identity) return { fingerprint = identity.fingerprint } end },
    { 'checks its chain and name', function() return { ca = root.pem.cert, servername = NAME } end },
  }

  for _, tool in ipairs(peers.names) do
    for _, check in ipairs(checks) do
      for _, case in ipairs { { '127.0.0.1', 'EC' }, { '127.0.0.1', 'RSA' }, { '::1', 'EC' } } do
        local ip, kind = unpack(case)
        it(('talks with a server of %s and %s (%s), on %s'):format(tool, check[1], kind, ip), interop.run(function()
          local identity = kind == 'EC' and ec or rsa
          local peer, port = serve(tool, ip, identity)
          local conn, its = connect(ip, port, check[2](identity))
          its:take 'connection'
          assert.equal('DTLSv1.2', conn:getProtocol())
          assert.matches(kind == 'EC' and '^ECDHE%-ECDSA%-.*GCM' or '^ECDHE%-RSA%-.*GCM', conn:getCipher().name)
          assert.is_true(conn.authorized)
          talk(tool, peer, conn, its, 'a line')
          conn:close()
          assert.is_false(its:take 'close')
        end))
      end
    end

    it(('closes with a close_notify after which a server of %s takes its next client'):format(tool), interop.run(function()
      local peer, port = serve(tool, '127.0.0.1', ec)
      for _, line in ipairs { 'from the first', 'from the second' } do
        local conn, its = connect('127.0.0.1', port, { fingerprint = ec.fingerprint })
        its:take 'connection'
        talk(tool, peer, conn, its, line)
        conn:close()
        assert.is_false(its:take 'close')
      end
    end))

    it(('stays open when a server of %s is killed and sends nothing'):format(tool), interop.run(function()
      local peer, port = serve(tool, '127.0.0.1', ec)
      local conn, its = connect('127.0.0.1', port, { fingerprint = ec.fingerprint })
      its:take 'connection'
      talk(tool, peer, conn, its, 'a line')
      peer.child:kill()
      -- An ICMP message could be forged, and ends no connection.
      loop.till(function()
        conn:send 'is anybody there?'
        return conn:stats().drops.ECONNREFUSED
      end, 'a refused datagram')
      assert.equal(0, its:count 'error')
      assert.equal(0, its:count 'close')
    end))

    it(('connects to a server of %s that starts later'):format(tool), interop.run(function()
      local port = raw.freePort '127.0.0.1'
      local relay = interop.proxy('127.0.0.1', port, proxy.filters.mute 'server')
      local conn, its = connect('127.0.0.1', relay.port, { fingerprint = ec.fingerprint })
      loop.till(function() return relay.recorded.server[1] end, 'the first hello')
      local peer = peers.server(tool, { ip = '127.0.0.1', port = port, cert = ec.cert, key = ec.key })
      relay.filter = nil
      its:take 'connection'
      talk(tool, peer, conn, its, 'a line')
    end))

    for _, case in ipairs {
      { 'its certificate is not the pinned one', 'FINGERPRINT_MISMATCH', function() return { fingerprint = stranger.fingerprint } end },
      { 'its issuer is not known', 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
        function() return { ca = stranger.pem.cert, servername = NAME } end },
      { 'its name is another', 'HOSTNAME_MISMATCH', function() return { ca = root.pem.cert, servername = 'other.example' } end },
      { 'its name is not the address dialled', 'IP_ADDRESS_MISMATCH', function() return { ca = root.pem.cert } end },
    } do
      local what, reason, how = unpack(case)
      it(('refuses a server of %s when %s'):format(tool, what), interop.run(function()
        local peer, port = serve(tool, '127.0.0.1', ec)
        local _, its = connect('127.0.0.1', port, how())
        local err = its:take 'error'
        assert.equal('ERR_DTLS_CERTIFICATE', err.code)
        assert.equal(reason, err.reason)
        assert.is_true(its:take 'close')
        assert.equal(0, its:count 'connection')
        peer:refused()
      end))
    end
  end

  it('fails with the alert handshake_failure when a server has no common cipher suite', interop.run(function()
    local _, port = serve('openssl', '127.0.0.1', ec, { ciphers = 'ECDHE-ECDSA-AES128-SHA256:ECDHE-ECDSA-AES128-SHA' })
    local _, its = connect('127.0.0.1', port, { fingerprint = ec.fingerprint })
    local err = its:take 'error'
    assert.equal('ERR_DTLS_ALERT', err.code)
    assert.equal('handshake_failure', err.alert)
    assert.is_true(its:take 'close')
  end))

  it('answers the HelloVerifyRequest of s_server -listen', interop.run(function()
    local peer, port = serve('openssl', '127.0.0.1', ec, { cookies = true })
    local conn, its = connect('127.0.0.1', port, { fingerprint = ec.fingerprint })
    its:take 'connection'
    talk('openssl', peer, conn, its, 'a line')
  end))

  it('needs no HelloVerifyRequest', interop.run(function()
    local peer, port = serve('gnutls', '127.0.0.1', ec, { cookies = false })
    local conn, its = connect('127.0.0.1', port, { fingerprint = ec.fingerprint })
    its:take 'connection'
    talk('gnutls', peer, conn, its, 'a line')
  end))

  it('fails after one repetition when the port is closed', interop.run(function()
    local conn, its = connect('127.0.0.1', raw.freePort '127.0.0.1', { fingerprint = ec.fingerprint })
    local err = its:take 'error'
    assert.equal('ECONNREFUSED', err.code)
    assert.is_true(its:take 'close')
    assert.equal(1, its:count 'error')
    assert.is_true(conn:stats().drops.ECONNREFUSED >= 1)
  end))
end)
