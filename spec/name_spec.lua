-- Names: what may be one, and that the name that is asked for (SNI) and the name that is checked are the same bytes.

local uv = require 'luv'
local core = require 'dtls.core'
local dtls = require 'dtls'
local hello = require 'spec.support.hello'
local loop = require 'spec.support.loop'
local pair = require 'spec.support.pair'
local pki = require 'spec.support.pki'
local raw = require 'spec.support.raw'
local resolving = require 'spec.support.resolver'

local label = ('a'):rep(63)
local longest = (label .. '.'):rep(3) .. ('b'):rep(61)

-- text → its canonical form, its family
local good = {
  ['gw.example'] = { 'gw.example', 'host' },
  ['GW.Example'] = { 'GW.Example', 'host' },
  ['gw.example.'] = { 'gw.example', 'host' },
  localhost = { 'localhost', 'host' },
  ['xn--bcher-kva.example'] = { 'xn--bcher-kva.example', 'host' },
  ['my_host-1.example'] = { 'my_host-1.example', 'host' },
  ['4.example'] = { '4.example', 'host' },
  ['1.2.3.4.example'] = { '1.2.3.4.example', 'host' },
  [longest] = { longest, 'host' },
  [longest .. '.'] = { longest, 'host' },
  ['192.0.2.7'] = { '192.0.2.7', 'inet' },
  ['2001:db8::7'] = { '2001:db8::7', 'inet6' },
  ['::ffff:192.0.2.7'] = { '::ffff:192.0.2.7', 'inet6' },
  ['fe80::7%lo'] = { 'fe80::7', 'inet6' },
}

-- text → what the error says
local bad = {
  [''] = 'host name', ['.'] = 'host name', ['.example'] = 'host name', ['a..example'] = 'host name', ['gw.example..'] = 'host name',
  [label .. 'a.example'] = 'host name', [longest .. 'b'] = 'host name', ['*.example'] = 'host name', ['*'] = 'host name',
  ['a b.example'] = 'host name', [' gw.example'] = 'host name', ['gw.example\n'] = 'host name', ['gw.example:443'] = 'host name',
  ['[::1]'] = 'host name', ['https://gw.example'] = 'host name', ['nonsense:'] = 'host name', ['../../etc/passwd'] = 'host name',
  ['::12345'] = 'host name', ['b\127.example'] = 'host name',
  ['localhost\0.trusted.example'] = 'NUL', ['gw.example\0'] = 'NUL', ['\0'] = 'NUL', ['127.0.0.1\0.example'] = 'NUL', ['::1\0'] = 'NUL',
  ['fe80::1%lo\0'] = 'NUL',
  ['::1%.trusted.example'] = 'interface', ['fe80::1%no-such-if'] = 'interface', ['fe80::1%'] = 'interface',
  ['fe80::1%1.trusted.example'] = 'interface', ['fe80::1%lo%lo'] = 'interface', ['fe80::1%' .. ('l'):rep(300)] = 'interface',
  ['127.0.0.1%lo'] = 'IPv6', ['localhost%lo'] = 'IPv6', ['gw.example%.trusted.example'] = 'IPv6', ['%lo'] = 'IPv6',
  ['b\195\188cher.example'] = 'A-label', ['b\252cher.example'] = 'A-label', ['gw\227\128\130example'] = 'A-label',
  ['127.1'] = 'IPv4', ['0x7f.1'] = 'IPv4', ['0x7f000001'] = 'IPv4', ['2130706433'] = 'IPv4', ['0177.0.0.1'] = 'IPv4',
  ['127.0.0.01'] = 'IPv4', ['999.1.1.1'] = 'IPv4', ['127.0.0.1.'] = 'IPv4', ['1.2.3.4.5'] = 'IPv4', ['gw.0X1f'] = 'IPv4',
}

local function assertRefused(words, name, err)
  assert.is_nil(name)
  assert.equal('ERR_DTLS_CONFIG', err.code)
  assert.truthy(err.message:find(words, 1, true), ('%q is missing from: %s'):format(words, err.message))
  assert.is_nil(err.message:find '[%z\1-\31\127]')
end

describe('a name', function()
  it('is a host name without its final dot, or an IP address without its zone', function()
    for text, expected in pairs(good) do assert.same(expected, { core.name(text) }, text) end
  end)

  it('is refused when it is neither of these, and the error says what is wrong', function()
    for text, words in pairs(bad) do assertRefused(words, core.name(text)) end
  end)
end)

describe('a client', function()
  local identity = assert(dtls.selfSigned { altNames = { 'gw.example', 'localhost', '::1', '127.0.0.1', 'fe80::7' } })

  local function with(more)
    return pair.merged({ host = '127.0.0.1', port = 9, ca = identity.cert }, more)
  end

  for _, option in ipairs { 'host', 'servername', 'hostname' } do
    it(('takes as %s what is a name, and nothing else'):format(option), loop.run(function()
      for text, words in pairs(bad) do
        if text ~= '' or option == 'host' then
          local conn, err = dtls.connect(with { [option] = text })
          assertRefused(words, conn, err)
          assert.truthy(err.message:find(option, 1, true), err.message)
        end
      end
    end))
  end

  it('checks also the name that it does not use', loop.run(function()
    assertRefused('hostname', dtls.connect(with { servername = 'gw.example', hostname = 'a..b' }))
    assertRefused('host', dtls.connect(with { servername = 'gw.example', host = 'gw.example\0' }))
  end))

  it('dials from what is an IP address, and from nothing else', loop.run(function()
    for _, text in ipairs { '127.0.0.1\0.example', '::1%.trusted.example', 'localhost', '127.1', '' } do
      assertRefused('localAddress', dtls.connect(with { localAddress = text }))
    end
  end))

  it('of the core takes the same names', loop.run(function()
    local udp = uv.new_udp()
    assert(udp:connect('127.0.0.1', 9))
    local made = assert(core.context('client', { reject = false }))
    for text, words in pairs(bad) do
      assertRefused(words, core.client(made, core.fd(udp), { servername = text, check_name = true }))
    end
    udp:close()
  end))

  it('asks for and checks a name without its final dot, and resolves it as it is', loop.run(function()
    local server = pair.listening { cert = identity.cert, key = identity.key }
    resolving({ '127.0.0.1' }, function(asked)
      local conn, accepted = pair.open(server, { ip = 'gw.example.', port = server.port }, { ca = identity.cert })
      assert.same({ 'gw.example.' }, asked)
      assert.same({ 'gw.example', 'gw.example' }, { accepted.servername, conn.servername })
      pair.close(conn)
    end)
    local seen
    local function check(name) seen = name end
    for _, option in ipairs { 'servername', 'hostname' } do
      local conn, accepted = pair.open(server, nil, { ca = identity.cert, [option] = 'gw.example.' })
      assert.equal('gw.example', accepted.servername)
      pair.close(conn)
      conn = pair.open(server, nil, { ca = identity.cert, [option] = 'gw.example.', checkServerIdentity = check })
      assert.equal('gw.example', seen)
      pair.close(conn)
    end
    pair.close(server)
  end))

  it('checks an address without its zone, which is dialled', loop.run(function()
    local server = pair.listening({ cert = identity.cert, key = identity.key }, '::1')
    local seen
    local conn, accepted = pair.open(server, { ip = '::1%lo', port = server.port }, {
      ca = identity.cert, checkServerIdentity = function(name) seen = name end,
    })
    assert.equal('::1', seen)
    assert.is_nil(accepted.servername)
    pair.close(conn)
    conn = pair.open(server, { ip = '::1%lo', port = server.port }, { ca = identity.cert })
    pair.close(conn, server)
  end))
end)

-- ── the other side ──

-- The server_name extension with such a name (RFC 6066 §3).
local function server_name(name)
  return '\0\0' .. hello.vector(2, hello.vector(2, '\0' .. hello.vector(2, name))) .. hello.extensions
end

-- What a server's SNICallback is called with.
local asked_as = {
  ['gw.example'] = 'gw.example', ['GW.Example'] = 'gw.example', ['gw.example.'] = 'gw.example', ['my_host.example'] = 'my_host.example',
  ['127.0.0.1'] = false, ['::1'] = false, -- RFC 6066 §3 allows no addresses: such a client names no host
}

local no_names = {
  'a..b', '.example', '*', '*.example', 'a b', 'gw.example\n', '../../etc/passwd', 'gw.example%lo', 'fe80::1%lo', '[::1]', '127.1',
  '0x7f000001',
  'b\195\188cher.example', label .. 'a.example', longest .. 'b', 'gw.example..', 'b\27[2J.example',
}

pair.eachStrategy(function(demux)
  -- A hello with such a name, from a socket of its own, until the server has something to say about it. The caller closes the
  -- socket at the end: from a port that comes back at once the next hello would be too early.
  local function ask(server, name, heard, peers)
    local peer = raw.open()
    peers[#peers + 1] = peer
    local before = #heard
    local options = { random = ('%d'):format(#name):rep(32):sub(1, 32), extensions = server_name(name) }
    options.cookie = hello.cookie(peer, server, options)
    options.sequence, options.messageSequence = 1, 1
    peer:send(hello.build(options), server)
    loop.till(function() return #heard > before end, 'the server\'s answer to ' .. name)
  end

  describe('a server', function()
    it('asks SNICallback for host names in lower case, and for nil when the client names no host', loop.run(function()
      local asked = {}
      local server = pair.listening { demux = demux, SNICallback = function(name)
        asked[#asked + 1] = name or false
        return nil
      end }
      local failed, peers = {}, {}
      for text, expected in pairs(asked_as) do
        local peer, before = raw.open(), #asked
        peers[#peers + 1] = peer -- which stays until the end: a flight that is repeated to nobody would be refused
        hello.halfOpen(peer, server, { extensions = server_name(text) })
        assert.same({ expected }, { asked[before + 1] }, text)
      end
      server:on('clientError', function(err) failed[#failed + 1] = err end)
      local count = #asked
      for _, text in ipairs(no_names) do
        ask(server, text, failed, peers)
        local err = failed[#failed]
        assert.equal('ERR_DTLS_SERVERNAME', err.code, text)
        assert.equal('UNRECOGNIZED_NAME', err.reason)
      end
      assert.equal(count, #asked)
      pair.close(server, unpack(peers))
    end))

    it('with a map of names refuses what is no host name also where it takes any name', loop.run(function()
      local server = pair.listening { demux = demux, sni = { ['*'] = { cert = pair.identity.cert, key = pair.identity.key } } }
      local failed, peers = {}, {}
      server:on('clientError', function(err) failed[#failed + 1] = err end)
      for _, text in ipairs(no_names) do
        ask(server, text, failed, peers)
        assert.equal('ERR_DTLS_SERVERNAME', failed[#failed].code, text)
      end
      pair.close(server, unpack(peers))
    end))

    it('that knows no names does not look at them, nor does it hand on what is none', loop.run(function()
      local stored = { get = function() end, set = function() end, remove = function() end }
      for _, more in ipairs { {}, { sessionStore = stored } } do
        local server = pair.listening(pair.merged({ demux = demux }, more))
        local accepted = {}
        server:on('accept', function(conn) accepted[#accepted + 1] = conn end)
        for text, expected in pairs(pair.merged(asked_as, { ['a b'] = false, ['../../etc/passwd'] = false, ['b\195\188cher'] = false })) do
          local peer = raw.open()
          hello.halfOpen(peer, server, { extensions = server_name(text) })
          assert.equal(expected or nil, accepted[#accepted].servername, text)
          pair.close(peer)
        end
        pair.close(server)
      end
    end))
  end)
end)

describe('a map of names', function()
  local function compile(name)
    return dtls.createServer {
      cert = pair.identity.cert, key = pair.identity.key, sni = { [name] = { cert = pair.identity.cert, key = pair.identity.key } },
    }
  end

  it('takes names that a client can ask for, and nothing else', function()
    for _, name in ipairs { 'gw.example', 'GW.example.', '*.example', '*', 'my_host', longest } do assert.truthy(compile(name), name) end
    for text, words in pairs(bad) do
      if text ~= '*' and text ~= '*.example' then assertRefused(words, compile(text)) end
    end
    for _, text in ipairs { '127.0.0.1', '::1', 'fe80::7%lo', '*.*.example', 'w*.example', '**', '*.', '*..example', '*.127.1', '*.::1' } do
      assertRefused(("sni: '%s': "):format(text), compile(text))
    end
  end)

  it('knows a name with and without its final dot as the same', loop.run(function()
    local gw = assert(dtls.selfSigned())
    local server = pair.listening { sni = { ['gw.example.'] = { cert = gw.cert, key = gw.key } } }
    local conn = pair.open(server, nil, { servername = 'gw.example', fingerprint = gw.fingerprint })
    pair.close(conn, server)
    local identity = { cert = gw.cert, key = gw.key }
    assertRefused('twice', dtls.createServer {
      cert = gw.cert, key = gw.key, sni = { ['gw.example.'] = identity, ['gw.example'] = identity },
    })
  end))
end)

describe('an address with a NUL in it', function()
  it('is refused by listen', loop.run(function()
    local server = pair.server()
    local ok, err = server:listen(0, '127.0.0.1\0.example')
    assert.is_nil(ok)
    assert.equal('EINVAL', err.code)
    pair.close(server)
  end))
end)

describe('a self-signed certificate', function()
  it('bears whole names: none with a NUL, and alternative names in ASCII', function()
    for _, options in ipairs { { commonName = 'localhost\0.example' }, { altNames = { 'localhost\0.example' } },
      { altNames = { 'a.example', '127.0.0.1\0' } }, { altNames = { 'b\195\188cher.example' } } } do
      local made, err = dtls.selfSigned(options)
      assert.is_nil(made)
      assert.equal('ERR_DTLS_CONFIG', err.code)
    end
    assert.truthy(dtls.selfSigned { commonName = 'B\195\188cher', altNames = { 'xn--bcher-kva.example' } })
  end)
end)

describe('a certificate whose name has a NUL', function()
  local directory

  setup(function() directory = pki.new() end)
  teardown(function() directory:remove() end)

  it('is accepted for no name', loop.run(function()
    -- DNS:localhost\0.example, in DER
    local name = 'localhost\0.example'
    local der = (('\48' .. string.char(#name + 2) .. '\130' .. string.char(#name)) .. name):gsub('.', function(byte)
      return ('%02X'):format(byte:byte())
    end)
    local made = directory:certificate('nul', { altDer = der })
    for _, servername in ipairs { 'localhost', 'localhost.example', 'example' } do
      local outcome = pair.attempt({ cert = made.pem.cert, key = made.pem.key }, { ca = made.pem.cert, servername = servername })
      assert.equal('HOSTNAME_MISMATCH', outcome.client.reason)
    end
  end))
end)
