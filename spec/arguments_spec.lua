-- Every public function raises for a wrong argument: the error has the caller's line, the function's name, the
-- argument's name and type.

local core = require 'dtls.core'
local dtls = require 'dtls'
local loop = require 'spec.support.loop'
local pair = require 'spec.support.pair'

local identity = pair.identity

-- The wrong calls of each function: the arguments, and the error's text behind the function's name. A function with an
-- empty list takes no arguments, or any.
local calls = {
  dtls = {
    createServer = {
      { 7, says = 'options: expected a table, got number' }, { { hots = 1 }, says = "unknown option 'hots'" },
      { { cert = 7 }, says = "option 'cert': expected PEM text" },
      { { host = 'x' }, says = "option 'host' belongs to connect and cannot be set by createServer" },
      { { psk = { a = 'b' } }, 7, says = 'onConnection: expected a function, got number' },
    },
    connect = {
      { nil, says = 'options: expected a table, got nil' }, { { cert = true }, says = "option 'cert': expected PEM text" },
      { { maxConnections = 1 }, says = "option 'maxConnections' belongs to createServer and cannot be set by connect" },
      { { port = {} }, says = "option 'port': expected a port from 1 to 65535, got table" },
      { { handle = io.stdout }, says = "option 'handle': expected a luv UDP handle or a dgram socket, got userdata" },
      { {}, 'x', says = 'onConnection: expected a function, got string' },
    },
    createContext = {
      { 'peer', {}, says = "role: expected 'server' or 'client', got \"peer\"" }, { 7, {}, says = 'role: expected' },
      { 'client', 7, says = 'options: expected a table, got number' },
      { 'client', { host = 'x' }, says = "option 'host' belongs to connect and cannot be set by createContext" },
    },
    selfSigned = {
      { 7, says = 'options: expected a table, got number' }, { { bits = 1 }, says = "unknown option 'bits'" },
      { { days = '7' }, says = "option 'days': expected a whole number from 1 to 36500, got string" },
    },
  },
  emitter = {
    on = { { 7, print, says = 'name: expected the name of an event, got number' }, { 'x', says = 'callback: expected a function, got nil' },
      { 'x', {}, says = 'callback: expected a function, got table' } },
    once = { { nil, print, says = 'name: expected' }, { 'x', 7, says = 'callback: expected a function, got number' } },
    emit = { { 7, says = 'name: expected the name of an event, got number' } },
    removeListener = { { says = 'name: expected' }, { 'x', 7, says = 'callback: expected a function, got number' } },
    removeAllListeners = { { 7, says = 'name: expected the name of an event, got number' } },
    listeners = { { says = 'name: expected the name of an event, got nil' } },
    listenerCount = { { says = 'name: expected the name of an event, got nil' } },
    wrap = { { 'nothing', says = "name: expected that of a method, got 'nothing'" } },
    propagate = { { 7, {}, says = 'name: expected' }, { 'x', {}, says = 'target: expected an emitter, got table' } },
    missingHandlerType = {},
  },
  server = {
    listen = {
      { {}, says = 'port: expected a port from 0 to 65535, or a luv UDP handle or a dgram socket, got table' },
      { { _handle = io.stdout }, says = 'port: expected' }, { '4433x', says = 'port: expected a port from 0 to 65535' },
      { 70000, says = 'got 70000' }, { says = 'got nil' }, { 0, 7, says = 'host: expected a string, got number' },
      { 0, '127.0.0.1', 'x', says = 'callback: expected a function, got string' },
    },
    address = {}, close = { { 7, says = 'callback: expected a function, got number' } }, destroy = {},
    setContext = {
      { 7, says = 'options: expected a table, got number' }, { { hots = 1 }, says = "unknown option 'hots'" },
      { { maxConnections = 9 }, says = "option 'maxConnections' belongs to createServer and cannot be set by setContext" },
      { { host = 'x' }, says = "option 'host' belongs to connect and cannot be set by setContext" },
      { { udpTTL = 9 }, says = "option 'udpTTL' belongs to createServer and connect and cannot be set by setContext" },
      { { context = {} }, says = "option 'context' belongs to createServer and connect and cannot be set by setContext" },
    },
    setCookieSecret = { { 7, says = 'secret: expected a string of at least 32 bytes, or {current, previous}, got number' } },
    setTicketKeys = { { 7, says = 'keys: expected a string of 80 bytes, or {current, previous}, got number' } },
    setBusy = { { says = 'busy: expected a boolean, got nil' } },
    sendDatagram = {
      { 7, {}, says = 'data: expected a string, got number' },
      { 'x', says = 'address: expected an address, {ip=, port=} with a port from 1 to 65535, got nil' },
    },
    connections = {}, stats = {}, ref = {}, unref = {},
  },
  setters = {
    setOptions = { { 7, says = 'names: expected a list of names, got number' } },
    clearOptions = { { 7, says = 'names: expected a list of names, got number' } }, options = {},
    setModes = { { 7, says = 'names: expected a list of names, got number' } }, modes = {},
    setVerify = { { 7, says = 'given: expected {mode=, depth=}, got number' }, { { mode = 7 }, says = 'mode: expected a list of names' },
      { { depth = 'x' }, says = 'depth: expected a whole number from 0 to 100, got string' }, { { mod = 7 }, says = "there is no 'mod'" } },
    setCiphers = { { 7, says = 'list: expected a string, got number' } },
    setGroups = { { 7, says = 'list: expected a string, got number' } },
    setSigalgs = { { 7, says = 'list: expected a string, got number' } },
  },
  context = { setTicketKeys = { { 7, says = 'keys: expected a string of 80 bytes' } }, info = {} },
  connection = {
    send = {
      { 42, says = 'data: expected a string or a list of strings, got number' },
      { 'data', 42, says = 'callback: expected a function, got number' },
    },
    sendDatagram = { { 7, says = 'data: expected a string, got number' } },
    close = { { {}, says = 'callback: expected a function, got table' } }, destroy = {},
    setTimeout = { { '7', says = 'ms: expected a whole number from 0' }, { -1, says = 'got -1' },
      { 7, 7, says = 'callback: expected a function, got number' } },
    setReceiveTimeout = { { '7', says = 'ms: expected a whole number from 0' },
      { 7, 7, says = 'callback: expected a function, got number' } },
    setRetransmitTimeout = { { 'x', says = 'wait: expected a function, or a whole number from 1 to 60000, got string' } },
    setMtu = { { '700', says = 'bytes: expected a whole number' } }, setLinkMtu = { { says = 'bytes: expected a whole number' } },
    getPeerCertificate = { { 7, says = 'chain: expected a boolean, got number' } },
    exportKeyingMaterial = { { 'x', 'y', says = 'length: expected a whole number from 1 to 65536, got string' },
      { 7, 7, says = 'label: expected a string, got number' }, { 7, 'x', 7, says = 'context: expected a string, got number' } },
  },
}

-- Asserts that a call raises the error that the case says, with the line of this file.
local function refuses(name, call, case)
  local ok, err = pcall(call)
  assert.is_false(ok, name .. ' took it: ' .. tostring(case.says))
  assert.truthy(tostring(err):find(name .. ': ' .. case.says, 1, true) or tostring(err):find(case.says, 1, true), err)
  assert.truthy(tostring(err):find('^[^:]*arguments_spec%.lua:%d+: ' .. name .. ': '), err)
end

local function refusesAll(object, list)
  for name, cases in pairs(list) do
    for _, case in ipairs(cases) do
      refuses(name, function()
        local called = object[name](object, unpack(case, 1, 3))
        return called
      end, case)
    end
  end
end

-- The public functions of an object's class, without those that the class inherits.
local function own(class, into)
  into = into or {}
  for name, value in pairs(class) do
    if type(name) == 'string' and type(value) == 'function' and not name:find '^_' then into[name] = true end
  end
  return into
end

describe('a wrong argument', function()
  it('of a function of the module raises an error with the caller\'s line', function()
    for name, cases in pairs(calls.dtls) do
      for _, case in ipairs(cases) do
        refuses(name, function()
          local called = dtls[name](unpack(case, 1, 3))
          return called
        end, case)
      end
    end
    local ok, err = pcall(function() return (dtls.fd(7)) end)
    assert.is_false(ok)
    assert.truthy(err:find "arguments_spec%.lua:%d+: bad argument #1 to 'fd' %(expected a luv UDP handle .*got number%)", err)
  end)

  it('of a method raises an error with the caller\'s line, also before the object has a socket and after it has closed', loop.run(function()
    local made = assert(dtls.createContext('server', { cert = identity.cert, key = identity.key }))
    refusesAll(made, calls.setters)
    refusesAll(made, calls.context)
    local server = pair.server()
    local function all(conn)
      refusesAll(conn, calls.connection)
      refusesAll(conn, calls.setters)
      refusesAll(conn, calls.emitter)
    end
    refusesAll(server, calls.server)
    refusesAll(server, calls.emitter)
    assert(server:listen('0', '127.0.0.1'))
    server.ip, server.port = '127.0.0.1', server:address().port
    local early = pair.client(server)
    all(early)
    pair.close(early)
    local conn, accepted = pair.open(server)
    all(conn)
    all(accepted)
    pair.close(conn, server)
    all(conn)
    all(accepted)
    refusesAll(server, calls.server)
  end))

  it('as self (a dot instead of a colon) raises an error with the caller\'s line', loop.run(function()
    local made = assert(dtls.createContext('server', { cert = identity.cert, key = identity.key }))
    local server = pair.listening()
    local conn = pair.open(server)
    for class, object in pairs { Server = server, Connection = conn, Context = made } do
      for name in pairs(own(getmetatable(object))) do
        if name ~= 'new' and name ~= 'extend' then
          for _, wrong in ipairs { 'x', 7, {}, made == object and server or made } do
            local ok, err = pcall(function()
              local called = object[name](wrong)
              return called
            end)
            assert.is_false(ok, class .. '.' .. name)
            local expected = ('%s: self: expected a %s before a colon, got %s'):format(name, class, type(wrong))
            assert.truthy(err:find('^[^:]*arguments_spec%.lua:%d+: ' .. expected), err)
          end
        end
      end
    end
    pair.close(conn, server)
  end))

  it('is tried in this spec on every public function, and on no function that does not exist', loop.run(function()
    local made = assert(dtls.createContext('server', { cert = identity.cert, key = identity.key }))
    local server = pair.listening()
    local conn = pair.open(server)
    local emitter = require 'dtls.emitter'
    local internal = { new = true, extend = true, fire = true, protect = true, errorText = true }
    local function compare(class, ...)
      local there, told = own(class), {}
      for name in pairs(internal) do there[name] = nil end
      for i = 1, select('#', ...) do
        for name in pairs((select(i, ...))) do told[name] = true end
      end
      -- Getters have no argument but self, whose test is the one before.
      for name in pairs(there) do
        if not told[name] and debug.getinfo(class[name], 'u').isvararg then told[name] = true end
      end
      assert.same(there, told)
    end
    compare(emitter, calls.emitter)
    compare(getmetatable(server), calls.server)
    compare(getmetatable(made), calls.context, calls.setters)
    for name in pairs(calls.connection) do assert.is_function(conn[name], name) end
    for name, value in pairs(dtls) do
      if type(value) == 'function' and value ~= core.fd then assert.is_table(calls.dtls[name], name) end
    end
    pair.close(conn, server)
  end))
end)

describe('a port', function()
  it('may be a text of digits, for a server and for a client', loop.run(function()
    local server = pair.echo(pair.server())
    assert(server:listen('0', '127.0.0.1'))
    server.ip, server.port = '127.0.0.1', tostring(server:address().port)
    local conn = pair.open(server, nil, { localPort = '0' })
    pair.roundTrip(conn, 'hello')
    pair.close(conn, server)
  end))
end)

describe('an error', function()
  it('concatenates as its message does, on either side of ..', function()
    local err = core.error('ERR_DTLS_X', 'it did not work')
    assert.equal('x: ERR_DTLS_X: it did not work', 'x: ' .. err)
    assert.equal('ERR_DTLS_X: it did not work!', err .. '!')
    assert.equal('ERR_DTLS_X: it did not work7', err .. 7)
    assert.equal('ERR_DTLS_X: it did not workERR_DTLS_X: it did not work', err .. err)
    assert.is_false((pcall(function() return err .. {} end)))
  end)

  it('of the resolver says in words what is wrong', loop.run(function()
    local conn = pair.client({ ip = 'no-such-host.invalid', port = 1 })
    local err = loop.event(conn, 'error')[1]
    assert.truthy(err.code:find '^EAI_', err.code)
    assert.is_nil(err.message:find 'EAI_', err.message)
  end))
end)
