--- Servers of other kinds under the same loads, in one run: those that are installed.

local measure = require 'measure'
local median = require 'median'
local report = require 'report'
local servers = require 'servers'

local ALL = { servers.reference, servers.shared, servers.memory_bio, servers.pion, servers.werift }
local LOADS = {
  { text = 'echo 50 × 8, 64 bytes, µs', case = { mode = 'echo', clients = 50, window = 8 }, value = measure.microseconds 'received' },
  { text = '1200 bytes', case = { mode = 'echo', clients = 50, window = 8, size = 1200 }, value = measure.microseconds 'received' },
  { text = 'full handshake, µs', case = { mode = 'handshake', serves = 'echo', clients = 8 }, value = measure.microseconds 'handshakes' },
  { text = 'idle association, KB', case = measure.memory('idle', 1000), value = measure.kilobytes },
}

return function()
  local list, rows, headings = {}, {}, { 'server' }
  for _, server in ipairs(ALL) do
    if not server.missing then
      table.insert(list, server)
      table.insert(rows, { server.name })
    end
  end
  for _, load in ipairs(LOADS) do
    table.insert(headings, load.text)
    local reference
    for index, results in ipairs(measure.by_turns(list, load.case)) do
      local values = measure.map(results, load.value)
      reference = reference or median(values)
      table.insert(rows[index], report.cell(values, reference))
    end
  end
  report.begin('others', unpack(headings))
  for _, row in ipairs(rows) do report.row(unpack(row)) end
  for _, server in ipairs(ALL) do
    if server.missing then report.add(('Not measured: %s, which needs %s (`make bench-peers`).'):format(server.name, server.missing)) end
  end
end
