--- A client, a server and the network between them, in one process and without an event loop. Every datagram goes through
--- a relay that keeps it until it is told what becomes of it. What must hold at any time is asserted here.

local core = require 'dtls.core'
local contexts = require 'spec.fuzz.contexts'
local sealed = require 'spec.support.sealed'
local wire = require 'spec.support.wire'
local net = net

-- What may be allocated, beside the endpoint. Of half-open associations, clients take most: all that is kept for them comes
-- to 220 KB. MEMORY_REST: what is left in the contexts when all are closed, of which each has at least 35 KB.
local MEMORY_HALF_OPEN, MEMORY_OPEN, MEMORY_REST = 256 * 1024, 128 * 1024, 24 * 1024
-- NewSessionTicket (with the client's certificate in it, three datagrams where the MTU is 256), ChangeCipherSpec, Finished.
local FLIGHT_DATAGRAMS, FLIGHT_BYTES = 5, 1024
local HISTORY_MAX = 64
local QUEUE_MAX = 64

-- Sockets serve one world after the other. The server knows the client by the relay's address.
local server_fd, server_port = net.open()
local client_fd, client_port = net.open()
local relay_fd, relay_port = net.open()
local stranger_fd, stranger_port = net.open()
net.connect(client_fd, relay_port)

local peer_of = { server = 'client', client = 'server' }

local World = {}
World.__index = World

local pairs_of_contexts = {}

-- What goes wrong is told with an error object. Words are what the core's documentation names for the call, and no others.
local function check_error(err, ...)
  for _, word in ipairs { ... } do
    if err == word then return end
  end
  assert(type(err) == 'table' and type(err.code) == 'string' and type(err.message) == 'string' and err.message ~= '',
    'neither an error object nor a word that the call has: ' .. tostring(err))
end

local function drain(fd)
  repeat until not net.receive(fd)
end

---@param options table kind, demux, asks_hello, stores_sessions, at_once (questions are answered when they are asked), mtu,
---   session (for the client to offer), store (by id), seed (of randomness), keylog (associations tell their secrets),
---   lingers (after the peer's close_notify an end stays, as one whose application goes on writing)
local function new(options)
  net.fix(options.seed)
  drain(server_fd)
  drain(relay_fd)
  drain(stranger_fd)
  local made = pairs_of_contexts[options.kind] or contexts.pair(options.kind, options.keylog)
  pairs_of_contexts[options.kind] = made
  local self = setmetatable({
    options = options, contexts = made, servers = {}, history = {}, sent = {}, count = 0,
    to = { server = {}, client = {} }, said = { server = { datagrams = 0, bytes = 0 }, client = { datagrams = 0, bytes = 0 } },
  }, World)
  self.endpoint = assert(core.endpoint(made.server, server_fd, options.demux, {
    asks_hello = options.asks_hello, stores_sessions = options.stores_sessions,
  }))
  self.allocated = net.allocated()
  self:dial()
  return self
end

-- ── the two ends ──

-- A party is {role=, association=, open=, question=, heard=}. association: nil once it is closed.

function World:newParty(role, association)
  local party = { role = role, association = association }
  if self.options.mtu then assert(association:set_mtu(self.options.mtu)) end
  return party
end

--- Closes a party without a word to the other end.
local function finish(party)
  local association = party.association
  party.association, party.question = nil, nil
  if association then association:close() end
end

--- The client starts, or starts over from the same port.
function World:dial()
  if self.client then finish(self.client) end
  local association = assert(core.client(self.contexts.client, client_fd, {
    servername = 'localhost', check_name = false, session = self.options.session,
  }))
  self.client = self:newParty('client', association)
  self.dialled = (self.dialled or 0) + 1
  self:turn()
end

--- The server's end that the client may be talking to: the last one that is open, else the last one.
function World:party(role)
  if role == 'client' then return self.client end
  for i = #self.servers, 1, -1 do
    local party = self.servers[i]
    if party.open and party.association then return party end
  end
  return self.servers[#self.servers]
end

local function is_open(party) return party and party.open and party.association end

--- Ends what has not been completed at the server, without a word.
function World:dropHalfOpen()
  for _, party in ipairs(self.servers) do
    if not party.open then finish(party) end
  end
end

--- A handshake that may never complete is over when its time is.
function World.checkExpired(_, party)
  local ok, err = party.association:expired(1)
  assert(not ok)
  check_error(err)
  finish(party)
end

-- Whether nobody is in the middle of a handshake.
local function is_settled(self)
  for _, party in ipairs(self.servers) do
    if party.association and not party.open then return false end
  end
  return is_open(self.client)
end

-- One of its ends gave up or said goodbye: the other is free to end, too.
function World:isOver()
  self.over = true
end

local answers = {
  ask_hello = function(self, association, _, id)
    local blob = id and self.options.store and self.options.store[id]
    assert(association:answer_hello(nil, blob))
  end,
  ask_psk = function(_, association) association:answer_psk(contexts.KEY, 'identity') end,
  ask_verify = function(_, association) association:answer_verify(true) end,
}

local refusals = {
  ask_hello = function(_, association) association:refuse_hello 'unrecognized_name' end,
  ask_psk = function(_, association) association:answer_psk() end,
  ask_verify = function(_, association) association:answer_verify(false) end,
}

function World:answer(party, refuse)
  local question = party.question
  if not question then return end
  party.question = nil
  local how = refuse and refusals or answers
  how[question[1]](self, party.association, question[2], question[3])
  self:serve(party)
end

function World:handshake(party)
  repeat
    local ok, err, subject, id = party.association:handshake()
    if ok then
      party.open = true
      local displaced = party.association:promote()
      if displaced then finish(displaced) end
      return true
    end
    local asked = type(err) == 'string' and answers[err]
    if asked then
      party.question = { err, subject, id }
      if not self.options.at_once then return false end
      local question = party.question
      party.question = nil
      answers[question[1]](self, party.association, question[2], question[3])
    elseif err ~= 'want_read' and err ~= 'want_answer' then
      check_error(err)
      self:isOver()
      finish(party)
    end
  until not asked
end

--- Lets a party do all that it can do now. message, why: what next() has read for it already.
function World:serve(party, message, why)
  if not party.association then return end
  if not party.open and not self:handshake(party) then return end
  while party.association do
    if why == nil then message, why = party.association:read() end
    if message then
      local key = party.role .. message
      assert(message ~= '' and (self.sent[key] or 0) > 0, 'a message that nobody sent, or for the second time')
      assert(not party.parted, 'a message behind a close_notify')
      self.sent[key] = self.sent[key] - 1
      party.heard = (party.heard or 0) + 1
      why = nil
    elseif why == 'want_read' then
      assert(not party.parted, 'a close_notify was forgotten')
      return
    elseif why == 'closed' and self.options.lingers then
      assert(self.over, 'a close_notify that nobody sent')
      party.parted = true
      return
    else
      check_error(why, 'closed')
      assert(self.over, 'an open association ended: ' .. tostring(why))
      return finish(party)
    end
  end
end

local function accept(self, known)
  assert(not known or self.dialled > 1, 'an old hello took the place of its own association')
  local association, displaced = assert(self.endpoint:accept())
  assert(association:remote_address().port ~= stranger_port, 'a stranger proved an address without seeing the cookie')
  if displaced then finish(displaced) end
  local party = self:newParty('server', association)
  association:set_owner(party)
  self.servers[#self.servers + 1] = party
  self:serve(party)
end

local function collect(self)
  while true do
    local data, port = net.receive(relay_fd)
    if not data then return end
    local role = port == client_port and 'server' or 'client'
    local queue = self.to[role]
    local from = peer_of[role]
    self.said[from] = { datagrams = self.said[from].datagrams + 1, bytes = self.said[from].bytes + #data }
    if role == 'client' and sealed.serverRandom { data } then self.server_hello = data end
    if #queue < QUEUE_MAX then queue[#queue + 1] = data end
    if #self.history < HISTORY_MAX then self.history[#self.history + 1] = data end
  end
end

-- Everything that the sockets of peers have, or the endpoint's own.
local function takeAll(self, of_peers)
  self.endpoint:turn(10000, of_peers)
  while true do
    local kind, subject, known, more = self.endpoint:next()
    if kind == 'hello' then
      accept(self, known)
    elseif kind == 'read' then
      self:serve(subject, known, more)
    elseif kind == 'handshake' then
      self:serve(subject)
    else
      return
    end
  end
end

--- What an event loop would do.
function World:turn()
  takeAll(self)
  if self.endpoint:peers_fd() then takeAll(self, true) end
  if self.client then self:serve(self.client) end
  collect(self)
end

-- ── the network ──

--- Hands a datagram to 'server' or 'client', from the address of the other one.
function World:deliver(role, data)
  net.send(relay_fd, data, role == 'server' and server_port or client_port)
  self:turn()
end

--- The oldest datagram on its way to there, taken off the queue; nil: there is none.
function World:take(role)
  return table.remove(self.to[role], 1)
end

local function bytesFrom(queue, from)
  local sum = 0
  for i = from, #queue do sum = sum + #queue[i] end
  return sum
end

--- A datagram with records that the other one might have sent, to 'server' or 'client'. A peer that repeats itself gets the
--- last flight again (RFC 6347 §4.2.4); no record is worth more than that.
function World:answered(role, data)
  local before = self.said[role]
  self:deliver(role, data)
  local records = #wire.records(data)
  local datagrams, bytes = self.said[role].datagrams - before.datagrams, self.said[role].bytes - before.bytes
  assert(datagrams <= FLIGHT_DATAGRAMS * records and bytes <= FLIGHT_BYTES * records,
    ('%d datagrams with %d bytes answer %d records'):format(datagrams, bytes, records))
end

--- A datagram that neither of them made. It gets no more than it was, unless a handshake is going on.
function World:inject(role, data)
  local other = peer_of[role]
  if data:find '[\20\22]' then self.harmed = true end -- it may pass for a handshake message, or ChangeCipherSpec
  local settled, queued = is_settled(self) or role == 'server' and not self.servers[1], #self.to[other]
  self:deliver(role, data)
  if settled then assert(bytesFrom(self.to[other], queued + 1) <= #data, 'an answer larger than what it answers') end
end

--- A datagram to the server from an address that nobody has shown anything.
function World:stray(data)
  net.send(stranger_fd, data, server_port)
  self:turn()
  local sum, answer = 0, net.receive(stranger_fd)
  while answer do
    sum = sum + #answer
    answer = net.receive(stranger_fd)
  end
  assert(sum <= #data, 'an answer to a stranger, larger than what it answers')
end

--- Time goes by.
function World:wait(ms)
  net.advance(ms)
  local parties = { self.client, unpack(self.servers) }
  for _, party in ipairs(parties) do
    local association = party.association
    if association and not party.open and association:timeout() == 0 then
      local ok, err = association:handle_timeout()
      if not ok then
        check_error(err)
        self:isOver()
        finish(party)
      end
    end
  end
  self:turn()
end

--- The network does as it should, for so many turns at most, until nothing is on its way.
function World:run(turns)
  for _ = 1, turns do
    local to_server, to_client = self:take 'server', self:take 'client'
    if not to_server and not to_client then return end
    if to_server then self:deliver('server', to_server) end
    if to_client then self:deliver('client', to_client) end
  end
end

function World:answerAll(refuse)
  self:answer(self.client, refuse)
  for _, party in ipairs(self.servers) do self:answer(party, refuse) end
  self:turn()
end

-- ── messages ──

--- 'server' or 'client' may hear this once.
function World:expect(role, message)
  self.sent[role .. message] = (self.sent[role .. message] or 0) + 1
end

--- Whether it is on its way. Else the end is over.
function World:write(party, message)
  local ok, err, unusable = party.association:write(message)
  if ok then return true end
  check_error(err)
  assert(self.over and unusable, 'an open association sends nothing: ' .. tostring(err))
  finish(party)
  return false
end

--- An application message from 'server' or 'client', if it can send one.
function World:say(role)
  local party = self:party(role)
  if not is_open(party) then return false end
  self.count = self.count + 1
  local message = ('%d %s'):format(self.count, ('x'):rep(self.count * 7 % 50))
  self:expect(peer_of[role], message)
  self:write(party, message)
  collect(self)
  return true
end

--- The end says goodbye.
function World:part(role)
  local party = self:party(role)
  if not is_open(party) then return end
  self:isOver()
  party.association:shutdown()
  finish(party)
  collect(self)
end

-- ── the end ──

local function hear(self, from, to)
  local party = self:party(to)
  local heard = party.heard or 0
  assert(self:say(from))
  self:run(2)
  assert(party.heard == heard + 1, 'a message did not arrive')
end

--- That the ends have no more than `limit` says, in bytes.
---@param limit fun(party: table): integer
function World:checkMemory(limit)
  local allowed = MEMORY_REST
  for _, party in ipairs { self.client, unpack(self.servers) } do
    if party.association then allowed = allowed + limit(party) end
  end
  local used = net.allocated() - self.allocated
  assert(used < allowed, ('too much memory: %d of %d bytes'):format(used, allowed))
end

--- The network does as it should, long enough for handshakes to be completed or to fail. harmed: something happened that
--- may delay a handshake or end it; made-up records that cannot pass for a part of it must not.
function World:settle()
  for _ = 1, 4 do
    self:answerAll()
    self:run(30)
  end
  assert(self.harmed or is_settled(self), 'what is no part of a handshake has stopped one')
  for _ = 1, 6 do
    self:answerAll()
    self:run(30)
    if self.over or is_settled(self) then break end
    self:wait(60000)
  end
  self:run(2 * QUEUE_MAX)
end

--- Both ends go, and leave nothing.
function World:free()
  finish(self.client)
  for _, party in ipairs(self.servers) do finish(party) end
  self.endpoint:turn(10000) -- what was left in their sockets, for nobody
  while self.endpoint:next() do end
  assert(net.allocated() - self.allocated < MEMORY_REST, 'memory that nobody needs any more')
  self.endpoint:close()
end

--- Whatever happened: two open ends can talk.
function World:close()
  self:checkMemory(function(party) return party.open and MEMORY_OPEN or MEMORY_HALF_OPEN end)
  self:settle()
  if not self.over and is_open(self.client) and is_open(self:party 'server') then
    hear(self, 'client', 'server')
    hear(self, 'server', 'client')
  end
  self:free()
end

return { new = new }
