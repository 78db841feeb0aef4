--- Our polls, timers and sockets, which others may close: luvit ends a program by closing all that uv.walk finds. luv
--- raises when a handle is closed twice, and libuv aborts when a poll is started or stopped after that.

local tick = require 'dtls.tick'

local handle = {}

--- Closes it, unless it is closed; calls back on a later tick in either case, if there is a callback.
function handle.close(any, callback)
  if not any:is_closing() then any:close(callback) elseif callback then tick(callback) end
end

--- Closes a handle that came to nothing, on a later tick: a program often ends with that error, before the event loop runs, and
--- luv 1.44 crashes when a Lua state ends while a handle is closing.
function handle.abandon(any)
  tick(handle.close, any)
end

--- Calls back at these events of the poll's descriptor.
function handle.start(poll, events, callback)
  if not poll:is_closing() then poll:start(events, callback) end
end

function handle.stop(poll)
  if not poll:is_closing() then poll:stop() end
end

return handle
