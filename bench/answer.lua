--- How a server in Lua answers those who measure it: its port first, then "CPU seconds, resident bytes" to each line on its
--- standard input.

local uv = require 'luv'

return function(port)
  local input, output = uv.new_pipe(false), uv.new_pipe(false)
  input:open(0)
  output:open(1)
  output:write(port .. '\n')
  input:read_start(function(_, line)
    if not line then os.exit(0) end
    local usage = uv.getrusage()
    local seconds = usage.utime.sec + usage.stime.sec + (usage.utime.usec + usage.stime.usec) / 1e6
    output:write(('%.6f %d\n'):format(seconds, uv.resident_set_memory()))
  end)
end
