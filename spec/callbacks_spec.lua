-- Functions of the application that misbehave: whatever one of them does, at most one handshake fails, that connection
-- emits the error, and all other connections are served.

local uv = require 'luv'
local dtls = require 'dtls'
local emitter = require 'dtls.emitter'
local loop = require 'spec.support.loop'
local pair = require 'spec.support.pair'
local proxy = require 'spec.support.proxy'
local uncaught = require 'spec.support.uncaught'

local identity = pair.identity
local KEY = 'a key that both know'

-- ── the stage ──
-- A server and its clients with every callback and every listener there is. The function that is named `hook` does the
-- test's deed once; all other functions do their work.

local Stage = {}
Stage.__index = Stage

-- `work` as the function called `name`; `own` is the connection that the function belongs to, if it belongs to one.
function Stage:playing(name, work, own)
  return function(...)
    local deed = self:choose(name)
    if not deed then return work(...) end
    self.own = own or nil
    return deed(self, work, ...)
  end
end

-- The deed that is due now, if the function called `name` does one.
function Stage:choose(name)
  if self.hook.name ~= name or self.played then return nil end
  self.played = true
  return self.deed
end

local function nothing() end

function Stage:listen(target, prefix, ...)
  local own = target.send and target
  for _, event in ipairs { ... } do target:on(event, self:playing(prefix .. event, nothing, own)) end
end

local function wait() return 20 * loop.patience end

function Stage:serverOptions()
  return {
    cert = identity.cert, key = identity.key, keylog = true, demux = self.demux, timeout = self.idle,
    handshakeTimeout = self.hook.on ~= 'client' and self.deadline or nil,
    psk = self:playing('psk of a server', function() return KEY end),
    SNICallback = self:playing('SNICallback', nothing),
    retransmitTimeout = self:playing('retransmitTimeout of a server', wait),
    sessionStore = {
      get = self:playing('sessionStore.get', function(id)
        if self.hook.name == 'sessionStore.remove' then return 'no session any more' end
        return self.stored[id]
      end),
      set = self:playing('sessionStore.set', function(id, blob) self.stored[id] = blob end),
      remove = self:playing('sessionStore.remove', function(id) self.stored[id] = nil end),
    },
  }
end

-- deadline: of handshakes, on the side of the hook. idle: when `timeout` is emitted.
local function new(hook, deed, demux, deadline, idle)
  local self = setmetatable({ hook = hook, deed = deed, demux = demux, deadline = deadline, idle = idle or 20 }, Stage)
  self.played = true -- not before the actor is there
  self.stored, self.clients, self.ended = {}, {}, 0
  self.server = pair.listening(self:serverOptions())
  self.errors = pair.record(self.server, 'error')
  self.refused = pair.record(self.server, 'clientError')
  self.server:on('accept', function(conn)
    conn:on('message', function(data) conn:send(data) end)
    conn:on('close', function() self.ended = self.ended + 1 end)
    self:listen(conn, 'a server\'s connection: ', 'connection', 'keylog', 'message', 'timeout', 'error', 'close')
    if self.hook.provokes == 'server' and not self.played then conn:destroy('provoked') end
  end)
  self.server:on('clientError', function() self.ended = self.ended + 1 end)
  self:listen(self.server, 'a server: ', 'accept', 'connection', 'keylog', 'clientError', 'error', 'close')
  return self
end

-- Opens one more client. `actor`: it has the functions that may be the hook.
function Stage:client(actor)
  local function played(name, work)
    if actor then return self:playing(name, work) end
    return work
  end
  local psk = self.hook.psk
  local conn = pair.client(self.server, {
    servername = 'localhost', keylog = true, timeout = self.idle, session = self.session,
    handshakeTimeout = self.hook.on ~= 'server' and actor and self.deadline or nil,
    psk = psk and played('psk of a client', function() return 'me', KEY end) or nil,
    fingerprint = not psk and identity.fingerprint or nil,
    checkServerIdentity = played('checkServerIdentity', nothing),
    retransmitTimeout = played('retransmitTimeout of a client', wait),
  })
  local entry = { conn = conn, closes = 0, heard = pair.record(conn, 'error') }
  self.clients[#self.clients + 1] = entry
  conn:on('connection', function() conn:send 'echo' end)
  conn:on('message', function(data)
    if data == 'echo' then entry.echoed = true end
    if actor and self.hook.provokes == 'client' and not self.played then conn:destroy('provoked') end
  end)
  conn:on('close', function()
    entry.closes = entry.closes + 1
    self.ended = self.ended + 1
  end)
  if actor then self:listen(conn, 'a client: ', 'connection', 'keylog', 'session', 'message', 'timeout', 'error', 'close') end
  return entry
end

-- Opens two clients at a time, the actor and another one. Ends when the hook has been called and one client has got its
-- echo, and (unless the other client is `held`) the other client has, too, or a connection has ended.
function Stage:play(held)
  if self.hook.name == 'sessionStore.get' or self.hook.name == 'sessionStore.remove' then
    local first = self:client()
    loop.till(function() return first.echoed end, 'a session')
    self.session = assert(first.conn:getSession())
    pair.close(first.conn)
    self.ended = 0
  end
  self.played = false
  self.actor, self.bystander = self:client(true), self:client()
  loop.till(function()
    local echoed = (self.actor.echoed and 1 or 0) + (self.bystander.echoed and 1 or 0)
    return self.played and (self.over or echoed == 2 or echoed == 1 and (held or self.ended > 0))
  end, 'one client to be served, and the other one to be served or gone')
end

-- Asserts that the server still serves, closes everything, and asserts that every connection has emitted close once.
function Stage:finish()
  if not self.over then
    local another = self:client()
    loop.till(function() return another.echoed end, 'the server to go on')
  end
  for _, entry in ipairs(self.clients) do pair.close(entry.conn) end
  pair.close(self.server)
  for _, entry in ipairs(self.clients) do assert.equal(1, entry.closes) end
  assert.equal(0, self.server:stats().active)
end

-- How many errors of a record have this code; each must say all of these.
local function count(list, code, ...)
  local found = 0
  for _, each in ipairs(list) do
    local err = each[2]
    if type(err) == 'table' and err.code == code then
      found = found + 1
      for _, words in ipairs { ... } do
        assert.truthy(err.message:find(words, 1, true), ('%q is missing from: %s'):format(words, err.message))
      end
    end
  end
  return found
end

-- ── the functions ──

local tooLong = ('k'):rep(513)
-- `wrong`: lists of results that the function must not return.
local callbacks = {
  { name = 'psk of a server', says = 'psk', on = 'server', psk = true, wrong = { { 7 }, { true }, { {} }, { '' }, { tooLong } } },
  { name = 'psk of a client', says = 'psk', on = 'client', psk = true,
    wrong = { { 7, KEY }, { 'me' }, { 'me', 7 }, { 'me', '' }, { 'me', tooLong }, { 'm\0e', KEY }, { ('i'):rep(257), KEY }, { true } } },
  { name = 'SNICallback', says = 'SNICallback', on = 'server',
    wrong = { { 7 }, { 'localhost' }, { true }, { {} }, { { nonsense = true } }, { { cert = 7 } }, { { cert = 'x', key = 'y' } },
      { assert(dtls.createContext('client', { fingerprint = identity.fingerprint })) }, { function() end } } },
  { name = 'sessionStore.get', says = 'sessionStore.get', on = 'server', wrong = { { 7 }, { true }, { {} } } },
  { name = 'checkServerIdentity', says = 'checkServerIdentity', on = 'client', wrong = { { true }, { 7 }, { {} } } },
  { name = 'retransmitTimeout of a server', says = 'retransmitTimeout', on = 'server', plain = true,
    wrong = { { 'soon' }, {}, { {} }, { 0 / 0 } } },
  { name = 'retransmitTimeout of a client', says = 'retransmitTimeout', on = 'client', plain = true,
    wrong = { { '7' }, {}, { true }, { 0 / 0 } } },
  { name = 'sessionStore.set', says = 'sessionStore.set', on = 'store' },
  { name = 'sessionStore.remove', says = 'sessionStore.remove', on = 'store' },
}

local listeners = {
  { name = 'a server: accept' }, { name = 'a server: connection' }, { name = 'a server: keylog' },
  { name = 'a server: clientError', provokes = 'server' },
  { name = 'a server\'s connection: connection' }, { name = 'a server\'s connection: keylog' },
  { name = 'a server\'s connection: message' }, { name = 'a server\'s connection: timeout' },
  { name = 'a server\'s connection: error', provokes = 'server' }, { name = 'a server\'s connection: close', provokes = 'server' },
  { name = 'a client: connection' }, { name = 'a client: keylog' }, { name = 'a client: session' }, { name = 'a client: message' },
  { name = 'a client: timeout' }, { name = 'a client: error', provokes = 'client' }, { name = 'a client: close', provokes = 'client' },
  -- A handshake that a callback has answered at once goes on within that very call.
  { name = 'a server\'s connection: connection', psk = true }, { name = 'a client: message', psk = true },
}

-- ── the deeds ──

local textless = setmetatable({}, { __tostring = function() error 'no text' end })

local throws = {
  { 'throws a string', function() error('on purpose', 0) end, text = 'on purpose' },
  { 'throws an object', function() error(setmetatable({}, { __tostring = function() return 'an object' end })) end, text = 'an object' },
  { 'throws nil', function() error() end, text = 'nil' },
  { 'throws an object whose __tostring throws', function() error(textless) end, text = 'without text' },
  { 'runs out of stack', function()
    collectgarbage() -- LuaJIT crashes, or forgets the userdata, when a finalizer runs where no stack is left
    local function deeper() return 1 + deeper() end
    return deeper()
  end, text = 'stack overflow' },
}

-- The connection among the function's arguments or that the function belongs to, else any connection of the server.
local function someConnection(stage, ...)
  for i = 1, select('#', ...) do
    local argument = select(i, ...)
    if type(argument) == 'table' and argument.send then return argument end
  end
  return stage.own or stage.hook.on == 'client' and stage.actor.conn or stage.server:connections()() or stage.actor.conn
end

-- After each of these acts the function does its work.
local acts = {
  { 'destroys a connection', function(stage, ...) someConnection(stage, ...):destroy() end },
  { 'destroys a connection with an error', function(stage, ...) someConnection(stage, ...):destroy('enough') end },
  { 'closes a connection', function(stage, ...) someConnection(stage, ...):close() end },
  { 'sends on every connection of the server and on the client', function(stage)
    for conn in stage.server:connections() do conn:send 'out of turn' end
    stage.actor.conn:send 'out of turn'
  end },
  { 'gives the server another context', function(stage)
    local made = assert(dtls.createContext('server', { cert = identity.cert, key = identity.key, psk = { me = KEY } }))
    assert(stage.server:setContext(made))
  end },
  { 'collects garbage twice', function()
    collectgarbage 'collect'
    collectgarbage 'collect'
  end },
  { 'opens another connection to the same server', function(stage) stage.other = stage:client() end },
  { 'closes the server', function(stage)
    stage.over = true
    stage.server:close()
  end, ends = true },
  { 'destroys the server', function(stage)
    stage.over = true
    stage.server:destroy()
  end, ends = true },
}

local reports
before_each(function() reports = uncaught.keep() end)
after_each(uncaught.release)

-- Asserts that the hook's failure is the error of one connection, of the server (session store), or of a listener.
local function assertFailed(stage, text)
  local hook = stage.hook
  assert.equal(hook.on and 0 or 1, #reports)
  if not hook.on then return assert.truthy(reports[1]:find(text, 1, true), reports[1]) end
  for side, list in pairs { server = stage.refused, client = stage.actor.heard, store = stage.errors } do
    assert.equal(side == hook.on and 1 or 0, count(list, 'ERR_DTLS_CALLBACK', hook.says .. ': ', text))
  end
end

local function assertServed(stage)
  loop.till(function() return stage.actor.echoed and stage.bystander.echoed end, 'both clients to be served')
  assert.equal(0, #stage.refused)
end

-- The strategies differ in what an act may pull away from under a handshake: its socket, or its place in a table.
local function describeHook(hook, demux)
  local function play(deed)
    local stage = new(hook, deed, demux)
    stage:play()
    return stage
  end

  local function test(title, body) it(title, loop.run(body)) end

  for _, each in ipairs(acts) do
    test(each[1], function()
      local stage = play(function(stage, work, ...)
        each[2](stage, ...)
        return work(...)
      end)
      if stage.other then loop.till(function() return stage.other.echoed end, 'the other connection') end
      for _, list in ipairs { stage.refused, stage.errors, stage.actor.heard } do assert.equal(0, count(list, 'ERR_DTLS_CALLBACK')) end
      stage:finish()
      assert.same({}, reports)
    end)
  end

  if demux == 'connected' then return end

  local harmless = not hook.provokes and (hook.on == 'store' or not hook.on)

  for _, each in ipairs(throws) do
    test(each[1], function()
      local stage = play(each[2])
      assertFailed(stage, each.text)
      if harmless then assertServed(stage) end
      stage:finish()
    end)
  end

  for i, results in ipairs(hook.wrong or {}) do
    test('returns a wrong result, number ' .. i .. ' of its list', function()
      local stage = play(function() return unpack(results, 1, 2) end)
      assertFailed(stage, '')
      stage:finish()
    end)
  end

  if hook.plain or not hook.on then
    test('yields although the function may not', function()
      local stage = play(coroutine.yield)
      assertFailed(stage, 'yield')
      if harmless then assertServed(stage) end
      stage:finish()
    end)
    return
  end

  test('yields and is never resumed', function()
    local kept = setmetatable({}, { __mode = 'k' })
    local stage = new(hook, function()
      kept[coroutine.running()] = true
      coroutine.yield()
    end, demux, 500 * loop.patience)
    stage:play(true)
    if hook.on == 'store' then
      assertServed(stage)
    else
      local list = hook.on == 'server' and stage.refused or stage.actor.heard
      loop.till(function() return #list > 0 end, 'the deadline')
      assert.equal('ERR_DTLS_HANDSHAKE_TIMEOUT', list[1][2].code)
    end
    stage:finish()
    assert.same({}, reports)
    collectgarbage 'collect'
    collectgarbage 'collect'
    assert.is_nil(next(kept), 'the coroutine is still there')
  end)

  test('yields and is resumed in time', function()
    local stage = play(function(_, work, ...)
      local thread, timer = coroutine.running(), uv.new_timer()
      timer:start(0, 0, function() timer:close(function() assert(coroutine.resume(thread)) end) end)
      coroutine.yield()
      collectgarbage 'collect'
      return work(...)
    end)
    assertServed(stage)
    stage:finish()
    assert.same({}, reports)
  end)

  test('yields and is resumed after its connection has closed', function()
    local thread
    local stage = new(hook, function(_, work, ...)
      thread = coroutine.running()
      coroutine.yield()
      return work(...)
    end, demux)
    stage:play(true)
    for _, entry in ipairs(stage.clients) do pair.close(entry.conn) end
    for conn in stage.server:connections() do conn:destroy() end
    loop.till(function() return stage.server:stats().active == 0 end, 'the end of all connections')
    assert(coroutine.resume(thread))
    assert.equal('dead', coroutine.status(thread))
    stage:finish()
    assert.equal(0, #stage.refused)
    assert.equal(0, #stage.errors)
    assert.same({}, reports)
  end)
end

pair.eachStrategy(function(demux)
  for _, list in ipairs { callbacks, listeners } do
    for _, hook in ipairs(list) do
      local title = hook.name .. (not hook.on and hook.psk and ', with a key that a function gives,' or '')
      describe(title, function() describeHook(hook, demux) end)
    end
  end
end)

describe('a server and clients whose functions misbehave at random', function()
  local CLIENTS, AT_ONCE, SHARE, SEED = 200, 40, 0.03, 7

  local deeds = { function() coroutine.yield() end }
  for _, each in ipairs(throws) do deeds[#deeds + 1] = each[2] end
  for _, each in ipairs(acts) do
    deeds[#deeds + 1] = not each.ends and function(stage, work, ...)
      each[2](stage, ...)
      return work(...)
    end or nil
  end
  for _, hook in ipairs(callbacks) do
    for _, results in ipairs(hook.wrong or {}) do
      deeds[#deeds + 1] = function() return unpack(results, 1, 2) end
    end
  end

  local function settled(entry) return entry.echoed or entry.idle or entry.closes > 0 end

  -- What an error of this module's own code would look like.
  local function assertNoneOfOurs(text)
    assert.is_nil(text:find('dtls/', 1, true), text)
  end

  pair.eachStrategy(function(demux)
    it('get one documented error for each handshake that fails, and all close', loop.run(function()
      local random = proxy.random(SEED)
      local misdeeds, served = 0, 0
      local stage = new({ name = 'any' }, nil, demux, 1000 * loop.patience, 500)

      function stage.choose()
        if stage.calm or random() >= SHARE then return nil end
        misdeeds = misdeeds + 1
        return deeds[math.floor(random() * #deeds) + 1]
      end

      local running = {}
      for started = 1, CLIENTS do
        stage.hook.psk = random() < 0.5
        stage.actor = stage:client(true)
        local entry = stage.actor
        entry.conn:on('timeout', function() entry.idle = true end)
        running[#running + 1] = entry
        loop.till(function()
          for i = #running, 1, -1 do
            if settled(running[i]) then
              local ended = table.remove(running, i)
              if ended.echoed then
                served = served + 1
                stage.session = ended.conn:getSession() or stage.session
              end
              ended.conn:close()
            end
          end
          return #running < (started < CLIENTS and AT_ONCE or 1)
        end, 'clients to be served or gone')
      end

      stage.calm = true
      assert.is_true(served > 0)
      assert.is_true(misdeeds > CLIENTS / 10, misdeeds .. ' misdeeds')
      stage:finish()
      for _, text in ipairs(reports) do assertNoneOfOurs(text) end
      for _, list in ipairs { stage.refused, stage.errors } do
        for _, each in ipairs(list) do assertNoneOfOurs(emitter.errorText(each[2])) end
      end
    end))
  end)
end)
