-- Server names: which identity a name gets, from a map or from a function, and what follows the identity.

local dtls = require 'dtls'
local uv = require 'luv'
local hello = require 'spec.support.hello'
local loop = require 'spec.support.loop'
local pair = require 'spec.support.pair'
local pki = require 'spec.support.pki'
local proxy = require 'spec.support.proxy'
local raw = require 'spec.support.raw'

local own = pair.identity
local one, other, third

setup(function()
  one = assert(dtls.selfSigned { commonName = 'one.example' })
  other = assert(dtls.selfSigned { commonName = 'other.example' })
  third = assert(dtls.selfSigned { commonName = 'third.example' })
end)

local merged = pair.merged

local function options(identity, more)
  return merged({ cert = identity.cert, key = identity.key }, more)
end

local function context(identity, more)
  return assert(dtls.createContext('server', options(identity, more)))
end

-- A client that asks for a name and accepts one identity alone.
local function asking(name, identity, more)
  return merged({ servername = name, fingerprint = identity.fingerprint }, more)
end

-- Connects, and ends what it began; returns what `look(conn, accepted)` finds.
local function visit(server, how, look)
  local conn, accepted = pair.open(server, nil, how)
  local found
  if look then found = look(conn, accepted) end
  pair.close(conn)
  loop.till(function() return server:stats().active == 0 end, 'the server to notice')
  return found
end

local function gets(server, name, identity)
  return visit(server, asking(name, identity), function(_, accepted) return accepted.servername end)
end

-- A handshake that both sides give up: the client's error, the server's. A client that does not believe the alert yet may
-- repeat its hello and be refused once more.
local function refused(server, how)
  local theirs = {} -- by port
  local function heard(err, accepted) theirs[accepted:remoteAddress().port] = err end
  server:on('clientError', heard)
  how.retransmitTimeout = 100
  local conn = pair.client(server, how)
  local fate = pair.record(conn, 'connection', 'error', 'close')
  fate.wait 'close'
  local from = conn:localAddress().port
  loop.till(function() return theirs[from] end, 'clientError')
  assert.equal('error close', fate.names())
  server:removeListener('clientError', heard)
  return fate[1][2], theirs[from]
end

local function assertUnrecognized(server, name)
  local err, theirs = refused(server, asking(name, own))
  assert.equal('ERR_DTLS_ALERT', err.code)
  assert.equal('unrecognized_name', err.alert)
  assert.equal('ERR_DTLS_SERVERNAME', theirs.code)
  assert.equal('UNRECOGNIZED_NAME', theirs.reason)
end

-- Calls `action` on a later turn of the loop.
local function later(ms, action)
  local timer = uv.new_timer()
  timer:start(ms, 0, function()
    timer:close()
    action()
  end)
end

-- A callback that waits until release(name, …) says what it returns; `asked` counts the calls for each name.
local function waiting()
  local threads, asked = {}, {}
  local function callback(name)
    if not name then return nil end
    asked[name] = (asked[name] or 0) + 1
    threads[name] = coroutine.running()
    return coroutine.yield()
  end
  local function release(name, ...)
    local thread = threads[name]
    threads[name] = nil
    assert(coroutine.resume(thread, ...))
  end
  return callback, release, asked
end

-- The types of the extensions in the ServerHello among some datagrams (RFC 5246 §7.4.1.3).
local function server_hello_extensions(datagrams)
  for _, data in ipairs(datagrams) do
    for _, record in ipairs(hello.records(data)) do
      if record.type == 22 and record.body:byte(1) == 2 then
        local body = record.body:sub(13)
        local at, types = 36 + body:byte(35) + 3, {} -- behind version, random, session id, suite and compression
        local stop = at + 2 + hello.read(body, at, 2)
        at = at + 2
        while at < stop do
          types[hello.read(body, at, 2)] = true
          at = at + 4 + hello.read(body, at + 2, 2)
        end
        return types
      end
    end
  end
  error 'there is no ServerHello'
end

pair.eachStrategy(function(demux)
  -- RFC 6066 §3: who acknowledges a name has used it.
  describe('the server_name extension', function()
    local NAME = 'one.example'
    local named, store

    before_each(function()
      store = {}
      named = context(one)
    end)

    local function remember() end
    -- how it knows names → whether the client's name chose its identity
    local servers = {
      ['without sni and SNICallback'] = { false, function() return {} end },
      ['with a sessionStore alone'] = { false, function()
        local function set(id, blob) store[id] = blob end
        return { sessionStore = { get = function(id) return store[id] end, set = set, remove = remember } }
      end },
      ['with psk alone'] = {
        false, function() return { psk = { alice = 'her key' } } end, { psk = { identity = 'alice', key = 'her key' } },
      },
      ['whose SNICallback gives nil'] = { false, function() return { SNICallback = function() return nil end } end },
      ['whose SNICallback gives a Context'] = { true, function() return { SNICallback = function() return named end } end },
      ['whose SNICallback gives its own identity'] = { true, function() return { SNICallback = function() return options(own) end } end },
      ['whose sni has the name'] = { true, function() return { sni = { [NAME] = named } } end },
      ['whose sni has *'] = { true, function() return { sni = { ['*'] = named } } end },
    }
    for which, case in pairs(servers) do
      local expected, make, client = unpack(case)
      local acknowledged = expected and 'is acknowledged' or 'is not acknowledged'
      it(('%s by a server %s, and both ends know the name, in a resumed session, too'):format(acknowledged, which), loop.run(function()
        local server = pair.listening(pair.with({ demux = demux }, make()))
        local relay = proxy.new(server)
        local how = pair.with(client or { fingerprint = { own.fingerprint, one.fingerprint } }, { servername = NAME })
        local conn, accepted = pair.open(server, relay, how)
        assert.equal(expected, server_hello_extensions(relay.recorded.client)[0] or false)
        assert.same({ NAME, NAME }, { conn.servername, accepted.servername })
        local blob = conn:getSession()
        pair.close(conn)

        conn, accepted = pair.open(server, nil, pair.with(how, { session = blob }))
        assert.is_true(accepted:isSessionReused())
        assert.same({ NAME, NAME }, { conn.servername, accepted.servername })
        pair.close(conn, relay, server)
      end))
    end
  end)
end)

pair.each(function(demux, ip)
  describe('a server with a map of names', function()
    local function listening(sni)
      return pair.listening({ demux = demux, sni = sni }, ip)
    end

    it('shows everybody the identity of the name that they ask for', loop.run(function()
      local server = listening { ['one.example'] = options(one), ['other.example'] = context(other) }
      assert.equal('one.example', gets(server, 'one.example', one))
      assert.equal('other.example', gets(server, 'other.example', other))
      assert.equal('one.example', gets(server, 'one.example', one))
      pair.close(server)
    end))

    it('does not mind how a name is written', loop.run(function()
      local server = listening { ['One.Example'] = options(one), ['*.OTHER.example'] = options(other) }
      assert.equal('one.example', gets(server, 'one.example', one))
      assert.equal('one.example', gets(server, 'ONE.EXAMPLE', one))
      assert.equal('a.other.example', gets(server, 'A.other.EXAMPLE', other))
      pair.close(server)
    end))

    it('shows its own identity to those who ask for no name', loop.run(function()
      local server = listening { ['one.example'] = options(one), ['*'] = options(other) }
      assert.is_nil(gets(server, nil, own))
      pair.close(server)
    end))

    it('refuses names that it does not have, and goes on', loop.run(function()
      local server = listening { ['one.example'] = options(one), ['*.other.example'] = options(other) }
      assertUnrecognized(server, 'example')
      assertUnrecognized(server, 'one.example.net')
      assertUnrecognized(server, 'a.one.example')
      assert.is_true(server:stats().handshakesFailed >= 3)
      assert.equal(0, server:stats().connections)
      gets(server, 'one.example', one)
      gets(server, nil, own)
      pair.close(server)
    end))

    it('lets * stand for one label and no more', loop.run(function()
      local server = listening { ['*.other.example'] = options(other) }
      gets(server, 'a.other.example', other)
      gets(server, 'b-2.other.example', other)
      assertUnrecognized(server, 'a.b.other.example')
      assertUnrecognized(server, 'other.example')
      assertUnrecognized(server, 'another.example')
      pair.close(server)
    end))

    it('prefers the name itself to *.domain, and that to *', loop.run(function()
      local server = listening { ['a.example'] = options(one), ['*.example'] = options(other), ['*'] = options(third) }
      gets(server, 'a.example', one)
      gets(server, 'b.example', other)
      gets(server, 'a.b.example', third)
      gets(server, 'localhost', third)
      pair.close(server)
    end))

    it('keeps the identities of names when its own is renewed', loop.run(function()
      local server = listening { ['one.example'] = options(one) }
      assert(server:setContext(options(other)))
      gets(server, 'one.example', one)
      gets(server, nil, other)
      assertUnrecognized(server, 'other.example')
      pair.close(server)
    end))

    it('reads names in hellos that come in fragments', loop.run(function()
      local name = ('a'):rep(60) .. '.' .. ('b'):rep(60) .. '.' .. ('c'):rep(60) .. '.example'
      local server = listening { [name] = options(one, { ALPNProtocols = 'the last' }) }
      local protocols = {}
      for i = 1, 40 do protocols[i] = ('protocol number %d of many'):format(i) end
      protocols[#protocols + 1] = 'the last'
      local function chosen(conn, accepted)
        assert.equal(name, accepted.servername)
        assert.equal('the last', accepted.alpnProtocol)
        return conn.alpnProtocol
      end
      assert.equal('the last', visit(server, asking(name, one, { mtu = 300, ALPNProtocols = protocols }), chosen))
      local err = refused(server, asking('not' .. name, one, { mtu = 300, ALPNProtocols = protocols }))
      assert.equal('unrecognized_name', err.alert)
      pair.close(server)
    end))
  end)
end)

pair.eachStrategy(function(demux)
  describe('a server with SNICallback', function()
    local function listening(callback, more)
      return pair.listening(merged({ demux = demux, SNICallback = callback }, more))
    end

    local function assertFails(server, words)
      local err, theirs = refused(server, asking('one.example', one))
      assert.equal('internal_error', err.alert)
      assert.equal('ERR_DTLS_CALLBACK', theirs.code)
      for _, each in ipairs(words) do
        assert.truthy(theirs.message:find(each, 1, true), ('%q is missing from: %s'):format(each, theirs.message))
      end
    end

    it('shows the identity that it returns, a Context or options, and its own for nil', loop.run(function()
      local made, names = context(other), {}
      local server = listening(function(name)
        names[#names + 1] = name
        if name == 'one.example' then return options(one) end
        if name == 'other.example' then return made end
      end)
      assert.equal('one.example', gets(server, 'one.example', one))
      assert.equal('other.example', gets(server, 'other.example', other))
      assert.equal('third.example', gets(server, 'Third.example', own))
      assert.same({ 'one.example', 'other.example', 'third.example' }, names)
      pair.close(server)
    end))

    it('is asked about a client that asks for no name, too', loop.run(function()
      local names = { n = 0 }
      local server = listening(function(name)
        names.n = names.n + 1
        names[names.n] = name
        return options(other)
      end)
      assert.is_nil(gets(server, nil, other))
      assert.same({ n = 1 }, names)
      pair.close(server)
    end))

    it('is not asked about what cannot be a name, which is refused', loop.run(function()
      local names = {}
      local server = listening(function(name) names[#names + 1] = name end)
      local heard = pair.record(server, 'clientError')
      for i, name in ipairs { 'one.example\0.example.net', ('n'):rep(256) } do
        local peer = raw.open()
        local extension = hello.vector(2, hello.vector(2, '\0' .. hello.vector(2, name)))
        hello.halfOpen(peer, server, { random = ('%d'):format(i):rep(32), extensions = '\0\0' .. extension })
        loop.till(function() return heard[i] end, 'clientError')
        assert.equal('ERR_DTLS_SERVERNAME', heard[i][2].code)
        pair.close(peer)
      end
      assert.same({}, names)
      pair.close(server)
    end))

    it('refuses a name with false', loop.run(function()
      local server = listening(function(name) return name ~= 'one.example' and options(other) end)
      assertUnrecognized(server, 'one.example')
      gets(server, 'other.example', other)
      pair.close(server)
    end))

    it('may answer later, and everything else goes on meanwhile', loop.run(function()
      local callback, release, asked = waiting()
      local server = pair.echo(listening(callback))
      local early = pair.open(server)
      local conn = pair.client(server, asking('one.example', one))
      local late = pair.client(server, asking('other.example', other))
      local fate, late_fate = pair.record(conn, 'connection', 'error'), pair.record(late, 'connection', 'error')
      loop.till(function() return asked['one.example'] and asked['other.example'] end, 'both questions')
      assert.is_true(pair.roundTrip(early, 'meanwhile'))
      local between = pair.open(server)
      assert.is_true(pair.roundTrip(between, 'meanwhile, too'))
      assert.equal(2, server:stats().handshaking)
      release('other.example', context(other))
      late_fate.wait 'connection'
      assert.is_true(pair.roundTrip(late, 'before the other'))
      assert.equal('', fate.names())
      release('one.example', options(one))
      fate.wait 'connection'
      assert.is_true(pair.roundTrip(conn, 'at last'))
      pair.close(conn, late, early, between, server)
    end))

    it('may return what it likes after a while', loop.run(function()
      local answers = { ['one.example'] = options(one), ['refused.example'] = false }
      local server = listening(function(name)
        local thread = coroutine.running()
        later(5, function() assert(coroutine.resume(thread)) end)
        coroutine.yield()
        if name == 'bad.example' then error 'no such customer' end
        return answers[name]
      end)
      gets(server, 'one.example', one)
      gets(server, 'own.example', own)
      assertUnrecognized(server, 'refused.example')
      local err, theirs = refused(server, asking('bad.example', own))
      assert.equal('internal_error', err.alert)
      assert.equal('ERR_DTLS_CALLBACK', theirs.code)
      assert.truthy(theirs.message:find('no such customer', 1, true))
      pair.close(server)
    end))

    it('is asked once however often the hello comes', loop.run(function()
      local callback, release, asked = waiting()
      local server = listening(callback)
      local conn = pair.client(server, asking('one.example', one, { retransmitTimeout = function() return 20 end }))
      local fate = pair.record(conn, 'connection', 'error')
      loop.till(function() return (conn:stats().retransmits or 0) >= 5 end, 'repeated hellos')
      assert.equal(1, asked['one.example'])
      release('one.example', options(one))
      fate.wait 'connection'
      assert.equal(1, asked['one.example'])
      assert.equal(1, server:stats().accepted)
      pair.close(conn, server)
    end))

    it('answers too late when handshakeTimeout has passed', loop.run(function()
      local callback, release, asked = waiting()
      local server = listening(callback, { handshakeTimeout = 100 * loop.patience })
      local heard = pair.record(server, 'connection', 'clientError')
      local conn = pair.client(server, asking('one.example', one))
      local err = heard.wait 'clientError'[2]
      assert.equal('ERR_DTLS_HANDSHAKE_TIMEOUT', err.code)
      assert.equal(0, server:stats().active)
      conn:destroy()
      release('one.example', options(one))
      assert.equal(1, asked['one.example'])
      assert.equal('clientError', heard.names())
      pair.close(conn, server)
    end))

    it('fails its own handshake alone when it throws', loop.run(function()
      local server = listening(function(name)
        if name == 'one.example' then error 'no such customer' end
      end)
      assertFails(server, { 'SNICallback', 'no such customer' })
      gets(server, 'other.example', own)
      pair.close(server)
    end))

    it('fails its own handshake alone when it returns what is no identity', loop.run(function()
      local answer
      local server = listening(function() return answer end)
      for _, case in ipairs {
        { 7, 'number' }, { 'one.example', 'string' }, { true, 'boolean' },
        { {}, 'cert and key, or psk' }, { { cert = 'garbage', key = one.key }, 'cert' }, { { certificate = one.cert }, "'certificate'" },
        { assert(dtls.createContext('client', { fingerprint = one.fingerprint })), 'client' },
      } do
        answer = case[1]
        assertFails(server, { 'SNICallback', case[2] })
      end
      answer = options(one)
      gets(server, 'one.example', one)
      pair.close(server)
    end))

    for what, act in pairs {
      ['destroys the connection'] = function(_, conn) conn:destroy() end,
      ['closes the connection'] = function(_, conn) conn:close() end,
      ['destroys the server'] = function(server) server:destroy() end,
      ['closes the server'] = function(server) server:close() end,
    } do
      for when, wait in pairs { ['at once'] = false, ['after a while'] = true } do
        it(('may be what %s, %s'):format(what, when), loop.run(function()
          local server, accepted
          server = listening(function()
            if wait then
              local thread = coroutine.running()
              later(5, function() assert(coroutine.resume(thread)) end)
              coroutine.yield()
            end
            act(server, accepted)
            return options(one)
          end)
          local heard = pair.record(server, 'connection', 'clientError')
          local closes
          server:on('accept', function(conn)
            if closes then return conn:destroy() end
            accepted, closes = conn, pair.record(conn, 'error', 'close')
          end)
          local conn = pair.client(server, asking('one.example', one))
          loop.till(function() return closes and closes.find 'close' end, 'the end of the connection')
          assert.equal('close', closes.names())
          assert.equal('', heard.names())
          pair.close(conn, server)
        end))
      end
    end

    it('is asked anew by a peer that starts over, and its first answer is for nobody', loop.run(function()
      local callback, release, asked = waiting()
      local server = pair.echo(listening(callback))
      local heard = pair.record(server, 'clientError')
      local first = pair.client(server, asking('one.example', one))
      loop.till(function() return asked['one.example'] end, 'the first question')
      local from = first:localAddress().port
      pair.close(first)
      local second = pair.client(server, asking('other.example', other, { localPort = from }))
      local fate = pair.record(second, 'connection', 'error')
      loop.till(function() return asked['other.example'] end, 'the second question')
      assert.equal('ERR_DTLS_REPLACED', heard.wait 'clientError'[2].code)
      release('one.example', options(one))
      release('other.example', options(other))
      fate.wait 'connection'
      assert.is_true(pair.roundTrip(second, 'in its place'))
      pair.close(second, server)
    end))

    it('reads names in hellos that come in fragments', loop.run(function()
      local callback, release, asked = waiting()
      local server = listening(callback)
      local name = ('n'):rep(63) .. '.' .. ('n'):rep(63) .. '.' .. ('n'):rep(63) .. '.example'
      local conn = pair.client(server, asking(name, one, { mtu = 300, ALPNProtocols = { ('p'):rep(255), ('q'):rep(255), ('r'):rep(255) } }))
      local fate = pair.record(conn, 'connection', 'error')
      loop.till(function() return asked[name] end, 'the question')
      release(name, options(one, { ALPNProtocols = ('r'):rep(255) }))
      fate.wait 'connection'
      assert.equal(('r'):rep(255), conn.alpnProtocol)
      assert.equal(1, asked[name])
      pair.close(conn, server)
    end))
  end)
end)

describe('the identity of a name brings', function()
  -- A server whose identity for one.example differs from its own in these options.
  local function listening(its, ours)
    return pair.listening(options(own, merged(ours, { sni = { ['one.example'] = options(one, its) } })))
  end

  -- Clients that ask for it, and those that ask for nothing.
  local function byName(more) return asking('one.example', one, more) end
  local function nameless(more) return asking(nil, own, more) end

  describe('what comes with its certificate:', function()
    local files, root, between, named, client, alien

    setup(function()
      files = pki.new()
      root = files:certificate('root', { authority = true })
      between = files:certificate('between', { authority = true, issuer = root })
      named = files:certificate('named', { issuer = between, altNames = { 'one.example' } })
      client = files:certificate('client', { issuer = root })
      alien = files:certificate('alien')
    end)

    teardown(function() files:remove() end)

    it('the chain', loop.run(function()
      local server = pair.listening(options(own, {
        sni = { ['one.example'] = { cert = named.pem.cert .. between.pem.cert, key = named.pem.key } },
      }))
      visit(server, { servername = 'one.example', ca = root.pem.cert }, function(conn)
        assert.is_true(conn.authorized)
        local found = conn:getPeerCertificate(true)
        assert.equal(named.fingerprint, found.fingerprint256)
        assert.equal(between.fingerprint, found.issuerCertificate.fingerprint256)
      end)
      pair.close(server)
    end))

    local function showing(identity) return { cert = identity.pem.cert, key = identity.pem.key } end
    local function authorized(_, accepted) return pair.verdict(accepted) end

    it('the demand for a certificate of the client', loop.run(function()
      local server = listening { ca = root.pem.cert, requestCert = true }
      assert.same({ true }, visit(server, byName(showing(client)), authorized))
      local err, theirs = refused(server, byName())
      assert.equal('handshake_failure', err.alert)
      assert.equal('ERR_DTLS_CERTIFICATE', theirs.code)
      err, theirs = refused(server, byName(showing(alien)))
      assert.equal('unknown_ca', err.alert)
      assert.equal('DEPTH_ZERO_SELF_SIGNED_CERT', theirs.reason)
      assert.same({ false, 'NO_PEER_CERTIFICATE' }, visit(server, nameless(), authorized))
      assert.same({ false, 'NO_PEER_CERTIFICATE' }, visit(server, nameless(showing(client)), authorized))
      pair.close(server)
    end))

    it('the demand for none', loop.run(function()
      local server = listening(nil, { ca = root.pem.cert, requestCert = true })
      assert.same({ false, 'NO_PEER_CERTIFICATE' }, visit(server, byName(), authorized))
      assert.equal('ERR_DTLS_CERTIFICATE', select(2, refused(server, nameless())).code)
      assert.same({ true }, visit(server, nameless(showing(client)), authorized))
      pair.close(server)
    end))

    it('whether a bad certificate is refused', loop.run(function()
      local lenient = { ca = root.pem.cert, requestCert = true, rejectUnauthorized = false }
      local strict = { ca = root.pem.cert, requestCert = true }
      local server = listening(lenient, strict)
      assert.same({ false, 'DEPTH_ZERO_SELF_SIGNED_CERT' }, visit(server, byName(showing(alien)), authorized))
      assert.same({ false, 'NO_PEER_CERTIFICATE' }, visit(server, byName(), authorized))
      assert.equal('ERR_DTLS_CERTIFICATE', select(2, refused(server, nameless(showing(alien)))).code)
      pair.close(server)
      server = listening(strict, lenient)
      assert.equal('ERR_DTLS_CERTIFICATE', select(2, refused(server, byName(showing(alien)))).code)
      assert.equal('ERR_DTLS_CERTIFICATE', select(2, refused(server, byName())).code)
      assert.same({ false, 'DEPTH_ZERO_SELF_SIGNED_CERT' }, visit(server, nameless(showing(alien)), authorized))
      pair.close(server)
    end))

    it('the pins of its clients', loop.run(function()
      local function pinning(identity) return { requestCert = true, fingerprint = identity.fingerprint } end
      local server = listening(pinning(alien), pinning(client))
      assert.same({ true }, visit(server, byName(showing(alien)), authorized))
      assert.same({ true }, visit(server, nameless(showing(client)), authorized))
      assert.equal('FINGERPRINT_MISMATCH', select(2, refused(server, byName(showing(client)))).reason)
      assert.equal('FINGERPRINT_MISMATCH', select(2, refused(server, nameless(showing(alien)))).reason)
      pair.close(server)
    end))
  end)

  it('its suites', loop.run(function()
    local function suite(conn) return conn:getCipher().name end
    local chacha, aes = 'ECDHE-ECDSA-CHACHA20-POLY1305', 'ECDHE-ECDSA-AES256-GCM-SHA384'
    local server = listening({ ciphers = chacha }, { ciphers = aes })
    assert.equal(chacha, visit(server, byName(), suite))
    assert.equal(aes, visit(server, nameless(), suite))
    assert.equal('handshake_failure', refused(server, byName { ciphers = aes }).alert)
    assert.equal('handshake_failure', refused(server, nameless { ciphers = chacha }).alert)
    pair.close(server)
  end))

  it('its groups', loop.run(function()
    local server = listening({ groups = 'P-384' }, { groups = 'P-256' })
    visit(server, byName { groups = 'P-256:P-384' })
    visit(server, nameless { groups = 'P-256' })
    -- A certificate on P-256 needs the curve in the client's list.
    assert.equal('handshake_failure', refused(server, byName { groups = 'P-256' }).alert)
    pair.close(server)
  end))

  it('its signature algorithms', loop.run(function()
    local server = listening({ sigalgs = 'ECDSA+SHA384' }, { sigalgs = 'ECDSA+SHA256' })
    visit(server, byName { sigalgs = 'ECDSA+SHA384' })
    visit(server, nameless { sigalgs = 'ECDSA+SHA256' })
    assert.equal('handshake_failure', refused(server, byName { sigalgs = 'ECDSA+SHA256' }).alert)
    assert.equal('handshake_failure', refused(server, nameless { sigalgs = 'ECDSA+SHA384' }).alert)
    pair.close(server)
  end))

  it('its application protocols', loop.run(function()
    local function protocol(conn, accepted)
      assert.equal(conn.alpnProtocol, accepted.alpnProtocol)
      return conn.alpnProtocol
    end
    local server = listening({ ALPNProtocols = 'coap' }, { ALPNProtocols = 'echo' })
    assert.equal('coap', visit(server, byName { ALPNProtocols = { 'echo', 'coap' } }, protocol))
    assert.equal('echo', visit(server, nameless { ALPNProtocols = { 'coap', 'echo' } }, protocol))
    assert.equal('no_application_protocol', refused(server, byName { ALPNProtocols = 'echo' }).alert)
    pair.close(server)
    server = listening(nil, { ALPNProtocols = 'echo' })
    assert.is_nil(visit(server, byName { ALPNProtocols = 'coap' }, protocol))
    pair.close(server)
  end))

  it('its SRTP profiles', loop.run(function()
    local function profile(conn, accepted)
      assert.equal(conn.srtpProfile, accepted.srtpProfile)
      return conn.srtpProfile
    end
    local both = { srtpProfiles = { 'SRTP_AEAD_AES_128_GCM', 'SRTP_AES128_CM_SHA1_80' } }
    local server = listening({ srtpProfiles = 'SRTP_AES128_CM_SHA1_80' }, { srtpProfiles = 'SRTP_AEAD_AES_128_GCM' })
    assert.equal('SRTP_AES128_CM_SHA1_80', visit(server, byName(both), profile))
    assert.equal('SRTP_AEAD_AES_128_GCM', visit(server, nameless(both), profile))
    pair.close(server)
    server = listening(nil, both)
    assert.is_nil(visit(server, byName(both), profile))
    pair.close(server)
  end))

  it('its pre-shared keys', loop.run(function()
    local function identity(_, accepted) return accepted.pskIdentity end
    local key, mine = 'sixteen bytes of', { identity = 'me', key = 'sixteen bytes of' }
    local yes = { psk = { me = key } }
    local by_name, by_none = { servername = 'one.example', psk = mine }, { psk = mine }
    local server = listening(yes)
    assert.equal('me', visit(server, by_name, identity))
    assert.equal('handshake_failure', refused(server, by_none).alert)
    pair.close(server)
    server = listening(nil, yes)
    assert.equal('me', visit(server, by_none, identity))
    assert.equal('handshake_failure', refused(server, by_name).alert)
    pair.close(server)
    server = listening({ psk = { you = key } }, yes)
    assert.equal('me', visit(server, by_none, identity))
    assert.equal('ERR_DTLS_PSK_IDENTITY', select(2, refused(server, by_name)).code)
    pair.close(server)
  end))

  it('its function for pre-shared keys', loop.run(function()
    local asked = {}
    local function keys(who)
      return function(identity)
        asked[#asked + 1] = who .. ' ' .. identity
        return who == 'its' and 'one key, of 16 B' or 'another key, too'
      end
    end
    local server = listening({ psk = keys 'its' }, { psk = keys 'ours' })
    visit(server, { servername = 'one.example', psk = { identity = 'a', key = 'one key, of 16 B' } })
    visit(server, { psk = { identity = 'b', key = 'another key, too' } })
    assert.same({ 'its a', 'ours b' }, asked)
    pair.close(server)
    asked = {}
    server = listening({ psk = keys 'its' }, { psk = { c = 'a key of a map..' } })
    visit(server, { servername = 'one.example', psk = { identity = 'c', key = 'one key, of 16 B' } })
    visit(server, { psk = { identity = 'c', key = 'a key of a map..' } })
    assert.same({ 'its c' }, asked)
    pair.close(server)
  end))

  it('its options and modes, and not the server\'s', loop.run(function()
    local function binds(conn, accepted)
      assert.equal(conn.extendedMasterSecret, accepted.extendedMasterSecret)
      return { conn.extendedMasterSecret, table.concat(accepted:modes(), ' ') }
    end
    local unusual = { options = { 'NO_EXTENDED_MASTER_SECRET' }, modes = { 'RELEASE_BUFFERS' } }
    local server = listening(unusual)
    local usual = visit(server, nameless(), binds)
    assert.is_true(usual[1])
    assert.is_nil(usual[2]:find('RELEASE_BUFFERS', 1, true))
    local found = visit(server, byName(), binds)
    assert.is_false(found[1])
    assert.truthy(found[2]:find('RELEASE_BUFFERS', 1, true))
    pair.close(server)
    server = listening(nil, unusual)
    assert.is_false(visit(server, nameless(), binds)[1])
    assert.same(usual, visit(server, byName(), binds))
    pair.close(server)
  end))

  it('not what was set for the connection alone: that stays', loop.run(function()
    local function has(list, name) return (' ' .. table.concat(list, ' ') .. ' '):find(' ' .. name .. ' ', 1, true) ~= nil end
    local function flags(_, accepted)
      return {
        has(accepted:options(), 'CIPHER_SERVER_PREFERENCE'), has(accepted:options(), 'NO_EXTENDED_MASTER_SECRET'),
        has(accepted:modes(), 'AUTO_RETRY'), has(accepted:modes(), 'RELEASE_BUFFERS'),
      }
    end
    local server = listening()
    assert.same({ true, false, true, false }, visit(server, byName(), flags))
    server:on('accept', function(conn)
      assert(conn:clearOptions { 'CIPHER_SERVER_PREFERENCE' })
      assert(conn:setOptions { 'NO_EXTENDED_MASTER_SECRET' })
      assert(conn:setModes { 'RELEASE_BUFFERS' })
    end)
    assert.same({ false, true, true, true }, visit(server, byName(), flags))
    pair.close(server)
  end))

  it('no tickets beside a store of sessions', loop.run(function()
    local store = { get = function() end, set = function() end, remove = function() end }
    local function tickets(_, accepted) return not (' ' .. table.concat(accepted:options(), ' ') .. ' '):find(' NO_TICKET ', 1, true) end
    local server = listening(nil, { options = { 'NO_TICKET' } })
    assert.is_true(visit(server, byName(), tickets))
    pair.close(server)
    server = listening(nil, { options = { 'NO_TICKET' }, sessionStore = store })
    assert.is_false(visit(server, byName(), tickets))
    pair.close(server)
  end))

  it('how long its sessions live; visits to it leave the ticket keys of the others alone', loop.run(function()
    local server = listening { sessionTimeout = 1000 }
    local function resuming(how, blob)
      how.session = blob
      return unpack(visit(server, how, function(conn) return { conn:isSessionReused(), conn:getSession() } end))
    end
    local _, ours = resuming(nameless())
    local _, its = resuming(byName())
    loop.again(function() return not resuming(byName(), its) end, 'the end of the name\'s session')
    local reused, newer = resuming(nameless(), ours)
    assert.is_true(reused)
    assert.is_true(newer == ours, 'there was another key for a new ticket')
    pair.close(server)
  end))

  it('its key log', loop.run(function()
    local lines = {}
    local function logged() return #lines end
    local server = listening { keylog = true }
    server:on('keylog', function(line) lines[#lines + 1] = line end)
    assert.equal(0, visit(server, nameless(), logged))
    assert.equal(1, visit(server, byName(), logged))
    pair.close(server)
    server = listening(nil, { keylog = true })
    server:on('keylog', function(line) lines[#lines + 1] = line end)
    assert.equal(1, visit(server, byName(), logged))
    assert.equal(2, visit(server, nameless(), logged))
    pair.close(server)
  end))
end)

describe('a map of names', function()
  local function create(sni, more)
    return pcall(dtls.createServer, options(own, merged(more, { sni = sni })))
  end

  local function assertThrows(words, sni)
    local ok, err = create(sni)
    assert.is_false(ok)
    assert.truthy(err:find(words, 1, true), ('%q is missing from: %s'):format(words, err))
  end

  local function assertRefused(words, sni, more)
    local ok, made, err = create(sni, more)
    assert.is_true(ok)
    assert.is_nil(made)
    assert.equal('ERR_DTLS_CONFIG', err.code)
    for _, each in ipairs(words) do assert.truthy(err.message:find(each, 1, true), ('%q is missing from: %s'):format(each, err.message)) end
  end

  it('raises for what is no map of names to identities', function()
    assertThrows("'sni'", 'one.example')
    assertThrows('sni: expected names, got a number', { options(one) })
    assertThrows("'one.example': expected a Context or options, got string", { ['one.example'] = one.cert })
    assertThrows("'one.example': expected a Context or options, got boolean", { ['one.example'] = true })
    assertThrows("unknown option 'certificate'", { ['one.example'] = { certificate = one.cert } })
    assertThrows("option 'cert'", { ['one.example'] = { cert = 7, key = one.key } })
    assertThrows('it is one for a client', { ['one.example'] = assert(dtls.createContext('client', { fingerprint = one.fingerprint })) })
  end)

  it('raises at the caller\'s line', function()
    local function blamed(sni)
      local _, err = pcall(function() dtls.createServer(options(own, { sni = sni })) end)
      assert.truthy(err:find('sni_spec.lua', 1, true), 'blames another line: ' .. err)
    end
    blamed { options(one) }
    blamed { ['one.example'] = 'x' }
    blamed { ['one.example'] = { certificate = one.cert } }
    blamed { ['one.example'] = assert(dtls.createContext('client', { fingerprint = one.fingerprint })) }
  end)

  it('gives nil and an error that names the host whose identity is none', function()
    assertRefused({ "'one.example'", 'cert' }, { ['one.example'] = { cert = 'garbage', key = one.key } })
    assertRefused({ "'one.example'", 'does not match' }, { ['one.example'] = { cert = one.cert, key = other.key } })
    assertRefused({ "'*.example'", 'cert and key, or psk' }, { ['one.example'] = options(one), ['*.example'] = {} })
    assertRefused({ "'*'", 'ciphers' }, { ['*'] = options(one, { ciphers = 'NO-SUCH-SUITE' }) })
  end)

  it('has each name once, however it is written', function()
    assertRefused({ "'one.example' is there twice" }, { ['one.example'] = options(one), ['One.Example'] = options(other) })
    assertRefused({ "'*.example' is there twice" }, { ['*.EXAMPLE'] = context(one), ['*.Example'] = context(one) })
    local _, made = create { ['one.example'] = options(one), ['*.Example'] = options(other), ['*'] = options(third) }
    assert.truthy(made)
  end)

  it('may not come together with a function that is asked the same', function()
    assertRefused({ 'sni', 'SNICallback' }, { ['one.example'] = options(one) }, { SNICallback = function() end })
  end)

  it('raises for an SNICallback that is no function', function()
    local ok, err = pcall(dtls.createServer, options(own, { SNICallback = 'one.example' }))
    assert.is_false(ok)
    assert.truthy(err:find("'SNICallback'", 1, true))
  end)
end)
