-- Mutual authentication: both sides show a certificate.

local interop = require 'spec.support.interop'
local pair = require 'spec.support.pair'
local peers = require 'spec.support.peers'
local pki = require 'spec.support.pki'
local raw = require 'spec.support.raw'

local NAME = 'server.example'

describe('mutual TLS:', function()
  local files, root, stranger, server, client, alien, expired, revoked, crl, weak

  setup(function()
    files = pki.new()
    root = files:certificate('root', { authority = true })
    stranger = files:certificate('stranger', { authority = true })
    server = files:certificate('server', { issuer = root, altNames = { NAME } })
    client = files:certificate('client', { issuer = root, altNames = { 'client.example' } })
    alien = files:certificate('alien', { issuer = stranger, altNames = { 'client.example' } })
    expired = files:certificate('expired', { issuer = root, from = '20200101000000Z', to = '20200201000000Z' })
    revoked = files:certificate('revoked', { issuer = root })
    crl = files:crl('crl', root, { revoked })
    weak = files:certificate('weak', { issuer = root, type = 'rsa-1024', altNames = { NAME } })
  end)

  teardown(function() files:remove() end)

  for _, tool in ipairs(peers.names) do
    for _, demux in ipairs { 'connected', 'shared' } do
      local function start(with, more)
        local options = { cert = server.pem.cert, key = server.pem.key, ca = root.pem.cert, requestCert = true, demux = demux }
        for name, value in pairs(more or {}) do options[name] = value end
        local ours, events, port = interop.server('127.0.0.1', options)
        local peer = peers.client(tool, {
          ip = '127.0.0.1', port = port, ca = root.cert, servername = NAME, cert = with and with.cert, key = with and with.key,
        })
        return ours, events, peer
      end

      it(('our server accepts the certificate of a client of %s, %s sockets'):format(tool, demux), interop.run(function()
        local _, events, peer = start(client)
        local conn, its = events:take 'connection'
        assert.is_true(conn.authorized)
        peer:send 'it is me'
        assert.equal('it is me\n', its:take 'message')
        peer:quit()
        assert.is_false(its:take 'close')
      end))

      it(('our server refuses a client of %s without a certificate, %s sockets'):format(tool, demux), interop.run(function()
        local ours, events, peer = start()
        local err = events:take 'clientError'
        assert.matches('did not return a certificate', err.message)
        peer:refused()
        assert.equal(0, events:count 'connection')
        assert.equal(0, ours:stats().active)
      end))

      for _, case in ipairs {
        { 'whose issuer it does not know', function() return alien end, 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY' },
        { 'whose certificate has expired', function() return expired end, 'CERT_HAS_EXPIRED' },
        { 'whose certificate is revoked', function() return revoked end, 'CERT_REVOKED' },
      } do
        local what, with, reason = unpack(case)
        it(('our server refuses a client of %s %s, %s sockets'):format(tool, what, demux), interop.run(function()
          local ours, events, peer = start(with(), { crl = crl })
          local err = events:take 'clientError'
          assert.equal('ERR_DTLS_CERTIFICATE', err.code)
          assert.equal(reason, err.reason)
          peer:refused()
          assert.equal(0, events:count 'connection')
          assert.equal(0, ours:stats().active)
        end))
      end

      it(('our server without rejectUnauthorized accepts an untrusted client of %s, %s sockets'):format(tool, demux), interop.run(function()
        local _, events = start(nil, { rejectUnauthorized = false })
        assert.same({ false, 'NO_PEER_CERTIFICATE' }, pair.verdict(events:take 'connection'))
      end))

      it(('our server tells why a client of %s is not authorized, %s sockets'):format(tool, demux), interop.run(function()
        local _, events = start(alien, { rejectUnauthorized = false })
        assert.same({ false, 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY' }, pair.verdict(events:take 'connection'))
      end))
    end

    local function connect(with)
      local port = raw.freePort '127.0.0.1'
      local peer = peers.server(tool, {
        ip = '127.0.0.1', port = port, cert = server.cert, key = server.key, ca = root.cert, requireCert = true,
      })
      local conn, its = interop.client {
        host = '127.0.0.1', port = port, ca = root.pem.cert, servername = NAME, retransmitTimeout = 200,
        cert = with and with.pem.cert, key = with and with.pem.key,
      }
      return peer, conn, its
    end

    it(('our client shows its certificate to a server of %s that requires one'):format(tool), interop.run(function()
      local peer, conn, its = connect(client)
      its:take 'connection'
      assert(conn:send 'it is me\n')
      peer:receive 'it is me'
      if tool == 'openssl' then peer.child:expect '(subject=CN ?= ?client)' end
      conn:close()
      assert.is_false(its:take 'close')
    end))

    -- gnutls-serv does not tell a client that its certificate is missing.
    for _, case in ipairs {
      { 'with an unknown issuer', function() return alien end, { openssl = 'unknown_ca', gnutls = 'access_denied' } },
      { 'without a certificate', function() end, { openssl = 'handshake_failure' } },
    } do
      local what, with, alerts = unpack(case)
      if alerts[tool] then
        it(('our client %s gets the alert of a server of %s that refuses the client'):format(what, tool), interop.run(function()
          local _, _, its = connect(with())
          local err = its:take 'error'
          assert.equal('ERR_DTLS_ALERT', err.code)
          assert.equal(alerts[tool], err.alert)
          assert.is_true(its:take 'close')
          assert.equal(0, its:count 'connection')
        end))
      end
    end
  end

  -- OpenSSL's programs use a key of 1024 bits only at security level 0.
  local LAX = 'DEFAULT@SECLEVEL=0'

  it('our server refuses a key of 1024 bits', interop.run(function()
    local _, events, port = interop.server('127.0.0.1', {
      cert = server.pem.cert, key = server.pem.key, ca = root.pem.cert, requestCert = true,
    })
    local peer = peers.client('openssl', { ip = '127.0.0.1', port = port, cert = weak.cert, key = weak.key, ciphers = LAX })
    assert.equal('EE_KEY_TOO_SMALL', events:take 'clientError'.reason)
    peer:refused()
  end))

  it('our client refuses a key of 1024 bits', interop.run(function()
    local port = raw.freePort '127.0.0.1'
    local peer = peers.server('openssl', { ip = '127.0.0.1', port = port, cert = weak.cert, key = weak.key, ciphers = LAX })
    local _, its = interop.client { host = '127.0.0.1', port = port, ca = root.pem.cert, servername = NAME }
    assert.equal('EE_KEY_TOO_SMALL', its:take 'error'.reason)
    peer:refused()
  end))
end)
