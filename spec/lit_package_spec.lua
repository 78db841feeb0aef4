--- The folder that `make luvit` makes, as lit finds it: by its package.lua, and by the loader that lit has for plain LuaJIT.

local dtls = require 'dtls'
local contents = require 'spec.support.contents'
local shell = require 'spec.support.shell'

local root = shell('pwd'):match '[^\n]+'
local build = os.getenv 'DTLS_BUILD' or 'build'
if build:sub(1, 1) ~= '/' then build = root .. '/' .. build end

for variant, linkage in pairs { luvit = 'shared', ['static/luvit'] = 'static' } do
  local folder = ('%s/%s/dtls'):format(build, variant)

  describe(('the folder with the %s OpenSSL'):format(linkage), function()
    it('tells lit its name, its version, and every file that there is', function()
      local package = assert(loadstring(contents(folder .. '/package.lua')))()
      assert.truthy(package.name:find '^%w+/dtls$', package.name)
      assert.equal(dtls.VERSION, package.version)
      local patterns = {}
      for i, glob in ipairs(package.files) do patterns[i] = '^' .. glob:gsub('%p', '%%%0'):gsub('%%%*', '[^/]*') .. '$' end
      local count = 0
      for name in shell('cd ' .. folder .. ' && find . -type f'):gmatch '%./([^\n]+)' do
        local packed = false
        for _, pattern in ipairs(patterns) do packed = packed or name:find(pattern) ~= nil end
        assert.is_true(packed, name)
        count = count + 1
      end
      assert.is_true(count > 10)
    end)

    it('loads through lit\'s loader, beside modules of the application that are called like ours', function()
      local tree = shell('mktemp -d'):match '[^\n]+'
      shell(('mkdir %s/deps && cp -r %s %s/deps/dtls'):format(tree, folder, tree))
      for _, name in ipairs { 'client', 'server', 'core', 'options', 'uv' } do
        shell(("echo 'return {}' >%s/%s.lua"):format(tree, name))
      end
      local file = assert(io.open(tree .. '/main.lua', 'w'))
      file:write(([[
        dofile '%s/spec/host/lit_loader.lua'
        for _, name in ipairs { 'client', 'server', 'core', 'options', 'uv' } do require('./' .. name) end
        local dtls = require 'dtls'
        print(dtls.OPENSSL.linkage, dtls.selfSigned().cert:match '[A-Z]+ [A-Z]+', require 'dtls/core'.fd == dtls.fd)]]):format(root))
      file:close()
      local output, status = shell(("cd / && env -u LUA_PATH -u LUA_CPATH luajit %s/main.lua"):format(tree))
      shell('rm -r ' .. tree)
      assert.equal(linkage .. '\tBEGIN CERTIFICATE\ttrue\n', output)
      assert.equal(0, status)
    end)
  end)
end
