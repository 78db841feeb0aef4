-- The rules of lit's luvit-loader, which plain LuaJIT finds an application's deps/ with: only Lua files, './x' and '../x' beside the
-- requiring file, other names in deps/ of its folder and of those above; a file gets its path, and is kept by it;
-- the stock require keeps what a name gave, whoever said it.

local function exists(path)
  local file = io.open(path)
  local is = file and file:read(0) ~= nil
  if file then file:close() end
  return is
end

local function find(path)
  for _, suffix in ipairs { '.lua', '/init.lua' } do
    if exists(path .. suffix) then return path .. suffix end
  end
end

local function above(dir) return dir:match '^(.+)/[^/]+$' end

-- The folder of the file that called require, which C functions stand between.
local function callersFolder()
  local level = 3
  while debug.getinfo(level, 'S').source == '=[C]' do level = level + 1 end
  return debug.getinfo(level, 'S').source:match '^@(.*)/[^/]*$'
end

local function locate(dir, name)
  while name:find '^%.' do
    if name:find '^%.%./' then dir = above(dir) end
    name = name:gsub('^%.%.?/', '', 1)
    if not name:find '^%.' then return find(dir .. '/' .. name) end
  end
  while dir do
    local path = find(dir .. '/deps/' .. name)
    if path then return path end
    dir = above(dir)
  end
end

table.insert(package.loaders, 1, function(name)
  local path = locate(callersFolder(), name)
  return path and function()
    package.loaded[path] = package.loaded[path] or assert(loadfile(path))(path)
    return package.loaded[path]
  end
end)
