--- The way to a server: name → address, socket, association. What comes then is connection.lua's.

local uv = require 'dtls.uv'
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
  conn:_begin(association)
  if not conn:_has(association) then return true end -- it has failed, and another address may be tried already
  local ok
  ok, err = conn:_watchDescriptor(association:fd())
  if not ok then return nil, err end
  return true
end

-- ── one address after the other ──

-- How often the first flight is repeated to an address before the next one is tried; once more in each later round, which
-- doubles the time as the waits double. OpenSSL gives up after 12.
local REPETITIONS, REPETITIONS_MAX = 2, 8

-- The last address has all the time there is; the others of this round get equal parts of it.
function Client:_share(address)
  local conn = self.conn
  conn:_limitAddress()
  if not self.addresses[1] then return end
  local sharing = 1
  for _, other in ipairs(self.addresses) do
    if other.rounds < address.rounds then sharing = sharing + 1 end
  end
  local _, left = conn:_timeLeft()
  conn:_limitAddress(left / sharing, function() return self:_leave() end)
end

-- Tries the next address.
function Client:_try()
  local conn, address = self.conn, table.remove(self.addresses, 1)
  self.address = address
  if address then
    if address.rounds == 0 then table.insert(self.tried, address) end
    address.rounds, address.outcome = address.rounds + 1, nil
    self:_share(address)
  end
  local ok, err = self:_open(address)
  if conn:_is 'closed' or self.address ~= address then return end
  if not ok then return conn:_fail(err) end
  conn:_serve()
end

-- Leaves an address that is silent; its turn comes again when all others have had theirs. One that ICMP says is refused is
-- left at once in the first round. Anybody can forge that, so later it counts as it does for a single address.
function Client:_leave()
  local conn, address = self.conn, self.address
  local answered, repetitions, err = conn:_core():answered()
  if answered then
    conn:_limitAddress()
    return false
  end
  local refused = err and address.rounds == 1
  local patience = math.min(REPETITIONS + address.rounds - 1, REPETITIONS_MAX)
  local time, left = conn:_timeLeft()
  if not refused and repetitions < patience and time > 0 or left <= 0 then return false end
  address.outcome = err and err.code or 'no answer'
  table.insert(self.addresses, address)
  conn:_letGo()
  self:_try()
  return true
end

-- Names the addresses that were tried.
function Client:_explained(err)
  if not self.tried[2] then return err end
  local shown = {}
  for i, address in ipairs(self.tried) do
    shown[i] = address.outcome and ('%s (%s)'):format(address.ip, address.outcome) or address.ip
  end
  err.message = ('%s; tried %s'):format(err.message, table.concat(shown, ', '))
  return err
end

-- What the system says of one address is no reason not to try the next, unless that address has begun to answer. It is
-- not tried again.
function Client:_retry(err)
  local conn, address = self.conn, self.address
  local is_system = err.code == 'ERR_DTLS_SYSTEM' or not err.code:find '^ERR_DTLS_'
  local association = conn:_core()
  local answered = association and association:answered()
  if not address or not is_system or answered then return false, self:_explained(err) end
  address.outcome = err.code
  if not self.addresses[1] then return false, self:_explained(err) end
  conn:_letGo()
  self:_try()
  return true
end

-- luv gives the resolver's errors by their names alone.
local lookup_failures = {
  EAI_NONAME = 'there is no such name', EAI_NODATA = 'it has no address', EAI_ADDRFAMILY = 'it has no address of that family',
  EAI_AGAIN = 'the resolver has no answer for now', EAI_FAIL = 'the resolver has failed', EAI_MEMORY = 'the resolver has no memory',
}

function Client:_start()
  local conn, options = self.conn, self.options
  local host = options.host
  if conn:_is 'closed' then return end
  if not host then return self:_try() end
  if self.hostFamily ~= 'host' then
    self.addresses[1] = { ip = host, port = options.port, rounds = 0 }
    return self:_try()
  end
  local function resolved(failed, found)
    if conn:_is 'closed' then return end
    if failed or #found == 0 then
      local why = lookup_failures[failed] or failed or 'it has no address'
      return conn:_fail(socket.failure('cannot resolve ' .. host, why, failed and failed:match '^EAI_%u+'))
    end
    for _, each in ipairs(found) do
      -- The resolver gives no interface with a link-local address (RFC 4007 §6), and without one it leads nowhere.
      if not each.addr:lower():find '^fe[89ab]%x:' then
        table.insert(self.addresses, { ip = each.addr, port = options.port, rounds = 0 })
      end
    end
    if not self.addresses[1] then
      return conn:_fail(new_error('EADDRNOTAVAIL', ('%s has link-local addresses alone: give one with its interface'):format(host)))
    end
    self:_try()
  end
  local family = options.family and (options.family == 6 and 'inet6' or 'inet')
    or options.localAddress and (socket.isV6(options.localAddress) and 'inet6' or 'inet') or nil
  local request, message, name = uv.getaddrinfo(host, nil, { socktype = 'dgram', family = family }, resolved)
  if not request then conn:_fail(socket.failure('cannot resolve ' .. host, message, name)) end
end

--- Connects to a server. Events tell how it goes: `connection`, or `error` and `close`.
---@param options dtls.ClientOptions host and port (or a connected `handle`), and what makes the context
---@param on_connection fun()? listens to `connection`
---@return dtls.Connection? conn
---@return dtls.Error? err ERR_DTLS_CONFIG, EBADF
local function open(options, on_connection)
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
  local conn = Connection.new(made, settings, nil, {
    name = name, session = own.session, retry = function(err) return self:_retry(err) end,
  })
  self.conn = conn
  self.hostFamily = names.hostFamily
  self.addresses, self.tried = {}, {} -- those to try, in turn; all that were, in the order of their first turns
  if on_connection then conn:on('connection', on_connection) end
  tick(function() self:_start() end)
  return conn
end

return { connect = open }
