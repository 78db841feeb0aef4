--- Servers side by side, in one run on one machine: what each costs in CPU time per message and handshake, and in memory.
--- The reference is bench/peers/reference.c. The ratios are what counts.
---
---   luajit bench/run.lua [TABLE]…           default: all of them, which are put into DOCUMENTS
---
--- Environment: BENCH_SECONDS per measurement (1), BENCH_ROUNDS (3), BENCH_KEEP: all of them, and no document is touched; PROGRAMS:
--- the directory of the programs in C (build/bench).

package.path = 'bench/?.lua;' .. package.path

local uv = require 'luv'
local dtls = require 'dtls'
local Process = require 'process'
local cores = require 'cores'
local findings = require 'findings'
local measure = require 'measure'
local report = require 'report'
local servers = require 'servers'
local tables = require 'tables'
tables.growth = require 'growth'
tables.workers = require 'workers'
tables.others = require 'others'

local TABLES = { 'echo', 'oneway', 'handshake', 'hello', 'memory', 'latency', 'growth', 'workers', 'others' }
local DOCUMENTS = { 'README.md', 'doc/performance.md', 'doc/scaling.md' }
local PLOT = 'doc/pictures/growth.svg'

local function processor()
  for line in io.lines '/proc/cpuinfo' do
    local name = line:match '^model name%s*: (.*)'
    if name then return name end
  end
  return uv.os_uname().machine
end

-- The load is the average of the last minute: what else the machine had to do.
local function describe_machine()
  return ('%s: %s, %s, libuv %s, Linux %s, %d cores of %s with a load of %.1f before; %d rounds of %g s.'):format(os.date '!%Y-%m-%d',
    dtls.OPENSSL.text:match '%S+ %S+', jit.version, uv.version_string(), uv.os_uname().release:match '^[%d.]+', #cores,
    processor(), uv.loadavg(), measure.ROUNDS, measure.SECONDS)
end

-- Whether all of them could be measured; what is written says of the others that they could not.
local function run(names, writes)
  local machine, complete = describe_machine(), true
  report.text('machine', machine)
  for _, name in ipairs(names) do
    local ok, err = xpcall(tables[name], debug.traceback, writes and PLOT or nil)
    Process.stop_all()
    if not ok then
      complete = false
      io.stderr:write(err, '\n')
      report.text(name, 'This could not be measured.')
    end
  end
  if not writes then return complete end
  findings.capacity()
  findings.readme()
  report.add(machine)
  report.write(DOCUMENTS)
  return complete
end

for _, name in ipairs(arg) do assert(tables[name], 'there is no table ' .. name) end
io.stdout:setvbuf 'line'
local complete = run(#arg > 0 and arg or TABLES, #arg == 0 and (os.getenv 'BENCH_KEEP' or '') == '')
servers.clean()
os.exit(complete and 0 or 1)
