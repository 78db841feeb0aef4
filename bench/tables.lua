--- The tables that compare the two strategies with the C reference, load by load.

local findings = require 'findings'
local measure = require 'measure'
local median = require 'median'
local report = require 'report'
local servers = require 'servers'

local tables = {}
local COMPARED = { servers.reference, servers.shared, servers.connected }

local function begin(name, what) report.begin(name, what, 'C reference', '`shared`', '`connected`') end

local function losses(results)
  local count = 0
  for _, result in ipairs(results) do count = count + (result.lost or 0) end
  return count > 0 and (' (%d lost)'):format(count) or ''
end

-- A row of the cells of each server: value(result), and how many of `counted` there were in a second.
local function compare(title, case, value, counted, name)
  local cells, medians = {}, {}
  for index, results in ipairs(measure.by_turns(COMPARED, case)) do
    local values = measure.map(results, value)
    medians[index] = median(values)
    cells[index] = report.cell(values, medians[1])
    if counted and #results > 0 then
      local rate = median(measure.map(results, measure.rate(counted)))
      cells[index] = ('%s · %s%s'):format(cells[index], report.rate(rate), losses(results))
    end
  end
  report.row(title, unpack(cells))
  if name then findings.note(name, unpack(medians, 1, #COMPARED)) end
end

function tables.echo()
  begin('echo', 'echo: clients × messages under way, bytes')
  for _, load in ipairs { { 1, 1 }, { 50, 8 }, { 2000, 1 } } do
    for _, size in ipairs { 64, 512, 1200 } do
      local title = ('%d × %d, %d'):format(load[1], load[2], size)
      local case = { mode = 'echo', clients = load[1], window = load[2], size = size }
      compare(title, case, measure.microseconds 'received', 'received', 'echo ' .. title)
    end
  end
end

function tables.oneway()
  begin('oneway', 'one way, 8 clients, 1200 bytes')
  local push, pull = { mode = 'push', clients = 8, window = 256, size = 1200 }, { mode = 'pull', clients = 8, window = 64, size = 1200 }
  compare('to the server', push, measure.microseconds 'sent', 'sent', 'push')
  compare('to the clients', pull, measure.microseconds 'received', 'received', 'pull')
end

function tables.handshake()
  begin('handshake', 'handshakes, 8 clients at once')
  for _, kind in ipairs { { 'full', 'handshake' }, { 'resumed', 'resume' }, { 'PSK', 'psk' } } do
    local case = { mode = kind[2], serves = kind[2] == 'psk' and 'psk' or 'echo', clients = 8 }
    compare(kind[1], case, measure.microseconds 'handshakes', 'handshakes', kind[2])
  end
end

function tables.hello()
  begin('hello', 'hellos without a cookie, 8 sockets × 16 under way')
  compare('HelloVerifyRequest', { mode = 'hello', serves = 'echo' }, measure.microseconds 'hellos', 'hellos', 'hello')
end

function tables.memory()
  begin('memory', 'KB for an association')
  for _, state in ipairs { { 'half-open', 'half' }, { 'idle', 'idle' } } do
    for _, clients in ipairs { 1000, 10000 } do
      local title = ('%s, %d of them'):format(state[1], clients)
      if clients > measure.most_peers() then
        report.row(title, 'too few descriptors', '–', '–')
      else
        compare(title, measure.memory(state[2], clients), measure.kilobytes, nil, state[2] .. ' ' .. clients)
      end
    end
  end
end

function tables.latency()
  begin('latency', 'µs from a client and back, at most one message a millisecond')
  local found = measure.by_turns(COMPARED, { mode = 'trickle', serves = 'echo', clients = 1, seconds = 2 * measure.SECONDS })
  for _, percentile in ipairs { 'p50', 'p99' } do
    local cells, reference = {}, nil
    for index, results in ipairs(found) do
      local values = measure.map(results, function(result) return result[percentile] end)
      reference = reference or median(values)
      cells[index] = report.cell(values, reference)
    end
    report.row(percentile, unpack(cells))
  end
end

return tables
