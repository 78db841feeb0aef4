local dtls = require 'dtls'
local loop = require 'spec.support.loop'
local pair = require 'spec.support.pair'

local function openssl(pem, arguments)
  local path = os.tmpname()
  local file = assert(io.open(path, 'w'))
  file:write(pem)
  file:close()
  local pipe = assert(io.popen(('openssl %s -in %s 2>&1'):format(arguments, path)))
  local text = pipe:read '*a'
  pipe:close()
  os.remove(path)
  return text
end

describe('the module', function()
  it('has its version and the version of its OpenSSL', function()
    assert.truthy(dtls.VERSION:find '^%d+%.%d+%.%d+$')
    assert.truthy(dtls.OPENSSL.text:find '^OpenSSL %d+%.%d+')
    assert.is_true(dtls.OPENSSL.number >= 0x30000000)
    local known = { shared = true, static = true, host = true }
    assert.is_true(known[dtls.OPENSSL.linkage])
  end)

  it('has its public functions and DEFAULT_CIPHERS', function()
    for _, name in ipairs { 'createServer', 'connect', 'createContext', 'selfSigned', 'fd' } do
      assert.is_function(dtls[name], name)
    end
    assert.equal(require 'dtls.core'.fd, dtls.fd)
    assert.equal('string', type(dtls.DEFAULT_CIPHERS))
  end)

  it('defines no globals', function()
    local child = require 'spec.support.child'
    local stdout, stderr = child.run [[
      require 'luv'
      local before = {}
      for name in pairs(_G) do before[name] = true end
      require 'dtls'
      for name in pairs(_G) do if not before[name] then print(name) end end]]
    assert.equal('', stderr)
    assert.equal('', stdout)
  end)
end)

describe('a self-signed certificate', function()
  for kind, words in pairs {
    ec = { 'id%-ecPublicKey', 'prime256v1', 'ecdsa%-with%-SHA256' },
    rsa = { 'rsaEncryption', '2048 bit', 'sha256WithRSAEncryption' },
    ed25519 = { 'ED25519' },
  } do
    it('of type ' .. kind .. ' has a public key and a signature of that type, and comes with its private key', function()
      local made = assert(dtls.selfSigned { type = kind })
      local text = openssl(made.cert, 'x509 -noout -text')
      for _, word in ipairs(words) do assert.truthy(text:find(word), word .. ' is missing from: ' .. text) end
      assert.equal(openssl(made.cert, 'x509 -noout -pubkey'), openssl(made.key, 'pkey -pubout'))
      assert.truthy(made.key:find('^%-%-%-%-%-BEGIN PRIVATE KEY%-%-%-%-%-'))
    end)
  end

  it('is of type ec, for localhost and a year, by default', function()
    local made = assert(dtls.selfSigned())
    local text = openssl(made.cert, 'x509 -noout -text')
    assert.truthy(text:find('prime256v1', 1, true))
    assert.truthy(text:find 'Subject: *CN *= *localhost')
    assert.truthy(text:find('DNS:localhost', 1, true))
    assert.truthy(text:find('Version: 3', 1, true))
    assert.truthy(text:find('CA:FALSE', 1, true))
    assert.equal('Certificate will not expire\n', openssl(made.cert, 'x509 -noout -checkend ' .. 364 * 86400))
    assert.equal('Certificate will expire\n', openssl(made.cert, 'x509 -noout -checkend ' .. 366 * 86400))
  end)

  it('bears the names and addresses of altNames', function()
    local made = assert(dtls.selfSigned {
      commonName = 'device 7', altNames = { 'device.example', '192.0.2.7', '2001:db8::7' }, days = 2,
    })
    local text = openssl(made.cert, 'x509 -noout -text')
    assert.truthy(text:find 'Subject: *CN *= *device 7')
    assert.truthy(text:find('DNS:device.example, IP Address:192.0.2.7, IP Address:2001:DB8:0:0:0:0:0:7', 1, true), text)
    assert.equal('Certificate will expire\n', openssl(made.cert, 'x509 -noout -checkend ' .. 3 * 86400))
    text = openssl(assert(dtls.selfSigned { commonName = 'alone.example' }).cert, 'x509 -noout -text')
    assert.truthy(text:find('DNS:alone.example', 1, true))
    text = openssl(assert(dtls.selfSigned { altNames = {} }).cert, 'x509 -noout -text')
    assert.is_nil(text:find('DNS:', 1, true))
  end)

  it('takes altNames literally, without OpenSSL\'s configuration syntax', function()
    local name = 'DNS:other.example,email:x'
    local text = openssl(assert(dtls.selfSigned { altNames = { name } }).cert, 'x509 -noout -ext subjectAltName')
    assert.truthy(text:find 'DNS:"?DNS:other.example,email:x', text)
  end)

  it('comes with its SHA-256 fingerprint', function()
    local made = assert(dtls.selfSigned())
    assert.equal(95, #made.fingerprint)
    assert.truthy(openssl(made.cert, 'x509 -noout -fingerprint -sha256'):find(made.fingerprint, 1, true))
  end)

  it('is new at each call, with a key of its own', function()
    local one, other = assert(dtls.selfSigned()), assert(dtls.selfSigned())
    assert.not_equal(one.fingerprint, other.fingerprint)
    assert.not_equal(one.key, other.key)
    assert.not_equal(openssl(one.cert, 'x509 -noout -serial'), openssl(other.cert, 'x509 -noout -serial'))
  end)

  it('raises for an option that does not exist or is of the wrong type, by name', function()
    for name, value in pairs { bits = 4096, type = 7, commonName = {}, altNames = 'x', days = '7' } do
      local ok, err = pcall(function() dtls.selfSigned { [name] = value } end)
      assert.is_false(ok)
      assert.truthy(err:find("'" .. name .. "'", 1, true), err)
      assert.truthy(err:find('init_spec.lua', 1, true), err)
    end
    for _, options in ipairs { { type = 'dsa' }, { days = 0 }, { days = 1.5 }, { days = 1e9 } } do
      assert.is_false((pcall(dtls.selfSigned, options)))
    end
  end)

  it('gives nil and an error for altNames that cannot be in a certificate', function()
    for _, options in ipairs {
      { commonName = '' }, { commonName = ('x'):rep(65) },
      { altNames = { {} } }, { altNames = { '' } }, { altNames = { '\0' } }, { altNames = { 'a', '\0b' } },
    } do
      local made, err = dtls.selfSigned(options)
      assert.is_nil(made)
      assert.equal('ERR_DTLS_CONFIG', err.code)
    end
  end)

  for _, kind in ipairs { 'ec', 'rsa', 'ed25519' } do
    it(('of type %s serves as a server\'s certificate and as the CA of the server\'s clients'):format(kind), loop.run(function()
      local made = assert(dtls.selfSigned { type = kind, altNames = { '127.0.0.1' } })
      local server = pair.echo(pair.listening { cert = made.cert, key = made.key })
      local conn = pair.open(server, nil, { ca = made.cert })
      assert.is_true(conn.authorized)
      assert.is_true(pair.roundTrip(conn, kind))
      pair.close(conn, server)
    end))
  end
end)
