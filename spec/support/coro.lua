--- Connections of dtls.coro for the specs, and coroutines beside the test's.

local coro = require 'dtls.coro'
local loop = require 'spec.support.loop'
local pair = require 'spec.support.pair'

local support = {}

--- Starts body(…) in a coroutine of its own. Gives {thread=, done = whether it has returned, n = how many values, those values}.
---@param body function
function support.start(body, ...)
  local outcome = {}
  local function keep(...)
    for i = 1, select('#', ...) do outcome[i] = (select(i, ...)) end
    outcome.done, outcome.n = true, select('#', ...)
  end
  outcome.thread = coroutine.create(function(...) keep(body(...)) end)
  assert(coroutine.resume(outcome.thread, ...))
  return outcome
end

--- Waits until such a coroutine has returned; gives its values.
function support.returned(outcome)
  loop.till(function() return outcome.done end, 'a coroutine to return')
  return unpack(outcome, 1, outcome.n)
end

--- A server of this module, with the common identity; its address is in `ip` and `port`.
function support.listening(demux, serve)
  local server = assert(coro.createServer({
    cert = pair.identity.cert, key = pair.identity.key, demux = demux, host = '127.0.0.1', port = 0,
  }, serve))
  server.ip, server.port = '127.0.0.1', server:address().port
  return server
end

--- connect() to such a server, or another one of the specs.
function support.connect(server, options)
  return coro.connect(pair.merged({
    host = server.ip, port = server.port, fingerprint = pair.identity.fingerprint, handshakeTimeout = 30000 * loop.patience,
  }, options))
end

--- More messages than may wait for a socket.
support.LONG_LIST = 2000
function support.longList()
  local list = {}
  for i = 1, support.LONG_LIST do list[i] = tostring(i) end
  return list
end

local Ends = {}
Ends.__index = Ends

--- A connection whose one end, of this role, is made by this module (`read`, `write`, `conn`) and the other by the event API
--- (`peer`, and in `heard` what it has heard); `server`.
function support.open(demux, role)
  local self = setmetatable({}, Ends)
  if role == 'server' then
    self.server = support.listening(demux, function(read, write, conn)
      self.read, self.write, self.conn = read, write, conn
      coroutine.yield() -- for ever: the test goes on with them
    end)
    self.peer = pair.client(self.server)
  else
    self.server = pair.listening { demux = demux }
    self.server:on('connection', function(conn) self.peer = conn end)
    self.read, self.write, self.conn = support.connect(self.server)
  end
  loop.till(function() return self.conn and self.peer and self.peer:stats().connectedAt end, 'both ends to open')
  self.heard = pair.record(self.peer, 'message', 'error', 'close')
  return self
end

--- Waits until so many messages have come from the peer.
function Ends:arrived(count)
  loop.till(function() return self.conn:stats().messagesIn >= count end, 'the messages of the peer')
end

--- Waits until the peer has heard so many messages, and gives them as one string, a space between two.
function Ends:told(count)
  local texts
  loop.till(function()
    texts = {}
    for _, each in ipairs(self.heard) do texts[#texts + 1] = each[1] == 'message' and each[2] or nil end
    return #texts >= count
  end, 'messages at the peer')
  return table.concat(texts, ' ')
end

function Ends:close() pair.close(self.conn, self.peer, self.server) end

return support
