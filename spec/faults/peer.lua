-- A peer in a process of its own: runs each line that it reads as Lua, and says what happens. It ends with its input.

local ffi = require 'ffi'
local uv = require 'luv'
local dtls = require 'dtls'

ffi.cdef 'struct pollfd { int fd; short events, revents; }; int poll(struct pollfd *fds, unsigned long count, int timeout);'

io.stdout:setvbuf 'no'

-- What lines of Lua find here, and what they set.
local world = setmetatable({ dtls = dtls, uv = uv }, { __index = _G })

local function say(...) print(table.concat({ ... }, ' ')) end

--- Prints what a connection meets, after `name`.
function world.report(name, conn)
  conn:on('message', function(data) say(name, 'message', #data) end)
  conn:on('error', function(err) say(name, 'error', tostring(err)) end)
  conn:on('close', function() say(name, 'closed') end)
end

--- Counted drops, in the order of their names.
function world.drops(counters)
  local list = {}
  for reason, count in pairs(counters.drops) do
    if count > 0 then list[#list + 1] = reason .. '=' .. count end
  end
  table.sort(list)
  return table.concat(list, ' ')
end

--- Prints `name` once condition() is true.
function world.till(condition, name)
  local idle = uv.new_timer()
  idle:start(0, 1, function()
    if not condition() then return end
    idle:close()
    say(name)
  end)
end

--- Blocks until the kernel has an error to report for a descriptor; false: there was none within 10 s.
function world.awaitError(fd)
  return ffi.C.poll(ffi.new('struct pollfd[1]', { { fd, 0, 0 } }), 1, 10000) == 1
end

local input, left = uv.new_pipe(false), ''
assert(input:open(0))
input:read_start(function(failed, data)
  if failed or not data then return uv.stop() end
  left = left .. data
  for line in left:gmatch '([^\n]*)\n' do
    local chunk, err = loadstring(line)
    local ok = chunk
    if chunk then ok, err = pcall(setfenv(chunk, world)) end
    if not ok then say('failed:', tostring(err), line) end
  end
  left = left:match '[^\n]*$'
end)
uv.run()
