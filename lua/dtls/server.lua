--- A DTLS server: listens, meets new peers, ends. One UDP socket and one core endpoint.

local uv = require 'dtls.uv'
local core = require 'dtls.core'
local admission = require 'dtls.admission'
local arguments = require 'dtls.arguments'
local context = require 'dtls.context'
local deferral = require 'dtls.deferral'
local options = require 'dtls.options'
local Connection = require 'dtls.connection'
local Emitter = require 'dtls.emitter'
local handle = require 'dtls.handle'
local identities = require 'dtls.identities'
local multiplex = require 'dtls.multiplex'
local sni = require 'dtls.sni'
local socket = require 'dtls.socket'
local tick = require 'dtls.tick'

local new_error = core.error

local BUDGET = 128 -- datagrams taken of the server's socket, or of its peers', before other handles of the loop get their turn
local DEFAULT_DEMUX = 'shared' -- doc/performance.md says why
-- One socket takes in the hellos of everybody, so it asks for room; the kernel caps it.
local DEFAULT_RECEIVE_BUFFER = 4 * 1024 * 1024

--- Events: `listening`, `accept(conn)`, `connection(conn)`, `clientError(err, conn)`, `datagram(data, address)`,
--- `keylog(line, conn)`, `error(err)`, `close`.
---@class dtls.Server: dtls.Emitter
---@field private _endpoint userdata? the core's object while listening
local Server = Emitter:extend()
for name, method in pairs(multiplex) do Server[name] = method end

--- A server, not yet listening.
---@param all dtls.ServerOptions
---@param on_connection fun(conn: dtls.Connection)? listens to `connection`
---@return dtls.Server? server
---@return dtls.Error? err ERR_DTLS_CONFIG
local function create(all, on_connection)
  arguments.callback('createServer', on_connection, 'onConnection')
  local made, settings, own, given = context.resolve('server', all)
  if not made then return nil, settings end
  if own.sni and own.SNICallback then return options.failure('sni and SNICallback answer the same question: give one') end
  if own.sni then
    local names, err = sni.compile(own.sni)
    if not names then return nil, err end
    own.sni = names
  end
  local self = setmetatable({
    _context = made, _settings = settings, _given = given, _options = own,
    _state = 'new',
    _unclosed = 0,                  -- connections whose handles are not closed
    _admission = admission.new(own, function(conn, err) conn:_fail(err) end),
    _counts = {
      accepted = 0, connections = 0, handshakesFailed = 0, handshakesTimedOut = 0, evicted = 0, refused = 0, replaced = 0,
      unhandledErrors = 0,
    },
  }, Server)
  self._identities = identities.new(own, function(err)
    if self:listenerCount('error') == 0 then self._counts.unhandledErrors = self._counts.unhandledErrors + 1 end
    self:fire('error', err)
  end)
  if on_connection then self:on('connection', on_connection) end
  return self
end

-- ── listening ──

local function bound_socket(own, port, host)
  local udp, err = socket.new(host)
  if not udp then return nil, err end
  local ok
  ok, err = core.configure_socket(core.fd(udp), {
    reuse_port = own.reusePort,
    receive_buffer = own.recvBufferSize or DEFAULT_RECEIVE_BUFFER,
    send_buffer = own.sendBufferSize,
    ttl = own.udpTTL,
  })
  if ok then ok, err = socket.bind(udp, host, port, { ipv6only = own.ipv6Only }) end
  if ok then return udp end
  handle.abandon(udp)
  return nil, err
end

local function given_socket(value)
  local udp, err = socket.given(value)
  if not udp then return nil, err end
  udp:recv_stop() -- it would take the datagrams, and a poll on an active handle fails
  return udp
end

function Server:_start(udp)
  local fd, err = core.fd(udp)
  if not fd then return nil, err end
  local own = self._options
  local endpoint
  endpoint, err = core.endpoint(self._context.core, fd, own.demux or DEFAULT_DEMUX, {
    asks_hello = own.sni ~= nil or own.SNICallback ~= nil or own.sessionStore ~= nil, stores_sessions = own.sessionStore ~= nil,
    duplicate = not self._ownsUdp, receive_buffer = own.recvBufferSize, send_buffer = own.sendBufferSize,
  })
  if not endpoint then return nil, err end
  local secrets = own.cookieSecret
  if secrets then endpoint:set_cookie_secret(secrets[1], secrets[2]) end
  local poll, message, name = uv.new_poll(endpoint:fd())
  if not poll then
    endpoint:close()
    return nil, socket.failure('cannot watch the socket', message, name)
  end
  self._endpoint, self._poll, self._peersHaveSockets = endpoint, poll, own.demux == 'connected'
  self:_askForDatagrams()
  local function ready(failed, events)
    local drained = self._full and not failed and events:find('w', 1, true) and self:_makeRoom()
    self:_dispatch()
    if failed then handle.start(poll, self._awaits, ready) end
    if not drained then return end
    for conn in pairs(drained) do conn:_drained() end
  end
  self._ready = ready
  self:_await 'rp'
  return true
end

function Server:_await(events)
  if self._awaits == events then return end
  self._awaits = events
  handle.start(self._poll, events, self._ready)
end

--- listen(port[, host[, callback]]) binds a socket; listen(handle[, callback]) uses a bound luv UDP handle or dgram
--- socket, which stays the caller's and is handed back open.
---@param port integer|string|userdata|table 0: any free port, see address()
---@param host string|fun()|nil an IP address, default '0.0.0.0'
---@param callback fun()? listens to `listening`, once
---@return dtls.Server? self
---@return dtls.Error? err EADDRINUSE, EACCES, EADDRNOTAVAIL, EINVAL, …
function Server:listen(port, host, callback)
  if type(host) == 'function' then host, callback = nil, host end
  local target = arguments.insist('listen', 'port', options.portOrHandle, port)
  if host ~= nil then arguments.insist('listen', 'host', options.ofType 'string', host) end
  arguments.callback('listen', callback)
  if self._state ~= 'new' then
    return nil, new_error('ERR_DTLS_STATE', self._state == 'listening' and 'the server listens already' or 'the server is closed')
  end
  local udp, err
  if type(target) == 'number' then
    udp, err = bound_socket(self._options, target, host or '0.0.0.0')
    self._ownsUdp = true
  else
    udp, err = given_socket(target)
    self._ownsUdp = false
  end
  if not udp then return nil, err end
  local ok
  ok, err = self:_start(udp)
  if not ok then
    if self._ownsUdp then handle.abandon(udp) end
    return nil, err
  end
  self._udp, self._address = udp, udp:getsockname()
  self._state = 'listening'
  if self._unreferenced then self:unref() end
  if callback then self:once('listening', callback) end
  tick(function()
    if self._state == 'listening' then self:fire('listening') end
  end)
  return self
end

--- Where it listens, or listened.
---@return dtls.Address?
function Server:address()
  return self._address
end

-- ── peers ──

-- What comes through the server's socket, or through those of its peers: as many datagrams as a turn may have.
function Server:_dispatch(of_peers)
  local endpoint, roomy = self._endpoint, nil
  if not endpoint then return end
  deferral.enter()
  if endpoint:turn(BUDGET, of_peers) > 1 then deferral.more() end
  while self._endpoint == endpoint do
    local kind, subject, known, address = endpoint:next()
    if kind == 'read' then
      subject:_received(known, address)
    elseif kind == 'handshake' then
      subject:_serve()
    elseif kind == 'hello' then
      self:_meet(subject, known)
    elseif kind == 'datagram' then
      (subject or self):_datagram(known, address)
    elseif kind == 'room' then
      roomy = roomy or {}
      roomy[#roomy + 1] = subject
    else
      deferral.finish()
      -- What is left in the core no datagram announces; that the socket can be written to does.
      self:_await((self._full or subject) and 'rwp' or 'rp')
      for _, conn in ipairs(roomy or {}) do conn:_makeRoom() end -- listeners of `drain` may leave more in the core
      return
    end
  end
end

-- One descriptor tells of all sockets of peers; a child process has another one than its parent.
function Server:_watchPeers()
  if not self._peersHaveSockets then return true end
  local endpoint = self._endpoint
  local fd = endpoint and endpoint:peers_fd()
  if fd == self._peersFd then return true end
  if self._peersPoll then handle.close(self._peersPoll) end
  self._peersPoll, self._peersFd = nil, nil
  if not fd then return true end
  local poll, message, name = uv.new_poll(fd)
  if not poll then return nil, socket.failure('cannot watch the sockets of peers', message, name) end
  self._peersPoll, self._peersFd = poll, fd
  handle.start(poll, 'r', function()
    self:_dispatch(true)
    self:_watchPeers()
  end)
  if self._unreferenced then poll:unref() end
  return true
end

-- What a peer socket had when it was closed, in a later turn of the loop.
function Server:_awaitRequeued()
  if self._peersHaveSockets and self._endpoint and self._endpoint:has_requeued() then self:_await 'rwp' end
end

-- The socket takes datagrams: those that wait for it first. Returns the connections that have waited, if it still takes some then.
function Server:_makeRoom()
  local full = self._full
  self._full = nil
  deferral.flush()
  if not self._full then return full end
  self._full = full
end

--- The server's socket takes no datagrams of a connection's at the moment.
function Server:_awaitRoom(conn)
  if not self._endpoint then return end
  self._full = self._full or {}
  self._full[conn] = true
  self:_await 'rwp'
end

-- A peer proved its address with a cookie. Over the limits: silence.
function Server:_meet(host, known)
  local counts = self._counts
  if not self._admission:admits(host, known) then
    counts.refused = counts.refused + 1
    return
  end
  local association, displaced = self._endpoint:accept()
  if not association and self._admission:freesDescriptor(displaced) then
    if not self._endpoint then return end
    association, displaced = self._endpoint:accept()
  end
  if not association then
    counts.refused = counts.refused + 1
    if self:listenerCount('clientError') == 0 then counts.unhandledErrors = counts.unhandledErrors + 1 end
    return self:fire('clientError', displaced)
  end
  local conn = Connection.new(self._context, self._settings, self)
  association:set_owner(conn)
  conn:_attach(association)
  self:_add(conn, host)
  if displaced then displaced:_replacedBy(conn) end
  local ok, err = self:_watchPeers()
  if not ok then return conn:_fail(err) end
  self._admission:makeRoom()
  if conn:_is 'closed' then return end -- a listener of those that made room for it has closed the server
  conn:_begin(association)
  if self._unreferenced then conn:unref() end
  if conn:_is 'handshaking' then self:fire('accept', conn) end
  if conn:_is 'handshaking' then conn:_serve() end
end

function Server:_add(conn, host)
  self._admission:enter(conn, host)
  self._unclosed = self._unclosed + 1
  self._counts.accepted = self._counts.accepted + 1
end

-- ── other protocols on its port (RFC 7983) ──

--- Adds a listener. Those of `datagram` get what is not DTLS and comes from whoever has no connection.
---@overload fun(self: dtls.Server, name: 'listening', callback: fun()): dtls.Server
---@overload fun(self: dtls.Server, name: 'accept', callback: fun(conn: dtls.Connection)): dtls.Server
---@overload fun(self: dtls.Server, name: 'connection', callback: fun(conn: dtls.Connection)): dtls.Server
---@overload fun(self: dtls.Server, name: 'clientError', callback: fun(err: dtls.Error, conn: dtls.Connection?)): dtls.Server
---@overload fun(self: dtls.Server, name: 'keylog', callback: fun(line: string, conn: dtls.Connection)): dtls.Server
---@overload fun(self: dtls.Server, name: 'datagram', callback: fun(data: string, address: dtls.Address)): dtls.Server
---@overload fun(self: dtls.Server, name: 'error', callback: fun(err: dtls.Error)): dtls.Server
---@overload fun(self: dtls.Server, name: 'close', callback: fun()): dtls.Server
function Server:on(name, callback) return multiplex.on(self, name, callback) end

-- Where datagrams of other protocols come from, for multiplex.lua.
function Server:_source() return self._endpoint end

--- Sends a datagram of another protocol from the server's port: as it is, neither encrypted nor authenticated.
---@param data string its first byte is not one of 20 to 63, which are DTLS's (RFC 7983)
---@param address dtls.Address where to; what `datagram` gave is answered from the address that it came to
---@return true? ok
---@return dtls.Error? err EINVAL: DTLS's first byte, empty, or no such address; ENOTCONN: it does not listen; EMSGSIZE, EAGAIN, …
function Server:sendDatagram(data, address)
  arguments.insist('sendDatagram', 'data', options.ofType 'string', data)
  arguments.insist('sendDatagram', 'address', options.address, address)
  if not self._endpoint then return nil, new_error('ENOTCONN', 'the server does not listen') end
  local from = address.localAddress
  return self._endpoint:send_datagram(data, address.ip, address.port, from and from.ip)
end

-- ── its connections ──

--- What a ClientHello gets, see identities.lua. May yield.
function Server:_identify(name, id, conn) return self._identities:identify(name, id, conn) end

--- A session must not be resumed any more.
function Server:_forget(id) self._identities:forget(id) end

--- A connection's handshake is complete.
function Server:_opened(conn)
  self._admission:completed(conn)
  self._counts.connections = self._counts.connections + 1
  self._identities:opened(conn, conn:_core())
end

-- What the end of an unfinished handshake counts as, if not as failed.
local early_ends = {
  ERR_DTLS_HANDSHAKE_TIMEOUT = 'handshakesTimedOut', ERR_DTLS_PSK_KEY = 'handshakesTimedOut',
  ERR_DTLS_EVICTED = 'evicted', ERR_DTLS_REPLACED = 'replaced',
}

--- A connection is over; its handles are still closing.
function Server:_lost(conn, opened, err)
  self:_awaitRequeued()
  self._admission:leave(conn)
  local code = err and err.code
  local counted = err and not opened and (early_ends[code] or 'handshakesFailed') or code == 'ERR_DTLS_REPLACED' and 'replaced'
  if counted then self._counts[counted] = self._counts[counted] + 1 end
  self._identities:lost(conn, code)
end

--- Announces a connection's error as the server's, if it is.
function Server:_failed(conn, err, early, heard)
  heard = heard or (early and self:listenerCount('clientError') > 0)
  if not heard then self._counts.unhandledErrors = self._counts.unhandledErrors + 1 end
  if early then self:fire('clientError', err, conn) end
end

--- A connection's handles are closed.
function Server:_closedOne()
  self._unclosed = self._unclosed - 1
  self:_closedAll()
end

-- ── ending ──

function Server:_closedAll()
  if self._state ~= 'closing' or self._unclosed > 0 or self._handles > 0 then return end
  self._state = 'closed'
  self:fire('close')
end

function Server:_stop(each)
  if self._state ~= 'listening' then
    if self._state == 'new' then
      self._state, self._handles = 'closing', 0
      tick(function() self:_closedAll() end)
    end
    return
  end
  self._state = 'closing'
  local connections = {}
  for conn in self:connections() do connections[#connections + 1] = conn end
  for _, conn in ipairs(connections) do each(conn) end
  self._finalStats = self._endpoint:stats()
  local handles = { self._poll, self._peersPoll }
  for _, poll in ipairs(handles) do handle.stop(poll) end -- before its descriptor goes
  self._endpoint:close()
  self._endpoint = nil
  if self._ownsUdp then handles[#handles + 1] = self._udp end
  self._handles = #handles
  for _, any in ipairs(handles) do
    handle.close(any, function()
      self._handles = self._handles - 1
      self:_closedAll()
    end)
  end
end

--- No new peers; close_notify to all; `close` after the last of them has closed.
---@param callback function?
function Server:close(callback)
  arguments.callback('close', callback)
  if callback then
    if self._state == 'closed' then tick(callback) else self:once('close', callback) end
  end
  self:_stop(function(conn) conn:close() end)
end

--- Like close, without a word to the peers.
function Server:destroy()
  self:_stop(function(conn) conn:destroy() end)
end

-- ── the rest ──

--- New peers get this identity, and the connection settings that come with it; those there are keep theirs. Options are laid
--- over those in use: what is not given stays, and so does what setters have changed. A Context replaces all.
---@param value dtls.Context|table
---@return true? ok
---@return dtls.Error? err the old one stays in use
function Server:setContext(value)
  local made, err = context.overlay(self._context, value, 3)
  if not made then return nil, err end
  self._context, self._settings = made, context.settle(made.settings, self._given)
  if self._endpoint then self._endpoint:set_context(made.core) end
  return true
end

--- Cookies made with `secret` or with the previous one are good; from now on rotation is the caller's.
---@param secret string|string[] at least 32 bytes, or {current, previous}
---@return true? ok
---@return dtls.Error? err ERR_DTLS_CONFIG: too short
function Server:setCookieSecret(secret)
  local list, err = arguments.check('setCookieSecret', 'secret', options.cookieSecret, secret)
  if not list then return nil, err end
  self._options.cookieSecret = list
  if self._endpoint then return self._endpoint:set_cookie_secret(list[1], list[2]) end
  return true
end

--- Tickets are made with the current key and read with both, see Context:setTicketKeys.
---@param keys string|string[] 80 bytes, or {current, previous}
---@return true? ok
---@return dtls.Error? err ERR_DTLS_CONFIG
function Server:setTicketKeys(keys)
  return self._context:setTicketKeys(keys)
end

--- Turns new peers away, in silence and counted as `refused`, until it is told otherwise.
---@param busy boolean
---@return self
function Server:setBusy(busy)
  arguments.insist('setBusy', 'busy', options.ofType 'boolean', busy)
  self._admission:setBusy(busy)
  return self
end

--- Iterates over the connections that are handshaking or open.
---@return fun(): dtls.Connection?
function Server:connections()
  return self._admission:connections()
end

--- Counters; doc/operations.md says what each counts.
---@return dtls.ServerStats
function Server:stats()
  local stats = self._endpoint and self._endpoint:stats() or self._finalStats or { drops = {} }
  for name, value in pairs(self._counts) do stats[name] = value end
  stats.active, stats.handshaking = self._admission:counts()
  return stats
end

local function each_handle(self, method)
  for _, poll in ipairs { self._poll, self._peersPoll } do
    if not poll:is_closing() then poll[method](poll) end
  end
  for conn in self:connections() do conn[method](conn) end
  return self
end

--- Keeps the event loop alive (the default).
---@return self
function Server:ref()
  self._unreferenced = false
  return each_handle(self, 'ref')
end

--- Lets the event loop end although the server listens; covers its connections.
---@return self
function Server:unref()
  self._unreferenced = true
  return each_handle(self, 'unref')
end

arguments.methods(Server, 'Server', function(value) return getmetatable(value) == Server end, { extend = true })

return { create = create }
