--- For how long nothing has come from a peer, or neither come nor gone, and when its connection says so.

local uv = require 'dtls.uv'

local max = math.max

---@alias dtls.SilenceEvent 'timeout'|'receiveTimeout'

---@class dtls.Silence
---@field private _timer userdata the connection's, which is its handshake's before
---@field private _onTimer fun() what the timer calls, and what calls `timedOut`
---@field private _announce fun(event: dtls.SilenceEvent): boolean whether the connection is still open after it
---@field private _begun boolean
---@field private _limits table<dtls.SilenceEvent, integer> ms
---@field private _since table<dtls.SilenceEvent, number> ms of the loop's clock
---@field private _announced table<dtls.SilenceEvent, boolean> since then
local Silence = {}
Silence.__index = Silence

local silence = { EVENTS = { 'timeout', 'receiveTimeout' } }

--- Without limits, and not begun.
---@param timer userdata
---@param on_timer fun()
---@param announce fun(event: dtls.SilenceEvent): boolean
---@return dtls.Silence
function silence.new(timer, on_timer, announce)
  return setmetatable({
    _timer = timer, _onTimer = on_timer, _announce = announce, _begun = false, _limits = {}, _since = {}, _announced = {},
  }, Silence)
end

-- How long until there is something to announce, if the silence lasts. nil: there never is.
local function left(self, now)
  local least
  for event, limit in pairs(self._limits) do
    local wait = self._since[event] + limit - now
    if not self._announced[event] and (not least or wait < least) then least = wait end
  end
  return least
end

local function await(self, now)
  local wait = left(self, now)
  if wait then self._timer:start(max(wait, 1), 0, self._onTimer) else self._timer:stop() end
end

--- How long this kind of silence may be: from now on, or from `begin` on.
---@param event dtls.SilenceEvent
---@param ms integer 0: without end
function Silence:limit(event, ms)
  local now = uv.now()
  self._limits[event] = ms > 0 and ms or nil
  self._since[event], self._announced[event] = now, nil
  if self._begun then await(self, now) end
end

--- The handshake is complete: every silence begins, and the timer is this object's.
function Silence:begin()
  local now = uv.now()
  for event in pairs(self._limits) do self._since[event] = now end
  self._begun = true
  await(self, now)
end

-- True when one that was announced has ended, so that the timer has to run again.
local function broken(self, event, now)
  local announced = self._announced[event]
  self._since[event], self._announced[event] = now, nil
  return announced
end

--- A message has come.
---@param now number ms of the loop's clock
function Silence:heard(now)
  local any = broken(self, 'timeout', now)
  if broken(self, 'receiveTimeout', now) or any then await(self, now) end
end

--- A message has gone.
---@param now number ms of the loop's clock
function Silence:spoke(now)
  if broken(self, 'timeout', now) then await(self, now) end
end

-- What is to be announced now, each once.
local function due(self, now)
  for event, limit in pairs(self._limits) do
    if not self._announced[event] and self._since[event] + limit <= now then
      self._announced[event] = true
      return event
    end
  end
end

--- The timer has run: announces what is due.
function Silence:timedOut()
  local event = due(self, uv.now())
  while event do
    if not self._announce(event) then return end
    event = due(self, uv.now())
  end
  await(self, uv.now())
end

return silence
