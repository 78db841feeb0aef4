-- Objects that are dead, foreign or not what they seem; the module in several Lua states, threads and copies.

local ffi = require 'ffi'
local uv = require 'luv'
local core = require 'dtls.core'
local dtls = require 'dtls'
local child = require 'spec.support.child'
local loop = require 'spec.support.loop'
local pair = require 'spec.support.pair'
local uncaught = require 'spec.support.uncaught'

local identity = pair.identity

-- ── the core's objects ──

local function newContext(role)
  return assert(core.context(role or 'server', { cert = { identity.cert }, key = { identity.key }, reject = false }))
end

-- One live object of each type, and what ends them.
local function objects(demux)
  local udp, peer = uv.new_udp(), uv.new_udp()
  assert(udp:bind('127.0.0.1', 0))
  assert(peer:connect('127.0.0.1', udp:getsockname().port))
  local endpoint = assert(core.endpoint(newContext(), core.fd(udp), demux))
  local association = assert(core.client(newContext 'client', core.fd(peer)))
  return { endpoint = endpoint, association = association, context = newContext() }, function()
    endpoint:close()
    association:close()
    udp:close()
    peer:close()
  end
end

local function methodsOf(object)
  local found = {}
  for name, method in pairs(debug.getmetatable(object)) do
    if type(method) == 'function' then found[name] = method end
  end
  return found
end

-- What is none of ours, whatever its metatable; `release` takes the metatable away before luv looks at it.
local function impostors(own)
  local metatable = debug.getmetatable(own)
  local timer = uv.new_timer()
  local real = debug.getmetatable(timer)
  local list = {
    7, 'x', true, {}, print, io.stdout, newproxy(), coroutine.create(print), ffi.new 'int[4]', setmetatable({}, metatable),
    debug.getregistry(), newproxy(), timer,
  }
  debug.setmetatable(list[#list - 1], metatable)
  debug.setmetatable(timer, metatable)
  return list, function()
    debug.setmetatable(timer, real)
    timer:close()
  end
end

describe('the core\'s objects', function()
  pair.eachStrategy(function(demux)
    it('refuse a self of another type', loop.run(function()
      local all, finish = objects(demux)
      for type, object in pairs(all) do
        local list, release = impostors(object)
        for _, other in pairs(all) do list[#list + 1] = other ~= object and other or nil end
        for name, method in pairs(methodsOf(object)) do
          for i, each in ipairs(list) do
            local ok, err = pcall(method, each, 'x', 'x', 'x')
            -- The collector calls it, and must not be interrupted.
            assert.equal(name == '__gc', ok, ('%s of %s, number %d'):format(name, type, i))
            if not ok then assert.truthy(err:find(('dtls.%s expected'):format(type), 1, true), err) end
          end
          assert.equal(name == '__gc', (pcall(method)))
        end
        release()
      end
      finish()
      collectgarbage()
      collectgarbage()
    end))

    it('may be collected by hand, as often as one likes, and are closed then', loop.run(function()
      local all, finish = objects(demux)
      for type, object in pairs(all) do
        local methods = methodsOf(object)
        for _ = 1, 3 do methods.__gc(object) end
        for name, method in pairs(methods) do
          if name ~= '__gc' and name ~= 'close' then
            local ok, err = pcall(method, object, 'x')
            assert.is_false(ok, name)
            assert.truthy(err:find(('the dtls.%s is closed'):format(type), 1, true), err)
          end
        end
      end
      finish()
    end))
  end)

  it('are not taken by functions that want another one', loop.run(function()
    local all, finish = objects 'shared'
    local contexts = { all.endpoint, all.association, io.stdout, debug.getregistry(), false }
    for _, wrong in ipairs(contexts) do
      assert.is_false((pcall(core.endpoint, wrong, 1, 'shared')))
      assert.is_false((pcall(core.client, wrong, 1)))
      assert.is_false((pcall(all.endpoint.set_context, all.endpoint, wrong)))
    end
    methodsOf(all.context).__gc(all.context)
    assert.is_false((pcall(core.endpoint, all.context, 1, 'shared')))
    assert.is_false((pcall(all.endpoint.set_context, all.endpoint, all.context)))
    finish()
  end))

  it('stay what they are when the module is loaded once more', loop.run(function()
    local made = newContext()
    package.loaded['dtls.core'] = nil
    local again = require 'dtls.core'
    package.loaded['dtls.core'] = core
    assert.is_table(made:get_ciphers())
    local udp = uv.new_udp()
    assert(udp:bind('127.0.0.1', 0))
    assert(again.endpoint(made, again.fd(udp), 'shared')):close()
    udp:close()
  end))

  it('are kept apart from those of another copy of the module', loop.run(function()
    local ours = newContext()
    local copy = os.tmpname()
    assert(uv.fs_copyfile(assert(package.searchpath('dtls.core', package.cpath)), copy))
    local other = assert(package.loadlib(copy, 'luaopen_dtls_core'))()
    os.remove(copy)
    local theirs = assert(other.context('server', { cert = { identity.cert }, key = { identity.key } }))
    assert.is_table(theirs:get_ciphers())
    assert.is_table(ours:get_ciphers())
    local udp = uv.new_udp()
    assert(udp:bind('127.0.0.1', 0))
    assert.is_false((pcall(core.endpoint, theirs, core.fd(udp), 'shared')))
    assert.is_false((pcall(other.endpoint, ours, core.fd(udp), 'shared')))
    assert.is_false((pcall(ours.get_ciphers, theirs)))
    assert(other.endpoint(theirs, other.fd(udp), 'shared')):close()
    udp:close()
    local server = pair.echo(pair.listening())
    local conn = pair.open(server)
    pair.roundTrip(conn, 'unharmed')
    pair.close(conn, server)
  end))
end)

-- ── what is made of them ──

local function nothing() end

local arguments = {
  {}, { 1 }, { -1, -1 }, { 0 / 0, math.huge }, { 'x', 'x' }, { ('x'):rep(80) }, { {}, {} }, { { mode = 'PEER', depth = 1 } },
  { nothing, nothing },
  { true, false, true }, { io.stdout }, { newproxy() },
}

local skipped = { new = true, extend = true, listen = true } -- no methods, and what begins something

-- Calls every public method in every way, on the object or on `self`. `ends`: those that end it, too.
local function callAll(object, ends, self)
  local tried = 0
  local class = getmetatable(object)
  while class do
    for name, method in pairs(class) do
      local public = type(name) == 'string' and name:sub(1, 1) ~= '_' and type(method) == 'function'
      if public and not skipped[name] and (ends or name ~= 'close' and name ~= 'destroy') then
        for _, each in ipairs(arguments) do pcall(method, self or object, unpack(each, 1, 3)) end
        tried = tried + 1
      end
    end
    class = getmetatable(class)
  end
  return tried
end

-- What `on` has got in callAll is no function.
local function quiet(object)
  if object.removeAllListeners then object:removeAllListeners() end
end

describe('servers, connections and contexts', function()
  -- What is no function is no good listener either.
  before_each(uncaught.keep)
  after_each(uncaught.release)

  it('survive every call before they start, while they run and after they have closed', loop.run(function()
    local made = assert(dtls.createContext('server', { cert = identity.cert, key = identity.key }))
    local server = pair.server { context = made }
    assert.is_true(callAll(server) > 15)
    quiet(server)
    server:setBusy(false)
    assert(server:listen(0, '127.0.0.1'))
    server.ip, server.port = '127.0.0.1', server:address().port
    local early = pair.client(server)
    assert.is_true(callAll(early) > 25)
    quiet(early)
    server:setContext { cert = identity.cert, key = identity.key }
    pair.close(early)
    local conn, accepted = pair.open(pair.echo(server))
    for _, each in ipairs { server, conn, accepted } do callAll(each) end
    callAll(made)
    for _, each in ipairs { server, conn, accepted } do quiet(each) end
    accepted:on('message', function(data) accepted:send(data) end)
    conn:setMtu(1200)
    accepted:setMtu(1200)
    pair.roundTrip(conn, 'unharmed')
    local closes = pair.record(conn, 'close')
    pair.close(conn, server)
    for _, each in ipairs { server, conn, accepted, early } do callAll(each, true) end
    assert.equal(1, #closes)
  end))

  it('are not confused by another self', loop.run(function()
    local server = pair.echo(pair.listening())
    local conn = pair.open(server)
    local wrong = { {}, 7, 'x', io.stdout, newproxy(), conn._association, server._endpoint }
    for _, object in ipairs { server, conn } do
      for _, other in ipairs(wrong) do callAll(object, true, other) end
    end
    pair.roundTrip(conn, 'unharmed')
    pair.close(conn, server)
  end))
end)

-- ── states and threads ──

-- A server and a client in one state, `count` sessions one after the other; with `leave` the last one stays open.
local session = [[
  local uv, dtls = require 'luv', require 'dtls'
  local identity = assert(dtls.selfSigned())
  for i = 1, count do
    local server = assert(dtls.createServer {
      cert = identity.cert, key = identity.key, demux = i % 2 == 0 and 'shared' or 'connected',
      psk = function() return 'a key' end, SNICallback = function() end, keylog = true,
    })
    assert(server:listen(0, '127.0.0.1'))
    server:on('connection', function(conn) conn:on('message', function(data) conn:send(data) end) end)
    local conn = assert(dtls.connect {
      host = '127.0.0.1', port = server:address().port, servername = 'localhost', fingerprint = identity.fingerprint,
      checkServerIdentity = function() end,
    })
    local echoed
    conn:on('connection', function() conn:send 'x' end)
    conn:on('message', function()
      echoed = true
      if leave and i == count then return uv.stop() end
      conn:close()
      server:close()
    end)
    uv.run()
    assert(echoed)
  end
]]

describe('the module', function()
  for _, leave in ipairs { false, true } do
    it('works in eight threads that load it at once and end one by one, ' .. (leave and 'with' or 'without') .. ' connections', function()
      for _ = 1, 3 do
        local stdout, stderr, status = child.run(([[
          local uv = require 'luv'
          local threads = {}
          for i = 1, 8 do
            -- A thread has a state of its own, which knows the environment and nothing else.
            threads[i] = assert(uv.new_thread(function(path, cpath, source, count, leave)
              package.path, package.cpath = path, cpath
              local run = assert(loadstring(source))
              setfenv(run, setmetatable({ count = count, leave = leave }, { __index = _G }))
              local ok, err = pcall(run)
              io.stdout:write(ok and 'done\n' or tostring(err) .. '\n')
            end, package.path, package.cpath, [=[%s]=], i, %s))
          end
          for i = 1, 8 do assert(threads[i]:join()) end
          os.exit(0) -- luv 1.48 and 1.51 crash when a state that has started a thread, for whatever, is closed
          ]]):format(session, leave), nil, child.leaky) -- what only Lua's memory points to would count
        assert.same({ '', ('done\n'):rep(8), 0 }, { stderr, stdout, status })
      end
    end)
  end

  it('works in the threads of uv.new_work', function()
    local stdout, stderr, status = child.run(([[
      local uv = require 'luv'
      local work = uv.new_work(function(path, cpath)
        package.path, package.cpath = path, cpath
        return #require 'dtls'.selfSigned().fingerprint
      end, print)
      for _ = 1, 16 do assert(work:queue(package.path, package.cpath)) end
      uv.run()]]))
    assert.same({ '', ('95\n'):rep(16), 0 }, { stderr, stdout, status })
  end)

  it('leaves nothing behind in states that are closed, with and without open connections', function()
    local stdout, stderr, status = child.run(([[
      local ffi = require 'ffi'
      ffi.cdef 'typedef struct lua_State lua_State; lua_State *luaL_newstate(void); void luaL_openlibs(lua_State *);'
      ffi.cdef 'void lua_close(lua_State *); int luaL_loadstring(lua_State *, const char *); int lua_pcall(lua_State *, int, int, int);'
      ffi.cdef 'const char *lua_tolstring(lua_State *, int, size_t *);'
      local C = ffi.C
      local function measure()
        local file = io.open '/proc/self/statm'
        local _, pages = file:read('*n', '*n')
        file:close()
        print(pages * 4, require 'spec.support.descriptors'.count())
      end
      for i = 1, 300 do
        if i == 100 or i == 300 then measure() end
        local L = C.luaL_newstate()
        C.luaL_openlibs(L)
        local source = ('count, leave = 1, %%s '):format(i %% 2 == 0) .. [=[%s]=]
        if C.luaL_loadstring(L, source) ~= 0 or C.lua_pcall(L, 0, 0, 0) ~= 0 then error(ffi.string(C.lua_tolstring(L, -1, nil))) end
        C.lua_close(L)
      end]]):format(session))
    assert.same({ '', 0 }, { stderr, status })
    local first, descriptors, last, others = stdout:match '(%d+)%s+(%d+)%s+(%d+)%s+(%d+)'
    assert.equal(descriptors, others)
    -- KB over 200 states: what one association keeps would be 8000. A sanitizer keeps for a while what was freed.
    assert.is_true(loop.patience > 1 or last - first < 2000, ('the process grew from %s to %s KB'):format(first, last))
  end)
end)
