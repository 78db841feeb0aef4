-- Who a peer may be: chains, validity, revocation, names, pins, and what the application says.

local dtls = require 'dtls'
local uv = require 'luv'
local child = require 'spec.support.child'
local loop = require 'spec.support.loop'
local pair = require 'spec.support.pair'
local pki = require 'spec.support.pki'

local as, with = pair.as, pair.with

local NAME = 'server.example.test'

local function assertBoth(outcome)
  assert.is_true(outcome.client, tostring(outcome.client))
  assert.is_true(outcome.server, tostring(outcome.server))
end

-- One end refused the other's certificate, and told it why.
local function assertRefusal(refused, told, reason, alert)
  assert.not_equal(true, refused)
  assert.equal('ERR_DTLS_CERTIFICATE', refused.code, tostring(refused))
  assert.equal(reason, refused.reason)
  assert.not_equal(true, told)
  assert.equal('ERR_DTLS_ALERT', told.code, tostring(told))
  assert.equal(alert, told.alert)
end

-- A server or client that completes all the same, and says what it thinks of its peer.
local function authorized(side, serverOptions, clientOptions)
  local verdict
  assertBoth(pair.attempt(serverOptions, clientOptions, function(conn, accepted)
    verdict = pair.verdict(side == 'client' and conn or accepted)
  end))
  return verdict
end

local files = pki.new()

local root = files:certificate('root', { authority = true })
local stranger = files:certificate('stranger', { authority = true })
local between = files:certificate('between', { issuer = root, authority = true })

local past, future = { from = '20200101000000Z', to = '20200201000000Z' }, { from = '20990101000000Z', to = '20990201000000Z' }
local lapsed = files:certificate('lapsed', with(past, { issuer = root, authority = true }))

local function leaf(name, issuer, more)
  return files:certificate(name, with({ issuer = issuer, altNames = { NAME } }, more or {}))
end

local good, alone, alien, far = leaf('good', root), leaf 'alone', leaf('alien', stranger), leaf('far', between)
local expired, early, below = leaf('expired', root, past), leaf('early', root, future), leaf('below', lapsed)
local revoked, byLeaf = leaf('revoked', root), leaf('by-leaf', good)
local forServers = leaf('for-servers', root, { purposes = 'serverAuth' })
local forClients = leaf('for-clients', root, { purposes = 'clientAuth' })

-- Its signature has one bit or more turned, which is in the line before the last.
local tampered = { pem = { key = good.pem.key, cert = good.pem.cert:gsub('(.)(\n[^\n]*\n%-+END)', function(c, rest)
  return (c == 'A' and 'B' or 'A') .. rest
end) } }

-- All of it was good in January 2020.
local ancient = files:certificate('ancient', with(past, { authority = true }))
local antique = leaf('antique', ancient, past)

local crl = {
  ancient = files:crl('ancient', ancient, {}, past),
  root = files:crl('root', root, { revoked, between }), between = files:crl('between', between, {}),
  stranger = files:crl('stranger', stranger, {}), past = files:crl('past', root, {}, past),
}

files:remove()

-- Certificates that either side refuses: what they are, who shows them, what the other side has besides `ca`, the reason
-- that it gives, the alert that it sends (RFC 5246 §7.2.2).
local refusals = {
  { 'that signed itself', as(alone), {}, 'DEPTH_ZERO_SELF_SIGNED_CERT', 'unknown_ca' },
  { 'whose issuer is not known', as(alien), {}, 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY', 'unknown_ca' },
  { 'whose issuer is not known but comes along', as(alien, stranger), {}, 'SELF_SIGNED_CERT_IN_CHAIN', 'unknown_ca' },
  { 'without the one between it and its authority', as(far), {}, 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY', 'unknown_ca' },
  { 'whose signature is wrong', as(tampered), {}, 'CERT_SIGNATURE_FAILURE', 'decrypt_error' },
  { 'that has expired', as(expired), {}, 'CERT_HAS_EXPIRED', 'certificate_expired' },
  { 'that is not valid yet', as(early), {}, 'CERT_NOT_YET_VALID', 'bad_certificate' },
  { 'whose issuer has expired', as(below, lapsed), {}, 'CERT_HAS_EXPIRED', 'certificate_expired' },
  { 'whose issuer is no authority', as(byLeaf, good), {}, 'INVALID_CA', 'unknown_ca' },
  { 'that is revoked', as(revoked), { crl = crl.root }, 'CERT_REVOKED', 'certificate_revoked' },
  { 'whose issuer is revoked', as(far, between), { crl = { crl.root, crl.between } }, 'CERT_REVOKED', 'certificate_revoked' },
  { 'whose issuer has no revocation list', as(good), { crl = crl.stranger }, 'UNABLE_TO_GET_CRL', 'unknown_ca' },
  { 'whose issuer has an old revocation list', as(good), { crl = crl.past }, 'CRL_HAS_EXPIRED', 'certificate_expired' },
  { 'that is good but not pinned', as(good), { fingerprint = alien.fingerprint }, 'FINGERPRINT_MISMATCH', 'handshake_failure' },
  { 'that is pinned but not good', as(expired), { fingerprint = expired.fingerprint }, 'CERT_HAS_EXPIRED', 'certificate_expired' },
}

local function refusalsOf(entry)
  local all = { { 'made for the other side', as(entry), {}, 'INVALID_PURPOSE', 'unsupported_certificate' } }
  for _, case in ipairs(refusals) do all[#all + 1] = case end
  return all
end

-- A callback that takes its time: it goes on when the loop has turned.
local function later(value)
  local thread, timer = coroutine.running(), uv.new_timer()
  timer:start(1, 0, function()
    timer:close()
    assert(coroutine.resume(thread))
  end)
  coroutine.yield()
  return value
end

describe('a client', function()
  local trusting = { ca = root.pem.cert, servername = NAME }

  it('trusts any of its authorities, in one text or in a list', loop.run(function()
    for _, ca in ipairs { root.pem.cert .. stranger.pem.cert, { stranger.pem.cert, root.pem.cert } } do
      for _, each in ipairs { good, alien } do assertBoth(pair.attempt(as(each), { ca = ca, servername = NAME })) end
    end
  end))

  it('follows the chain that the server sends', loop.run(function()
    assertBoth(pair.attempt(as(far, between), trusting))
    assertBoth(pair.attempt(as(far, between, root), trusting))
  end))

  it('accepts what no revocation list names', loop.run(function()
    assertBoth(pair.attempt(as(good), with(trusting, { crl = { crl.stranger, crl.root } })))
  end))

  it('accepts a certificate that is made for servers', loop.run(function()
    assertBoth(pair.attempt(as(forServers), trusting))
  end))

  pair.eachStrategy(function(demux)
    for _, case in ipairs(refusalsOf(forClients)) do
      local what, server, more, reason, alert = unpack(case)
      it('refuses a server\'s certificate ' .. what .. ', and tells it so', loop.run(function()
        local outcome = pair.attempt(with(server, { demux = demux }), with(trusting, more))
        assertRefusal(outcome.client, outcome.server, reason, alert)
      end))
    end
  end)

  for _, case in ipairs(refusalsOf(forClients)) do
    local what, server, more, reason = unpack(case)
    it('that rejects nobody says why it would not trust a certificate ' .. what, loop.run(function()
      assert.same({ false, reason }, authorized('client', server, with(trusting, with(more, { rejectUnauthorized = false }))))
    end))
  end

  it('trusts the system\'s authorities when it has none of its own', loop.run(function()
    local directory = pki.new()
    local before = { SSL_CERT_FILE = os.getenv 'SSL_CERT_FILE' or false, SSL_CERT_DIR = os.getenv 'SSL_CERT_DIR' or false }
    assert(uv.os_setenv('SSL_CERT_FILE', directory:write('root.crt', root.pem.cert)))
    assert(uv.os_setenv('SSL_CERT_DIR', directory:path 'nothing'))
    local ok, why = pcall(function()
      local function client(more) return { context = assert(dtls.createContext('client', more or {})), servername = NAME } end
      assertBoth(pair.attempt(as(good), client()))
      local outcome = pair.attempt(as(alone), client())
      assertRefusal(outcome.client, outcome.server, 'DEPTH_ZERO_SELF_SIGNED_CERT', 'unknown_ca')
      outcome = pair.attempt(as(good), with(client(), { servername = 'other.example.test' }))
      assertRefusal(outcome.client, outcome.server, 'HOSTNAME_MISMATCH', 'bad_certificate')
      -- An authority of its own takes their place.
      outcome = pair.attempt(as(good), client { ca = stranger.pem.cert })
      assertRefusal(outcome.client, outcome.server, 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY', 'unknown_ca')
    end)
    for name, value in pairs(before) do
      if value then uv.os_setenv(name, value) else uv.os_unsetenv(name) end
    end
    directory:remove()
    assert(ok, why)
  end))

  describe('with pinned fingerprints alone', function()
    it('does not care who vouches, how old it is, or for whom it was made', loop.run(function()
      for _, each in ipairs { alone, alien, expired, early, forClients } do
        local server = as(each)
        for _, pins in ipairs { each.fingerprint, { good.fingerprint, each.fingerprint } } do
          assert.same({ true }, authorized('client', server, { fingerprint = pins, servername = 'other.example.test' }))
        end
      end
    end))

    it('refuses all others, and tells them so', loop.run(function()
      for _, pins in ipairs { alien.fingerprint, { alien.fingerprint, alone.fingerprint } } do
        local outcome = pair.attempt(as(good), { fingerprint = pins, servername = NAME })
        assertRefusal(outcome.client, outcome.server, 'FINGERPRINT_MISMATCH', 'handshake_failure')
      end
    end))

    it('refuses one that only has a pinned certificate behind it', loop.run(function()
      local outcome = pair.attempt(as(good, alien), { fingerprint = alien.fingerprint, servername = NAME })
      assertRefusal(outcome.client, outcome.server, 'FINGERPRINT_MISMATCH', 'handshake_failure')
    end))
  end)

  it('with pins and authorities needs both', loop.run(function()
    assertBoth(pair.attempt(as(good), with(trusting, { fingerprint = { alien.fingerprint, good.fingerprint } })))
    local outcome = pair.attempt(as(good), with(trusting, { fingerprint = good.fingerprint, servername = 'other.example.test' }))
    assertRefusal(outcome.client, outcome.server, 'HOSTNAME_MISMATCH', 'bad_certificate')
  end))
end)

describe('the name of a server', function()
  local function identity(altNames, commonName)
    return assert(dtls.selfSigned { altNames = altNames, commonName = commonName or 'nobody' })
  end

  local function attempt(made, name, more)
    return pair.attempt({ cert = made.cert, key = made.key }, with({ ca = made.cert, servername = name }, more or {}))
  end

  for _, case in ipairs {
    { { 'a.example.test' }, 'a.example.test' },
    { { 'a.example.test' }, 'A.Example.TEST' },
    { { 'first.example.test', 'a.example.test' }, 'a.example.test' },
    { { '*.example.test' }, 'a.example.test' },
    { { '127.0.0.1' }, '127.0.0.1' },
    { { 'a.example.test', '192.0.2.7' }, '192.0.2.7' },
    { { '2001:db8::7' }, '2001:0db8:0:0::0007' },
    { { 'fe80::7' }, 'fe80::7%lo' },
  } do
    local names, name = unpack(case)
    it(('may be %s for the certificate of %s'):format(name, table.concat(names, ' and ')), loop.run(function()
      assertBoth(attempt(identity(names), name))
    end))
  end

  for _, case in ipairs {
    { { 'a.example.test' }, 'b.example.test' },
    { { 'a.example.test' }, 'example.test' },
    { { 'a.example.test' }, 'a.example.test.example' },
    { { 'example.test' }, 'a.example.test' },
    { { '*.example.test' }, 'example.test' },
    { { '*.example.test' }, 'b.a.example.test' },
    { { 'w*.example.test' }, 'www.example.test' },
    { { '*w.example.test' }, 'www.example.test' },
    { { 'w*w.example.test' }, 'www.example.test' },
    { { 'a.*.test' }, 'a.example.test' },
    { { '*' }, 'example' },
    { { '*.test' }, 'example.test' },
    { { '127.0.0.1' }, 'localhost' },
    { { '127.0.0.2' }, '127.0.0.1', 'IP_ADDRESS_MISMATCH' },
    { { 'localhost' }, '127.0.0.1', 'IP_ADDRESS_MISMATCH' },
    { { '*.0.0.1' }, '127.0.0.1', 'IP_ADDRESS_MISMATCH' },
    { { '2001:db8::7' }, '2001:db8::8', 'IP_ADDRESS_MISMATCH' },
    { { '::1' }, '127.0.0.1', 'IP_ADDRESS_MISMATCH' },
  } do
    local names, name, reason = unpack(case)
    reason = reason or 'HOSTNAME_MISMATCH'
    it(('may not be %s for the certificate of %s'):format(name, table.concat(names, ' and ')), loop.run(function()
      local made = identity(names)
      local outcome = attempt(made, name)
      assertRefusal(outcome.client, outcome.server, reason, 'bad_certificate')
      assert.same({ false, reason }, authorized('client', { cert = made.cert, key = made.key },
        { ca = made.cert, servername = name, rejectUnauthorized = false }))
    end))
  end

  it('is never taken from the subject (RFC 9525 §6)', loop.run(function()
    for name, reason in pairs { ['a.example.test'] = 'HOSTNAME_MISMATCH', ['127.0.0.1'] = 'IP_ADDRESS_MISMATCH' } do
      for _, names in ipairs { { 'b.example.test' }, {} } do
        local outcome = attempt(identity(names, name), name)
        assertRefusal(outcome.client, outcome.server, reason, 'bad_certificate')
      end
    end
  end))

  it('is the address that is dialled when there is no other', loop.run(function()
    assertBoth(attempt(identity { '127.0.0.1' }))
    local outcome = attempt(identity { '127.0.0.2' })
    assertRefusal(outcome.client, outcome.server, 'IP_ADDRESS_MISMATCH', 'bad_certificate')
  end))

  it('is never missing where it is enforced', loop.run(function()
    local conn, err = dtls.connect { host = '127.0.0.1', port = 9, ca = root.pem.cert, servername = '' }
    assert.is_nil(conn)
    assert.equal('ERR_DTLS_CONFIG', err.code)
  end))
end)

describe('checkServerIdentity', function()
  local trusting = { ca = root.pem.cert, servername = NAME }

  local function count(answer)
    local calls = {}
    return calls, function(...)
      calls[#calls + 1] = { n = select('#', ...), ... }
      if type(answer) == 'function' then return answer(...) end
      return answer
    end
  end

  it('is asked once, with the name and the chain', loop.run(function()
    local calls, check = count()
    assertBoth(pair.attempt(as(far, between), with(trusting, { checkServerIdentity = check })))
    assert.equal(1, #calls)
    assert.equal(2, calls[1].n)
    local name, cert = calls[1][1], calls[1][2]
    assert.equal(NAME, name)
    assert.equal('DNS:' .. NAME, cert.subjectaltname)
    assert.equal(far.fingerprint, cert.fingerprint256)
    assert.equal(between.fingerprint, cert.issuerCertificate.fingerprint256)
    assert.equal(root.fingerprint, cert.issuerCertificate.issuerCertificate.fingerprint256)
    assert.is_nil(cert.issuerCertificate.issuerCertificate.issuerCertificate)
  end))

  it('is told the address when there is no name', loop.run(function()
    local calls, check = count()
    assertBoth(pair.attempt(as(good), { ca = root.pem.cert, checkServerIdentity = check }))
    assert.equal('127.0.0.1', calls[1][1])
  end))

  it('takes the place of the check of the name', loop.run(function()
    local calls, check = count()
    local client = with(trusting, { servername = 'other.example.test', checkServerIdentity = check })
    assert.same({ true }, authorized('client', as(good), client))
    assert.equal('other.example.test', calls[1][1])
  end))

  it('is not asked about a chain that is not good', loop.run(function()
    for _, case in ipairs(refusalsOf(forClients)) do
      local _, server, more, reason, alert = unpack(case)
      local calls, check = count()
      local client = with(trusting, with(more, { checkServerIdentity = check }))
      local outcome = pair.attempt(server, client)
      assertRefusal(outcome.client, outcome.server, reason, alert)
      assert.same({ false, reason }, authorized('client', server, with(client, { rejectUnauthorized = false })))
      assert.equal(0, #calls)
    end
  end))

  it('is asked about a pinned certificate, and about no other', loop.run(function()
    local calls, check = count 'not today'
    local outcome = pair.attempt(as(alone), { fingerprint = alone.fingerprint, servername = NAME, checkServerIdentity = check })
    assertRefusal(outcome.client, outcome.server, 'not today', 'bad_certificate')
    assert.equal(alone.fingerprint, calls[1][2].fingerprint256)
    outcome = pair.attempt(as(good), { fingerprint = alone.fingerprint, servername = NAME, checkServerIdentity = check })
    assertRefusal(outcome.client, outcome.server, 'FINGERPRINT_MISMATCH', 'handshake_failure')
    assert.equal(1, #calls)
  end))

  for _, way in ipairs { { 'at once', function(value) return value end }, { 'later', later } } do
    local when, answer = unpack(way)

    it('may accept ' .. when, loop.run(function()
      assert.same({ true }, authorized('client', as(good), with(trusting, {
        servername = 'other.example.test', checkServerIdentity = function() return answer(nil) end,
      })))
    end))

    pair.eachStrategy(function(demux)
      it(('may refuse %s, and the server is told so'):format(when), loop.run(function()
        local outcome = pair.attempt(with(as(good), { demux = demux }), with(trusting, {
          checkServerIdentity = function() return answer 'it looks odd' end,
        }))
        assertRefusal(outcome.client, outcome.server, 'it looks odd', 'bad_certificate')
        assert.equal("the peer's certificate was refused: it looks odd", outcome.client.message)
      end))
    end)

    it(('may be overruled when it refuses %s: its reason stays'):format(when), loop.run(function()
      assert.same({ false, 'it looks odd' }, authorized('client', as(good), with(trusting, {
        rejectUnauthorized = false, checkServerIdentity = function() return answer 'it looks odd' end,
      })))
    end))

    for _, reject in ipairs { true, false } do
      for what, fails in pairs {
        ['fails'] = function() answer() error('no network', 0) end,
        ['returns something else'] = function() return answer(false) end,
      } do
        it(('ends the handshake when it %s %s%s'):format(what, when, reject and '' or ', also one that rejects nobody'), loop.run(function()
          local outcome = pair.attempt(as(good), with(trusting, { rejectUnauthorized = reject, checkServerIdentity = fails }))
          assert.not_equal(true, outcome.client)
          assert.equal('ERR_DTLS_CALLBACK', outcome.client.code)
          assert.truthy(outcome.client.message:find('checkServerIdentity', 1, true))
          assert.equal('bad_certificate', outcome.server.alert)
        end))
      end
    end
  end

  it('suspends one handshake and delays no other', loop.run(function()
    local server = pair.echo(pair.listening(as(good)))
    local waiting
    local held = pair.client(server, with(trusting, {
      retransmitTimeout = 20,
      checkServerIdentity = function()
        waiting = coroutine.running()
        return coroutine.yield()
      end,
    }))
    local heard = pair.record(held, 'connection', 'message', 'error')
    loop.till(function() return waiting end, 'the question')
    assert.is_false(held.authorized)
    local other = pair.open(server, nil, trusting)
    assert.is_true(pair.roundTrip(other, 'meanwhile'))
    assert.equal(0, #heard)
    assert(coroutine.resume(waiting))
    heard.wait 'connection'
    assert.is_true(held.authorized)
    assert.is_true(pair.roundTrip(held, 'at last'))
    pair.close(held, other, server)
  end))

  it('is waited for until the handshake\'s deadline', loop.run(function()
    local server = pair.listening(as(good))
    local conn = pair.client(server, with(trusting, {
      handshakeTimeout = 500 * loop.patience, checkServerIdentity = function() return coroutine.yield() end,
    }))
    local heard = pair.record(conn, 'connection', 'error', 'close')
    heard.wait 'close'
    assert.equal('error close', heard.names())
    assert.equal('ERR_DTLS_HANDSHAKE_TIMEOUT', heard[1][2].code)
    pair.close(server)
  end))

  it('is ignored when it answers too late', function()
    local stdout, stderr = child.run [[
      local dtls, uv = require 'dtls', require 'luv'
      local own = dtls.selfSigned { altNames = { '127.0.0.1' } }
      local server = dtls.createServer { cert = own.cert, key = own.key }
      server:listen(0, '127.0.0.1')
      local conn, waiting
      conn = dtls.connect { host = '127.0.0.1', port = server:address().port, ca = own.cert, checkServerIdentity = function()
        waiting = coroutine.running()
        conn:close()
        return coroutine.yield()
      end }
      for _, name in ipairs { 'connection', 'error', 'close' } do
        conn:on(name, function() print(name) end)
      end
      conn:on('close', function()
        print(coroutine.resume(waiting, 'it looks odd'))
        server:close()
      end)
      uv.run()
    ]]
    assert.equal('', stderr)
    assert.equal('close\ntrue\n', stdout)
  end)

  it('does not let in, by an earlier session, whom the check of the name would refuse', loop.run(function()
    local server = pair.listening(as(good))
    local client = with(trusting, { servername = 'other.example.test' })
    local first = pair.open(server, nil, with(client, { checkServerIdentity = function() end }))
    local session = assert(first:getSession())
    local conn = pair.client(server, with(client, { session = session }))
    assert.equal('HOSTNAME_MISMATCH', pair.record(conn, 'connection', 'error').wait 'error'[2].reason)
    pair.close(conn, first, server)
  end))
end)

describe('a server', function()
  local asking = with(as(good), { ca = root.pem.cert, requestCert = true })
  local trusting = { ca = root.pem.cert, servername = NAME }

  pair.eachStrategy(function(demux)
    local server = with(asking, { demux = demux })

    it('that requests a certificate accepts one that is good', loop.run(function()
      for _, each in ipairs { as(good), as(forClients), as(far, between) } do
        assertBoth(pair.attempt(server, with(trusting, each), function(conn, accepted)
          assert.same({ true }, pair.verdict(conn))
          assert.same({ true }, pair.verdict(accepted))
        end))
      end
    end))

    it('that requests a certificate refuses who has none, and tells it so', loop.run(function()
      local outcome = pair.attempt(server, trusting)
      assertRefusal(outcome.server, outcome.client, 'NO_PEER_CERTIFICATE', 'handshake_failure')
    end))

    for _, case in ipairs(refusalsOf(forServers)) do
      local what, client, more, reason, alert = unpack(case)
      it('refuses a client\'s certificate ' .. what .. ', and tells it so', loop.run(function()
        local outcome = pair.attempt(with(server, more), with(trusting, client))
        assertRefusal(outcome.server, outcome.client, reason, alert)
      end))
    end
  end)

  for _, case in ipairs(refusalsOf(forServers)) do
    local what, client, more, reason = unpack(case)
    it('that rejects nobody says why it would not trust a client\'s certificate ' .. what, loop.run(function()
      local server = with(asking, with(more, { rejectUnauthorized = false }))
      assert.same({ false, reason }, authorized('server', server, with(trusting, client)))
    end))
  end

  it('that rejects nobody takes a certificate with a wrong signature that comes in several datagrams', loop.run(function()
    local server = with(asking, { rejectUnauthorized = false })
    assert.same({ false, 'CERT_SIGNATURE_FAILURE' }, authorized('server', server, with(with(trusting, as(tampered)), { mtu = 300 })))
  end))

  it('that rejects nobody lets in who has no certificate', loop.run(function()
    assert.same({ false, 'NO_PEER_CERTIFICATE' }, authorized('server', with(asking, { rejectUnauthorized = false }), trusting))
  end))

  it('that requests a certificate and trusts nobody refuses all', loop.run(function()
    local server = with(as(good), { requestCert = true })
    local outcome = pair.attempt(server, with(trusting, as(good)))
    assertRefusal(outcome.server, outcome.client, 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY', 'unknown_ca')
    outcome = pair.attempt(server, with(trusting, as(alone)))
    assertRefusal(outcome.server, outcome.client, 'DEPTH_ZERO_SELF_SIGNED_CERT', 'unknown_ca')
  end))

  it('accepts pinned certificates alone when it has pins and no authorities', loop.run(function()
    local server = with(as(good), { requestCert = true, fingerprint = { alone.fingerprint, expired.fingerprint } })
    for _, each in ipairs { alone, expired } do assertBoth(pair.attempt(server, with(trusting, as(each)))) end
    local outcome = pair.attempt(server, with(trusting, as(good)))
    assertRefusal(outcome.server, outcome.client, 'FINGERPRINT_MISMATCH', 'handshake_failure')
    outcome = pair.attempt(server, trusting)
    assertRefusal(outcome.server, outcome.client, 'NO_PEER_CERTIFICATE', 'handshake_failure')
  end))

  it('does not ask for a certificate unless told to', loop.run(function()
    assertBoth(pair.attempt(with(asking, { requestCert = false }), with(trusting, as(alien)), function(_, accepted)
      assert.same({ false, 'NO_PEER_CERTIFICATE' }, pair.verdict(accepted))
      assert.is_nil(accepted:getPeerCertificate())
    end))
  end))

  it('does not check a client\'s name', loop.run(function()
    local elsewhere = assert(dtls.selfSigned { altNames = { 'elsewhere.example.test' } })
    local server = with(as(good), { requestCert = true, ca = elsewhere.cert })
    assertBoth(pair.attempt(server, with(trusting, { cert = elsewhere.cert, key = elsewhere.key })))
  end))
end)

describe('an identity by name', function()
  local NAMES = { 'root.example.test', 'stranger.example.test', 'pinned.example.test', 'either.example.test', 'open.example.test' }
  local own = assert(dtls.selfSigned { altNames = NAMES })
  local identity = { cert = own.cert, key = own.key }

  local server = with(identity, {
    requestCert = true, ca = alone.pem.cert,
    sni = {
      ['root.example.test'] = with(identity, { requestCert = true, ca = root.pem.cert, crl = crl.root }),
      ['stranger.example.test'] = with(identity, { requestCert = true, ca = stranger.pem.cert }),
      ['pinned.example.test'] = with(identity, { requestCert = true, fingerprint = alone.fingerprint }),
      ['either.example.test'] = with(identity, { requestCert = true, ca = root.pem.cert, rejectUnauthorized = false }),
      ['open.example.test'] = identity,
    },
  })

  pair.eachStrategy(function(demux)
    local function attempt(name, entry, inspect)
      local client = with(entry and as(entry) or {}, { ca = own.cert, servername = name })
      return pair.attempt(with(server, { demux = demux }), client, inspect)
    end

    it('has authorities of its own: a client is let in under one name and refused under the other', loop.run(function()
      assertBoth(attempt('root.example.test', good))
      assertBoth(attempt('stranger.example.test', alien))
      for name, entry in pairs { ['root.example.test'] = alien, ['stranger.example.test'] = good } do
        local outcome = attempt(name, entry)
        assertRefusal(outcome.server, outcome.client, 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY', 'unknown_ca')
      end
    end))

    it('has revocation lists of its own', loop.run(function()
      local outcome = attempt('root.example.test', revoked)
      assertRefusal(outcome.server, outcome.client, 'CERT_REVOKED', 'certificate_revoked')
    end))

    it('has pins of its own', loop.run(function()
      assertBoth(attempt('pinned.example.test', alone))
      local outcome = attempt('pinned.example.test', good)
      assertRefusal(outcome.server, outcome.client, 'FINGERPRINT_MISMATCH', 'handshake_failure')
    end))

    it('decides itself whether to ask for a certificate, and whether to insist', loop.run(function()
      for _, name in ipairs { 'root.example.test', 'stranger.example.test', 'pinned.example.test' } do
        local outcome = attempt(name)
        assertRefusal(outcome.server, outcome.client, 'NO_PEER_CERTIFICATE', 'handshake_failure')
      end
      local function says(...)
        local verdict = { ... }
        return function(_, accepted) assert.same(verdict, pair.verdict(accepted)) end
      end
      assertBoth(attempt('either.example.test', nil, says(false, 'NO_PEER_CERTIFICATE')))
      assertBoth(attempt('either.example.test', alien, says(false, 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY')))
      assertBoth(attempt('either.example.test', good, says(true)))
      assertBoth(attempt('open.example.test', good, function(_, accepted) assert.is_nil(accepted:getPeerCertificate()) end))
    end))

    it('leaves clients without a name to the server\'s own', loop.run(function()
      local unnamed = { fingerprint = own.fingerprint }
      assertBoth(pair.attempt(with(server, { demux = demux }), with(unnamed, as(alone))))
      local outcome = pair.attempt(with(server, { demux = demux }), with(unnamed, as(good)))
      assertRefusal(outcome.server, outcome.client, 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY', 'unknown_ca')
    end))
  end)
end)

-- A peer of either role with these options beside `requestCert` and the name, which is shown that certificate: true, or why it is refused.
local function verdict(role, options, shown)
  local outcome
  if role == 'server' then
    outcome = pair.attempt(with(as(alone), with(options, { requestCert = true })), with(shown, { fingerprint = alone.fingerprint }))
  else
    outcome = pair.attempt(shown, with(options, { servername = NAME }))
  end
  local result = outcome[role]
  return result == true or result.reason
end

for _, role in ipairs { 'server', 'client' } do
  describe(('allowPartialTrustChain of a %s'):format(role), function()
    it('makes a certificate below the root an anchor', loop.run(function()
      for _, shown in ipairs { as(far), as(far, between) } do
        assert.equal('UNABLE_TO_GET_ISSUER_CERT', verdict(role, { ca = between.pem.cert }, shown))
        assert.equal('UNABLE_TO_GET_ISSUER_CERT', verdict(role, { ca = between.pem.cert, allowPartialTrustChain = false }, shown))
        assert.is_true(verdict(role, { ca = between.pem.cert, allowPartialTrustChain = true }, shown))
      end
    end))

    it('makes the peer\'s own certificate an anchor', loop.run(function()
      assert.is_true(verdict(role, { ca = good.pem.cert, allowPartialTrustChain = true }, as(good)))
    end))

    it('trusts no other certificate, and none that is expired or revoked', loop.run(function()
      local lax = { ca = between.pem.cert, allowPartialTrustChain = true }
      assert.equal('UNABLE_TO_GET_ISSUER_CERT_LOCALLY', verdict(role, lax, as(good)))
      assert.equal('CERT_HAS_EXPIRED', verdict(role, { ca = lapsed.pem.cert, allowPartialTrustChain = true }, as(below)))
    end))
  end)

  describe(('verifyTime of a %s'):format(role), function()
    it('false asks no certificate for its dates, and no revocation list', loop.run(function()
      local function timeless(more) return with({ ca = root.pem.cert, verifyTime = false }, more) end
      for _, shown in ipairs { as(expired), as(early), as(below, lapsed), as(good) } do assert.is_true(verdict(role, timeless(), shown)) end
      assert.is_true(verdict(role, timeless { crl = crl.past }, as(good)))
      assert.equal('CERT_REVOKED', verdict(role, timeless { crl = crl.root }, as(revoked)))
      assert.equal('UNABLE_TO_GET_ISSUER_CERT_LOCALLY', verdict(role, timeless(), as(alien)))
    end))

    it('as a number is the time at which they are looked at', loop.run(function()
      local JANUARY_2020, MARCH_2020 = 1579046400, 1583020800
      local function at(time, more) return with({ ca = { root.pem.cert, ancient.pem.cert }, verifyTime = time }, more) end
      assert.is_true(verdict(role, at(JANUARY_2020), as(antique)))
      assert.is_true(verdict(role, at(JANUARY_2020, { crl = crl.ancient }), as(antique)))
      assert.equal('CERT_HAS_EXPIRED', verdict(role, at(MARCH_2020), as(antique)))
      assert.equal('CERT_NOT_YET_VALID', verdict(role, at(JANUARY_2020), as(good)))
      assert.equal('CERT_NOT_YET_VALID', verdict(role, at(0), as(antique)))
      assert.is_true(verdict(role, at(os.time()), as(good)))
      assert.equal('CERT_HAS_EXPIRED', verdict(role, { ca = ancient.pem.cert }, as(antique)))
    end))

    it('after 2038 is refused where time has 32 bits, and holds elsewhere', loop.run(function()
      local in2100 = { ca = root.pem.cert, verifyTime = 4102444800 } -- in 2100
      local made, err = dtls.createContext(role, with(as(good), in2100))
      if made then return assert.equal('CERT_HAS_EXPIRED', verdict(role, in2100, as(good))) end
      assert.same({ 'ERR_DTLS_CONFIG', 'verifyTime: this system knows no time after 2038' }, { err.code, err.message })
    end))
  end)
end

describe('allowPartialTrustChain and verifyTime', function()
  it('are those of the name that a client asks for', loop.run(function()
    local lax = with(as(alone), { requestCert = true, ca = between.pem.cert, allowPartialTrustChain = true, verifyTime = false })
    local strict = with(as(alone), { requestCert = true, ca = between.pem.cert })
    local client = with(as(far), { fingerprint = alone.fingerprint, servername = NAME })
    assertBoth(pair.attempt(with(strict, { sni = { [NAME] = lax } }), client))
    local outcome = pair.attempt(with(lax, { sni = { [NAME] = strict } }), client)
    assertRefusal(outcome.server, outcome.client, 'UNABLE_TO_GET_ISSUER_CERT', 'unknown_ca')
  end))

  it('do not go with revocation lists, the first of them, since OpenSSL looks for those up to a root', function()
    for _, role in ipairs { 'server', 'client' } do
      local own = with(as(alone), { ca = between.pem.cert, crl = crl.between, verifyTime = false })
      assert.truthy(dtls.createContext(role, own))
      local made, err = dtls.createContext(role, with(own, { allowPartialTrustChain = true }))
      assert.is_nil(made)
      assert.equal('ERR_DTLS_CONFIG', err.code)
      assert.matches('allowPartialTrustChain: .*crl', err.message)
    end
  end)

  it('are a flag, and false or a whole number of seconds', function()
    for name, values in pairs { allowPartialTrustChain = { 1, 'true' }, verifyTime = { 'now', {} } } do
      for _, value in ipairs(values) do
        assert.has_error(function() dtls.createContext('client', { ca = root.pem.cert, [name] = value }) end)
      end
    end
    for _, value in ipairs { true, -1, 1.5, 0 / 0, math.huge, 2 ^ 40 } do
      local made, err = dtls.createContext('client', { ca = root.pem.cert, verifyTime = value })
      assert.is_nil(made, tostring(value))
      assert.equal('ERR_DTLS_CONFIG', err.code)
      assert.truthy(err.message:find('verifyTime', 1, true))
    end
  end)
end)
