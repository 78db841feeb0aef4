-- Pre-shared keys: those of a table and those that a function knows, at once or later.

local dtls = require 'dtls'
local hello = require 'spec.support.hello'
local loop = require 'spec.support.loop'
local lookup = require 'spec.support.lookup'
local pair = require 'spec.support.pair'
local proxy = require 'spec.support.proxy'

local KEY = 'sixteen bytes \0\255'
local ALICE = { identity = 'alice', key = KEY }
local FIRST_CHOICE = 'ECDHE-PSK-CHACHA20-POLY1305'

-- What a client of the function kind answers.
local function alice() return 'alice', KEY end

-- A client that is not expected to get in; its events.
local function attempt(target, options)
  local conn = pair.client(target, options)
  return conn, pair.record(conn, 'connection', 'error', 'close')
end

local SIGNAL = '00FF' -- TLS_EMPTY_RENEGOTIATION_INFO_SCSV, which OpenSSL 3.2 and later leave out

-- The suites of the first hello that went through a proxy.
local function offered(between)
  local body = hello.records(between.recorded.server[1])[1].body
  local at = 12 + 2 + 32 + 1 -- handshake header, version, random
  at = at + 1 + body:byte(at) -- session
  at = at + 1 + body:byte(at) -- cookie
  local list = {}
  for i = at + 2, at + 1 + hello.read(body, at, 2), 2 do
    local suite = ('%04X'):format(hello.read(body, i, 2))
    if suite ~= SIGNAL then list[#list + 1] = suite end
  end
  return list
end

-- ECDHE-PSK-CHACHA20-POLY1305, PSK-AES256-GCM-SHA384, PSK-AES128-GCM-SHA256, PSK-CHACHA20-POLY1305
local PSK_SUITES = { 'CCAC', '00A9', '00A8', 'CCAB' }

describe('a pre-shared key', function()
  local servers = {
    ['a table'] = { alice = KEY, bob = 'his' },
    ['a function'] = function(identity) return identity == 'alice' and KEY or nil end,
  }
  local clients = { ['a table'] = ALICE, ['a function'] = alice }

  pair.eachStrategy(function(demux)
    for server_kind, server_psk in pairs(servers) do
      for client_kind, client_psk in pairs(clients) do
        it(('opens a connection, %s at the server, %s at the client'):format(server_kind, client_kind), loop.run(function()
          local server = pair.echo(pair.listening { demux = demux, psk = server_psk })
          local conn, accepted = pair.open(server, nil, { psk = client_psk })
          assert.equal('alice', conn.pskIdentity)
          assert.equal('alice', accepted.pskIdentity)
          assert.equal(FIRST_CHOICE, conn:getCipher().name)
          assert.is_true(conn.authorized)
          assert.is_true(accepted.authorized)
          assert.is_nil(accepted:getPeerCertificate())
          pair.roundTrip(conn, 'with a key')
          assert.equal(0, conn:stats().retransmits + server:stats().retransmits)
          pair.close(conn, server)
        end))
      end
    end

    it('that differs from the peer\'s ends the handshake at the deadline, on both sides', loop.run(function()
      for _, psk in ipairs { { alice = KEY }, function() return KEY end } do
        local server = pair.listening { demux = demux, psk = psk, handshakeTimeout = 300 * loop.patience }
        local theirs = pair.record(server, 'clientError', 'connection')
        local conn, ours = attempt(server, { psk = { identity = 'alice', key = 'another one' }, handshakeTimeout = 300 * loop.patience })
        assert.equal('ERR_DTLS_PSK_KEY', ours.wait('error')[2].code)
        assert.equal('ERR_DTLS_PSK_KEY', theirs.wait('clientError')[2].code)
        ours.wait 'close'
        assert.equal('error close', ours.names())
        assert.equal('clientError', theirs.names())
        assert.equal(1, server:stats().handshakesTimedOut)
        assert.equal(0, server:stats().handshakesFailed)
        assert.equal(0, server:stats().active)
        pair.close(conn, server)
      end
    end))

    -- Both look the same to a client: nothing comes after its Finished.
    it('that the server still looks for is called wrong by neither side', loop.run(function()
      local asking = lookup.new()
      local server = pair.listening { demux = demux, psk = asking.ask, handshakeTimeout = 400 * loop.patience }
      local theirs = pair.record(server, 'clientError', 'connection')
      local conn, ours = attempt(server, { psk = ALICE, handshakeTimeout = 300 * loop.patience })
      assert.matches('are not the same, or the server has not found its own yet', ours.wait('error')[2].message)
      assert.not_matches('not the same', theirs.wait('clientError')[2].message)
      pair.close(conn, server)
    end))

    it('for an identity that a table does not have is refused with unknown_psk_identity', loop.run(function()
      local server = pair.listening { demux = demux, psk = { bob = KEY } }
      local theirs = pair.record(server, 'clientError', 'connection')
      local conn, ours = attempt(server, { psk = ALICE, retransmitTimeout = 100 })
      assert.equal('ERR_DTLS_PSK_IDENTITY', theirs.wait('clientError')[2].code)
      assert.equal('unknown_psk_identity', ours.wait('error')[2].alert)
      pair.close(conn, server)
    end))
  end)

  it('may have up to 512 bytes, a client\'s identity up to 255', loop.run(function()
    local identity, key = ('i'):rep(255), ('k'):rep(512)
    local answers = { server = { { [identity] = key }, function() return key end },
      client = { { identity = identity, key = key }, function() return identity, key end } }
    for _, server_psk in ipairs(answers.server) do
      for _, client_psk in ipairs(answers.client) do
        local server = pair.listening { psk = server_psk }
        local conn, accepted = pair.open(server, nil, { psk = client_psk })
        assert.equal(identity, accepted.pskIdentity)
        assert.equal(identity, conn.pskIdentity)
        pair.close(conn, server)
      end
    end
    local made, err = dtls.createContext('client', { psk = { identity = identity .. 'i', key = key } })
    assert.is_nil(made)
    assert.equal('ERR_DTLS_CONFIG', err.code)
    assert.truthy(dtls.createContext('server', { psk = { [identity .. 'i'] = key } })) -- other clients have room for that
    made, err = dtls.createContext('server', { psk = { [identity .. 'ii'] = key } })
    assert.is_nil(made)
    assert.equal('ERR_DTLS_CONFIG', err.code)
  end))
end)

describe('an identity with a NUL', function()
  local NAME = 'alice\0A'

  it('is one that a client cannot have: OpenSSL would send what is before it', loop.run(function()
    for _, call in ipairs {
      function(psk) return dtls.createContext('client', { psk = psk }) end,
      function(psk) return dtls.connect { host = '127.0.0.1', port = 1, psk = psk } end,
    } do
      local made, err = call { identity = NAME, key = KEY }
      assert.is_nil(made)
      assert.equal('ERR_DTLS_CONFIG', err.code)
      assert.matches('OpenSSL cannot send an identity that has a NUL', err.message)
    end
    local server = pair.listening { psk = { alice = KEY, [NAME] = KEY } }
    local conn, ours = attempt(server, { psk = function() return NAME, KEY end })
    local err = ours.wait('error')[2]
    assert.equal('ERR_DTLS_CALLBACK', err.code)
    assert.matches('NUL, which OpenSSL cannot send', err.message)
    pair.close(conn, server)
  end))

  it('is another one than what is before the NUL', loop.run(function()
    local server = pair.listening { psk = { [NAME] = KEY, ['\0'] = KEY } }
    for _, identity in ipairs { 'alice', '' } do
      local conn, ours = attempt(server, { psk = { identity = identity, key = KEY }, retransmitTimeout = 100 })
      assert.equal('unknown_psk_identity', ours.wait('error')[2].alert)
      pair.close(conn)
    end
    pair.close(server)
  end))
end)

describe('the identity hint', function()
  for _, suite in ipairs { FIRST_CHOICE, 'PSK-AES128-GCM-SHA256', 'DHE-PSK-AES128-GCM-SHA256' } do
    for _, hint in ipairs { 'which of your names', false } do
      it(('%s the client\'s function (%s)'):format(hint and 'reaches' or 'is nil without one in', suite), loop.run(function()
        local got
        local server = pair.listening { psk = { alice = KEY }, pskIdentityHint = hint or nil, ciphers = suite }
        local conn = pair.open(server, nil, { ciphers = suite, psk = function(...)
          got = { n = select('#', ...), ... }
          return alice()
        end })
        assert.same({ n = 2, hint or nil, conn }, got)
        assert.equal(suite, conn:getCipher().name)
        pair.close(conn, server)
      end))
    end
  end

  it('has at most 256 bytes, and no NUL', function()
    local function make(hint) return dtls.createContext('server', { psk = { alice = KEY }, pskIdentityHint = hint }) end
    assert.truthy(make(('h'):rep(256)))
    for _, hint in ipairs { ('h'):rep(257), 'half\0of it' } do
      local made, err = make(hint)
      assert.is_nil(made)
      assert.equal('ERR_DTLS_CONFIG', err.code)
      assert.matches('pskIdentityHint', err.message)
    end
  end)
end)

describe('the suites of a pre-shared key', function()
  for _, suite in ipairs { 'PSK-AES128-GCM-SHA256', 'PSK-AES256-GCM-SHA384', 'PSK-CHACHA20-POLY1305' } do
    it(('have %s among those that need no choice'):format(suite), loop.run(function()
      local server = pair.echo(pair.listening { psk = { alice = KEY } })
      local conn, accepted = pair.open(server, nil, { psk = ALICE, ciphers = suite })
      assert.equal(suite, accepted:getCipher().name)
      pair.roundTrip(conn, suite)
      pair.close(conn, server)
    end))
  end

  for _, suite in ipairs {
    'DHE-PSK-AES128-GCM-SHA256', 'DHE-PSK-CHACHA20-POLY1305', 'PSK-AES128-CCM', 'PSK-AES128-CCM8', 'DHE-PSK-AES256-CCM8',
  } do
    it(('have %s for those who ask for it'):format(suite), loop.run(function()
      local server = pair.echo(pair.listening { psk = { alice = KEY }, ciphers = suite })
      local conn, accepted = pair.open(server, nil, { psk = ALICE, ciphers = suite })
      assert.equal(suite, conn:getCipher().name)
      assert.equal(suite, accepted:getCipher().name)
      pair.roundTrip(conn, suite)
      pair.roundTrip(conn, 'x') -- the shortest record
      local stranger, its = attempt(server, { psk = ALICE, retransmitTimeout = 100 })
      assert.equal('handshake_failure', its.wait('error')[2].alert)
      pair.close(conn, stranger, server)
    end))
  end

  it('have CCM_8 with a certificate, too', loop.run(function()
    local suite = 'ECDHE-ECDSA-AES128-CCM8'
    local server = pair.echo(pair.listening { ciphers = suite })
    local conn = pair.open(server, nil, { ciphers = suite })
    assert.equal(suite, conn:getCipher().name)
    pair.roundTrip(conn, 'a short tag')
    pair.roundTrip(conn, 'x')
    pair.close(conn, server)
  end))

  it('leave CCM_8 to those who name it', function()
    local function suites(list)
      local made = assert(dtls.createContext('server', { psk = { alice = KEY }, ciphers = list }))
      return table.concat(made:info().ciphers, ' ') .. ' '
    end
    assert.matches('PSK%-AES128%-CCM ', suites 'AESCCM')
    assert.not_matches('CCM8', suites 'AESCCM')
    assert.not_matches('CCM8', suites 'ALL')
    assert.matches('PSK%-AES128%-CCM8 ', suites 'AESCCM8')
  end)

  it('never have CBC', loop.run(function()
    local made = assert(dtls.createContext('client', { psk = ALICE, ciphers = 'PSK:kECDHEPSK:kDHEPSK' }))
    for _, suite in ipairs(made:info().ciphers) do
      assert.is_truthy(suite:find 'GCM' or suite:find 'CCM' or suite:find 'CHACHA20', suite)
    end
    local none, err = dtls.createContext('client', { psk = ALICE, ciphers = 'PSK-AES128-CBC-SHA256:ECDHE-PSK-AES128-CBC-SHA256' })
    assert.is_nil(none)
    assert.equal('ERR_DTLS_CONFIG', err.code)
    local server = pair.listening { psk = { alice = KEY } }
    local between = proxy.new(server)
    local conn = pair.open(server, between, { psk = ALICE, ciphers = 'kPSK+AES128:!AESCCM' })
    assert.same({ '00A8' }, offered(between))
    pair.close(conn, server, between)
  end))

  it('are all that a client offers who could not check a certificate', loop.run(function()
    local server = pair.listening { cert = pair.identity.cert, key = pair.identity.key, psk = { alice = KEY } }
    for _, psk in ipairs { ALICE, alice } do
      local between = proxy.new(server)
      local conn = pair.open(server, between, { psk = psk })
      local expected = { unpack(PSK_SUITES) }
      assert.same(expected, offered(between))
      assert.is_nil(conn:getPeerCertificate())
      pair.close(conn, between)
    end
    pair.close(server)
  end))

  it('are the first that a client offers who could', loop.run(function()
    local server = pair.listening { psk = { alice = KEY } }
    for _, options in ipairs { { psk = ALICE, ca = pair.identity.cert }, { psk = ALICE, fingerprint = pair.identity.fingerprint } } do
      local between = proxy.new(server)
      local conn = pair.open(server, between, options)
      local list = offered(between)
      assert.same(PSK_SUITES, { unpack(list, 1, #PSK_SUITES) })
      assert.is_true(#list > #PSK_SUITES + 1)
      pair.close(conn, between)
    end
    pair.close(server)
  end))

  it('do not meet a server that has a certificate alone', loop.run(function()
    local server = pair.listening()
    local conn, its = attempt(server, { psk = ALICE, retransmitTimeout = 100 })
    assert.equal('handshake_failure', its.wait('error')[2].alert)
    pair.close(conn, server)
  end))

  it('leave the certificate of a server to the clients without a key', loop.run(function()
    local calls = 0
    local server = pair.echo(pair.listening {
      cert = pair.identity.cert, key = pair.identity.key, psk = function() calls = calls + 1 return KEY end,
    })
    local conn, accepted = pair.open(server)
    assert.equal('ECDHE-ECDSA-AES128-GCM-SHA256', conn:getCipher().name)
    assert.is_nil(accepted.pskIdentity)
    pair.roundTrip(conn, 'with a certificate')
    pair.close(conn)
    conn = pair.open(server, nil, { psk = function() calls = calls + 10 return alice() end, fingerprint = pair.identity.fingerprint,
      ciphers = 'ECDHE-ECDSA-AES128-GCM-SHA256' })
    assert.is_truthy(conn:getPeerCertificate())
    assert.equal(0, calls)
    pair.close(conn, server)
  end))
end)

-- Waits for the n-th question of a lookup.
local function question(asking, n)
  loop.till(function() return #asking.asked >= n end, 'question ' .. n)
  return asking.asked[n][1]
end

-- Hardware has P-256, and some implementations cannot do ECDHE-PSK with X25519 (wolfSSL 5.5).
describe('the groups of ECDHE-PSK', function()
  local P256, X25519 = 23, 29

  -- What the first hello that went through a proxy has of an extension; the client's list of groups is supported_groups.
  local function preferred(between)
    local body = hello.records(between.recorded.server[1])[1].body
    local list = body:match '%z\10%z.%z.(.*)$' -- type 10, two lengths below 256
    return hello.read(list, 1, 2)
  end

  -- RFC 8422 §5.4, RFC 5489 §2: the curve of the ServerKeyExchange that went through a proxy, behind the identity hint.
  local function chosen(between, hint_prefix)
    for _, data in ipairs(between.recorded.client) do
      for _, record in ipairs(hello.records(data)) do
        if record.epoch == 0 and record.type == 22 and record.body:byte(1) == 12 then
          return hello.read(record.body, 13 + hint_prefix + 1, 2)
        end
      end
    end
  end

  it('begin with P-256 where there is a key, and the server\'s order counts', loop.run(function()
    local server = pair.listening { psk = { alice = KEY } }
    local between = proxy.new(server)
    local conn = pair.open(server, between, { psk = ALICE, groups = 'X25519:P-256' })
    assert.equal(X25519, preferred(between))
    assert.equal(P256, chosen(between, 2))
    pair.close(conn, between, server)

    server = pair.listening { psk = { alice = KEY }, groups = 'X25519:P-256' }
    between = proxy.new(server)
    conn = pair.open(server, between, { psk = alice })
    assert.equal(P256, preferred(between))
    assert.equal(X25519, chosen(between, 2))
    pair.close(conn, between, server)
  end))

  it('begin with X25519 where there is none', loop.run(function()
    local server = pair.listening()
    local between = proxy.new(server)
    local conn = pair.open(server, between)
    assert.equal(X25519, preferred(between))
    assert.equal(X25519, chosen(between, 0))
    pair.close(conn, between, server)
  end))
end)

describe('a function that knows keys', function()
  pair.eachStrategy(function(demux)
    it('may answer later, while others open connections and talk', loop.run(function()
      local asking = lookup.new()
      local server = pair.echo(pair.listening { demux = demux, psk = function(identity)
        if identity == 'slow' then return asking.ask(identity) end
        return KEY
      end })
      local before = pair.open(server, nil, { psk = ALICE })
      local slow, its = attempt(server, { psk = { identity = 'slow', key = KEY } })
      question(asking, 1)
      pair.roundTrip(before, 'meanwhile')
      local after, accepted = pair.open(server, nil, { psk = { identity = 'quick', key = KEY } })
      assert.equal('quick', accepted.pskIdentity)
      pair.roundTrip(after, 'me, too')
      assert.equal('', its.names())
      assert.equal(1, server:stats().handshaking)
      asking.answer(1, KEY)
      its.wait 'connection'
      pair.roundTrip(slow, 'at last')
      assert.equal('slow', slow.pskIdentity)
      assert.equal(1, #asking.asked)
      pair.close(before, after, slow, server)
    end))

    it('may have many questions open, and answer them in any order', loop.run(function()
      local asking, count = lookup.new(), 20
      local server = pair.echo(pair.listening { demux = demux, psk = asking.ask })
      local clients, records = {}, {}
      for i = 1, count do
        clients[i], records[i] = attempt(server, { psk = { identity = 'number ' .. i, key = 'key ' .. i } })
      end
      question(asking, count)
      assert.equal(count, server:stats().handshaking)
      for i = count, 1, -1 do asking.answer(i, 'key ' .. asking.asked[i][1]:match '%d+') end
      for i, conn in ipairs(clients) do
        records[i].wait 'connection'
        pair.roundTrip(conn, 'hello from ' .. i)
      end
      local identities = {}
      for conn in server:connections() do identities[conn.pskIdentity] = true end
      for i = 1, count do assert.is_true(identities['number ' .. i]) end
      assert.equal(count, #asking.asked)
      assert.equal(count, server:stats().connections)
      pair.close(unpack(clients))
      pair.close(server)
    end))

    it('is asked once, however often the peer repeats itself', loop.run(function()
      local asking = lookup.new()
      local server = pair.echo(pair.listening { demux = demux, psk = asking.ask })
      local conn, its = attempt(server, { psk = ALICE, retransmitTimeout = function() return 30 end })
      question(asking, 1)
      loop.till(function() return conn:stats().retransmits >= 4 end, 'four repetitions')
      asking.answer(1, KEY)
      its.wait 'connection'
      pair.roundTrip(conn, 'once')
      assert.equal(1, #asking.asked)
      assert.equal(1, server:stats().accepted)
      pair.close(conn, server)
    end))

    it('refuses an identity with nil, at once or later', loop.run(function()
      local asking = lookup.new()
      for i, psk in ipairs { function() end, asking.ask } do
        local server = pair.listening { demux = demux, psk = psk }
        local theirs = pair.record(server, 'clientError', 'connection')
        local conn, ours = attempt(server, { psk = ALICE, retransmitTimeout = 100 })
        if i == 2 then
          question(asking, 1)
          asking.answer(1)
        end
        assert.equal('ERR_DTLS_PSK_IDENTITY', theirs.wait('clientError')[2].code)
        local err = ours.wait('error')[2]
        assert.equal('ERR_DTLS_ALERT', err.code)
        assert.equal('unknown_psk_identity', err.alert)
        assert.equal(1, server:stats().handshakesFailed)
        pair.close(conn, server)
      end
    end))

    it('fails its own connection alone when it throws, and the peer is told', loop.run(function()
      local asking = lookup.new()
      local server = pair.echo(pair.listening { demux = demux, psk = function(identity)
        if identity == 'alice' then return KEY end
        if identity == 'at once' then error('no database', 0) end
        if identity == 'a table' then error({ 'no text' }) end
        return asking.ask(identity)
      end })
      local theirs = pair.record(server, 'clientError')
      local before = pair.open(server, nil, { psk = ALICE })
      for i, identity in ipairs { 'at once', 'a table', 'later' } do
        local conn, ours = attempt(server, { psk = { identity = identity, key = KEY }, retransmitTimeout = 100 })
        if identity == 'later' then
          question(asking, 1)
          asking.fail(1, 'no database')
        end
        loop.till(function() return theirs[i] end, 'the server\'s error')
        assert.equal('ERR_DTLS_CALLBACK', theirs[i][2].code)
        assert.matches(identity == 'a table' and 'psk: table' or 'psk: no database', theirs[i][2].message)
        assert.equal('internal_error', ours.wait('error')[2].alert)
        pair.close(conn)
      end
      pair.roundTrip(before, 'undisturbed')
      assert.equal(3, server:stats().handshakesFailed)
      pair.close(before, server)
    end))

    it('fails its connection with what cannot be a key', loop.run(function()
      local answer
      local server = pair.listening { demux = demux, psk = function() return answer end }
      local theirs = pair.record(server, 'clientError')
      local wrong = { 7, true, false, {}, print, '', ('k'):rep(513) }
      for i, each in ipairs(wrong) do
        answer = each
        local conn, ours = attempt(server, { psk = ALICE, retransmitTimeout = 100 })
        loop.till(function() return theirs[i] end, 'error ' .. i)
        assert.equal('ERR_DTLS_CALLBACK', theirs[i][2].code)
        assert.matches('1 to 512 bytes', theirs[i][2].message)
        assert.equal('internal_error', ours.wait('error')[2].alert)
        pair.close(conn)
      end
      pair.close(server)
    end))

    it('is too late after the deadline', loop.run(function()
      local asking = lookup.new()
      local server = pair.echo(pair.listening { demux = demux, psk = asking.ask, handshakeTimeout = 200 * loop.patience })
      local theirs = pair.record(server, 'clientError', 'connection')
      local conn = attempt(server, { psk = ALICE })
      local err = theirs.wait('clientError')[2]
      assert.equal('ERR_DTLS_HANDSHAKE_TIMEOUT', err.code)
      assert.matches('psk has not answered yet', err.message)
      assert.equal(1, server:stats().handshakesTimedOut)
      assert.equal(1, #asking.asked)
      asking.answer(1, KEY)
      conn:destroy()
      assert(server:setContext { psk = asking.ask, handshakeTimeout = 30000 })
      local again, its = attempt(server, { psk = ALICE })
      question(asking, 2)
      asking.answer(2, KEY)
      its.wait 'connection'
      pair.roundTrip(again, 'in time')
      assert.equal('clientError connection', theirs.names())
      pair.close(conn, again, server)
    end))

    for name, finish in pairs {
      ['destroy() of the connection'] = function(_, conn) conn:destroy() end,
      ['destroy(err) of the connection'] = function(_, conn) conn:destroy 'not wanted' end,
      ['close() of the connection'] = function(_, conn) conn:close() end,
      ['destroy() of the server'] = function(server) server:destroy() end,
      ['close() of the server'] = function(server) server:close() end,
    } do
      for _, moment in ipairs { 'inside', 'before its answer' } do
        it(('survives %s %s'):format(name, moment), loop.run(function()
          local asking, accepted = lookup.new(), nil
          local server
          server = pair.listening { demux = demux, psk = function(identity)
            if moment == 'inside' then
              finish(server, accepted)
              collectgarbage()
              asking.asked[1] = { identity }
              return KEY
            end
            return asking.ask(identity)
          end }
          local closed
          server:on('accept', function(conn)
            accepted = conn
            conn:on('close', function(failed) closed = closed == nil and { failed } or error 'close came twice' end)
          end)
          local theirs = pair.record(server, 'clientError', 'connection')
          local conn = attempt(server, { psk = ALICE })
          assert.equal('alice', question(asking, 1))
          if moment ~= 'inside' then
            finish(server, accepted)
            asking.answer(1, KEY)
          end
          loop.till(function() return closed end, 'its close')
          assert.equal(name:find 'err' and true or false, closed[1])
          assert.equal(name:find 'err' and 'clientError' or '', theirs.names())
          assert.is_nil(accepted:getCipher())
          conn:destroy()
          pair.close(conn, server)
        end))
      end
    end

    it('survives the garbage collector while the answer is awaited', loop.run(function()
      local server = pair.echo(pair.listening { demux = demux, psk = function()
        collectgarbage()
        collectgarbage()
        return KEY
      end })
      local conn = pair.open(server, nil, { psk = function()
        collectgarbage()
        collectgarbage()
        return alice()
      end })
      pair.roundTrip(conn, 'collected')
      pair.close(conn, server)
    end))

    it('may forget to answer; the deadline ends the handshake', loop.run(function()
      local asking = lookup.new()
      local server = pair.listening { demux = demux, psk = asking.ask, handshakeTimeout = 300 * loop.patience }
      local theirs = pair.record(server, 'clientError')
      local conn = attempt(server, { psk = ALICE })
      question(asking, 1)
      asking.forget(1)
      collectgarbage()
      collectgarbage()
      assert.equal('ERR_DTLS_HANDSHAKE_TIMEOUT', theirs.wait('clientError')[2].code)
      conn:destroy()
      pair.close(conn, server)
    end))
  end)
end)

describe('a client\'s function', function()
  it('may answer later', loop.run(function()
    local asking, serving = lookup.new(), lookup.new()
    local server = pair.echo(pair.listening { psk = serving.ask, pskIdentityHint = 'the hint' })
    local other, its = attempt(server, { psk = asking.ask })
    assert.equal('the hint', question(asking, 1))
    asking.answer(1, 'bob', 'his key')
    assert.equal('bob', question(serving, 1))
    assert.equal('', its.names())
    serving.answer(1, 'his key')
    its.wait 'connection'
    assert.equal('bob', other.pskIdentity)
    pair.roundTrip(other, 'later')
    assert.equal(0, other:stats().retransmits + server:stats().retransmits)
    pair.close(other, server)
  end))

  it('is asked once, however often the server repeats itself', loop.run(function()
    local asking = lookup.new()
    local server = pair.echo(pair.listening { psk = { alice = KEY }, retransmitTimeout = function() return 30 end })
    local conn, its = attempt(server, { psk = asking.ask })
    question(asking, 1)
    loop.till(function() return server:stats().retransmits >= 4 end, 'four repetitions')
    asking.answer(1, alice())
    its.wait 'connection'
    pair.roundTrip(conn, 'once')
    assert.equal(1, #asking.asked)
    pair.close(conn, server)
  end))

  it('may know no key for that server', loop.run(function()
    local asking = lookup.new()
    for i, psk in ipairs { function() end, asking.ask } do
      local server = pair.listening { psk = { alice = KEY }, retransmitTimeout = 100 }
      local theirs = pair.record(server, 'clientError')
      local conn, ours = attempt(server, { psk = psk })
      if i == 2 then
        question(asking, 1)
        asking.answer(1)
      end
      assert.equal('ERR_DTLS_PSK_IDENTITY', ours.wait('error')[2].code)
      assert.equal('handshake_failure', theirs.wait('clientError')[2].alert)
      pair.close(conn, server)
    end
  end))

  it('fails its connection with what cannot be an identity and a key, and when it throws', loop.run(function()
    local server = pair.listening { psk = { alice = KEY }, retransmitTimeout = 100 }
    local theirs = pair.record(server, 'clientError')
    local asking = lookup.new()
    local bad = {
      function() return 7, KEY end, function() return {}, KEY end, function() return 'a\0b', KEY end,
      function() return ('i'):rep(256), KEY end, function() return 'alice' end, function() return 'alice', '' end,
      function() return 'alice', 7 end, function() return 'alice', ('k'):rep(513) end, function() return false end,
      function() error('no key ring', 0) end, asking.ask,
    }
    for i, psk in ipairs(bad) do
      local conn, ours = attempt(server, { psk = psk })
      if psk == asking.ask then
        question(asking, 1)
        asking.fail(1, 'no key ring')
      end
      local err = ours.wait('error')[2]
      assert.equal('ERR_DTLS_CALLBACK', err.code)
      assert.matches('^psk: ', err.message)
      loop.till(function() return theirs[i] end, 'the server\'s error')
      assert.equal('handshake_failure', theirs[i][2].alert)
      pair.close(conn)
    end
    pair.close(server)
  end))

  it('is too late after the deadline and after destroy()', loop.run(function()
    local asking = lookup.new()
    local server = pair.listening { psk = { alice = KEY } }
    local conn, its = attempt(server, { psk = asking.ask, handshakeTimeout = 200 * loop.patience })
    assert.equal('ERR_DTLS_HANDSHAKE_TIMEOUT', its.wait('error')[2].code)
    asking.answer(1, alice())
    local other = attempt(server, { psk = asking.ask })
    question(asking, 2)
    other:destroy()
    asking.answer(2, alice())
    pair.close(conn, other, server)
    assert.equal('error close', its.names())
    assert.equal(0, server:stats().connections)
  end))

  for _, method in ipairs { 'destroy', 'close' } do
    it(('survives %s() inside'):format(method), loop.run(function()
      local server = pair.listening { psk = { alice = KEY } }
      local conn, its, called
      conn, its = attempt(server, { psk = function()
        conn[method](conn)
        collectgarbage()
        called = true
        return alice()
      end })
      its.wait 'close'
      assert.is_true(called)
      assert.equal('close', its.names())
      pair.close(conn, server)
    end))
  end
end)
