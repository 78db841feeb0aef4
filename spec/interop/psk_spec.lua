-- Pre-shared keys, with programs of other implementations on either side.

local interop = require 'spec.support.interop'
local lookup = require 'spec.support.lookup'
local memory_store = require 'spec.support.memory_store'
local loop = require 'spec.support.loop'
local peers = require 'spec.support.peers'
local pki = require 'spec.support.pki'
local process = require 'spec.support.process'
local raw = require 'spec.support.raw'

local KEY = '\0\1\2 sixteen bytes'
local ALICE = { identity = 'alice', key = KEY }
local OTHER = { identity = 'alice', key = 'not the key at all' }

describe('with a pre-shared key', function()
  local files

  setup(function() files = pki.new() end)
  teardown(function() files:remove() end)

  for _, tool in ipairs(peers.names) do
    -- The suite that the other side prefers among those that we offer.
    local suite = tool == 'openssl' and 'ECDHE-PSK-CHACHA20-POLY1305' or 'PSK-AES256-GCM-SHA384'

    for _, demux in ipairs { 'connected', 'shared' } do
      for _, ip in ipairs { '127.0.0.1', '::1' } do
        it(('our server knows the pskIdentity of a client of %s, on %s, %s sockets'):format(tool, ip, demux), interop.run(function()
          local _, events, port = interop.server(ip, { psk = { alice = KEY, bob = 'another key, this one' }, demux = demux })
          local peer = peers.client(tool, { ip = ip, port = port, psk = ALICE })
          local conn, its = events:take 'connection'
          assert.equal('alice', conn.pskIdentity)
          assert.equal(suite, peer:cipher())
          assert.equal(suite, conn:getCipher().name)
          assert.is_true(conn.authorized)
          peer:send 'from alice'
          assert.equal('from alice\n', its:take 'message')
          assert(conn:send 'to alice\n')
          peer:receive 'to alice'
          peer:quit()
          assert.is_false(its:take 'close')
        end))
      end

      it(('our server refuses a client of %s whose identity has no key, %s sockets'):format(tool, demux), interop.run(function()
        local server, events, port = interop.server('127.0.0.1', { psk = { alice = KEY }, demux = demux })
        local peer = peers.client(tool, { ip = '127.0.0.1', port = port, psk = { identity = 'mallory', key = KEY } })
        local err = events:take 'clientError'
        assert.equal('ERR_DTLS_PSK_IDENTITY', err.code)
        assert.equal("there is no key for the identity 'mallory'", err.message)
        peer:refused()
        assert.equal(0, events:count 'connection')
        assert.equal(0, server:stats().active)
      end))

      -- The client's Finished cannot be decrypted and is dropped like any forged record, so that no alert is sent.
      it(('our server gives ERR_DTLS_PSK_KEY for a client of %s with another key, %s sockets'):format(tool, demux), interop.run(function()
        local options = { psk = { alice = KEY }, demux = demux, handshakeTimeout = 500 * loop.patience }
        local server, events, port = interop.server('127.0.0.1', options)
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
        assert.equal('alice', conn.pskIdentity)
        assert.is_true(conn.authorized)
        assert(conn:send 'from alice\n')
        peer:receive 'from alice'
        if tool == 'openssl' then peer:send 'from alice' end
        assert.equal('from alice\n', its:take 'message')
        conn:close()
        assert.is_false(its:take 'close')
      end))
    end

    it(('our client gives ERR_DTLS_PSK_KEY for a server of %s with another key'):format(tool), interop.run(function()
      local port = raw.freePort '127.0.0.1'
      peers.server(tool, { ip = '127.0.0.1', port = port, psk = OTHER, pki = files })
      local _, its = interop.client { host = '127.0.0.1', port = port, psk = ALICE, handshakeTimeout = 500 * loop.patience }
      assert.equal('ERR_DTLS_PSK_KEY', its:take 'error'.code)
      assert.is_true(its:take 'close')
      assert.equal(0, its:count 'connection')
    end))
  end
end)

-- Waits until the psk function has been asked for the first time; returns its arguments.
local function question(asking)
  loop.till(function() return asking.asked[1] end, 'the question')
  return asking.asked[1]
end

-- GnuTLS 3.7's programs die of ECDHE-PSK; those of OpenSSL 3.2 and later take CCM_8 at security level 0 alone.
local suites = {
  openssl = { 'ECDHE-PSK-CHACHA20-POLY1305', 'PSK-AES128-GCM-SHA256', 'DHE-PSK-AES128-GCM-SHA256', 'PSK-AES128-CCM', 'PSK-AES128-CCM8' },
  gnutls = { 'PSK-AES128-GCM-SHA256', 'PSK-AES256-GCM-SHA384' },
}

describe('with keys from an asynchronous psk function', function()
  local files

  setup(function() files = pki.new() end)
  teardown(function() files:remove() end)

  for _, tool in ipairs(peers.names) do
    for _, suite in ipairs(suites[tool]) do
      local theirs = tool == 'openssl' and suite .. (suite:find 'CCM8' and ':@SECLEVEL=0' or '') or nil
      for _, demux in ipairs { 'connected', 'shared' } do
        local title = ('our server waits for the key of a client of %s (%s, %s sockets)'):format(tool, suite, demux)
        it(title, interop.run(function()
          local asking = lookup.new()
          local server, events, port = interop.server('127.0.0.1', {
            psk = asking.ask, pskIdentityHint = 'which-one', ciphers = suite, demux = demux,
          })
          local peer = peers.client(tool, { ip = '127.0.0.1', port = port, psk = ALICE, ciphers = theirs })
          assert.equal('alice', question(asking)[1])
          -- The client's repeated flight does not ask the psk function a second time.
          loop.till(function() return server:stats().datagramsIn >= 4 end, 'a repetition by the client')
          assert.equal(0, events:count 'connection')
          asking.answer(1, KEY)
          local conn, its = events:take 'connection'
          assert.equal('alice', conn.pskIdentity)
          assert.equal(suite, conn:getCipher().name)
          assert.equal('which-one', peer:hint())
          peer:send 'from alice'
          assert.equal('from alice\n', its:take 'message')
          assert.equal(1, #asking.asked)
          peer:quit()
          assert.is_false(its:take 'close')
        end))
      end

      for _, hint in ipairs { 'which-one', false } do
        local how = hint and 'with the hint' or 'without a hint'
        it(('our client, asked %s by a server of %s, waits for the psk function (%s)'):format(how, tool, suite),
          interop.run(function()
            local asking, port = lookup.new(), raw.freePort '127.0.0.1'
            local peer = peers.server(tool, {
              ip = '127.0.0.1', port = port, psk = ALICE, hint = hint or nil, pki = files, ciphers = theirs,
            })
            local conn, its = interop.client { host = '127.0.0.1', port = port, psk = asking.ask, ciphers = suite }
            assert.equal(hint or nil, question(asking)[1])
            local flight = conn:stats().datagramsIn
            loop.till(function() return conn:stats().datagramsIn > flight end, 'a repetition by the server')
            asking.answer(1, 'alice', KEY)
            its:take 'connection'
            assert.equal(suite, conn:getCipher().name)
            assert.equal(1, #asking.asked)
            assert(conn:send 'from alice\n')
            peer:receive 'from alice'
            conn:close()
            assert.is_false(its:take 'close')
          end))
      end
    end

    it(('our server refuses a client of %s with an alert when the psk function has no key'):format(tool), interop.run(function()
      local asking = lookup.new()
      local _, events, port = interop.server('127.0.0.1', { psk = asking.ask })
      local peer = peers.client(tool, { ip = '127.0.0.1', port = port, psk = ALICE })
      question(asking)
      asking.answer(1)
      assert.equal('ERR_DTLS_PSK_IDENTITY', events:take 'clientError'.code)
      peer:refused()
    end))
  end
end)

-- RFC 4279 §5.1 allows NULs; devices send an EUI-64. In OpenSSL an identity ends at its first NUL.
describe('an identity with NULs', function()
  local OTHERS = 'the key of those with whom it shares what is before a NUL'
  local identities = { 'alice\0A', 'alice\0', '\0', '\0\21\23\0\0\0\0\7', 'a\0' .. ('b'):rep(200) }

  local function hex(text)
    return (text:gsub('.', function(byte) return ('%02x'):format(byte:byte()) end):gsub('\n', '0a'))
  end

  local function visit(port, identity, visits)
    return process.spawn('luajit', { 'spec/interop/gnutls_psk.lua', tostring(port), hex(identity), hex(KEY), tostring(visits) })
  end

  -- The keys by identity: this one has KEY, and those that OpenSSL cannot tell from it have another key.
  local function keys_of(identity)
    local keys = { [identity:match '^%Z*'] = OTHERS, [identity .. '\0'] = OTHERS, [identity .. '\0B'] = OTHERS, [''] = OTHERS }
    keys[identity] = KEY
    return keys
  end

  for _, demux in ipairs { 'connected', 'shared' } do
    for kind, ask in pairs {
      ['a table'] = function(keys) return keys end,
      ['a function'] = function(keys) return function(identity) return keys[identity] end end,
    } do
      for where, store in pairs { ['a ticket'] = function() return nil end, ['a session store'] = memory_store } do
        it(('is whole in the look-up in %s, and in the session from %s (%s sockets)'):format(kind, where, demux), interop.run(function()
          for _, identity in ipairs(identities) do
            local options = { psk = ask(keys_of(identity)), demux = demux, sessionStore = store() }
            local _, events, port = interop.server('127.0.0.1', options)
            local peer = visit(port, identity, 2)
            for _, reused in ipairs { false, true } do
              local conn, its = events:take 'connection'
              assert.equal(identity, conn.pskIdentity)
              assert.is_true(conn.authorized)
              assert.equal(reused, conn:isSessionReused())
              assert.equal('hello', its:take 'message')
              assert(conn:send 'back')
              its:take 'close'
            end
            peer:finished()
            assert.equal('new back\nresumed back\n', peer.output.stdout)
          end
        end))
      end

      it(('is unknown to %s that has only the part before the NUL (%s sockets)'):format(kind, demux), interop.run(function()
        local _, events, port = interop.server('127.0.0.1', { psk = ask { alice = KEY, [''] = KEY }, demux = demux })
        for _, identity in ipairs { 'alice\0A', 'alice\0', '\0' } do
          local peer = visit(port, identity, 1)
          assert.equal('ERR_DTLS_PSK_IDENTITY', events:take 'clientError'.code)
          peer:wait()
          assert.equal(1, peer.code)
        end
        assert.equal(0, events:count 'connection')
      end))
    end
  end
end)
