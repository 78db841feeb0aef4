-- Runs a script the way luvit does: as a module of luvit's own require, in a coroutine, followed by the event loop;
-- whatever is still open at the end is closed. An error anywhere is printed and makes the exit status 255.

local uv = require 'uv'

local here = debug.getinfo(1, 'S').source:match('^@(.*)/[^/]*$') or '.'
local newModule = dofile(here .. '/require.lua')

local script = ...
_G.args = { [0] = os.getenv 'LUVIT' or 'luvi', ... } -- luvit's: itself, the script, its arguments

-- luvit opens standard input, which does not block from then on.
local stdin = uv.new_pipe(false)
if uv.guess_handle(0) ~= 'tty' then uv.pipe_open(stdin, 0) end

local function runScript()
  newModule(uv.cwd() .. '/main.lua').require(script:sub(1, 1) == '/' and script or './' .. script)
end

local function main()
  local thread = coroutine.create(runScript)
  local ok, err = coroutine.resume(thread)
  if not ok then error(debug.traceback(thread, tostring(err)), 0) end
  uv.run()
end

local ok, err = xpcall(main, debug.traceback)
if not ok then io.stderr:write('Uncaught exception:\n', tostring(err), '\n') end

uv.walk(function(handle)
  if not handle:is_closing() then handle:close() end
end)
uv.run()

return ok and 0 or 255
