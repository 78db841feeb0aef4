--- Runs a test inside the event loop: the test waits for events, each with a deadline, and at its end the loop must
--- run dry, so that a handle left open fails the test that left it.

local uv = require 'luv'

local loop = {}

-- Slow tools (valgrind, sanitizers) get more time; a test that passes does not need it.
loop.patience = tonumber(os.getenv 'SPEC_PATIENCE' or nil) or 1

--- What a test does hundreds of times is worth doing more seldom with them.
---@return integer
function loop.scaled(count)
  return math.max(1, math.floor(count * (tonumber(os.getenv 'SPEC_SCALE' or nil) or 1)))
end

local DEADLINE = 10000

-- Resumes the waiting test once, with what happened or with nil when the deadline has passed.
local function waiter(what, ms)
  local thread = assert(coroutine.running(), 'wait inside loop.run only')
  local deadline, done = uv.new_timer(), false
  local function finish(...)
    if done then return end
    done = true
    deadline:close()
    local ok, err = coroutine.resume(thread, ...)
    if not ok then error(err, 0) end
  end
  uv.update_time() -- what the test did before it waits may have taken long, making keys under valgrind
  deadline:start((ms or DEADLINE) * loop.patience, 0, function() finish(nil, 'deadline passed waiting for ' .. what) end)
  return finish
end

--- Waits for one event of an emitter; returns its arguments as a table.
function loop.event(emitter, name, ms)
  local finish = waiter(name, ms)
  emitter:once(name, function(...) finish({ n = select('#', ...), ... }) end)
  local arguments, why = coroutine.yield()
  return arguments or error(why, 2)
end

--- Waits until `start(done)` has called done(...); returns what it was called with.
function loop.call(start, what, ms)
  local finish = waiter(what or 'a callback', ms)
  local results
  start(function(...)
    results = { n = select('#', ...), ... }
    finish(true)
  end)
  local ok, why = coroutine.yield()
  if not ok then error(why, 2) end
  return unpack(results, 1, results.n)
end

--- Lets the loop turn until condition() is true. It is asked at every turn, so that nothing depends on how long one takes.
function loop.till(condition, what, ms)
  local value = condition()
  if value then return value end
  return loop.call(function(done)
    local idle = uv.new_timer()
    idle:start(1, 1, function()
      value = condition()
      if value and not idle:is_closing() then
        idle:close()
        done(value)
      end
    end)
  end, what or 'a condition', ms)
end

--- Keeps the loop from turning for so long, as a busy application does.
function loop.block(ms)
  local began = uv.hrtime()
  repeat until uv.hrtime() - began > ms * 1e6
end

--- Asks until condition() is true, without a turn of the loop: for what has its own way to wait, or runs outside of it.
function loop.again(condition, what, ms)
  local deadline = uv.hrtime() + (ms or DEADLINE) * 1e6 * loop.patience
  while true do
    local value = condition()
    if value then return value end
    if uv.hrtime() > deadline then error('deadline passed waiting for ' .. what, 2) end
  end
end

local nests -- whether a callback may run the loop; nil: nobody has asked

--- The body of a test with a callback that runs the loop, or in its place the reason why it cannot run here: luv does not let it
--- from 1.51 on.
---@param body function
---@return function
function loop.nesting(body)
  if nests == nil then
    local timer = uv.new_timer()
    timer:start(0, 0, function()
      nests = uv.run 'nowait' ~= nil
      timer:close()
    end)
    uv.run()
  end
  if nests then return body end
  local environment = getfenv(2) -- of the spec, which has busted's `pending`
  return function() environment.pending 'this luv does not let a callback run the loop' end
end

--- Runs `body` in a coroutine inside the loop until it has returned and every handle is closed.
function loop.run(body)
  return function()
    local failure
    local finished = false
    local thread = coroutine.create(function()
      local ok, err = xpcall(body, function(err) return type(err) == 'string' and debug.traceback(err, 2) or err end)
      finished = true
      if not ok then
        failure = { err }
        uv.stop()
      end
    end)
    uv.update_time() -- the loop's clock stood still since it ran last, and timers would be that much too short
    assert(coroutine.resume(thread))
    local guard = uv.new_timer()
    guard:start(60000 * loop.patience, 0, function() uv.stop() end)
    guard:unref()
    uv.run()
    guard:close()
    local left = {}
    local function close(first)
      uv.walk(function(handle)
        if not handle:is_closing() and (not first or tostring(handle):find(first, 1, true)) then
          left[#left + 1] = tostring(handle)
          handle:close()
        end
      end)
    end
    close 'uv_poll' -- before the sockets that they watch
    close()
    uv.run()
    if failure then error(failure[1], 0) end
    assert(finished, 'the test never came to its end')
    assert(#left == 0, 'handles left open: ' .. table.concat(left, ', '))
  end
end

return loop
