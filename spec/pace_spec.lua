--- What an address gets that has proved itself: one flight in a retransmission interval, whatever it sends, until it
--- completes a handshake.

local dtls = require 'dtls'
local hello = require 'spec.support.hello'
local hostile = require 'spec.support.hostile'
local loop = require 'spec.support.loop'
local pair = require 'spec.support.pair'
local proxy = require 'spec.support.proxy'
local raw = require 'spec.support.raw'
local wire = require 'spec.support.wire'

local NEVER = 60000 -- a retransmission interval that does not end in a test
local PORTS = 300 -- enough for two of them to have the same place in any table of some thousands

local function random(n) return hostile.noise(n, 32) end

-- Ten hellos, or so many, with a good cookie each, from one raw socket. The randoms are noise from `seed` on.
local function cookied(client, server, seed, count)
  local list = {}
  for i = 1, count or 10 do
    local own = random(i + (seed or 0))
    local cookie = hello.cookie(client, server, { random = own })
    list[i] = hello.build { random = own, cookie = cookie, sequence = 1, messageSequence = 1 }
  end
  return list
end

-- Everything that was sent to the server before this has been dealt with once a new socket has its cookie.
local function fence(server)
  local other = raw.open(server.ip)
  hello.cookie(other, server)
  pair.close(other)
end

pair.eachStrategy(function(demux)
  describe('an address that has proved itself', function()
    it('gets one flight for hellos with different cookies that take turns', loop.run(function()
      local server, client = pair.listening { demux = demux, retransmitTimeout = NEVER }, raw.open()
      local list = cookied(client, server)
      local sent = server:stats().bytesOut
      for _ = 1, 20 do
        for _, each in ipairs(list) do client:send(each, server) end
        fence(server)
      end
      local stats = server:stats()
      assert.equal(1, stats.accepted)
      assert.equal(1, stats.handshaking)
      -- The others, and the first one when it comes again, which is a repetition.
      assert.equal(180, stats.drops.pace)
      assert.equal(19, stats.drops.replay)
      assert.is_true(stats.bytesOut - sent < 3000, stats.bytesOut - sent)
      pair.close(server, client)
    end))

    it('gets one flight, too, when each handshake has ended before the next hello', loop.run(function()
      for how, finish in pairs {
        ['by what it sent'] = function(client, server)
          -- A ClientKeyExchange that is none.
          local body = wire.fragment(16, 2, 5, 0, '\4\1\2\3\4')
          client:send('\22\254\253' .. wire.number(0, 2) .. wire.number(5, 6) .. wire.vector(2, body), server)
        end,
        ['by the application'] = function(_, server)
          for conn in server:connections() do conn:destroy() end
        end,
      } do
        local server, client = pair.listening { demux = demux, retransmitTimeout = NEVER }, raw.open()
        local list = cookied(client, server)
        for i, each in ipairs(list) do
          client:send(each, server)
          fence(server)
          if i == 1 then
            assert.equal(1, server:stats().active, how)
            finish(client, server)
            loop.till(function() return server:stats().active == 0 end, 'the end ' .. how)
          end
        end
        local stats = server:stats()
        assert.equal(1, stats.accepted, how)
        assert.equal(9, stats.drops.pace, how)
        pair.close(server, client)
      end
    end))

    it('gets one flight whatever other ports of its host send', loop.run(function()
      local server = pair.listening { demux = demux, retransmitTimeout = NEVER, maxConnectionsPerHost = PORTS }
      local clients = {}
      for i = 1, PORTS do
        local client = raw.open()
        clients[i] = { raw = client, first = cookied(client, server, 2 * i, 1)[1], second = cookied(client, server, 2 * i + 1, 1)[1] }
        client:send(clients[i].first, server)
      end
      fence(server)
      assert.equal(PORTS, server:stats().accepted)
      for _, client in ipairs(clients) do client.raw:send(client.second, server) end
      fence(server)
      assert.equal(PORTS, server:stats().accepted)
      assert.equal(PORTS, server:stats().drops.pace)
      for _, client in ipairs(clients) do client.raw:close() end
      pair.close(server)
    end))

    it('keeps its place when it begins another handshake too early', loop.run(function()
      local server = pair.listening { demux = demux, retransmitTimeout = NEVER, maxConnectionsPerHost = 1 }
      local clients = {}
      for i = 1, 10 do
        clients[i] = raw.open()
        for _, each in ipairs(cookied(clients[i], server, 10 * i, 2)) do clients[i]:send(each, server) end
      end
      fence(server)
      local stats = server:stats()
      assert.equal(1, stats.accepted)
      assert.equal(1, stats.handshaking)
      assert.equal(18, stats.refused)
      assert.equal(1, stats.drops.pace)
      pair.close(server, unpack(clients))
    end))

    it('gets no repetition of a flight once it has begun another handshake, until it repeats the first hello', loop.run(function()
      local server, client = pair.listening { demux = demux, retransmitTimeout = 20 }, raw.open()
      local first, second = unpack(cookied(client, server, 1, 2))
      client:send(first, server)
      client:send(second, server)
      fence(server)
      assert.equal(1, server:stats().drops.pace)
      local heard = #client.inbox
      loop.till(function() return server:stats().retransmits >= 2 end, 'the time of two repetitions')
      fence(server)
      assert.equal(heard, #client.inbox)
      client:send(first, server)
      loop.till(function() return #client.inbox > heard end, 'the repetition')
      assert.equal(1, server:stats().accepted)
      pair.close(server, client)
    end))

    it('completes the handshake that it has begun, although a hello of an earlier one comes late', loop.run(function()
      local server = pair.echo(pair.listening { demux = demux, retransmitTimeout = NEVER })
      local earlier = random(1)
      local between, late
      between = proxy.new(server, { filter = function(direction, index, data)
        if direction == 'server' then
          if index == 1 then between:inject('server', hello.build { random = earlier }) end
        elseif index == 1 then
          local cookie = assert(hello.verifyRequest(data)).cookie
          late = hello.build { random = earlier, cookie = cookie, sequence = 1, messageSequence = 1 }
          return nil
        elseif index == 3 then -- the server's flight
          between:inject('server', late)
        end
        return data
      end })
      local conn = pair.open(server, between)
      pair.roundTrip(conn, 'complete')
      assert.equal(1, server:stats().drops.pace)
      assert.equal(1, server:stats().accepted)
      pair.close(conn, server, between)
    end))

    it('gets the next flight when the interval is over', loop.run(function()
      local server, client = pair.listening { demux = demux, retransmitTimeout = 50 }, raw.open()
      local list = cookied(client, server)
      loop.till(function()
        for _, each in ipairs(list) do client:send(each, server) end
        return server:stats().accepted >= 3
      end, 'three handshakes')
      local stats = server:stats()
      assert.is_true(stats.replaced >= 2)
      assert.is_true(stats.active <= 1) -- however often it begins, it holds one place
      pair.close(server, client)
    end))

    it('does not wait after a handshake that it has completed', loop.run(function()
      local server = pair.echo(pair.listening { demux = demux, retransmitTimeout = NEVER })
      local first = pair.open(server)
      local port = first:localAddress().port
      for _ = 1, 5 do
        pair.close(first)
        first = pair.open(server, nil, { localPort = port, localAddress = '127.0.0.1' })
        pair.roundTrip(first, 'again')
      end
      assert.is_nil(server:stats().drops.pace)
      pair.close(first, server)
    end))

    it('delays no handshake of another address', loop.run(function()
      local server, client = pair.echo(pair.listening { demux = demux, retransmitTimeout = NEVER }), raw.open()
      for _, each in ipairs(cookied(client, server)) do client:send(each, server) end
      local conn = pair.open(server)
      pair.roundTrip(conn, 'served')
      pair.close(conn, server, client)
    end))
  end)

  describe('a server that is full or busy', function()
    it('takes a peer that starts over in its own place, when it is full', loop.run(function()
      local server = pair.echo(pair.listening { demux = demux, maxConnections = 1, maxConnectionsPerHost = 1 })
      local first = pair.open(server)
      local again = { localAddress = '127.0.0.1', localPort = first:localAddress().port }
      first:destroy()
      local second = pair.open(server, nil, again)
      pair.roundTrip(second, 'in its place')
      assert.equal(1, server:stats().replaced)
      assert.equal(0, server:stats().refused)
      pair.close(second, server)
    end))

    it('takes nobody who starts over while it is busy', loop.run(function()
      local server = pair.echo(pair.listening { demux = demux })
      local first = pair.open(server)
      local again = { localAddress = '127.0.0.1', localPort = first:localAddress().port, retransmitTimeout = 50 }
      first:destroy()
      server:setBusy(true)
      local second = pair.client(server, again)
      loop.till(function() return server:stats().refused > 0 end, 'the refusal')
      assert.equal(1, server:stats().accepted)
      server:setBusy(false)
      loop.event(second, 'connection')
      assert.equal(1, server:stats().replaced)
      pair.close(second, server)
    end))
  end)

  describe('a device that reboots with the random that it had', function()
    it('gets a new handshake with another cookie, and its open association goes on until that is complete', loop.run(function()
      local server = pair.echo(pair.listening { demux = demux })
      local between = proxy.new(server)
      local conn, accepted = pair.open(server, between)
      pair.roundTrip(conn, 'before')
      local first, second = between.recorded.server[1], between.recorded.server[2]
      local cookie = hello.verifyRequest(between.recorded.client[1]).cookie
      local met = pair.record(server, 'accept')
      -- What the device sends after a reboot: as before, but for the cookie.
      local count = #between.recorded.client
      for _ = 1, 3 do between:inject('server', second) end -- the network's
      between:inject('server', first)
      loop.till(function() return #between.recorded.client > count end, 'the cookie')
      assert.equal(0, #met)
      local request = assert(hello.verifyRequest(between.recorded.client[count + 1]))
      assert.not_equal(cookie, request.cookie)
      local at = assert(second:find(cookie, 1, true))
      local again = second:sub(1, at - 1) .. request.cookie .. second:sub(at + #cookie)
      for _ = 1, 3 do between:inject('server', again) end
      loop.till(function() return #met == 1 end, 'the new handshake')
      for _ = 1, 3 do between:inject('server', second) end
      pair.roundTrip(conn, 'still there')
      assert.is_nil(accepted.destroyed)
      assert.equal(1, #met)
      pair.close(conn, server, between)
    end))

    it('gets a cookie also while its handshake is unfinished, and the flight repeated', loop.run(function()
      local server, client = pair.listening { demux = demux, retransmitTimeout = 100 * loop.patience }, raw.open()
      hello.halfOpen(client, server)
      local request = hello.cookie(client, server)
      local before = #client.inbox
      client:send(hello.build { cookie = request, sequence = 1, messageSequence = 1 }, server)
      loop.till(function() return #client.inbox > before end, 'the flight')
      assert.equal(1, server:stats().accepted)
      assert.equal(1, server:stats().active)
      pair.close(server, client)
    end))
  end)
end)

describe('a server', function()
  local function listening(options)
    local server = assert(dtls.createServer(pair.with(options, { cert = pair.identity.cert, key = pair.identity.key })))
    assert(server:listen(0, '127.0.0.1'))
    server.ip, server.port = '127.0.0.1', server:address().port
    return server, raw.open()
  end

  it('lets an address begin one handshake in a second when nothing is said', loop.run(function()
    local server, client = listening {}
    for _, each in ipairs(cookied(client, server)) do client:send(each, server) end
    fence(server)
    assert.equal(1, server:stats().accepted)
    pair.close(server, client)
  end))

  it('takes the interval from the function that gives its waits', loop.run(function()
    local server, client = listening { retransmitTimeout = function() return NEVER end }
    local list = cookied(client, server)
    for _, each in ipairs(list) do client:send(each, server) end
    fence(server)
    assert.equal(1, server:stats().accepted)
    pair.close(server, client)
    server, client = listening { retransmitTimeout = function() return 20 end }
    list = cookied(client, server)
    loop.till(function()
      for _, each in ipairs(list) do client:send(each, server) end
      return server:stats().accepted >= 3
    end, 'three handshakes')
    pair.close(server, client)
  end))
end)
