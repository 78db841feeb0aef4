local dtls = require 'dtls'
local context = require 'dtls.context'
local loop = require 'spec.support.loop'
local pair = require 'spec.support.pair'
local pki = require 'spec.support.pki'

local identity = pair.identity

local function openssl(command)
  local pipe = assert(io.popen(command .. ' 2>/dev/null'))
  local text = pipe:read '*a'
  pipe:close()
  return text
end

-- A self-signed certificate with a key of a type that selfSigned() does not make.
local function pairOf(newkey)
  local text = openssl(('openssl req -x509 -nodes -newkey %s -subj /CN=localhost -days 1 -keyout -'):format(newkey))
  return assert(text:match '(%-%-%-%-%-BEGIN CERTIFICATE.*END CERTIFICATE%-%-%-%-%-)'),
    assert(text:match '(%-%-%-%-%-BEGIN PRIVATE KEY.-END PRIVATE KEY%-%-%-%-%-)')
end

-- Asserts that every call which takes credentials returns the same error for these options.
local function assertRefused(role, options, ...)
  for _, call in ipairs {
    function() return dtls.createContext(role, options) end,
    function()
      if role == 'server' then return dtls.createServer(options) end
      local all = { host = '127.0.0.1', port = 9 }
      for name, value in pairs(options) do all[name] = value end
      return dtls.connect(all)
    end,
  } do
    local made, err = call()
    assert.is_nil(made)
    assert.equal('ERR_DTLS_CONFIG', err.code)
    assert.equal('ERR_DTLS_CONFIG: ' .. err.message, tostring(err))
    assert.is_nil(err.message:find('\n', 1, true), 'more than one line: ' .. err.message)
    for _, words in ipairs { ... } do
      assert.truthy(err.message:find(words, 1, true), ('%q is missing from: %s'):format(words, err.message))
    end
  end
end

describe('the options of a context', function()
  local function assertThrows(words, ...)
    local arguments, count = { ... }, select('#', ...)
    local ok, err = pcall(function() dtls.createContext(unpack(arguments, 1, count)) end)
    assert.is_false(ok)
    assert.truthy(err:find(words, 1, true), ('%q is missing from: %s'):format(words, err))
    assert.truthy(err:find('context_spec.lua', 1, true), 'blames another line: ' .. err)
  end

  it('must be a table, and the role \'server\' or \'client\'', function()
    assertThrows('role', 'peer', {})
    assertThrows('role', nil, {})
    assertThrows('options', 'server')
    assertThrows('options', 'server', 'cert')
  end)

  it('raise an error that names an option that does not exist', function()
    assertThrows("'certificate'", 'server', { certificate = identity.cert })
    assertThrows("'1'", 'server', { 'cert' })
    assertThrows("'host'", 'client', { host = '127.0.0.1' })
    assertThrows("'maxConnections'", 'server', { maxConnections = 1 })
  end)

  it('raise an error that names an option of the wrong type', function()
    local wrong = {
      cert = 7, key = true, ca = { 7 }, crl = { {} }, passphrase = 7, ciphers = {}, groups = 7, sigalgs = false,
      minVersion = 1.2, maxVersion = {}, psk = 'secret', pskIdentityHint = 7, requestCert = 'yes',
      rejectUnauthorized = 0, fingerprint = 7, mtu = '1228',
      linkMtu = {}, handshakeTimeout = '0', retransmitTimeout = 'fast', timeout = true, allowFragments = 1,
    }
    for name, value in pairs(wrong) do assertThrows("'" .. name .. "'", 'server', { [name] = value }) end
  end)

  it('raise an error that says which values a number may have', function()
    local cases = { mtu = { 227, '228' }, linkMtu = { 255, '256' }, retransmitTimeout = { 60001, '60000' }, timeout = { 1.5, 'whole' } }
    for name, case in pairs(cases) do
      assertRefused('server', { cert = identity.cert, key = identity.key, [name] = case[1] }, name .. ':', case[2])
    end
  end)

  it('may not give both mtu and linkMtu', function()
    assertRefused('client', { mtu = 1228, linkMtu = 1280 }, 'mtu and linkMtu')
  end)

  it('may not include an option of the other role', function()
    for name, value in pairs { requestCert = true, pskIdentityHint = 'hint', ticketKeys = ('k'):rep(80) } do
      assertRefused('client', { fingerprint = identity.fingerprint, [name] = value }, name .. ':', 'client')
      assert.truthy(dtls.createContext('server', { cert = identity.cert, key = identity.key, [name] = value }))
    end
    assertRefused('client', { fingerprint = identity.fingerprint, requestCert = false }, 'requestCert:')
    local function check() end
    assertRefused('server', { cert = identity.cert, key = identity.key, checkServerIdentity = check }, 'checkServerIdentity:', 'server')
    assert.truthy(dtls.createContext('client', { fingerprint = identity.fingerprint, checkServerIdentity = check }))
  end)

  it('take a fingerprint with and without colons, in either case, alone or in a list', function()
    local hex = identity.fingerprint:gsub(':', '')
    for _, value in ipairs { identity.fingerprint, hex, hex:lower(), { hex, identity.fingerprint } } do
      assert.truthy(dtls.createContext('client', { fingerprint = value }))
    end
    for _, wrong in ipairs { {}, hex:sub(1, 62), hex:sub(1, 62) .. 'xx', { hex, 'AA:BB' } } do
      assertRefused('client', { fingerprint = wrong }, 'fingerprint', 'SHA-256')
    end
  end)
end)

describe('a context', function()
  it('takes PEM text, a list of texts, and objects with export()', function()
    local function exporting(text) return { export = function() return text end } end
    for _, options in ipairs {
      { cert = identity.cert, key = identity.key },
      { cert = { identity.cert }, key = { identity.key } },
      { cert = exporting(identity.cert), key = exporting(identity.key) },
      { cert = { exporting(identity.cert) }, key = { exporting(identity.key) } },
    } do
      assert.truthy(dtls.createContext('server', options))
    end
  end)

  it('takes certificates of all key types, several at once', function()
    local rsa = pki.selfSigned { type = 'rsa' }
    local ed25519 = assert(dtls.selfSigned { type = 'ed25519' })
    assert.truthy(dtls.createContext('server', { cert = { identity.cert, rsa.cert }, key = { identity.key, rsa.key } }))
    assert.truthy(dtls.createContext('server', { cert = ed25519.cert, key = ed25519.key }))
  end)

  it('opens an encrypted key with the right passphrase alone', function()
    local path = os.tmpname()
    local file = assert(io.open(path, 'w'))
    file:write(identity.key)
    file:close()
    local key = openssl('openssl pkcs8 -topk8 -passout pass:sesame -in ' .. path)
    os.remove(path)
    assert.truthy(key:find('ENCRYPTED', 1, true))
    assert.truthy(dtls.createContext('server', { cert = identity.cert, key = key, passphrase = 'sesame' }))
    assertRefused('server', { cert = identity.cert, key = key, passphrase = 'wrong' }, 'key', 'passphrase')
    assertRefused('server', { cert = identity.cert, key = key }, 'key', 'passphrase')
  end)

  it('refuses garbage instead of PEM, and names the option', function()
    assertRefused('server', { cert = 'garbage', key = identity.key }, 'cert')
    assertRefused('server', { cert = '', key = identity.key }, 'cert')
    assertRefused('server', { cert = identity.cert, key = 'garbage' }, 'key')
    assertRefused('server', { cert = identity.cert:sub(1, 200), key = identity.key }, 'cert')
    assertRefused('server', { cert = identity.cert .. identity.cert:sub(1, 200), key = identity.key }, 'cert')
    assertRefused('client', { ca = 'garbage' }, 'ca')
    assertRefused('client', { ca = { identity.cert, 'garbage' } }, 'ca')
    assertRefused('client', { ca = identity.cert, crl = 'garbage' }, 'crl')
  end)

  it('refuses a key that does not match the certificate', function()
    local other = assert(dtls.selfSigned())
    assertRefused('server', { cert = identity.cert, key = other.key }, 'key', 'does not match')
    assertRefused('client', { cert = identity.cert, key = other.key, fingerprint = identity.fingerprint }, 'key', 'does not match')
    local rsa = pki.selfSigned { type = 'rsa' }
    assertRefused('server', { cert = identity.cert, key = rsa.key }, 'key', 'does not match')
  end)

  it('refuses certificates and keys that do not come in pairs', function()
    assertRefused('server', { cert = identity.cert }, 'cert and key')
    assertRefused('server', { key = identity.key }, 'cert and key')
    assertRefused('server', { cert = { identity.cert, identity.cert }, key = identity.key }, 'cert and key')
  end)

  it('refuses a server without any identity', function()
    assertRefused('server', {}, 'cert and key, or psk')
  end)

  it('refuses an RSA key of 1024 bits', function()
    local cert, key = pairOf 'rsa:1024'
    assertRefused('server', { cert = cert, key = key }, 'cert', 'too small')
  end)

  it('refuses a cipher, a group or a signature algorithm that does not exist', function()
    local function with(name, value) return { cert = identity.cert, key = identity.key, [name] = value } end
    assertRefused('server', with('ciphers', 'NO-SUCH-SUITE'), 'ciphers')
    assertRefused('server', with('groups', 'P-255'), 'groups')
    assertRefused('server', with('sigalgs', 'ECDSA+MD7'), 'sigalgs')
  end)

  it('refuses CBC cipher suites although OpenSSL has them', function()
    local cbc = 'ECDHE-ECDSA-AES128-SHA256:AES128-SHA'
    assertRefused('server', { cert = identity.cert, key = identity.key, ciphers = cbc }, 'ciphers', 'AEAD')
  end)

  it('refuses every version but DTLS 1.2', function()
    assertRefused('server', { cert = identity.cert, key = identity.key, minVersion = 'DTLSv1' }, 'minVersion', 'DTLSv1.2')
    assertRefused('client', { fingerprint = identity.fingerprint, maxVersion = 'TLSv1.3' }, 'maxVersion', 'DTLSv1.2')
    assert.truthy(dtls.createContext('client', { minVersion = 'DTLSv1.2', maxVersion = 'DTLSv1.2', fingerprint = identity.fingerprint }))
  end)

  it('refuses pre-shared keys and identities that are too long, empty, or not of the role\'s type', function()
    assertRefused('client', { psk = { identity = 'me', key = '' } }, 'psk')
    assertRefused('client', { psk = { identity = 'me', key = ('k'):rep(1000) } }, 'psk')
    assertRefused('client', { psk = { identity = ('i'):rep(1000), key = 'key' } }, 'psk')
    assertRefused('client', { psk = { identity = 'a\0b', key = 'key' } }, 'psk')
    assertRefused('client', { psk = { me = 'key' } }, 'psk', 'identity')
    assertRefused('server', { psk = { me = 7 } }, 'psk')
  end)

  it('is made from the same options once the mistake that was refused is mended', function()
    local options = { cert = identity.cert, key = identity.key, ciphers = 'NO-SUCH-SUITE' }
    assert.is_nil(dtls.createContext('server', options))
    options.ciphers = 'ECDHE-ECDSA-AES128-GCM-SHA256'
    assert.truthy(dtls.createContext('server', options))
  end)

  it('serves one role only', function()
    local server = assert(dtls.createContext('server', { cert = identity.cert, key = identity.key }))
    local client = assert(dtls.createContext('client', { fingerprint = identity.fingerprint }))
    assert.has_error(function() dtls.createServer { context = client } end, nil)
    local ok, err = pcall(dtls.connect, { host = '127.0.0.1', port = 9, context = server })
    assert.is_false(ok)
    assert.truthy(err:find("'context'", 1, true))
  end)

  it('may not be given together with an option that belongs to the context', function()
    local made = assert(dtls.createContext('server', { cert = identity.cert, key = identity.key, timeout = 5 }))
    for _, options in ipairs { { key = identity.key }, { ciphers = 'ECDHE' }, { timeout = 5 } } do
      options.context = made
      local ok, err = pcall(dtls.createServer, options)
      assert.is_false(ok)
      assert.truthy(err:find("'" .. (options.key and 'key' or options.ciphers and 'ciphers' or 'timeout') .. "'", 1, true), err)
    end
    assert.truthy(dtls.createServer { context = made, handshakeTimeout = 5 })
  end)

  it('must be a context that createContext made', function()
    local ok, err = pcall(dtls.createServer, { context = {} })
    assert.is_false(ok)
    assert.truthy(err:find("'context'", 1, true))
  end)

  it('brings its settings, which override the defaults and which the options of a call override', function()
    local made = assert(dtls.createContext('client', { fingerprint = identity.fingerprint, handshakeTimeout = 7, linkMtu = 600 }))
    local _, settings = context.resolve('client', { context = made, retransmitTimeout = 9 })
    assert.equal(7, settings.handshakeTimeout)
    assert.equal(9, settings.retransmitTimeout)
    assert.equal(600, settings.linkMtu)
    assert.is_nil(settings.mtu)
    assert.is_false(settings.allowFragments)
    _, settings = context.resolve('client', { context = made, mtu = 700 })
    assert.equal(700, settings.mtu)
    assert.is_nil(settings.linkMtu)
    _, settings = context.resolve('client', { fingerprint = identity.fingerprint })
    assert.equal(1228, settings.mtu)
    assert.equal(30000, settings.handshakeTimeout)
  end)

  it('can be shared by many servers and clients, one after the other', loop.run(function()
    local serverSide = assert(dtls.createContext('server', { cert = identity.cert, key = identity.key }))
    local clientSide = assert(dtls.createContext('client', { fingerprint = identity.fingerprint }))
    for _ = 1, 2 do
      local server = pair.echo(pair.listening { context = serverSide })
      local one, other = pair.open(server, nil, { context = clientSide }), pair.open(server, nil, { context = clientSide })
      assert.is_true(pair.roundTrip(one, 'one'))
      assert.is_true(pair.roundTrip(other, 'other'))
      pair.close(one, other, server)
    end
  end))
end)

describe('the secure profile', function()
  local function negotiated(serverOptions, clientOptions)
    local server = pair.listening(serverOptions)
    local conn = pair.open(server, nil, clientOptions)
    local cipher, protocol = conn:getCipher(), conn:getProtocol()
    pair.close(conn, server)
    return cipher, protocol
  end

  it('is DTLS 1.2 with an AEAD suite and forward secrecy', loop.run(function()
    local cipher, protocol = negotiated()
    assert.equal('DTLSv1.2', protocol)
    assert.equal('ECDHE-ECDSA-AES128-GCM-SHA256', cipher.name)
    assert.equal('TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256', cipher.standardName)
    assert.equal('TLSv1.2', cipher.version)
    assert.equal(128, cipher.bits)
  end))

  it('lets the server\'s order of cipher suites decide', loop.run(function()
    local cipher = negotiated({ ciphers = 'ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305' },
      { ciphers = 'ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES256-GCM-SHA384' })
    assert.equal('ECDHE-ECDSA-AES256-GCM-SHA384', cipher.name)
  end))

  for _, kind in ipairs { 'ec', 'rsa', 'ed25519' } do
    it('works on either side with a certificate of type ' .. kind, loop.run(function()
      local own = pki.selfSigned { type = kind }
      local server = pair.echo(pair.listening { cert = own.cert, key = own.key, requestCert = true, fingerprint = own.fingerprint })
      local conn, accepted = pair.open(server, nil, { cert = own.cert, key = own.key, fingerprint = own.fingerprint })
      assert.is_true(conn.authorized)
      assert.is_true(accepted.authorized)
      assert.is_true(pair.roundTrip(conn, kind))
      pair.close(conn, server)
    end))
  end

  for _, suite in ipairs {
    'ECDHE-ECDSA-AES128-GCM-SHA256', 'ECDHE-ECDSA-CHACHA20-POLY1305', 'ECDHE-ECDSA-AES256-GCM-SHA384',
    'ECDHE-ECDSA-AES128-CCM8', -- which OpenSSL 3.2 and later rate below security level 2
  } do
    it('negotiates ' .. suite, loop.run(function()
      local server = pair.echo(pair.listening { ciphers = suite })
      local conn = pair.open(server, nil, { ciphers = suite })
      assert.equal(suite, conn:getCipher().name)
      assert.is_true(pair.roundTrip(conn, suite))
      pair.close(conn, server)
    end))
  end

  it('with a pre-shared key needs no certificate, and the server knows the client\'s identity', loop.run(function()
    local server = pair.echo(pair.listening { psk = { alice = 'her key', bob = 'his key' } })
    local conn, accepted = pair.open(server, nil, { psk = { identity = 'bob', key = 'his key' } })
    assert.equal('bob', accepted.pskIdentity)
    assert.equal('bob', conn.pskIdentity)
    assert.is_true(accepted.authorized)
    assert.truthy(conn:getCipher().name:find('PSK', 1, true))
    assert.is_true(pair.roundTrip(conn, 'psk'))
    pair.close(conn, server)
  end))
end)

describe('a peer that is trusted', function()
  local ca = assert(dtls.selfSigned { commonName = 'localhost', altNames = { 'localhost', '127.0.0.1' } })

  -- The error with which a client gives up, or true.
  local function attempt(serverOptions, clientOptions)
    local server = pair.listening(serverOptions)
    local refused = pair.record(server, 'clientError')
    local conn = pair.client(server, clientOptions)
    local heard = pair.record(conn, 'connection', 'error', 'close')
    loop.till(function() return #heard > 0 end)
    local result, why, bySelf = heard[1][1] == 'connection', heard[1][2], pair.verdict(conn)
    pair.close(conn, server)
    return result, why, bySelf, refused
  end

  it('is a server whose certificate has a trusted issuer and the right name', loop.run(function()
    assert.is_true((attempt({ cert = ca.cert, key = ca.key }, { ca = ca.cert })))
    assert.is_true((attempt({ cert = ca.cert, key = ca.key }, { ca = ca.cert, servername = 'localhost' })))
  end))

  it('is no server whose certificate has another name', loop.run(function()
    local ok, err = attempt({ cert = ca.cert, key = ca.key }, { ca = ca.cert, servername = 'example.org' })
    assert.is_false(ok)
    assert.equal('ERR_DTLS_CERTIFICATE', err.code)
    assert.equal('HOSTNAME_MISMATCH', err.reason)
  end))

  it('is no server whose certificate has another address', loop.run(function()
    local named = assert(dtls.selfSigned { altNames = { 'localhost', '127.0.0.2' } })
    local ok, err = attempt({ cert = named.cert, key = named.key }, { ca = named.cert })
    assert.is_false(ok)
    assert.equal('IP_ADDRESS_MISMATCH', err.reason)
  end))

  it('is no server whose certificate no CA in `ca` has signed', loop.run(function()
    local ok, err = attempt(nil, { ca = ca.cert })
    assert.is_false(ok)
    assert.equal('ERR_DTLS_CERTIFICATE', err.code)
    assert.equal('DEPTH_ZERO_SELF_SIGNED_CERT', err.reason)
  end))

  it('is no untrusted server with rejectUnauthorized = false: it is connected, but authorized is false with the reason', loop.run(function()
    local ok, _, authorized = attempt(nil, { ca = ca.cert, rejectUnauthorized = false })
    assert.is_true(ok)
    assert.same({ false, 'DEPTH_ZERO_SELF_SIGNED_CERT' }, authorized)
  end))

  it('is no server whose certificate has another fingerprint', loop.run(function()
    local ok, err = attempt(nil, { fingerprint = ca.fingerprint })
    assert.is_false(ok)
    assert.equal('ERR_DTLS_CERTIFICATE', err.code)
    assert.equal('FINGERPRINT_MISMATCH', err.reason)
  end))

  it('needs both a verified chain and the fingerprint when ca and fingerprint are given', loop.run(function()
    local both = { ca = ca.cert, fingerprint = ca.fingerprint }
    assert.is_true((attempt({ cert = ca.cert, key = ca.key }, both)))
    assert.is_false((attempt({ cert = ca.cert, key = ca.key }, { ca = ca.cert, fingerprint = pair.identity.fingerprint })))
    assert.is_false((attempt(nil, { ca = ca.cert, fingerprint = pair.identity.fingerprint })))
  end))

  it('is no client without a certificate when the server has requestCert', loop.run(function()
    local ok, _, _, refused = attempt({ requestCert = true, ca = ca.cert, retransmitTimeout = 30 }, { retransmitTimeout = 30 })
    assert.is_false(ok)
    assert.equal('clientError', refused[1][1])
  end))

  it('need not show a certificate to a server with requestCert and rejectUnauthorized = false', loop.run(function()
    local server = pair.listening { requestCert = true, rejectUnauthorized = false, ca = ca.cert }
    local conn, accepted = pair.open(server)
    assert.same({ false, 'NO_PEER_CERTIFICATE' }, pair.verdict(accepted))
    pair.close(conn, server)
  end))
end)

describe('an option that OpenSSL or the system reads up to a zero byte', function()
  local function assertNamed(name, made, err)
    assert.is_nil(made, name)
    assert.equal('ERR_DTLS_CONFIG', err.code)
    assert.truthy(err.message:find(name, 1, true), ('%q is missing from: %s'):format(name, err.message))
  end

  -- Each option would be accepted if what follows its zero byte were left out.
  local texts = {
    passphrase = 'secret', ciphers = context.profile.ciphers, groups = 'X25519', sigalgs = context.profile.sigalgs,
    minVersion = 'DTLSv1.2', maxVersion = 'DTLSv1.2', keylog = '/dev/null', srtpProfiles = 'SRTP_AES128_CM_SHA1_80',
    options = 'NO_TICKET', modes = 'AUTO_RETRY',
  }
  for name, text in pairs(texts) do
    it(('is refused with a zero byte: %s'):format(name), function()
      for _, bad in ipairs { text .. '\0', text .. '\0more', '\0' .. text } do
        local given = { cert = identity.cert, key = identity.key, [name] = bad }
        for _, role in ipairs { 'server', 'client' } do assertNamed(name, dtls.createContext(role, given)) end
        assertNamed(name, dtls.createServer(given))
        given.host, given.port = '127.0.0.1', 9
        assertNamed(name, dtls.connect(given))
      end
    end)
  end

  it('is refused with a zero byte: pskIdentityHint', function()
    assertNamed('pskIdentityHint', dtls.createContext('server', { psk = { device = ('k'):rep(32) }, pskIdentityHint = 'hint\0more' }))
  end)

  for _, name in ipairs { 'host', 'localAddress', 'servername' } do
    it(('is refused with a zero byte: %s'):format(name), function()
      local given = { host = '127.0.0.1', port = 9, fingerprint = identity.fingerprint }
      given[name] = '127.0.0.1\0more'
      assertNamed(name, dtls.connect(given))
    end)
  end

  it('is refused with a zero byte by every setter, which changes nothing', function()
    local made = assert(dtls.createContext('server', { cert = identity.cert, key = identity.key }))
    local before = made:info()
    for method, bad in pairs {
      setCiphers = 'ECDHE-ECDSA-AES128-GCM-SHA256\0', setGroups = 'X25519\0', setSigalgs = 'ECDSA+SHA256\0',
      setOptions = 'NO_TICKET\0', clearOptions = 'NO_TICKET\0', setModes = 'AUTO_RETRY\0',
    } do
      assertNamed(method, made[method](made, bad))
    end
    assertNamed('setVerify', made:setVerify { mode = 'NONE\0' })
    assert.same(before, made:info())
  end)
end)
