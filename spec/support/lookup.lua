--- A function for an option that may yield: it waits until the test answers.

local lookup = {}

--- Gives {asked = what it was called with, each a list; ask = the function; answer(n, …) makes call number n return the
--- rest; fail(n, err) makes it throw}.
function lookup.new()
  local self = { asked = {} }
  local threads = {}

  function self.ask(...)
    local number = #self.asked + 1
    self.asked[number], threads[number] = { n = select('#', ...), ... }, coroutine.running()
    local function finish(ok, ...)
      if not ok then error((...), 0) end
      return ...
    end
    return finish(coroutine.yield())
  end

  local function resume(number, ...)
    local thread = assert(threads[number], 'it was not called as often, or is answered already')
    threads[number] = nil
    assert(coroutine.resume(thread, ...))
  end

  function self.answer(number, ...) resume(number, true, ...) end
  function self.fail(number, err) resume(number, false, err) end

  --- Lets go of a call that nobody will answer.
  function self.forget(number) threads[number] = nil end

  return self
end

return lookup
