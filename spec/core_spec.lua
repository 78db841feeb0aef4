-- The C core by itself, without the Lua layer and without an event loop: a datagram that was sent over the loopback
-- interface has arrived.

local uv = require 'luv'
local core = require 'dtls.core'
local hello = require 'spec.support.hello'
local loop = require 'spec.support.loop'
local memory = require 'spec.support.memory'
local needs = require('spec.support.platform').needs

local identity = assert(core.self_signed {})
local PROFILE = { groups = 'X25519:P-256', sigalgs = 'ECDSA+SHA256', ciphers = 'ECDHE-ECDSA-AES128-GCM-SHA256' }

local function context(role, options)
  local all = {}
  for name, value in pairs(PROFILE) do all[name] = value end
  for name, value in pairs(options or {}) do all[name] = value end
  if role == 'server' then
    all.cert, all.key = all.cert or { identity.cert }, all.key or { identity.key }
  end
  return core.context(role, all)
end

local open -- what a test has to close

local function socket(ip, family)
  local udp = uv.new_udp(family)
  open[#open + 1] = udp
  if ip then assert(udp:bind(ip, 0)) end
  return udp
end

before_each(function() open = {} end)

after_each(function()
  for _, handle in ipairs(open) do
    if not handle:is_closing() then handle:close() end
  end
  uv.run()
end)

describe('core.fd', function()
  it('is the descriptor of a luv UDP handle', function()
    local udp = socket '127.0.0.1'
    assert.equal(udp:fileno(), core.fd(udp))
    assert.is_true(core.fd(udp) > 2)
  end)

  it('is the descriptor of a dgram socket, which keeps its handle in _handle', function()
    local udp = socket '127.0.0.1'
    assert.equal(udp:fileno(), core.fd { _handle = udp })
    assert.equal(udp:fileno(), core.fd(setmetatable({}, { __index = { _handle = udp } })))
  end)

  it('is nil and EBADF for a handle that is closed or has no socket yet', function()
    local udp = socket '127.0.0.1'
    udp:close()
    for _, value in ipairs { udp, { _handle = udp }, { recvStart = print }, socket() } do
      local fd, err = core.fd(value)
      assert.is_nil(fd)
      assert.equal('EBADF', err.code)
      assert.equal('EBADF: ' .. err.message, tostring(err))
    end
  end)

  it('raises for anything but a UDP handle', function()
    local tcp, timer = uv.new_tcp(), uv.new_timer()
    open[1], open[2] = tcp, timer
    for _, value in ipairs { 7, 'udp', true, print, tcp, timer, io.stdout, newproxy(true), { _handle = tcp }, { _handle = 7 }, {},
      coroutine.create(print) } do
      local ok, err = pcall(core.fd, value)
      assert.is_false(ok)
      assert.truthy(err:find('expected a luv UDP handle or a dgram socket', 1, true), err)
    end
    assert.is_false((pcall(core.fd)))
    assert.is_false((pcall(core.fd, nil)))
  end)
end)

describe('core.configure_socket', function()
  it('sets the options that the system lets it set', needs('reuseport', function()
    local udp = socket '127.0.0.1'
    assert.is_true(core.configure_socket(core.fd(udp), { receive_buffer = 32768, send_buffer = 32768, reuse_port = true }))
    assert.equal(65536, udp:recv_buffer_size()) -- Linux doubles it
    assert.equal(65536, udp:send_buffer_size())
  end))

  it('gives nil and an error for a descriptor that is no socket', function()
    local ok, err = core.configure_socket(-1, { receive_buffer = 32768 })
    assert.is_nil(ok)
    assert.equal('EBADF', err.code)
  end)

  it('raises for wrong values', function()
    assert.is_false((pcall(core.configure_socket, 'x', {})))
    assert.is_false((pcall(core.configure_socket, 1)))
    assert.is_false((pcall(core.configure_socket, 1, { receive_buffer = -1 })))
    assert.is_false((pcall(core.configure_socket, 1, { send_buffer = '1' })))
  end)
end)

describe('core.error', function()
  it('makes an object of a code and a sentence', function()
    local err = core.error('ERR_DTLS_X', 'it did not work', { reason = 'WHY', alert = 'what' })
    assert.same({ 'ERR_DTLS_X', 'it did not work', 'WHY', 'what' }, { err.code, err.message, err.reason, err.alert })
    assert.equal('ERR_DTLS_X: it did not work', tostring(err))
    assert.equal(getmetatable(err), getmetatable(core.error('A', 'b')))
  end)

  it('raises without a code or a sentence', function()
    assert.is_false((pcall(core.error)))
    assert.is_false((pcall(core.error, 'A')))
    assert.is_false((pcall(core.error, {}, 'b')))
  end)
end)

describe('core.context', function()
  it('raises for an unknown role, and without options', function()
    assert.is_false((pcall(core.context, 'peer', {})))
    assert.is_false((pcall(core.context, nil, {})))
    assert.is_false((pcall(core.context, 'server')))
  end)

  -- whose text no table would keep alive
  it('takes no number for a string', function()
    for _, name in ipairs { 'passphrase', 'ciphers', 'groups', 'sigalgs', 'srtp', 'psk_hint', 'session_context', 'keylog_file' } do
      local ok, err = pcall(core.context, 'server', { [name] = 5 })
      assert.is_false(ok, name)
      assert.truthy(err:find(name .. ': expected a string', 1, true), err)
    end
    for _, name in ipairs { 'ca', 'crl', 'pins', 'alpn', 'ticket_keys' } do
      local made, err = core.context('server', { [name] = { 5 } })
      assert.is_nil(made, name)
      assert.equal('ERR_DTLS_CONFIG', err.code)
    end
  end)

  it('gives nil and an error for garbage', function()
    local made, err = context('server', { cert = { 'garbage' } })
    assert.is_nil(made)
    assert.equal('ERR_DTLS_CONFIG', err.code)
    made, err = context('client', { ciphers = 'NO-SUCH-SUITE' })
    assert.is_nil(made)
    assert.equal('ERR_DTLS_CONFIG', err.code)
  end)

  it('gives nil and an error for certificates and keys that do not come in pairs', function()
    local cert, key = identity.cert, identity.key
    for _, options in ipairs {
      { cert = { cert } }, { cert = { cert }, key = {} }, { cert = { cert, cert }, key = { key } }, { key = { key } },
      { cert = {}, key = { key } }, { cert = { cert }, key = { key, key } }, { cert = { cert }, key = key },
    } do
      for _, role in ipairs { 'server', 'client' } do
        local made, err = core.context(role, options)
        assert.is_nil(made)
        assert.equal('ERR_DTLS_CONFIG', err.code)
        assert.matches('in pairs', err.message)
      end
    end
  end)
end)

for _, demux in ipairs { 'connected', 'shared' } do
  local peerSockets = demux == 'connected' and 'epoll'

  describe(('an endpoint without an event loop (%s sockets):'):format(demux), function()
    local ip = '127.0.0.1'
    local udp, endpoint, port
    local accepted -- owners: {association=, said=}
    local interval -- ms, in which a peer may begin one handshake; nil: the default

    before_each(function()
      udp = socket(ip)
      port = udp:getsockname().port
      endpoint = assert(core.endpoint(assert(context 'server'), core.fd(udp), demux))
      accepted, interval = {}, nil
    end)

    after_each(function()
      for _, owner in ipairs(accepted) do owner.association:close() end
      endpoint:close()
    end)

    local function dial(options, name, session)
      local handle = socket(ip)
      assert(handle:connect(ip, port))
      local all = { servername = name, check_name = true, session = session }
      return assert(core.client(assert(context('client', options)), core.fd(handle), all)), handle
    end

    -- message, more: what next() has already read for this association.
    local function serve(owner, message, more)
      local association = owner.association
      if not owner.open then
        local ok, err = association:handshake(owner)
        if not ok then
          owner.err = err
          return
        end
        owner.open = true
      end
      if more == nil then message, more = association:read() end
      while message do
        owner.said[#owner.said + 1] = message
        message, more = association:read()
      end
      owner.err = more
    end

    -- Everything that the sockets of peers have, or the endpoint's own.
    local function take(of_peers)
      endpoint:turn(10000, of_peers)
      while true do
        local kind, subject, known, more = endpoint:next()
        if kind == 'hello' then
          local made, displaced = assert(endpoint:accept())
          local owner = { association = made, said = {}, known = known, displaced = displaced }
          made:set_owner(owner)
          accepted[#accepted + 1] = owner
          -- The next client on that port would read a second repetition, and could not tell it from an answer to
          -- its own hello.
          if interval then made:set_retransmit(interval, 60000) end
          serve(owner)
        elseif kind == 'read' then
          serve(subject, known, more)
        elseif kind == 'handshake' then
          serve(subject)
        else
          return
        end
      end
    end

    -- What a turn finds first.
    local function found()
      endpoint:turn(10000)
      return endpoint:next()
    end

    -- Does what an event loop would do: everything that is possible now.
    local function turn()
      take()
      if endpoint:peers_fd() then take(true) end
    end

    local function establish(client)
      for _ = 1, 10 do
        if client:handshake() then
          turn()
          return accepted[#accepted]
        end
        turn()
      end
      error 'the handshake does not complete'
    end

    it('a client and a server meet, talk and part', function()
      local client = dial({ reject = false }, 'localhost')
      local facts = {}
      local _, wants, timeout = client:handshake(facts)
      assert.equal('want_read', wants)
      assert.is_true(timeout > 0 and timeout <= 1000)
      assert.same({ servername = 'localhost' }, facts)
      local owner = establish(client)
      assert.is_true(owner.open)
      assert.is_false(owner.known)
      assert.equal(ip, owner.association:remote_address().ip)
      assert.equal('localhost', owner.servername)
      assert.equal('DTLSv1.2', client:protocol())
      assert.equal('ECDHE-ECDSA-AES128-GCM-SHA256', client:cipher().name)
      assert.is_true(client:write 'hello')
      turn()
      assert.same({ 'hello' }, owner.said)
      assert.is_true(owner.association:write 'one')
      assert.is_true(owner.association:write 'two')
      assert.equal('one', (client:read()))
      assert.equal('two', (client:read()))
      assert.same({ nil, 'want_read' }, { client:read() })
      assert.is_true(client:shutdown())
      turn()
      assert.equal('closed', owner.err)
      owner.association:shutdown()
      assert.same({ nil, 'closed' }, { client:read() })
      assert.is_true(client:handshake(facts))
      assert.same({ authorized = false, authorizationError = 'DEPTH_ZERO_SELF_SIGNED_CERT', extendedMasterSecret = true,
        servername = 'localhost' }, facts)
      client:close()
    end)

    it('a client trusts the authorities that it is given together with those of the machine', function()
      local own = assert(core.self_signed { alt_names = { 'localhost' } })
      assert(endpoint:set_context(assert(context('server', { cert = { own.cert }, key = { own.key } }))))
      local file = os.tmpname()
      local handle = assert(io.open(file, 'w'))
      handle:write(identity.cert)
      handle:close()
      local before = os.getenv 'SSL_CERT_FILE'
      uv.os_setenv('SSL_CERT_FILE', file)
      local made, client = pcall(dial, { ca = { own.cert }, system_ca = true, reject = true }, 'localhost')
      if before then uv.os_setenv('SSL_CERT_FILE', before) else uv.os_unsetenv 'SSL_CERT_FILE' end
      os.remove(file)
      assert.is_true(made, client)
      establish(client)
      local facts = { authorizationError = 'HANDSHAKE_NOT_COMPLETE' }
      assert.is_true(client:handshake(facts))
      assert.same({ authorized = true, extendedMasterSecret = true, servername = 'localhost' }, facts)
      client:close()
    end)

    it('an association of a server has a descriptor of its own in the connected strategy alone', needs(peerSockets, function()
      local owner = establish((dial { reject = false }))
      if demux == 'connected' then
        assert.is_number(owner.association:fd())
        assert.not_equal(core.fd(udp), owner.association:fd())
      else
        assert.is_nil(owner.association:fd())
      end
    end))

    it('accept() refuses a verified hello once next() has been called again', function()
      local client = dial { reject = false }
      client:handshake()
      assert.is_nil(found())
      client:handshake()
      assert.equal('hello', (found()))
      assert.is_nil(found())
      local association, err = endpoint:accept()
      assert.is_nil(association)
      assert.equal('ERR_DTLS_PROTOCOL', err.code)
      assert.equal(1, endpoint:stats().cookiesAccepted)
      client:close()
    end)

    it('accept() accepts no hello twice, and none after set_context()', function()
      local client = dial { reject = false }
      client:handshake()
      found()
      client:handshake()
      assert.equal('hello', (found()))
      assert.is_true(endpoint:set_context(assert(context 'server')))
      assert.is_nil((endpoint:accept()))
      local other = dial { reject = false }
      other:handshake()
      found()
      other:handshake()
      assert.equal('hello', (found()))
      local association = assert(endpoint:accept())
      assert.is_nil((endpoint:accept()))
      association:close()
      client:close()
      other:close()
    end)

    it('calls before the handshake return ENOTCONN or nothing', function()
      local client = dial { reject = false }
      local ok, err = client:write 'early'
      assert.is_nil(ok)
      assert.equal('ENOTCONN', err.code)
      ok, err = client:export_keying_material(8, 'EXPERIMENTAL')
      assert.is_nil(ok)
      assert.equal('ENOTCONN', err.code)
      assert.equal(0, client:data_mtu())
      assert.is_nil(client:cipher())
      assert.is_nil(client:promote())
      assert.is_true(client:shutdown())
      assert.equal(port, client:remote_address().port)
      client:close()
    end)

    it('handle_timeout() repeats a flight that is due', function()
      local client = dial { reject = false }
      client:set_retransmit(1, 0)
      client:handshake()
      loop.again(function()
        if client:timeout() == 0 then assert.is_true(client:handle_timeout()) end
        return client:stats().retransmits > 0
      end, 'the repetition')
      client:close()
    end)

    it('an association that has been idle keeps working', function()
      local client = dial { reject = false }
      local owner = establish(client)
      for i = 1, 100 do
        assert.is_true(client:write('ping ' .. i))
        turn()
        assert.equal('ping ' .. i, owner.said[i])
        assert.is_true(owner.association:write('pong ' .. i))
        assert.equal('pong ' .. i, (client:read()))
        client:read()
      end
      client:close()
    end)

    it('an association writes the messages of a list up to the one that it cannot', function()
      local client = dial { reject = false }
      local owner = establish(client)
      local list = { 'one', 'two', 'three' }
      for _, writer in ipairs { client, owner.association } do
        assert.is_true(writer:write(list))
        local ok, err, fatal, sent = writer:write { 'four', '', 'five' }
        assert.same({ nil, 'EINVAL', false, 1 }, { ok, err.code, fatal, sent })
      end
      for i = 1, 4 do assert.equal(({ 'one', 'two', 'three', 'four' })[i], (client:read())) end
      turn()
      assert.same({ 'one', 'two', 'three', 'four' }, owner.said)
      client:close()
    end)

    if demux == 'connected' then
      it('peers with sockets of their own take turns, however much one of them has sent', needs('epoll', function()
        local busy, quiet = dial { reject = false }, dial { reject = false }
        local owner, other = establish(busy), establish(quiet)
        for i = 1, 100 do assert.is_true(busy:write('message ' .. i)) end
        assert.is_true(quiet:write 'one')
        endpoint:turn(10000, true)
        local from, heard = {}, 0
        for kind, subject, message in function() return endpoint:next() end do
          assert.equal('read', kind)
          from[#from + 1] = subject
          if subject == owner then
            heard = heard + 1
            assert.equal('message ' .. heard, message)
          end
        end
        assert.equal(100, heard)
        assert.equal(101, #from)
        local place
        for i, subject in ipairs(from) do place = subject == other and i or place end
        assert.is_true(place <= 33, place)
        busy:close()
        quiet:close()
      end))

      it('a datagram at hand of a peer whose association is closed is a stranger\'s', needs('epoll', function()
        local first, second = dial { reject = false }, dial { reject = false }
        local owner, other = establish(first), establish(second)
        assert.is_true(first:write 'read')
        assert.is_true(second:write 'unread')
        assert.equal(2, endpoint:turn(10, true))
        assert.same({ 'read', owner, 'read', false }, { endpoint:next() })
        other.association:close()
        assert.is_nil((endpoint:next()))
        assert.same({ stranger = 1 }, endpoint:stats().drops)
        accepted = { owner }
        first:close()
        second:close()
      end))

      it('what the sockets of peers hold when they are closed is set aside up to a limit', needs('epoll', function()
        local LIMIT, EACH = 1024, 64
        local clients = {}
        for i = 1, LIMIT / EACH + 1 do
          clients[i] = { dial { reject = false } }
          establish(clients[i][1])
        end
        for i, each in ipairs(clients) do
          for j = 1, EACH do assert(uv.fs_write(core.fd(each[2]), hello.build { random = ('%016d%016d'):format(i, j) }, -1)) end
        end
        local before = endpoint:stats().hellos
        for _, owner in ipairs(accepted) do owner.association:close() end
        accepted = {}
        assert.same({ queue = EACH }, endpoint:stats().drops)
        endpoint:turn(10000)
        while endpoint:next() do end
        assert.equal(LIMIT, endpoint:stats().hellos - before)
        for _, each in ipairs(clients) do each[1]:close() end
      end))
    end

    describe('libssl\'s record buffers are freed by', function()
      local BUFFERS = 12000 -- bytes, less than the smallest of libssl's

      local function measured(name, body)
        it(name, function()
          if not memory.known() then return pending 'this malloc does not say how much is in use' end
          body()
        end)
      end

      measured('a client that has nothing more to read', function()
        local client = dial { reject = false }
        local owner = establish(client)
        assert.is_true(owner.association:write 'hello')
        assert.equal('hello', (client:read()))
        local held = memory.used()
        assert.same({ nil, 'want_read' }, { client:read() })
        assert.is_true(held - memory.used() > BUFFERS, held - memory.used())
        client:close()
      end)

      measured('a client that only sends', function()
        local client = dial { reject = false }
        establish(client)
        client:read()
        local idle = memory.used()
        for _, messages in ipairs { 'hello', { 'hello', 'again' } } do
          assert.is_true(client:write(messages))
          assert.is_true(memory.used() - idle < BUFFERS, memory.used() - idle)
        end
        client:close()
      end)

      -- No other association reads.
      local function talk(client, owner)
        local heard = #owner.said
        assert.is_true(client:write 'hello')
        turn()
        assert.equal(heard + 1, #owner.said)
      end

      -- Repeats `step` until libssl has freed record buffers meanwhile.
      local function until_freed(step)
        local till = uv.hrtime() + 10e9 * loop.patience
        repeat
          local freed = step()
          assert.is_true(uv.hrtime() < till, 'they are not freed')
        until freed > BUFFERS
      end

      measured('a server\'s association that has been idle for a while, and not before', needs(peerSockets, function()
        local idle, busy = dial { reject = false }, dial { reject = false }
        local quiet, lively = establish(idle), establish(busy)
        talk(idle, quiet)
        talk(busy, lively)
        local held = memory.used()
        until_freed(function()
          talk(busy, lively)
          return held - memory.used()
        end)
        talk(idle, quiet)
        assert.is_true(quiet.association:write 'hello')
        assert.equal('hello', (idle:read()))
        idle:close()
        busy:close()
      end))

      measured('a server\'s association at once when it is used once in a while and 64 others are busy', needs(peerSockets, function()
        local clients = {}
        for i = 1, 65 do
          clients[i] = dial { reject = false }
          establish(clients[i])
        end
        local function hear(client)
          assert.is_true(client:write 'hello')
          endpoint:turn(10, demux == 'connected')
          assert.equal('hello', (select(3, endpoint:next())))
        end
        local function held_by(client)
          hear(client)
          local held = memory.used()
          assert.is_nil(endpoint:next())
          return held - memory.used()
        end
        local function last_is_idle()
          local held = memory.used()
          for i = 1, 64 do hear(clients[i]) end
          return held - memory.used()
        end
        for _ = 1, 2 do hear(clients[65]) end
        until_freed(function()
          until_freed(last_is_idle)
          return held_by(clients[65]) -- nothing, where the machine is so slow that some of the others were idle, too
        end)
        assert.is_true(held_by(clients[65]) < BUFFERS) -- which is used again soon
        for _, client in ipairs(clients) do client:close() end
      end))

      measured('a listener, which needs none to answer a hello,', function()
        local client = dial { reject = false }
        local before = memory.used()
        client:handshake()
        local held = memory.used()
        assert.is_nil(found())
        assert.equal(1, endpoint:stats().cookiesSent)
        assert.is_true(memory.used() - held < 100, memory.used() - held)
        assert.is_true(held - before > BUFFERS) -- the client's
        client:close()
      end)
    end)

    it('set_ticket_keys() leaves a context its keys when it refuses new ones', function()
      local first, second = ('1'):rep(80), ('2'):rep(80)
      local made = assert(context('server', { ticket_keys = { first, second } }))
      assert(endpoint:set_context(made))
      local function visit(session)
        local client = dial({ reject = false }, nil, session)
        establish(client)
        local reused, _, blob = client:session_reused(), client:session()
        client:close()
        return reused, blob
      end
      local _, session = visit()
      local third = ('3'):rep(80)
      for _, wrong in ipairs { {}, { third, third, third }, { third:sub(2) }, { third .. '3' }, { third, '' }, { third, 7 }, { {} } } do
        local ok, err = made:set_ticket_keys(wrong)
        assert.is_nil(ok)
        assert.equal('ERR_DTLS_CONFIG', err.code)
        local reused, newer = visit(session)
        assert.is_true(reused)
        assert.is_true(newer == session, 'the ticket was renewed')
      end
      assert.is_true(made:set_ticket_keys { third })
      assert.is_false((visit(session)))
    end)

    it('every method raises for wrong arguments', function()
      local client = dial { reject = false }
      local owner = establish(client)
      for _, call in ipairs {
        function() client:write() end, function() client:write {} end, function() client:set_mtu() end, function() client:set_mtu 'x' end,
        function() client:set_retransmit(0, 0) end, function() client:set_retransmit(60001, 0) end,
        function() client:set_retransmit(1, -1) end,
        function() client:export_keying_material(0, 'x') end, function() client:export_keying_material(65537, 'x') end,
        function() client:export_keying_material(8) end, function() client:set_owner() end,
        function() endpoint:set_context() end, function() endpoint:set_context(assert(context 'client')) end,
        function() endpoint:set_context(client) end, function() endpoint:set_cookie_secret() end,
        function() endpoint:set_cookie_secret(('x'):rep(31)) end, function() endpoint:set_cookie_secret(('x'):rep(32), 'short') end,
        function() core.endpoint() end, function() core.endpoint(assert(context 'client'), core.fd(udp), demux) end,
        function() core.endpoint(assert(context 'server'), 'x', demux) end,
        function() core.endpoint(assert(context 'server'), core.fd(udp), 'x') end,
        function() core.client() end, function() core.client(assert(context 'server'), core.fd(udp)) end,
        function() core.client(assert(context 'client'), {}) end, function() core.client(assert(context 'client'), 1, 'x') end,
        function() client.write(endpoint, 'x') end, function() endpoint.next(client) end, function() client.read(7) end,
        function() client.read(udp) end, function() endpoint.stats {} end,
      } do
        assert.is_false((pcall(call)))
      end
      assert.is_true(client:write 'unharmed')
      turn()
      assert.same({ 'unharmed' }, owner.said)
      client:close()
    end)

    it('every method of a closed object raises, but close', function()
      local client = dial { reject = false }
      local owner = establish(client)
      local association = owner.association
      local function dead(object, ...)
        local methods = getmetatable(object).__index
        local tried = 0
        for name, method in pairs(methods) do
          if name ~= 'close' and name ~= '__gc' and name ~= '__index' and type(method) == 'function' then
            local ok, err = pcall(method, object, ...)
            assert.is_false(ok, name)
            assert.truthy(err:find('closed', 1, true), name .. ': ' .. err)
            tried = tried + 1
          end
        end
        assert.is_true(tried >= 5)
        assert.is_nil(object:close())
        methods.__gc(object)
      end
      client:close()
      dead(client, 'x', 'x')
      association:close()
      dead(association, 'x', 'x')
      endpoint:close()
      dead(endpoint, ('x'):rep(32))
      accepted = {}
    end)

    it('an association outlives its endpoint', needs(peerSockets, function()
      local client = dial { reject = false }
      local owner = establish(client)
      endpoint:close()
      collectgarbage()
      local ok, err = owner.association:write 'after'
      if demux == 'connected' then
        assert.is_true(ok)
        assert.equal('after', (client:read()))
      else
        assert.is_nil(ok)
        assert.equal('EBADF', err.code)
      end
      assert.is_table(owner.association:stats())
      owner.association:shutdown()
      owner.association:close()
      client:close()
      accepted = {}
    end))

    it('an association may be closed before it has read its datagram, and the endpoint goes on', function()
      local client = dial { reject = false }
      local owner = establish(client)
      client:write 'in hand'
      endpoint:turn(10, endpoint:peers_fd() ~= nil)
      assert.equal('read', (endpoint:next()))
      owner.association:close()
      accepted = {}
      assert.is_nil((found()))
      local again = dial { reject = false }
      assert.is_true(establish(again).open)
      client:close()
      again:close()
    end)

    it('a datagram for two associations of a peer is the same for both when another turn begins in between', function()
      local client, handle = dial { reject = false }
      local owner = establish(client)
      local again = assert(core.client(assert(context('client', { reject = false })), core.fd(handle)))
      for _ = 1, 2 do
        again:handshake()
        turn()
      end
      client:write 'only the keys tell for which'
      endpoint:turn(10, endpoint:peers_fd() ~= nil)
      local kind, subject, message = endpoint:next()
      assert.same({ 'read', owner, 'only the keys tell for which' }, { kind, subject, message })
      local stranger = socket(ip)
      assert(stranger:try_send(('x'):rep(60), ip, port) == 60)
      endpoint:turn(10) -- as for a listener that runs the loop
      assert.same({ 'handshake', accepted[2] }, { endpoint:next() })
      accepted[2].association:handshake()
      assert.same({ early = 1 }, accepted[2].association:stats().drops)
      assert.is_nil(endpoint:next())
      assert.equal(1, endpoint:stats().drops.stranger)
      stranger:close()
      again:close()
      client:close()
    end)

    it('the garbage collector may free all objects, in any order', function()
      for _ = 1, 20 do
        local client = dial { reject = false }
        establish(client)
        for _, owner in ipairs(accepted) do owner.association:set_owner(1) end
      end
      accepted, endpoint = {}, nil
      collectgarbage()
      collectgarbage()
      endpoint = assert(core.endpoint(assert(context 'server'), core.fd(udp), demux))
    end)

    if demux == 'shared' then
      -- What next() pushes may set the collector off, which frees an association that nobody owns.
      for _, state in ipairs { 'unfinished', 'open' } do
        it(('next() has no more to do with an %s association once the garbage collector has freed it'):format(state), function()
          local client = dial { reject = false }
          client:handshake()
          assert.is_nil(found())
          client:handshake()
          assert.equal('hello', (found()))
          local held = { endpoint:accept() }
          held[1]:handshake()
          local kind = 'handshake'
          if state == 'open' then
            client:handshake()
            while found() do held[1]:handshake() end
            assert.is_true(client:handshake())
            assert.is_true(client:write 'hello')
            kind = 'read'
          else
            client:handshake()
          end
          collectgarbage()
          collectgarbage 'stop'
          local before = collectgarbage('setstepmul', 0) -- 0: each step is a whole cycle
          held[1] = nil
          endpoint:turn(10)
          local hook = { debug.gethook() } -- of `make coverage`, which would set the collector off before
          debug.sethook()
          collectgarbage 'restart'
          local kind_found, owner, message = endpoint:next()
          debug.sethook(unpack(hook))
          collectgarbage('setstepmul', before)
          assert.equal(kind, kind_found)
          assert.is_nil(owner)
          assert.equal(state == 'open' and 'hello' or nil, message)
          while found() do end
          client:close()
        end)
      end
    end

    -- A peer that starts over from its port with another socket: the owners of its two associations, and its second client.
    local function start_over()
      local client, handle = dial { reject = false }
      local old = establish(client)
      local address = handle:getsockname()
      client:close()
      handle:close()
      uv.run()
      local again = uv.new_udp()
      open[#open + 1] = again
      assert(again:bind(address.ip, address.port))
      assert(again:connect(ip, port))
      local second = assert(core.client(assert(context('client', { reject = false })), core.fd(again)))
      return old, establish(second), second
    end

    it('a promoted association takes the 4-tuple over from its predecessor', function()
      local old, owner, second = start_over()
      assert.not_equal(old, owner)
      assert.is_true(owner.known)
      assert.is_nil(owner.displaced)
      assert.is_true(owner.open)
      assert.equal(old, owner.association:promote())
      assert.is_nil(owner.association:promote())
      local sent = endpoint:stats().datagramsOut
      old.association:shutdown() -- sends nothing: the 4-tuple belongs to the promoted association
      assert.equal(sent, endpoint:stats().datagramsOut)
      assert.same(owner.association:remote_address(), old.association:close(owner.association):remote_address())
      assert.is_nil(old.association:close())
      old.closed = true
      second:write 'new'
      turn()
      assert.same({ 'new' }, owner.said)
      second:close()
    end)

    it('an association that asks for room is told, and the other one on its path only if it has asked, too', needs(peerSockets, function()
      if demux == 'shared' then return end
      local old, owner, second = start_over()
      for _, asking in ipairs { { owner }, { old }, { owner, old } } do
        for _, each in ipairs(asking) do assert.is_true(each.association:await_room()) end
        endpoint:turn(10, true)
        for _, each in ipairs(asking) do assert.same({ 'room', each }, { endpoint:next() }) end
        assert.is_nil((endpoint:next()))
      end
      second:close()
    end))

    it('an unfinished association is displaced by the next one of the same 4-tuple', function()
      local own = 0
      interval = 1
      -- A client that disappears after its second hello.
      local function vanish()
        local handle = uv.new_udp()
        assert(handle:bind(ip, own))
        own = handle:getsockname().port
        assert(handle:connect(ip, port))
        local client = assert(core.client(assert(context('client', { reject = false })), core.fd(handle)))
        client:set_retransmit(1, 0)
        local met = #accepted
        loop.again(function() -- for the interval must be over
          client:handshake()
          turn()
          return #accepted > met
        end, 'the handshake')
        client:close()
        handle:close()
        uv.run()
        return accepted[#accepted]
      end
      local first = vanish()
      assert.equal('want_read', first.err)
      local second = vanish()
      assert.equal(first, second.displaced)
      assert.is_true(second.known)
    end)

    it('an endpoint needs a socket that is bound and has no peer', function()
      local function refused(code, fd)
        local made, err = core.endpoint(assert(context 'server'), fd, demux)
        assert.is_nil(made)
        assert.equal(code, err.code)
      end
      refused('EBADF', -1)
      refused('EINVAL', core.fd(socket(nil, 'inet')))
      local connected = socket(ip)
      connected:connect(ip, port)
      refused('EISCONN', core.fd(connected))
    end)
  end)
end

describe('core.client', function()
  it('needs a connected socket', function()
    local made, err = core.client(assert(context 'client'), core.fd(socket '127.0.0.1'))
    assert.is_nil(made)
    assert.equal('ENOTCONN', err.code)
    made, err = core.client(assert(context 'client'), -1)
    assert.is_nil(made)
    assert.equal('EBADF', err.code)
  end)

  it('needs a valid host name', function()
    local udp = socket '127.0.0.1'
    assert(udp:connect('127.0.0.1', 9))
    local made, err = core.client(assert(context 'client'), core.fd(udp), { servername = ('x'):rep(300) })
    assert.is_nil(made)
    assert.equal('ERR_DTLS_CONFIG', err.code)
  end)
end)

describe('core.draft', function()
  it('gives an association that takes settings and never has a peer', function()
    local draft = assert(core.draft(assert(context 'client')))
    assert.is_true(draft:set_mtu(600))
    assert.is_true(draft:set_link_mtu(600))
    assert.is_true(draft:set_ciphers(PROFILE.ciphers))
    assert.is_nil((draft:set_ciphers 'NO-SUCH-SUITE'))
    for _, method in ipairs { 'handshake', 'read' } do
      local ok, err = draft[method](draft)
      assert.is_nil(ok)
      assert.equal('ENOTCONN', err.code)
    end
    local ok, err = draft:write 'too early'
    assert.is_nil(ok)
    assert.equal('ENOTCONN', err.code)
    for _, method in ipairs { 'fd', 'timeout', 'local_address', 'remote_address', 'cipher', 'session', 'promote' } do
      assert.is_nil(draft[method](draft), method)
    end
    assert.is_true(draft:shutdown())
    assert.is_true(draft:handle_timeout())
    draft:close()
  end)

  it('is for client contexts alone', function()
    assert.has_error(function() core.draft(assert(context 'server')) end)
    assert.has_error(function() core.draft() end)
  end)
end)
