--- Other protocols on the port of an association (RFC 7983).

local dtls = require 'dtls'
local hostile = require 'spec.support.hostile'
local loop = require 'spec.support.loop'
local needs = require('spec.support.platform').needs
local pair = require 'spec.support.pair'
local proxy = require 'spec.support.proxy'
local raw = require 'spec.support.raw'
local uv = require 'luv'

local STUN = '\0\1\0\0\33\18\164\66' .. ('t'):rep(12) -- a binding request, RFC 8489
local SRTP = '\128\96' .. ('p'):rep(50)
local TURN = '\64\0\0\4data'
local RECORD_MAX = 13 + 16384 + 2048 -- the longest of DTLS 1.2 (RFC 6347 §4.1), header included

local function settled(server)
  local conn = pair.open(server)
  pair.close(conn)
end

-- For whatever reason: the bytes of other protocols look like all kinds of broken records.
local function dropped(conn)
  local count = 0
  for _, of_reason in pairs(conn:stats().drops) do count = count + of_reason end
  return count
end

local function too_long(any) return any:stats().drops.length or 0 end

pair.each(function(demux, ip)
  describe('a port with other protocols', function()
    local function listening(options) return pair.echo(pair.listening(pair.with(options, { demux = demux }), ip)) end

    it('has a handshake completed once, although a listener of datagrams runs the loop', loop.nesting(loop.run(function()
      local server = pair.listening({ demux = demux, psk = { me = 'secret' } }, ip)
      local heard
      server:on('accept', function(accepted)
        heard = pair.record(accepted, 'datagram', 'connection', 'message')
        accepted:once('datagram', function()
          loop.again(function()
            uv.run 'once'
            return #heard > 2
          end, 'the message')
        end)
      end)
      local conn
      conn = pair.client(server, { psk = function()
        assert(conn:sendDatagram(STUN)) -- which the server reads together with the flight that follows
        return 'me', 'secret'
      end })
      conn:on('connection', function() conn:send 'hello' end)
      loop.till(function() return heard and #heard > 2 end, 'the message')
      assert.equal('datagram connection message', heard.names())
      assert.equal(1, server:stats().connections)
      pair.close(conn, server)
    end)))

    it('exchanges STUN and SRTP before, during and after a handshake', loop.run(function()
      local server = listening()
      local stranger, peer = pair.record(server, 'datagram'), nil
      server:on('accept', function(accepted)
        peer = pair.record(accepted, 'datagram')
        accepted:on('datagram', function(data) assert(accepted:sendDatagram('\1' .. data)) end)
      end)
      server:on('datagram', function(data, from) assert(server:sendDatagram('\1' .. data, from)) end)
      local first = raw.open(ip)
      first:send(STUN, server)
      loop.till(function() return first.inbox[1] end, 'the answer to a stranger')
      assert.equal('\1' .. STUN, first.inbox[1])
      assert.equal(first.port, stranger[1][3].port)
      assert.equal(ip, stranger[1][3].ip)
      assert.same({ ip, server.port }, { stranger[1][3].localAddress.ip, stranger[1][3].localAddress.port })

      -- During: the last flight of the client is held back until the others have met.
      local held
      local between = proxy.new(server, { filter = function(direction, index, data)
        if direction == 'server' and index == 3 then
          held = data
          return nil
        end
        return data
      end })
      local conn = pair.client(between)
      local heard = pair.record(conn, 'datagram', 'error')
      loop.till(function() return held end, 'the last flight')
      assert(conn:sendDatagram(SRTP))
      heard.wait 'datagram'
      assert.equal('\1' .. SRTP, heard[1][2])
      assert.same(conn:remoteAddress(), heard[1][3])
      assert.equal(SRTP, peer[1][2])
      between:inject('server', held)
      loop.event(conn, 'connection')
      for i, data in ipairs { STUN, SRTP, TURN, '\255' } do
        assert(conn:sendDatagram(data))
        pair.roundTrip(conn, 'between them')
        loop.till(function() return #heard == i + 1 end, 'the answer')
        assert.equal('\1' .. data, heard[i + 1][2])
      end
      assert.equal(1, #stranger)
      assert.equal(5, #peer)
      assert.equal('datagram datagram datagram datagram datagram', heard.names())
      pair.close(conn, server, between, first)
    end))

    it('drops and counts datagrams of other protocols when nobody listens, or nobody any more', loop.run(function()
      local server = listening()
      local client = raw.open(ip)
      local between = proxy.new(server)
      local conn, accepted = pair.open(server, between)
      client:send(STUN, server)
      between:inject('server', SRTP)
      between:inject('client', SRTP)
      pair.roundTrip(conn, 'first')
      settled(server)
      assert.equal(1, server:stats().drops.stranger)
      assert.equal(1, dropped(accepted))
      assert.equal(1, dropped(conn))
      for _, each in ipairs { server, accepted, conn } do
        local function listener() error 'nobody listens any more' end
        each:on('datagram', listener)
        each:removeListener('datagram', listener)
      end
      for _ = 1, 2 do -- the first one finds nobody, and ends it
        client:send(STUN, server)
        between:inject('server', SRTP)
        between:inject('client', SRTP)
        pair.roundTrip(conn, 'again')
        settled(server)
      end
      assert.is_true(server:stats().drops.stranger >= 2)
      assert.is_true(dropped(accepted) >= 2)
      assert.is_true(dropped(conn) >= 2)
      pair.close(conn, server, between, client)
    end))

    it('delivers a datagram as long as the longest record, and drops a longer one as length', loop.run(function()
      local server = listening()
      local between = proxy.new(server)
      local conn, accepted = pair.open(server, between)
      local stranger = raw.open(ip)
      for _, role in ipairs {
        { hears = server, send = function(data) stranger:send(data, server) end },
        { hears = accepted, send = function(data) between:inject('server', data) end },
        { hears = conn, send = function(data) between:inject('client', data) end },
      } do
        local heard, before = pair.record(role.hears, 'datagram'), too_long(role.hears)
        local filled = ('\0'):rep(RECORD_MAX)
        role.send(filled .. '\0')
        role.send(('\0'):rep(40000))
        role.send(filled)
        heard.wait 'datagram'
        assert.equal(1, #heard)
        assert.is_true(filled == heard[1][2])
        assert.equal(before + 2, too_long(role.hears))
      end
      pair.close(conn, server, between, stranger)
    end))

    it('drops a datagram of DTLS whole when it is longer than the longest record', loop.run(function()
      local server = pair.listening({ demux = demux }, ip)
      local between = proxy.new(server)
      local conn, accepted = pair.open(server, between)
      -- Behind the record of a message come forged ones, until the datagram is as long as it shall be.
      local function padded(data, size)
        local options = { epoch = 1, number = 1000 }
        local forged = hostile.record(23, ('x'):rep(600), options)
        local last = (size - #data) % #forged + #forged
        return data .. forged:rep((size - #data - last) / #forged) .. hostile.record(23, ('x'):rep(last - 13), options)
      end
      for _, role in ipairs {
        { from = conn, to = accepted, direction = 'server' }, { from = accepted, to = conn, direction = 'client' },
      } do
        local heard, before, over = pair.record(role.to, 'message'), too_long(role.to), 1
        between.filter = function(direction, _, data)
          return direction == role.direction and padded(data, RECORD_MAX + over) or data
        end
        assert(role.from:send 'too long')
        loop.till(function() return heard[1] or too_long(role.to) > before end, 'its end')
        over = 0
        assert(role.from:send 'as long as may be')
        heard.wait 'message'
        assert.equal('as long as may be', heard[1][2])
        assert.equal(before + 1, too_long(role.to))
        between.filter = nil
      end
      pair.close(conn, server, between)
    end))

    it('gives datagrams of other protocols to the open association while its peer starts over', loop.run(function()
      local server = listening()
      local between = proxy.new(server)
      local conn, accepted = pair.open(server, between)
      local heard = pair.record(accepted, 'datagram')
      local port = conn:localAddress().port
      conn:destroy()
      loop.event(conn, 'close')
      between.filter = function(direction, _, data)
        if direction == 'server' or data:byte(14) == 3 then return data end -- HelloVerifyRequests alone come through
      end
      local met = pair.record(server, 'accept')
      local again = pair.client(between, { localPort = port })
      met.wait 'accept'
      met[1][2]:on('datagram', function() end)
      between:inject('server', STUN)
      heard.wait 'datagram'
      pair.close(again, server, between)
    end))

    it('delivers as many datagrams of other protocols as one turn may take', loop.run(function()
      local server = listening()
      local conn, accepted = pair.open(server)
      local heard, back = pair.record(accepted, 'datagram'), pair.record(conn, 'datagram')
      for i = 1, 500 do
        assert(conn:sendDatagram(SRTP .. i))
        if i % 50 == 0 then loop.till(function() return #heard == i end, 'the first ' .. i) end
      end
      for i = 1, 500 do
        assert(accepted:sendDatagram(SRTP .. i))
        if i % 50 == 0 then loop.till(function() return #back == i end, 'the first ' .. i) end
      end
      for i = 1, 500 do assert.same({ SRTP .. i, SRTP .. i }, { heard[i][2], back[i][2] }) end
      pair.close(conn, server)
    end))

    it('delivers a datagram before the message or the close_notify that came behind it', loop.run(function()
      local server = listening()
      for _, closes in ipairs { 'client', 'server' } do
        local conn, accepted = pair.open(server)
        local from, to = conn, accepted
        if closes == 'server' then from, to = accepted, conn end
        local peer = to:remoteAddress()
        local heard = pair.record(to, 'datagram', 'message', 'close')
        assert(from:sendDatagram(STUN))
        assert(from:send 'a')
        assert(from:sendDatagram(SRTP))
        from:close() -- all of it waits in the other one's socket before the loop turns
        heard.wait 'close'
        assert.equal('datagram message datagram close', heard.names())
        assert.same({ STUN, 'a', SRTP }, { heard[1][2], heard[2][2], heard[3][2] })
        assert.same({ peer, peer }, { heard[1][3], heard[3][3] })
      end
      pair.close(server)
    end))

    it('delivers to a client what its peer sent to the handle before connect, and nothing of other senders', loop.run(function()
      local server, stranger = listening(), raw.open(ip)
      for _, isConnected in ipairs { true, false } do
        local udp = uv.new_udp()
        assert(udp:bind(ip, 0))
        local to = udp:getsockname()
        stranger:send('a stranger', to)
        if isConnected then assert(udp:connect(ip, server.port)) end
        assert(server:sendDatagram(STUN, to))
        assert(server:sendDatagram(SRTP, to))
        local target = isConnected and { handle = udp, fingerprint = pair.identity.fingerprint }
        local conn = target and assert(dtls.connect(target)) or pair.client(server, { handle = udp })
        local heard = pair.record(conn, 'datagram', 'connection')
        heard.wait 'connection'
        assert.equal('datagram datagram connection', heard.names())
        assert.same({ { STUN, conn:remoteAddress() }, { SRTP, conn:remoteAddress() } }, {
          { heard[1][2], heard[1][3] }, { heard[2][2], heard[2][3] },
        })
        pair.close(conn)
        udp:close()
      end
      pair.close(server, stranger)
    end))

    it('delivers nothing that came behind a datagram whose listener closes the connection', loop.run(function()
      local server = listening()
      for _, closes in ipairs { 'client', 'server' } do
        local conn, accepted = pair.open(server)
        local from, to = conn, accepted
        if closes == 'server' then from, to = accepted, conn end
        local heard = pair.record(to, 'datagram', 'message', 'close')
        to:on('datagram', function() to:destroy() end)
        assert(from:sendDatagram(STUN))
        assert(from:send 'a')
        assert(from:sendDatagram(SRTP))
        heard.wait 'close'
        assert.equal('datagram close', heard.names())
        pair.close(from)
      end
      pair.close(server)
    end))

    it('lets a listener of datagram close its connection or server', loop.run(function()
      local server = listening()
      local conn, accepted = pair.open(server)
      conn:on('datagram', function() conn:destroy() end)
      for _ = 1, 3 do accepted:sendDatagram(STUN) end
      loop.event(conn, 'close')
      local client = raw.open(ip)
      server:on('datagram', function() server:destroy() end)
      for _ = 1, 3 do client:send(STUN, server) end
      loop.event(server, 'close')
      pair.close(client)
    end))
  end)
end)

describe('sendDatagram', function()
  it('refuses what would be taken for DTLS, or is empty', loop.run(function()
    local server = pair.listening()
    local conn, accepted = pair.open(server)
    local to = accepted:remoteAddress()
    for _, data in ipairs { '', '\20', '\22x', '\63' } do
      for _, send in ipairs {
        function() return conn:sendDatagram(data) end, function() return accepted:sendDatagram(data) end,
        function() return server:sendDatagram(data, to) end,
      } do
        local ok, err = send()
        assert.is_nil(ok)
        assert.equal('EINVAL', err.code)
      end
    end
    local ok, err = server:sendDatagram('\0', { ip = 'localhost', port = 7 })
    assert.is_nil(ok)
    assert.equal('EINVAL', err.code)
    ok, err = conn:sendDatagram(('\0'):rep(65536))
    assert.is_nil(ok)
    assert.equal('EMSGSIZE', err.code)
    pair.close(conn, server)
    for _, each in ipairs { conn, server } do
      ok, err = each:sendDatagram('\0', to)
      assert.is_nil(ok)
      assert.equal('ENOTCONN', err.code)
    end
  end))

  it('raises for arguments of a wrong type', loop.run(function()
    local server = pair.listening()
    local conn = pair.open(server)
    assert.has_error(function() conn:sendDatagram(7) end)
    assert.has_error(function() server:sendDatagram(7, { ip = '127.0.0.1', port = 7 }) end)
    for _, address in ipairs {
      false, '127.0.0.1', {}, { ip = '127.0.0.1' }, { ip = 7, port = 7 }, { ip = '127.0.0.1\0', port = 7 },
      { ip = '127.0.0.1', port = 0 }, { ip = '127.0.0.1', port = -1 }, { ip = '127.0.0.1', port = 65536 + 7 },
      { ip = '127.0.0.1', port = 7.5 }, { ip = '127.0.0.1', port = 0 / 0 }, { ip = '127.0.0.1', port = 7, localAddress = 7 },
    } do
      assert.has_error(function() server:sendDatagram('\0', address) end)
    end
    pair.close(conn, server)
  end))

  it('answers from the address that was written to, also where the server has several', needs('local_address', loop.run(function()
    local server = assert(dtls.createServer { cert = pair.identity.cert, key = pair.identity.key })
    assert(server:listen(0, '0.0.0.0'))
    server:on('datagram', function(data, from) assert(server:sendDatagram(data, from)) end)
    local client = uv.new_udp()
    local from
    assert(client:bind('127.0.0.1', 0))
    client:recv_start(function(_, data, sender) if data then from = sender end end)
    client:try_send(STUN, '127.0.0.3', server:address().port)
    loop.till(function() return from end, 'the answer')
    assert.equal('127.0.0.3', from.ip)
    pair.close(client, server)
  end)))
end)
