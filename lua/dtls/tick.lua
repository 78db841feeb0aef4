--- "On the next tick": a callback after the current one has returned, whatever the event loop does besides. One queue, and one
--- timer while there is something in it.

local uv = require 'dtls.uv'
local Emitter = require 'dtls.emitter'

local queue, first, last = {}, 1, 0
local timer

-- What is added meanwhile is for the tick after this one.
local function flush()
  local end_of_tick = last
  while first <= end_of_tick do
    local call = queue[first]
    queue[first] = nil
    first = first + 1
    Emitter.protect(call.callback, unpack(call, 1, call.count))
  end
  if first > last and not timer:is_closing() then timer:close() end
end

--- Calls `callback(...)` from the event loop, in the order of the calls. Keeps the loop alive until then.
---@param callback function
return function(callback, ...)
  local call = { callback = callback, count = select('#', ...), ... }
  if not timer or timer:is_closing() then timer = uv.new_timer() end
  if not timer:is_active() then timer:start(0, 0, flush) end
  -- The stack may end in any of the calls above: the queue is changed after them, so that it has no hole.
  last = last + 1
  queue[last] = call
end
