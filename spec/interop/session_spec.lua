-- Session resumption, with programs of other implementations on either side.

local interop = require 'spec.support.interop'
local memory_store = require 'spec.support.memory_store'
local peers = require 'spec.support.peers'
local pki = require 'spec.support.pki'
local raw = require 'spec.support.raw'

local NAME, OTHER_NAME = 'server.example', 'other.example'

describe('resumption:', function()
  local files, root, server, client

  setup(function()
    files = pki.new()
    root = files:certificate('root', { authority = true })
    server = files:certificate('server', { issuer = root, altNames = { NAME, OTHER_NAME } })
    client = files:certificate('client', { issuer = root, altNames = { 'client.example' } })
  end)

  teardown(function() files:remove() end)

  local function listening(how, more, ip)
    local options = { cert = server.pem.cert, key = server.pem.key, sessionStore = how == 'a store' and memory_store() or nil }
    for name, value in pairs(more) do options[name] = value end
    local _, events, port = interop.server(ip or '127.0.0.1', options)
    return events, port
  end

  for _, how in ipairs { 'tickets', 'a store' } do
    for _, demux in ipairs { 'connected', 'shared' } do
      -- Opens and closes an association with a client of OpenSSL. Returns whether its session was resumed, on which
      -- both agree.
      local function visit(events, port, options)
        options.ip, options.port, options.ca = options.ip or '127.0.0.1', port, root.cert
        local peer = peers.client('openssl', options)
        local conn, its = events:take 'connection'
        local reused = peer.child:expect '\n(%u%l+), TLSv1%.2, Cipher is' == 'Reused'
        assert.equal(reused, conn:isSessionReused())
        peer:send 'still there?'
        assert.equal('still there?\n', its:take 'message')
        assert(conn:send 'it is\n')
        peer:receive 'it is'
        local authorized = conn.authorized
        peer.child:kill() -- s_client ends half a second after its input; it has saved the session before it prints `connected`
        return reused, authorized
      end

      for _, ip in ipairs { '127.0.0.1', '::1' } do
        local where = ('on %s, %s sockets'):format(ip, demux)
        it(('our server with %s resumes the session of a client of openssl, %s'):format(how, where), interop.run(function()
          local events, port = listening(how, { demux = demux }, ip)
          local kept = files:path 'session'
          assert.is_false((visit(events, port, { ip = ip, servername = NAME, saves = kept })))
          for _ = 1, 2 do assert.is_true((visit(events, port, { ip = ip, servername = NAME, resumes = kept }))) end
        end))
      end

      -- s_client offers the session whatever name it asks for.
      for what, names in pairs {
        ['another name'] = { NAME, OTHER_NAME }, ['a name, without one'] = { NAME, nil }, ['no name, under one'] = { nil, NAME },
      } do
        local first, second = names[1], names[2]
        local title = 'our server with %s does a full handshake for a client of openssl that has the session of %s, %s sockets'
        it(title:format(how, what, demux), interop.run(function()
          for _, sni in ipairs { false, { ['*'] = { cert = server.pem.cert, key = server.pem.key } } } do
            local events, port = listening(how, { demux = demux, sni = sni or nil })
            local kept = files:path 'session'
            assert.is_false((visit(events, port, { servername = first, saves = kept })))
            assert.is_false((visit(events, port, { servername = second, resumes = kept })))
            assert.is_true((visit(events, port, { servername = first, resumes = kept })))
          end
        end))
      end

      it(('our server with %s resumes a client of openssl as authorized, %s sockets'):format(how, demux), interop.run(function()
        local events, port = listening(how, { demux = demux, requestCert = true, ca = root.pem.cert })
        local kept = files:path 'session'
        local me = { servername = NAME, cert = client.cert, key = client.key, saves = kept }
        assert.same({ false, true }, { visit(events, port, me) })
        me.saves, me.resumes = nil, kept
        assert.same({ true, true }, { visit(events, port, me) })
      end))

      it(('our server with %s resumes the session of a client of gnutls, %s sockets'):format(how, demux), interop.run(function()
        local events, port = listening(how, { demux = demux })
        local peer = peers.client('gnutls', { ip = '127.0.0.1', port = port, ca = root.cert, servername = NAME, again = true })
        assert.is_false(events:take 'connection':isSessionReused())
        local conn, its = events:take 'connection'
        assert.is_true(conn:isSessionReused())
        assert.equal(NAME, conn.servername)
        assert(conn:send 'welcome back\n')
        peer:receive 'welcome back'
        peer:send 'thank you'
        assert.equal('thank you\n', its:take 'message')
      end))
    end
  end

  it('our server without a session store gives no session ID to a client of openssl that takes no tickets', interop.run(function()
    local events, port = listening('tickets', {})
    local peer = peers.client('openssl', { ip = '127.0.0.1', port = port, servername = NAME, ca = root.cert, noTickets = true })
    events:take 'connection'
    assert.equal('', (peer.child:expect 'Session%-ID: (%x*)\n'))
  end))

  for _, tool in ipairs(peers.names) do
    for _, noTickets in ipairs { false, true } do
      local from = ('a server of %s %s tickets'):format(tool, noTickets and 'without' or 'with')

      -- Opens and closes our client's association. Returns whether its session was resumed, and the session that
      -- resumes this one.
      local function visit(ip, port, peer, name, session)
        local conn, its = interop.client {
          host = ip, port = port, ca = root.pem.cert, servername = name, session = session, retransmitTimeout = 100,
        }
        its:take 'connection'
        local reused, blob = conn:isSessionReused(), conn:getSession()
        assert.is_true(conn.authorized)
        assert(conn:send 'still there?\n')
        peer:receive 'still there?'
        if tool == 'gnutls' then assert.equal('still there?\n', its:take 'message') end
        conn:close()
        its:take 'close'
        return reused, blob
      end

      local function start(ip)
        local port = raw.freePort(ip)
        return port, peers.server(tool, { ip = ip, port = port, cert = server.cert, key = server.key, noTickets = noTickets or nil })
      end

      for _, ip in ipairs { '127.0.0.1', '::1' } do
        it(('our client resumes the session of %s, on %s'):format(from, ip), interop.run(function()
          local port, peer = start(ip)
          local reused, blob = visit(ip, port, peer, NAME)
          assert.is_false(reused)
          for _ = 1, 2 do assert.is_true((visit(ip, port, peer, NAME, blob))) end
        end))
      end

      it(('our client offers %s no session of another name'):format(from), interop.run(function()
        local port, peer = start '127.0.0.1'
        local _, blob = visit('127.0.0.1', port, peer, NAME)
        assert.is_false((visit('127.0.0.1', port, peer, OTHER_NAME, blob)))
        assert.is_true((visit('127.0.0.1', port, peer, NAME, blob)))
      end))

      it(('our client does a full handshake when %s has forgotten the session'):format(from), interop.run(function()
        local port, peer = start '127.0.0.1'
        local _, blob = visit('127.0.0.1', port, peer, NAME)
        peer.child:kill()
        port, peer = start '127.0.0.1'
        assert.is_false((visit('127.0.0.1', port, peer, NAME, blob)))
      end))
    end
  end
end)
