-- Raw public keys with other implementations, which need OpenSSL 3.2 on our side.

local dtls = require 'dtls'
local interop = require 'spec.support.interop'
local loop = require 'spec.support.loop'
local pair = require 'spec.support.pair'
local peers = require 'spec.support.peers'
local pki = require 'spec.support.pki'
local process = require 'spec.support.process'
local raw = require 'spec.support.raw'

local us = assert(dtls.selfSigned())
local isThere = dtls.createContext('server', { key = us.key, rawPublicKey = true }) ~= nil

describe('raw public keys:', function()
  if not isThere then
    it('need another OpenSSL', function() pending 'this one is older than 3.2' end)
    return
  end

  local files, them

  setup(function()
    files = pki.new()
    them = files:certificate 'them'
    them.pin = files:publicKey(them)
    them.publicKey = files:write('them.pub', them.pin)
  end)
  teardown(function() files:remove() end)

  for _, tool in ipairs(peers.names) do
    for _, demux in ipairs { 'connected', 'shared' } do
      local function start(options)
        local all = pair.with({ key = us.key, rawPublicKey = true, requestCert = true, demux = demux }, options)
        local _, events, port = interop.server('127.0.0.1', all)
        return events, { ip = '127.0.0.1', port = port, raw = them }
      end

      it(('our server and a client of %s prove themselves, %s sockets'):format(tool, demux), interop.run(function()
        local events, how = start { peerPublicKey = them.pin }
        local peer = peers.client(tool, how)
        local conn, its = events:take 'connection'
        assert.is_true(conn.authorized)
        assert.equal(them.pin, conn:getPeerPublicKey().pem)
        peer:send 'by my key'
        assert.equal('by my key\n', its:take 'message')
        peer:quit()
        assert.is_false(its:take 'close')
      end))

      it(('our server refuses a client of %s whose key is not pinned, %s sockets'):format(tool, demux), interop.run(function()
        local events, how = start { peerPublicKey = us.publicKey }
        local peer = peers.client(tool, how)
        assert.equal('RPK_UNTRUSTED', events:take 'clientError'.reason)
        peer:refused()
      end))

      it(('our server refuses a client of %s with a certificate of the pinned key, %s sockets'):format(tool, demux), interop.run(function()
        local events, how = start { peerPublicKey = them.pin, cert = us.cert }
        local peer = peers.client(tool, { ip = how.ip, port = how.port, cert = them.cert, key = them.key })
        assert.equal('RAW_PUBLIC_KEY_REQUIRED', events:take 'clientError'.reason)
        peer:refused()
      end))
    end

    local function serve(more)
      local how = { ip = '127.0.0.1', port = raw.freePort '127.0.0.1' }
      local peer = peers.server(tool, pair.with(how, more))
      return peer, function(options)
        return interop.client(pair.with({ host = how.ip, port = how.port, retransmitTimeout = 200, rawPublicKey = true }, options))
      end
    end

    for what, key in pairs { ['and a server of %s prove themselves'] = us.key, ['knows a server of %s by its key'] = false } do
      it(('our client ' .. what):format(tool), interop.run(function()
        local peer, connect = serve { raw = them, requireCert = key and true }
        local conn, its = connect { peerPublicKey = them.pin, key = key or nil }
        its:take 'connection'
        assert.is_true(conn.authorized)
        assert.equal(them.pin, conn:getPeerPublicKey().pem)
        assert(conn:send 'by my key\n')
        peer:receive 'by my key'
      end))
    end

    it(('our client refuses a server of %s whose key is not pinned'):format(tool), interop.run(function()
      local _, connect = serve { raw = them }
      local _, its = connect { peerPublicKey = us.publicKey }
      assert.equal('RPK_UNTRUSTED', its:take 'error'.reason)
    end))

    it(('our client refuses a server of %s with a certificate of the pinned key'):format(tool), interop.run(function()
      local _, connect = serve { cert = them.cert, key = them.key }
      local _, its = connect { peerPublicKey = them.pin, handshakeTimeout = 2000 * loop.patience }
      local err = its:take 'error'
      -- OpenSSL's server shows what it has; GnuTLS finds no common type of certificates, and gnutls-serv does not say so.
      assert.equal(tool == 'openssl' and 'RAW_PUBLIC_KEY_REQUIRED' or 'ERR_DTLS_HANDSHAKE_TIMEOUT', err.reason or err.code)
    end))
  end

  it('a client of GnuTLS resumes its session with our server', interop.run(function()
    local _, events, port = interop.server('127.0.0.1', {
      key = us.key, rawPublicKey = true, requestCert = true, peerPublicKey = them.pin,
    })
    local peer = peers.client('gnutls', { ip = '127.0.0.1', port = port, raw = them, again = true })
    local first, its = events:take 'connection'
    peer:send 'resume'
    its:take 'close'
    local second = events:take 'connection'
    assert.same({ false, true }, { first:isSessionReused(), second:isSessionReused() })
    assert.is_true(second.authorized)
    assert.equal(them.pin, second:getPeerPublicKey().pem)
  end))

  -- A request for a value, and the response to it (RFC 7252), with the same four bytes of id and token.
  local GET, CONTENT = '\65\1idt', '\97\69idt'

  it('libcoap\'s client gets a value of our server, and both prove themselves', interop.run(function()
    local _, events, port = interop.server('127.0.0.1', {
      key = us.key, rawPublicKey = true, requestCert = true, peerPublicKey = them.pin,
    })
    local both = files:write('both.pem', them.pin .. them.pem.key)
    local child = process.spawn('coap-client-gnutls', { '-B', '10', '-M', both, ('coaps://127.0.0.1:%d/x'):format(port) })
    local conn, its = events:take 'connection'
    assert.is_true(conn.authorized)
    local request = its:take 'message'
    local token = request:byte() % 16
    assert(conn:send(string.char(96 + token, 69) .. request:sub(3, 4 + token) .. '\255by my key'))
    child:expect '(by my key)'
  end))

  it('libcoap\'s server gives our client a value, and both prove themselves', interop.run(function()
    local port = raw.freePort '127.0.0.1'
    local both = files:write('both.pem', them.pin .. them.pem.key)
    process.spawn('coap-server-gnutls', { '-A', '127.0.0.1', '-p', tostring(port - 1), '-M', both }) -- coaps is one above
    local conn, its = interop.client {
      host = '127.0.0.1', port = port, key = us.key, rawPublicKey = true, peerPublicKey = them.pin, retransmitTimeout = 100,
    }
    its:take 'connection'
    assert.is_true(conn.authorized)
    assert(conn:send(GET))
    assert.equal(CONTENT, its:take 'message':sub(1, #CONTENT))
  end))

  it('an RSA key of 1024 bits is refused although it is pinned', interop.run(function()
    local weak = files:certificate('weak', { type = 'rsa-1024' })
    local port = raw.freePort '127.0.0.1'
    peers.server('openssl', { ip = '127.0.0.1', port = port, raw = weak, ciphers = 'ALL:@SECLEVEL=0' })
    local _, its = interop.client { host = '127.0.0.1', port = port, rawPublicKey = true, peerPublicKey = files:publicKey(weak) }
    assert.equal('EE_KEY_TOO_SMALL', its:take 'error'.reason)
  end))

  it('are of no use where nothing was said of them: a program without them gets a certificate', interop.run(function()
    local port = raw.freePort '127.0.0.1'
    local server, events = interop.server('127.0.0.1', { cert = us.cert, key = us.key, rawPublicKey = true }, port)
    peers.client('gnutls', { ip = '127.0.0.1', port = port }):cipher()
    events:take 'connection'
    loop.till(function() return server:stats().active == 1 end, 'it to be served')
  end))
end)
