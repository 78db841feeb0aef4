-- Datagrams that mean harm, at every stage, to both sides, from the peer's address and from others: nothing comes of them.

local contents = require 'spec.support.contents'
local hello = require 'spec.support.hello'
local hostile = require 'spec.support.hostile'
local loop = require 'spec.support.loop'
local memory = require 'spec.support.memory'
local pair = require 'spec.support.pair'
local proxy = require 'spec.support.proxy'
local raw = require 'spec.support.raw'

local record, message = hostile.record, hostile.message
local KEY = ('k'):rep(32)
local HANDSHAKE, CLIENT_HELLO, VERIFY_REQUEST = 22, 1, 3

-- Every AEAD of the profile, and the length of its nonce and tag on the wire.
local suites = {
  { name = 'ECDHE-ECDSA-AES128-GCM-SHA256', least = 24 },
  { name = 'ECDHE-ECDSA-AES256-GCM-SHA384', least = 24 },
  { name = 'ECDHE-ECDSA-CHACHA20-POLY1305', least = 16 },
  { name = 'ECDHE-ECDSA-AES128-CCM', least = 24 },
  { name = 'ECDHE-ECDSA-AES128-CCM8', least = 16 },
  { name = 'ECDHE-ECDSA-AES256-CCM8', least = 16 },
  { name = 'PSK-AES128-GCM-SHA256', least = 24 },
  { name = 'PSK-CHACHA20-POLY1305', least = 16 },
  { name = 'PSK-AES128-CCM', least = 24 },
  { name = 'PSK-AES128-CCM8', least = 16 },
  { name = 'ECDHE-PSK-CHACHA20-POLY1305', least = 16 },
  { name = 'DHE-PSK-AES128-GCM-SHA256', least = 24 },
}

local function with_suite(suite, options)
  local psk = suite.name:find 'PSK'
  return pair.with(options, { ciphers = suite.name, psk = psk and { alice = KEY } }),
    { ciphers = suite.name, psk = psk and { identity = 'alice', key = KEY } }
end

-- What became more: {reason = by how much}.
local function difference(before, after)
  local more = {}
  for name, count in pairs(after) do
    if count ~= (before[name] or 0) then more[name] = count - (before[name] or 0) end
  end
  return more
end

local function total(counts)
  local sum = 0
  for _, count in pairs(counts) do sum = sum + count end
  return sum
end

-- An open pair behind a proxy; victims.server and victims.client are its ends.
local function opened(serverOptions, clientOptions)
  local server = pair.echo(pair.listening(serverOptions))
  local between = proxy.new(server)
  local conn, accepted = pair.open(server, between, clientOptions)
  local self = { server = server, between = between, conn = conn, victims = { server = accepted, client = conn } }
  self.events = { server = pair.record(accepted, 'error', 'close'), client = pair.record(conn, 'error', 'close') }
  function self.roundTrip(text) return pair.roundTrip(conn, text) end
  function self.close()
    assert.equal('', self.events.server.names() .. self.events.client.names())
    pair.close(conn, server, between)
  end
  return self
end

-- Injects a list into one side and says what that dropped. Nothing but the echo behind it may leave that side.
local function injected(world, victim, list)
  local conn = world.victims[victim]
  local before = conn:stats()
  for i, data in ipairs(list) do
    world.between:inject(victim, data)
    if i % 20 == 0 then world.roundTrip('on the way ' .. i) end -- no socket's buffer is to overflow
  end
  world.roundTrip 'behind them'
  local after = conn:stats()
  local echoes = math.floor(#list / 20) + 1
  assert.equal(echoes, after.messagesIn - before.messagesIn)
  assert.equal(echoes, after.datagramsOut - before.datagramsOut)
  return difference(before.drops, after.drops)
end

-- A handshake and an echo, while `disturb` decides about every datagram. Returns the drops of both ends, how often they
-- have repeated a flight, and the bytes that they have sent.
local function disturbed(disturb, serverOptions, clientOptions)
  local server = pair.echo(pair.listening(pair.with(serverOptions, { retransmitTimeout = 200 * loop.patience })))
  local between = proxy.new(server)
  between.filter = function(towards, index, data) return disturb(towards, index, data, between, server) end
  local conn, accepted = pair.open(server, between, pair.merged({ retransmitTimeout = 200 * loop.patience }, clientOptions))
  between.filter = nil
  assert.is_true(pair.roundTrip(conn, 'undisturbed'))
  local drops = { client = conn:stats().drops, server = server:stats().drops }
  local retransmits = conn:stats().retransmits + accepted:stats().retransmits
  local sent = { client = conn:stats().bytesOut, server = server:stats().bytesOut }
  pair.close(conn, server, between)
  return drops, retransmits, sent
end

local function unchanged(_, _, data) return data end

-- Each datagram towards the victim has the list before and behind it.
local function around(victim, list)
  return function(towards, _, data)
    if towards ~= victim then return data end
    local out = {}
    for _, each in ipairs(list) do out[#out + 1] = each end
    out[#out + 1] = data
    for _, each in ipairs(list) do out[#out + 1] = each end
    return out
  end
end

local classes = hostile.classes()

local SIGNATURE = 8 -- bytes by which one may be longer than another

-- ── the three stages ──

pair.eachStrategy(function(demux)
  for name, list in pairs(classes) do
    it(('a listener takes no notice of %s'):format(name), loop.run(function()
      local server = pair.echo(pair.listening { demux = demux })
      local stranger = raw.open()
      for _, data in ipairs(list) do stranger:send(data, server) end
      local conn = pair.open(server)
      assert.is_true(pair.roundTrip(conn, 'served'))
      assert.same({}, stranger.inbox)
      local stats = server:stats()
      assert.equal(1, stats.accepted)
      local too_long = 0
      for _, data in ipairs(list) do too_long = too_long + (#data > 13 + 16384 + 2048 and 1 or 0) end -- than any record
      assert.equal(too_long, stats.drops.length or 0)
      assert.equal(#list - too_long, (stats.drops.stranger or 0) + (stats.drops.hello or 0) + (stats.drops.empty or 0))
      assert.equal(#list, total(stats.drops))
      pair.close(conn, server, stranger)
    end))

    for _, victim in ipairs { 'server', 'client' } do
      it(('a handshake goes on through %s to the %s'):format(name, victim), loop.run(function()
        local _, _, usual = disturbed(unchanged, { demux = demux })
        local drops, retransmits, sent = disturbed(around(victim, list), { demux = demux })
        local reason = list.early == nil and list.reason or list.early
        if reason and reason ~= 'any' and reason ~= 'invalid' then assert.is_true((drops[victim][reason] or 0) > 0, reason) end
        -- The largest may overflow a socket's buffer, and then the network has lost a flight.
        if #table.concat(list) < 50000 then assert.equal(0, retransmits) end
        assert.is_true(sent[victim] <= usual[victim] * (1 + retransmits) + SIGNATURE, sent[victim] - usual[victim])
      end))

      it(('an open connection lives through %s to the %s'):format(name, victim), loop.run(function()
        local world = opened { demux = demux }
        local drops = injected(world, victim, list)
        if list.reason == 'any' then
          assert.is_true(total(drops) >= #list / 2)
        else
          assert.same(pair.with({ [list.reason] = list.count or #list }, list.also), drops)
        end
        assert.equal(1, world.server:stats().accepted)
        world.close()
      end))
    end

    it(('nobody else disturbs a handshake or a connection with %s'):format(name), loop.run(function()
      local third = raw.open()
      local conn
      disturbed(function(_, index, data, between, server)
        for _, each in ipairs(index < 4 and list or {}) do
          third:send(each, server)
          if between.client then third:send(each, { ip = '127.0.0.1', port = between.client.port }) end
        end
        return data
      end, { demux = demux })
      local server = pair.echo(pair.listening { demux = demux })
      conn = pair.open(server)
      for _, each in ipairs(list) do
        third:send(each, server)
        third:send(each, conn:localAddress())
      end
      assert.is_true(pair.roundTrip(conn, 'undisturbed'))
      assert.same({}, conn:stats().drops)
      assert.same({}, third.inbox)
      pair.close(conn, server, third)
    end))
  end

  it('a listener answers no hello with more bytes than it had, however many there are', loop.run(function()
    local server = pair.listening { demux = demux }
    local stranger = raw.open()
    local sent = 0
    for i = 1, 100 do
      local each = hello.build { sequence = i, random = hostile.noise(i, 32), extensions = i % 2 == 0 and '' or nil }
      sent = sent + #each
      stranger:send(each, server)
      loop.till(function() return #stranger.inbox == i end, 'the answer')
      assert.is_true(#stranger.inbox[i] <= #each)
    end
    assert.is_true(#table.concat(stranger.inbox) <= sent)
    assert.equal(0, server:stats().active)
    pair.close(server, stranger)
  end))

  it('a peer that says hello again and again gets no more bytes than it sent either', loop.run(function()
    local server = pair.listening { demux = demux, retransmitTimeout = 60000 }
    local peer = raw.open()
    hello.halfOpen(peer, server)
    for i = 1, 100 do
      local before = #peer.inbox
      local each = hello.build { sequence = 10 + i, random = hostile.noise(i, 32) }
      peer:send(each, server)
      loop.till(function() return #peer.inbox > before end, 'the answer')
      assert.equal(before + 1, #peer.inbox)
      assert.is_true(#peer.inbox[before + 1] <= #each)
    end
    assert.equal(1, server:stats().active)
    pair.close(server, peer)
  end))

  -- ── protected records that are too short ──

  for _, suite in ipairs(suites) do
    for _, victim in ipairs { 'server', 'client' } do
      it(('protected records of every length end no handshake and no connection (%s, %s)'):format(suite.name, victim), loop.run(function()
        local theirs, ours = with_suite(suite, { demux = demux })
        local all, count = {}, 0
        for _, kind in ipairs { 20, 21, 22, 23 } do
          for _, each in ipairs(hostile.undersized(kind, 40)) do all[#all + 1] = each end
        end
        disturbed(around(victim, all), theirs, ours)
        local world = opened(theirs, ours)
        assert.equal(suite.name, world.conn:getCipher().name)
        for _ = 20, 23 do count = count + suite.least - 1 end
        local long = 40 - suite.least + 1 -- so many of each type have room for nonce and tag
        -- The client read the last flight of the handshake: what may be a repeated Finished asks nothing of it.
        local finished = victim == 'client' and long > 13 and math.min(long - 13, 12) or nil
        assert.same({ length = 4, undersized = count, invalid = long, handshake = long, replay = finished }, injected(world, victim, all))
        world.close()
      end))
    end
  end

  -- ── replays, order, fragments ──

  it('a replayed datagram changes nothing, at any time', loop.run(function()
    local seen = { server = {}, client = {} }
    local _, retransmits = disturbed(function(towards, _, data)
      local out = { data }
      for _, each in ipairs(seen[towards]) do out[#out + 1] = each end
      out[#out + 1] = data
      table.insert(seen[towards], data)
      return out
    end, { demux = demux })
    assert.equal(0, retransmits)
  end))

  it('what made a connection changes nothing when it is sent again, and is counted', loop.run(function()
    local world = opened { demux = demux }
    world.roundTrip 'once'
    local up, down = { unpack(world.between.recorded.server) }, { unpack(world.between.recorded.client) }
    -- A hello (the one before it, without a cookie, gets one); ClientKeyExchange and ChangeCipherSpec; a message. Finished
    -- is a replay to libssl, which says nothing of it.
    assert.same({ replay = 1, epoch = 2, invalid = 1 }, injected(world, 'server', up))
    -- HelloVerifyRequest, which is DTLS 1.0 in name; ServerHello to ServerHelloDone, perhaps in fragments; NewSessionTicket,
    -- ChangeCipherSpec; Finished, which a client has no use for any more; a message.
    local plain = 0
    for i = 2, #down do
      for _, each in ipairs(hello.records(down[i])) do plain = plain + (each.epoch == 0 and 1 or 0) end
    end
    assert.same({ version = 1, epoch = plain, replay = 1, invalid = 1 }, injected(world, 'client', down))
    world.close()
  end))

  for name, size in pairs { ['one byte'] = 1, ['seven bytes'] = 7 } do
    for order, arrange in pairs {
      ['in order'] = function(list) return list end,
      ['in reverse'] = function(list)
        local out = {}
        for i = #list, 1, -1 do out[#out + 1] = list[i] end
        return out
      end,
      ['twice'] = function(list)
        local out = {}
        for _, each in ipairs(list) do
          out[#out + 1] = each
          out[#out + 1] = each
        end
        return out
      end,
      ['shuffled'] = function(list)
        local random = proxy.random(#list)
        for i = #list, 2, -1 do
          local j = 1 + math.floor(random() * i) % i
          list[i], list[j] = list[j], list[i]
        end
        return list
      end,
    } do
      it(('a handshake completes when each message is in fragments of %s, %s'):format(name, order), loop.run(function()
        -- The fragments of each message in datagrams of at most 40; a client's hellos and their answer as they are.
        local function fragments(each)
          local kind, sequence, length = each.body:byte(1), each.body:sub(5, 6), hello.read(each.body, 2, 3)
          local offset, list = hello.read(each.body, 7, 3), {}
          local body = each.body:sub(13)
          for at = 1, #body, size do
            local part = body:sub(at, at + size - 1)
            list[#list + 1] = record(HANDSHAKE, string.char(kind) .. hello.number(length, 3) .. sequence
              .. hello.number(offset + at - 1, 3) .. hello.number(#part, 3) .. part, { number = each.sequence })
          end
          return #body == 0 and { each.whole } or arrange(list)
        end
        local _, retransmits = disturbed(function(_, _, data)
          local out, pieces = {}, {}
          for _, each in ipairs(hello.records(data)) do
            local kind = each.epoch == 0 and each.type == HANDSHAKE and each.body:byte(1)
            local list = kind and kind ~= CLIENT_HELLO and kind ~= VERIFY_REQUEST and fragments(each) or { each.whole }
            for _, piece in ipairs(list) do pieces[#pieces + 1] = piece end
          end
          for i = 1, #pieces, 40 do out[#out + 1] = table.concat(pieces, '', i, math.min(i + 39, #pieces)) end
          return out
        end, { demux = demux })
        assert.equal(0, retransmits)
      end))
    end
  end

  it('a handshake completes when every datagram\'s records come in reverse', loop.run(function()
    local _, retransmits = disturbed(function(_, _, data)
      local out = {}
      for _, each in ipairs(hello.records(data)) do table.insert(out, 1, each.whole) end
      return #out > 0 and table.concat(out) or data
    end, { demux = demux })
    assert.is_true(retransmits <= 4) -- a ChangeCipherSpec before its turn is lost
  end))

  for kind, name in pairs { [15] = 'CertificateVerify', [16] = 'ClientKeyExchange' } do
    it(('a handshake completes at once when %s comes before all else'):format(name), loop.run(function()
      local moved = 0
      local _, retransmits = disturbed(function(_, _, data)
        local out, front = {}, {}
        for _, each in ipairs(hello.records(data)) do
          local list = each.epoch == 0 and each.type == HANDSHAKE and each.body:byte(1) == kind and front or out
          list[#list + 1] = each.whole
        end
        for i, each in ipairs(front) do
          table.insert(out, i, each)
          moved = moved + 1
        end
        return out
      end, { demux = demux, requestCert = true, fingerprint = pair.identity.fingerprint },
        { cert = pair.identity.cert, key = pair.identity.key })
      assert.equal(1, moved)
      assert.equal(0, retransmits)
    end))
  end
end)

-- ── plaintext handshake messages, which anybody can forge ──

describe('a forged handshake message before its turn', function()
  -- Of any type and number but the one that is read next.
  local function forgeries(next_sequence)
    local list = {}
    for _, kind in ipairs(hostile.types) do
      for sequence = 0, 14 do
        if sequence ~= next_sequence then
          list[#list + 1] = message(kind, sequence, kind == 14 and 0 or 8)
          list[#list + 1] = message(kind, sequence, 300, 0, 8)
          list[#list + 1] = message(kind, sequence, 90000, 89999, 1)
        end
      end
    end
    return list
  end

  -- The number that a side reads next when its n-th datagram is on its way.
  local nexts = { client = { 0, 1, 5 }, server = { nil, nil, 2 } }

  for _, victim in ipairs { 'server', 'client' } do
    for index, next_sequence in pairs(nexts[victim]) do
      it(('ends no handshake (%s, before datagram %d)'):format(victim, index), loop.run(function()
        local list = forgeries(next_sequence)
        local drops = disturbed(function(towards, number, data, between)
          if towards == victim and number == index then
            for _, each in ipairs(list) do between:inject(victim, each) end
          end
          return data
        end, nil, { mtu = 1200 })
        assert.is_true(drops[victim].handshake > 100)
      end))
    end
  end

  it('of a type that cannot be next ends no handshake', loop.run(function()
    local wrong = { client = { { 11, 12, 13, 14, 4, 20, 16, 15 }, { 11, 12, 13, 14, 4, 20, 16 }, { 2, 3, 11, 12, 13, 14, 20 } },
      server = { {}, {}, { 1, 2, 11, 15, 20, 4, 14 } } }
    disturbed(function(towards, index, data)
      local out = {}
      for _, kind in ipairs(wrong[towards][index] or {}) do
        local sequence = nexts[towards][index]
        out[#out + 1] = message(kind, sequence, kind == 14 and 0 or 8)
        out[#out + 1] = message(kind, sequence, 300, 0, 8)
      end
      out[#out + 1] = data
      return out
    end)
  end))

  it('that answers a flight which is still to come ends no handshake', loop.run(function()
    local ticket = 4
    disturbed(function(towards, index, data)
      return towards == 'client' and index == 2 and { message(ticket, nexts.client[3], 8), data } or data
    end)
  end))

  it('that goes on with a hello of another length ends no handshake', loop.run(function()
    local server, peer, failed = pair.listening(), raw.open(), nil
    server:on('clientError', function(err) failed = err end)
    local body = hello.body { cookie = (hello.cookie(peer, server)) }
    local options = { sequence = 1, messageSequence = 1, length = 90 }
    peer:send(hello.record(body, options), server)
    options.offset, options.length = 90, nil
    peer:send(hello.record(body .. 'more', options), server)
    peer:send(hello.record(body, options), server)
    loop.till(function() return failed or #peer.inbox == 2 end, 'the server\'s flight')
    assert.is_nil(failed)
    pair.close(server, peer)
  end))

  it('in front of the genuine ones, in the same datagram, does not keep them back', loop.run(function()
    local first = { client = 2, server = 3 } -- behind the hellos
    local _, retransmits = disturbed(function(towards, index, data)
      return index >= first[towards] and record(20, '\1') .. message(20, 9, 8) .. data or data
    end)
    assert.equal(0, retransmits)
  end))

  it('whose fragments disagree about its length ends no handshake', loop.run(function()
    disturbed(function(towards, index, data)
      if towards ~= 'client' or index ~= 2 then return data end
      return { message(2, 1, 100, 0, 8), message(2, 1, 101, 0, 8), message(2, 1, 99, 8, 8), data }
    end)
  end))
end)

-- ── memory ──

describe('memory does not grow with the number of hostile datagrams', function()
  local BATCH = 100 -- fits any socket's buffer
  local FEW, MANY = 10 * BATCH, 200 * BATCH -- with the few, every kind of message has had every number
  -- What one association may hold of what nobody has authenticated: what waits for its turn, and one message.
  local HELD_MAX = 200 * 1024
  local ROUNDING = 16 * 1024

  local small = {}
  for name, list in pairs(classes) do
    for i, data in ipairs(list) do
      if #data < 400 then small[#small + 1] = { key = name .. i, data = data } end
    end
  end
  table.sort(small, function(a, b) return a.key < b.key end)

  -- All classes in turn, and handshake messages of every kind with numbers that may be next.
  local function batch(n, length)
    local list = {}
    for i = n + 1, n + BATCH do
      local kind = hostile.types[i % #hostile.types + 1]
      list[#list + 1] = i % 3 > 0 and small[i % #small + 1].data
        or kind ~= CLIENT_HELLO and message(kind, math.floor(i / 14) % 16, length, i * 7 % (length - 100), 1 + i % 100) or ''
    end
    return list
  end

  local stages = {}

  function stages.listener(demux)
    local server, stranger = pair.listening { demux = demux }, raw.open()
    return {
      length = 16000, -- of a message; a server allows no more
      send = function(data) stranger:send(data, server) end,
      received = function() return server:stats().datagramsIn end,
      close = function() pair.close(server, stranger) end,
    }
  end

  function stages.handshaking_server(demux)
    local server = pair.listening { demux = demux, requestCert = true, fingerprint = pair.identity.fingerprint,
      retransmitTimeout = 60000, handshakeTimeout = 60000 * loop.patience }
    local peer, accepted = raw.open(), nil
    server:on('accept', function(conn) accepted = conn end)
    hello.halfOpen(peer, server)
    return {
      length = 16000,
      send = function(data) peer:send(data, server) end,
      received = function() return accepted:stats().datagramsIn end,
      close = function()
        assert.equal(1, server:stats().handshaking)
        pair.close(server, peer)
      end,
    }
  end

  function stages.handshaking_client(demux)
    local server = pair.listening { demux = demux, retransmitTimeout = 60000 }
    local between = proxy.new(server, { filter = function(towards, index, data)
      if towards ~= 'client' or index == 1 then return data end
      return index == 2 and hello.records(data)[1].whole or nil
    end })
    local conn = pair.client(between, { retransmitTimeout = 60000, handshakeTimeout = 60000 * loop.patience })
    local events = pair.record(conn, 'error')
    loop.till(function() return conn:stats().datagramsIn == 2 end, 'the ServerHello')
    return {
      length = 100000,
      send = function(data) between:inject('client', data) end,
      received = function() return conn:stats().datagramsIn end,
      close = function()
        assert.equal('', events.names())
        pair.close(conn, server, between)
      end,
    }
  end

  for _, victim in ipairs { 'server', 'client' } do
    stages['open_' .. victim] = function(demux)
      local world = opened { demux = demux }
      world.roundTrip 'before'
      return {
        length = 16000,
        send = function(data) world.between:inject(victim, data) end,
        received = function() return world.victims[victim]:stats().datagramsIn end,
        close = function()
          world.roundTrip 'after'
          world.close()
        end,
      }
    end
  end

  pair.eachStrategy(function(demux)
    for name, start in pairs(stages) do
      it((name:gsub('_', ' ')), function()
        if not memory.known() then return pending 'this malloc does not say how much is in use' end
        loop.run(function()
          local stage = start(demux)
          local empty, count = memory.used(), stage.received()
          local few
          for n = 0, MANY - BATCH, BATCH do
            if n == FEW then few = memory.used() end
            for _, data in ipairs(batch(n, stage.length)) do stage.send(data) end
            count = count + BATCH
            loop.till(function() return stage.received() == count end, 'a batch')
          end
          local many = memory.used()
          assert.is_true(few - empty < HELD_MAX, few - empty)
          assert.is_true(many - few < ROUNDING, many - few)
          stage.close()
        end)()
      end)
    end
  end)
end)

-- ── reasons ──

describe('what is dropped is counted', function()
  -- Reason → what is dropped for it once, by an open server. The others have tests of their own, named here.
  local once = {
    empty = '', short = 'x', type = record(99, 'x'), version = record(23, 'x', { version = '\3\3' }),
    length = record(23, 'x', { epoch = 1, length = 2 }), undersized = record(23, 'x', { epoch = 1 }),
    unprotected = record(23, 'x'), alert = record(21, '\1\0'), epoch = record(23, ('x'):rep(60), { epoch = 2 }),
    invalid = record(23, ('x'):rep(60), { epoch = 1 }),
  }
  local elsewhere = {
    handshake = 'below', early = 'below', replay = 'below', hello = 'below', stranger = 'below', queue = 'below',
    pace = 'spec/pace_spec.lua', overflow = 'spec/buffers_spec.lua',
    EAGAIN = 'host', ENOBUFS = 'host', EMSGSIZE = 'host', ECONNREFUSED = 'host', EHOSTUNREACH = 'host',
  }

  it('for every reason that there is', function()
    for name in contents 'src/base/counters.h':gmatch 'X%([A-Z]+, "(%a+)"%)' do assert.truthy(once[name] or elsewhere[name], name) end
  end)

  pair.eachStrategy(function(demux)
    for reason, data in pairs(once) do
      it(('%s, on the connection and on its server'):format(reason), loop.run(function()
        local world = opened { demux = demux }
        local before = world.server:stats().drops
        assert.same({ [reason] = 3 }, injected(world, 'server', { data, data, data }))
        assert.same({ [reason] = 3 }, difference(before, world.server:stats().drops))
        assert.same({ [reason] = 2 }, injected(world, 'client', { data, data }))
        world.close()
      end))
    end

    it('stranger, hello and replay', loop.run(function()
      local world = opened { demux = demux }
      local stranger = raw.open()
      stranger:send(record(23, 'x', { epoch = 1 }), world.server)
      stranger:send(record(22, 'x'), world.server)
      world.roundTrip 'behind them'
      assert.same({ stranger = 1, hello = 1 }, world.server:stats().drops)
      local own = world.between.recorded.server[2]
      assert.same({ replay = 3 }, injected(world, 'server', { own, own, own }))
      pair.close(stranger)
      world.close()
    end))

    it('handshake, early, replay and queue, while a handshake waits', loop.run(function()
      local server = pair.listening { demux = demux, retransmitTimeout = 20000 }
      local peer, accepted = raw.open(), nil
      server:on('accept', function(conn) accepted = conn end)
      hello.halfOpen(peer, server)
      local function dropped(...)
        local before = accepted:stats()
        for _, data in ipairs { ... } do peer:send(data, server) end
        local count = select('#', ...)
        loop.till(function() return accepted:stats().datagramsIn == before.datagramsIn + count end, 'what was sent')
        return difference(before.drops, accepted:stats().drops)
      end
      assert.same({ handshake = 3 }, dropped(message(2, 2, 8), message(15, 2, 8), message(16, 100, 8)))
      assert.same({ handshake = 1 }, dropped(message(11, 3, 32 * 1024 + 1, 0, 8))) -- more than certificates may take
      assert.same({ replay = 2 }, dropped(message(16, 1, 8), message(1, 0, 8)))
      local finished, data = record(22, ('x'):rep(24 + 24), { epoch = 1 }), record(23, ('x'):rep(40), { epoch = 1 })
      assert.same({ early = 2 }, dropped(data, record(21, ('x'):rep(26), { epoch = 1 })))
      assert.same({}, dropped(finished, record(22, ('x'):rep(24 + 13), { epoch = 1 })))
      assert.same({ handshake = 2 }, dropped(record(22, ('x'):rep(24 + 12), { epoch = 1 }), record(22, ('x'):rep(24 + 25), { epoch = 1 })))
      local ahead = {}
      for i = 1, 40 do ahead[i] = message(16, 3, 100, i, 1) end
      assert.same({ queue = 10 }, dropped(unpack(ahead))) -- 32 may wait, the two that may be Finished among them
      assert.equal('handshaking', accepted._state)
      pair.close(server, peer)
    end))

    it('queue, for bytes ahead of their turn', loop.run(function()
      local server = pair.listening { demux = demux, retransmitTimeout = 20000 }
      local peer, accepted = raw.open(), nil
      server:on('accept', function(conn) accepted = conn end)
      hello.halfOpen(peer, server)
      local before = accepted:stats().datagramsIn
      for _ = 1, 3 do peer:send(message(11, 3, 15000), server) end
      loop.till(function() return accepted:stats().datagramsIn == before + 3 end, 'what was sent')
      assert.same({ queue = 1 }, accepted:stats().drops)
      pair.close(server, peer)
    end))

    it('queue, for messages in front of a Finished', loop.run(function()
      local forged = record(23, hostile.noise(1, 1200), { epoch = 1 })
      local lost = false
      local drops = disturbed(function(towards, _, data)
        if lost or towards ~= 'client' then return data end
        local out = {}
        for _, each in ipairs(hello.records(data)) do
          out[#out + 1] = each.whole
          if each.type == 20 then
            lost = true
            for _ = 1, 40 do out[#out + 1] = forged end
            return out
          end
        end
        return data
      end, { demux = demux })
      assert.equal(40 - math.floor(32 * 1024 / #forged), drops.client.queue)
    end))
  end)
end)

