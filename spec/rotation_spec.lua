-- A server's identity is renewed while its clients come and go.

local dtls = require 'dtls'
local hello = require 'spec.support.hello'
local loop = require 'spec.support.loop'
local pair = require 'spec.support.pair'
local pki = require 'spec.support.pki'
local raw = require 'spec.support.raw'

local ROTATIONS = 8
local AT_ONCE = 8
local PER_ROTATION = AT_ONCE + 4 -- so many that some of them begin with the identity in use

local function options(identity, more)
  local all = { cert = identity.cert, key = identity.key }
  for name, value in pairs(more or {}) do all[name] = value end
  return all
end

-- Clients that come one after the other, several at a time, until stop(): each connects, has a message echoed, and goes.
-- What became of them is counted.
local function stream(server, how)
  local self = { served = 0, running = 0, failures = {}, seen = setmetatable({}, { __index = function() return 0 end }) }
  local stopped
  local function start()
    if stopped then return end
    self.running = self.running + 1
    local conn = pair.client(server, how())
    local certificate
    conn:on('connection', function()
      certificate = conn:getPeerCertificate()
      conn:send 'hello'
    end)
    conn:on('message', function()
      self.served = self.served + 1
      self.seen[certificate.fingerprint256] = self.seen[certificate.fingerprint256] + 1
      conn:close()
    end)
    conn:on('error', function(err) self.failures[#self.failures + 1] = tostring(err) end)
    conn:on('close', function()
      self.running = self.running - 1
      start()
    end)
  end
  for _ = 1, AT_ONCE do start() end
  function self.stop()
    stopped = true
    loop.till(function() return self.running == 0 end, 'the last clients')
  end
  return self
end

pair.eachStrategy(function(demux)
  describe('an identity that is renewed', function()
    -- Renews again and again, each time when clients have been served with the identity in use.
    local function rotate(clients, renew)
      for i = 1, ROTATIONS do
        local before = clients.served
        loop.till(function() return clients.served >= before + PER_ROTATION or #clients.failures > 0 end, 'clients of one identity', 20000)
        assert(renew(i))
      end
    end

    it('again and again costs nobody a connection', loop.run(function()
      local identities = { pair.identity }
      for i, kind in ipairs { 'ec', 'rsa', 'ed25519' } do identities[i + 1] = pki.selfSigned { type = kind } end
      local pins = {}
      for i, each in ipairs(identities) do pins[i] = each.fingerprint end
      local server = pair.echo(pair.listening { demux = demux })
      local conn = pair.open(server)
      local fate = pair.record(conn, 'error', 'close')
      local clients = stream(server, function() return { fingerprint = pins } end)
      rotate(clients, function(i)
        assert.is_true(pair.roundTrip(conn, 'still here ' .. i))
        return server:setContext(options(identities[i % #identities + 1]))
      end)
      clients.stop()
      assert.same({}, clients.failures)
      for i, each in ipairs(identities) do assert.is_true(clients.seen[each.fingerprint] > 0, 'nobody saw number ' .. i) end
      assert.equal('', fate.names())
      assert.is_true(pair.roundTrip(conn, 'until the end'))
      assert.equal(pair.identity.fingerprint, conn:getPeerCertificate().fingerprint256)
      local stats = server:stats()
      assert.equal(0, stats.handshakesFailed + stats.handshakesTimedOut + stats.refused + stats.replaced)
      assert.equal(clients.served + 1, stats.connections)
      pair.close(conn, server)
    end))

    it('under the same authority needs nothing of its clients', loop.run(function()
      local files = pki.new()
      local root = files:certificate('root', { authority = true })
      local made = {}
      for i = 1, 2 do
        local entry = files:certificate('number-' .. i, { issuer = root, altNames = { 'server.example' } })
        made[i] = { context = assert(dtls.createContext('server', entry.pem)), fingerprint = entry.fingerprint }
      end
      files:remove()
      local server = pair.echo(pair.listening { demux = demux, context = made[1].context })
      local clients = stream(server, function() return { ca = root.pem.cert, servername = 'server.example' } end)
      rotate(clients, function(i) return server:setContext(made[i % 2 + 1].context) end)
      clients.stop()
      assert.same({}, clients.failures)
      for i, each in ipairs(made) do assert.is_true(clients.seen[each.fingerprint] > 0, 'nobody saw number ' .. i) end
      assert.equal(clients.served, server:stats().connections)
      pair.close(server)
    end))

    it('is the one that new clients see, at once', loop.run(function()
      local server = pair.echo(pair.listening { demux = demux })
      local old = pair.open(server)
      local peer = raw.open()
      for _ = 1, 3 do
        local renewed = assert(dtls.selfSigned())
        hello.cookie(peer, server) -- the server now has something ready for the next hello
        assert(server:setContext(options(renewed)))
        local conn = pair.open(server, nil, { fingerprint = renewed.fingerprint })
        assert.is_true(pair.roundTrip(conn, 'with the new one'))
        local late = pair.client(server, { retransmitTimeout = 100 })
        local fate = pair.record(late, 'connection', 'error', 'close')
        fate.wait 'close'
        assert.equal('FINGERPRINT_MISMATCH', fate[1][2].reason)
        pair.close(conn)
      end
      assert.is_true(pair.roundTrip(old, 'with the old one'))
      pair.close(old, server, peer)
    end))

    it('stays in use when the next one is none, also under load', loop.run(function()
      local server = pair.echo(pair.listening { demux = demux })
      local clients = stream(server, function() return {} end)
      rotate(clients, function(i)
        local other = assert(dtls.selfSigned())
        local wrong = ({
          { cert = 'garbage', key = other.key }, { cert = pair.identity.cert, key = other.key }, {},
          options(other, { ciphers = 'NO-SUCH-SUITE' }), options(other, { ALPNProtocols = '' }),
          options(other, { srtpProfiles = 'SRTP_ROT13' }),
        })[i % 6 + 1]
        local ok, err = server:setContext(wrong)
        assert.is_nil(ok)
        assert.equal('ERR_DTLS_CONFIG', err.code)
        return true
      end)
      clients.stop()
      assert.same({}, clients.failures)
      pair.close(server)
    end))

    it('may become a pre-shared key, and a certificate again', loop.run(function()
      local key = { identity = 'me', key = 'sixteen bytes of' }
      local server = pair.echo(pair.listening { demux = demux })
      local first = pair.open(server)
      assert(server:setContext { psk = { me = key.key } })
      local second, accepted = pair.open(server, nil, { psk = key })
      assert.equal('me', accepted:pskIdentity())
      assert.is_true(pair.roundTrip(second, 'with the key'))
      local late = pair.client(server, { retransmitTimeout = 100 })
      assert.equal('handshake_failure', loop.event(late, 'error')[1].alert)
      assert(server:setContext { psk = function(identity) return identity == 'me' and 'another key, of 24 bytes' or nil end })
      local third = pair.open(server, nil, { psk = { identity = 'me', key = 'another key, of 24 bytes' } })
      assert(server:setContext(options(pair.identity)))
      local fourth = pair.open(server)
      for i, conn in ipairs { first, second, third, fourth } do assert.is_true(pair.roundTrip(conn, 'still here ' .. i)) end
      pair.close(late, first, second, third, fourth, server)
    end))

    it('leaves the identities of names as they are, under load', loop.run(function()
      local named = assert(dtls.selfSigned { commonName = 'one.example' })
      local identities = { pair.identity, assert(dtls.selfSigned()) }
      local server = pair.echo(pair.listening { demux = demux, sni = { ['one.example'] = options(named) } })
      local turn = 0
      local clients = stream(server, function()
        turn = turn + 1
        if turn % 2 == 0 then return { servername = 'one.example', fingerprint = named.fingerprint } end
        return { fingerprint = { identities[1].fingerprint, identities[2].fingerprint } }
      end)
      rotate(clients, function(i) return server:setContext(options(identities[i % 2 + 1])) end)
      clients.stop()
      assert.same({}, clients.failures)
      for _, each in ipairs { named, identities[1], identities[2] } do assert.is_true(clients.seen[each.fingerprint] > 0) end
      pair.close(server)
    end))

    it('does not change handshakes that wait for an answer', loop.run(function()
      local thread
      local renewed = assert(dtls.selfSigned())
      local server = pair.echo(pair.listening { demux = demux, SNICallback = function()
        thread = coroutine.running()
        return coroutine.yield()
      end })
      local conn = pair.client(server, { servername = 'any.example' })
      local fate = pair.record(conn, 'connection', 'error')
      loop.till(function() return thread end, 'the question')
      assert(server:setContext(options(renewed)))
      collectgarbage() -- nobody else holds the old context
      assert(coroutine.resume(thread, nil))
      fate.wait 'connection'
      assert.equal(pair.identity.fingerprint, conn:getPeerCertificate().fingerprint256)
      assert.is_true(pair.roundTrip(conn, 'with the old one'))
      pair.close(conn, server)
    end))
  end)
end)
