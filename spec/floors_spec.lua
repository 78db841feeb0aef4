--- The floors of src: an include never points up, only the binding includes Lua, and the floors of sockets and bytes
--- no libssl.

local shell = require 'spec.support.shell'

-- The floors from the lowest to the highest. Folders of one line do not include each other.
local FLOORS = { { 'base' }, { 'wire' }, { 'net' }, { 'identity' }, { 'association' }, { 'binding' } }
local MAX_LINES = 400 -- of a file; what is longer owns more than one concept

local LUA = { ['lua.h'] = true, ['lauxlib.h'] = true, ['lualib.h'] = true }

local height = {}
for level, folders in ipairs(FLOORS) do
  for _, folder in ipairs(folders) do height[folder] = level end
end

local function lines(command)
  local found = {}
  for line in shell(command):gmatch '[^\n]+' do found[#found + 1] = line end
  return found
end

-- Each include as { path, folder, header, whether the header is in src }.
local function includes()
  local found = {}
  for _, line in ipairs(lines "grep -Eo '^#include [<\"][^>\"]+' src/*/*.[ch]") do
    local path, mark, header = line:match '^(%S-):#include ([<"])(.+)$'
    found[#found + 1] = { path, path:match '^src/(%l+)/', header, mark == '"' }
  end
  return found
end

describe('an include in src', function()
  it('never points to a higher floor', function()
    local count = 0
    for _, include in ipairs(includes()) do
      local path, folder, header, isOurs = unpack(include)
      local target = isOurs and header:match '^(%l+)/'
      if target then
        assert.is_true(height[target] <= height[folder], ('%s includes %s'):format(path, header))
        count = count + 1
      end
    end
    assert.is_true(count > 100, count)
  end)

  it('names a header of Lua in the binding alone', function()
    local bound = 0
    for _, include in ipairs(includes()) do
      local path, folder, header = unpack(include)
      if LUA[header] then
        assert.equal('binding', folder, path)
        bound = bound + 1
      end
    end
    assert.is_true(bound > 0)
  end)

  it('names a header of libssl in no file for bytes and sockets', function()
    for _, include in ipairs(includes()) do
      local path, folder, header = unpack(include)
      local is_low = folder == 'wire' or folder == 'net'
      assert.is_false(is_low and (header == 'openssl/ssl.h' or header == 'base/openssl.h'), ('%s includes %s'):format(path, header))
    end
  end)
end)

describe('a file in src', function()
  it('lies on one of the floors', function()
    for _, path in ipairs(lines "find src -name '*.[ch]'") do
      assert.truthy(height[path:match '^src/(%l+)/[%l_]+%.[ch]$'], path)
    end
  end)

  it('has no more than MAX_LINES lines', function()
    for _, line in ipairs(lines "wc -l src/*/*.[ch] | grep -v ' total$'") do
      local count, path = line:match '(%d+) (%S+)'
      assert.is_true(tonumber(count) <= MAX_LINES, ('%s has %s lines'):format(path, count))
    end
  end)
end)

describe('a file of the Lua layer', function()
  it('touches no field of another one\'s object', function()
    -- socket.lua: a dgram socket of luvit's keeps its handle there.
    for _, line in ipairs(lines "grep -nE '[a-zA-Z]+\\._[a-zA-Z]' lua/dtls/*.lua | grep -v 'self\\._' | grep -v 'value\\._handle'") do
      error(line)
    end
  end)
end)
