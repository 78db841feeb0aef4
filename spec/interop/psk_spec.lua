-- Pre-shared keys, with programs of other makes on either side.

local interop = require 'spec.support.interop'
local peers = require 'spec.support.peers'
local pki = require 'spec.support.pki'
local raw = require 'spec.support.raw'

local KEY = '\0\1\2 sixteen bytes'
local ALICE = { identity = 'alice', key = KEY }
local OTHER = { identity = 'alice', key = 'not the key at all' }

describe('with a pre-shared key', function()
  local files

  setup(function() files = pki.new() end)
  teardown(function() files:remove() end)

  for _, tool in ipairs(peers.names) do
    -- What the other side prefers of what we offer.
    local suite = tool == 'openssl' and 'ECDHE-PSK-CHACHA20-POLY1305' or 'PSK-AES256-GCM-SHA384'

    for _, demux in ipairs { 'connected', 'shared' } do
      for _, ip in ipairs { '127.0.0.1', '::1' } do
        it(('our server knows who a client of %s is, on %s, %s sockets'):format(tool, ip, demux), interop.run(function()
          local _, events, port = interop.server(ip, { psk = { alice = KEY, bob = 'another key, this one' }, demux = demux })
          local peer = peers.client(tool, { ip = ip, port = port, psk = ALICE })
          local conn, its = events:take 'connection'
          assert.equal('alice', conn:pskIdentity())
          assert.equal(suite, peer:cipher())
          assert.equal(suite, conn:getCipher().name)
          assert.is_true(conn:authorized())
          peer:send 'from alice'
          assert.equal('from alice\n', its:take 'message')
          assert(conn:send 'to alice\n')
          peer:receive 'to alice'
          peer:quit()
          assert.is_false(its:take 'close')
        end))
      end

      it(('our server refuses a client of %s that nobody knows, %s sockets'):format(tool, demux), interop.run(function()
        local server, events, port = interop.server('127.0.0.1', { psk = { alice = KEY }, demux = demux })
        local peer = peers.client(tool, { ip = '127.0.0.1', port = port, psk = { identity = 'mallory', key = KEY } })
        local err = events:take 'clientError'
        assert.equal('ERR_DTLS_PSK_IDENTITY', err.code)
        assert.matches('identity not found', err.message)
        peer:refused()
        assert.equal(0, events:count 'connection')
        assert.equal(0, server:stats().active)
      end))

      -- Its Finished cannot be read, so it is dropped like any other garbage: there is nothing to tell anybody.
      it(('our server waits in vain for a client of %s that has another key, %s sockets'):format(tool, demux), interop.run(function()
        local server, events, port = interop.server('127.0.0.1', { psk = { alice = KEY }, demux = demux, handshakeTimeout = 500 })
        peers.client(tool, { ip = '127.0.0.1', port = port, psk = OTHER })
        assert.equal('ERR_DTLS_PSK_KEY', events:take 'clientError'.code)
        assert.equal(0, events:count 'connection')
        assert.equal(0, server:stats().active)
      end))
    end

    for _, ip in ipairs { '127.0.0.1', '::1' } do
      it(('our client talks with a server of %s, on %s'):format(tool, ip), interop.run(function()
        local port = raw.freePort(ip)
        local peer = peers.server(tool, { ip = ip, port = port, psk = ALICE, pki = files })
        local conn, its = interop.client { host = ip, port = port, psk = ALICE }
        its:take 'connection'
        assert.equal(suite, conn:getCipher().name)
        assert.equal('alice', conn:pskIdentity())
        assert.is_true(conn:authorized())
        assert(conn:send 'from alice\n')
        peer:receive 'from alice'
        if tool == 'openssl' then peer:send 'from alice' end
        assert.equal('from alice\n', its:take 'message')
        conn:close()
        assert.is_false(its:take 'close')
      end))
    end

    it(('our client waits in vain for a server of %s that has another key'):format(tool), interop.run(function()
      local port = raw.freePort '127.0.0.1'
      peers.server(tool, { ip = '127.0.0.1', port = port, psk = OTHER, pki = files })
      local _, its = interop.client { host = '127.0.0.1', port = port, psk = ALICE, handshakeTimeout = 500 }
      assert.equal('ERR_DTLS_PSK_KEY', its:take 'error'.code)
      assert.is_true(its:take 'close')
      assert.equal(0, its:count 'connection')
    end))
  end
end)
