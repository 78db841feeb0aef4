-- Extensions of the hello: the application protocol (RFC 7301), the SRTP profile (RFC 5764), the extended master secret
-- (RFC 7627); and the keying material that an application takes from the handshake (RFC 5705).

local dtls = require 'dtls'
local loop = require 'spec.support.loop'
local pair = require 'spec.support.pair'

local identity = pair.identity

-- The value of a field of the connection, on which both ends agree.
local function agreed(field, ours, its)
  local server = pair.listening(ours)
  local conn, accepted = pair.open(server, nil, its)
  local found = conn[field]
  assert.equal(found, accepted[field])
  pair.close(conn, server)
  return found
end

local function assertConfigError(words, options)
  for _, role in ipairs { 'server', 'client' } do
    local all = { cert = identity.cert, key = identity.key, fingerprint = identity.fingerprint }
    for name, value in pairs(options) do all[name] = value end
    local made, err = dtls.createContext(role, all)
    assert.is_nil(made)
    assert.equal('ERR_DTLS_CONFIG', err.code)
    assert.truthy(err.message:find(words, 1, true), ('%q is missing from: %s'):format(words, err.message))
  end
end

local function assertThrows(words, options)
  local ok, err = pcall(dtls.createContext, 'client', options)
  assert.is_false(ok)
  assert.truthy(err:find(words, 1, true), ('%q is missing from: %s'):format(words, err))
end

describe('the application protocol', function()
  local function protocol(ours, its)
    return agreed('alpnProtocol', { ALPNProtocols = ours }, { ALPNProtocols = its })
  end

  it('is the first in the server\'s list that the client offers', loop.run(function()
    assert.equal('coap', protocol({ 'coap', 'echo' }, { 'echo', 'coap' }))
    assert.equal('echo', protocol({ 'echo', 'coap' }, { 'coap', 'echo' }))
    assert.equal('echo', protocol({ 'coap', 'echo' }, { 'other', 'echo' }))
  end))

  it('may be given as one string', loop.run(function()
    assert.equal('coap', protocol('coap', 'coap'))
    assert.equal('coap', protocol('coap', { 'echo', 'coap' }))
    assert.equal('coap', protocol({ 'echo', 'coap' }, 'coap'))
  end))

  it('is compared byte by byte', loop.run(function()
    assert.equal('a\0b', protocol({ 'a', 'a\0', 'a\0b' }, { 'a\0b' }))
    assert.equal('Coap', protocol({ 'coap', 'Coap' }, { 'COAP', 'Coap' }))
  end))

  it('is nil when one side has no list', loop.run(function()
    assert.is_nil(protocol({ 'coap' }, nil))
    assert.is_nil(protocol(nil, { 'coap' }))
    assert.is_nil(protocol(nil, nil))
  end))

  it('must be in both lists when both sides have one (no_application_protocol)', loop.run(function()
    local server = pair.listening { ALPNProtocols = { 'coap', 'echo' } }
    local heard = pair.record(server, 'connection', 'clientError')
    local conn = pair.client(server, { ALPNProtocols = { 'coa', 'coapx', 'other' }, retransmitTimeout = 100 })
    local fate = pair.record(conn, 'connection', 'error', 'close')
    fate.wait 'close'
    assert.equal('error close', fate.names())
    assert.equal('ERR_DTLS_ALERT', fate[1][2].code)
    assert.equal('no_application_protocol', fate[1][2].alert)
    assert.is_nil(heard.find 'connection')
    local err = heard.wait 'clientError'[2]
    assert.equal('ERR_DTLS_PROTOCOL', err.code)
    assert.equal('NO_APPLICATION_PROTOCOL', err.reason)
    assert.equal("handshake: no application protocol; the client offers 'coa coapx other', and this server has 'coap echo'", err.message)
    local next_one = pair.open(server, nil, { ALPNProtocols = 'echo' })
    pair.close(conn, next_one, server)
  end))

  it('is known once the handshake has completed, and still after the connection has closed', loop.run(function()
    local server = pair.listening { ALPNProtocols = 'coap' }
    local conn = pair.client(server, { ALPNProtocols = 'coap' })
    assert.is_nil(conn.alpnProtocol)
    loop.event(conn, 'connection')
    assert.equal('coap', conn.alpnProtocol)
    pair.close(conn, server)
    assert.equal('coap', conn.alpnProtocol)
  end))

  it('has a name of 1 to 255 bytes', loop.run(function()
    local longest = ('x'):rep(255)
    assert.equal(longest, protocol({ longest }, { ('y'):rep(255), longest }))
    assert.equal('x', protocol('x', 'x'))
    for _, wrong in ipairs { '', longest .. 'x', { 'coap', '' }, { longest .. 'x', 'coap' }, {} } do
      assertConfigError('ALPNProtocols', { ALPNProtocols = wrong })
    end
    assertThrows("'ALPNProtocols'", { ALPNProtocols = 7 })
    assertThrows("'ALPNProtocols'", { ALPNProtocols = { 'coap', 7 } })
  end))

  it('may be one of many, but of no more than a ClientHello can hold', loop.run(function()
    local many = {}
    for i = 1, 100 do many[i] = ('%03d of many protocols'):format(i) end
    assert.equal('100 of many protocols', protocol('100 of many protocols', many))
    for i = 1, 256 do many[i] = ('x'):rep(255) end
    assertConfigError('ALPNProtocols', { ALPNProtocols = many })
  end))
end)

describe('the SRTP profile', function()
  local function profile(ours, its)
    return agreed('srtpProfile', { srtpProfiles = ours }, { srtpProfiles = its })
  end

  it('is the first in the server\'s list that the client offers, under OpenSSL\'s name', loop.run(function()
    local gcm, sha1_80, sha1_32 = 'SRTP_AEAD_AES_128_GCM', 'SRTP_AES128_CM_SHA1_80', 'SRTP_AES128_CM_SHA1_32'
    local all = { gcm, 'SRTP_AEAD_AES_256_GCM', sha1_80, sha1_32 }
    for _, each in ipairs(all) do assert.equal(each, profile(each, all)) end
    assert.equal(sha1_80, profile({ sha1_80, gcm }, { gcm, sha1_80 }))
    assert.equal(gcm, profile({ gcm, sha1_80 }, { sha1_80, gcm }))
    assert.equal(sha1_32, profile({ gcm, sha1_32 }, { sha1_80, sha1_32 }))
  end))

  it('is nil when the lists have none in common, and the handshake completes', loop.run(function()
    assert.is_nil(profile('SRTP_AEAD_AES_128_GCM', 'SRTP_AES128_CM_SHA1_80'))
  end))

  it('is nil when one side has no list', loop.run(function()
    assert.is_nil(profile('SRTP_AEAD_AES_128_GCM', nil))
    assert.is_nil(profile(nil, 'SRTP_AEAD_AES_128_GCM'))
    assert.is_nil(profile(nil, nil))
  end))

  it('must have a name that OpenSSL knows', function()
    assertConfigError('srtpProfiles', { srtpProfiles = 'SRTP_ROT13' })
    assertConfigError('srtpProfiles', { srtpProfiles = { 'SRTP_AEAD_AES_128_GCM', 'SRTP_ROT13' } })
    assertConfigError('srtpProfiles', { srtpProfiles = '' })
    assertConfigError('srtpProfiles', { srtpProfiles = {} })
    assertThrows("'srtpProfiles'", { srtpProfiles = true })
  end)
end)

describe('keying material', function()
  local LABEL = 'EXTRACTOR-dtls_srtp'
  local server, conn, accepted

  local function run(body)
    return loop.run(function()
      server = pair.listening { srtpProfiles = 'SRTP_AES128_CM_SHA1_80' }
      conn, accepted = pair.open(server, nil, { srtpProfiles = 'SRTP_AES128_CM_SHA1_80' })
      body()
      pair.close(conn, server)
    end)
  end

  -- The keying material, after asserting that both ends export the same.
  local function both(...)
    local bytes = assert(conn:exportKeyingMaterial(...))
    assert.equal(bytes, accepted:exportKeyingMaterial(...))
    assert.equal((...), #bytes)
    return bytes
  end

  it('is the same at both ends, for every length', run(function()
    local longest = both(65536, LABEL)
    for _, length in ipairs { 1, 20, 60, 65535 } do assert.equal(longest:sub(1, length), both(length, LABEL)) end
  end))

  it('differs for another label, another context, another connection', run(function()
    local found = { both(60, LABEL), both(60, 'EXPERIMENTAL') }
    -- RFC 5705 §4: no context is not an empty one.
    for _, context in ipairs { '', '\0', 'context', 'other context' } do found[#found + 1] = both(60, LABEL, context) end
    local first = conn
    conn, accepted = pair.open(server, nil, { srtpProfiles = 'SRTP_AES128_CM_SHA1_80' })
    found[#found + 1] = both(60, LABEL)
    pair.close(first)
    for i = 1, #found do
      for j = i + 1, #found do assert.not_equal(found[i], found[j]) end
    end
  end))

  it('has 1 to 65536 bytes', run(function()
    for _, length in ipairs { 0, -1, 65537, 2 ^ 31 } do
      local ok, err = pcall(conn.exportKeyingMaterial, conn, length, LABEL)
      assert.is_false(ok)
      assert.truthy(err:find('1 to 65536', 1, true), err)
    end
    assert.is_false(pcall(conn.exportKeyingMaterial, conn, 'sixty', LABEL))
    assert.is_false(pcall(conn.exportKeyingMaterial, conn, 60))
    assert.is_false(pcall(conn.exportKeyingMaterial, conn, 60, LABEL, {}))
  end))

  it('is refused for a label that TLS itself uses (RFC 5705 §4)', run(function()
    for _, label in ipairs { 'master secret', 'key expansion', 'client finished', 'server finished', 'extended master secret' } do
      local bytes, err = conn:exportKeyingMaterial(60, label)
      assert.is_nil(bytes)
      assert.equal('ERR_DTLS_PROTOCOL', err.code)
    end
  end))

  it('is available only while the connection is open', run(function()
    local late = pair.client(server)
    assert.equal('ENOTCONN', select(2, late:exportKeyingMaterial(60, LABEL)).code)
    local handshaking
    server:once('accept', function(peer) handshaking = select(2, peer:exportKeyingMaterial(60, LABEL)) end)
    loop.event(late, 'connection')
    assert.equal('ENOTCONN', handshaking.code)
    assert.equal(60, #late:exportKeyingMaterial(60, LABEL))
    pair.close(late)
    assert.equal('ENOTCONN', select(2, late:exportKeyingMaterial(60, LABEL)).code)
  end))
end)

describe('the extended master secret', function()
  it('is used by both ends', loop.run(function()
    assert.is_true(agreed('extendedMasterSecret'))
  end))

  it('is not used when one end does not offer it', loop.run(function()
    local without = { options = { 'NO_EXTENDED_MASTER_SECRET' } }
    assert.is_false(agreed('extendedMasterSecret', without))
    assert.is_false(agreed('extendedMasterSecret', nil, without))
  end))

  it('is known once the handshake has completed, and still after the connection has closed', loop.run(function()
    local server = pair.listening()
    local handshaking
    server:once('accept', function(accepted) handshaking = accepted.extendedMasterSecret end)
    local conn = pair.client(server)
    assert.is_false(conn.extendedMasterSecret)
    loop.event(conn, 'connection')
    assert.is_true(conn.extendedMasterSecret)
    assert.is_false(handshaking)
    pair.close(conn, server)
    assert.is_true(conn.extendedMasterSecret)
  end))
end)
