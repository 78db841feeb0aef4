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

-- One byte of a datagram with one bit turned.
local function flipped(data, random)
  local at, bit = math.ceil(random() * #data), 2 ^ math.floor(random() * 8)
  local byte = data:byte(at)
  local set = math.floor(byte / bit) % 2 == 1
  return data:sub(1, at - 1) .. string.char(set and byte - bit or byte + bit) .. data:sub(at + 1)
end

-- Some bits turned, or the end cut off.
local function corrupted(data, random)
  if data == '' then return data end
  if random() < 0.3 then return data:sub(1, math.floor(random() * #data)) end
  for _ = 1, math.ceil(random() * 3) do data = flipped(data, random) end
  return data
end

--- A bad network. What happens to a datagram depends on the seed and on its number in its direction, on nothing else.
--- Each is a number, or {server=, client=} for the two directions:
---   loss, duplicate, reorder, delay, corrupt: probabilities; a duplicate comes at once or late; reordered is what
---   comes after those behind it, delayed what comes some time later
---   late: how long that is at most, in ms (60)
---   mtu: longer datagrams are lost
---@param options {seed: integer, loss?: number|table, duplicate?: number|table, reorder?: number|table, delay?: number|table,
---  corrupt?: number|table, late?: number|table, mtu?: integer|table}
function proxy.filters.bad(options)
  local streams = {}
  for i, direction in ipairs { 'server', 'client' } do
    local seeds = proxy.random(options.seed * 7919 + i * 104729)
    seeds() -- small seeds begin with small numbers
    streams[direction] = seeds
  end
  return function(direction, _, data)
    local function option(name, default)
      local value = options[name]
      if type(value) == 'table' then value = value[direction] end
      return value or default
    end
    local random = proxy.random(math.floor(streams[direction]() * 2147483647))
    local function happens(name) return random() < option(name, 0) end
    local function some() return math.ceil(random() * option('late', 60)) end
    if happens 'loss' or #data > option('mtu', math.huge) then return end
    local copies = { { data = data, delay = 0 } }
    if happens 'duplicate' then copies[2] = { data = data, delay = random() < 0.5 and 0 or some() } end
    for _, copy in ipairs(copies) do
      if happens 'reorder' then copy.delay = copy.delay + 3 end
      if happens 'delay' then copy.delay = copy.delay + some() end
      if happens 'corrupt' then copy.data = corrupted(data, random) end
    end
    return copies
  end
end

--- @param target table {ip=, port=} the server
--- @param options table? ip, port: where it listens (the target's, any); records = false: what passes is not kept;
---   filter(direction, index, data) → data, a list, or nil: direction is 'server' or 'client', where it is going; index
---   counts each direction from 1; in the list are data or {data=, delay=ms}
function proxy.new(target, options)
  options = options or {}
  local self = setmetatable({
    target = target,
    filter = options.filter,
    clients = {},                                -- 'ip port' → {ip=, port=, socket=}
    recorded = { server = {}, client = {} },     -- all that came, before the filter
    passed = { server = {}, client = {} },       -- all that went on, after it
    records = options.records ~= false,
    count = { server = 0, client = 0 },          -- datagrams that came
    timers = {},                                 -- of what goes on later
    front = uv.new_udp(),
  }, Proxy)
  assert(self.front:bind(options.ip or target.ip, options.port or 0))
  local name = self.front:getsockname()
  self.ip, self.port = options.ip or target.ip, name.port
  self.front:recv_start(function(_, data, from)
    if not from then return end
    self:_pass('server', data or '', self:_client(from))
  end)
  return self
end

function Proxy:_client(from)
  local client = self:clientAt(from)
  if client then return client end
  client = { ip = from.ip, port = from.port }
  self.clients[from.ip .. ' ' .. from.port], self.client = client, self.client or client
  self:_open(client)
  return client
end

function Proxy:_open(client)
  client.socket = uv.new_udp()
  assert(client.socket:bind(self.target.ip, 0))
  client.socket:recv_start(function(_, data, sender)
    if sender then self:_pass('client', data or '', client) end
  end)
end

--- From now on a client comes from another port, as after a NAT has forgotten it. `client`: the first one.
function Proxy:rebind(client)
  client = client or self.client
  local old = client.socket
  self:_open(client) -- before the old port is free again
  old:close()
end

function Proxy:_send(direction, data, client)
  if self.records then table.insert(self.passed[direction], data) end
  if self.closed then return end
  if direction == 'server' then
    client.socket:try_send(data, self.target.ip, self.target.port)
  else
    self.front:try_send(data, client.ip, client.port)
  end
end

function Proxy:_sendLater(delay, ...)
  local timer, what = uv.new_timer(), { ... }
  self.timers[timer] = true
  timer:start(delay, 0, function()
    self.timers[timer] = nil
    timer:close()
    self:_send(unpack(what))
  end)
end

function Proxy:_pass(direction, data, client)
  local index = self.count[direction] + 1
  self.count[direction] = index
  if self.records then self.recorded[direction][index] = data end
  local out = data
  if self.filter then out = self.filter(direction, index, data) end
  if type(out) == 'string' then out = { out } end
  for _, each in ipairs(out or {}) do
    if type(each) == 'string' then each = { data = each } end
    if (each.delay or 0) > 0 then
      self:_sendLater(each.delay, direction, each.data, client)
    else
      self:_send(direction, each.data, client)
    end
  end
end

--- Sends a datagram of one's own, past the filter, as if the other side had sent it. `client`: the first one.
---@param direction 'server'|'client' where it goes
function Proxy:inject(direction, data, client)
  self:_send(direction, data, assert(client or self.client, 'no client has spoken yet'))
end

--- The client with that address.
---@param from table {ip=, port=}
function Proxy:clientAt(from)
  return self.clients[from.ip .. ' ' .. from.port]
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
  for timer in pairs(self.timers) do timer:close() end
  for _, client in pairs(self.clients) do client.socket:close() end
  self.front:close(callback)
end

return proxy
