-- Which OpenSSL the built module runs on, in every kind of program that may load it, and what it refuses.
-- Runs from the root of the repository; DTLS_BUILD says where the builds are.

local shell = require 'spec.support.shell'
local needs = require('spec.support.platform').needs

local build = os.getenv 'DTLS_BUILD' or 'build'

local root = shell('pwd'):match '[^\n]+'
local buildRoot = build:sub(1, 1) == '/' and build or root .. '/' .. build

-- A build is the directory that holds dtls/core.so.
local sharedBuild, staticBuild = buildRoot, buildRoot .. '/static'

local programs = {
  luajit = { command = 'luajit' },
  luvi = { command = buildRoot .. '/host/luvi spec/host/init.lua', host = true },
  ['luvi-linked'] = { command = buildRoot .. '/host/luvi-linked spec/host/init.lua', host = true },
  ['luvi-partial'] = { command = buildRoot .. '/host/luvi-partial spec/host/init.lua', host = true },
  ['luvi-nostdio'] = { command = buildRoot .. '/host/luvi-nostdio spec/host/init.lua', host = true },
  ['luvi-old'] = { command = buildRoot .. '/host/luvi-old spec/host/init.lua', host = true },
}

---@param program string
---@param from string the build
---@param options? { stock?: boolean, preload?: string } stock: through package.cpath in a host, too
---@return table { output, status, linkage?, text?, number? }
local function load(program, from, options)
  options = options or {}
  local found = programs[program]
  local name = found.host and not options.stock and from .. '/dtls/core' or 'dtls.core'
  local environment = ("LUA_CPATH='%s/?.so'"):format(from)
  if options.preload then environment = environment .. ' LD_PRELOAD=' .. buildRoot .. '/host/' .. options.preload end

  local output, status = shell(('%s %s spec/host/report.lua %s'):format(environment, found.command, name))
  local linkage, number, text = output:match 'linkage=(%a+) number=(%d+) text=([^\n]*)'
  return { output = output, status = status, linkage = linkage, number = tonumber(number), text = text }
end

local function assertRunsOn(linkage, result)
  assert.equal(linkage, result.linkage, result.output)
  assert.equal(0, result.status, result.output)
end

local function assertRefused(result, ...)
  assert.equal(nil, result.linkage, result.output)
  assert.is_true(result.status == 1 or result.status == 255, 'status ' .. result.status .. ': ' .. result.output)
  for _, words in ipairs { ... } do
    assert.truthy(result.output:find(words, 1, true), ('%q is missing from: %s'):format(words, result.output))
  end
end

describe('the OpenSSL that the module runs on', function()
  describe('built the ordinary way', function()
    it('is the shared library of the system in a program without an OpenSSL', function()
      assertRunsOn('shared', load('luajit', sharedBuild))
    end)

    it('is the shared library of the system in a position-dependent program that links it', needs('symbol_versions', function()
      assertRunsOn('shared', load('luvi-linked', sharedBuild))
    end))

    it('is the shared library of the system beside an OpenSSL whose functions have other versions', needs('symbol_versions', function()
      assertRunsOn('shared', load('luajit', sharedBuild, { preload = 'libcrypto.so.1.1' }))
    end))

    it('is the host\'s when the host exports all of OpenSSL', function()
      assertRunsOn('host', load('luvi', sharedBuild))
      assertRunsOn('host', load('luvi', sharedBuild, { stock = true }))
    end)

    it('is the host\'s when the host lacks only what libssl itself would import', function()
      assertRunsOn('host', load('luvi-nostdio', sharedBuild))
    end)

    it('is refused in a host that exports a part of OpenSSL', function()
      assertRefused(load('luvi-partial', sharedBuild), 'two copies of OpenSSL', 'from the executable', '/libssl.so',
        'make OPENSSL=static')
    end)

    it('is refused with the same words when luvit falls back to the stock require', function()
      assertRefused(load('luvi-partial', sharedBuild, { stock = true }), 'two copies of OpenSSL', 'make OPENSSL=static')
    end)

    it('is refused in a host with another major release', function()
      local own = load('luajit', sharedBuild).text:match 'OpenSSL %d'
      assertRefused(load('luvi-old', sharedBuild), 'compiled against ' .. own, 'cannot run on OpenSSL 1.1.1w',
        'from the executable', 'make OPENSSL=static')
    end)

    it('is refused when a library overrides what libssl takes from libcrypto', function()
      assertRefused(load('luajit', sharedBuild, { preload = 'preload.so' }), 'two copies of OpenSSL', '/libssl.so',
        'COMP_get_name from ' .. buildRoot .. '/host/preload.so', 'make OPENSSL=static')
    end)

    it('is refused when there is a second libssl', function()
      assertRefused(load('luajit', sharedBuild, { preload = 'libssl.so.0' }), 'two copies of OpenSSL', '/libssl.so.',
        'COMP_get_name from ' .. buildRoot .. '/host/libssl.so.0', 'make OPENSSL=static')
    end)
  end)

  describe('built with OPENSSL=static', function()
    for program in pairs(programs) do
      it('is the module\'s own in ' .. program, function()
        assertRunsOn('static', load(program, staticBuild))
      end)
    end

    it('keeps the version that it was built with, whatever the host exports', function()
      local alone, hosted = load('luajit', staticBuild), load('luvi-old', staticBuild)
      assert.equal(alone.text, hosted.text)
      assert.equal(alone.number, hosted.number)
    end)

    it('is not touched by a library that overrides functions', function()
      assertRunsOn('static', load('luajit', staticBuild, { preload = 'preload.so' }))
    end)

    it('neither imports nor exports a function of OpenSSL', function()
      local symbols, status = shell('nm -D ' .. staticBuild .. '/dtls/core.so')
      assert.equal(0, status, symbols)
      assert.truthy(symbols:find('luaopen_dtls_core', 1, true))
      for name in symbols:gmatch '%u ([%w_]+)' do
        assert.falsy(name:find '^%u' or name:find '^%l2%l', name)
      end
    end)
  end)

  -- src/base/linkage.c tells OpenSSL's functions by their names. Where the linker wrote down a version with them, that
  -- says the same.
  it('is recognised by the names of its functions', function()
    local symbols, status = shell('nm -D --undefined-only ' .. sharedBuild .. '/dtls/core.so')
    assert.equal(0, status, symbols)
    local seen = 0
    for name, version in symbols:gmatch '[Uvw] ([%w_]+)(%S*)\n' do
      local named = (name:find '^%u' or name:find '^%l2%l') ~= nil
      assert.equal(version:find('@OPENSSL', 1, true) ~= nil, named, name .. version)
      if named then seen = seen + 1 end
    end
    assert.is_true(seen > 20, symbols)
  end)

  describe('fits the headers', function()
    local fits = assert(package.loadlib(buildRoot .. '/host/linkage_unit.so', 'luaopen_linkage_unit'))()

    it('in any patch release, as patch releases add nothing', function()
      assert.is_true(fits(0x30000160, 0x30000160))
      assert.is_true(fits(0x30000160, 0x30000000))
      assert.is_true(fits(0x30000000, 0x30000160))
    end)

    it('in a later minor release of the same major', function()
      assert.is_true(fits(0x30000160, 0x30500070))
      assert.is_true(fits(0x30500070, 0x30f00000))
    end)

    it('in no earlier minor release', function()
      assert.is_false(fits(0x30500000, 0x30000160))
      assert.is_false(fits(0x40100000, 0x40000030))
    end)

    it('in no other major release', function()
      assert.is_false(fits(0x30000160, 0x40000000))
      assert.is_false(fits(0x40000000, 0x30500070))
      assert.is_false(fits(0x30000160, 0x1010117f))
      assert.is_false(fits(0x30000160, 0x20000000))
    end)
  end)
end)
