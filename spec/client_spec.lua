local uv = require 'luv'
local dtls = require 'dtls'
local child = require 'spec.support.child'
local loop = require 'spec.support.loop'
local pair = require 'spec.support.pair'
local proxy = require 'spec.support.proxy'
local raw = require 'spec.support.raw'
local resolving = require 'spec.support.resolver'

local fingerprint = pair.identity.fingerprint

-- Records the events of a client that tell its fate, up to close.
local function fate(conn)
  return pair.record(conn, 'connection', 'error', 'close')
end

describe('connect', function()
  local function assertThrows(words, options)
    local ok, err = pcall(function() dtls.connect(options) end)
    assert.is_false(ok)
    assert.truthy(err:find(words, 1, true), ('%q is missing from: %s'):format(words, err))
    assert.truthy(err:find('client_spec.lua', 1, true), 'blames another line: ' .. err)
  end

  local function with(options)
    options.fingerprint = fingerprint
    return options
  end

  it('raises for an option that does not exist, by name', function()
    for _, name in ipairs { 'hots', 'demux', 'cookieSecret', 'maxConnections' } do
      assertThrows("'" .. name .. "'", with { host = '127.0.0.1', port = 9, [name] = 7 })
    end
    assertThrows('options')
    assertThrows('options', 7)
  end)

  it('raises for an option of the wrong type, by name', function()
    local wrong = { host = 7, port = {}, servername = true, hostname = {}, localAddress = 7, localPort = true, handle = 7, context = {} }
    for name, value in pairs(wrong) do
      local options = with { host = '127.0.0.1', port = 9 }
      options[name] = value
      assertThrows("'" .. name .. "'", options)
    end
  end)

  it('raises for a handle that is no UDP socket', function()
    local tcp = uv.new_tcp()
    for _, value in ipairs { tcp, io.stdout } do
      assert.has_error(function() dtls.connect(with { handle = value, host = '127.0.0.1', port = 9 }) end)
    end
    tcp:close()
    uv.run()
  end)

  it('gives nil and an error for options that do not go together', loop.run(function()
    local udp = uv.new_udp 'inet'
    for _, options in ipairs {
      {}, { host = '127.0.0.1' }, { port = 9 }, { handle = udp, host = '127.0.0.1' }, { handle = udp, localPort = 9 },
      { handle = udp, localAddress = '127.0.0.1' },
    } do
      local conn, err = dtls.connect(with(options))
      assert.is_nil(conn)
      assert.equal('ERR_DTLS_CONFIG', err.code)
    end
    local conn, err = dtls.connect { handle = udp, ca = pair.identity.cert }
    assert.is_nil(conn)
    assert.equal('ERR_DTLS_CONFIG', err.code)
    assert.truthy(err.message:find('servername', 1, true))
    udp:close()
    conn, err = dtls.connect(with { handle = udp, host = '127.0.0.1', port = 9 })
    assert.is_nil(conn)
    assert.equal('EBADF', err.code)
  end))

  it('gives nil and an error for garbage in its options, and leaves no handle open', loop.run(function()
    for _, options in ipairs { { ca = 'garbage' }, { cert = 'garbage', key = 'garbage' }, { ciphers = 'NO-SUCH-SUITE' } } do
      options.host, options.port = '127.0.0.1', 9
      local conn, err = dtls.connect(options)
      assert.is_nil(conn)
      assert.equal('ERR_DTLS_CONFIG', err.code)
    end
  end))
end)

describe('a client', function()
  pair.each(function(demux, ip)
    it('calls back when its handshake has completed', loop.run(function()
      local server = pair.listening({ demux = demux }, ip)
      local called = 0
      local conn = assert(dtls.connect({ host = ip, port = server.port, fingerprint = fingerprint }, function(...)
        called = called + 1
        assert.equal(0, select('#', ...))
      end))
      assert.equal(0, called)
      loop.event(conn, 'connection')
      assert.equal(1, called)
      pair.close(conn, server)
    end))

    it('sends servername to the server (SNI) unless it is an IP address', loop.run(function()
      local server = pair.listening({ demux = demux }, ip)
      for name, expected in pairs { ['example.org'] = 'example.org', [ip] = false } do
        local conn, accepted = pair.open(server, nil, { servername = name })
        assert.equal(expected or nil, accepted.servername)
        pair.close(conn)
      end
      local conn, accepted = pair.open(server, nil, { hostname = 'luvit.io' })
      assert.equal('luvit.io', accepted.servername)
      pair.close(conn, server)
    end))

    it('dials from localAddress and localPort', loop.run(function()
      local server = pair.listening({ demux = demux }, ip)
      local port = raw.freePort(ip)
      local conn, accepted = pair.open(server, nil, { localAddress = ip, localPort = port })
      assert.equal(port, accepted:remoteAddress().port)
      assert.equal(ip, conn:localAddress().ip)
      pair.close(conn)
      if ip == '127.0.0.1' then
        conn, accepted = pair.open(server, nil, { localAddress = '127.0.0.3' })
        assert.equal('127.0.0.3', accepted:remoteAddress().ip)
        pair.close(conn)
      end
      pair.close(server)
    end))

    it('connects an unconnected socket of the caller\'s, and gives the socket back disconnected', loop.run(function()
      for _, wrap in ipairs { function(udp) return udp end, function(udp) return { _handle = udp } end } do
        local server = pair.echo(pair.listening({ demux = demux }, ip))
        local udp, got = uv.new_udp(), {}
        assert(udp:bind(ip, 0))
        local port = udp:getsockname().port
        local function read() udp:recv_start(function(_, data, from) if from then got[#got + 1] = data end end) end
        read()
        local conn = pair.open(server, nil, { handle = wrap(udp) })
        assert.equal(port, conn:localAddress().port)
        assert.is_true(pair.roundTrip(conn, 'on a given socket'))
        assert.same({}, got)
        pair.close(conn, server)
        assert.is_false(udp:is_closing())
        assert.is_nil(udp:getpeername())
        read()
        local other = raw.open(ip)
        other:send('plain', { ip = ip, port = port })
        -- The server's close_notify may arrive before this datagram.
        loop.till(function() return got[#got] == 'plain' end)
        pair.close(other)
        udp:close()
      end
    end))

    it('leaves a connected socket of the caller\'s connected', loop.run(function()
      local server = pair.echo(pair.listening({ demux = demux }, ip))
      local udp = uv.new_udp()
      assert(udp:connect(ip, server.port))
      for i = 1, 2 do
        local conn = assert(dtls.connect { handle = udp, fingerprint = fingerprint })
        loop.event(conn, 'connection')
        assert.is_true(pair.roundTrip(conn, 'number ' .. i))
        assert.same(server.port, conn:remoteAddress().port)
        pair.close(conn)
        assert.is_false(udp:is_closing())
        assert.equal(server.port, udp:getpeername().port)
      end
      pair.close(server)
      udp:close()
    end))

    it('discards what a socket of the caller\'s had received before, and counts no drop', loop.run(function()
      local server = pair.echo(pair.listening({ demux = demux }, ip))
      local udp, other = uv.new_udp(), raw.open(ip)
      assert(udp:bind(ip, 0))
      for _ = 1, 10 do other:send('before', { ip = ip, port = udp:getsockname().port }) end
      local conn = pair.open(server, nil, { handle = udp })
      assert.same({}, conn:stats().drops)
      assert.is_true(pair.roundTrip(conn, 'x'))
      pair.close(conn, server, other)
      udp:close()
    end))

    it('that is closed before it has begun sends no hello and emits no error', loop.run(function()
      local server = pair.listening({ demux = demux }, ip)
      local heard = fate(pair.client(server))
      local met = pair.record(server, 'accept')
      local conn = pair.client(server)
      local own = fate(conn)
      conn:close()
      own.wait 'close'
      assert.equal('close', own.names())
      assert.is_false(own[1][2])
      heard.wait 'connection'
      assert.equal(1, #met)
      server:close()
      heard.wait 'close'
      loop.call(function(done) server:close(done) end)
    end))
  end)

  it('fails with EISCONN for a connected socket and an address', loop.run(function()
    local udp = uv.new_udp()
    assert(udp:connect('127.0.0.1', 9))
    local heard = fate(assert(dtls.connect { handle = udp, host = '127.0.0.1', port = 9, fingerprint = fingerprint }))
    heard.wait 'close'
    assert.equal('error close', heard.names())
    assert.equal('EISCONN', heard[1][2].code)
    udp:close()
  end))

  it('fails with EDESTADDRREQ for an unconnected socket and no address', loop.run(function()
    local udp = uv.new_udp()
    assert(udp:bind('127.0.0.1', 0))
    local heard = fate(assert(dtls.connect { handle = udp, fingerprint = fingerprint }))
    heard.wait 'close'
    assert.equal('error close', heard.names())
    assert.equal('EDESTADDRREQ', heard[1][2].code)
    udp:close()
  end))

  it('fails with EBADF when the caller closes the socket before the client begins', loop.run(function()
    local udp = uv.new_udp()
    assert(udp:bind('127.0.0.1', 0))
    local heard = fate(assert(dtls.connect { handle = udp, host = '127.0.0.1', port = 9, fingerprint = fingerprint }))
    udp:close()
    heard.wait 'close'
    assert.equal('error close', heard.names())
    assert.equal('EBADF', heard[1][2].code)
  end))

  for _, ip in ipairs(pair.addresses) do
    it(('fails with ECONNREFUSED when no server listens on the port (%s)'):format(ip), loop.run(function()
      local heard = fate(pair.client({ ip = ip, port = raw.freePort(ip) }, { retransmitTimeout = 30 }))
      heard.wait 'close'
      assert.equal('error close', heard.names())
      assert.equal('ECONNREFUSED', heard[1][2].code)
      assert.is_string(heard[1][2].message)
      assert.is_true(heard[2][2])
    end))

    it('needs no name with rejectUnauthorized = false, but then is unauthorized for HOSTNAME_MISMATCH', loop.run(function()
      local server = pair.listening(nil, ip)
      local function connect(options)
        local handle = raw.open(ip)
        handle.udp:recv_stop()
        assert(handle.udp:connect(ip, server.port))
        options.handle, options.ca = handle.udp, pair.identity.cert
        local conn, err = dtls.connect(options)
        return conn, err, handle
      end
      local conn, err, handle = connect {}
      assert.is_nil(conn)
      assert.equal('ERR_DTLS_CONFIG', err.code)
      pair.close(handle)
      conn, err, handle = connect { rejectUnauthorized = false }
      assert.is_nil(err)
      loop.event(conn, 'connection')
      assert.same({ false, 'HOSTNAME_MISMATCH' }, pair.verdict(conn))
      pair.close(conn, handle, server)
    end))

    it('has its whole handshakeTimeout, however long the loop was blocked before connect', loop.run(function()
      local silent = raw.open(ip)
      local earlier, passed = uv.new_timer(), false
      loop.block(450)
      local conn = pair.client(silent, { handshakeTimeout = 400 })
      uv.update_time()
      earlier:start(200, 0, function()
        passed = true
        earlier:close()
      end)
      loop.event(conn, 'error')
      assert.is_true(passed)
      pair.close(conn, silent)
    end))

    it(('gives up a server that never answers, with ERR_DTLS_HANDSHAKE_TIMEOUT (%s)'):format(ip), loop.run(function()
      local silent = raw.open(ip)
      local heard = fate(pair.client(silent, { handshakeTimeout = 60 }))
      heard.wait 'close'
      assert.equal('error close', heard.names())
      assert.equal('ERR_DTLS_HANDSHAKE_TIMEOUT', heard[1][2].code)
      assert.is_true(heard[2][2])
      assert.is_true(#silent.inbox > 0)
      pair.close(silent)
    end))
  end

  it('fails with the system\'s error when its local address cannot reach the server', loop.run(function()
    for _, options in ipairs {
      { host = '127.0.0.1', localAddress = '192.0.2.1' }, { host = '127.0.0.1', localAddress = '::1' },
    } do
      options.port, options.fingerprint = 9, fingerprint
      local heard = fate(assert(dtls.connect(options)))
      heard.wait 'close'
      assert.equal('error close', heard.names())
      assert.truthy(heard[1][2].code:find '^E%u+', tostring(heard[1][2]))
    end
  end))

  it('fails with EADDRINUSE when its local port is taken', loop.run(function()
    local server, taken = pair.listening(), raw.open()
    local heard = fate(pair.client(server, { localAddress = '127.0.0.1', localPort = taken.port }))
    heard.wait 'close'
    assert.equal('error close', heard.names())
    assert.equal('EADDRINUSE', heard[1][2].code)
    pair.close(server, taken)
  end))

  it('fails with the resolver\'s error when the host name does not exist', loop.run(function()
    local heard = fate(assert(dtls.connect { host = 'no-such-host.invalid', port = 9, fingerprint = fingerprint }))
    heard.wait 'close'
    assert.equal('error close', heard.names())
    assert.truthy(heard[1][2].code:find '^EAI_', tostring(heard[1][2]))
    assert.truthy(heard[1][2].message:find('no-such-host.invalid', 1, true))
  end))

  it('goes on to the next address of a name when one address refuses (ICMP)', loop.run(function()
    resolving({ '::1', '127.0.0.1' }, function()
      local server = pair.echo(pair.listening(nil, '127.0.0.1'))
      local conn = pair.open(server, { ip = 'localhost', port = server.port }, { retransmitTimeout = 30 })
      assert.equal('127.0.0.1', conn:remoteAddress().ip)
      assert.is_true(pair.roundTrip(conn, 'second try'))
      pair.close(conn, server)
    end)
  end))

  it('goes on to the next address of a name when the system cannot send to one', loop.run(function()
    resolving({ '255.255.255.255', '127.0.0.1' }, function()
      local server = pair.listening()
      local conn = pair.open(server, { ip = 'localhost', port = server.port })
      assert.equal('127.0.0.1', conn:remoteAddress().ip)
      pair.close(conn, server)
    end)
  end))

  it('goes on to the next address of a name with a socket of the caller\'s, too', loop.run(function()
    resolving({ '127.0.0.2', '127.0.0.1' }, function()
      local server = pair.echo(pair.listening(nil, '127.0.0.1'))
      local udp = uv.new_udp()
      assert(udp:bind('127.0.0.1', 0))
      local conn = pair.open(server, { ip = 'localhost', port = server.port }, { retransmitTimeout = 30, handle = udp })
      assert.is_true(pair.roundTrip(conn, 'second try'))
      pair.close(conn, server)
      udp:close()
    end)
  end))

  it('fails with ECONNREFUSED when every address of a name refuses', loop.run(function()
    resolving({ '::1', '127.0.0.1', '127.0.0.2' }, function()
      local heard = fate(pair.client({ ip = 'localhost', port = raw.freePort() }, { retransmitTimeout = 20 }))
      heard.wait 'close'
      assert.equal('error close', heard.names())
      assert.equal('ECONNREFUSED', heard[1][2].code)
    end)
  end))

  pair.eachStrategy(function(demux)
    for silent = 1, 2 do
      it(('goes on to the next address of a name when %d of its addresses stay silent'):format(silent), loop.run(function()
        local server = pair.echo(pair.listening({ demux = demux }, '127.0.0.1'))
        local others, addresses = {}, {}
        for i = 1, silent do
          addresses[i] = '127.0.0.' .. 1 + i
          others[i] = raw.open(addresses[i], server.port)
        end
        addresses[silent + 1] = '127.0.0.1'
        resolving(addresses, function()
          local conn = pair.client({ ip = 'localhost', port = server.port }, { retransmitTimeout = 30 })
          for _, other in ipairs(others) do other:hear(conn) end
          loop.event(conn, 'connection')
          assert.equal('127.0.0.1', conn:remoteAddress().ip)
          assert.is_true(pair.roundTrip(conn, 'after silence'))
          for _, other in ipairs(others) do assert.is_true(#other.inbox >= 2) end
          pair.close(conn, server, unpack(others))
        end)
      end))
    end

    it('comes back to a slow address of a name, and repeats the hello more often there', loop.run(function()
      local server = pair.listening({ demux = demux }, '127.0.0.1')
      local sent = {} -- random of a hello → how often it was sent
      local between = proxy.new(server, { filter = function(direction, _, data)
        if direction ~= 'server' or data:byte(14) ~= 1 then return data end
        local random = data:sub(28, 59)
        sent[random] = (sent[random] or 0) + 1
        return sent[random] > 3 and data or nil -- an address that is left after two repetitions never answers
      end })
      local silent = raw.open('127.0.0.2', between.port)
      resolving({ '127.0.0.2', '127.0.0.1' }, function()
        local conn = pair.open(server, { ip = 'localhost', port = between.port }, { retransmitTimeout = 30 })
        assert.equal('127.0.0.1', conn:remoteAddress().ip)
        pair.close(conn, between, server, silent)
      end)
    end))
  end)

  it('goes on to the next address of a name at once when one refuses, without waiting for retransmitTimeout', loop.run(function()
    local server = pair.listening()
    resolving({ '127.0.0.2', '127.0.0.3', '127.0.0.4', '127.0.0.1' }, function()
      local conn = pair.open(server, { ip = 'localhost', port = server.port }, { retransmitTimeout = 60000 })
      assert.equal('127.0.0.1', conn:remoteAddress().ip)
      pair.close(conn, server)
    end)
  end))

  it('shares a handshakeTimeout shorter than retransmitTimeout among the addresses of a name', loop.run(function()
    local server = pair.listening()
    local silent = raw.open('127.0.0.2', server.port)
    resolving({ '127.0.0.2', '127.0.0.1' }, function()
      local conn = pair.open(server, { ip = 'localhost', port = server.port },
        { retransmitTimeout = 60000, handshakeTimeout = 1000 * loop.patience })
      assert.equal('127.0.0.1', conn:remoteAddress().ip)
      pair.close(conn, server, silent)
    end)
  end))

  it('names every address of a name in the error when none has answered', loop.run(function()
    local one = raw.open '127.0.0.2'
    local other = raw.open('127.0.0.3', one.port)
    resolving({ '127.0.0.2', '127.0.0.3', '127.0.0.4' }, function()
      local heard = fate(pair.client({ ip = 'localhost', port = one.port },
        { retransmitTimeout = 20, handshakeTimeout = 600 * loop.patience }))
      heard.wait 'close'
      assert.equal('error close', heard.names())
      local err = heard[1][2]
      assert.equal('ERR_DTLS_HANDSHAKE_TIMEOUT', err.code)
      for _, ip in ipairs { '127.0.0.2', '127.0.0.3', '127.0.0.4 (ECONNREFUSED)' } do
        assert.truthy(err.message:find(ip, 1, true), err.message)
      end
    end)
    pair.close(one, other)
  end))

  for ending, code in pairs { silent = 'ERR_DTLS_HANDSHAKE_TIMEOUT', refusing = 'ECONNREFUSED' } do
    it(('does not leave an address of a name that has sent a HelloVerifyRequest and then is %s'):format(ending), loop.run(function()
      local server = pair.listening()
      local answered
      local next_one = raw.open '127.0.0.1'
      local between = proxy.new(server, { ip = '127.0.0.2', port = next_one.port, filter = function(direction, index, data)
        if direction == 'client' then answered = true end
        if index == 1 then return data end -- the hello, and the HelloVerifyRequest
      end })
      local met = pair.record(server, 'accept')
      resolving({ '127.0.0.2', '127.0.0.1' }, function()
        local conn = pair.client({ ip = 'localhost', port = between.port },
          { retransmitTimeout = 30, handshakeTimeout = 600 * loop.patience })
        next_one:hear(conn)
        local heard = fate(conn)
        loop.till(function() return between.count.server >= 2 end, 'the hello with the cookie')
        assert.is_true(answered)
        if ending == 'refusing' then pair.close(between) end
        heard.wait 'close'
        assert.equal(code, heard[1][2].code)
        assert.equal(0, #met)
        assert.equal(0, #next_one.inbox)
        if ending ~= 'refusing' then pair.close(between) end
        pair.close(server, next_one)
      end)
    end))
  end

  it('passes over link-local addresses of a name, which the resolver gives without their interface', loop.run(function()
    resolving({ 'fe80::1', 'FEBF::1', '127.0.0.1' }, function()
      local server = pair.listening()
      local conn = pair.open(server, { ip = 'localhost', port = server.port })
      assert.equal('127.0.0.1', conn:remoteAddress().ip)
      pair.close(conn, server)
    end)
    for _, ip in ipairs { 'fe80::1', 'FEBF::1' } do
      resolving({ ip }, function()
        local err = loop.event(pair.client { ip = 'localhost', port = 9 }, 'error')[1]
        assert.equal('EADDRNOTAVAIL', err.code)
        assert.truthy(err.message:find('link-local', 1, true))
      end)
    end
  end))

  it('asks the resolver for addresses of one family when family or localAddress gives one', loop.run(function()
    for family, name in pairs { [4] = 'inet', [6] = 'inet6' } do
      resolving({}, function(asked)
        loop.event(pair.client({ ip = 'localhost', port = 9 }, { family = family }), 'error')
        assert.equal(name, asked.family)
      end)
    end
    for ip, name in pairs { ['127.0.0.1'] = 'inet', ['::1'] = 'inet6' } do
      resolving({}, function(asked)
        loop.event(pair.client({ ip = 'localhost', port = 9 }, { localAddress = ip }), 'error')
        assert.equal(name, asked.family)
      end)
    end
    local conn, err = dtls.connect { host = 'localhost', port = 9, family = 5, fingerprint = fingerprint }
    assert.is_nil(conn)
    assert.equal('ERR_DTLS_CONFIG', err.code)
  end))

  it('tries no other address of a name once the application has destroyed the client, also with ECONNREFUSED', loop.run(function()
    local next_one = raw.open '127.0.0.1'
    local silent = raw.open('127.0.0.2', next_one.port)
    resolving({ '127.0.0.2', '127.0.0.1' }, function()
      local conn = pair.client { ip = 'localhost', port = silent.port }
      silent:hear(conn)
      next_one:hear(conn)
      local heard = fate(conn)
      loop.till(function() return #silent.inbox > 0 end, 'the hello')
      conn:destroy { code = 'ECONNREFUSED', message = 'as the system would say it' }
      assert.is_true(conn.destroyed)
      heard.wait 'close'
      assert.equal('error close', heard.names())
    end)
    assert.equal(0, #next_one.inbox)
    pair.close(silent, next_one)
  end))

  it('fails when the host name has no address', loop.run(function()
    resolving({}, function()
      local heard = fate(pair.client { ip = 'localhost', port = 9 })
      heard.wait 'close'
      assert.equal('error close', heard.names())
    end)
  end))

  it('that is closed during the look-up of its host name sends no hello', loop.run(function()
    local server = pair.listening()
    resolving({ '127.0.0.1' }, function()
      local met = pair.record(server, 'accept')
      local conn = pair.client { ip = 'localhost', port = server.port }
      loop.call(function(done)
        local timer = uv.new_timer()
        timer:start(0, 0, function() timer:close(done) end)
      end)
      local heard = fate(conn)
      pair.close(conn)
      assert.equal('close', heard.names())
      local fence = pair.open(server)
      assert.equal(1, #met)
      pair.close(fence, server)
    end)
  end))

  it('checks the server\'s certificate against the host name that it dials', loop.run(function()
    local own = assert(dtls.selfSigned { altNames = { 'good.example' } })
    local server = pair.listening { cert = own.cert, key = own.key }
    resolving({ '127.0.0.1' }, function()
      local conn, accepted = pair.open(server, { ip = 'good.example', port = server.port }, { ca = own.cert })
      assert.equal('good.example', accepted.servername)
      pair.close(conn)
      local heard = fate(pair.client({ ip = 'bad.example', port = server.port }, { ca = own.cert }))
      heard.wait 'close'
      assert.equal('HOSTNAME_MISMATCH', heard[1][2].reason)
    end)
    pair.close(server)
  end))

  it('stays open when its server is gone for a moment and the system reports ECONNREFUSED', loop.run(function()
    local server = pair.echo(pair.listening())
    local between = proxy.new(server)
    local conn = pair.open(server, between)
    local heard = fate(conn)
    local port = between.port
    pair.close(between)
    for _ = 1, 3 do conn:send 'into the void' end
    loop.till(function()
      conn:send 'again'
      return conn:stats().drops.ECONNREFUSED
    end, 'an ICMP error')
    assert.equal('', heard.names())
    local back = raw.open('127.0.0.1', port)
    back:hear(conn)
    loop.till(function()
      conn:send 'again'
      return #back.inbox > 0
    end, 'a datagram')
    assert.equal('', heard.names())
    pair.close(conn, server, back)
  end))

  it('does not keep a process alive after unref(), even before its server has answered', function()
    local stdout, stderr, status = child.run [[
      local uv, dtls = require 'luv', require 'dtls'
      local identity = dtls.selfSigned()
      local silent = uv.new_udp()
      silent:bind('127.0.0.1', 0)
      local port = silent:getsockname().port
      local conn = dtls.connect { host = '127.0.0.1', port = port, fingerprint = identity.fingerprint, handshakeTimeout = 3000 }
      conn:unref()
      conn:on('error', print)
      uv.run()
      print 'ended' ]]
    assert.equal('', stderr)
    assert.equal('ended\n', stdout)
    assert.equal(0, status)
  end)

  it('closes after an error that has no listener', function()
    local stdout, stderr, status = child.run [[
      local uv, dtls = require 'luv', require 'dtls'
      local conn = dtls.connect { host = '127.0.0.1', port = 9, fingerprint = ('00'):rep(32), retransmitTimeout = 20 }
      conn:on('close', function(failed) print('closed', failed) end)
      uv.run()
      print 'ended' ]]
    assert.equal('', stderr)
    assert.equal('closed\ttrue\nended\n', stdout)
    assert.equal(0, status)
  end)
end)
