local uv = require 'luv'
local dtls = require 'dtls'
local core = require 'dtls.core'
local child = require 'spec.support.child'
local hello = require 'spec.support.hello'
local loop = require 'spec.support.loop'
local pair = require 'spec.support.pair'
local proxy = require 'spec.support.proxy'
local raw = require 'spec.support.raw'
local needs = require('spec.support.platform').needs

local function count(server)
  local found = 0
  for _ in server:connections() do found = found + 1 end
  return found
end

-- The error with which a connection ends, or nil when it opens.
local function outcome(conn)
  local heard = pair.record(conn, 'connection', 'error')
  loop.till(function() return heard[1] end, 'an outcome')
  return heard[1][1] == 'error' and heard[1][2] or nil
end

describe('what a server is made of', function()
  it('is refused by the option\'s name when there is no such option', function()
    for name, value in pairs { host = '127.0.0.1', demultiplex = 'shared', localPort = 7, servername = 'x' } do
      local ok, err = pcall(dtls.createServer, { cert = pair.identity.cert, key = pair.identity.key, [name] = value })
      assert.is_false(ok)
      assert.truthy(err:find("'" .. name .. "'", 1, true), err)
    end
  end)

  it('is refused by the option\'s name when a value is of the wrong type', function()
    local wrong = {
      cookieSecret = 7, demux = true, maxConnections = '7', maxConnectionsPerHost = false, maxHandshakes = {},
      reusePort = 1, ipv6Only = 'yes', recvBufferSize = {}, sendBufferSize = '1', udpTTL = '9',
    }
    for name, value in pairs(wrong) do
      local ok, err = pcall(dtls.createServer, { cert = pair.identity.cert, key = pair.identity.key, [name] = value })
      assert.is_false(ok)
      assert.truthy(err:find("'" .. name .. "'", 1, true), err)
    end
    assert.is_false((pcall(dtls.createServer)))
    assert.is_false((pcall(dtls.createServer, 'options')))
  end)

  it('may be closed without ever having listened', loop.run(function()
    local server = pair.server()
    local heard = pair.record(server, 'close')
    loop.call(function(done) server:close(done) end)
    assert.equal(1, #heard)
    local ok, err = server:listen(0)
    assert.is_nil(ok)
    assert.equal('ERR_DTLS_STATE', err.code)
  end))
end)

pair.each(function(demux, ip)
  describe('a listening server', function()
    it('emits listening on the next tick, and calls the callback', loop.run(function()
      local server = pair.server { demux = demux }
      local heard = pair.record(server, 'listening')
      local called = 0
      assert.equal(server, server:listen(0, ip, function() called = called + 1 end))
      assert.equal(0, #heard)
      heard.wait 'listening'
      assert.equal(1, called)
      local address = server:address()
      assert.equal(ip, address.ip)
      assert.is_true(address.port > 0)
      pair.close(server)
      assert.equal(address.port, server:address().port)
    end))

    it('cannot listen twice, nor once it is closed', loop.run(function()
      local server = pair.listening({ demux = demux }, ip)
      local ok, err = server:listen(0, ip)
      assert.is_nil(ok)
      assert.equal('ERR_DTLS_STATE', err.code)
      assert.is_string(err.message)
      pair.close(server)
      ok, err = server:listen(0, ip)
      assert.is_nil(ok)
      assert.equal('ERR_DTLS_STATE', err.code)
    end))

    it('cannot take a port that another server has', loop.run(function()
      local first, second = pair.listening({ demux = demux }, ip), pair.server { demux = demux }
      local ok, err = second:listen(first.port, ip)
      assert.is_nil(ok)
      assert.equal('EADDRINUSE', err.code)
      assert.truthy(err.message:find(tostring(first.port), 1, true), err.message)
      assert.is_nil(err.message:find('\n', 1, true))
      -- Nothing half done: it can still listen elsewhere.
      assert(second:listen(0, ip))
      pair.close(first, second)
    end))

    it('that cannot listen lets a program end by that error', function()
      local _, errors, status = child.run(([[
        local taken = require 'luv'.new_udp()
        assert(taken:bind('%s', 0))
        assert(require 'dtls'.createServer { psk = { me = 'secret' }, demux = '%s' }:listen(taken:getsockname().port, '%s'))
      ]]):format(ip, demux, ip), nil, child.leaky)
      assert.equal(1, status)
      assert.truthy(errors:find '^luajit: EADDRINUSE: cannot bind ')
    end)

    -- SO_REUSEADDR on both would be enough, whoever the other one is.
    it('gives its port to nobody who reuses addresses, with and without a peer', loop.run(function()
      local server = pair.echo(pair.listening({ demux = demux }, ip))
      local function refused()
        local thief = uv.new_udp()
        assert.equal('EADDRINUSE', select(3, thief:bind(ip, server.port, { reuseaddr = true })))
        pair.close(thief)
      end
      refused()
      local conn = pair.open(server)
      refused()
      pair.close(conn, server)
    end))

    it('shares its port with reusePort on both', needs('reuseport', loop.run(function()
      local first = pair.listening({ demux = demux, reusePort = true }, ip)
      local second = pair.server { demux = demux, reusePort = true }
      assert(second:listen(first.port, ip))
      pair.close(first, second)
    end)))

    it('on a socket of the caller\'s stops its reading, and gives it back open', loop.run(function()
      for _, wrap in ipairs { function(udp) return udp end, function(udp) return { _handle = udp } end } do
        local udp, got = uv.new_udp(), {}
        assert(udp:bind(ip, 0))
        local function read() udp:recv_start(function(_, data, from) if from then got[#got + 1] = data end end) end
        read()
        local server = pair.echo(pair.server { demux = demux })
        local listened
        assert.equal(server, server:listen(wrap(udp), function() listened = true end))
        server.ip, server.port = ip, udp:getsockname().port
        local conn = pair.open(server)
        assert.is_true(listened)
        assert.is_true(pair.roundTrip(conn, 'on a given socket'))
        assert.same({}, got)
        pair.close(conn, server)
        assert.is_false(udp:is_closing())
        read()
        local client = raw.open(ip)
        client:send('plain', server)
        loop.till(function() return got[1] end)
        assert.same({ 'plain' }, got)
        pair.close(client)
        udp:close()
      end
    end))

    it('cannot use a socket that is not bound, connected, or closed', loop.run(function()
      local server = pair.server { demux = demux }
      local function refused(code, handle)
        local ok, err = server:listen(handle)
        assert.is_nil(ok)
        assert.equal(code, err.code)
      end
      local udp = uv.new_udp()
      refused('EBADF', udp)
      udp:close()
      refused('EBADF', udp)
      refused('EBADF', { recvStart = print })
      local connected = uv.new_udp()
      connected:connect(ip, 9)
      refused('EISCONN', connected)
      connected:close()
      local unbound = uv.new_udp(ip == '::1' and 'inet6' or 'inet')
      refused('EINVAL', unbound)
      unbound:close()
      assert(server:listen(0, ip))
      pair.close(server)
    end))

    it('has one poll for the sockets of all its peers', needs('epoll', loop.run(function()
      local function polls()
        local found = 0
        uv.walk(function(any) found = found + (tostring(any):find '^uv_poll_t' and 1 or 0) end)
        return found
      end
      local server = pair.listening({ demux = demux }, ip)
      local conns = {}
      for i = 1, 3 do conns[i] = pair.open(server) end
      local peers = demux == 'connected' and 1 or 0
      assert.equal(1 + peers + #conns, polls())
      pair.close(unpack(conns))
      assert.equal(1 + peers, polls())
      pair.close(server)
      assert.equal(0, polls())
    end)))

    it('serves many clients at once', loop.run(function()
      local server = pair.echo(pair.listening({ demux = demux }, ip))
      local clients = {}
      for i = 1, 20 do clients[i] = pair.client(server) end
      local opened = 0
      for i, conn in ipairs(clients) do
        conn:on('connection', function()
          opened = opened + 1
          conn:send('from ' .. i)
        end)
        conn:on('message', function(data)
          assert.equal('from ' .. i, data)
          conn.done = true
        end)
      end
      loop.till(function()
        for _, conn in ipairs(clients) do
          if not conn.done then return false end
        end
        return true
      end, 'twenty echoes')
      assert.equal(20, opened)
      assert.equal(20, count(server))
      local stats = server:stats()
      assert.same({ 20, 20, 20, 0 }, { stats.accepted, stats.connections, stats.active, stats.handshaking })
      pair.close(server)
      assert.equal(0, server:stats().active)
      assert.equal(0, count(server))
      for _, conn in ipairs(clients) do pair.close(conn) end
    end))

    it('that closes takes leave of everybody, and closes last', loop.run(function()
      local server = pair.listening({ demux = demux }, ip)
      local order, clients = {}, {}
      for i = 1, 3 do
        local conn, accepted = pair.open(server)
        clients[i] = conn
        accepted:on('close', function(failed) order[#order + 1] = failed and 'failed' or 'peer' end)
      end
      server:on('close', function() order[#order + 1] = 'server' end)
      local ends = {}
      for i, conn in ipairs(clients) do ends[i] = pair.record(conn, 'error', 'close') end
      local called = 0
      server:close(function() called = called + 1 end)
      server:close(function() called = called + 1 end)
      server:destroy()
      for _, each in ipairs(ends) do
        each.wait 'close'
        assert.equal('close', each.names())
        assert.is_false(each[1][2])
      end
      loop.till(function() return #order == 4 end)
      assert.same({ 'peer', 'peer', 'peer', 'server' }, order)
      assert.equal(2, called)
      loop.call(function(done) server:close(done) end)
    end))

    it('that is destroyed says nothing to its clients', loop.run(function()
      local server = pair.listening({ demux = demux }, ip)
      local between = proxy.new(server)
      local conn = pair.open(server, between)
      local heard = pair.record(conn, 'error', 'close')
      local said = #between.recorded.client
      server:destroy()
      loop.event(server, 'close')
      local witness = pair.echo(pair.listening({ demux = demux }, ip))
      local other = pair.open(witness)
      pair.roundTrip(other, 'a fence')
      assert.equal(said, #between.recorded.client)
      assert.equal('', heard.names())
      pair.close(conn, other, witness, between)
    end))

    it('answers no ClientHello once it closes', loop.run(function()
      local server = pair.listening({ demux = demux }, ip)
      local conn = pair.open(server)
      local heard = pair.record(server, 'accept')
      server:close()
      local late = pair.client(server, { retransmitTimeout = 20, handshakeTimeout = 200 * loop.patience })
      local err = outcome(late)
      assert.is_true(err.code == 'ECONNREFUSED' or err.code == 'ERR_DTLS_HANDSHAKE_TIMEOUT', tostring(err))
      assert.equal(0, #heard)
      pair.close(conn, late)
    end))

    it('lists the connections that are handshaking or open', loop.run(function()
      local server = pair.listening({ demux = demux }, ip)
      local client = raw.open(ip)
      local conn, accepted = pair.open(server)
      hello.halfOpen(client, server)
      local seen = {}
      for each in server:connections() do seen[#seen + 1] = each end
      assert.equal(2, #seen)
      assert.is_true(seen[1] == accepted or seen[2] == accepted)
      for each in server:connections() do each:destroy() end
      assert.equal(0, count(server))
      assert.equal(0, server:stats().active)
      pair.close(conn, server, client)
    end))

    it('refuses a peer that is destroyed in accept', loop.run(function()
      local server = pair.listening({ demux = demux }, ip)
      local closes = 0
      server:on('accept', function(conn)
        conn:on('close', function() closes = closes + 1 end)
        conn:destroy()
      end)
      local opened = pair.record(server, 'connection', 'clientError')
      local conn = pair.client(server, { handshakeTimeout = 150 * loop.patience, retransmitTimeout = 40 })
      assert.equal('ERR_DTLS_HANDSHAKE_TIMEOUT', outcome(conn).code)
      assert.equal('', opened.names())
      assert.is_true(closes > 0)
      assert.equal(closes, server:stats().accepted)
      assert.equal(0, server:stats().active)
      pair.close(server)
    end))
  end)

  describe('third parties', function()
    local function noise()
      local function record(kind, epoch, body, version)
        return kind .. (version or '\254\253') .. hello.number(epoch, 2) .. hello.number(77, 6) .. hello.vector(2, body)
      end
      local list = {
        '', 'x', ('\0'):rep(12), ('\23'):rep(13), ('\255'):rep(1400), record('\23', 0, 'plain'), record('\21', 0, '\2\40'),
        record('\21', 0, '\1\0'), record('\23', 1, ('x'):rep(60)), record('\23', 1, 'x'), record('\23', 1, ('x'):rep(23)),
        record('\22', 1, ('x'):rep(60)), record('\20', 0, '\1'), record('\23', 2, ('x'):rep(60)), record('\23', 65535, ('x'):rep(60)),
        record('\99', 0, 'x'), record('\24', 0, 'heartbeat'), record('\23', 1, ('x'):rep(60), '\3\3'), hello.build():sub(1, 60),
        record('\22', 0, 'x'), record('\22', 0, ('\0'):rep(24)), record('\23', 1, ''), '',
      }
      for _ = 1, 10 do list[#list + 1] = '' end
      return list
    end

    it('that send junk to the server and to its client disturb and redirect nothing', loop.run(function()
      local server = pair.echo(pair.listening({ demux = demux }, ip))
      local conn, accepted = pair.open(server)
      local third = raw.open(ip)
      local heard, its = pair.record(conn, 'error', 'close', 'message'), pair.record(accepted, 'error', 'close', 'message')
      for i, data in ipairs(noise()) do
        third:send(data, server)
        third:send(data, conn:localAddress())
        if i % 5 == 0 then
          assert(conn:send('up ' .. i))
          assert(accepted:send('down ' .. i))
        end
      end
      assert.is_true(pair.roundTrip(conn, 'at the end'))
      assert.same({}, third.inbox)
      assert.is_nil(heard.find 'error' or heard.find 'close' or its.find 'error' or its.find 'close')
      local last = #noise() - #noise() % 5
      assert.equal(last / 5 + 1, #its)
      assert.equal(2 * last / 5 + 1, #heard)
      assert.equal(conn:localAddress().port, accepted:remoteAddress().port)
      assert.equal(1, server:stats().accepted)
      pair.close(conn, server, third)
    end))

    it('that send junk while a handshake runs do not disturb it', loop.run(function()
      local server = pair.echo(pair.listening({ demux = demux }, ip))
      local third = raw.open(ip)
      local between = proxy.new(server, { filter = function(_, _, data)
        for _, each in ipairs(noise()) do third:send(each, server) end
        return data
      end })
      local conn = pair.open(server, between)
      assert.is_true(pair.roundTrip(conn, 'undisturbed'))
      assert.equal(1, server:stats().accepted)
      assert.same({}, third.inbox)
      pair.close(conn, server, between, third)
    end))

    it('that forge the peer\'s address in what they send disturb nothing either', loop.run(function()
      local server = pair.echo(pair.listening({ demux = demux }, ip))
      local between = proxy.new(server)
      local conn, accepted = pair.open(server, between)
      local heard, its = pair.record(conn, 'error', 'close'), pair.record(accepted, 'error', 'close')
      for _, data in ipairs(noise()) do
        between:inject('server', data)
        between:inject('client', data)
      end
      assert.is_true(pair.roundTrip(conn, 'still there'))
      assert.equal('', heard.names() .. its.names())
      assert.equal(1, accepted:stats().messagesIn)
      assert.equal(1, conn:stats().messagesIn)
      -- Each for its reason, on both sides.
      for _, stats in ipairs { conn:stats(), accepted:stats() } do
        for _, reason in ipairs { 'empty', 'short', 'type', 'version', 'undersized', 'unprotected', 'alert', 'epoch', 'length' } do
          assert.is_true((stats.drops[reason] or 0) > 0, reason)
        end
      end
      assert.is_true(server:stats().drops.empty >= 12)
      pair.close(conn, server, between)
    end))

    it('that repeat what the peer sent disturb nothing, and nothing is delivered twice', loop.run(function()
      local server = pair.listening({ demux = demux }, ip)
      local between = proxy.new(server)
      local conn, accepted = pair.open(server, between)
      local heard, its = pair.record(conn, 'message', 'error', 'close'), pair.record(accepted, 'message', 'error', 'close')
      conn:send 'up'
      its.wait 'message'
      accepted:send 'down'
      heard.wait 'message'
      for direction, list in pairs(between.recorded) do
        for i = 1, #list do between:inject(direction, list[i]) end
      end
      conn:send 'up again'
      loop.till(function() return #its > 1 end)
      accepted:send 'down again'
      loop.till(function() return #heard > 1 end)
      assert.same({ { 'message', 'up' }, { 'message', 'up again' } }, { its[1], its[2] })
      assert.same({ { 'message', 'down' }, { 'message', 'down again' } }, { heard[1], heard[2] })
      assert.equal(2, #its)
      assert.equal(2, #heard)
      local stats = server:stats()
      -- The first hello begins a cookie exchange, as a device would that reboots; the second one is known.
      assert.equal(1, stats.drops.replay)
      assert.equal(1, stats.accepted)
      assert.equal(0, stats.replaced)
      pair.close(conn, server, between)
    end))
  end)

  describe('a handshake that its peer abandons', function()
    it('is over after handshakeTimeout, and nothing is left of it', loop.run(function()
      local server = pair.listening({ demux = demux, handshakeTimeout = 120 * loop.patience, retransmitTimeout = 50 }, ip)
      local heard = pair.record(server, 'accept', 'clientError', 'connection')
      local client = raw.open(ip)
      hello.halfOpen(client, server)
      assert.equal(1, server:stats().handshaking)
      local closes = pair.record(heard[1][2], 'error', 'close')
      closes.wait 'close'
      assert.equal('accept clientError', heard.names())
      local err, conn = heard[2][2], heard[2][3]
      assert.equal('ERR_DTLS_HANDSHAKE_TIMEOUT', err.code)
      assert.equal(heard[1][2], conn)
      assert.equal('error close', closes.names())
      assert.equal(err, closes[1][2])
      assert.is_true(closes[2][2])
      local stats = server:stats()
      assert.same({ 1, 0, 0, 0, 1 }, { stats.handshakesTimedOut, stats.handshakesFailed, stats.active, stats.handshaking, stats.accepted })
      assert.equal(0, count(server))
      assert.is_true(stats.retransmits > 0)
      assert.equal(0, stats.unhandledErrors)
      pair.close(server, client)
    end))

    it('is counted as unhandled when nobody listens', loop.run(function()
      local server = pair.listening({ demux = demux, handshakeTimeout = 40 }, ip)
      local client = raw.open(ip)
      hello.halfOpen(client, server)
      loop.till(function() return server:stats().handshakesTimedOut == 1 end)
      assert.equal(1, server:stats().unhandledErrors)
      pair.close(server, client)
    end))
  end)

  describe('a peer that comes back at once from the same port', function()
    -- How an association may end while the next hello of its peer is in the socket already.
    local ends = {
      ['its close_notify'] = function(conn, _, between)
        between.filter = function(direction, _, data) return direction == 'server' and { data, hello.build() } or data end
        conn:close()
      end,
      ['the application, with close_notify'] = function(_, accepted, between)
        between:inject('server', hello.build())
        accepted:close()
      end,
      ['the application, without a word'] = function(_, accepted, between)
        between:inject('server', hello.build())
        accepted:destroy()
      end,
    }
    for name, finish in pairs(ends) do
      it(('is answered when its association is ended by %s'):format(name), loop.run(function()
        local server = pair.listening({ demux = demux }, ip)
        local between = proxy.new(server)
        local conn, accepted = pair.open(server, between)
        local before = #between.recorded.client
        finish(conn, accepted, between)
        loop.till(function()
          for i = before + 1, #between.recorded.client do
            if hello.verifyRequest(between.recorded.client[i]) then return true end
          end
        end, 'a HelloVerifyRequest')
        assert.equal(0, server:stats().active)
        pair.close(conn, server, between)
      end))
    end

    it('is answered when its handshake has been evicted', loop.run(function()
      local server = pair.listening({ demux = demux, maxHandshakes = 1 }, ip)
      local first, second = raw.open(ip), raw.open(ip)
      hello.halfOpen(first, server)
      local cookie, before = hello.cookie(second, server), #first.inbox
      second:send(hello.build { cookie = cookie, sequence = 1, messageSequence = 1 }, server)
      first:send(hello.build { random = ('q'):rep(32) }, server)
      loop.till(function() return #first.inbox > before end, 'an answer')
      assert.truthy(hello.verifyRequest(first.inbox[before + 1]))
      pair.close(server, first, second)
    end))
  end)

  describe('a peer that starts over (RFC 6347 §4.2.8)', function()
    it('gets a new association; the old one stays until the new one is complete', loop.run(function()
      local server = pair.echo(pair.listening({ demux = demux }, ip))
      local conn, old = pair.open(server)
      local address = conn:localAddress()
      local order = {}
      old:on('error', function(err) order[#order + 1] = 'old ' .. err.code end)
      old:on('close', function(failed) order[#order + 1] = 'old close ' .. tostring(failed) end)
      conn:destroy()
      loop.event(conn, 'close')
      server:on('accept', function(new)
        order[#order + 1] = 'accept ' .. tostring(old:send 'still here')
        new:on('connection', function() order[#order + 1] = 'new' end)
        new:on('close', function() order[#order + 1] = 'new close' end)
      end)
      local again, new = pair.open(server, nil, { localPort = address.port })
      assert.equal(address.port, again:localAddress().port)
      assert.not_equal(old, new)
      assert.is_true(pair.roundTrip(again, 'back again'))
      loop.till(function() return #order >= 4 end)
      assert.same({ 'accept true', 'old ERR_DTLS_REPLACED', 'new', 'old close true' }, order)
      local stats = server:stats()
      assert.same({ 2, 2, 1, 1 }, { stats.accepted, stats.connections, stats.replaced, stats.active })
      pair.close(again, server)
    end))

    it('may start over with every record in a datagram of its own, which says nothing about whose it is', loop.run(function()
      local server = pair.echo(pair.listening({ demux = demux }, ip))
      local between = proxy.new(server, { filter = function(_, _, data)
        local list = {}
        for i, record in ipairs(hello.records(data)) do list[i] = record.whole end
        return list
      end })
      local conn, old = pair.open(server, between)
      local address = conn:localAddress()
      local fate = pair.record(old, 'error', 'close')
      conn:destroy()
      loop.event(conn, 'close')
      local again, new = pair.open(server, between, { localPort = address.port })
      assert.is_true(pair.roundTrip(again, 'back again'))
      assert.equal('error', fate.wait 'error'[1])
      assert.equal('ERR_DTLS_REPLACED', fate[1][2].code)
      assert.equal(0, again:stats().retransmits + new:stats().retransmits)
      pair.close(again, server, between)
    end))

    it('completes its handshake with a datagram that also ends its old association', loop.run(function()
      local server = pair.listening({ demux = demux, retransmitTimeout = 60000 }, ip)
      local last -- record of the old association, which the network holds back
      local between = proxy.new(server)
      local conn, old = pair.open(server, between)
      between.filter = function(_, _, data) last = data end
      conn:send 'the last one'
      loop.till(function() return last end, 'the last record')
      local address = conn:localAddress()
      conn:destroy()
      loop.event(conn, 'close')
      old:on('message', function() old:destroy() end)
      between.filter = function(direction, _, data)
        if direction == 'client' then return data end
        local list = {}
        for i, record in ipairs(hello.records(data)) do list[i] = record.epoch == 1 and last .. record.whole or record.whole end
        return list
      end
      local again = pair.open(server, between, { localPort = address.port })
      assert.is_true(old.destroyed)
      assert.equal(0, again:stats().retransmits)
      assert.equal(0, server:stats().replaced)
      pair.close(again, server, between)
    end))

    it('may start over many times', loop.run(function()
      local server = pair.echo(pair.listening({ demux = demux }, ip))
      local port
      for i = 1, 10 do
        local conn = pair.open(server, nil, { localPort = port })
        port = conn:localAddress().port
        assert.is_true(pair.roundTrip(conn, 'life ' .. i))
        conn:destroy()
        loop.event(conn, 'close')
      end
      assert.equal(9, server:stats().replaced)
      assert.equal(1, server:stats().active)
      pair.close(server)
    end))

    it('may start over before its handshake is complete', loop.run(function()
      local server = pair.echo(pair.listening({ demux = demux }, ip))
      local between = proxy.new(server, { filter = function(direction, index, data)
        if direction == 'server' or index == 1 then return data end
      end })
      local heard = pair.record(server, 'accept', 'clientError')
      local stuck = pair.client(between)
      heard.wait 'accept'
      local port = stuck:localAddress().port
      stuck:destroy()
      loop.event(stuck, 'close')
      between.filter = nil
      local closes = pair.record(heard[1][2], 'close')
      local conn = pair.open(server, between, { localPort = port })
      closes.wait 'close'
      assert.equal('accept clientError accept', heard.names())
      assert.equal('ERR_DTLS_REPLACED', heard[2][2].code)
      assert.equal(heard[1][2], heard[2][3])
      assert.is_true(pair.roundTrip(conn, 'second attempt'))
      assert.equal(1, #closes)
      assert.equal(1, server:stats().active)
      pair.close(conn, server, between)
    end))

    it('may start over while its second handshake is not complete', loop.run(function()
      local server = pair.echo(pair.listening({ demux = demux }, ip))
      local between = proxy.new(server)
      local first, old = pair.open(server, between)
      local port = first:localAddress().port
      local fate = pair.record(old, 'error', 'close')
      first:destroy()
      loop.event(first, 'close')

      local heard = pair.record(server, 'accept', 'clientError')
      local seen = #between.recorded.client
      between.filter = function(direction, index, data)
        if direction == 'server' or index == seen + 1 then return data end
      end
      local stuck = pair.client(between, { localPort = port })
      heard.wait 'accept'
      stuck:destroy()
      loop.event(stuck, 'close')
      assert.equal('', fate.names())

      between.filter = nil
      local conn = pair.open(server, between, { localPort = port })
      assert.is_true(pair.roundTrip(conn, 'third attempt'))
      fate.wait 'close'
      assert.equal('ERR_DTLS_REPLACED', fate[1][2].code)
      assert.equal('accept clientError accept', heard.names())
      assert.equal('ERR_DTLS_REPLACED', heard[2][2].code)
      assert.equal(1, server:stats().active)
      pair.close(conn, server, between)
    end))

    it('is not believed because of a repeated hello', loop.run(function()
      local server = pair.echo(pair.listening({ demux = demux }, ip))
      local between = proxy.new(server)
      local conn, accepted = pair.open(server, between)
      local fate = pair.record(accepted, 'error', 'close')
      local first, second = between.recorded.server[1], between.recorded.server[2]
      assert.equal(1, second:byte(14))
      for _ = 1, 5 do
        between:inject('server', second)
        between:inject('server', first)
      end
      assert.is_true(pair.roundTrip(conn, 'still the same'))
      local stats = server:stats()
      assert.equal(5, stats.drops.replay)
      assert.equal(1 + 5, stats.cookiesSent)
      assert.same({ 1, 0, 1 }, { stats.accepted, stats.replaced, stats.active })
      assert.equal('', fate.names())
      pair.close(conn, server, between)
    end))

    it('costs the association that it has nothing when it is somebody else', loop.run(function()
      local server = pair.echo(pair.listening({ demux = demux, handshakeTimeout = 200 * loop.patience }, ip))
      local between = proxy.new(server)
      local conn, accepted = pair.open(server, between)
      local fate, own = pair.record(accepted, 'error', 'close'), pair.record(conn, 'error', 'close')
      local heard = pair.record(server, 'accept', 'clientError')

      local before = #between.recorded.client
      between:inject('server', hello.build())
      loop.till(function() return #between.recorded.client > before end, 'a HelloVerifyRequest')
      local request = hello.verifyRequest(between.recorded.client[before + 1])
      assert.truthy(request)
      assert.is_true(pair.roundTrip(conn, 'asked for a cookie'))
      between:inject('server', hello.build { cookie = request.cookie, sequence = 1, messageSequence = 1 })
      heard.wait 'accept'
      assert.equal(2, server:stats().active)
      for i = 1, 5 do assert.is_true(pair.roundTrip(conn, 'beside the other handshake ' .. i)) end
      accepted:send 'unasked'
      assert.equal('unasked', loop.event(conn, 'message')[1])
      heard.wait 'clientError'
      assert.equal('ERR_DTLS_HANDSHAKE_TIMEOUT', heard[2][2].code)
      for i = 1, 5 do assert.is_true(pair.roundTrip(conn, 'after the other handshake ' .. i)) end
      assert.equal('', fate.names() .. own.names())
      local stats = server:stats()
      assert.same({ 1, 0, 1 }, { stats.active, stats.replaced, stats.handshakesTimedOut })
      pair.close(conn, server, between)
    end))

    it('inherits its peer\'s place when the old association closes first', loop.run(function()
      local server = pair.echo(pair.listening({ demux = demux }, ip))
      local conn, old = pair.open(server)
      local port = conn:localAddress().port
      conn:destroy()
      loop.event(conn, 'close')
      server:once('accept', function() old:destroy() end)
      local again = pair.open(server, nil, { localPort = port })
      assert.is_true(pair.roundTrip(again, 'alone'))
      assert.equal(0, server:stats().replaced)
      assert.equal(1, server:stats().active)
      pair.close(again, server)
    end))

    it('may start over at the limit of connections', loop.run(function()
      local server = pair.echo(pair.listening({ demux = demux, maxConnections = 1 }, ip))
      local conn = pair.open(server)
      local port = conn:localAddress().port
      conn:destroy()
      loop.event(conn, 'close')
      local again = pair.open(server, nil, { localPort = port })
      assert.is_true(pair.roundTrip(again, 'not counted twice'))
      assert.equal(0, server:stats().refused)
      pair.close(again, server)
    end))
  end)

  describe('a limit', function()
    local patience = { retransmitTimeout = 30, handshakeTimeout = 150 * loop.patience }

    it('of connections is met with silence, and room is made again', loop.run(function()
      local server = pair.echo(pair.listening({ demux = demux, maxConnections = 2 }, ip))
      local heard = pair.record(server, 'accept', 'clientError')
      local one, itsOne = pair.open(server)
      local two = pair.open(server)
      assert.equal('ERR_DTLS_HANDSHAKE_TIMEOUT', outcome(pair.client(server, patience)).code)
      assert.equal('accept accept', heard.names())
      assert.is_true(server:stats().refused > 0)
      assert.equal(2, server:stats().active)
      one:close()
      loop.event(itsOne, 'close')
      local three = pair.open(server)
      for _, conn in ipairs { two, three } do assert.is_true(pair.roundTrip(conn, 'inside')) end
      pair.close(two, three, server)
    end))

    it('of connections is none while setBusy(true) holds', loop.run(function()
      local server = pair.echo(pair.listening({ demux = demux }, ip))
      local conn = pair.open(server)
      assert.equal(server, server:setBusy(true))
      assert.equal('ERR_DTLS_HANDSHAKE_TIMEOUT', outcome(pair.client(server, patience)).code)
      assert.is_true(server:stats().refused > 0)
      assert.is_true(pair.roundTrip(conn, 'undisturbed'))
      server:setBusy(false)
      local another = pair.open(server)
      pair.close(conn, another, server)
    end))

    it('of hops holds for every socket', needs(demux == 'connected' and 'epoll', loop.run(function()
      local server = pair.listening({ demux = demux, udpTTL = 9 }, ip)
      local conn, accepted = pair.open(server, nil, { udpTTL = 11 })
      assert.equal(11, raw.hops(conn._association:fd(), ip))
      assert.equal(9, raw.hops(dtls.fd(server._udp), ip))
      if demux == 'connected' then assert.equal(9, raw.hops(accepted._association:fd(), ip)) end
      pair.close(conn, server)
      local handle = raw.open(ip)
      local made, err = dtls.connect { handle = handle.udp, host = ip, port = 9, fingerprint = pair.identity.fingerprint, udpTTL = 9 }
      assert.is_nil(made)
      assert.equal('ERR_DTLS_CONFIG', err.code)
      pair.close(handle)
    end)))

    it('of connections counts those that are handshaking', loop.run(function()
      local server = pair.listening({ demux = demux, maxConnections = 1, handshakeTimeout = 400 * loop.patience }, ip)
      local client = raw.open(ip)
      hello.halfOpen(client, server)
      assert.equal('ERR_DTLS_HANDSHAKE_TIMEOUT', outcome(pair.client(server, patience)).code)
      loop.till(function() return server:stats().active == 0 end)
      local conn = pair.open(server)
      pair.close(conn, server, client)
    end))

    it('of connections per host is met with silence, and room is made again', needs('local_address', loop.run(function()
      local server = pair.echo(pair.listening({ demux = demux, maxConnectionsPerHost = 1 }, ip == '::1' and '::' or '0.0.0.0'))
      server.ip = ip
      local conn, accepted = pair.open(server)
      assert.equal('ERR_DTLS_HANDSHAKE_TIMEOUT', outcome(pair.client(server, patience)).code)
      assert.is_true(server:stats().refused > 0)
      local elsewhere = pair.open(server, { ip = ip == '::1' and '127.0.0.1' or '127.0.0.2', port = server.port },
        ip == '127.0.0.1' and { localAddress = '127.0.0.2' } or nil)
      assert.is_true(pair.roundTrip(elsewhere, 'another host'))
      conn:close()
      loop.event(accepted, 'close')
      local next_one = pair.open(server)
      assert.is_true(pair.roundTrip(next_one, 'room again'))
      pair.close(next_one, elsewhere, server)
    end)))

    if ip == '127.0.0.1' then
      it('of handshakes evicts those of the host that has most, and a slow client of another one gets in', loop.run(function()
        local server = pair.echo(pair.listening({ demux = demux, maxHandshakes = 4 }, '0.0.0.0'))
        server.ip = ip
        local reply
        local between = proxy.new(server, { filter = function(direction, index, data)
          if direction == 'client' or index < 3 then return data end
          reply = reply or data -- the client's second flight takes its time
        end })
        local heard = pair.record(server, 'clientError')
        local conn = pair.client(between, { retransmitTimeout = 10000 })
        loop.till(function() return reply end, 'the client to answer')
        local strangers = {}
        for i = 1, 20 do
          strangers[i] = raw.open('127.0.0.2')
          hello.halfOpen(strangers[i], server)
        end
        assert.same({ 17, 4 }, { server:stats().evicted, server:stats().handshaking })
        for _, each in ipairs(heard) do assert.equal('127.0.0.2', each[3]:remoteAddress().ip) end
        between.filter = nil
        between:inject('server', reply)
        loop.event(conn, 'connection')
        assert.is_true(pair.roundTrip(conn, 'slowly but surely'))
        pair.close(conn, server, between, unpack(strangers))
      end))
    end

    it('of handshakes evicts the oldest, and all are forgotten in the end', loop.run(function()
      local server = pair.echo(pair.listening({ demux = demux, maxHandshakes = 2, handshakeTimeout = 300 * loop.patience }, ip))
      local heard = pair.record(server, 'accept', 'clientError')
      local strangers = {}
      for i = 1, 3 do
        strangers[i] = raw.open(ip)
        hello.halfOpen(strangers[i], server)
      end
      local evicted = heard.find 'clientError'
      assert.equal('ERR_DTLS_EVICTED', evicted[2].code)
      assert.equal(strangers[1].port, evicted[3]:remoteAddress().port)
      assert.same({ 1, 2, 2 }, { server:stats().evicted, server:stats().handshaking, server:stats().active })
      local conn = pair.open(server)
      assert.equal(2, server:stats().evicted)
      assert.is_true(pair.roundTrip(conn, 'through the crowd'))
      loop.till(function() return server:stats().handshaking == 0 end)
      local stats = server:stats()
      assert.same({ 1, 1, 0, 2 }, { stats.active, stats.handshakesTimedOut, stats.handshakesFailed, stats.evicted })
      assert.equal(1, count(server))
      pair.close(conn, server, unpack(strangers))
    end))
  end)

  describe('a new certificate', function()
    it('is shown to new clients, and changes nothing for open connections', loop.run(function()
      local server = pair.echo(pair.listening({ demux = demux }, ip))
      local renewed = assert(dtls.selfSigned())
      local conn = pair.open(server)
      local fate = pair.record(conn, 'error', 'close')
      assert.is_true(server:setContext { cert = renewed.cert, key = renewed.key })
      local late = pair.open(server, nil, { fingerprint = renewed.fingerprint })
      assert.equal('FINGERPRINT_MISMATCH', outcome(pair.client(server)).reason)
      assert.is_true(pair.roundTrip(conn, 'with the old one'))
      assert.is_true(pair.roundTrip(late, 'with the new one'))
      assert.equal('', fate.names())
      assert.is_true(server:setContext(assert(dtls.createContext('server', { cert = pair.identity.cert, key = pair.identity.key }))))
      local back = pair.open(server)
      pair.close(conn, late, back, server)
    end))

    it('that is no certificate leaves the old one in use', loop.run(function()
      local server = pair.listening({ demux = demux }, ip)
      local ok, err = server:setContext { cert = 'garbage', key = pair.identity.key }
      assert.is_nil(ok)
      assert.equal('ERR_DTLS_CONFIG', err.code)
      assert.has_error(function() server:setContext { certificate = 'x' } end)
      assert.has_error(function() server:setContext(assert(dtls.createContext('client', { fingerprint = pair.identity.fingerprint }))) end)
      assert.has_error(function() server:setContext() end)
      local conn = pair.open(server)
      pair.close(conn, server)
    end))

    it('brings its connection settings, those of the server hold for the rest', loop.run(function()
      local renewed = assert(dtls.selfSigned())
      local server = pair.listening { demux = demux, handshakeTimeout = 7000, mtu = 900 }
      assert.is_true(server:setContext { cert = renewed.cert, key = renewed.key, mtu = 600 })
      local conn, accepted = pair.open(server, nil, { fingerprint = renewed.fingerprint })
      assert.is_true(accepted:getDataMtu() < 600)
      assert.is_true(accepted:getDataMtu() > 500)
      pair.close(conn, server)
    end))

    it('may come between a client\'s two hellos', loop.run(function()
      local server = pair.listening({ demux = demux }, ip)
      local renewed = assert(dtls.selfSigned())
      local between = proxy.new(server, { filter = function(direction, index, data)
        if direction == 'server' and index == 2 then server:setContext { cert = renewed.cert, key = renewed.key } end
        return data
      end })
      local conn = pair.open(server, between, { fingerprint = renewed.fingerprint })
      pair.close(conn, server, between)
    end))
  end)
end)

pair.eachStrategy(function(demux)
  describe('a server on a wildcard', function()
    it('answers from the address that was dialled', needs('local_address', loop.run(function()
      local server = pair.echo(pair.listening({ demux = demux }, '0.0.0.0'))
      local clients = {}
      for i, ip in ipairs { '127.0.0.1', '127.0.0.2', '127.1.2.3' } do
        local conn, accepted = pair.open(server, { ip = ip, port = server.port })
        assert.equal(ip, accepted:localAddress().ip)
        assert.equal(ip, conn:remoteAddress().ip)
        clients[i] = conn
      end
      for _ = 1, 3 do
        for i, conn in ipairs(clients) do assert.is_true(pair.roundTrip(conn, 'to ' .. i)) end
      end
      assert.equal(3, server:stats().active)
      pair.close(clients[1], clients[2], clients[3], server)
    end)))

    it('keeps two associations of one client port apart', needs('local_address', loop.run(function()
      local server = pair.echo(pair.listening({ demux = demux }, '0.0.0.0'))
      local port = 0
      local clients, handles = {}, {}
      for i, ip in ipairs { '127.0.0.1', '127.0.0.2', '127.1.2.3' } do
        local udp = uv.new_udp 'inet'
        assert(core.configure_socket(core.fd(udp), { reuse_port = true }))
        assert(udp:bind('127.0.0.1', port))
        port = udp:getsockname().port
        assert(udp:connect(ip, server.port))
        handles[i] = udp
      end
      for i, udp in ipairs(handles) do
        clients[i] = assert(dtls.connect { handle = udp, fingerprint = pair.identity.fingerprint })
      end
      local opened = 0
      for _, conn in ipairs(clients) do conn:on('connection', function() opened = opened + 1 end) end
      loop.till(function() return opened == 3 end)
      for _ = 1, 3 do
        for i, conn in ipairs(clients) do
          assert.equal(port, conn:localAddress().port)
          assert.is_true(pair.roundTrip(conn, 'to ' .. i))
        end
      end
      assert.same({ 3, 0 }, { server:stats().active, server:stats().replaced })
      pair.close(clients[1], clients[2], clients[3], server)
      for _, udp in ipairs(handles) do udp:close() end
    end)))

    it('of IPv6 serves IPv4, too', needs('local_address', loop.run(function()
      local server = pair.echo(pair.listening({ demux = demux }, '::'))
      local v4, its4 = pair.open(server, { ip = '127.0.0.1', port = server.port })
      local other4, itsOther4 = pair.open(server, { ip = '127.0.0.2', port = server.port })
      local v6, its6 = pair.open(server, { ip = '::1', port = server.port })
      assert.equal('::ffff:127.0.0.1', its4:localAddress().ip)
      assert.equal('::ffff:127.0.0.2', itsOther4:localAddress().ip)
      assert.equal('::1', its6:localAddress().ip)
      for i, conn in ipairs { v4, other4, v6 } do assert.is_true(pair.roundTrip(conn, 'client ' .. i)) end
      pair.close(v4, other4, v6, server)
    end)))

    it('of IPv6 alone does not', loop.run(function()
      local server = pair.echo(pair.listening({ demux = demux, ipv6Only = true }, '::'))
      local v6 = pair.open(server, { ip = '::1', port = server.port })
      local v4 = pair.client({ ip = '127.0.0.1', port = server.port }, { retransmitTimeout = 20, handshakeTimeout = 200 * loop.patience })
      assert.equal('ECONNREFUSED', outcome(v4).code)
      assert.is_true(pair.roundTrip(v6, 'alone'))
      pair.close(v6, server)
    end))
  end)

  describe('a server', function()
    it('lets a process end that has nothing else to do, once unreferenced', function()
      local stdout, stderr, status = child.run(([[
        local uv, dtls = require 'luv', require 'dtls'
        local identity = dtls.selfSigned()
        local server = dtls.createServer { cert = identity.cert, key = identity.key, demux = '%s' }
        server:unref()
        server:listen(0, '127.0.0.1')
        local conn = dtls.connect { host = '127.0.0.1', port = server:address().port, fingerprint = identity.fingerprint }
        server:on('connection', function(peer)
          peer:on('message', function(data)
            print(data)
            peer:setTimeout(60000)
            conn:destroy()
          end)
        end)
        conn:on('connection', function() conn:send 'served' end)
        uv.run()
        print 'ended' ]]):format(demux))
      assert.equal('', stderr)
      assert.equal('served\nended\n', stdout)
      assert.equal(0, status)
    end)

    it('keeps a process alive when it is referenced again', function()
      local stdout, stderr = child.run(([[
        local uv, dtls = require 'luv', require 'dtls'
        local identity = dtls.selfSigned()
        local server = dtls.createServer { cert = identity.cert, key = identity.key, demux = '%s' }
        server:listen(0, '127.0.0.1')
        server:unref()
        server:ref()
        local timer = uv.new_timer()
        timer:start(20, 0, function() print 'alive' timer:close() server:close() end)
        timer:unref()
        uv.run()
        print 'ended' ]]):format(demux))
      assert.equal('', stderr)
      assert.equal('alive\nended\n', stdout)
    end)

    it('takes buffer sizes for its socket', loop.run(function()
      local server = pair.echo(pair.listening { demux = demux, recvBufferSize = 65536, sendBufferSize = 65536 })
      local conn = pair.open(server)
      assert.is_true(pair.roundTrip(conn, 'x'))
      pair.close(conn, server)
    end))
  end)
end)

describe('listen', function()
  local server

  before_each(function() server = pair.server() end)

  it('raises for what is neither a port nor a socket', function()
    for _, value in ipairs { '4433x', '', ' 4433', '65536', true, -1, 65536, 1.5, {} } do
      assert.has_error(function() server:listen(value) end)
    end
    assert.has_error(function() server:listen() end)
    assert.has_error(function() server:listen(0, 7) end)
    assert.has_error(function() server:listen(io.stdout) end)
  end)

  it('gives nil and an error for what is no IP address of this machine, and leaves nothing open', loop.run(function()
    for host, code in pairs { localhost = 'EINVAL', [''] = 'EINVAL', ['999.1.1.1'] = 'EINVAL', ['192.0.2.1'] = 'EADDRNOTAVAIL' } do
      local ok, err = server:listen(0, host)
      assert.is_nil(ok)
      assert.equal(code, err.code)
    end
    assert(server:listen(0, '127.0.0.1'))
    pair.close(server)
  end))
end)
