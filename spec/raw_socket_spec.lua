-- The raw sockets of the specs: a datagram that belongs to another test changes nothing.

local hello = require 'spec.support.hello'
local loop = require 'spec.support.loop'
local pair = require 'spec.support.pair'
local raw = require 'spec.support.raw'

local STRAY = '\21\254\253' .. ('\0'):rep(8) .. '\0\2\1\0' -- too short for a hello, as a late close_notify is

describe('a raw socket', function()
  for _, ip in ipairs(pair.addresses) do
    it('keeps what its peer answers, and not what anybody sends before that, on ' .. ip, loop.run(function()
      local server, peer, stranger = pair.listening(nil, ip), raw.open(ip), raw.open(ip)
      stranger:send(STRAY, peer)
      local _, request = hello.cookie(peer, server)
      assert.truthy(request)
      stranger:send(STRAY, peer)
      hello.halfOpen(peer, server)
      for _, data in ipairs(peer.inbox) do assert.not_equal(STRAY, data) end
      pair.close(server, peer, stranger)
    end))

    it('keeps the hello of the client that a test connects to it, and no earlier datagram, on ' .. ip, loop.run(function()
      local silent, stranger = raw.open(ip), raw.open(ip)
      stranger:send(STRAY, silent)
      local conn = pair.client(silent)
      loop.till(function() return silent.inbox[1] end, 'a hello')
      assert.equal('\22', silent.inbox[1]:sub(1, 1))
      pair.close(conn, silent, stranger)
    end))

    it('keeps what a peer sends that it has not spoken to, once it hears it, on ' .. ip, loop.run(function()
      local listener, peer, stranger = raw.open(ip), raw.open(ip), raw.open(ip)
      listener:hear(peer)
      stranger:send(STRAY, listener)
      peer:send('meant', listener)
      loop.till(function() return listener.inbox[1] end, 'a datagram')
      assert.same({ 'meant' }, listener.inbox)
      pair.close(listener, peer, stranger)
    end))
  end
end)
