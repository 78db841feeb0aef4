-- getPeerCertificate(): the peer's certificate as a table.

local dtls = require 'dtls'
local loop = require 'spec.support.loop'
local pair = require 'spec.support.pair'
local pki = require 'spec.support.pki'

local as, with = pair.as, pair.with

local files = pki.new()
local root = files:certificate('root', { authority = true, subject = '/C=DE/O=Root & Sons/CN=root' })
local between = files:certificate('between', { issuer = root, authority = true })
local other = files:certificate('other', { authority = true })
local leaf = files:certificate('leaf', {
  issuer = between, serial = '0x0123456789ABCDEF', purposes = 'serverAuth, clientAuth, 1.2.3.4.5',
  subject = '/C=DE/O=Exämple/OU=one/OU=two/OU=three/CN=leaf+UID=7/own=mine',
  altNames = { 'a.example.test', '192.0.2.7', '2001:db8::7' },
})
local old = files:certificate('old', { from = '19700101000000Z', to = '19991231235959Z' })

-- The server's certificate as getPeerCertificate() of a client returns it.
local function shown(server, client, chain)
  local cert
  local outcome = pair.attempt(server, client, function(conn) cert = conn:getPeerCertificate(chain) end)
  assert.is_true(outcome.client, tostring(outcome.client))
  return cert
end

local function pinned(entry)
  return shown(as(entry), { fingerprint = entry.fingerprint })
end

-- What `openssl x509` prints behind the equals sign.
local function says(entry, arguments)
  return files:examine(entry, arguments):match '=%s*(.-)\n'
end

-- The fingerprints along a chain.
local function chain(cert)
  local list = {}
  while cert do
    list[#list + 1] = cert.fingerprint256
    cert = cert.issuerCertificate
  end
  return list
end

teardown(function() files:remove() end)

describe('the certificate of a peer', function()
  it('has a subject and an issuer, in which an attribute that comes more than once is a list', loop.run(function()
    local cert = pinned(leaf)
    assert.same({ C = 'DE', O = 'Exämple', OU = { 'one', 'two', 'three' }, CN = 'leaf', UID = '7', ['1.2.3.4'] = 'mine' }, cert.subject)
    assert.same({ CN = 'between' }, cert.issuer)
    assert.same({ C = 'DE', O = 'Root & Sons', CN = 'root' }, pinned(between).issuer)
  end))

  it('has the SHA fingerprints that `openssl x509` prints', loop.run(function()
    local cert = pinned(leaf)
    assert.equal(says(leaf, '-fingerprint -sha1'), cert.fingerprint)
    assert.equal(says(leaf, '-fingerprint -sha256'), cert.fingerprint256)
    assert.equal(says(leaf, '-fingerprint -sha512'), cert.fingerprint512)
  end))

  it('has a serial number and a validity', loop.run(function()
    local cert = pinned(leaf)
    assert.equal('0123456789ABCDEF', cert.serialNumber)
    assert.equal(says(between, '-serial'), pinned(between).serialNumber)
    assert.equal(says(leaf, '-startdate'), cert.valid_from)
    assert.equal(says(leaf, '-enddate'), cert.valid_to)
    cert = pinned(old)
    assert.equal('Jan  1 00:00:00 1970 GMT', cert.valid_from)
    assert.equal('Dec 31 23:59:59 1999 GMT', cert.valid_to)
  end))

  it('has the extended key usages that it is limited to, if any', loop.run(function()
    assert.same({ '1.3.6.1.5.5.7.3.1', '1.3.6.1.5.5.7.3.2', '1.2.3.4.5' }, pinned(leaf).ext_key_usage)
    assert.is_nil(pinned(between).ext_key_usage)
  end))

  it('says whether the certificate is an authority\'s (basicConstraints CA)', loop.run(function()
    assert.is_false(pinned(leaf).ca)
    assert.is_true(pinned(between).ca)
  end))

  it('is available as PEM and as DER', loop.run(function()
    local cert = pinned(leaf)
    assert.equal(leaf.pem.cert, cert.pem)
    assert.equal(files:der(leaf), cert.raw)
    local own = assert(dtls.selfSigned { altNames = { '127.0.0.1' } })
    local server = { cert = own.cert, key = own.key }
    assert.is_true(pair.attempt(server, { ca = shown(server, { fingerprint = own.fingerprint }).pem }).client)
  end))

  for kind, bits in pairs { ec = 256, rsa = 2048, ['rsa-pss'] = 2048, ed25519 = 256, ed448 = 456 } do
    it('has the type and the size of its key: ' .. kind, loop.run(function()
      local own = pki.selfSigned { type = kind }
      local cert = shown({ cert = own.cert, key = own.key }, { fingerprint = own.fingerprint })
      assert.equal(kind:upper(), cert.keyType)
      assert.equal(bits, cert.bits)
    end))
  end

  it('is nil before the handshake has completed, and for a client that shows none', loop.run(function()
    local server = pair.listening()
    local early
    server:on('accept', function(conn) early = { n = select('#', conn:getPeerCertificate()), conn:getPeerCertificate() } end)
    local before = pair.client(server)
    assert.is_nil(before:getPeerCertificate())
    local conn, accepted = pair.open(server)
    assert.same({ n = 1 }, early)
    assert.is_nil(accepted:getPeerCertificate(true))
    assert.equal(pair.identity.fingerprint, conn:getPeerCertificate().fingerprint256)
    pair.close(before, conn)
    pair.close(server)
  end))

  it('is nil when the handshake used a pre-shared key', loop.run(function()
    local outcome = pair.attempt({ psk = { me = 'secret' } }, { psk = { identity = 'me', key = 'secret' } }, function(conn, accepted)
      assert.is_nil(conn:getPeerCertificate(true))
      assert.is_nil(accepted:getPeerCertificate(true))
    end)
    assert.is_true(outcome.client)
  end))

  it('comes with a resumed session, but not before the session is resumed', loop.run(function()
    local server = pair.listening()
    local first = pair.open(server)
    local session = assert(first:getSession())
    local conn, early
    server:on('accept', function() early = { n = select('#', conn:getPeerCertificate()), conn:getPeerCertificate() } end)
    conn = pair.client(server, { session = session })
    loop.event(conn, 'connection')
    assert.same({ n = 1 }, early) -- the session had been offered, but not been taken
    assert.is_true(conn:isSessionReused())
    assert.equal(pair.identity.fingerprint, conn:getPeerCertificate().fingerprint256)
    pair.close(conn, first, server)
  end))
end)

describe('the alternative names of a certificate', function()
  local function der(tag, content)
    return string.char(tag, #content) .. content
  end

  local function names(options)
    return pinned(files:certificate('named', options)).subjectaltname
  end

  -- Names as they are on the wire: `tag` is the context-specific tag of GeneralName (RFC 5280 §4.2.1.6).
  local function raw(...)
    local parts = {}
    for i, name in ipairs { ... } do parts[i] = der(name[1], name[2]) end
    return names { altDer = (der(0x30, table.concat(parts)):gsub('.', function(byte) return ('%02X'):format(byte:byte()) end)) }
  end

  local DNS, EMAIL, URI, IP, DIRECTORY, RID = 0x82, 0x81, 0x86, 0x87, 0xa4, 0x88

  it('are DNS names and IP addresses', loop.run(function()
    assert.equal('DNS:a.example.test, IP Address:192.0.2.7, IP Address:2001:DB8:0:0:0:0:0:7', pinned(leaf).subjectaltname)
    assert.equal('DNS:*.example.test', names { altNames = { '*.example.test' } })
    assert.is_nil(names { altNames = {} })
  end))

  it('are quoted when their text could pass for two names or for another name', loop.run(function()
    assert.equal('DNS:"a.example, DNS:b.example", DNS:c.example', names { altNames = { 'a.example, DNS:b.example', 'c.example' } })
    assert.equal('DNS:"a\\u0022, DNS:\\u0022b"', names { altNames = { 'a", DNS:"b' } })
    assert.equal('DNS:"a\'b", DNS:"back\\u005cslash"', names { altNames = { "a'b", 'back\\slash' } })
    assert.equal('DNS:"a.example\\u0000.b.example"', raw { DNS, 'a.example\0.b.example' })
    assert.equal('DNS:"a.example\\u000aDNS:b.example", DNS:"\\u00fc"', raw({ DNS, 'a.example\nDNS:b.example' }, { DNS, '\252' }))
    assert.equal('URI:"x:y,DNS:a.example", email:"a, b@c.example"', raw({ URI, 'x:y,DNS:a.example' }, { EMAIL, 'a, b@c.example' }))
  end))

  it('may be of other kinds of GeneralName', loop.run(function()
    assert.equal('URI:coap://a.example/, email:me@a.example, Registered ID:1.2.3.4, othername:<unsupported>',
      raw({ URI, 'coap://a.example/' }, { EMAIL, 'me@a.example' }, { RID, '\42\3\4' }, { DIRECTORY, '\48\0' }))
    assert.truthy(raw({ IP, '12345' }):find '^IP Address:<invalid')
  end))
end)

describe('the chain of a certificate', function()
  local verified = { leaf.fingerprint, between.fingerprint, root.fingerprint }
  local trusting = { ca = root.pem.cert, servername = 'a.example.test' }

  it('leads up to the root and ends there', loop.run(function()
    for _, server in ipairs { as(leaf, between), as(leaf, between, root), as(leaf, other, between) } do
      assert.same(verified, chain(shown(server, trusting, true)))
    end
  end))

  it('has every field in every certificate', loop.run(function()
    local cert = shown(as(leaf, between), trusting, true)
    assert.same({ CN = 'between' }, cert.issuerCertificate.subject)
    assert.same(cert.issuer, cert.issuerCertificate.subject)
    assert.equal(root.pem.cert, cert.issuerCertificate.issuerCertificate.pem)
    assert.is_true(cert.issuerCertificate.ca)
  end))

  it('is left out unless getPeerCertificate(true) asks for it', loop.run(function()
    assert.is_nil(shown(as(leaf, between), trusting).issuerCertificate)
    assert.is_nil(shown(as(leaf, between), trusting, false).issuerCertificate)
  end))

  it('is one certificate when the certificate is self-signed', loop.run(function()
    local own = assert(dtls.selfSigned { altNames = { '127.0.0.1' } })
    assert.same({ own.fingerprint }, chain(shown({ cert = own.cert, key = own.key }, { ca = own.cert }, true)))
  end))

  it('is what the peer sent when the chain has not been verified', loop.run(function()
    local sent = { leaf.fingerprint, other.fingerprint, between.fingerprint }
    assert.same(sent, chain(shown(as(leaf, other, between), { fingerprint = leaf.fingerprint }, true)))
    assert.same(sent, chain(shown(as(leaf, other, between), with(trusting, { ca = other.pem.cert, rejectUnauthorized = false }), true)))
  end))

  for _, case in ipairs {
    { 'verified', { ca = root.pem.cert }, verified },
    { 'not trusted', { ca = other.pem.cert, rejectUnauthorized = false }, { leaf.fingerprint, between.fingerprint } },
  } do
    local what, server, expected = unpack(case)
    it('is known to a server, too, when the client\'s chain is ' .. what, loop.run(function()
      local seen
      local client = with(as(leaf, between), { fingerprint = pair.identity.fingerprint })
      server = with({ cert = pair.identity.cert, key = pair.identity.key, requestCert = true }, server)
      local outcome = pair.attempt(server, client, function(_, accepted) seen = accepted:getPeerCertificate(true) end)
      assert.is_true(outcome.server, tostring(outcome.server))
      assert.same(expected, chain(seen))
      assert.equal('leaf', seen.subject.CN)
    end))
  end
end)
