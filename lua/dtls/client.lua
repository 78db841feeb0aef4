--- Clients: the names in their options, their sockets, their associations. addresses.lua finds the address that answers; what comes
--- then is connection.lua's.

local uv = require 'dtls.uv'
local addresses = require 'dtls.addresses'
local arguments = require 'dtls.arguments'
local core = require 'dtls.core'
local context = require 'dtls.context'
local failure = require('dtls.options').failure
local Connection = require 'dtls.connection'
local socket = require 'dtls.socket'
local tick = require 'dtls.tick'

local new_error = core.error

-- The name that an option gives, as it is asked for and checked, and its family: 'host', 'inet' or 'inet6'.
local function name_of(option, text)
  local name, family = core.name(text)
  if name then return name, family end
  local shown = text:find '[%z\1-\31\127]' and option or ("%s '%s'"):format(option, text)
  return failure(('%s: %s'):format(shown, family.message))
end

-- The name to ask for and to check, and the family of the host.
local function names_of(own)
  local names, families = {}, {}
  for _, option in ipairs { 'host', 'servername', 'hostname', 'localAddress' } do
    local text = own[option]
    if text and (text ~= '' or option == 'host' or option == 'localAddress') then
      local name, family = name_of(option, text)
      if not name then return nil, family end
      names[option], families[option] = name, family
    end
  end
  if families.localAddress == 'host' then return failure 'localAddress: this is not an IP address' end
  local option = own.servername and 'servername' or own.hostname and 'hostname' or 'host'
  return { name = names[option], hostFamily = families.host } -- no name: no SNI
end

-- What a client's Connection needs beside itself.
local Client = {}
Client.__index = Client

-- ── sockets: each has close(callback) ──

-- A socket of our own.
local function new_socket(options, address)
  local udp, err = socket.new(address.ip)
  if not udp then return nil, err end
  local ok = true
  if options.udpTTL or options.recvBufferSize or options.sendBufferSize then
    ok, err = core.configure_socket(core.fd(udp), {
      ttl = options.udpTTL, receive_buffer = options.recvBufferSize, send_buffer = options.sendBufferSize,
    })
  end
  if ok and (options.localAddress or options.localPort) then
    local any = socket.isV6(address.ip) and '::' or '0.0.0.0'
    ok, err = socket.bind(udp, options.localAddress or any, options.localPort or 0)
  end
  if ok then ok, err = socket.connect(udp, address.ip, address.port) end
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
    local ok, err = socket.connect(udp, address.ip, address.port)
    if not ok then return nil, err end
  end
  local peer = udp:getpeername()
  return udp, {
    is_closing = function() return false end,
    close = function(_, callback)
      -- What has another peer is no longer what we connected: its descriptor was closed and has come back as another socket.
      local at = not connected and not udp:is_closing() and udp:getpeername()
      if at and at.ip == peer.ip and at.port == peer.port then
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
  local udp, closer
  if self.handle then udp, closer = given_socket(self.handle, address) else udp, closer = new_socket(self.options, address) end
  if not udp then return nil, closer end
  conn:_useSocket(closer)
  local fd, err = core.fd(udp)
  if not fd then return nil, err end
  local association
  association, err = core.client(self.context.core, fd, {
    servername = self.name, check_name = self.context.checksName, session = self.options.session, duplicate = self.handle ~= nil,
    take_others = conn:_wantsOthers(),
  })
  if not association then return nil, err end
  association:set_owner(conn)
  conn:_begin(association)
  if not conn:_has(association) then return true end -- it has failed, and another address may be tried already
  local ok
  ok, err = conn:_watchDescriptor(association:fd())
  if not ok then return nil, err end
  return true
end

--- Connects to a server. Events tell how it goes: `connection`, or `error` and `close`.
---@param options dtls.ClientOptions host and port (or a connected `handle`), and what makes the context
---@param on_connection fun()? listens to `connection`
---@return dtls.Connection? conn
---@return dtls.Error? err ERR_DTLS_CONFIG, EBADF
local function connect(options, on_connection)
  arguments.callback('connect', on_connection, 'onConnection')
  local made, settings, own = context.resolve('client', options)
  if not made then return nil, settings end
  local handle = own.handle
  if handle then
    local err
    handle, err = socket.given(handle)
    if not handle then return nil, err end
    for _, option in ipairs { 'localAddress', 'localPort', 'udpTTL', 'recvBufferSize', 'sendBufferSize' } do
      if own[option] then return failure(option .. ': a handle of yours has its own') end
    end
  end
  if (own.host == nil) ~= (own.port == nil) then return failure('host and port come together') end
  if not own.host and not handle then return failure('a client needs host and port, or handle') end
  local names, wrong = names_of(own)
  if not names then return nil, wrong end
  local name = names.name
  if made.checksName and made.rejects and not name then
    return failure('servername: there is no name to check the certificate against')
  end
  uv.update_time() -- the loop's clock stands still while the caller works, and the deadline would be that much too short
  local self = setmetatable({ context = made, options = own, handle = handle, name = name }, Client)
  local way = addresses.new(own, names.hostFamily, function(address) return self:_open(address) end)
  local conn = Connection.new(made, settings, nil, {
    name = name, session = own.session, retry = function(err) return way:retry(err) end,
  })
  self.conn = conn
  way:of(conn)
  if on_connection then conn:on('connection', on_connection) end
  tick(function() way:start() end)
  return conn
end

return { connect = connect }
