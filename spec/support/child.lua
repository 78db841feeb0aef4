--- Runs a script in a process of its own, with what the specs can require: for tests of a process's end, of what it
--- writes to stderr, and of its memory. SPEC_UNDER: what runs it (valgrind, which says by the status that it has found something).

local contents = require 'spec.support.contents'
local patience = require('spec.support.loop').patience

local child = {}

--- Variables for a process that ends with something allocated that nobody is to blame for.
child.leaky = { ASAN_OPTIONS = 'detect_leaks=0', VALGRIND_OPTS = (os.getenv 'VALGRIND_OPTS' or '') .. ' --leak-check=no' }

--- Blocks until the process has ended, or was ended because it took too long (status 124).
---@param script string Lua
---@param preload string? for LD_PRELOAD, in front of what is there
---@param variables table<string, string>? more of its environment
---@return string stdout
---@return string stderr
---@return integer status
function child.run(script, preload, variables)
  local source, errors = os.tmpname(), os.tmpname()
  local file = assert(io.open(source, 'w'))
  file:write(script)
  file:close()
  -- The sanitizers insist on being first.
  local environment = preload and ('LD_PRELOAD="$LD_PRELOAD %s"'):format(preload) or ''
  for name, value in pairs(variables or {}) do environment = ("%s %s='%s'"):format(environment, name, value) end
  local pipe = assert(io.popen(('timeout %d env -u SSLKEYLOGFILE %s %s luajit %s 2>%s </dev/null; echo status=$?'):format(
    60 * patience, environment, os.getenv 'SPEC_UNDER' or '', source, errors)))
  local output = pipe:read '*a'
  pipe:close()
  local stderr = contents(errors)
  os.remove(source)
  os.remove(errors)
  local stdout, status = output:match '^(.*)status=(%d+)\n$'
  return stdout, stderr, tonumber(status)
end

return child
