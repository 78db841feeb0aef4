-- Raw public keys (RFC 7250): who shows and accepts them, pinned keys, X.509 beside them, what a session remembers.

local dtls = require 'dtls'
local hello = require 'spec.support.hello'
local loop = require 'spec.support.loop'
local pair = require 'spec.support.pair'
local pki = require 'spec.support.pki'
local proxy = require 'spec.support.proxy'

local with = pair.with

local us, them, stranger = assert(dtls.selfSigned()), assert(dtls.selfSigned()), assert(dtls.selfSigned())

-- The options of a side that has the key of `identity` alone.
local function raw(identity, more) return with({ key = identity.key, rawPublicKey = true }, more) end
-- A server with a raw public key, and one that wants its client's.
local function serving(more) return raw(us, more) end
local function asking(more) return serving(with({ requestCert = true, peerPublicKey = them.publicKey }, more)) end
-- A client that knows the server's key, and one that has a key, too.
local function trusting(more) return with({ rawPublicKey = true, peerPublicKey = us.publicKey }, more) end
local function showing(more) return trusting(with({ key = them.key }, more)) end

local _, unsupported = dtls.createContext('server', serving())

describe('rawPublicKey', function()
  it('is there from OpenSSL 3.2 on, else the error says which OpenSSL it needs', function()
    local old = unsupported and unsupported.message:match '^rawPublicKey: raw public keys need OpenSSL 3%.2 or later, and ' ..
      'this module was compiled against OpenSSL 3%.[01]%.%d+'
    assert.is_true(not unsupported or old ~= nil, tostring(unsupported))
    assert.equal(unsupported and 'ERR_DTLS_CONFIG', unsupported and unsupported.code)
  end)

  for _, case in ipairs {
    { 'peerPublicKey alone', 'client', { peerPublicKey = us.publicKey }, 'peerPublicKey: it checks raw public keys' },
    { 'peerPublicKey of a server that does not ask for keys', 'server', serving { peerPublicKey = us.publicKey }, 'requestCert' },
    { 'a server without a key', 'server', { rawPublicKey = true, psk = { a = 'secret' } }, 'rawPublicKey: a server needs key' },
    { 'a client that could neither show nor accept one', 'client', { rawPublicKey = true, ca = us.cert }, 'peerPublicKey' },
    { 'a key without rawPublicKey', 'server', { key = us.key }, 'pairs' },
    { 'more keys than certificates', 'server', { cert = us.cert, key = { us.key, them.key }, rawPublicKey = true }, 'pairs' },
    { 'a text that is no key', 'client', trusting { peerPublicKey = 'my key' }, 'PEM public key' },
    { 'a private key in the place of a public one', 'client', trusting { peerPublicKey = us.key }, 'PEM public key' },
    { 'a certificate in the place of a public key', 'client', trusting { peerPublicKey = us.cert }, 'PEM public key' },
    { 'half a public key', 'client', trusting { peerPublicKey = us.publicKey .. us.publicKey:sub(1, 60) }, 'PEM public key' },
    { 'no public key in the list', 'client', trusting { peerPublicKey = {} }, 'PEM public key' },
    { 'too short a SHA-256', 'client', trusting { peerPublicKey = ('ab'):rep(31) }, 'PEM public key' },
  } do
    local what, role, options, text = unpack(case)
    it('does not go with ' .. what, function()
      local made, err = dtls.createContext(role, options)
      assert.is_nil(made)
      assert.equal('ERR_DTLS_CONFIG', err.code)
      assert.truthy(err.message:find(text, 1, true), err.message)
    end)
  end

  it('is a boolean, and peerPublicKey texts', function()
    assert.error_matches(function() dtls.createContext('client', { rawPublicKey = 'yes' }) end, "option 'rawPublicKey'")
    assert.error_matches(function() dtls.createContext('client', trusting { peerPublicKey = 7 }) end, "option 'peerPublicKey'")
  end)
end)

describe('getPeerPublicKey', function()
  it('has the key of a certificate, as `openssl x509 -pubkey` writes it', loop.run(function()
    local server = pair.listening()
    local conn, accepted = pair.open(server)
    local key = conn:getPeerPublicKey()
    assert.equal(pair.identity.publicKey, key.pem)
    assert.same({ 'EC', 256, 91 }, { key.keyType, key.bits, #key.raw })
    assert.is_nil(accepted:getPeerPublicKey())
    pair.close(conn, server)
    assert.same(key, conn:getPeerPublicKey())
  end))
end)

if unsupported then return end

local function assertBoth(outcome)
  assert.is_true(outcome.client, tostring(outcome.client))
  assert.is_true(outcome.server, tostring(outcome.server))
end

-- One end refused what the other one has shown, and told it why.
local function assertRefusal(outcome, side, reason, alert)
  local refused, told = outcome[side], outcome[side == 'client' and 'server' or 'client']
  assert.equal('ERR_DTLS_CERTIFICATE', refused.code, tostring(refused))
  assert.equal(reason, refused.reason)
  assert.equal('ERR_DTLS_ALERT', told.code, tostring(told))
  assert.equal(alert or 'certificate_unknown', told.alert)
  return refused
end

local function fingerprint(identity)
  local found
  loop.run(function()
    local server = pair.listening { cert = identity.cert, key = identity.key }
    local conn = pair.open(server, nil, { fingerprint = identity.fingerprint })
    found = conn:getPeerPublicKey().fingerprint256
    pair.close(conn, server)
  end)()
  return found
end

local ours, theirs = fingerprint(us), fingerprint(them)

local kinds = {}
for _, kind in ipairs { 'rsa', 'rsa-pss', 'ed25519', 'ed448' } do kinds[kind] = assert(dtls.selfSigned { type = kind }) end

pair.eachStrategy(function(demux)
  local function attempt(server, client, inspect) return pair.attempt(with({ demux = demux }, server), client, inspect) end

  describe('raw public keys', function()
    it('prove both sides to each other, which know the other one\'s key, during the connection and afterwards', loop.run(function()
      local server = pair.echo(pair.listening(asking { demux = demux }))
      local conn, accepted = pair.open(server, nil, showing())
      assert.same({ true }, pair.verdict(conn))
      assert.same({ true }, pair.verdict(accepted))
      pair.roundTrip(conn, 'hello')
      pair.close(conn, server)
      for end_, identity in pairs { [conn] = us, [accepted] = them } do
        assert.equal(identity.publicKey, end_:getPeerPublicKey().pem)
        assert.is_nil(end_:getPeerCertificate())
        assert.is_true(end_.authorized)
      end
    end))

    it('prove a server to clients of which it asks nothing', loop.run(function()
      for _, client in ipairs { trusting(), showing() } do
        assertBoth(attempt(serving(), client, function(conn, accepted)
          assert.same({ true }, pair.verdict(conn))
          assert.same({ false, 'NO_PEER_CERTIFICATE' }, pair.verdict(accepted))
          assert.is_nil(accepted:getPeerPublicKey())
        end))
      end
    end))

    for kind, key in pairs(kinds) do
      it(('may be %s keys'):format(kind), loop.run(function()
        assertBoth(attempt(raw(key, { requestCert = true, peerPublicKey = key.publicKey }), raw(key, { peerPublicKey = key.publicKey }),
          function(conn, accepted)
            assert.is_true(conn.authorized and accepted.authorized)
            assert.equal(key.publicKey, accepted:getPeerPublicKey().pem)
          end))
      end))
    end

    it('of several kinds are shown to whom each fits', loop.run(function()
      local other = kinds.ed25519
      for _, case in ipairs { { us, 'ECDSA+SHA256' }, { other, 'ed25519' } } do
        local key, sigalgs = unpack(case)
        assertBoth(attempt(serving { key = { us.key, other.key } }, trusting { peerPublicKey = key.publicKey, sigalgs = sigalgs }))
      end
    end))

    it('are pinned as PEM, several in one text, or by their SHA-256, also one of many', loop.run(function()
      local plain = ours:gsub(':', '')
      for _, pin in ipairs {
        ours, plain, plain:lower(), { stranger.publicKey, ours }, stranger.publicKey .. us.publicKey, { theirs, us.publicKey },
        { export = function() return us.publicKey end },
      } do
        assertBoth(attempt(serving(), trusting { peerPublicKey = pin }))
      end
    end))

    it('need no authority, name, date or system\'s store', loop.run(function()
      assertBoth(attempt(serving(), trusting { servername = 'any.example', verifyTime = 0 }))
    end))

    it('go with the suite that RFC 7252 asks for', loop.run(function()
      local suite = { ciphers = 'ECDHE-ECDSA-AES128-CCM8' }
      assertBoth(attempt(asking(suite), showing(suite), function(conn)
        assert.equal('ECDHE-ECDSA-AES128-CCM8', conn:getCipher().name)
      end))
    end))

    it('go with pre-shared keys, of which each client uses one or the other', loop.run(function()
      local psk = { device = ('k'):rep(16) }
      local server = asking { psk = psk }
      assertBoth(attempt(server, showing()))
      assertBoth(attempt(server, { psk = { identity = 'device', key = psk.device } }))
      assertRefusal(attempt(server, showing { key = stranger.key }), 'server', 'RPK_UNTRUSTED')
    end))
  end)

  describe('a raw public key that is not pinned', function()
    it('is refused by a client, and the error names both keys', loop.run(function()
      local err = assertRefusal(attempt(serving(), trusting { peerPublicKey = them.publicKey }), 'client', 'RPK_UNTRUSTED')
      assert.equal(("the peer's raw public key was refused: it is not pinned: it is %s and not %s"):format(ours, theirs), err.message)
      assert.equal(us.publicKey, err.publicKey.pem)
      assert.is_nil(err.certificate)
    end))

    it('is refused by a server, and the error names both keys', loop.run(function()
      local err = assertRefusal(attempt(asking { peerPublicKey = us.publicKey }, showing()), 'server', 'RPK_UNTRUSTED')
      assert.equal(("the peer's raw public key was refused: it is not pinned: it is %s and not %s"):format(theirs, ours), err.message)
      assert.equal(them.publicKey, err.publicKey.pem)
    end))

    it('stays known of the connection that was refused', loop.run(function()
      local server = pair.listening(asking { demux = demux, peerPublicKey = us.publicKey })
      local conn = pair.client(server, showing())
      local _, _, refused = unpack(pair.record(server, 'clientError').wait 'clientError')
      assert.same({ false, 'RPK_UNTRUSTED' }, pair.verdict(refused))
      pair.close(conn, server)
      assert.equal(theirs, refused:getPeerPublicKey().fingerprint256)
      assert.is_nil(refused:getPeerCertificate())
    end))

    it('is refused where many are pinned', loop.run(function()
      local pins = { us.publicKey, stranger.publicKey }
      local err = assertRefusal(attempt(asking { peerPublicKey = pins }, showing()), 'server', 'RPK_UNTRUSTED')
      assert.matches('and not one of the 2 that are pinned', err.message)
    end))

    it('is refused where none is, and the error says which one it is', loop.run(function()
      local err = assertRefusal(attempt(serving { requestCert = true }, showing()), 'server', 'RPK_UNTRUSTED')
      assert.matches(theirs .. ' and none is pinned$', err.message)
    end))

    it('is refused although the fingerprint of its certificate is pinned, or an authority known', loop.run(function()
      for _, trust in ipairs { { fingerprint = them.fingerprint }, { ca = them.cert } } do
        local outcome = attempt(serving(with({ requestCert = true, peerPublicKey = stranger.publicKey }, trust)), showing())
        assertRefusal(outcome, 'server', 'RPK_UNTRUSTED')
      end
      for _, trust in ipairs { { fingerprint = us.fingerprint }, { ca = us.cert, servername = 'localhost' } } do
        assertRefusal(attempt(serving(), trusting(with({ peerPublicKey = stranger.publicKey }, trust))), 'client', 'RPK_UNTRUSTED')
      end
    end))

    it('is refused when its digest is that of a pinned certificate, and a certificate whose digest is a pinned key\'s', loop.run(function()
      local mixed = { peerPublicKey = us.fingerprint, fingerprint = ours }
      assertRefusal(attempt(serving(), trusting(mixed)), 'client', 'RPK_UNTRUSTED')
      assertRefusal(attempt({ cert = us.cert, key = us.key }, trusting(mixed)), 'client', 'FINGERPRINT_MISMATCH', 'handshake_failure')
    end))

    it('is let in without rejectUnauthorized, unauthorized, so that it can be pinned from then on', loop.run(function()
      local seen
      assertBoth(attempt(serving { requestCert = true, rejectUnauthorized = false }, showing(), function(_, accepted)
        assert.same({ false, 'RPK_UNTRUSTED' }, pair.verdict(accepted))
        seen = accepted:getPeerPublicKey().fingerprint256
      end))
      assert.equal(theirs, seen)
      assertBoth(attempt(serving(), { rawPublicKey = true, rejectUnauthorized = false }, function(conn)
        assert.same({ false, 'RPK_UNTRUSTED' }, pair.verdict(conn))
        assert.equal(ours, conn:getPeerPublicKey().fingerprint256)
      end))
    end))

    it('is refused once setVerify says so', loop.run(function()
      local context = assert(dtls.createContext('client', { rawPublicKey = true, rejectUnauthorized = false }))
      assert(context:setVerify { mode = 'PEER' })
      assertRefusal(attempt(serving(), { context = context }), 'client', 'RPK_UNTRUSTED')
    end))
  end)

  describe('a client without a key', function()
    it('is refused by a server that asks for one', loop.run(function()
      local outcome = attempt(asking(), trusting())
      assert.equal('ERR_DTLS_CERTIFICATE', outcome.server.code)
      assert.matches('did not return a certificate', outcome.server.message)
      assert.equal('ERR_DTLS_ALERT', outcome.client.code)
    end))

    it('is let in without rejectUnauthorized, unauthorized', loop.run(function()
      assertBoth(attempt(asking { rejectUnauthorized = false }, trusting(), function(_, accepted)
        assert.same({ false, 'NO_PEER_CERTIFICATE' }, pair.verdict(accepted))
      end))
    end))
  end)

  describe('a certificate', function()
    it('is refused by a client that knows keys alone, whatever the certificate is', loop.run(function()
      for _, key in ipairs { us, them } do
        local outcome = attempt({ cert = key.cert, key = key.key }, trusting())
        local err = assertRefusal(outcome, 'client', 'RAW_PUBLIC_KEY_REQUIRED')
        assert.matches("^the peer's certificate was refused: only raw public keys are accepted: CN=localhost", err.message)
        assert.equal(key.fingerprint, err.certificate.fingerprint256)
      end
    end))

    it('is refused by a server that knows keys alone, whatever the certificate is', loop.run(function()
      for _, key in ipairs { us, them } do
        local client = { cert = key.cert, key = key.key, fingerprint = us.fingerprint }
        local outcome = attempt(asking { cert = us.cert }, client)
        assertRefusal(outcome, 'server', 'RAW_PUBLIC_KEY_REQUIRED')
      end
    end))

    it('is not shown by a server that has none: who takes certificates alone finds nothing in common', loop.run(function()
      local outcome = attempt(serving(), { fingerprint = us.fingerprint })
      assert.equal('ERR_DTLS_PROTOCOL', outcome.server.code)
      assert.matches('; the client takes no raw public keys, and this server has nothing else to show$', outcome.server.message)
      assert.equal('handshake_failure', outcome.client.alert)
    end))

    it('is not shown by a client that has none: a server that takes certificates alone gets nothing', loop.run(function()
      local outcome = attempt({ requestCert = true, ca = them.cert, cert = us.cert, key = us.key },
        { key = them.key, rawPublicKey = true, fingerprint = us.fingerprint })
      assert.equal('ERR_DTLS_CERTIFICATE', outcome.server.code)
      assert.equal('ERR_DTLS_ALERT', outcome.client.code)
    end))
  end)

  describe('certificates beside raw public keys', function()
    it('of a server are for those who want one', loop.run(function()
      local both = serving { cert = us.cert }
      assertBoth(attempt(both, { fingerprint = us.fingerprint }, function(conn) assert.is_table(conn:getPeerCertificate()) end))
      assertBoth(attempt(both, trusting(), function(conn) assert.is_nil(conn:getPeerCertificate()) end))
      assertBoth(attempt(both, trusting { fingerprint = us.fingerprint }, function(conn) assert.is_nil(conn:getPeerCertificate()) end))
    end))

    it('of a client are for those who want one', loop.run(function()
      local both = showing { cert = them.cert }
      assertBoth(attempt(serving { requestCert = true, fingerprint = them.fingerprint }, both, function(_, accepted)
        assert.equal(them.fingerprint, accepted:getPeerCertificate().fingerprint256)
      end))
      assertBoth(attempt(asking { fingerprint = stranger.fingerprint }, both, function(_, accepted)
        assert.is_nil(accepted:getPeerCertificate())
        assert.is_true(accepted.authorized)
      end))
    end))

    it('are accepted by who trusts some, and checked as ever', loop.run(function()
      local certificate = { cert = us.cert, key = us.key }
      assertBoth(attempt(certificate, trusting { ca = us.cert, servername = 'localhost' }))
      assertBoth(attempt(certificate, trusting { fingerprint = us.fingerprint }))
      local other = trusting { fingerprint = them.fingerprint }
      assertRefusal(attempt(certificate, other), 'client', 'FINGERPRINT_MISMATCH', 'handshake_failure')
      local named = trusting { ca = us.cert, servername = 'other.example' }
      assertRefusal(attempt(certificate, named), 'client', 'HOSTNAME_MISMATCH', 'bad_certificate')
      assertBoth(attempt(asking { cert = us.cert, ca = them.cert }, { cert = them.cert, key = them.key, fingerprint = us.fingerprint }))
    end))

    it('may stand on one side, and raw public keys on the other', loop.run(function()
      assertBoth(attempt(asking { cert = us.cert }, { key = them.key, rawPublicKey = true, fingerprint = us.fingerprint }))
      assertBoth(attempt(serving { requestCert = true, ca = them.cert }, trusting { cert = them.cert, key = them.key }))
    end))

    it('alone are asked about by checkServerIdentity, because a raw public key has no name', loop.run(function()
      local asked = 0
      local client = trusting {
        fingerprint = us.fingerprint, servername = 'some.example',
        checkServerIdentity = function()
          asked = asked + 1
          return 'no'
        end,
      }
      assertBoth(attempt(serving(), client))
      assert.equal(0, asked)
      assert.is_table(attempt({ cert = us.cert, key = us.key }, client).client)
      assert.equal(1, asked)
    end))
  end)

  describe('a name', function()
    it('chooses between raw public keys and certificates', loop.run(function()
      local own = { demux = demux, cert = stranger.cert, key = stranger.key }
      local server = pair.listening(with(own, { sni = { ['raw.example'] = asking(), ['named.example'] = serving { key = them.key } } }))
      local function visit(client, inspect)
        local conn, accepted = pair.open(server, nil, client)
        if inspect then inspect(accepted) end
        pair.close(conn)
      end
      visit(showing { servername = 'raw.example' }, function(accepted) assert.is_true(accepted.authorized) end)
      visit(trusting { servername = 'named.example', peerPublicKey = theirs })
      visit { fingerprint = stranger.fingerprint, servername = '' }
      pair.close(server)
    end))

    it('leads away from raw public keys to a certificate', loop.run(function()
      local server = pair.listening(serving { demux = demux, sni = { ['cert.example'] = { cert = them.cert, key = them.key } } })
      for _, client in ipairs {
        { servername = 'cert.example', fingerprint = them.fingerprint }, trusting { servername = '' },
        trusting { servername = 'cert.example', fingerprint = them.fingerprint },
      } do
        pair.close((pair.open(server, nil, client)))
      end
      pair.close(server)
    end))
  end)

  describe('a session of raw public keys', function()
    local KEY = ('t'):rep(80)

    local function listens(options) return pair.listening(with({ demux = demux, ticketKeys = KEY }, options)) end

    local function visit(server, options)
      local conn, accepted = pair.open(server, nil, options)
      local seen = {
        blob = conn:getSession(), reused = conn:isSessionReused(), authorized = { conn.authorized, accepted.authorized },
        keys = { conn:getPeerPublicKey().pem, (accepted:getPeerPublicKey() or {}).pem },
      }
      pair.close(conn)
      return seen
    end

    it('is resumed, and both sides still know the key of the other one', loop.run(function()
      local server = listens(asking())
      local first = visit(server, showing())
      local second = visit(server, showing { session = first.blob })
      assert.is_false(first.reused)
      assert.is_true(second.reused)
      for _, seen in ipairs { first, second } do
        assert.same({ true, true }, seen.authorized)
        assert.same({ us.publicKey, them.publicKey }, seen.keys)
      end
      pair.close(server)
    end))

    it('is resumed from a session store, too', loop.run(function()
      local stored = {}
      local store = {
        get = function(id) return stored[id] end,
        set = function(id, blob) stored[id] = blob end,
        remove = function(id) stored[id] = nil end,
      }
      local server = pair.listening(asking { demux = demux, sessionStore = store })
      local second = visit(server, showing { session = visit(server, showing()).blob })
      assert.is_true(second.reused)
      assert.same({ true, true }, second.authorized)
      assert.same({ us.publicKey, them.publicKey }, second.keys)
      pair.close(server)
    end))

    it('is not resumed by a server that has taken the pin away: it refuses the key', loop.run(function()
      local server = listens(asking())
      local blob = visit(server, showing()).blob
      assert(server:setContext { peerPublicKey = stranger.publicKey })
      local conn = pair.client(server, showing { session = blob })
      local heard, failed = pair.record(conn, 'connection', 'error'), pair.record(server, 'connection', 'clientError')
      assert.equal('RPK_UNTRUSTED', failed.wait 'clientError'[2].reason)
      heard.wait 'error'
      assert.equal('error', heard.names())
      pair.close(conn, server)
    end))

    it('is not resumed by another server with the same ticket keys and other pins', loop.run(function()
      local one, other = listens(asking()), listens(asking { peerPublicKey = { them.publicKey, stranger.publicKey } })
      local blob = visit(one, showing()).blob
      assert.is_true(visit(one, showing { session = blob }).reused)
      assert.is_false(visit(other, showing { session = blob }).reused)
      pair.close(one, other)
    end))

    it('is not offered by a client that has taken the pin away: it refuses the key', loop.run(function()
      local server = listens(serving())
      local blob = visit(server, trusting()).blob
      local conn = pair.client(server, trusting { session = blob, peerPublicKey = them.publicKey })
      assert.equal('RPK_UNTRUSTED', pair.record(conn, 'error').wait 'error'[2].reason)
      pair.close(conn, server)
    end))

    it('is not resumed as one of certificates, and the other way round', loop.run(function()
      local server = listens(serving { cert = us.cert })
      local certificates = { fingerprint = us.fingerprint }
      local blob = visit(server, trusting()).blob
      assert.is_false(visit(server, with(certificates, { session = blob })).reused)
      assert.is_false(visit(server, trusting { session = visit(server, certificates).blob }).reused)
      local both = with(certificates, { key = them.key, cert = them.cert, rawPublicKey = true })
      assert.is_false(visit(server, with(certificates, { session = visit(server, both).blob })).reused)
      pair.close(server)
    end))
  end)
end)

describe('a hello', function()
  local RAW, BOTH = '\1\2', '\2\2\0' -- lists of types (RFC 7250 §3)

  for _, case in ipairs {
    { 'of a client with a key that takes certificates', { key = them.key, rawPublicKey = true, fingerprint = us.fingerprint }, nil, RAW },
    { 'of a client without a key', trusting(), RAW, nil },
    { 'of a client with a key', showing(), RAW, RAW },
    { 'of a client that has and takes both', showing { cert = them.cert, fingerprint = us.fingerprint }, BOTH, BOTH },
    { 'of a client without rawPublicKey', { fingerprint = us.fingerprint }, nil, nil },
  } do
    local what, options, server_type, client_type = unpack(case)
    it(what .. ' says which types it takes and shows, and nothing of X.509 alone', loop.run(function()
      local server = pair.listening(serving { cert = us.cert })
      local relay = proxy.new(server)
      local conn = pair.client(relay, options)
      loop.event(conn, 'connection')
      local said = hello.readExtensions(relay.recorded.server[1])
      assert.same({ server_type, client_type }, { said[20], said[19] })
      pair.close(conn, relay, server)
    end))
  end
end)

describe('a weak key', function()
  local files, weak, large

  setup(function()
    files = pki.new()
    weak = files:certificate('weak', { type = 'rsa-1024' })
    large = files:forged('large', 16384, '10001')
  end)
  teardown(function() files:remove() end)

  it('is no raw public key of ours', function()
    for _, role in ipairs { 'server', 'client' } do
      local made, err = dtls.createContext(role, { key = weak.pem.key, rawPublicKey = true })
      assert.is_nil(made)
      assert.matches('^key: it is too small', err.message)
    end
  end)

  it('of the peer is refused although it is pinned, when it is too large to be checked at a fair price', loop.run(function()
    local pin = files:publicKey(large)
    local client = { key = large.pem.key, rawPublicKey = true, fingerprint = us.fingerprint }
    for _, more in ipairs { {}, { rejectUnauthorized = false } } do
      local outcome = pair.attempt(asking(with({ cert = us.cert, peerPublicKey = pin }, more)), client)
      assert.equal('KEY_TOO_LARGE', outcome.server.reason, tostring(outcome.server))
    end
    for _, more in ipairs { {}, { rejectUnauthorized = false } } do
      local outcome = pair.attempt({ key = large.pem.key, rawPublicKey = true }, trusting(with({ peerPublicKey = pin }, more)))
      assert.equal('KEY_TOO_LARGE', outcome.client.reason, tostring(outcome.client))
    end
  end))
end)
