local child = require 'spec.support.child'
local loop = require 'spec.support.loop'
local uncaught = require 'spec.support.uncaught'
local tick = require 'dtls.tick'

describe('a callback on the next tick', function()
  it('is called after the one that asked for it has returned, with what it was given', loop.run(function()
    local heard
    tick(function(...) heard = { n = select('#', ...), ... } end, 1, nil, 'x', nil)
    assert.is_nil(heard)
    loop.till(function() return heard end, 'the tick')
    assert.same({ n = 4, 1, nil, 'x', nil }, heard)
  end))

  it('is called in the order of the calls', loop.run(function()
    local heard = {}
    for i = 1, 5 do tick(function() heard[i] = #heard end) end
    loop.till(function() return heard[5] end, 'the last one')
    assert.same({ 0, 1, 2, 3, 4 }, heard)
  end))

  it('that is asked for by another one is called in the tick after it', loop.run(function()
    local heard = {}
    tick(function()
      heard[#heard + 1] = 'first'
      tick(function() heard[#heard + 1] = 'later' end)
    end)
    tick(function() heard[#heard + 1] = 'second' end)
    loop.till(function() return heard[3] end, 'all')
    assert.same({ 'first', 'second', 'later' }, heard)
  end))

  it('that throws keeps none of the others', loop.run(function()
    local heard
    local errors = uncaught.keep()
    tick(error, 'thrown')
    tick(function() heard = true end)
    loop.till(function() return heard end, 'the other one')
    uncaught.release()
    assert.truthy(errors[1]:find('thrown', 1, true), errors[1])
  end))

  it('is called or refused, and never half taken, when the stack ends while it is asked for', loop.run(function()
    local taken, called, later = 0, 0, 0
    local function count() called = called + 1 end
    local function deeper(...)
      if pcall(tick, count, ...) then taken = taken + 1 end
      return 1 + deeper(...)
    end
    local errors = uncaught.keep()
    for size = 1, 40 do -- of a frame: for each, the stack ends at another place in tick
      tick(function() later = later + 1 end)
      assert.is_false((pcall(deeper, unpack({}, 1, size))))
      loop.till(function() return later == size end, 'the tick that was taken before the stack ended')
    end
    loop.till(function() return called >= taken end, 'those that were taken while it ended')
    uncaught.release()
    assert.same({}, errors)
    assert.equal(taken, called)
  end))

  it('leaves no handle behind', function()
    local output, errors, status = child.run [[
      local uv, tick = require 'luv', require 'dtls.tick'
      tick(print, 'called')
      uv.run()
      uv.walk(function(handle) error('left behind: ' .. tostring(handle)) end)
    ]]
    assert.same({ 'called\n', '', 0 }, { output, errors, status })
  end)

  it('is called when a loop runs inside another callback', loop.run(function()
    local heard = {}
    tick(function()
      tick(function() heard[#heard + 1] = 'inner' end)
      heard[#heard + 1] = 'outer'
    end)
    loop.till(function() return heard[2] end, 'both')
    assert.same({ 'outer', 'inner' }, heard)
  end))
end)
