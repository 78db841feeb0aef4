--- What is set for one client's connection alone, by the methods of setters.lua and mtu.lua: a client makes an association for each
--- address that it tries, and each of them is told the same. Before the first of them a draft of one knows what can be set.

local core = require 'dtls.core'
local mtu = require 'dtls.mtu'

---@class dtls.Overrides
---@field private _context userdata the core's context
---@field private _settings table what context.resolve gave
---@field private _calls {method: string, n: integer}[] the setters that were called, for each association
---@field private _draft userdata? an association without a socket, on which setters are tried before there is a real one
local Overrides = {}
Overrides.__index = Overrides

local overrides = {}

--- Without any.
---@param context userdata the core's
---@param settings table what context.resolve gave
---@return dtls.Overrides
function overrides.new(context, settings)
  return setmetatable({ _context = context, _settings = settings, _calls = {} }, Overrides)
end

--- The draft, which is made when it is first asked for.
---@return userdata? association
---@return dtls.Error? err
function Overrides:draft()
  if self._draft then return self._draft end
  local draft, err = core.draft(self._context)
  if draft then mtu.limit(draft, self._settings) end
  self._draft = draft
  return draft, err
end

--- A setter of the core's object was called and has not failed.
function Overrides:record(method, ...)
  table.insert(self._calls, { method = method, n = select('#', ...), ... })
end

--- Tells an association what was set so far; the draft goes.
---@return true? ok
---@return dtls.Error? err of the first setter that the association refuses
function Overrides:apply(association)
  self:close()
  for _, call in ipairs(self._calls) do
    local ok, err = association[call.method](association, unpack(call, 1, call.n))
    if not ok then return nil, err end
  end
  return true
end

--- The draft goes, if there is one.
function Overrides:close()
  if self._draft then self._draft:close() end
  self._draft = nil
end

return overrides
