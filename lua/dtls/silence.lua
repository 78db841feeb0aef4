--- For how long nothing has come from a peer, or neither come nor gone, and when its connection says so. Knows times alone;
--- the connection keeps the timer.

---@alias dtls.SilenceEvent 'timeout'|'receiveTimeout'

---@class dtls.Silence
---@field private _limits table<dtls.SilenceEvent, integer> ms
---@field private _since table<dtls.SilenceEvent, number> ms of the loop's clock
---@field private _announced table<dtls.SilenceEvent, boolean> since then
local Silence = {}
Silence.__index = Silence

local silence = {}

--- Without limits.
function silence.new()
  return setmetatable({ _limits = {}, _since = {}, _announced = {} }, Silence)
end

--- How long this kind of silence may be, from now on.
---@param event dtls.SilenceEvent
---@param ms integer 0: without end
---@param now number ms of the loop's clock
function Silence:limit(event, ms, now)
  self._limits[event] = ms > 0 and ms or nil
  self._since[event], self._announced[event] = now, nil
end

-- True when one that was announced has ended, so that somebody has to wait for the next one.
local function broken(self, event, now)
  local announced = self._announced[event]
  self._since[event], self._announced[event] = now, nil
  return announced
end

--- A message has come.
---@return boolean? rearm call left() again
function Silence:heard(now)
  local any = broken(self, 'timeout', now)
  return broken(self, 'receiveTimeout', now) or any
end

--- A message has gone.
---@return boolean? rearm call left() again
function Silence:spoke(now)
  return broken(self, 'timeout', now)
end

--- How long until there is something to announce, if the silence lasts.
---@return number? ms nil: never
function Silence:left(now)
  local least
  for event, limit in pairs(self._limits) do
    local left = self._since[event] + limit - now
    if not self._announced[event] and (not least or left < least) then least = left end
  end
  return least
end

--- What is to be announced now, each once.
---@return dtls.SilenceEvent? event
function Silence:due(now)
  for event, limit in pairs(self._limits) do
    if not self._announced[event] and self._since[event] + limit <= now then
      self._announced[event] = true
      return event
    end
  end
end

return silence
