--- Servers side by side, in one run on one machine: what each costs in CPU time per message and handshake, and in memory.
--- The reference is bench/peers/reference.c. The servers have one core and the load another; they take turns (A B C, A B C), and
--- medians are compared, so that a machine whose speed drifts says the same of all. The ratios are what counts.
---
---   luajit bench/run.lua [echo|oneway|handshake|memory]…           default: all of them
---
--- Environment: BENCH_SECONDS per measurement (1.5), BENCH_ROUNDS (3), PROGRAMS: the directory of load and reference (build/bench).

local uv = require 'luv'
local dtls = require 'dtls'

local SECONDS = tonumber(os.getenv 'BENCH_SECONDS' or 1.5)
local ROUNDS = tonumber(os.getenv 'BENCH_ROUNDS' or 3)
local PROGRAMS = os.getenv 'PROGRAMS' or 'build/bench'
local CORES = { server = '0', load = '1' }

-- ── processes: a line in, a line out ──

local Process = {}
Process.__index = Process

local function start(core, command)
  local self = setmetatable({ rest = '', input = uv.new_pipe(false), output = uv.new_pipe(false) }, Process)
  local arguments = { '-c', core }
  for _, each in ipairs(command) do arguments[#arguments + 1] = tostring(each) end
  self.handle = assert(uv.spawn('taskset', { args = arguments, stdio = { self.input, self.output, 2 } }, function()
    self.ended = true
  end))
  self.output:read_start(function(_, chunk) self.rest = self.rest .. (chunk or '') end)
  return self
end

function Process:read()
  while not self.rest:find '\n' do
    assert(not self.ended, 'a process has ended early')
    uv.run 'once'
  end
  local line, rest = self.rest:match '^([^\n]*)\n(.*)$'
  self.rest = rest
  return line
end

function Process:ask()
  self.input:write '\n'
  return self:read()
end

function Process:stop()
  if not self.ended then self.handle:kill 'sigkill' end
  while not self.ended do uv.run 'once' end
  for _, each in ipairs { self.handle, self.input, self.output } do each:close() end
  uv.run 'nowait'
end

-- ── one measurement ──

local directory = assert(uv.fs_mkdtemp((os.getenv 'TMPDIR' or '/tmp') .. '/dtls-bench-XXXXXX'))
local files = {}
for kind, text in pairs(assert(dtls.selfSigned { commonName = 'bench' })) do
  if kind ~= 'fingerprint' then
    files[kind] = ('%s/%s.pem'):format(directory, kind)
    local file = assert(io.open(files[kind], 'w'))
    file:write(text)
    file:close()
  end
end

local servers = {
  { name = 'reference', command = function(mode) return { PROGRAMS .. '/reference', files.cert, files.key, mode } end },
}
for _, demux in ipairs { 'shared', 'connected' } do
  table.insert(servers, {
    name = demux, command = function(mode) return { 'luajit', 'bench/server.lua', files.cert, files.key, mode, demux } end,
  })
end

-- What a server has used: seconds of CPU time, and bytes.
local function usage(server)
  local seconds, bytes = server:ask():match '(%S+) (%S+)'
  return tonumber(seconds), tonumber(bytes)
end

local function measure(server, case)
  local process = start(CORES.server, server.command(case.serves or case.mode))
  local port = process:read()
  local _, before = usage(process)
  local load = start(CORES.load, {
    PROGRAMS .. '/load', '127.0.0.1', port, case.mode, case.clients, case.window or 1, case.size or 64, case.seconds or SECONDS,
  })
  load:read()
  local began, idle = usage(process)
  local result = {}
  for key, value in load:ask():gmatch '(%w+)=(%S+)' do result[key] = tonumber(value) end
  result.cpu = usage(process) - began
  result.memory = (idle - before) / case.clients
  load:stop()
  process:stop()
  return result
end

local function median(values)
  table.sort(values)
  return values[math.ceil(#values / 2)]
end

-- ── tables ──

local function row(...) print('| ' .. table.concat({ ... }, ' | ') .. ' |') end

local function heading(...)
  row(...)
  print('|' .. (' --- |'):rep(select('#', ...)))
end

-- Each server's median of `value(result)`, over all rounds.
local function compare(case, value, note)
  local found, notes = {}, {}
  for _, server in ipairs(servers) do found[server] = {} end
  for _ = 1, ROUNDS do
    for _, server in ipairs(servers) do
      local result = measure(server, case)
      table.insert(found[server], value(result))
      if note then notes[server] = note(result) end
    end
  end
  local cells, reference = {}, nil
  for _, server in ipairs(servers) do
    local least, most = math.min(unpack(found[server])), math.max(unpack(found[server]))
    local middle = median(found[server])
    reference = reference or middle
    cells[#cells + 1] = ('%.2f (%.2f to %.2f), **%.2f**%s'):format(middle, least, most, middle / reference,
      notes[server] and ', ' .. notes[server] or '')
  end
  row(case.title, unpack(cells))
end

local function per(count)
  return function(result) return result.cpu / math.max(result[count], 1) * 1e6 end
end

local tables = {}

function tables.echo()
  print '\nEchoed messages: µs of the server\'s CPU time for each (least to most), **ratio to the reference**, messages per second\n'
  heading('clients × messages under way, bytes', 'reference', 'shared', 'connected')
  for _, load in ipairs { { 1, 1 }, { 50, 8 }, { 2000, 1 } } do
    for _, size in ipairs { 64, 512, 1200 } do
      local title = ('%d × %d, %d'):format(load[1], load[2], size)
      local case = { title = title, mode = 'echo', clients = load[1], window = load[2], size = size }
      compare(case, per 'received', function(result)
        local latency = result.p50 and load[1] == 1 and (', p50 %.0f p99 %.0f µs'):format(result.p50, result.p99) or ''
        return ('%.0f/s%s%s'):format(result.received / result.seconds, latency, result.lost > 0 and (', %d lost'):format(result.lost) or '')
      end)
    end
  end
end

function tables.oneway()
  print '\nOne way, 1200 bytes, 8 clients: as above\n'
  heading('direction', 'reference', 'shared', 'connected')
  for _, way in ipairs { { 'to the server', 'push', 256, 'sent' }, { 'to the clients', 'pull', 64, 'received' } } do
    compare({ title = way[1], mode = way[2], clients = 8, window = way[3], size = 1200 }, per(way[4]), function(result)
      return ('%.0f/s'):format(result[way[4]] / result.seconds)
    end)
  end
end

function tables.handshake()
  print '\nHandshakes (P-256, X25519): µs of the server\'s CPU time for each, as above\n'
  heading('kind', 'reference', 'shared', 'connected')
  for _, mode in ipairs { 'handshake', 'resume' } do
    compare({ title = mode == 'resume' and 'resumed' or 'full', mode = mode, serves = 'echo', clients = 8, seconds = 2 * SECONDS },
      per 'handshakes', function(result) return ('%.0f/s'):format(result.handshakes / result.seconds) end)
  end
end

function tables.memory()
  print '\nMemory per idle association, KB of the process: as above\n'
  heading('clients', 'reference', 'shared', 'connected')
  local case = { title = '1000', mode = 'idle', serves = 'echo', clients = 1000, seconds = 0.1 }
  compare(case, function(result) return result.memory / 1024 end)
end

local function first_line(path, pattern)
  for line in io.lines(path) do
    local found = line:match(pattern)
    if found then return found end
  end
end

io.stdout:setvbuf 'line'
print(('%s, %s, %s, Linux %s, %s; %g s, %d rounds each; %s'):format(dtls.OPENSSL.text, jit.version,
  'luv ' .. (uv.version_string and 'with libuv ' .. uv.version_string() or ''), uv.os_uname().release,
  first_line('/proc/cpuinfo', 'model name%s*: (.*)') or uv.os_uname().machine, SECONDS, ROUNDS, os.date '!%Y-%m-%d'))
local wanted = #arg > 0 and arg or { 'echo', 'oneway', 'handshake', 'memory' }
for _, name in ipairs(wanted) do assert(tables[name], 'there is no table ' .. name)() end
for _, path in pairs(files) do os.remove(path) end
uv.fs_rmdir(directory)
