--- What a handshake asks the application: a server's names and stored sessions, pre-shared keys, whether a certificate is
--- good enough. Each callback runs in a coroutine of its own and may yield; the core holds the handshake meanwhile.

local core = require 'dtls.core'
local tick = require 'dtls.tick'

local questions = {}

local function pack(...) return { n = select('#', ...), ... } end

--- Runs `callback(...)` in a coroutine of its own. `answered(ok, …)` gets what pcall gives, outside of that coroutine: at
--- once when the callback does not yield, else on a later tick.
function questions.run(callback, answered, ...)
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

questions.ask_psk = {
  name = 'psk',
  ask = function(conn, subject) return conn._context.callbacks.psk(subject, conn) end,
  answer = function(conn, association, first, second)
    if first == nil then return association:answer_psk() or true end
    local identity, key = first, second
    if conn._server then identity, key = nil, first end
    if not key_is_good(key) then return nil, 'a key is a string of 1 to 512 bytes' end
    if not conn._server and (type(identity) ~= 'string' or #identity > 255 or identity:find('%z')) then
      return nil, 'an identity is a string of at most 255 bytes, without NUL, which OpenSSL cannot send'
    end
    association:answer_psk(key, identity)
    return true
  end,
  refuse = function(association) association:refuse_psk() end,
}

questions.ask_verify = {
  name = 'checkServerIdentity',
  ask = function(conn)
    return conn._context.callbacks.checkServerIdentity(conn._name, conn._association:peer_certificate(true))
  end,
  answer = function(conn, association, reason)
    if reason ~= nil and type(reason) ~= 'string' then return nil, 'it returns nil, or a string: the reason for refusal' end
    conn._refusal = reason
    if association:answer_verify(reason == nil) then
      conn._answerError = core.error('ERR_DTLS_CERTIFICATE', "the peer's certificate was refused: " .. reason, { reason = reason })
    end
    return true
  end,
  refuse = function(association) association:answer_verify(false, true) end,
}

-- The name of a hello has an identity, and its session id may have a session; server.lua knows both, and which of them failed.
questions.ask_hello = {
  ask = function(conn, name, id) return conn._server:_identify(name, id, conn) end,
  answer = function(conn, association, chosen, blob, id)
    if chosen == false then
      local name = conn.servername
      local text = name and ("there is no identity for the name '%s', which the client asked for"):format(name)
      conn._answerError = core.error('ERR_DTLS_SERVERNAME', text or 'what the client asked for is no host name', {
        reason = 'UNRECOGNIZED_NAME',
      })
      association:refuse_hello('unrecognized_name')
      return true
    end
    if chosen then conn._context = chosen end
    local ok, stale = association:answer_hello(chosen and chosen.core, blob)
    if not ok then return nil, tostring(stale) end
    if stale then conn._server:_forget(id) end
    return true
  end,
  refuse = function(association) association:refuse_hello('internal_error') end,
}

return questions
