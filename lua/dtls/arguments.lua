--- What the public functions are called with. A wrong argument is the caller's mistake: it raises at the caller's line, and
--- the text names the function, the argument, what was expected and what came. Checkers are those of options.lua.

local options = require 'dtls.options'

local arguments = {}

-- error()'s level of who called the public function, when that calls a function of this file.
local CALLER = 3

local function refuse(method, argument, expected, got, level)
  error(('%s: %s: expected %s, got %s'):format(method, argument, expected, got), level + 1)
end

--- Raises, at the caller's line, for a wrong type alone; wrong content is an error object.
---@param method string the public function
---@param argument string
---@param check fun(value: any): any?, string?, boolean?
---@return any? value as it is used
---@return dtls.Error? err ERR_DTLS_CONFIG
function arguments.check(method, argument, check, value)
  local good, expected, right_type = check(value)
  if good ~= nil then return good end
  if right_type then return options.failure(('%s: %s: expected %s'):format(method, argument, expected)) end
  refuse(method, argument, expected, type(value), CALLER)
end

--- Raises, at the caller's line, for wrong content, too.
---@return any value as it is used
function arguments.insist(method, argument, check, value)
  local good, expected, right_type = check(value)
  if good ~= nil then return good end
  local shown = type(value) == 'string' and ('%q'):format(value) or tostring(value)
  refuse(method, argument, expected, right_type and shown or type(value), CALLER)
end

--- An optional callback.
function arguments.callback(method, value, argument)
  if value == nil or type(value) == 'function' then return end
  refuse(method, argument or 'callback', 'a function', type(value), CALLER)
end

--- A listener: a function, or what can be called like one.
function arguments.listener(method, value)
  if type(value) == 'function' then return end
  local metatable = getmetatable(value)
  if type(metatable) == 'table' and metatable.__call then return end
  refuse(method, 'callback', 'a function', type(value), CALLER)
end

--- The name of an event.
function arguments.event(method, value)
  if type(value) ~= 'string' then refuse(method, 'name', 'the name of an event', type(value), CALLER) end
end

--- The object that a method is called on. `method` is one that `arguments.methods` leaves alone.
function arguments.object(method, class, name, value)
  if getmetatable(value) ~= class then refuse(method, 'self', 'a ' .. name .. ' before a colon', type(value), CALLER) end
end

--- Lets the public methods of a class refuse what is no instance of it, as in `conn.close()` for `conn:close()`.
---@param class table
---@param name string of the class
---@param is_instance fun(value: any): boolean
---@param except table<string, boolean> names
function arguments.methods(class, name, is_instance, except)
  for method, body in pairs(class) do
    if type(body) == 'function' and not except[method] and not method:find '^_' then
      class[method] = function(self, ...)
        if not is_instance(self) then refuse(method, 'self', 'a ' .. name .. ' before a colon', type(self), 2) end
        return body(self, ...) -- a tail call, which is no level
      end
    end
  end
end

jit.off(arguments.methods) -- see options.lua

return arguments
