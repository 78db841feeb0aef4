--- A peer that has gone says nothing: what tells its connection so, and whoever sends and gets no answer.

local dtls = require 'dtls'
local loop = require 'spec.support.loop'
local pair = require 'spec.support.pair'
local process = require 'spec.support.process'
local proxy = require 'spec.support.proxy'

local SHORT, LONG = 100 * loop.patience, 600000

pair.eachStrategy(function(demux)
  describe('a connection whose peer has gone', function()
    -- body(conn, accepted, between): two ends with a network between them that has just begun to lose all.
    local function gone(body)
      return loop.run(function()
        local server = pair.echo(pair.listening { demux = demux })
        local between = proxy.new(server)
        local conn, accepted = pair.open(server, between)
        pair.roundTrip(conn, 'there')
        between.filter = function() end
        body(conn, accepted, between)
        pair.close(conn, accepted, server, between)
      end)
    end

    for _, role in ipairs { 'client', 'server' } do
      local function ends(conn, accepted)
        if role == 'client' then return conn, accepted end
        return accepted, conn
      end

      it('emits receiveTimeout although it goes on to send (' .. role .. ')', gone(function(conn, accepted)
        local one = ends(conn, accepted)
        local heard = pair.record(one, 'receiveTimeout', 'timeout', 'error')
        one:setTimeout(LONG)
        one:setReceiveTimeout(SHORT)
        local sent = 0
        loop.till(function()
          assert(one:send('anybody there?'))
          sent = sent + 1
          return heard[1]
        end, 'receiveTimeout')
        assert.equal('receiveTimeout', heard.names())
        assert.is_true(sent > 1)
        assert.is_true(one:stats().lastSentAt >= one:stats().lastReceivedAt + SHORT)
        assert.is_nil(one.destroyed)
      end))

      it('emits receiveTimeout once, and again only after a message has come (' .. role .. ')', gone(function(conn, accepted, between)
        local one, other = ends(conn, accepted)
        local called = 0
        local function listen() called = called + 1 end
        one:on('receiveTimeout', listen)
        one:setReceiveTimeout(SHORT)
        loop.till(function() return called == 1 end, 'receiveTimeout')
        one:send 'silence is not ended by this'
        local idle = 0
        one:setTimeout(SHORT, function() idle = idle + 1 end)
        loop.till(function() return idle == 1 end, 'timeout, which counts both directions')
        assert.equal(1, called)
        between.filter = nil
        local before = one:stats().messagesIn
        other:send 'back'
        loop.till(function() return one:stats().messagesIn > before end, 'the message')
        between.filter = function() end
        loop.till(function() return called == 2 end, 'receiveTimeout again')
      end))
    end

    it('may be closed by its listener of receiveTimeout', gone(function(conn)
      local closes = pair.record(conn, 'close')
      conn:setTimeout(SHORT)
      conn:setReceiveTimeout(SHORT, function() conn:close() end)
      conn:on('timeout', function() conn:close() end)
      closes.wait 'close'
      assert.same({ 'close', false }, closes[1])
    end))
  end)

  describe('receiveTimeout', function()
    it('is an option of both roles, and counts from the end of the handshake', loop.run(function()
      local server = pair.listening { demux = demux, receiveTimeout = SHORT }
      local heard
      server:on('connection', function(accepted) heard = pair.record(accepted, 'receiveTimeout') end)
      local conn = pair.open(server, nil, { receiveTimeout = SHORT })
      loop.event(conn, 'receiveTimeout')
      heard.wait 'receiveTimeout'
      pair.close(conn, server)
    end))

    it('can be set before the handshake is complete, and switched off', loop.run(function()
      local server = pair.listening { demux = demux }
      local never
      server:on('accept', function(accepted)
        accepted:setReceiveTimeout(SHORT / 10)
        accepted:setReceiveTimeout(0)
        never = pair.record(accepted, 'receiveTimeout')
      end)
      local conn = pair.client(server)
      assert.equal(conn, conn:setReceiveTimeout(SHORT))
      loop.event(conn, 'receiveTimeout')
      assert.equal(0, #never)
      conn:setReceiveTimeout(SHORT)
      loop.event(conn, 'receiveTimeout')
      pair.close(conn, server)
    end))

    it('is not emitted as long as messages come', loop.run(function()
      local server = pair.echo(pair.listening { demux = demux })
      local conn = pair.open(server)
      local heard = pair.record(conn, 'receiveTimeout')
      conn:setReceiveTimeout(LONG)
      for i = 1, 10 do pair.roundTrip(conn, 'message ' .. i) end
      conn:setTimeout(SHORT)
      loop.event(conn, 'timeout')
      assert.equal(0, #heard)
      pair.close(conn, server)
    end))
  end)
end)

describe('setReceiveTimeout', function()
  it('raises for what is no number of milliseconds', loop.run(function()
    local server = pair.listening()
    local conn = pair.open(server)
    for _, value in ipairs { -1, 1.5, '7', 0 / 0 } do
      local ok, err = pcall(conn.setReceiveTimeout, conn, value)
      assert.is_false(ok)
      assert.truthy(err:find('setReceiveTimeout', 1, true))
    end
    pair.close(conn, server)
  end))
end)

describe('stats', function()
  it('say when the last message came and went', loop.run(function()
    local server = pair.echo(pair.listening())
    local conn, accepted = pair.open(server)
    assert.is_nil(conn:stats().lastReceivedAt)
    assert.is_nil(conn:stats().lastSentAt)
    pair.roundTrip(conn, 'one')
    for _, each in ipairs { conn, accepted } do
      local stats = each:stats()
      assert.is_true(stats.connectedAt <= stats.lastReceivedAt and stats.connectedAt <= stats.lastSentAt)
    end
    local before = conn:stats()
    pair.close(conn, server)
    assert.same({ before.lastReceivedAt, before.lastSentAt }, { conn:stats().lastReceivedAt, conn:stats().lastSentAt })
  end))
end)

describe('a client whose server process is killed', function()
  it('learns by receiveTimeout what no send tells it', loop.run(function()
    local identity = pair.identity
    local server = process.spawn('sh', { process.checked('', '', 'luajit', '-e', ([[
      local dtls, uv = require 'dtls', require 'luv'
      local server = assert(dtls.createServer { cert = %q, key = %q })
      server:on('connection', function(conn) conn:on('message', function(data) conn:send(data) end) end)
      assert(server:listen(0, '127.0.0.1'))
      io.stdout:setvbuf 'no'
      print('port ' .. server:address().port .. '.')
      uv.run()]]):format(identity.cert, identity.key)) })
    local port = tonumber((server:expect 'port (%d+)%.'))
    local conn = assert(dtls.connect { host = '127.0.0.1', port = port, fingerprint = identity.fingerprint })
    loop.event(conn, 'connection')
    pair.roundTrip(conn, 'there')
    server:kill()
    local heard = pair.record(conn, 'receiveTimeout', 'error', 'close')
    conn:setReceiveTimeout(SHORT)
    loop.till(function()
      conn:send 'into the void'
      return heard[1]
    end, 'receiveTimeout')
    assert.equal('receiveTimeout', heard.names())
    pair.close(conn)
  end))
end)
