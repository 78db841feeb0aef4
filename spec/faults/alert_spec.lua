-- What an alert that nobody has authenticated may do to a handshake.

local uv = require 'luv'
local loop = require 'spec.support.loop'
local pair = require 'spec.support.pair'
local proxy = require 'spec.support.proxy'
local raw = require 'spec.support.raw'

-- fatal handshake_failure, as a plaintext record
local ALERT = '\21\254\253\0\0\0\0\0\0\1\0\0\2\2\40'

describe('an unauthenticated alert', function()
  it('ends a handshake that makes no progress after it, also when it comes right behind a flight', loop.run(function()
    local server = pair.listening()
    local answered = false
    local relay = proxy.new(server, {
      filter = function(direction, index, data)
        answered = answered or (direction == 'server' and index > 2) -- behind its two hellos
        if answered then return nil end
        return direction == 'client' and index > 1 and { data, ALERT } or data
      end,
    })
    local conn = pair.client(relay, { retransmitTimeout = 200 * loop.patience, handshakeTimeout = 2000 * loop.patience })
    local events = pair.record(conn, 'error', 'connection')
    local err = events.wait 'error'[2]
    assert.equal('ERR_DTLS_ALERT', err.code)
    assert.equal('handshake_failure', err.alert)
    assert.equal('error', events.names())
    pair.close(server, relay)
  end))

  it('says more than an ICMP error, whichever of them came first', loop.run(function()
    for _, order in ipairs { 'the error', 'the alert' } do
      local port = raw.freePort()
      local there = order == 'the alert' and raw.open('127.0.0.1', port) or nil
      local conn = pair.client({ ip = '127.0.0.1', port = port }, {
        retransmitTimeout = 1000 * loop.patience, handshakeTimeout = 20000 * loop.patience,
      })
      local events = pair.record(conn, 'error')
      local function seen(reason)
        loop.till(function() return (conn:stats().drops[reason] or 0) > 0 end, reason)
      end
      if there then
        there:hear(conn)
        loop.till(function() return #there.inbox > 0 end, 'the hello')
      else
        seen 'ECONNREFUSED'
        there = raw.open('127.0.0.1', port)
      end
      there:send(ALERT, conn:localAddress())
      seen 'alert'
      pair.close(there)
      if order == 'the alert' then
        assert(uv.fs_write(conn._association:fd(), 'to nobody', -1))
        seen 'ECONNREFUSED'
      end
      assert.equal('handshake_failure', events.wait 'error'[2].alert, order)
    end
  end))

  it('does nothing to a handshake that goes on', loop.run(function()
    local server = pair.echo(pair.listening())
    local relay = proxy.new(server, { filter = function(_, _, data) return { ALERT, data, ALERT } end })
    local conn = pair.open(server, relay, { retransmitTimeout = 200 * loop.patience })
    pair.roundTrip(conn, 'hello')
    pair.close(conn, server, relay)
  end))

  for _, towards in ipairs { 'client', 'server' } do
    pair.eachStrategy(function(demux)
      it(('does nothing to a %s whose answer comes while the loop is busy for longer than it waits'):format(towards), loop.run(function()
        local wait = { retransmitTimeout = 100 * loop.patience }
        local server = pair.listening(pair.with(wait, { demux = demux }))
        local asked = towards == 'server' and 2 or 1 -- the hello with a cookie, the HelloVerifyRequest
        local answer = {}
        local relay = proxy.new(server, {
          filter = function(direction, index, data)
            if not answer or direction ~= towards or index <= asked then return data end
            answer[#answer + 1] = data
            return #answer == 1 and ALERT or nil
          end,
        })
        local conn = pair.client(relay, wait)
        local events = pair.record(conn, 'error', 'connection')
        server:on('clientError', function(err) events[#events + 1] = { 'clientError', err } end)
        local target = towards == 'server' and server or conn
        loop.till(function() return (target:stats().drops.alert or 0) > 0 end, 'the alert')
        loop.block(3 * wait.retransmitTimeout)
        for _, data in ipairs(answer) do relay:inject(towards, data) end
        answer = nil
        loop.till(function() return events[1] end, 'the end of the handshake')
        assert.equal('connection', events.names())
        pair.close(conn, server, relay)
      end))
    end)
  end
end)
