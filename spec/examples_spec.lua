local dtls = require 'dtls'
local uv = require 'luv'
local contents = require 'spec.support.contents'
local loop = require 'spec.support.loop'
local pair = require 'spec.support.pair'
local pki = require 'spec.support.pki'
local process = require 'spec.support.process'
local proxy = require 'spec.support.proxy'
local raw = require 'spec.support.raw'
local shell = require 'spec.support.shell'
local needs = require('spec.support.platform').needs

local root = uv.cwd()
local build = assert(uv.fs_realpath(os.getenv 'DTLS_BUILD' or 'build'))

local scripts = {
  'demo.lua', 'echo_server.lua', 'echo_client.lua', 'psk_server.lua', 'dtlscat.lua', 'coap_gateway.lua', 'tunnel.lua', 'syslog.lua',
  'game_server.lua', 'webrtc_pair.lua', 'coroutine.lua', 'fleet.lua', 'fleet_worker.lua', 'coap.lua', 'coap_client.lua',
  'tunnel_streams.lua', 'tunnel_datagrams.lua',
}
local variants = { shared = build, static = build .. '/static' }

-- ── ways to run an example: each is a function(script, …) → child ──

local tree

-- An application of luvit's: the examples, and the module dropped into deps.
local function application(variant)
  local dir = tree .. '/' .. variant
  assert(uv.fs_mkdir(dir, 448))
  assert(uv.fs_mkdir(dir .. '/deps', 448))
  assert(uv.fs_symlink(variants[variant] .. '/luvit/dtls', dir .. '/deps/dtls'))
  for _, script in ipairs(scripts) do assert(uv.fs_symlink(root .. '/examples/' .. script, dir .. '/' .. script)) end
end

-- The checkout, for luajit; one of make's variants, and not the one that busted itself runs with.
local function withPaths(variant, ...)
  return process.spawn('env', {
    ('LUA_PATH=%s/lua/?.lua;%s/lua/?/init.lua;;'):format(root, root), ('LUA_CPATH=%s/?.so;;'):format(variants[variant]), ...,
  })
end

local run = {}

-- The program is a script, so that an example can start itself again by args[0].
local function asLuvit(host, variant, script, ...)
  local luvit = ('%s/%s'):format(tree, host)
  if not uv.fs_stat(luvit) then
    local file = assert(io.open(luvit, 'w'))
    file:write(('#!/bin/sh\nunset LUA_PATH LUA_CPATH\nLUVIT="$0" exec %s/host/%s %s/spec/host/init.lua "$@"\n'):format(build, host, root))
    file:close()
    assert(uv.fs_chmod(luvit, 448))
  end
  return process.spawn(luvit, { ('%s/%s/%s'):format(tree, variant, script), ... })
end

for variant in pairs(variants) do
  run['luajit, ' .. variant] = function(script, ...) return withPaths(variant, 'luajit', 'examples/' .. script, ...) end
  run['luvit, ' .. variant] = function(script, ...) return asLuvit('luvi', variant, script, ...) end
end
run['luvi 2.14, static'] = function(script, ...) return asLuvit('luvi-old', 'static', script, ...) end

local everywhere = { 'luajit, shared', 'luajit, static', 'luvit, shared', 'luvit, static', 'luvi 2.14, static' }

-- The pairings: who runs the server, and who runs the client.
local pairings = {
  { 'luajit, shared', 'luajit, shared' },
  { 'luajit, shared', 'luvit, static' },
  { 'luvit, shared', 'luajit, static' },
  { 'luvit, static', 'luvit, shared' },
  { 'luvi 2.14, static', 'luvi 2.14, static' },
}

local function write(name, text)
  local path = tree .. '/' .. name
  local file = assert(io.open(path, 'w'))
  file:write(text)
  file:close()
  return path
end

local function identity(name)
  local made = assert(dtls.selfSigned())
  return {
    cert = write(name .. '.cert', made.cert), key = write(name .. '.key', made.key), fingerprint = made.fingerprint,
  }
end

local function test(body)
  return loop.run(function()
    local ok, err = xpcall(body, function(err) return type(err) == 'string' and debug.traceback(err, 2) or err end)
    process.killAll()
    if not ok then error(err, 0) end
  end)
end

local function assertEnds(child, expected)
  local code, signal = child:wait()
  assert.same({ expected or 0, 0 }, { code, signal }, child.output.stderr)
end

-- Starts dtlscat on a free port; returns it, the port, and the fingerprint that it printed.
local function listen(runner, ...)
  local listener = run[runner]('dtlscat.lua', '-l', '127.0.0.1', '0', ...)
  local port = listener:expect 'listening on 127%.0%.0%.1 port (%d+)\n'
  return listener, port, listener:printed 'fingerprint (%S+)\n'
end

local function connect(runner, port, ...)
  return run[runner]('dtlscat.lua', '127.0.0.1', port, ...)
end

local function talk(one, other)
  one:write 'from one side\n'
  other:expect 'from one side\n'
  other:write 'from the other\n'
  one:expect 'from the other\n'
end

-- ── the peers of the examples ──

-- As much of CoAP (RFC 7252) as these tests need: codes, requests of one path, answers.
local coap = {
  GET = 1, PUT = 3, DELETE = 4, CREATED = 65, CHANGED = 68, CONTENT = 69, BAD_OPTION = 130, NOT_FOUND = 132, NOT_ALLOWED = 133,
  TOO_LARGE = 141, UNAVAILABLE = 163,
}

local Device = {}
Device.__index = Device

-- An open client of coap_gateway, with a pre-shared key.
local function device(port, name, options)
  local keys = { kitchen = 'key of the kitchen', hall = 'key of the hall...' }
  local self = setmetatable({ last = 0 }, Device)
  self.conn = pair.client({ ip = '127.0.0.1', port = port }, pair.merged({
    psk = { identity = name, key = keys[name] },
  }, options))
  self.got = pair.record(self.conn, 'message', 'error', 'close')
  loop.event(self.conn, 'connection')
  return self
end

-- Sends bytes and returns those that come back.
function Device:exchange(data)
  assert(self.conn:send(data))
  self.taken = (self.taken or 0) + 1
  loop.till(function() return self.got[self.taken] end, 'the answer')
  assert.equal('message', self.got[self.taken][1])
  return self.got[self.taken][2]
end

-- Sends a confirmable request; returns the code and the payload of its acknowledgement.
function Device:ask(code, path, payload)
  self.last = self.last + 1
  local rest = string.char(0, self.last) .. 'token'
  local request = string.char(0x45, code) .. rest .. string.char(0xb0 + #path) .. path
  local answer = self:exchange(payload and request .. '\255' .. payload or request)
  assert.equal(0x65, answer:byte())
  assert.equal(rest, answer:sub(3, 9))
  if #answer == 9 then return answer:byte(2) end
  assert.equal(255, answer:byte(10))
  return answer:byte(2), answer:sub(11)
end

-- A plain UDP socket: send(text, port or address), take() → text, the sender's address.
local function socket(port)
  local udp, inbox = uv.new_udp(), {}
  assert(udp:bind('127.0.0.1', port or 0))
  udp:recv_start(function(_, data, from)
    if from then inbox[#inbox + 1] = { data or '', from } end
  end)
  return {
    port = udp:getsockname().port,
    send = function(_, text, to) assert(udp:try_send(text, '127.0.0.1', type(to) == 'table' and to.port or to)) end,
    take = function()
      local first = loop.till(function() return table.remove(inbox, 1) end, 'a datagram')
      return first[1], first[2]
    end,
    close = function() udp:close() end,
  }
end

local SECRET = '00112233445566778899aabbccddeeff'

-- A TCP server of this process; each connection that it takes is in `taken`, with what it has received, and whether that has ended.
local function tcpServer()
  local server = { tcp = uv.new_tcp(), taken = {} }
  assert(server.tcp:bind('127.0.0.1', 0))
  server.port = server.tcp:getsockname().port
  assert(server.tcp:listen(128, function()
    local tcp = uv.new_tcp()
    server.tcp:accept(tcp)
    server.taken[#server.taken + 1] = { tcp = tcp, pieces = {} }
  end))
  function server.nextOne()
    local one = loop.till(function() return table.remove(server.taken, 1) end, 'a TCP connection')
    return one
  end
  return server
end

-- Reads from a TCP connection from now on: `pieces`, and `ended` (true or an error).
local function reads(one)
  one.tcp:read_start(function(err, data)
    if data then one.pieces[#one.pieces + 1] = data else one.ended = err or true end
  end)
  function one.all()
    loop.till(function() return one.ended end, 'the end of a TCP connection', 30000)
    return table.concat(one.pieces), one.ended
  end
  return one
end

local function tcpClient(port)
  local one = { tcp = uv.new_tcp(), pieces = {} }
  assert.is_nil((loop.call(function(done) one.tcp:connect('127.0.0.1', port, done) end, 'a TCP connection')))
  return one
end

-- Two peers of webrtc_pair whose offer is answered, before the answer has come back; and the fingerprint that the answer printed.
local function negotiate(here, there, expected)
  local offer = run[here]('webrtc_pair.lua', 'offer')
  local ip, port, fingerprint = offer:expect 'answer with: webrtc_pair.lua answer (%S+) (%d+) (%S+)\n'
  local answer = run[there]('webrtc_pair.lua', 'answer', ip, port, expected or fingerprint)
  local answered = answer:expect '^(%x%x:[%x:]+)\n.*STUN answered before the handshake\n'
  assert.is_nil((answer:printed 'sends with'))
  return offer, answer, answered
end

-- A running fleet of two processes, and a way to look at it.
local Fleet = {}
Fleet.__index = Fleet

-- Starts it with an identity of its own, and with a Redis for its sessions if a port is given.
local function startFleet(runner, redisPort)
  local self = setmetatable({ path = os.tmpname() }, Fleet)
  self:newIdentity()
  self.child = run[runner]('fleet.lua', self.path, '0', '127.0.0.1', '0', '2', redisPort)
  self.url = self.child:expect 'metrics at (%S+)\n'
  self.port = tonumber(self.child:expect '\n2 processes serve port (%d+)\n')
  return self
end

function Fleet:newIdentity()
  local made = assert(dtls.selfSigned())
  self.fingerprint = made.fingerprint
  local file = assert(io.open(self.path, 'w'))
  file:write(made.cert, made.key)
  file:close()
end

-- What curl gets from a URL: the status, and the text.
local function curl(url)
  local child = process.spawn('curl', { '--silent', '--show-error', '--write-out', '%{http_code}', url })
  assertEnds(child)
  local text, status = child.output.stdout:match '^(.*)(%d%d%d)$'
  return tonumber(status), text
end

-- Waits until there are two processes whose metrics together have that value; returns those of each.
function Fleet:count(name, value)
  local each, sum, processes
  repeat
    local status, text = curl(self.url)
    assert.equal(200, status)
    each, sum, processes = {}, 0, 0
    for pid, count in text:gmatch('\n' .. name .. '{pid="(%d+)"} (%d+)%f[\n]') do
      each[pid], sum, processes = tonumber(count), sum + tonumber(count), processes + 1
    end
  until processes == 2 and sum == value
  return each
end

-- Opens a client, waits for its handshake and session, and for the echo of a message.
function Fleet:client(options)
  local conn = pair.client({ ip = '127.0.0.1', port = self.port }, pair.merged({ fingerprint = self.fingerprint }, options))
  conn.got = pair.record(conn, 'message', 'error', 'close')
  loop.event(conn, 'connection')
  conn:send 'hello'
  loop.till(function() return conn.got[1] end, 'the echo')
  assert.same({ 'message', 'hello' }, conn.got[1])
  return conn
end

-- One handshake of `openssl s_client`; its sessions are in a file. Gives 'New' or 'Reused'.
function Fleet:openssl(file, option)
  local child = process.spawn('openssl', { 's_client', '-dtls1_2', '-connect', '127.0.0.1:' .. self.port, option, file })
  child:expect '\n%s+Extended master secret: yes\n'
  child:finish()
  assertEnds(child)
  return child:printed '\n(%u%l+), TLSv1%.2'
end

function Fleet:finish()
  self.child.handle:kill 'sigterm'
  assertEnds(self.child)
  assert.equal('', self.child.output.stderr)
  os.remove(self.path)
end

-- A Redis on a free port, in memory alone; ask(…) gives what redis-cli prints.
local function startRedis(port)
  port = port or tostring(raw.freePort())
  local child = process.spawn('redis-server', { '--port', port, '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no' })
  child:expect 'Ready to accept connections'
  child.port = port
  child.ask = function(...) return (shell(('redis-cli -p %s %s'):format(port, table.concat({ ... }, ' ')))) end
  return child
end

local COROUTINE_SAYS = [[
client: you said one
client: you said two
client: you said three
client: ENOTCONN: the connection is closed
server: the client has gone
another client: nil, ERR_DTLS_CERTIFICATE
]]

describe('the examples:', function()
  setup(function()
    tree = assert(uv.fs_mkdtemp((os.getenv 'TMPDIR' or '/tmp') .. '/dtls-examples-XXXXXX'))
    for variant in pairs(variants) do application(variant) end
  end)

  teardown(function()
    os.execute(("rm -r '%s'"):format(tree))
  end)

  it('demo shows every step and ends with status 0 under every runner', test(function()
    local children = {}
    for i, runner in ipairs(everywhere) do children[i] = run[runner] 'demo.lua' end
    for i, runner in ipairs(everywhere) do
      local child = children[i]
      local code = child:wait(30000)
      local text = child.output.stdout
      assert.equal('', child.output.stderr, runner)
      assert.equal(0, code, runner)
      for _, pattern in ipairs {
        'address +verified by cookie', 'protocol +DTLSv1%.2', 'cipher +[A-Z0-9-]+, %d+ bits', 'peer +authorized',
        'data MTU +%d+ bytes', 'speed +[1-9]%d* round trips', '[1-9]%d* messages per second',
        "closed +the client's side", "closed +the server's side", 'closed +the server\n',
      } do
        assert.truthy(text:find(pattern), pattern .. '\n' .. text)
      end
      assert.equal(runner:find 'luajit' ~= nil, text:find 'nothing is left open' ~= nil)
    end
  end))

  for _, pairing in ipairs(pairings) do
    local here, there = pairing[1], pairing[2]

    describe(('server under %s, client under %s,'):format(here, there), function()
      it('echo: the server returns three messages, and Ctrl-C ends it', test(function()
        local server = run[here]('echo_server.lua', '0')
        local ip, port, fingerprint = server:expect 'echo_client.lua (%S+) (%d+) (%S+)\n'
        local client = run[there]('echo_client.lua', ip, port, fingerprint)
        assertEnds(client)
        assert.equal('', client.output.stderr)
        assert.truthy(client:printed 'received: one\nsent: two\nreceived: two\nsent: three\nreceived: three\nclosed\n')
        server:expect 'closed: 127%.0%.0%.1 port %d+\n'
        server.handle:kill 'sigint'
        assertEnds(server)
        assert.truthy(server:printed '\nclosed\n$')
      end))

      it('dtlscat: both sides send and receive; the end of the client\'s input ends both', test(function()
        local listener, port, fingerprint = listen(here)
        local client = connect(there, port, '--fingerprint', fingerprint)
        talk(client, listener)
        client:finish()
        assertEnds(client)
        assertEnds(listener)
        assert.equal('from one side\n', listener.output.stdout)
        assert.equal('from the other\n', client.output.stdout)
        assert.truthy(client:printed '[A-Z0-9-]+, authorized\n')
        assert.truthy(listener:printed 'with [A-Z0-9-]+\n', 'it has not asked who the client is')
      end))

      it('dtlscat: both sides share a pre-shared key; the end of the listener\'s input ends both', test(function()
        local psk = { '--psk-identity', 'somebody', '--psk-key', '00112233445566778899aabbccddeeff' }
        local listener, port, fingerprint = listen(here, unpack(psk))
        assert.is_nil(fingerprint)
        local client = connect(there, port, unpack(psk))
        talk(listener, client)
        listener:finish()
        assertEnds(listener)
        assertEnds(client)
        assert.truthy(client:printed 'PSK[A-Z0-9-]+, authorized\n')
        assert.truthy(listener:printed 'PSK[A-Z0-9-]+, authorized\n')
      end))

      it('psk_server: a device is accepted as soon as its key is in the file', test(function()
        local keys = write('keys', 'another:00112233\n')
        local server = run[here]('psk_server.lua', keys, '0')
        local port = server:expect 'listening on port (%d+)\n'
        local psk = { '--psk-identity', 'device 7', '--psk-key', '00112233445566778899aabbccddeeff' }
        assertEnds(connect(there, port, unpack(psk)), 1)
        server:expect "did not get in: there is no key for the identity 'device 7'\n"
        write('keys', 'another:00112233\ndevice 7:00112233445566778899aabbccddeeff\n')
        local client = connect(there, port, unpack(psk))
        client:write 'hello\n'
        client:expect 'device 7 said hello\n'
        client:finish()
        assertEnds(client)
        server:expect 'closed: device 7\n'
        server.handle:kill 'sigint'
        assertEnds(server)
      end))

      it('coap_gateway: one device gets what another has put, once the database has told their keys', test(function()
        local server = run[here]('coap_gateway.lua', '0')
        local port = server:expect 'listening on port (%d+)\n'
        local kitchen, hall = device(port, 'kitchen'), device(port, 'hall')
        assert.equal(coap.NOT_FOUND, hall:ask(coap.GET, 'temperature'))
        assert.equal(coap.CREATED, kitchen:ask(coap.PUT, 'temperature', '21.5'))
        assert.equal(coap.CHANGED, kitchen:ask(coap.PUT, 'temperature', '21.7'))
        assert.same({ coap.CONTENT, '21.7' }, { hall:ask(coap.GET, 'temperature') })
        assert.equal(coap.NOT_ALLOWED, hall:ask(coap.DELETE, 'temperature'))
        server:expect 'kitchen: /temperature 2%.01\nkitchen: /temperature 2%.04\nhall: /temperature 2%.05\nhall: /temperature 4%.05\n'
        pair.close(kitchen.conn, hall.conn)
        server:expect 'kitchen: closed\n'
        server.handle:kill 'sigint'
        assertEnds(server)
        assert.equal('', server.output.stderr)
      end))

      it('tunnel: carries datagrams both ways, and connects again after its far end was killed', test(function()
        local target, app = socket(), socket()
        local function startFar(port) return run[here]('tunnel.lua', 'far', SECRET, port, '127.0.0.1', tostring(target.port)) end
        local port = tostring(raw.freePort '0.0.0.0') -- which the next far end has, too
        local far = startFar(port)
        far:expect 'far end on port'
        local near = run[there]('tunnel.lua', 'near', SECRET, '0', '127.0.0.1', port, tostring(loop.patience))
        local entry = tonumber(near:expect 'near end on port (%d+)\n')
        near:expect '\nconnected\n'
        local function roundTrip(text)
          app:send(text, entry)
          local data, from = target:take()
          assert.equal(text, data)
          target:send('answer to ' .. text, from)
          assert.equal('answer to ' .. text, (app:take()))
        end
        roundTrip 'one'
        roundTrip 'two'
        roundTrip '\255\1' -- no byte means anything to the tunnel, nor does an empty datagram
        roundTrip '\255'
        app:send(('x'):rep(1300), entry)
        near:expect 'dropped, as others may be: a message of 1300 bytes does not fit: the limit is %d+\n'
        app:send(('x'):rep(1400), entry)
        roundTrip 'after them'
        assert.is_nil((near:printed 'of 1400 bytes'))
        far:kill()
        near:expect 'not connected: the far end is silent\n'
        far = startFar(port)
        far:expect 'far end on port'
        near:expect '(silent\n.*connected\n)$'
        roundTrip 'three'
        near:kill()
        far:kill()
        target:close()
        app:close()
      end))

      it('syslog: each line arrives at the named receiver from the named sender, and from no other sender', test(function()
        local names, prints = {}, {}
        for _, who in ipairs { 'sender', 'receiver', 'stranger' } do
          names[who] = assert(uv.fs_mkdtemp(tree .. '/syslog-XXXXXX')) .. '/' .. who
          local maker = run[here]('syslog.lua', 'identity', names[who])
          assertEnds(maker)
          prints[who] = maker.output.stdout:match '^(%x%x:[%x:]+)\n$'
          assert.equal('600', ('%o'):format(bit.band(uv.fs_stat(names[who] .. '.pem').mode, 511)))
        end
        local receiver = run[here]('syslog.lua', 'receive', names.receiver, prints.sender, '0')
        local port = receiver:expect '%-%- listening on port (%d+)\n'
        local function send(who, expected) return run[there]('syslog.lua', 'send', names[who], prints[expected], port) end

        local sender = send('sender', 'receiver')
        sender:write 'disk full\nfan br'
        sender:write 'oken\nlast'
        sender:finish()
        assertEnds(sender)
        local head = '<13>1 %d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%dZ %S+ sender %- %- %- '
        receiver:expect(('%%-%%- connected: sender\n%sdisk full\n%sfan broken\n%slast\n%%-%%- closed: sender\n'):format(head, head, head))

        assertEnds(send('stranger', 'receiver'), 1)
        receiver:expect('did not get in: [^\n]*fingerprint mismatch: it is ' .. prints.stranger)
        local mistaken = send('sender', 'stranger')
        assertEnds(mistaken, 1)
        assert.truthy(mistaken:printed('fingerprint mismatch: it is ' .. prints.receiver))

        local left = send('sender', 'receiver')
        left:write 'before\n'
        receiver:expect 'before\n'
        receiver.handle:kill 'sigint'
        assertEnds(receiver)
        assertEnds(left, 1)
        assert.equal('syslog: the receiver has closed\n', left.output.stderr)
      end))

      it('game_server: every player is told where all players are, and no longer of one that has disappeared', test(function()
        local server = run[here]('game_server.lua', '0', '127.0.0.1', tostring(2 * loop.patience))
        local ip, port, fingerprint = server:expect 'dtlscat.lua (%S+) (%d+) %-%-fingerprint (%S+)\n'
        local player = connect(there, port, '--fingerprint', fingerprint)
        player:expect 'p1 at 1,1\n'
        local other = pair.client({ ip = ip, port = port }, { fingerprint = fingerprint })
        other:on('message', function() other:send 'stay' end) -- any message shows that the player is there
        local boards = pair.record(other, 'message')
        local function see(board) loop.till(function() return boards[#boards] and boards[#boards][2] == board end, board) end
        player:write 'right\n'
        see 'p1 at 2,1; p2 at 1,1\n'
        other:send 'down'
        player:expect 'p1 at 2,1; p2 at 1,2\n'
        for _ = 1, 20 do other:send 'up' end
        other:send 'left'
        see 'p1 at 2,1; p2 at 1,1\n'
        player:kill()
        server:expect 'p1 has vanished\np1 has left\n'
        see 'p2 at 1,1\n'
        pair.close(other)
        server:expect 'p2 has left\n'
        assert.is_nil((server:printed 'p2 has vanished'))
        server.handle:kill 'sigint'
        assertEnds(server)
      end))

      it('webrtc_pair: STUN before and after the handshake, matching SRTP keys and media pass through one port', test(function()
        local offer, answer, fingerprint = negotiate(here, there)
        offer:write(fingerprint .. '\n')
        assertEnds(answer)
        assertEnds(offer)
        local keys = 'SRTP_AEAD_AES_128_GCM: sends with ([^,]+), receives with ([^\n]+)\n'
        local mine, yours = offer:printed(keys)
        assert.not_equal(mine, yours)
        assert.same({ yours, mine }, { answer:printed(keys) })
        assert.truthy(offer:printed 'media came\n')
        assert.truthy(answer:printed 'media came\n')
        assert.truthy(answer:printed 'with [^\n]*\n.*STUN answered after the handshake\n.*closed\n$')
        assert.equal('', offer.output.stderr .. answer.output.stderr)
      end))

      it('webrtc_pair: either side refuses a certificate whose fingerprint was not announced', test(function()
        local offer, answer, fingerprint = negotiate(here, there)
        offer:write(('00'):rep(32) .. '\n')
        assertEnds(answer, 1)
        offer:expect('fingerprint mismatch: it is ' .. fingerprint)
        assert.is_nil((offer:printed 'sends with'))
        offer, answer, fingerprint = negotiate(here, there, ('00'):rep(32))
        offer:write(fingerprint .. '\n')
        assertEnds(answer, 1)
        assert.truthy(answer:printed 'fingerprint mismatch: it is ')
        assert.is_nil((answer:printed 'sends with'))
      end))

      it('dtlscat: a wrong fingerprint is refused with one sentence', test(function()
        local listener, port = listen(here)
        local client = connect(there, port, '--fingerprint', ('00'):rep(32))
        assertEnds(client, 1)
        assert.matches("^dtlscat: the peer's certificate was refused: fingerprint mismatch: it is %x%x:[%x:]+ and not 00:[0:]+\n$",
          client.output.stderr)
        assert.equal('', client.output.stdout)
        assert.equal('', listener.output.stdout)
      end))
    end)
  end

  it('coap_gateway answers a message that is no request as RFC 7252 says', test(function()
    local server = run['luajit, shared']('coap_gateway.lua', '0')
    local hall = device(server:expect 'listening on port (%d+)\n', 'hall')
    local RESET = '\112\0'
    assert.equal(RESET .. 'ab', hall:exchange '\64\0ab') -- a ping
    for what, data in pairs {
      ['a response'] = '\64\69ab',
      ['a token that breaks off'] = '\72\1abtoken',
      ['a token that is too long'] = '\73\1ab' .. ('t'):rep(9),
      ['an option that breaks off'] = '\64\1ab\184path',
      ['an option whose length breaks off'] = '\64\1ab\189',
      ['a longer one whose length breaks off'] = '\64\1ab\190\0',
      ['an option of a reserved length'] = '\64\1ab\191path',
      ['an option of a reserved number'] = '\64\1ab\241p',
    } do
      assert.equal(RESET .. 'ab', hall:exchange(data), what)
    end
    assert.equal('\96' .. string.char(coap.BAD_OPTION) .. 'ab', hall:exchange '\64\1ab\145x') -- 9, a critical option
    assert.equal('\96' .. string.char(coap.NOT_FOUND) .. 'ab', hall:exchange '\64\1ab\209\239x') -- 252, an elective option
    local long = ('n'):rep(200)
    assert.equal('\96' .. string.char(coap.CREATED) .. 'ab', hall:exchange('\64\3ab\189\187' .. long .. '\255x'))
    for _, data in ipairs { 'no', '\128\1ab', '\80\0ab', '\80\69ab', '\80\1ab\145x', '\96\69ab', '\112\0ab', '\1\1ab' } do
      assert(hall.conn:send(data))
    end
    assert.equal(RESET .. 'yz', hall:exchange '\64\0yz') -- and the messages before this one got no answer
    pair.close(hall.conn)
    assert.equal('', server.output.stderr)
  end))

  it('coap_gateway answers requests that need no acknowledgement, with messages that need none', test(function()
    local server = run['luajit, shared']('coap_gateway.lua', '0')
    local hall = device(server:expect 'listening on port (%d+)\n', 'hall')
    assert.equal('\82' .. string.char(coap.CREATED) .. 'to', hall:exchange('\82\3abto\180time\255noon'):gsub('..(to)$', '%1'))
    assert.equal('\82' .. string.char(coap.CONTENT) .. 'to\255noon', hall:exchange('\82\1abto\180time'):gsub('..(to\255)', '%1'))
    pair.close(hall.conn)
    assert.equal('', server.output.stderr)
  end))

  it('coap_gateway has room for so many values, observations, and bytes of a message', test(function()
    local server = run['luajit, shared']('coap_gateway.lua', '0')
    local port = server:expect 'listening on port (%d+)\n'
    local hall, kitchen = device(port, 'hall', { allowFragments = true }), device(port, 'kitchen')
    local function put(number, value)
      local answer = hall:exchange(('\64\3ab\180%04d\255%s'):format(number, value))
      assert.equal('\96ab', answer:sub(1, 1) .. answer:sub(3))
      return answer:byte(2)
    end
    -- The option Observe of the value 0 or 1; whether the answer has it, too.
    local function observe(who, token, value)
      local answer = who:exchange('\65\1ab' .. token .. (value == 0 and '\96' or '\97\1') .. '\0840001')
      assert.equal('\97\69ab' .. token, answer:sub(1, 5))
      return answer:byte(6) ~= 255
    end
    for i = 1, 1000 do assert.equal(coap.CREATED, put(i, 'x')) end
    assert.equal(coap.UNAVAILABLE, put(1001, 'x'))
    assert.equal(coap.CHANGED, put(1000, 'y'))
    assert.equal(coap.TOO_LARGE, put(1, ('x'):rep(1152)))
    for i = 1, 16 do assert.is_true(observe(hall, string.char(96 + i), 0)) end
    assert.is_true(observe(hall, 'a', 0)) -- again
    assert.is_false(observe(hall, 'z', 0))
    assert.is_true(observe(kitchen, 'z', 0))
    assert.is_false(observe(hall, 'a', 1))
    assert.is_true(observe(hall, 'z', 0))
    assert.is_false(observe(hall, 'z', 1)) -- which says nothing of the kitchen's
    assert(hall.conn:send '\64\3ab\1800001\255new')
    loop.till(function() return kitchen.got[2] end, 'a notification')
    assert.matches('^\81\69..z.*\255new$', kitchen.got[2][2])
    pair.close(hall.conn, kitchen.conn)
    assert.equal('', server.output.stderr)
  end))

  it('coap_gateway logs nothing that a terminal takes for a command, and a device whose certificate has no name', test(function()
    local files = pki.new()
    local ours, nameless = files:certificate 'ours', files:certificate('nameless', { subject = '/O=nobody' })
    local pem = files:write('both', ours.pem.cert .. ours.pem.key)
    local server = run['luajit, shared']('coap_gateway.lua', '0', '127.0.0.1', '300', pem, nameless.cert)
    local port = server:expect 'listening on port (%d+)\n'
    local hall = device(port, 'hall')
    assert.equal(coap.CREATED, hall:ask(coap.PUT, '\27[2J', 'x'))
    server:expect 'hall: /%?%[2J 2%.01\n'
    local conn = pair.client({ ip = '127.0.0.1', port = port }, pair.merged({ fingerprint = ours.fingerprint }, pair.as(nameless)))
    server:expect('\n' .. nameless.fingerprint .. ': connected\n')
    pair.close(conn, hall.conn)
    files:remove()
    assert.equal('', server.output.stderr)
  end))

  it('coap_gateway refuses a device whose key the database does not have', test(function()
    local server = run['luajit, shared']('coap_gateway.lua', '0')
    local port = server:expect 'listening on port (%d+)\n'
    local conn = pair.client({ ip = '127.0.0.1', port = port }, { psk = { identity = 'cellar', key = 'key of the hall...' } })
    assert.equal('unknown_psk_identity', loop.event(conn, 'error')[1].alert)
    server:expect "did not get in: there is no key for the identity 'cellar'\n"
  end))

  it('coap_gateway closes the connection of a silent device, and logs which device has started over', test(function()
    local server = run['luajit, shared']('coap_gateway.lua', '0', '127.0.0.1', '0.3')
    local port = server:expect 'listening on port (%d+)\n'
    local hall = device(port, 'hall')
    assert.same({ false, n = 1 }, loop.event(hall.conn, 'close'))
    server:expect 'hall: connected\nhall: closed\n'
    server:kill()

    server = run['luajit, shared']('coap_gateway.lua', '0')
    port = server:expect 'listening on port (%d+)\n'
    local own = { localPort = raw.freePort() }
    local before = device(port, 'kitchen', own)
    before.conn:destroy() -- sends no close_notify, as a device that loses its power
    loop.event(before.conn, 'close')
    local after = device(port, 'kitchen', own)
    server:expect 'kitchen: connected\nkitchen: the peer started over with a new association\n'
    server:expect 'kitchen: closed\n'
    assert.equal(coap.CREATED, after:ask(coap.PUT, 'temperature', '21.5'))
    pair.close(after.conn)
  end))

  it('coap_gateway tells those who observe a value of each change, until they say that it is enough or are gone', test(function()
    local server = run['luajit, shared']('coap_gateway.lua', '0')
    local port = server:expect 'listening on port (%d+)\n'
    local kitchen, hall = device(port, 'kitchen'), device(port, 'hall')
    -- GET with the option Observe, of the value 0 or 1.
    local function observe(who, id, number, token)
      return who:exchange('\66\1\0' .. string.char(id) .. token .. (number == 0 and '\96' or '\97\1') .. '\88the/time')
    end
    -- A notification for that token: its ID, its number and what it says.
    local function notification(who, token)
      who.taken = (who.taken or 0) + 1
      loop.till(function() return who.got[who.taken] end, 'a notification')
      local id, got, number, value = who.got[who.taken][2]:match '^\82\69(..)(..)a(.)\255(.*)$'
      assert.equal(token, got)
      return id, number:byte(), value
    end
    assert.equal('\98\132\0\1to', observe(hall, 1, 0, 'to')) -- there is nothing yet to observe
    assert.equal(coap.CREATED, kitchen:ask(coap.PUT, 'the/time', 'ten'))
    assert.equal('\98\69\0\2to\97\1\255ten', observe(hall, 2, 0, 'to'))
    assert.equal('\98\69\0\2tp\97\1\255ten', observe(hall, 2, 0, 'tp'))
    assert.equal(coap.CHANGED, kitchen:ask(coap.PUT, 'the/time', 'ten')) -- which is no change
    assert.equal(coap.CHANGED, kitchen:ask(coap.PUT, 'the/time', 'eleven'))
    local first, number, value = notification(hall, 'to')
    assert.same({ 2, 'eleven' }, { number, value })
    local second = notification(hall, 'tp')
    assert.not_equal(first, second)
    hall.conn:send('\112\0' .. second) -- RST: no more for the token tp
    assert.equal('\98\69\0\3to\255eleven', observe(hall, 3, 0, 'to'):gsub('\97\2', ''))
    assert.equal(coap.CHANGED, kitchen:ask(coap.PUT, 'the/time', 'twelve'))
    assert.same({ 3, 'twelve' }, { select(2, notification(hall, 'to')) })
    assert.equal('\98\69\0\4to\255twelve', observe(hall, 4, 1, 'to'))
    assert.equal(coap.CHANGED, kitchen:ask(coap.PUT, 'the/time', 'one'))
    assert.same({ coap.CONTENT, 'one' }, { hall:ask(coap.GET, 'the/time') }) -- and no notification before that
    assert.equal('\98\69\0\5to\97\4\255one', observe(hall, 5, 0, 'to'))
    pair.close(hall.conn)
    server:expect 'hall: closed\n'
    assert.equal(coap.CHANGED, kitchen:ask(coap.PUT, 'the/time', 'two'))
    pair.close(kitchen.conn)
    assert.equal('', server.output.stderr)
  end))

  for _, library in ipairs { 'openssl', 'gnutls' } do
    describe('coap with libcoap and ' .. library .. ':', function()
      local client, server = 'coap-client-' .. library, 'coap-server-' .. library
      if select(2, shell('command -v ' .. client)) ~= 0 then return pending('needs libcoap3-bin') end

      local files, authority, ours, theirs, ourPem

      setup(function()
        files = pki.new()
        authority = files:certificate('root', { authority = true })
        ours = files:certificate('ours', { issuer = authority, altNames = { 'localhost', '127.0.0.1' } })
        theirs = files:certificate('theirs', { issuer = authority, altNames = { 'localhost', '127.0.0.1' } })
        ourPem = files:write('ours.both', ours.pem.cert .. ours.pem.key)
      end)

      teardown(function() files:remove() end)

      it('coap_gateway serves its client, with keys and with certificates, and tells one that observes', test(function()
        local gateway = run['luajit, shared']('coap_gateway.lua', '0', '127.0.0.1', '300', ourPem, authority.cert)
        local port = gateway:expect 'listening on port (%d+)\n'
        local function start(...)
          local arguments = { ... }
          arguments[#arguments + 1] = ('coaps://127.0.0.1:%d/house/temperature'):format(port)
          return process.spawn(client, arguments)
        end
        local function ask(...)
          local child = start(...)
          assertEnds(child)
          return child.output.stdout .. child.output.stderr
        end
        local certificate = { '-c', theirs.cert, '-j', theirs.key, '-C', authority.cert }
        assert.truthy(ask('-u', 'hall', '-k', 'key of the hall...'):find '4%.04')
        ask('-u', 'kitchen', '-k', 'key of the kitchen', '-m', 'put', '-e', '21.5')
        assert.equal('21.5\n', ask(unpack(certificate)))
        assert.equal('21.5\n', ask('-N', unpack(certificate))) -- a request that needs no acknowledgement
        local observer = start('-w', '-s', '60', unpack(certificate))
        observer:expect '21%.5\n'
        ask('-u', 'kitchen', '-k', 'key of the kitchen', '-m', 'put', '-e', '22.0')
        observer:expect '21%.5\n22%.0\n'
        gateway:expect 'kitchen: /house/temperature 2%.01\n.*theirs: /house/temperature 2%.05\n'
        local stranger = files:certificate 'stranger'
        start('-c', stranger.cert, '-j', stranger.key, '-B', '1', '-n')
        gateway:expect 'did not get in: [^\n]*certificate[^\n]*\n' -- GnuTLS shows none that the gateway would not take
        assert.equal('', gateway.output.stderr)
      end))

      for kind, credentials in pairs {
        ['a key'] = function() return { 'psk', 'kitchen', 'key of the kitchen' }, { '-k', 'key of the kitchen', '-h', '' } end,
        ['certificates'] = function()
          return { 'cert', ourPem, authority.cert }, { '-c', theirs.cert, '-j', theirs.key, '-C', authority.cert }
        end,
      } do
        it('coap_client gets, puts and observes values of its server, with ' .. kind, test(function()
          local mine, arguments = credentials()
          local port = raw.freePorts()
          for _, each in ipairs { '-A', '127.0.0.1', '-p', tostring(port), '-v', '7' } do arguments[#arguments + 1] = each end
          process.spawn(server, arguments):expect '(created DTLS endpoint)'
          local function start(runner, method, path, value)
            local uri = ('coaps://127.0.0.1:%d%s'):format(port + 1, path)
            return run[runner]('coap_client.lua', method, uri, mine[1], mine[2], mine[3], value)
          end
          local function ask(...)
            local child = start(...)
            assertEnds(child)
            assert.equal('', child.output.stderr)
            return child.output.stdout
          end
          assert.matches('^%u%l%l %d%d %d%d:%d%d:%d%d\n$', ask('luajit, shared', 'get', '/time'))
          assert.equal('2.01\n', ask('luvit, static', 'put', '/example_data', 'a value'))
          assert.equal('a value\n', ask('luajit, shared', 'get', '/example_data'))
          local observer = start('luvit, static', 'observe', '/time')
          observer:expect '^%u%l%l %d%d %d%d:%d%d:%d%d\n%u%l%l %d%d [%d:]+\n%u%l%l %d%d [%d:]+\n'
          observer.handle:kill 'sigint'
          assertEnds(observer)
          assert.equal('', observer.output.stderr)
          local missing = start('luajit, shared', 'get', '/nothing')
          assertEnds(missing, 1)
          assert.equal('coap_client: 4.04 Not Found\n', missing.output.stderr)
        end))
      end
    end)
  end

  it('coap_client puts into coap_gateway, and observes what another has put there', test(function()
    local server = run['luvit, shared']('coap_gateway.lua', '0')
    local uri = ('coaps://127.0.0.1:%d/house'):format(server:expect 'listening on port (%d+)\n')
    local function start(method, ...) return run['luajit, shared']('coap_client.lua', method, uri, 'psk', ...) end
    local function put(value)
      local child = start('put', 'kitchen', 'key of the kitchen', value)
      assertEnds(child)
      return child.output.stdout
    end
    assert.equal('2.01\n', put 'empty')
    local observer = start('observe', 'hall', 'key of the hall...')
    observer:expect '^empty\n'
    assert.equal('2.04\n', put 'full')
    observer:expect '^empty\nfull\n'
    observer.handle:kill 'sigint'
    assertEnds(observer)
    local wrong = start('get', 'cellar', 'key of the hall...')
    assertEnds(wrong, 1)
    assert.matches('^coap_client: [^\n]+\n$', wrong.output.stderr)
  end))

  it('coap_client repeats a request that gets lost', test(function()
    local server = run['luajit, shared']('coap_gateway.lua', '0')
    local port = tonumber(server:expect 'listening on port (%d+)\n')
    local lost = 0
    -- Application data is of content type 23.
    local middle = proxy.new({ ip = '127.0.0.1', port = port }, {
      filter = function(direction, _, data)
        if direction ~= 'server' or data:byte() ~= 23 or lost > 0 then return data end
        lost = lost + 1
      end,
    })
    local child = run['luajit, shared']('coap_client.lua', 'put', ('coaps://127.0.0.1:%d/house'):format(middle.port), 'psk', 'kitchen',
      'key of the kitchen', 'value')
    assertEnds(child)
    assert.equal('2.01\n', child.output.stdout)
    assert.equal(1, lost)
    pair.close(middle)
  end))

  -- A server whose answer to each message is of the test's own; and what coap_client has to say about it.
  for name, case in pairs {
    ['closes instead of an answer'] = { nil, 'get', 'the server has closed' },
    ['answers in several blocks'] = { '\100\69%s\209\10\8\255a block', 'get', 'the response needs option 23, which this client lacks' },
    ['refuses with words for the terminal'] = { '\100\132%s\255\27[2J', 'get', '4.04 ?[2J' },
    ['would have to take too much'] = { 'none', 'put', 'a message of %d+ bytes does not fit: the limit is %d+' },
  } do
    it('coap_client says that the server ' .. name, test(function()
      local server = pair.listening { psk = { me = 'a key of 16 bytes' } }
      server:on('connection', function(conn)
        conn:on('message', function(data)
          if case[1] then conn:send(case[1]:format(data:sub(3, 8))) else conn:close() end
        end)
      end)
      local uri = ('coaps://127.0.0.1:%d/value'):format(server.port)
      local child = run['luajit, shared']('coap_client.lua', case[2], uri, 'psk', 'me', 'a key of 16 bytes',
        case[2] == 'put' and ('v'):rep(1300) or nil)
      assertEnds(child, 1)
      assert.matches('^coap_client: ' .. case[3]:gsub('[.?%[]', '%%%0') .. '\n$', child.output.stderr)
      assert.equal('', child.output.stdout)
      pair.close(server)
    end))
  end

  it('coap_client talks IPv6', test(function()
    local server = run['luajit, shared']('coap_gateway.lua', '0', '::1')
    local uri = ('coaps://[::1]:%d/house'):format(server:expect 'listening on port (%d+)\n')
    local child = run['luajit, shared']('coap_client.lua', 'put', uri, 'psk', 'kitchen', 'key of the kitchen', 'warm')
    assertEnds(child)
    assert.equal('2.01\n', child.output.stdout)
  end))

  -- Both ends of a tunnel to a TCP server, with a proxy between them whose filter may be given; the port of the near end.
  local function tunnel(here, there, target, filter)
    local far = run[here]('tunnel.lua', 'far', SECRET, '0', '127.0.0.1', tostring(target))
    local farPort = tonumber(far:expect 'far end on port (%d+)\n')
    local between = proxy.new({ ip = '127.0.0.1', port = farPort }, { filter = filter, records = false })
    local near = run[there]('tunnel.lua', 'near', SECRET, '0', '127.0.0.1', tostring(between.port), '60')
    return tonumber(near:expect 'near end on port (%d+)\nconnected\n'), far, near, between
  end

  local function noise(bytes, seed)
    local random, list = proxy.random(seed), {}
    for i = 1, bytes / 4 do list[i] = ('%04x'):format(math.floor(random() * 65536)) end
    return table.concat(list)
  end

  for name, filter in pairs {
    ['through a good network'] = function() end,
    ['through a network that loses, doubles, delays and spoils datagrams'] = function()
      local random = proxy.random(7)
      return function(_, index, data)
        if index < 10 then return data end -- the handshake
        local chance = random()
        if chance < 0.03 then return nil end
        if chance < 0.06 then return { data, data } end
        if chance < 0.10 then return { { data = data, delay = 20 } } end
        if chance < 0.12 then return data:sub(1, -2) .. string.char((data:byte(-1) + 1) % 256) end
        return data
      end
    end,
  } do
    it('tunnel carries TCP connections both ways to their ends ' .. name, test(function()
      local server = tcpServer()
      local port, far, near, between = tunnel('luajit, shared', 'luvit, static', server.port, filter())
      local up, down = {}, {}
      for i = 1, 3 do up[i], down[i] = noise(100000, i), noise(80000, 10 + i) end
      local clients, servers = {}, {}
      for i = 1, 3 do
        clients[i] = reads(tcpClient(port))
        clients[i].tcp:write(up[i])
        clients[i].tcp:shutdown() -- and goes on to read
      end
      for i = 1, 3 do servers[i] = reads(server.nextOne()) end
      for i = 1, 3 do
        local text, ended = servers[i].all()
        local which
        for j = 1, 3 do which = text == up[j] and j or which end
        assert.truthy(which, ('%d: %d bytes'):format(i, #text))
        assert.is_true(ended)
        servers[i].tcp:write(down[which])
        servers[i].tcp:shutdown()
      end
      for i = 1, 3 do
        local text, ended = clients[i].all()
        assert.is_true(text == down[i], #text)
        assert.is_true(ended)
        pair.close(clients[i].tcp, servers[i].tcp)
      end
      assert.is_nil((near:printed 'dropped'))
      assert.equal('', far.output.stderr .. near.output.stderr)
      pair.close(server.tcp, between)
    end))
  end

  it('tunnel carries more TCP connections than it has room for at a time, some after others', test(function()
    local server = tcpServer()
    local port, far, near, between = tunnel('luajit, shared', 'luajit, shared', server.port)
    for round = 1, 3 do
      local clients = {}
      for i = 1, 100 do
        clients[i] = reads(tcpClient(port))
        clients[i].tcp:write(('%d.%d'):format(round, i))
        clients[i].tcp:shutdown()
      end
      for _ = 1, 100 do
        local one = reads(server.nextOne())
        one.tcp:write('answer to ' .. one.all())
        one.tcp:shutdown()
        pair.close(one.tcp)
      end
      for i, client in ipairs(clients) do
        local text, ended = client.all()
        assert.same({ ('answer to %d.%d'):format(round, i), true }, { text, ended })
        pair.close(client.tcp)
      end
    end
    assert.equal('', far.output.stderr .. near.output.stderr)
    pair.close(server.tcp, between)
  end))

  -- Both sides of tunnel_streams, without a network: `loses(side, message)` says what gets lost, `limit` what fits. Without a target
  -- there is no socket for it.
  local function muxes(target, loses)
    local streams, both, under_way = dofile(root .. '/examples/tunnel_streams.lua'), { limit = 1000 }, {}
    local function carrier(side, other)
      return {
        getDataMtu = function() return both.limit end,
        send = function(_, message)
          if #message > both.limit then return nil, { code = 'EMSGSIZE' } end
          if not loses(side, message) then table.insert(under_way, function() both[other]:received_untrusted(message) end) end
          return true
        end,
      }
    end
    both.near = streams.new(carrier('near', 'far'))
    both.far = streams.new(carrier('far', 'near'), function(connected)
      if not target then return nil end
      local tcp = uv.new_tcp()
      tcp:connect('127.0.0.1', target, connected)
      return tcp
    end)
    -- Lets messages arrive until that is so.
    function both.till(condition, what)
      loop.till(function()
        local list = under_way
        under_way = {}
        for _, arrive in ipairs(list) do arrive() end
        return condition()
      end, what)
    end
    function both.close()
      both.near:close()
      both.far:close()
    end
    return both
  end

  -- A TCP connection that the near side carries from now on, and its other end.
  local function carried(both)
    local server = tcpServer()
    local client = tcpClient(server.port)
    both.near:open(server.nextOne().tcp)
    pair.close(server.tcp)
    return client
  end

  for name, lost in pairs { ['at once'] = false, ['also when the last acknowledgement gets lost'] = true } do
    it('tunnel forgets a TCP connection at both ends, ' .. name, test(function()
      local server, both, ends = tcpServer(), nil, 0
      both = muxes(server.port, function(side, message)
        if side == 'far' and message:byte(2) == 3 then ends = ends + 1 end
        return lost and side == 'near' and message:byte(2) == 4 and both.near.streams[1].finished
      end)
      local client = carried(both)
      client.tcp:shutdown()
      both.till(function() return server.taken[1] end, 'a TCP connection')
      server.taken[1].tcp:shutdown()
      both.till(function() return both.near.count == 0 and both.far.count == 0 end, 'the end of the stream')
      assert.equal(lost and 3 or 2, ends) -- the first segment, which is empty, and the last one, repeated when it has to be
      for list, keeps in pairs { over = both.near.over, due = both.near.due } do assert.is_nil(next(keeps), list) end
      both.close()
      pair.close(client.tcp, server.taken[1].tcp, server.tcp)
    end))
  end

  it('tunnel ends a TCP connection at once when there is no socket for its other end', test(function()
    local both = muxes(nil, function() return false end)
    local client = reads(carried(both))
    both.till(function() return client.ended end, 'the end of the TCP connection')
    assert.same({ 0, 0 }, { both.near.count, both.far.count })
    both.close()
    pair.close(client.tcp)
  end))

  it('tunnel breaks a TCP connection off when its segments no longer fit the path', test(function()
    local server = tcpServer()
    local both = muxes(server.port, function(_, message) return #message > 800 end)
    local client = reads(carried(both))
    client.tcp:write(('x'):rep(5000))
    both.till(function() return server.taken[1] and both.near.streams[1].sent > 1 end, 'a segment')
    both.limit = 800
    both.till(function() return client.ended end, 'the end of the TCP connection')
    both.till(function() return both.far.count == 0 end, 'the end of the other one')
    both.close()
    pair.close(client.tcp, server.taken[1].tcp, server.tcp)
  end))

  it('tunnel reads no more from a TCP connection than a slow reader takes', test(function()
    local server = tcpServer()
    local port, _, _, between = tunnel('luajit, shared', 'luajit, shared', server.port)
    local client = tcpClient(port)
    local chunk, written = ('x'):rep(65536), 0
    local most = 256 * 2 ^ 20 -- several times what TCP's buffers may hold
    local function more()
      while client.tcp:get_write_queue_size() == 0 and written < most do
        written = written + #chunk
        client.tcp:write(chunk, more)
      end
    end
    more()
    local slow = server.nextOne()
    local before
    repeat -- until nothing moves for as long as a round trip takes a hundred times
      before = written
      local pause = uv.new_timer()
      loop.call(function(done) pause:start(300, 0, done) end)
      pause:close()
    until written == before
    assert.is_true(written < most, written)
    most = written
    client.tcp:shutdown()
    reads(slow)
    assert.equal(written, #slow.all())
    pair.close(client.tcp, slow.tcp, server.tcp, between)
  end))

  it('tunnel ends a TCP connection when the target refuses it, breaks it, or the association has ended', test(function()
    local server = tcpServer()
    local port, far, near, between = tunnel('luajit, shared', 'luajit, shared', server.port)
    local client = reads(tcpClient(port))
    client.tcp:write 'one'
    local one = reads(server.nextOne())
    loop.till(function() return one.pieces[1] end, 'what was sent')
    loop.call(function(done) one.tcp:close_reset(done) end)
    client.all()
    pair.close(client.tcp)

    client = reads(tcpClient(port))
    one = reads(server.nextOne())
    loop.call(function(done) client.tcp:close_reset(done) end)
    one.all()
    pair.close(one.tcp)

    client = reads(tcpClient(port))
    client.tcp:write 'three'
    one = reads(server.nextOne())
    far.handle:kill 'sigkill'
    near.handle:kill 'sigkill'
    client.all()
    one.all()
    pair.close(client.tcp, one.tcp, server.tcp, between)

    far = run['luajit, shared']('tunnel.lua', 'far', SECRET, '0', '127.0.0.1', tostring(server.port))
    near = run['luajit, shared']('tunnel.lua', 'near', SECRET, '0', '127.0.0.1', far:expect 'far end on port (%d+)\n', '60')
    client = reads(tcpClient(tonumber(near:expect 'near end on port (%d+)\nconnected\n')))
    client.tcp:write 'refused'
    client.all()
    pair.close(client.tcp)
  end))

  for name, towards in pairs { target = 'server', application = 'client' } do
    it('tunnel outlives a TCP connection that the ' .. name .. ' closes while there is more to come for it', test(function()
      local server = tcpServer()
      local port, far, near, between = tunnel('luajit, shared', 'luajit, shared', server.port)
      local client = reads(tcpClient(port))
      local one = reads(server.nextOne())
      local sends, takes, writes = client, one, far
      if towards == 'client' then sends, takes, writes = one, client, near end
      sends.tcp:write 'first'
      loop.till(function() return takes.pieces[1] end, 'what was sent first')
      -- Several segments for a connection that is closed come in one turn of the event loop: the second one is one too many.
      writes.handle:kill 'sigstop'
      pair.close(takes.tcp)
      local before = between.count[towards]
      sends.tcp:write(('x'):rep(20000))
      loop.till(function() return between.count[towards] >= before + 8 end, 'some segments')
      writes.handle:kill 'sigcont'
      sends.all()
      pair.close(sends.tcp)
      client = tcpClient(port)
      client.tcp:write 'still there'
      one = reads(server.nextOne())
      loop.till(function() return one.pieces[1] end, 'what was sent')
      pair.close(client.tcp, one.tcp, server.tcp, between)
      assert.equal('', far.output.stderr .. near.output.stderr)
    end))
  end

  it('tunnel tries again when its far end cannot reach the target', test(function()
    local target, app = socket(), socket()
    local far = withPaths('shared', 'LD_PRELOAD=' .. build .. '/faults/faults.so',
      "LUA_INIT=require 'spec.support.faults'.set('connect', 1, 1, 'ENETUNREACH')", 'luajit', 'examples/tunnel.lua', 'far', SECRET, '0',
      '127.0.0.1', tostring(target.port))
    local near = run['luajit, shared']('tunnel.lua', 'near', SECRET, '0', '127.0.0.1', far:expect 'far end on port (%d+)\n', '60')
    local entry = tonumber(near:expect 'near end on port (%d+)\nconnected\nconnected\n')
    assert.truthy(far:printed 'no way to the target: ENETUNREACH[^\n]*\n')
    app:send('here', entry)
    assert.equal('here', (target:take()))
    assert.equal('', far.output.stderr .. near.output.stderr)
    target:close()
    app:close()
  end))

  for name, init in pairs {
    ['many at a time'] = '',
    ['one by one without the ffi'] = "package.preload.ffi = function() error 'there is none' end",
    ['one by one when the kernel cannot cut what leaves together'] = "require 'spec.support.faults'.set('segments', 1, 1e6, 'EIO')",
  } do
    it('tunnel carries bursts both ways in their order, ' .. name, test(function()
      local target, app = socket(), socket()
      local function start(...)
        return withPaths('shared', 'LD_PRELOAD=' .. build .. '/faults/faults.so', 'LUA_INIT=' .. init, 'luajit', 'examples/tunnel.lua', ...)
      end
      local far = start('far', SECRET, '0', '127.0.0.1', tostring(target.port))
      local between = proxy.new { ip = '127.0.0.1', port = tonumber(far:expect 'far end on port (%d+)\n') }
      local near = start('near', SECRET, '0', '127.0.0.1', tostring(between.port), '60')
      local entry = tonumber(near:expect 'near end on port (%d+)\nconnected\n')
      app:send('first', entry)
      local _, from = target:take()
      -- What arrives while a process is stopped is a burst for it when it goes on.
      local function burst(sender, port, receiver, stopped, direction)
        local list, before = {}, between.count[direction]
        for i = 1, 100 do list[i] = ('%03d'):format(i):rep(i > 70 and i % 3 + 1 or 1) end -- many are equally long, then few
        stopped.handle:kill 'sigstop'
        for _, text in ipairs(list) do sender:send(text, port) end
        loop.till(function() return between.count[direction] >= before + #list end, 'the burst')
        stopped.handle:kill 'sigcont'
        for _, text in ipairs(list) do assert.equal(text, (receiver:take())) end
      end
      burst(app, entry, target, far, 'server')
      burst(target, from, app, near, 'client')
      assert.equal('', far.output.stderr .. near.output.stderr)
      pair.close(between)
      target:close()
      app:close()
    end))
  end

  it('tunnel goes on when there is no target for some datagrams', test(function()
    local targetPort, app = raw.freePort '127.0.0.1', socket()
    local far = run['luajit, shared']('tunnel.lua', 'far', SECRET, '0', '127.0.0.1', tostring(targetPort))
    local between = proxy.new { ip = '127.0.0.1', port = tonumber(far:expect 'far end on port (%d+)\n') }
    local near = run['luajit, shared']('tunnel.lua', 'near', SECRET, '0', '127.0.0.1', tostring(between.port), '60')
    local entry = tonumber(near:expect 'near end on port (%d+)\nconnected\n')
    for _ = 1, 5 do
      local before = between.count.server
      app:send('early', entry)
      loop.till(function() return between.count.server > before end, 'what the near end sends')
    end
    local target = socket(targetPort)
    app:send('in time', entry)
    local text, from = target:take()
    while text == 'early' do text, from = target:take() end
    assert.equal('in time', text)
    target:send('answer', from)
    assert.equal('answer', (app:take()))
    assert.equal('', far.output.stderr .. near.output.stderr)
    pair.close(between)
    target:close()
    app:close()
  end))

  it('tunnel keeps datagrams that its socket has no room for, and sends them after drain', test(function()
    local target, app = socket(), socket()
    local secret = '00112233445566778899aabbccddeeff'
    local far = run['luajit, shared']('tunnel.lua', 'far', secret, '0', '127.0.0.1', tostring(target.port))
    local port = far:expect 'far end on port (%d+)\n'
    -- At SIGUSR1 the next three sends find the socket full.
    local near = withPaths('shared', 'LD_PRELOAD=' .. build .. '/faults/faults.so', [[LUA_INIT=
      local uv, faults = require 'luv', require 'spec.support.faults'
      local signal = uv.new_signal()
      signal:start('sigusr1', function()
        faults.set('send', 1, 3, 'EAGAIN')
        print 'full'
      end)
      signal:unref()]], 'luajit', 'examples/tunnel.lua', 'near', secret, '0', '127.0.0.1', port, '60')
    local entry = tonumber(near:expect 'near end on port (%d+)\nconnected\n')
    app:send('0', entry)
    assert.equal('0', (target:take()))
    near.handle:kill 'sigusr1'
    near:expect 'full\n'
    for i = 1, 5 do app:send(tostring(i), entry) end
    for i = 1, 5 do assert.equal(tostring(i), (target:take())) end
    assert.is_nil((near:printed 'dropped'))
    target:close()
    app:close()
  end))

  -- Sends the lines, by a shell command in which "$0" is a file that has them and "$@" the sender. `full` is a Lua program that makes
  -- its socket have no room when the time has come. Gives the sender, when it has ended, and the receiver.
  local function sendLines(lines, command, full)
    local directory = assert(uv.fs_mkdtemp(tree .. '/lines-XXXXXX'))
    local names, prints = { directory .. '/writes', directory .. '/reads' }, {}
    for i, name in ipairs(names) do
      local maker = run['luajit, shared']('syslog.lua', 'identity', name)
      assertEnds(maker)
      prints[i] = maker.output.stdout:match '%S+'
    end
    local receiver = run['luajit, shared']('syslog.lua', 'receive', names[2], prints[1], '0')
    local port = receiver:expect 'listening on port (%d+)\n'
    local path = write('lines', table.concat(lines, '\n')) -- whose last line has no end
    local sender = withPaths('shared', 'sh', '-c', command, path, 'env', 'LD_PRELOAD=' .. build .. '/faults/faults.so',
      "LUA_INIT=local uv, faults = require 'luv', require 'spec.support.faults' " .. full, 'luajit', 'examples/syslog.lua', 'send',
      names[1], prints[2], port)
    sender:wait()
    return sender, receiver
  end

  for input, command in pairs { ['a file'] = 'exec "$@" <"$0"', ['a pipe'] = 'cat "$0" | "$@"' } do
    it('syslog sends every line of ' .. input .. ', also when its socket is full at times', test(function()
      local lines = {}
      for i = 1, 530 do lines[i] = 'line ' .. i end
      -- What guesses is about to read, and to send.
      local sender, receiver = sendLines(lines, command, [[
        local guess = uv.guess_handle
        function uv.guess_handle(...)
          faults.set('send', 2, 3, 'EAGAIN')
          return guess(...)
        end]])
      assertEnds(sender)
      assert.equal('', sender.output.stderr)
      receiver:expect '(closed: [^\n]+\n)$'
      local seen = {}
      for number in receiver.output.stdout:gmatch ' line (%d+)\n' do seen[#seen + 1] = 'line ' .. number end
      assert.same(lines, seen)
    end))
  end

  it('syslog says when its socket is full at the end, and lines may be lost', test(function()
    local sender = sendLines({ 'one', 'two', 'three' }, 'exec "$@" <"$0"', [[
      local read = io.read
      function io.read(...)
        local piece = read(...)
        if not piece then faults.set('send', 1, 100, 'EAGAIN') end
        return piece
      end]])
    assertEnds(sender, 1)
    assert.equal('syslog: the socket was full at the end, and the last messages may be lost\n', sender.output.stderr)
  end))

  it('syslog takes several messages from one of DTLS, or one without its length, and passes on nothing that is none', test(function()
    local receiverName, sender = tree .. '/listens', assert(dtls.selfSigned { commonName = 'raw' })
    local maker = run['luajit, shared']('syslog.lua', 'identity', receiverName)
    assertEnds(maker)
    local receiver = run['luajit, shared']('syslog.lua', 'receive', receiverName, sender.fingerprint, '0')
    local port = receiver:expect '%-%- listening on port (%d+)\n'
    local conn = pair.client({ ip = '127.0.0.1', port = port }, {
      fingerprint = maker.output.stdout:match '%S+', cert = sender.cert, key = sender.key,
    })
    loop.event(conn, 'connection')
    for _, data in ipairs {
      '5 abcde3 xyz', '4 \27[2J', '<13>bare\27', '9 short', '3 abc and more', '01 a', ' ', '<', '99999999999 x',
    } do
      assert(conn:send(data))
    end
    pair.close(conn)
    receiver:expect '%-%- closed: raw\n'
    assert.equal(('-- listening on port %d\n-- connected: raw\nabcde\nxyz\n?[2J\n<13>bare?\n%sabc\n%s-- closed: raw\n'):format(port,
      ('-- no syslog message from raw\n'):rep(1), ('-- no syslog message from raw\n'):rep(5)), receiver.output.stdout)
  end))

  it('syslog receives from the clients of OpenSSL and GnuTLS, and sends to the server of OpenSSL', test(function()
    local name = tree .. '/interop'
    local maker = run['luajit, shared']('syslog.lua', 'identity', name)
    assertEnds(maker)
    local theirs = identity 'theirs'
    local receiver = run['luajit, shared']('syslog.lua', 'receive', name, theirs.fingerprint, '0')
    local port = receiver:expect 'listening on port (%d+)\n'
    local clients = {
      openssl = { 'openssl', { 's_client', '-dtls1_2', '-connect', '127.0.0.1:' .. port, '-cert', theirs.cert, '-key', theirs.key } },
      gnutls = { 'gnutls-cli', {
        '--udp', '--insecure', '--x509certfile', theirs.cert, '--x509keyfile', theirs.key, '-p', port, '127.0.0.1',
      } },
    }
    for library, client in pairs(clients) do
      local child = process.spawn(unpack(client))
      receiver:expect 'connected: localhost\n'
      child:write(('%d <13>1 of %s\n'):format(#'<13>1 of ' + #library + 1, library)) -- with the end of the line
      receiver:expect('<13>1 of ' .. library)
      child:finish()
      receiver:expect '(closed: localhost\n)$'
    end
    assert.is_nil((receiver:printed 'no syslog message'))

    local free = tostring(raw.freePort())
    local server = process.spawn('openssl', {
      's_server', '-dtls1_2', '-accept', '127.0.0.1:' .. free, '-cert', theirs.cert, '-key', theirs.key, '-Verify', '1',
    })
    server:expect 'ACCEPT'
    local sender = run['luajit, shared']('syslog.lua', 'send', name, theirs.fingerprint, free)
    sender:write 'disk full\n'
    local length, message = server:expect '(%d+) (<13>1 %d+%-%d+%-%d+T%d+:%d+:%d+Z %S+ interop %- %- %- disk full)'
    assert.equal(tonumber(length), #message)
    server:expect 'subject=CN ?= ?interop\n' -- OpenSSL 3.0 has spaces there
    sender:finish()
    assertEnds(sender)
  end))

  -- The offer of a pair, and its port; whoever asks there is no peer yet.
  local function offered()
    local offer = run['luajit, shared']('webrtc_pair.lua', 'offer')
    return offer, tonumber(offer:expect 'answer with: webrtc_pair.lua answer %S+ (%d+) %S+\n')
  end

  -- A profile, how many bytes of keys and salts it takes, and the client that asks for it.
  for library, case in pairs {
    openssl = {
      'SRTP_AEAD_AES_128_GCM', 56, 's_client', '-dtls1_2', '-use_srtp', 'SRTP_AEAD_AES_128_GCM',
      '-keymatexport', 'EXTRACTOR-dtls_srtp', '-keymatexportlen', '56', '-cert', '$cert', '-key', '$key', '-connect', '127.0.0.1:$port',
    },
    ['gnutls-cli'] = {
      'SRTP_AES128_CM_SHA1_80', 60, '--udp', '--insecure', '--srtp-profiles', 'SRTP_AES128_CM_HMAC_SHA1_80',
      '--keymatexport', 'EXTRACTOR-dtls_srtp', '--keymatexportsize', '60', '--x509certfile', '$cert', '--x509keyfile', '$key',
      '-p', '$port', '127.0.0.1',
    },
  } do
    it(('webrtc_pair agrees with %s on %s and its keys'):format(library, case[1]), test(function()
      local offer, port = offered()
      local theirs = identity(library)
      theirs.port = port
      offer:write(theirs.fingerprint .. '\n')
      local arguments = { unpack(case, 3) }
      for i, text in ipairs(arguments) do arguments[i] = text:gsub('%$(%l+)', theirs) end
      local client = process.spawn(library, arguments)
      local material = client:expect 'aterial: (%x+)\n':lower()
      assert.equal(2 * case[2], #material)
      local salts = 65 + case[2] - 32 -- where that of the server begins, in digits
      local function from(key, salt) return ('%s… %s…'):format(material:sub(key, key + 7), material:sub(salt, salt + 7)) end
      local sends, receives = offer:expect(case[1] .. ': sends with ([^,]+), receives with ([^\n]+)\n')
      assert.same({ from(1, 65), from(33, salts) }, { receives, sends })
      client:finish()
      offer:expect 'closed\n'
      assertEnds(offer)
    end))
  end

  it('webrtc_pair tells who asks by STUN where the question came from, and answers nothing else', test(function()
    local offer, port = offered()
    local asks = socket()
    local request = '\0\1\0\0\33\18\164\66'
    for _, data in ipairs {
      'no', request .. ('t'):rep(11), request .. ('t'):rep(13), '\0\1\0\4\33\18\164\66' .. ('t'):rep(12),
      '\0\1\0\0\33\18\164\67' .. ('t'):rep(12), '\1\1\0\0\33\18\164\66' .. ('t'):rep(12),
    } do
      asks:send(data, port)
    end
    asks:send('\0\1\0\8\33\18\164\66transaction!\128\34\0\4name', port) -- with an attribute, SOFTWARE
    local answer = asks:take()
    local high, low = answer:byte(27, 28)
    assert.equal(asks.port, bit.bxor(high, 33) * 256 + bit.bxor(low, 18))
    assert.equal('\1\1\0\12\33\18\164\66transaction!\0\32\0\8\0\1', answer:sub(1, 26))
    assert.equal(string.char(bit.bxor(127, 33), 18, 164, bit.bxor(1, 66)), answer:sub(29))
    asks:close()
    assert.equal('', offer.output.stderr)
  end))

  if select(2, shell 'command -v turnutils_stunclient') == 0 then
    it('webrtc_pair tells the STUN client of coturn its address', test(function()
      local _, port = offered()
      local asks = process.spawn('turnutils_stunclient', { '-p', tostring(port), '127.0.0.1' })
      assertEnds(asks)
      assert.truthy(asks:printed 'UDP reflexive addr: 127%.0%.0%.1:%d+')
    end))
  else
    pending 'webrtc_pair tells the STUN client of coturn its address: needs coturn'
  end

  it('game_server logs how many datagrams the kernel dropped while the server was too slow for them', needs('drop_count', test(function()
    local server = run['luajit, shared']('game_server.lua', '0')
    local ip, port, fingerprint = server:expect 'dtlscat.lua (%S+) (%d+) %-%-fingerprint (%S+)\n'
    local conn = pair.client({ ip = ip, port = port }, { fingerprint = fingerprint })
    local boards = pair.record(conn, 'message')
    loop.till(function() return boards[1] end, 'a board')
    server.handle:kill 'sigstop'
    -- A run of datagrams of one length would come as one message (UDP GRO).
    for i = 1, 4000 do assert(conn:send(i % 2 == 0 and 'right' or 'up')) end
    server.handle:kill 'sigcont'
    local lost = tonumber(server:expect 'lost: (%d+) for a full receive buffer, 0 for a full send buffer\n')
    assert.is_true(lost > 0 and lost < 4000, lost)
    loop.till(function() return boards[#boards][2] == 'p1 at 10,1\n' end, 'a walk to the border')
    pair.close(conn)
  end)))

  it('coroutine: calls wait for messages, for the handshake, and for the end with its error', test(function()
    for _, runner in ipairs(everywhere) do
      local child = run[runner] 'coroutine.lua'
      assertEnds(child)
      assert.equal(COROUTINE_SAYS, child.output.stdout, runner)
      assert.equal('', child.output.stderr, runner)
    end
  end))

  it('coroutine: a write waits as long as the socket is full', test(function()
    for first = 7, 10 do -- messages and their answers, behind the handshake
      local child = withPaths('shared', 'LD_PRELOAD=' .. build .. '/faults/faults.so',
        ("LUA_INIT=require 'spec.support.faults'.set('send', %d, 3, 'EAGAIN')"):format(first), 'luajit', 'examples/coroutine.lua')
      assertEnds(child)
      assert.equal(COROUTINE_SAYS, child.output.stdout)
      assert.equal('', child.output.stderr)
    end
  end))

  for keeper, runner in pairs { tickets = 'luvit, static', Redis = 'luajit, shared' } do
    it(('fleet under %s: both processes serve, and those that follow after SIGHUP resume the sessions, from %s'):format(runner, keeper),
      test(function()
        local redis = keeper == 'Redis' and startRedis()
        local fleet = startFleet(runner, redis and redis.port)
        local clients, sessions = {}, {}
        for i = 1, 24 do
          clients[i] = fleet:client()
          sessions[i] = assert(clients[i]:getSession())
        end
        local file = os.tmpname()
        assert.equal('New', fleet:openssl(file, '-sess_out'))
        local before = fleet:count('dtls_connections_total', 25)
        for pid, count in pairs(before) do assert.is_true(count < 25, pid) end
        if redis then
          assert.equal('25\n', redis.ask 'DBSIZE')
          local left = tonumber(redis.ask('EVAL', [["return redis.call('PTTL', redis.call('RANDOMKEY'))"]], '0'))
          assert.is_true(left > 0 and left <= 300000, left)
        end

        local pinned = fleet.fingerprint
        fleet:newIdentity()
        fleet.child.handle:kill 'sighup'
        for _, conn in ipairs(clients) do assert.same({ 'close', false }, conn.got.wait 'close') end
        fleet.child:expect '(2 processes serve port %d+\n.*2 processes serve port %d+\n)'
        for i, session in ipairs(sessions) do
          clients[i] = fleet:client { session = session, fingerprint = pinned }
          assert.is_true(clients[i]:isSessionReused(), i)
        end
        assert.equal('Reused', fleet:openssl(file, '-sess_in'))
        assert.is_false(fleet:client():isSessionReused()) -- and has the new certificate
        for pid in pairs(fleet:count('dtls_connections_total', 26)) do assert.is_nil(before[pid]) end
        fleet:count('dtls_active', 25)
        fleet:finish()
        for _, conn in ipairs(clients) do conn.got.wait 'close' end
        if redis then assert.equal('', redis.output.stderr) end
        os.remove(file)
      end))
  end

  it('fleet replaces a process that has died, and the peers of the others notice nothing', test(function()
    local fleet = startFleet 'luajit, shared'
    local clients = {}
    for i = 1, 24 do clients[i] = fleet:client() end
    local counts = fleet:count('dtls_active', 24)
    local victim, left = next(counts)
    assert(uv.kill(tonumber(victim), 'sigkill'))
    fleet.child:expect('process ' .. victim .. ' has died\n')
    assert.is_nil(fleet:count('dtls_active', 24 - left)[victim])
    for _, conn in ipairs(clients) do conn:send 'still there' end
    local answered
    loop.till(function()
      answered = 0
      for _, conn in ipairs(clients) do answered = answered + (conn.got[2] and conn.got[2][1] == 'message' and 1 or 0) end
      return answered == 24 - left
    end, 'an echo for each peer of the process that lives')
    for _ = 1, 8 do pair.close(fleet:client()) end
    for _, conn in ipairs(clients) do conn:destroy() end
    fleet:finish()
  end))

  it('fleet keeps its processes when those of the next generation cannot start, and starts none when the first ones cannot', test(function()
    local fleet = startFleet 'luajit, shared'
    local conn = fleet:client()
    assert(os.remove(fleet.path))
    fleet.child.handle:kill 'sighup'
    fleet.child:expect '\nthe new generation cannot start, the old one stays\n'
    assert.equal(('fleet: %s: No such file or directory\n'):format(fleet.path), fleet.child.output.stderr)
    local file = assert(io.open(fleet.path, 'w'))
    file:write 'no certificate'
    file:close()
    fleet.child.handle:kill 'sighup'
    fleet.child:expect '\n(the new generation.*the new generation cannot start, the old one stays\n)'
    assert.matches('\nfleet_worker: ERR_DTLS_CONFIG: cert: [^\n]*\n$', fleet.child.output.stderr)
    conn:send 'again'
    loop.till(function() return conn.got[2] end, 'the echo')
    pair.close(fleet:client(), conn)
    local another = run['luajit, shared']('fleet.lua', fleet.path, '0', '127.0.0.1', '0', '2')
    assertEnds(another, 1)
    assert.truthy(another:printed 'fleet: cannot start\n')
    fleet.child.handle:kill 'sigint'
    assertEnds(fleet.child)
    os.remove(fleet.path)
  end))

  it('fleet serves its peers without sessions as long as Redis is away, and with sessions when it is back', test(function()
    local redis = startRedis()
    local fleet = startFleet('luajit, shared', redis.port)
    local function resumes()
      local first = fleet:client()
      local session = first:getSession()
      local second = fleet:client { session = session }
      local reused = second:isSessionReused()
      pair.close(first, second)
      return reused
    end
    assert.is_true(resumes())
    redis.handle:kill 'sigstop'
    assert.is_false(resumes())
    fleet.child:expect 'Redis: no answer\n'
    redis:kill()
    assert.is_false(resumes())
    fleet.child:expect 'Redis: ECONNREFUSED\n'
    redis = startRedis(redis.port)
    assert.is_true(resumes())
    redis.ask('CONFIG', 'SET', 'maxmemory', '1')
    assert.is_false(resumes())
    fleet.child:expect 'sessionStore.set: OOM [^\n]*\n'
    fleet:finish()
  end))

  it('fleet says what it counts at /metrics alone, to whoever asks, and ends with its parent', test(function()
    local fleet = startFleet 'luajit, shared'
    pair.close(fleet:client())
    local pids = fleet:count('dtls_connections_total', 1)
    local status, text = curl(fleet.url)
    assert.equal(200, status)
    local types, seen = {}, {}
    for line in text:gmatch '[^\n]+' do
      local name, kind = line:match '^# TYPE ([%l_]+) (%l+)$'
      if name then
        assert.is_nil(types[name])
        types[name] = kind
      else
        name = line:match '^([%l_]+){pid="%d+"[^}]*} %d+$'
        assert.truthy(types[name], line)
        assert.equal(name:find '_total$' and 'counter' or 'gauge', types[name])
        seen[name] = true
      end
    end
    for name in pairs(types) do assert.is_true(seen[name]) end
    local server = pair.listening()
    for name in pairs(server:stats()) do
      local full = 'dtls_' .. name:gsub('%u', function(letter) return '_' .. letter:lower() end)
      assert.truthy(types[full] or types[full .. '_total'] or name == 'drops', name)
    end
    pair.close(server)
    assert.truthy(text:find '\ndtls_datagrams_in_total{pid="%d+"} [1-9]')
    assert.equal(404, (curl(fleet.url .. '2')))
    assert.equal(404, (curl(fleet.url:gsub('metrics', ''))))
    fleet.child:kill()
    for pid in pairs(pids) do loop.till(function() return not uv.kill(tonumber(pid), 0) end, 'the end of ' .. pid) end
    os.remove(fleet.path)
  end))

  it('fleet answers at /metrics and ends, whatever connections are open there that ask for nothing', test(function()
    local fleet = startFleet 'luajit, shared'
    local idle, ended = {}, 0
    for i = 1, 40 do
      idle[i] = tcpClient(tonumber(fleet.url:match ':(%d+)/'))
      idle[i].tcp:read_start(function() ended = ended + 1 end)
    end
    assert.equal(200, (curl(fleet.url)))
    loop.till(function() return ended == 40 - 16 + 1 end, 'the end of the oldest connections')
    fleet:finish()
    for _, each in ipairs(idle) do pair.close(each.tcp) end
  end))

  it('fleet outlives whoever asks for /metrics and does not wait for the answer', test(function()
    local fleet = startFleet 'luajit, shared'
    fleet.child.handle:kill 'sigstop'
    local client = tcpClient(tonumber(fleet.url:match ':(%d+)/'))
    client.tcp:write 'GET /metrics HTTP/1.1\r\n\r\n'
    loop.call(function(done) client.tcp:shutdown(done) end)
    loop.call(function(done) client.tcp:close_reset(done) end)
    fleet.child.handle:kill 'sigcont'
    assert.equal(200, (curl(fleet.url)))
    fleet:finish()
  end))

  it('dtlscat with certificates from files: a CA and a name for the server, a fingerprint for the client', test(function()
    local server, client = identity 'server', identity 'client'
    local listener, port = listen('luajit, shared', '--cert', server.cert, '--key', server.key, '--fingerprint', client.fingerprint)
    local child = connect('luvit, shared', port, '--ca', server.cert, '--servername', 'localhost',
      '--cert', client.cert, '--key', client.key)
    talk(child, listener)
    child:finish()
    assertEnds(child)
    assertEnds(listener)
    assert.truthy(child:printed ', authorized\n')
    assert.truthy(listener:printed ', authorized\n')
  end))

  it('dtlscat says that the name in the certificate is another one', test(function()
    local server = identity 'other'
    local _, port = listen('luajit, shared', '--cert', server.cert, '--key', server.key)
    local child = connect('luajit, shared', port, '--ca', server.cert, '--servername', 'example.org')
    assertEnds(child, 1)
    assert.equal("dtlscat: the peer's certificate was refused: hostname mismatch: example.org is not among DNS:localhost\n",
      child.output.stderr)
  end))

  it('dtlscat --insecure talks to any server and warns that it does', test(function()
    local listener, port = listen 'luajit, shared'
    local child = connect('luajit, shared', port, '--insecure')
    talk(listener, child)
    assert.truthy(child:printed 'not authorized: DEPTH_ZERO_SELF_SIGNED_CERT\n')
  end))

  it('dtlscat reads and writes files, and -q goes on listening after the end of input', test(function()
    local content = {}
    for i = 1, 20000 do content[i] = string.char(i * i % 251) end
    content = table.concat(content)
    local source, target = write('source', content), tree .. '/target'
    local psk = '--psk-identity a --psk-key 0123456789abcdef0123456789abcdef'
    local function redirected(arguments, redirection)
      return withPaths('shared', 'sh', '-c', ('exec luajit examples/dtlscat.lua %s %s %s'):format(psk, arguments, redirection))
    end
    local listener = redirected('-q -1 -l 127.0.0.1 0', ("</dev/null >'%s'"):format(target))
    local port = listener:expect 'listening on 127%.0%.0%.1 port (%d+)\n'
    local child = redirected('127.0.0.1 ' .. port, ("<'%s'"):format(source))
    assertEnds(child)
    assertEnds(listener)
    local file = assert(io.open(target, 'rb'))
    local received = file:read '*a'
    file:close()
    assert.truthy(content == received, ('%d of %d bytes'):format(#received, #content))
  end))

  -- A listener whose standard input is empty: at once, or as /dev/null is.
  local inputs = {
    ['that is empty'] = function(...)
      local listener = run['luajit, shared']('dtlscat.lua', ...)
      listener:finish()
      return listener
    end,
    ['from /dev/null'] = function(...)
      return withPaths('shared', 'sh', '-c', 'exec luajit examples/dtlscat.lua "$@" </dev/null', 'sh', ...)
    end,
  }

  for name, start in pairs(inputs) do
    it('dtlscat -l with standard input ' .. name .. ' hears a peer until that closes', test(function()
      local listener = start('-l', '127.0.0.1', '0')
      local port = listener:expect 'listening on 127%.0%.0%.1 port (%d+)\n'
      local client = connect('luajit, shared', port, '--insecure')
      client:expect 'connected'
      listener:expect 'connected'
      for i = 1, 3 do
        client:write(i .. '\n')
        listener:expect(i .. '\n')
      end
      client:finish()
      assertEnds(client)
      assertEnds(listener)
    end))

    it('dtlscat -l -q 0 with standard input ' .. name .. ' closes at once', test(function()
      local listener = start('-q', '0', '-l', '127.0.0.1', '0')
      local port = listener:expect 'listening on 127%.0%.0%.1 port (%d+)\n'
      local client = connect('luajit, shared', port, '--insecure')
      assertEnds(listener)
      assertEnds(client)
    end))
  end

  for _, runner in ipairs { 'luajit, shared', 'luvit, shared' } do
    for _, signal in ipairs { 'sigint', 'sigterm' } do
      for _, listens in ipairs { true, false } do
        local who = listens and 'the listener' or 'the client'
        it(('dtlscat under %s: %s ends %s, and the other side by its close_notify'):format(runner, signal, who), test(function()
          local listener, port = listen(runner)
          local client = connect(runner, port, '--insecure')
          talk(client, listener)
          local ended = listens and listener or client
          ended.handle:kill(signal)
          assertEnds(client)
          assertEnds(listener)
        end))
      end
    end

    it('dtlscat -v under ' .. runner .. ' shows the handshake and the statistics of both sides', test(function()
      local listener, port = listen(runner, '-v', '--alpn', 'coap')
      local client = connect(runner, port, '--insecure', '-v', '--alpn', 'h3,coap', '--mtu', '700', '--servername', 'device.example')
      talk(client, listener)
      client:finish()
      assertEnds(client)
      assertEnds(listener)
      assert.truthy(listener:printed '127%.0%.0%.1 port %d+ has a good cookie, its handshake begins\n')
      assert.truthy(listener:printed 'certificate: none\n')
      assert.truthy(client:printed 'looking for 127%.0%.0%.1 port %d+\n')
      assert.truthy(client:printed 'certificate: localhost, for DNS:localhost, valid from [^\n]*, fingerprint %x%x:[%x:]+\n')
      assert.truthy(client:printed 'MTU: messages of up to 6%d%d bytes\n')
      for _, each in ipairs { client, listener } do
        for _, pattern in ipairs {
          'handshake: %d+ ms, from 127%.0%.0%.1 port %d+ to 127%.0%.0%.1 port %d+\n', 'DTLSv1%.2, cipher TLS_[%u%d_]+, %d+ bits\n',
          'name asked for: device%.example\n', 'application protocol: coap\n', 'MTU: messages of up to %d+ bytes\n',
          'datagrams: %d+ sent, %d+ received, dropped: none; flights repeated: %d+\n.*datagrams: %d+ sent',
        } do
          assert.truthy(each:printed(pattern), pattern .. '\n' .. each.output.stderr)
        end
      end
    end))

    it('dtlscat -w under ' .. runner .. ' gives up: no peer, no answer, a silent peer', test(function()
      local alone = run[runner]('dtlscat.lua', '-w', '0.2', '-l', '127.0.0.1', '0')
      assertEnds(alone, 3)
      assert.truthy(alone:printed 'nobody connected within 0%.2 seconds\n')
      local silent = uv.new_udp()
      assert(silent:bind('127.0.0.1', 0))
      local client = connect(runner, silent:getsockname().port, '-w', '0.2', '-v', '--insecure')
      assertEnds(client, 3)
      assert.truthy(client:printed 'did not complete[^\n]*\n.*datagrams: %d+ sent, 0 received')
      silent:close()
      local listener, port = listen(runner)
      client = connect(runner, port, '-w', '0.5', '--insecure')
      assertEnds(client, 3)
      assertEnds(listener)
      assert.truthy(client:printed 'connected[^\n]*\n.*nothing was sent or received for 0%.5 seconds\n')
    end))
  end

  it('dtlscat -p shows on a terminal, and nowhere else, what has been sent and received, and how fast', test(function()
    local psk = { '--psk-identity', 'a', '--psk-key', '0123456789abcdef0123456789abcdef' }
    local listener, port = listen('luajit, shared', '-p', unpack(psk))
    -- `script` gives it a terminal, which standard output then is, too.
    local command = ('exec luajit examples/dtlscat.lua -p %s 127.0.0.1 %s 2>&1'):format(table.concat(psk, ' '), port)
    local client = withPaths('shared', 'script', '-qefc', command, '/dev/null')
    client:expect 'connected'
    listener:write(('x'):rep(1100))
    client:expect '\r\27%[K(0 bytes sent, 0 bytes/s; 1%.1 kB received, [%d.]+ %a+/s)'
    client:write(('y'):rep(70) .. '\n')
    listener:expect 'yyy\n'
    client:expect '\r\27%[K71 bytes sent, [^\n]*\r\27%[K71 bytes sent, '
    listener:finish()
    assertEnds(listener)
    client:expect '\r\27%[Kdtlscat: 71 bytes sent, %d+ bytes/s; 1%.1 kB received, [%d.]+ %a+/s, in [%d.]+ s\r?\n'
    assertEnds(client)
    assert.is_nil((listener:printed 'received'))
    assert.is_nil((listener:printed '\27'))
  end))

  it('dtlscat --keylog writes the keys of the session to a file', test(function()
    local path = tree .. '/keys.log'
    local listener, port = listen 'luajit, shared'
    local client = connect('luajit, shared', port, '--insecure', '--keylog', path)
    talk(client, listener)
    client:finish()
    assertEnds(client)
    assert.truthy(contents(path):find '^CLIENT_RANDOM %x+ %x+\n$')
  end))

  it('dtlscat --alpn without a common protocol fails on both sides', test(function()
    local listener, port = listen('luajit, shared', '--alpn', 'coap')
    local client = connect('luajit, shared', port, '--insecure', '--alpn', 'h3')
    assertEnds(client, 1)
    assert.truthy(listener:expect 'did not get in: ([^\n]+)\n')
  end))

  it('dtlscat names no authorization error unless a certificate was asked for, and then the missing one', test(function()
    local client = identity 'client'
    local listener, port = listen('luajit, shared', '--fingerprint', client.fingerprint, '--insecure')
    local child = connect('luajit, shared', port, '--insecure')
    talk(child, listener)
    assert.truthy(listener:printed 'not authorized: NO_PEER_CERTIFICATE\n', listener.output.stderr)
  end))

  for name, case in pairs {
    ['no arguments'] = { 2, 'expected host port' },
    ['an unknown option'] = { 2, 'unknown option %-%-secure', 'localhost', '4433', '--secure' },
    ['a value that is missing'] = { 2, '%-%-ca: expected a value', 'localhost', '4433', '--ca' },
    ['a port that is none'] = { 2, '70000 is not a port', 'localhost', '70000' },
    ['a key that is not hexadecimal'] = { 2, '%-%-psk%-key: expected pairs of hexadecimal digits', '--psk-key', 'xyz', 'localhost', '1' },
    ['a fingerprint of another length'] = { 2, '%-%-fingerprint: expected 64 hexadecimal digits', '--fingerprint', 'AA', 'localhost', '1' },
    ['a key without its identity'] = { 2, '%-%-psk%-identity and %-%-psk%-key come together', '--psk-key', '00', 'localhost', '1' },
    ['a wait that is none'] = { 2, '%-w: expected more than 0 seconds', '-w', '0', 'localhost', '1' },
    ['an MTU that is none'] = { 2, '%-%-mtu: expected a number of bytes', '--mtu', 'x', 'localhost', '1' },
    ['an MTU that cannot be'] = { 1, 'mtu: expected a whole number from 228', '--mtu', '20', 'localhost', '1' },
    ['a file that is not there'] = { 2, '/nowhere/ca%.pem: No such file', '--ca', '/nowhere/ca.pem', 'localhost', '1' },
    ['a host that is no address to listen on'] = { 1, 'cannot bind localhost port 0: this is not an IP address', '-l', 'localhost', '0' },
    ['a host that is nearly an address'] = { 1, "host '127%.0%.0%.256': an IPv4 address", '--psk-identity', 'me', '--psk-key', '00',
      '127.0.0.256', '1' },
    ['an address that is not ours'] = { 1, 'cannot bind 192%.0%.2%.1 port 4433: ', '-l', '192.0.2.1', '4433' },
  } do
    it('dtlscat explains ' .. name, test(function()
      for _, runner in ipairs { 'luajit, shared', 'luvit, shared' } do
        local child = run[runner]('dtlscat.lua', unpack(case, 3))
        assertEnds(child, case[1])
        assert.truthy(child.output.stderr:find('dtlscat: [^\n]*' .. case[2]), child.output.stderr)
        assert.falsy(child.output.stderr:find 'traceback')
      end
    end))
  end

  it('dtlscat --help tells the options on standard output', test(function()
    for _, runner in ipairs { 'luajit, shared', 'luvit, shared' } do
      local child = run[runner]('dtlscat.lua', '--help')
      assertEnds(child)
      assert.equal('', child.output.stderr)
      assert.truthy(child:printed '^usage: .*%-%-fingerprint')
    end
  end))
end)
