--- The event `drain`: a socket that had no room for a datagram has room again.

local child = require('spec.support.faults').child
local eachStrategy = require('spec.support.pair').eachStrategy

describe('a send for which the socket has no room', function()
  eachStrategy(function(demux)
    for _, role in ipairs { 'client', 'server' } do
      for _, code in ipairs { 'EAGAIN', 'ENOBUFS' } do
        it(('is followed by drain, after which messages go out again (%s, %s)'):format(role, code), function()
          child(function(strategy, side, errno)
            local fault, loop, pair = require 'spec.support.faults', require 'spec.support.loop', require 'spec.support.pair'
            loop.run(function()
              local server = pair.listening { demux = strategy }
              local one, other = pair.open(server)
              if side == 'server' then one, other = other, one end
              local heard = pair.record(one, 'drain', 'error')
              local got = pair.record(other, 'message')
              assert(one:send 'before')
              got.wait 'message'
              fault.set('send', 1, 3, errno)
              for _ = 1, 3 do
                local ok, err = one:send 'lost'
                assert(not ok and err.code == errno, err and err.code)
              end
              assert(#heard == 0, 'said while send is on the stack')
              heard.wait 'drain'
              assert(one:send 'after')
              loop.till(function() return #got == 2 end, 'the message after')
              assert(got[2][2] == 'after')
              pair.roundTrip(pair.echo(server) and pair.open(server), 'others are served')
              assert(heard.names() == 'drain', heard.names()) -- once for three sends
              fault.set('send', 1, 1, errno)
              local ok, err = one:sendDatagram '\0lost'
              assert(not ok and err.code == errno, err and err.code)
              loop.till(function() return #heard == 2 end, 'drain after sendDatagram')
              assert(heard.names() == 'drain drain', heard.names())
              pair.close(one, other, server)
            end)()
          end, demux, role, code)
        end)
      end
    end

    it('is followed by drain on each connection whose send failed', function()
      child(function(strategy)
        local fault, loop, pair = require 'spec.support.faults', require 'spec.support.loop', require 'spec.support.pair'
        loop.run(function()
          local server = pair.listening { demux = strategy }
          local clients, drains = {}, 0
          server:on('connection', function(conn)
            conn:on('drain', function() drains = drains + 1 end)
          end)
          for i = 1, 3 do clients[i] = pair.open(server) end
          fault.set('send', 1, 3, 'EAGAIN')
          for conn in server:connections() do assert(not conn:send 'lost') end
          loop.till(function() return drains == 3 end, 'three times drain')
          pair.close(clients[1], clients[2], clients[3], server)
        end)()
      end, demux)
    end)

    it('is followed by drain also during the handshake', function()
      child(function(strategy)
        local fault, loop, pair = require 'spec.support.faults', require 'spec.support.loop', require 'spec.support.pair'
        loop.run(function()
          local server = pair.listening { demux = strategy }
          local heard
          server:on('accept', function(accepted)
            heard = pair.record(accepted, 'drain', 'connection')
            fault.set('send', 1, 1, 'EAGAIN')
            assert(not accepted:sendDatagram '\0lost')
          end)
          local client = require('spec.support.raw').open()
          require('spec.support.hello').halfOpen(client, server)
          loop.till(function() return heard and heard.find 'drain' end, 'drain')
          assert(heard.names() == 'drain', heard.names())
          pair.close(client, server)
        end)()
      end, demux)
    end)

    it('is followed by drain also when its peer has another association, which goes on', function()
      child(function(strategy)
        local fault, loop, pair = require 'spec.support.faults', require 'spec.support.loop', require 'spec.support.pair'
        loop.run(function()
          local server = pair.listening { demux = strategy }
          local client = pair.open(server)
          local port = client:localAddress().port
          client:destroy()
          loop.event(client, 'close')
          local heard
          server:on('accept', function(accepted)
            heard = pair.record(accepted, 'drain')
            fault.set('send', 1, 1, 'EAGAIN')
            assert(not accepted:sendDatagram '\0lost')
          end)
          local again = pair.open(server, nil, { localPort = port })
          loop.till(function() return heard.find 'drain' end, 'drain')
          pair.close(again, server)
        end)()
      end, demux)
    end)

    it('is followed by drain also when polling the socket fails meanwhile', function()
      child(function(strategy)
        local fault, loop, pair = require 'spec.support.faults', require 'spec.support.loop', require 'spec.support.pair'
        local handle = require 'dtls.handle'
        local start, callbacks = handle.start, {}
        function handle.start(poll, events, callback)
          callbacks[poll] = callback
          return start(poll, events, callback)
        end
        loop.run(function()
          local server = pair.listening { demux = strategy }
          local conn, accepted = pair.open(server)
          for _, one in ipairs { conn, accepted } do
            local heard = pair.record(one, 'drain')
            fault.set('send', 1, 1, 'EAGAIN')
            assert(not one:send 'lost')
            for _, callback in pairs(callbacks) do callback 'EBADF' end -- libuv's word for a socket error that it stops a poll for
            heard.wait 'drain'
          end
          pair.close(conn, accepted, server)
        end)()
      end, demux)
    end)

    it('is followed by drain, whose listener may close the connection: what its socket has by then is looked at', function()
      child(function(strategy)
        local fault, loop, pair = require 'spec.support.faults', require 'spec.support.loop', require 'spec.support.pair'
        loop.run(function()
          local server = pair.listening { demux = strategy }
          local client, conn = pair.open(server)
          conn:on('drain', function()
            assert(client:send 'unread')
            conn:destroy()
          end)
          fault.set('send', 1, 1, 'EAGAIN')
          assert(not conn:send 'lost')
          loop.till(function() return server:stats().drops.stranger == 1 end, 'what came before it was closed')
          pair.close(client, server)
        end)()
      end, demux)
    end)

    it('is followed by no drain once the connection or its server has closed', function()
      child(function(strategy)
        local fault, loop, pair = require 'spec.support.faults', require 'spec.support.loop', require 'spec.support.pair'
        loop.run(function()
          local server = pair.listening { demux = strategy }
          local conn, accepted = pair.open(server)
          local heard = pair.record(accepted, 'drain')
          pair.record(conn, 'drain')
          fault.set('send', 1, 2, 'EAGAIN')
          assert(not accepted:send 'lost' and not conn:send 'lost')
          accepted:destroy()
          conn:destroy()
          pair.close(server)
          assert(#heard == 0)
        end)()
      end, demux)
    end)
  end)
end)

describe('send', function()
  local loop, pair = require 'spec.support.loop', require 'spec.support.pair'

  it('raises for a callback that is no function', loop.run(function()
    local server = pair.listening()
    local conn = pair.open(server)
    for _, value in ipairs { 42, 'x', {}, true } do
      local ok, err = pcall(conn.send, conn, 'data', value)
      assert.is_false(ok)
      assert.truthy(err:find('send', 1, true) and err:find(type(value), 1, true), err)
    end
    assert.equal(0, conn:stats().messagesOut)
    pair.close(conn, server)
  end))
end)
