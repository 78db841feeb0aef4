--- Floods from addresses of 127/8, of which the flood (flood.c) may use any. `make flood` sends the million.

local uv = require 'luv'
local core = require 'dtls.core'
local hello = require 'spec.support.hello'
local hostile = require 'spec.support.hostile'
local interop = require 'spec.support.interop'
local loop = require 'spec.support.loop'
local needs = require('spec.support.platform').needs
local pair = require 'spec.support.pair'
local process = require 'spec.support.process'
local proxy = require 'spec.support.proxy'
local raw = require 'spec.support.raw'
local shell = require 'spec.support.shell'

local FLOOD = tonumber(os.getenv 'FLOOD_HELLOS' or nil) or 40000
local ATTEMPTS = 5
local LONG = 50000 -- ms, for what the slowest machine may take
local TURN = 128 -- datagrams that a server takes in one turn of the loop, …
local BATCH = 32 -- … and it brings a batch to its end
local OWN = 64 -- messages of a client's socket in one turn, or datagrams that lead nowhere
local STRAYS = 20 -- datagrams that a peer's socket gets in the moment it is made; a client would send them again
local PER_HANDSHAKE = 80 -- KB, more than a half-open one takes with any OpenSSL

-- Sanitizers keep what is freed, to see who still reads it, and valgrind is part of what it runs.
local weighs = not (os.getenv 'LD_PRELOAD' or ''):find 'asan' and process.UNDER == ''

-- ── the server, the flood, the clients ──

local Server = {}
Server.__index = Server

local servers

-- A test, at whose end its servers end as they should.
local function run(body)
  return interop.run(function()
    servers = {}
    body()
    for _, server in ipairs(servers) do server.child:finished(LONG) end
  end)
end

local function facts(line)
  local found = {}
  for name, value in line:gmatch '(%S+)=(%d+)' do found[name] = tonumber(value) end
  return found
end

-- The server in a process of its own. descriptors: how many it may have; all that this user may have.
local function serve(demux, options, descriptors)
  local self = setmetatable({ reports = 0, ip = '127.0.0.1' }, Server)
  self.child = process.spawn('sh', {
    process.checked(('ulimit -n %s;'):format(descriptors or '"$(ulimit -Hn)"'), process.UNDER, 'luajit',
      'spec/faults/flood_server.lua', demux, options or '{}'),
  })
  self.port, self.fingerprint = self.child:expect 'listening\t(%d+)\t(%S+)\n'
  self.port = tonumber(self.port)
  servers[#servers + 1] = self
  return self
end

-- What it has lived through, and what it costs.
function Server:report()
  self.reports = self.reports + 1
  self.child:write(self.reports .. '\n')
  return facts(self.child:expect(('report\t%d\t([^\n]*)\n'):format(self.reports), LONG))
end

-- Waits until nothing is left of any handshake.
function Server:settled()
  return loop.again(function()
    local report = self:report()
    return report.handshaking == 0 and report.unclosed == 0 and report
  end, 'the end of all handshakes', LONG)
end

function Server:client(options, between)
  return pair.client(between or self, pair.with({ fingerprint = self.fingerprint, retransmitTimeout = 200 * loop.patience }, options))
end

-- One client from its hello to its end. attempts: a client, too, may be pushed out when the machine is slow, and comes again.
-- between: the proxy that it comes through.
function Server:visit(text, attempts, between)
  local conn, events
  for _ = 1, attempts or 1 do
    conn = self:client({ handshakeTimeout = attempts and 1500 * loop.patience or nil }, between)
    events = pair.record(conn, 'connection', 'error')
    loop.till(function() return events[1] end, 'a client to be let in', LONG)
    if events[1][1] == 'connection' then break end
  end
  assert.equal('connection', events[1][1], tostring(events[1][2]))
  assert.is_true(pair.roundTrip(conn, text))
  pair.close(conn)
end

-- Starts a flood of its kind. shape: count, hosts, sockets, window, quiet
local function flood(server, kind, shape)
  return process.spawn((os.getenv 'DTLS_BUILD' or 'build') .. '/faults/flood', {
    kind, tostring(server.port), tostring(shape.count), tostring(shape.hosts or shape.count), tostring(shape.sockets or 1),
    tostring(shape.window or 64), tostring((shape.quiet or 2000) * loop.patience),
  })
end

local function result(child)
  return facts(child:expect('done ([^\n]*)\n', LONG))
end

-- A whole flood, while `meanwhile` is done again and again. Returns what the flood says and how often that was.
local function through(child, meanwhile)
  local times = 0
  while not child:printed 'done ' and child.code == nil do
    meanwhile('during the flood ' .. times)
    times = times + 1
  end
  return result(child), times
end

describe('a flood', function()
  for _, demux in ipairs(pair.strategies) do
    describe(('(%s sockets)'):format(demux), function()
      it('of hellos without a cookie leaves nothing behind, and keeps nobody out', run(function()
        local server = serve(demux)
        local kept = server:client()
        loop.event(kept, 'connection')
        local first = result(flood(server, 'hello', { count = 10000, hosts = 2500, sockets = 4, window = 512 }))
        server:visit 'before'
        local before = server:report()
        local visits = 0
        local whole, times = through(flood(server, 'hello', { count = FLOOD, hosts = FLOOD / 8, sockets = 8, window = 512 }), function(text)
          server:visit(text)
          assert.is_true(pair.roundTrip(kept, text)) -- a connection that was there
          visits = visits + 1
        end)
        local after = server:report()
        assert.is_true(times >= 3, times)
        assert.same({ visits + 2, 0 }, { after.connections, after.handshakesFailed })

        -- Each answer is smaller than its hello.
        for _, each in ipairs { first, whole } do
          assert.same({ 0, 0, 0 }, { each.larger, each.strange, each.flights })
          assert.is_true(each.answerBytes < each.sentBytes)
        end
        assert.is_true(whole.answers >= FLOOD)
        assert.is_true(after.hellos >= 10000 + FLOOD)
        assert.is_true(after.cookiesSent >= 10000 + FLOOD)
        assert.same({ 1, 1, 1 }, { after.active, after.hosts, after.unclosed })

        -- Nothing is kept, and the loop has turned all the time. The sockets of the clients get what arrives before they
        -- are connected, of what is under way.
        if weighs then
          assert.is_true(after.rss - before.rss < 1024, after.rss - before.rss)
          assert.is_true(after.peak - before.peak < 8192, after.peak - before.peak)
        end
        assert.is_true(after.mostDatagrams <= TURN + BATCH + (demux == 'connected' and 512 or 0), after.mostDatagrams)
        if os.getenv 'FLOOD_HELLOS' then
          print(('%s: %d hellos answered, %d sent (%d bytes, answers %d bytes), %.1f s of CPU in the server, RSS %d → %d KB, '
            .. '%d clients meanwhile, %d turns'):format(demux, whole.answers, whole.sent, whole.sentBytes, whole.answerBytes,
            (after.cpu - before.cpu) / 1000, before.rss, after.rss, times, after.turns - before.turns))
        end
        pair.close(kept)
      end))

      it('of hellos with a wrong cookie gets new ones, and leaves nothing behind', run(function()
        local server = serve(demux)
        result(flood(server, 'garbage', { count = 1000, window = 512 }))
        local before = server:report()
        local whole, times = through(flood(server, 'garbage', { count = 10000, hosts = 2500, sockets = 4, window = 512 }), function(text)
          server:visit(text)
        end)
        local after = server:report()
        assert.is_true(times > 0)
        assert.same({ 0, 0, 0 }, { whole.larger, whole.strange, whole.flights })
        assert.is_true(after.cookiesRefused >= 11000)
        assert.equal(times, after.accepted)
        if weighs then assert.is_true(after.rss - before.rss < 1024, after.rss - before.rss) end
      end))

      it('of clients that fall silent evicts only its own half-open handshakes, and all of them are freed', run(function()
        local CLIENTS, LIMIT, TIME = 1000, 200, 1000
        local server = serve(demux, ('{ maxHandshakes = %d, handshakeTimeout = %d }'):format(LIMIT, TIME * loop.patience))
        server:visit 'before'
        local start = server:report()
        local before
        for _ = 1, 2 do
          local silent = flood(server, 'silent', { count = CLIENTS, quiet = 500 })
          local whole, times = through(silent, function(text) server:visit(text, ATTEMPTS) end)
          local full = server:report()
          assert.is_true(times > 0)
          assert.equal(0, whole.strange) -- no alert for the evicted either
          assert.is_true(whole.flights >= CLIENTS - (demux == 'connected' and STRAYS or 0), whole.flights)
          assert.is_true(full.mostHandshakes <= LIMIT, full.mostHandshakes)
          assert.is_true(full.evicted > 0)
          if weighs then assert.is_true(full.rss - start.rss < LIMIT * PER_HANDSHAKE + 8192, full.rss - start.rss) end
          local after = server:settled()
          assert.equal(after.accepted, after.connections + after.evicted + after.handshakesTimedOut + after.handshakesFailed)
          assert.same({ 0, 0 }, { after.active, after.hosts })
          assert.equal(start.descriptors, after.descriptors)
          -- The heap needs a few rounds to find its shape; 4 KB of each client would be seen.
          if weighs and before then assert.is_true(after.rss - before.rss < CLIENTS * 4, after.rss - before.rss) end
          before = after
          silent:kill()
        end
        server:visit 'after'
      end))

      it('of handshakes from one address keeps no slow client of another one out', run(function()
        local server = serve(demux, '{ maxHandshakes = 64 }')
        local child = flood(server, 'silent', { count = 3000, hosts = 1, sockets = 500, window = 64 })
        loop.again(function() return server:report().evicted > 100 end, 'evictions', LONG)
        local between = proxy.new(server, { filter = function(_, _, data) return { { data = data, delay = 100 } } end })
        local whole, times = through(child, function(text) server:visit(text, nil, between) end)
        assert.is_true(times > 0)
        assert.equal(0, whole.strange)
        assert.equal(times, server:report().connections)
        pair.close(between)
      end))

      it('that fills maxConnections meets silence, until what it holds has timed out', run(function()
        local server = serve(demux, ('{ maxConnections = 100, handshakeTimeout = %d }'):format(1500 * loop.patience))
        local whole = result(flood(server, 'silent', { count = 600, window = 256, quiet = 100 }))
        assert.same({ 100, 0 }, { whole.flights, whole.strange })
        local full = server:report()
        assert.same({ 100, 0 }, { full.accepted, full.evicted })
        assert.is_true(full.refused >= 500 - STRAYS, full.refused)
        local after = server:settled()
        assert.same({ 0, 0, 100 }, { after.active, after.hosts, after.handshakesTimedOut })
        server:visit 'after'
      end))

      it('from a few hosts gets what maxConnectionsPerHost says, and others come in', run(function()
        local server = serve(demux, '{ maxConnectionsPerHost = 5 }')
        local whole, times = through(flood(server, 'silent', { count = 600, hosts = 6, sockets = 100, window = 256, quiet = 150 }),
          function(text) server:visit(text) end)
        assert.is_true(times > 0)
        assert.same({ 30, 0 }, { whole.flights, whole.strange })
        local full = server:report()
        assert.is_true(full.refused >= 570 - STRAYS, full.refused)
        assert.equal(30, full.handshaking)
      end))

      it('of hellos that were overheard costs an open association nothing', interop.run(function()
        local server = pair.echo(pair.listening { demux = demux, retransmitTimeout = 60000 })
        local between = proxy.new(server)
        local overheard = {}
        for i = 1, 3 do -- the same client, three times
          local conn = pair.open(server, between, { localPort = overheard.port })
          overheard.port = conn:localAddress().port
          for _, sent in ipairs(between.recorded.server) do
            if sent:byte(1) == 22 and sent:byte(14) == 1 then overheard[i] = sent end -- the last hello has the cookie
          end
          conn:destroy()
          loop.event(conn, 'close')
        end
        local conn, accepted = pair.open(server, between, { localPort = overheard.port })
        local fate = pair.record(accepted, 'error', 'close')
        local before = server:stats()
        for _ = 1, 20 do
          for _, each in ipairs(overheard) do between:inject('server', each) end
        end
        assert.is_true(pair.roundTrip(conn, 'undisturbed'))
        local during
        local function since(reason) return during.drops[reason] - (before.drops[reason] or 0) end
        loop.till(function()
          during = server:stats()
          return during.cookiesAccepted - before.cookiesAccepted == 41
        end, 'the server to have seen all')
        -- The first one begins a handshake, which it repeats afterwards; the others come within the interval.
        assert.same({ 1, 2, 1 }, { during.accepted - before.accepted, during.active, during.handshaking })
        assert.same({ 40, 19 }, { since 'pace', since 'replay' })
        assert.is_true(pair.roundTrip(conn, 'after'))
        assert.equal('', fate.names())
        pair.close(conn, server, between)
      end))
    end)
  end

  it('of clients that fall silent ends at 4096 when nobody has said where', run(function()
    local server = serve('shared', ('{ handshakeTimeout = %d }'):format(30000 * loop.patience))
    local whole, times = through(flood(server, 'silent', { count = 4300 }), function(text) server:visit(text, ATTEMPTS) end)
    local full = server:report()
    assert.is_true(times > 0)
    assert.equal(4300, whole.flights)
    assert.equal(4096, full.mostHandshakes)
    assert.is_true(full.handshaking <= 4096 and full.evicted >= 4300 - 4096, full.evicted)
    if weighs then assert.is_true(full.rss < 4096 * PER_HANDSHAKE, full.rss) end
  end))

  it('that takes all descriptors evicts its own half-open handshakes', run(function()
    local server = serve('connected', nil, 128)
    local whole, times = through(flood(server, 'silent', { count = 400, quiet = 500 }), function(text)
      server:visit(text, ATTEMPTS)
    end)
    local full = server:report()
    assert.is_true(times > 0)
    assert.is_true(whole.flights >= 400 - STRAYS, whole.flights)
    assert.same({ 0, full.accepted - full.connections }, { full.refused, full.evicted + full.handshaking })
    assert.is_true(full.handshaking > 64)
    server:visit 'after'
  end))
end)

describe('a turn of the event loop', function()
  local function endpointOf(demux)
    local udp = uv.new_udp 'inet'
    assert(udp:bind('127.0.0.1', 0))
    local context = assert(core.context('server', { cert = { pair.identity.cert }, key = { pair.identity.key } }))
    return assert(core.endpoint(context, core.fd(udp), demux)), udp
  end

  pair.eachStrategy(function(demux)
    it('takes in what it may and no more, whatever becomes of it', loop.run(function()
      local endpoint, udp = endpointOf(demux)
      local from = raw.open()
      local to = udp:getsockname()
      for _ = 1, 100 do from:send(hello.build(), to) end
      for turn = 1, 3 do
        endpoint:turn(BATCH)
        assert.same({ nil, false }, { endpoint:next() })
        assert.equal(turn * BATCH, endpoint:stats().hellos)
      end
      endpoint:turn(1) -- what came with it waits for the next turn
      assert.same({ nil, true }, { endpoint:next() })
      assert.equal(3 * BATCH + 1, endpoint:stats().hellos)
      endpoint:turn(BATCH)
      assert.same({ nil, false }, { endpoint:next() })
      assert.equal(100, endpoint:stats().hellos)
      assert.has_error(function() endpoint:turn(0) end)
      endpoint:close()
      udp:close()
      pair.close(from)
    end))

    it('that ended with something left is followed by another one', loop.run(function()
      local server = pair.listening { demux = demux }
      local endpoint, left, turns = server._endpoint, 3, 0
      server._endpoint = setmetatable({
        next = function()
          endpoint:next()
          left, turns = math.max(left - 1, 0), turns + 1
          return nil, left > 0
        end,
      }, { __index = function(_, name) return function(_, ...) return endpoint[name](endpoint, ...) end end })
      local from = raw.open()
      from:send('x', server)
      loop.till(function() return left == 0 end, 'all of it')
      server._endpoint = endpoint
      assert.equal(3, turns)
      local conn = pair.open(server)
      pair.close(conn, server, from)
    end))
  end)

  -- The most of what count() counts, between one turn and the next.
  local function most(count, done, what)
    local before, highest, prepare = count(), 0, uv.new_prepare()
    prepare:start(function()
      highest, before = math.max(highest, count() - before), count()
    end)
    loop.till(done, what)
    prepare:close()
    return highest
  end

  for _, side in ipairs { 'server', 'client' } do
    local name = ('takes so many messages from a socket of one peer and no more, and so much junk (%s)'):format(side)
    it(name, needs(side == 'server' and 'epoll', loop.run(function()
      local server = pair.listening { demux = 'connected' }
      local between = proxy.new(server)
      local conn, accepted = pair.open(server, between)
      local speaker, listener = unpack(side == 'server' and { conn, accepted } or { accepted, conn })
      local function heard() return listener:stats().messagesIn end
      local function seen() return listener:stats().datagramsIn end
      local texts, start, all = {}, seen(), side == 'server' and TURN or OWN
      between.filter = function(_, _, data) texts[#texts + 1] = data end
      for _ = 1, 200 do assert(speaker:send 'x') end
      loop.till(function() return #texts == 200 end, 'the messages')
      for i = 1, 150 do between:inject(side, texts[i]) end
      assert.equal(all, most(heard, function() return heard() == 150 end, 'all messages'))
      for _ = 1, 150 do between:inject(side, 'junk') end
      assert.equal(all, most(seen, function() return seen() == start + 300 end, 'all junk'))
      for i = 151, 200 do
        for _ = 1, 3 do between:inject(side, 'junk') end
        between:inject(side, texts[i])
      end
      assert.equal(all, most(seen, function() return seen() == start + 500 end, 'all of both'))
      assert.equal(200, heard())
      pair.close(conn, server, between)
    end)))
  end

  -- A record that only the keys can tell from a genuine one; a fragment of the message whose turn it is.
  local forged, fragment = hostile.record(23, ('x'):rep(60), { epoch = 1 }), hostile.message(2, 0, 80, 0, 1)

  -- What one call of an association takes in when more than that waits for it.
  local function takenBy(conn, method, send, datagram)
    local before = conn:stats().datagramsIn
    for _ = 1, OWN + 60 do send(datagram) end
    local _, why = conn._association[method](conn._association)
    assert.equal('want_read', why)
    return conn:stats().datagramsIn - before
  end

  it('takes in so many forged records of an open connection and no more', needs('epoll', loop.run(function()
    for _, demux in ipairs { 'connected', 'shared' } do
      local server = pair.listening { demux = demux }
      local between = proxy.new(server)
      local conn = pair.open(server, between)
      assert.equal(OWN, takenBy(conn, 'read', function(data) between:inject('client', data) end, forged))
      pair.close(conn, server, between)
    end
  end)))

  it('takes in so many fragments of a handshake and no more', loop.run(function()
    local far = raw.open()
    local conn = pair.client(far)
    conn:on('error', function() end)
    loop.till(function() return #far.inbox > 0 end, 'a hello')
    local to = conn:localAddress()
    assert.equal(OWN, takenBy(conn, 'handshake', function(data) far:send(data, to) end, fragment))
    conn:destroy()
    pair.close(far)
  end))
end)

describe('the connections of a host', function()
  -- In a network namespace, where any address may be ours. Says who of a list of addresses is let in; does not wait long for
  -- those with a minus sign, whom nobody should answer.
  local SCRIPT = [[
    local dtls, uv = require 'dtls', require 'luv'
    local identity = assert(dtls.selfSigned())
    local server = assert(dtls.createServer { cert = identity.cert, key = identity.key, maxConnectionsPerHost = 1, demux = arg[1] })
    assert(server:listen(0, '::'))
    local addresses, last = { unpack(arg, 2) }, nil
    local function visit(i)
      if not addresses[i] then return os.exit(0) end
      local unwanted, ip = addresses[i]:match '^(%%-?)(.+)$'
      local conn = assert(dtls.connect {
        host = ip:find ':' and '::1' or '127.0.0.1', port = server:address().port, localAddress = ip,
        fingerprint = identity.fingerprint, retransmitTimeout = 50, handshakeTimeout = unwanted == '-' and 150 * %d or nil,
      })
      conn:on('connection', function() print(ip, 'in') visit(i + 1) end)
      conn:on('error', function(err) print(ip, err.code) visit(i + 1) end)
    end
    visit(1)
    uv.run() ]]

  for _, demux in ipairs(pair.strategies) do
    it(('are those of its /64 with IPv6, and of its address with IPv4 (%s sockets)'):format(demux), needs('local_address', function()
      local namespace = 'unshare --user --map-root-user --net sh -ec "ip link set lo up; '
        .. 'for last in 1::1 1::2 1:ffff:ffff:ffff:ffff 2::1; do ip addr add 2001:db8:0:\\$last/128 dev lo nodad; done; %s"'
      local said, status = shell(namespace:format 'true')
      if status ~= 0 then return pending('there are no network namespaces here: ' .. said) end
      local name = os.tmpname()
      local file = assert(io.open(name, 'w'))
      file:write((SCRIPT:format(loop.patience)))
      file:close()
      local addresses = table.concat({
        '2001:db8:0:1::1', '-2001:db8:0:1::2', '-2001:db8:0:1:ffff:ffff:ffff:ffff', '2001:db8:0:2::1', '::1',
        '127.0.0.1', '127.0.0.2', '-127.0.0.1',
      }, ' ')
      -- os.exit leaves a state behind; whether something leaks is for others to say.
      local command = "LD_PRELOAD='%s' ASAN_OPTIONS=detect_leaks=0 luajit %s %s %s"
      local output = shell(namespace:format(command:format(os.getenv 'LD_PRELOAD' or '', name, demux, addresses)))
      os.remove(name)
      assert.equal(table.concat({
        '2001:db8:0:1::1\tin', '2001:db8:0:1::2\tERR_DTLS_HANDSHAKE_TIMEOUT',
        '2001:db8:0:1:ffff:ffff:ffff:ffff\tERR_DTLS_HANDSHAKE_TIMEOUT', '2001:db8:0:2::1\tin', '::1\tin',
        '127.0.0.1\tin', '127.0.0.2\tin', '127.0.0.1\tERR_DTLS_HANDSHAKE_TIMEOUT', '',
      }, '\n'), output)
    end))
  end
end)
