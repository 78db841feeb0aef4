local uv = require 'luv'
local hello = require 'spec.support.hello'
local loop = require 'spec.support.loop'
local pair = require 'spec.support.pair'
local proxy = require 'spec.support.proxy'
local raw = require 'spec.support.raw'
local wire = require 'spec.support.wire'

pair.each(function(demux, ip)
  local server, client

  -- A server and a plain UDP socket that talks to it.
  local function met(body, options)
    return loop.run(function()
      options = options or {}
      options.demux = demux
      server, client = pair.listening(options, ip), raw.open(ip)
      body()
      pair.close(server, client)
    end)
  end

  -- Once a new socket has its cookie, the server has processed every datagram that was sent to it before.
  local function fence()
    local other = raw.open(ip)
    hello.cookie(other, server)
    pair.close(other)
  end

  local function second(cookie, options)
    local all = { cookie = cookie, sequence = 1, messageSequence = 1 }
    for name, value in pairs(options or {}) do all[name] = value end
    return hello.build(all)
  end

  describe('a ClientHello', function()
    it('without a cookie is answered with a HelloVerifyRequest that is never longer than the hello', met(function()
      for _, options in ipairs {
        {}, { extensions = '' }, { session = ('s'):rep(32) }, { suites = '\192\43', extensions = '' },
        { extensions = hello.number(21, 2) .. hello.vector(2, ('\0'):rep(500)) },
      } do
        local before = #client.inbox
        local sent = hello.build(options)
        client:send(sent, server)
        loop.till(function() return #client.inbox > before end, 'an answer')
        local answer = client.inbox[#client.inbox]
        local request = hello.verifyRequest(answer)
        assert.truthy(request)
        assert.equal(32, #request.cookie)
        assert.is_true(#answer <= #sent, ('%d bytes for %d'):format(#answer, #sent))
      end
      assert.equal(5, server:stats().cookiesSent)
      assert.equal(5, server:stats().hellos)
      assert.equal(0, server:stats().active)
    end))

    it('of the least length is answered with a shorter datagram, and a shorter hello is not answered', met(function()
      local fixed = '\254\253' .. ('r'):rep(32)
      local least, less = hello.record(fixed .. '\0\0' .. '\0\0'), hello.record(fixed .. '\0\0' .. '\0')
      client:send(less, server)
      client:send(least, server)
      fence()
      assert.equal(1, #client.inbox)
      assert.same({ 63, 60 }, { #least, #client.inbox[1] })
      assert.same({ hello = 1 }, server:stats().drops)
    end))

    it('whose length field exceeds 32768 bytes is not answered', met(function()
      local body = hello.body()
      for _, length in ipairs { 32768, 32769, 0xffffff } do
        local fragment = wire.fragment(1, 0, length, 0, body)
        client:send(wire.record(22, 0, 0, fragment), server)
      end
      fence()
      assert.equal(1, #client.inbox)
      assert.same({ hello = 2 }, server:stats().drops)
    end))

    it('has its record sequence number echoed in the HelloVerifyRequest', met(function()
      for _, sequence in ipairs { 0, 1, 5, 255, 65536, 2 ^ 40 + 3 } do
        local _, request = hello.cookie(client, server, { sequence = sequence })
        assert.equal(sequence, request.sequence)
        assert.equal(0, request.messageSequence)
      end
    end))

    it('is understood with the record version of DTLS 1.0 and of DTLS 1.2', met(function()
      for _, version in ipairs { '\254\255', '\254\253' } do
        local _, request = hello.cookie(client, server, { recordVersion = version })
        assert.truthy(request)
      end
    end))

    it('gets the same cookie when it is repeated, and another cookie for other parameters', met(function()
      local cookie = hello.cookie(client, server)
      assert.equal(cookie, (hello.cookie(client, server)))
      assert.equal(cookie, (hello.cookie(client, server, { sequence = 1 })))
      for _, options in ipairs {
        { random = ('q'):rep(32) }, { suites = '\192\43\0\255' }, { version = '\254\255' },
      } do
        assert.not_equal(cookie, (hello.cookie(client, server, options)))
      end
      local other = raw.open(ip)
      assert.not_equal(cookie, (hello.cookie(other, server)))
      pair.close(other)
    end))

    it('with its cookie begins a handshake whose first flight echoes the record sequence number of the hello', met(function()
      local accepted = pair.record(server, 'accept')
      local cookie = hello.cookie(client, server)
      client:send(second(cookie, { sequence = 7 }), server)
      loop.till(function() return #client.inbox > 1 end, 'the server\'s flight')
      local record = hello.records(client.inbox[2])[1]
      assert.equal(22, record.type)
      assert.equal(2, record.body:byte()) -- ServerHello
      assert.equal(7, record.sequence)
      assert.equal(1, #accepted)
      assert.same(client.port, accepted[1][2]:remoteAddress().port)
      local stats = server:stats()
      assert.same({ 1, 1, 1, 0 }, { stats.cookiesSent, stats.cookiesAccepted, stats.handshaking, stats.cookiesRefused })
      accepted[1][2]:destroy()
    end))

    for _, session in ipairs { '87654321', ('s'):rep(32) } do
      it(('with its cookie and another session id, of %d bytes, begins a handshake'):format(#session), met(function()
        local cookie = hello.cookie(client, server, { session = '12345678' })
        client:send(second(cookie, { session = session }), server)
        loop.till(function() return #client.inbox > 1 end, 'the server\'s flight')
        assert.equal(2, hello.records(client.inbox[2])[1].body:byte()) -- ServerHello
        assert.equal(0, server:stats().cookiesRefused)
      end))
    end

    it('with a cookie whose secret is gone gets a new cookie, and begins a handshake with the new cookie', met(function()
      local cookie = hello.cookie(client, server)
      for number = 1, 7 do
        assert(server:setCookieSecret(tostring(number):rep(32)))
        client:send(second(cookie, { sequence = 10 * number, messageSequence = number }), server)
        loop.till(function() return #client.inbox == number + 1 end, 'another HelloVerifyRequest')
        local request = hello.verifyRequest(client.inbox[number + 1])
        assert.same({ 10 * number, number }, { request.sequence, request.messageSequence })
        assert.not_equal(cookie, request.cookie)
        cookie = request.cookie
      end
      -- Eight hellos suffice to tell a server that keeps its cookie secrets.
      client:send(second(cookie, { sequence = 90, messageSequence = 8 }), server)
      loop.till(function() return #client.inbox == 9 end, 'another HelloVerifyRequest')
      assert.equal(0, server:stats().accepted)
      client:send(second(cookie, { sequence = 91, messageSequence = 7 }), server)
      loop.till(function() return #client.inbox > 9 end, 'the server\'s flight')
      local record = hello.records(client.inbox[10])[1]
      assert.equal(2, record.body:byte())
      assert.equal(91, record.sequence)
      assert.equal(7, record.body:byte(6)) -- message_seq
      for conn in server:connections() do conn:destroy() end
    end))

    -- Sends a second hello that must not be accepted, and gets a new cookie for it.
    local function refused(from, datagram)
      local before = #from.inbox
      from:send(datagram, server)
      loop.till(function() return #from.inbox > before end, 'an answer')
      assert.truthy(hello.verifyRequest(from.inbox[#from.inbox]), 'this is no HelloVerifyRequest')
      assert.equal(0, server:stats().accepted)
      assert.equal(1, server:stats().cookiesRefused)
    end

    it('with an invented cookie is refused', met(function() refused(client, second(('c'):rep(32))) end))
    it('with a cookie that is too short is refused', met(function()
      local cookie = hello.cookie(client, server)
      refused(client, second(cookie:sub(1, 31)))
    end))
    it('with a cookie that is too long is refused', met(function()
      local cookie = hello.cookie(client, server)
      refused(client, second(cookie .. '\0'))
    end))

    it('with its cookie but the message_seq of the first hello is refused', met(function()
      local cookie = hello.cookie(client, server)
      refused(client, second(cookie, { messageSequence = 0 }))
    end))

    it('with a cookie for another port is refused', met(function()
      local cookie = hello.cookie(client, server)
      local other = raw.open(ip)
      refused(other, second(cookie))
      pair.close(other)
    end))

    if ip == '127.0.0.1' then
      it('with a cookie for another address is refused', met(function()
        local cookie = hello.cookie(client, server)
        local other = raw.open('127.0.0.2', client.port)
        refused(other, second(cookie))
        pair.close(other)
      end))
    end

    for name, change in pairs {
      random = { random = ('q'):rep(32) },
      ['choice of suites'] = { suites = '\192\43\204\168\0\255' },
      ['number of suites'] = { suites = '\192\43\0\255' },
      version = { version = '\254\255' },
    } do
      it(('with a cookie for another %s is refused'):format(name), met(function()
        local all = { session = '12345678' }
        local cookie = hello.cookie(client, server, all)
        for option, value in pairs(change) do all[option] = value end
        refused(client, second(cookie, all))
      end))
    end

    it('with another server\'s cookie is refused', met(function()
      local other = pair.listening({ demux = demux }, ip)
      local cookie = hello.cookie(client, other)
      refused(client, second(cookie))
      pair.close(other)
    end))
  end)

  describe('the cookie secret', function()
    local old, new, newest = ('1'):rep(32), ('2'):rep(32), ('3'):rep(40)

    local function accepts(cookie)
      local before = server:stats()
      client:send(second(cookie), server)
      loop.till(function() return server:stats().hellos > before.hellos end, 'the hello')
      for conn in server:connections() do conn:destroy() end
      return server:stats().cookiesAccepted > before.cookiesAccepted
    end

    it('may be shared by several servers', met(function()
      local other = pair.listening({ demux = demux, cookieSecret = old }, ip)
      local cookie = hello.cookie(client, other)
      assert.equal(cookie, (hello.cookie(client, server)))
      pair.close(other)
      assert.is_true(accepts(cookie))
    end, { cookieSecret = old }))

    it('that is current or previous is accepted, an older secret is not', met(function()
      local cookie = hello.cookie(client, server)
      assert.is_true(accepts(cookie))
      assert.is_true(server:setCookieSecret { new, old })
      assert.is_true(accepts(cookie))
      local later = hello.cookie(client, server)
      assert.not_equal(cookie, later)
      assert.is_true(accepts(later))
      assert.is_true(server:setCookieSecret { newest, new })
      assert.is_false(accepts(cookie))
      assert.is_true(accepts(later))
      assert.is_true(server:setCookieSecret(newest))
      assert.is_false(accepts(later))
    end, { cookieSecret = { old } }))

    it('that is set before listen() counts, too', met(function()
      local other = pair.server { demux = demux }
      assert.is_true(other:setCookieSecret(old))
      assert(other:listen(0, ip))
      local cookie = hello.cookie(client, { ip = ip, port = other:address().port })
      pair.close(other)
      assert.is_true(accepts(cookie))
    end, { cookieSecret = old }))

    it('may be replaced between a client\'s two hellos, and the client\'s handshake completes', met(function()
      local between = proxy.new(server)
      between.filter = function(towards, index, data)
        if towards == 'server' and index == 2 then assert(server:setCookieSecret(newest)) end
        return data
      end
      local conn, accepted = pair.open(server, between)
      local stats = server:stats()
      assert.same({ 2, 1, 1 }, { stats.cookiesSent, stats.cookiesRefused, stats.cookiesAccepted })
      assert.equal(0, conn:stats().retransmits + accepted:stats().retransmits)
      conn:on('message', function() end)
      assert(conn:send 'through')
      loop.event(accepted, 'message')
      pair.close(conn, between)
    end))

    it('must be at least 32 bytes long; a refused secret changes nothing', met(function()
      local cookie = hello.cookie(client, server)
      for _, secret in ipairs { 'short', {}, { old, 'short' }, { 'short', old } } do
        local ok, err = server:setCookieSecret(secret)
        assert.is_nil(ok)
        assert.equal('ERR_DTLS_CONFIG', err.code)
      end
      assert.is_false((pcall(server.setCookieSecret, server, 7)))
      assert.equal(cookie, (hello.cookie(client, server)))
    end))
  end)

  describe('a datagram that is no valid ClientHello', function()
    -- Sends datagrams and asserts that the server answers none of them; returns stats().drops.
    local function ignored(...)
      for _, data in ipairs { ... } do client:send(data, server) end
      fence()
      assert.same({}, client.inbox)
      local stats = server:stats()
      assert.equal(0, stats.accepted)
      assert.equal(1, stats.hellos)
      return stats.drops
    end

    it('is dropped and counted: an empty datagram', met(function()
      assert.same({ empty = 3 }, ignored('', '', ''))
    end))

    it('is dropped and counted: a few bytes, and random bytes', met(function()
      local random = proxy.random(1)
      local noise = {}
      for i = 1, 40 do
        local bytes = {}
        for j = 1, i * 5 do bytes[j] = string.char(math.floor(random() * 21)) end
        noise[i] = table.concat(bytes)
      end
      assert.same({ stranger = 42 }, ignored('x', ('\22'):rep(12), unpack(noise)))
    end))

    it('is dropped and counted: records of other content types and epochs', met(function()
      local function record(kind, epoch)
        return kind .. '\254\253' .. hello.number(epoch, 2) .. hello.number(1, 6) .. hello.vector(2, ('x'):rep(60))
      end
      assert.same({ stranger = 6 },
        ignored(record('\20', 0), record('\21', 0), record('\23', 0), record('\23', 1), record('\22', 1), record('\99', 0)))
    end))

    it('is dropped and counted: a record of another version, TLS among them', met(function()
      local whole = hello.build()
      assert.same({ hello = 3 }, ignored('\22\3\3' .. whole:sub(4), '\22\1\0' .. whole:sub(4), '\22\0\0' .. whole:sub(4)))
    end))

    it('is dropped and counted: another handshake message', met(function()
      local body = hello.body()
      assert.same({ hello = 4 }, ignored(hello.record(body, { type = 0 }), hello.record(body, { type = 2 }),
        hello.record(body, { type = 16 }), hello.record(body, { type = 20 })))
    end))

    it('is dropped and counted: a hello that ends anywhere before its suites do', met(function()
      local body = hello.body { session = 'session', extensions = '' }
      local suites_end = 2 + 32 + 1 + 7 + 1 + 2 + #hello.suites
      local cut, count = {}, 0
      for length = 0, suites_end - 1 do
        cut[#cut + 1] = hello.record(body, { length = length })
        count = count + 1
      end
      assert.same({ hello = count }, ignored(unpack(cut)))
    end))

    it('is dropped and counted: a datagram that is cut anywhere', met(function()
      local whole = hello.build()
      local cut = {}
      for length = 13, #whole - 1 do cut[#cut + 1] = whole:sub(1, length) end
      assert.same({ hello = #cut }, ignored(unpack(cut)))
    end))

    it('is dropped and counted: a later fragment of a hello', met(function()
      local body = hello.body()
      assert.same({ hello = 2 }, ignored(hello.record(body, { offset = 1 }), hello.record(body, { offset = 80 })))
    end))

    it('is dropped and counted: a hello whose lengths contradict each other', met(function()
      local body = hello.body()
      local function broken(at, byte)
        local whole = hello.build()
        return whole:sub(1, at - 1) .. string.char(byte) .. whole:sub(at + 1)
      end
      assert.same({ hello = 5 }, ignored(
        broken(12, 255),                                 -- the record's length
        broken(25, #body + 1), broken(25, #body - 1),    -- the fragment's length
        broken(13 + 12 + 35, 255),                       -- the session id's length
        broken(13 + 12 + 36, 255)))                      -- the cookie's length
    end))
  end)

  describe('a fragmented ClientHello', function()
    -- Splits a client's second hello into two datagrams, and renumbers the client's later records of epoch 0.
    local function fragmenting(cut)
      return function(direction, index, data)
        if direction ~= 'server' or index == 1 then return data end
        local out = {}
        for i, record in ipairs(hello.records(data)) do
          local message = record.body
          if index == 2 and i == 1 then
            local body = message:sub(13)
            local options = { messageSequence = hello.read(message, 5, 2), recordVersion = record.version }
            options.sequence, options.length = record.sequence, cut
            local first = hello.record(body, options)
            options.sequence, options.offset, options.length = record.sequence + 1, cut, nil
            return { first, hello.record(body, options) }
          elseif record.epoch == 0 then
            out[i] = record.whole:sub(1, 5) .. hello.number(record.sequence + 1, 6) .. record.whole:sub(12)
          else
            out[i] = record.whole
          end
        end
        return table.concat(out)
      end
    end

    for _, cut in ipairs { 90, 100, 130 } do
      it(('is accepted without a repetition (%d bytes in its first fragment)'):format(cut), met(function()
        pair.echo(server)
        local between = proxy.new(server, { filter = fragmenting(cut) })
        local conn, accepted = pair.open(server, between)
        assert.is_true(pair.roundTrip(conn, 'in pieces'))
        assert.equal(0, conn:stats().retransmits)
        assert.equal(0, accepted:stats().retransmits)
        assert.equal(1, server:stats().accepted)
        pair.close(conn, between)
      end))
    end

    it('is accepted when its fragments arrive in reverse order, at the latest with the repeated flight', met(function()
      pair.echo(server)
      local split = fragmenting(100)
      local between = proxy.new(server, { filter = function(direction, index, data)
        local out = split(direction, index, data)
        if type(out) == 'table' then return { out[2], out[1] } end
        return out
      end })
      local conn = pair.open(server, between, { retransmitTimeout = 30 })
      assert.is_true(pair.roundTrip(conn, 'in pieces'))
      pair.close(conn, between)
    end))
  end)
end)

describe('a server on the IPv6 wildcard', function()
  pair.eachStrategy(function(demux)
    it('gives each v4-mapped address cookies of its own', loop.run(function()
      local server = pair.listening({ demux = demux }, '::')
      local client, other = raw.open '127.0.0.1', raw.open '127.0.0.2'
      local target = { ip = '127.0.0.1', port = server.port }
      local cookie = hello.cookie(client, target)
      assert.not_equal(cookie, (hello.cookie(other, target)))
      other:send(hello.build { cookie = cookie, sequence = 1, messageSequence = 1 }, target)
      loop.till(function() return #other.inbox > 1 end, 'an answer')
      assert.equal(0, server:stats().accepted)
      hello.halfOpen(client, target)
      assert.equal(1, server:stats().accepted)
      pair.close(server, client, other)
    end))
  end)
end)

describe('an unverified ClientHello', function()
  for _, demux in ipairs(pair.strategies) do
    it(('leaves no memory allocated, however many hellos come (%s sockets)'):format(demux), loop.run(function()
      local server = pair.listening { demux = demux }
      local client = raw.open()
      local function flood(count)
        for i = 1, count do hello.cookie(client, server, { random = ('%032d'):format(i) }) end
      end
      local function resident()
        collectgarbage()
        collectgarbage()
        return uv.resident_set_memory() / 1024
      end
      flood(200)
      client.inbox = {}
      local before = resident()
      flood(1000)
      client.inbox = {}
      local grown = resident() - before
      -- A sanitizer keeps for a while what was freed.
      assert.is_true(loop.patience > 1 or grown < 3000, ('%d KB more after 1000 hellos'):format(grown))
      assert.equal(0, server:stats().active)
      pair.close(server, client)
    end))
  end
end)
