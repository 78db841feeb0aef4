--- The tunnel of the examples and socat's DTLS, measured by iperf3 in one run: UDP from one end to the other, as fast as it goes.
--- The sender and the near end share a core, the far end and the receiver another one. They take turns, and medians are compared:
--- what arrives, and what CPU time both ends use for a datagram that arrives.
---
--- Without a bitrate the sender never waits: it gets half of its core, and most of what it sends is lost in front of the near end. With
--- the system's receive buffers, a hundred datagrams, the near end wakes up for nearly each one; socat is measured as it comes, and
--- with buffers as large as the tunnel's.
---
---   luajit bench/tunnel.lua
---
--- Environment: BENCH_SECONDS per measurement (5), BENCH_ROUNDS (5), BENCH_BYTES per datagram (1100), BENCH_BITRATE (0: without).

package.path = 'bench/?.lua;' .. package.path

local uv = require 'luv'
local dtls = require 'dtls'
local median = require 'median'

local SECONDS = tonumber(os.getenv 'BENCH_SECONDS' or 5)
local ROUNDS = tonumber(os.getenv 'BENCH_ROUNDS' or 5)
local BYTES = tonumber(os.getenv 'BENCH_BYTES' or 1100)
local BITRATE = os.getenv 'BENCH_BITRATE' or '0'
local CORES = { near = '0', far = '1' }

-- ── processes ──

local running = {}

-- Starts a program on a core, and waits until it has printed what matches, or until the port is taken when there is no pattern.
local function start(core, pattern, ...)
  local output, self = uv.new_pipe(false), { text = '' }
  self.handle, self.pid = uv.spawn('sh', {
    args = { '-c', 'exec taskset -c "$0" "$@" 2>&1', core, ... }, stdio = { 0, output },
  }, function() self.ended = true end)
  assert(self.handle, self.pid)
  self.output = output
  running[#running + 1] = self
  output:read_start(function(_, data) self.text = self.text .. (data or '') end)
  while pattern and not self.text:find(pattern) do
    assert(not self.ended, self.text)
    uv.run 'once'
  end
  return self
end

local function wait(self)
  while not self.ended do uv.run 'once' end
  return self.text
end

local function stop_all()
  for _, self in ipairs(running) do
    if not self.ended then self.handle:kill 'sigkill' end
    wait(self)
    self.handle:close()
    self.output:close()
  end
  running = {}
  uv.run() -- until they are closed
end

-- User and system time of a process so far, in seconds: `used`, looked up now and then, because socat ends when its peer does.
local function account(self)
  local timer = uv.new_timer()
  self.used = 0
  local function look()
    local file = io.open(('/proc/%d/stat'):format(self.pid))
    local user, system = (file and file:read '*a' or ''):match '%) [^Z] %S+ %S+ %S+ %S+ %S+ %S+ %S+ %S+ %S+ %S+ (%d+) (%d+)'
    if file then file:close() end
    self.used = user and (user + system) / 100 or self.used
    if self.ended then timer:close() end
  end
  timer:start(0, 50, look)
  look()
  return self
end

-- A port that is free for UDP and for TCP, and has not been used before.
local used_ports = {}
local function free_port()
  while true do
    local udp, tcp = uv.new_udp(), uv.new_tcp()
    assert(udp:bind('127.0.0.1', 0))
    local port = udp:getsockname().port
    local free = tcp:bind('127.0.0.1', port) and tcp:listen(1, function() end) and not used_ports[port]
    udp:close()
    tcp:close()
    used_ports[port] = true
    if free then return tostring(port) end
  end
end

-- ── the two tunnels: from the UDP port `near` to the UDP port `target`; each gives the processes of its two ends ──

local directory = assert(uv.fs_mkdtemp((os.getenv 'TMPDIR' or '/tmp') .. '/dtls-bench-XXXXXX'))
local pem = directory .. '/identity.pem'
do
  local identity = assert(dtls.selfSigned())
  local file = assert(io.open(pem, 'w'))
  file:write(identity.cert, identity.key)
  file:close()
end

local function socat(options)
  return function(near, middle, target)
    local far = start(CORES.far, 'listening on', 'socat', '-d', '-d', '-b', '65536',
      ('OPENSSL-DTLS-SERVER:%s,bind=127.0.0.1,cert=%s,verify=0%s'):format(middle, pem, options), 'UDP:127.0.0.1:' .. target)
    start(CORES.far, 'listening on', 'socat', '-d', '-d', ('TCP-LISTEN:%s,bind=127.0.0.1'):format(near), 'TCP:127.0.0.1:' .. target)
    return far, start(CORES.near, 'listening on', 'socat', '-d', '-d', '-b', '65536',
      ('UDP-LISTEN:%s,bind=127.0.0.1%s'):format(near, options), ('OPENSSL-DTLS-CLIENT:127.0.0.1:%s,verify=0'):format(middle))
  end
end

local function ours(near, middle, target)
  local secret = ('a1'):rep(16)
  local far = start(CORES.far, 'far end on port', 'luajit', 'examples/tunnel.lua', 'far', secret, middle, '127.0.0.1', target)
  return far, start(CORES.near, 'connected', 'luajit', 'examples/tunnel.lua', 'near', secret, near, '127.0.0.1', middle)
end

local tunnels = {
  { name = 'socat OPENSSL-DTLS', open = socat '' },
  { name = 'socat OPENSSL-DTLS, rcvbuf=4194304', open = socat ',rcvbuf=4194304' },
  { name = 'examples/tunnel.lua', open = ours },
}

-- ── a measurement ──

-- iperf3 has its control connection on TCP: ours carries it, too, and beside socat's a third process does.
local function measure(tunnel)
  local near, middle, target = free_port(), free_port(), free_port()
  local server = start(CORES.far, 'Server listening', 'iperf3', '--server', '--one-off', '--forceflush', '--port', target)
  local far, client = tunnel.open(near, middle, target)
  account(far)
  account(client)
  local before = far.used + client.used
  local report = wait(start(CORES.near, nil, 'iperf3', '--client', '127.0.0.1', '--port', near, '--udp', '--bitrate', BITRATE, '--length',
    tostring(BYTES), '--time', tostring(SECONDS), '--json'))
  local used = far.used + client.used - before
  local sum = assert(report:match '"sum":%s*(%b{})%s*,%s*"cpu_utilization_percent"' or report:match '.*"sum":%s*(%b{})', report)
  local function field(name) return tonumber(sum:match('"' .. name .. '":%s*([%d.e+-]+)')) end
  local arrived = assert(field 'packets', report) - field 'lost_packets'
  wait(server)
  stop_all()
  return { rate = arrived * BYTES * 8 / field 'seconds' / 1e6, cost = used / arrived * 1e6, lost = field 'lost_percent' }
end

local ok, err = xpcall(function()
  for _ = 1, ROUNDS do
    for _, tunnel in ipairs(tunnels) do table.insert(tunnel, measure(tunnel)) end
  end
end, debug.traceback)
stop_all()
os.remove(pem)
uv.fs_rmdir(directory)
if not ok then
  io.stderr:write(err, '\n')
  os.exit(1)
end

local function middle(tunnel, what)
  local list = {}
  for i, each in ipairs(tunnel) do list[i] = each[what] end
  return median(list)
end

print(('%d bytes a datagram, bitrate %s, %d rounds of %g s, %s'):format(BYTES, BITRATE, ROUNDS, SECONDS, dtls.OPENSSL.text))
print '| tunnel | arrives | of what was sent is lost | CPU of both ends for a datagram | the last one beside it: rate, CPU |'
print '| --- | --- | --- | --- | --- |'
local last = tunnels[#tunnels]
for _, tunnel in ipairs(tunnels) do
  local rate, cost = middle(tunnel, 'rate'), middle(tunnel, 'cost')
  print(('| %s | %.0f Mbit/s | %.0f %% | %.1f µs | %.2f ×, %.2f × |'):format(tunnel.name, rate, middle(tunnel, 'lost'), cost,
    middle(last, 'rate') / rate, middle(last, 'cost') / cost))
end
