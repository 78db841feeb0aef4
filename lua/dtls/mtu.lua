--- How long datagrams and messages of one connection may be: methods of a Connection.

local arguments = require 'dtls.arguments'
local options = require 'dtls.options'

--- A class that has them has `_core()`, its core object, and `_set(method, …)` and `_get(method)`, which call that object.
---@class dtls.Mtu
local Mtu = {}

--- The longest message that fits one datagram; 0 before the handshake has chosen a suite (DTLS_get_data_mtu).
---@return integer bytes
function Mtu:getDataMtu()
  local association = self:_core()
  return association and association:data_mtu() or 0
end

--- What caps the UDP payload of every datagram: what was set last, or less, where the path has said that it takes less. As
--- long as a client has no socket, `linkMtu` is counted for IPv4.
---@return integer? bytes nil when it has closed
---@return dtls.Error? err ENOTCONN
function Mtu:getMtu() return self:_get 'mtu' end

--- Caps the UDP payload of every datagram from now on (SSL_set_mtu).
---@param bytes integer
---@return true? ok
---@return dtls.Error? err ERR_DTLS_CONFIG: out of range; ENOTCONN: it has closed
function Mtu:setMtu(bytes)
  local good, err = arguments.check('setMtu', 'bytes', options.settings.mtu, bytes)
  if not good then return nil, err end
  return self:_set('set_mtu', good)
end

--- Caps the IP packet, headers included, of every datagram from now on (DTLS_set_link_mtu).
---@param bytes integer
---@return true? ok
---@return dtls.Error? err ERR_DTLS_CONFIG: out of range; ENOTCONN: it has closed
function Mtu:setLinkMtu(bytes)
  local good, err = arguments.check('setLinkMtu', 'bytes', options.settings.linkMtu, bytes)
  if not good then return nil, err end
  return self:_set('set_link_mtu', good)
end

--- The smallest link MTU that OpenSSL works with (DTLS_get_link_min_mtu).
---@return integer? bytes nil before a client has a socket, and when closed
function Mtu:getLinkMinMtu()
  local association = self:_core()
  return association and association:link_min_mtu()
end

--- The MTU of the options, for an association or the draft of one.
---@param association userdata
---@param settings table what context.resolve gave
---@return true? ok
---@return dtls.Error? err ERR_DTLS_CONFIG
local function limit(association, settings)
  if settings.linkMtu then return association:set_link_mtu(settings.linkMtu) end
  return association:set_mtu(settings.mtu)
end

return { methods = Mtu, limit = limit }
