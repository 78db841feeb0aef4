-- Streams for tunnel.lua: TCP connections over messages that may get lost, doubled or reordered. Each side numbers its segments,
-- keeps them until they are acknowledged, and sends no more at a time than the network seems to carry (RFC 5681, simplified).
-- A segment is acknowledged when TCP has taken it on the other side, so that a slow reader slows the writer down.

local uv = require(rawget(_G, 'args') and 'uv' or 'luv')

local DATA, ACK, RESET = 3, 4, 5 -- the first DATA segment is empty and opens the stream, another empty one ends that direction
local HEADER = 10 -- bytes: MARK, kind, stream, number
local MOST_STREAMS, MOST_AHEAD = 256, 512
local AGE = 1000 -- so many streams back each is known by its number, older ones are over
local FIRST_WAIT_MS, LONGEST_WAIT_MS = 300, 5000
local MARK = '\255'

local function word(number)
  return string.char(math.floor(number / 2 ^ 24) % 256, math.floor(number / 65536) % 256, math.floor(number / 256) % 256, number % 256)
end

local function number_untrusted(text, at)
  local a, b, c, d = text:byte(at, at + 3)
  return ((a * 256 + b) * 256 + c) * 256 + d
end

-- ── one stream ──

local Stream = {}
Stream.__index = Stream

function Stream:say(kind, number, data) return self.mux:say(kind, self.id, number, data) end

function Stream:close(reset)
  if self.closed then return end
  self.closed = true
  if reset then self:say(RESET, 0) end
  self.timer:close()
  if not self.tcp:is_closing() then self.tcp:close() end
  self.mux:forget(self)
end

-- Both directions have come to their end: the other side hears that, too.
function Stream:settle()
  if self.closed or not (self.ended and self.first == self.last and self.finished) then return end
  self:say(ACK, self.taken)
  self:close()
end

-- What is not acknowledged in time is taken for lost: the oldest segment goes out again, and few others.
function Stream:wait()
  if self.first == self.sent then return self.timer:stop() end
  self.timer:start(self.pause, 0, function()
    self.pause = math.min(2 * self.pause, LONGEST_WAIT_MS)
    self.threshold, self.window = math.max(self.window / 2, 2), 1
    self.sent = self.first
    self:pump()
    self:wait()
  end)
end

-- Sends what there is, and reads from TCP when that is not enough.
function Stream:pump()
  local before = self.sent
  while self.sent < self.last and self.sent < self.first + math.floor(self.window) do
    local ok, err = self:say(DATA, self.sent, self.segments[self.sent])
    if not ok and err.code == 'EMSGSIZE' then return self:close(true) end -- the path takes less than it did when this was cut
    if not ok then break end -- `drain` will tell
    self.sent = self.sent + 1
  end
  if before == self.first and self.sent > before then self:wait() end
  local reads = not self.ended and self.last - self.sent < 64
  if reads == self.reads then return end
  self.reads = reads
  if not reads then return self.tcp:read_stop() end
  self.tcp:read_start(function(err, data)
    if err then return self:close(true) end
    self:push(data)
  end)
end

-- Takes what TCP has read; nil is its end.
function Stream:push(data)
  local longest = self.mux.conn:getDataMtu() - HEADER
  for at = 1, data and #data or 1, longest do
    self.segments[self.last] = data and data:sub(at, at + longest - 1) or ''
    self.last = self.last + 1
  end
  if not data then self.ended = true end
  self:pump()
end

function Stream:acknowledged_untrusted(number)
  if number > self.last or number < self.first then return end
  if number == self.first then
    self.repeated = self.repeated + 1
    if self.repeated ~= 3 or self.first == self.sent then return end
    -- The segment after those is missing, but what follows it arrives.
    self.threshold = math.max(self.window / 2, 2)
    self.window = self.threshold
    self:say(DATA, self.first, self.segments[self.first])
    return self:wait()
  end
  for i = self.first, number - 1 do
    self.segments[i] = nil
    self.window = self.window + (self.window < self.threshold and 1 or 1 / self.window)
  end
  self.window = math.min(self.window, MOST_AHEAD)
  self.first, self.sent = number, math.max(number, self.sent)
  self.repeated, self.pause = 0, FIRST_WAIT_MS
  self:wait()
  self:pump()
  self:settle()
end

-- Hands to TCP what is next.
function Stream:deliver(data)
  self.expected = self.expected + 1
  local number = self.expected
  local function taken(err)
    if self.closed then return end
    if err then return self:close(true) end
    self.taken = number
    self.mux.due[self] = true
    if data == '' and number > 1 then
      self.finished = true
      self:settle()
    end
  end
  if number == 1 then
    taken()
  elseif data == '' then
    self.tcp:shutdown(taken)
  else
    self.tcp:write(data, taken)
  end
end

function Stream:data_untrusted(number, data)
  self.mux.due[self] = true -- the acknowledgement, also of what has come before
  if number < self.expected or number >= self.taken + MOST_AHEAD then return end
  self.early[number] = data
  while self.early[self.expected] do
    local next_one = self.early[self.expected]
    self.early[self.expected] = nil
    self:deliver(next_one)
  end
end

-- ── all streams of an association ──

local Mux = {}
Mux.__index = Mux

-- `connect(callback)` gives a TCP handle on its way to the target, or nil: the side that has it takes new streams.
local function new(conn, connect)
  local self = setmetatable({ conn = conn, connect = connect, streams = {}, count = 0, newest = 0, over = {}, due = {} }, Mux)
  -- One acknowledgement for all that a turn of the event loop has brought.
  self.turn_end = uv.new_check()
  self.turn_end:start(function()
    for stream in pairs(self.due) do
      if stream.closed or stream:say(ACK, stream.taken) then self.due[stream] = nil end
    end
  end)
  return self
end

function Mux:say(kind, id, number, data)
  return self.conn:send(MARK .. string.char(kind) .. word(id) .. word(number) .. (data or ''))
end

function Mux:add(id, tcp)
  local stream = setmetatable({
    mux = self, id = id, tcp = tcp, timer = uv.new_timer(), segments = { [0] = '' }, early = {},
    first = 0, sent = 0, last = 1, -- of our segments: not acknowledged, to be sent, to be read
    expected = 0, taken = 0, -- of theirs: to come, to be taken by TCP
    window = 10, threshold = MOST_AHEAD, repeated = 0, pause = FIRST_WAIT_MS,
  }, Stream)
  self.streams[id], self.count = stream, self.count + 1
  stream:pump()
  return stream
end

function Mux:forget(stream)
  self.streams[stream.id], self.count = nil, self.count - 1
  if self.connect and stream.id > self.newest - AGE then self.over[stream.id] = true end
end

-- Carries a TCP connection that an application has opened.
function Mux:open(tcp)
  if self.count == MOST_STREAMS then return tcp:close() end
  self.newest = self.newest + 1
  self:add(self.newest, tcp)
end

-- Whether a stream that is not there was there before. The side that opens streams knows of no others.
function Mux:is_over_untrusted(id)
  return not self.connect or self.over[id] or id <= self.newest - AGE
end

-- The first segment opens a stream. When it comes late it does not open it again.
function Mux:accept_untrusted(id, number)
  if number ~= 0 or id > self.newest + AGE or self.count == MOST_STREAMS then return nil end
  for old = self.newest - AGE + 1, id - AGE do self.over[old] = nil end
  self.newest = math.max(self.newest, id)
  local tcp = self.connect(function(err)
    if err and self.streams[id] then self.streams[id]:close(true) end
  end)
  if not tcp then self.over[id] = true end
  return tcp and self:add(id, tcp)
end

function Mux:received_untrusted(message)
  if #message < HEADER then return end
  local kind, id, number = message:byte(2), number_untrusted(message, 3), number_untrusted(message, 7)
  local stream = self.streams[id]
  if not stream and kind == DATA then
    stream = not self:is_over_untrusted(id) and self:accept_untrusted(id, number)
    -- The other side repeats what nobody will take, as the last acknowledgement got lost.
    if not stream and self:is_over_untrusted(id) then self:say(RESET, id, 0) end
  end
  if not stream then return end
  if kind == DATA then stream:data_untrusted(number, message:sub(HEADER + 1)) end
  if kind == ACK then stream:acknowledged_untrusted(number) end
  if kind == RESET then stream:close() end
end

function Mux:drained()
  for _, stream in pairs(self.streams) do stream:pump() end
end

function Mux:close()
  for _, stream in pairs(self.streams) do stream:close() end
  self.turn_end:close()
end

return { new = new }
