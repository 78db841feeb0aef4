local uv = require 'luv'
local dtls = require 'dtls'
local child = require 'spec.support.child'
local hello = require 'spec.support.hello'
local loop = require 'spec.support.loop'
local pair = require 'spec.support.pair'
local proxy = require 'spec.support.proxy'
local raw = require 'spec.support.raw'

-- What the record layer adds to a message with AES-GCM: header, explicit nonce, tag.
local OVERHEAD = 13 + 8 + 16

describe('a connection', function()
  pair.each(function(demux, ip)
    it('carries messages of any bytes both ways', loop.run(function()
      local server = pair.echo(pair.listening({ demux = demux }, ip))
      local conn = pair.open(server)
      local every = {}
      for byte = 0, 255 do every[#every + 1] = string.char(byte) end
      for _, text in ipairs { 'a', '\0', '\0\0', 'line\r\n', table.concat(every), ('x'):rep(conn:getDataMtu()) } do
        assert.is_true(pair.roundTrip(conn, text))
      end
      pair.close(conn, server)
    end))

    it('keeps the boundaries of messages and their order', loop.run(function()
      local server = pair.listening({ demux = demux }, ip)
      local conn, accepted = pair.open(server)
      for _, from in ipairs { conn, accepted } do
        local to = from == conn and accepted or conn
        local sent, received = {}, {}
        to:on('message', function(data) received[#received + 1] = data end)
        for i = 1, 60 do
          sent[i] = ('%d'):format(i):rep(i)
          assert(from:send(sent[i]))
        end
        loop.till(function() return #received == #sent end, 'all messages')
        assert.same(sent, received)
      end
      pair.close(conn, server)
    end))

    it('emits its events in order, and close once', loop.run(function()
      local server = pair.listening({ demux = demux }, ip)
      local order = {}
      local function note(who, emitter, ...)
        for _, name in ipairs { ... } do
          emitter:on(name, function() order[#order + 1] = who .. ' ' .. name end)
        end
      end
      note('server', server, 'listening', 'accept', 'connection', 'clientError', 'error', 'close')
      server:on('accept', function(conn) note('peer', conn, 'connection', 'message', 'error', 'close') end)
      local conn, accepted = pair.open(server)
      local own = pair.record(conn, 'connection', 'message', 'error', 'close')
      conn:send 'one'
      loop.event(accepted, 'message')
      accepted:send 'two'
      loop.event(conn, 'message')
      conn:close()
      loop.event(accepted, 'close')
      pair.close(server)
      assert.same({
        'server listening', 'server accept', 'peer connection', 'server connection', 'peer message', 'peer close', 'server close',
      }, order)
      own.wait 'close'
      assert.equal('message close', own.names())
    end))

    it('that closes sends close_notify: its peer closes, too, and neither emits an error', loop.run(function()
      local server = pair.listening({ demux = demux }, ip)
      for _, first in ipairs { 'client', 'server' } do
        local conn, accepted = pair.open(server)
        local one = pair.record(conn, 'error', 'close')
        local other = pair.record(accepted, 'error', 'close')
        if first == 'client' then conn:close() else accepted:close() end
        one.wait 'close'
        other.wait 'close'
        assert.same({ { 'close', false } }, { one[1] })
        assert.same({ { 'close', false } }, { other[1] })
        assert.equal(1, #one)
        assert.equal(1, #other)
      end
      pair.close(server)
      assert.equal(0, server:stats().unhandledErrors)
    end))

    it('gives an error without a listener to missingHandlerType at either end, except a handshake\'s error at a server', loop.run(function()
      local server = pair.listening({ demux = demux }, ip)
      local missing = {}
      local function watched(emitter, who)
        function emitter:missingHandlerType(name, err)
          if name == 'error' then missing[#missing + 1] = who .. ' ' .. err.message .. (self == emitter and '' or ' of another') end
        end
      end
      local conn, accepted = pair.open(server)
      watched(conn, 'client')
      watched(accepted, 'server')
      conn:destroy 'one'
      accepted:destroy 'two'
      server:on('accept', function(refused)
        watched(refused, 'handshake')
        refused:destroy 'three'
      end)
      local refused = pair.record(server, 'clientError')
      local again = pair.client(server)
      watched(again, 'again')
      refused.wait 'clientError'
      again:destroy 'four'
      pair.close(conn, accepted, again, server)
      assert.same({ 'client one', 'server two', 'again four' }, missing)
    end))

    it('that is destroyed sends nothing to its peer', loop.run(function()
      local server = pair.echo(pair.listening({ demux = demux }, ip))
      local between = proxy.new(server)
      local conn, accepted = pair.open(server, between)
      local other = pair.open(server, between)
      local fate = pair.record(accepted, 'error', 'close')
      local towards = #between.recorded.server
      conn:destroy()
      loop.event(conn, 'close')
      pair.roundTrip(other, 'a fence')
      assert.equal(towards + 1, #between.recorded.server)
      assert.equal('', fate.names())

      local back = #between.recorded.client
      accepted:destroy()
      fate.wait 'close'
      assert.same({ { 'close', false } }, { fate[1] })
      pair.roundTrip(other, 'a fence')
      assert.equal(back + 1, #between.recorded.client)
      pair.close(other, server, between)
    end))

    it('that is destroyed with an error emits the error, then close', loop.run(function()
      local server = pair.listening({ demux = demux }, ip)
      local conn, accepted = pair.open(server)
      for _, each in ipairs { conn, accepted } do
        local heard = pair.record(each, 'error', 'close')
        each:destroy('no more')
        heard.wait 'close'
        assert.equal('error close', heard.names())
        assert.equal('ERR_DTLS_DESTROYED: no more', tostring(heard[1][2]))
        assert.equal('no more', heard[1][2].cause)
        assert.is_true(heard[2][2])
      end
      pair.close(server)
    end))

    it('may be destroyed with any value, also before it has begun', loop.run(function()
      local server = pair.listening({ demux = demux }, ip)
      local early = pair.client(server)
      local heard = pair.record(early, 'error', 'connection', 'close')
      local reason = { code = 'ECONNREFUSED' }
      early:destroy(reason)
      heard.wait 'close'
      assert.equal('error close', heard.names())
      assert.equal('ECONNREFUSED', heard[1][2].code)
      assert.equal('ECONNREFUSED: the application destroyed the connection', tostring(heard[1][2]))
      assert.equal(reason, heard[1][2].cause)
      local met = pair.record(server, 'clientError')
      server:once('accept', function(conn) conn:destroy(true) end)
      local refused = pair.client(server)
      assert.is_true(met.wait 'clientError'[2].cause)
      assert.equal(1, server:stats().handshakesFailed)
      refused:destroy()
      pair.close(server)
    end))

    it('calls back from close, also when close is called twice or after the connection has closed', loop.run(function()
      local server = pair.listening({ demux = demux }, ip)
      local conn = pair.open(server)
      local closes, calls = pair.record(conn, 'close'), 0
      local function count() calls = calls + 1 end
      conn:close(count)
      conn:close(count)
      conn:destroy()
      closes.wait 'close'
      loop.call(function(done) conn:close(done) end)
      conn:destroy('too late')
      pair.close(server)
      assert.equal(2, calls)
      assert.equal(1, #closes)
    end))

    it('cannot send before it is open or after it closed', loop.run(function()
      local server = pair.listening({ demux = demux }, ip)
      local early
      server:on('accept', function(conn) early = { conn:send 'too early' } end)
      local conn = pair.client(server)
      local _, err = conn:send 'too early'
      assert.equal('ENOTCONN', err.code)
      loop.event(conn, 'connection')
      assert.is_nil(early[1])
      assert.equal('ENOTCONN', early[2].code)
      conn:close()
      local ok
      ok, err = conn:send 'too late'
      assert.is_nil(ok)
      assert.equal('ENOTCONN', err.code)
      pair.close(conn)
      ok, err = conn:send 'much too late'
      assert.is_nil(ok)
      assert.equal('ENOTCONN', err.code)
      pair.close(server)
    end))

    it('calls back from send with the results that send returned, on a later tick', loop.run(function()
      local server = pair.listening({ demux = demux }, ip)
      local conn = pair.open(server)
      local back
      assert.is_true(conn:send('x', function(...) back = { n = select('#', ...), ... } end))
      assert.is_nil(back)
      loop.till(function() return back end)
      assert.is_nil(back[1])
      local _, err = conn:send('', function(...) back = { ... } end)
      back = nil
      loop.till(function() return back end)
      assert.equal(err, back[1])
      pair.close(conn, server)
    end))

    it('refuses to send an empty message, and delivers none that its peer sends', loop.run(function()
      local server = pair.echo(pair.listening({ demux = demux }, ip))
      local conn = pair.open(server)
      local ok, err = conn:send ''
      assert.is_nil(ok)
      assert.equal('EINVAL', err.code)
      assert.equal(0, conn:stats().messagesOut)
      assert.is_true(pair.roundTrip(conn, 'not empty'))
      pair.close(conn, server)
    end))

    for _, role in ipairs { 'client', 'server' } do
      it(('sends a list of messages, each as one datagram and in order (%s)'):format(role), loop.run(function()
        local server = pair.listening({ demux = demux }, ip)
        local one, other = pair.open(server)
        if role == 'server' then one, other = other, one end
        local got = pair.record(other, 'message')
        local list = {}
        for i = 1, 30 do list[i] = ('%d '):format(i) .. ('x'):rep(i % 9 * 10) end
        local before, called = one:stats().datagramsOut, nil
        assert.is_true(one:send(list, function(err) called = { err } end))
        loop.till(function() return #got == 30 end, 'all messages')
        for i, text in ipairs(list) do assert.equal(text, got[i][2]) end
        assert.equal(before + 30, one:stats().datagramsOut)
        assert.same({}, called)
        pair.close(one, other, server)
      end))

      it(('sends a list up to the message that cannot be sent, and says how many that were (%s)'):format(role), loop.run(function()
        local server = pair.listening({ demux = demux }, ip)
        local one, other = pair.open(server)
        if role == 'server' then one, other = other, one end
        local got = pair.record(other, 'message')
        for _, bad in ipairs { '', ('x'):rep(20000) } do
          local ok, err, sent = one:send { 'one', 'two', bad, 'four' }
          assert.is_nil(ok)
          assert.equal(bad == '' and 'EINVAL' or 'EMSGSIZE', err.code)
          assert.equal(2, sent)
        end
        assert(one:send 'last')
        loop.till(function() return #got == 5 end, 'the messages')
        assert.same({ 'one', 'two', 'one', 'two', 'last' }, { got[1][2], got[2][2], got[3][2], got[4][2], got[5][2] })
        pair.close(one, other, server)
        local ok, err, sent = one:send { 'one' }
        assert.same({ nil, 'ENOTCONN', 0 }, { ok, err.code, sent })
      end))
    end

    it('refuses a message that does not fit a datagram, and says which length would fit', loop.run(function()
      local server = pair.echo(pair.listening({ demux = demux }, ip))
      local conn = pair.open(server)
      local limit = conn:getDataMtu()
      local ok, err = conn:send(('x'):rep(limit + 1))
      assert.is_nil(ok)
      assert.equal('EMSGSIZE', err.code)
      assert.truthy(err.message:find(tostring(limit), 1, true), err.message)
      assert.is_true(pair.roundTrip(conn, ('x'):rep(limit)))
      pair.close(conn, server)
    end))

    it('with allowFragments carries 16384 bytes in one message, and no more', loop.run(function()
      local server = pair.echo(pair.listening({ demux = demux, allowFragments = true }, ip))
      local conn = pair.open(server, nil, { allowFragments = true })
      assert.is_true(pair.roundTrip(conn, ('x'):rep(16384)))
      local ok, err = conn:send(('x'):rep(16385))
      assert.is_nil(ok)
      assert.equal('EMSGSIZE', err.code)
      assert.truthy(err.message:find('16384', 1, true), err.message)
      assert.is_true(pair.roundTrip(conn, 'still well'))
      pair.close(conn, server)
    end))

    it('knows its data MTU exactly once it is open, and 0 before', loop.run(function()
      local server = pair.listening({ demux = demux }, ip)
      local before
      server:on('accept', function(conn) before = conn:getDataMtu() end)
      local between = proxy.new(server)
      local conn = pair.client(between)
      assert.equal(0, conn:getDataMtu())
      local opened = pair.record(conn, 'connection')
      local accepted = loop.event(server, 'connection')[1]
      assert.equal(0, before)
      opened.wait 'connection'
      assert.equal(1228 - OVERHEAD, conn:getDataMtu())
      assert.equal(1228 - OVERHEAD, accepted:getDataMtu())
      for _, each in ipairs { conn, accepted } do
        local other, direction = each == conn and accepted or conn, each == conn and 'server' or 'client'
        local from = #between.recorded[direction] + 1
        each:send(('x'):rep(each:getDataMtu()))
        loop.event(other, 'message')
        assert.equal(1228, between:longest(direction, from))
      end
      pair.close(conn)
      assert.equal(0, conn:getDataMtu())
      pair.close(server, between)
    end))

    it('keeps every datagram within an MTU that is set while it is open', loop.run(function()
      local headers = (ip == '::1' and 40 or 20) + 8
      local server = pair.listening({ demux = demux }, ip)
      local conn, accepted = pair.open(server)
      for _, each in ipairs { conn, accepted } do
        assert.is_true(each:setMtu(600))
        assert.equal(600 - OVERHEAD, each:getDataMtu())
        local ok, err = each:send(('x'):rep(601 - OVERHEAD))
        assert.is_nil(ok)
        assert.equal('EMSGSIZE', err.code)
        assert.is_true(each:setLinkMtu(1280))
        assert.equal(1280 - headers - OVERHEAD, each:getDataMtu())
        assert.equal(256, each:getLinkMinMtu())
        assert.is_true(each:setLinkMtu(256))
        assert.equal(256 - headers - OVERHEAD, each:getDataMtu())
        ok, err = each:setLinkMtu(255)
        assert.is_nil(ok)
        assert.equal('ERR_DTLS_CONFIG', err.code)
        ok, err = each:setMtu(100000)
        assert.is_nil(ok)
        assert.equal('ERR_DTLS_CONFIG', err.code)
        assert.equal(256 - headers - OVERHEAD, each:getDataMtu())
      end
      pair.close(conn, server)
      assert.equal('ENOTCONN', select(2, conn:setMtu(600)).code)
      assert.equal('ENOTCONN', select(2, conn:setLinkMtu(600)).code)
    end))

    it('knows both of its addresses, also when it is closed', loop.run(function()
      local server = pair.listening({ demux = demux }, ip)
      local conn, accepted = pair.open(server)
      local family = ip == '::1' and 'inet6' or 'inet'
      assert.same({ ip = ip, port = server.port, family = family }, conn:remoteAddress())
      assert.same({ ip = ip, port = server.port, family = family }, accepted:localAddress())
      assert.same(conn:localAddress(), accepted:remoteAddress())
      assert.same(conn:localAddress(), conn:address())
      local address = conn:localAddress()
      assert.equal(ip, address.ip)
      pair.close(conn, server)
      assert.same(address, conn:localAddress())
      assert.same(address, accepted:remoteAddress())
    end))

    it('exports the same keying material as its peer, and other material for another label or context', loop.run(function()
      local server = pair.listening({ demux = demux }, ip)
      local conn, accepted = pair.open(server)
      local bytes = assert(conn:exportKeyingMaterial(60, 'EXTRACTOR-dtls_srtp'))
      assert.equal(60, #bytes)
      assert.equal(bytes, accepted:exportKeyingMaterial(60, 'EXTRACTOR-dtls_srtp'))
      assert.not_equal(bytes, conn:exportKeyingMaterial(60, 'EXPERIMENTAL'))
      assert.not_equal(bytes, conn:exportKeyingMaterial(60, 'EXTRACTOR-dtls_srtp', 'context'))
      assert.equal(conn:exportKeyingMaterial(20, 'EXPERIMENTAL', ''), accepted:exportKeyingMaterial(20, 'EXPERIMENTAL', ''))
      pair.close(conn, server)
      assert.equal('ENOTCONN', select(2, conn:exportKeyingMaterial(60, 'EXPERIMENTAL')).code)
    end))

    it('counts messages, datagrams and bytes in both directions', loop.run(function()
      local server = pair.echo(pair.listening({ demux = demux }, ip))
      local between = proxy.new(server)
      local conn, accepted = pair.open(server, between)
      for _ = 1, 3 do pair.roundTrip(conn, 'message') end
      local function total(list)
        local bytes = 0
        for _, data in ipairs(list) do bytes = bytes + #data end
        return bytes
      end
      local own, its = conn:stats(), accepted:stats()
      assert.same({ 3, 3 }, { own.messagesIn, own.messagesOut })
      assert.same({ 3, 3 }, { its.messagesIn, its.messagesOut })
      assert.equal(#between.recorded.server, own.datagramsOut)
      assert.equal(#between.passed.client, own.datagramsIn)
      assert.equal(total(between.recorded.server), own.bytesOut)
      assert.equal(total(between.passed.client), own.bytesIn)
      assert.equal(0, own.retransmits)
      assert.same({}, own.drops)
      local over = pair.record(accepted, 'close')
      pair.close(conn)
      over.wait 'close'
      pair.close(server, between)
      assert.equal(3, conn:stats().messagesIn)
      assert.is_true(own.createdAt <= own.connectedAt and not own.closedAt)
      assert.is_true(own.connectedAt <= conn:stats().closedAt and conn.destroyed)
      local all = server:stats()
      assert.same({ 3, 3 }, { all.messagesIn, all.messagesOut })
      assert.equal(#between.recorded.server, all.datagramsIn)
      assert.equal(#between.recorded.client, all.datagramsOut)
    end))

    it('emits timeout when it is idle, and stays open', loop.run(function()
      local server = pair.echo(pair.listening({ demux = demux, timeout = 150 * loop.patience }, ip))
      local conn, accepted = pair.open(server)
      loop.event(accepted, 'timeout')
      local called = 0
      assert.equal(conn, conn:setTimeout(100 * loop.patience, function() called = called + 1 end))
      loop.till(function() return called == 1 end)
      assert.is_true(pair.roundTrip(conn, 'here I am'))
      loop.event(conn, 'timeout')
      loop.event(accepted, 'timeout')
      assert.equal(1, called)
      pair.close(conn, server)
    end))

    it('emits timeout once until there is traffic again, and never with setTimeout(0)', loop.run(function()
      local server = pair.listening({ demux = demux }, ip)
      local one, two, three = pair.open(server), pair.open(server), pair.open(server)
      local idle, never = pair.record(one, 'timeout'), pair.record(two, 'timeout')
      two:setTimeout(15)
      two:setTimeout(0)
      one:setTimeout(15)
      idle.wait 'timeout'
      three:setTimeout(60)
      loop.event(three, 'timeout')
      assert.equal(1, #idle)
      assert.equal(0, #never)
      pair.close(one, two, three, server)
    end))
  end)

  it('raises when send gets anything but a string or a list of strings', loop.run(function()
    local server = pair.listening()
    local conn = pair.open(server)
    for _, value in ipairs { 7, true, {}, { 7 }, { 'one', {} }, { one = 'one' } } do
      local ok, err = pcall(conn.send, conn, value)
      assert.is_false(ok)
      assert.truthy(err:find('send', 1, true))
    end
    assert.is_false((pcall(conn.send, conn)))
    pair.close(conn, server)
  end))

  it('raises for a timeout that is no number of milliseconds', loop.run(function()
    local server = pair.listening()
    local conn = pair.open(server)
    for _, value in ipairs { -1, 1.5, '7', 0 / 0 } do
      local ok, err = pcall(conn.setTimeout, conn, value)
      assert.is_false(ok)
      assert.truthy(err:find('setTimeout', 1, true))
    end
    pair.close(conn, server)
  end))

  it('lets a process end that has nothing else to do, after unref()', function()
    local stdout, stderr, status = child.run [[
      local uv, dtls = require 'luv', require 'dtls'
      local identity = dtls.selfSigned()
      local server = dtls.createServer { cert = identity.cert, key = identity.key }
      server:listen(0, '127.0.0.1')
      server:unref()
      local conn = dtls.connect { host = '127.0.0.1', port = server:address().port, fingerprint = identity.fingerprint }
      conn:on('connection', function() print 'open' conn:unref() end)
      conn:on('close', function() print 'closed' end)
      uv.run()
      print 'ended' ]]
    assert.equal('', stderr)
    assert.equal('open\nended\n', stdout)
    assert.equal(0, status)
  end)
end)

describe('a handshake', function()
  for _, ip in ipairs(pair.addresses) do
    for _, mtu in ipairs { 228, 256, 300, 312, 320, 328, 400, 512, 576, 600, 614, 626, 1000, 1228, 1400 } do
      it(('keeps every datagram of every flight within an MTU of %d (%s)'):format(mtu, ip), loop.run(function()
        for _, demux in ipairs(pair.strategies) do
          local identity = pair.identity
          local server = pair.echo(pair.listening({
            demux = demux, mtu = mtu, requestCert = true, fingerprint = identity.fingerprint,
            cert = identity.cert, key = identity.key,
          }, ip))
          local between = proxy.new(server)
          local conn, accepted = pair.open(server, between, {
            mtu = mtu, cert = identity.cert, key = identity.key, fingerprint = identity.fingerprint,
          })
          assert.is_true(pair.roundTrip(conn, ('x'):rep(conn:getDataMtu())))
          pair.close(conn, server)
          assert.is_true(between:longest 'server' <= mtu, 'the client sent ' .. between:longest 'server')
          assert.is_true(between:longest 'client' <= mtu, 'the server sent ' .. between:longest 'client')
          assert.equal(0, conn:stats().retransmits)
          assert.equal(0, accepted:stats().retransmits)
          pair.close(between)
        end
      end))
    end

    it(('counts the headers of IP and UDP with linkMtu (%s)'):format(ip), loop.run(function()
      local headers = (ip == '::1' and 40 or 20) + 8
      local server = pair.echo(pair.listening({ linkMtu = 400 }, ip))
      local between = proxy.new(server)
      local conn, accepted = pair.open(server, between, { linkMtu = 300 })
      assert.equal(300 - headers - OVERHEAD, conn:getDataMtu())
      assert.equal(400 - headers - OVERHEAD, accepted:getDataMtu())
      pair.roundTrip(conn, ('x'):rep(conn:getDataMtu()))
      pair.close(conn, server)
      assert.equal(300 - headers, between:longest 'server')
      assert.is_true(between:longest 'client' <= 400 - headers)
      pair.close(between)
    end))
  end

  it('fails with the reason when the MTU that is asked for is impossible for the address family', loop.run(function()
    local server = pair.listening()
    local conn = pair.client(server, { linkMtu = 18493 })
    local heard = pair.record(conn, 'error', 'close')
    heard.wait 'close'
    assert.equal('error close', heard.names())
    assert.equal('ERR_DTLS_CONFIG', heard[1][2].code)
    pair.close(server)
  end))

  pair.eachStrategy(function(demux)
    -- A constant wait: doubling it would take long where many datagrams are lost.
    local function always25() return 25 * loop.patience end

    local function lossy(filter, mtu, wait)
      wait = wait or always25
      local server = pair.echo(pair.listening { demux = demux, retransmitTimeout = wait, mtu = mtu })
      local between = proxy.new(server, { filter = filter })
      local conn, accepted = pair.open(server, between, { retransmitTimeout = wait, mtu = mtu })
      between.filter = nil
      assert.is_true(pair.roundTrip(conn, 'through'))
      local repeated = conn:stats().retransmits + accepted:stats().retransmits
      pair.close(conn, server, between)
      return between, repeated
    end

    for _, mtu in ipairs { 1228, 300 } do
      it(('completes whichever single datagram is lost, by repeating flights (MTU %d)'):format(mtu), loop.run(function()
        local clean = lossy(nil, mtu, math.min(5000 * loop.patience, 60000)) -- so that nothing is repeated
        -- Only the handshake's datagrams, without those of the round trip and of close.
        local count = { server = 0, client = 0 }
        for direction in pairs(count) do
          for _, data in ipairs(clean.recorded[direction]) do
            if data:byte() ~= 23 and data:byte() ~= 21 then count[direction] = count[direction] + 1 end
          end
        end
        assert.is_true(count.server >= 3 and count.client >= 3)
        for direction, last in pairs(count) do
          for index = 1, last do
            local _, repeated = lossy(proxy.filters.without(direction, index), mtu)
            assert.is_true(repeated > 0, ('nothing was lost: %s %d'):format(direction, index))
          end
        end
      end))
    end

    it('completes although the first six datagrams are lost', loop.run(function()
      local count = 0
      lossy(function(_, _, data)
        count = count + 1
        if count > 6 then return data end
      end)
    end))

    for seed = 1, 5 do
      it(('completes when a third of all datagrams are lost (seed %d)'):format(seed), loop.run(function()
        lossy(proxy.filters.lossy(seed, 1 / 3))
      end))
    end

    it('completes when every datagram comes twice', loop.run(function()
      lossy(function(_, _, data) return { data, data } end)
    end))

    it('completes when every record has a datagram of its own', loop.run(function()
      local between = lossy(function(_, _, data)
        local list = {}
        for i, record in ipairs(hello.records(data)) do list[i] = record.whole end
        return list
      end)
      assert.is_true(#between.passed.server > #between.recorded.server)
    end))

    it('completes when neighbours change places', loop.run(function()
      local held = {}
      lossy(function(direction, _, data)
        if held[direction] then
          local first = held[direction]
          held[direction] = nil
          return { data, first }
        end
        held[direction] = data
      end, 300)
    end))

    it('is not ended by a forged fatal alert, whenever the alert comes', loop.run(function()
      local forged = '\21\254\253' .. ('\0'):rep(8) .. '\0\2' .. '\2\40'
      -- Nothing is lost, so no flight is repeated unless a slow machine needs longer than this for one.
      local between = lossy(function(_, _, data) return { forged, data, forged } end, nil, 1000 * loop.patience)
      assert.is_true(#between.recorded.server >= 3)
    end))

    it('is not disturbed by forged records of epoch 1, whenever they come', loop.run(function()
      local record = '\23\254\253\0\1' .. ('\0'):rep(5) .. '\9\0\32' .. ('x'):rep(32)
      local between, repeated = lossy(function(_, _, data) return { record:rep(17), data } end)
      assert.is_true(#between.recorded.server >= 3)
      assert.is_true(repeated < 20)
    end))

    it('is not disturbed by foreign records in plain text', loop.run(function()
      local function record(kind, body) return kind .. '\254\253' .. ('\0'):rep(7) .. '\9\0' .. string.char(#body) .. body end
      local foreign = {
        record('\23', 'plain'), record('\99', 'what'), record('\21', '\1\0'), '', 'x', ('\22'):rep(60),
      }
      lossy(function(_, _, data)
        local list = { unpack(foreign) }
        list[#list + 1] = data
        return list
      end)
    end))

    it('that the client ends with an alert fails on the server with that alert', loop.run(function()
      local server = pair.listening { demux = demux, retransmitTimeout = 50 }
      local other = assert(dtls.selfSigned())
      local failed = pair.record(server, 'clientError')
      local conn = pair.client(server, { fingerprint = other.fingerprint })
      local err = loop.event(conn, 'error')[1]
      assert.equal('ERR_DTLS_CERTIFICATE', err.code)
      failed.wait 'clientError'
      assert.equal('ERR_DTLS_ALERT', failed[1][2].code)
      assert.is_string(failed[1][2].alert)
      assert.truthy(failed[1][2].message:find(failed[1][2].alert, 1, true))
      assert.equal(1, server:stats().handshakesFailed)
      assert.equal(0, server:stats().active)
      pair.close(server)
    end))

    it('that the server ends with an alert fails on the client with that alert', loop.run(function()
      local server = pair.listening { demux = demux, requestCert = true, fingerprint = pair.identity.fingerprint,
        cert = pair.identity.cert, key = pair.identity.key }
      local failed = pair.record(server, 'clientError')
      local conn = pair.client(server, { retransmitTimeout = 50 })
      local heard = pair.record(conn, 'error', 'close')
      heard.wait 'close'
      assert.equal('error close', heard.names())
      assert.equal('ERR_DTLS_ALERT', heard[1][2].code)
      assert.equal('handshake_failure', heard[1][2].alert)
      assert.is_true(heard[2][2])
      failed.wait 'clientError'
      pair.close(server)
    end))

    it('without a cipher suite in common fails on both sides', loop.run(function()
      local server = pair.listening { demux = demux, ciphers = 'ECDHE-ECDSA-AES128-GCM-SHA256' }
      local failed = pair.record(server, 'clientError')
      local conn = pair.client(server, {
        ciphers = 'ECDHE-ECDSA-CHACHA20-POLY1305', retransmitTimeout = 50, handshakeTimeout = 1000 * loop.patience,
      })
      local err = loop.event(conn, 'error')[1]
      assert.is_true(err.alert == 'handshake_failure' or err.code == 'ERR_DTLS_HANDSHAKE_TIMEOUT', tostring(err))
      failed.wait 'clientError'
      assert.equal('ERR_DTLS_PROTOCOL', failed[1][2].code)
      assert.equal('NO_SHARED_CIPHER', failed[1][2].reason)
      assert.equal("handshake: no shared cipher; the client offers 'ECDHE-ECDSA-CHACHA20-POLY1305', and this server has "
        .. "'ECDHE-ECDSA-AES128-GCM-SHA256'", failed[1][2].message)
      pair.close(server)
    end))
  end)

  describe('that gets no answer', function()
    it('repeats its flight after retransmitTimeout, and fails after handshakeTimeout', loop.run(function()
      local silent = raw.open()
      local conn = pair.client(silent, { retransmitTimeout = 20, handshakeTimeout = 300 })
      local heard = pair.record(conn, 'error', 'close')
      heard.wait 'close'
      assert.equal('error close', heard.names())
      assert.equal('ERR_DTLS_HANDSHAKE_TIMEOUT', heard[1][2].code)
      assert.truthy(heard[1][2].message:find('300', 1, true))
      assert.is_true(#silent.inbox >= 2, 'only ' .. #silent.inbox .. ' hellos')
      assert.equal(#silent.inbox - 1, conn:stats().retransmits)
      -- The repeated hello differs in the record's sequence number alone (RFC 6347 §4.2.4).
      assert.equal(silent.inbox[1]:sub(12), silent.inbox[2]:sub(12))
      pair.close(silent)
    end))

    it('asks a retransmitTimeout function for each wait, first with 0, then with the previous wait', loop.run(function()
      local silent = raw.open()
      local asked, answers = {}, {}
      local conn = pair.client(silent, {
        handshakeTimeout = 30000,
        retransmitTimeout = function(previous)
          asked[#asked + 1] = previous
          answers[#answers + 1] = 19 + #answers
          return answers[#answers]
        end,
      })
      loop.till(function() return #silent.inbox >= 5 end, 'four repetitions')
      assert.equal(0, asked[1])
      for i = 2, #asked do assert.equal(answers[i - 1], asked[i], 'call ' .. i) end
      assert.is_true(#asked >= 5 and #asked <= #silent.inbox + 2, ('%d calls for %d hellos'):format(#asked, #silent.inbox))
      pair.close(conn, silent)
    end))

    it('takes from setRetransmitTimeout a number or a function for one connection alone', loop.run(function()
      local silent, conn = raw.open(), nil
      for _, options in ipairs { { retransmitTimeout = 60000 }, {} } do
        local asked, before = {}, #silent.inbox
        conn = pair.client(silent, options)
        assert.equal(conn, conn:setRetransmitTimeout(function(previous)
          asked[#asked + 1] = previous
          return 20
        end))
        loop.till(function() return #silent.inbox >= before + 3 end, 'two repetitions')
        assert.same({ 0, 20, 20 }, { asked[1], asked[2], asked[3] })
        pair.close(conn)
      end
      local server = pair.listening { retransmitTimeout = 60000, handshakeTimeout = 60000 }
      server:on('accept', function(accepted) accepted:setRetransmitTimeout(20) end)
      hello.halfOpen(silent, server)
      local before = #silent.inbox
      loop.till(function() return #silent.inbox >= before + 2 end, 'a repetition')
      for _, wrong in ipairs { 0, 60001, 1.5, '20' } do
        local ok, err = pcall(function() conn:setRetransmitTimeout(wrong) end)
        assert.is_false(ok)
        assert.truthy(err:find('connection_spec.lua', 1, true), err)
      end
      server:destroy()
      loop.event(server, 'close')
      pair.close(silent)
    end))

    it('fails with ERR_DTLS_CALLBACK when the retransmitTimeout function throws or returns no number', loop.run(function()
      local silent = raw.open()
      for _, failing in ipairs {
        function() error 'oops' end,
        function() return 'soon' end,
        function() return 0 / 0 end,
        function(previous) return previous == 0 and 20 or error 'oops' end,
      } do
        local conn = pair.client(silent, { retransmitTimeout = failing })
        local heard = pair.record(conn, 'error', 'close')
        heard.wait 'close'
        assert.equal('error close', heard.names())
        assert.equal('ERR_DTLS_CALLBACK', heard[1][2].code)
        assert.truthy(heard[1][2].message:find('retransmitTimeout', 1, true))
      end
      pair.close(silent)
    end))

    it('asks the retransmitTimeout function of a server, too', loop.run(function()
      local asked = {}
      local server = pair.echo(pair.listening {
        retransmitTimeout = function(previous)
          asked[#asked + 1] = previous
          return 20
        end,
      })
      local between = proxy.new(server)
      local muted = 0
      between.filter = function(direction, index, data)
        if direction == 'client' and index > 1 and muted < 3 then
          muted = muted + 1
          return nil
        end
        return data
      end
      local conn = pair.open(server, between)
      assert.equal(0, asked[1])
      assert.equal(20, asked[2])
      pair.close(conn, server, between)
    end))
  end)
end)

describe('a listener', function()
  local preamble = [[
    local uv, dtls = require 'luv', require 'dtls'
    local identity = dtls.selfSigned()
    local server = dtls.createServer { cert = identity.cert, key = identity.key, demux = '%s' }
    assert(server:listen(0, '127.0.0.1'))
    local function dial(options)
      options = options or {}
      options.host, options.port, options.fingerprint = '127.0.0.1', server:address().port, options.fingerprint or identity.fingerprint
      return assert(dtls.connect(options))
    end
    local function guilty() error 'oops' end
    -- A well-behaved pair on the same server: its echo comes after whatever the listener has done.
    server:on('connection', function(conn) conn:on('message', function(data) conn:send('re: ' .. data) end) end)
    local good = dial()
    local function fence(callback)
      good:once('message', callback)
      good:send 'fence'
    end
    local function finish()
      good:close(function() server:close(function() print 'end' end) end)
    end
    good:once('connection', function()
      %s
    end)
    uv.run()
    print 'ran dry']]

  local scripts = {
    accept = [[
      server:once('accept', guilty)
      local conn = dial()
      conn:once('connection', function() conn:close(function() fence(finish) end) end)]],
    ['connection (server)'] = [[
      server:once('connection', guilty)
      local conn = dial()
      conn:once('connection', function()
        conn:once('message', function() conn:close(function() fence(finish) end) end)
        conn:send 'x'
      end)]],
    ['connection (client)'] = [[
      local conn = dial()
      conn:once('connection', guilty)
      conn:once('message', function() conn:close(function() fence(finish) end) end)
      server:once('connection', function(peer) peer:send 'welcome' end)]],
    ['message (server)'] = [[
      local conn = dial()
      server:once('connection', function(peer)
        peer:removeAllListeners 'message'
        peer:once('message', guilty)
        peer:on('message', function(data) peer:send(data) end)
      end)
      conn:once('connection', function()
        conn:send 'throws'
        conn:send 'passes'
      end)
      conn:on('message', function(data)
        if data == 'passes' then conn:close(function() fence(finish) end) end
      end)]],
    ['message (client)'] = [[
      local conn = dial()
      conn:once('connection', function() conn:send 'one' conn:send 'two' end)
      conn:once('message', guilty)
      conn:on('message', function(data) if data == 're: two' then conn:close(function() fence(finish) end) end end)]],
    ['close (client)'] = [[
      local conn = dial()
      conn:once('connection', function() conn:close() end)
      conn:once('close', guilty)
      server:once('connection', function(peer) peer:on('close', function() fence(finish) end) end)]],
    ['close (server)'] = [[
      local conn = dial()
      server:once('connection', function(peer) peer:on('close', guilty) end)
      conn:once('connection', function() conn:close(function() fence(finish) end) end)]],
    ['error (client)'] = [[
      local other = dtls.selfSigned()
      local conn = dial { fingerprint = other.fingerprint }
      conn:on('error', guilty)
      conn:on('close', function() fence(finish) end)]],
    ['clientError'] = [[
      server:once('clientError', guilty)
      local conn
      server:once('accept', function(peer)
        peer:on('close', function() conn:close(function() fence(finish) end) end)
        peer:destroy 'no'
      end)
      conn = dial()]],
    ['send callback'] = [[
      local conn = dial()
      conn:once('connection', function()
        conn:send('x', guilty)
        conn:once('message', function() conn:close(function() fence(finish) end) end)
      end)]],
    ['close callback'] = [[
      local conn = dial()
      conn:once('connection', function() conn:close(guilty) end)
      conn:once('close', guilty)
      server:once('connection', function(peer) peer:on('close', function() fence(finish) end) end)]],
    ['connect callback'] = [[
      local conn = dtls.connect({ host = '127.0.0.1', port = server:address().port, fingerprint = identity.fingerprint }, guilty)
      conn:on('message', function() conn:close(function() fence(finish) end) end)
      server:once('connection', function(peer) peer:send 'welcome' end)]],
    ['timeout'] = [[
      good:setTimeout(10, guilty)
      good:on('timeout', function() end)
      good:once('timeout', function() end)
      local conn = dial { timeout = 20 }
      conn:once('timeout', function() conn:close(function() fence(finish) end) end)]],
    ['listening'] = [[
      local second = dtls.createServer { cert = identity.cert, key = identity.key }
      second:on('listening', guilty)
      second:listen(0, '127.0.0.1')
      local probe = dtls.connect { host = '127.0.0.1', port = second:address().port, fingerprint = identity.fingerprint }
      probe:on('connection', function() probe:close(function() second:close(function() fence(finish) end) end) end)]],
    ['close (of the server)'] = [[
      local second = dtls.createServer { cert = identity.cert, key = identity.key }
      second:listen(0, '127.0.0.1')
      second:on('close', guilty)
      second:close()
      fence(finish)]],
  }

  for _, demux in ipairs(pair.strategies) do
    for event, script in pairs(scripts) do
      it(('that throws in %s disturbs no other connection (%s sockets)'):format(event, demux), function()
        local stdout, stderr, status = child.run(preamble:format(demux, script))
        assert.equal('end\nran dry\n', stdout, stderr)
        assert.equal(0, status)
        assert.truthy(stderr:find('oops', 1, true), stderr)
        assert.truthy(stderr:find('stack traceback', 1, true), stderr)
      end)
    end
  end

  -- Makes an open connection emit an event.
  local function provoke(event, conn)
    if event == 'close' then conn:close() end
    if event == 'error' then conn:destroy('late') end
    if event == 'timeout' then conn:setTimeout(5) end
  end

  -- Every event, and everything that an application may do inside it.
  local actions = {
    ['send'] = function(conn) conn:send 'x' end,
    ['close'] = function(conn) conn:close() end,
    ['destroy'] = function(conn) conn:destroy() end,
    ['destroy with an error'] = function(conn) conn:destroy('mine') end,
    ['close and destroy and send'] = function(conn) conn:close() conn:destroy() conn:send 'x' conn:close() end,
    ['close the server'] = function(_, server) server:close() end,
    ['destroy the server'] = function(_, server) server:destroy() end,
    ['setTimeout and unref and ref'] = function(conn) conn:setTimeout(5) conn:unref() conn:ref() end,
    ['ask for everything'] = function(conn)
      conn:stats() conn:localAddress() conn:remoteAddress() conn:getCipher() conn:getProtocol() conn:getPeerCertificate() conn:getDataMtu()
      conn:getMtu() conn:getLinkMinMtu() conn:setMtu(600) conn:setLinkMtu(600)
      conn:exportKeyingMaterial(8, 'EXPERIMENTAL')
    end,
  }

  pair.eachStrategy(function(demux)
    for name, action in pairs(actions) do
      it(('may %s inside every event of a server\'s connection'):format(name), loop.run(function()
        for _, event in ipairs { 'accept', 'connection', 'message', 'timeout', 'error', 'clientError', 'close', 'server connection' } do
          local server = pair.listening { demux = demux, handshakeTimeout = 400 * loop.patience }
          local closes, seen = nil, false
          local function act(conn)
            if seen then return end
            seen = true
            action(conn, server)
          end
          server:on('accept', function(conn)
            closes = closes or pair.record(conn, 'close')
            if event == 'accept' then return act(conn) end
            if event == 'clientError' then return conn:destroy('early') end
            conn:on(event, function() act(conn) end)
            conn:on('connection', function() provoke(event, conn) end)
          end)
          server:on('clientError', function(_, conn)
            if event == 'clientError' then act(conn) end
          end)
          server:on('connection', function(conn)
            if event == 'server connection' then act(conn) end
          end)
          local client = pair.client(server, { handshakeTimeout = 400 * loop.patience, retransmitTimeout = 50 })
          client:on('connection', function() client:send 'x' end)
          loop.till(function() return seen end, event)
          pair.close(client, server)
          loop.till(function() return #closes > 0 end, 'the close of the connection after ' .. event)
          assert.equal(1, #closes, event)
          assert.equal(0, server:stats().active)
        end
      end))

      it(('may %s inside every event of a client'):format(name), loop.run(function()
        for _, event in ipairs { 'connection', 'message', 'timeout', 'error', 'close' } do
          local server = pair.echo(pair.listening { demux = demux })
          local client = pair.client(server)
          local closes, seen = pair.record(client, 'close'), false
          client:on('connection', function()
            client:send 'x'
            provoke(event, client)
          end)
          client:on(event, function()
            if seen then return end
            seen = true
            action(client, server)
          end)
          loop.till(function() return seen end, event)
          pair.close(client, server)
          assert.equal(1, #closes, event)
        end
      end))
    end

    it('may close the server inside message while more messages wait', loop.run(function()
      local server = pair.listening { demux = demux }
      local conn, accepted = pair.open(server)
      local heard = 0
      accepted:on('message', function()
        heard = heard + 1
        server:close()
      end)
      for _ = 1, 20 do conn:send 'x' end
      loop.event(server, 'close')
      assert.equal(1, heard)
      pair.close(conn)
    end))

    it('may close the server inside clientError of an evicted handshake', loop.run(function()
      local server = pair.listening { demux = demux, maxHandshakes = 1 }
      local between = proxy.new(server, { filter = function(direction, index, data)
        if direction == 'server' or index == 1 then return data end
      end })
      local stuck = pair.client(between)
      loop.event(server, 'accept')
      local closed = pair.record(server, 'close')
      server:on('clientError', function() server:destroy() end)
      local second = pair.client(server)
      closed.wait 'close'
      assert.equal(0, server:stats().active)
      pair.close(stuck, second, between)
    end))
  end)
end)

describe('many connections, one after the other,', function()
  for _, demux in ipairs(pair.strategies) do
    it(('leave no memory allocated (%s sockets)'):format(demux), function()
      local stdout, stderr = child.run(([[
        local uv, dtls = require 'luv', require 'dtls'
        local identity = dtls.selfSigned()
        local server = dtls.createServer { cert = identity.cert, key = identity.key, demux = '%s' }
        assert(server:listen(0, '127.0.0.1'))
        server:on('connection', function(conn) conn:on('message', function(data) conn:send(data) end) end)
        local context = dtls.createContext('client', { fingerprint = identity.fingerprint })
        local count = 0
        local function measure()
          collectgarbage() collectgarbage()
          local file = io.open '/proc/self/statm'
          local _, pages = file:read('*n', '*n')
          file:close()
          print(collectgarbage 'count', pages * 4)
        end
        local function cycle()
          if count == %d or count == %d then measure() end
          if count == %d then return server:close() end
          count = count + 1
          local conn = dtls.connect { host = '127.0.0.1', port = server:address().port, context = context }
          conn:on('connection', function() conn:send 'x' end)
          conn:on('message', function() conn:close() end)
          conn:on('close', function(failed) assert(not failed) cycle() end)
        end
        cycle()
        uv.run()]]):format(demux, loop.scaled(500), loop.scaled(1500), loop.scaled(1500)))
      assert.equal('', stderr)
      local lua1, rss1, lua2, rss2 = stdout:match '(%S+)%s+(%S+)%s+(%S+)%s+(%S+)'
      assert.truthy(rss2, stdout)
      -- KB over 1000 cycles: one lost association alone would cost 40 each.
      assert.is_true(lua2 - lua1 < 100, ('Lua grew from %s to %s KB'):format(lua1, lua2))
      -- A sanitizer keeps for a while what was freed.
      assert.is_true(loop.patience > 1 or rss2 - rss1 < 4000, ('the process grew from %s to %s KB'):format(rss1, rss2))
    end)
  end
end)

describe('the loop harness', function()
  it('notices a handle that a test leaves open', function()
    local ok, err = pcall(loop.run(function() uv.new_udp() end))
    assert.is_false(ok)
    assert.truthy(tostring(err):find('left open', 1, true))
  end)
end)
