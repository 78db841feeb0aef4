--- Lua after 5.1, whose C API and language are others: the module says that it cannot run there.

local shell = require 'spec.support.shell'

local root = shell('pwd'):match '[^\n]+'
local build = os.getenv 'DTLS_BUILD' or 'build'
if build:sub(1, 1) ~= '/' then build = root .. '/' .. build end

for _, lua in ipairs { 'lua5.2', 'lua5.3', 'lua5.4' } do
  describe('in ' .. lua, function()
    local function load(name, folder)
      if select(2, shell('command -v ' .. lua)) ~= 0 then pending('no ' .. lua .. ' here') end
      local script = ("package.path, package.cpath = '%s/lua/?.lua;%s/lua/?/init.lua', '%s/?.so' require '%s'"):format(
        root, root, folder, name)
      local output, status = shell(('env -u LUA_INIT %s -e "%s"'):format(lua, script))
      assert.equal(1, status, output)
      assert.truthy(output:find('dtls: this module needs LuaJIT', 1, true), output)
      assert.falsy(output:find('undefined symbol', 1, true), output)
    end

    it('the module says what it needs', function() load('dtls', build) end)

    it('the core says what it needs', function()
      load('dtls.core', build)
      load('dtls.core', build .. '/static')
    end)
  end)
end
