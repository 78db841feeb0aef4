--- For `make coverage`. As LUA_INIT, in every luajit that the specs start: notes each line of lua/dtls the first time
--- that it runs, in a file that all of them share. As a program: luajit spec/support/coverage.lua BUILD [lines] tells
--- how many lines ran, here and by gcov's count in the core, and which did not. It fails below 90 %.

local ENOUGH = 90

-- luvit's copies have the same lines.
local function module_of(source)
  return source:match '^@.*lua/dtls/([^/]+%.lua)$' or source:match '^@.*luvit/dtls/([^/]+%.lua)$'
end

local function record(path)
  local log = assert(io.open(path, 'a'))
  log:setvbuf 'no' -- whatever may end the process
  local getinfo = debug.getinfo
  local files = setmetatable({}, {
    __index = function(files, source)
      local name = module_of(source)
      files[source] = name and { name = name } or false
      return files[source]
    end,
  })
  jit.off() -- compiled code calls no hooks
  debug.sethook(function(_, line)
    local file = files[getinfo(2, 'S').source]
    if file and not file[line] then
      file[line] = true
      log:write(('%s:%d\n'):format(file.name, line))
    end
  end, 'l')
end

-- The lines that have code: of a function, and of those in it. The first instruction is its head, for which there is no hook.
local function each_line(code, visit)
  local util = require 'jit.util'
  for pc = 1, util.funcinfo(code).bytecodes - 1 do visit(util.funcinfo(code, pc).currentline) end
  for constant = -1, -math.huge, -1 do
    local inner = util.funck(code, constant)
    if inner == nil then return end
    if type(inner) == 'proto' then each_line(inner, visit) end
  end
end

local function output_of(command)
  local pipe = assert(io.popen(command))
  return function()
    local line = pipe:read()
    if not line then pipe:close() end
    return line
  end
end

-- {[path] = {[line] = whether it ran}}
local function lua_lines(build)
  local files = {}
  for path in output_of 'ls lua/dtls/*.lua' do
    local lines = {}
    each_line(assert(loadfile(path)), function(line) lines[line] = false end)
    files[path] = lines
  end
  for line in io.lines(build .. '/lua.lines') do
    local name, number = line:match '^(.*):(%d+)$'
    local lines = files['lua/dtls/' .. name]
    if lines[tonumber(number)] == false then lines[tonumber(number)] = true end
  end
  return files
end

local function c_lines(build)
  local files, lines = {}, nil
  for line in output_of(("gcov --stdout %s/obj/*/*.gcno %s/static/obj/*/*.gcno 2>/dev/null"):format(build, build)) do
    local count, number, text = line:match '^%s*([^:]+):%s*(%d+):(.*)$'
    local path = number == '0' and text:match '^Source:(.*)$'
    if path then
      files[path] = files[path] or {}
      lines = path:find '^src/' and files[path] or {}
    elseif count and count ~= '-' and number ~= '0' then
      number = tonumber(number)
      lines[number] = lines[number] or not count:find '^[#=]'
    end
  end
  for path in pairs(files) do
    if not path:find '^src/' then files[path] = nil end
  end
  return files
end

local function percent(ran, all) return ('%5.1f %%  %5d of %5d lines'):format(100 * ran / all, ran, all) end

local function tell(title, files, wanted)
  local paths, total_ran, total = {}, 0, 0
  for path in pairs(files) do paths[#paths + 1] = path end
  table.sort(paths)
  for _, path in ipairs(paths) do
    local missed, ran, all = {}, 0, 0
    for line, yes in pairs(files[path]) do
      all = all + 1
      if yes then ran = ran + 1 else missed[#missed + 1] = line end
    end
    total_ran, total = total_ran + ran, total + all
    print(('%-28s %s'):format(path, percent(ran, all)))
    table.sort(missed)
    local text = {}
    if wanted and missed[1] then
      for line in io.lines(path) do text[#text + 1] = line end
      for _, line in ipairs(missed) do print(('%8d: %s'):format(line, text[line])) end
    end
  end
  print(('%-28s %s\n'):format(title, percent(total_ran, total)))
  return 100 * total_ran >= ENOUGH * total
end

local path = os.getenv 'SPEC_COVERAGE'
if path then
  record(path)
else
  local build, wanted = ...
  local c, lua = tell('C', c_lines(build), wanted), tell('Lua', lua_lines(build), wanted)
  os.exit(c and lua and 0 or 1)
end
