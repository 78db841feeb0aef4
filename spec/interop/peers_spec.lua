-- More implementations of DTLS, each in the roles that it has: `make peers` installs and builds them. OpenSSL's and GnuTLS'
-- programs have the other specs of this folder.

local uv = require 'luv'
local interop = require 'spec.support.interop'
local loop = require 'spec.support.loop'
local memory_store = require 'spec.support.memory_store'
local merged = require('spec.support.pair').merged
local pki = require 'spec.support.pki'
local process = require 'spec.support.process'
local raw = require 'spec.support.raw'

local IP = '127.0.0.1'
local PSK = { identity = 'alice', key = 'a sixteen b. key' }
-- node looks a module up by its whole path.
local PROGRAMS = (uv.fs_realpath(os.getenv 'DTLS_BUILD' or 'build') or '') .. '/peers/'
local SOURCES = 'spec/interop/peers/'

local GCM, CHACHA20 = 'ECDHE-ECDSA-AES128-GCM-SHA256', 'ECDHE-ECDSA-CHACHA20-POLY1305'
local ECDHE_PSK, PSK_GCM = 'ECDHE-PSK-CHACHA20-POLY1305', 'PSK-AES128-GCM-SHA256'

-- How each program is started, what it can do in its roles, and the cipher suite that our association with it has.
local peers = {
  -- The second hello of this client has another session id than its first when it has a ticket (against RFC 6347
  -- §4.2.1).
  { name = 'Mbed TLS', command = PROGRAMS .. 'mbedtls', needs = PROGRAMS .. 'mbedtls', empty = true, resumes = 'tickets',
    certificate = { client = GCM, server = CHACHA20 }, psk = { client = ECDHE_PSK, server = ECDHE_PSK } },
  { name = 'wolfSSL', command = PROGRAMS .. 'wolfssl', needs = PROGRAMS .. 'wolfssl', resumes = 'tickets',
    certificate = { client = GCM, server = 'ECDHE-ECDSA-AES256-GCM-SHA384' }, psk = { client = ECDHE_PSK, server = ECDHE_PSK } },
  { name = 'Pion', command = PROGRAMS .. 'pion', needs = PROGRAMS .. 'pion', empty = true, resumes = 'ids',
    certificate = { client = GCM, server = GCM }, psk = { client = PSK_GCM, server = PSK_GCM } },
  -- This peer's close() sends nothing, and this peer takes a protected alert for a plaintext one when the second byte of its
  -- explicit nonce, which is random, happens to be the number of an alert: it misses one close_notify in ten.
  { name = 'werift', command = 'node', before = { SOURCES .. 'werift.js', PROGRAMS .. 'node_modules' },
    needs = PROGRAMS .. 'node_modules/werift/package.json', unreliable = true, certificate = { client = GCM, server = GCM }, psk = {} },
  { name = 'node-dtls-client', command = 'node', before = { SOURCES .. 'node-dtls-client.mjs', PROGRAMS .. 'node_modules' },
    needs = PROGRAMS .. 'node_modules/node-dtls-client/package.json', certificate = {}, psk = { client = 'PSK-AES256-GCM-SHA384' } },
}

local function exists(path)
  local file = io.open(path)
  return file and file:close()
end

for _, peer in ipairs(peers) do
  describe('an association with ' .. peer.name, function()
    if not exists(peer.needs) then return pending('needs `make peers`') end

    local files, root, ours, theirs

    setup(function()
      files = pki.new()
      root = files:certificate('root', { authority = true })
      ours = files:certificate('ours', { issuer = root, altNames = { 'localhost' } })
      theirs = files:certificate('theirs', { issuer = root, altNames = { 'localhost' } })
    end)

    teardown(function() files:remove() end)

    local function start(role, port, kind)
      local arguments = { unpack(peer.before or {}) }
      local credentials = kind == 'psk' and { 'psk', PSK.identity, PSK.key } or { 'cert', theirs.cert, theirs.key, root.cert }
      for _, each in ipairs { role, IP, tostring(port) } do arguments[#arguments + 1] = each end
      for _, each in ipairs(credentials) do arguments[#arguments + 1] = each end
      local child = process.spawn(peer.command, arguments)
      if role == 'server' then child:expect '(listening)' end
      return child
    end

    -- Our options for either role: both sides show a certificate and verify that of the peer.
    local function credentials(kind, role)
      if kind == 'psk' then return { psk = role == 'server' and { [PSK.identity] = PSK.key } or PSK } end
      return { cert = ours.pem.cert, key = ours.pem.key, ca = root.pem.cert, requestCert = role == 'server' or nil }
    end

    -- Opens an association: returns the program, our connection, its events, and the events of our server.
    local function open(case, more)
      if case.role == 'client' then
        local options = merged(merged(credentials(case.kind, 'server'), { demux = case.demux }), more)
        local _, events, port = interop.server(IP, options)
        local child = start('client', port, case.kind)
        local conn, its = events:take 'connection'
        child:expect '(connected)'
        return child, conn, its, events
      end
      local port = raw.freePort(IP)
      local child = start('server', port, case.kind)
      local conn, its = interop.client(merged(credentials(case.kind, 'client'), {
        host = IP, port = port, servername = case.kind ~= 'psk' and 'localhost' or nil,
      }))
      its:take 'connection'
      child:expect '(connected)'
      return child, conn, its
    end

    local cases = {}
    for _, kind in ipairs { 'certificate', 'psk' } do
      for role, suite in pairs(peer[kind]) do
        for _, demux in ipairs(role == 'client' and { 'connected', 'shared' } or { false }) do
          cases[#cases + 1] = { kind = kind, role = role, suite = suite, demux = demux or nil,
            title = ('(peer as %s, %s%s)'):format(role, kind, demux and ', ' .. demux .. ' sockets' or '') }
        end
      end
    end

    for _, case in ipairs(cases) do
      it('carries messages both ways ' .. case.title, interop.run(function()
        local child, conn, its = open(case)
        assert.equal(case.suite, conn:getCipher().name)
        if case.kind == 'certificate' then
          assert.equal(files:der(theirs), conn:getPeerCertificate().raw)
        elseif case.role == 'client' then
          assert.equal(PSK.identity, conn.pskIdentity)
        end
        for i = 1, 3 do
          assert(conn:send('to the peer ' .. i))
          child:expect('(to the peer ' .. i .. ')')
          child:write('from the peer ' .. i .. '\n')
          assert.equal('from the peer ' .. i .. '\n', its:take 'message')
        end
      end))

      it('carries messages as long as a datagram both ways ' .. case.title, interop.run(function()
        local child, conn, its = open(case)
        local long = ('x'):rep(conn:getDataMtu() - 1)
        assert(conn:send(long .. 'y'))
        child:expect('(' .. long .. 'y\n)')
        child:write(long .. '\n')
        assert.equal(long .. '\n', its:take 'message')
      end))

      it('closes at both ends when we call close() ' .. case.title, interop.run(function()
        local child, conn, its = open(case)
        conn:close()
        assert.is_false(its:take 'close')
        if peer.unreliable then return end
        child:expect '(closed)'
        assert.equal(0, child:wait())
      end))

      if not peer.unreliable then
        it('closes at both ends when the peer closes ' .. case.title, interop.run(function()
          local child, _, its = open(case)
          child:finish()
          assert.is_false(its:take 'close')
          assert.equal(0, its:count 'error')
        end))
      end

      if peer.resumes and case.role == 'client' then
        it('resumes the client\'s session in its next association ' .. case.title, interop.run(function()
          local child, first, its, events = open(case, peer.resumes == 'ids' and { sessionStore = memory_store() } or nil)
          assert.is_false(first:isSessionReused())
          child:write 'again\n'
          assert.is_false(its:take 'close')
          local conn
          conn, its = events:take 'connection'
          assert.is_true(conn:isSessionReused())
          child:expect 'connected.-\n(connected)'
          child:write 'from the same one\n'
          assert.equal('from the same one\n', its:take 'message')
        end))
      end

      if peer.empty then
        it('goes on after a message without data ' .. case.title, interop.run(function()
          local child, conn, its = open(case)
          child:write 'empty\n'
          loop.till(function() return conn:stats().drops.empty end, 'the empty record')
          child:write 'and then one with\n'
          assert.equal('and then one with\n', its:take 'message')
        end))
      end
    end
  end)
end
