--- What the tables have found, for those that come of others: the one of the README, and what a core carries.

local report = require 'report'

local findings = {}
local medians = {}

--- The medians of the C reference and of both strategies.
---@param name string
function findings.note(name, reference, shared, connected)
  medians[name] = { reference = reference, shared = shared, connected = connected }
end

function findings.readme()
  report.begin('readme', 'what', 'in C', 'here, in Lua', 'ratio')
  for _, row in ipairs {
    { '64 bytes echoed, 50 clients with 8 messages under way', 'echo 50 × 8, 64', 'µs' },
    { '64 bytes echoed, 2000 clients with one', 'echo 2000 × 1, 64', 'µs' },
    { '1200 bytes sent to a client', 'pull', 'µs' },
    { 'full handshake (P-256)', 'handshake', 'µs' },
    { 'memory of an idle association', 'idle 1000', 'KB' },
  } do
    local found = medians[row[2]] or {}
    if found.reference and found.shared then
      local function with_unit(value) return report.number(value) .. ' ' .. row[3] end
      report.row(row[1], with_unit(found.reference), with_unit(found.shared), ('%.2f'):format(found.shared / found.reference))
    end
  end
end

local function per_second(microseconds) return report.rate(1e6 / microseconds) end
local function seconds_for_ten_thousand(microseconds) return report.number(microseconds / 100) end
local function thousands_in_a_gigabyte(kilobytes) return ('%.0fk'):format(1048.576 / kilobytes) end

function findings.capacity()
  report.begin('capacity', 'a core of this machine has room for', '`shared`', '`connected`')
  for _, row in ipairs {
    { 'messages of 64 bytes and their echoes in a second, 50 peers with 8 under way', 'echo 50 × 8, 64', per_second },
    { 'the same of 2000 peers with one', 'echo 2000 × 1, 64', per_second },
    { 'messages of 1200 bytes to the clients in a second', 'pull', per_second },
    { 'new peers in a second, full handshakes', 'handshake', per_second },
    { 'new peers in a second, resumed sessions', 'resume', per_second },
    { 'new peers in a second, pre-shared keys', 'psk', per_second },
    { 'hellos of a flood in a second', 'hello', per_second },
    { 'idle peers in a GB', 'idle 1000', thousands_in_a_gigabyte },
    { 'seconds until 10,000 peers are back, full handshakes', 'handshake', seconds_for_ten_thousand },
    { 'seconds until 10,000 peers are back, resumed sessions', 'resume', seconds_for_ten_thousand },
  } do
    local found = medians[row[2]] or {}
    if found.shared and found.connected then report.row(row[1], row[3](found.shared), row[3](found.connected)) end
  end
end

return findings
