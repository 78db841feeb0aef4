--- What the interop specs share: tests that clean up whatever becomes of them, our side of a conversation, and what it
--- experienced.

local dtls = require 'dtls'
local loop = require 'spec.support.loop'
local process = require 'spec.support.process'
local proxy = require 'spec.support.proxy'

local interop = {}

local cleanups = {}

local function defer(action)
  cleanups[#cleanups + 1] = action
end

-- ── what happened ──

local Record = {}
Record.__index = Record

--- Keeps what an emitter emits, so that a test may wait for events in any order.
local function record(emitter, names)
  local self = setmetatable({ emitted = {} }, Record)
  for _, name in ipairs(names) do
    local queue = { first = 1 }
    self.emitted[name] = queue
    emitter:on(name, function(...)
      queue[#queue + 1] = { n = select('#', ...), ... }
      if self.wake then self.wake() end
    end)
  end
  return self
end

--- Waits until `name` was emitted; returns its arguments. Each event is taken once.
function Record:take(name, ms)
  local queue = self.emitted[name]
  if not queue[queue.first] then
    local ok, why = pcall(loop.call, function(done)
      self.wake = function()
        if queue[queue.first] then done() end
      end
    end, name, ms)
    self.wake = nil
    if not ok then error(('%s; until then: %s'):format(why, self:summary()), 2) end
  end
  local event = queue[queue.first]
  queue.first = queue.first + 1
  return unpack(event, 1, event.n)
end

function Record:summary()
  local parts = {}
  for name, queue in pairs(self.emitted) do
    for _, event in ipairs(queue) do parts[#parts + 1] = ('%s(%s)'):format(name, tostring(event[1])) end
  end
  return #parts > 0 and table.concat(parts, ', ') or 'nothing'
end

--- How often `name` was emitted.
function Record:count(name)
  return #self.emitted[name]
end

local CONNECTION = { 'connection', 'message', 'error', 'close' }

-- ── our side ──

--- Our server on a port, a free one by default; it ends with the test. Returns the server, its record, and its port.
--- `connection` gives the connection and its record.
function interop.server(ip, options, port)
  local server = assert(dtls.createServer(options))
  local records = {}
  server:on('accept', function(conn) records[conn] = record(conn, CONNECTION) end)
  local events = record(server, { 'connection', 'clientError' })
  defer(function() loop.call(function(done) server:close(done) end, 'the server to close') end)
  assert(server:listen(port or 0, ip))
  local take = events.take
  function events:take(name, ...)
    local first, second = take(self, name, ...)
    if name == 'connection' then return first, records[first] end
    return first, second
  end
  return server, events, server:address().port
end

--- Our client and its record; it ends with the test.
function interop.client(options)
  local conn = assert(dtls.connect(options))
  local events = record(conn, CONNECTION)
  defer(function() loop.call(function(done) conn:close(done) end, 'the client to close') end)
  return conn, events
end

--- A proxy in front of ip and port; it ends with the test.
function interop.proxy(ip, port, filter)
  local relay = proxy.new({ ip = ip, port = port }, { filter = filter })
  defer(function() loop.call(function(done) relay:close(done) end, 'the proxy to close') end)
  return relay
end

--- loop.run, but what the body started, programs included, ends with it, also when it fails.
function interop.run(body)
  return loop.run(function()
    cleanups = {}
    local ok, err = xpcall(body, function(err) return type(err) == 'string' and debug.traceback(err, 2) or err end)
    for i = #cleanups, 1, -1 do
      local cleaned, why = pcall(cleanups[i])
      if not cleaned and ok then ok, err = false, why end
    end
    process.killAll()
    if not ok then error(err, 0) end
  end)
end

return interop
