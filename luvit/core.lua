--- The C module beside this file, for whatever finds this folder: luvit's require opens it by itself; lit's luvit-loader, in plain
--- LuaJIT or inside a binary that lit made, knows Lua files alone, and gives each its path.

if type(module) == 'table' then -- luvit's; in LuaJIT `module` is a function
  local core = require './core.so'
  return core
end

local function open(path)
  local opened, err = package.loadlib(path, 'luaopen_core')
  return assert(opened, err)()
end

local path = (...):gsub('%.lua$', '.so')
local bundled = path:match '^bundle:/*(.*)'
if bundled then return require('luvi').bundle.action(bundled, open) end
return open(path)
