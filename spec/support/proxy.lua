--- A UDP proxy between clients and one server, in the test's own event loop. Every client gets a socket of its own
--- towards the server, for as long as the proxy lives, so that a client that comes back from the same port is the same
--- peer to the server. What passes is recorded, and a filter decides about it.

local uv = require 'luv'

local Proxy = {}
Proxy.__index = Proxy

local proxy = {}

--- Numbers that look random and are the same in every run.
---@param seed integer
---@return fun(): number from 0 to 1
function proxy.random(seed)
  local state = seed % 2147483647
  if state == 0 then state = 1 end
  return function()
    state = state * 16807 % 2147483647
    return state / 2147483647
  end
end

--- Filters.
proxy.filters = {}

--- Loses every datagram with the given probability.
function proxy.filters.lossy(seed, probability)
  local random = proxy.random(seed)
  return function(_, _, data)
    if random() >= probability then return data end
  end
end

--- Loses those datagrams of one direction whose numbers, counted from 1, are in the list.
function proxy.filters.without(direction, ...)
  local lost = {}
  for _, index in ipairs { ... } do lost[index] = true end
  return function(towards, index, data)
    if towards ~= direction or not lost[index] then return data end
  end
end

--- Keeps one direction silent.
function proxy.filters.mute(direction)
  return function(towards, _, data)
    if towards ~= direction then return data end
  end
end

--- @param target table {ip=, port=} the server
--- @param options table? ip: where it listens (the target's); filter(direction, index, data) → data, a list of them, or
---   nil: direction is 'server' or 'client', where it is going; index counts each direction from 1
function proxy.new(target, options)
  options = options or {}
  local self = setmetatable({
    target = target,
    filter = options.filter,
    clients = {},                                -- 'ip port' → {ip=, port=, socket=}
    recorded = { server = {}, client = {} },     -- all that came, before the filter
    passed = { server = {}, client = {} },       -- all that went on, after it
    front = uv.new_udp(),
  }, Proxy)
  assert(self.front:bind(options.ip or target.ip, 0))
  local name = self.front:getsockname()
  self.ip, self.port = options.ip or target.ip, name.port
  self.front:recv_start(function(_, data, from)
    if not from then return end
    self:_pass('server', data or '', self:_client(from))
  end)
  return self
end

function Proxy:_client(from)
  local key = from.ip .. ' ' .. from.port
  local client = self.clients[key]
  if client then return client end
  client = { ip = from.ip, port = from.port, socket = uv.new_udp() }
  self.clients[key], self.client = client, self.client or client
  assert(client.socket:bind(self.target.ip, 0))
  client.socket:recv_start(function(_, data, sender)
    if sender then self:_pass('client', data or '', client) end
  end)
  return client
end

function Proxy:_send(direction, data, client)
  table.insert(self.passed[direction], data)
  if self.closed then return end
  if direction == 'server' then
    client.socket:try_send(data, self.target.ip, self.target.port)
  else
    self.front:try_send(data, client.ip, client.port)
  end
end

function Proxy:_pass(direction, data, client)
  local record = self.recorded[direction]
  record[#record + 1] = data
  local out = data
  if self.filter then out = self.filter(direction, #record, data) end
  if type(out) == 'string' then out = { out } end
  for _, each in ipairs(out or {}) do self:_send(direction, each, client) end
end

--- Sends a datagram of one's own, past the filter, as if the other side had sent it. `client`: the first one.
---@param direction 'server'|'client' where it goes
function Proxy:inject(direction, data, client)
  self:_send(direction, data, assert(client or self.client, 'no client has spoken yet'))
end

--- The local address of a client's socket towards the server: who the server thinks that client is.
function Proxy:seenAs(client)
  return (client or self.client).socket:getsockname()
end

--- The longest datagram that was sent on in a direction, from a given number on.
function Proxy:longest(direction, from)
  local longest = 0
  for i = from or 1, #self.passed[direction] do longest = math.max(longest, #self.passed[direction][i]) end
  return longest
end

function Proxy:close(callback)
  self.closed = true
  for _, client in pairs(self.clients) do client.socket:close() end
  self.front:close(callback)
end

return proxy
