--- How many instructions the hot paths take: callgrind counts them, and bench/instructions.txt has what they took when they
--- were recorded, for each OpenSSL and LuaJIT. Unlike a time, a count is the same on a busy machine. Fails where a count is
--- more than 3 % above the recorded one, and where coroutines cost more than 20 % on top of events.
---
---   luajit bench/instructions.lua [record]             record: writes what was counted into bench/instructions.txt
---
--- Client and server share a process and take turns, with one message, handshake or hello under way, so that what a batch
--- holds does not depend on the machine. A count has both sides, LuaJIT's interpreter, luv, libuv, libssl and libcrypto in it,
--- and nothing of the kernel. PROGRAMS: the directory of repeatable.so (build/bench).

package.path = 'bench/?.lua;' .. package.path

local uv = require 'luv'
local median = require 'median'

local RECORDS = 'bench/instructions.txt'
local ALLOWED = 1.03
local COROUTINES_ALLOWED = 1.2
local ROUNDS = 3 -- the median of which counts: a timer, or a step of LuaJIT's collector, is in one of them and not in the others
local STRATEGIES = { 'shared', 'connected' }
local PATHS = {
  { name = 'message', count = 100 }, -- of 64 bytes, to the server and back
  { name = 'handshake', count = 3 }, -- full, from `connect` until both sides have closed: nearly all of it is libcrypto's
  { name = 'resumption', count = 3 }, -- the same of a session, without public keys: nearly all of it is not libcrypto's
  { name = 'hello', count = 50 }, -- without a cookie, and the HelloVerifyRequest
  { name = 'coroutine', count = 100 }, -- the message again, by `read` and `write` of dtls.coro at both ends
}

-- Calls f(demux, path, index) for every measurement, in the order in which they are made.
local function each_window(f)
  local index = 0
  for _, demux in ipairs(STRATEGIES) do
    for _, path in ipairs(PATHS) do
      for _ = 1, ROUNDS do
        index = index + 1
        f(demux, path, index)
      end
    end
  end
end

-- ── the child, whose instructions are counted ──

-- callgrind writes what it has counted, and begins at nought, where libuv's function of this name is entered.
local function mark() uv.os_getppid() end

local function wait(condition)
  while not condition() do uv.run 'once' end
end

-- The first hello of a client, by which a socket that answers nothing gets it.
local function take_hello(dtls, context)
  local socket, hello = uv.new_udp(), nil
  assert(socket:bind('127.0.0.1', 0))
  socket:recv_start(function(_, data) hello = hello or data end)
  local client = assert(dtls.connect { host = '127.0.0.1', port = socket:getsockname().port, context = context })
  wait(function() return hello end)
  client:destroy()
  socket:close()
  return hello
end

-- Makes `count` messages pass to a server and back, both of coroutines.
local function make_coroutines(identity, demux, data)
  local coro = require 'dtls.coro'
  local server = assert(coro.createServer({
    cert = identity.cert, key = identity.key, demux = demux, host = '127.0.0.1', port = 0,
  }, function(read, write)
    for message in read do assert(write(message)) end
  end))
  local read, write
  coroutine.wrap(function()
    read, write = coro.connect { host = '127.0.0.1', port = server:address().port, fingerprint = identity.fingerprint }
    assert(read, write)
  end)()
  wait(function() return read end)
  return function(count)
    local done
    coroutine.wrap(function()
      for _ = 1, count do
        assert(write(data))
        assert(read())
      end
      done = true
    end)()
    wait(function() return done end)
  end
end

-- Functions by the names of PATHS, each of which makes `count` of them pass.
local function make_paths(dtls, demux)
  local identity = assert(dtls.selfSigned())
  local closed = 0
  local server = assert(dtls.createServer({ cert = identity.cert, key = identity.key, demux = demux }, function(conn)
    conn:on('message', function(data) conn:send(data) end)
    conn:on('close', function() closed = closed + 1 end)
  end))
  assert(server:listen(0, '127.0.0.1'))
  local port = server:address().port
  local context = assert(dtls.createContext('client', { fingerprint = identity.fingerprint }))
  local function connect(session)
    return assert(dtls.connect { host = '127.0.0.1', port = port, context = context, session = session })
  end

  local conn, session, echoed, answers = connect(), nil, 0, 0
  conn:on('session', function(blob) session = blob end)
  conn:on('message', function() echoed = echoed + 1 end)
  wait(function() return session end)
  local hello, socket = take_hello(dtls, context), uv.new_udp()
  assert(socket:bind('127.0.0.1', 0))
  socket:recv_start(function(_, data) answers = answers + (data and 1 or 0) end)

  local paths, data = {}, ('x'):rep(64)
  function paths.message(count)
    for n = echoed + 1, echoed + count do
      assert(conn:send(data))
      wait(function() return echoed == n end)
    end
  end
  function paths.handshake(count, offered)
    for n = closed + 1, closed + count do
      local client = connect(offered)
      client:on('connection', function()
        assert(client:isSessionReused() == (offered ~= nil))
        client:close()
      end)
      wait(function() return closed == n end)
    end
  end
  function paths.resumption(count) paths.handshake(count, session) end
  function paths.hello(count)
    for n = answers + 1, answers + count do
      assert(socket:try_send(hello, '127.0.0.1', port))
      wait(function() return answers == n end)
    end
  end
  paths.coroutine = make_coroutines(identity, demux, data)
  return paths
end

local function run()
  local dtls = require 'dtls'
  uv.new_timer():start(120000, 0, function() error 'a datagram was lost' end)
  local paths = {}
  for _, demux in ipairs(STRATEGIES) do
    paths[demux] = make_paths(dtls, demux)
    for _, path in ipairs(PATHS) do paths[demux][path.name](path.count) end -- what is made once is not counted
  end
  each_window(function(demux, path)
    collectgarbage()
    mark()
    paths[demux][path.name](path.count)
    mark()
  end)
  io.write(('%s, %s, libuv %s, %s'):format(dtls.OPENSSL.text, jit.version, uv.version_string(), jit.arch))
  io.flush()
  os.exit(0)
end

-- ── the parent ──

-- libcrypto and libc choose their code by the processor: without AVX, BMI, ADX, SHA and ERMS they choose the same on all of x86-64.
local ENVIRONMENT = {
  'LD_PRELOAD=' .. assert(uv.fs_realpath((os.getenv 'PROGRAMS' or 'build/bench') .. '/repeatable.so')),
  'OPENSSL_ia32cap=~0x1000100000000000:0',
  'GLIBC_TUNABLES=glibc.cpu.hwcaps=-AVX2,-AVX_Fast_Unaligned_Load,-ERMS,-BMI1,-BMI2',
}

-- What the child's versions are, and the instructions of each path by '<strategy> <path>'.
local function count()
  local directory = assert(uv.fs_mkdtemp((os.getenv 'TMPDIR' or '/tmp') .. '/dtls-instructions-XXXXXX'))
  local child = io.popen(('env %s valgrind --quiet --tool=callgrind --callgrind-out-file=%s/part --dump-before=uv_os_getppid '
    .. 'luajit -joff %s run'):format(table.concat(ENVIRONMENT, ' '), directory, arg[0]))
  local versions = child:read '*a'
  child:close()
  local found = {}
  -- Every second part is what passed between two measurements.
  each_window(function(demux, path, index)
    local key = demux .. ' ' .. path.name
    local file = assert(io.open(('%s/part.%d'):format(directory, 2 * index)), 'the run under callgrind has failed')
    found[key] = found[key] or {}
    table.insert(found[key], math.floor(file:read('*a'):match '\nsummary: (%d+)' / path.count))
    file:close()
  end)
  for key, values in pairs(found) do found[key] = median(values) end
  os.execute('rm -r ' .. directory)
  return versions, found
end

-- RECORDS: the versions on a line of their own, below them the counts; an empty line after each.
local function read_records()
  local order, records = {}, {}
  for line in io.lines(RECORDS) do
    local key, value = line:match '^  (%l+ %l+) +(%d+)$'
    if key then
      records[order[#order]][key] = tonumber(value)
    elseif line ~= '' then
      table.insert(order, line)
      records[line] = {}
    end
  end
  return records, order
end

local function each_key(f)
  for _, demux in ipairs(STRATEGIES) do
    for _, path in ipairs(PATHS) do f(demux .. ' ' .. path.name) end
  end
end

local function write_records(versions, found)
  local records, order = read_records()
  if not records[versions] then table.insert(order, versions) end
  records[versions] = found
  table.sort(order)
  local file = assert(io.open(RECORDS, 'w'))
  for index, each in ipairs(order) do
    file:write(index > 1 and '\n' or '', each, '\n')
    each_key(function(key)
      if records[each][key] then file:write(('  %-20s %8d\n'):format(key, records[each][key])) end
    end)
  end
  file:close()
end

-- Does nothing in `found` exceed what was recorded?
local function compare(found, recorded)
  local good = true
  each_key(function(key)
    local before = recorded and recorded[key]
    local ratio = before and found[key] / before
    local bad = ratio and ratio > ALLOWED
    print(('  %-20s %8d%s%s'):format(key, found[key], ratio and ('  %+.1f %%'):format((ratio - 1) * 100) or '',
      bad and ('  MORE than %d + %.0f %%'):format(before, (ALLOWED - 1) * 100) or ''))
    good = good and not bad
  end)
  return good
end

-- Do coroutines cost no more than they may, beside the events that they are made of?
local function compare_coroutines(found)
  local good = true
  for _, demux in ipairs(STRATEGIES) do
    local ratio = found[demux .. ' coroutine'] / found[demux .. ' message']
    print(('  %s: a message by coroutines takes %.1f %% more'):format(demux, (ratio - 1) * 100))
    good = good and ratio <= COROUTINES_ALLOWED
  end
  if not good then print(('That is MORE than %.0f %%.'):format((COROUTINES_ALLOWED - 1) * 100)) end
  return good
end

local function main(mode)
  local versions, found = count()
  print('Instructions, client and server together: ' .. versions)
  if mode == 'record' then
    write_records(versions, found)
    return compare(found)
  end
  local recorded = read_records()[versions]
  local good = compare(found, recorded)
  local cheap = compare_coroutines(found)
  if not recorded then print('Nothing is recorded for these versions. To record what was counted: make instructions RECORD=1') end
  if not good then print('If the change is worth it: make instructions RECORD=1, and say in the commit what it bought.') end
  return good and cheap
end

if arg[1] == 'run' then run() end
os.exit(main(arg[1]) and 0 or 1)
