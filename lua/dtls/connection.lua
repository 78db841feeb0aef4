--- One DTLS association as an Emitter, in either role: events, timers, send, close. Its states are
--- 'connecting' (a client looks for its server) → 'handshaking' → 'open' → 'closed'.

local uv = require 'dtls.uv'
local core = require 'dtls.core'
local Emitter = require 'dtls.emitter'
local handle = require 'dtls.handle'
local options = require 'dtls.options'
local questions = require 'dtls.questions'
local setters = require 'dtls.setters'
local tick = require 'dtls.tick'

local new_error = core.error
local now = uv.now
local max = math.max

--- Events: `connection`, `message(data)`, `session(blob)`, `timeout`, `keylog(line)`, `error(err)`, `close(hadError)`.
---@class dtls.Connection: dtls.Emitter, dtls.Setters
---@field destroyed boolean? true once it has ended, however it did
---@field private _association userdata? the core's object; nil before there is one and once closed
---@field private _retry (fun(err: dtls.Error): boolean, dtls.Error)? a client's: tries another address, or tells of all
---@field private _leave (fun(): boolean)? a client's: leaves a silent address for another one
---@field private _patience number? the time at which _leave leaves it at the latest
---@field private _watch table? {poll=, connection=}: the descriptor it reads; moves on when the peer starts over
local Connection = Emitter:extend()
for name, method in pairs(setters) do Connection[name] = method end

--- For server.lua and client.lua.
---@param made dtls.Context
---@param settings table what context.resolve gave
---@param server dtls.Server?
function Connection.new(made, settings, server)
  local self = setmetatable({}, Connection)
  self._context = made
  self._settings = settings
  self._server = server
  self._state = 'connecting'
  self._idle = settings.timeout or 0
  self._wait = settings.retransmitTimeout
  self._closing = 0 -- handles that are being closed
  self._timer = uv.new_timer()
  self._createdAt = now()
  self._deadline = self._createdAt + settings.handshakeTimeout
  self._onTimer = function() self:_tick() end
  self._onClosed = function()
    self._closing = self._closing - 1
    if self._closing == 0 and self._state == 'closed' then self:_closed() end
  end
  self._timer:start(settings.handshakeTimeout, 0, self._onTimer)
  return self
end

-- ── handles ──

local function on_readable(watch, failed)
  local self = watch.connection
  self:_serve()
  if self._server then self._server:_dispatchPending() end
  -- Where a pending socket error is no event of its own it fails the poll, which libuv then stops; reading has cleared it.
  if failed then watch.start() end
end

--- Starts to read a descriptor.
function Connection:_watchDescriptor(fd)
  local poll, err = uv.new_poll(fd)
  if not poll then return nil, new_error('ERR_DTLS_SYSTEM', err) end
  local watch = { poll = poll, connection = self }
  local function callback(failed) on_readable(watch, failed) end
  watch.start = function() handle.start(poll, 'rp', callback) end
  self:_takeWatch(watch)
  watch.start()
  if self._unreferenced then poll:unref() end
  return true
end

--- Takes the descriptor over from the association that had this peer before.
function Connection:_takeWatch(watch)
  if not watch then return end
  watch.connection = self
  self._watch = watch
end

function Connection:_giveWatch()
  local watch = self._watch
  self._watch = nil
  return watch
end

-- ── handshake ──

--- Begins the handshake of an association that can be reached through a descriptor or through the server.
function Connection:_begin(association)
  local settings = self._settings
  self._association = association
  self._state = 'handshaking'
  local ok, err
  if settings.linkMtu then ok, err = association:set_link_mtu(settings.linkMtu) else ok, err = association:set_mtu(settings.mtu) end
  if not ok then return self:_fail(err) end
  self:_useWait()
end

-- What repeats a flight: the wait before the first repetition, or the application's function.
function Connection:_useWait()
  local wait = self._wait
  self._nextWait, self._repeats = nil, nil
  if type(wait) == 'function' then
    self._repeats = self._association:stats().retransmits
    self:_planWait()
  elseif wait then
    self._association:set_retransmit(wait, 0)
  end
end

-- What the application's retransmitTimeout(previousMs) answers, within what libssl can do. An error in it fails the
-- handshake; then there is no answer.
function Connection:_askWait(previous)
  if type(self._wait) == 'number' then return previous > 0 and math.min(previous * 2, 60000) or self._wait end
  self._asking = true
  local ok, wait = pcall(self._wait, previous)
  self._asking = nil
  if ok and type(wait) == 'number' and wait == wait then return math.min(max(math.floor(wait), 1), 60000) end
  self:_fail(new_error('ERR_DTLS_CALLBACK', 'retransmitTimeout: ' .. (ok and 'did not return a number' or Emitter.errorText(wait))))
end

-- libssl wants to know an interval when the one before it ends, so the application is asked one ahead.
function Connection:_planWait()
  local wait = self._nextWait or self:_askWait(0)
  local next_wait = wait and self:_askWait(wait)
  if not next_wait or self._state ~= 'handshaking' then return end
  self._nextWait = next_wait
  self._association:set_retransmit(wait, next_wait)
end

-- libssl may have repeated a flight in any call. False: the application's function has failed.
function Connection:_replanWait()
  if not self._repeats then return true end
  local repeats = self._association:stats().retransmits
  if repeats > self._repeats then
    self._repeats = repeats
    self:_planWait()
  end
  return self._state == 'handshaking'
end

function Connection:_armHandshake()
  if not self:_replanWait() or (self._leave and self._leave()) then return end
  local left = (self._patience or self._deadline) - now()
  local wait = self._association:timeout()
  if wait and wait < left then left = wait end
  if left > 0 then self._polled = nil end
  self._timer:start(max(left, 1), 0, self._onTimer) -- a timer of 0 ms would not let the loop poll
end

function Connection:_handshakeTick()
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
  self:_armHandshake()
end

function Connection:_tick()
  if self._state == 'open' then self:_idleTick() else self:_handshakeTick() end
end

function Connection:_completed()
  self._state = 'open'
  self._connectedAt = now()
  self._timer:stop()
  local displaced = self._association:promote()
  if displaced then
    self:_takeWatch(displaced:_giveWatch())
    displaced:_fail(new_error('ERR_DTLS_REPLACED', 'the peer started over with a new association'))
  end
  if self._state ~= 'open' then return end
  self:_touch()
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

-- ── questions ──

-- The handshake is held until the application has answered; what arrives meanwhile, the core keeps.
function Connection:_ask(kind, ...)
  local question, association, later = questions[kind], self._association, false
  self:_armHandshake()
  if self._state ~= 'handshaking' then return end
  questions.run(question.ask, function(ok, ...)
    if self._association ~= association then return end -- too late: it is closed
    local good, err = ok, ...
    if ok then good, err = question.answer(self, association, ...) end
    if not good then
      local text = Emitter.errorText(err)
      self._answerError = new_error('ERR_DTLS_CALLBACK', question.name and question.name .. ': ' .. text or text)
      question.refuse(association)
    end
    self:_serve()
    if later and self._server then self._server:_dispatchPending() end
  end, self, ...)
  later = true
end

function Connection:_logKeys()
  local lines = self._association:keylog() or ''
  for line in lines:gmatch '[^\n]+' do
    self:fire('keylog', line)
    if self._server then self._server:fire('keylog', line, self) end
  end
end

-- ── reading ──

--- Something to read: a datagram was handed in, or the descriptor is readable.
function Connection:_serve()
  local association = self._association
  if self._state == 'handshaking' then
    local done, err, subject, id = association:handshake()
    if self._context.keylogs then
      self:_logKeys()
      if self._state ~= 'handshaking' then return end
    end
    if done then
      self:_completed()
    elseif err == 'want_read' then
      return self:_armHandshake()
    elseif questions[err] then
      return self:_ask(err, subject, id)
    elseif err == 'want_answer' then
      return
    else
      return self:_fail(self._answerError or err) -- libssl only knows that the answer was no
    end
  end
  while self._state == 'open' do
    local message, more = association:read()
    if message then
      if self._idle > 0 then self:_touch() end
      self:fire('message', message)
      if not more and not self._watch then return end
    elseif more == 'want_read' then
      return
    elseif more == 'closed' then
      association:shutdown()
      return self:_finish()
    else
      return self:_fail(more)
    end
  end
end

-- ── the idle timeout ──

function Connection:_touch()
  if self._idle == 0 then return end
  self._active = now()
  if not self._timer:is_active() then self._timer:start(self._idle, 0, self._onTimer) end
end

function Connection:_idleTick()
  if self._idle == 0 then return end
  local left = self._active + self._idle - now()
  if left > 0 then return self._timer:start(left, 0, self._onTimer) end
  self:fire('timeout')
end

--- Emits `timeout` when nothing was received or sent for `ms`; the connection stays open. It is emitted again only
--- after there was traffic. Usable from `accept` on; counts from the end of the handshake.
---@param ms integer 0 switches it off
---@param callback function? added as a listener, once
---@return self
function Connection:setTimeout(ms, callback)
  if type(ms) ~= 'number' or ms < 0 or ms % 1 ~= 0 then error('setTimeout: expected a whole number of milliseconds, 0 for none', 2) end
  self._idle = ms
  if callback then self:once('timeout', callback) end
  if self._state == 'open' then
    self._timer:stop()
    self:_touch()
  end
  return self
end

-- ── the retransmission timer ──

--- How long to wait before a flight is repeated, from the next flight on; for a server's connection in `accept`, for a
--- client's at once after connect (DTLS_set_timer_cb, RFC 6347 §4.2.4.1).
---@param wait integer|fun(previousMs: integer): integer 1 to 60000 ms, then doubling; or what gives each wait, asked first with 0
---@return self
function Connection:setRetransmitTimeout(wait)
  local good, expected = options.settings.retransmitTimeout(wait)
  if not good then error('setRetransmitTimeout: expected ' .. expected, 2) end
  self._wait = good
  if self._state == 'handshaking' and not self._asking then self:_useWait() end -- else what it asks next is the new one
  return self
end

-- ── ending ──

function Connection:_close(any)
  self._closing = self._closing + 1
  handle.close(any, self._onClosed)
end

--- Lets go of the association, the descriptor and, for a client, the socket.
function Connection:_letGo()
  local association, watch, heir = self._association, self:_giveWatch(), nil
  if watch then handle.stop(watch.poll) end -- before the descriptor goes with the association
  if association then
    self._final = {
      localAddress = association:local_address(), remoteAddress = association:remote_address(),
      stats = association:stats(), authorized = { self:authorized() },
    }
    self._association = nil
    heir = association:close()
  end
  if heir and watch then
    heir:_takeWatch(watch)
    watch.start()
  elseif watch then
    self:_close(watch.poll)
  end
  if self._socket then self:_close(self._socket) end
  self._socket = nil
end

--- The end; `close` is emitted when the handles are closed. `err`: why, if something went wrong.
function Connection:_finish(err)
  if self._state == 'closed' then return end
  local opened = self._state == 'open'
  self._state = 'closed'
  self.destroyed = true
  self._closedAt = now()
  self._error = err
  self:_letGo()
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
  if heard then self:fire('error', err) end
  if self._server then self._server:_failed(self, err, early, heard) end
end

--- Tells the peer (close_notify) and closes. `close` follows, and `callback`.
---@param callback function?
function Connection:close(callback)
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
---@param err any an error object, which is emitted as it is; anything else is the `cause` of one with the code ERR_DTLS_DESTROYED
function Connection:destroy(err)
  self._retry = nil -- an end that is wanted is no reason to try another address
  if err ~= nil then self:_fail(as_error(err)) else self:_finish() end
end

-- ── sending ──

--- Sends one message as one datagram.
---@param data string
---@param callback fun(err: dtls.Error?)? called on a later tick with what is also returned
---@return true? ok
---@return dtls.Error? err ENOTCONN; EMSGSIZE: longer than getDataMtu() (or than 16384 with allowFragments); EINVAL: empty;
---  EAGAIN, ENOBUFS: dropped by the system, the connection is well
function Connection:send(data, callback)
  if type(data) ~= 'string' then error('send: expected a string, got ' .. type(data), 2) end
  local ok, err, fatal
  if self._state == 'open' then
    ok, err, fatal = self._association:write(data, self._settings.allowFragments)
    if ok and self._idle > 0 then self:_touch() end
  else
    err = new_error('ENOTCONN', 'the connection is ' .. (self._state == 'closed' and 'closed' or 'not open yet'))
  end
  if callback then tick(callback, err) end
  if fatal then self:_fail(err) end
  return ok, err
end

-- ── MTU ──

local function not_connected()
  return nil, new_error('ENOTCONN', 'there is no association')
end

--- The longest message that fits one datagram; 0 before the handshake has chosen a suite (DTLS_get_data_mtu).
---@return integer bytes
function Connection:getDataMtu()
  return self._association and self._association:data_mtu() or 0
end

--- Caps the UDP payload of every datagram from now on (SSL_set_mtu).
---@param bytes integer
---@return true? ok
---@return dtls.Error? err
function Connection:setMtu(bytes)
  if not self._association then return not_connected() end
  return self._association:set_mtu(bytes)
end

--- Caps the IP packet, headers included, of every datagram from now on (DTLS_set_link_mtu).
---@param bytes integer
---@return true? ok
---@return dtls.Error? err
function Connection:setLinkMtu(bytes)
  if not self._association then return not_connected() end
  return self._association:set_link_mtu(bytes)
end

--- The smallest link MTU that OpenSSL works with (DTLS_get_link_min_mtu).
---@return integer? bytes nil when closed
function Connection:getLinkMinMtu()
  return self._association and self._association:link_min_mtu()
end

function Connection:_target()
  if not self._association then return not_connected() end
  return self._association
end

-- ── what is known about it ──

---@return dtls.Address?
function Connection:localAddress()
  if self._association then return self._association:local_address() end
  return self._final and self._final.localAddress
end

---@return dtls.Address?
function Connection:remoteAddress()
  if self._association then return self._association:remote_address() end
  return self._final and self._final.remoteAddress
end

Connection.address = Connection.localAddress

---@return string? 'DTLSv1.2'
function Connection:getProtocol()
  return self._association and self._association:protocol()
end

---@return {name: string, standardName: string, version: string, bits: integer}?
function Connection:getCipher()
  return self._association and self._association:cipher()
end

--- Whether the peer proved who it is: a good certificate, a pinned one, or a pre-shared key.
---@return boolean
---@return string? reason OpenSSL's and Node's name of what is wrong, or what checkServerIdentity said
function Connection:authorized()
  if self._association then
    local good, reason = self._association:authorized()
    return good, reason == 'HOSTNAME_MISMATCH' and self._refusal or reason
  end
  if self._final then return unpack(self._final.authorized) end
  return false, 'HANDSHAKE_NOT_COMPLETE'
end

--- The host name that the client asked for (SNI), on a server in lower case and without a final dot.
---@return string?
function Connection:servername()
  return self._association and self._association:servername()
end

--- Who a peer with a pre-shared key is.
---@return string?
function Connection:pskIdentity()
  return self._association and self._association:psk_identity()
end

--- The peer's certificate with Node's fields: subject, issuer, subjectaltname, valid_from, valid_to, serialNumber,
--- fingerprint (SHA-1), fingerprint256, fingerprint512, ext_key_usage, ca, bits, keyType ('EC', 'RSA', 'ED25519', …), pem, raw (DER).
---@param chain boolean? with issuerCertificate, the next one of its chain, in each
---@return table? nil when the peer has sent none
function Connection:getPeerCertificate(chain)
  return self._association and self._association:peer_certificate(chain) or nil
end

--- The application protocol that both sides have agreed on (ALPN, RFC 7301).
---@return string?
function Connection:alpnProtocol()
  return self._association and self._association:alpn()
end

--- The SRTP profile that both sides have agreed on (RFC 5764), by OpenSSL's name. The keys:
--- exportKeyingMaterial(length, 'EXTRACTOR-dtls_srtp').
---@return string?
function Connection:srtpProfile()
  return self._association and self._association:srtp_profile()
end

--- Whether both sides bound the master secret to the handshake (RFC 7627); it is always asked for.
---@return boolean
function Connection:extendedMasterSecret()
  return self._association ~= nil and self._association:extended_master_secret()
end

--- What resumes this session (`options.session`). It holds the master secret: keep it as you would keep a key.
---@return string? blob nil before `connection`, and when the server gave nothing to resume with
function Connection:getSession()
  if not self._association then return nil end
  local _, blob = self._association:session()
  return blob
end

--- Whether the handshake resumed an earlier session instead of proving identities anew.
---@return boolean
function Connection:isSessionReused()
  return self._association ~= nil and self._association:session_reused()
end

--- RFC 5705.
---@param length integer 1 to 65536 bytes
---@param label string
---@param extra string? the context of RFC 5705
---@return string? bytes
---@return dtls.Error? err
function Connection:exportKeyingMaterial(length, label, extra)
  if not self._association then return not_connected() end
  return self._association:export_keying_material(length, label, extra)
end

--- Counters: messagesIn messagesOut datagramsIn datagramsOut bytesIn bytesOut retransmits, drops (reason → count); and
--- times of the loop's clock, in ms: createdAt, connectedAt, closedAt.
---@return table
function Connection:stats()
  local stats = self._association and self._association:stats() or self._final and self._final.stats or { drops = {} }
  stats.createdAt, stats.connectedAt, stats.closedAt = self._createdAt, self._connectedAt, self._closedAt
  return stats
end

local function each_handle(self, method)
  self._unreferenced = method == 'unref'
  if self._state == 'closed' then return self end
  self._timer[method](self._timer)
  if self._watch then self._watch.poll[method](self._watch.poll) end
  return self
end

--- Keeps the event loop alive (the default).
function Connection:ref() return each_handle(self, 'ref') end

--- Lets the event loop end although this connection is open.
function Connection:unref() return each_handle(self, 'unref') end

return Connection
