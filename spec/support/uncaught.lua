--- Keeps the errors of listeners, which otherwise are printed: they go to luvit's process object when it listens.

local emitter = require 'dtls.emitter'

local globals = getfenv(emitter.protect)._G

local uncaught = {}

--- From now on; returns the list of their texts.
function uncaught.keep()
  local texts = {}
  globals.process = {
    listenerCount = function() return 1 end,
    emit = function(_, _, err) texts[#texts + 1] = emitter.errorText(err) end,
  }
  return texts
end

function uncaught.release() globals.process = nil end

return uncaught
