--- "On the next tick": a callback after the current one has returned, whatever the event loop does besides.

local uv = require 'dtls.uv'
local Emitter = require 'dtls.emitter'

--- Calls `callback(...)` from the event loop. Keeps the loop alive until then.
---@param callback function
return function(callback, ...)
  local arguments, count = { ... }, select('#', ...)
  local timer = uv.new_timer()
  timer:start(0, 0, function()
    timer:close()
    Emitter.protect(callback, unpack(arguments, 1, count))
  end)
end
