--- What a client trusts when nothing is said: the certificates of this machine, wherever they are, whatever its OpenSSL finds of them.
--- Each run is a process of its own, in which the certificates of this machine cannot be seen: those of the test's tree stand there.

local uv = require 'luv'
local dtls = require 'dtls'
local shell = require 'spec.support.shell'
local contents = require 'spec.support.contents'
local loop = require 'spec.support.loop'
local memory = require 'spec.support.memory'
local pair = require 'spec.support.pair'
local pki = require 'spec.support.pki'

local root = shell('pwd'):match '[^\n]+'
local build = os.getenv 'DTLS_BUILD' or 'build'
if build:sub(1, 1) ~= '/' then build = root .. '/' .. build end

-- A server, and a client that is given no ca. Prints how it ends.
local script = [[
local dtls = require 'dtls'
local uv = require(package.loaded.uv and 'uv' or 'luv')
local directory = os.getenv 'IDENTITY'
local function contents(name)
  local file = assert(io.open(directory .. name))
  local text = file:read '*a'
  file:close()
  return text
end
local server = assert(dtls.createServer { cert = contents '/server.cert', key = contents '/server.key' })
assert(server:listen(0, '127.0.0.1'))
local conn, err = dtls.connect {
  host = '127.0.0.1', port = server:address().port, rejectUnauthorized = os.getenv 'REJECT' ~= 'false',
}
if conn then
  conn:on('connection', function()
    print 'connected'
    conn:close()
  end)
  conn:on('error', function(err) print(err.code, err.reason) end)
  conn:on('close', function() server:close() end)
else
  local context, context_err = dtls.createContext('client', {})
  print(err, context == nil and context_err.message == err.message)
  server:close()
end
if not rawget(_G, 'args') then uv.run() end
]]

-- With characters in it that base64 does not have.
local function broken(pem) return (pem:gsub('\n.', '\n!', 2)) end

local places = {
  '/etc/ssl/certs/ca-certificates.crt', '/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem', '/etc/pki/tls/certs/ca-bundle.crt',
  '/etc/ssl/ca-bundle.pem', '/etc/ssl/cert.pem', '/usr/local/etc/ssl/cert.pem', '/usr/local/share/certs/ca-root-nss.crt',
}

local programs = {
  ['luajit and the system\'s OpenSSL'] = { 'luajit', '/' },
  ['luajit and an OpenSSL of the module\'s own'] = { 'luajit', '/static/' },
  ['a luvi that exports an OpenSSL'] = { 'luvi', '/' },
  ['a luvi whose OpenSSL reads no file'] = { 'luvi-nostdio', '/', blind = true },
  ['a luvi that has luv as uv alone'] = { 'luvi-old', '/static/' },
}

local trusted = assert(dtls.selfSigned { altNames = { '127.0.0.1' } })
local other = assert(dtls.selfSigned { commonName = 'other.example' })

for name, program in pairs(programs) do describe('a client without ca, in ' .. name, function()
  local tree

  before_each(function()
    tree = shell('mktemp -d'):match '[^\n]+'
    shell(('mkdir -p %s/app/deps && ln -s %s%sluvit/dtls %s/app/deps/dtls'):format(tree, build, program[2], tree))
  end)

  after_each(function() shell('rm -r ' .. tree) end)

  local function write(path, text)
    shell(('mkdir -p "$(dirname %s%s)"'):format(tree, path))
    local file = assert(io.open(tree .. path, 'w'))
    file:write(text)
    file:close()
  end

  -- Under the name that libcrypto looks for.
  local function writeHashed(folder, cert)
    write('/hashed', cert)
    local hash = shell(('openssl x509 -noout -hash -in %s/hashed'):format(tree)):match '%x+'
    write(('%s/%s.0'):format(folder, hash), cert)
  end

  local function run(variables)
    write('/server.cert', trusted.cert)
    write('/server.key', trusted.key)
    write('/app/main.lua', script)
    local paths = program[1] ~= 'luajit' and '' or ("LUA_PATH='%s/lua/?.lua;%s/lua/?/init.lua;;' LUA_CPATH='%s%s?.so;;'"):format(
      root, root, build, program[2])
    local command = program[1] == 'luajit' and 'luajit' or ('%s/host/%s %s/spec/host/init.lua'):format(build, program[1], root)
    local environment = ('IDENTITY=%s ELSEWHERE=%s LD_PRELOAD=%s/host/elsewhere.so'):format(tree, tree, build)
    return (shell(('cd / && env -u SSL_CERT_FILE -u SSL_CERT_DIR %s %s %s timeout 30 %s %s/app/main.lua'):format(
      environment, paths, variables or '', command, tree)))
  end

  for _, place in ipairs(places) do
    it('trusts what is in ' .. place, function()
      write(place, other.cert .. trusted.cert)
      assert.equal('connected\n', run())
    end)
  end

  it('trusts what is in the folders of the distributions by its hash', function()
    for _, folder in ipairs { '/etc/ssl/certs', '/etc/pki/tls/certs' } do
      writeHashed(folder, trusted.cert)
      assert.equal('connected\n', run(), folder)
      shell(('rm -r %s/etc'):format(tree))
    end
  end)

  it('does not trust other files of these folders', function()
    writeHashed('/etc/ssl/certs', other.cert)
    for _, file in ipairs { 'localhost.crt', '0123456.0', '012345678.0', '01234567.r0', '01234567.0~', '01234567.' } do
      write('/etc/ssl/certs/' .. file, trusted.cert)
    end
    assert.equal('ERR_DTLS_CERTIFICATE\tDEPTH_ZERO_SELF_SIGNED_CERT\n', run())
  end)

  it('trusts what SSL_CERT_FILE names, and no file of the distribution then', function()
    write('/etc/ssl/certs/ca-certificates.crt', other.cert)
    write('/mine.pem', trusted.cert)
    assert.equal('connected\n', run(('SSL_CERT_FILE=%s/mine.pem'):format(tree)))
    write('/etc/ssl/certs/ca-certificates.crt', trusted.cert)
    write('/mine.pem', other.cert)
    assert.equal('ERR_DTLS_CERTIFICATE\tDEPTH_ZERO_SELF_SIGNED_CERT\n', run(('SSL_CERT_FILE=%s/mine.pem'):format(tree)))
  end)

  it('trusts what is in the folders that SSL_CERT_DIR names', function()
    writeHashed('/mine', trusted.cert)
    assert.equal('connected\n', run(('SSL_CERT_DIR=%s/nothing::%s/mine'):format(tree, tree)))
  end)

  if program.blind then
    it('trusts a file at the place that libcrypto was built with only when others cannot write it', function()
      local place = '/nowhere/ssl/cert.pem' -- spec/host/openssl_nostdio.c
      write(place, trusted.cert)
      shell(('chmod 644 %s%s'):format(tree, place))
      assert.equal('connected\n', run())
      for _, mode in ipairs { '664', '646' } do
        shell(('chmod %s %s%s'):format(mode, tree, place))
        assert.truthy(run():find '^ERR_DTLS_CONFIG: ca: ', mode)
        assert.equal('connected\n', run(('SSL_CERT_FILE=%s%s'):format(tree, place)))
      end
    end)
  end

  it('is told where nothing was found, and by which option to do without', function()
    for variables, missing in pairs {
      [''] = { '/etc/ssl/certs/ca-certificates.crt', '/etc/pki/tls/certs/ca-bundle.crt', '/etc/ssl/certs' },
      ['SSL_CERT_FILE=/nowhere/ca.pem'] = { '/nowhere/ca.pem' },
      ['SSL_CERT_DIR=/nowhere/a:/nowhere/b'] = { '/nowhere/a', '/nowhere/b' },
    } do
      local output = run(variables)
      assert.truthy(output:find('^ERR_DTLS_CONFIG: ca: [^\n]*\ttrue\n$'), output)
      for _, words in ipairs(missing) do assert.truthy(output:find(words, 1, true), output) end
      assert.truthy(output:find('option ca', 1, true), output)
    end
  end)

  it('connects all the same when it rejects nobody', function()
    assert.equal('connected\n', run 'REJECT=false')
  end)

  it('ignores a path that is no file, and a file that is empty, broken or huge', function()
    write('/broken.pem', broken(trusted.cert))
    shell(('mkfifo %s/fifo; : >%s/empty; truncate -s 20G %s/huge'):format(tree, tree, tree))
    local paths = { '/broken.pem', '/empty', '' }
    -- libcrypto itself waits for a FIFO, and reads all of a file.
    if program.blind then paths = { '/broken.pem', '/empty', '', '/fifo', '/huge' } end
    for _, path in ipairs(paths) do
      local output = run(('SSL_CERT_FILE=%s%s'):format(tree, path))
      assert.truthy(output:find('^ERR_DTLS_CONFIG: ca: '), path .. ': ' .. output)
    end
  end)

  it('leaves out what is broken in a bundle', function()
    local cut = '-----BEGIN CERTIFICATE-----\n'
    write('/etc/ssl/certs/ca-certificates.crt', 'a title\n' .. other.key .. broken(other.cert) .. trusted.cert .. cut)
    assert.equal('connected\n', run())
  end)

  it('does not trust for servers what is trusted for something else', function()
    write('/plain.pem', trusted.cert)
    shell(('openssl x509 -in %s/plain.pem -trustout -addreject serverAuth -out %s/plain.trusted'):format(tree, tree))
    write('/etc/ssl/certs/ca-certificates.crt', contents(tree .. '/plain.trusted'))
    assert.equal('ERR_DTLS_CERTIFICATE\tCERT_REJECTED\n', run())
  end)
end) end

describe('the system\'s store', function()
  local tree

  before_each(function() tree = shell('mktemp -d'):match '[^\n]+' end)

  after_each(function()
    uv.os_unsetenv 'SSL_CERT_FILE'
    uv.os_unsetenv 'SSL_CERT_DIR'
    shell('rm -r ' .. tree)
  end)

  local function write(name, text)
    local file = assert(io.open(tree .. '/' .. name, 'w'))
    file:write(text)
    file:close()
  end

  it('is read from folders where no file has it', function()
    uv.os_setenv('SSL_CERT_FILE', tree .. '/nothing')
    uv.os_setenv('SSL_CERT_DIR', tree .. ('/long'):rep(2000) .. ':' .. tree)
    local context, err = dtls.createContext('client', {})
    assert.is_nil(context)
    assert.equal('ERR_DTLS_CONFIG', err.code)
    for i, text in ipairs { broken(trusted.cert), 'no certificate', trusted.cert .. other.cert } do
      write(('0123456%d.%d'):format(i, i), text)
      context, err = dtls.createContext('client', {})
      if i < 3 then assert.equal('ERR_DTLS_CONFIG', err.code) else assert(context, err) end
    end
  end)

  -- How a client without ca ends that meets the certificate `trusted`.
  local function outcome(server, options)
    local conn = assert(dtls.connect { host = '127.0.0.1', port = server:address().port, crl = options and options.crl })
    local heard = pair.record(conn, 'connection', 'error')
    loop.till(function() return heard[1] end, 'an end of the handshake')
    pair.close(conn)
    return heard[1][2] and heard[1][2].reason or 'connection'
  end

  it('is shared by all contexts, which then need no memory for its certificates', function()
    if not memory.known() then return pending 'this malloc does not say what it has given out' end
    local bundle = {}
    for i = 1, 150 do bundle[i] = assert(dtls.selfSigned { commonName = 'authority ' .. i }).cert end
    write('bundle', table.concat(bundle))
    uv.os_setenv('SSL_CERT_FILE', tree .. '/bundle')
    local contexts = { assert(dtls.createContext('client', {})) }
    local before = memory.used()
    for i = 1, 20 do contexts[i + 1] = assert(dtls.createContext('client', {})) end
    local each = (memory.used() - before) / 20
    assert.is_true(#contexts == 21 and each < 30000, each)
  end)

  for way, replaces in pairs { ['in place'] = false, ['for another one of the same size'] = true } do
    it('is read anew when its file was changed ' .. way, loop.run(function()
      local server = pair.listening { cert = trusted.cert, key = trusted.key }
      local function put(text)
        write(replaces and 'new' or 'bundle', text .. (' '):rep(4000 - #text))
        if replaces then assert(os.rename(tree .. '/new', tree .. '/bundle')) end
      end
      uv.os_setenv('SSL_CERT_FILE', tree .. '/bundle')
      for _ = 1, 2 do
        put(other.cert)
        assert.equal('DEPTH_ZERO_SELF_SIGNED_CERT', outcome(server))
        put(trusted.cert)
        assert.equal('connection', outcome(server))
      end
      pair.close(server)
    end))
  end

  it('is read anew when another file is named', loop.run(function()
    local server = pair.listening { cert = trusted.cert, key = trusted.key }
    write('one', other.cert)
    write('two', trusted.cert)
    for file, expected in pairs { one = 'DEPTH_ZERO_SELF_SIGNED_CERT', two = 'connection' } do
      uv.os_setenv('SSL_CERT_FILE', tree .. '/' .. file)
      assert.equal(expected, outcome(server))
    end
    pair.close(server)
  end))

  it('is read anew when a certificate has come to its folder or has gone', loop.run(function()
    local server = pair.listening { cert = trusted.cert, key = trusted.key }
    write('trusted.pem', trusted.cert)
    local name = shell(('openssl x509 -in %s/trusted.pem -noout -hash'):format(tree)):match '%x+'
    uv.os_setenv('SSL_CERT_FILE', tree .. '/nothing')
    uv.os_setenv('SSL_CERT_DIR', tree)
    write('01234567.0', other.cert)
    assert.equal('DEPTH_ZERO_SELF_SIGNED_CERT', outcome(server))
    write(name .. '.0', trusted.cert)
    assert.equal('connection', outcome(server))
    assert(os.remove(tree .. '/' .. name .. '.0'))
    assert.equal('DEPTH_ZERO_SELF_SIGNED_CERT', outcome(server))
    pair.close(server)
  end))

  it('gets no revocation lists of one context that others would see', loop.run(function()
    local files = pki.new()
    local authority = files:certificate('authority', { authority = true })
    local revoked = files:certificate('revoked', { issuer = authority, altNames = { '127.0.0.1' } })
    local list = files:crl('list', authority, { revoked })
    local server = pair.listening { cert = revoked.pem.cert, key = revoked.pem.key }
    files:remove()
    write('bundle', authority.pem.cert)
    uv.os_setenv('SSL_CERT_FILE', tree .. '/bundle')
    assert.equal('connection', outcome(server))
    assert.equal('CERT_REVOKED', outcome(server, { crl = list }))
    assert.equal('connection', outcome(server))
    pair.close(server)
  end))

  it('is not needed by whoever trusts something else', function()
    uv.os_setenv('SSL_CERT_FILE', '/nowhere/file')
    uv.os_setenv('SSL_CERT_DIR', '/nowhere/folder')
    for _, options in ipairs {
      { ca = trusted.cert }, { fingerprint = trusted.fingerprint }, { psk = { identity = 'me', key = ('k'):rep(16) } },
      { rejectUnauthorized = false },
    } do
      assert(dtls.createContext('client', options))
    end
  end)
end)
