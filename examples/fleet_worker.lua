-- One process of fleet.lua, which starts it: a DTLS server that sends back what it gets, on a port that the fleet shares.

local dtls = require 'dtls'

local luvit = rawget(_G, 'args')
local uv = require(luvit and 'uv' or 'luv')
local port, host, redis_port = unpack(luvit or arg, luvit and 2 or 1)

local SESSION_MS, REDIS_MS = 300000, 1000
io.stdout:setvbuf 'line'

-- Whoever closes a TCP connection early must not end this process.
local broken = uv.new_signal()
broken:start('sigpipe', function() end)
broken:unref()

local function check(value, err)
  if value then return value end
  io.stderr:write('fleet_worker: ', tostring(err), '\n')
  os.exit(1)
end

-- ── Redis (RESP2): answers come in the order of the requests ──

local redis = { waiting = {} }

-- The end of a whole answer at the beginning of `input`, and its value: nil for null and for an error.
local function parse(input)
  local kind, text, after = input:match '^([$+:-])([^\r\n]*)\r\n()'
  if kind ~= '$' then return after, kind ~= '-' and text or nil, kind == '-' and text or nil end
  local length = tonumber(text)
  if length < 0 then return after end
  if #input < after + length + 1 then return nil end
  return after + length + 2, input:sub(after, after + length - 1)
end

-- Whoever waits is told, and the next request connects again.
local function disconnect(why)
  if redis.tcp then
    redis.tcp:close()
    redis.timer:close()
  end
  local waiting = redis.waiting
  redis.tcp, redis.waiting = nil, {}
  for _, thread in ipairs(waiting) do check(coroutine.resume(thread, nil, 'Redis: ' .. why)) end
end

local function connect()
  local tcp, input = uv.new_tcp(), ''
  redis.tcp, redis.timer = tcp, uv.new_timer()
  tcp:connect('127.0.0.1', tonumber(redis_port), function(err)
    if redis.tcp ~= tcp then return end
    if err then return disconnect(err) end
    tcp:read_start(function(failed, data)
      if not data then return disconnect(failed or 'it has closed the connection') end
      input = input .. data
      local after, value, refused = parse(input)
      while after and redis.tcp == tcp do
        input = input:sub(after)
        local thread = table.remove(redis.waiting, 1)
        if redis.waiting[1] then redis.timer:again() else redis.timer:stop() end
        check(coroutine.resume(thread, value, refused))
        after, value, refused = parse(input)
      end
    end)
  end)
end

-- Yields until the answer is here; nil and a sentence when Redis refuses, or is away.
local function ask(...)
  local words = { ... }
  for i, word in ipairs(words) do words[i] = ('$%d\r\n%s\r\n'):format(#word, word) end
  if not redis.tcp then connect() end
  redis.tcp:write(('*%d\r\n%s'):format(#words, table.concat(words)))
  if not redis.waiting[1] then redis.timer:start(REDIS_MS, REDIS_MS, function() disconnect 'no answer' end) end
  local waiting = coroutine.running() -- and another value, where LuaJIT is built with the ways of Lua 5.2
  table.insert(redis.waiting, waiting)
  return coroutine.yield()
end

-- A session that cannot be had costs a full handshake, and no more. What Redis holds decrypts recorded traffic: it must be as
-- well guarded as a private key.
local store = {
  get = function(id) return (ask('GET', 'dtls:' .. id)) end,
  set = function(id, session)
    local _, err = ask('SET', 'dtls:' .. id, session, 'PX', tostring(SESSION_MS))
    if err then error(err, 0) end
  end,
  remove = function(id)
    local _, err = ask('DEL', 'dtls:' .. id)
    if err then error(err, 0) end
  end,
}

-- ── the server ──

local channel, seconds = uv.new_pipe(false), uv.new_timer() -- of the parent, see fleet.lua
local server

local function say_stats()
  local lines = {}
  local function add(prefix, counters)
    for name, value in pairs(counters) do
      if type(value) == 'table' then add(name .. '.', value) else lines[#lines + 1] = ('%s%s %.0f\n'):format(prefix, name, value) end
    end
  end
  add('', server:stats())
  channel:write(table.concat(lines))
end

-- `connected`: the port's own sockets come and go with the processes, and each peer keeps the socket that it has.
local function serve(cookie_secret, ticket_key, previous, pem)
  server = check(dtls.createServer {
    cert = pem, key = pem, reusePort = true, demux = 'connected', cookieSecret = cookie_secret, sessionTimeout = SESSION_MS,
    ticketKeys = { ticket_key, previous }, sessionStore = redis_port and store or nil, receiveTimeout = 600000,
  })
  server:on('connection', function(conn)
    conn:on('message', function(data) conn:send(data) end)
    conn:on('receiveTimeout', function() conn:close() end)
    conn:on('error', function() end) -- it is in the counters
  end)
  server:on('error', function(err) print(uv.os_getpid() .. ': ' .. err.message) end)
  check(server:listen(port, host))
  channel:write(('listening %d\n'):format(server:address().port))
  seconds:start(0, 1000, say_stats)
end

local function finish()
  seconds:close()
  channel:read_stop()
  if not server then return channel:close() end
  server:close(function()
    channel:close()
    if redis.tcp then disconnect 'the end' end
  end)
end

local function unhex(digits)
  return (digits:gsub('%x%x', function(byte) return string.char(tonumber(byte, 16)) end))
end

-- The first line has what the fleet shares; 'stop', or the end of the parent, is the end.
local rest = ''
check(channel:open(3))
channel:read_start(function(_, data)
  if not data then return finish() end
  rest = rest .. data
  local cookie_secret, ticket_key, previous, pem = rest:match '^(%x+) (%x+) (%x+) (%x+)\n'
  if pem and not server then serve(unhex(cookie_secret), unhex(ticket_key), unhex(previous), unhex(pem)) end
  if rest:find('\nstop\n', 1, true) then finish() end
end)

if not luvit then uv.run() end -- luvit does it by itself
