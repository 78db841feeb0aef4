-- Certificate chains of several kilobytes over links that take 600 bytes.

local interop = require 'spec.support.interop'
local peers = require 'spec.support.peers'
local pki = require 'spec.support.pki'
local raw = require 'spec.support.raw'

local NAME = 'server.example'
local LINK = 600
local OVERHEAD = { ['127.0.0.1'] = 20 + 8, ['::1'] = 40 + 8 }
-- The least size of the certificates in bytes, and their alternative names. GnuTLS loses fragments of longer flights.
local CHAIN = { openssl = 6000, gnutls = 2400 }
local NAMES = { openssl = 80, gnutls = 25 }

local function many(stem, count)
  local names = {}
  for i = 1, count do names[i] = ('%s-number-%d.of.many.example'):format(stem, i) end
  names[#names + 1] = NAME
  return names
end

describe('over a small link', function()
  local files, root
  local servers, clients = {}, {}

  setup(function()
    files = pki.new()
    root = files:certificate('root', { authority = true })
    for _, tool in ipairs(peers.names) do
      local between = files:certificate('between-' .. tool, { issuer = root, authority = true, altNames = many('between', NAMES[tool]) })
      local function identity(name)
        local leaf = files:certificate(name, { issuer = between, altNames = many('leaf', NAMES[tool]) })
        local text = leaf.pem.cert .. between.pem.cert
        return { cert = files:write(name .. '-chain.crt', text), key = leaf.key, pem = { cert = text, key = leaf.pem.key } }
      end
      servers[tool], clients[tool] = identity('server-' .. tool), identity('client-' .. tool)
    end
  end)

  teardown(function() files:remove() end)

  -- Asserts that both sides sent as many bytes as their certificates have, in datagrams that fit the link, and our
  -- data MTU.
  local function check(tool, relay, conn, ip, delivered)
    local limit = LINK - OVERHEAD[ip]
    for _, direction in ipairs { 'server', 'client' } do
      assert.is_true(#relay.passed[direction] > CHAIN[tool] / limit, direction)
      assert.is_true(relay:longest(direction) <= limit, direction)
    end
    local message = ('x'):rep(conn:getDataMtu())
    assert(conn:send(message))
    delivered(message)
    local longest = math.max(relay:longest 'server', relay:longest 'client')
    assert.is_true(longest <= limit, longest)
    local ok, err = conn:send(message .. 'x')
    assert.is_nil(ok)
    assert.equal('EMSGSIZE', err.code)
  end

  for _, tool in ipairs(peers.names) do
    -- OpenSSL's option counts the packet, GnuTLS's the payload.
    local function mtu(ip) return tool == 'openssl' and LINK or LINK - OVERHEAD[ip] end

    for _, ip in ipairs { '127.0.0.1', '::1' } do
      for _, demux in ipairs { 'connected', 'shared' } do
        it(('our server and a client of %s exchange long chains, on %s, %s sockets'):format(tool, ip, demux), interop.run(function()
          local server, client = servers[tool], clients[tool]
          local _, events, port = interop.server(ip, {
            cert = server.pem.cert, key = server.pem.key, ca = root.pem.cert, requestCert = true, demux = demux, linkMtu = LINK,
          })
          local relay = interop.proxy(ip, port)
          local peer = peers.client(tool, {
            ip = ip, port = relay.port, ca = root.cert, servername = NAME, mtu = mtu(ip), cert = client.cert, key = client.key,
          })
          local conn = events:take 'connection'
          assert.is_true(conn.authorized)
          peer:cipher()
          check(tool, relay, conn, ip, function(message) peer:receive(message) end)
        end))
      end

      it(('our client and a server of %s exchange long chains, on %s'):format(tool, ip), interop.run(function()
        local server, client = servers[tool], clients[tool]
        local port = raw.freePort(ip)
        local peer = peers.server(tool, {
          ip = ip, port = port, cert = server.cert, key = server.key, ca = root.cert, requireCert = true, mtu = mtu(ip),
        })
        local relay = interop.proxy(ip, port)
        local conn, its = interop.client {
          host = ip, port = relay.port, ca = root.pem.cert, servername = NAME, linkMtu = LINK,
          cert = client.pem.cert, key = client.pem.key,
        }
        its:take 'connection'
        assert.is_true(conn.authorized)
        check(tool, relay, conn, ip, function(message)
          if tool == 'openssl' then return peer:receive(message) end
          -- gnutls-serv reads fewer bytes at once, and sends back what it has read.
          local back = ''
          repeat back = back .. its:take 'message' until #back >= #message
          assert.equal(message, back)
        end)
      end))
    end
  end
end)
