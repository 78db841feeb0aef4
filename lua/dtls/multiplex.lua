--- Datagrams of other protocols on the port of a server or a connection (RFC 7983): methods of both classes.

local arguments = require 'dtls.arguments'
local Emitter = require 'dtls.emitter'

--- A class that has them has `_source()`: the core's object that such datagrams come from, nil while there is none.
local Multiplex = {}

--- The Emitter's `on`, after which the core passes on what there is a listener for.
function Multiplex:on(name, callback)
  arguments.event('on', name)
  arguments.listener('on', callback)
  Emitter.on(self, name, callback)
  if name == 'datagram' then self:_askForDatagrams() end
  return self
end

function Multiplex:_askForDatagrams()
  self._takesOthers = self:listenerCount 'datagram' > 0
  local source = self:_source()
  if source then source:take_others(self._takesOthers) end
end

--- One that has come; when nobody listens any more it is dropped, and so are those after it.
function Multiplex:_datagram(data, address)
  if self:listenerCount 'datagram' == 0 then return self:_askForDatagrams() end
  self:fire('datagram', data, address)
end

return Multiplex
