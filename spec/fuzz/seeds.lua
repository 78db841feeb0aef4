--- Writes seeds into spec/fuzz/corpus: inputs made of the datagrams of genuine handshakes, and of steps that work.

package.path = './?.lua'
local world = require 'spec.fuzz.world'
local contexts = require 'spec.fuzz.contexts'
local wire = require 'spec.support.wire'

local HANDSHAKING, STAGES, MEND, WHOLE = 7, 11, 128, 64 -- of stages.lua and filter.c
local RECORD, MESSAGE = 13, 12 -- headers
local RUN, SPLIT, SAY, PART, DIAL, TYPED, EPOCH, DATA, ALERT, CCS, FRAGMENT, UNFINISHED, AGAIN, REPEATED, LARGE, PROTECT, RESEAL =
  1, 4, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21 -- steps of insider.lua
local INSIDER_STAGES, RESUMED, WRITES_FIRST, LINGERS = 4, 32, 64, 128

local function write(target, name, data, folder)
  local file = assert(io.open(('spec/fuzz/%s/%s/%s'):format(folder or 'corpus', target, name), 'wb'))
  assert(file:write(data))
  file:close()
end

--- What is not to be merged away: it tries what leads nowhere as long as the code is right.
local function keep(target, name, data) write(target, name, data, 'kept') end

local number = wire.number

local function prefixed(data) return wire.vector(2, data) end

-- What follows the compression methods of a ClientHello; nil for anything else.
local function extensions(datagram)
  if datagram:byte(1) ~= 22 or datagram:byte(RECORD + 1) ~= 1 then return nil end
  local at = RECORD + MESSAGE + 2 + 32 + 1
  at = at + datagram:byte(at) + 1 -- session id
  at = at + datagram:byte(at) + 1 -- cookie
  at = at + datagram:byte(at) * 256 + datagram:byte(at + 1) + 2 -- suites
  at = at + datagram:byte(at) + 1 -- compression methods
  return datagram:sub(at + 2)
end

-- The handshake messages of a datagram in one record; it must have nothing else.
local function joined(datagram)
  local messages, at = {}, 1
  while at < #datagram do
    local size = datagram:byte(at + 11) * 256 + datagram:byte(at + 12)
    if datagram:byte(at) ~= 22 or datagram:byte(at + 4) ~= 0 then return datagram end
    messages[#messages + 1] = datagram:sub(at + RECORD, at + RECORD + size - 1)
    at = at + RECORD + size
  end
  return datagram:sub(1, 11) .. prefixed(table.concat(messages))
end

for kind, name in ipairs(contexts.kinds) do
  for _, mtu in ipairs { 1228, 256 } do
    local w = world.new { kind = name, demux = 'shared', at_once = true, mtu = mtu }
    w:run(20)
    w:say 'client'
    w:say 'server'
    local flights = {}
    local odd = {}
    for i, datagram in ipairs(w.history) do
      flights[i] = prefixed(datagram)
      odd[i] = prefixed(joined((datagram:gsub('identity', 'iden\0ity'))))
      local offered = extensions(datagram)
      if offered and mtu == 1228 then
        for flags = 0, 15, 5 do write('hello', ('%s-%d-%d'):format(name, i, flags), string.char(flags) .. datagram) end
        for server = 0, 7 do write('extensions', ('%s-%d'):format(name, server), string.char(server) .. offered) end
      end
    end
    for stage = 0, STAGES - 1 do
      if mtu == 1228 then write('filter', ('%s-odd-%d'):format(name, stage), string.char(stage + MEND) .. table.concat(odd)) end
      if mtu == 1228 then write('filter', ('%s-whole-%d'):format(name, stage), string.char(stage + WHOLE) .. table.concat(odd)) end
      local last = stage < HANDSHAKING and #flights - 2 or #flights -- the last two are messages
      write('filter', ('%s-%d-%d'):format(name, mtu, stage), string.char(stage) .. table.concat(flights, '', 1, last))
    end
    for _, role in ipairs { 'client', 'server' } do
      local _, blob = w:party(role).association:session()
      if blob then write('session', ('%s-%s'):format(name, role), blob) end
    end
    -- A foreign handshake, after each turn of this one.
    for turns = 0, 3 do
      local steps = { string.char(kind - 1, turns % 2), ('\0'):rep(turns) }
      for i, flight in ipairs(flights) do steps[#steps + 1] = string.char(8, i % 2) .. flight end
      if mtu == 1228 then write('association', ('%s-foreign-%d'):format(name, turns), table.concat(steps) .. '\1') end
    end
    w:close()
  end
  for flags = 0, 63 do
    -- answered late, both talk, a restart, a goodbye
    write('association', ('%s-%d'):format(name, flags), string.char(kind - 1, flags)
      .. '\1\13\1\13\1\13\1\15\0\15\1\1\16\1\13\1\13\1\13\1\15\0\15\1\1\17\0\1')
    -- each flight: lost, repeated, delayed, doubled
    write('association', ('%s-%d-lossy'):format(name, flags), string.char(kind - 1, flags)
      .. '\3\0\14\10\0\3\1\14\11\0\13\3\0\14\12\6\0\0\0\13\3\1\14\13\4\1\6\1\3\0\13\3\0\14\14\4\0\1\13\1\15\0\6\0\7\6\1\7\15\1\1')
  end
  -- records that somebody made up: after so many turns of the handshake, and once it is open
  for i, start in ipairs { '\0\0\0', '\0\0\0\0', '\1' } do
    local steps = { string.char(kind - 1, kind % 2) .. start }
    for _, size in ipairs { 1, 2, 8, 16, 23, 24 } do
      for role = 0, 1 do
        steps[#steps + 1] = string.char(9, role, 23 - 2 * (size % 2), 1, 0, 90 + size) .. prefixed(('\2\40'):rep(size / 2 + 1):sub(1, size))
        steps[#steps + 1] = string.char(9, role, 21 + 2 * (size % 2), 0, 0, 90 + size) .. prefixed(('\2\40'):rep(size / 2 + 1):sub(1, size))
      end
    end
    keep('association', ('%s-made-up-%d'):format(name, i), table.concat(steps) .. '\1')
  end
  for flags = 0, 1 do
    -- the client starts over, and somebody else's records arrive meanwhile
    local forged = '\9\0\23\1\0\9' .. prefixed(('f'):rep(30))
    write('association', ('%s-%d-parallel'):format(name, flags), string.char(kind - 1, flags)
      .. '\1\16\0\0' .. forged .. '\0' .. forged .. '\0' .. forged .. '\19\0\0\60\19\1\1\60\1')
    -- somebody floods those who wait for an answer
    write('association', ('%s-%d-flood'):format(name, flags), string.char(kind - 1, 14 + flags)
      .. '\0\0\19\0\0\63\19\0\2\63\13\0\19\1\1\63\13\0\19\1\3\63\19\0\4\63\13\1')
    write('association', ('%s-%d-refused'):format(name, flags), string.char(kind - 1, 14 + flags) .. '\1\18\1')
  end
end

-- Names that are none, or hardly: too long for their extension, empty, with NUL, of another type.
local function named(size, name, type)
  return '\0\0' .. prefixed(prefixed((type or '\0') .. string.char(math.floor(size / 256), size % 256) .. name))
end
for i, extension in ipairs {
  named(1, 'n'), named(2, 'n'), named(20, 'n'), named(0, ''), named(3, 'a\0b'), named(1, 'n', '\1'), named(255, ('n'):rep(255)),
  named(256, ('n'):rep(256)), named(3, '...'), named(5, 'n') .. '\10\10\1\1' .. ('g'):rep(257),
  '\0\0\0\0', '\0\0\0\4\0\2\0\0', named(6, 'Server'),
} do
  keep('extensions', 'name-' .. i, '\1' .. extension)
end

-- ── a peer that has the keys ──

local function step(...) return string.char(...) end

local function fragment(role, sequence, type, length, body)
  return step(FRAGMENT, role, 0, type, sequence) .. number(length, 2) .. number(0, 2) .. prefixed(body)
end

-- Name → what the peer does to the end with that role (0: the server).
local harms = {
  data = function(role) return step(DATA, role, 0) .. prefixed 'data' end,
  empty = function(role) return step(DATA, role, 0) .. prefixed '' .. step(DATA, role, 0) .. prefixed 'x' end,
  packed = function(role)
    return step(DATA, role, 1) .. prefixed 'a' .. step(DATA, role, 1) .. prefixed '' .. step(DATA, role, 0) .. prefixed 'b'
  end,
  busy = function(role) return step(SAY, 1 - role, SAY, role, DATA, role, 0) .. prefixed 'data' .. step(RUN, SAY, role, RUN) end,
  close_notify = function(role) return step(ALERT, role, 1, 1, 0) .. step(DATA, role, 0) .. prefixed 'behind' .. step(SAY, role) end,
  warning = function(role) return step(ALERT, role, 0, 1, 41) end,
  warnings = function(role) return step(AGAIN, role, 21) .. prefixed '\1\90' .. step(12) end,
  fatal = function(role) return step(ALERT, role, 0, 2, 40) end,
  level = function(role) return step(ALERT, role, 0, 7, 40) end,
  long_alert = function(role) return step(TYPED, role, 0, 21) .. prefixed '\1\0\1' end,
  ccs = function(role) return step(CCS, role, 0) end,
  ccs_and_data = function(role) return step(CCS, role, 1, DATA, role, 0) .. prefixed 'data' end,
  unknown = function(role) return step(TYPED, role, 1, 24) .. prefixed 'heartbeat' .. step(TYPED, role, 0, 19) .. prefixed '' end,
  epochs = function(role)
    return step(EPOCH, role, 0, 22) .. prefixed '\0' .. number(2, 2) .. step(EPOCH, role, 0, 23) .. prefixed 'zero' .. number(0, 2)
  end,
  large = function(role) return step(LARGE, role, 23) .. number(256, 2) .. step(LARGE, role, 23) .. number(257, 2) end,
  again = function(role) return step(DATA, role, 0) .. prefixed 'once' .. step(REPEATED, role, 3) end,
  protected = function(role) return step(PROTECT, role, role == 0 and 0 or 1, PROTECT, role, role == 0 and 2 or 3) end,
  resealed = function(role) return step(RESEAL, role, 0, 0, 0, 0) end,
  cut = function(role) return step(RESEAL, role, 3, 0, 5, 1) end,
  spoiled = function(role) return step(RESEAL, role, 1, 0, 13, 7) end,
  finished = function(role) return step(AGAIN, role, 22) .. prefixed('\20\0\0\12\0\3\0\0\0\0\0\12' .. ('v'):rep(12)) .. step(15) end,
  hello_request = function(role) return step(TYPED, role, 0, 22) .. prefixed '\0\0\0\0\0\6\0\0\0\0\0\0' end,
  parted = function(role) return step(PART, 1 - role, DATA, role, 0) .. prefixed 'after' end,
  dialled = function(role) return step(DIAL, RUN, DATA, role, 0) .. prefixed 'parallel' end,
}
harms.half_closed = function(role) return fragment(role, 5, 1, 1000, 'x') .. step(ALERT, role, 0, 1, 0, SAY, role) end

-- These ended associations, left them deaf, or took memory without a bound.
local kept = {
  empty = true, packed = true, hello_request = true, warnings = true, finished = true, half_closed = true, fragment_5 = true,
  unfinished_5 = true,
}

for sequence = 2, 7 do
  harms['fragment_' .. sequence] = function(role) return fragment(role, sequence, 1, 1000, 'x') .. step(SAY, role) end
  harms['ahead_' .. sequence] = function(role)
    return fragment(role, sequence + 3, 11, 8, 'complete') .. step(DATA, role, 0) .. prefixed 'data'
  end
  harms['unfinished_' .. sequence] = function(role) return step(UNFINISHED, role, 4, sequence) .. number(16000, 2) .. step(1, 63) end
end

for kind, name in ipairs(contexts.ciphers) do
  for harm, steps in pairs(harms) do
    for stage = 0, INSIDER_STAGES - 1 do
      for role = 0, 1 do
        local flags = (kind + stage) % 2 + (stage + role) % 2 * RESUMED
        local lingers = harm:find 'close' and (kind + role + stage) % 4 > 0 and LINGERS or 0
        local head = string.char(kind - 1, flags, stage + (kind + role) % 2 * WRITES_FIRST + lingers)
        local save = kept[harm] and stage > 0 and (name == 'certificate' or name == 'psk_asked') and keep or write
        save('insider', ('%s-%s-%d-%d'):format(name, harm, stage, role), head .. step(SPLIT, role) .. steps(role))
      end
    end
  end
end

return function() end
