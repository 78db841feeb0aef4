-- Programs that speak CoAP and STUN over DTLS: libcoap's, with OpenSSL and with GnuTLS, in both roles, and coturn's server.
-- `make peers` installs them.

local interop = require 'spec.support.interop'
local merged = require('spec.support.pair').merged
local pki = require 'spec.support.pki'
local process = require 'spec.support.process'
local raw = require 'spec.support.raw'
local shell = require 'spec.support.shell'

local IP = '127.0.0.1'
local IDENTITY, KEY = 'alice', 'a sixteen b. key'

local function installed(program)
  local _, status = shell('command -v ' .. program)
  return status == 0
end

local function two(number)
  return string.char(math.floor(number / 256), number % 256)
end

-- ── as much of CoAP (RFC 7252) as these tests need ──

-- The longest payload that every implementation takes (§4.6).
local LONGEST = 1024

local GET, POST, CONTENT, NOT_FOUND = '\1', '\2', '\69', '\132'

-- A confirmable request.
local function request(code, id, path, payload)
  local head = '\65' .. code .. two(id) .. 'T' .. string.char(0xb0 + #path) .. path
  return payload and head .. '\255' .. payload or head
end

-- The acknowledgement of a request that carries an answer.
local function answer(received, code, payload)
  local length = received:byte(1) % 16
  return string.char(96 + length) .. code .. received:sub(3, 4 + length) .. '\255' .. payload
end

-- ── certificates of both sides ──

local files, root, ours, theirs

-- Our credentials for either role.
local function credentials(kind, role)
  if kind == 'psk' then
    return { psk = role == 'server' and { [IDENTITY] = KEY } or { identity = IDENTITY, key = KEY } }
  end
  return { cert = ours.pem.cert, key = ours.pem.key, ca = root.pem.cert, requestCert = role == 'server' or nil }
end

setup(function()
  files = pki.new()
  root = files:certificate('root', { authority = true })
  ours = files:certificate('ours', { issuer = root, altNames = { 'localhost', IP } })
  theirs = files:certificate('theirs', { issuer = root, altNames = { 'localhost', IP } })
end)

teardown(function() files:remove() end)

for _, library in ipairs { 'openssl', 'gnutls' } do
  describe(('libcoap with %s'):format(library), function()
    local client, server = 'coap-client-' .. library, 'coap-server-' .. library
    if not (installed(client) and installed(server)) then return pending('needs `make peers`') end

    local function arguments(kind, role)
      if kind == 'psk' then return { '-k', KEY, role == 'client' and '-u' or '-h', IDENTITY } end
      return { '-c', theirs.cert, '-j', theirs.key, '-C', root.cert }
    end

    for _, kind in ipairs { 'certificate', 'psk' } do
      for _, demux in ipairs { 'connected', 'shared' } do
        it(('as a client gets the longest answer of CoAP from our server (%s, %s sockets)'):format(kind, demux), interop.run(function()
          local _, events, port = interop.server(IP, merged(credentials(kind, 'server'), { demux = demux }))
          local list = arguments(kind, 'client')
          list[#list + 1] = ('coaps://%s:%d/'):format(IP, port)
          local child = process.spawn(client, list)
          local conn, its = events:take 'connection'
          local asked = its:take 'message'
          assert.equal(GET, asked:sub(2, 2))
          local payload = ('y'):rep(LONGEST)
          assert(conn:send(answer(asked, CONTENT, payload)))
          child:expect('(' .. payload .. ')')
          assert.is_false(its:take 'close')
          assert.equal(0, its:count 'error')
          assert.equal(0, child:wait())
        end))
      end

      -- The server, and our client's association with it.
      local function connect()
        local port = raw.freePorts(IP)
        local list = arguments(kind, 'server')
        for _, each in ipairs { '-A', IP, '-p', tostring(port), '-v', '7' } do list[#list + 1] = each end
        local child = process.spawn(server, list)
        child:expect '(created DTLS endpoint)'
        local conn, its = interop.client(merged(credentials(kind, 'client'), { host = IP, port = port + 1 }))
        its:take 'connection'
        return child, conn, its
      end

      it(('as a server answers our client, also the longest request of CoAP (%s)'):format(kind), interop.run(function()
        local child, conn, its = connect()
        assert(conn:send(request(GET, 1, 'time')))
        local got = its:take 'message'
        assert.equal(CONTENT, got:sub(2, 2))
        assert.equal('T', got:sub(5, 5))
        assert(conn:send(request(POST, 2, 'nothing', ('x'):rep(LONGEST))))
        assert.equal(NOT_FOUND, its:take 'message':sub(2, 2))
        conn:close()
        assert.is_false(its:take 'close')
        child:expect '(session %S+ closed)'
      end))

      it(('as a server ends with close_notify, and our client closes (%s)'):format(kind), interop.run(function()
        local child, _, its = connect()
        child.handle:kill 'sigterm'
        assert.is_false(its:take 'close')
        assert.equal(0, its:count 'error')
      end))
    end
  end)
end

describe('coturn', function()
  if not installed 'turnserver' then return pending('needs `make peers`') end

  -- A Binding request (RFC 8489), filled up with an attribute that nobody has to know.
  local function binding(size)
    local filler = size and '\255\0' .. two(size - 24) .. ('\0'):rep(size - 24) or ''
    return '\0\1' .. two(#filler) .. '\33\18\164\66' .. 'transaction!' .. filler
  end

  it('as a server answers our client, also a request as long as a datagram (certificate)', interop.run(function()
    local port = raw.freePort(IP)
    local child = process.spawn('turnserver', {
      '-n', '-v', '-L', IP, '--listening-port', tostring(port), '--no-auth', '--no-cli', '--no-tcp', '--no-tls', '--no-tlsv1',
      '--cert', theirs.cert, '--pkey', theirs.key, '--CA-file', root.cert, '--log-file', 'stdout', '--pidfile', files:path 'pid',
      '--userdb', files:path 'users',
    })
    child:expect('(listener opened on: ' .. IP .. ':' .. port .. ')')
    child:expect '(DB connection success)'
    local conn, its = interop.client(merged(credentials('certificate', 'client'), { host = IP, port = port }))
    its:take 'connection'
    for _, size in ipairs { false, math.floor(conn:getDataMtu() / 4) * 4 } do
      assert(conn:send(binding(size or nil)))
      local got = its:take 'message'
      assert.equal('\1\1', got:sub(1, 2))
      assert.equal('transaction!', got:sub(9, 20))
    end
    conn:close()
    assert.is_false(its:take 'close')
    assert.equal(0, its:count 'error')
  end))
end)
