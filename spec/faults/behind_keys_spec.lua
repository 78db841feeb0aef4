--- A peer that has the keys of its association and means harm: whatever valid records it sends, the association works or
--- ends with an error object, and its memory is bounded.

local dtls = require 'dtls'
local loop = require 'spec.support.loop'
local memory = require 'spec.support.memory'
local pair = require 'spec.support.pair'
local proxy = require 'spec.support.proxy'
local sealed = require 'spec.support.sealed'
local wire = require 'spec.support.wire'

local ALERT, HANDSHAKE, DATA, CHANGE_CIPHER_SPEC = 21, 22, 23, 20
local WARNING, FATAL = 1, 2
local CLIENT_HELLO, FINISHED = 1, 20
local CLOSE_NOTIFY, NO_RENEGOTIATION = 0, 100

local other = { server = 'client', client = 'server' }

-- Slow tools get one of so many types, numbers and alerts: each costs a handshake.
local STEP = math.ceil(5 / loop.scaled(5))

local function number(value, size) return wire.number(value, size) end

-- A handshake message, or a fragment of one (RFC 6347 §4.2.2).
local function message(type, seq, length, offset, fragment)
  offset, fragment = offset or 0, fragment or length
  return string.char(type) .. number(length, 3) .. number(seq, 2) .. number(offset, 3) .. number(fragment, 3) .. ('\0'):rep(fragment)
end

-- An open pair behind a proxy that knows its keys. `send(type, plaintext)` seals a record of the attacker's, whom the victim
-- takes for its peer.
local function opened(victim, demux, server_options, client_options)
  local server = pair.echo(pair.listening(pair.with({ demux = demux, keylog = true }, server_options)))
  local between, lines = proxy.new(server), pair.record(server, 'keylog')
  local conn, accepted = pair.open(server, between, client_options)
  local keys = sealed.keysOf(between, lines[1][2], conn:getCipher().name)
  local self = { server = server, conn = conn, victim = victim == 'server' and accepted or conn, events = nil }
  local sequence = 2 ^ 20 -- ahead of what the genuine peer has used
  function self.record(type, plaintext)
    sequence = sequence + 1
    return sealed.record(keys, other[victim], type, 1, sequence, plaintext)
  end
  function self.send(...) between:inject(victim, self.record(...)) end
  function self.inject(data) between:inject(victim, data) end
  self.events = pair.record(self.victim, 'message', 'error', 'close')
  function self.close() pair.close(conn, server, between) end
  return self
end

-- What an application does with an error.
local function assert_error_object(err)
  assert.equal('table', type(err))
  assert.equal('string', type(err.code .. err.message))
end

-- The victim delivers a record of its peer's and answers it, or it has ended with an error object. Returns that, and whether
-- it has ended.
local function assert_works_or_ends(world)
  local victim, text = world.victim, 'delivered'
  world.send(DATA, text)
  loop.till(function()
    for _, each in ipairs(world.events) do
      if each[1] == 'close' or each[2] == text then return true end
    end
  end, 'the message or the end')
  local failed = world.events.find 'error'
  if failed then
    assert_error_object(failed[2])
    return failed[2], true
  end
  if world.events.find 'close' then return nil, true end
  assert.is_true(victim:send 'works')
  return nil, false
end

-- Name → what is sent behind a complete handshake.
local handshakes = {}
for type = 0, 24, STEP do
  handshakes[('one byte of a fragmented message of type %d'):format(type)] = { message(type, 3, 1000, 0, 1) }
  handshakes[('a message of type %d out of its turn'):format(type)] = { message(type, 9, 12) }
  for seq = 0, 6, STEP do
    handshakes[('a whole message of type %d with number %d'):format(type, seq)] = { message(type, seq, 40) }
  end
end
handshakes['fragments of eleven messages'] = {}
for seq = 0, 16 do table.insert(handshakes['fragments of eleven messages'], message(CLIENT_HELLO, seq, 16000, 0, 1)) end
handshakes['a header cut short'] = { ('\1'):rep(11), '\1' }
handshakes['a fragment longer than its message'] = { message(CLIENT_HELLO, 3, 10, 5, 20) }
handshakes['a message that is too long'] = { message(CLIENT_HELLO, 3, 0xffffff, 0, 1) }

describe('an open association, whatever handshake messages its peer sends,', function()
  pair.eachStrategy(function(demux)
    for _, victim in ipairs { 'server', 'client' } do
      it(('works or ends with an error object (%s)'):format(victim), loop.run(function()
        local ended = 0
        for name, list in pairs(handshakes) do
          local world = opened(victim, demux)
          for _, each in ipairs(list) do world.send(HANDSHAKE, each) end
          local ok, failed, over = pcall(assert_works_or_ends, world)
          assert(ok, name .. ': ' .. tostring(failed))
          assert.equal(over, failed ~= nil, name)
          if failed then ended = ended + 1 end
          world.close()
        end
        assert.is_true(ended > 0)
      end))

      it(('answers send with an error object once they have been read (%s)'):format(victim), loop.run(function()
        local world = opened(victim, demux)
        world.send(HANDSHAKE, message(CLIENT_HELLO, 3, 1000, 0, 100))
        local failed = world.events.wait 'error'[2]
        assert_error_object(failed)
        assert.equal('ERR_DTLS_PROTOCOL', failed.code)
        assert.equal('UNEXPECTED_MESSAGE', failed.reason)
        local ok, err = world.victim:send 'too late'
        assert.is_nil(ok)
        assert_error_object(err)
        world.events.wait 'close'
        world.close()
      end))
    end
  end)
end)

describe('an open association', function()
  pair.eachStrategy(function(demux)
    for _, victim in ipairs { 'server', 'client' } do
      it(('counts and ignores records without data, alone and behind each other (%s)'):format(victim), loop.run(function()
        local world = opened(victim, demux)
        world.send(DATA, '')
        world.inject(world.record(DATA, '') .. world.record(DATA, '') .. world.record(DATA, 'between') .. world.record(DATA, ''))
        assert.is_nil(assert_works_or_ends(world))
        assert.equal('between', world.events[1][2])
        assert.equal('delivered', world.events[2][2])
        -- Later libssl passes over them itself and says nothing, as of records that do not authenticate.
        assert.same({ [dtls.OPENSSL.number < 0x30200000 and 'empty' or 'invalid'] = 4 }, world.victim:stats().drops)
        world.close()
      end))

      it(('ends with an error object, or lives, at every alert (%s)'):format(victim), loop.run(function()
        local descriptions = { 0, 10, 20, 40, 80, 90, 100, 112, 115, 255 }
        for _, level in ipairs { WARNING, FATAL, 0, 255 } do
          for i = 1, #descriptions, STEP do
            local description = descriptions[i]
            local world = opened(victim, demux)
            world.send(ALERT, string.char(level, description))
            local failed, over = assert_works_or_ends(world)
            assert.equal(over and not (level == WARNING and description == CLOSE_NOTIFY), failed ~= nil)
            if level == FATAL then assert.equal('ERR_DTLS_ALERT', failed.code) end
            if failed and level == WARNING and description ~= NO_RENEGOTIATION then
              assert.equal('ERR_DTLS_ALERT', failed.code)
              assert.matches('warning alert', failed.message, 1, true)
              assert.equal('string', type(failed.alert))
            end
            world.close()
          end
        end
        for _, alert in ipairs { '', '\1', '\1\90\1', ('\1\90'):rep(10) } do
          local world = opened(victim, demux)
          world.send(ALERT, alert)
          assert_works_or_ends(world)
          world.close()
        end
      end))

      it(('drops a second ChangeCipherSpec (%s)'):format(victim), loop.run(function()
        local world = opened(victim, demux)
        world.send(CHANGE_CIPHER_SPEC, '\1')
        assert.is_nil(assert_works_or_ends(world))
        assert.same({ handshake = 1 }, world.victim:stats().drops)
        world.close()
      end))

      it(('bears any number of repeated Finished messages (%s)'):format(victim), loop.run(function()
        local world = opened(victim, demux)
        local before = world.victim:stats().datagramsOut
        for _ = 1, 40 do world.send(HANDSHAKE, message(FINISHED, 3, 12)) end
        assert.is_nil(assert_works_or_ends(world))
        local stats = world.victim:stats()
        assert.is_true(stats.drops.replay >= 40 - 12)
        -- The last flight of a full handshake, three messages, is the server's; it repeats that so often and no more. Then
        -- there is the echo, and what assert_works_or_ends sends.
        assert.is_true(stats.datagramsOut - before <= (victim == 'server' and 12 * 3 or 0) + 2, stats.datagramsOut - before)
        world.close()
      end))
    end

    it('of a client says what happened when its server repeats nothing but the header of Finished', loop.run(function()
      local world = opened('client', demux)
      for _ = 1, 20 do world.send(HANDSHAKE, message(FINISHED, 3, 12, 0, 0)) end
      local failed = assert_works_or_ends(world)
      if failed then
        assert.equal('ERR_DTLS_PROTOCOL', failed.code)
        assert.equal('TOO_MANY_FINISHED', failed.reason)
      end
      world.close()
    end))
  end)
end)

describe('an association with max_fragment_length', function()
  pair.eachStrategy(function(demux)
    for _, length in ipairs { 512, 1024, 2048, 4096 } do
      it(('of %d knows how much it may send, and sends that'):format(length), loop.run(function()
        for _, mtu in ipairs { 1228, 9000 } do
          local server = pair.echo(pair.listening { demux = demux, mtu = mtu, allowFragments = mtu == 9000 })
          local conn, accepted = pair.open(server, nil, { mtu = mtu, maxFragmentLength = length, allowFragments = mtu == 9000 })
          for _, each in ipairs { conn, accepted } do
            local limit = each:getDataMtu()
            assert.equal(math.min(length, mtu - 37), limit)
            if mtu == 9000 then limit = length end
            local ok, err = each:send(('x'):rep(limit + 1))
            assert.is_nil(ok)
            assert.equal('EMSGSIZE', err.code)
            assert.matches(tostring(limit), err.message, 1, true)
          end
          assert.is_true(pair.roundTrip(conn, ('x'):rep(conn:getDataMtu())))
          assert.is_true(conn:setMtu(600))
          assert.equal(math.min(length, 600 - 37), conn:getDataMtu())
          pair.close(conn, server)
        end
      end))
    end

    it('is asked for by a client alone, and by no other length', function()
      local _, err = dtls.createServer { cert = pair.identity.cert, key = pair.identity.key, maxFragmentLength = 512 }
      assert.equal('ERR_DTLS_CONFIG', err.code)
      _, err = dtls.createContext('client', { maxFragmentLength = 1000 })
      assert.equal('ERR_DTLS_CONFIG', err.code)
      assert.has_error(function() dtls.createContext('client', { maxFragmentLength = '512' }) end)
    end)
  end)
end)

-- ── memory ──

-- One end of a pair that waits for its peer's Finished: it has the peer's ChangeCipherSpec, and what is protected is withheld
-- until `deliver()`.
local function halfOpen(victim, demux)
  local patience = { retransmitTimeout = 100 * loop.patience, handshakeTimeout = 3000 * loop.patience }
  local server = pair.echo(pair.listening(pair.with(patience, { demux = demux })))
  local between = proxy.new(server)
  local withheld, self = true, { server = server }
  between.filter = function(towards, _, data)
    if towards ~= victim or not withheld then return data end
    local plain = {}
    for _, each in ipairs(wire.records(data)) do
      if each.epoch == 0 then plain[#plain + 1] = each.whole end
      self.ready = self.ready or each.type == CHANGE_CIPHER_SPEC
    end
    return table.concat(plain)
  end
  server:on('accept', function(accepted) self.accepted = accepted end)
  local conn = pair.client(between, pair.with(patience, { keylog = true }))
  local lines = pair.record(conn, 'keylog') -- libssl logs the secret when it writes Finished
  loop.till(function() return self.ready and lines[1] end, 'the ChangeCipherSpec')
  self.victim = victim == 'server' and self.accepted or conn
  self.events = pair.record(self.victim, 'connection', 'error', 'close')
  local keys = sealed.keysOf(between, lines[1][2], 'ECDHE-ECDSA-AES128-GCM-SHA256')
  local sequence = 2 ^ 20
  function self.record(type, plaintext)
    sequence = sequence + 1
    return sealed.record(keys, other[victim], type, 1, sequence, plaintext)
  end
  function self.inject(data) between:inject(victim, data) end
  function self.deliver() withheld = false end
  function self.close() pair.close(conn, server, between) end
  return self
end

describe('the memory of an association whose peer has the keys', function()
  local HELD_OPEN = 32 * 1024
  -- What waits for Finished, and 18.4 KB for each of eleven messages that libssl lets a peer begin at the same time.
  local HELD_HALF_OPEN = (32 + 11 * 18.4 + 8) * 1024

  -- A datagram of all that libssl might keep: fragments of messages, data, alerts.
  local function burst(world, i)
    return world.record(HANDSHAKE, message(11, 3 + i % 16, 16000, 0, 1)) ..
      world.record(HANDSHAKE, message(11, 3 + i % 16, 16000, 0, 12)) ..
      world.record(HANDSHAKE, message(11, 3 + i % 16, 32000, 0, 100)) ..
      world.record(DATA, ('x'):rep(i % 300)) .. world.record(ALERT, '\1\90')
  end

  pair.eachStrategy(function(demux)
    for _, victim in ipairs { 'server', 'client' } do
      it(('is bounded while it is open (%s)'):format(victim), loop.run(function()
        if not memory.known() then return pending 'this malloc does not say how much is in use' end
        local world = opened(victim, demux)
        local before = memory.used()
        for i = 1, 200 do
          if #world.events > 0 and world.events.find 'close' then break end
          world.inject(burst(world, i))
        end
        assert_works_or_ends(world)
        assert.is_true(memory.used() - before < HELD_OPEN, memory.used() - before)
        world.close()
      end))

      it(('is bounded while it waits for Finished, which then still is taken or refused (%s)'):format(victim), loop.run(function()
        if not memory.known() then return pending 'this malloc does not say how much is in use' end
        local world = halfOpen(victim, demux)
        local before, most = memory.used(), 0
        for i = 1, 200 do
          world.inject(burst(world, i))
          if i % 10 == 0 then
            local count = world.victim:stats().datagramsIn
            world.inject(world.record(DATA, 'a fence'))
            loop.till(function() return world.victim:stats().datagramsIn > count or world.events[1] end, 'a burst')
            most = math.max(most, memory.used() - before)
          end
        end
        world.deliver()
        loop.till(function() return world.events[1] end, 'the end of the handshake')
        if world.events[1][1] == 'error' then assert_error_object(world.events[1][2]) end
        assert.is_true(most < HELD_HALF_OPEN, most)
        world.close()
      end))
    end
  end)
end)
