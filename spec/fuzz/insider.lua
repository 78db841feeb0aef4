--- An authenticated peer that means harm: records that are protected as RFC 6347 §4.1.2 says, of any content type and any
--- content, into a client and a server at every stage of an association. An input is two bytes that say how both are set up,
--- one that says at which stage the harm begins and how the end of the input is checked, then steps: a byte that says what
--- happens next, and what that needs.
---
--- What must hold, beside what world.lua asserts: an association works (its peer's next record is delivered, and what it
--- sends is a record that its peer can open), or it has ended with an error object or at a close_notify; application data,
--- content types that DTLS has not and epochs to come end none; its memory is bounded, and so is what it sends in answer.

package.path = './?.lua'
local contexts = require 'spec.fuzz.contexts'
local new_input = require 'spec.fuzz.input'
local setup = require 'spec.fuzz.setup'
local common = require 'spec.fuzz.steps'
local sealed = require 'spec.support.sealed'
local wire = require 'spec.support.wire'

local CHANGE_CIPHER_SPEC, ALERT, HANDSHAKE, APPLICATION_DATA = 20, 21, 22, 23
local PENDING_MAX, MESSAGE_MAX = 16384, 16384 -- with a record more, a datagram still is one that UDP can carry
-- Bytes of an end with an honest peer, on OpenSSL 3.0, of which an open association has 34 KB of record buffers until it has been
-- idle for a while (footprint.c); and what a harmful peer may add: to an open association next to nothing, to a half-open one what
-- waits for Finished, and 18.4 KB for each of eleven messages that libssl lets a peer begin.
local OPEN, HALF_OPEN = (48 + 34) * 1024, 96 * 1024
local HARM_OPEN, HARM_HALF_OPEN = 16 * 1024, (32 + 11 * 18.4 + 8) * 1024
local FAR = 2 ^ 40 -- sequence numbers of the records that show at the end what still works

local roles = { 'server', 'client' }
local peer_of = { server = 'client', client = 'server' }

local function parties(w) return { w.client, unpack(w.servers) } end

-- ── the peer with the keys ──

-- What a world has for it, by the role that a record goes to: `next`, the sequence number of the next record; `pending`, the
-- records of a datagram that is not complete yet; `last`, the last datagram that was. `keys` are those of the newest association.

--- Every association tells its secret as soon as it has it.
local function learn(w)
  for _, party in ipairs(parties(w)) do
    local line = party.association and party.association:keylog()
    local random, master = sealed.secret(line or '')
    if random then
      local suite = party.association:cipher().name
      party.keys = sealed.keys(master, random, sealed.serverRandom { w.server_hello }, suite)
      w.keys = party.keys
    end
  end
end

local function check(w)
  learn(w)
  w:checkMemory(function(party)
    local harmed = w.last[party.role]
    if party.open then return OPEN + (harmed and HARM_OPEN or 0) end
    return HALF_OPEN + (harmed and HARM_HALF_OPEN or 0)
  end)
end

-- What no association may end because of.
local function is_harmless(type, epoch, plaintext)
  return type == APPLICATION_DATA and #plaintext <= MESSAGE_MAX or type < CHANGE_CIPHER_SPEC or type > APPLICATION_DATA or epoch > 1
end

local function deliver(w, role, datagram)
  w.harmed = true
  w.last[role] = datagram
  w:answered(role, datagram)
  check(w)
end

-- The keys that the end with that role uses, or is about to.
local function keys_for(w, role)
  local party = w:party(role)
  return party and party.keys or w.keys
end

--- A record for an end, behind those that are already pending for it. `how`: bit 1: more follow in its datagram; others:
--- the sequence number is the next one, or so many back.
local function seal(w, role, how, type, plaintext, epoch)
  local keys = keys_for(w, role)
  if not keys then return end
  local back = math.floor(how / 2)
  local sequence = math.max(w.next[role] - back, 0)
  if back == 0 then w.next[role] = sequence + 1 end
  epoch = epoch or 1
  if type == APPLICATION_DATA then w:expect(role, plaintext) end
  if not is_harmless(type, epoch, plaintext) then w:isOver() end
  local record = sealed.record(keys, peer_of[role], type, epoch, sequence, plaintext)
  local datagram = w.pending[role] .. record
  if how % 2 == 1 and #datagram < PENDING_MAX then
    w.pending[role] = datagram
  else
    w.pending[role] = ''
    deliver(w, role, datagram)
  end
end

-- ── the datagrams of the genuine peer ──

--- The oldest datagram to there becomes as many as it has records.
local function split(w, role)
  local queue = w.to[role]
  local records = wire.records(table.remove(queue, 1) or '')
  for i = #records, 1, -1 do table.insert(queue, 1, records[i].whole) end
end

local function head(w, role) return wire.records(w.to[role][1] or '')[1] end

--- Runs the handshake, record by record, until the peer's Finished is what the end with that role would get next.
local function until_finished(w, role)
  for _ = 1, 60 do
    w:answerAll()
    learn(w)
    for _, to in ipairs(roles) do
      split(w, to)
      local record = head(w, to)
      if record and record.epoch == 1 and to == role then return end
      if record then w:deliver(to, w:take(to)) end
    end
  end
end

local stages = {
  function() end,
  function(w)
    for _ = 1, 6 do
      w:answerAll()
      w:run(20)
    end
  end,
  function(w) until_finished(w, 'server') end,
  function(w) until_finished(w, 'client') end,
}

--- The records of the next genuine datagram that are protected are opened, changed and sealed again.
local function reseal(input, w, role)
  local how, at, value = input:byte(), input:short(), input:byte()
  local keys = keys_for(w, role)
  local data = keys and w:take(role)
  if not data then return end
  for _, record in ipairs(wire.records(data)) do
    local text = record.epoch == 1 and sealed.open(keys, peer_of[role], record)
    if not text then
      w:deliver(role, record.whole)
    elseif how % 4 == 0 then -- as it is
      seal(w, role, 0, record.type, text)
    elseif how % 4 == 1 then -- one byte changed
      local spot = at % (#text + 1)
      seal(w, role, 0, record.type, text:sub(1, spot) .. string.char(value) .. text:sub(spot + 2))
    elseif how % 4 == 2 then -- of another type
      seal(w, role, 0, CHANGE_CIPHER_SPEC + value % 5, text)
    else -- cut in fragments, the last one first or last
      local size = math.max(at % 32, 1)
      local type, length, sequence = text:byte(1), #text - 12, wire.read(text .. '\0\0\0\0\0\0', 5, 2)
      local last = math.floor(math.max(length - 1, 0) / size) * size
      for i = 0, last, size do
        local offset = value % 2 == 0 and i or last - i
        seal(w, role, 0, record.type, wire.fragment(type, sequence, math.max(length, 0), offset, text:sub(13 + offset, 12 + offset + size)))
      end
    end
  end
end

-- ── steps ──

local steps = {
  common.turn, common.turns, common.deliver, common.lose,
  function(input, w) split(w, input:role()) end,
  common.answer, common.wait, common.say, common.part,
  function(_, w) -- the client starts over; which keys are whose is known only of one handshake at a time
    w.harmed = true
    w:dropHalfOpen()
    w:dial()
  end,
  function(input, w) seal(w, input:role(), input:byte(), input:byte(), input:bytes(), 1) end,
  function(input, w) seal(w, input:role(), input:byte(), input:byte(), input:bytes(), input:short()) end,
  function(input, w) seal(w, input:role(), input:byte(), APPLICATION_DATA, input:bytes()) end,
  function(input, w) seal(w, input:role(), input:byte(), ALERT, string.char(input:byte(), input:byte())) end,
  function(input, w) seal(w, input:role(), input:byte(), CHANGE_CIPHER_SPEC, '\1') end,
  function(input, w) -- a fragment of a handshake message
    local role, how, type, sequence, length = input:role(), input:byte(), input:byte(), input:byte(), input:short()
    local offset, body = input:short(), input:bytes()
    seal(w, role, how, HANDSHAKE, wire.fragment(type, sequence, length, offset, body))
  end,
  function(input, w) -- messages that are never completed, one after the other
    local role, type, sequence, length, size = input:role(), input:byte(), input:byte(), input:short(), input:byte()
    for i = 0, input:byte() % 64 do
      seal(w, role, 0, HANDSHAKE, wire.fragment(type, sequence + i, length, 0, ('f'):rep(math.min(size, length))))
    end
  end,
  function(input, w) -- the same record again and again, each time as a new one
    local role, type, body = input:role(), input:byte(), input:bytes()
    for _ = 0, input:byte() % 64 do seal(w, role, 0, type, body) end
  end,
  function(input, w) -- a datagram again and again
    local role, count = input:role(), input:byte() % 64
    for _ = 0, count do
      if w.last[role] then deliver(w, role, w.last[role]) end
    end
  end,
  function(input, w) -- as large as a record may be, and larger
    local role, type, size = input:role(), input:byte(), input:short()
    seal(w, role, 0, type, ('l'):rep(MESSAGE_MAX - 256 + size % 4096))
  end,
  function(input, w) -- what was plaintext, protected
    local role, datagram = input:role(), w.history[input:byte() % math.max(#w.history, 1) + 1] or ''
    for _, record in ipairs(wire.records(datagram)) do
      if record.epoch == 0 then seal(w, role, 0, record.type, record.body) end
    end
  end,
  function(input, w) reseal(input, w, input:role()) end,
  function(input, w) -- what the keys do not protect
    local role, type = input:role(), input:byte()
    deliver(w, role, wire.record(type, 0, input:byte(), input:bytes()))
  end,
}

-- ── the end ──

--- An end that is open hears its peer and is heard by it, or it is over.
local function check_alive(w, role, party)
  local function hears(text)
    local before = party.heard or 0
    w.far = w.far + 1
    w:expect(role, text)
    w:deliver(role, sealed.record(party.keys, peer_of[role], APPLICATION_DATA, 1, w.far, text))
    assert(not party.association or party.parted or party.heard == before + 1, 'an open association does not hear its peer')
  end
  local function is_heard(text)
    if not party.association then return end
    w.to[peer_of[role]] = {}
    if not w:write(party, text) then return end
    w:turn()
    local found
    for _, datagram in ipairs(w.to[peer_of[role]]) do
      for _, record in ipairs(wire.records(datagram)) do found = found or sealed.open(party.keys, role, record) == text end
    end
    assert(found, 'what an open association sends is no message')
  end
  if w.writes_first then is_heard 'first' end
  if party.association then hears 'heard?' end
  is_heard 'echo'
  if party.association then hears 'heard again?' end
end

local function finish(w)
  for _, role in ipairs(roles) do
    if w.pending[role] ~= '' then deliver(w, role, w.pending[role]) end
  end
  w:settle()
  check(w)
  for _, party in ipairs(parties(w)) do
    if party.association and party.open then
      check_alive(w, party.role, party)
    elseif party.association then
      w:checkExpired(party)
    end
  end
  w:free()
end

local LINGERS, WRITES_FIRST = 128, 64
local new_world = setup(contexts.ciphers, true)

return function(data)
  local input = new_input(data)
  local w = new_world(input)
  w.next, w.pending, w.last, w.far = { server = 1, client = 1 }, { server = '', client = '' }, {}, FAR
  local stage = input:byte()
  w.options.lingers = stage >= LINGERS
  w.writes_first = math.floor(stage / WRITES_FIRST) % 2 == 1
  stages[stage % #stages + 1](w)
  check(w)
  for _ = 1, 60 do
    if input:ended() then break end
    steps[input:byte() % #steps + 1](input, w)
    check(w)
  end
  finish(w)
end
