--- How long to wait before a flight is repeated (DTLS_set_timer_cb, RFC 6347 §4.2.4.1): a number, which libssl doubles, or a
--- function of the application's. libssl wants to know an interval when the one before it ends, so the function is asked one ahead.

local core = require 'dtls.core'
local Emitter = require 'dtls.emitter'

local floor, max, min = math.floor, math.max, math.min

local MAX = 60000 -- ms

---@class dtls.Retransmit
local Retransmit = {}
Retransmit.__index = Retransmit

local retransmit = {}

--- For the flights of one connection.
---@param wait integer|function|nil the option retransmitTimeout
---@param conn dtls.Connection whose handshake the function may end
---@return dtls.Retransmit
function retransmit.new(wait, conn)
  return setmetatable({ _wait = wait, _conn = conn, _next = false, _repeats = false }, Retransmit)
end

-- What the function answers, within what libssl can do. nil, err: it has failed.
local function ask(self, previous)
  if type(self._wait) == 'number' then return previous > 0 and min(previous * 2, MAX) or self._wait end
  self._asking = true
  local ok, wait = pcall(self._wait, previous)
  self._asking = nil
  if ok and type(wait) == 'number' and wait == wait then return min(max(floor(wait), 1), MAX) end
  return nil, core.error('ERR_DTLS_CALLBACK', 'retransmitTimeout: ' .. (ok and 'did not return a number' or Emitter.errorText(wait)))
end

local function plan(self, association)
  local wait, following, err = self._next, nil, nil
  if not wait then wait, err = ask(self, 0) end
  if wait then following, err = ask(self, wait) end
  if not following then return nil, err end
  if not self._conn:_is 'handshaking' then return true end
  self._next = following
  association:set_retransmit(wait, following)
  return true
end

--- Another wait from now on. True: the association is to use it at once, and does not wait for an answer of the old one.
function Retransmit:set(wait)
  self._wait = wait
  return not self._asking
end

--- The association waits so long, from the first interval on.
---@return true? ok
---@return dtls.Error? err ERR_DTLS_CALLBACK
function Retransmit:use(association)
  self._next, self._repeats = false, false
  if type(self._wait) == 'function' then
    self._repeats = association:stats().retransmits
    return plan(self, association)
  end
  if self._wait then association:set_retransmit(self._wait, 0) end
  return true
end

--- libssl may have repeated a flight in any call: then the next interval is planned.
---@return true? ok
---@return dtls.Error? err ERR_DTLS_CALLBACK
function Retransmit:follow(association)
  if not self._repeats then return true end
  local repeats = association:stats().retransmits
  if repeats <= self._repeats then return true end
  self._repeats = repeats
  return plan(self, association)
end

return retransmit
