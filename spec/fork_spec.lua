-- fork(): what parent and child may do with the associations that existed before.

local child = require 'spec.support.child'
local pair = require 'spec.support.pair'

-- What every script begins with: a server and a client with an open association, then body(), then the loop.
local prelude = [[
  local ffi, uv, dtls = require 'ffi', require 'luv', require 'dtls'
  ffi.cdef 'int fork(void); void _exit(int); int waitpid(int, int *, int); int uv_loop_fork(void *);'
  local own = assert(dtls.selfSigned())
  local server = assert(dtls.createServer { cert = own.cert, key = own.key, demux = DEMUX })
  assert(server:listen(0, '127.0.0.1'))
  local function dial() return assert(dtls.connect { host = '127.0.0.1', port = server:address().port, fingerprint = own.fingerprint }) end

  -- luv does not offer uv_loop_fork: a uv_handle_t begins with its user's data pointer and its loop.
  local function loop_fork()
    local timer = uv.new_timer()
    assert(ffi.load 'libuv.so.1'.uv_loop_fork(ffi.cast('void ***', timer)[0][1]) == 0)
    timer:close()
  end
  -- Runs body in a child process; the parent waits, with its loop at rest, and gives the child's status.
  local function in_child(body)
    io.stdout:flush()
    local pid = ffi.C.fork()
    if pid == 0 then
      loop_fork()
      local ok, err = pcall(body)
      if not ok then print('in the child: ' .. tostring(err)) end
      io.stdout:flush()
      ffi.C._exit(ok and 0 or 1)
    end
    local result = ffi.new 'int[1]'
    ffi.C.waitpid(pid, result, 0)
    return result[0] / 256
  end
  local patience = tonumber(os.getenv 'SPEC_PATIENCE' or 1)
  local function till(condition)
    local late, watch = false, uv.new_timer()
    watch:start(30000 * patience, 0, function() late = true end)
    while not condition() do
      assert(not late, 'a deadline has passed')
      uv.run 'once'
    end
    watch:close()
  end
  local function refused(ok, err) assert(ok == nil and err.code == 'ERR_DTLS_FORKED', 'not refused: ' .. tostring(err)) end
  local function open()
    local accepted, opened
    server:once('connection', function(conn) accepted = conn end)
    local conn = dial()
    conn:once('connection', function() opened = true end)
    till(function() return accepted and opened end)
    return conn, accepted
  end
  local function passes(from, to, text)
    local heard
    to:once('message', function(data) heard = data end)
    assert(from:send(text))
    till(function() return heard end)
    return heard == text
  end
]]

-- Has the rest of the script run in a child that may end before its own child does, and waits for both.
local daemonizes = [[
  local ffi = require 'ffi'
  ffi.cdef 'int fork(void); void _exit(int); int pipe(int *); long read(int, void *, unsigned long); int close(int);'
  local ends, byte = ffi.new 'int[2]', ffi.new 'char[1]'
  assert(ffi.C.pipe(ends) == 0)
  if ffi.C.fork() ~= 0 then
    ffi.C.close(ends[1])
    ffi.C._exit(tonumber(ffi.C.read(ends[0], byte, 1))) -- nothing, at the end of the last that can write
  end
  local ENDS = true
]]

local function run(demux, role, body, before)
  local script = ("local DEMUX, ROLE = '%s', '%s'\n"):format(demux, role) .. (before or '') .. prelude .. body
  local text, errors, status = child.run(script, nil, child.leaky) -- which ends with the parent's associations open
  assert.same({ '', 0 }, { errors, status }, text)
  return text
end

describe('after fork()', function()
  pair.eachStrategy(function(demux)
    for _, role in ipairs { 'server', 'client' } do
      it(('an association of the parent\'s %s sends nothing in the child and goes on in the parent'):format(role), function()
        assert.equal('child 0\nfrom the child 0\nparent true true\n', run(demux, role, [[
          local conn, accepted = open()
          local ours, peer = conn, accepted
          if ROLE == 'server' then ours, peer = accepted, conn end
          local before = peer:stats().datagramsIn
          print('child ' .. in_child(function()
            local association = ours._association
            refused(association:handshake())
            refused(association:read())
            refused(association:write 'in the child')
            refused(association:handle_timeout())
            refused(association:export_keying_material(16, 'EXPORTER-spec'))
            assert(association:shutdown())
            refused(ours:send 'in the child')
            ours:close()
            peer:close()
            server:destroy()
            uv.run()
          end))
          uv.run 'nowait'
          print('from the child ' .. peer:stats().datagramsIn - before)
          print(('parent %s %s'):format(passes(ours, peer, 'to'), passes(peer, ours, 'fro')))
          os.exit(0)
        ]]))
      end)
    end

    it('what the parent has sent in the same turn leaves once, and not from the child', function()
      assert.equal('child 0\nreceived 6\n', run(demux, 'server', [[
        local conn, accepted = open()
        local count = 0
        conn:on('message', function() count = count + 1 end)
        for i = 1, 5 do assert(accepted:send('number ' .. i)) end
        local before = conn:stats().datagramsIn
        print('child ' .. in_child(function()
          uv.run 'nowait'
          accepted:stats()
          server:destroy()
          uv.run()
        end))
        accepted:send 'last'
        till(function() return count >= 6 end)
        uv.run 'nowait'
        print('received ' .. conn:stats().datagramsIn - before)
        os.exit(0)
      ]]))
    end)

    if demux == 'connected' then
      it('the parent\'s associations end in a child that would read them, and what they were sent is the parent\'s', function()
        assert.equal('child 0\nparent for the parent\n', run(demux, 'server', [[
          local conn, accepted = open()
          local _, other = open()
          local heard
          accepted:on('message', function(data) heard = data end)
          assert(conn:send 'for the parent')
          print('child ' .. in_child(function()
            local codes = {}
            for i, each in ipairs { accepted, other } do each:on('error', function(err) codes[i] = err.code end) end
            till(function() return codes[1] and codes[2] end)
            assert(codes[1] == 'ERR_DTLS_FORKED' and codes[2] == 'ERR_DTLS_FORKED', codes[1] .. ' ' .. codes[2])
            assert(uv.run 'nowait' and not server._endpoint:peers_fd())
          end))
          till(function() return heard end)
          print('parent ' .. heard)
          os.exit(0)
        ]]))
      end)

      it('all of the parent\'s associations end in it at once, however many there are', function()
        assert.equal('child 0\n', run(demux, 'server', [[
          local all = {}
          for i = 1, 140 do all[i] = { open() } end -- more than a turn takes datagrams
          assert(all[1][1]:send 'for the parent')
          print('child ' .. in_child(function()
            local ended = 0
            for _, each in ipairs(all) do each[2]:on('error', function() ended = ended + 1 end) end
            till(function() return ended > 0 end)
            assert(ended == #all, ended)
            assert(uv.run 'nowait' and not server._endpoint:peers_fd())
          end))
          os.exit(0)
        ]]))
      end)
    end

    it('a flight of the parent is not repeated in the child, whose handshake fails with ERR_DTLS_FORKED', function()
      assert.equal('child 0\nhellos 1\n', run(demux, 'client', [[
        local silent, hellos = uv.new_udp(), 0
        assert(silent:bind('127.0.0.1', 0))
        assert(silent:recv_start(function(_, data) hellos = hellos + (data and 1 or 0) end))
        local conn = assert(dtls.connect {
          host = '127.0.0.1', port = silent:getsockname().port, fingerprint = own.fingerprint, retransmitTimeout = 50 * patience,
        })
        conn:on('error', function() end)
        till(function() return hellos == 1 end)
        print('child ' .. in_child(function()
          silent:close()
          local heard
          conn:on('error', function(err) heard = err end)
          till(function() return heard end)
          assert(heard.code == 'ERR_DTLS_FORKED', tostring(heard))
        end))
        conn:destroy()
        uv.run 'nowait'
        print('hellos ' .. hellos)
        os.exit(0)
      ]]))
    end)

    for _, parent in ipairs { 'waits for it and goes on', 'ends' } do
      it(('a child that takes over the listening server accepts new associations while the parent %s'):format(parent), function()
        local went_on = parent ~= 'ends'
        local text = run(demux, 'server', [[
          local conn, accepted = open()
          local function serve()
            conn:destroy()
            accepted:destroy()
            local mine, theirs = open()
            print(('child %s %s'):format(passes(mine, theirs, 'to'), passes(theirs, mine, 'fro')))
            local closed = 0
            for _, each in ipairs { mine, theirs, server } do each:close(function() closed = closed + 1 end) end
            till(function() return closed == 3 end)
          end
          if ENDS then
            if ffi.C.fork() ~= 0 then ffi.C._exit(0) end
            loop_fork()
            serve()
          else
            print('status ' .. in_child(serve))
            print(('parent %s %s'):format(passes(conn, accepted, 'to'), passes(accepted, conn, 'fro')))
          end
          io.stdout:flush()
          ffi.C._exit(0)
        ]], not went_on and daemonizes or nil)
        assert.equal('child true true\n' .. (went_on and 'status 0\nparent true true\n' or ''), text)
      end)
    end
  end)
end)
