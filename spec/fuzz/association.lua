--- Datagrams into a client and a server. An input is two bytes that say how they are set up, then steps: a byte that says
--- what happens next, and what that needs. Genuine datagrams are delivered, lost, doubled, delayed, changed; others are
--- made up, from bytes or from genuine ones. world.lua says what must hold all the time.

package.path = './?.lua'
local world = require 'spec.fuzz.world'
local contexts = require 'spec.fuzz.contexts'

-- ── the input ──

local Input = {}
Input.__index = Input

function Input:byte()
  local at = self.at
  self.at = at + 1
  return self.data:byte(at) or 0
end

function Input:short() return self:byte() * 256 + self:byte() end

--- Bytes behind their length.
function Input:bytes()
  local at = self.at + 2
  local size = self:short()
  self.at = at + size
  return self.data:sub(at, at + size - 1)
end

function Input:role() return self:byte() % 2 == 0 and 'server' or 'client' end

-- ── made-up datagrams ──

local function number(value, size)
  local out = {}
  for i = size, 1, -1 do
    out[i] = string.char(value % 256)
    value = math.floor(value / 256)
  end
  return table.concat(out)
end

local function record(type, epoch, sequence, body)
  return string.char(type, 254, 253) .. number(epoch, 2) .. number(sequence, 6) .. number(#body, 2) .. body
end

--- One byte is changed, or what comes after it cut off.
local function spoil(input, data)
  local at, value = input:short() % (#data + 1), input:byte()
  if value == 0 then return data:sub(1, at) end
  return data:sub(1, at) .. string.char(value) .. data:sub(at + 2)
end

local function from_history(input, w)
  return w.history[input:byte() % math.max(#w.history, 1) + 1] or ''
end

-- ── steps ──

local steps = {
  function(_, w) w:run(1) end,
  function(_, w) w:run(20) end,
  function(input, w) -- delivered
    local role = input:role()
    local data = w:take(role)
    if data then w:deliver(role, data) end
  end,
  function(input, w) -- lost
    w.harmed = true
    w:take(input:role())
  end,
  function(input, w) -- delayed
    w.harmed = true
    local queue = w.to[input:role()]
    queue[#queue + 1] = table.remove(queue, 1)
  end,
  function(input, w) -- changed on the way, once or again and again
    local role = input:role()
    local data = w:take(role)
    if not data then return end
    w.harmed = true
    for _ = 1, input:byte() % 4 + 1 do data = spoil(input, data) end
    w:deliver(role, data)
  end,
  function(input, w) w:deliver(input:role(), from_history(input, w)) end, -- replayed
  function(input, w) -- replayed with changes
    local role = input:role()
    w.harmed = true
    w:deliver(role, spoil(input, spoil(input, from_history(input, w))))
  end,
  function(input, w) w:inject(input:role(), input:bytes()) end,
  function(input, w) w:inject(input:role(), record(input:byte(), input:byte(), input:short(), input:bytes())) end,
  function(input, w) -- a fragment of a handshake message
    w.harmed = true
    local role, type, sequence, length, offset = input:role(), input:byte(), input:byte(), input:short(), input:short()
    local body = input:bytes()
    w:inject(role, record(22, 0, input:byte(), string.char(type) .. number(length, 3) .. number(sequence, 2) .. number(offset, 3)
      .. number(#body, 3) .. body))
  end,
  function(input, w) w:stray(input:bytes()) end,
  function(input, w) w:stray(from_history(input, w)) end,
  function(_, w) w:answerAll() end,
  function(input, w)
    w.harmed = true -- an alert that nobody contradicts for so long is believed
    w:wait(2 ^ (input:byte() % 17))
  end,
  function(input, w) w:say(input:role()) end,
  function(_, w)
    w.harmed = true
    w:dial()
  end,
  function(input, w)
    w.harmed = true
    w:part(input:role())
  end,
  function(_, w)
    w.harmed = true
    w:answerAll(true)
  end,
  function(input, w) -- replayed again and again
    w.harmed = true
    local role, data = input:role(), from_history(input, w)
    for _ = 1, input:byte() % 64 do w:deliver(role, data) end
  end,
}

-- ── how they are set up ──

local KIND, SHARED, ASKS_HELLO, STORES, HELD, SMALL, RESUMES = 6, 1, 2, 4, 8, 16, 32

local function bit(flags, value) return math.floor(flags / value) % 2 == 1 end

local function options(kind, flags)
  return {
    kind = contexts.kinds[kind % KIND + 1], demux = bit(flags, SHARED) and 'shared' or 'connected', asks_hello = bit(flags, ASKS_HELLO),
    stores_sessions = bit(flags, STORES), at_once = not bit(flags, HELD), mtu = bit(flags, SMALL) and 256 or nil,
  }
end

-- What a client can offer, for each kind: a session whose ticket or id the server knows.
local tickets, stored = {}, {}
for i = 0, KIND - 1 do
  local store = {}
  for _, stores in ipairs { 0, STORES } do
    local earlier = options(i, ASKS_HELLO + stores)
    earlier.seed = 1 -- else the handshakes to come would give the same ids again
    local w = world.new(earlier)
    w:run(20)
    local _, blob = w.client.association:session()
    local id, kept = w:party('server').association:session()
    assert(blob, contexts.kinds[i + 1])
    if stores == 0 then
      tickets[i] = blob
    else
      store[id] = kept
      stored[i] = { blob = blob, store = store }
    end
    w:close()
  end
end

return function(data)
  local input = setmetatable({ data = data, at = 1 }, Input)
  local kind, flags = input:byte(), input:byte()
  local chosen = options(kind, flags)
  if bit(flags, RESUMES) then
    local known = stored[kind % KIND]
    chosen.session = chosen.stores_sessions and known.blob or tickets[kind % KIND]
    chosen.store = known.store
  end
  local w = world.new(chosen)
  for _ = 1, 60 do
    if input.at > #data then break end
    steps[input:byte() % #steps + 1](input, w)
  end
  w:close()
end
