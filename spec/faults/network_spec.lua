local hello = require 'spec.support.hello'
local loop = require 'spec.support.loop'
local pair = require 'spec.support.pair'
local pki = require 'spec.support.pki'
local proxy = require 'spec.support.proxy'
local raw = require 'spec.support.raw'

local OVERHEAD = 37 -- of a record with AES-GCM: header, nonce, tag

-- Doubling the wait would take its time where much is lost.
local WAIT = 30 * loop.patience
local function always() return WAIT end

-- Longer than a handshake lasts here: libssl gives up after its 13th wait.
local DEADLINE = 20 * WAIT
-- Where a handshake must complete, however slow the machine is.
local patient = { retransmitTimeout = WAIT, handshakeTimeout = 10000 * loop.patience }
local waits = { retransmitTimeout = always, handshakeTimeout = DEADLINE }

-- Runs body(each) for all of a list, six at the same time, and waits until all have returned.
local function together(list, body)
  local begun, ended, failure = 0, 0, nil
  local function work()
    while begun < #list do
      begun = begun + 1
      local ok, err = pcall(body, list[begun])
      ended, failure = ended + 1, failure or not ok and { err } or nil
    end
  end
  for _ = 1, 6 do coroutine.wrap(work)() end
  loop.till(function() return ended == #list end, 'all of them to end', 30000)
  if failure then error(failure[1], 0) end
end

local directory, large -- certificates with chains of about 4 KB

setup(function()
  directory = pki.new()
  local function chain(name, authority)
    local issuer, between = authority, {}
    for i = 1, 3 do
      issuer = directory:certificate(name .. i, { type = 'rsa', authority = true, issuer = issuer })
      table.insert(between, 1, issuer)
    end
    return pair.as(directory:certificate(name, { issuer = issuer }), unpack(between))
  end
  local authority = directory:certificate('ca', { authority = true })
  large = { ca = authority.pem.cert, server = chain('server', authority), client = chain('client', authority) }
end)

teardown(function() directory:remove() end)

-- A server that knows the large certificates, and takes clients with one and without.
local function large_server(options, ip)
  return pair.listening(pair.merged({
    ca = large.ca, requestCert = true, rejectUnauthorized = false,
  }, large.server, waits, options), ip)
end

local function large_client(target, options)
  return pair.client(target, pair.merged({ ca = large.ca, servername = 'localhost' }, waits, options))
end

-- ── messages ──

-- What one end says and hears. Every text is unique, and `said` has all of them; `wrong` is what must not happen.
local function talker(conn, name, said)
  local self = { count = 0, conn = conn, wrong = nil }
  local heard = {}
  conn:on('message', function(text)
    local from, number = text:match '^(.-)#(%w+)'
    self.from = self.from or from
    if not said[text] or heard[text] or from ~= self.from then
      self.wrong = ('%s has heard %s: %s'):format(name, heard[text] and 'twice' or 'what was not said to it', text)
    end
    heard[text] = true
    self.count = self.count + 1
    if number == 'last' then self.done = true end
  end)
  function self.say(number, size)
    local text = ('%s#%s:'):format(name, number)
    text = text .. string.char(97 + size % 26):rep(math.min(size, conn:getDataMtu()) - #text)
    said[text] = true
    local ok, err = conn:send(text)
    if not ok then self.wrong = ('%s could not say %s: %s'):format(name, number, err) end
  end
  --- Messages of all lengths, unless it has ended.
  function self.sayMany(first, last)
    for i = first, last do
      if not conn.destroyed then self.say(i, 20 + 50 * (i % 24)) end
    end
  end
  return self
end

-- ── everything at once ──

-- A condition: nothing has passed for some turns of the loop, and nothing is on its way.
local function quiet(between)
  local last, turns = nil, 0
  return function()
    local count = between.count.server + between.count.client
    turns = count == last and turns + 1 or 0
    last = count
    return turns > 5 and not next(between.timers)
  end
end

-- What a handshake may end with when a message of it was altered on its way: that is for the peers to find out.
local altered = { ERR_DTLS_HANDSHAKE_TIMEOUT = true, ERR_DTLS_PROTOCOL = true, ERR_DTLS_ALERT = true, ERR_DTLS_CERTIFICATE = true }

local cases = {
  { name = 'that loses 5 %', loss = 0.05 },
  { name = 'that loses 20 %', loss = 0.2 },
  { name = 'that loses 40 %', loss = 0.4 },
  { name = 'that doubles 40 %', duplicate = 0.4 },
  { name = 'that mixes the order of 40 %', reorder = 0.4 },
  { name = 'that delays 40 % for longer than a repetition', delay = 0.4, late = 3 * WAIT },
  { name = 'that alters 5 %', corrupt = 0.05, ends = altered },
  { name = 'that does all of it', loss = 0.1, duplicate = 0.2, reorder = 0.2, delay = 0.2, corrupt = 0.03, ends = altered },
}

describe('a network', function()
  pair.eachStrategy(function(demux)
    for number, case in ipairs(cases) do
      it(('%s: handshakes complete or fail in time, messages arrive whole and once or not at all'):format(case.name), loop.run(function()
        local server = large_server { demux = demux }
        local between = proxy.new(server)
        local said, ours = {}, {}
        local opened = 0
        server:on('connection', function(conn)
          opened = opened + 1
          local each = talker(conn, 'server ' .. opened, said)
          ours[conn:remoteAddress().port] = each
          each.sayMany(1, 20)
        end)
        local failures = pair.record(server, 'clientError')
        local session = large_client(between)
        loop.event(session, 'connection')
        local blob = session:getSession()
        pair.close(session)

        -- Tries until it is connected, a few times at most.
        local function connect(name, options)
          for _ = 1, 8 do
            local conn = large_client(between, options)
            local each = talker(conn, name, said)
            local outcome = pair.record(conn, 'connection', 'error', 'close')
            loop.till(function() return outcome[1] end, 'the end of a handshake', 2 * DEADLINE)
            if outcome[1][1] == 'connection' then
              each.sayMany(1, 20)
              return each
            end
            assert.equal('error', outcome[1][1])
            local code = outcome[1][2].code
            if case.ends then assert(case.ends[code], code) else assert.equal('ERR_DTLS_HANDSHAKE_TIMEOUT', code) end
            outcome.wait 'close'
          end
          error(name .. ' was never connected')
        end

        between.filter = proxy.filters.bad(pair.with(case, { seed = number }))
        local clients = {}
        local kinds = { {}, large.client, pair.with(large.client, { mtu = 400 }), { session = blob }, { mtu = 300 }, { session = blob } }
        together({ 1, 2, 3, 4, 5, 6 }, function(i) clients[i] = connect('client ' .. i, kinds[i]) end)

        loop.till(function() return server:stats().handshaking == 0 end, 'the server to be done, too', 3 * DEADLINE)
        for _, each in pairs(ours) do each.sayMany(21, 40) end
        for _, each in ipairs(clients) do each.sayMany(21, 40) end
        loop.till(quiet(between), 'the network to be quiet')
        between.filter = nil
        for _, each in ipairs(clients) do
          local other = ours[between:seenAs(between:clientAt(each.conn:localAddress())).port]
          assert.is_nil(each.wrong)
          -- The server's side of it may have given up on its last flight: then nobody is there.
          if other and not (other.conn.destroyed or each.conn.destroyed) then
            each.say('last', 100)
            other.say('last', 100)
            loop.till(function() return each.done and other.done end, 'the last messages')
            assert.is_true(each.count > 1 and other.count > 1)
            assert.is_nil(each.wrong or other.wrong)
          else
            assert.is_true(#failures > 0 or case.ends ~= nil)
          end
        end
        for _, each in ipairs(clients) do pair.close(each.conn) end
        pair.close(server, between)
      end))
    end
  end)
end)

-- ── one datagram at a time ──

-- What a datagram is, whichever time it is sent: type, epoch, and of a handshake message its type, number and offset.
local function kind(data)
  local first = data:byte(1) .. ' ' .. data:byte(5)
  if data:byte(1) ~= 22 or data:byte(5) ~= 0 then return first end
  return ('%s %d %d %d'):format(first, data:byte(14), data:byte(19), data:byte(21) * 256 + data:byte(22))
end

-- Calls change(data, time) for datagrams of one kind in one direction: what is passed on instead, nil for nothing.
local function only(direction, what, change)
  local times = 0
  return function(towards, _, data)
    if towards ~= direction or kind(data) ~= what then return data end
    times = times + 1
    return change(data, times)
  end
end

local function lost(times)
  return function(direction, what)
    return only(direction, what, function(data, time) if time > times then return data end end)
  end
end

local function swapped(direction, what)
  local held
  return function(towards, _, data)
    if towards ~= direction then return data end
    if held then
      local first = held
      held = false
      return { data, first }
    end
    if held == nil and kind(data) == what then
      held = data
      return nil
    end
    return data
  end
end

local faults = {
  { name = 'is lost once', filter = lost(1) },
  { name = 'is lost twice', filter = lost(2) },
  { name = 'comes twice', filter = function(direction, what)
    return only(direction, what, function(data) return { data, data } end)
  end },
  { name = 'comes again later', filter = function(direction, what)
    return only(direction, what, function(data) return { data, { data = data, delay = 2 * WAIT } } end)
  end },
  { name = 'changes places with its successor', filter = swapped },
  { name = 'comes after its repetition', filter = function(direction, what)
    return only(direction, what, function(data, time) return { { data = data, delay = time == 1 and 2 * WAIT or 0 } } end)
  end },
}

-- Messages in both directions, once now and once whenever what is returned is called.
local function conversation(conn, accepted)
  local said = {}
  local theirs, ours = talker(conn, 'client', said), talker(accepted, 'server', said)
  local function exchange(number)
    local before = { theirs.count, ours.count }
    theirs.say(number, 50)
    ours.say(number, 50)
    loop.till(function() return theirs.count > before[1] and ours.count > before[2] end, 'messages in both directions')
    assert.is_nil(theirs.wrong or ours.wrong)
  end
  exchange 'first'
  return function() exchange 'second' end
end

-- The connection that a server has with the (first) client behind a proxy, once its handshake is complete there, too.
local function opened_by(server, between)
  return loop.till(function()
    for each in server:connections() do
      if each:stats().connectedAt and each:remoteAddress().port == between:seenAs().port then return each end
    end
  end, 'the server to be done, too')
end

describe('a datagram of a handshake', function()
  pair.eachStrategy(function(demux)
    for _, resumed in ipairs { false, true } do
      local which = resumed and 'resumed' or 'full, with certificates of both sides'
      local server, blob

      -- A handshake to its end, through a filter. The messages after it are part of the test.
      local function shake(filter)
        local between = proxy.new(server, { filter = filter })
        local conn = large_client(between, pair.merged({ mtu = 600, session = blob }, patient, not resumed and large.client))
        local outcome = pair.record(conn, 'connection', 'error')
        loop.till(function() return outcome[1] end, 'the end of a handshake', 10000)
        assert.equal('connection', outcome[1][1], tostring(outcome[1][2]))
        assert.equal(blob ~= nil, conn:isSessionReused())
        return between, conn, opened_by(server, between)
      end

      for _, fault in ipairs(faults) do
        it(('may be any one that %s (%s)'):format(fault.name, which), loop.run(function()
          server = large_server(pair.with(patient, { demux = demux, mtu = 600 }))
          blob = nil
          if resumed then
            local between, conn = shake()
            blob = conn:getSession()
            pair.close(conn, between)
          end
          local clean, first = shake()
          pair.close(first, clean)
          local list, seen = {}, {}
          for direction, datagrams in pairs(clean.recorded) do
            for _, data in ipairs(datagrams) do
              local what = kind(data)
              if not (seen[direction .. what] or data:byte() == 21) then list[#list + 1] = { direction, what } end
              seen[direction .. what] = true
            end
          end
          assert.is_true(#list >= (resumed and 5 or 15), #list .. ' datagrams')
          together(list, function(each)
            local between, conn, accepted = shake(fault.filter(each[1], each[2]))
            local again = conversation(conn, accepted)
            loop.till(function() return not next(between.timers) end, 'what comes late')
            again()
            pair.close(conn, between)
          end)
          pair.close(server)
        end))
      end
    end
  end)
end)

-- ── flights ──

describe('what has come of a flight before its turn', function()
  it('is not lost when the flight that it answers is repeated', loop.run(function()
    local server = large_server(pair.with(patient, { mtu = 500 }))
    local flights, lost_one, repeated = 0, false, false
    -- A piece of the certificates is lost until the client has repeated its hello, all else comes once. Repeated messages
    -- have datagrams of their own.
    local between = proxy.new(server, { filter = function(towards, _, data)
      local type = data:byte(1) == 22 and data:byte(5) == 0 and data:byte(14)
      if towards == 'server' then
        repeated = repeated or lost_one and type == 1
        return data
      end
      if type == 2 then flights = flights + 1 end
      if flights == 1 and type == 11 and not lost_one then
        lost_one = true
        return nil
      end
      local of_flight = type == 2 or type == 12 or type == 13 or type == 14
      if flights < 2 or (type == 11 and repeated) or not (of_flight or type == 11) then return data end
    end })
    local conn = large_client(between, pair.with(patient, { mtu = 500 }))
    local outcome = pair.record(conn, 'connection', 'error')
    loop.till(function() return outcome[1] end, 'the end of a handshake', 5000)
    assert.equal('connection', outcome[1][1], tostring(outcome[1][2]))
    assert.is_true(repeated)
    pair.close(conn, server, between)
  end))
end)

describe('a last flight', function()
  -- Everything from ChangeCipherSpec on; the records behind it are protected.
  local function without_last_flight(direction, times, reached)
    local count = 0
    return function(towards, _, data)
      if towards ~= direction then return data end
      for i, record in ipairs(hello.records(data)) do
        if record.whole:byte() == 20 then
          count = count + 1
          if count == times then reached() end
          if count <= times then return i > 1 and data:sub(1, (data:find(record.whole, 1, true)) - 1) or nil end
        end
      end
      -- A Finished in a datagram of its own.
      if count > 0 and count <= times and data:byte() == 22 and data:byte(5) == 1 then return nil end
      return data
    end
  end

  pair.eachStrategy(function(demux)
    for _, times in ipairs { 1, 4 } do
      it(('of the server is repeated when it is lost %d times, messages behind it come at most once'):format(times), loop.run(function()
        local server = pair.listening(pair.with(patient, { demux = demux }))
        local said, lost_all, ours = {}, false, nil
        server:on('connection', function(conn)
          ours = talker(conn, 'server', said)
          for i = 1, 40 do ours.say(i, 60) end
        end)
        local between = proxy.new(server, { filter = without_last_flight('client', times, function() lost_all = true end) })
        local conn = pair.client(between, patient)
        local theirs = talker(conn, 'client', said)
        loop.event(conn, 'connection')
        assert.is_true(lost_all)
        theirs.say('last', 60)
        ours.say('last', 60)
        loop.till(function() return theirs.done and ours.done end, 'the last messages')
        assert.is_nil(theirs.wrong or ours.wrong)
        assert.equal(0, server:stats().retransmits) -- it is the client's timer that asks for it
        pair.close(conn, server, between)
      end))

      it(('of a client that resumes is repeated when it is lost %d times'):format(times), loop.run(function()
        local server = pair.listening(pair.with(patient, { demux = demux }))
        local first = pair.open(server)
        local blob = first:getSession()
        pair.close(first)
        local lost_all = false
        local between = proxy.new(server, { filter = without_last_flight('server', times, function() lost_all = true end) })
        local conn = pair.client(between, pair.with(patient, { session = blob }))
        local said = {}
        local theirs = talker(conn, 'client', said)
        loop.event(conn, 'connection')
        assert.is_true(conn:isSessionReused())
        for i = 1, 40 do theirs.say(i, 60) end -- more than the server keeps before it is done
        local ours = talker(opened_by(server, between), 'server', said)
        assert.is_true(lost_all)
        theirs.say('last', 60)
        ours.say('last', 60)
        loop.till(function() return theirs.done and ours.done end, 'the last messages')
        assert.is_nil(theirs.wrong or ours.wrong)
        pair.close(conn, server, between)
      end))
    end
  end)
end)

describe('a wait for an answer', function()
  it('that a HelloVerifyRequest ended does not count towards a smaller MTU', loop.run(function()
    -- A slow machine must not need longer than a wait for a flight.
    local slowly = { retransmitTimeout = 300 * loop.patience }
    local server = pair.listening(slowly)
    local answers = 0
    local between = proxy.new(server, { filter = function(direction, _, data)
      if direction == 'server' then return data end
      answers = answers + 1
      if answers ~= 1 and answers ~= 3 then return data end -- a HelloVerifyRequest, and a flight of one datagram
    end })
    local conn = pair.client(between, slowly)
    loop.event(conn, 'connection')
    assert.equal(2, conn:stats().retransmits)
    assert.equal(1228 - OVERHEAD, conn:getDataMtu())
    pair.close(conn, server, between)
  end))

  it('that a forged alert made doubtful is over with a HelloVerifyRequest', loop.run(function()
    local slowly = { retransmitTimeout = 300 * loop.patience }
    local server = pair.listening(slowly)
    local forged = '\21\254\253' .. ('\0'):rep(8) .. '\0\2' .. '\2\40'
    local answers = 0
    local between = proxy.new(server, { filter = function(direction, _, data)
      if direction == 'server' then return data end
      answers = answers + 1
      local late = { data = data, delay = answers <= 2 and 200 * loop.patience or 0 } -- two make more than a wait
      return answers == 1 and { forged, late } or { late }
    end })
    local conn = pair.client(between, slowly)
    local outcome = pair.record(conn, 'connection', 'error')
    loop.till(function() return outcome[1] end, 'the end of the handshake')
    assert.equal('connection', outcome[1][1], tostring(outcome[1][2]))
    assert.equal(1, conn:stats().drops.alert)
    pair.close(conn, server, between)
  end))

  it('for a hello ends with a second HelloVerifyRequest as with the first, but not with a third', loop.run(function()
    local silent = raw.open()
    local conn = pair.client(silent, { retransmitTimeout = 20000 })
    for i = 1, 3 do
      loop.till(function() return #silent.inbox == i end, 'hello number ' .. i)
      local sequence = hello.number(i - 1, 2)
      assert.equal(sequence, silent.inbox[i]:sub(18, 19))
      if i > 1 then assert.truthy(silent.inbox[i]:find(('cookie number %d'):format(i - 1), 1, true)) end
      local body = '\254\255' .. hello.vector(1, 'cookie number ' .. i)
      local length = hello.number(#body, 3)
      local message = '\3' .. length .. sequence .. '\0\0\0' .. length .. body
      silent:send('\22\254\255\0\0' .. hello.number(i, 6) .. hello.vector(2, message), conn:localAddress())
    end
    loop.till(function() return conn:stats().drops.handshake end, 'the third one to be dropped')
    assert.equal(3, #silent.inbox)
    conn:destroy()
    pair.close(conn, silent)
  end))

  it('counts also when libssl ends it because something has arrived', loop.run(function()
    local silent, asked = raw.open(), {}
    local conn = pair.client(silent, {
      handshakeTimeout = 30000 * loop.patience,
      retransmitTimeout = function(previous)
        asked[#asked + 1] = previous
        return 25
      end,
    })
    local outcome = pair.record(conn, 'error', 'close')
    loop.till(function() return #silent.inbox > 0 end, 'the first hello')
    -- 15 ms before the end of a wait libssl takes it for over: it repeats its flight while it looks for something to read.
    local peer = conn:localAddress()
    loop.till(function()
      if not outcome[1] then silent:send('junk', peer) end
      return outcome[1]
    end, 'the end')
    outcome.wait 'close'
    assert.equal('ERR_DTLS_HANDSHAKE_TIMEOUT', outcome[1][2].code)
    assert.equal(13, #silent.inbox)
    assert.equal(2 + 12, #asked) -- one ahead
    for i, previous in ipairs(asked) do assert.equal(i == 1 and 0 or 25, previous) end
    pair.close(silent)
  end))
end)

-- ── datagrams that are too long ──

describe('a path that drops long datagrams', function()
  pair.eachStrategy(function(demux)
    local function narrow(mtu)
      return proxy.filters.bad { seed = 1, mtu = mtu }
    end

    for _, family in ipairs { { '127.0.0.1', cut = 600, size = 1228, left = 548 }, { '::1', cut = 1300, size = 1400, left = 1232 } } do
      it(('is found out when the same flight was lost three times, and both ends say so (%s)'):format(family[1]), loop.run(function()
        local server = large_server(pair.with(patient, { mtu = family.size, demux = demux }), family[1])
        local between = proxy.new(server, { filter = narrow(family.cut) })
        local conn = large_client(between, pair.merged({ mtu = family.size }, large.client, patient))
        loop.event(conn, 'connection')
        local accepted = opened_by(server, between)
        for _, each in ipairs { conn, accepted } do assert.equal(family.left - OVERHEAD, each:getDataMtu()) end
        assert.is_true(conn:stats().retransmits >= 3 and accepted:stats().retransmits >= 3)
        local said = {}
        local theirs, ours = talker(conn, 'client', said), talker(accepted, 'server', said)
        for _, each in ipairs { theirs, ours } do each.say('last', each.conn:getDataMtu()) end
        loop.till(function() return theirs.done and ours.done end, 'the longest messages')
        pair.close(conn, server, between)
      end))
    end

    it('below what IPv4 must take lets no handshake through, unless it is told', loop.run(function()
      local server = large_server { demux = demux }
      local failed = pair.record(server, 'clientError')
      local between = proxy.new(server, { filter = narrow(300) })
      local conn = large_client(between)
      local outcome = pair.record(conn, 'connection', 'error', 'close')
      outcome.wait 'close'
      failed.wait 'clientError'
      for _, err in ipairs { outcome[1][2], failed[1][2] } do assert.equal('ERR_DTLS_HANDSHAKE_TIMEOUT', err.code) end
      pair.close(server, between)
      server = large_server { demux = demux, mtu = 300 }
      between = proxy.new(server, { filter = narrow(300) })
      conn = large_client(between, pair.merged({ mtu = 300 }, large.client))
      loop.event(conn, 'connection')
      assert.equal(300 - OVERHEAD, conn:getDataMtu())
      pair.close(conn, server, between)
    end))

    it('only once a connection is open costs the long messages, until setMtu says what passes', loop.run(function()
      local server = pair.echo(pair.listening { demux = demux })
      local between = proxy.new(server)
      local conn, accepted = pair.open(server, between)
      local heard = pair.record(conn, 'message', 'error')
      between.filter = narrow(600)
      assert(conn:send(('long'):rep(200)))
      pair.roundTrip(conn, 'short')
      assert.equal('message', heard.names())
      assert.is_true(conn:setMtu(600) and accepted:setMtu(600))
      assert.equal('EMSGSIZE', select(2, conn:send(('long'):rep(200))).code)
      pair.roundTrip(conn, ('x'):rep(conn:getDataMtu()))
      pair.close(conn, server, between)
    end))
  end)
end)

-- Loses the first transmissions of every datagram for which concerns(data, direction) is true.
local function losing(times, concerns)
  local sent = {}
  return function(direction, _, data)
    if not concerns(data, direction) then return data end
    local what = direction .. kind(data)
    sent[what] = (sent[what] or 0) + 1
    return sent[what] > times and data or nil
  end
end

describe('what a handshake loses', function()
  pair.eachStrategy(function(demux)
    -- The data MTU of both ends, of a handshake through a filter, which also gets the connection that sends.
    local function mtu_of_both(server, options, filter)
      local conn
      local between = proxy.new(server, {
        filter = function(direction, index, data)
          return filter(direction, index, data, direction == 'server' and conn or server:connections()())
        end,
      })
      conn = pair.client(between, options)
      loop.event(conn, 'connection')
      local limits = { conn:getDataMtu(), opened_by(server, between):getDataMtu() }
      pair.close(conn, server, between)
      return limits
    end

    it('says nothing about the MTU when all of it was short', loop.run(function()
      local key = { identity = 'device', key = ('k'):rep(32) }
      local often = pair.with(patient, { retransmitTimeout = always })
      local server = pair.listening(pair.with(often, { demux = demux, psk = { [key.identity] = key.key } }))
      local limits = mtu_of_both(server, pair.with(often, { psk = key }), losing(4, function(data)
        assert.is_true(#data < 548)
        return data:byte(1) == 22 or data:byte(1) == 20
      end))
      assert.same({ 1228 - OVERHEAD + 8, 1228 - OVERHEAD + 8 }, limits) -- ChaCha20-Poly1305 sends no nonce
    end))

    for _, role in ipairs { 'server', 'client' } do
      it(('twice only says nothing about the MTU: a slow round trip looks the same (to a %s)'):format(role), loop.run(function()
        -- A slow machine must not need longer than the third wait, which is four times as long, for a flight and its answer.
        local options = pair.with(patient, { retransmitTimeout = 200 * loop.patience })
        local server = large_server(pair.with(options, { demux = demux, options = { 'NO_TICKET' } }))
        local count = 0
        local client = pair.merged({ ca = large.ca, servername = 'localhost' }, large.client, options)
        local limits = mtu_of_both(server, client, function(direction, _, data, sender)
          if direction == role or #data <= 548 or sender:stats().retransmits == 2 then return data end
          count = count + 1
        end)
        assert.is_true(count > 2)
        assert.same({ 1228 - OVERHEAD, 1228 - OVERHEAD }, limits)
      end))
    end

    for _, part in ipairs { 'first', 'last' } do
      it(('says nothing about the MTU of a flight whose answer comes without its %s datagram'):format(part), loop.run(function()
        local often = pair.with(patient, { retransmitTimeout = always })
        local server = large_server(pair.merged(often, { demux = demux }))
        local first
        local client = pair.merged({ ca = large.ca, servername = 'localhost' }, large.client, often)
        local limits = mtu_of_both(server, client, losing(5, function(data, direction)
          if direction ~= 'server' or data:byte(1) ~= 22 or data:byte(5) ~= 0 or data:byte(14) == 1 then return false end
          first = first or kind(data)
          if part == 'first' then return kind(data) == first end
          return data:byte(14) ~= 11 -- what is behind the client's Certificate
        end))
        assert.equal(1228 - OVERHEAD, limits[2])
      end))
    end
  end)
end)

-- ── the end, and other ports ──

describe('a close_notify', function()
  pair.eachStrategy(function(demux)
    it('that is lost leaves the peer open, until it is idle for too long or the client comes back', loop.run(function()
      local server = pair.echo(pair.listening { demux = demux })
      local between = proxy.new(server)
      local conn, accepted = pair.open(server, between)
      local port = conn:localAddress().port
      local heard = pair.record(accepted, 'timeout', 'error', 'close')
      between.filter = proxy.filters.mute 'server'
      pair.close(conn)
      accepted:setTimeout(50)
      heard.wait 'timeout'
      assert.is_true(accepted:send 'nobody hears this')
      between.filter = nil
      conn = pair.client(between, { localPort = port })
      loop.event(conn, 'connection')
      pair.roundTrip(conn, 'here again')
      heard.wait 'close'
      assert.equal('ERR_DTLS_REPLACED', heard.find 'error'[2].code)
      assert.equal(1, server:stats().active)
      pair.close(conn, server, between)
    end))

    it('that overtakes a message costs that message, and nothing else', loop.run(function()
      local server = pair.listening { demux = demux }
      local between = proxy.new(server)
      local conn, accepted = pair.open(server, between)
      local heard = pair.record(accepted, 'message', 'error', 'close')
      local first = true
      between.filter = function(_, _, data)
        local late = first
        first = false
        return { { data = data, delay = late and WAIT or 0 } }
      end
      assert(conn:send 'too late')
      pair.close(conn)
      heard.wait 'close'
      loop.till(function() return server:stats().drops.stranger == 1 end, 'the message')
      assert.equal('close', heard.names())
      pair.close(server, between)
    end))
  end)
end)

describe('a client whose address changes', function()
  pair.eachStrategy(function(demux)
    it('is not heard any more, which harms nobody, and can connect anew', loop.run(function()
      local server = pair.echo(pair.listening { demux = demux })
      local between = proxy.new(server)
      local conn, accepted = pair.open(server, between)
      local other = pair.open(server)
      local heard, mine = pair.record(accepted, 'message', 'timeout', 'error', 'close'), pair.record(conn, 'message', 'error', 'close')
      between:rebind()
      for _ = 1, 3 do assert(conn:send 'from another port') end
      loop.till(function() return server:stats().drops.stranger == 3 end, 'the messages')
      accepted:setTimeout(50)
      heard.wait 'timeout'
      accepted:setTimeout(0)
      assert.is_true(accepted:send 'to the old port')
      pair.roundTrip(other, 'unharmed')
      local again = pair.client(between)
      loop.event(again, 'connection')
      pair.roundTrip(again, 'here again')
      assert.equal('timeout', heard.names())
      assert.equal('', mine.names())
      assert.equal(3, server:stats().active)
      pair.close(conn, again, other, server, between)
    end))

    it('during the handshake completes it or fails by its deadline, and can connect anew', loop.run(function()
      local server = pair.echo(large_server { demux = demux })
      together({ 1, 2, 3, 4, 5, 6, 7, 8 }, function(number)
        local between = proxy.new(server)
        local turn = number
        between.filter = function(direction, _, data)
          if direction == 'client' then return data end
          turn = turn - 1
          if turn == 0 then between:rebind() end
          return data
        end
        local conn = large_client(between, pair.merged({ mtu = 400 }, large.client))
        local outcome = pair.record(conn, 'connection', 'error', 'close')
        loop.till(function() return outcome[1] end, 'the end of a handshake', 2 * DEADLINE)
        if outcome[1][1] == 'error' then
          assert.equal('ERR_DTLS_HANDSHAKE_TIMEOUT', outcome[1][2].code)
          outcome.wait 'close'
        else
          pair.close(conn)
        end
        conn = large_client(between, patient)
        loop.event(conn, 'connection')
        pair.roundTrip(conn, 'here again')
        pair.close(conn, between)
      end)
      pair.close(server)
    end))
  end)
end)
