--- A plain UDP socket for tests that speak without DTLS: what its peers send is kept, in order. Everybody else's datagrams
--- are dropped: the port may have been that of an earlier test, whose other side still repeats its flight.

local ffi = require 'ffi'
local uv = require 'luv'
local contents = require 'spec.support.contents'

math.randomseed(uv.hrtime() % 2^31 + uv.os_getpid())

-- A second definition, after busted has unloaded this module, would raise.
pcall(ffi.cdef, 'int getsockopt(int fd, int level, int name, void *value, unsigned *size);')

local Raw = {}
Raw.__index = Raw

local raw = {}

---@param ip string? '127.0.0.1'
---@param port integer? any free one
function raw.open(ip, port)
  local self = setmetatable({ udp = uv.new_udp(), inbox = {}, peers = {}, ip = ip or '127.0.0.1' }, Raw)
  local ok, err = self.udp:bind(self.ip, port or 0)
  if not ok then
    self.udp:close()
    error(err, 2)
  end
  self.port = self.udp:getsockname().port
  self.udp:recv_start(function(_, data, from)
    if from and self:_hears(from) then self.inbox[#self.inbox + 1] = data or '' end
  end)
  return self
end

--- From now on keeps what this peer sends.
---@param peer table {ip=, port=}, or a connection, which may have no address yet
function Raw:hear(peer)
  self.peers[peer.port or peer] = peer
end

-- By its port: peers have several ways to write one address, and a port of this host has one owner.
function Raw:_hears(from)
  for _, peer in pairs(self.peers) do
    local address = peer.localAddress and peer:localAddress() or peer
    if address.port == from.port then return true end
  end
  return false
end

--- Sends a datagram to a peer, whom it hears from then on.
---@param to table {ip=, port=}
function Raw:send(data, to)
  self:hear(to)
  assert(self.udp:try_send(data, to.ip, to.port))
end

function Raw:close(callback)
  self.udp:close(callback)
end

-- Below the ports that the system hands out to sockets that do not ask for one: others' sockets come and go there at any time.
local function outside_of_range()
  local least = tonumber(contents '/proc/sys/net/ipv4/ip_local_port_range':match '%d+')
  return math.random(math.floor(least / 2), least - 1)
end

--- A port that nobody has, and that nobody gets who does not ask for it.
function raw.freePort(ip)
  for _ = 1, 100 do
    local udp, port = uv.new_udp(), outside_of_range()
    local ok = udp:bind(ip or '127.0.0.1', port)
    udp:close()
    if ok then return port end
  end
  error 'there is no free port'
end

--- A free port whose next one is free, too: CoAP's servers use both.
function raw.freePorts(ip)
  for _ = 1, 100 do
    local port, next_one = raw.freePort(ip), uv.new_udp()
    local free = next_one:bind(ip or '127.0.0.1', port + 1)
    next_one:close()
    if free then return port end
  end
  error 'no two free ports side by side'
end

--- How many hops the datagrams of a descriptor may take.
function raw.hops(fd, ip)
  local IPPROTO_IP, IP_TTL, IPPROTO_IPV6, IPV6_UNICAST_HOPS = 0, 2, 41, 16
  local value, size = ffi.new 'int[1]', ffi.new('unsigned[1]', 4)
  local v6 = ip:find(':', 1, true)
  assert(ffi.C.getsockopt(fd, v6 and IPPROTO_IPV6 or IPPROTO_IP, v6 and IPV6_UNICAST_HOPS or IP_TTL, value, size) == 0)
  return value[0]
end

return raw
