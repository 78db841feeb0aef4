--- DTLS in coroutines, in the manner of luvit's coro-net: a call that has to wait yields, and what it waits for resumes its
--- coroutine. The event API is underneath, and `conn` is its connection.

local uv = require 'dtls.uv'
local arguments = require 'dtls.arguments'
local client = require 'dtls.client'
local core = require 'dtls.core'
local Emitter = require 'dtls.emitter'
local handle = require 'dtls.handle'
local options = require 'dtls.options'
local servers = require 'dtls.server'

local new_error = core.error
local protect = Emitter.protect
local hrtime = uv.hrtime
local running, isyieldable, yield = coroutine.running, coroutine.isyieldable, coroutine.yield

-- What a connection keeps of messages that nobody reads. Like a socket's buffer it drops what comes when it is full.
local MOST_MESSAGES, MOST_BYTES = 512, 256 * 1024

--- How the two calls of one connection wait.
---@class dtls.Channel
---@field package conn dtls.Connection
---@field package read dtls.Read
---@field package write dtls.Write
---@field private _reader thread? waits in read, or in connect
---@field private _messages table<integer, string> the unread ones, from _first to _last
---@field private _first integer
---@field private _last integer
---@field private _bytes integer of the unread ones
---@field private _writers dtls.Writer[] whoever waits for room, in the order of the calls
---@field private _timer userdata? of read(ms)
---@field private _onTimer fun()
---@field private _firesAt number? when the timer does, as _due
---@field private _due number? when the reader waits no longer, in ns of uv.hrtime()
---@field private _wait integer? of the last read(ms): its time, which is a good one
---@field private _polled boolean? that time has passed, and the loop has polled once more
---@field private _failure dtls.Error? what ended the connection
---@field private _ended boolean?
local Channel = {}
Channel.__index = Channel

--- A write that waits.
---@class dtls.Writer
---@field thread thread
---@field data string|string[] what is left to send
---@field sent integer? of a list: how many of its messages are sent

-- Resumes a coroutine of the application's. An error of it is raised here, for whoever protects the call to report.
local function resume(thread, ...)
  local ok, err = coroutine.resume(thread, ...)
  if not ok then error(debug.traceback(thread, err), 0) end
end

-- A call that yields: level 3 is its caller.
local function insist_coroutine(name)
  if not isyieldable() then error(name .. ': it may have to wait: call it in a coroutine', 3) end
end

-- ── reading ──

-- Resumes the reader, if one waits.
local function wake(self, ...)
  if self._reader then resume(self._reader, ...) end
end

-- The reader was resumed, by `wake` or by something else, and waits no longer.
local function woken(self, ...)
  self._reader, self._due = nil, nil
  return ...
end

function Channel:_received(message)
  if self._reader then return wake(self, message) end
  local bytes = self._bytes + #message
  if self._last - self._first >= MOST_MESSAGES - 1 or bytes > MOST_BYTES then return self.conn:_countDropped() end
  self._last, self._bytes = self._last + 1, bytes
  self._messages[self._last] = message
end

function Channel:_oldest()
  local first = self._first
  local message = self._messages[first]
  if not message then return end
  self._messages[first] = nil
  self._first, self._bytes = first + 1, self._bytes - #message
  return message
end

local function timed_out(ms) return new_error('ETIMEDOUT', ('no message has come within %d ms'):format(ms)) end

-- One timer runs on over many reads: to start and to stop it for each would cost more than the message does.
function Channel:_arm(at, ms)
  if not self._timer then
    self._timer = uv.new_timer()
    self._timer:unref() -- whether the loop goes on is for the connection to say
    self._onTimer = function() self:_onTime() end
  end
  self._firesAt = at
  self._timer:start(ms, 0, self._onTimer)
end

function Channel:_limit(ms)
  local due = hrtime() + ms * 1e6
  self._due, self._wait, self._polled = due, ms, nil
  if not self._firesAt or due < self._firesAt then self:_arm(due, ms) end
end

function Channel:_onTime()
  self._firesAt = nil
  local due = self._due
  if not due then return end
  local left = due - hrtime()
  if left > 0 then return self:_arm(due, math.ceil(left / 1e6)) end
  -- libuv runs timers before it looks at sockets: what came while the loop was busy may be the message.
  if not self._polled then
    self._polled = true
    return self:_arm(due, 1)
  end
  protect(wake, self, nil, timed_out(self._wait))
end

function Channel:_read(ms)
  if ms ~= nil and ms ~= self._wait then arguments.insist('read', 'ms', options.settings.timeout, ms) end
  local message = self:_oldest()
  if message then return message end
  if self._ended then return nil, self._failure end
  if ms == 0 then return nil, timed_out(0) end
  if self._reader then error('read: another coroutine reads from this connection already', 2) end
  insist_coroutine 'read'
  self._reader = running()
  if ms then self:_limit(ms) end
  return woken(self, yield())
end

-- ── writing ──

local is_full = { EAGAIN = true, ENOBUFS = true }

local function from(list, first)
  local rest = {}
  for i = first, #list do rest[#rest + 1] = list[i] end
  return rest
end

-- Takes a writer out of the line; whether it was in it.
local function leave(writers, writer)
  for i, each in ipairs(writers) do
    if each == writer then
      table.remove(writers, i)
      return true
    end
  end
  return false
end

-- What the writer was resumed with. If it is still in the line something else has resumed it, and its messages are not sent.
local function written(self, writer, ...)
  leave(self._writers, writer)
  return ...
end

-- The socket has room, or the connection has ended and refuses everything: sends for those who wait, until it is full again.
function Channel:_proceed()
  local writers = self._writers
  while writers[1] do
    local writer = writers[1]
    local ok, err, sent = self.conn:send(writer.data)
    if sent then writer.sent = writer.sent + sent end
    if not ok and is_full[err.code] then
      if sent then writer.data = from(writer.data, sent + 1) end
      return
    end
    if not ok then err, sent = self._failure or err, writer.sent end
    if leave(writers, writer) then protect(resume, writer.thread, ok, err, sent) end
  end
end

function Channel:_write(data)
  insist_coroutine 'write'
  if data == nil then
    self.conn:close()
    return true
  end
  local is_list = type(data) ~= 'string'
  if is_list then arguments.insist('write', 'data', options.messages, data) end
  local sent = is_list and 0 or nil
  if not self._writers[1] then
    local ok, err, count = self.conn:send(data)
    if ok then return true end
    if not is_full[err.code] then return nil, self._failure or err, count end
    if count then data, sent = from(data, count + 1), count end
  end
  local writer = { thread = running(), data = data, sent = sent }
  table.insert(self._writers, writer)
  return written(self, writer, yield())
end

-- ── the connection ──

function Channel:_close()
  self._ended = true
  protect(wake, self, nil, self._failure)
  if self._timer then handle.close(self._timer) end
  self:_proceed()
end

local function channel(conn)
  local self = setmetatable({ conn = conn, _messages = {}, _first = 1, _last = 0, _bytes = 0, _writers = {} }, Channel)
  function self.read(ms) return self:_read(ms) end -- tail calls, which are no levels
  function self.write(data) return self:_write(data) end
  conn:on('message', function(message) self:_received(message) end)
  conn:on('drain', function() self:_proceed() end)
  conn:on('error', function(err) self._failure = err end)
  conn:on('close', function() self:_close() end)
  return self
end

-- What connect returns. If something else has resumed it, nobody will have the connection.
local function opened(self, conn, ...)
  if conn == self.conn then return self.read, self.write, conn end
  self.conn:destroy()
  return conn, ...
end

local coro = {}

--- Connects to a server and waits until the connection is open.
---@param all dtls.ClientOptions
---@return dtls.Read? read
---@return dtls.Write|dtls.Error write_or_err what the connection failed with, or ERR_DTLS_CONFIG, EBADF
---@return dtls.Connection? conn
function coro.connect(all)
  insist_coroutine 'connect'
  local ok, conn, err = pcall(client.connect, all)
  if not ok then error(conn, 2) end
  if not conn then return nil, err end
  local self = channel(conn)
  conn:once('connection', function() wake(self, conn) end)
  self._reader = running()
  return opened(self, woken(self, yield()))
end

local sockets = { port = options.portFrom(0), host = options.ofType 'string', handle = options.roles.client.handle }

-- Where a server listens, and the options that make it.
local function split(all)
  local where, own = {}, {}
  for name, value in pairs(all) do
    if sockets[name] then where[name] = value else own[name] = value end
  end
  return where, own
end
jit.off(split) -- see options.lua

--- Listens, and calls `serve` for each connection, in a coroutine of its own. When `serve` returns or raises the connection is
--- closed; what it raises is reported as an error of a listener is.
---@param all dtls.CoroServerOptions
---@param serve fun(read: dtls.Read, write: dtls.Write, conn: dtls.Connection)
---@return dtls.Server? server
---@return dtls.Error? err ERR_DTLS_CONFIG, EADDRINUSE, EACCES, EADDRNOTAVAIL, EINVAL, …
function coro.createServer(all, serve)
  arguments.insist('createServer', 'options', options.ofType 'table', all)
  arguments.insist('createServer', 'serve', options.ofType 'function', serve)
  local given, own = split(all)
  local where, err = options.check('createServer: ', given, 3, sockets)
  if not where then return nil, err end
  local ok, server
  ok, server, err = pcall(servers.create, own)
  if not ok then error(server, 2) end
  if not server then return nil, err end
  if (where.port == nil) == (where.handle == nil) then return options.failure 'a server needs port, or handle' end
  server:on('connection', function(conn)
    local self = channel(conn)
    coroutine.wrap(function()
      protect(serve, self.read, self.write, conn)
      conn:close()
    end)()
  end)
  ok, err = server:listen(where.port or where.handle, where.host)
  if not ok then return nil, err end
  return server
end

return coro
