--- A plain UDP socket for tests that speak without DTLS: what it receives is kept, in order.

local uv = require 'luv'

local Raw = {}
Raw.__index = Raw

local raw = {}

---@param ip string? '127.0.0.1'
---@param port integer? any free one
function raw.open(ip, port)
  local self = setmetatable({ udp = uv.new_udp(), inbox = {}, ip = ip or '127.0.0.1' }, Raw)
  assert(self.udp:bind(self.ip, port or 0))
  self.port = self.udp:getsockname().port
  self.udp:recv_start(function(_, data, from)
    if from then self.inbox[#self.inbox + 1] = data or '' end
  end)
  return self
end

---@param to table {ip=, port=}
function Raw:send(data, to)
  assert(self.udp:try_send(data, to.ip, to.port))
end

function Raw:close(callback)
  self.udp:close(callback)
end

--- A port that nobody has at the moment.
function raw.freePort(ip)
  local udp = uv.new_udp()
  assert(udp:bind(ip or '127.0.0.1', 0))
  local port = udp:getsockname().port
  udp:close()
  return port
end

return raw
