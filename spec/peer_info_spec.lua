-- What connections and errors tell of a peer: its address, names, identity and certificate, also after the end.

local dtls = require 'dtls'
local hello = require 'spec.support.hello'
local loop = require 'spec.support.loop'
local pair = require 'spec.support.pair'
local pki = require 'spec.support.pki'
local proxy = require 'spec.support.proxy'
local raw = require 'spec.support.raw'

local as, with = pair.as, pair.with

local KEY = ('k'):rep(32)
local NAME = 'known.example'

local files = pki.new()
local root = files:certificate('root', { authority = true })
local ours = files:certificate('ours', { issuer = root, altNames = { NAME, '192.0.2.1' } })
local device = files:certificate('device', { issuer = root })
local late = files:certificate('late', { issuer = root, from = '20200101000000Z', to = '20200201000000Z' })
local stranger = files:certificate('stranger', { subject = '/CN=str\27anger' })
local nameless = files:certificate('nameless', { issuer = root, altNames = {} })
local crowd = {}
for i = 1, 60 do crowd[i] = ('host-%d.crowd.example'):format(i) end
local crowded = files:certificate('crowded', { issuer = root, altNames = crowd })
files:remove()

-- The options of both sides, for each way to prove an identity.
local proofs = {
  certificates = {
    server = with(as(ours), { ca = root.pem.cert, requestCert = true, ALPNProtocols = 'coap', srtpProfiles = 'SRTP_AEAD_AES_128_GCM' }),
    client = with(as(device), {
      ca = root.pem.cert, servername = NAME, ALPNProtocols = 'coap', srtpProfiles = 'SRTP_AEAD_AES_128_GCM',
    }),
  },
  ['a pre-shared key'] = {
    server = { psk = { ['device\0007'] = KEY, device = KEY } },
    client = { psk = { identity = 'device', key = KEY }, servername = NAME },
  },
}

local getters = {
  'localAddress', 'remoteAddress', 'address', 'getProtocol', 'getCipher', 'isSessionReused', 'getPeerCertificate',
}
local fields = {
  'authorized', 'authorizationError', 'servername', 'pskIdentity', 'alpnProtocol', 'srtpProfile', 'extendedMasterSecret',
}

-- All that a connection tells of its peer.
local function facts(conn)
  local found = { chain = conn:getPeerCertificate(true) }
  for _, name in ipairs(fields) do found[name] = conn[name] end
  for _, name in ipairs(getters) do found[name] = conn[name](conn) end
  found.messagesIn = conn:stats().messagesIn
  return found
end

-- Records what the connection tells of its peer in each of these events.
local function watch(conn, server)
  local seen = {}
  local function keep(event)
    return function() seen[#seen + 1] = { event, facts(conn) } end
  end
  conn:on('error', keep 'error')
  conn:on('close', keep 'close')
  if server then
    server:on('clientError', function(_, whose)
      if whose == conn then keep 'clientError' () end
    end)
  end
  function seen.wait(event)
    loop.till(function()
      for _, each in ipairs(seen) do
        if each[1] == event then return true end
      end
    end, event)
  end
  return seen
end

local function assertSeen(expected, seen, events, conn)
  local names = {}
  for i, each in ipairs(seen) do
    names[i] = each[1]
    assert.same(expected, each[2], each[1])
  end
  assert.equal(events, table.concat(names, ' '))
  assert.same(expected, facts(conn))
end

-- How an open connection ends: the events of the server's connection, and those of the client.
local endings = {
  { 'that its peer closes', 'close', 'close', function(conn) conn:close() end },
  { 'that is closed', 'close', 'close', function(_, accepted) accepted:close() end },
  { 'that is destroyed', 'close', 'close', function(conn, accepted)
    accepted:destroy()
    conn:destroy()
  end },
  { 'that is destroyed with an error', 'error close', 'error close', function(conn, accepted)
    accepted:destroy 'enough'
    conn:destroy 'enough'
  end },
  { 'whose peer starts over', 'error close', 'close', function(conn, _, server, again)
    local port = conn:localAddress().port
    conn:destroy()
    loop.event(conn, 'close')
    return (pair.open(server, nil, with(again, { localPort = port })))
  end },
  { 'of a server that closes', 'close', 'close', function(_, _, server) server:close() end },
}

pair.eachStrategy(function(demux)
  for proof, options in pairs(proofs) do
    describe(('a connection with %s'):format(proof), function()
      for _, case in ipairs(endings) do
        local title, atServer, atClient, finish = unpack(case)
        it('tells the same of its peer after its end as before: one ' .. title, loop.run(function()
          local server = pair.listening(with(options.server, { demux = demux }))
          local conn, accepted = pair.open(server, nil, options.client)
          pair.roundTrip(conn, 'something', accepted:on('message', function(data) accepted:send(data) end))
          local mine, its = facts(conn), facts(accepted)
          assert.same({ true }, pair.verdict(conn))
          assert.equal(NAME, its.servername)
          assert.equal(proof == 'certificates' and device.fingerprint or nil, (its.getPeerCertificate or {}).fingerprint256)
          assert.equal(proof ~= 'certificates' and 'device' or nil, its.pskIdentity)
          assert.equal(1, its.messagesIn)
          assert.same(mine.localAddress, its.remoteAddress)
          local atItsEnd, atMine = watch(accepted, server), watch(conn)
          local again = finish(conn, accepted, server, options.client)
          atItsEnd.wait 'close'
          atMine.wait 'close'
          assertSeen(its, atItsEnd, atServer, accepted)
          assertSeen(mine, atMine, atClient, conn)
          assert.is_nil(accepted:getPeerCertificate() and accepted:getPeerCertificate().issuerCertificate)
          if again then pair.close(again) end
          if server:address() and title ~= 'of a server that closes' then pair.close(server) end
        end))
      end
    end)
  end

  describe('an unfinished handshake', function()
    -- How an unfinished handshake ends: the error's code, the server's options, and what ends the handshake.
    local early = {
      { 'that is evicted', 'ERR_DTLS_EVICTED', { maxHandshakes = 1 }, function(server)
        local another = raw.open()
        hello.halfOpen(another, server)
        return another
      end },
      { 'that does not complete in time', 'ERR_DTLS_HANDSHAKE_TIMEOUT', { handshakeTimeout = 200 * loop.patience }, function() end },
      { 'that is destroyed with an error', 'ERR_DTLS_DESTROYED', {}, function(server)
        for conn in server:connections() do conn:destroy 'enough' end
      end },
      { 'whose peer starts over', 'ERR_DTLS_REPLACED', { retransmitTimeout = 50 }, function(server, peer)
        local random = ('x'):rep(32)
        local again = hello.build {
          random = random, cookie = hello.cookie(peer, server, { random = random }), sequence = 9, messageSequence = 1,
        }
        loop.till(function() -- as soon as it may begin another handshake
          peer:send(again, server)
          return server:stats().replaced == 1
        end, 'the replacement')
      end },
    }
    for _, case in ipairs(early) do
      local title, code, options, finish = unpack(case)
      it('tells address and servername in clientError and after its end: one ' .. title, loop.run(function()
        local server = pair.listening(with(options, { demux = demux }))
        local peer, refused = raw.open(), nil
        server:on('clientError', function(err, conn)
          refused = refused or { err = err, conn = conn, facts = facts(conn) }
        end)
        local name = hello.vector(2, '\0' .. hello.vector(2, NAME)) -- RFC 6066 §3
        hello.halfOpen(peer, server, { extensions = hello.extensions .. '\0\0' .. hello.vector(2, name) })
        local another = finish(server, peer)
        loop.till(function() return refused end, 'clientError')
        assert.equal(code, refused.err.code)
        assert.same({ ip = '127.0.0.1', port = peer.port, family = 'inet' }, refused.facts.remoteAddress)
        assert.equal(server.port, refused.facts.localAddress.port)
        assert.equal(NAME, refused.facts.servername)
        assert.same({ false, 'HANDSHAKE_NOT_COMPLETE' }, pair.verdict(refused.conn))
        assert.same(refused.facts, facts(refused.conn))
        assert.is_true(refused.conn:stats().datagramsOut > 0)
        server:destroy()
        loop.event(server, 'close')
        assert.same(refused.facts, facts(refused.conn))
        pair.close(peer, another)
      end))
    end
  end)

  describe('a pre-shared key identity that is refused', function()
    local function refusal(serverOptions, clientOptions)
      local outcome = pair.attempt(with(serverOptions, { demux = demux }), clientOptions)
      return outcome.server, outcome.client
    end

    local function someone(identity, key) return { psk = { identity = identity, key = key or KEY } } end

    for kind, psk in pairs { table = { bob = KEY }, ['function'] = function() end } do
      it(('is named in the errors of both sides when a %s has no key for the identity'):format(kind), loop.run(function()
        local err, its = refusal({ psk = psk }, someone 'eve\27[2J')
        assert.equal('ERR_DTLS_PSK_IDENTITY', err.code)
        assert.equal("there is no key for the identity 'eve\\x1b[2J'", err.message)
        assert.equal('PSK_IDENTITY_NOT_FOUND', err.reason)
        assert.equal('eve\27[2J', err.identity)
        assert.equal('unknown_psk_identity', its.alert)
        assert.equal('eve\27[2J', its.identity)
      end))
    end

    it('is named in the error when the psk function throws', loop.run(function()
      local err = refusal({ psk = function() error 'no database' end }, someone 'eve')
      assert.equal('ERR_DTLS_CALLBACK', err.code)
      assert.equal('eve', err.identity)
    end))

    it('is named in the errors of both sides when their keys differ', loop.run(function()
      local short = { handshakeTimeout = 300 * loop.patience }
      local err, its = refusal(with(short, { psk = { eve = KEY } }), with(short, someone('eve', 'another key')))
      assert.same({ 'ERR_DTLS_PSK_KEY', 'eve' }, { err.code, err.identity })
      assert.same({ 'ERR_DTLS_PSK_KEY', 'eve' }, { its.code, its.identity })
    end))

    it('is named in the error when the psk function does not answer in time', loop.run(function()
      local err = refusal({ psk = function() coroutine.yield() end, handshakeTimeout = 300 * loop.patience },
        with(someone 'eve', { handshakeTimeout = 600 * loop.patience }))
      assert.same({ 'ERR_DTLS_HANDSHAKE_TIMEOUT', 'eve' }, { err.code, err.identity })
    end))

    it('is the pskIdentity of the connection, too', loop.run(function()
      local server = pair.listening { demux = demux, psk = { bob = KEY } }
      local heard = pair.record(server, 'clientError')
      local conn = pair.client(server, with(someone 'eve', { retransmitTimeout = 50 }))
      heard.wait 'clientError'
      assert.equal('eve', heard[1][3].pskIdentity)
      assert.equal(conn:localAddress().port, heard[1][3]:remoteAddress().port)
      assert.is_false(heard[1][3].authorized)
      pair.close(conn, server)
      assert.equal('eve', heard[1][3].pskIdentity)
    end))

    it('is replaced in the client\'s error by the server\'s hint when the client has no key', loop.run(function()
      local _, err = refusal({ psk = { bob = KEY }, pskIdentityHint = 'plant 7' }, { psk = function() end })
      assert.equal('ERR_DTLS_PSK_IDENTITY', err.code)
      assert.equal("there is no key for a server with the hint 'plant 7'", err.message)
      _, err = refusal({ psk = { bob = KEY } }, { psk = function() end })
      assert.equal('there is no key for this server', err.message)
    end))
  end)

  describe('a certificate that is refused', function()
    local trusting = { ca = root.pem.cert, servername = NAME }
    local PREFIX = "the peer's certificate was refused: "

    -- The server's certificate, more options of the client, the error's message, its reason.
    local cases = {
      { 'for its name', ours, { servername = 'foo.example' },
        'hostname mismatch: foo.example is not among DNS:known.example, IP Address:192.0.2.1', 'HOSTNAME_MISMATCH' },
      { 'for its address', ours, { servername = '192.0.2.7' },
        'IP address mismatch: 192.0.2.7 is not among DNS:known.example, IP Address:192.0.2.1', 'IP_ADDRESS_MISMATCH' },
      { 'for having no names', nameless, {},
        'hostname mismatch: known.example is not among its names, of which it has none (subjectAltName)', 'HOSTNAME_MISMATCH' },
      { 'for its age', late, { servername = 'localhost' },
        'certificate has expired: CN=late was valid until Feb  1 00:00:00 2020 GMT', 'CERT_HAS_EXPIRED' },
      { 'for who signed it', device, { ca = stranger.pem.cert, servername = 'localhost' },
        'unable to get local issuer certificate: CN=device, issued by CN=root', 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY' },
      { 'for signing itself', stranger, { servername = 'localhost' },
        'self%-signed certificate: CN=str\\1Banger', 'DEPTH_ZERO_SELF_SIGNED_CERT' },
      { 'for its fingerprint', ours, { fingerprint = device.fingerprint },
        ('fingerprint mismatch: it is %s and not %s'):format(ours.fingerprint, device.fingerprint), 'FINGERPRINT_MISMATCH' },
      { 'for its fingerprint, one of several', ours, { fingerprint = { device.fingerprint, late.fingerprint } },
        ('fingerprint mismatch: it is %s and not one of the 2 that are pinned'):format(ours.fingerprint), 'FINGERPRINT_MISMATCH' },
      { 'by the application', ours, { checkServerIdentity = function() return 'too old a firmware' end },
        'too old a firmware', 'too old a firmware' },
    }
    for _, case in ipairs(cases) do
      local title, entry, client, message, reason = unpack(case)
      it(('%s is in the error of the client, beside what the client expected'):format(title), loop.run(function()
        local server = pair.listening(with(as(entry), { demux = demux, retransmitTimeout = 50 }))
        local conn = pair.client(server, with(trusting, client))
        local heard, known = pair.record(conn, 'error', 'close'), nil
        conn:on('error', function() known = facts(conn) end)
        heard.wait 'close'
        local err = heard[1][2]
        assert.equal('ERR_DTLS_CERTIFICATE', err.code)
        assert.equal(reason, err.reason)
        assert.truthy((err.message:gsub('self signed', 'self-signed')):find('^' .. (PREFIX .. message):gsub('[%(%)%.%[%]]', '%%%0') .. '$')
          or err.message == PREFIX .. message, err.message)
        assert.equal(entry.fingerprint, err.certificate.fingerprint256)
        assert.same(err.certificate, known.chain)
        assert.same({ false, reason }, pair.verdict(conn))
        assert.same(known, facts(conn))
        pair.close(server)
      end))
    end

    it('for its name, one of many names, is in an error of bounded length', loop.run(function()
      local outcome = pair.attempt(with(as(crowded), { demux = demux }), trusting)
      assert.matches('^' .. PREFIX .. 'hostname mismatch: known.example is not among DNS:host%-1%.crowd%.example, .*%.%.%.$',
        outcome.client.message)
      assert.is_true(#outcome.client.message < 400, #outcome.client.message)
    end))

    local badges = {
      { late, 'certificate has expired: CN=late was valid until Feb  1 00:00:00 2020 GMT', 'CERT_HAS_EXPIRED' },
      { stranger, 'self-signed certificate: CN=str\\1Banger', 'DEPTH_ZERO_SELF_SIGNED_CERT' },
      { ours, ('fingerprint mismatch: it is %s and not %s'):format(ours.fingerprint, device.fingerprint), 'FINGERPRINT_MISMATCH',
        { fingerprint = device.fingerprint } },
    }
    for _, case in ipairs(badges) do
      local entry, message, reason, more = unpack(case)
      it(('is in the error of the server: %s'):format(reason), loop.run(function()
        local server = pair.listening(with(with(as(ours), { ca = root.pem.cert, requestCert = true, demux = demux }), more or {}))
        local heard = pair.record(server, 'clientError')
        local conn = pair.client(server, with(with(trusting, as(entry)), { retransmitTimeout = 50 }))
        heard.wait 'clientError'
        local err, accepted = heard[1][2], heard[1][3]
        assert.equal('ERR_DTLS_CERTIFICATE', err.code)
        assert.equal(PREFIX .. message, (err.message:gsub('self signed', 'self-signed')))
        assert.equal(entry.fingerprint, err.certificate.fingerprint256)
        assert.equal(entry.fingerprint, accepted:getPeerCertificate().fingerprint256)
        assert.same({ false, reason }, pair.verdict(accepted))
        assert.equal(NAME, accepted.servername)
        assert.equal(conn:localAddress().port, accepted:remoteAddress().port)
        pair.close(conn, server)
      end))
    end

    it('is not in the error when the client has shown none', loop.run(function()
      local outcome = pair.attempt(with(as(ours), { ca = root.pem.cert, requestCert = true, demux = demux }), trusting)
      assert.equal('NO_PEER_CERTIFICATE', outcome.server.reason)
      assert.is_nil(outcome.server.certificate)
    end))
  end)

  describe('ERR_DTLS_HANDSHAKE_TIMEOUT', function()
    it('tells a server the alert of a client that has refused the server\'s certificate', loop.run(function()
      local server = pair.listening(with(as(ours), { demux = demux, handshakeTimeout = 400 * loop.patience }))
      local heard = pair.record(server, 'clientError')
      local conn = pair.client(server, { ca = stranger.pem.cert, servername = NAME })
      conn:on('error', function() end)
      heard.wait 'clientError'
      local err = heard[1][2]
      assert.equal('ERR_DTLS_HANDSHAKE_TIMEOUT', err.code)
      assert.equal('unknown_ca', err.alert)
      assert.matches('did not complete within %d+ ms; unauthenticated, and therefore not believed, came the alert unknown_ca$', err.message)
      assert.equal(1, server:stats().handshakesTimedOut)
      pair.close(conn, server)
    end))

    it('tells a client the alert of a server that does not know the client\'s identity', loop.run(function()
      local server = pair.listening { psk = { bob = KEY }, demux = demux }
      local conn = pair.client(server, { psk = { identity = 'eve', key = KEY }, handshakeTimeout = 400 * loop.patience })
      local err = loop.event(conn, 'error')[1]
      assert.same({ 'ERR_DTLS_HANDSHAKE_TIMEOUT', 'unknown_psk_identity', 'eve' }, { err.code, err.alert, err.identity })
      pair.close(server)
    end))

    it('tells no alert after which the handshake went on', loop.run(function()
      local server = pair.listening { demux = demux }
      local relay = proxy.new(server, {
        filter = function(direction, index, data)
          if direction == 'server' and index > 2 then return nil end
          return direction == 'client' and index == 1 and { '\21\254\253\0\0\0\0\0\0\0\9\0\2\2\40', data } or data
        end,
      })
      local conn = pair.client(relay, { handshakeTimeout = 500 * loop.patience, retransmitTimeout = 2000 * loop.patience })
      local err = loop.event(conn, 'error')[1]
      assert.equal(1, conn:stats().drops.alert)
      assert.equal('ERR_DTLS_HANDSHAKE_TIMEOUT', err.code)
      assert.is_nil(err.alert)
      pair.close(server, relay)
    end))
  end)

  describe('the connection that a callback is asked for', function()
    it('is the second argument of a server\'s psk function and SNICallback', loop.run(function()
      local asked, accepted = {}, nil
      local function ask(kind, answer)
        return function(subject, conn, ...)
          asked[#asked + 1] = { kind, subject, conn == accepted, conn:remoteAddress().port, conn.servername, select('#', ...) }
          return answer
        end
      end
      local server = pair.listening { demux = demux, psk = ask('psk', KEY), SNICallback = ask 'SNICallback' }
      server:on('accept', function(conn) accepted = conn end)
      local conn = pair.open(server, nil, { psk = { identity = 'alice', key = KEY }, servername = 'Known.Example' })
      local port = conn:localAddress().port
      assert.same({ { 'SNICallback', NAME, true, port, NAME, 0 }, { 'psk', 'alice', true, port, NAME, 0 } }, asked)
      pair.close(conn, server)
    end))

    it('already has the pskIdentity that the psk function is asked for', loop.run(function()
      local known
      local server = pair.listening { demux = demux, psk = function(_, conn)
        known = conn.pskIdentity
        return KEY
      end }
      local conn = pair.open(server, nil, { psk = { identity = 'alice', key = KEY } })
      assert.equal('alice', known)
      pair.close(conn, server)
    end))

    it('is the second argument of a client\'s psk function', loop.run(function()
      local server, who, port = pair.listening { demux = demux, psk = { alice = KEY } }, nil, nil
      local conn = pair.open(server, nil, { psk = function(_, asking)
        who, port = asking, asking:remoteAddress().port
        return 'alice', KEY
      end })
      assert.equal(conn, who)
      assert.equal(server.port, port)
      pair.close(conn, server)
    end))

    it('is in clientError, with its servername, when sni has no identity for the name', loop.run(function()
      local server = pair.listening { demux = demux, sni = { ['other.example'] = as(ours) } }
      local heard = pair.record(server, 'clientError')
      local conn = pair.client(server, { ca = root.pem.cert, servername = NAME, retransmitTimeout = 50 })
      heard.wait 'clientError'
      assert.equal(("there is no identity for the name '%s', which the client asked for"):format(NAME), heard[1][2].message)
      assert.equal(NAME, heard[1][3].servername)
      pair.close(conn, server)
    end))
  end)

  describe('a closed connection that the application keeps', function()
    -- Bytes of Lua's heap.
    local function used()
      collectgarbage()
      collectgarbage()
      return collectgarbage 'count' * 1024
    end

    it('takes less than 3000 bytes of a server, and 5000 of a client, with what is known of the peer', loop.run(function()
      local COUNT = 20
      local mutual = with(as(ours), { ca = root.pem.cert, requestCert = true, demux = demux })
      local server, kept = pair.listening(mutual), { accepted = {}, clients = {} }
      local context = assert(dtls.createContext('client', with(as(device), { ca = root.pem.cert })))
      local function open_and_close()
        local conn, accepted = pair.open(server, nil, { context = context, servername = NAME })
        pair.close(conn, accepted)
        return conn, accepted
      end
      open_and_close() -- what is made once
      for i = 1, COUNT do kept.clients[i], kept.accepted[i] = open_and_close() end
      assert.equal(device.fingerprint, kept.accepted[COUNT]:getPeerCertificate().fingerprint256)
      local both = used()
      kept.clients = nil
      local servers = used()
      kept.accepted = nil
      local neither = used()
      assert.is_true((servers - neither) / COUNT < 3000, ('%d bytes of a server'):format((servers - neither) / COUNT))
      assert.is_true((both - servers) / COUNT < 5000, ('%d bytes of a client'):format((both - servers) / COUNT))
      pair.close(server)
    end))
  end)

  describe('what a getter returns', function()
    local function snapshot(value)
      local own = type(value) == 'table' and {} or value
      if own ~= value then for name, inner in pairs(value) do own[name] = snapshot(inner) end end
      return own
    end

    it('is a copy: changing it does not change later results', loop.run(function()
      local server = pair.listening { demux = demux }
      local conn, accepted = pair.open(server)
      pair.close(conn, accepted, server)
      for _, method in ipairs { 'stats', 'getCipher', 'getPeerCertificate', 'remoteAddress', 'localAddress' } do
        for _, each in ipairs(method == 'getPeerCertificate' and { conn } or { conn, accepted }) do
          local given = each[method](each)
          local before = snapshot(given)
          if given.drops then given.drops.stranger = 99 end
          if given.subject then given.subject.CN = 'mallory' end
          for name in pairs(given) do given[name] = nil end
          assert.same(before, each[method](each), method)
        end
      end
    end))
  end)

  describe('authorized', function()
    it('is false with a reason until connection, on both sides', loop.run(function()
      local server = pair.listening(with(proofs.certificates.server, { demux = demux }))
      local seen = {}
      local function note(title) return function(conn) seen[title] = pair.verdict(conn) end end
      server:on('accept', note 'accept')
      server:on('connection', note 'connection')
      local conn = pair.client(server, proofs.certificates.client)
      assert.same({ false, 'HANDSHAKE_NOT_COMPLETE' }, pair.verdict(conn))
      conn:on('connection', function() note 'client' (conn) end)
      loop.till(function() return seen.connection and seen.client end, 'both ends')
      assert.same({ accept = { false, 'HANDSHAKE_NOT_COMPLETE' }, connection = { true }, client = { true } }, seen)
      pair.close(conn, server)
      assert.same({ true }, pair.verdict(conn))
    end))
  end)
end)

describe('a client without a server', function()
  it('has the system\'s error in the reason of ERR_DTLS_HANDSHAKE_TIMEOUT', loop.run(function()
    local port = raw.freePort()
    local conn = pair.client({ ip = '127.0.0.1', port = port }, { handshakeTimeout = 300 * loop.patience })
    local err = loop.event(conn, 'error')[1]
    assert.same({ 'ERR_DTLS_HANDSHAKE_TIMEOUT', 'ECONNREFUSED' }, { err.code, err.reason })
    assert.matches('did not complete within %d+ ms; the system said ECONNREFUSED$', err.message)
    assert.equal(port, conn:remoteAddress().port)
  end))

  it('tells nothing of a peer when it has no route to the server', loop.run(function()
    local conn = assert(dtls.connect { host = '192.0.2.1', port = 1, localAddress = '::1', fingerprint = pair.identity.fingerprint })
    loop.event(conn, 'close')
    assert.same({
      authorized = false, authorizationError = 'HANDSHAKE_NOT_COMPLETE', extendedMasterSecret = false, isSessionReused = false,
    }, facts(conn))
  end))
end)
