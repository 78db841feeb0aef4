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

    it('again and again costs no client its connection', loop.run(function()
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
          { cert = 'garbage', key = other.key }, { cert = pair.identity.cert, key = other.key }, { ca = 'garbage' },
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
      assert(server:setContext(assert(dtls.createContext('server', { psk = { me = key.key } }))))
      local second, accepted = pair.open(server, nil, { psk = key })
      assert.equal('me', accepted.pskIdentity)
      assert.is_true(pair.roundTrip(second, 'with the key'))
      local late = pair.client(server, { retransmitTimeout = 100 })
      assert.equal('handshake_failure', loop.event(late, 'error')[1].alert)
      assert(server:setContext { psk = function(identity) return identity == 'me' and 'another key, of 24 bytes' or nil end })
      local third = pair.open(server, nil, { psk = { identity = 'me', key = 'another key, of 24 bytes' } })
      assert(server:setContext(assert(dtls.createContext('server', options(pair.identity)))))
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

describe('setContext with options', function()
  local files = pki.new()
  local root = files:certificate('root', { authority = true })
  local member = files:certificate('member', { issuer = root })
  files:remove()
  local GCM, CHACHA = 'ECDHE-ECDSA-AES128-GCM-SHA256', 'ECDHE-ECDSA-CHACHA20-POLY1305'
  local KEYS = ('k'):rep(80)

  local function mutual(more) return options(pair.identity, pair.merged({ ca = root.pem.cert, requestCert = true }, more)) end

  -- How a client that pins an identity fares: 'open', or why the server refused it. `look` sees both ends.
  local function outcome(server, identity, more, look)
    local ours = pair.record(server, 'connection', 'clientError')
    local conn = pair.client(server, pair.merged({ fingerprint = identity.fingerprint, retransmitTimeout = 50 }, more))
    local theirs = pair.record(conn, 'connection', 'error')
    loop.till(function() return ours[1] and theirs[1] end, 'both ends to know how it went')
    local first = ours[1]
    local seen
    if first[1] == 'clientError' then
      local err = first[2].code == 'ERR_DTLS_ALERT' and theirs[1][2] or first[2] -- the side that refused knows why
      seen = err.reason or err.code
    else
      seen = look and look(conn, first[2]) or 'open'
    end
    pair.close(conn)
    return seen
  end

  local function assertMutual(server, identity)
    assert.equal('NO_PEER_CERTIFICATE', outcome(server, identity))
    assert.equal('open', outcome(server, identity, options(member.pem)))
  end

  pair.eachStrategy(function(demux)
    for title, make in pairs {
      ['options'] = function() return mutual { demux = demux } end,
      ['a Context'] = function() return { demux = demux, context = assert(dtls.createContext('server', mutual())) } end,
    } do
      it(('renews the certificate of a server made with %s, which goes on to ask clients for theirs'):format(title), loop.run(function()
        local server = pair.listening(make())
        assertMutual(server, pair.identity)
        for _ = 1, 2 do
          local renewed = assert(dtls.selfSigned())
          assert.is_true(server:setContext { cert = renewed.cert, key = renewed.key })
          assertMutual(server, renewed)
          assert.equal('FINGERPRINT_MISMATCH', outcome(server, pair.identity))
        end
        pair.close(server)
      end))
    end
  end)

  it('takes what is given and keeps the rest', loop.run(function()
    local renewed = assert(dtls.selfSigned())
    local server = pair.listening {
      cert = pair.identity.cert, key = pair.identity.key, ciphers = CHACHA, ALPNProtocols = 'one', mtu = 700, ticketKeys = KEYS,
      psk = { me = 'sixteen bytes of' }, options = 'NO_EXTENDED_MASTER_SECRET', retransmitTimeout = 50,
    }
    local function look(conn, accepted)
      local mtu = math.ceil(accepted:getDataMtu() / 100) * 100
      return table.concat({ conn:getCipher().name, conn.alpnProtocol, mtu, tostring(conn.extendedMasterSecret) }, ' ')
    end
    local ask = { ALPNProtocols = { 'one', 'two' } }
    assert.equal(CHACHA .. ' one 700 false', outcome(server, pair.identity, ask, look))
    local conn = pair.open(server, nil, ask)
    local session = conn:getSession()
    pair.close(conn)
    assert.is_true(server:setContext(options(renewed)))
    assert.equal(CHACHA .. ' one 700 false', outcome(server, renewed, ask, look))
    conn = pair.open(server, nil, pair.merged(ask, { session = session }))
    assert.is_true(conn:isSessionReused())
    pair.close(conn)
    assert.is_true(server:setContext { ALPNProtocols = 'two' })
    assert.equal(CHACHA .. ' two 700 false', outcome(server, renewed, ask, look))
    assert.is_true(server:setContext { linkMtu = 628 })
    assert.equal(CHACHA .. ' two 600 false', outcome(server, renewed, ask, look))
    assert.is_true(server:setContext { ciphers = GCM, options = {} })
    assert.equal(GCM .. ' two 600 true', outcome(server, renewed, ask, look))
    assert.is_true(server:setContext { ciphers = 'PSK-AES128-GCM-SHA256', mtu = 500 })
    local psk = { psk = { identity = 'me', key = 'sixteen bytes of' }, ALPNProtocols = 'two' }
    assert.equal('PSK-AES128-GCM-SHA256 two 500 true', outcome(server, {}, psk, look))
    pair.close(server)
  end))

  it('keeps a key that was taken out of the caller\'s table later', loop.run(function()
    local keys = { me = 'sixteen bytes of' }
    local server = pair.listening { psk = keys }
    keys.me = nil
    assert.is_true(server:setContext { handshakeTimeout = 5000 })
    assert.equal('open', outcome(server, {}, { psk = { identity = 'me', key = 'sixteen bytes of' } }))
    pair.close(server)
  end))

  it('keeps what setters have changed since, unless it is given', loop.run(function()
    local made = assert(dtls.createContext('server', options(pair.identity, { ca = root.pem.cert, ciphers = GCM })))
    local server = pair.listening { context = made, retransmitTimeout = 50 }
    local function look(conn) return conn:getCipher().name .. (conn.extendedMasterSecret and ' extended' or ' plain') end
    assert.is_true(made:setVerify { mode = { 'PEER', 'FAIL_IF_NO_PEER_CERT' } })
    assert.is_true(made:setVerify { depth = 4 })
    assert.is_true(made:setCiphers(CHACHA))
    assert.is_true(made:setCiphers(CHACHA .. ':' .. GCM))
    assert.is_true(made:setOptions { 'NO_EXTENDED_MASTER_SECRET', 'NO_TICKET' })
    assert.is_true(made:clearOptions 'NO_TICKET')
    assert.is_true(made:setModes 'RELEASE_BUFFERS')
    assert.is_true(server:setTicketKeys(KEYS))
    local with = options(member.pem)
    local conn = pair.open(server, nil, with)
    local session = conn:getSession()
    pair.close(conn)
    local renewed = assert(dtls.selfSigned())
    for _ = 1, 2 do
      assert.is_true(server:setContext(options(renewed)))
      assertMutual(server, renewed)
      assert.equal(CHACHA .. ' plain', outcome(server, renewed, with, look))
    end
    conn = pair.open(server, nil, pair.merged(with, { session = session }))
    assert.is_true(conn:isSessionReused())
    pair.close(conn)
    assert.is_true(server:setContext { ciphers = GCM, options = {}, requestCert = false })
    assert.equal(GCM .. ' extended', outcome(server, renewed, nil, look))
    pair.close(server)
  end))

  it('leaves no more behind than the last setting of each kind', loop.run(function()
    local made = assert(dtls.createContext('server', options(pair.identity)))
    local server = pair.listening { context = made }
    local function turn(times)
      for i = 1, times do
        assert.is_true(server:setTicketKeys(('%080d'):format(i)))
        assert.is_true(made:setOptions 'NO_TICKET')
        assert.is_true(made:clearOptions 'NO_TICKET')
        assert.is_true(made:setVerify { depth = i % 100 })
        assert.is_true(made:setCiphers(GCM))
      end
      collectgarbage()
      collectgarbage()
      return collectgarbage 'count'
    end
    local before = turn(10)
    assert.is_true(turn(2000) - before < 50)
    pair.close(server)
  end))

  it('changes nothing when it cannot be, whatever was given before', loop.run(function()
    local server = pair.listening(mutual())
    for _, wrong in ipairs {
      { ca = 'garbage' }, { cert = member.pem.cert }, { ciphers = 'NO-SUCH-SUITE' }, { mtu = 600, linkMtu = 600 },
      { pskIdentityHint = ('x'):rep(1000) },
    } do
      local ok, err = server:setContext(wrong)
      assert.is_nil(ok)
      assert.equal('ERR_DTLS_CONFIG', err.code)
    end
    assertMutual(server, pair.identity)
    pair.close(server)
  end))
end)

describe('setContext', function()
  it('raises at the caller\'s line for what is neither a Context nor options', function()
    local server = pair.server()
    local client = assert(dtls.createContext('client', { fingerprint = pair.identity.fingerprint }))
    for _, wrong in ipairs { 7, 'x', { certificate = 'x' }, { cert = 7 }, { context = client }, client } do
      local ok, err = pcall(function() server:setContext(wrong) end)
      assert.is_false(ok)
      assert.truthy(err:find '^[^:]*rotation_spec%.lua:%d+: ', err)
    end
  end)
end)

describe('setContext with a Context', function()
  it('replaces all that the server was made with', loop.run(function()
    local renewed = assert(dtls.selfSigned())
    local server = pair.listening { requestCert = true, fingerprint = ('00'):rep(32), cert = pair.identity.cert, key = pair.identity.key }
    assert.is_true(server:setContext(assert(dtls.createContext('server', options(renewed)))))
    pair.close(pair.open(server, nil, { fingerprint = renewed.fingerprint }))
    assert.is_true(server:setContext { cert = pair.identity.cert, key = pair.identity.key })
    pair.close(pair.open(server))
    pair.close(server)
  end))
end)
