--- Which identity a server shows to whom, and which sessions it has stored: the options sni, SNICallback and sessionStore.

local core = require 'dtls.core'
local callbacks = require 'dtls.callbacks'
local context = require 'dtls.context'
local Emitter = require 'dtls.emitter'
local sni = require 'dtls.sni'

---@class dtls.Identities
local Identities = {}
Identities.__index = Identities

local identities = {}

--- Of one server.
---@param own {sni: table?, SNICallback: function?, sessionStore: table?} sni: as sni.compile gives it
---@param failed fun(err: dtls.Error) gets what the store's set or remove fails with: no connection depends on it
---@return dtls.Identities
function identities.new(own, failed)
  return setmetatable({ _sni = own.sni, _choose = own.SNICallback, _store = own.sessionStore, _failed = failed, _ids = {} }, Identities)
end

-- What pcall gave of the callback of that name, whose error then says which one it was.
local function passed(name, ok, ...)
  if not ok then error(name .. ': ' .. Emitter.errorText(...), 0) end
  return ...
end

-- The context of a name; nil: the server's own; false: refused. May yield.
local function context_of(self, name, conn)
  if name == false and (self._sni or self._choose) then return false end -- it is no host name
  if self._sni then return name and sni.find(self._sni, name) end
  if not self._choose then return nil end
  local answer = passed('SNICallback', pcall(self._choose, name, conn))
  if answer == nil or answer == false then return answer end
  local made, err = passed('SNICallback', pcall(context.coerce, '', 'server', answer, 0))
  return made or error('SNICallback: ' .. err.message, 0)
end

--- What a ClientHello gets: its context (nil: the server's own, false: none), the stored session of its id, and the id. May yield.
function Identities:identify(name, id, conn)
  local chosen = context_of(self, name, conn)
  local store = self._store
  if not (store and id) or chosen == false then return chosen end
  local blob = passed('sessionStore.get', pcall(store.get, id))
  if blob ~= nil and type(blob) ~= 'string' then error('sessionStore.get: expected the blob or nil, got ' .. type(blob), 0) end
  return chosen, blob, id
end

-- The store changes on its own time.
local function change_store(self, method, ...)
  callbacks.run(self._store[method], function(ok, err)
    if not ok then self._failed(core.error('ERR_DTLS_CALLBACK', ('sessionStore.%s: %s'):format(method, Emitter.errorText(err)))) end
  end, ...)
end

--- A session must not be resumed any more.
function Identities:forget(id)
  change_store(self, 'remove', id)
end

--- A connection's handshake is complete: its session is stored, if it is a new one.
---@param conn dtls.Connection
---@param association userdata
function Identities:opened(conn, association)
  if not self._store then return end
  local id, blob = association:session()
  self._ids[conn] = id
  if id and not conn:isSessionReused() then change_store(self, 'set', id, blob) end
end

--- A connection is over. RFC 5246 §7.2.2: a fatal alert, sent or received, ends the session, too.
function Identities:lost(conn, code)
  local id = self._ids[conn]
  if not id then return end
  self._ids[conn] = nil
  if code == 'ERR_DTLS_ALERT' or code == 'ERR_DTLS_PROTOCOL' then self:forget(id) end
end

return identities
