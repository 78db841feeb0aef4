local dtls = require 'dtls'
local loop = require 'spec.support.loop'
local namespaces = require 'spec.support.namespaces'
local process = require 'spec.support.process'
local needs = require('spec.support.platform').needs

local missing = namespaces.missing()

-- A certificate that no flight with it fits into one datagram.
local names = {}
for i = 1, 80 do names[i] = ('host-%d.a-name-that-takes-its-place.example'):format(i) end
local identity = assert(dtls.selfSigned { altNames = names })

local families = {
  { name = 'IPv4', any = '0.0.0.0', headers = 28, small = 600, client = '10.9.0.1', near = '10.9.0.2', far = '10.9.1.2',
    server = '10.9.1.1', second = '10.9.1.7', bits = '/24', ip = '-4 ' },
  { name = 'IPv6', any = '::', headers = 48, small = 1280, client = 'fd09::1', near = 'fd09::2', far = 'fd09:1::2',
    server = 'fd09:1::1', second = 'fd09:1::7', bits = '/64', ip = '-6 ' },
}

-- ── a client, a router, a server ──

local World = {}
World.__index = World

local function address_of(self, host)
  return (host == self.client and self.family.client or self.family.server) .. self.family.bits
end

-- Gives a host its address, if it has none, and the way to the other one.
local function configure(self, host)
  local family = self.family
  host:ip(('%saddr replace %s dev eth0'):format(family.ip, address_of(self, host)))
  host:ip(('%sroute replace default via %s'):format(family.ip, host == self.client and family.near or family.far))
end

local function new_world(family)
  local self = setmetatable({ family = family, steps = 0 }, World)
  self.client = namespaces.host()
  self.router, self.server = namespaces.host(self.client), namespaces.host(self.client)
  namespaces.join({ self.client, 'eth0', family.client .. family.bits }, { self.router, 'eth0', family.near .. family.bits })
  namespaces.join({ self.router, 'eth1', family.far .. family.bits }, { self.server, 'eth0', family.server .. family.bits })
  self.router:run "sh -c 'echo 1 | tee /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding'"
  configure(self, self.client)
  configure(self, self.server)
  return self
end

-- What the smaller link of the path takes, from now on. The server knows it of its own interface, the client does not.
function World:narrow(mtu)
  self.router:ip('link set eth1 mtu ' .. mtu)
  self.server:ip('link set eth0 mtu ' .. mtu)
end

function World.down(_, host) host:ip 'link set eth0 down' end

-- With the link, the kernel has taken away routes, and of IPv6 the addresses.
function World:up(host)
  host:ip 'link set eth0 up'
  configure(self, host)
end

-- Lua in a peer; returns what say() was called with there, in one string.
function World:run(peer, code, ...)
  self.steps = self.steps + 1
  code = code:format(...):gsub('\\\n', '\\n'):gsub('\n', ' ')
  peer:write(('%s print(%q)\n'):format(code, 'step ' .. self.steps .. '.'))
  peer:expect(('step %d%%.'):format(self.steps))
end

-- Starts the two programs and a server that answers every message, on all addresses.
function World:serve(demux, options)
  local under = self.family.name == 'IPv4' and process.UNDER or '' -- once, since it takes its time
  self.theirs = self.client:spawn(under, 'luajit', 'spec/faults/peer.lua')
  self.ours = self.server:spawn(under, 'luajit', 'spec/faults/peer.lua')
  self:run(self.ours, 'identity = { cert = %q, key = %q, fingerprint = %q }', identity.cert, identity.key, identity.fingerprint)
  self:run(self.theirs, 'identity = { cert = %q, key = %q, fingerprint = %q }', identity.cert, identity.key, identity.fingerprint)
  self:run(self.ours, [[
    server = assert(dtls.createServer { cert = identity.cert, key = identity.key, fingerprint = identity.fingerprint,
      requestCert = true, demux = %q, retransmitTimeout = %d, %s })
    server:on('connection', function(c)
      conn = c
      report('server', c)
      c:on('message', function(data) c:send(data) end)
      print('server connected ' .. c:localAddress().ip)
    end)
    server:on('clientError', function(err) print('client error', err) end)
    assert(server:listen(5684, %q))]], demux, 200 * loop.patience, options or '', self.family.any)
end

function World:connect(options, ip)
  self:run(self.theirs, [[
    conn = assert(dtls.connect { host = %q, port = 5684, servername = '', cert = identity.cert, key = identity.key,
      fingerprint = identity.fingerprint, retransmitTimeout = %d, %s })
    report('client', conn)
    conn:on('connection', function() print('client connected', conn:getDataMtu()) end)]],
    ip or self.family.server, 200 * loop.patience, options or '')
end

-- The client's answer to a question, as text.
function World:ask(question)
  self.steps = self.steps + 1
  self.theirs:write(('print("answer %d:", %s, ".")\n'):format(self.steps, question))
  return (self.theirs:expect(('answer %d:%%s(.-)%%s%%.\n'):format(self.steps)))
end

-- Waits until the client's answer is this.
function World:askUntil(question, answer)
  self.steps = self.steps + 1
  self.theirs:write(('till(function() return tostring(%s) == %q end, "answer %d.")\n'):format(question, answer, self.steps))
  if pcall(self.theirs.expect, self.theirs, ('answer %d%%.\n'):format(self.steps)) then return end
  error(('%s was never %s, but %s'):format(question, answer, self:ask(question)))
end

-- Sends until a message of a length that was not used before has come back.
function World:talk()
  self.size = (self.size or 100) + 1
  for _ = 1, 50 do
    self:run(self.theirs, 'conn:send(("x"):rep(%d))', self.size)
    if pcall(self.theirs.expect, self.theirs, ('client message %d\n'):format(self.size), 200) then return end
  end
  error('no answer to any of many messages')
end

-- An association that sends up to 1400 bytes, over a link that takes less from now on.
function World:outgrow(demux)
  self:serve(demux, 'mtu = 1400')
  self:connect 'mtu = 1400'
  self.theirs:expect 'client connected'
  self:talk()
  self:narrow(self.family.small)
end

local function each(body)
  for _, family in ipairs(families) do
    for _, demux in ipairs { 'shared', 'connected' } do body(family, demux, ('(%s, %s sockets)'):format(family.name, demux)) end
  end
end

-- A test in a world of its own, or the reason why there is none.
local function within(family, body)
  return loop.run(function()
    local ok, err = pcall(function()
      local world = new_world(family)
      body(world)
      world.theirs:finished()
      world.ours:finished()
    end)
    process.killAll()
    if not ok then error(err, 0) end
  end)
end

describe('between hosts', function()
  if missing then
    pending(missing)
    return
  end

  each(function(family, demux, which)
    it('a handshake passes a link that takes less than its datagrams ' .. which, within(family, function(world)
      world:narrow(family.small)
      world:serve(demux, 'mtu = 1400')
      world:connect 'mtu = 1400'
      local limit = tonumber((world.theirs:expect 'client connected%s+(%d+)'))
      assert.is_true(limit <= family.small - family.headers - 37, limit .. ' bytes')
      world:talk()
    end))

    it('a link that becomes smaller loses a message, then getDataMtu says what passes ' .. which, within(family, function(world)
      world:outgrow(demux)
      local limit = family.small - family.headers - 37
      assert.equal('true', world:ask 'conn:send(("x"):rep(1363))')
      world:askUntil('conn:getDataMtu()', tostring(limit))
      assert.equal('1', world:ask 'conn:stats().drops.EMSGSIZE')
      assert.truthy(world:ask(('select(2, conn:send(("x"):rep(%d)))'):format(limit + 1)):find('EMSGSIZE', 1, true))
      world:run(world.theirs, 'conn:send(("x"):rep(%d))', limit)
      world.theirs:expect(('client message %d\n'):format(limit))
    end))

    it('the message that meets the news of a smaller link is sent all the same ' .. which, within(family, function(world)
      world:outgrow(demux)
      -- The loop does not turn, so that the next message is the first to hear of it.
      world:run(world.theirs, [[
        conn:send(('x'):rep(1363))
        print('heard of', awaitError(conn._association:fd()))
        print('sent', conn:send(('x'):rep(50)))]])
      world.theirs:expect 'heard of%s+true'
      world.theirs:expect 'sent%s+true'
      world.theirs:expect 'client message 50\n'
      assert.equal('1', world:ask 'conn:stats().drops.EMSGSIZE')
    end))

    it('an association outlives an interface or an address that is away for a while ' .. which, within(family, function(world)
      world:serve(demux)
      world:connect()
      world.theirs:expect 'client connected'
      world:talk()
      for _, host in ipairs { world.client, world.server } do
        local peer = host == world.client and world.theirs or world.ours
        world:down(host)
        world:run(peer, 'print("sent", conn:send "lost")')
        peer:expect 'sent%s+nil%s+E%u+: the message was not sent'
        world:up(host)
        world:talk()
        host:ip(('addr del %s dev eth0'):format(address_of(world, host)))
        world:run(peer, 'print("sent from nowhere", conn:send "lost")')
        -- What Linux says of it differs between the families, and a socket may be free to choose another address.
        local outcome = peer:expect 'sent from nowhere%s+([^\n]+)\n'
        assert.truthy(outcome:find '^true' or outcome:find '^nil%s+EADDRNOTAVAIL' or outcome:find '^nil%s+ENETUNREACH', outcome)
        configure(world, host)
        world:talk()
      end
      assert.is_nil(world.theirs:printed '(error)' or world.ours:printed '(error)')
    end))

    it('a handshake outlives an interface that goes down, on either host ' .. which, within(family, function(world)
      world:serve(demux)
      -- It answers late, but long before a repetition.
      world:run(world.ours, [[
        busy = uv.new_timer()
        busy:start(0, 1, function()
          local till = uv.hrtime() + 3e7
          repeat until uv.hrtime() > till
        end)]])
      world:down(world.server)
      world:connect()
      world:askUntil('conn:stats().retransmits > 0', 'true')
      world:down(world.client)
      world:askUntil('drops(conn:stats())', 'EHOSTUNREACH=1')
      world.router:ip 'neigh flush all dev eth1' -- and with the neighbour the datagrams that wait for it
      world:up(world.server)
      world:up(world.client)
      world.theirs:expect 'client connected'
      world:talk()
    end))

    it('a server on all addresses answers from the one that was dialled ' .. which, needs('local_address', within(family, function(world)
      world.server:ip(('addr add %s dev eth0'):format(family.second .. family.bits))
      world:serve(demux)
      for _, ip in ipairs { family.second, family.server } do
        world:connect(nil, ip)
        world.ours:expect('server connected ' .. ip)
        world:talk()
      end
    end)))
  end)

  it('a link-local address that two links have gets a cookie for each', within(families[2], function(world)
    for _, link in ipairs { 'one', 'two' } do
      namespaces.join({ world.client, link }, { world.server, link })
      for host, address in pairs { [world.client] = 'fe80::a1', [world.server] = 'fe80::b1' } do
        host:ip('-6 addr flush dev ' .. link) -- the kernel's own, which differ
        host:ip(('addr add %s/64 dev %s'):format(address, link))
      end
    end
    world:serve 'shared'
    world:run(world.theirs, [[
      hello, socket = require 'spec.support.hello', require('spec.support.raw').open '::'
      function cookie(i) return hello.verifyRequest(socket.inbox[i]).cookie end]])
    for i, link in ipairs { 'one', 'two', 'one' } do
      world:run(world.theirs, 'socket:send(hello.build(), { ip = "fe80::b1%%%s", port = 5684 })', link)
      world:askUntil('#socket.inbox', tostring(i))
    end
    assert.equal('true', world:ask 'cookie(1) == cookie(3)')
    assert.equal('false', world:ask 'cookie(1) == cookie(2)')
    world:run(world.theirs, 'socket:close()')
  end))

  for _, family in ipairs(families) do
    it(('a handshake through a link that stays away fails by its deadline (%s)'):format(family.name), within(family, function(world)
      world:serve 'shared'
      world:down(world.server)
      world:connect('handshakeTimeout = 500,')
      world.theirs:expect 'client error ERR_DTLS_HANDSHAKE_TIMEOUT'
      world.theirs:expect 'client closed'
      world:connect 'retransmitTimeout = function() return 100 end,'
      world:askUntil('conn:stats().retransmits > 0', 'true')
      world:down(world.client)
      world.theirs:expect 'client error ENETUNREACH'
      world:up(world.client)
      world:up(world.server)
      world:connect()
      world.theirs:expect 'client connected'
      world:talk()
    end))
  end
end)
