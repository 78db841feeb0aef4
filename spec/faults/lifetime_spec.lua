-- The end of things at any moment: in every event and every callback an application may close, destroy, throw, collect
-- or start anew. Every object then closes once, everybody else goes on, and nothing is left behind.

local ffi = require 'ffi'
local uv = require 'luv'
local dtls = require 'dtls'
local child = require 'spec.support.child'
local descriptors = require 'spec.support.descriptors'
local loop = require 'spec.support.loop'
local pair = require 'spec.support.pair'
local raw = require 'spec.support.raw'
local uncaught = require 'spec.support.uncaught'

local identity = pair.identity
local KEY = 'a key that both know'

local reports
before_each(function() reports = uncaught.keep() end)
after_each(uncaught.release)

-- ── the stage ──
-- A server with one open client, the bystander, and a second one, the actor, whose way through all events and callbacks
-- is interrupted at one place by a deed.

local Stage = {}
Stage.__index = Stage

-- `work` as the function at the place called `name`, where the deed is done once.
function Stage:at(name, conn, work, emitter, event)
  return function(...)
    if self.place.name == name and self.armed and not self.played and (conn == nil or self:isActor(conn)) then
      self.played = true
      self.conn, self.emitter, self.event = conn or self.accepted or self.actor, emitter, event
      self.deed(self, ...)
    end
    if work then return work(...) end
  end
end

function Stage:isActor(conn) return conn == self.actor or conn == self.accepted end

-- Counts how often it closes.
function Stage:watch(object)
  local entry = { closes = 0, forged = 0 }
  self.objects[object] = entry
  self.weak[object] = true
  object:on('close', function() entry.closes = entry.closes + 1 end)
  return object
end

function Stage:listen(prefix, object, events, conn)
  for _, event in ipairs(events) do object:on(event, self:at(prefix .. event, conn, nil, object, event)) end
end

local CONNECTION = { 'connection', 'message', 'timeout', 'keylog', 'error', 'close' }

-- What makes an open connection come to the place.
function Stage:provoke(prefix, conn)
  if not self.armed or self.played then return end
  local name = self.place.name
  if name == prefix .. 'error' then conn:destroy('provoked') end
  if name == prefix .. 'close' then conn:close() end
  if name == prefix .. 'timeout' then conn:setTimeout(5) end
  if name == prefix .. 'callback of close' then conn:close(self:at(name, conn)) end
  if name == prefix .. 'callback of send' then conn:send('x', self:at(name, conn)) end
  if name == prefix .. 'callback of setTimeout' then conn:setTimeout(5, self:at(name, conn)) end
end

function Stage:accept(conn)
  if self.armed and not self.accepted then self.accepted = conn end
  self:watch(conn)
  self:listen('a server\'s connection: ', conn, CONNECTION, conn)
  conn:on('message', function(data)
    conn:send(data)
    self:provoke('a server\'s connection: ', conn)
  end)
  if self.armed and self.place.fails then conn:destroy('provoked') end
end

local function stored(self)
  return {
    get = self:at('sessionStore.get', nil, function(id)
      return self.place.name == 'sessionStore.remove' and 'nonsense' or self.stored[id]
    end),
    set = self:at('sessionStore.set', nil, function(id, blob)
      self.stored[id] = blob
      if self.armed and self.place.name == 'a server: error' then error('provoked', 0) end
    end),
    remove = self:at('sessionStore.remove'),
  }
end

function Stage:serve()
  local server = self:watch(pair.server {
    demux = self.demux, keylog = true, psk = self:at('psk of a server', nil, function() return KEY end),
    cert = identity.cert, key = identity.key, SNICallback = self:at('SNICallback'), sessionStore = stored(self),
    retransmitTimeout = self:at('retransmitTimeout of a server', nil, function() return 50 end),
  })
  server:on('accept', function(conn) self:accept(conn) end)
  self:listen('a server: ', server, { 'listening', 'accept', 'connection', 'keylog', 'clientError', 'error', 'close' })
  self.server = server
  assert(server:listen(0, '127.0.0.1', self:at('callback of listen')))
  server.ip, server.port = '127.0.0.1', server:address().port
end

function Stage:client(acting)
  local psk = acting and self.place.psk
  local function at(name, work) return acting and self:at(name, nil, work) or work end
  local conn = self:watch(pair.client(self.server, {
    servername = 'localhost', keylog = acting, session = acting and self.session or nil,
    psk = psk and at('psk of a client', function() return 'me', KEY end) or nil,
    fingerprint = not psk and identity.fingerprint or nil,
    checkServerIdentity = not psk and at('checkServerIdentity', function() end) or nil,
    retransmitTimeout = at('retransmitTimeout of a client', function() return 50 end),
  }))
  conn:on('error', function() end)
  if not acting then return conn end
  self.actor = conn
  self:listen('a client: ', conn, CONNECTION, conn)
  self:listen('a client: ', conn, { 'session' }, conn)
  conn:on('connection', function() conn:send 'hello' end)
  conn:on('message', function() self:provoke('a client: ', conn) end)
end

local function echoes(conn)
  loop.till(function() return conn:getDataMtu() > 0 and conn:getCipher() and conn:stats().connectedAt end, 'a client to open')
  return pair.roundTrip(conn, 'still here')
end

local function play(place, deed, demux, weak)
  local self = setmetatable({ place = place, deed = deed, demux = demux, objects = {}, stored = {}, weak = weak }, Stage)
  self.armed = place.early
  self:serve()
  local bystander
  if not place.early then
    bystander = self:client()
    echoes(bystander)
    self.session = place.resumes and assert(bystander:getSession()) or nil
    self.armed = true
  end
  self:client(true)
  if place.ends then
    loop.till(function() return self.actor:stats().connectedAt end, 'the actor')
    self.server:close(self:at 'callback of a server\'s close')
  end
  loop.till(function() return self.played end, 'the place')
  if self.completes then echoes(self.actor) end
  if not place.ends and not self.over then
    echoes(bystander or self:client())
  end
  pair.close(self.actor, bystander, self.server)
  loop.till(function()
    for _, entry in pairs(self.objects) do
      if entry.closes == 0 then return false end
    end
    return true
  end, 'everything to close')
  for _, entry in pairs(self.objects) do assert.equal(1, entry.closes - entry.forged) end
  local stats = self.server:stats()
  assert.same({ 0, 0 }, { stats.active, stats.handshaking })
  if self.other then pair.close(self.other) end
end

-- ── the places ──

local places = {
  { name = 'a server: listening', early = true }, { name = 'callback of listen', early = true },
  { name = 'a server: accept' }, { name = 'a server: connection' }, { name = 'a server: keylog' },
  { name = 'a server: clientError', fails = true }, { name = 'a server: error' }, { name = 'a server: close', ends = true },
  { name = 'callback of a server\'s close', ends = true },
  { name = 'psk of a server', psk = true }, { name = 'psk of a client', psk = true },
  { name = 'SNICallback' }, { name = 'checkServerIdentity' },
  { name = 'sessionStore.get', resumes = true }, { name = 'sessionStore.set' }, { name = 'sessionStore.remove', resumes = true },
  { name = 'retransmitTimeout of a server' }, { name = 'retransmitTimeout of a client' },
  { name = 'a client: session' },
}
for _, prefix in ipairs { 'a client: ', 'a server\'s connection: ' } do
  for _, event in ipairs { 'callback of close', 'callback of send', 'callback of setTimeout', unpack(CONNECTION) } do
    places[#places + 1] = { name = prefix .. event }
  end
end

-- ── the deeds ──

local function each(self, work)
  for _, conn in ipairs { self.conn or self.actor, self.actor, self.accepted } do work(conn) end
end

local deeds = {
  { 'destroys', function(self) self.conn:destroy() end },
  { 'destroys with an error', function(self) self.conn:destroy('enough') end },
  { 'closes', function(self) self.conn:close() end },
  { 'closes and destroys both ends', function(self)
    each(self, function(conn)
      conn:close()
      conn:destroy()
      conn:destroy('again')
      conn:close(function() end)
    end)
  end },
  { 'throws', function() error('on purpose', 0) end },
  { 'destroys, then throws', function(self)
    self.conn:destroy()
    error('on purpose', 0)
  end },
  { 'closes the server', function(self) self.server:close() end, over = true },
  { 'destroys the server', function(self) self.server:destroy() end, over = true },
  { 'closes the server, destroys it and throws', function(self)
    self.server:close()
    self.server:destroy()
    error('on purpose', 0)
  end, over = true },
  { 'collects garbage', function()
    collectgarbage()
    collectgarbage()
  end },
  { 'sends', function(self)
    each(self, function(conn)
      conn:send 'out of turn'
      conn:send('out of turn', function() end)
    end)
  end },
  { 'sets what can be set', function(self)
    each(self, function(conn)
      conn:setMtu(600)
      conn:setLinkMtu(700)
      conn:setRetransmitTimeout(50)
      conn:setRetransmitTimeout(function() return 50 end)
      conn:setTimeout(1000)
      conn:unref()
      conn:ref()
    end)
  end },
  { 'changes identity, secrets and keys', function(self)
    local options = { cert = identity.cert, key = identity.key, psk = function() return KEY end }
    assert(self.server:setContext(options))
    assert(self.server:setContext(assert(dtls.createContext('server', options))))
    assert(self.server:setCookieSecret(('s'):rep(32)))
    assert(self.server:setTicketKeys(('t'):rep(80)))
  end },
  { 'connects once more', function(self) self:client() end },
  { 'starts another server', function(self)
    self.other = pair.listening { demux = self.demux }
  end },
  { 'removes all listeners', function(self)
    for object, entry in pairs(self.objects) do
      if entry.closes == 0 and object ~= self.server then
        object:removeAllListeners()
        object:on('close', function() entry.closes = entry.closes + 1 end)
      end
    end
    self.server:removeAllListeners 'accept'
    self.server:removeAllListeners 'connection'
    self.server:on('accept', function(conn) self:accept(conn) end)
    for conn in self.server:connections() do conn:on('message', function(data) conn:send(data) end) end
  end },
  { 'emits the event again', function(self, ...)
    if not self.emitter then return end
    if self.event == 'close' then self.objects[self.emitter].forged = 1 end
    self.emitter:emit(self.event, ...)
  end },
}

-- Everything in the weak table is gone once it is collected.
local function assertCollected(weak)
  jit.flush() -- compiled code keeps objects that it has been made for
  loop.till(function()
    collectgarbage()
    return next(weak) == nil
  end, 'everything to be collected')
end

describe('an application, whatever it does, harms nobody else and leaves nothing behind', function()
  for _, place in ipairs(places) do
    -- The strategies differ in what is pulled away from under a server.
    for _, demux in ipairs(place.name:find('client', 1, true) and { 'shared' } or pair.strategies) do
      it(('in %s (%s sockets)'):format(place.name, demux), loop.run(function()
        local before, weak = descriptors.count(), setmetatable({}, { __mode = 'k' })
        for _, deed in ipairs(deeds) do
          local ok, err = pcall(play, place, function(self, ...)
            self.over = deed.over
            return deed[2](self, ...)
          end, demux, weak)
          if not ok then error(deed[1] .. ': ' .. tostring(err), 0) end
          for _, text in ipairs(reports) do assert.equal('on purpose', text, deed[1]) end
          assert.equal(before, descriptors.count(), deed[1])
        end
        assertCollected(weak)
      end))
    end
  end
end)

describe('a listener that throws', function()
  it('keeps nobody else from hearing that a server listens', loop.run(function()
    local server = pair.server()
    server:on('listening', function() error('on purpose', 0) end)
    local heard = pair.record(server, 'listening')
    assert(server:listen(0, '127.0.0.1', function() error('on purpose', 0) end))
    loop.till(function() return #reports == 2 end, 'both errors')
    assert.equal(1, #heard)
    assert.same({ 'on purpose', 'on purpose' }, reports)
    pair.close(server)
  end))
end)

describe('a function that says when to repeat a flight', function()
  it('may set itself while it is asked', loop.run(function()
    local server = pair.echo(pair.listening())
    local asked = 0
    local function set(conn)
      local function wait()
        asked = asked + 1
        conn:setRetransmitTimeout(wait)
        return 50 * loop.patience
      end
      conn:setRetransmitTimeout(wait)
    end
    server:on('accept', set)
    local conn = pair.client(server)
    set(conn)
    echoes(conn)
    assert.equal(4, asked) -- by either side, for the first wait and the one after
    pair.close(conn, server)
  end))

  it('may set a number while it is asked, which then holds and doubles', loop.run(function()
    local silent = raw.open()
    local conn
    conn = pair.client(silent, { handshakeTimeout = 400 * loop.patience, retransmitTimeout = function()
      conn:setRetransmitTimeout(20)
      return 10
    end })
    local heard = pair.record(conn, 'error', 'close')
    heard.wait 'close'
    assert.equal('ERR_DTLS_HANDSHAKE_TIMEOUT', heard[1][2].code)
    assert.is_true(#silent.inbox >= 4 and #silent.inbox <= 8 + loop.patience, #silent.inbox .. ' hellos')
    pair.close(silent)
  end))
end)

describe('a function that waits', function()
  for _, place in ipairs(places) do
    if place.name:find '^psk' or place.name:find '^session' or place.name == 'SNICallback' or place.name == 'checkServerIdentity' then
      local function test(title, demux, waits, after)
        it(('%s (%s)'):format(title, place.name), loop.run(function()
          local before, weak = descriptors.count(), setmetatable({}, { __mode = 'k' })
          local threads = setmetatable({}, { __mode = 'v' })
          play(place, function(self)
            threads[1] = coroutine.running()
            weak[threads[1]] = true
            waits(self, threads[1])
            coroutine.yield()
          end, demux, weak)
          if after then after(threads[1]) end
          assert.same({}, reports)
          assertCollected(weak)
          assert.equal(before, descriptors.count())
        end))
      end

      test('is collected with its connection when nobody comes back to it', 'shared', function() end)

      -- Whoever is to resume it keeps it meanwhile.
      local kept
      test('comes back to nothing when connection and server are closed', 'connected', function(_, thread) kept = thread end, function()
        assert(coroutine.resume(kept))
        assert.equal('dead', coroutine.status(kept))
        kept = nil
      end)

      test('is answered once though it is resumed twice', 'shared', function(self, thread)
        local timer = uv.new_timer()
        self.completes = place.name ~= 'sessionStore.remove'
        timer:start(0, 0, function()
          timer:close()
          assert.is_true(coroutine.resume(thread))
          assert.is_false((coroutine.resume(thread)))
        end)
      end)
    end
  end
end)

-- ── handles that others close ──

pcall(ffi.cdef, 'int close(int fd);')

local closings = {
  ['the application'] = function(udp) udp:close() end,
  ['the system'] = function(udp) assert(ffi.C.close(udp:fileno()) == 0) end,
}

-- A socket with this descriptor, which is free.
local function taking(fd)
  local others = {}
  local found
  repeat
    found = raw.open()
    if found.udp:fileno() ~= fd then others[#others + 1] = found end
  until found.udp:fileno() == fd or #others > 100
  for _, other in ipairs(others) do pair.close(other) end
  assert.equal(fd, found.udp:fileno())
  return found
end

-- How often the loop turns while nothing happens but two timers.
local function turns()
  local count, prepare = 0, uv.new_prepare()
  prepare:start(function() count = count + 1 end)
  loop.call(function(done)
    local timer = uv.new_timer()
    timer:start(10, 10, function()
      timer:close()
      done()
    end)
  end)
  prepare:close()
  return count
end

local function assertUnharmed(foreign)
  local sender = raw.open()
  foreign:hear(sender)
  sender:send('for the other socket', foreign)
  loop.till(function() return foreign.inbox[1] end, 'what was sent to the other socket')
  assert.same({ 'for the other socket' }, foreign.inbox)
  assert.is_true(turns() < 100, 'the loop is busy')
  pair.close(sender)
end

describe('a handle that an application gave', function()
  for who, closes in pairs(closings) do
    for _, moment in ipairs { 'accept', 'connection' } do
      for _, demux in ipairs(pair.strategies) do
        local title = 'and %s closes at %s may come back as another socket, and a server goes on (%s sockets)'
        it(title:format(who, moment, demux), loop.run(function()
          local before = descriptors.count()
          local udp = uv.new_udp()
          assert(udp:bind('127.0.0.1', 0))
          local server = pair.echo(pair.server { demux = demux })
          assert(server:listen(udp))
          server.ip, server.port = '127.0.0.1', server:address().port
          local errors, foreign = pair.record(server, 'error', 'clientError'), nil
          server:once(moment, function()
            local fd = udp:fileno()
            closes(udp)
            foreign = fd
          end)
          local conn = pair.client(server, { retransmitTimeout = 50 })
          loop.till(function() return foreign end, moment)
          foreign = taking(foreign)
          echoes(conn)
          local another = pair.open(server)
          pair.roundTrip(another, 'a new one, too')
          assertUnharmed(foreign)
          pair.close(conn, another, server)
          assert.equal(server.port, server:address().port)
          assertUnharmed(foreign)
          pair.close(foreign)
          if not udp:is_closing() then udp:close() end
          assert.equal(0, #errors)
          loop.till(function() return descriptors.count() == before end, 'all descriptors to be closed')
        end))
      end
    end

    -- What the system closes before it is looked at cannot be told from what takes its number.
    for _, moment in ipairs { 'keylog', 'connection', who == 'the application' and 'connect' or nil } do
      for _, connected in ipairs { true, false } do
        local title = 'and %s closes at %s may come back as another socket, and a client goes on or says so (%s)'
        it(title:format(who, moment, connected and 'connected' or 'not connected'), loop.run(function()
          local server = pair.echo(pair.listening())
          local before = descriptors.count()
          local udp = uv.new_udp()
          assert(udp:bind('127.0.0.1', 0))
          if connected then assert(udp:connect(server.ip, server.port)) end
          local conn = assert(dtls.connect {
            handle = udp, host = not connected and server.ip or nil, port = not connected and server.port or nil,
            fingerprint = identity.fingerprint, keylog = true, handshakeTimeout = 500 * loop.patience,
          })
          local heard, foreign = pair.record(conn, 'error', 'close'), nil
          local function act()
            if foreign then return end
            local fd = udp:fileno()
            closes(udp)
            foreign = fd
          end
          if moment == 'connect' then act() else conn:once(moment, act) end
          loop.till(function() return foreign end, moment)
          foreign = taking(foreign)
          if moment == 'connect' then
            heard.wait 'close'
            assert.equal('error close', heard.names())
          else
            echoes(conn)
            assertUnharmed(foreign)
            pair.close(conn)
            assert.equal('close', heard.names())
          end
          assertUnharmed(foreign)
          pair.close(foreign)
          if not udp:is_closing() then udp:close() end
          loop.till(function() return descriptors.count() <= before end, 'all descriptors to be closed')
          pair.close(server)
        end))
      end
    end
  end
end)

-- ── the loop ──

-- A server with a client that is 'new', 'half-open' or 'open' when `after` runs.
local function program(moment, demux, after)
  return ([[
    local uv, dtls = require 'luv', require 'dtls'
    local identity = dtls.selfSigned()
    local server = assert(dtls.createServer { cert = identity.cert, key = identity.key, demux = '%s' })
    assert(server:listen(0, '127.0.0.1'))
    local closes = {}
    local function watch(name, object)
      closes[name] = 0
      object:on('close', function() closes[name] = closes[name] + 1 end)
    end
    watch('server', server)
    server:on('accept', function(conn)
      watch('accepted', conn)
      conn:on('message', function(data) conn:send(data) end)
    end)
    local client = dtls.connect { host = '127.0.0.1', port = server:address().port, fingerprint = identity.fingerprint }
    watch('client', client)
    client:on('message', function(data) print('echo of ' .. data) end)
    local function walk()
      uv.walk(function(handle) if not handle:is_closing() then handle:close() end end)
    end
    local moment = '%s'
    if moment == 'half-open' then server:once('accept', uv.stop) end
    if moment == 'open' then server:once('connection', uv.stop) end
    if moment ~= 'new' then uv.run() end
    %s]]):format(demux, moment, after)
end

local exits = 'calls os.exit'

local ends = {
  ['runs off its end'] = '',
  [exits] = 'os.exit(0)',
  ['calls os.exit and closes Lua'] = 'os.exit(0, true)',
  ['cannot close the loop'] = 'assert(select(3, uv.loop_close()) == "EBUSY")',
  ['closes every handle'] = 'walk() uv.run()', -- luv crashes when a state is closed while handles are
  ['closes every handle, then the loop'] = 'walk() uv.run() assert(uv.loop_close())',
  ['collects everything'] = 'client, server = nil, nil collectgarbage() collectgarbage()',
}

describe('a program', function()
  for _, demux in ipairs(pair.strategies) do
    for _, moment in ipairs { 'new', 'half-open', 'open' } do
      for title, after in pairs(ends) do
        it(('that %s ends well with a %s connection (%s sockets)'):format(title, moment, demux), function()
          -- What only Lua's memory points to is a leak to a sanitizer, when the state is not closed.
          local variables = title == exits and child.leaky or nil
          local stdout, stderr, status = child.run(program(moment, demux, after), nil, variables)
          assert.same({ '', '', 0 }, { stdout, stderr, status })
        end)
      end

      it(('may end connections whose handles somebody else has closed, %s ones (%s sockets)'):format(moment, demux), function()
        for _, between in ipairs { '', 'uv.run()' } do
          local stdout, stderr, status = child.run(program(moment, demux, ('walk() %s'):format(between) .. [[

            client:setTimeout(5):ref():unref()
            client:send 'nowhere'
            client:setRetransmitTimeout(5)
            server:ref():unref()
            assert(server:address().port > 0)
            client:destroy()
            client:close(function() print 'the client has closed' end)
            server:close(function() print 'the server has closed' end)
            server:destroy()
            uv.run()
            for _, count in pairs(closes) do assert(count == 1) end]]))
          assert.same({ '', 0 }, { stderr, status })
          assert.equal('the client has closed\nthe server has closed\n', stdout)
        end
      end)

      it(('may stop the loop and run it again with a %s connection (%s sockets)'):format(moment, demux), function()
        local stdout, stderr, status = child.run(program(moment, demux, [[
          client:on('message', uv.stop)
          client:on('connection', uv.stop)
          client:on('close', uv.stop)
          while not client:getCipher() do uv.run() end
          for _ = 1, 3 do
            client:send 'x'
            uv.run()
          end
          client:close()
          uv.run()
          server:close()
          uv.run()
          for _, count in pairs(closes) do assert(count == 1) end]]))
        assert.same({ '', 0 }, { stderr, status })
        assert.truthy(stdout:find '^echo of x\n')
      end)
    end

    it(('may connect again after somebody else has closed all handles while messages waited (%s sockets)'):format(demux), function()
      local stdout, stderr, status = child.run(program('open', demux, [[

        client:send { 'these', 'wait', 'for the end of the turn' }
        walk()
        uv.run()
        server = assert(dtls.createServer { cert = identity.cert, key = identity.key })
        assert(server:listen(0, '127.0.0.1'))
        client = dtls.connect { host = '127.0.0.1', port = server:address().port, fingerprint = identity.fingerprint }
        client:on('connection', function() print 'open' client:close() server:close() end)
        client:on('error', function(err) print(err) server:close() end)
        uv.run()]]))
      assert.same({ 'open\n', '', 0 }, { stdout, stderr, status })
    end)
  end

  it('may end a connection of dtls.coro whose handles somebody else has closed, and its coroutines go on', function()
    local stdout, stderr, status = child.run(program('open', 'shared', [[

      local coro = require 'dtls.coro'
      coroutine.wrap(function()
        local read, _, conn = coro.connect { host = '127.0.0.1', port = server:address().port, fingerprint = identity.fingerprint }
        coroutine.wrap(function() read(60000) print 'the reader goes on' end)()
        -- luv 1.51 cannot walk in a coroutine
        uv.new_timer():start(0, 0, function()
          walk()
          conn:close(function() print 'the connection has closed' end)
        end)
      end)()
      uv.run()]]))
    assert.same({ 'the reader goes on\nthe connection has closed\n', '', 0 }, { stdout, stderr, status })
  end)
end)
