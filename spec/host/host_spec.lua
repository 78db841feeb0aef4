-- The stand-ins for luvi keep luvit's rules: each of them, on a tree of files of its own.

local shell = require 'spec.support.shell'

local build = os.getenv 'DTLS_BUILD' or 'build'

-- What `luv` names in each: luvi 2.15 has it beside `uv`, luvi 2.14 has not.
for host, luv in pairs { luvi = 'uv', ['luvi-old'] = 'nothing' } do describe('the host ' .. host, function()
  local tree

  before_each(function()
    tree = shell('mktemp -d'):match '[^\n]+'
  end)

  after_each(function()
    shell('rm -r ' .. tree)
  end)

  local function write(path, text)
    local dir = (tree .. '/' .. path):match '^(.*)/'
    shell('mkdir -p ' .. dir)
    local file = assert(io.open(tree .. '/' .. path, 'w'))
    file:write(text)
    file:close()
  end

  local function run(script)
    write('app/main.lua', script)
    return shell(("LUA_PATH='%s/stock/?.lua' LUA_CPATH=';' %s/host/%s spec/host/init.lua %s/app/main.lua one two"):format(
      tree, build, host, tree))
  end

  local function assertPrints(expected, script)
    local output, status = run(script)
    assert.equal(expected .. '\n', output)
    assert.equal(0, status)
  end

  it('finds a module in deps beside the script, and in libs first', function()
    write('app/deps/a.lua', 'return "deps"')
    assertPrints('deps', 'print(require "a")')
    write('app/libs/a.lua', 'return "libs"')
    assertPrints('libs', 'print(require "a")')
  end)

  it('finds a module in deps of a directory above, the nearest first', function()
    write('deps/a.lua', 'return "above"')
    assertPrints('above', 'print(require "a")')
    write('app/deps/a.lua', 'return "beside"')
    assertPrints('beside', 'print(require "a")')
  end)

  it('takes name.lua before name/init.lua', function()
    write('app/deps/a/init.lua', 'return "init"')
    assertPrints('init', 'print(require "a")')
    write('app/deps/a.lua', 'return "file"')
    assertPrints('file', 'print(require "a")')
  end)

  it('looks beside the requiring file for a name that begins with a dot', function()
    write('app/deps/a/init.lua', 'return require "./b" .. require "../c"')
    write('app/deps/a/b.lua', 'return "b"')
    write('app/deps/c.lua', 'return "c"')
    assertPrints('bc', 'print(require "a")')
  end)

  it('does not turn dots into directories, unless the stock require gets the name', function()
    write('app/deps/a/b.lua', 'return "deps"')
    local output, status = run 'require "a.b"'
    assert.truthy(output:find("No such module 'a.b'", 1, true))
    assert.equal(255, status)
    write('stock/a/b.lua', 'return "stock"')
    assertPrints('stock', 'print(require "a.b")')
  end)

  it('has luv by the names that luvi has it by', function()
    write('stock/luv.lua', 'return "nothing"')
    assertPrints(luv, 'local luv = require "luv"; print(luv == require "uv" and "uv" or luv)')
  end)

  it('prefers what is loaded or preloaded already', function()
    write('app/deps/uv.lua', 'return "deps"')
    write('app/deps/given.lua', 'return "deps"')
    assertPrints('userdata\tpreloaded', [[
      package.preload.given = function() return 'preloaded' end
      print(type(require 'uv'.new_timer()), require 'given')]])
  end)

  it('gives every module its own module table, exports and globals', function()
    write('app/deps/a.lua', 'leak = true; exports.path = module.path; exports.dir = module.dir')
    assertPrints(tree .. '/app/deps/a.lua\t' .. tree .. '/app/deps\tnil',
      'local a = require "a"; print(a.path, a.dir, leak)')
  end)

  it('runs a module once', function()
    write('app/deps/a.lua', 'return {}')
    assertPrints('true', 'print(require "a" == require "./deps/a")')
  end)

  it('opens a C module by the last part of the name up to its first dot', function()
    write('app/deps/x/some.thing.so', 'not a library')
    local output, status = run 'require "x/some.thing"'
    assert.truthy(output:find('/app/deps/x/some.thing.so#luaopen_some:', 1, true), output)
    assert.equal(255, status)
  end)

  it('runs the script in a coroutine, with its arguments, and then the event loop', function()
    assertPrints('true\tmain.lua\tone\ttwo\nlater', [[
      print(coroutine.running() ~= nil, args[1]:match '[^/]*$', args[2], args[3])
      local timer = require 'uv'.new_timer()
      timer:start(1, 0, function() timer:close() print 'later' end)]])
  end)
end) end
