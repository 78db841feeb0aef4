-- UDP sockets for tunnel.lua: one system call reads up to 64 datagrams, and equally long ones leave by one, which the kernel cuts
-- (UDP_SEGMENT). That takes Linux and LuaJIT's ffi; elsewhere luv reads and sends them one by one.

local uv = require(rawget(_G, 'args') and 'uv' or 'luv')

local RECEIVE_BUFFER = 2 ^ 22 -- bytes, for bursts; the kernel gives what its limit allows (net.core.rmem_max)
local MOST, MOST_BYTES = 64, 64000 -- datagrams of one call, and bytes that leave by one

-- ── with luv ──

local Single = {}
Single.__index = Single

-- Calls back with lists of datagrams.
function Single:read(callback)
  self.udp:recv_start(function(err, data, from)
    if err or not data then return end
    self.from = from or self.from
    callback { data }
  end)
end

function Single:stop() self.udp:recv_stop() end

-- Sends a datagram to whom the socket is connected to; if to nobody, to whoever the last datagram came from.
function Single:write(data)
  if self.connected then
    self.udp:try_send(data, nil, nil)
  elseif self.from then
    self.udp:try_send(data, self.from.ip, self.from.port)
  end
end

function Single:close() self.udp:close() end

-- ── with the system's own calls ──

local has_ffi, ffi = pcall(require, 'ffi')
local system = has_ffi and ffi.os == 'Linux' and pcall(ffi.cdef, [[
  struct tunnel_part { const char *base; size_t size; };
  struct tunnel_message {
    char *name; unsigned name_size; struct tunnel_part *parts; size_t part_count; void *control; size_t control_size; int flags;
  };
  struct tunnel_slot { struct tunnel_message message; unsigned size; };
  struct tunnel_control { size_t size; int level, kind; uint16_t segment; size_t end[0]; };
  int recvmmsg(int fd, struct tunnel_slot *slots, unsigned count, int flags, void *timeout);
  ssize_t sendmsg(int fd, const struct tunnel_message *message, int flags);
  int getsockopt(int fd, int level, int option, int *value, unsigned *size);
  int setsockopt(int fd, int level, int option, const int *value, unsigned size);
]]) and pcall(function() return ffi.C.recvmmsg end) and ffi.C
local DONTWAIT, SOL_SOCKET, SO_SELECT_ERR_QUEUE, SOL_UDP, UDP_SEGMENT = 0x40, 1, 45, 17, 103
local cannot_cut = { [5] = 'EIO', [22] = 'EINVAL', [90] = 'EMSGSIZE' }

-- What a call reads or sends, of one socket after the other. A datagram longer than its place is cut off; no message is that long.
local slots, places, parts, name, message, control
if system then
  slots, places, name = ffi.new('struct tunnel_slot[?]', MOST), ffi.new('char[?][2048]', MOST), ffi.new 'char[32]'
  parts, message, control = ffi.new('struct tunnel_part[?]', 2 * MOST), ffi.new 'struct tunnel_message', ffi.new 'struct tunnel_control'
  for i = 0, MOST - 1 do
    parts[MOST + i] = { places[i], ffi.sizeof(places[i]) }
    slots[i].message = { name, ffi.sizeof(name), parts + MOST + i, 1 }
  end
  message.parts = parts
  control.size, control.level, control.kind = ffi.offsetof('struct tunnel_control', 'segment') + 2, SOL_UDP, UDP_SEGMENT
end

local Batched = {}
Batched.__index = Batched

function Batched:read(callback)
  self.poll:start('rp', function()
    local list = self:take()
    if list then callback(list) end
  end)
end

function Batched:take()
  local count, list = system.recvmmsg(self.fd, slots, MOST, DONTWAIT, nil), {}
  if count <= 0 then return end
  if not self.connected then -- of the senders' addresses the last one is left
    self.peer_size = slots[count - 1].message.name_size
    ffi.copy(self.peer, name, self.peer_size)
  end
  for i = 0, count - 1 do
    list[i + 1] = ffi.string(places[i], slots[i].size)
    slots[i].message.name_size = ffi.sizeof(name)
  end
  return list
end

function Batched:stop() self.poll:stop() end

-- What is written in one turn of the event loop leaves when the turn ends.
function Batched:write(data)
  if not self.out[1] then self.turn_end:start(self.flush) end
  self.out[#self.out + 1] = data
end

-- Sends so many datagrams, all but one of which are equally long, by one call.
function Batched:send(first, count)
  for i = 0, count - 1 do
    parts[i].base, parts[i].size = self.out[first + i], #self.out[first + i]
  end
  message.part_count = count
  message.name, message.name_size = self.peer, self.peer_size
  control.segment = #self.out[first]
  message.control, message.control_size = control, count > 1 and ffi.sizeof(control) or 0
  return system.sendmsg(self.fd, message, DONTWAIT) >= 0
end

-- How many of those from `first` on can leave by one call.
function Batched:run(first)
  local size, count = #self.out[first], 1
  local most = self.cuts and size > 0 and math.min(MOST, math.floor(MOST_BYTES / size)) or 1
  while count < most and self.out[first + count] and #self.out[first + count] == size do count = count + 1 end
  return count
end

function Batched:leave()
  self.turn_end:stop()
  local first = 1
  while self.out[first] do
    local count = self:run(first)
    if not self:send(first, count) then -- perhaps by what ICMP has brought about earlier ones, which is cleared now
      if cannot_cut[ffi.errno()] then self.cuts = false end
      for i = first, first + count - 1 do self:send(i, 1) end
    end
    first = first + count
  end
  self.out = {}
end

function Batched:close()
  self:leave()
  self.turn_end:close()
  self.poll:close() -- before the socket that it watches
  self.udp:close()
end

-- The datagrams of a bound or connected UDP socket, which is closed with them.
local function new(udp)
  local self = { udp = udp, connected = udp:getpeername() ~= nil }
  udp:recv_buffer_size(RECEIVE_BUFFER)
  if not system then return setmetatable(self, Single) end
  local value, size = ffi.new 'int[1]', ffi.new('unsigned[1]', ffi.sizeof 'int')
  self.fd = udp:fileno()
  self.cuts = system.getsockopt(self.fd, SOL_UDP, UDP_SEGMENT, value, size) == 0 -- else the kernel does not know it, and would not cut
  value[0] = 1
  system.setsockopt(self.fd, SOL_SOCKET, SO_SELECT_ERR_QUEUE, value, size[0]) -- what ICMP brings is 'p', and does not fail the poll
  self.poll, self.turn_end = uv.new_poll(self.fd), uv.new_idle()
  self.peer_size, self.peer = 0, not self.connected and ffi.new 'char[32]' or nil
  self.out = {}
  self.flush = function() self:leave() end
  return setmetatable(self, Batched)
end

return { new = new }
