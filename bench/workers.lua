--- One and two processes that share a port by `reusePort`: what a message and a handshake cost them, and how many peers are left
--- when a process joins. Each worker has a core, and so has each load; with two cores a worker shares its core with the load of
--- the other one, so that only CPU time says how two workers scale.

local Process = require 'process'
local cores = require 'cores'
local measure = require 'measure'
local median = require 'median'
local report = require 'report'
local servers = require 'servers'

local WORKERS = { 1, 2 }
local COMPARED = { servers.shared, servers.connected }
local ECHO = { mode = 'echo', clients = 100, window = 4 }
local ROWS = {
  { text = 'a message of 64 bytes and its echo, 100 clients × 4, µs', case = ECHO, counts = 'received' },
  { text = 'a full handshake, 8 clients at once, µs', case = { mode = 'handshake', clients = 8 }, counts = 'handshakes' },
}

local function core(n) return cores[n % #cores + 1] end
local function worker_core(n) return core(n - 1) end
local function load_core(n) return core(n - 1 + math.ceil(#cores / 2)) end

-- Starts a worker beside those that there are on the port; 0: any.
local function start(server, n, port)
  local worker = Process.start(worker_core(n), server.command('echo', port))
  return worker, worker:read()
end

-- What all loads together have counted, and the CPU time that all workers together took for it.
local function once(server, count, case, counts)
  local workers, loads, port = {}, {}, '0'
  for n = 1, count do workers[n], port = start(server, n, port) end
  for n = 1, count do loads[n] = measure.load(port, case, load_core(n)) end
  local result = { cpu = 0, seconds = 0, [counts] = 0 }
  for _, worker in ipairs(workers) do result.cpu = result.cpu - worker:usage() end
  for _, load in ipairs(loads) do load.input:write '\n' end
  for _, load in ipairs(loads) do
    local counted = Process.parse(load:read())
    result[counts] = result[counts] + counted[counts]
    result.seconds = math.max(result.seconds, counted.seconds)
  end
  for _, worker in ipairs(workers) do result.cpu = result.cpu + worker:usage() end
  Process.stop_all()
  return result
end

local function scale(row)
  local results = {}
  for _ = 1, measure.ROUNDS do
    for _, count in ipairs(WORKERS) do
      for _, server in ipairs(COMPARED) do
        local key = server.name .. count
        results[key] = results[key] or {}
        table.insert(results[key], once(server, count, row.case, row.counts))
      end
    end
  end
  for _, count in ipairs(WORKERS) do
    local cells = {}
    for index, server in ipairs(COMPARED) do
      local function values(n) return measure.map(results[server.name .. n], measure.microseconds(row.counts)) end
      local rate = median(measure.map(results[server.name .. count], measure.rate(row.counts)))
      cells[index] = ('%s · %s'):format(report.cell(values(count), median(values(WORKERS[1]))), report.rate(rate))
    end
    report.row(('%s: %d %s'):format(row.text, count, count == 1 and 'worker' or 'workers'), unpack(cells))
  end
end

-- How many of the clients that were open before a second worker joined are still answered.
local function left_after_join(server)
  local _, port = start(server, 1, '0')
  local load = measure.load(port, ECHO)
  start(server, 2, port)
  local left = Process.parse(load:ask()).heard
  Process.stop_all()
  return left
end

return function()
  report.begin('workers', 'workers on one port', '`shared`', '`connected`')
  for _, row in ipairs(ROWS) do scale(row) end
  local left = measure.map(COMPARED, left_after_join)
  report.row(('of %d open clients are still answered after a second worker has joined'):format(ECHO.clients), left[1], left[2])
end
