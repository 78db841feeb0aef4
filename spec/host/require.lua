-- luvit's rules for `require`, as far as modules on disk go (bundles are not covered):
--   * what package.loaded or package.preload knows goes to the stock require;
--   * './name' and '../name' are looked up beside the requiring file, '/name' as it is, any other name in libs/ and
--     deps/ beside the requiring file and in every directory above it;
--   * a name stands for the file itself, name.lua, name/init.lua, name.so or name/init.so, whichever comes first;
--   * a Lua file runs with `module`, `exports` and `require` of its own and writes its globals to a table of its own;
--   * a C module is opened by luaopen_ and the last part of the required name up to its first dot, without arguments;
--   * everything else goes to the stock require.
-- A module counts as loaded from the moment it starts to run, so a second require of a module that failed gives an
-- empty table: luvit does that too.

local uv = require 'uv'

local stockRequire = require
local loaded = {} -- file → module

local function join(dir, name)
  local parts = {}
  for part in (dir .. '/' .. name):gmatch('[^/]+') do
    if part == '..' then
      parts[#parts] = nil
    elseif part ~= '.' then
      parts[#parts + 1] = part
    end
  end
  return '/' .. table.concat(parts, '/')
end

local function isFile(path)
  local stat = uv.fs_stat(path)
  return stat ~= nil and stat.type == 'file'
end

local function findFile(path)
  for _, suffix in ipairs { '', '.lua', '/init.lua', '.so', '/init.so' } do
    if isFile(path .. suffix) then return path .. suffix end
  end
end

local function findUpwards(dir, name)
  while true do
    local file = findFile(join(dir, 'libs/' .. name)) or findFile(join(dir, 'deps/' .. name))
    if file or dir == '/' then return file end
    dir = join(dir, '..')
  end
end

local function find(module, name)
  local first = name:sub(1, 1)
  if first == '/' then return findFile(join('/', name)) end
  if first == '.' then return findFile(join(module.dir, name)) end
  return findUpwards(module.dir, name)
end

local function runLua(module)
  local chunk = assert(loadfile(module.path))
  local env = { module = module, exports = module.exports, require = module.require }
  return setfenv(chunk, setmetatable(env, { __index = _G }))()
end

local function openNative(module, name)
  local symbol = 'luaopen_' .. name:match('[^/]+$'):match('^[^.]+')
  local open, err = package.loadlib(module.path, symbol)
  if not open then error(module.path .. '#' .. symbol .. ': ' .. err, 0) end
  return open()
end

local function viaStock(module, name)
  local ok, result = pcall(stockRequire, name)
  if ok then return result end
  error(("No such module '%s' in '%s'\n%s"):format(name, module.path, tostring(result)), 0)
end

---@param path string absolute; the file need not exist, it says where relative names start
---@return table module {path, dir, exports, require}
local function newModule(path)
  local module = { path = path, dir = join(path, '..'), exports = {} }

  function module.require(name)
    assert(name, 'Missing name to require')
    if package.loaded[name] or package.preload[name] then return stockRequire(name) end

    local file = find(module, name)
    if not file then return viaStock(module, name) end
    if loaded[file] then return loaded[file].exports end

    local found = newModule(file)
    loaded[file] = found
    if file:match('%.so$') then
      found.exports = openNative(found, name)
    elseif file:match('%.lua$') then
      found.exports = runLua(found) or found.exports
    else
      error(("Unknown type at '%s' for '%s' in '%s'"):format(file, name, module.path), 0)
    end
    return found.exports
  end

  return module
end

return newModule
