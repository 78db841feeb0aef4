--- What a handshake asks the application: a server's names and stored sessions, pre-shared keys, whether a certificate is
--- good enough. Each callback runs in a coroutine of its own and may yield; the core suspends the handshake meanwhile.

local core = require 'dtls.core'
local tick = require 'dtls.tick'

local callbacks = {}

local function pack(...) return { n = select('#', ...), ... } end

--- Runs `callback(...)` in a coroutine of its own. `answered(ok, …)` gets what pcall gives, outside of that coroutine: at
--- once when the callback does not yield, else on a later tick.
function callbacks.run(callback, answered, ...)
  local results
  local at_once = true
  local thread = coroutine.create(function(...)
    results = pack(pcall(callback, ...))
    if not at_once then tick(answered, unpack(results, 1, results.n)) end
  end)
  assert(coroutine.resume(thread, ...))
  at_once = false
  if results then return answered(unpack(results, 1, results.n)) end
end

-- For each kind of the core's: `ask(conn, …)` runs as a callback; `answer(conn, association, …)` takes what it returned,
-- and gives nil and a sentence when that cannot be; `refuse(association)` ends the handshake with an alert. `name` goes
-- before the text of an error.

local function key_is_good(key)
  return type(key) == 'string' and #key >= 1 and #key <= 512
end

callbacks.ask_psk = {
  name = 'psk',
  ask = function(conn, subject) return conn:_application().psk(subject, conn) end,
  answer = function(conn, association, first, second)
    if first == nil then return association:answer_psk() or true end
    local identity, key = first, second
    local isClient = not conn:_ofServer()
    if not isClient then identity, key = nil, first end
    if not key_is_good(key) then return nil, 'a key is a string of 1 to 512 bytes' end
    if isClient and (type(identity) ~= 'string' or #identity > 255 or identity:find('%z')) then
      return nil, 'an identity is a string of at most 255 bytes, without NUL, which OpenSSL cannot send'
    end
    association:answer_psk(key, identity)
    return true
  end,
  refuse = function(association) association:refuse_psk() end,
}

callbacks.ask_verify = {
  name = 'checkServerIdentity',
  ask = function(conn)
    return conn:_application().checkServerIdentity(conn:_expectedName(), conn:getPeerCertificate(true))
  end,
  answer = function(conn, association, reason)
    if reason ~= nil and type(reason) ~= 'string' then return nil, 'it returns nil, or a string: the reason for refusal' end
    local ends = association:answer_verify(reason == nil)
    local err = ends and core.error('ERR_DTLS_CERTIFICATE', "the peer's certificate was refused: " .. reason, { reason = reason })
    conn:_refused(err, reason)
    return true
  end,
  refuse = function(association) association:answer_verify(false, true) end,
}

-- The name of a hello has an identity, and its session id may have a session; server.lua knows both, and which of them failed.
callbacks.ask_hello = {
  ask = function(conn, name, id) return conn:_ofServer():_identify(name, id, conn) end,
  answer = function(conn, association, chosen, blob, id)
    if chosen == false then
      local name = conn.servername
      local text = name and ("there is no identity for the name '%s', which the client asked for"):format(name)
      conn:_refused(core.error('ERR_DTLS_SERVERNAME', text or 'what the client asked for is no host name', {
        reason = 'UNRECOGNIZED_NAME',
      }))
      association:refuse_hello('unrecognized_name')
      return true
    end
    if chosen then conn:_useContext(chosen) end
    local ok, stale = association:answer_hello(chosen and chosen.core, blob)
    if not ok then return nil, tostring(stale) end
    if stale then conn:_ofServer():_forget(id) end
    return true
  end,
  refuse = function(association) association:refuse_hello('internal_error') end,
}

return callbacks
