-- The key log: as events, in a file, at the place that SSLKEYLOGFILE names; and never by default.

local uv = require 'luv'
local dtls = require 'dtls'
local child = require 'spec.support.child'
local contents = require 'spec.support.contents'
local loop = require 'spec.support.loop'
local pair = require 'spec.support.pair'
local shell = require 'spec.support.shell'

local LINE = '^CLIENT_RANDOM (%x+) (%x+)$'

-- The lines of a file, each of which must be a line of a key log.
local function lines(path)
  local list = {}
  for line in contents(path):gmatch '[^\n]*\n' do
    list[#list + 1] = line:sub(1, -2)
    assert.matches(LINE, list[#list])
  end
  assert.equal(#contents(path), #table.concat(list, '\n') + (#list > 0 and 1 or 0))
  return list
end

-- A file that its owner alone can read and write.
local function private(path, text)
  local file = assert(uv.fs_open(path, 'w', 384)) -- 0600
  assert(uv.fs_write(file, text, 0))
  assert(uv.fs_close(file))
end

describe('the key log', function()
  local directory, path

  before_each(function()
    directory = assert(uv.fs_mkdtemp((os.getenv 'TMPDIR' or '/tmp') .. '/dtls-spec-XXXXXX'))
    path = directory .. '/keys'
  end)

  after_each(function()
    os.remove(path)
    assert(uv.fs_rmdir(directory))
  end)

  pair.eachStrategy(function(demux)
    it('as events has the same line on both sides, and on the server', loop.run(function()
      local server = pair.listening { keylog = true, demux = demux }
      local atServer = pair.record(server, 'keylog')
      local accepts
      server:on('accept', function(conn) accepts = pair.record(conn, 'keylog', 'connection') end)
      local conn = pair.client(server, { keylog = true })
      local own = pair.record(conn, 'keylog', 'connection')
      own.wait 'connection'
      accepts.wait 'connection'
      assert.equal('keylog connection', own.names())
      assert.equal('keylog connection', accepts.names())
      assert.equal('keylog', atServer.names())
      local random, secret = own[1][2]:match(LINE)
      assert.equal(64, #random)
      assert.equal(96, #secret)
      assert.equal(own[1][2], accepts[1][2])
      assert.equal(own[1][2], atServer[1][2])
      assert.equal('userdata', type(atServer[1][3]._association))
      assert.equal(conn:localAddress().port, atServer[1][3]:remoteAddress().port)
      pair.close(conn, server)
    end))
  end)

  pair.eachStrategy(function(demux)
    it('lets its listener run the loop: message still comes after connection', loop.nesting(loop.run(function()
      local server = pair.listening { keylog = true, demux = demux }
      local heard
      server:on('accept', function(conn)
        heard = pair.record(conn, 'connection', 'message')
        conn:once('keylog', function()
          loop.again(function()
            uv.run 'once'
            return #heard > 0
          end, 'connection')
        end)
      end)
      local conn = pair.client(server)
      conn:on('connection', function() conn:send 'hello' end)
      loop.till(function() return heard and #heard > 1 end, 'the message')
      assert.equal('connection message', heard.names())
      pair.close(conn, server)
    end)))
  end)

  it('has a line for each connection, and one for a resumed session: its random is new, its secret is not', loop.run(function()
    local server = pair.listening { keylog = true }
    local heard = pair.record(server, 'keylog')
    local first = pair.open(server)
    local blob = first:getSession()
    local again = pair.open(server, nil, { session = blob })
    assert.is_true(again:isSessionReused())
    local other = pair.open(server)
    assert.equal(3, #heard)
    local randoms, secrets = {}, {}
    for i, each in ipairs(heard) do randoms[i], secrets[i] = each[2]:match(LINE) end
    assert.not_equal(randoms[1], randoms[2])
    assert.not_equal(randoms[2], randoms[3])
    assert.equal(secrets[1], secrets[2])
    assert.not_equal(secrets[2], secrets[3])
    pair.close(first, again, other, server)
  end))

  it('is written with a pre-shared key, too', loop.run(function()
    local server = pair.listening { keylog = true, psk = { alice = 'her key' } }
    local heard = pair.record(server, 'keylog')
    local conn = pair.client(server, { keylog = true, psk = { identity = 'alice', key = 'her key' } })
    local own = pair.record(conn, 'keylog', 'connection')
    own.wait 'connection'
    assert.equal(own[1][2], heard.wait 'keylog'[2])
    assert.matches(LINE, own[1][2])
    pair.close(conn, server)
  end))

  it('is neither written nor emitted by default', loop.run(function()
    local server = pair.listening()
    local heard = pair.record(server, 'keylog')
    server:on('accept', function(conn) conn:on('keylog', function() heard[#heard + 1] = true end) end)
    local conn = pair.client(server)
    local own = pair.record(conn, 'keylog', 'connection')
    own.wait 'connection'
    loop.till(function() return server:stats().connections == 1 end)
    assert.equal('connection', own.names())
    assert.equal(0, #heard)
    assert.is_nil(conn._association:keylog())
    pair.close(conn, server)
    server = pair.listening { keylog = false }
    conn = pair.open(server, nil, { keylog = false })
    pair.close(conn, server)
  end))

  it('is emitted by the end that has the option, and not by its peer', loop.run(function()
    local server = pair.listening()
    local heard = pair.record(server, 'keylog')
    local conn = pair.client(server, { keylog = true })
    local own = pair.record(conn, 'keylog', 'connection')
    own.wait 'connection'
    assert.equal('keylog connection', own.names())
    assert.equal(0, #heard)
    pair.close(conn, server)
  end))

  for who, listen in pairs {
    ['the client'] = function(_, conn, act) conn:on('keylog', function() act(conn) end) end,
    ['the server\'s connection'] = function(server, _, act)
      server:on('accept', function(accepted) accepted:on('keylog', function() act(accepted) end) end)
    end,
    ['the server'] = function(server, _, act) server:on('keylog', function(_, accepted) act(accepted) end) end,
  } do
    for _, way in ipairs { 'close', 'destroy' } do
      it(('lets a listener at %s %s the connection'):format(who, way), loop.run(function()
        local server = pair.listening { keylog = true, retransmitTimeout = 50 }
        local conn = pair.client(server, { keylog = true, retransmitTimeout = 50 })
        local heard
        listen(server, conn, function(each)
          if heard then return end
          heard = pair.record(each, 'connection', 'error', 'close')
          each[way](each)
        end)
        loop.till(function() return heard end, 'keylog')
        heard.wait 'close'
        assert.equal('close', heard.names())
        pair.close(conn, server)
      end))
    end
  end

  it('in a file has mode 600, and the lines of the events', loop.run(function()
    local server = pair.listening { keylog = path }
    local mode = assert(uv.fs_stat(path)).mode % 512
    assert.equal(384, mode) -- 0600
    local conn = pair.client(server, { keylog = true })
    local own = pair.record(conn, 'keylog', 'connection')
    own.wait 'connection'
    loop.till(function() return server:stats().connections == 1 end)
    assert.same({ own[1][2] }, lines(path))
    pair.close(conn, server)
  end))

  it('in a file emits no event', loop.run(function()
    local server = pair.listening { keylog = path }
    local heard = pair.record(server, 'keylog')
    local conn = pair.client(server, { keylog = path })
    local own = pair.record(conn, 'keylog', 'connection')
    own.wait 'connection'
    loop.till(function() return server:stats().connections == 1 end)
    assert.equal('connection', own.names())
    assert.equal(0, #heard)
    assert.is_nil(conn._association:keylog())
    pair.close(conn, server)
  end))

  it('is one file to which several contexts append', loop.run(function()
    private(path, ('CLIENT_RANDOM %064d %096d\n'):format(0, 0))
    local one, other = pair.listening { keylog = path }, pair.listening { keylog = path }
    local conns = {}
    for i = 1, 6 do conns[i] = pair.open(i % 2 == 0 and one or other, nil, { keylog = path }) end
    local count, list = {}, lines(path)
    for _, line in ipairs(list) do count[line] = (count[line] or 0) + 1 end
    assert.equal(13, #list)
    assert.equal(1, count[('CLIENT_RANDOM %064d %096d'):format(0, 0)])
    for line, times in pairs(count) do
      if line ~= list[1] then assert.equal(2, times) end
    end
    pair.close(conns[1], conns[2], conns[3], conns[4], conns[5], conns[6], one, other)
  end))

  it('that cannot be written is refused with an error that names the file', loop.run(function()
    local nowhere = directory .. '/not/there'
    for _, call in ipairs {
      function() return dtls.createServer { cert = pair.identity.cert, key = pair.identity.key, keylog = nowhere } end,
      function() return dtls.createContext('client', { fingerprint = pair.identity.fingerprint, keylog = nowhere }) end,
      function() return dtls.connect { host = '127.0.0.1', port = 1, fingerprint = pair.identity.fingerprint, keylog = nowhere } end,
    } do
      local made, err = call()
      assert.is_nil(made)
      assert.equal('ERR_DTLS_CONFIG', err.code)
      assert.truthy(err.message:find(nowhere, 1, true), err.message)
      assert.matches('[Nn]o such file', err.message)
    end
  end))

  -- Another user who may open the file can read or exchange the keys, and a link may lead to a file that another user
  -- chose.
  describe('is refused with an error that names the file, and writes nothing, at', function()
    local target

    before_each(function()
      target = directory .. '/target'
      private(target, 'before\n')
    end)

    after_each(function() os.remove(target) end)

    local function refuses(pattern)
      for _, call in ipairs {
        function() return dtls.createServer { cert = pair.identity.cert, key = pair.identity.key, keylog = path } end,
        function() return dtls.createContext('client', { fingerprint = pair.identity.fingerprint, keylog = path }) end,
        function() return dtls.connect { host = '127.0.0.1', port = 1, fingerprint = pair.identity.fingerprint, keylog = path } end,
      } do
        local made, err = call()
        assert.is_nil(made)
        assert.equal('ERR_DTLS_CONFIG', err.code)
        assert.truthy(err.message:find(('keylog: %s '):format(path), 1, true), err.message)
        assert.matches(pattern, err.message)
      end
      assert.equal('before\n', contents(target))
    end

    it('a symbolic link to a file', loop.run(function()
      assert(uv.fs_symlink(target, path))
      refuses 'symbolic link'
    end))

    it('a symbolic link to a missing file, which is not created', loop.run(function()
      local elsewhere = directory .. '/elsewhere'
      assert(uv.fs_symlink(elsewhere, path))
      refuses 'symbolic link'
      assert.is_nil((uv.fs_lstat(elsewhere)))
    end))

    it('a file with a second name (hard link)', loop.run(function()
      assert(uv.fs_link(target, path))
      refuses 'hard link'
    end))

    for mode, who in pairs {
      ['640'] = 'its group may read', ['620'] = 'its group may write', ['604'] = 'anybody may read', ['602'] = 'anybody may write',
    } do
      it('a file that ' .. who, loop.run(function()
        private(path, '')
        assert(uv.fs_chmod(path, tonumber(mode, 8)))
        refuses 'chmod 600'
        assert.equal('', contents(path))
      end))
    end

    it('a FIFO that others may read', loop.run(function()
      assert.equal('', shell('mkfifo -m 644 ' .. path))
      local reader = assert(uv.fs_open(path, uv.constants.O_RDONLY + uv.constants.O_NONBLOCK, 0))
      refuses 'chmod 600'
      uv.fs_close(reader)
    end))

    if uv.getuid() == 0 then
      it('a file that another user owns', loop.run(function()
        private(path, '')
        assert(uv.fs_chown(path, 1, 1))
        refuses 'another user'
        assert.equal('', contents(path))
      end))
    end
  end)

  it('is appended to a file that its owner alone may open, whatever the owner\'s permissions are', loop.run(function()
    private(path, '')
    assert(uv.fs_chmod(path, tonumber('711', 8)))
    local server = pair.listening { keylog = path }
    local conn = pair.open(server)
    assert.equal(1, #lines(path))
    pair.close(conn, server)
  end))

  -- open(2) of a FIFO that has no reader would block for ever.
  it('that is a FIFO without a reader is refused at once', function()
    assert.equal('', shell('mkfifo -m 600 ' .. path))
    local text, errors, status = child.run(([[
      local dtls = require 'dtls'
      local own = assert(dtls.selfSigned())
      for _, call in ipairs {
        function(path) return dtls.createServer { cert = own.cert, key = own.key, keylog = path } end,
        function(path) return dtls.createContext('client', { fingerprint = own.fingerprint, keylog = path }) end,
        function(path) return dtls.connect { host = '127.0.0.1', port = 1, fingerprint = own.fingerprint, keylog = path } end,
      } do
        local made, err = call(%q)
        print(made, err.code, err.message)
      end
    ]]):format(path))
    assert.same({ '', 0 }, { errors, status })
    local line = ('nil\tERR_DTLS_CONFIG\tkeylog: %s cannot be used: No such device or address\n'):format(path)
    assert.equal(line:rep(3), text)
  end)

  it('that is a FIFO sends the process no SIGPIPE when its reader closes', function()
    assert.equal('', shell('mkfifo -m 600 ' .. path))
    local text, errors, status = child.run(([[
      local uv, dtls = require 'luv', require 'dtls'
      local own = assert(dtls.selfSigned())
      local reader = assert(uv.fs_open(%q, uv.constants.O_RDONLY + uv.constants.O_NONBLOCK, 0))
      local server = assert(dtls.createServer { cert = own.cert, key = own.key, keylog = %q })
      assert(server:listen(0, '127.0.0.1'))
      local function visit(done)
        local conn = assert(dtls.connect { host = '127.0.0.1', port = server:address().port, fingerprint = own.fingerprint })
        server:once('connection', function() conn:close(done) end)
      end
      visit(function()
        io.write(uv.fs_read(reader, 1000, -1))
        uv.fs_close(reader)
        visit(function()
          io.write 'well'
          server:destroy()
        end)
      end)
      uv.run()
    ]]):format(path, path))
    assert.same({ '', 0 }, { errors, status })
    assert.matches('^CLIENT_RANDOM %x+ %x+\nwell$', text)
  end)

  it('raises unless the option is a boolean or a string', loop.run(function()
    for _, wrong in ipairs { 5, {}, print } do
      assert.error_matches(function() dtls.createContext('client', { keylog = wrong }) end, "option 'keylog'")
    end
  end))

  it('closes its file when the context is collected', function()
    local function open()
      local count = 0
      local scan = assert(uv.fs_scandir '/proc/self/fd')
      for name in function() return uv.fs_scandir_next(scan) end do
        if uv.fs_readlink('/proc/self/fd/' .. name) == path then count = count + 1 end
      end
      return count
    end
    local function make()
      local made = assert(dtls.createContext('client', { fingerprint = pair.identity.fingerprint, keylog = path }))
      assert.equal(1, open())
      return made.role
    end
    assert.equal('client', make())
    collectgarbage()
    collectgarbage()
    assert.equal(0, open())
  end)

  -- One connection in a process of its own, whose environment has SSLKEYLOGFILE or not: what it wrote to stdout,
  -- stderr.
  local function connect(option, variable, more)
    local text, errors, status = child.run(([[
      local uv = require 'luv'
      local dtls = require 'dtls'
      local own = assert(dtls.selfSigned())
      local server = assert(dtls.createServer { cert = own.cert, key = own.key, keylog = %s })
      local conn
      server:on('keylog', function() io.write 'event ' end)
      server:on('connection', function(accepted)
        io.write 'connected'
        accepted:destroy()
        conn:destroy()
        server:destroy()
      end)
      assert(server:listen(0, '127.0.0.1'))
      conn = assert(dtls.connect { host = '127.0.0.1', port = server:address().port, fingerprint = own.fingerprint, keylog = %s })
      conn:on('keylog', function() io.write 'event ' end)
      %s
      uv.run()
    ]]):format(option, option, more or ''), nil, { SSLKEYLOGFILE = variable })
    assert.equal(0, status)
    return text, errors
  end

  for who, listen in pairs {
    ['the client'] = "conn:on('keylog', function() error 'oops' end)",
    ['the server\'s connection'] = "server:on('accept', function(accepted) accepted:on('keylog', function() error 'oops' end) end)",
    ['the server'] = "server:on('keylog', function() error 'oops' end)",
  } do
    it('goes on when a keylog listener at ' .. who .. ' throws', function()
      local text, errors = connect('true', nil, listen)
      assert.equal('event event connected', text)
      local _, times = errors:gsub('oops', '')
      assert.equal(1, times, errors)
    end)
  end

  describe('(SSLKEYLOGFILE)', function()
    it('is written to the file that SSLKEYLOGFILE names with keylog = \'env\'', function()
      assert.same({ 'connected', '' }, { connect("'env'", path) })
      local list = lines(path)
      assert.equal(2, #list)
      assert.equal(list[1], list[2])
      assert.equal(384, assert(uv.fs_stat(path)).mode % 512)
    end)

    it('is not written with keylog = \'env\' when SSLKEYLOGFILE is not set', function()
      assert.same({ 'connected', '' }, { connect "'env'" })
    end)

    it('is not written there with any other value of keylog, whatever SSLKEYLOGFILE says', function()
      for option, text in pairs { ['nil'] = 'connected', ['false'] = 'connected', ['true'] = 'event event connected' } do
        assert.same({ text, '' }, { connect(option, path) })
        assert.is_nil((uv.fs_stat(path)))
      end
    end)
  end)
end)
