--- luvit's core.Emitter, method for method, so that servers and connections feel at home there. Adds `fire`, which
--- keeps a listener's error away from the code that announces the event.

local traceback = debug.traceback
local stderr = io.stderr

---@class dtls.Emitter
---@field private handlers table<string, table>?
local Emitter = {}
Emitter.__index = Emitter

--- A class that inherits from this one; instances are made with setmetatable.
function Emitter:extend()
  local class = setmetatable({}, self)
  class.__index = class
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
  if not list then return end
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
---@return self?
function Emitter:emit(name, ...)
  return each(self, name, plainly, ...)
end

--- Removes a listener, or all of `name` when none is given.
---@param name string
---@param callback function?
---@return integer? removed how many, nil when none
function Emitter:removeListener(name, callback)
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
  if not name then
    self.handlers = nil
  else
    self:removeListener(name)
  end
end

---@param name string
---@return table
function Emitter:listeners(name)
  return self.handlers and self.handlers[name] or {}
end

---@param name string
---@return integer
function Emitter:listenerCount(name)
  local count = 0
  for _, handler in ipairs(self:listeners(name)) do
    if handler then count = count + 1 end
  end
  return count
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

-- Where errors go that nobody catches: luvit's process object when it listens for them, else stderr. With plain luv
-- an error that leaves a callback would end the process. `failure` is a string when the handler itself failed.
local function report(failure)
  local process = rawget(_G, 'process')
  local err = failure
  if type(failure) == 'table' then err = failure.err end
  if type(process) == 'table' and process.listenerCount and process:listenerCount('uncaughtException') > 0 then
    local ok = pcall(process.emit, process, 'uncaughtException', err)
    if ok then return end
  end
  stderr:write('Uncaught error in a dtls listener: ', Emitter.errorText(err), failure.trace or '', '\n')
end

--- Calls a function of the application's; its error is reported and goes no further.
---@param callback function
---@return boolean ok
function Emitter.protect(callback, ...)
  local ok, failure = xpcall(callback, caught, ...)
  if not ok then report(failure) end
  return ok
end

--- `emit`, with a listener's error reported instead of raised; the other listeners are called all the same.
---@param name string
function Emitter:fire(name, ...)
  each(self, name, Emitter.protect, ...)
end

return Emitter
