--- What connections send through a server's socket during one turn of the event loop leaves together when the turn ends: it
--- costs the kernel a fraction of what each datagram alone costs. What a turn sends first leaves at once.

local uv = require 'dtls.uv'
local handle = require 'dtls.handle'

---@class dtls.Deferral
---@field private _endpoint userdata
---@field private _onFull fun() called when the socket takes no more
---@field private _prepare userdata libuv runs it before it waits
---@field private _began boolean? something is deferred
---@field private _sent integer? while the server takes datagrams: how many messages have been sent meanwhile
local Deferral = {}
Deferral.__index = Deferral

local deferral = {}

--- For an endpoint with a shared socket.
---@param endpoint userdata
---@param on_full fun() the socket takes no more: call `flush` when it can be written to
---@return dtls.Deferral
function deferral.new(endpoint, on_full)
  local self = setmetatable({ _endpoint = endpoint, _onFull = on_full, _prepare = uv.new_prepare() }, Deferral)
  self._onPrepare = function() self:finish() end
  return self
end

-- A loop that runs inside a listener, or the next turn of this one, ends it at the latest.
local function begin(self)
  if self._began or self._prepare:is_closing() then return end
  self._began = true
  self._endpoint:defer()
  self._prepare:start(self._onPrepare)
end

--- The server takes datagrams, until `finish`.
function Deferral:enter() self._sent = 0 end

--- Several datagrams come or go: what is sent from now on can leave together.
function Deferral:more() begin(self) end

--- A message was sent.
function Deferral:sent()
  if self._began then return end
  local sent = self._sent
  if sent == 0 then self._sent = 1 else begin(self) end
end

--- The turn ends.
function Deferral:finish()
  self._sent = nil
  if not self._began then return end
  self._began = nil
  handle.stop(self._prepare)
  if not self:flush() then self._onFull() end
end

--- Whether all that was deferred has left.
---@return boolean
function Deferral:flush() return self._endpoint:flush() end

--- The endpoint is closed.
---@param callback fun()
function Deferral:close(callback)
  self._began = true -- nothing is deferred any more
  handle.close(self._prepare, callback)
end

return deferral
