--- How a world is set up, as the first two bytes of an input say, and the sessions that its client may offer.

local world = require 'spec.fuzz.world'

local SHARED, ASKS_HELLO, STORES, HELD, SMALL, RESUMES = 1, 2, 4, 8, 16, 32

local function bit(flags, value) return math.floor(flags / value) % 2 == 1 end

local function options(kind, flags)
  return {
    kind = kind, demux = bit(flags, SHARED) and 'shared' or 'connected', asks_hello = bit(flags, ASKS_HELLO),
    stores_sessions = bit(flags, STORES), at_once = not bit(flags, HELD), mtu = bit(flags, SMALL) and 256 or nil,
  }
end

-- What a client can offer: a session whose ticket or id the server knows.
local function sessions(kind, keylog)
  local known = {}
  for _, stores in ipairs { 0, STORES } do
    local earlier = options(kind, ASKS_HELLO + stores)
    earlier.seed, earlier.keylog = 1, keylog -- without the seed the handshakes to come would give the same ids again
    local w = world.new(earlier)
    w:run(20)
    local _, blob = w.client.association:session()
    local id, kept = w:party('server').association:session()
    assert(blob, kind)
    if stores == 0 then
      known.ticket = blob
    else
      known.blob, known.store = blob, { [id] = kept }
    end
    w:close()
  end
  return known
end

--- A function that makes the world that an input asks for.
---@param kinds string[] of contexts.lua
---@param keylog boolean? associations tell their secrets
return function(kinds, keylog)
  local known = {}
  for _, kind in ipairs(kinds) do known[kind] = sessions(kind, keylog) end
  return function(input)
    local kind, flags = kinds[input:byte() % #kinds + 1], input:byte()
    local chosen = options(kind, flags)
    chosen.keylog = keylog
    if bit(flags, RESUMES) then
      chosen.session = chosen.stores_sessions and known[kind].blob or known[kind].ticket
      chosen.store = known[kind].store
    end
    return world.new(chosen)
  end
end
