--- What connections send during a turn of the event loop leaves together when the turn ends.

local loop = require 'spec.support.loop'
local pair = require 'spec.support.pair'
local child = require('spec.support.faults').child

-- For the processes below: a server and clients, and what each client must get.
local prelude = [[
  local fault, loop, pair = require 'spec.support.faults', require 'spec.support.loop', require 'spec.support.pair'
  local ffi, platform = require 'ffi', require('dtls.core').platform()
  ffi.cdef 'int setsockopt(int fd, int level, int name, const void *value, unsigned size);'
  local udp = require('luv').new_udp 'inet'
  -- Whether this kernel cuts datagrams, and the core has it do so: IPPROTO_UDP, UDP_SEGMENT.
  local cuts = platform.segments and ffi.C.setsockopt(udp:fileno(), 17, 103, ffi.new('int[1]'), 4) == 0
  udp:close()
  local Trial = {}
  Trial.__index = Trial
  local function new(count)
    local self = setmetatable({
      server = pair.listening { demux = DEMUX, recvBufferSize = 2 ^ 20 }, clients = {}, accepted = {}, got = {}, sent = {},
    }, Trial)
    for i = 1, count do
      self.clients[i], self.accepted[i] = pair.open(self.server)
      self.got[i], self.sent[i] = {}, {}
      self.clients[i]:on('message', function(data) table.insert(self.got[i], data) end)
    end
    return self
  end
  function Trial:send(i, text)
    local ok, err = self.accepted[i]:send(text)
    if ok then table.insert(self.sent[i], text) end
    return ok, err
  end
  -- So many messages to each client, which take turns.
  function Trial:burst(count)
    for n = 1, count do
      for i in ipairs(self.clients) do self:send(i, ('number %02d'):format(n)) end
    end
  end
  function Trial:check()
    for i in ipairs(self.clients) do
      loop.till(function() return #self.got[i] >= #self.sent[i] end, 'all messages of a client')
      assert(#self.got[i] == #self.sent[i])
      for n, text in ipairs(self.sent[i]) do assert(self.got[i][n] == text, ('message %d of client %d'):format(n, i)) end
    end
  end
  function Trial:drops() return self.server:stats().drops end
  function Trial:close()
    for _, conn in ipairs(self.clients) do pair.close(conn) end
    pair.close(self.server)
  end
]]

---@param needs (fun(body: function): function)? for what not every luv can do
local function trial(name, body, needs)
  pair.eachStrategy(function(demux)
    local function test()
      child(function(before, code)
        local made = ' return { new = new, fault = fault, loop = loop, pair = pair, cuts = cuts, mmsg = platform.mmsg }'
        local run = assert(loadstring(before .. made))()
        run.loop.run(function() assert(loadstring(code))(run) end)()
      end, ("local DEMUX = '%s'\n"):format(demux) .. prelude, string.dump(body))
    end
    it(name, needs and needs(test) or test)
  end)
end

describe('messages that a server sends in one turn', function()
  trial('leave by a few system calls, whole, once and in order', function(run)
    local all = run.new(10)
    run.fault.set 'send'
    for n = 1, 40 do
      for i = 1, 10 do all:send(i, ('%d of %d '):format(n, i) .. ('x'):rep(n % 7 == 0 and n * 20 or 50)) end
    end
    all:check()
    assert(run.fault.calls 'send' < (run.mmsg and 20 or 401), run.fault.calls 'send')
    assert(all.server:stats().messagesOut == 400)
    all:close()
  end)

  trial('leave as single datagrams, and are not joined any more, where the kernel cannot cut them', function(run)
    local all = run.new(3)
    run.fault.set('segments', 1, 1e6, 'EIO')
    for _ = 1, 3 do
      all:burst(20)
      all:check()
      assert(run.fault.calls 'segments' == (run.cuts and 3 or 0), run.fault.calls 'segments')
    end
    assert(not next(all:drops()))
    all:close()
  end)

  trial('are not joined any more for a peer whose path does not take that, and go on to be for others', function(run)
    local all = run.new(2)
    run.fault.set('segments', 1, 1, 'EINVAL')
    for round = 1, 3 do
      all:burst(20)
      all:check()
      assert(run.fault.calls 'segments' == (run.cuts and round + 1 or 0), run.fault.calls 'segments')
    end
    assert(not next(all:drops()))
    all:close()
  end)

  for _, first in ipairs { 3, 4 } do
    trial(('wait, and none is lost, when the socket takes no more for call %d to 5'):format(first), loadstring(([[
      local run = ...
      local all = run.new(100)
      run.fault.set('send', %d, %d, 'EAGAIN')
      all:burst(3)
      all:check()
      assert(run.fault.calls 'send' > 5)
      assert(not next(all:drops()))
      all:close()
    ]]):format(first, 6 - first)))
  end

  trial('are refused with EAGAIN when too many wait, and drain follows', function(run)
    local all = run.new(1)
    local heard = run.pair.record(all.accepted[1], 'drain')
    all:send(1, 'number 0')
    local before = all.accepted[1]:stats().datagramsOut
    run.fault.set('send', 1, 1e6, 'EAGAIN')
    local ok, err, count = true, nil, 1
    while ok and count < 10000 do
      ok, err = all:send(1, 'number ' .. count)
      count = count + 1
    end
    assert(count < 2000 and err.code == 'EAGAIN', count)
    assert(all:drops().EAGAIN == 1)
    assert(all.accepted[1]:stats().datagramsOut == before)
    run.fault.set 'send'
    heard.wait 'drain'
    assert(all.accepted[1]:stats().datagramsOut == before + #all.sent[1] - 1) -- one of them had left before
    assert(all:send(1, 'after'))
    run.loop.till(function() return all.got[1][#all.got[1] ] == 'after' end, 'the message after')
    all:close()
  end)

  trial('leave at once while those that a full socket keeps waiting take all the room, which is not tried again for each', function(run)
    local all = run.new(2)
    for _ = 1, 2 do all:send(1, 'begins a turn') end
    run.fault.set('send', 1, 1e6, 'EAGAIN')
    repeat local ok = all:send(1, 'waits') until not ok
    run.fault.set('send', 11, 1e6, 'EAGAIN')
    for n = 1, 10 do assert(all:send(2, 'at once ' .. n)) end
    assert(run.fault.calls 'send' == 10, run.fault.calls 'send')
    run.fault.set 'send'
    run.loop.till(function() return #all.got[2] == #all.sent[2] end, 'the messages of the other one')
    all:close()
  end)

  trial('are counted when they do not leave, and harm no others', function(run)
    local all = run.new(4)
    for i = 1, 4 do all:send(i, 'first') end
    run.loop.till(function() return #all.got[4] == 1 end, 'the first ones')
    for i = 1, 4 do all:send(i, 'second') end
    run.fault.set('send', 1, 1, 'EHOSTUNREACH')
    run.loop.till(function() return #all.got[4] == 2 end, 'the second one of the last client')
    assert(all:drops().EHOSTUNREACH == 1)
    for i = 1, 4 do all:send(i, 'third') end
    run.loop.till(function() return all.got[1][#all.got[1] ] == 'third' end, 'the third ones')
    all:close()
  end)

  trial('leave before the close_notify of their connection, or of the server', function(run)
    local all = run.new(2)
    local ended = run.pair.record(all.clients[1], 'close')
    for n = 1, 5 do all:send(1, 'number ' .. n) end
    all.accepted[1]:close()
    ended.wait 'close'
    all:check()
    ended = run.pair.record(all.clients[2], 'close')
    for n = 1, 5 do all:send(2, 'number ' .. n) end
    all.server:close()
    ended.wait 'close'
    all:check()
    run.pair.close(all.server)
  end)

  trial('leave when their connection, or the server, is destroyed', function(run)
    local all = run.new(2)
    for i = 1, 2 do
      for n = 1, 5 do all:send(i, 'number ' .. n) end
    end
    all.accepted[1]:destroy()
    all:check()
    for n = 1, 5 do all:send(2, 'number ' .. n) end
    all.server:destroy()
    all:check()
    run.pair.close(all.clients[1], all.clients[2], all.server)
  end)

  trial('leave when stats asks for counters in the same turn', function(run)
    local all = run.new(1)
    local before = all.accepted[1]:stats().datagramsOut
    for n = 1, 5 do all:send(1, 'number ' .. n) end
    assert(all.accepted[1]:stats().datagramsOut == before + 5)
    for n = 6, 10 do all:send(1, 'number ' .. n) end
    assert(all.server:stats().messagesOut == 10)
    all:check()
    all:close()
  end)

  trial('keep their order with datagrams of other protocols', function(run)
    local all = run.new(1)
    all.got[1] = {}
    all.clients[1]:on('datagram', function(data) table.insert(all.got[1], data) end)
    for n = 1, 6 do
      if n % 2 == 0 then all:send(1, 'number ' .. n) else
        assert(all.accepted[1]:sendDatagram('\0number ' .. n))
        table.insert(all.sent[1], '\0number ' .. n)
      end
    end
    all:check()
    all:close()
  end)
end)

describe('messages that a listener sends', function()
  trial('leave, although the listener runs the loop itself to wait for the answer', function(run)
    local uv = require 'luv'
    local all = run.new(1)
    local answered
    all.clients[1]:on('message', function(data)
      if data == 'three' then all.clients[1]:send 'answer' end
    end)
    all.accepted[1]:on('message', function(data)
      if data == 'answer' then answered = true end
      if data ~= 'ask' then return end
      for _, text in ipairs { 'one', 'two', 'three' } do all:send(1, text) end
      local limit = uv.hrtime() + 5e9 * run.loop.patience
      while not answered and uv.hrtime() < limit do uv.run 'once' end
    end)
    -- two datagrams, so that the server has more to take when the listener runs
    all.clients[1]:send 'ask'
    all.clients[1]:send 'more'
    run.loop.till(function() return answered end, 'the answer')
    all:check()
    all:close()
  end, loop.nesting)
end)

describe('messages that are sent right before the loop waits', function()
  trial('leave before it does', function(run)
    local uv = require 'luv'
    local all = run.new(1)
    local prepare, limit, late = uv.new_prepare(), uv.new_timer(), false
    uv.run 'nowait' -- a handle that is being closed would keep the loop from waiting
    prepare:start(function()
      prepare:stop()
      all.accepted[1]:send { 'one', 'two' }
    end)
    limit:start(5000 * run.loop.patience, 0, function() late = true end)
    while #all.got[1] < 2 and not late do uv.run 'once' end
    assert(not late, 'something else had to wake the loop')
    prepare:close()
    limit:close()
    all:close()
  end, loop.nesting)
end)

describe('messages that a client sends in one turn', function()
  trial('leave by a few system calls, whole, once and in order, before its close_notify', function(run)
    local all = run.new(1)
    local got, sent, ended = {}, {}, run.pair.record(all.accepted[1], 'close')
    all.accepted[1]:on('message', function(data) table.insert(got, data) end)
    run.fault.set 'send'
    for n = 1, 200 do
      sent[n] = ('%d '):format(n) .. ('x'):rep(n % 7 == 0 and n or 50)
      assert(all.clients[1]:send(sent[n]))
    end
    all.clients[1]:close()
    ended.wait 'close'
    assert(run.fault.calls 'send' < (run.mmsg and 20 or 203), run.fault.calls 'send')
    assert(table.concat(got, ',') == table.concat(sent, ','))
    all:close()
  end)

  trial('wait, are refused with EAGAIN when too many wait, and drain follows', function(run)
    local all = run.new(1)
    local got, sent, client = {}, {}, all.clients[1]
    local heard = run.pair.record(client, 'drain')
    all.accepted[1]:on('message', function(data) table.insert(got, data) end)
    assert(client:send 'number 0')
    sent[1] = 'number 0'
    run.fault.set('send', 1, 1e6, 'EAGAIN')
    local ok, err
    repeat
      ok, err = client:send('number ' .. #sent)
      if ok then table.insert(sent, 'number ' .. #sent) end
    until not ok or #sent > 2000
    assert(#sent < 2000 and err.code == 'EAGAIN')
    run.fault.set 'send'
    heard.wait 'drain'
    assert(client:send 'after')
    table.insert(sent, 'after')
    run.loop.till(function() return #got == #sent end, 'all messages')
    assert(table.concat(got, ',') == table.concat(sent, ','))
    all:close()
  end)

  trial('leave, although ICMP has told of an earlier one', function(run)
    local all = run.new(1)
    local got, client = {}, all.clients[1]
    all.accepted[1]:on('message', function(data) table.insert(got, data) end)
    client:send '1'
    run.fault.set('send', 1, 1, 'ECONNREFUSED')
    for n = 2, 9 do client:send(tostring(n)) end
    run.loop.till(function() return #got == 9 end, 'all messages')
    assert(client:stats().drops.ECONNREFUSED == 1)
    all:close()
  end)

  trial('are lost when the same error comes again, which counts once', function(run)
    local all = run.new(1)
    local got, client = {}, all.clients[1]
    all.accepted[1]:on('message', function(data) table.insert(got, #data) end)
    assert(client:send { '1', '1', '1' })
    run.loop.till(function() return #got == 3 end, 'the first ones')
    for size = 2, 9 do client:send(('x'):rep(size)) end -- each longer than the one before, so that none is cut from one send
    run.fault.set('send', 1, 2, 'ECONNREFUSED')
    run.loop.till(function() return got[#got] == 9 end, 'all messages but one')
    assert(client:stats().drops.ECONNREFUSED == 1)
    all:close()
  end)
end)
