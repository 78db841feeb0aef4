local Emitter = require 'dtls.emitter'
local child = require 'spec.support.child'

describe('an emitter', function()
  local emitter, calls

  before_each(function()
    emitter = setmetatable({}, Emitter:extend())
    calls = {}
  end)

  local function listener(name)
    return function(...)
      calls[#calls + 1] = table.concat({ name, ... }, ' ')
    end
  end

  it('calls the listeners of an event in the order in which they came, with the arguments and no self', function()
    emitter:on('a', listener 'first')
    emitter:on('a', listener 'second')
    emitter:on('b', listener 'other')
    emitter:emit('a', 1, 2)
    assert.same({ 'first 1 2', 'second 1 2' }, calls)
  end)

  it('passes nil and false on, also at the end', function()
    local count
    emitter:on('a', function(...) count = select('#', ...) end)
    emitter:emit('a', nil, false, nil)
    assert.equal(3, count)
  end)

  it('returns itself from on and once, so that calls can be chained', function()
    assert.equal(emitter, emitter:on('a', listener 'on'):once('a', listener 'once'))
    emitter:emit 'a'
    assert.same({ 'on', 'once' }, calls)
  end)

  it('returns itself from emit when the event has listeners, else nothing', function()
    assert.is_nil(emitter:emit 'a')
    emitter:on('a', listener 'a')
    assert.equal(emitter, emitter:emit 'a')
    assert.is_nil(emitter:emit 'b')
  end)

  it('calls a once listener once, even when the event comes again from inside it', function()
    emitter:once('a', function(depth)
      calls[#calls + 1] = depth
      emitter:emit('a', depth + 1)
    end)
    emitter:emit('a', 1)
    emitter:emit('a', 10)
    assert.same({ 1 }, calls)
  end)

  it('reaches every listener although an earlier one repeats the event', function()
    emitter:once('a', function() emitter:emit 'a' end)
    emitter:on('a', listener 'second')
    emitter:on('a', listener 'third')
    emitter:emit 'a'
    assert.same({ 'second', 'third', 'second', 'third' }, calls)
  end)

  it('removes one listener, and says how many there were', function()
    local a = listener 'a'
    emitter:on('x', a):on('x', listener 'b')
    assert.equal(1, emitter:removeListener('x', a))
    assert.is_nil(emitter:removeListener('x', a))
    assert.is_nil(emitter:removeListener('y', a))
    emitter:emit 'x'
    assert.same({ 'b' }, calls)
  end)

  it('removes a once listener by the function that was given', function()
    local a = listener 'a'
    emitter:once('x', a)
    assert.equal(1, emitter:removeListener('x', a))
    emitter:emit 'x'
    assert.same({}, calls)
  end)

  it('removes all listeners of an event, or of all events', function()
    emitter:on('x', listener 'x'):on('x', listener 'x'):on('y', listener 'y')
    emitter:removeAllListeners 'x'
    emitter:emit 'x'
    emitter:emit 'y'
    assert.same({ 'y' }, calls)
    emitter:removeAllListeners()
    emitter:emit 'y'
    assert.same({ 'y' }, calls)
  end)

  it('no longer calls a listener that an earlier one removed', function()
    local b = listener 'b'
    emitter:on('x', function() emitter:removeListener('x', b) end):on('x', b):on('x', listener 'c')
    emitter:emit 'x'
    assert.same({ 'c' }, calls)
  end)

  it('calls a listener that was added during an event from the next one on', function()
    emitter:once('x', function() emitter:on('x', listener 'added') end)
    emitter:emit 'x'
    assert.same({}, calls)
    emitter:emit 'x'
    assert.same({ 'added' }, calls)
  end)

  it('counts and lists listeners', function()
    local a = listener 'a'
    assert.equal(0, emitter:listenerCount 'x')
    assert.same({}, emitter:listeners 'x')
    emitter:on('x', a):on('x', listener 'b'):on('y', a)
    assert.equal(2, emitter:listenerCount 'x')
    assert.equal(a, emitter:listeners('x')[1])
    emitter:removeListener('x', a)
    assert.equal(1, emitter:listenerCount 'x')
  end)

  it('keeps the listeners of instances apart', function()
    local other = setmetatable({}, getmetatable(emitter))
    emitter:on('x', listener 'x')
    other:emit 'x'
    assert.equal(0, other:listenerCount 'x')
    assert.same({}, calls)
  end)

  it('raises a listener\'s error from emit, and works as before afterwards', function()
    emitter:once('x', function() error('oops', 0) end):on('x', listener 'x')
    local ok, err = pcall(emitter.emit, emitter, 'x')
    assert.is_false(ok)
    assert.equal('oops', err)
    emitter:emit 'x'
    assert.same({ 'x' }, calls)
  end)

  it('does not raise for an error event without a listener', function()
    assert.has_no.errors(function() emitter:emit('error', 'oops') end)
  end)

  it('wraps a method as a callback that emits its error', function()
    function emitter:onOpen(...) calls[#calls + 1] = self == emitter and table.concat({ ... }, ' ') end
    emitter:on('error', function(err) calls[#calls + 1] = 'error ' .. err end)
    emitter:wrap 'onOpen'
    emitter.onOpen(nil, 'one', 'two')
    emitter.onOpen 'oops'
    assert.same({ 'one two', 'error oops' }, calls)
  end)

  it('propagates an event to another emitter', function()
    local other = setmetatable({}, getmetatable(emitter))
    other:on('a', function(...) calls[#calls + 1] = table.concat({ ... }, ' ') end)
    assert.equal(other, emitter:propagate('a', other))
    emitter:emit('a', 'one', 'two')
    emitter:emit('b', 'three')
    assert.same({ 'one two' }, calls)
  end)

  it('calls missingHandlerType for an event without a listener, also after the last listener was removed', function()
    function emitter:missingHandlerType(name, ...) calls[#calls + 1] = self == emitter and name .. ' ' .. table.concat({ ... }, ' ') end
    emitter:emit('a', 'one')
    local heard = function() end
    emitter:on('a', heard)
    emitter:emit('a', 'two')
    emitter:removeListener('a', heard)
    emitter:fire('a', 'three')
    assert.same({ 'a one', 'a three' }, calls)
  end)

  it('in luvit gives an error without a listener to the process, is an instance of core.Emitter, and sets the exit code', function()
    local stdout, stderr = child.run [[
      local core = { Emitter = {} }
      core.Emitter.meta = { __index = core.Emitter }
      package.loaded.core = core
      local process = { exitCode = 0, heard = 0 }
      function process:listenerCount(name) return name == 'error' and self.heard or 0 end
      function process:emit(name, err, emitter) print(name, err, emitter == self.expected) end
      _G.process = process
      local Emitter = require 'dtls.emitter'
      local class = Emitter:extend()
      local emitter = setmetatable({}, class)
      print(class.meta.super == Emitter, Emitter.meta.super == core.Emitter, emitter.meta.__index == class)
      emitter:fire('error', 'unheard')
      process.heard, process.expected = 1, emitter
      emitter:fire('error', 'oops')
      print(process.exitCode)
      emitter:on('x', function() error 'thrown' end)
      emitter:fire 'x'
      print(process.exitCode)]]
    assert.equal('true\ttrue\ttrue\nerror\toops\ttrue\n0\n255\n', stdout)
    assert.truthy(stderr:find 'thrown')
  end)

  describe('that fires', function()
    it('writes a listener\'s error to stderr with its traceback, and goes on', function()
      local stdout, stderr, status = child.run [[
        local Emitter = require 'dtls.emitter'
        local emitter = setmetatable({}, Emitter:extend())
        emitter:on('x', function() local function guilty() error 'oops' end guilty() end)
        emitter:fire 'x'
        print 'on']]
      assert.equal(0, status)
      assert.equal('on\n', stdout)
      assert.truthy(stderr:find 'oops')
      assert.truthy(stderr:find 'stack traceback')
      assert.truthy(stderr:find 'guilty')
    end)

    it('calls the listeners behind one that throws', function()
      local stdout, stderr = child.run [[
        local Emitter = require 'dtls.emitter'
        local emitter = setmetatable({}, Emitter:extend())
        emitter:on('x', function() error 'oops' end)
        emitter:once('x', function(...) print(...) end)
        emitter:fire('x', 'first', nil)
        emitter:fire 'x'
        print(emitter:listenerCount 'x')]]
      assert.equal('first\tnil\n1\n', stdout)
      assert.truthy(stderr:find 'oops')
    end)

    it('reports an error that is no string, too', function()
      local stdout, stderr = child.run [[
        local Emitter = require 'dtls.emitter'
        local emitter = setmetatable({}, Emitter:extend())
        emitter:on('x', function() error(setmetatable({}, { __tostring = function() return 'an object' end })) end)
        emitter:fire 'x'
        print 'on']]
      assert.equal('on\n', stdout)
      assert.truthy(stderr:find 'an object')
    end)

    it('gives the error to luvit\'s process object when that listens for it', function()
      local stdout, stderr = child.run [[
        local Emitter = require 'dtls.emitter'
        process = setmetatable({}, Emitter:extend())
        process:on('uncaughtException', function(err) print('caught ' .. err:match 'oops') end)
        local emitter = setmetatable({}, Emitter:extend())
        emitter:on('x', function() error 'oops' end)
        emitter:fire 'x'
        print 'on']]
      assert.equal('caught oops\non\n', stdout)
      assert.equal('', stderr)
    end)
  end)
end)
