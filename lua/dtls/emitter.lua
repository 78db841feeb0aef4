--- luvit's core.Emitter, method for method, so that servers and connections feel at home there. Adds `fire`, which
--- keeps a listener's error away from the code that announces the event.

local arguments = require 'dtls.arguments'

local traceback = debug.traceback
local stderr = io.stderr

-- luvit's process object; nil elsewhere.
local function process_of_luvit()
  local process = rawget(_G, 'process')
  if type(process) == 'table' and process.listenerCount then return process end
end

-- luvit's core.Emitter, for its `instanceof`; nil elsewhere, where a module named 'core' would be anybody's.
local function emitter_of_luvit()
  if not process_of_luvit() then return end
  local found, core = pcall(require, 'core')
  return found and type(core) == 'table' and core.Emitter or nil
end

---@class dtls.Emitter
---@field private handlers table<string, table>?
---@field package meta {__index: table, super: table?} what luvit's `instanceof` goes by
local Emitter = {}
Emitter.__index = Emitter
Emitter.meta = { __index = Emitter, super = emitter_of_luvit() }

--- A class that inherits from this one; instances are made with setmetatable.
---@return table class
function Emitter:extend()
  local class = setmetatable({}, self)
  class.__index = class
  class.meta = { __index = class, super = self }
  return class
end

local once_meta = {}
function once_meta:__call(...)
  self.emitter:removeListener(self.name, self)
  return self.callback(...)
end

--- Adds a listener. Listeners get the event's arguments and no `self`.
---@param name string
---@param callback function
---@return self
function Emitter:on(name, callback)
  arguments.event('on', name)
  arguments.listener('on', callback)
  local handlers = self.handlers
  if not handlers then
    handlers = {}
    self.handlers = handlers
  end
  local list = handlers[name]
  if not list then
    list = {}
    handlers[name] = list
  end
  list[#list + 1] = callback
  return self
end

--- Like `on`, for the next such event only.
---@param name string
---@param callback function
---@return self
function Emitter:once(name, callback)
  arguments.event('once', name)
  arguments.listener('once', callback)
  return self:on(name, setmetatable({ emitter = self, name = name, callback = callback }, once_meta))
end

-- Removed listeners become false, so that a list can change while it is walked. It is replaced and not compacted in
-- place: an event that comes again from inside one of its listeners must not move the others under the outer walk.
local function swept(list)
  local kept = {}
  for i = 1, #list do
    if list[i] then kept[#kept + 1] = list[i] end
  end
  return kept
end

-- Calls call(listener, ...) for the listeners of `name`, in the order in which they were added.
local function each(self, name, call, ...)
  local list = self.handlers and self.handlers[name]
  if not list or not list[1] and self:listenerCount(name) == 0 then
    call(self.missingHandlerType, self, name, ...)
    return
  end
  local holes = false
  for i = 1, #list do
    local handler = list[i]
    if handler then call(handler, ...) end
    holes = holes or not list[i]
  end
  if holes and self.handlers and self.handlers[name] == list then self.handlers[name] = swept(list) end
  return self
end

local function plainly(handler, ...)
  handler(...)
end

--- Calls the listeners of `name` in the order in which they were added. A listener's error comes out of here.
---@param name string
---@param ... any
---@return self?
function Emitter:emit(name, ...)
  arguments.event('emit', name)
  return each(self, name, plainly, ...)
end

--- Removes a listener, or all of `name` when none is given.
---@param name string
---@param callback function?
---@return integer? removed how many, nil when none
function Emitter:removeListener(name, callback)
  arguments.event('removeListener', name)
  if callback ~= nil then arguments.listener('removeListener', callback) end
  local list = self.handlers and self.handlers[name]
  if not list then return end
  local removed = 0
  for i = #list, 1, -1 do
    local handler = list[i]
    local matches = not callback or handler == callback or (type(handler) == 'table' and handler.callback == callback)
    if handler and matches then
      list[i] = false
      removed = removed + 1
    end
  end
  return removed > 0 and removed or nil
end

--- Removes every listener, of `name` when one is given.
---@param name string?
function Emitter:removeAllListeners(name)
  if name ~= nil then arguments.event('removeAllListeners', name) end
  if not name then
    self.handlers = nil
  else
    self:removeListener(name)
  end
end

--- The list of the listeners of `name`; one that was removed may be `false` in it.
---@param name string
---@return table
function Emitter:listeners(name)
  arguments.event('listeners', name)
  return self.handlers and self.handlers[name] or {}
end

--- How many listeners `name` has.
---@param name string
---@return integer
function Emitter:listenerCount(name)
  arguments.event('listenerCount', name)
  local count = 0
  for _, handler in ipairs(self:listeners(name)) do
    if handler then count = count + 1 end
  end
  return count
end

--- What happens to an event that nobody listens to. luvit gives an `error` to the listeners of its process object, with the
--- emitter behind it; a class may do something else.
---@param name string
---@param ... any
function Emitter:missingHandlerType(name, ...)
  local process = process_of_luvit()
  if name ~= 'error' or not process or self == process or process:listenerCount 'error' == 0 then return end
  local err = ...
  process:emit('error', err, self)
end

--- Makes the method `name` of this object a callback: an error that it is called with is emitted, else the method gets
--- what is behind it.
---@param name string
function Emitter:wrap(name)
  local method = self[name]
  if type(method) ~= 'function' then error(("wrap: name: expected that of a method, got '%s'"):format(tostring(name)), 2) end
  self[name] = function(err, ...)
    if err then return self:emit('error', err) end
    return method(self, ...)
  end
end

--- Emits every `name` of this object on another emitter, too.
---@param name string
---@param target table
---@return table target
function Emitter:propagate(name, target)
  arguments.event('propagate', name)
  if type(target) ~= 'table' or not target.emit then error('propagate: target: expected an emitter, got ' .. type(target), 2) end
  self:on(name, function(...) target:emit(name, ...) end)
  return target
end

--- What an error of the application's says; it may be any value, also a table whose __tostring fails.
---@param err any
---@return string
function Emitter.errorText(err)
  local ok, text = pcall(tostring, err)
  return ok and type(text) == 'string' and text or 'an error without text'
end

-- Runs as xpcall's handler, where after a stack overflow there is hardly any stack left: the rest is done outside.
local function caught(err)
  return { err = err, trace = traceback('', 2) }
end

-- Where errors go that nobody catches: luvit's process object when it listens for them, else stderr, and then luvit's exit
-- status is that of a program that such an error has ended. With plain luv an error that leaves a callback would end the
-- process. `failure` is a string when the handler itself failed.
local function report(failure)
  local process = process_of_luvit()
  local err = failure
  if type(failure) == 'table' then err = failure.err end
  if process and process:listenerCount('uncaughtException') > 0 then
    local ok = pcall(process.emit, process, 'uncaughtException', err)
    if ok then return end
  end
  if process then process.exitCode = 255 end
  stderr:write('Uncaught error in a dtls listener: ', Emitter.errorText(err), failure.trace or '', '\n')
end

--- Calls a function of the application's; its error is reported and goes no further.
---@param callback function
---@param ... any
---@return boolean ok
function Emitter.protect(callback, ...)
  local ok, failure = xpcall(callback, caught, ...)
  if not ok then report(failure) end
  return ok
end

--- `emit`, with a listener's error reported instead of raised; the other listeners are called all the same.
---@param name string
---@param ... any
function Emitter:fire(name, ...)
  local list = self.handlers and self.handlers[name]
  if not list and name ~= 'error' and self.missingHandlerType == Emitter.missingHandlerType then return end -- which passes over it
  local only = list and #list == 1 and list[1]
  if not only then
    each(self, name, Emitter.protect, ...)
    return
  end
  local ok, failure = xpcall(only, caught, ...) -- what `each` would do, without a call for each listener
  if not ok then report(failure) end
end

arguments.methods(Emitter, 'emitter', function(value) return type(value) == 'table' end, {
  extend = true, errorText = true, protect = true, fire = true,
})

return Emitter
