--- The two demux strategies side by side: clients connected per second and the server's CPU time per echoed message, at
--- a growing number of peers. Server and clients are processes of their own, on loopback. Within a round the strategies
--- take turns, so that a machine whose speed drifts says the same of both; the ratios are what counts.
---
---   luajit bench/strategies.lua [peers,peers,…] [rounds]      default: 10,100,1000,4000 3

local uv = require 'luv'
local dtls = require 'dtls'

local MESSAGE = ('x'):rep(64)
local MESSAGES = 40000 -- echoed per measurement
local IN_FLIGHT = 64   -- messages under way at once, over all peers

local function cpu()
  local usage = uv.getrusage()
  return usage.utime.sec + usage.stime.sec + (usage.utime.usec + usage.stime.usec) / 1e6
end

-- Calls handler(line) for every line that arrives on a pipe.
local function read_lines(pipe, handler)
  local rest = ''
  pipe:read_start(function(err, chunk)
    assert(not err, err)
    if not chunk then return handler(nil) end
    rest = rest .. chunk
    for line in rest:gmatch('([^\n]*)\n') do handler(line) end
    rest = rest:match('[^\n]*$')
  end)
end

local function stdio()
  local input, output = uv.new_pipe(false), uv.new_pipe(false)
  input:open(0)
  output:open(1)
  return input, function(...) output:write(table.concat({ ... }, ' ') .. '\n') end
end

-- ── the children ──

local function serve(demux)
  local input, say = stdio()
  local pair = assert(dtls.selfSigned())
  local server = assert(dtls.createServer { cert = pair.cert, key = pair.key, demux = demux })
  server:on('connection', function(conn)
    conn:on('message', function(data) conn:send(data) end)
  end)
  assert(server:listen(0, '127.0.0.1'))
  say(server:address().port, pair.fingerprint)
  read_lines(input, function(line)
    if not line then os.exit(0) end
    collectgarbage()
    say(cpu(), uv.resident_set_memory())
  end)
end

local function load(port, fingerprint, peers)
  local _, say = stdio()
  local context = assert(dtls.createContext('client', { fingerprint = fingerprint }))
  local open, echoed, sent, conns = 0, 0, 0, {}
  local started
  local function pump()
    while sent < MESSAGES and sent - echoed < math.min(IN_FLIGHT, peers) do
      sent = sent + 1
      assert(conns[sent % peers + 1]:send(MESSAGE))
    end
  end
  local function on_message()
    echoed = echoed + 1
    if echoed == MESSAGES then say('echoed', (uv.hrtime() - started) / 1e9) else pump() end
  end
  local input = uv.new_pipe(false)
  input:open(0)
  read_lines(input, function(line)
    if not line then os.exit(0) end
    started = uv.hrtime()
    pump()
  end)
  started = uv.hrtime()
  for i = 1, peers do
    local conn = assert(dtls.connect { host = '127.0.0.1', port = port, context = context })
    conns[i] = conn
    conn:on('message', on_message)
    conn:on('error', function(err) error(tostring(err)) end)
    conn:on('connection', function()
      open = open + 1
      if open == peers then say('open', (uv.hrtime() - started) / 1e9) end
    end)
  end
end

-- ── the parent, a coroutine ──

local function spawn(...)
  local input, output = uv.new_pipe(false), uv.new_pipe(false)
  local child = { lines = {} }
  local process = assert(uv.spawn('luajit', { args = { arg[0], ... }, stdio = { input, output, 2 } }, function() end))
  read_lines(output, function(line)
    table.insert(child.lines, line or false)
    if child.waiting then
      local thread = child.waiting
      child.waiting = nil
      assert(coroutine.resume(thread))
    end
  end)
  function child.line()
    if #child.lines == 0 then
      child.waiting = coroutine.running()
      coroutine.yield()
    end
    return assert(table.remove(child.lines, 1), 'a child ended early')
  end
  function child.ask(text)
    input:write(text .. '\n')
    return child.line()
  end
  function child.stop()
    input:close()
    output:close()
    process:kill('sigkill')
    process:close()
  end
  return child
end

local function measure(demux, peers)
  local server = spawn('serve', demux)
  local port, fingerprint = server.line():match('(%S+) (%S+)')
  local before = server.ask('cpu'):match('%S+')
  local client = spawn('load', port, fingerprint, tostring(peers))
  local connect = tonumber(client.line():match('open (%S+)'))
  local connected, memory = server.ask('cpu'):match('(%S+) (%S+)')
  local echo = tonumber(client.ask('go'):match('echoed (%S+)'))
  local after = server.ask('cpu'):match('%S+')
  client.stop()
  server.stop()
  return {
    rate = peers / connect, connect_cpu = (connected - before) / peers * 1e6,
    echo_cpu = (after - connected) / MESSAGES * 1e6, echo_rate = MESSAGES / echo, memory = memory / 1e6,
  }
end

local function median(list, field)
  local values = {}
  for i, each in ipairs(list) do values[i] = each[field] end
  table.sort(values)
  return values[math.ceil(#values / 2)]
end

local function main(peer_counts, rounds)
  print(('%s, %s, %s, %d messages of %d bytes'):format(os.date '%Y-%m-%d', dtls.OPENSSL.text, jit.version, MESSAGES, #MESSAGE))
  print('peers  strategy   connects/s  CPU µs/connect  echoes/s  CPU µs/echo  server MB')
  for _, peers in ipairs(peer_counts) do
    local results = { connected = {}, shared = {} }
    for _ = 1, rounds do
      for _, demux in ipairs { 'connected', 'shared' } do table.insert(results[demux], measure(demux, peers)) end
    end
    for _, demux in ipairs { 'connected', 'shared' } do
      local list = results[demux]
      print(('%5d  %-9s  %10.0f  %14.0f  %8.0f  %11.2f  %9.0f'):format(peers, demux, median(list, 'rate'), median(list, 'connect_cpu'),
        median(list, 'echo_rate'), median(list, 'echo_cpu'), median(list, 'memory')))
    end
    local function ratio(field) return median(results.connected, field) / median(results.shared, field) end
    print(('       connected ÷ shared: connects/s %.2f, CPU per connect %.2f, CPU per echo %.2f'):format(
      ratio 'rate', ratio 'connect_cpu', ratio 'echo_cpu'))
  end
end

if arg[1] == 'serve' then
  serve(arg[2])
elseif arg[1] == 'load' then
  load(tonumber(arg[2]), arg[3], tonumber(arg[4]))
else
  local peer_counts = {}
  for count in (arg[1] or '10,100,1000,4000'):gmatch('%d+') do table.insert(peer_counts, tonumber(count)) end
  coroutine.wrap(function()
    main(peer_counts, tonumber(arg[2] or '3'))
    os.exit(0)
  end)()
end
uv.run()
