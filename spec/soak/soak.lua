--- The life of two servers in fast motion, for as long as is asked: clients of every kind come over a bad network, talk,
--- leave with and without a word, start over from the port they had, and are killed; identities, cookie secrets and ticket
--- keys rotate; strangers send junk. Between rounds everything must be as it was after the first one: memory,
--- descriptors, handles, counters.
---
---   luajit spec/soak/soak.lua [minutes] [seed]      default: 10, the time

local uv = require 'luv'
local dtls = require 'dtls'
local descriptors = require 'spec.support.descriptors'
local hello = require 'spec.support.hello'
local loop = require 'spec.support.loop'
local memory = require 'spec.support.memory'
local pair = require 'spec.support.pair'
local process = require 'spec.support.process'
local proxy = require 'spec.support.proxy'
local raw = require 'spec.support.raw'

local MINUTES = tonumber(arg[1]) or 10
local SEED = tonumber(arg[2]) or os.time()

local ROUND = 15000     -- ms
local STEP = 10         -- ms between two things that happen
local PEERS = 60        -- clients at once in this process
local MESSAGES = 400    -- that one client sends at most
local IDLE = 2000       -- ms: abandoned associations
local DEADLINE = 6000   -- ms: handshakes
local GROWTH = 192 * 1024 -- bytes: what allocators and tables may differ by between two rests

local random = proxy.random(SEED)

local function chance(probability) return random() < probability end

local function between(low, high) return low + math.floor(random() * (high - low + 1)) end

local function any(list) return list[between(1, #list)] end

-- An error in a listener goes no further than that listener.
local broken

local function fail(format, ...)
  broken = broken or format:format(...)
  error(broken, 0)
end

-- ── the servers ──

local DEVICE, KEY = 'device', ('k'):rep(32)
local rsa = assert(dtls.selfSigned { type = 'rsa' })
local identities = { assert(dtls.selfSigned()), assert(dtls.selfSigned()), assert(dtls.selfSigned { type = 'ed25519' }), rsa }
local fingerprints = {}
for i, each in ipairs(identities) do fingerprints[i] = each.fingerprint end

local common = { retransmitTimeout = 100, handshakeTimeout = DEADLINE }

local function server_context(store)
  local identity = any(identities)
  return assert(dtls.createContext('server', {
    cert = identity.cert, key = identity.key, psk = { [DEVICE] = KEY },
    ticketKeys = not store and uv.random(80) or nil,
  }))
end

-- What a client may have sent: recognisable, of any length.
local function text(id, number)
  return ('%d %d '):format(id, number) .. string.char(33 + number % 90):rep(number * 37 % 1000)
end

local function check(seen, data, id)
  local from, number = data:match '^(%d+) (%d+) '
  from, number = tonumber(from), tonumber(number)
  if not from or data ~= text(from, number) or id and from ~= id then fail('a message was altered: %q', data:sub(1, 40)) end
  if seen[number] then fail('message %d came twice', number) end
  seen[number] = true
end

local replaced_open = 0

local function serve(demux)
  local sessions = {}
  local store = demux == 'shared' and {
    get = function(id) return sessions[id] end,
    set = function(id, blob) sessions[id] = blob end,
    remove = function(id) sessions[id] = nil end,
  } or nil
  local server = assert(dtls.createServer(pair.with(common, {
    context = server_context(store), demux = demux, timeout = IDLE, maxHandshakes = 12, sessionStore = store,
  })))
  server:on('connection', function(conn)
    local seen, from = {}, nil
    conn:on('message', function(data)
      if not data:find '^client ' then -- those of other processes say just that
        from = from or tonumber(data:match '^%d+')
        check(seen, data, from)
      end
      conn:send(data)
    end)
    conn:on('timeout', function() conn:destroy() end)
    conn:on('error', function(err)
      -- An alert: the network altered the server's last plaintext message, NewSessionTicket, and the client found out.
      if err.code == 'ERR_DTLS_REPLACED' then
        replaced_open = replaced_open + 1
      elseif err.code ~= 'ERR_DTLS_ALERT' then
        fail('an open association ended with %s', tostring(err))
      end
    end)
  end)
  assert(server:listen(0, '127.0.0.1'))
  local name = server:address()
  return { server = server, ip = name.ip, port = name.port, store = store, forget = function() sessions = {} end }
end

local servers = { serve 'connected', serve 'shared' }

-- Identity, cookie secret, ticket keys.
local function rotate()
  local each = any(servers)
  local what = between(1, 3)
  if what == 1 then
    assert(each.server:setContext(server_context(each.store)))
  elseif what == 2 then
    assert(each.server:setCookieSecret(uv.random(32)))
  elseif not each.store then
    assert(each.server:setTicketKeys(uv.random(80)))
  end
end

-- ── the clients ──

local totals = { connects = 0, opened = 0, resumed = 0, failed = 0, sent = 0, echoed = 0, killed = 0, junk = 0 }
local failures = {}
local clients, count, next_id = {}, 0, 0
local working = false -- new clients may come
local certified = assert(dtls.createContext('client', { fingerprint = fingerprints }))
local keyed = assert(dtls.createContext('client', { psk = { identity = DEVICE, key = KEY } }))

local function burst(client)
  for _ = 1, between(1, 20) do
    if client.sent == MESSAGES then return end
    client.sent = client.sent + 1
    client.conn:send(text(client.id, client.sent))
    totals.sent = totals.sent + 1
  end
end

local function connect(target, port)
  next_id = next_id + 1
  local options = { host = target.ip, port = target.port, context = chance(0.3) and keyed or certified, localPort = port }
  if target.session and chance(0.3) and options.context == certified then options.session = target.session end
  local conn = assert(dtls.connect(pair.with(common, options)))
  local client = { conn = conn, id = next_id, sent = 0, target = target }
  local seen = {}
  clients[client], count = true, count + 1
  totals.connects = totals.connects + 1
  conn:on('connection', function()
    client.open = true
    totals.opened = totals.opened + 1
    if conn:isSessionReused() then totals.resumed = totals.resumed + 1 end
    burst(client)
  end)
  conn:on('session', function(blob)
    if options.context == certified then target.session = blob end
  end)
  conn:on('message', function(data)
    check(seen, data, client.id)
    totals.echoed = totals.echoed + 1
  end)
  conn:on('error', function(err)
    totals.failed = totals.failed + 1
    failures[err.code] = (failures[err.code] or 0) + 1
  end)
  conn:on('close', function()
    if not clients[client] then fail 'close came twice' end
    clients[client], count = nil, count - 1
  end)
end

local function some_client()
  local list = {}
  for client in pairs(clients) do
    if client.open then list[#list + 1] = client end
  end
  table.sort(list, function(a, b) return a.id < b.id end)
  return #list > 0 and any(list)
end

-- Leaves, loudly or not; sometimes it comes back from the port it had.
local function leave(client)
  local address = chance(0.3) and client.conn:localAddress()
  client.open = false
  if chance(0.5) then client.conn:close() else client.conn:destroy() end
  if address then
    client.conn:once('close', function()
      if working then connect(client.target, address.port) end
    end)
  end
end

-- ── strangers ──

local stranger

local function junk(target)
  for _ = 1, between(1, 50) do
    local kind = between(1, 4)
    local data
    if kind == 1 then
      data = uv.random(between(1, 1400))
    elseif kind == 2 then
      data = hello.build { random = uv.random(32) }
    elseif kind == 3 then
      data = hello.build { random = uv.random(32), cookie = uv.random(32) }
    else
      data = string.char(between(20, 23)) .. '\254\253' .. uv.random(between(1, 60))
    end
    stranger.udp:try_send(data, target.ip, target.port)
    totals.junk = totals.junk + 1
  end
end

local function process_of_clients(target)
  return process.spawn('luajit', { 'spec/storm/clients.lua', tostring(target.port), table.concat(fingerprints, ','), '10' })
end

-- ── a round ──

local function handles()
  local number = 0
  uv.walk(function() number = number + 1 end)
  return number
end

local function rest()
  jit.flush() -- compiled code is a cache
  return {
    c = memory.used(), lua = collectgarbage 'count' * 1024, rss = uv.resident_set_memory(),
    handles = handles(), descriptors = descriptors.count(),
  }
end

local function at_rest()
  for _, each in ipairs(servers) do
    local stats = each.server:stats()
    if stats.active > 0 or stats.handshaking > 0 then return false end
  end
  return count == 0
end

-- Every association that was accepted has come to one end.
local function balance()
  local sums = { accepted = 0, connections = 0, handshakesFailed = 0, handshakesTimedOut = 0, evicted = 0, replaced = 0 }
  for _, each in ipairs(servers) do
    local stats = each.server:stats()
    for name in pairs(sums) do sums[name] = sums[name] + stats[name] end
  end
  local ended = sums.connections + sums.handshakesFailed + sums.handshakesTimedOut + sums.evicted + sums.replaced - replaced_open
  if sums.accepted ~= ended then fail('%d associations were accepted, %d came to an end', sums.accepted, ended) end
  return sums
end

-- On a terminal a line at the bottom tells how far the run is, once a second.
local show_progress = uv.guess_handle(2) == 'tty'
local began, shown_at = uv.hrtime(), 0

local function clear_progress()
  if show_progress then io.stderr:write '\r\27[K' end
end

local function progress()
  if not show_progress or uv.now() - shown_at < 1000 then return end
  shown_at = uv.now()
  clear_progress()
  io.stderr:write(('%.1f of %g minutes: %d connects, %d opened, %d sent, %d echoed'):format(
    (uv.hrtime() - began) / 60e9, MINUTES, totals.connects, totals.opened, totals.sent, totals.echoed))
end

local function round()
  local networks = {}
  for i, each in ipairs(servers) do
    networks[i] = proxy.new(each, {
      records = false,
      filter = proxy.filters.bad {
        seed = between(1, 2 ^ 30), loss = any { 0, 0.05, 0.2, 0.4 }, duplicate = 0.05, reorder = 0.05, corrupt = 0.02,
        delay = any { 0, 0, 0.5 }, mtu = any { 65535, 65535, 600 },
      },
    })
  end
  stranger = raw.open()
  working = true
  local now = uv.now()
  local stop, kill_at = now + ROUND, now + between(2000, ROUND - 2000)
  local doomed = process_of_clients(any(networks))
  while uv.now() < stop do
    local target = any(networks)
    if count < PEERS and chance(0.4) then connect(target) end
    local client = some_client()
    if client then
      if chance(0.6) then burst(client) end
      if chance(0.2) then leave(client) end
    end
    if chance(0.02) then rotate() end
    if chance(0.05) then junk(any { target, any(servers) }) end
    if chance(0.01) then collectgarbage 'step' end
    progress()
    if broken then error(broken, 0) end
    if uv.now() >= kill_at then
      doomed:kill()
      kill_at, totals.killed = math.huge, totals.killed + 1
    end
    loop.call(function(done)
      local timer = uv.new_timer()
      timer:start(STEP, 0, function() timer:close(done) end)
    end)
  end
  working = false
  for client in pairs(clients) do
    if chance(0.5) then client.conn:close() else client.conn:destroy() end
  end
  loop.till(at_rest, 'everything to come to rest', 3 * DEADLINE)
  for _, each in ipairs(networks) do loop.call(function(done) each:close(done) end) end
  loop.call(function(done) stranger:close(done) end)
  for _, each in ipairs(servers) do each.forget() end
  if broken then error(broken, 0) end
end

local function megabytes(bytes) return ('%.2f'):format(bytes / 2 ^ 20) end

local function report(number, now, sums)
  clear_progress()
  print(('%s round %d: C %s MB, Lua %s MB, RSS %s MB, %d handles, %d descriptors; %d connects, %d opened (%d resumed), %d failed, '
    .. '%d killed; %d sent, %d echoed; %d junk; %d accepted, %d evicted, %d replaced'):format(os.date '%H:%M:%S', number, megabytes(now.c),
    megabytes(now.lua), megabytes(now.rss), now.handles, now.descriptors, totals.connects, totals.opened, totals.resumed, totals.failed,
    totals.killed, totals.sent, totals.echoed, totals.junk, sums.accepted, sums.evicted, sums.replaced))
end

local function soak()
  io.stdout:setvbuf 'line'
  print(('seed %d, %d minutes, %s'):format(SEED, MINUTES, dtls.OPENSSL.text))
  local stop = uv.hrtime() + MINUTES * 60e9
  local start
  local number = 0
  repeat
    number = number + 1
    round()
    local now, sums = rest(), balance()
    report(number, now, sums)
    start = start or now
    for _, name in ipairs { 'handles', 'descriptors' } do
      if now[name] ~= start[name] then fail('%d %s after round %d, %d after the first', now[name], name, number, start[name]) end
    end
  until uv.hrtime() >= stop
  -- Where nothing happened, nothing is astray either.
  for name, times in pairs(totals) do
    if times == 0 then fail('%s: 0', name) end
  end
  local last = rest()
  for _, name in ipairs { 'c', 'lua' } do
    if last[name] - start[name] > GROWTH then fail('%s memory grew by %d bytes', name, last[name] - start[name]) end
  end
  for code, times in pairs(failures) do print(('  clients that failed: %6d %s'):format(times, code)) end
  for _, each in ipairs(servers) do loop.call(function(done) each.server:close(done) end) end
  print(('all came back to where it was: C %+d bytes, Lua %+d bytes in %d rounds'):format(last.c - start.c, last.lua - start.lua, number))
end

local ok, err = xpcall(function()
  local failure
  local thread = coroutine.create(function()
    local good, why = xpcall(soak, debug.traceback)
    if not good then
      failure = why
      uv.stop()
    end
  end)
  assert(coroutine.resume(thread))
  uv.run()
  if failure then error(failure, 0) end
  if coroutine.status(thread) ~= 'dead' then error('the loop ran dry before the end', 0) end
end, debug.traceback)
if not ok then
  io.stderr:write(tostring(err), '\n')
  os.exit(1)
end
