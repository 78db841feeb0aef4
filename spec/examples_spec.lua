local dtls = require 'dtls'
local uv = require 'luv'
local contents = require 'spec.support.contents'
local loop = require 'spec.support.loop'
local process = require 'spec.support.process'

local root = uv.cwd()
local build = assert(uv.fs_realpath(os.getenv 'DTLS_BUILD' or 'build'))

local scripts = { 'demo.lua', 'echo_server.lua', 'echo_client.lua', 'psk_server.lua', 'dtlscat.lua' }
local variants = { shared = build, static = build .. '/static' }

-- ── ways to run an example: each is a function(script, …) → child ──

local tree

-- An application of luvit's: the examples, and the module dropped into deps.
local function application(variant)
  local dir = tree .. '/' .. variant
  assert(uv.fs_mkdir(dir, 448))
  assert(uv.fs_mkdir(dir .. '/deps', 448))
  assert(uv.fs_symlink(variants[variant] .. '/luvit/dtls', dir .. '/deps/dtls'))
  for _, script in ipairs(scripts) do assert(uv.fs_symlink(root .. '/examples/' .. script, dir .. '/' .. script)) end
end

-- The checkout, for luajit; one of make's variants, and not the one that busted itself runs with.
local function withPaths(variant, ...)
  return process.spawn('env', {
    ('LUA_PATH=%s/lua/?.lua;%s/lua/?/init.lua;;'):format(root, root), ('LUA_CPATH=%s/?.so;;'):format(variants[variant]), ...,
  })
end

local run = {}

local function asLuvit(host, variant, script, ...)
  return process.spawn('env', {
    '-u', 'LUA_PATH', '-u', 'LUA_CPATH',
    ('%s/host/%s'):format(build, host), 'spec/host/init.lua', ('%s/%s/%s'):format(tree, variant, script), ...,
  })
end

for variant in pairs(variants) do
  run['luajit, ' .. variant] = function(script, ...) return withPaths(variant, 'luajit', 'examples/' .. script, ...) end
  run['luvit, ' .. variant] = function(script, ...) return asLuvit('luvi', variant, script, ...) end
end
run['luvi 2.14, static'] = function(script, ...) return asLuvit('luvi-old', 'static', script, ...) end

local everywhere = { 'luajit, shared', 'luajit, static', 'luvit, shared', 'luvit, static', 'luvi 2.14, static' }

-- Who runs the server and who the client.
local pairings = {
  { 'luajit, shared', 'luajit, shared' },
  { 'luajit, shared', 'luvit, static' },
  { 'luvit, shared', 'luajit, static' },
  { 'luvit, static', 'luvit, shared' },
  { 'luvi 2.14, static', 'luvi 2.14, static' },
}

local function write(name, text)
  local path = tree .. '/' .. name
  local file = assert(io.open(path, 'w'))
  file:write(text)
  file:close()
  return path
end

local function identity(name)
  local pair = assert(dtls.selfSigned())
  return {
    cert = write(name .. '.cert', pair.cert), key = write(name .. '.key', pair.key), fingerprint = pair.fingerprint,
  }
end

local function test(body)
  return loop.run(function()
    local ok, err = xpcall(body, function(err) return type(err) == 'string' and debug.traceback(err, 2) or err end)
    process.killAll()
    if not ok then error(err, 0) end
  end)
end

local function assertEnds(child, expected)
  local code, signal = child:wait()
  assert.same({ expected or 0, 0 }, { code, signal }, child.output.stderr)
end

-- Starts dtlscat on a free port; returns it, the port, and the fingerprint that it printed.
local function listen(runner, ...)
  local listener = run[runner]('dtlscat.lua', '-l', '127.0.0.1', '0', ...)
  local port = listener:expect 'listening on 127%.0%.0%.1 port (%d+)\n'
  return listener, port, listener:printed 'fingerprint (%S+)\n'
end

local function connect(runner, port, ...)
  return run[runner]('dtlscat.lua', '127.0.0.1', port, ...)
end

local function talk(one, other)
  one:write 'from one side\n'
  other:expect 'from one side\n'
  other:write 'from the other\n'
  one:expect 'from the other\n'
end

describe('the examples:', function()
  setup(function()
    tree = assert(uv.fs_mkdtemp((os.getenv 'TMPDIR' or '/tmp') .. '/dtls-examples-XXXXXX'))
    for variant in pairs(variants) do application(variant) end
  end)

  teardown(function()
    os.execute(("rm -r '%s'"):format(tree))
  end)

  it('demo shows everything and ends well, everywhere', test(function()
    local children = {}
    for i, runner in ipairs(everywhere) do children[i] = run[runner] 'demo.lua' end
    for i, runner in ipairs(everywhere) do
      local child = children[i]
      local code = child:wait(30000)
      local text = child.output.stdout
      assert.equal('', child.output.stderr, runner)
      assert.equal(0, code, runner)
      for _, pattern in ipairs {
        'address +verified by cookie', 'protocol +DTLSv1%.2', 'cipher +[A-Z0-9-]+, %d+ bits', 'peer +authorized',
        'data MTU +%d+ bytes', 'speed +[1-9]%d* round trips', '[1-9]%d* messages per second',
        "closed +the client's side", "closed +the server's side", 'closed +the server\n',
      } do
        assert.truthy(text:find(pattern), pattern .. '\n' .. text)
      end
      assert.equal(runner:find 'luajit' ~= nil, text:find 'nothing is left open' ~= nil)
    end
  end))

  for _, pairing in ipairs(pairings) do
    local here, there = pairing[1], pairing[2]

    describe(('server under %s, client under %s,'):format(here, there), function()
      it('echo: three messages come back, Ctrl-C ends the server', test(function()
        local server = run[here]('echo_server.lua', '0')
        local ip, port, fingerprint = server:expect 'echo_client.lua (%S+) (%d+) (%S+)\n'
        local client = run[there]('echo_client.lua', ip, port, fingerprint)
        assertEnds(client)
        assert.equal('', client.output.stderr)
        assert.truthy(client:printed 'received: one\nsent: two\nreceived: two\nsent: three\nreceived: three\nclosed\n')
        server:expect 'closed: 127%.0%.0%.1 port %d+\n'
        server.handle:kill 'sigint'
        assertEnds(server)
        assert.truthy(server:printed '\nclosed\n$')
      end))

      it('dtlscat: both talk; the end of the client\'s input ends both', test(function()
        local listener, port, fingerprint = listen(here)
        local client = connect(there, port, '--fingerprint', fingerprint)
        talk(client, listener)
        client:finish()
        assertEnds(client)
        assertEnds(listener)
        assert.equal('from one side\n', listener.output.stdout)
        assert.equal('from the other\n', client.output.stdout)
        assert.truthy(client:printed '[A-Z0-9-]+, authorized\n')
        assert.truthy(listener:printed 'with [A-Z0-9-]+\n', 'it has not asked who the client is')
      end))

      it('dtlscat: with a key that both know; the end of the listener\'s input ends both', test(function()
        local psk = { '--psk-identity', 'somebody', '--psk-key', '00112233445566778899aabbccddeeff' }
        local listener, port, fingerprint = listen(here, unpack(psk))
        assert.is_nil(fingerprint)
        local client = connect(there, port, unpack(psk))
        talk(listener, client)
        listener:finish()
        assertEnds(listener)
        assertEnds(client)
        assert.truthy(client:printed 'PSK[A-Z0-9-]+, authorized\n')
        assert.truthy(listener:printed 'PSK[A-Z0-9-]+, authorized\n')
      end))

      it('psk_server: a device gets in as soon as its key is in the file', test(function()
        local keys = write('keys', 'another:00112233\n')
        local server = run[here]('psk_server.lua', keys, '0')
        local port = server:expect 'listening on port (%d+)\n'
        local psk = { '--psk-identity', 'device 7', '--psk-key', '00112233445566778899aabbccddeeff' }
        assertEnds(connect(there, port, unpack(psk)), 1)
        server:expect "did not get in: there is no key for the identity 'device 7'\n"
        write('keys', 'another:00112233\ndevice 7:00112233445566778899aabbccddeeff\n')
        local client = connect(there, port, unpack(psk))
        client:write 'hello\n'
        client:expect 'device 7 said hello\n'
        client:finish()
        assertEnds(client)
        server:expect 'closed: device 7\n'
        server.handle:kill 'sigint'
        assertEnds(server)
      end))

      it('dtlscat: a wrong fingerprint is refused in one sentence', test(function()
        local listener, port = listen(here)
        local client = connect(there, port, '--fingerprint', ('00'):rep(32))
        assertEnds(client, 1)
        assert.matches("^dtlscat: the peer's certificate was refused: fingerprint mismatch: it is %x%x:[%x:]+ and not 00:[0:]+\n$",
          client.output.stderr)
        assert.equal('', client.output.stdout)
        assert.equal('', listener.output.stdout)
      end))
    end)
  end

  it('dtlscat with certificates from files: a CA and a name for the server, a fingerprint for the client', test(function()
    local server, client = identity 'server', identity 'client'
    local listener, port = listen('luajit, shared', '--cert', server.cert, '--key', server.key, '--fingerprint', client.fingerprint)
    local child = connect('luvit, shared', port, '--ca', server.cert, '--servername', 'localhost',
      '--cert', client.cert, '--key', client.key)
    talk(child, listener)
    child:finish()
    assertEnds(child)
    assertEnds(listener)
    assert.truthy(child:printed ', authorized\n')
    assert.truthy(listener:printed ', authorized\n')
  end))

  it('dtlscat says when the name in the certificate is another', test(function()
    local server = identity 'other'
    local _, port = listen('luajit, shared', '--cert', server.cert, '--key', server.key)
    local child = connect('luajit, shared', port, '--ca', server.cert, '--servername', 'example.org')
    assertEnds(child, 1)
    assert.equal("dtlscat: the peer's certificate was refused: hostname mismatch: example.org is not among DNS:localhost\n",
      child.output.stderr)
  end))

  it('dtlscat --insecure talks to anybody and says so', test(function()
    local listener, port = listen 'luajit, shared'
    local child = connect('luajit, shared', port, '--insecure')
    talk(listener, child)
    assert.truthy(child:printed 'not authorized: DEPTH_ZERO_SELF_SIGNED_CERT\n')
  end))

  it('dtlscat reads and writes files, and -q goes on listening after the end of input', test(function()
    local content = {}
    for i = 1, 20000 do content[i] = string.char(i * i % 251) end
    content = table.concat(content)
    local source, target = write('source', content), tree .. '/target'
    local psk = '--psk-identity a --psk-key 0123456789abcdef0123456789abcdef'
    local function redirected(arguments, redirection)
      return withPaths('shared', 'sh', '-c', ('exec luajit examples/dtlscat.lua %s %s %s'):format(psk, arguments, redirection))
    end
    local listener = redirected('-q -1 -l 127.0.0.1 0', ("</dev/null >'%s'"):format(target))
    local port = listener:expect 'listening on 127%.0%.0%.1 port (%d+)\n'
    local child = redirected('127.0.0.1 ' .. port, ("<'%s'"):format(source))
    assertEnds(child)
    assertEnds(listener)
    local file = assert(io.open(target, 'rb'))
    local received = file:read '*a'
    file:close()
    assert.truthy(content == received, ('%d of %d bytes'):format(#received, #content))
  end))

  -- A listener whose standard input is empty: at once, or as /dev/null is.
  local inputs = {
    ['that is empty'] = function(...)
      local listener = run['luajit, shared']('dtlscat.lua', ...)
      listener:finish()
      return listener
    end,
    ['from /dev/null'] = function(...)
      return withPaths('shared', 'sh', '-c', 'exec luajit examples/dtlscat.lua "$@" </dev/null', 'sh', ...)
    end,
  }

  for name, start in pairs(inputs) do
    it('dtlscat -l with standard input ' .. name .. ' hears a peer until that closes', test(function()
      local listener = start('-l', '127.0.0.1', '0')
      local port = listener:expect 'listening on 127%.0%.0%.1 port (%d+)\n'
      local client = connect('luajit, shared', port, '--insecure')
      client:expect 'connected'
      listener:expect 'connected'
      for i = 1, 3 do
        client:write(i .. '\n')
        listener:expect(i .. '\n')
      end
      client:finish()
      assertEnds(client)
      assertEnds(listener)
    end))

    it('dtlscat -l -q 0 with standard input ' .. name .. ' closes at once', test(function()
      local listener = start('-q', '0', '-l', '127.0.0.1', '0')
      local port = listener:expect 'listening on 127%.0%.0%.1 port (%d+)\n'
      local client = connect('luajit, shared', port, '--insecure')
      assertEnds(listener)
      assertEnds(client)
    end))
  end

  for _, runner in ipairs { 'luajit, shared', 'luvit, shared' } do
    for _, signal in ipairs { 'sigint', 'sigterm' } do
      for _, listens in ipairs { true, false } do
        local who = listens and 'the listener' or 'the client'
        it(('dtlscat under %s: %s ends %s, and the other side by its close_notify'):format(runner, signal, who), test(function()
          local listener, port = listen(runner)
          local client = connect(runner, port, '--insecure')
          talk(client, listener)
          local ended = listens and listener or client
          ended.handle:kill(signal)
          assertEnds(client)
          assertEnds(listener)
        end))
      end
    end

    it('dtlscat -v under ' .. runner .. ' shows the handshake and what was counted, on both sides', test(function()
      local listener, port = listen(runner, '-v', '--alpn', 'coap')
      local client = connect(runner, port, '--insecure', '-v', '--alpn', 'h3,coap', '--mtu', '700', '--servername', 'device.example')
      talk(client, listener)
      client:finish()
      assertEnds(client)
      assertEnds(listener)
      assert.truthy(listener:printed '127%.0%.0%.1 port %d+ has a good cookie, its handshake begins\n')
      assert.truthy(listener:printed 'certificate: none\n')
      assert.truthy(client:printed 'looking for 127%.0%.0%.1 port %d+\n')
      assert.truthy(client:printed 'certificate: localhost, for DNS:localhost, valid from [^\n]*, fingerprint %x%x:[%x:]+\n')
      assert.truthy(client:printed 'MTU: messages of up to 6%d%d bytes\n')
      for _, each in ipairs { client, listener } do
        for _, pattern in ipairs {
          'handshake: %d+ ms, from 127%.0%.0%.1 port %d+ to 127%.0%.0%.1 port %d+\n', 'DTLSv1%.2, cipher TLS_[%u%d_]+, %d+ bits\n',
          'name asked for: device%.example\n', 'application protocol: coap\n', 'MTU: messages of up to %d+ bytes\n',
          'datagrams: %d+ sent, %d+ received, dropped: none; flights repeated: %d+\n.*datagrams: %d+ sent',
        } do
          assert.truthy(each:printed(pattern), pattern .. '\n' .. each.output.stderr)
        end
      end
    end))

    it('dtlscat -w under ' .. runner .. ' gives up: no peer, no answer, a silent peer', test(function()
      local alone = run[runner]('dtlscat.lua', '-w', '0.2', '-l', '127.0.0.1', '0')
      assertEnds(alone, 3)
      assert.truthy(alone:printed 'nobody connected within 0%.2 seconds\n')
      local silent = uv.new_udp()
      assert(silent:bind('127.0.0.1', 0))
      local client = connect(runner, silent:getsockname().port, '-w', '0.2', '-v', '--insecure')
      assertEnds(client, 3)
      assert.truthy(client:printed 'did not complete[^\n]*\n.*datagrams: %d+ sent, 0 received')
      silent:close()
      local listener, port = listen(runner)
      client = connect(runner, port, '-w', '0.5', '--insecure')
      assertEnds(client, 3)
      assertEnds(listener)
      assert.truthy(client:printed 'connected[^\n]*\n.*nothing was sent or received for 0%.5 seconds\n')
    end))
  end

  it('dtlscat --keylog writes the keys of the session to a file', test(function()
    local path = tree .. '/keys.log'
    local listener, port = listen 'luajit, shared'
    local client = connect('luajit, shared', port, '--insecure', '--keylog', path)
    talk(client, listener)
    client:finish()
    assertEnds(client)
    assert.truthy(contents(path):find '^CLIENT_RANDOM %x+ %x+\n$')
  end))

  it('dtlscat --alpn without a common protocol fails on both sides', test(function()
    local listener, port = listen('luajit, shared', '--alpn', 'coap')
    local client = connect('luajit, shared', port, '--insecure', '--alpn', 'h3')
    assertEnds(client, 1)
    assert.truthy(listener:expect 'did not get in: ([^\n]+)\n')
  end))

  it('dtlscat says nothing of authority where nobody asked, and what is missing where somebody did', test(function()
    local client = identity 'client'
    local listener, port = listen('luajit, shared', '--fingerprint', client.fingerprint, '--insecure')
    local child = connect('luajit, shared', port, '--insecure')
    talk(child, listener)
    assert.truthy(listener:printed 'not authorized: NO_PEER_CERTIFICATE\n', listener.output.stderr)
  end))

  for name, case in pairs {
    ['no arguments'] = { 2, 'expected host port' },
    ['an unknown option'] = { 2, 'unknown option %-%-secure', 'localhost', '4433', '--secure' },
    ['a value that is missing'] = { 2, '%-%-ca: expected a value', 'localhost', '4433', '--ca' },
    ['a port that is none'] = { 2, '70000 is not a port', 'localhost', '70000' },
    ['a key that is not hexadecimal'] = { 2, '%-%-psk%-key: expected pairs of hexadecimal digits', '--psk-key', 'xyz', 'localhost', '1' },
    ['a fingerprint of another length'] = { 2, '%-%-fingerprint: expected 64 hexadecimal digits', '--fingerprint', 'AA', 'localhost', '1' },
    ['a key without its identity'] = { 2, '%-%-psk%-identity and %-%-psk%-key come together', '--psk-key', '00', 'localhost', '1' },
    ['a wait that is none'] = { 2, '%-w: expected more than 0 seconds', '-w', '0', 'localhost', '1' },
    ['an MTU that is none'] = { 2, '%-%-mtu: expected a number of bytes', '--mtu', 'x', 'localhost', '1' },
    ['an MTU that cannot be'] = { 1, 'mtu: expected a whole number from 228', '--mtu', '20', 'localhost', '1' },
    ['a file that is not there'] = { 2, '/nowhere/ca%.pem: No such file', '--ca', '/nowhere/ca.pem', 'localhost', '1' },
    ['a host that is no address to listen on'] = { 1, 'cannot bind localhost port 0: this is not an IP address', '-l', 'localhost', '0' },
    ['a host that is nearly an address'] = { 1, "host '127%.0%.0%.256': an IPv4 address", '--psk-identity', 'me', '--psk-key', '00',
      '127.0.0.256', '1' },
    ['an address that is not ours'] = { 1, 'cannot bind 192%.0%.2%.1 port 4433: ', '-l', '192.0.2.1', '4433' },
  } do
    it('dtlscat explains ' .. name, test(function()
      for _, runner in ipairs { 'luajit, shared', 'luvit, shared' } do
        local child = run[runner]('dtlscat.lua', unpack(case, 3))
        assertEnds(child, case[1])
        assert.truthy(child.output.stderr:find('dtlscat: [^\n]*' .. case[2]), child.output.stderr)
        assert.falsy(child.output.stderr:find 'traceback')
      end
    end))
  end

  it('dtlscat --help tells the options on standard output', test(function()
    for _, runner in ipairs { 'luajit, shared', 'luvit, shared' } do
      local child = run[runner]('dtlscat.lua', '--help')
      assertEnds(child)
      assert.equal('', child.output.stderr)
      assert.truthy(child:printed '^usage: .*%-%-fingerprint')
    end
  end))
end)
