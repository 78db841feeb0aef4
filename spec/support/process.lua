--- A program beside the test: started with pipes, waited for by what it prints, and gone when the test ends.

local ffi = require 'ffi'
local uv = require 'luv'
local loop = require 'spec.support.loop'

-- A write to a program that has ended is an error, and not the end of the tests: SIGPIPE is ignored. libuv gives each program that
-- it starts the default back.
ffi.cdef 'void *signal(int number, void *handler);'
ffi.C.signal(13, ffi.cast('void *', 1)) -- SIGPIPE, SIG_IGN

local process = {}

local Child = {}
Child.__index = Child

local alive = {}

-- The sanitizers' LD_PRELOAD is for the program under test.
local function environment()
  local list = {}
  for name, value in pairs(uv.os_environ()) do
    if name ~= 'LD_PRELOAD' then list[#list + 1] = name .. '=' .. value end
  end
  return list
end

local function settle(self)
  if self.left == 0 then alive[self] = nil end
  local wake = self.wake
  if wake then wake() end
end

local function closed(self)
  return function()
    self.left = self.left - 1
    settle(self)
  end
end

local function collect(self, name)
  local pipe = self.pipes[name]
  pipe:read_start(function(failed, data)
    if data and not failed then
      self.output[name] = self.output[name] .. data
      return settle(self)
    end
    self.reading = self.reading - 1
    pipe:close(closed(self))
    settle(self)
  end)
end

-- What a program under test is run by: valgrind, which then is heard of by the exit status.
process.UNDER = os.getenv 'SPEC_UNDER' or ''

--- The arguments that make `sh` run a program under test, with the sanitizers first in it.
---@param before string shell commands that end with ';', or none
---@param under string process.UNDER, or ''
---@param ... string the program and its arguments
function process.checked(before, under, ...)
  return '-c', ('%s LD_PRELOAD="$0" exec %s "$@"'):format(before, under), os.getenv 'LD_PRELOAD' or '', ...
end

--- Starts a program. It dies with the test, however that ends.
---@param command string
---@param arguments string[]
function process.spawn(command, arguments)
  local self = setmetatable({
    name = command .. ' ' .. (arguments[1] or ''),
    pipes = { input = uv.new_pipe(false), stdout = uv.new_pipe(false), stderr = uv.new_pipe(false) },
    output = { stdout = '', stderr = '' },
    reading = 2, -- outputs that have not ended
    left = 4, -- handles that are not closed: the pipes and the process
  }, Child)
  local pipes = self.pipes
  local pid
  -- If this process is killed, the kernel ends the child.
  self.handle, pid = uv.spawn('setpriv', {
    args = { '--pdeathsig', 'KILL', command, unpack(arguments) },
    env = environment(),
    stdio = { pipes.input, pipes.stdout, pipes.stderr },
  }, function(code, signal)
    self.code, self.signal = code, signal
    self.handle:close(closed(self))
    self:finish()
    settle(self)
  end)
  if not self.handle then
    for _, pipe in pairs(pipes) do pipe:close() end
    error(('cannot start %s: %s'):format(command, pid), 2)
  end
  self.pid = pid
  alive[self] = true
  collect(self, 'stdout')
  collect(self, 'stderr')
  return self
end

function Child:_report(what)
  return ('%s: %s\n-- stdout --\n%s\n-- stderr --\n%s'):format(self.name, what, self.output.stdout, self.output.stderr)
end

-- Waits until condition() gives something, asked whenever the child has printed or ended.
function Child:_till(condition, what, ms)
  local result = condition()
  if result then return result end
  local ok, why = pcall(loop.call, function(done)
    self.wake = function()
      result = condition()
      if result then done() end
    end
  end, what, ms)
  self.wake = nil
  if not ok then error(self:_report(why), 0) end
  return result
end

--- What it has printed so far that matches: the pattern's captures.
function Child:printed(pattern)
  local found = { self.output.stdout:match(pattern) }
  if not found[1] then found = { self.output.stderr:match(pattern) } end
  return unpack(found)
end

--- Waits until it has printed something that matches (in one of its two outputs, from the start). Returns the captures.
function Child:expect(pattern, ms)
  self:_till(function() return self:printed(pattern) or self.reading == 0 end, ('%q'):format(pattern), ms)
  if not self:printed(pattern) then error(self:_report(('ended without having printed %q'):format(pattern)), 0) end
  return self:printed(pattern)
end

function Child:write(data)
  self.pipes.input:write(data)
end

--- Ends its input.
function Child:finish()
  if not self.pipes.input:is_closing() then self.pipes.input:close(closed(self)) end
end

--- Waits until it has ended by itself and everything that it printed is here. Returns its exit status and signal.
function Child:wait(ms)
  self:_till(function() return self.left == 0 end, 'its end', ms)
  return self.code, self.signal
end

--- Ends its input, and with it a program that did not fail until now and does not fail at its end.
function Child:finished(ms)
  self:finish()
  local code, signal = self:wait(ms)
  if code ~= 0 then error(self:_report(('ended with status %d, signal %d'):format(code, signal)), 0) end
end

--- Ends it, at once, and waits for that.
function Child:kill()
  if self.code == nil then self.handle:kill 'sigkill' end
  self:wait()
end

--- Ends all that are left.
function process.killAll()
  local list = {}
  for child in pairs(alive) do list[#list + 1] = child end
  for _, child in ipairs(list) do child:kill() end
end

return process
