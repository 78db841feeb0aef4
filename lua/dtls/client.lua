--- The way to a server: name → address, socket, association. What comes then is connection.lua's.

local uv = require 'luv'
local core = require 'dtls.core'
local context = require 'dtls.context'
local Connection = require 'dtls.connection'
local tick = require 'dtls.tick'

local new_error = core.error

-- The next address of a name is tried after these.
local unreachable = { ECONNREFUSED = true, EHOSTUNREACH = true, ENETUNREACH = true, EADDRNOTAVAIL = true, EAFNOSUPPORT = true }

local function luv_error(what, message, name)
  name = name or tostring(message):match('^(%u[%u_]+):')
  return new_error(name or 'ERR_DTLS_SYSTEM', ('%s: %s'):format(what, tostring(message):gsub('^%u[%u_]+: ', '')))
end

local function is_ip(host)
  return host:find(':', 1, true) ~= nil or host:find('^%d+%.%d+%.%d+%.%d+$') ~= nil
end

-- luv raises for what is not an IP address.
local function with_address(method, udp, ip, port)
  local called, ok, message, name = pcall(method, udp, ip, port)
  if called then return ok, message, name end
  return nil, ip .. ' is not an IP address', 'EINVAL'
end

-- What a client's Connection needs beside itself.
local Client = {}
Client.__index = Client

-- ── sockets: each has close(callback) ──

local function connect(udp, address)
  local ok, message, name = with_address(udp.connect, udp, address.ip, address.port)
  if ok then return udp end
  return nil, luv_error(('cannot connect to %s port %d'):format(address.ip, address.port), message, name)
end

-- A socket of our own.
local function new_socket(options, address)
  local v6 = address.ip:find(':', 1, true) ~= nil
  local udp, message, name = uv.new_udp(v6 and 'inet6' or 'inet')
  if not udp then return nil, luv_error('cannot make a socket', message, name) end
  local ok, err = true, nil
  if options.localAddress or options.localPort then
    ok, message, name = with_address(udp.bind, udp, options.localAddress or (v6 and '::' or '0.0.0.0'), options.localPort or 0)
    if not ok then err = luv_error('cannot bind the local address', message, name) end
  end
  if ok then ok, err = connect(udp, address) end
  if ok then return udp, udp end
  udp:close()
  return nil, err
end

-- The caller's handle, connected unless it is already. It is handed back as it was.
local function given_socket(udp, address)
  if udp:is_closing() then return nil, new_error('EBADF', 'the UDP handle is closed') end -- libuv would abort
  udp:recv_stop()
  local connected = udp:getpeername() ~= nil
  if connected and address then return nil, new_error('EISCONN', 'the handle is connected already: give no host and port with it') end
  if not connected and not address then return nil, new_error('EDESTADDRREQ', 'the handle is not connected: give host and port with it') end
  local own = udp:getsockname()
  if not connected then
    local ok, err = connect(udp, address)
    if not ok then return nil, err end
  end
  return udp, {
    close = function(_, callback)
      if not connected and not udp:is_closing() then
        udp:connect(nil, nil)
        -- With the peer Linux takes away a port that it had chosen itself.
        if own and own.port ~= 0 and udp:getsockname().port ~= own.port then udp:bind(own.ip, own.port) end
      end
      tick(callback)
    end,
  }
end

-- ── the association ──

function Client:_open(address)
  local conn = self.conn
  local udp, socket
  if self.handle then udp, socket = given_socket(self.handle, address) else udp, socket = new_socket(self.options, address) end
  if not udp then return nil, socket end
  conn._socket = socket
  local fd, err = core.fd(udp)
  if not fd then return nil, err end
  local association
  association, err = core.client(self.context.core, fd, self.name)
  if not association then return nil, err end
  conn:_begin(association)
  if conn._state == 'closed' then return true end
  local ok
  ok, err = conn:_watchDescriptor(fd)
  if not ok then return nil, err end
  return true
end

-- Tries one address after the other until one is not refused at once.
function Client:_try()
  local conn = self.conn
  local ok, err = self:_open(table.remove(self.addresses, 1))
  if conn._state == 'closed' then return end
  if not ok then return conn:_fail(err) end
  conn:_serve()
end

function Client:_retry(err)
  if not (self.addresses[1] and unreachable[err.code]) then return false end
  self.conn:_letGo()
  self:_try()
  return true
end

function Client:_start()
  local conn, options = self.conn, self.options
  local host = options.host
  if conn._state == 'closed' then return end
  self.addresses = {}
  if not host then return self:_try() end
  if is_ip(host) then
    self.addresses[1] = { ip = host, port = options.port }
    return self:_try()
  end
  local function resolved(failed, found)
    if conn._state == 'closed' then return end
    if failed or #found == 0 then
      return conn:_fail(luv_error('cannot resolve ' .. host, failed or 'it has no address', failed and failed:match '^EAI_%u+'))
    end
    for i, each in ipairs(found) do self.addresses[i] = { ip = each.addr, port = options.port } end
    self:_try()
  end
  local family = options.localAddress and (options.localAddress:find(':', 1, true) and 'inet6' or 'inet') or nil
  local request, message, name = uv.getaddrinfo(host, nil, { socktype = 'dgram', family = family }, resolved)
  if not request then conn:_fail(luv_error('cannot resolve ' .. host, message, name)) end
end

local function config_error(message)
  return nil, new_error('ERR_DTLS_CONFIG', message)
end

--- Connects to a server. Events tell how it goes: `connection`, or `error` and `close`.
---@param options table host and port (or a connected `handle`), and what makes the context
---@param on_connection fun()? listens to `connection`
---@return dtls.Connection? conn
---@return dtls.Error? err ERR_DTLS_CONFIG, EBADF
local function open(options, on_connection)
  local made, settings, own = context.resolve('client', options)
  if not made then return nil, settings end
  local handle = own.handle
  if handle then
    local fd, err = core.fd(handle)
    if not fd then return nil, err end
    handle = type(handle) == 'table' and handle._handle or handle
    if own.localAddress or own.localPort then return config_error('localAddress and localPort are the handle\'s') end
  end
  if (own.host == nil) ~= (own.port == nil) then return config_error('host and port come together') end
  if not own.host and not handle then return config_error('a client needs host and port, or handle') end
  local name = own.servername or own.hostname or own.host
  if made.checksName and not name then return config_error('servername: there is no name to check the certificate against') end
  local conn = Connection.new(settings)
  local self = setmetatable({ conn = conn, context = made, options = own, handle = handle, name = name }, Client)
  conn._retry = function(err) return self:_retry(err) end
  if on_connection then conn:on('connection', on_connection) end
  tick(function() self:_start() end)
  return conn
end

return { connect = open }
