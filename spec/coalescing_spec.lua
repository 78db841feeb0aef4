--- Datagrams that come to a server together, which Linux hands out as one message (UDP_GRO).

local ffi = require 'ffi'
local uv = require 'luv'
local child = require('spec.support.faults').child
local loop = require 'spec.support.loop'
local pair = require 'spec.support.pair'

ffi.cdef 'int getsockopt(int fd, int level, int name, void *value, unsigned *size);'
local IPPROTO_UDP, UDP_GRO = 17, 104

-- What the kernel says of the option; nil where it does not have it.
local function coalesces(udp)
  local value, size = ffi.new('int[1]', 0), ffi.new('unsigned[1]', ffi.sizeof 'int')
  return ffi.C.getsockopt(udp:fileno(), IPPROTO_UDP, UDP_GRO, value, size) == 0 and value[0] or nil
end

local probe = uv.new_udp 'inet'
local kernel_can = require('dtls.core').platform().coalescing and coalesces(probe) ~= nil
probe:close()

describe('messages that a client sends in one turn', function()
  pair.eachStrategy(function(demux)
    local function messages(count)
      local list = {}
      for n = 1, count do list[n] = ('%d '):format(n) .. ('x'):rep(n % 11 == 0 and 100 + n or 400) end
      return list
    end

    it('come whole, once and in order', loop.run(function()
      local server = pair.listening { demux = demux, recvBufferSize = 2 ^ 20 }
      local client, conn = pair.open(server)
      local list, got = messages(300), {}
      conn:on('message', function(data) table.insert(got, data) end)
      for n = 1, 300, 60 do
        assert(client:send { unpack(list, n, n + 59) })
        loop.till(function() return #got >= n + 59 end, 'the messages')
      end
      assert.same(list, got)
      assert.same({}, server:stats().drops)
      pair.close(client, server)
    end))

    it('are received by few system calls', function()
      child(function(strategy, few)
        local fault, turns = require 'spec.support.faults', require 'spec.support.loop'
        local pairs_of = require 'spec.support.pair'
        turns.run(function()
          local server = pairs_of.listening { demux = strategy, recvBufferSize = 2 ^ 20 }
          local client, conn = pairs_of.open(server)
          local list, count = {}, 0
          for n = 1, 256 do list[n] = ('%03d'):format(n) end
          conn:on('message', function() count = count + 1 end)
          fault.set 'receive'
          assert(client:send(list))
          turns.till(function() return count == 256 end, 'the messages')
          assert(fault.calls 'receive' <= few, fault.calls 'receive')
          pairs_of.close(client, server)
        end)()
      -- 256 datagrams in messages of 64; else 32 by each call of recvmmsg, or each by a call of its own.
      end, demux, kernel_can and 4 or 600)
    end)

    it('are counted one by one when their connection ends at the first of them', loop.run(function()
      local server = pair.listening { demux = demux, recvBufferSize = 2 ^ 20 }
      local client, conn = pair.open(server)
      local before, list = server:stats().datagramsIn, {}
      for n = 1, 2400 do list[n] = ('%04d'):format(n) end -- more than one batch: the rest is in the socket when that is closed
      conn:on('message', function() conn:destroy() end)
      assert(client:send(list))
      loop.till(function() return server:stats().datagramsIn >= before + 2400 end, 'all datagrams')
      assert.equal(before + 2400, server:stats().datagramsIn)
      assert.equal(2399, server:stats().drops.stranger)
      pair.close(client, server)
    end))
  end)
end)

describe('a server', function()
  it('leaves a socket that it was given as it is: whoever reads it later need not cut messages', loop.run(function()
    local udp = uv.new_udp 'inet'
    assert(udp:bind('127.0.0.1', 0))
    local server = pair.server()
    local before = coalesces(udp)
    assert(server:listen(udp))
    assert.equal(before, coalesces(udp))
    pair.close(server)
    udp:close()
  end))
end)
