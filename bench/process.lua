--- Child processes of the benchmarks, each on cores of its own: a line in, a line out.

local uv = require 'luv'

---@class bench.Process
local Process = {}
Process.__index = Process

-- As many descriptors as the system allows: a server with a socket for each peer needs them.
local UNLIMITED = 'ulimit -n $(ulimit -Hn); exec "$@"'
local DEADLINE = 300000 -- ms

local running = {}

---@param cores integer|string as taskset -c takes them
---@param command any[]
---@return bench.Process
function Process.start(cores, command)
  local self = setmetatable({ text = '', input = uv.new_pipe(false), output = uv.new_pipe(false) }, Process)
  local arguments = { '-c', tostring(cores), 'sh', '-c', UNLIMITED, 'sh' }
  for _, each in ipairs(command) do table.insert(arguments, tostring(each)) end
  self.handle = assert(uv.spawn('taskset', { args = arguments, stdio = { self.input, self.output, 2 } }, function()
    self.ended = true
  end))
  running[self] = true
  self.output:read_start(function(_, chunk) self.text = self.text .. (chunk or '') end)
  return self
end

--- The next line that it prints.
---@return string
function Process:read()
  local late = false
  local timer = uv.new_timer()
  timer:start(DEADLINE, 0, function() late = true end)
  while not self.text:find '\n' and not self.ended and not late do uv.run 'once' end
  timer:close()
  local line, rest = self.text:match '^([^\n]*)\n(.*)$'
  assert(line, self.ended and 'a process has ended early' or 'a process says nothing')
  self.text = rest
  return line
end

--- What it prints when it has got this line.
---@param line? any
function Process:ask(line)
  self.input:write(tostring(line or '') .. '\n')
  return self:read()
end

--- The numbers of a line of key=value.
function Process.parse(line)
  local found = {}
  for key, value in line:gmatch '(%w+)=(%S+)' do found[key] = tonumber(value) end
  return found
end

--- Of a server: the seconds of CPU time that it has used, and the bytes that it has.
function Process:usage()
  local seconds, bytes = self:ask():match '(%S+) (%S+)'
  return tonumber(seconds), tonumber(bytes)
end

function Process:stop()
  if not self.ended then self.handle:kill 'sigkill' end
  while not self.ended do uv.run 'once' end
  for _, each in ipairs { self.handle, self.input, self.output } do each:close() end
  uv.run 'nowait'
  running[self] = nil
end

function Process.stop_all()
  for self in pairs(running) do self:stop() end
end

return Process
