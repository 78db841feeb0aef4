--- One DTLS association as an Emitter, in either role: events, timers, send, close. Its states are
--- 'connecting' (a client looks for its server) → 'handshaking' → 'open' → 'closed'.

local uv = require 'dtls.uv'
local arguments = require 'dtls.arguments'
local callbacks = require 'dtls.callbacks'
local core = require 'dtls.core'
local deferral = require 'dtls.deferral'
local Emitter = require 'dtls.emitter'
local handle = require 'dtls.handle'
local info = require 'dtls.info'
local mtu = require 'dtls.mtu'
local multiplex = require 'dtls.multiplex'
local options = require 'dtls.options'
local overrides = require 'dtls.overrides'
local retransmit = require 'dtls.retransmit'
local setters = require 'dtls.setters'
local silence = require 'dtls.silence'
local tick = require 'dtls.tick'

local new_error = core.error
local now = uv.now
local max = math.max

--- Events: `connection`, `message(data)`, `session(blob)`, `timeout`, `receiveTimeout`, `drain`,
--- `datagram(data, address)`, `keylog(line)`, `error(err)`, `close(hadError)`.
---@class dtls.Connection: dtls.Emitter, dtls.Setters, dtls.Info, dtls.Mtu
---@field destroyed boolean? true once it has ended, however it did
---@field authorized boolean whether the peer proved who it is: a good certificate, a pinned one or a pinned key, or a pre-shared key;
---  set before `connection`, false until then, kept when it has closed
---@field authorizationError string? why not: OpenSSL's and Node's name of what is wrong (HANDSHAKE_NOT_COMPLETE,
---  NO_PEER_CERTIFICATE, …), or what checkServerIdentity said
---@field servername string? the host name that the client asked for (SNI), on a server in lower case and without a final dot; as
---  every field below it is set as soon as the handshake has it, and kept when the connection has closed
---@field alpnProtocol string? the application protocol that both sides have agreed on (ALPN, RFC 7301)
---@field srtpProfile string? the SRTP profile that both sides have agreed on (RFC 5764), by OpenSSL's name. The keys:
---  exportKeyingMaterial(length, 'EXTRACTOR-dtls_srtp')
---@field pskIdentity string? who a peer with a pre-shared key is, or says to be as long as `authorized` is false
---@field extendedMasterSecret boolean whether both sides bound the master secret to the handshake (RFC 7627); it is always asked for
---@field private _association userdata? the core's object; nil before there is one and once closed
---@field private _retry (fun(err: dtls.Error): boolean, dtls.Error)? a client's: tries another address, or tells of all
---@field private _overrides dtls.Overrides|false a client's, until it is open: what its setters were told
---@field private _silence dtls.Silence|false false as long as no silence has a limit
---@field private _leave (fun(): boolean)|false|nil a client's: leaves a silent address for another one
---@field private _patience number|false|nil the time at which _leave leaves it at the latest
---@field private _poll userdata|false a client's, of its socket; a server has one for all
local Connection = Emitter:extend()
for _, methods in ipairs { setters, info, mtu.methods, multiplex } do
  for name, method in pairs(methods) do Connection[name] = method end
end

--- For server.lua and client.lua.
---@param made dtls.Context
---@param settings table what context.resolve gave
---@param server dtls.Server?
---@param client {name: string?, session: string?, retry: fun(err: dtls.Error): boolean, dtls.Error}? of a client: the name that its
---  server's certificate must have, what it resumes, and what tries another address
function Connection.new(made, settings, server, client)
  local time = now()
  -- A table that is made with its fields has its final size at once; what is false here need not be looked up in the class.
  local self = setmetatable({
    _context = made, _settings = settings, _server = server, _state = 'connecting',
    authorized = false, authorizationError = 'HANDSHAKE_NOT_COMPLETE', extendedMasterSecret = false,
    _timer = uv.new_timer(), _createdAt = time, _deadline = time + settings.handshakeTimeout,
    _closing = 0, -- handles that are being closed
    _overrides = false, _silence = false, _leave = false, _patience = false, _poll = false, _takesOthers = false, _answerError = false,
  }, Connection)
  if client then
    self._name, self._resumed, self._retry = client.name, client.session, client.retry
    self._overrides = overrides.new(made.core, settings)
  end
  if settings.retransmitTimeout then self._retransmit = retransmit.new(settings.retransmitTimeout, self) end
  deferral.join()
  self._onTimer = function() self:_timedOut() end
  if client then self._timer:start(settings.handshakeTimeout, 0, self._onTimer) end -- a server's handshake begins at once
  if settings.timeout or settings.receiveTimeout then
    for _, event in ipairs(silence.EVENTS) do
      if (settings[event] or 0) > 0 then self:_limitSilence(event, settings[event]) end
    end
  end
  return self
end

-- ── for client.lua, server.lua and callbacks.lua ──

---@param state 'connecting'|'handshaking'|'open'|'closed'
function Connection:_is(state) return self._state == state end

--- From here on whoever closes the connection closes the association, too.
function Connection:_attach(association) self._association = association end

--- Whether it has this association, and not another one or none.
function Connection:_has(association) return self._association == association end

--- A client's socket, with close(callback), which goes when the association goes.
function Connection:_useSocket(closer) self._socket = closer end

--- Whether the application listens to datagrams of other protocols.
function Connection:_wantsOthers() return self._takesOthers end

--- A client's address has so many ms; `leave()` is asked at every wait whether it is left. Without arguments: it has all there is.
function Connection:_limitAddress(ms, leave)
  self._patience, self._leave = ms and now() + ms, leave
end

--- How many ms a client's address, and the handshake, still have.
---@return number? patience
---@return number deadline
function Connection:_timeLeft()
  return self._patience and self._patience - now(), self._deadline - now()
end

--- The functions that the application has given as options.
function Connection:_application() return self._context.callbacks end

--- The server that it belongs to; nil: it is a client's.
function Connection:_ofServer() return self._server end

--- The name that the server's certificate must have.
function Connection:_expectedName() return self._name end

--- The handshake goes on with the identity of another context.
function Connection:_useContext(chosen) self._context = chosen end

--- The application says no: `err` explains the failure of the handshake that follows, `reason` why the peer is not authorized.
function Connection:_refused(err, reason)
  self._answerError, self._refusal = err, reason
end

-- ── handles ──

-- Waits until a client's socket can be read, and while something waits to be sent, until it can be written to.
local function await(self, events) handle.start(self._poll, events or self._full and 'rwp' or 'rp', self._onReady) end

local function on_ready(self, failed, events)
  local writable = not failed and events:find('w', 1, true)
  if writable then await(self, 'rp') end
  self:_readSocket()
  -- Where a pending socket error is no event of its own it fails the poll, which libuv then stops; reading has cleared it.
  if failed and self._poll then await(self) end
  if writable then self:_makeRoom() end
end

-- A client's socket is readable.
function Connection:_readSocket()
  deferral.enter()
  if self._state == 'open' then self:_received(self._association:read()) else self:_serve() end
  deferral.finish()
end

--- Starts to read a client's socket.
function Connection:_watchDescriptor(fd)
  local poll, err = uv.new_poll(fd)
  if not poll then return nil, new_error('ERR_DTLS_SYSTEM', err) end
  self._poll = poll
  self._onReady = function(failed, events) on_ready(self, failed, events) end
  await(self)
  if self._unreferenced then poll:unref() end
  return true
end

--- The peer has started over: another association has its addresses now.
---@param successor dtls.Connection
function Connection:_replacedBy(successor)
  self._successor = successor
  self:_fail(new_error('ERR_DTLS_REPLACED', 'the peer started over with a new association'))
  self._successor = nil
end

-- ── handshake ──

--- Begins the handshake of an association that can be reached through a descriptor or through the server.
function Connection:_begin(association)
  self._association = association
  self._state = 'handshaking'
  local ok, err = mtu.limit(association, self._settings)
  if ok and self._overrides then ok, err = self._overrides:apply(association) end
  if not ok then return self:_fail(err) end
  if self._retransmit then self:_waits(self._retransmit:use(association)) end
end

-- False: the application's function has failed, or has ended the handshake.
function Connection:_waits(ok, err)
  if not ok then self:_fail(err) end
  return self._state == 'handshaking'
end

-- `wait`: ms until a flight is repeated, or nil.
function Connection:_armHandshake(wait)
  if self._retransmit and not self:_waits(self._retransmit:follow(self._association)) then return end
  if self._leave and self._leave() then return end
  local left = (self._patience or self._deadline) - now()
  if wait and wait < left then left = wait end
  if left > 0 and self._polled then self._polled = nil end
  self._timer:start(max(left, 1), 0, self._onTimer) -- a timer of 0 ms would not let the loop poll
end

function Connection:_handshakeTimedOut()
  -- libuv runs timers before it looks at sockets: what came while the loop was busy may be the answer that was waited for.
  if not self._polled then
    self._polled = true
    return self._timer:start(1, 0, self._onTimer)
  end
  if now() >= self._deadline then
    local limit = self._settings.handshakeTimeout
    if self._association then return self:_fail(select(2, self._association:expired(limit))) end
    return self:_fail(new_error('ERR_DTLS_HANDSHAKE_TIMEOUT', ('no way to the server was found within %d ms'):format(limit)))
  end
  local ok, err = self._association:handle_timeout()
  if not ok then return self:_fail(err) end
  self:_armHandshake(self._association:timeout())
end

function Connection:_timedOut()
  if self._state == 'open' then self._silence:timedOut() else self:_handshakeTimedOut() end
end

function Connection:_completed()
  self._state = 'open'
  self._overrides = false -- there is no other address to try any more
  self._retransmit = nil -- an open connection repeats its last flight when the peer repeats its own, and at no other time
  self._connectedAt = now()
  self._timer:stop()
  if self.authorizationError == 'HOSTNAME_MISMATCH' then self.authorizationError = self._refusal or self.authorizationError end
  local displaced = self._association:promote()
  if displaced then displaced:_replacedBy(self) end
  if self._state ~= 'open' then return end
  if self._silence then self._silence:begin() end
  if self._server then self._server:_opened(self) end
  if self._state == 'open' then self:fire('connection') end
  if self._state ~= 'open' then return end
  if self._server then
    self._server:fire('connection', self)
  elseif self:listenerCount('session') > 0 then
    local blob = self:getSession()
    if blob and blob ~= self._resumed then self:fire('session', blob) end -- the same one: it was resumed, not renewed
  end
end

-- ── callbacks ──

-- The handshake is suspended until the application has answered; the core keeps the datagrams that arrive meanwhile.
function Connection:_ask(kind, ...)
  local question, association = callbacks[kind], self._association
  self:_armHandshake()
  if self._state ~= 'handshaking' then return end
  callbacks.run(question.ask, function(ok, ...)
    if self._association ~= association then return end -- too late: it is closed
    local good, err = ok, ...
    if ok then good, err = question.answer(self, association, ...) end
    if not good then
      local text = Emitter.errorText(err)
      self._answerError = new_error('ERR_DTLS_CALLBACK', question.name and question.name .. ': ' .. text or text)
      question.refuse(association)
    end
    self:_serve()
  end, self, ...)
end

function Connection:_logKeys()
  local lines = self._association:keylog() or ''
  for line in lines:gmatch '[^\n]+' do
    self:fire('keylog', line)
    if self._server then self._server:fire('keylog', line, self) end
  end
end

-- Where the application said no, libssl knows only that somebody did.
function Connection:_explained(err)
  local answer = self._answerError
  if not answer then return err end
  answer.identity, answer.certificate = err.identity, err.certificate
  return answer
end

-- ── reading ──

--- Something to read: a datagram was handed in, or the descriptor is readable.
function Connection:_serve()
  local association = self._association
  if self._state == 'handshaking' then
    local done, err, subject, id = association:handshake(self)
    if self._takesOthers and not self:_takeDatagrams(association) then return end
    if self._context.keylogs then self:_logKeys() end
    if self._state ~= 'handshaking' then return end -- a listener has closed it, or has run the loop
    if done then
      self:_completed()
    elseif err == 'want_read' then
      return self:_armHandshake(subject)
    elseif callbacks[err] then
      return self:_ask(err, subject, id)
    elseif err == 'want_answer' then
      return
    else
      return self:_fail(self:_explained(err))
    end
  end
  if self._state == 'open' then self:_received(association:read()) end
end

--- What the association has read: a message, and whether there is more of its datagram; or nil and why there is none.
function Connection:_received(message, more)
  -- A listener that _serve calls at the end of the handshake runs the loop.
  if self._state == 'handshaking' then self:_completed() end
  if self._state ~= 'open' then return end
  local association = self._association
  while true do
    if self._takesOthers and not self:_takeDatagrams(association) then return end -- they came before it
    if not message then break end
    self._receivedAt = now()
    if self._silence then self._silence:heard(self._receivedAt) end
    self:fire('message', message)
    if self._state ~= 'open' or not more and self._server then return end -- the endpoint has the next datagram
    message, more = association:read()
    if message then deferral.more() end
  end
  if more == 'closed' then
    association:shutdown()
    self:_finish()
  elseif more ~= 'want_read' then
    self:_fail(more)
  end
end

-- ── silence ──

-- Counts from now on, or from the end of the handshake.
function Connection:_limitSilence(event, ms)
  if self._state == 'closed' or ms == 0 and not self._silence then return end
  if not self._silence then
    self._silence = silence.new(self._timer, self._onTimer, function(due)
      self:fire(due)
      return self._state == 'open'
    end)
    if self._state == 'open' then self._silence:begin() end
  end
  self._silence:limit(event, ms)
end

-- For the setters, which call it as their last act: it raises at their caller's line.
local function set_silence(self, method, event, ms, callback)
  arguments.insist(method, 'ms', options.settings.timeout, ms)
  arguments.callback(method, callback)
  self:_limitSilence(event, ms)
  if callback then self:once(event, callback) end
  return self
end

--- Emits `timeout` when nothing was received or sent for `ms`; the connection stays open. It is emitted again only
--- after there was traffic. Usable from `accept` on; counts from the end of the handshake.
---@param ms integer 0 switches it off
---@param callback function? added as a listener, once
---@return self
function Connection:setTimeout(ms, callback) return set_silence(self, 'setTimeout', 'timeout', ms, callback) end

--- Emits `receiveTimeout` when no message has come for `ms`, whatever was sent: UDP does not say that a peer has gone. The
--- connection stays open. It is emitted again only after a message has come. Usable from `connect` or `accept` on; counts
--- from the end of the handshake.
---@param ms integer 0 switches it off
---@param callback function? added as a listener, once
---@return self
function Connection:setReceiveTimeout(ms, callback) return set_silence(self, 'setReceiveTimeout', 'receiveTimeout', ms, callback) end

-- ── the retransmission timer ──

--- How long to wait before a flight is repeated, from the next flight on; for a server's connection in `accept`, for a
--- client's at once after connect (DTLS_set_timer_cb, RFC 6347 §4.2.4.1).
---@param wait integer|fun(previousMs: integer): integer 1 to 60000 ms, then doubling; or what gives each wait, asked first with 0
---@return self
function Connection:setRetransmitTimeout(wait)
  wait = arguments.insist('setRetransmitTimeout', 'wait', options.settings.retransmitTimeout, wait)
  local atOnce = true
  if self._retransmit then atOnce = self._retransmit:set(wait) else self._retransmit = retransmit.new(wait, self) end
  if self._state == 'handshaking' and atOnce then self:_waits(self._retransmit:use(self._association)) end
  return self
end

-- ── ending ──

function Connection:_close(any)
  self._closing = self._closing + 1
  handle.close(any, function()
    self._closing = self._closing - 1
    if self._closing == 0 and self._state == 'closed' then self:_closed() end
  end)
end

--- Lets go of the association, the descriptor and, for a client, the socket.
function Connection:_letGo()
  local association, poll = self._association, self._poll
  self._poll = false
  if poll then handle.stop(poll) end -- before the descriptor goes with the association
  if association then
    self._association = nil
    self:_remember(association:close(self._successor and self._successor:_core()))
  end
  if poll then self:_close(poll) end
  if not self._socket then return end
  self:_close(self._socket)
  self._socket = nil
end

--- The end; `close` is emitted when the handles are closed. `err`: why, if something went wrong.
function Connection:_finish(err)
  if self._state == 'closed' then return end
  local opened = self._state == 'open'
  self._state = 'closed'
  self.destroyed = true
  self._closedAt = now()
  if err then self._error = err end
  if not opened and err and err.code == 'ERR_DTLS_CERTIFICATE' then self.authorizationError = err.reason end
  if self._overrides then self._overrides:close() end
  self:_letGo()
  deferral.leave()
  self:_close(self._timer)
  if self._server then self._server:_lost(self, opened, err) end
end

function Connection:_closed()
  self:fire('close', self._error ~= nil)
  if self._server then self._server:_closedOne() end
end

--- Ends it because of an error, which is announced as `error`, or as the server's `clientError` before `connection`.
function Connection:_fail(err)
  if self._state == 'closed' then return end
  local early = self._state ~= 'open'
  if early and self._retry then
    local goes_on
    goes_on, err = self._retry(err)
    if goes_on then return end
  end
  self:_finish(err)
  local heard = self:listenerCount('error') > 0
  if heard or not (early and self._server) then self:fire('error', err) end -- unheard: missingHandlerType's
  if self._server then self._server:_failed(self, err, early, heard) end
end

--- Tells the peer (close_notify) and closes. `close` follows, and `callback`.
---@param callback function?
function Connection:close(callback)
  arguments.callback('close', callback)
  if callback then
    if self._state == 'closed' and self._closing == 0 then tick(callback) else self:once('close', callback) end
  end
  if self._state == 'open' then self._association:shutdown() end
  self:_finish()
end

-- What the application ends a connection with, as listeners of `error` may rely on: an object with code and message.
local function as_error(value)
  local is_table = type(value) == 'table'
  local code = is_table and type(value.code) == 'string' and value.code
  local message = is_table and type(value.message) == 'string' and value.message
  if code and message then return value end
  message = message or type(value) == 'string' and value or 'the application destroyed the connection'
  return new_error(code or 'ERR_DTLS_DESTROYED', message, { cause = value })
end

--- Closes without a word to the peer. `close` follows; with `err`, `error` comes before it.
---@param err? any an error object, which is emitted as it is; anything else is the `cause` of one with the code ERR_DTLS_DESTROYED
function Connection:destroy(err)
  self._retry = nil -- an end that is wanted is no reason to try another address
  if err ~= nil then self:_fail(as_error(err)) else self:_finish() end
end

-- ── sending ──

-- What a system answers that has no room for a datagram at the moment.
local is_full = { EAGAIN = true, ENOBUFS = true }

-- Messages, each as one datagram, until one cannot be sent. The third result: the association is beyond use.
local function write(self, data, count)
  if self._state ~= 'open' then
    local err = new_error('ENOTCONN', 'the connection is ' .. (self._state == 'closed' and 'closed' or 'not open yet'))
    return nil, err, nil, count and 0
  end
  if count and count > 1 then deferral.more() end
  local ok, err, fatal, sent = self._association:write(data, self._settings.allowFragments)
  if ok or sent and sent > 0 then
    self._sentAt = now()
    deferral.sent(self._sentAt)
    if self._silence then self._silence:spoke(self._sentAt) end
  end
  return ok, err, fatal, sent
end

--- Sends one message as one datagram, or each message of a list. What follows the first two messages of a turn of the event loop leaves
--- together when the turn ends; a failure then is counted in stats().drops.
---@param data string|string[]
---@param callback fun(err: dtls.Error?)? called on a later tick with what is also returned
---@return true? ok the system has taken the datagram, or takes it when the turn of the loop ends
---@return dtls.Error? err ENOTCONN; EMSGSIZE: longer than getDataMtu() (or than 16384 with allowFragments); EINVAL: empty;
---  EAGAIN, ENOBUFS: dropped by the system, the connection is well; `drain` follows
---@return integer? sent of a list: how many of its messages came before the one that err is about
function Connection:send(data, callback)
  if getmetatable(self) ~= Connection then arguments.object('send', Connection, 'Connection', self) end
  if callback ~= nil then arguments.callback('send', callback) end
  local ok, err, fatal, sent
  if type(data) == 'string' then
    ok, err, fatal = write(self, data)
  else
    arguments.insist('send', 'data', options.messages, data)
    ok, err, fatal, sent = write(self, data, #data)
  end
  if callback then tick(callback, err) end
  if fatal then self:_fail(err) elseif err and is_full[err.code] then self:_awaitDrain() end
  return ok, err, sent
end

--- Its socket takes no datagrams at the moment, and some wait for it.
function Connection:_awaitRoom()
  self._full = self._full or 'waiting' -- 'told': `drain` is to come
  if self._poll then
    await(self)
  elseif self._server and not self._association:await_room() then
    self._server:_awaitRoom(self)
  end
end

-- `send` has told that the socket takes no more.
function Connection:_awaitDrain()
  if self._full == 'told' then return end
  self._full = 'told'
  self:_awaitRoom()
end

--- The socket of its own takes datagrams: those that wait for it first.
function Connection:_makeRoom()
  local full = self._full
  self._full = nil
  deferral.flush()
  local still = self._full
  self._full = full
  if not still then self:_drained() end
end

--- The socket takes datagrams again.
function Connection:_drained()
  local told = self._full == 'told'
  self._full = nil
  if told and self._state ~= 'closed' then self:fire('drain') end
end

--- Counts a message that it has emitted and that had no room to wait.
function Connection:_countDropped()
  if self._association then self._association:count_dropped() end
end

-- ── other protocols on its port (RFC 7983) ──

--- Adds a listener. Those of `datagram` get what comes from the peer and is not DTLS.
---@overload fun(self: dtls.Connection, name: 'connection', callback: fun()): dtls.Connection
---@overload fun(self: dtls.Connection, name: 'message', callback: fun(data: string)): dtls.Connection
---@overload fun(self: dtls.Connection, name: 'session', callback: fun(blob: string)): dtls.Connection
---@overload fun(self: dtls.Connection, name: 'timeout', callback: fun()): dtls.Connection
---@overload fun(self: dtls.Connection, name: 'receiveTimeout', callback: fun()): dtls.Connection
---@overload fun(self: dtls.Connection, name: 'drain', callback: fun()): dtls.Connection
---@overload fun(self: dtls.Connection, name: 'datagram', callback: fun(data: string, address: dtls.Address)): dtls.Connection
---@overload fun(self: dtls.Connection, name: 'keylog', callback: fun(line: string)): dtls.Connection
---@overload fun(self: dtls.Connection, name: 'error', callback: fun(err: dtls.Error)): dtls.Connection
---@overload fun(self: dtls.Connection, name: 'close', callback: fun(hadError: boolean)): dtls.Connection
function Connection:on(name, callback) return multiplex.on(self, name, callback) end

-- Where datagrams of other protocols come from, for multiplex.lua.
function Connection:_source() return self._association end

-- Those that it met in its socket while it read; shared sockets are the endpoint's. False: a listener has closed it.
function Connection:_takeDatagrams(association)
  while self._takesOthers and self._association == association do
    local data = association:datagram()
    if not data then break end
    self:_datagram(data, self:remoteAddress())
  end
  return self._association == association
end

--- Sends a datagram of another protocol to the peer: as it is, neither encrypted nor authenticated. Usable from `accept` on; of a
--- client, once its socket is there.
---@param data string its first byte is not one of 20 to 63, which are DTLS's (RFC 7983)
---@return true? ok
---@return dtls.Error? err EINVAL: DTLS's first byte, or empty; ENOTCONN; EMSGSIZE, EAGAIN, … of the system
function Connection:sendDatagram(data)
  arguments.insist('sendDatagram', 'data', options.ofType 'string', data)
  local association, err = self:_core()
  if not association then return nil, err end
  local ok
  ok, err = association:send_datagram(data)
  if err and is_full[err.code] then self:_awaitDrain() end
  return ok, err
end

-- ── what is set for it alone ──

-- The association, or while a client looks for its server a draft of one, which knows what can be set. nil, err: it has closed.
function Connection:_target()
  if self._state == 'connecting' and self._overrides then return self._overrides:draft() end
  return self:_core()
end

function Connection:_get(method)
  local target, err = self:_target()
  if not target then return nil, err end
  return target[method](target)
end

-- Calls a setter of the core's. A client keeps what it was told, for the association with the next address.
function Connection:_set(method, ...)
  local target, err = self:_target()
  if not target then return nil, err end
  local ok
  ok, err = target[method](target, ...)
  if ok and self._overrides then self._overrides:record(method, ...) end
  return ok, err
end

-- ── what is known about it ──

--- The core's association; nil, err: there is none yet, or any more.
function Connection:_core()
  if self._association then return self._association end
  return nil, new_error('ENOTCONN', 'there is no association')
end

--- The times of its life and of its messages, in ms of the loop's clock, by their names in `stats`.
function Connection:_times()
  return {
    createdAt = self._createdAt, connectedAt = self._connectedAt, closedAt = self._closedAt,
    lastReceivedAt = self._receivedAt, lastSentAt = self._sentAt,
  }
end

local function each_handle(self, method)
  self._unreferenced = method == 'unref'
  if self._state == 'closed' then return self end
  self._timer[method](self._timer)
  if self._poll then self._poll[method](self._poll) end
  return self
end

--- Keeps the event loop alive (the default).
---@return self
function Connection:ref() return each_handle(self, 'ref') end

--- Lets the event loop end although this connection is open.
---@return self
function Connection:unref() return each_handle(self, 'unref') end

arguments.methods(Connection, 'Connection', function(value) return getmetatable(value) == Connection end, {
  new = true, extend = true, send = true, -- which is called for every message, and checks by itself
})

return Connection
