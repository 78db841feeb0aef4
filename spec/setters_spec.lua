--- Each setter in each state that its object can be in. What a setter changes is shown where its subject is: settings_spec,
--- connection_spec, session_spec, rotation_spec.

local core = require 'dtls.core'
local hello = require 'spec.support.hello'
local loop = require 'spec.support.loop'
local pair = require 'spec.support.pair'
local raw = require 'spec.support.raw'
local resolving = require 'spec.support.resolver'

local identity = pair.identity

local SUITE = 'ECDHE-ECDSA-AES128-GCM-SHA256'

-- Arguments for every setter of a class: `chained` ones return their object in every state, `associated` ones are nil,
-- ENOTCONN once their connection has closed.
local connectionSetters = {
  chained = { setTimeout = { 60000 }, setReceiveTimeout = { 60000 }, setRetransmitTimeout = { 500 } },
  associated = {
    setMtu = { 600 }, setLinkMtu = { 700 }, setOptions = { 'NO_TICKET' }, setModes = { 'RELEASE_BUFFERS' },
    setVerify = { { depth = 3 } }, setCiphers = { SUITE }, setGroups = { 'P-256' }, setSigalgs = { 'ECDSA+SHA256' },
  },
}
local serverSetters = {
  chained = { setBusy = { false } },
  lasting = {
    setContext = { { cert = identity.cert, key = identity.key } }, setCookieSecret = { ('s'):rep(32) }, setTicketKeys = { ('k'):rep(80) },
  },
}

local function sorted(names)
  table.sort(names)
  return names
end

local function settersOf(class)
  local names = {}
  for name in pairs(class) do
    if name:find '^set%u' then names[#names + 1] = name end
  end
  return sorted(names)
end

local function listed(table)
  local names = {}
  for _, group in pairs(table) do
    for name in pairs(group) do names[#names + 1] = name end
  end
  return sorted(names)
end

-- Calls each setter of a connection; `alive`: it has not closed.
local function setAll(conn, alive)
  for name, arguments in pairs(connectionSetters.chained) do
    assert.equal(conn, conn[name](conn, unpack(arguments)), name)
  end
  for name, arguments in pairs(connectionSetters.associated) do
    local ok, err = conn[name](conn, unpack(arguments))
    if alive then
      assert.is_true(ok, ('%s: %s'):format(name, tostring(err)))
    else
      assert.is_nil(ok, name)
      assert.equal('ENOTCONN', err.code)
    end
  end
end

-- The same for what tells of settings.
local function getAll(conn, alive)
  for _, name in ipairs { 'options', 'modes' } do
    local list, err = conn[name](conn)
    if alive then
      assert.equal('table', type(list), name)
    else
      assert.is_nil(list)
      assert.equal('ENOTCONN', err.code)
    end
  end
end


describe('the lists of setters above', function()
  it('have every setter of a connection', function()
    assert.same(settersOf(require 'dtls.connection'), listed(connectionSetters))
  end)

  it('have every setter of a server', function()
    assert.same(settersOf(getmetatable(pair.server()).__index), listed(serverSetters))
  end)
end)

describe('every setter of a client works', function()
  it('right after connect', loop.run(function()
    local server = pair.listening()
    local conn = pair.client(server)
    setAll(conn, true)
    getAll(conn, true)
    loop.event(conn, 'connection')
    pair.close(conn, server)
  end))

  it('while the name of its server is looked up', loop.run(function()
    local server = pair.listening()
    resolving({ '127.0.0.1' }, function(asked)
      local conn = pair.client(server, { host = 'server.example', servername = 'localhost' })
      loop.till(function() return asked[1] end, 'the question to the resolver')
      setAll(conn, true)
      getAll(conn, true)
      loop.event(conn, 'connection')
      pair.close(conn)
    end)
    pair.close(server)
  end))

  it('once its hello has left', loop.run(function()
    local silent = raw.open()
    local conn = pair.client(silent)
    loop.till(function() return silent.inbox[1] end, 'a hello')
    setAll(conn, true)
    getAll(conn, true)
    pair.close(conn, silent)
  end))

  it('between connect and the end, and not after it', loop.run(function()
    local server = pair.listening()
    local conn = pair.open(server)
    setAll(conn, true)
    getAll(conn, true)
    pair.close(conn)
    setAll(conn, false)
    getAll(conn, false)
    pair.close(server)
  end))

  it('until destroy, although nothing has begun', loop.run(function()
    local conn = pair.client { ip = '127.0.0.1', port = raw.freePort() }
    setAll(conn, true)
    conn:destroy()
    setAll(conn, false)
    getAll(conn, false)
    loop.event(conn, 'close')
    setAll(conn, false)
  end))
end)

describe('what is set on a client right after connect', function()
  it('is refused at once when it cannot be', loop.run(function()
    local server = pair.listening()
    local conn = pair.client(server)
    for _, case in ipairs {
      { 'setMtu', 100 }, { 'setMtu', 100000 }, { 'setLinkMtu', 255 }, { 'setLinkMtu', 100000 }, { 'setOptions', 'NO_SUCH_OPTION' },
      { 'setModes', 'ASYNC' }, { 'setVerify', { mode = 'NOPE' } }, { 'setCiphers', 'NO-SUCH-SUITE' }, { 'setGroups', 'P-255' },
      { 'setSigalgs', 'ECDSA+MD7' },
    } do
      local ok, err = conn[case[1] ](conn, case[2])
      assert.is_nil(ok, case[1])
      assert.equal('ERR_DTLS_CONFIG', err.code)
    end
    loop.event(conn, 'connection')
    assert.equal(SUITE, conn:getCipher().name)
    pair.close(conn, server)
  end))

  it('can be read there', loop.run(function()
    local silent = raw.open()
    local conn = pair.client(silent)
    assert.is_true(conn:setOptions { 'NO_TICKET', 'NO_EXTENDED_MASTER_SECRET' })
    assert.is_true(conn:clearOptions 'NO_EXTENDED_MASTER_SECRET')
    assert.is_true(conn:setModes 'SEND_FALLBACK_SCSV')
    local options, modes = table.concat(conn:options(), ' '), conn:modes()
    assert.truthy(options:find 'NO_TICKET')
    assert.is_nil(options:find 'NO_EXTENDED_MASTER_SECRET')
    assert.same({ 'AUTO_RETRY', 'SEND_FALLBACK_SCSV' }, modes)
    loop.till(function() return silent.inbox[1] end, 'a hello')
    assert.equal(options, table.concat(conn:options(), ' '))
    assert.same(modes, conn:modes())
    pair.close(conn, silent)
  end))

  it('is the limit that getMtu gives, from there to the end', loop.run(function()
    local server = pair.listening { mtu = 1100 }
    local conn = pair.client(server, { mtu = 1000 })
    assert.equal(1000, conn:getMtu())
    assert.is_true(conn:setMtu(900))
    assert.equal(900, conn:getMtu())
    local accepted = loop.event(server, 'connection')[1]
    assert.equal(1100, accepted:getMtu())
    loop.till(function() return conn.authorized end, 'the end of the handshake')
    assert.equal(900, conn:getMtu())
    assert.is_true(conn:setLinkMtu(828))
    assert.equal(800, conn:getMtu())
    assert.is_true(conn:getDataMtu() < 800)
    pair.close(conn, server)
    local mtu, err = conn:getMtu()
    assert.is_nil(mtu)
    assert.equal('ENOTCONN', err.code)
  end))

  it('is the wait before its hello is repeated', loop.run(function()
    local silent = raw.open()
    local conn = pair.client(silent, { retransmitTimeout = 60000 })
    conn:setRetransmitTimeout(50)
    loop.till(function() return silent.inbox[2] end, 'a second hello')
    pair.close(conn, silent)
  end))
end)

-- A hello of more than 900 bytes.
local protocols = {}
for i = 1, 20 do protocols[i] = ('a protocol with a long name, number %02d'):format(i) end

local function longest(inbox)
  local size = 0
  for _, datagram in ipairs(inbox) do size = math.max(size, #datagram) end
  return size
end

for _, ip in ipairs(pair.addresses) do
  local headers = (ip == '::1' and 40 or 20) + 8

  describe(('the first flight of a client (%s)'):format(ip), function()
    local cases = {
      { 'setMtu', 'setMtu', 300, 300 },
      { 'setLinkMtu', 'setLinkMtu', 300 + headers, 300 },
    }
    for _, case in ipairs(cases) do
      local name, setter, value, limit = unpack(case)
      it(('keeps within the limit of %s right after connect'):format(name), loop.run(function()
        local silent = raw.open(ip)
        local conn = pair.client(silent, { ALPNProtocols = protocols })
        assert.is_true(conn[setter](conn, value))
        loop.till(function() return silent.inbox[4] end, 'a hello in four fragments')
        assert.is_true(longest(silent.inbox) <= limit)
        assert.is_true(longest(silent.inbox) > limit - 20)
        pair.close(conn, silent)
      end))
    end

    it('has the limit that was set last, whatever the options say', loop.run(function()
      local silent = raw.open(ip)
      local conn = pair.client(silent, { ALPNProtocols = protocols, linkMtu = 600 })
      assert.is_true(conn:setMtu(300))
      assert.is_true(conn:setLinkMtu(400 + headers))
      loop.till(function() return silent.inbox[3] end, 'a hello in three fragments')
      assert.is_true(longest(silent.inbox) <= 400)
      assert.is_true(longest(silent.inbox) > 380)
      pair.close(conn, silent)
    end))
  end)
end

describe('what is set on a client', function()
  -- The next call of a core setter fails, on an association that a client makes; on the draft it was accepted before.
  local function failing(method, err)
    local make = core.client
    core.client = function(...) -- luacheck: ignore 122
      local association, failed = make(...)
      local methods = association and debug.getmetatable(association).__index
      local set = methods and methods[method]
      if methods then
        methods[method] = function()
          methods[method], core.client = set, make -- luacheck: ignore 122
          return nil, err
        end
      end
      return association, failed
    end
  end

  it('ends the connection when the association does not take what its draft took', loop.run(function()
    for method, set in pairs { set_groups = 'setGroups', set_mtu = 'setMtu' } do
      local silent = raw.open()
      local conn = pair.client(silent, method == 'set_mtu' and { linkMtu = 700 } or nil)
      local heard = pair.record(conn, 'error', 'close')
      assert.is_true(conn[set](conn, set == 'setMtu' and 600 or 'P-256'))
      local err = core.error('ERR_DTLS_CONFIG', 'not here')
      failing(method, err)
      heard.wait 'close'
      assert.equal('error close', heard.names())
      assert.equal(err, heard[1][2])
      pair.close(silent)
    end
  end))

  it('lets the next address be tried when the system does not let the first one take it', loop.run(function()
    local server = pair.listening()
    local first = raw.open('127.0.0.2', server.port)
    resolving({ '127.0.0.2', '127.0.0.1' }, function()
      local conn = pair.client(server, { host = 'server.example', servername = 'localhost', retransmitTimeout = 50 })
      first:hear(conn)
      assert.is_true(conn:setCiphers 'ECDHE-ECDSA-CHACHA20-POLY1305')
      failing('set_ciphers', core.error('ENOMEM', 'no memory'))
      loop.event(conn, 'connection')
      assert.equal('127.0.0.1', conn:remoteAddress().ip)
      assert.equal('ECDHE-ECDSA-CHACHA20-POLY1305', conn:getCipher().name)
      assert.same({}, first.inbox)
      pair.close(conn, first)
    end)
    pair.close(server)
  end))

  it('holds for the next address, too, when the first one refuses', loop.run(function()
    local server = pair.listening { ALPNProtocols = protocols }
    local first = raw.open('127.0.0.2', server.port)
    resolving({ '127.0.0.2', '127.0.0.1' }, function()
      local conn = pair.client(server, {
        host = 'server.example', servername = 'localhost', ALPNProtocols = protocols, retransmitTimeout = 50,
      })
      first:hear(conn)
      assert.is_true(conn:setMtu(400))
      loop.till(function() return first.inbox[1] end, 'a hello at the first address')
      assert.is_true(conn:setCiphers 'ECDHE-ECDSA-CHACHA20-POLY1305')
      pair.close(first)
      loop.event(conn, 'connection')
      assert.equal('127.0.0.1', conn:remoteAddress().ip)
      assert.equal('ECDHE-ECDSA-CHACHA20-POLY1305', conn:getCipher().name)
      assert.is_true(conn:getDataMtu() < 400)
      pair.close(conn)
    end)
    pair.close(server)
  end))
end)

pair.eachStrategy(function(demux)
  describe('every setter of a server\'s connection', function()
    it('works in accept', loop.run(function()
      local server = pair.listening { demux = demux }
      local conn
      server:once('accept', function(accepted)
        setAll(accepted, true)
        getAll(accepted, true)
        conn = accepted
      end)
      local client = pair.open(server)
      setAll(conn, true)
      getAll(conn, true)
      pair.close(client, conn)
      setAll(conn, false)
      getAll(conn, false)
      pair.close(server)
    end))

    it('works while the handshake waits for the client', loop.run(function()
      local server = pair.listening { demux = demux }
      local conn
      server:once('accept', function(accepted) conn = accepted end)
      local peer = raw.open()
      hello.halfOpen(peer, server)
      setAll(conn, true)
      getAll(conn, true)
      pair.close(peer, server)
      setAll(conn, false)
    end))

    it('works no longer in clientError', loop.run(function()
      local server = pair.listening { demux = demux, handshakeTimeout = 50 }
      local heard = pair.record(server, 'clientError')
      local peer = raw.open()
      hello.cookie(peer, server)
      hello.halfOpen(peer, server)
      local conn = heard.wait 'clientError'[3]
      setAll(conn, false)
      getAll(conn, false)
      pair.close(peer, server)
    end))
  end)

  describe('every setter of a server works', function()
    local function setAllOf(server)
      for name, arguments in pairs(serverSetters.chained) do assert.equal(server, server[name](server, unpack(arguments)), name) end
      for name, arguments in pairs(serverSetters.lasting) do
        local ok, err = server[name](server, unpack(arguments))
        assert.is_true(ok, ('%s: %s'):format(name, tostring(err)))
      end
    end

    it('before it listens, while it does, and after', loop.run(function()
      local server = pair.server { demux = demux }
      setAllOf(server)
      assert(server:listen(0, '127.0.0.1'))
      server.ip, server.port = '127.0.0.1', server:address().port
      setAllOf(server)
      local conn = pair.open(server)
      setAllOf(server)
      pair.close(conn)
      server:close()
      setAllOf(server)
      loop.event(server, 'close')
      setAllOf(server)
    end))
  end)
end)
