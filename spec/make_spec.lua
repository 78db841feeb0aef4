local shell = require 'spec.support.shell'

local root = shell('pwd'):match '[^\n]+'

-- What LUA_PATH and LUA_CPATH are in a shell that has evaluated what `make -s env` printed.
local function evaluated(before)
  local output, status = shell(([[
    unset LUA_PATH LUA_CPATH MAKEFLAGS MAKELEVEL; %s
    eval "$(make -s env BUILD=build)" && printf '%%s\n' "$LUA_PATH" "$LUA_CPATH"]]):format(before))
  assert.equal(0, status, output)
  return output:match '^([^\n]*)\n([^\n]*)\n$'
end

local lua = root .. '/lua/?.lua;' .. root .. '/lua/?/init.lua;'
local c = root .. '/build/?.so;'

describe('make env', function()
  it('puts the checkout before Lua\'s default paths', function()
    assert.same({ lua .. ';', c .. ';' }, { evaluated '' })
  end)

  for name, export in pairs { ['that is exported'] = 'export ', ['of the shell alone'] = '' } do
    it('puts the checkout before a LUA_PATH and LUA_CPATH ' .. name, function()
      local path, cpath = evaluated(export .. [[LUA_PATH='/a b/?.lua;;' LUA_CPATH='/it'"'"'s/?.so']])
      assert.same({ lua .. '/a b/?.lua;;', c .. "/it's/?.so" }, { path, cpath })
    end)
  end

  it('takes paths that are set and empty for what they say', function()
    assert.same({ lua, c }, { evaluated 'export LUA_PATH= LUA_CPATH=' })
  end)
end)

describe('progress.sh', function()
  local command = [[spec/support/progress.sh 'echo so far' sh -c 'echo one; sleep 1.5; echo two; exit 3']]

  it('shows a line that moves while its command runs, on a terminal, and has the status of the command', function()
    local output, status = shell(('script -qefc "%s" /dev/null </dev/null'):format(command))
    assert.equal('one\r\n\r\27[Kso fartwo\r\n\r\27[K', output)
    assert.equal(3, status)
  end)

  it('shows nothing where standard error is no terminal', function()
    assert.same({ 'one\ntwo\n', 3 }, { shell(command) })
  end)
end)
