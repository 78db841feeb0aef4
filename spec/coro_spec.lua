--- Coroutines instead of events (dtls.coro): what the event API can do, and what only they can.

local child = require('spec.support.faults').child
local coro = require 'dtls.coro'
local lookup = require 'spec.support.lookup'
local loop = require 'spec.support.loop'
local pair = require 'spec.support.pair'
local raw = require 'spec.support.raw'
local support = require 'spec.support.coro'
local uncaught = require 'spec.support.uncaught'
local uv = require 'luv'

local connect, listening, open, returned, start = support.connect, support.listening, support.open, support.returned, support.start
local identity = pair.identity

local function nothing() end

-- What a call raises, at the line of the call.
local function raised(call)
  local ok, err = pcall(call)
  assert.is_false(ok)
  return err:match '^spec/coro_spec.lua:%d+: (.*)$' or error('no line of the caller: ' .. err)
end

-- That a call has returned nil and an error with this code, or nil alone.
local function assertEnd(code, value, err)
  assert.is_nil(value)
  assert.equal(code, err and err.code)
end

local function eachRole(body)
  pair.eachStrategy(function(demux)
    for _, role in ipairs { 'client', 'server' } do
      getfenv(body).describe(('of a %s'):format(role), function() body(demux, role) end)
    end
  end)
end

describe('read and write', function()
  eachRole(function(demux, role)
    it('carry messages of any bytes both ways, whole and in order', loop.run(function()
      local ends = open(demux, role)
      local every = {}
      for byte = 0, 255 do every[#every + 1] = string.char(byte) end
      local texts = { 'a', '\0', '\0\0', 'line\r\n', table.concat(every), ('x'):rep(ends.conn:getDataMtu()) }
      ends.peer:on('message', function(data) ends.peer:send(data) end)
      for _, text in ipairs(texts) do
        assert.is_true(ends.write(text))
        assert.equal(text, ends.read())
      end
      assert.is_true(ends.write(texts))
      for _, text in ipairs(texts) do assert.equal(text, ends.read()) end
      ends:close()
    end))

    it('give the messages that came while nobody read, also after the end', loop.run(function()
      local ends = open(demux, role)
      local sent, got = {}, {}
      for i = 1, 60 do
        sent[i] = tostring(i)
        assert(ends.peer:send(sent[i]))
      end
      ends:arrived(60)
      pair.close(ends.peer)
      loop.till(function() return ends.conn.destroyed end, 'the end')
      for message in ends.read do got[#got + 1] = message end
      assert.same(sent, got)
      ends:close()
    end))

    it('end when the peer closes, without an error for who reads, and again at each call', loop.run(function()
      local ends = open(demux, role)
      local reading = start(ends.read)
      ends.peer:close()
      assertEnd(nil, returned(reading))
      for _ = 1, 2 do
        assertEnd(nil, ends.read())
        assertEnd('ENOTCONN', ends.write 'late')
      end
      ends:close()
    end))

    it('end with the error that ended the connection', loop.run(function()
      local ends = open(demux, role)
      local reading = start(ends.read)
      ends.conn:destroy { code = 'ENOUGH', message = 'enough' }
      assertEnd('ENOUGH', returned(reading))
      assertEnd('ENOUGH', ends.read())
      assertEnd('ENOUGH', ends.write 'late')
      ends.peer:destroy()
      ends:close()
    end))

    for name, close in pairs {
      ['conn:close()'] = function(ends) ends.conn:close() end,
      ['write()'] = function(ends) assert.is_true(ends.write()) end,
    } do
      it('end with ' .. name .. ', of which the peer hears', loop.run(function()
        local ends = open(demux, role)
        local reading = start(ends.read)
        close(ends)
        assertEnd(nil, returned(reading))
        assertEnd('ENOTCONN', ends.write 'late')
        ends.heard.wait 'close'
        assert.equal('close', ends.heard.names())
        ends:close()
      end))
    end

    it('give the errors of send, and how many messages of a list were sent', loop.run(function()
      local ends = open(demux, role)
      for text, code in pairs { [''] = 'EINVAL', [('x'):rep(ends.conn:getDataMtu() + 1)] = 'EMSGSIZE' } do
        assertEnd(code, ends.write(text))
        local ok, err, sent = ends.write { 'one', 'two', text, 'four' }
        assertEnd(code, ok, err)
        assert.equal(2, sent)
      end
      assert.equal('one two one two', ends:told(4))
      ends:close()
    end))

    it('wait in any coroutines, one of which may read while others write', loop.run(function()
      local ends = open(demux, role)
      ends.peer:on('message', function(data) ends.peer:send(data) end)
      local reading = start(function()
        local got = {}
        for message in ends.read do
          got[#got + 1] = message
          if message == 'last' then return table.concat(got, ' ') end
        end
      end)
      for _, text in ipairs { 'one', 'two', 'last' } do start(ends.write, text) end
      assert.equal('one two last', returned(reading))
      ends:close()
    end))
  end)
end)

describe('read', function()
  eachRole(function(demux, role)
    it('with a time gives ETIMEDOUT when no message has come, and the connection stays open', loop.run(function()
      local ends = open(demux, role)
      for _, ms in ipairs { 0, 1, 20 } do
        local began = uv.hrtime()
        assertEnd('ETIMEDOUT', ends.read(ms))
        assert.is_true(uv.hrtime() - began >= ms * 1e6)
      end
      ends:close()
    end))

    it('with a time that has not come is followed by reads with less time and with none', loop.run(function()
      local ends = open(demux, role)
      ends.peer:send { 'one', 'two' }
      assert.equal('one', ends.read(60000))
      assert.equal('two', ends.read(20))
      assertEnd('ETIMEDOUT', returned(start(ends.read, 20)))
      ends.peer:send 'three'
      assert.equal('three', ends.read(20))
      local reading, timer = start(ends.read), uv.new_timer()
      loop.call(function(done) timer:start(40, 0, done) end, 'the time to pass')
      timer:close()
      assert.is_nil(reading.done)
      ends.peer:send 'four'
      assert.equal('four', returned(reading))
      ends:close()
    end))

    it('takes the time in a loop, too: for message in read, ms do', loop.run(function()
      local ends = open(demux, role)
      ends.peer:send { 'one', 'two' }
      ends:arrived(2)
      local got = {}
      for message in ends.read, 10 do got[#got + 1] = message end
      assert.same({ 'one', 'two' }, got)
      assert.is_nil(ends.conn.destroyed)
      ends:close()
    end))

    it('with a time gives a message that came while the program was busy for longer', loop.run(function()
      local ends = open(demux, role)
      local reading = start(ends.read, 20)
      ends.peer:send 'in time'
      loop.block(50)
      assert.equal('in time', returned(reading))
      ends:close()
    end))

    it('counts its time from the call, not from when the loop looked at the clock last', loop.run(function()
      local ends = open(demux, role)
      loop.block(100)
      local began = uv.hrtime()
      assertEnd('ETIMEDOUT', ends.read(50))
      assert.is_true(uv.hrtime() - began >= 49e6)
      ends:close()
    end))

    it('with a time returns once: at the end of the connection or at that time', loop.run(function()
      local ends = open(demux, role)
      local times, code = 0, nil
      local reading = start(function()
        local _, err = ends.read(20)
        code = err and err.code
        repeat times = times + 1 until coroutine.yield() -- a second resumption would be counted
      end)
      ends.peer:close()
      loop.till(function() return times > 0 and ends.conn.destroyed end, 'read to return')
      assertEnd(nil, ends.read(20))
      local timer = uv.new_timer()
      loop.call(function(done) timer:start(40, 0, done) end, 'the time to pass')
      timer:close()
      assert.equal(1, times, code)
      assert(coroutine.resume(reading.thread, true))
      ends:close()
    end))

    it('refuses a second reader with a sentence, and serves the first', loop.run(function()
      local ends = open(demux, role)
      local reading = start(ends.read)
      assert.equal('read: another coroutine reads from this connection already', raised(function()
        local message = ends.read()
        return message
      end))
      ends.peer:send 'hello'
      assert.equal('hello', returned(reading))
      ends:close()
    end))

    for name, ms in pairs { [''] = false, [' with a time'] = 20 } do
      it(('%s returns what else its coroutine is resumed with, once, and loses no message'):format(name), loop.run(function()
        local ends = open(demux, role)
        local times, got = 0, nil
        local thread = coroutine.create(function()
          got = { ends.read(ms or nil) }
          repeat times = times + 1 until coroutine.yield()
        end)
        assert(coroutine.resume(thread))
        assert(coroutine.resume(thread, nil, 'cancelled'))
        assert.is_true(got[1] == nil and got[2] == 'cancelled')
        ends.peer:send 'hello'
        ends:arrived(1)
        assert.equal('hello', ends.read())
        assertEnd('ETIMEDOUT', ends.read(30))
        pair.close(ends.conn)
        assert.equal(1, times)
        assert(coroutine.resume(thread, true))
        ends:close()
      end))
    end

    for limit, case in pairs { ['512 messages'] = { 'x', 512 }, ['256 KB'] = { ('x'):rep(1024), 256 } } do
      it(('keeps %s for later, and counts what comes then as dropped'):format(limit), loop.run(function()
        local text, most = unpack(case)
        local ends = open(demux, role)
        for sent = 1, most + 10 do
          assert(ends.peer:send(text))
          if sent % 32 == 0 then ends:arrived(sent) end -- so that no socket's buffer is full
        end
        ends:arrived(most + 10)
        assert.equal(10, ends.conn:stats().drops.queue)
        if role == 'server' then assert.equal(10, ends.server:stats().drops.queue) end
        for _ = 1, most do assert.equal(text, ends.read(0)) end
        assertEnd('ETIMEDOUT', ends.read(0))
        ends.peer:send 'room again'
        ends:arrived(most + 11)
        assert.equal('room again', ends.read(0))
        ends:close()
      end))
    end
  end)
end)

describe('write', function()
  eachRole(function(demux, role)
    -- body(ends, fault, start, pair) runs in a process whose socket has no room when it says so; it sees no upvalues.
    local function full(name, body)
      it(name, function()
        child(function(strategy, side, code)
          local own, fault = require 'spec.support.coro', require 'spec.support.faults'
          require 'spec.support.loop'.run(function()
            local ends = own.open(strategy, side)
            assert(loadstring(code))(ends, fault, own)
            ends:close()
          end)()
        end, demux, role, string.dump(body))
      end)
    end

    full('waits while the socket is full, and loses nothing', function(ends, fault, own)
      for i, code in ipairs { 'EAGAIN', 'ENOBUFS' } do
        fault.set('send', 1, 3, code)
        local writing = own.start(ends.write, 'waited')
        assert(not writing.done, 'it did not wait')
        local ok, err, sent = own.returned(writing)
        assert(ok == true and err == nil and sent == nil)
        assert(ends.write 'did not')
        assert(ends:told(2 * i) == ('waited did not '):rep(i):sub(1, -2))
      end
    end)

    full('keeps the order of all coroutines that write', function(ends, fault, own)
      fault.set('send', 1, 4, 'EAGAIN')
      local writing, expected = {}, {}
      for i = 1, 20 do
        expected[i], expected[20 + i] = i .. ' one', i .. ' two'
        writing[i] = own.start(function() return ends.write(i .. ' one') and ends.write(i .. ' two') end)
      end
      assert(ends:told(40) == table.concat(expected, ' '))
      for i = 1, 20 do assert(own.returned(writing[i]) == true) end
    end)

    full('sends the rest of a list, and says how much of a list was sent', function(ends, fault, own)
      fault.set('send', 3, 1e9, 'EAGAIN')
      local one = own.start(ends.write, own.longList())
      local two = own.start(ends.write, { 'last', '', 'never' })
      assert(not one.done and not two.done, 'they did not wait')
      fault.set('send', 3, 2, 'EAGAIN')
      local ok, err, sent = own.returned(one)
      assert(ok == true and err == nil and sent == nil)
      ok, err, sent = own.returned(two)
      assert(ok == nil and err.code == 'EINVAL' and sent == 1)
      assert(ends.conn:stats().messagesOut == own.LONG_LIST + 1)
      local before = 0
      for number in ends:told(100):gmatch '%d+' do -- the peer's socket has no room for all
        assert(tonumber(number) > before, number)
        before = tonumber(number)
      end
    end)

    full('returns once when the connection ends meanwhile', function(ends, fault, own)
      fault.set('send', 3, 1e9, 'EAGAIN')
      local times = 0
      local function writes(data)
        return own.start(function()
          local ok, err, sent = ends.write(data)
          repeat times = times + 1 until coroutine.yield()
          return ok, err, sent
        end)
      end
      local one, two = writes(own.longList()), writes 'last'
      assert(times == 0, 'they did not wait')
      ends.conn:destroy { code = 'ENOUGH', message = 'enough' }
      require 'spec.support.loop'.till(function() return times == 2 end, 'both to return')
      fault.set 'send'
      require 'spec.support.pair'.close(ends.conn)
      for _, writing in ipairs { one, two } do
        assert(coroutine.resume(writing.thread, true))
        local ok, err, sent = own.returned(writing)
        assert(ok == nil and err.code == 'ENOUGH')
        assert(writing == two and sent == nil or sent == ends.conn:stats().messagesOut)
      end
      assert(times == 2)
      ends.peer:destroy()
    end)

    full('that something else ends by resuming its coroutine sends nothing, and keeps nobody waiting', function(ends, fault, own)
      fault.set('send', 1, 3, 'EAGAIN')
      local times, got = 0, nil
      local thread = coroutine.create(function()
        got = { ends.write 'one' }
        repeat times = times + 1 until coroutine.yield()
      end)
      assert(coroutine.resume(thread))
      local writing = own.start(ends.write, 'two')
      assert(coroutine.resume(thread, nil, 'cancelled'))
      assert(got[1] == nil and got[2] == 'cancelled')
      assert(own.returned(writing) == true and ends.write 'three')
      assert(ends:told(2) == 'two three', ends:told(2))
      assert(times == 1)
      assert(coroutine.resume(thread, true))
    end)
  end)
end)

describe('connect', function()
  pair.eachStrategy(function(demux)
    it('returns when the connection is open', loop.run(function()
      local server = pair.echo(pair.listening { demux = demux })
      local read, write, conn = connect(server)
      assert.is_true(conn.authorized)
      assert.is_true(write 'hello')
      assert.equal('hello', read())
      pair.close(conn, server)
    end))

    it('gives the error of a handshake that fails, at either end of it', loop.run(function()
      local server = pair.listening { demux = demux, ALPNProtocols = 'one' }
      assertEnd('ERR_DTLS_CERTIFICATE', connect(server, { fingerprint = ('00'):rep(32) }))
      assertEnd('ERR_DTLS_ALERT', connect(server, { ALPNProtocols = 'two' }))
      pair.close(server)
    end))

    it('that something else ends by resuming its coroutine leaves no connection', loop.run(function()
      local server = pair.listening { demux = demux }
      local connecting = start(connect, server)
      assert(coroutine.resume(connecting.thread, nil, 'cancelled'))
      local read, err = returned(connecting)
      assert.is_true(read == nil and err == 'cancelled')
      local _, _, conn = connect(server)
      pair.close(conn, server)
      assert.equal(1, server:stats().connections)
    end))
  end)

  it('gives the error when nobody answers, when there is no such name, and for options that cannot be', loop.run(function()
    local nobody = { ip = '127.0.0.1', port = raw.freePort() }
    assertEnd('ERR_DTLS_HANDSHAKE_TIMEOUT', connect(nobody, { handshakeTimeout = 50 }))
    local read, err = connect(nobody, { host = 'nowhere.invalid' })
    assert.is_nil(read)
    assert.truthy(err.code:find '^EAI_', err.code)
    assertEnd('ERR_DTLS_CONFIG', connect(nobody, { fingerprint = 'garbage' }))
  end))
end)

describe('createServer', function()
  pair.eachStrategy(function(demux)
    it('calls its function for each connection, in a coroutine of its own', loop.run(function()
      local server = listening(demux, function(read, write, conn)
        local name = read()
        for message in read do assert(write(('%s: %s, %s'):format(name, message, conn:getProtocol()))) end
      end)
      local clients = {}
      for i = 1, 5 do
        local read, write, conn = connect(server)
        clients[i] = { read = read, write = write, conn = conn }
        assert(write('client ' .. i))
      end
      for round = 1, 3 do
        for i = 5, 1, -1 do assert(clients[i].write('round ' .. round)) end
        for i, client in ipairs(clients) do assert.equal(('client %d: round %d, DTLSv1.2'):format(i, round), client.read()) end
      end
      for _, client in ipairs(clients) do pair.close(client.conn) end
      pair.close(server)
    end))

    it('closes the connection when its function returns', loop.run(function()
      local server = listening(demux, function(_, write) assert(write 'bye') end)
      local read, _, conn = connect(server)
      assert.equal('bye', read())
      assertEnd(nil, read())
      assert.is_true(conn.destroyed)
      pair.close(server)
    end))

    it('reports what its function raises, closes that connection and serves the others', loop.run(function()
      local texts = uncaught.keep()
      local server = listening(demux, function(read, write)
        for message in read do
          if message == 'fail' then error 'oops' end
          write(message)
        end
      end)
      local read, write, conn = connect(server)
      local other_read, other_write = connect(server)
      assert(other_write 'fail')
      assertEnd(nil, other_read())
      assert.equal(1, #texts)
      assert.truthy(texts[1]:find 'coro_spec.lua:%d+: oops', texts[1])
      assert(write 'on')
      assert.equal('on', read())
      pair.close(conn, server)
      uncaught.release()
    end))

    it('reports what its function raises before it has waited', loop.run(function()
      local texts = uncaught.keep()
      local server = listening(demux, function() error 'at once' end)
      local read = connect(server)
      assertEnd(nil, read())
      assert.equal(1, #texts)
      assert.truthy(texts[1]:find 'coro_spec.lua:%d+: at once', texts[1])
      pair.close(server)
      uncaught.release()
    end))

    it('ends its functions when it closes', loop.run(function()
      local ended = 0
      local server = listening(demux, function(read)
        for _ in read do nothing() end
        ended = ended + 1
      end)
      local reads = {}
      for i = 1, 3 do reads[i] = connect(server) end
      pair.close(server)
      assert.equal(3, ended)
      for _, read in ipairs(reads) do assertEnd(nil, read()) end
    end))

    it('lets its function wait for anything else, keeps what comes meanwhile, and tells it of the end afterwards', loop.run(function()
      local database, ended = lookup.new(), nil
      local server = listening(demux, function(read, write)
        local ok, err
        for message in read do ok, err = write(message .. ' is ' .. database.ask(message)) end
        ended = { ok, err }
      end)
      local read, write, conn = connect(server)
      assert(write { 'one', 'two' })
      loop.till(function() return server:stats().messagesIn == 2 and #database.asked == 1 end, 'the first question')
      database.answer(1, 1)
      loop.till(function() return #database.asked == 2 end, 'the second question')
      database.answer(2, 2)
      assert.equal('one is 1', read())
      assert.equal('two is 2', read())
      assert(write 'three')
      loop.till(function() return #database.asked == 3 end, 'the third question')
      pair.close(conn)
      loop.till(function() return server:stats().active == 0 end, 'the end of the connection')
      assert.is_nil(ended)
      database.answer(3, 3)
      assertEnd('ENOTCONN', unpack(ended, 1, 2))
      pair.close(server)
    end))

    it('ends a function with ERR_DTLS_REPLACED whose peer starts over', loop.run(function()
      local got = {}
      local server = listening(demux, function(read) got[#got + 1] = { read() } end)
      local socket = uv.new_udp()
      assert(socket:bind('127.0.0.1', 0))
      local first = pair.client(server, { handle = socket })
      loop.event(first, 'connection')
      first:destroy()
      loop.event(first, 'close')
      local second = pair.client(server, { handle = socket })
      loop.event(second, 'connection')
      loop.till(function() return got[1] end, 'the end of the first')
      assertEnd('ERR_DTLS_REPLACED', unpack(got[1], 1, 2))
      pair.close(second, server)
      socket:close()
    end))

    it('listens on a socket of the caller, and hands it back open', loop.run(function()
      local socket = uv.new_udp()
      assert(socket:bind('127.0.0.1', 0))
      local server = assert(coro.createServer({ cert = identity.cert, key = identity.key, demux = demux, handle = socket }, nothing))
      local read = connect { ip = '127.0.0.1', port = socket:getsockname().port }
      assertEnd(nil, read())
      pair.close(server)
      assert.is_false(socket:is_closing())
      socket:close()
    end))
  end)

  it('gives an error for options that cannot be and for a port that is taken, and leaves nothing open', loop.run(function()
    local taken = raw.open()
    local good = { cert = identity.cert, key = identity.key, host = '127.0.0.1', port = 0 }
    for _, case in ipairs {
      { 'ERR_DTLS_CONFIG', { cert = 'garbage' } },
      { 'ERR_DTLS_CONFIG', { port = 65536 } },
      { 'ERR_DTLS_CONFIG', { handle = taken.udp } },
      { 'EADDRINUSE', { port = taken.port } },
      { 'EINVAL', { host = 'no address' } },
    } do
      assertEnd(case[1], coro.createServer(pair.with(good, case[2]), nothing))
    end
    good.port = nil
    assert.equal('ERR_DTLS_CONFIG: a server needs port, or handle', tostring(select(2, coro.createServer(good, nothing))))
    taken:close()
  end))
end)

describe('a coroutine that raises after it has waited', function()
  eachRole(function(demux, role)
    it('to read is reported with its traceback, and disturbs nobody', loop.run(function()
      local texts = uncaught.keep()
      local ends = open(demux, role)
      local function guilty() error('got ' .. ends.read()) end
      start(function() guilty() end)
      ends.peer:send { 'this', 'and this' }
      loop.till(function() return texts[1] end, 'the report')
      assert.truthy(texts[1]:find "coro_spec.lua:%d+: got this\nstack traceback.*guilty", texts[1])
      assert.equal('and this', ends.read())
      start(function() error(ends.read(60000) or 'the end') end)
      ends:close()
      assert.truthy(texts[2]:find ': the end', texts[2])
      assert.equal(2, #texts)
      uncaught.release()
    end))

    it('to write is reported, and those behind it write', function()
      child(function(strategy, side)
        local own, fault = require 'spec.support.coro', require 'spec.support.faults'
        require 'spec.support.loop'.run(function()
          local texts = require 'spec.support.uncaught'.keep()
          local ends = own.open(strategy, side)
          fault.set('send', 1, 3, 'EAGAIN')
          own.start(function() error(ends.write 'one' and 'oops') end)
          local writing = own.start(ends.write, 'two')
          assert(not writing.done, 'it did not wait')
          assert(own.returned(writing) == true and ends:told(2) == 'one two')
          assert(#texts == 1 and texts[1]:find ': oops')
          ends:close()
        end)()
      end, demux, role)
    end)
  end)
end)

describe('a process', function()
  it('ends after unref(), although a coroutine reads with a time', function()
    local stdout, stderr, status = require('spec.support.child').run [[
      local own, pair = require 'spec.support.coro', require 'spec.support.pair'
      coroutine.wrap(function()
        local server = pair.listening()
        server:unref()
        local read, _, conn = own.connect(server)
        conn:unref()
        own.start(read, 1e9)
      end)()
      require 'luv'.run()
      print 'ended']]
    assert.same({ 'ended\n', '', 0 }, { stdout, stderr, status })
  end)
end)

describe('a wrong call', function()
  it('raises at its line', loop.run(function()
    local server = pair.listening()
    local read, write, conn = connect(server)
    for expected, call in pairs {
      ['read: ms: expected a whole number from 0 to 2147483647, got string'] = function() return (read 'x') end,
      ['write: data: expected a string or a list of strings, got number'] = function() return (write(1)) end,
      ['write: data: expected a string or a list of strings, got table'] = function() return (write { 'x', {} }) end,
      ["connect: unknown option 'hots'"] = function() return (coro.connect { hots = 'x' }) end,
      ['connect: options: expected a table, got nil'] = function() return (coro.connect()) end,
      ["createServer: unknown option 'hots'"] = function() return (coro.createServer({ hots = 'x' }, nothing)) end,
      ["createServer: option 'host': expected a string, got number"] = function()
        return (coro.createServer({ host = 1, port = 0, psk = {} }, nothing))
      end,
      ['createServer: options: expected a table, got nil'] = function() return (coro.createServer(nil, nothing)) end,
      ['createServer: serve: expected a function, got nil'] = function() return (coro.createServer { psk = {}, port = 0 }) end,
    } do
      assert.equal(expected, raised(call))
    end
    pair.close(conn, server)
  end))

  it('raises outside of a coroutine, unless it cannot have to wait', loop.run(function()
    local server = pair.listening()
    local read, write, conn = connect(server)
    local said = {}
    loop.call(function(done)
      local timer = uv.new_timer()
      timer:start(0, 0, function()
        said.read, said.write = raised(function() return (read()) end), raised(function() return (write 'x') end)
        said.connect = raised(function() return (coro.connect {}) end)
        said.now = select(2, read(0)).code
        timer:close(done)
      end)
    end, 'the calls')
    for _, name in ipairs { 'read', 'write', 'connect' } do
      assert.equal(name .. ': it may have to wait: call it in a coroutine', said[name])
    end
    assert.equal('ETIMEDOUT', said.now)
    pair.close(conn, server)
  end))
end)
