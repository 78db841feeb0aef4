local child = require('spec.support.faults').child
local childWith = require('spec.support.faults').childWith
local eachStrategy = require('spec.support.pair').eachStrategy
local needs = require('spec.support.platform').needs

describe('a system call on a socket that fails', function()
  eachStrategy(function(demux)
    it('costs a datagram when it was a send, whichever one of an association', function()
      child(function(strategy)
        local trial = require 'spec.support.trial'
        local errors = {
          'EAGAIN', 'EINTR', 'ENOBUFS', 'EMSGSIZE', 'ECONNREFUSED', 'EHOSTUNREACH', 'ENETUNREACH', 'EPERM', 'ENETDOWN', 'ENODEV',
        }
        trial.run({ demux = strategy }, function(server)
          local most = trial.sweep(server, 'send', errors, function(n, code, outcome, drops)
            local where = ('send %d, %s: %s'):format(n, code, outcome)
            assert(outcome == 'echo', where)
            -- A send of several datagrams that a signal interrupts is tried again.
            local count = drops[trial.reasons[code]] or 0
            assert(count == 1 or code == 'EINTR' and count == 0, where .. ', not counted')
          end)
          assert(most >= 9, most)
        end)
      end, demux)
    end)

    it('costs nothing when it was a receive, whichever one of an association', function()
      child(function(strategy)
        local trial = require 'spec.support.trial'
        local errors = {
          'EAGAIN', 'EINTR', 'ENOBUFS', 'ENOMEM', 'EMSGSIZE', 'ECONNREFUSED', 'EHOSTUNREACH', 'ENETUNREACH', 'EPERM', 'ENETDOWN',
        }
        trial.run({ demux = strategy }, function(server)
          local most = trial.sweep(server, 'receive', errors, function(n, code, outcome, drops)
            local where = ('receive %d, %s: %s'):format(n, code, outcome)
            assert(outcome == 'echo', where)
            -- "Nothing there" is no failure. The first read of a client is for what was there before it; where recvmmsg
            -- is forbidden, recvmsg reads instead.
            if code ~= 'EAGAIN' and code ~= 'EPERM' and n > 1 then assert(drops[trial.reasons[code]] == 1, where .. ', not counted') end
          end)
          assert(most >= 12, most)
        end)
      end, demux)
    end)

    it('from one send on ends an association by its deadline, and the loop does not spin', function()
      child(function(strategy)
        local fault = require 'spec.support.faults'
        local trial = require 'spec.support.trial'
        trial.run({ demux = strategy }, function(server)
          for _, code in ipairs { 'EAGAIN', 'EINTR', 'ENOBUFS', 'EMSGSIZE', 'ECONNREFUSED', 'EHOSTUNREACH', 'EPERM', 'ENETDOWN' } do
            for _, n in ipairs { 1, 4, 5 } do
              fault.set 'receive'
              fault.set('send', n, 1e9, code)
              local outcome = trial.attempt(server)
              trial.idle(('send %d, %s'):format(n, code))
              fault.set 'send'
              assert(outcome == code or outcome == 'ERR_DTLS_HANDSHAKE_TIMEOUT' or outcome == 'ERR_DTLS_PSK_KEY', outcome)
              trial.settle(server)
              trial.unharmed(server)
            end
          end
        end)
      end, demux)
    end)

    it('a hundred times when it was a receive costs no more than those', function()
      child(function(strategy)
        local fault = require 'spec.support.faults'
        local trial = require 'spec.support.trial'
        trial.run({ demux = strategy }, function(server)
          for _, code in ipairs { 'EAGAIN', 'EINTR', 'ENOBUFS', 'ECONNREFUSED', 'EHOSTUNREACH', 'EPERM', 'ENETDOWN' } do
            for n = 1, 17, 4 do
              fault.set 'send'
              fault.set('receive', n, 100, code)
              assert(trial.attempt(server) == 'echo')
              trial.idle(('receive %d, %s'):format(n, code))
              fault.set 'receive'
              trial.settle(server)
              trial.unharmed(server)
            end
          end
        end)
      end, demux)
    end)
  end)
end)

describe('an option of a socket', function()
  eachStrategy(function(demux)
    -- BIO_s_datagram would set and reset a timeout around every read of a handshake.
    it('is set or asked for before a handshake and not during it', function()
      child(function(strategy)
        local fault, loop = require 'spec.support.faults', require 'spec.support.loop'
        local pair, trial = require 'spec.support.pair', require 'spec.support.trial'
        trial.run({ demux = strategy }, function(server)
          local conn = trial.client(server)
          local accepted
          server:once('accept', function()
            accepted = true
            fault.set 'setsockopt'
            fault.set 'getsockopt'
          end)
          loop.event(conn, 'connection')
          pair.roundTrip(conn, 'hello')
          assert(accepted)
          local calls = fault.calls 'setsockopt' + fault.calls 'getsockopt'
          assert(calls == 0, calls)
          pair.close(conn)
          trial.settle(server)
        end)
      end, demux)
    end)
  end)
end)

describe('a server without a descriptor or memory for a peer', function()
  for _, each in ipairs {
    { 'socket', 'EMFILE' }, { 'socket', 'ENFILE' }, { 'socket', 'ENOBUFS' }, { 'bind', 'ENOMEM' },
    { 'connect', 'ENETUNREACH' }, { 'connect', 'EAGAIN' }, { 'setsockopt', 'ENOBUFS' }, { 'getsockopt', 'ENOBUFS' }, { 'watch', 'ENOMEM' },
  } do
    local kind, code = unpack(each)
    it(('says so (%s: %s), leaks nothing, and takes the peer when it can'):format(kind, code), needs('epoll', function()
      child(function(name, err)
        local fault, loop = require 'spec.support.faults', require 'spec.support.loop'
        local pair, trial = require 'spec.support.pair', require 'spec.support.trial'
        local descriptors = require 'spec.support.descriptors'
        trial.run({ demux = 'connected' }, function(server)
          local before = descriptors.count()
          local conn = trial.knocking(server)
          local refused = server:stats().refused
          fault.set 'turn'
          fault.set(name, 1, 1e9, err)
          server:setBusy(false)
          loop.till(function() return #server.errors >= 2 end, 'two repetitions to be turned away')
          fault.set(name)
          trial.idle()
          for _, each_error in ipairs(server.errors) do
            assert(each_error[2].code == err and each_error[3] == nil, tostring(each_error[2]))
          end
          assert(server:stats().refused == refused + #server.errors)
          trial.unharmed(server)
          loop.event(conn, 'connection')
          pair.roundTrip(conn, 'in at last')
          pair.close(conn)
          trial.settle(server)
          loop.till(function() return descriptors.count() == before end, 'the descriptors to be closed')
        end)
      end, kind, code)
    end))
  end
end)

describe('a server that gets no second socket for its port', function()
  for _, code in ipairs { 'EADDRINUSE', 'EACCES' } do
    it(('serves its peers through the socket that it listens on (%s)'):format(code), needs('epoll', function()
      child(function(err)
        local fault = require 'spec.support.faults'
        local pair, trial = require 'spec.support.pair', require 'spec.support.trial'
        trial.run({ demux = 'connected' }, function(server)
          fault.set('bind', 1, 1e9, err)
          local psk = { identity = 'me', key = 'secret' }
          local conn, accepted = pair.open(server, nil, { psk = psk })
          local other = pair.open(server, nil, { psk = psk })
          assert(accepted._association:fd() == nil and server.bystanders._association:fd() ~= nil)
          pair.roundTrip(conn, 'served')
          trial.unharmed(server)
          pair.roundTrip(other, 'served, too')
          assert(#server.errors == 0 and server:stats().refused == 0)
          pair.close(conn, other)
          trial.settle(server)
        end)
      end, code)
    end))
  end

  if require('luv').getuid() ~= 0 then return pending 'a server that gives up root: the specs do not run as root' end

  for name, port in pairs { ['any port'] = '0', ['a privileged port'] = 'privileged' } do
    it(('serves its peers after it has given up root (%s)'):format(name), function()
      child(function(which)
        local ffi, uv, dtls = require 'ffi', require 'luv', require 'dtls'
        local loop, pair = require 'spec.support.loop', require 'spec.support.pair'
        ffi.cdef 'int setgroups(size_t count, const void *list); int setgid(unsigned id); int setuid(unsigned id);'
        loop.run(function()
          local server, number = pair.echo(pair.server { demux = 'connected' }), 0
          if which == 'privileged' then number = 1000 end
          while not server:listen(number, '127.0.0.1') do number = number - 1 end
          server.ip, server.port = '127.0.0.1', server:address().port
          assert(ffi.C.setgroups(0, nil) == 0 and ffi.C.setgid(65534) == 0 and ffi.C.setuid(65534) == 0)
          local failures = pair.record(server, 'clientError')
          for i = 1, 3 do
            local conn = pair.open(server)
            pair.roundTrip(conn, 'served ' .. i)
            pair.close(conn)
          end
          assert(#failures == 0 and uv.getuid() == 65534 and dtls)
          pair.close(server)
        end)()
      end, port)
    end)
  end
end)

describe('a peer socket that is closed', function()
  it('gives up the hello behind its errors', needs('epoll', function()
    child(function()
      local fault, loop, hello = require 'spec.support.faults', require 'spec.support.loop', require 'spec.support.hello'
      local pair, proxy = require 'spec.support.pair', require 'spec.support.proxy'
      loop.run(function()
        local server = pair.listening { demux = 'connected' }
        local between = proxy.new(server)
        local conn, accepted = pair.open(server, between)
        local before = #between.recorded.client
        between:inject('server', hello.build())
        fault.set('receive', 1, 30, 'ECONNREFUSED')
        accepted:destroy()
        fault.set 'receive'
        loop.till(function() return #between.recorded.client > before end, 'an answer')
        assert(hello.verifyRequest(between.recorded.client[before + 1]))
        assert(server:stats().drops.ECONNREFUSED == 30)
        pair.close(conn, server, between)
      end)()
    end)
  end))
end)

describe('a client without a descriptor', function()
  -- luv (seen in 1.44) loses its own record of a socket that it could not make.
  local luvLeaks = require 'spec.support.child'.leaky

  for _, each in ipairs {
    { 'socket', 'EMFILE' }, { 'socket', 'ENFILE' }, { 'socket', 'ENOMEM' }, { 'connect', 'ENETUNREACH' }, { 'connect', 'EADDRNOTAVAIL' },
    { 'bind', 'EADDRINUSE' },
  } do
    local kind, code = unpack(each)
    it(('gets that as its error (%s: %s), and nothing is left of it'):format(kind, code), function()
      childWith(luvLeaks, function(name, err)
        local fault = require 'spec.support.faults'
        local pair, trial = require 'spec.support.pair', require 'spec.support.trial'
        local descriptors = require 'spec.support.descriptors'
        trial.run({}, function(server)
          local before = descriptors.count()
          fault.set(name, 1, 1, err)
          local heard = pair.record(trial.client(server, { localAddress = '127.0.0.1' }), 'error', 'close')
          heard.wait 'close'
          assert(fault.calls(name) >= 1, 'never asked')
          assert(heard.names() == 'error close' and heard[1][2].code == err, tostring(heard[1][2]))
          assert(descriptors.count() == before)
          assert(trial.attempt(server) == 'echo')
          trial.settle(server)
        end)
      end, kind, code)
    end)
  end

  it('gets that as its error when all descriptors are used up', needs('epoll', function()
    childWith(luvLeaks, function()
      local fault, loop = require 'spec.support.faults', require 'spec.support.loop'
      local pair, trial = require 'spec.support.pair', require 'spec.support.trial'
      local uv = require 'luv'
      local descriptors = require 'spec.support.descriptors'
      trial.run({ demux = 'connected' }, function(server)
        local waiting = trial.knocking(server)
        local before = descriptors.count()
        fault.limitDescriptors(before + 4)
        local taken = {}
        for _ = 1, 64 do
          local fd = uv.fs_open('/dev/null', 'r', 0)
          if not fd then break end
          taken[#taken + 1] = fd
        end
        assert(#taken < 64)
        server:setBusy(false)
        loop.till(function() return #server.errors >= 1 end, 'a peer to be turned away')
        assert(server.errors[1][2].code == 'EMFILE')
        local heard = pair.record(trial.client(server), 'error', 'close')
        heard.wait 'close'
        assert(heard[1][2].code == 'EMFILE', tostring(heard[1][2]))
        local other, why = require('dtls').createServer { psk = { me = 'secret' } }:listen(0, '127.0.0.1')
        assert(other == nil and why.code == 'EMFILE', tostring(why))
        trial.unharmed(server)
        for _, fd in ipairs(taken) do uv.fs_close(fd) end
        loop.event(waiting, 'connection')
        pair.close(waiting)
        trial.settle(server)
      end)
    end)
  end))
end)

describe('an interface that goes away', function()
  eachStrategy(function(demux)
    it('and comes back costs an open connection the messages between', function()
      child(function(strategy)
        local fault = require 'spec.support.faults'
        local pair, trial = require 'spec.support.pair', require 'spec.support.trial'
        trial.run({ demux = strategy }, function(server)
          local conn, accepted = server.bystander, server.bystanders
          local failures = pair.record(conn, 'error', 'close')
          for _, code in ipairs { 'ENETDOWN', 'ENODEV', 'ENETUNREACH', 'EPERM', 'ENOBUFS' } do
            for _, each in ipairs { conn, accepted } do
              local before = each:stats().drops[trial.reasons[code]] or 0
              fault.set('send', 1, 1e9, code)
              for _ = 1, 20 do
                local ok, err = each:send 'lost'
                assert(ok == nil and err.code == code, tostring(err))
              end
              fault.set 'send'
              assert(each:stats().drops[trial.reasons[code]] == before + 20)
            end
            trial.unharmed(server)
          end
          assert(failures.names() == '')
        end)
      end, demux)
    end)
  end)
end)

describe('an address that goes away', function()
  eachStrategy(function(demux)
    -- Linux says EINVAL when a datagram is to come from an address that the host has not.
    it('is what send says, and costs an open connection the message', function()
      child(function(strategy)
        local fault = require 'spec.support.faults'
        local pair, trial = require 'spec.support.pair', require 'spec.support.trial'
        trial.run({ demux = strategy }, function(server)
          local failures = pair.record(server.bystander, 'error', 'close')
          for _, each in ipairs { server.bystander, server.bystanders } do
            fault.set('send', 1, 1, 'EINVAL')
            local ok, err = each:send 'lost'
            assert(ok == nil and err.code == 'EADDRNOTAVAIL', tostring(err))
            assert(each:stats().drops.EHOSTUNREACH == 1)
          end
          trial.unharmed(server)
          assert(failures.names() == '')
        end)
      end, demux)
    end)
  end)
end)

describe('a host that does not know the MTU of a path', function()
  it('leaves a client the MTU that it has', function()
    child(function()
      local fault, pair, trial = require 'spec.support.faults', require 'spec.support.pair', require 'spec.support.trial'
      trial.run({ demux = 'shared' }, function(server)
        local undisturbed = server.bystander:stats().datagramsOut
        fault.set('getsockopt', 1, 1e9, 'ENOBUFS')
        fault.set('send', 1, 1, 'EMSGSIZE')
        local conn = pair.open(server, nil, { psk = { identity = 'me', key = 'secret' } })
        assert(fault.calls 'getsockopt' >= 1 and conn:stats().drops.EMSGSIZE == 1)
        local stats = conn:stats()
        assert(stats.datagramsOut <= undisturbed * (1 + stats.retransmits), stats.datagramsOut)
        pair.close(conn)
        trial.settle(server)
      end)
    end)
  end)
end)

describe('a hello for which there is no memory', function()
  it('is dropped and counted, and the next one is answered', function()
    child(function()
      local fault = require 'spec.support.faults'
      assert(fault.C.faults_own_memory())
      local uv, core = require 'luv', require 'dtls.core'
      local hello, raw = require 'spec.support.hello', require 'spec.support.raw'
      local udp, client = uv.new_udp(), raw.open()
      assert(udp:bind('127.0.0.1', 0))
      local context = assert(core.context('server', { psk = { me = 'secret' }, ciphers = 'PSK-AES128-GCM-SHA256' }))
      local endpoint = assert(core.endpoint(context, core.fd(udp), 'shared'))
      local function greet()
        client:send(hello.build(), udp:getsockname())
        endpoint:turn(10)
        assert(endpoint:next() == nil)
        return endpoint:stats()
      end
      fault.set('memory', 1, 1e9)
      local stats = greet()
      fault.set 'memory'
      -- Later libcrypto computes a cookie without asking for memory.
      local dropped = core.openssl().number < 0x30200000 and 1 or 0
      assert(stats.hellos == 1 and stats.cookiesSent == 1 - dropped and (stats.drops.ENOBUFS or 0) == dropped)
      stats = greet()
      assert(stats.hellos == 2 and stats.cookiesSent == 2 - dropped and (stats.drops.ENOBUFS or 0) == dropped)
      endpoint:close()
    end)
  end)
end)

describe('an endpoint that gets no descriptor to watch its first peer with', function()
  it('says so, and takes the peer when it can', needs('epoll', function()
    child(function()
      local fault, uv, core = require 'spec.support.faults', require 'luv', require 'dtls.core'
      local theirs, ours = uv.new_udp(), uv.new_udp()
      assert(ours:bind('127.0.0.1', 0) and theirs:bind('127.0.0.1', 0))
      assert(theirs:connect('127.0.0.1', ours:getsockname().port))
      local suite = 'PSK-AES128-GCM-SHA256'
      local context = assert(core.context('server', { psk = { me = 'secret' }, ciphers = suite }))
      local endpoint = assert(core.endpoint(context, core.fd(ours), 'connected'))
      local own = assert(core.context('client', { psk = { identity = 'me', key = 'secret' }, ciphers = suite }))
      local client = assert(core.client(own, core.fd(theirs)))
      client:handshake()
      endpoint:turn(10)
      assert(endpoint:next() == nil)
      client:handshake()
      endpoint:turn(10)
      assert(endpoint:next() == 'hello')
      for first = 1, 2 do -- what makes it, and what adds to it
        fault.set('watch', first, 1, 'EMFILE')
        local none, err = endpoint:accept()
        assert(none == nil and err.code == 'EMFILE', tostring(err))
      end
      fault.set 'watch'
      local association = assert(endpoint:accept())
      assert(endpoint:peers_fd())
      for _, object in ipairs { association, client, endpoint } do object:close() end
    end)
  end))
end)

describe('a process whose stdin, stdout and stderr are closed', function()
  it('has no socket in their place', needs('epoll', function()
    child(function()
      local ffi, uv, core = require 'ffi', require 'luv', require 'dtls.core'
      ffi.cdef 'int dup(int fd); int dup2(int from, int to); int close(int fd);'
      local theirs, ours = uv.new_udp(), uv.new_udp()
      assert(ours:bind('127.0.0.1', 0) and theirs:bind('127.0.0.1', 0))
      assert(theirs:connect('127.0.0.1', ours:getsockname().port))
      local options = { psk = { me = 'secret' }, ciphers = 'PSK-AES128-GCM-SHA256' }
      local server = assert(core.context('server', options))
      options.psk = { identity = 'me', key = 'secret' }
      local client = assert(core.context('client', options))
      local kept, objects = {}, {}
      for fd = 0, 2 do kept[fd] = ffi.C.dup(fd) end
      for fd = 0, 2 do ffi.C.close(fd) end
      local ok, err = pcall(function()
        local endpoint = assert(core.endpoint(server, core.fd(ours), 'connected', { duplicate = true }))
        local dialling = assert(core.client(client, core.fd(theirs), { duplicate = true }))
        dialling:handshake()
        endpoint:turn(10)
        endpoint:next()
        dialling:handshake()
        endpoint:turn(10)
        assert(endpoint:next() == 'hello')
        objects = { assert(endpoint:accept()), dialling, endpoint }
        for i, object in ipairs(objects) do assert(object:fd() > 2, i) end
        assert(endpoint:peers_fd() > 2)
      end)
      for _, object in ipairs(objects) do object:close() end
      for fd = 0, 2 do ffi.C.dup2(kept[fd], fd) end
      assert(ok, err)
    end)
  end))
end)

describe('a port that is closed for a while', function()
  it('does not end a handshake that finds it open again', function()
    child(function()
      local loop, pair, trial = require 'spec.support.loop', require 'spec.support.pair', require 'spec.support.trial'
      local raw = require 'spec.support.raw'
      loop.run(function()
        local port = raw.freePort()
        local conn = trial.client { ip = '127.0.0.1', port = port }
        local heard = pair.record(conn, 'connection', 'error')
        loop.till(function() return (conn:stats().datagramsOut or 0) > 0 end)
        local server = pair.echo(pair.server { psk = { me = 'secret' } })
        assert(server:listen(port, '127.0.0.1'))
        loop.till(function() return heard[1] end)
        assert(heard.names() == 'connection', tostring(heard[1][2]))
        assert(conn:stats().drops.ECONNREFUSED > 0)
        pair.roundTrip(conn, 'hello')
        pair.close(conn, server)
      end)()
    end)
  end)

  it('does not end an open connection', function()
    child(function()
      local loop, pair, trial = require 'spec.support.loop', require 'spec.support.pair', require 'spec.support.trial'
      local proxy = require 'spec.support.proxy'
      local uv = require 'luv'
      trial.run({}, function(server)
        local via = proxy.new(server)
        local conn = pair.open(server, via, { psk = { identity = 'me', key = 'secret' } })
        local failures = pair.record(conn, 'error', 'close')
        pair.roundTrip(conn, 'before')
        loop.call(function(done) via.front:close(done) end)
        for _ = 1, 10 do conn:send 'to nobody' end
        loop.till(function() return (conn:stats().drops.ECONNREFUSED or 0) > 0 end, 'the refusal')
        local again = uv.new_udp()
        via.front = again
        assert(again:bind(via.ip, via.port))
        again:recv_start(function(_, data, from)
          if from then via:_pass('server', data, via:_client(from)) end
        end)
        pair.roundTrip(conn, 'after')
        assert(failures.names() == '')
        trial.settle(server)
        pair.close(conn, via)
      end)
    end)
  end)
end)

describe('a process that waits for a processor', function()
  -- libssl looks at its timer between the header of a message and its body, too, and repeats a flight there.
  eachStrategy(function(demux)
    it('completes a handshake whose timers run out between any two looks at the clock', function()
      child(function(strategy)
        local fault, pair = require 'spec.support.faults', require 'spec.support.pair'
        local trial = require 'spec.support.trial'
        local slow = { retransmitTimeout = 20, handshakeTimeout = 600000 }
        trial.run(pair.with(slow, { demux = strategy }), function(server)
          for ms = 1, 24 do
            fault.C.faults_drag(ms / 1000)
            local conn = trial.client(server, slow)
            local heard = pair.record(conn, 'connection', 'error')
            heard.wait 'connection'
            fault.C.faults_drag(0)
            assert(not conn:stats().drops.handshake, ms)
            pair.roundTrip(conn, 'hello')
            pair.close(conn)
            trial.settle(server)
          end
          assert(not server:stats().drops.handshake)
          assert(server:stats().retransmits > 0)
        end)
      end, demux)
    end)
  end)
end)

describe('a wall clock that is set', function()
  -- In seconds. The monotonic clock stays as it is.
  local jumps = { 3600, -3600, 86400 * 365, -86400 * 365 }

  eachStrategy(function(demux)
    -- Set back, it keeps libssl from repeating flights until the handshake's deadline; what is not lost needs no repetition.
    it('in the middle of a handshake neither stops it nor multiplies the repetitions of a flight', function()
      child(function(strategy, ...)
        local all = { ... }
        local fault, loop = require 'spec.support.faults', require 'spec.support.loop'
        local pair, trial = require 'spec.support.pair', require 'spec.support.trial'
        trial.run({ demux = strategy, handshakeTimeout = 10000 }, function(server)
          for _, seconds in ipairs(all) do
            -- The clock is set right behind each datagram but the last flight's, which is lost when it is set forward.
            local lost = seconds > 0 and 1 or 0
            for n = 1, 5 do
              local before = server:stats().retransmits
              fault.set 'turn'
              fault.set 'receive'
              fault.set('send', n, lost, 'EAGAIN')
              local conn = trial.client(server, { handshakeTimeout = 10000 })
              local heard = pair.record(conn, 'connection', 'error')
              loop.till(function() return fault.calls 'send' >= n end)
              fault.C.faults_jump(seconds)
              loop.till(function() return heard[1] end, 'the handshake')
              assert(heard.names() == 'connection', ('%d s at send %d: %s'):format(seconds, n, tostring(heard[1][2])))
              local repeated = conn:stats().retransmits + server:stats().retransmits - before
              assert(repeated >= lost and repeated <= 5, ('%d s at send %d: %d repetitions'):format(seconds, n, repeated))
              fault.set 'send'
              pair.roundTrip(conn, 'hello')
              pair.close(conn)
              trial.settle(server)
              fault.C.faults_jump(-seconds)
            end
          end
        end)
      end, demux, unpack(jumps))
    end)

    it('does not move the deadline of a handshake that nobody answers', function()
      child(function(strategy, ...)
        local all = { ... }
        local fault, loop = require 'spec.support.faults', require 'spec.support.loop'
        local pair, trial = require 'spec.support.pair', require 'spec.support.trial'
        local uv = require 'luv'
        trial.run({ demux = strategy }, function(server)
          local mute = uv.new_udp()
          assert(mute:bind('127.0.0.1', 0))
          for _, seconds in ipairs(all) do
            fault.set 'send'
            fault.set 'receive'
            local conn = trial.client({ ip = '127.0.0.1', port = mute:getsockname().port }, { handshakeTimeout = 300 })
            local heard = pair.record(conn, 'error', 'close')
            loop.till(function() return (conn:stats().datagramsOut or 0) > 0 end)
            fault.C.faults_jump(seconds)
            fault.set 'turn'
            loop.event(conn, 'close')
            assert(heard[1][2].code == 'ERR_DTLS_HANDSHAKE_TIMEOUT', tostring(heard[1][2]))
            local repeated = conn:stats().retransmits
            assert(repeated >= (seconds > 0 and 2 or 0) and repeated <= 6, ('%d s: %d repetitions'):format(seconds, repeated))
            assert(fault.calls 'send' <= 10, fault.calls 'send')
            assert(fault.calls 'turn' <= 60, ('%d s: %d turns'):format(seconds, fault.calls 'turn'))
            trial.unharmed(server)
          end
          mute:close()
        end)
      end, demux, unpack(jumps))
    end)

    it('does not touch an open connection', function()
      child(function(strategy, ...)
        local all = { ... }
        local fault = require 'spec.support.faults'
        local pair, trial = require 'spec.support.pair', require 'spec.support.trial'
        trial.run({ demux = strategy }, function(server)
          for _, seconds in ipairs(all) do
            fault.C.faults_jump(seconds)
            fault.set 'turn'
            fault.set 'send'
            fault.set 'receive'
            trial.unharmed(server)
            pair.roundTrip(server.bystander, 'and again')
            assert(fault.calls 'send' == 4, fault.calls 'send')
            trial.idle()
            fault.C.faults_jump(-seconds)
          end
        end)
      end, demux, unpack(jumps))
    end)

    it('makes the difference between a resumption and a full handshake, and none other', function()
      child(function(strategy)
        local fault, loop = require 'spec.support.faults', require 'spec.support.loop'
        local pair, trial = require 'spec.support.pair', require 'spec.support.trial'
        loop.run(function()
          local store = {}
          for _, stores in ipairs { false, true } do
            local server = trial.server {
              demux = strategy, sessionTimeout = 60000,
              sessionStore = stores and {
                get = function(id) return store[id] end, set = function(id, blob) store[id] = blob end,
                remove = function(id) store[id] = nil end,
              } or nil,
            }
            local psk = { identity = 'me', key = 'secret' }
            -- The session lives for a minute, and one that is from the future is none.
            for _, case in ipairs { { 0, true }, { 30, true }, { 3600, false }, { -3600, false } } do
              local conn = pair.open(server, nil, { psk = psk, sessionTimeout = 60000 })
              local blob = assert(conn:getSession())
              pair.close(conn)
              fault.C.faults_jump(case[1])
              conn = pair.open(server, nil, { psk = psk, sessionTimeout = 60000, session = blob })
              assert(conn:isSessionReused() == case[2], ('%d s: %s'):format(case[1], tostring(conn:isSessionReused())))
              pair.roundTrip(conn, 'hello')
              pair.close(conn)
              fault.C.faults_jump(-case[1])
              trial.settle(server)
            end
            trial.close(server)
          end
        end)()
      end, demux)
    end)
  end)
end)

describe('a wall clock that is set back, and then right again,', function()
  it('repeats a flight within a wait from then on', function()
    child(function()
      local fault, uv, core = require 'spec.support.faults', require 'luv', require 'dtls.core'
      local loop = require 'spec.support.loop'
      local YEAR, WAIT = 86400 * 365, 50 * loop.patience
      local silent, udp = uv.new_udp(), uv.new_udp()
      assert(silent:bind('127.0.0.1', 0) and udp:connect('127.0.0.1', silent:getsockname().port))
      local context = assert(core.context('client', { psk = { identity = 'me', key = 'secret' }, ciphers = 'PSK-AES128-GCM-SHA256' }))
      local client = assert(core.client(context, core.fd(udp)))
      client:set_retransmit(WAIT, 0)
      client:handshake()
      local function run_out()
        loop.again(function() return client:timeout() == 0 end, 'the end of a wait')
        assert(client:handle_timeout())
        return client:stats().retransmits
      end
      fault.C.faults_jump(-YEAR)
      assert(run_out() == 0)
      assert(client:timeout() <= WAIT)
      fault.C.faults_jump(YEAR)
      assert(run_out() == 1)
      client:close()
    end)
  end)
end)

describe('time that goes by', function()
  -- Without an event loop, whose timers would all be due.
  it('replaces the secret of cookies, whether or not anybody has asked for one since', function()
    child(function()
      local fault, uv, core = require 'spec.support.faults', require 'luv', require 'dtls.core'
      local hello, raw = require 'spec.support.hello', require 'spec.support.raw'
      local udp, client = uv.new_udp(), raw.open()
      assert(udp:bind('127.0.0.1', 0))
      local context = assert(core.context('server', { psk = { me = 'secret' }, ciphers = 'PSK-AES128-GCM-SHA256' }))
      local endpoint = assert(core.endpoint(context, core.fd(udp), 'shared'))
      local function greet(options)
        client:send(hello.build(options), udp:getsockname())
        endpoint:turn(10)
        return endpoint:next()
      end
      local function cookie()
        local before = #client.inbox
        assert(greet() == nil)
        repeat uv.run 'once' until #client.inbox > before
        return hello.verifyRequest(client.inbox[#client.inbox]).cookie
      end
      local function accepts(known) return greet { cookie = known, sequence = 1, messageSequence = 1 } == 'hello' end
      local first = cookie()
      fault.C.faults_pass(290)
      assert(accepts(first), 'the current secret')
      fault.C.faults_pass(300)
      assert(accepts(first), 'the previous secret, ten seconds before its end')
      fault.C.faults_pass(20)
      assert(not accepts(first), 'a cookie of ten minutes')
      local second = cookie()
      assert(accepts(second))
      fault.C.faults_pass(3600)
      assert(not accepts(second), 'a cookie of an hour, the last one that was made')
      endpoint:close()
    end)
  end)
end)
