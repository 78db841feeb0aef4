-- The module as a luvit application uses it: a folder in deps/ or libs/, loaded by luvit's own require, in a host that
-- exports its OpenSSL. The module must not only load there but complete handshakes.

local contents = require 'spec.support.contents'
local shell = require 'spec.support.shell'

local build = os.getenv 'DTLS_BUILD' or 'build'

local root = shell('pwd'):match '[^\n]+'
if build:sub(1, 1) ~= '/' then build = root .. '/' .. build end

local script = [[
local uv = require 'uv'
local dtls = require 'dtls'
local identity = assert(dtls.selfSigned())
local ips = { '127.0.0.1', '::1' }

local function echo(demux, ip, callback)
  local server = assert(dtls.createServer({ cert = identity.cert, key = identity.key, demux = demux }, function(conn)
    conn:on('message', function(data) conn:send(data:upper()) end)
  end))
  assert(server:listen(0, ip, function()
    local conn = assert(dtls.connect { host = ip, port = server:address().port, fingerprint = identity.fingerprint })
    conn:on('connection', function() conn:send('hello over ' .. ip) end)
    conn:on('message', function(data)
      print(demux, data, conn:getCipher().name)
      conn:close()
    end)
    conn:on('error', function(err) print('error', err) end)
    conn:on('close', function(failed)
      assert(not failed)
      server:close(callback)
    end)
  end))
end

-- A client whose handle is inside a table, as a luvit dgram socket's is.
local function dgram(callback)
  local socket = { _handle = uv.new_udp() }
  assert(socket._handle:bind('127.0.0.1', 0))
  local server = assert(dtls.createServer { cert = identity.cert, key = identity.key })
  assert(server:listen(socket))
  local port = socket._handle:getsockname().port
  local conn = assert(dtls.connect { host = '127.0.0.1', port = port, fingerprint = identity.fingerprint })
  conn:on('connection', function()
    print('dgram', dtls.fd(socket) == socket._handle:fileno())
    conn:close(function()
      server:close(function()
        print('handed back', not socket._handle:is_closing())
        socket._handle:close()
        callback()
      end)
    end)
  end)
end

print(dtls.OPENSSL.linkage)
echo('connected', ips[1], function()
  echo('shared', ips[1], function()
    echo('connected', ips[2], function()
      echo('shared', ips[2], function()
        dgram(function() print 'done' end)
      end)
    end)
  end)
end)
]]

local coroutines = [[
local coro, dtls = require 'dtls/coro', require 'dtls'
local identity = assert(dtls.selfSigned())

for _, demux in ipairs { 'connected', 'shared' } do
  local server = assert(coro.createServer({
    cert = identity.cert, key = identity.key, demux = demux, host = '127.0.0.1', port = 0,
  }, function(read, write)
    for message in read do
      if message == 'fail' then error 'oops' end
      assert(write { message:upper(), 'and more' })
    end
  end))
  local read, write, conn = assert(coro.connect {
    host = '127.0.0.1', port = server:address().port, fingerprint = identity.fingerprint,
  })
  assert(write 'hello')
  print(demux, read(5000), read(), select(2, read(1)).code)
  assert(write 'fail')
  print(read(), conn.destroyed)
  server:close()
end
print 'done'
]]

local coroutines_say = [[
connected	HELLO	and more	ETIMEDOUT
nil	true
shared	HELLO	and more	ETIMEDOUT
nil	true
done
]]

local expected = [[
%s
connected	HELLO OVER 127.0.0.1	ECDHE-ECDSA-AES128-GCM-SHA256
shared	HELLO OVER 127.0.0.1	ECDHE-ECDSA-AES128-GCM-SHA256
connected	HELLO OVER ::1	ECDHE-ECDSA-AES128-GCM-SHA256
shared	HELLO OVER ::1	ECDHE-ECDSA-AES128-GCM-SHA256
dgram	true
handed back	true
done
]]

describe('an application in a host', function()
  local tree

  before_each(function()
    tree = shell('mktemp -d'):match '[^\n]+'
    shell('mkdir -p ' .. tree .. '/app/deps ' .. tree .. '/app/libs')
    local file = assert(io.open(tree .. '/app/main.lua', 'w'))
    file:write(script)
    file:close()
  end)

  after_each(function() shell('rm -r ' .. tree) end)

  local function run(host, redirection)
    return shell(("cd / && LUA_PATH=';' LUA_CPATH=';' timeout 30 %s/host/%s %s/spec/host/init.lua %s/app/main.lua %s"):format(
      build, host, root, tree, redirection or ''))
  end

  for linkage, folder in pairs { host = '/luvit/dtls', static = '/static/luvit/dtls' } do
    for _, place in ipairs { 'deps', 'libs' } do
      it(('talks with the module in %s/ and the %s OpenSSL'):format(place, linkage), function()
        shell(('cp -r %s%s %s/app/%s/dtls'):format(build, folder, tree, place))
        local output, status = run 'luvi'
        assert.equal(expected:format(linkage), output)
        assert.equal(0, status)
      end)
    end
  end

  for _, host in ipairs { 'luvi-partial', 'luvi-old' } do
    it(('talks in %s with the OpenSSL inside the module'):format(host), function()
      shell(('cp -r %s/static/luvit/dtls %s/app/deps/dtls'):format(build, tree))
      local output, status = run(host)
      assert.equal(expected:format 'static', output)
      assert.equal(0, status)
    end)
  end

  it('talks in coroutines, and is told what a function of a server raises', function()
    shell(('cp -r %s/luvit/dtls %s/app/deps/dtls'):format(build, tree))
    local file = assert(io.open(tree .. '/app/main.lua', 'w'))
    file:write(coroutines)
    file:close()
    local output, status = run('luvi', '2>' .. tree .. '/errors')
    assert.equal(coroutines_say, output)
    assert.equal(0, status)
    assert.equal(2, select(2, contents(tree .. '/errors'):gsub('main.lua:%d+: oops\nstack traceback', '')))
  end)

  it('gets the luv of its host although a file of the application has that name', function()
    shell(('cp -r %s/static/luvit/dtls %s/app/deps/dtls'):format(build, tree))
    shell(('echo "error(\'not the one of the host\')" >%s/app/deps/luv.lua'):format(tree))
    local output, status = run 'luvi-old'
    assert.equal(expected:format 'static', output)
    assert.equal(0, status)
  end)

  it('gets luvit\'s error when the module is missing', function()
    local output, status = run 'luvi'
    assert.equal(255, status)
    assert.truthy(output:find("No such module 'dtls'", 1, true), output)
  end)
end)
