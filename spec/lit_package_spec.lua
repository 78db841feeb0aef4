--- The folder that `make luvit` makes, as lit finds it: by its package.lua, and by the loader that lit has for plain LuaJIT.

local dtls = require 'dtls'
local contents = require 'spec.support.contents'
local shell = require 'spec.support.shell'

local root = shell('pwd'):match '[^\n]+'
local build = os.getenv 'DTLS_BUILD' or 'build'
if build:sub(1, 1) ~= '/' then build = root .. '/' .. build end

-- What `$OS` and `$ARCH` match in lit (libs/rules.lua): when it makes a program or installs, with LuaJIT's names until 3.8 and uname's
-- from 3.9 on; and when it publishes.
local uname = require 'luv'.os_uname()
local natives = { { jit.os, jit.arch }, { uname.sysname, uname.machine } }
local published = { '[LWOB][iS][nXD][uxdows]*', '[xa][86r][64m]' }

-- Whether lit's globs for that platform take a file.
local function packed(globs, name, platform)
  for _, glob in ipairs(globs) do
    local pattern = glob:gsub('[^%w*/$]', '%%%0'):gsub('%*', '[^/]*'):gsub('%$OS', platform[1]):gsub('%$ARCH', platform[2])
    if name:find('^' .. pattern .. '$') then return true end
  end
  return false
end

for variant, linkage in pairs { luvit = 'shared', ['static/luvit'] = 'static' } do
  local folder = ('%s/%s/dtls'):format(build, variant)

  describe(('the folder with the %s OpenSSL'):format(linkage), function()
    it('tells lit its name, its version, and every file that there is', function()
      local package = assert(loadstring(contents(folder .. '/package.lua')))()
      assert.truthy(package.name:find '^%w+/dtls$', package.name)
      assert.equal(dtls.VERSION, package.version)
      local count = 0
      for name in shell('cd ' .. folder .. ' && find . -type f'):gmatch '%./([^\n]+)' do
        for _, native in ipairs(natives) do assert.is_true(packed(package.files, name, native), name) end
        assert.is_true(packed(package.files, name, published), name)
        count = count + 1
      end
      assert.is_true(count > 10)
    end)

    it('has the core in a folder for its system and processor; lit publishes all of them, and installs those of its system', function()
      local files = assert(loadstring(contents(folder .. '/package.lua')))().files
      assert.equal(0, select(2, shell(('test -e %s/%s-%s/core.so'):format(folder, jit.os, jit.arch))))
      for _, each in ipairs { 'Linux-x64', 'Linux-x86', 'Linux-arm', 'Linux-arm64', 'Windows-x64', 'OSX-x64', 'BSD-x64' } do
        local name = each .. '/core.so'
        assert.is_true(packed(files, name, published), name)
        for _, native in ipairs(natives) do assert.equal(each:match '%w+' == native[1], packed(files, name, native), name) end
      end
    end)

    -- An application with the folder in deps/, and what its main.lua prints when lit's loader finds its modules.
    local tree

    before_each(function()
      tree = shell('mktemp -d'):match '[^\n]+'
      shell(('mkdir %s/deps && cp -r %s %s/deps/dtls'):format(tree, folder, tree))
    end)

    after_each(function() shell('rm -r ' .. tree) end)

    local function run(script)
      local file = assert(io.open(tree .. '/main.lua', 'w'))
      file:write(("dofile '%s/spec/host/lit_loader.lua'\n"):format(root), script)
      file:close()
      return shell(('cd / && env -u LUA_PATH -u LUA_CPATH luajit %s/main.lua'):format(tree))
    end

    it('loads through lit\'s loader, beside modules of the application that are called like ours', function()
      for _, name in ipairs { 'client', 'server', 'core', 'options', 'uv' } do
        shell(("echo 'return {}' >%s/%s.lua"):format(tree, name))
      end
      local output, status = run [[
        for _, name in ipairs { 'client', 'server', 'core', 'options', 'uv' } do require('./' .. name) end
        local dtls = require 'dtls'
        print(dtls.OPENSSL.linkage, dtls.selfSigned().cert:match '[A-Z]+ [A-Z]+', require 'dtls/core'.fd == dtls.fd)]]
      assert.equal(linkage .. '\tBEGIN CERTIFICATE\ttrue\n', output)
      assert.equal(0, status)
    end)

    it('is an error that names the platform where it has no core for that', function()
      shell(('mv %s/deps/dtls/%s-%s %s/deps/dtls/Plan9-x64'):format(tree, jit.os, jit.arch, tree))
      local output, status = run "require 'dtls'"
      assert.equal(1, status)
      assert.truthy(output:find(('/deps/dtls/%s-%s/core.so: cannot open'):format(jit.os, jit.arch), 1, true), output)
    end)
  end)
end
