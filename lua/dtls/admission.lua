--- Who may come in, and who goes when there is no room: the limits of a server, its half-open handshakes by the host that
--- they are of, and which of them is evicted. Knows connections as keys only.

local core = require 'dtls.core'

-- A half-open handshake costs its maker two datagrams and us 50 to 70 KB (270 KB when its maker goes on to ChangeCipherSpec and then
-- sends all that is kept), so there must be an end: 200 to 300 MB, at worst 1.1 GB.
-- Then the host that has most of them loses its oldest; a burst of thousands of clients, as after a restart, must pass as well.
local DEFAULT_MAX_HANDSHAKES = 4096

-- What the system says when no descriptor is left: whoever leaves many handshakes open may take them all.
local NO_DESCRIPTORS = { EMFILE = true, ENFILE = true }

--- What one peer takes.
---@class dtls.Place
---@field conn any
---@field host dtls.Host
---@field older dtls.Place|false half-open ones of the same host, by age
---@field newer dtls.Place|false
---@field halfOpen boolean

--- What all peers of one host take together.
---@class dtls.Host
---@field key string what the core says whose an address is
---@field places integer
---@field halfOpen integer how many of them
---@field oldest dtls.Place|false of those
---@field newest dtls.Place|false
---@field before dtls.Host|false in its bucket
---@field after dtls.Host|false

---@class dtls.Admission
---@field private _buckets table<integer, {first: dtls.Host|false, last: dtls.Host|false}> hosts by their number of half-open handshakes
---@field private _most integer the highest number that some host has
local Admission = {}
Admission.__index = Admission

local admission = {}

--- A server's, with nobody in it.
---@param limits {maxConnections: integer?, maxConnectionsPerHost: integer?, maxHandshakes: integer?}
---@param evict fun(conn: any, err: dtls.Error)? ends a connection, which `leave` follows
---@return dtls.Admission
function admission.new(limits, evict)
  return setmetatable({
    _connections = limits.maxConnections or math.huge,
    _perHost = limits.maxConnectionsPerHost or math.huge,
    _handshakes = limits.maxHandshakes or DEFAULT_MAX_HANDSHAKES,
    _evict = evict,
    _busy = false,
    _places = {}, -- connection → dtls.Place
    _hosts = {}, -- key → dtls.Host, of those who have a place
    _buckets = {}, _most = 0,
    _active = 0, _halfOpen = 0, _hostCount = 0,
  }, Admission)
end

-- ── hosts by their number of half-open handshakes ──

local function leave_bucket(self, host)
  if host.halfOpen == 0 then return end
  local bucket = self._buckets[host.halfOpen]
  if host.before then host.before.after = host.after else bucket.first = host.after end
  if host.after then host.after.before = host.before else bucket.last = host.before end
  host.before, host.after = false, false
end

-- Behind those who have as many: who came to that number first is the first to lose one.
local function enter_bucket(self, host)
  local count = host.halfOpen
  if count == 0 then return end
  local bucket = self._buckets[count]
  if not bucket then
    bucket = { first = false, last = false } -- it stays when it is empty: there are as many as one host has had handshakes
    self._buckets[count] = bucket
  end
  host.before = bucket.last
  if bucket.last then bucket.last.after = host else bucket.first = host end
  bucket.last = host
end

-- The highest bucket moves by one at most, since a host does.
local function count_half_open(self, host, change)
  leave_bucket(self, host)
  host.halfOpen = host.halfOpen + change
  enter_bucket(self, host)
  self._halfOpen = self._halfOpen + change
  if host.halfOpen > self._most then
    self._most = host.halfOpen
  elseif self._most > 0 and not self._buckets[self._most].first then
    self._most = self._most - 1
  end
end

local function begin_half_open(self, place)
  local host = place.host
  place.older = host.newest
  if host.newest then host.newest.newer = place else host.oldest = place end
  host.newest = place
  count_half_open(self, host, 1)
end

local function end_half_open(self, place)
  if not place.halfOpen then return end
  local host = place.host
  if place.older then place.older.newer = place.newer else host.oldest = place.newer end
  if place.newer then place.newer.older = place.older else host.newest = place.older end
  place.halfOpen, place.older, place.newer = false, false, false
  count_half_open(self, host, -1)
end

-- ── coming and going ──

--- Whether a peer may begin a handshake. One that is known takes its own place, or will when its handshake is complete.
---@param host string
---@param known boolean
function Admission:admits(host, known)
  if self._busy then return false end
  local there = self._hosts[host]
  return known or self._active < self._connections and (there and there.places or 0) < self._perHost
end

--- A handshake has begun.
---@param conn any
---@param key string its host
function Admission:enter(conn, key)
  local host = self._hosts[key]
  if not host then
    host = { key = key, places = 0, halfOpen = 0, oldest = false, newest = false, before = false, after = false }
    self._hosts[key] = host
    self._hostCount = self._hostCount + 1
  end
  host.places = host.places + 1
  self._active = self._active + 1
  local place = { conn = conn, host = host, halfOpen = true, older = false, newer = false }
  self._places[conn] = place
  begin_half_open(self, place)
end

--- The handshake is complete.
function Admission:completed(conn)
  end_half_open(self, self._places[conn])
end

--- The connection is over, whatever it had come to.
function Admission:leave(conn)
  local place = self._places[conn]
  local host = place.host
  end_half_open(self, place)
  self._places[conn] = nil
  self._active = self._active - 1
  host.places = host.places - 1
  if host.places > 0 then return end
  self._hosts[host.key] = nil
  self._hostCount = self._hostCount - 1
end

-- ── making room ──

--- The connection that makes room for another: the oldest half-open one of the host that has most of them.
---@return any? conn nil: there is none
function Admission:evictable()
  local bucket = self._buckets[self._most]
  return bucket and bucket.first.oldest.conn
end

--- Whether there are more half-open ones than there may be.
function Admission:isCrowded()
  return self._halfOpen > self._handshakes
end

-- False: there is nobody to evict.
local function evict_one(self)
  local conn = self:evictable()
  if not conn then return false end
  self._evict(conn, core.error('ERR_DTLS_EVICTED', 'newer handshakes took its place (maxHandshakes, or no descriptors left)'))
  return true
end

--- Evicts one half-open handshake if there are more of them than there may be.
function Admission:makeRoom()
  if self:isCrowded() then evict_one(self) end
end

--- Whether one was evicted because the system has no descriptor left, so that it is worth trying again.
---@param err dtls.Error of the try that has failed
---@return boolean
function Admission:freesDescriptor(err)
  return NO_DESCRIPTORS[err.code] ~= nil and evict_one(self)
end

--- Nobody comes in as long as this is true.
function Admission:setBusy(busy)
  self._busy = busy
end

--- Iterates over the connections that have a place.
---@return fun(): any?
function Admission:connections()
  local conn
  return function()
    conn = next(self._places, conn)
    return conn
  end
end

--- How many connections there are, how many of them are half-open, and of how many hosts they are.
---@return integer active
---@return integer halfOpen
---@return integer hosts
function Admission:counts()
  return self._active, self._halfOpen, self._hostCount
end

return admission
