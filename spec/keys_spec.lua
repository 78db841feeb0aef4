-- Keys of every type, one or several, of a server and of a client.

local dtls = require 'dtls'
local loop = require 'spec.support.loop'
local pair = require 'spec.support.pair'
local pki = require 'spec.support.pki'

local as, with = pair.as, pair.with

local KINDS = { 'ec', 'rsa', 'rsa-pss', 'ed25519', 'ed448' }

-- How cipher suites name each type: EdDSA goes by ECDSA (RFC 8422 §5.10), RSA-PSS by RSA.
local AUTHENTICATION = { ec = 'ECDSA', rsa = 'RSA', ['rsa-pss'] = 'RSA', ed25519 = 'ECDSA', ed448 = 'ECDSA' }

local files = pki.new()
local root = files:certificate('root', { authority = true })
local between = files:certificate('between', { issuer = root, authority = true })

-- By type: self-signed by the module, self-signed by openssl, and issued by openssl.
local own, foreign, issued = {}, {}, {}
for _, kind in ipairs(KINDS) do
  own[kind] = assert(dtls.selfSigned { type = kind, altNames = { '127.0.0.1' } })
  foreign[kind] = files:certificate(kind, { type = kind, altNames = { '127.0.0.1' } })
  issued[kind] = files:certificate('issued-' .. kind, { type = kind, issuer = between, altNames = { '127.0.0.1' } })
end
local sealed = {}
for _, kind in ipairs(KINDS) do sealed[kind] = files:encrypt(foreign[kind], 'open sesame') end
local traditional = files:encrypt(foreign.rsa, 'open sesame', 'traditional')
local short = files:certificate('short', { type = 'rsa-1024' })
local shortIssuer = files:certificate('short-issuer', { type = 'rsa-1024', authority = true })
local belowShort = files:certificate('below-short', { issuer = shortIssuer })
files:remove()

local function credentials(made)
  return { cert = made.cert, key = made.key }
end

-- Several identities at once.
local function several(...)
  local all = { cert = {}, key = {} }
  for i, each in ipairs { ... } do all.cert[i], all.key[i] = each.cert, each.key end
  return all
end

-- Asserts that a handshake and an echo succeed. Returns what the client sees: the server's certificate and the cipher
-- suite.
local function talk(server, client)
  local cert, cipher
  local outcome = pair.attempt(server, client, function(conn, accepted)
    accepted:on('message', function(data) accepted:send(data) end)
    assert.is_true(pair.roundTrip(conn, 'hello'))
    cert, cipher = conn:getPeerCertificate(), conn:getCipher().name
  end)
  assert.is_true(outcome.client, tostring(outcome.client))
  assert.is_true(outcome.server, tostring(outcome.server))
  return cert, cipher
end

for _, kind in ipairs(KINDS) do
  describe('a key of type ' .. kind, function()
    pair.eachStrategy(function(demux)
      it('suffices for a server', loop.run(function()
        local server = with(credentials(own[kind]), { demux = demux })
        local cert, cipher = talk(server, { ca = own[kind].cert })
        assert.equal(own[kind].fingerprint, cert.fingerprint256)
        assert.truthy(cipher:find('-' .. AUTHENTICATION[kind] .. '-', 1, true), cipher)
      end))

      it('suffices for a client', loop.run(function()
        local seen
        local server = with(credentials(pair.identity), { requestCert = true, ca = own[kind].cert, demux = demux })
        local outcome = pair.attempt(server, credentials(own[kind]), function(_, accepted)
          seen = { accepted.authorized, accepted:getPeerCertificate().fingerprint256 }
        end)
        assert.is_true(outcome.server, tostring(outcome.server))
        assert.same({ true, own[kind].fingerprint }, seen)
      end))
    end)

    it('may be made by openssl, on either side', loop.run(function()
      local server = with(as(foreign[kind]), { requestCert = true, ca = foreign[kind].pem.cert })
      local cert = talk(server, with(as(foreign[kind]), { ca = foreign[kind].pem.cert }))
      assert.equal(foreign[kind].fingerprint, cert.fingerprint256)
    end))

    it('may have a certificate with a chain, on either side', loop.run(function()
      local entry = as(issued[kind], between)
      talk(with(entry, { requestCert = true, ca = root.pem.cert }), with(entry, { ca = root.pem.cert }))
    end))

    it('may be a server\'s whose client has a key of any other type', loop.run(function()
      for _, other in ipairs(KINDS) do
        local server = with(credentials(own[kind]), { requestCert = true, ca = own[other].cert })
        talk(server, with(credentials(own[other]), { ca = own[kind].cert }))
      end
    end))

    it('may be that of a name in sni, whatever type the server\'s own key has', loop.run(function()
      for _, other in ipairs(KINDS) do
        local server = with(credentials(own[other]), { sni = { ['named.example'] = as(foreign[kind]) } })
        local cert = talk(server, { fingerprint = foreign[kind].fingerprint, servername = 'named.example' })
        assert.equal(foreign[kind].fingerprint, cert.fingerprint256)
        assert.equal(own[other].fingerprint, talk(server, { ca = own[other].cert }).fingerprint256)
      end
    end))

    it('may be encrypted: only its passphrase opens it', loop.run(function()
      local function options(passphrase) return { cert = foreign[kind].pem.cert, key = sealed[kind], passphrase = passphrase } end
      talk(options 'open sesame', { ca = foreign[kind].pem.cert })
      for _, made in ipairs { { dtls.createContext('server', options 'wrong') }, { dtls.createContext('server', options()) } } do
        assert.is_nil(made[1])
        assert.equal('ERR_DTLS_CONFIG', made[2].code)
      end
    end))
  end)
end

describe('several keys', function()
  local ECDSA, RSA = 'ECDHE-ECDSA-AES128-GCM-SHA256', 'ECDHE-RSA-AES128-GCM-SHA256'
  local STRONG = 'ECDHE-ECDSA-AES256-GCM-SHA384:@SECLEVEL=4'
  -- The algorithms that every client of TLS 1.2 takes, without EdDSA and RSA-PSS keys.
  local OLD = 'ECDSA+SHA256:rsa_pss_rsae_sha256:RSA+SHA256'

  -- The types of the server's keys, a client's options, the type that the client gets, and more options of the server.
  for _, case in ipairs {
    { { 'ec', 'rsa' }, { ciphers = RSA }, 'rsa' },
    { { 'ec', 'rsa' }, { ciphers = ECDSA }, 'ec' },
    { { 'rsa', 'ec' }, { ciphers = RSA }, 'rsa' },
    { { 'ec', 'rsa' }, {}, 'ec' },
    { { 'ed25519', 'rsa' }, { ciphers = RSA }, 'rsa' },
    { { 'ed25519', 'rsa' }, { ciphers = ECDSA }, 'ed25519' },
    { { 'ed25519', 'rsa-pss' }, { ciphers = RSA }, 'rsa-pss' },
    { { 'ed25519', 'rsa-pss' }, { ciphers = ECDSA }, 'ed25519' },
    { { 'ed448', 'ec' }, { sigalgs = 'ed448' }, 'ed448' },
    { { 'ed448', 'ec' }, { sigalgs = 'ECDSA+SHA256' }, 'ec' },
    { { 'ed25519', 'ed448' }, { sigalgs = 'ed448' }, 'ed448' },
    { { 'ed25519', 'ed448' }, { sigalgs = 'ed25519' }, 'ed25519' },
    { { 'rsa', 'rsa-pss' }, { ciphers = RSA, sigalgs = 'rsa_pss_pss_sha256' }, 'rsa-pss' },
    { { 'rsa', 'rsa-pss' }, { ciphers = RSA, sigalgs = 'rsa_pss_rsae_sha256' }, 'rsa' },
    { { 'rsa', 'rsa-pss' }, { ciphers = RSA, sigalgs = 'RSA+SHA256' }, 'rsa' },
    { { 'ec', 'rsa-pss' }, { ciphers = RSA }, 'rsa-pss' },
    { { 'ec', 'rsa-pss' }, { ciphers = ECDSA }, 'ec' },
    { { 'ed25519', 'rsa' }, { ciphers = ECDSA .. ':' .. RSA, sigalgs = OLD }, 'rsa' },
    { { 'ed448', 'rsa' }, { ciphers = ECDSA .. ':' .. RSA, sigalgs = OLD }, 'rsa' },
    { { 'ed25519', 'rsa' }, { sigalgs = 'ed25519:' .. OLD }, 'ed25519' },
    { { 'ed448', 'rsa' }, { sigalgs = OLD .. ':ed448' }, 'ed448' },
    { { 'ed448', 'rsa' }, { ciphers = ECDSA .. ':' .. RSA, sigalgs = 'ed25519:' .. OLD }, 'rsa' },
    { { 'rsa-pss', 'ec' }, { sigalgs = OLD }, 'ec', { ciphers = RSA .. ':' .. ECDSA } },
    { { 'rsa-pss', 'ec' }, { sigalgs = OLD .. ':rsa_pss_pss_sha384' }, 'rsa-pss', { ciphers = RSA .. ':' .. ECDSA } },
    { KINDS, { ciphers = RSA, sigalgs = 'rsa_pss_pss_sha512' }, 'rsa-pss' },
    { KINDS, { sigalgs = 'ed448' }, 'ed448' },
    { { 'ed25519' }, { groups = 'X25519:P-384' }, 'ed25519' },
    { { 'ed448' }, { groups = 'P-521' }, 'ed448', { groups = 'P-521' } },
    { { 'ed448' }, { groups = 'P-384', ciphers = STRONG }, 'ed448', { ciphers = STRONG } },
  } do
    local kinds, client, chosen, more = unpack(case)
    local what = client.sigalgs or client.ciphers or 'anything'
    for whose, serving in pairs {
      ['a server'] = function(identity) return identity end,
      ['a name'] = function(identity) return with(credentials(own.ec), { sni = { ['named.example'] = identity } }) end,
    } do
      it(('%s of %s: a client that takes %s gets %s'):format(table.concat(kinds, ' and '), whose, what, chosen), loop.run(function()
        local entries = {}
        for i, kind in ipairs(kinds) do entries[i] = own[kind] end
        local all = with(client, { fingerprint = own[chosen].fingerprint, servername = 'named.example' })
        local cert = talk(serving(with(several(unpack(entries)), more)), all)
        assert.equal(own[chosen].fingerprint, cert.fingerprint256)
      end))
    end
  end

  it('have a chain each', loop.run(function()
    local one, other = as(issued.ec, between), credentials(own.rsa)
    local server = several(one, other)
    assert.equal(issued.ec.fingerprint, talk(server, { ca = root.pem.cert }).fingerprint256)
    assert.equal(own.rsa.fingerprint, talk(server, { ca = own.rsa.cert, ciphers = RSA }).fingerprint256)
  end))

  it('of a client: the client shows the certificate of the last key', loop.run(function()
    for _, client in ipairs { several(own.ec, own.rsa), several(own.ed25519, own['rsa-pss'], own.rsa) } do
      local seen
      local server = with(credentials(own.ec), { requestCert = true, ca = own.rsa.cert })
      local outcome = pair.attempt(server, with(client, { ca = own.ec.cert }), function(_, accepted)
        seen = accepted:getPeerCertificate().fingerprint256
      end)
      assert.is_true(outcome.server, tostring(outcome.server))
      assert.equal(own.rsa.fingerprint, seen)
    end
  end))

  it('share one passphrase', loop.run(function()
    local server = {
      cert = { foreign.ec.pem.cert, foreign.rsa.pem.cert }, key = { sealed.ec, sealed.rsa }, passphrase = 'open sesame',
    }
    talk(server, { ca = foreign.ec.pem.cert, ciphers = ECDSA })
    talk(server, { ca = foreign.rsa.pem.cert, ciphers = RSA })
  end))
end)

describe('a placeholder certificate', function()
  for kind, sigalgs in pairs {
    ed25519 = { 'ECDSA+SHA256', 'ed448', 'rsa_pss_rsae_sha256' },
    ed448 = { 'ECDSA+SHA256', 'ed25519' },
    ['rsa-pss'] = { 'RSA+SHA256', 'rsa_pss_rsae_sha256', 'ECDSA+SHA256' },
  } do
    for _, list in ipairs(sigalgs) do
      it(('never signs for a client that takes %s, when the server\'s key is %s'):format(list, kind), loop.run(function()
        local outcome = pair.attempt(credentials(own[kind]), { sigalgs = list, rejectUnauthorized = false })
        assert.equal('handshake_failure', outcome.client.alert)
        assert.equal('ERR_DTLS_PROTOCOL', outcome.server.code)
      end))
    end
  end
end)

describe('credentials that cannot be used', function()
  local cases = {
    ['a certificate and the key of another'] = { as(foreign.ec).cert, own.ec.key, 'does not match' },
    ['a certificate and a key of another kind'] = { own.ed25519.cert, own.ed448.key, 'does not match' },
    ['an RSA certificate and an RSA-PSS key'] = { own.rsa.cert, own['rsa-pss'].key, 'does not match' },
    ['an RSA key of 1024 bits'] = { short.pem.cert, short.pem.key, 'too small' },
    ['an authority with 1024 bits in the chain'] = { belowShort.pem.cert .. shortIssuer.pem.cert, belowShort.pem.key, 'too small' },
    ['a key in the place of a certificate'] = { own.ec.key, own.ec.key, 'cert' },
    ['a certificate in the place of a key'] = { own.ec.cert, own.ec.cert, 'key' },
    ['half a certificate'] = { own.ec.cert:sub(1, #own.ec.cert / 2), own.ec.key, 'cert' },
    ['half a key'] = { own.ec.cert, own.ec.key:sub(1, #own.ec.key / 2), 'key' },
    ['a certificate with other bytes in it'] = { (own.ec.cert:gsub('\nMII', '\nAAA')), own.ec.key, 'cert' },
    ['garbage behind the certificate'] = {
      own.ec.cert .. '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n', own.ec.key, 'cert',
    },
    ['nothing'] = { '', '', 'cert' },
  }

  for what, case in pairs(cases) do
    local cert, key, words = unpack(case)
    it('are refused by every function that takes them, and no handle is left open: ' .. what, loop.run(function()
      local both = { cert = { own.rsa.cert, cert }, key = { own.rsa.key, key } }
      for _, options in ipairs { { cert = cert, key = key }, both } do
        local client = with(options, { fingerprint = own.ec.fingerprint })
        for _, call in ipairs {
          function() return dtls.createContext('server', options) end,
          function() return dtls.createContext('client', client) end,
          function() return dtls.createServer(options) end,
          function() return dtls.connect(with(client, { host = '127.0.0.1', port = 9 })) end,
          function() return dtls.createServer(with(credentials(own.ec), { sni = { ['a.example'] = options } })) end,
        } do
          local made, err = call()
          assert.is_nil(made)
          assert.equal('ERR_DTLS_CONFIG', err.code)
          assert.truthy(err.message:find(words, 1, true), err.message)
        end
      end
    end))
  end

  it('are refused by setContext, and the server keeps its own', loop.run(function()
    local server = pair.listening(credentials(own.ec))
    for _, case in pairs(cases) do
      local done, err = server:setContext { cert = case[1], key = case[2] }
      assert.is_nil(done)
      assert.equal('ERR_DTLS_CONFIG', err.code)
    end
    local conn = pair.open(server, nil, { ca = own.ec.cert })
    pair.close(conn, server)
  end))

  it('are refused: an encrypted key in the traditional format with a wrong passphrase or none', function()
    local options = { cert = foreign.rsa.pem.cert, key = traditional, passphrase = 'open sesame' }
    assert.truthy(traditional:find('Proc-Type: 4,ENCRYPTED', 1, true))
    assert.truthy(dtls.createContext('server', options))
    for _, passphrase in ipairs { 'wrong', '', false, ('x'):rep(5000) } do
      options.passphrase = passphrase or nil
      local made, err = dtls.createContext('server', options)
      assert.is_nil(made)
      assert.equal('ERR_DTLS_CONFIG', err.code)
      assert.truthy(err.message:find('passphrase', 1, true), err.message)
    end
  end)
end)
