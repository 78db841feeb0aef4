--- luv's UDP handles as both roles need them: new ones, the caller's, and luv's failures as error objects.

local uv = require 'dtls.uv'
local core = require 'dtls.core'

local socket = {}

--- Whether a text that is an IP address is one of IPv6.
function socket.isV6(ip)
  return ip:find(':', 1, true) ~= nil
end

--- A dtls.Error of luv's message and name ('EADDRINUSE'); `what` could not be done.
function socket.failure(what, message, name)
  message = tostring(message)
  return core.error(name or message:match '^(%u[%u_]+):' or 'ERR_DTLS_SYSTEM', ('%s: %s'):format(what, (message:gsub('^%u[%u_]+: ', ''))))
end

--- A new UDP handle with a socket for the family of `ip`.
function socket.new(ip)
  local udp, message, name = uv.new_udp(socket.isV6(ip) and 'inet6' or 'inet')
  if udp then return udp end
  return nil, socket.failure('cannot make a socket', message, name)
end

-- luv raises for what is not an IP address.
local function call(method, what, udp, ip, port, ...)
  -- luv would take what is before it.
  if ip:find '%z' then return nil, core.error('EINVAL', ('cannot %s: there is a NUL in the IP address'):format(what)) end
  local called, ok, message, name = pcall(udp[method], udp, ip, port, ...)
  if not called then ok, message, name = nil, 'this is not an IP address', 'EINVAL' end
  if ok then return true end
  return nil, socket.failure(('cannot %s %s port %d'):format(what, ip, port), message, name)
end

function socket.bind(udp, ip, port, options) return call('bind', 'bind', udp, ip, port, options) end

function socket.connect(udp, ip, port) return call('connect', 'connect to', udp, ip, port) end

--- The handle of the caller's, or in his dgram socket. Raises for anything else.
---@return userdata? udp
---@return dtls.Error? err EBADF: closed, or without a socket
function socket.given(value)
  local fd, err = core.fd(value)
  if not fd then return nil, err end
  return type(value) == 'table' and value._handle or value
end

return socket
