--- One measurement, and several of several servers by turns (A B C, A B C), of which the median counts: a machine whose speed
--- drifts then says the same of all. The server has one core and the load another.

local Process = require 'process'
local cores = require 'cores'
local servers = require 'servers'

local measure = {
  SECONDS = tonumber(os.getenv 'BENCH_SECONDS' or 1),
  ROUNDS = tonumber(os.getenv 'BENCH_ROUNDS' or 3),
  CORES = { server = cores[1], load = cores[2] or cores[1] },
}

--- How many peers there can be: load and server have a descriptor for each, and some others.
function measure.most_peers()
  local pipe = io.popen 'ulimit -Hn'
  local descriptors = tonumber(pipe:read '*l') or math.huge -- unlimited
  pipe:close()
  return descriptors - 100
end

--- A load as bench/load/load.c describes it, or hellos as bench/load/hello.c does.
---@class bench.Case
---@field mode string
---@field serves? string  the server's mode, if it has another name
---@field clients? integer
---@field window? integer
---@field size? integer
---@field seconds? number
---@field rounds? integer

--- The case of so many clients that do nothing: what they need of memory is known when they are open, and is the same each time.
function measure.memory(mode, clients)
  return { mode = mode, serves = 'echo', clients = clients, seconds = 0.01, rounds = 1 }
end

local CONNECTS_AGAIN = { handshake = true, resume = true, psk = true }

--- Starts a load, and waits for its clients.
---@param port string
---@param case bench.Case
---@param core? integer
function measure.load(port, case, core)
  local seconds = case.seconds or measure.SECONDS
  local command = { 'load', '127.0.0.1', port, case.mode, case.clients, case.window or 1, case.size or 64, seconds }
  if case.mode == 'hello' then command = { 'hello', '127.0.0.1', port, 8, 16, seconds } end
  command[1] = servers.PROGRAMS .. '/' .. command[1]
  local load = Process.start(core or measure.CORES.load, command)
  local ready = load:read()
  if case.clients and not CONNECTS_AGAIN[case.mode] then measure.check_ready(ready, case.clients) end
  return load
end

function measure.check_ready(line, clients)
  local got_in = Process.parse(line).clients
  assert(got_in == clients, ('%d of %d clients got in'):format(got_in, clients))
end

--- What the load counts in a measurement, with `cpu`, the seconds that the server takes for it.
function measure.count(process, load)
  local began = process:usage()
  local result = Process.parse(load:ask())
  result.cpu = process:usage() - began
  return result
end

local function attempt(server, case)
  local process = Process.start(measure.CORES.server, server.command(case.serves or case.mode))
  local port = process:read()
  local _, empty = process:usage()
  local load = measure.load(port, case)
  local _, full = process:usage()
  local result = measure.count(process, load)
  result.memory = case.clients and (full - empty) / case.clients
  return result
end

--- What the load has counted, with `cpu`, and `memory`, the bytes that the server has for each client; nil where it failed.
---@param server bench.Server
---@param case bench.Case
function measure.once(server, case)
  local ok, result = pcall(attempt, server, case)
  Process.stop_all()
  if ok then return result end
  io.stderr:write(('%s, %s: %s\n'):format(server.name, case.mode, result))
end

--- The results of each server.
---@param list bench.Server[]
---@param case bench.Case
function measure.by_turns(list, case)
  local found = {}
  for index in ipairs(list) do found[index] = {} end
  for _ = 1, case.rounds or measure.ROUNDS do
    for index, server in ipairs(list) do found[index][#found[index] + 1] = measure.once(server, case) end
  end
  return found
end

function measure.map(results, value)
  local values = {}
  for index, result in ipairs(results) do values[index] = value(result) end
  return values
end

--- µs of the server's CPU time for each of what the load counts by this name.
function measure.microseconds(name)
  return function(result) return result.cpu / math.max(result[name], 1) * 1e6 end
end

function measure.kilobytes(result) return result.memory / 1024 end

--- How many there were in a second.
function measure.rate(name)
  return function(result) return result[name] / result.seconds end
end

return measure
