--- What one message, one new peer and one hello cost a server while it has 10, 100, 1000 and 10,000 peers: a table, and a plot by
--- gnuplot.

local Process = require 'process'
local measure = require 'measure'
local median = require 'median'
local report = require 'report'
local servers = require 'servers'

local PEERS = { 10, 100, 1000, 10000 }
local UNDER_WAY = 100 -- messages, of all peers together: each peer in its turn sends one
local SECONDS = measure.SECONDS / 2
local COMPARED = { 'reference', 'shared', 'connected' }
-- On loopback the kernel looks for the socket of a datagram in the time of its sender, which counts for hellos: a known peer's
-- socket is found at once, but before a hello is the listener's, all others have been looked at.
local COSTS = {
  { key = 'echo', text = 'a message and its echo, µs', counts = 'received' },
  { key = 'connect', text = 'a new peer, µs', counts = 'handshakes' },
  { key = 'hello', text = 'a hello without a cookie and its sender, µs', counts = 'hellos', with_sender = true, logarithmic = true },
}

local function microseconds(result, cost)
  local seconds = result.cpu + (cost.with_sender and result.sender or 0)
  return seconds / math.max(result[cost.counts], 1) * 1e6
end

-- The medians of what each of COSTS is and how many of it there were in a second, at each number of peers.
local function grow(server, peers)
  local process = Process.start(measure.CORES.server, server.command 'echo')
  local port = process:read()
  local loads, found = {}, {}
  for index, count in ipairs(peers) do
    if index == 1 then
      loads.echo = measure.load(port, { mode = 'roam', clients = count, window = UNDER_WAY, seconds = SECONDS })
      loads.hello = measure.load(port, { mode = 'hello', seconds = SECONDS })
    else
      measure.check_ready(loads.echo:ask(count), count)
    end
    loads.connect = measure.load(port, { mode = 'handshake', clients = 8, seconds = SECONDS })
    found[index] = {}
    for _, cost in ipairs(COSTS) do
      local results = {}
      for round = 1, measure.ROUNDS do results[round] = measure.count(process, loads[cost.key]) end
      found[index][cost.key] = {
        cost = median(measure.map(results, function(result) return microseconds(result, cost) end)),
        rate = median(measure.map(results, measure.rate(cost.counts))),
      }
    end
    loads.connect:stop()
  end
  Process.stop_all()
  return found
end

local PLOT = [[
set terminal svg size 960,320 font 'sans-serif,12' background rgb 'white'
set output '%s'
set multiplot layout 1,3
set logscale x
set format x '10^{%%L}'
set xlabel 'peers'
set key left top
]]
local COLOURS = { reference = '#777777', shared = '#0060c0', connected = '#d06000' }

local function plot(found, peers, path)
  local gnuplot = assert(io.popen('gnuplot', 'w'))
  gnuplot:write(PLOT:format(path))
  for _, name in ipairs(COMPARED) do
    gnuplot:write(('$%s << END\n'):format(name))
    for index, count in ipairs(peers) do
      local at = found[name][index]
      gnuplot:write(('%d %f %f %f\n'):format(count, at.echo.cost, at.connect.cost, at.hello.cost))
    end
    gnuplot:write 'END\n'
  end
  for column, cost in ipairs(COSTS) do
    local lines = {}
    for _, name in ipairs(COMPARED) do
      local style = ("with linespoints pointtype 7 pointsize 0.5 linewidth 2 linecolor rgb '%s' title '%s'"):format(COLOURS[name], name)
      table.insert(lines, ('$%s using 1:%d %s'):format(name, column + 1, style))
    end
    gnuplot:write(cost.logarithmic and 'set logscale y\nset yrange [1:*]\n' or 'set yrange [0:*]\n')
    gnuplot:write(("set title '%s'\nplot %s\nunset key\n"):format(cost.text, table.concat(lines, ', ')))
  end
  gnuplot:close()
end

local function has_gnuplot() return os.execute 'command -v gnuplot >/dev/null' == 0 end

---@param path? string of the plot, in a folder beside the document
return function(path)
  local peers, headings = {}, { 'peers' }
  for _, count in ipairs(PEERS) do
    if count <= measure.most_peers() then
      table.insert(peers, count)
      table.insert(headings, tostring(count))
    end
  end
  local found = {}
  for _, name in ipairs(COMPARED) do found[name] = grow(servers[name], peers) end
  report.begin('growth', unpack(headings))
  for _, cost in ipairs(COSTS) do
    for _, name in ipairs(COMPARED) do
      local cells = {}
      for index in ipairs(peers) do
        local at = found[name][index][cost.key]
        cells[index] = ('%s · %s'):format(report.number(at.cost), report.rate(at.rate))
      end
      report.row(('%s: %s'):format(cost.text, servers[name].name), unpack(cells))
    end
  end
  if #peers < #PEERS then report.add 'More peers than that need more descriptors than a process may have here.' end
  if not path then return end
  if not has_gnuplot() then return report.add 'There is no plot, because gnuplot is not installed.' end
  plot(found, peers, path)
  report.add(('![What a message, a new peer and a hello cost, by the number of peers](%s)'):format(path:match '^doc/(.*)$'))
end
