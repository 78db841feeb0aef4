--- The C module for this system and processor, from its folder beside this file, for whatever finds that: luvit's require opens it
--- by itself; lit's luvit-loader, in plain LuaJIT or inside a binary that lit made, knows Lua files alone, and gives each its path.

local file = ('%s-%s/core.so'):format(jit.os, jit.arch)

if type(module) == 'table' then -- luvit's; in LuaJIT `module` is a function
  local core = require('./' .. file)
  return core
end

local function open(path)
  local opened, err = package.loadlib(path, 'luaopen_core')
  return assert(opened, err)()
end

local path = (...):gsub('core%.lua$', file)
local bundled = path:match '^bundle:/*(.*)'
if bundled then return require('luvi').bundle.action(bundled, open) end
return open(path)
