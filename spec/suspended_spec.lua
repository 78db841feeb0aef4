-- A handshake that waits for an answer of the application: what is asked and when, what is kept meanwhile, and the
-- questions by hand, without an event loop.

local uv = require 'luv'
local core = require 'dtls.core'
local hello = require 'spec.support.hello'
local loop = require 'spec.support.loop'
local lookup = require 'spec.support.lookup'
local pair = require 'spec.support.pair'
local pki = require 'spec.support.pki'
local proxy = require 'spec.support.proxy'

local rsa = pki.selfSigned { type = 'rsa' }
local KEY = 'sixteen bytes, 16'
local PLAIN = 'PSK-AES128-GCM-SHA256' -- its ClientKeyExchange is the identity alone
local NEVER = 20000 -- a repetition would come after the deadline of any wait

local HANDSHAKE, CHANGE_CIPHER_SPEC = 22, 20
local VERIFY_REQUEST, NEW_TICKET, CERTIFICATE, SERVER_KEY_EXCHANGE, HELLO_DONE, KEY_EXCHANGE = 3, 4, 11, 12, 14, 16

-- ── rewriting what a proxy sees ──

-- The type of the handshake message in a record of epoch 0.
local function message_type(record)
  return record.type == HANDSHAKE and record.epoch == 0 and record.body:byte() or nil
end

-- Is it a datagram with this message?
local function has(data, kind)
  for _, record in ipairs(hello.records(data)) do
    if message_type(record) == kind then return true end
  end
  return false
end

local function with_sequence(record, sequence)
  return record.whole:sub(1, 5) .. hello.number(sequence, 6) .. record.whole:sub(12)
end

-- A fragment of a message like this record's.
local function fragment(record, body, sequence, offset, length)
  return hello.record(body, {
    type = record.body:byte(), recordVersion = record.version, sequence = sequence, messageSequence = hello.read(record.body, 5, 2),
    offset = offset, length = length,
  })
end

-- The records of a datagram, each as a datagram.
local function apart(data)
  local list = {}
  for i, record in ipairs(hello.records(data)) do list[i] = record.whole end
  return list
end

-- Every record by itself, in one direction.
local function each_apart(direction)
  return function(towards, _, data) return towards == direction and apart(data) or data end
end

-- Cuts ClientKeyExchange into fragments of so many bytes, each in a datagram; arrange(list) may change their order.
local function cut_key_exchange(size, arrange)
  return function(towards, _, data)
    if towards ~= 'server' or not has(data, KEY_EXCHANGE) then return data end
    local out, cut = {}, 0
    for _, record in ipairs(hello.records(data)) do
      if message_type(record) == KEY_EXCHANGE then
        local body, pieces = record.body:sub(13), {}
        for offset = 0, #body - 1, size do
          pieces[#pieces + 1] = fragment(record, body, record.sequence + #pieces, offset, math.min(size, #body - offset))
        end
        cut = #pieces - 1
        for _, piece in ipairs(arrange and arrange(pieces) or pieces) do out[#out + 1] = piece end
      elseif record.epoch == 0 then
        out[#out + 1] = with_sequence(record, record.sequence + cut)
      else
        out[#out + 1] = record.whole
      end
    end
    return out
  end
end

-- Another ClientKeyExchange in the place of the genuine one.
local function replace_key_exchange(body)
  return function(towards, _, data)
    if towards ~= 'server' or not has(data, KEY_EXCHANGE) then return data end
    local out = {}
    for i, record in ipairs(hello.records(data)) do
      out[i] = message_type(record) == KEY_EXCHANGE and fragment(record, body, record.sequence, 0, #body) or record.whole
    end
    return table.concat(out)
  end
end

local function reversed(list)
  local out = {}
  for i = #list, 1, -1 do out[#out + 1] = list[i] end
  return out
end

-- Records that pass the record filter and lead nowhere. Their numbers leave the genuine ones within libssl's window of 64.
local function junk(kind, number, size)
  return hello.record(('j'):rep(size or 100), { type = kind, recordVersion = '\254\253', sequence = 30 + number, messageSequence = 200 })
end

-- ── the two sides ──

-- A server with a lookup behind a proxy; `accepted` is its first connection.
local function held_server(options, filter)
  local asking = lookup.new()
  local all = { psk = asking.ask, retransmitTimeout = NEVER }
  for name, value in pairs(options or {}) do all[name] = value end
  local server = pair.echo(pair.listening(all))
  local self = { server = server, asking = asking, between = proxy.new(server, { filter = filter }) }
  self.events = pair.record(server, 'clientError')
  server:on('accept', function(conn) self.accepted = self.accepted or conn end)
  return self
end

local function dial(world, options)
  local all = { psk = { identity = 'alice', key = KEY }, retransmitTimeout = NEVER }
  for name, value in pairs(options or {}) do all[name] = value or nil end
  local conn = pair.client(world.between, all)
  return conn, pair.record(conn, 'connection', 'error', 'close')
end

local function question(world)
  loop.till(function() return #world.asking.asked > 0 end, 'the question')
  return world.asking.asked[1][1]
end

-- The answer comes, and all goes well without a repetition.
local function complete(world, conn, its, ...)
  world.asking.answer(1, ...)
  its.wait 'connection'
  pair.roundTrip(conn, 'complete')
  assert.equal(1, #world.asking.asked)
  assert.equal(0, conn:stats().retransmits)
  assert.equal(0, world.server:stats().retransmits)
end

local function finish(world, conn)
  pair.close(conn, world.server, world.between)
end

pair.eachStrategy(function(demux)
  describe('a server\'s question', function()
    it('has the whole identity when ClientKeyExchange is in several datagrams', loop.run(function()
      local identity = ('i'):rep(200)
      local world = held_server { demux = demux }
      local conn, its = dial(world, { psk = { identity = identity, key = KEY }, mtu = 256 })
      assert.equal(identity, question(world))
      local fragments = 0
      for _, data in ipairs(world.between.recorded.server) do
        for _, record in ipairs(hello.records(data)) do
          if message_type(record) == KEY_EXCHANGE then
            fragments = fragments + 1
            assert.is_true(hello.read(record.body, 10, 3) < hello.read(record.body, 2, 3))
          end
        end
      end
      assert.is_true(fragments >= 2)
      complete(world, conn, its, KEY)
      assert.equal(identity, world.accepted.pskIdentity)
      finish(world, conn)
    end))

    for name, arrange in pairs {
      ['in their order'] = function(list) return list end,
      ['in reverse order'] = reversed,
      ['twice, the first one last'] = function(list)
        local out = {}
        for i = 2, #list do
          out[#out + 1] = list[i]
          out[#out + 1] = list[i]
        end
        out[#out + 1] = list[1]
        out[#out + 1] = list[1]
        return out
      end,
    } do
      for suite, size in pairs { [PLAIN] = 1, ['ECDHE-PSK-CHACHA20-POLY1305'] = 3 } do
        it(('has the identity when fragments of %d bytes come %s (%s)'):format(size, name, suite), loop.run(function()
          local world = held_server({ demux = demux }, cut_key_exchange(size, arrange))
          local conn, its = dial(world, { ciphers = suite })
          assert.equal('alice', question(world))
          complete(world, conn, its, KEY)
          assert.equal('alice', world.accepted.pskIdentity)
          finish(world, conn)
        end))
      end
    end

    it('keeps the rest of the flight, which then needs no repetition', loop.run(function()
      local world = held_server({ demux = demux }, each_apart 'server')
      local conn, its = dial(world)
      assert.equal('alice', question(world))
      -- The hello with its cookie, ClientKeyExchange, ChangeCipherSpec, Finished.
      loop.till(function() return world.accepted:stats().datagramsIn == 4 end, 'the whole flight')
      assert.equal('', its.names())
      complete(world, conn, its, KEY)
      finish(world, conn)
    end))

    it('keeps what comes before the last fragment, too', loop.run(function()
      -- The identity is complete with the first half; the point of the exchange is in the second.
      local world = held_server({ demux = demux }, cut_key_exchange(20))
      local conn, its = dial(world, { groups = 'X25519' }) -- a point of 32 bytes
      assert.equal('alice', question(world))
      loop.till(function() return world.accepted:stats().datagramsIn == 5 end, 'the whole flight')
      complete(world, conn, its, KEY)
      finish(world, conn)
    end))

    it('keeps no more than 32 datagrams, and the first of them are enough', loop.run(function()
      local world = held_server { demux = demux }
      local conn, its = dial(world)
      question(world)
      for i = 1, 60 do world.between:inject('server', junk(KEY_EXCHANGE, i)) end
      loop.till(function() return world.accepted:stats().datagramsIn == 2 + 60 end, 'the flood')
      assert.equal(60 - 31, world.accepted:stats().drops.queue)
      assert.equal(60 - 31, world.server:stats().drops.queue)
      complete(world, conn, its, KEY)
      finish(world, conn)
    end))

    it('keeps no more than 32 KB, once and again', loop.run(function()
      local names = lookup.new()
      local world = held_server { demux = demux, SNICallback = names.ask }
      local conn, its = dial(world, { servername = 'one.example' })
      local before, floods = 1, 0
      local function flood()
        for i = 1, 5 do world.between:inject('server', junk(CERTIFICATE, floods * 5 + i, 10000)) end
        floods = floods + 1
        loop.till(function() return world.accepted:stats().datagramsIn == before + 5 end, 'the flood')
        assert.equal(floods * 2, world.accepted:stats().drops.queue)
        assert.equal(floods * 2, world.server:stats().drops.queue)
      end
      loop.till(function() return #names.asked > 0 end, 'the question about the name')
      flood()
      names.answer(1)
      question(world)
      before = world.accepted:stats().datagramsIn
      flood()
      complete(world, conn, its, KEY)
      finish(world, conn)
    end))

    it('recovers when a flood took the place of the flight', loop.run(function()
      local flooded = false
      local world = held_server({ demux = demux }, function(towards, _, data)
        if towards ~= 'server' or flooded or not has(data, KEY_EXCHANGE) then return data end
        return apart(data)[1]
      end)
      local conn, its = dial(world, { retransmitTimeout = 200 })
      question(world)
      for i = 1, 60 do world.between:inject('server', junk(KEY_EXCHANGE, i)) end
      flooded = true
      loop.till(function() return conn:stats().retransmits > 0 and world.accepted:stats().datagramsIn >= 2 + 60 + 1 end, 'a repetition')
      world.asking.answer(1, KEY)
      its.wait 'connection'
      pair.roundTrip(conn, 'recovered')
      assert.equal(1, #world.asking.asked)
      finish(world, conn)
    end))

    it('delays no other peer\'s handshake', loop.run(function()
      local world = held_server { demux = demux }
      local first, its = dial(world)
      question(world)
      local second, others = dial(world, { psk = { identity = 'bob', key = KEY } })
      loop.till(function() return #world.asking.asked == 2 end, 'the second question')
      assert.equal('bob', world.asking.asked[2][1])
      world.asking.answer(2, KEY)
      others.wait 'connection'
      pair.roundTrip(second, 'the second')
      assert.equal('', its.names())
      world.asking.answer(1, KEY)
      its.wait 'connection'
      pair.roundTrip(first, 'the first')
      pair.close(first, second, world.server, world.between)
    end))

    it('is about the message that is next, whatever else claims to be one', loop.run(function()
      local forged = hello.record(hello.vector(2, 'mallory'), {
        type = KEY_EXCHANGE, recordVersion = '\254\253', sequence = 20, messageSequence = 200,
      })
      local world = held_server({ demux = demux }, function(towards, _, data)
        return towards == 'server' and has(data, KEY_EXCHANGE) and { forged, data } or data
      end)
      local conn, its = dial(world)
      assert.equal('alice', question(world))
      complete(world, conn, its, KEY)
      finish(world, conn)
    end))

    -- The whole message is what libssl reads; the fragment before it says something else.
    it('gives its answer to the identity that was asked for alone', loop.run(function()
      local world = held_server({ demux = demux }, function(towards, _, data)
        if towards ~= 'server' or not has(data, KEY_EXCHANGE) then return data end
        local genuine = hello.records(data)[1]
        return fragment(genuine, '\0\7mallory' .. ('x'):rep(300), 20, 0, 9) .. data
      end)
      local conn, its = dial(world, { ciphers = PLAIN, retransmitTimeout = 100 })
      assert.equal('mallory', question(world))
      world.asking.answer(1, KEY)
      assert.equal('ERR_DTLS_PSK_IDENTITY', world.events.wait('clientError')[2].code)
      assert.equal('unknown_psk_identity', its.wait('error')[2].alert)
      finish(world, conn)
    end))

    it('is asked once, although the client repeats its flight to an open connection', loop.run(function()
      local lost = false
      local world = held_server({ demux = demux }, function(towards, _, data)
        for _, record in ipairs(hello.records(data)) do
          if towards == 'client' and record.type == CHANGE_CIPHER_SPEC and not lost then
            lost = true
            return nil
          end
        end
        return data
      end)
      local opened = pair.record(world.server, 'connection')
      local conn, its = dial(world, { retransmitTimeout = 300 })
      question(world)
      world.asking.answer(1, KEY)
      opened.wait 'connection'
      assert.equal('', its.names())
      its.wait 'connection'
      pair.roundTrip(conn, 'open on both sides')
      assert.equal(1, #world.asking.asked)
      finish(world, conn)
    end))

    it('keeps the server from repeating its own flight', loop.run(function()
      local world = held_server { demux = demux, retransmitTimeout = 400 }
      local conn, its = dial(world, { retransmitTimeout = function() return 150 end })
      question(world)
      local before = world.server:stats().retransmits
      loop.till(function() return conn:stats().retransmits >= 6 end, 'six repetitions by the client')
      assert.equal(before, world.server:stats().retransmits)
      world.asking.answer(1, KEY)
      its.wait 'connection'
      finish(world, conn)
    end))

    it('leaves a client that starts over to the server, also when the answer is what finds it', loop.run(function()
      local world = held_server { demux = demux }
      local conn, its = dial(world)
      question(world)
      local function requests()
        local count = 0
        for _, data in ipairs(world.between.recorded.client) do count = count + (hello.verifyRequest(data) and 1 or 0) end
        return count
      end
      assert.equal(1, requests())
      world.between:inject('server', hello.build()) -- it is there before the loop has turned
      world.asking.answer(1, KEY)
      loop.till(function() return requests() == 2 end, 'a HelloVerifyRequest for the new hello')
      its.wait 'connection'
      pair.roundTrip(conn, 'the old one')
      finish(world, conn)
    end))

    it('may be about an identity of 256 bytes, and about an empty one', loop.run(function()
      for _, identity in ipairs { ('i'):rep(256), '' } do
        local world = held_server({ demux = demux }, replace_key_exchange(hello.vector(2, identity)))
        local conn = dial(world, { ciphers = PLAIN })
        assert.equal(identity, question(world))
        conn:destroy()
        finish(world, conn)
      end
      local world = held_server { demux = demux }
      local conn, its = dial(world, { psk = { identity = '', key = KEY } })
      assert.equal('', question(world))
      complete(world, conn, its, KEY)
      assert.equal('', world.accepted.pskIdentity)
      finish(world, conn)
    end))

    -- RFC 4279 §5.1; libssl ends an identity at its first NUL.
    for _, identity in ipairs { 'alice\0evil', '\0', '\0\0\0\0\0\0\0\1', 'alice\0', ('\0'):rep(256) } do
      it(('has all bytes of an identity with NULs: %q'):format(identity:gsub('%z', '\\0'):sub(1, 20)), loop.run(function()
        local world = held_server({ demux = demux }, replace_key_exchange(hello.vector(2, identity)))
        local conn = dial(world, { ciphers = PLAIN })
        assert.equal(identity, question(world))
        world.asking.answer(1, KEY)
        loop.till(function() return world.accepted.pskIdentity end, 'libssl to read it')
        assert.equal(identity, world.accepted.pskIdentity)
        conn:destroy()
        finish(world, conn)
      end))
    end

    -- Only the first libssl reads; the fragment before it is forged.
    it('gives no key to another identity that is the same up to a NUL', loop.run(function()
      local world = held_server({ demux = demux }, function(towards, _, data)
        if towards ~= 'server' or not has(data, KEY_EXCHANGE) then return data end
        local genuine = hello.records(data)[1]
        return fragment(genuine, '\0\7alice\0A' .. ('x'):rep(300), 20, 0, 9) .. data
      end)
      local conn, its = dial(world, { ciphers = PLAIN, retransmitTimeout = 100 })
      assert.equal('alice\0A', question(world))
      world.asking.answer(1, KEY)
      assert.equal('ERR_DTLS_PSK_IDENTITY', world.events.wait('clientError')[2].code)
      assert.equal('unknown_psk_identity', its.wait('error')[2].alert)
      finish(world, conn)
    end))

    -- The key of such an exchange has a length in front, as an identity has.
    it('is not asked for a suite with a certificate', loop.run(function()
      local suite = 'DHE-RSA-AES128-GCM-SHA256'
      local world = held_server({ demux = demux, cert = rsa.cert, key = rsa.key, ciphers = suite },
        replace_key_exchange(hello.vector(2, ('x'):rep(256))))
      local conn = dial(world, { psk = false, fingerprint = rsa.fingerprint, ciphers = suite })
      loop.till(function() return world.accepted and world.accepted:stats().datagramsIn == 2 end, 'ClientKeyExchange')
      assert.equal(0, #world.asking.asked)
      conn:destroy()
      finish(world, conn)
    end))

    for name, case in pairs {
      ['an identity of 257 bytes'] = { '\1\1' .. ('i'):rep(257), 'ERR_DTLS_PROTOCOL', 'decode_error' },
      ['an identity longer than its message'] = { '\0\6alice', 'ERR_DTLS_PROTOCOL', 'decode_error' },
      ['half a length'] = { '\0', 'ERR_DTLS_PROTOCOL', 'decode_error' },
      ['no ClientKeyExchange inside'] = { '', 'ERR_DTLS_PROTOCOL', 'decode_error' },
    } do
      it('is not asked for ' .. name, loop.run(function()
        local world = held_server({ demux = demux }, replace_key_exchange(case[1]))
        local conn, its = dial(world, { ciphers = PLAIN, retransmitTimeout = 100 })
        assert.equal(case[2], world.events.wait('clientError')[2].code)
        assert.equal(case[3], its.wait('error')[2].alert)
        assert.equal(0, #world.asking.asked)
        finish(world, conn)
      end))
    end

    for name, arrange in pairs {
      ['behind'] = function(whole, claim) return whole .. claim end,
      ['before'] = function(whole, claim) return claim .. whole end,
    } do
      it(('is about no more bytes than came: a fragment %s ClientKeyExchange claims an identity of 65535'):format(name), loop.run(function()
        local done = false
        local world = held_server({ demux = demux }, function(towards, _, data)
          if towards ~= 'server' or done or not has(data, KEY_EXCHANGE) then return data end
          done = true
          local record = hello.records(data)[1]
          return arrange(record.whole, fragment(record, '\255\255' .. ('i'):rep(998), 40, 0, 2))
        end)
        local conn = dial(world, { ciphers = PLAIN })
        loop.till(function() return world.asking.asked[1] or world.events.find 'clientError' end, 'the server to go on')
        for _, asked in ipairs(world.asking.asked) do assert.is_true(#asked[1] <= 256) end
        local before = #world.asking.asked
        assert.is_true(before <= 1)
        local second, its = dial(world, { psk = { identity = 'bob', key = KEY } })
        loop.till(function() return #world.asking.asked == before + 1 end, 'the next question')
        assert.equal('bob', world.asking.asked[before + 1][1])
        world.asking.answer(before + 1, KEY)
        its.wait 'connection'
        pair.roundTrip(second, 'well')
        pair.close(conn, second, world.server, world.between)
      end))
    end

    it('is about the ClientKeyExchange that libssl will read: others, by their numbers, do not use it up', loop.run(function()
      for _, number in ipairs { 0, 1, 3, 200, 65535 } do
        local done = false
        local world = held_server({ demux = demux }, function(towards, _, data)
          if towards ~= 'server' or done or not has(data, KEY_EXCHANGE) then return data end
          done = true
          local forged = hello.record(hello.vector(2, 'mallory'), { type = KEY_EXCHANGE, sequence = 40, messageSequence = number })
          return { forged, data }
        end)
        local conn, its = dial(world, { ciphers = PLAIN })
        assert.equal('alice', question(world))
        complete(world, conn, its, KEY)
        assert.equal('alice', world.accepted.pskIdentity)
        finish(world, conn)
      end
    end))

    it('leaves nothing behind when its connection ends', loop.run(function()
      for _, method in ipairs { 'destroy', 'close' } do
        local world = held_server({ demux = demux }, each_apart 'server')
        local conn = dial(world)
        question(world)
        loop.till(function() return world.accepted:stats().datagramsIn == 4 end, 'the whole flight')
        world.accepted[method](world.accepted)
        world.asking.answer(1, KEY)
        assert.equal(0, world.server:stats().active)
        conn:destroy()
        finish(world, conn)
      end
    end))
  end)
end)

-- ── a client's question ──

-- A server with a hint behind a proxy, and a client with a lookup.
local function held_client(filter, options)
  local all = { psk = { alice = KEY }, pskIdentityHint = 'the hint', retransmitTimeout = NEVER }
  for name, value in pairs(options or {}) do all[name] = value end
  local server = pair.echo(pair.listening(all))
  local world = { server = server, asking = lookup.new(), between = proxy.new(server, { filter = filter }) }
  local conn, its = dial(world, { psk = world.asking.ask, ciphers = all.ciphers })
  return world, conn, its
end

-- Changes the records of the server's first flight as a list; what comes later passes.
local function first_flight(change)
  local done = false
  return function(towards, _, data)
    if towards ~= 'client' or done or not has(data, HELLO_DONE) then return data end
    done = true
    return change(apart(data))
  end
end

describe('a client\'s question', function()
  for _, suite in ipairs { 'ECDHE-PSK-CHACHA20-POLY1305', PLAIN } do
    it(('has the hint when every message is in a datagram of its own (%s)'):format(suite), loop.run(function()
      local world, conn, its = held_client(each_apart 'client', { ciphers = suite })
      assert.equal('the hint', question(world))
      complete(world, conn, its, 'alice', KEY)
      finish(world, conn)
    end))

    for name, change in pairs {
      ['ServerHelloDone comes before ServerKeyExchange'] = function(list) return { list[1], list[3], list[2] } end,
      ['ServerHelloDone comes first'] = reversed,
      ['ServerKeyExchange is lost'] = function(list) return { list[1], list[3] } end,
      ['ServerHello is lost'] = function(list) return { list[2], list[3] } end,
    } do
      it(('has the hint when %s (%s)'):format(name, suite), loop.run(function()
        local world, conn, its = held_client(first_flight(change), { ciphers = suite, retransmitTimeout = 200 })
        assert.equal('the hint', question(world))
        world.asking.answer(1, 'alice', KEY)
        its.wait 'connection'
        pair.roundTrip(conn, 'in order again')
        assert.equal(1, #world.asking.asked)
        finish(world, conn)
      end))
    end

    -- RFC 6347 §4.2.3: a record may have several messages.
    it(('has the hint when the flight is one record, always (%s)'):format(suite), loop.run(function()
      local messages, records = '', 0
      local world, conn, its = held_client(function(towards, _, data)
        if towards ~= 'client' then return data end
        local out = {}
        for _, record in ipairs(hello.records(data)) do
          local kind = message_type(record)
          if not kind or kind == VERIFY_REQUEST or kind == NEW_TICKET then
            out[#out + 1] = record.whole
          else
            messages = messages .. record.body
            if kind == HELLO_DONE then
              out[#out + 1] = record.whole:sub(1, 11) .. hello.vector(2, messages)
              messages, records = '', records + 1
            end
          end
        end
        return out
      end, { ciphers = suite, retransmitTimeout = 200 })
      assert.equal('the hint', question(world))
      assert.equal(1, records)
      world.asking.answer(1, 'alice', KEY)
      its.wait 'connection'
      pair.roundTrip(conn, 'in one record')
      finish(world, conn)
    end))
  end

  it('about a certificate holds all that comes behind it, a ChangeCipherSpec before its turn among it', loop.run(function()
    local behind
    local server = pair.echo(pair.listening { retransmitTimeout = NEVER })
    local world = { server = server, asking = lookup.new(), between = proxy.new(server, { filter = first_flight(function(list)
      behind = { unpack(list, 3) }
      return { list[1], list[2] } -- ServerHello, Certificate
    end) }) }
    local conn, its = dial(world, {
      psk = false, ca = pair.identity.cert, servername = 'localhost', checkServerIdentity = world.asking.ask,
    })
    question(world)
    local before = conn:stats().datagramsIn
    world.between:inject('client', '\20\254\253' .. hello.number(0, 2) .. hello.number(40, 6) .. hello.vector(2, '\1'))
    for _, each in ipairs(behind) do world.between:inject('client', each) end
    loop.till(function() return conn:stats().datagramsIn == before + 1 + #behind end, 'the rest of the flight')
    complete(world, conn, its, nil)
    finish(world, conn)
  end))

  it('keeps no more than 32 datagrams, and the first of them are enough', loop.run(function()
    local world, conn, its = held_client()
    question(world)
    local before = conn:stats().datagramsIn
    for i = 1, 60 do world.between:inject('client', junk(SERVER_KEY_EXCHANGE, i)) end
    loop.till(function() return conn:stats().datagramsIn == before + 60 end, 'the flood')
    assert.equal(60 - 31, conn:stats().drops.queue)
    complete(world, conn, its, 'alice', KEY)
    finish(world, conn)
  end))

  it('leaves nothing behind when its connection ends', loop.run(function()
    for _, method in ipairs { 'destroy', 'close' } do
      local world, conn = held_client()
      question(world)
      local before = conn:stats().datagramsIn
      for i = 1, 5 do world.between:inject('client', junk(SERVER_KEY_EXCHANGE, i)) end
      loop.till(function() return conn:stats().datagramsIn == before + 5 end, 'what is kept')
      conn[method](conn)
      world.asking.answer(1, 'alice', KEY)
      finish(world, conn)
    end
  end))
end)

-- ── by hand ──

describe('by hand', function()
  local identity = assert(core.self_signed {})
  local sockets, objects, endpoint, port, server_socket

  local function socket()
    local udp = uv.new_udp()
    sockets[#sockets + 1] = udp
    assert(udp:bind('127.0.0.1', 0))
    return udp
  end

  local function context(role, options)
    local all = {
      groups = 'X25519:P-256', sigalgs = 'ECDSA+SHA256', ciphers = 'ECDHE-PSK-CHACHA20-POLY1305:ECDHE-ECDSA-AES128-GCM-SHA256',
      cert = role == 'server' and { identity.cert } or nil, key = role == 'server' and { identity.key } or nil,
    }
    for name, value in pairs(options or {}) do all[name] = value end
    return assert(core.context(role, all))
  end

  local function listen(options, asks)
    server_socket = socket()
    port = server_socket:getsockname().port
    endpoint = assert(core.endpoint(context('server', options), core.fd(server_socket), 'shared', asks))
    objects[#objects + 1] = endpoint
  end

  local function client(options, extra)
    local udp = socket()
    assert(udp:connect('127.0.0.1', port))
    local made = assert(core.client(context('client', options), core.fd(udp), extra))
    objects[#objects + 1] = made
    return made, udp
  end

  local accepted -- the association that the server made last

  -- The server reads all there is; what its association's last handshake() said.
  local function serve()
    local said
    endpoint:turn(1000)
    while true do
      local kind, subject = endpoint:next()
      if kind == 'hello' then
        accepted = assert(endpoint:accept())
        objects[#objects + 1] = accepted
        accepted:set_owner(accepted)
        subject = accepted
      elseif kind ~= 'handshake' then
        return unpack(said or { nil }, 1, 4)
      end
      said = { subject:handshake() }
    end
  end

  -- Runs the client's handshake and the server's until the client says something else than 'want_read'.
  local function until_asked(made)
    for _ = 1, 5 do
      local said = { made:handshake() }
      if said[2] ~= 'want_read' then return unpack(said, 1, 4) end
      serve()
    end
    error 'the client was never asked'
  end

  -- The same until the server says something else.
  local function until_server_asked(made)
    for _ = 1, 5 do
      made:handshake()
      local said = { serve() }
      if said[2] ~= nil and said[2] ~= 'want_read' then return unpack(said, 1, 4) end
    end
    error 'the server was never asked'
  end

  local function raises(what, method, object, ...)
    local ok, err = pcall(object[method], object, ...)
    assert.is_false(ok, method)
    assert.matches(what, err)
  end

  -- No question of these kinds is open.
  local function unasked(object, ...)
    for _, method in ipairs { ... } do raises('nothing of the kind was asked', method, object, 'internal_error', 'x') end
  end

  before_each(function() sockets, objects, accepted = {}, {}, nil end)

  after_each(function()
    for i = #objects, 1, -1 do objects[i]:close() end
    for _, udp in ipairs(sockets) do udp:close() end
    uv.run()
  end)

  it('both sides ask for a key, wait, and go on', function()
    listen { psk = true, psk_hint = 'the hint' }
    local made = client { psk = true, ciphers = 'ECDHE-PSK-CHACHA20-POLY1305' }
    assert.same({ nil, 'ask_psk', 'the hint' }, { until_asked(made) })
    assert.same({ nil, 'want_answer' }, { made:handshake() })
    assert.is_nil(made:timeout())
    made:answer_psk(KEY, 'alice')
    local _, wants, timeout = made:handshake()
    assert.equal('want_read', wants)
    assert.is_true(timeout > 0 and timeout <= 1000)
    assert.same({ nil, 'ask_psk', 'alice' }, { serve() })
    assert.same({ nil, 'want_answer' }, { accepted:handshake() })
    assert.is_nil(accepted:timeout())
    accepted:answer_psk(KEY, 'a server has no say in the identity')
    assert.is_true(accepted:handshake())
    assert.is_true(made:handshake())
    local facts = {}
    assert.is_true(accepted:handshake(facts))
    assert.equal('alice', facts.pskIdentity)
    assert.is_true(made:write 'open')
    endpoint:turn(1)
    assert.same({ 'read', accepted, 'open' }, { unpack({ endpoint:next() }, 1, 3) })
  end)

  it('a client without a hint is asked with nil', function()
    listen { psk = true }
    local made = client { psk = true, ciphers = 'ECDHE-PSK-CHACHA20-POLY1305' }
    assert.same({ nil, 'ask_psk' }, { until_asked(made) })
  end)

  it('an answer without a key refuses the handshake', function()
    listen { psk = true }
    local made = client { psk = { alice = KEY }, ciphers = 'ECDHE-PSK-CHACHA20-POLY1305' }
    assert.same({ nil, 'ask_psk', 'alice' }, { until_server_asked(made) })
    accepted:answer_psk()
    local ok, err = accepted:handshake()
    assert.is_nil(ok)
    assert.equal('ERR_DTLS_PSK_IDENTITY', err.code)
    local other = client { psk = true, ciphers = 'ECDHE-PSK-CHACHA20-POLY1305' }
    until_asked(other)
    other:answer_psk(nil, 'alice')
    ok, err = other:handshake()
    assert.is_nil(ok)
    assert.equal('ERR_DTLS_PSK_IDENTITY', err.code)
  end)

  it('an answer that cannot be raises, and the question stays open', function()
    listen { psk = true }
    local made = client { psk = true, ciphers = 'ECDHE-PSK-CHACHA20-POLY1305' }
    until_asked(made)
    raises('1 to 512 bytes', 'answer_psk', made, '', 'alice')
    raises('1 to 512 bytes', 'answer_psk', made, ('k'):rep(513), 'alice')
    raises('string expected', 'answer_psk', made, {}, 'alice')
    raises('string expected', 'answer_psk', made, KEY, {})
    raises('an identity has', 'answer_psk', made, KEY)
    raises('an identity has', 'answer_psk', made, KEY, ('i'):rep(256))
    raises('an identity has', 'answer_psk', made, KEY, 'alice\0')
    unasked(made, 'answer_hello', 'refuse_hello', 'answer_verify')
    assert.same({ nil, 'want_answer' }, { made:handshake() })
    made:answer_psk(KEY, 'alice')
    unasked(made, 'answer_psk')
    made:handshake()
    assert.same({ nil, 'ask_psk', 'alice' }, { serve() })
    raises('1 to 512 bytes', 'answer_psk', accepted, '')
    raises('1 to 512 bytes', 'answer_psk', accepted, ('k'):rep(513))
    raises('string expected', 'answer_psk', accepted, print)
    unasked(accepted, 'answer_hello', 'refuse_hello', 'answer_verify')
    assert.same({ nil, 'want_answer' }, { accepted:handshake() })
    accepted:answer_psk(KEY)
    unasked(accepted, 'answer_psk')
    assert.is_true(accepted:handshake())
    assert.is_true(made:handshake())
    unasked(made, 'answer_psk', 'answer_hello', 'refuse_hello', 'answer_verify')
    unasked(accepted, 'answer_psk', 'answer_hello', 'refuse_hello', 'answer_verify')
  end)

  it('an answer to no question raises', function()
    listen()
    local made = client { reject = false }
    unasked(made, 'answer_psk', 'answer_hello', 'refuse_hello', 'answer_verify')
    made:handshake()
    unasked(made, 'answer_psk', 'answer_hello', 'refuse_hello', 'answer_verify')
    assert.is_true((until_asked(made)))
    unasked(made, 'answer_psk', 'answer_hello', 'refuse_hello', 'answer_verify')
    for _, method in ipairs { 'answer_psk', 'answer_hello', 'refuse_hello', 'answer_verify' } do
      assert.is_false((pcall(made[method])))
      assert.is_false((pcall(made[method], endpoint)))
    end
  end)

  it('a server asks who it is to be', function()
    listen(nil, { asks_hello = true })
    local made = client({ reject = false }, { servername = 'one.example' })
    assert.same({ nil, 'ask_hello', 'one.example' }, { until_server_asked(made) })
    assert.same({ nil, 'want_answer' }, { accepted:handshake() })
    raises('context', 'answer_hello', accepted, 'a context')
    raises('context for servers', 'answer_hello', accepted, context 'client')
    raises('string expected', 'answer_hello', accepted, nil, {})
    unasked(accepted, 'answer_psk', 'answer_verify')
    raises('invalid option', 'refuse_hello', accepted, 'close_notify')
    raises('string expected', 'refuse_hello', accepted)
    assert.same({ nil, 'want_answer' }, { accepted:handshake() })
    local other = assert(core.self_signed {})
    assert.same({ true, false }, { accepted:answer_hello(context('server', { cert = { other.cert }, key = { other.key } })) })
    unasked(accepted, 'answer_hello', 'refuse_hello')
    assert.equal('want_read', select(2, accepted:handshake()))
    assert.is_true((until_asked(made)))
    assert.equal(other.fingerprint, made:peer_certificate().fingerprint256)
  end)

  it('a server asks about a hello without a name, too, and may refuse it', function()
    listen(nil, { asks_hello = true })
    local made = client { reject = false }
    assert.same({ nil, 'ask_hello' }, { until_server_asked(made) })
    accepted:refuse_hello 'unrecognized_name'
    unasked(accepted, 'answer_hello', 'refuse_hello')
    local ok, err = accepted:handshake()
    assert.is_nil(ok)
    assert.equal('ERR_DTLS_PROTOCOL', err.code)
    made:handshake()
    assert.equal(1, made:stats().drops.alert)
  end)

  it('a client asks about a good certificate', function()
    listen()
    local digest = identity.fingerprint:gsub(':', ''):gsub('%x%x', function(byte) return string.char(tonumber(byte, 16)) end)
    for _, good in ipairs { true, false } do
      local made = client { pins = { digest }, asks_verify = true, reject = true }
      assert.same({ nil, 'ask_verify' }, { until_asked(made) })
      assert.same({ nil, 'want_answer' }, { made:handshake() })
      unasked(made, 'answer_psk', 'answer_hello', 'refuse_hello')
      made:answer_verify(good)
      unasked(made, 'answer_verify')
      local ok, err = until_asked(made)
      assert.equal(good or nil, ok)
      assert.equal(good and 'nil' or 'ERR_DTLS_CERTIFICATE', tostring(err and err.code))
    end
  end)

  it('the event loop gets its turn while a suspended association is flooded', function()
    listen { psk = true }
    local made, udp = client { psk = true, ciphers = 'ECDHE-PSK-CHACHA20-POLY1305' }
    until_asked(made)
    local before, to = made:stats().datagramsIn, udp:getsockname()
    for i = 1, 100 do assert(server_socket:try_send(junk(SERVER_KEY_EXCHANGE, i), to.ip, to.port)) end
    assert.same({ nil, 'want_answer' }, { made:handshake() })
    assert.equal(before + 64, made:stats().datagramsIn)
    assert.same({ nil, 'want_answer' }, { made:handshake() })
    assert.equal(before + 100, made:stats().datagramsIn)
    assert.equal(100 - 31, made:stats().drops.queue)
  end)

  it('the collector may take what is suspended', function()
    listen { psk = true }
    local made, udp = client { psk = true, ciphers = 'ECDHE-PSK-CHACHA20-POLY1305' }
    until_asked(made)
    local to = udp:getsockname()
    for i = 1, 10 do assert(server_socket:try_send(junk(SERVER_KEY_EXCHANGE, i), to.ip, to.port)) end
    local before = made:stats().datagramsIn
    assert.same({ nil, 'want_answer' }, { made:handshake() })
    assert.equal(before + 10, made:stats().datagramsIn)
    local weak = setmetatable({ made }, { __mode = 'v' })
    objects, made = { endpoint, accepted }, nil -- luacheck: ignore 311
    collectgarbage()
    collectgarbage()
    assert.is_nil(weak[1])
  end)
end)
