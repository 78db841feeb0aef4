--- Datagrams into a client and a server. An input is two bytes that say how they are set up, then steps: a byte that says
--- what happens next, and what that needs. Genuine datagrams are delivered, lost, doubled, delayed, changed; others are
--- made up, from bytes or from genuine ones. world.lua says what must hold all the time.

package.path = './?.lua'
local contexts = require 'spec.fuzz.contexts'
local new_input = require 'spec.fuzz.input'
local setup = require 'spec.fuzz.setup'
local common = require 'spec.fuzz.steps'
local wire = require 'spec.support.wire'

local record, fragment = wire.record, wire.fragment

-- ── made-up datagrams ──

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
  common.turn, common.turns, common.deliver, common.lose,
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
    w:inject(role, record(22, 0, input:byte(), fragment(type, sequence, length, offset, body)))
  end,
  function(input, w) w:stray(input:bytes()) end,
  function(input, w) w:stray(from_history(input, w)) end,
  common.answer, common.wait, common.say,
  function(_, w)
    w.harmed = true
    w:dial()
  end,
  common.part,
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

local new_world = setup(contexts.kinds)

return function(data)
  local input = new_input(data)
  local w = new_world(input)
  for _ = 1, 60 do
    if input:ended() then break end
    steps[input:byte() % #steps + 1](input, w)
  end
  w:close()
end
