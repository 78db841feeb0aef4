-- A fleet: a DTLS server in a process for each core, all on one port, and any of them knows the peers of the others again.
--   luvit fleet.lua IDENTITY.pem [port [host [metricsPort [processes [redisPort]]]]]
-- IDENTITY.pem is a certificate and its key (`syslog.lua identity IDENTITY` makes one). With a redisPort sessions are kept by the
-- Redis on that port of this machine, else in tickets. SIGHUP reads IDENTITY.pem again, and new processes take over; SIGTERM and
-- Ctrl-C end the fleet. http://127.0.0.1:metricsPort/metrics has its counters for Prometheus. luajit works as well. This is the
-- parent, which has no DTLS; the servers are fleet_worker.lua.

local luvit = rawget(_G, 'args')
local uv = require(luvit and 'uv' or 'luv')
local script = luvit and luvit[1] or arg[0]
local path, port, host, metrics_port, processes, redis_port = unpack(luvit or arg, luvit and 2 or 1)
port, host, metrics_port = port or '5684', host or '0.0.0.0', tonumber(metrics_port or 9684)
processes = tonumber(processes or #uv.cpu_info())

local function complain(err) io.stderr:write('fleet: ', tostring(err), '\n') end

local function check(value, err)
  if value then return value end
  complain(err)
  os.exit(1)
end

check(path, 'usage: fleet.lua IDENTITY.pem [port [host [metricsPort [processes [redisPort]]]]]')
io.stdout:setvbuf 'line'

-- Whoever closes a TCP connection early must not end this process.
local broken = uv.new_signal()
broken:start('sigpipe', function() end)
broken:unref()

-- ── what the processes share ──

local function hex(bytes)
  return (bytes:gsub('.', function(byte) return ('%02x'):format(byte:byte()) end))
end

local cookie_secret = uv.random(32)
local ticket_keys = { uv.random(80), uv.random(80) } -- current, previous

local function shared()
  local file, err = io.open(path)
  if not file then return nil, err end
  local pem = file:read '*a'
  file:close()
  return ('%s %s %s %s\n'):format(hex(cookie_secret), hex(ticket_keys[1]), hex(ticket_keys[2]), hex(pem))
end

-- ── processes ──

local serving = {} -- worker → true
local deploying, stopping, revive = false, false, nil

local function stop(worker)
  serving[worker] = nil
  if not worker.channel:is_closing() then worker.channel:write 'stop\n' end
end

-- A worker says 'listening PORT' once, and then 'NAME VALUE' for each counter, every second.
local function hear(worker, line)
  local name, value = line:match '^(%S+) (%S+)$'
  if name ~= 'listening' then
    worker.stats[name] = value
    return
  end
  port, worker.listens = value, true
  worker.ready(worker)
end

local function ended(worker)
  worker.channel:close()
  if not worker.listens then return worker.ready(nil) end
  if not serving[worker] then return end
  serving[worker] = nil
  print(('process %d has died'):format(worker.pid))
  revive()
end

-- Starts a process. Calls ready(worker) when it listens, or ready(nil) when it has ended before that.
local function start(ready)
  local first_line, err = shared()
  if not first_line then
    complain(err)
    return ready(nil)
  end
  local worker, process = { channel = uv.new_pipe(false), stats = {}, ready = ready }, nil
  process, worker.pid = uv.spawn(luvit and luvit[0] or uv.exepath(), {
    args = { (script:gsub('%.lua$', '_worker.lua')), port, host, redis_port },
    stdio = { 0, 1, 2, worker.channel },
    detached = true, -- the signals of the terminal are for the parent alone
  }, function()
    process:close()
    ended(worker)
  end)
  check(process, worker.pid)
  local rest = ''
  worker.channel:read_start(function(_, data)
    rest = rest .. (data or '')
    for line in rest:gmatch '([^\n]*)\n' do hear(worker, line) end
    rest = rest:match '[^\n]*$'
  end)
  worker.channel:write(first_line)
end

-- In place of one that has died: in a second, so that what dies at once does not keep the machine busy.
function revive()
  local pause = uv.new_timer()
  pause:start(1000, 0, function()
    pause:close()
    if stopping then return end
    start(function(worker)
      if not worker then return revive() end
      serving[worker] = true
      if stopping then stop(worker) end
    end)
  end)
end

-- Starts a generation, one process after the other: the first finds out which port is free. When all listen, the one before may
-- go; its peers are told, come back, and resume their sessions. When one cannot listen, nothing changes.
local function deploy()
  local before, new = {}, {}
  for worker in pairs(serving) do before[#before + 1] = worker end
  deploying = true
  local function finish(leaving, text)
    deploying = false
    for _, worker in ipairs(leaving) do stop(worker) end
    if not stopping then print(text) end
  end
  local function start_next()
    start(function(worker)
      new[#new + 1] = worker
      if stopping then return finish(new) end
      if not worker then
        check(before[1], 'cannot start')
        return finish(new, 'the new generation cannot start, the old one stays')
      end
      serving[worker] = true
      if #new < processes then return start_next() end
      finish(before, ('%d processes serve port %s'):format(processes, port))
    end)
  end
  start_next()
end

-- ── counters, in the text format of Prometheus ──

local gauges = { active = true, handshaking = true, recvBufferSize = true, sendBufferSize = true }

-- 'messagesIn' → 'dtls_messages_in_total', 'drops.unwanted' → 'dtls_drops_total' with a label
local function metric(name)
  local plain, reason = name:match '^(%w+)%.?(%w*)$'
  local full = 'dtls_' .. plain:gsub('%u', function(letter) return '_' .. letter:lower() end)
  return gauges[plain] and full or full .. '_total', reason ~= '' and (',reason="%s"'):format(reason) or ''
end

local function metrics()
  local groups, text = {}, {}
  for worker in pairs(serving) do
    for name, value in pairs(worker.stats) do
      local full, label = metric(name)
      groups[full] = groups[full] or {}
      table.insert(groups[full], ('%s{pid="%d"%s} %s'):format(full, worker.pid, label, value))
    end
  end
  for full, lines in pairs(groups) do
    text[#text + 1] = ('# TYPE %s %s\n%s\n'):format(full, full:find '_total$' and 'counter' or 'gauge', table.concat(lines, '\n'))
  end
  table.sort(text)
  return table.concat(text)
end

local function answer(request)
  local found = request:find '^GET /metrics[ ?]'
  local body = found and metrics() or 'There is /metrics, and nothing else.\n'
  return ('HTTP/1.1 %s\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s'):format(
    found and '200 OK' or '404 Not Found', #body, body)
end

-- Connections that ask for nothing keep no others away, and nobody from ending.
local MOST_CLIENTS, MOST_BYTES = 16, 8192
local clients = {} -- the oldest one first

local function hang_up(client)
  for i, each in ipairs(clients) do
    if each == client then table.remove(clients, i):close() end
  end
end

local http = uv.new_tcp()
check(http:bind('127.0.0.1', metrics_port))
check(http:listen(16, function()
  local client, request = uv.new_tcp(), ''
  http:accept(client)
  if #clients == MOST_CLIENTS then hang_up(clients[1]) end
  clients[#clients + 1] = client
  client:read_start(function(_, data)
    request = request .. (data or '')
    if not data or #request > MOST_BYTES then return hang_up(client) end
    if not request:find('\r\n\r\n', 1, true) then return end
    client:read_stop()
    client:write(answer(request), function() hang_up(client) end)
  end)
end))
print(('metrics at http://127.0.0.1:%d/metrics'):format(http:getsockname().port))

-- ── signals ──

local signals = {}
local function on(name, react)
  signals[name] = uv.new_signal()
  signals[name]:start(name, react)
end

local function finish()
  stopping = true
  http:close()
  while clients[1] do hang_up(clients[1]) end
  for worker in pairs(serving) do stop(worker) end
  for _, signal in pairs(signals) do signal:close() end
end

on('sighup', function()
  if deploying then return print 'a new generation is starting already' end
  ticket_keys = { uv.random(80), ticket_keys[1] }
  deploy()
end)
on('sigterm', finish)
on('sigint', finish)

deploy()

if not luvit then uv.run() end -- luvit does it by itself
