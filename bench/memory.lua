--- What an association costs a server: how much its process grows with each peer, and Lua's share of that. Half-open: the
--- server has sent its certificate, and the client is in no hurry. Idle: nothing has been sent since the handshake.
---
---   luajit bench/memory.lua [peers]      default: 2000

local uv = require 'luv'
local dtls = require 'dtls'

local WARM = 100 -- peers that come before, so that what is made once does not count

local function spawn(arguments, on_output)
  local output = uv.new_pipe(false)
  local process = assert(uv.spawn('luajit', { args = { arg[0], unpack(arguments) }, stdio = { 0, output, 2 } }, function() end))
  output:read_start(function(_, chunk) on_output(chunk) end)
  return process
end

-- ── the children ──

-- Clients that are to be open come one after another: a crowd's handshakes would leave holes in the server's heap.
local function load(state, port, fingerprint, peers)
  local options = { fingerprint = fingerprint }
  local connect
  local function arrived()
    peers = peers - 1
    if peers > 0 then return connect() end
    io.write 'ready'
    io.flush()
  end
  if state == 'half-open' then
    options.checkServerIdentity = function()
      arrived()
      coroutine.yield()
    end
  end
  local context = assert(dtls.createContext('client', options))
  function connect()
    local conn = assert(dtls.connect { host = '127.0.0.1', port = port, context = context, handshakeTimeout = 600000 })
    conn:on('error', function(err) error(tostring(err)) end)
    if state == 'idle' then conn:on('connection', arrived) end
  end
  connect()
end

local function memory()
  collectgarbage()
  collectgarbage()
  return uv.resident_set_memory() / 1024, collectgarbage 'count'
end

local function serve(state, demux, peers)
  local identity = assert(dtls.selfSigned())
  local server = assert(dtls.createServer {
    cert = identity.cert, key = identity.key, demux = demux, maxHandshakes = WARM + peers, handshakeTimeout = 600000,
  })
  assert(server:listen(0, '127.0.0.1'))
  local children = {}
  local function with(count, callback)
    table.insert(children, spawn({ 'load', state, tostring(server:address().port), identity.fingerprint, tostring(count) }, callback))
  end
  with(WARM, function()
    local all, lua = memory()
    with(peers, function()
      local all_now, lua_now = memory()
      print(('%-9s  %-9s  %8.1f  %5.1f'):format(demux, state, (all_now - all) / peers, (lua_now - lua) / peers))
      for _, child in ipairs(children) do child:kill('sigkill') end
      os.exit(0)
    end)
  end)
end

-- ── the parent ──

local function main(peers)
  print(('%s, %s, %s, %d peers'):format(os.date '%Y-%m-%d', dtls.OPENSSL.text, jit.version, peers))
  print('strategy   state      KB each  of Lua')
  local thread = coroutine.running()
  for _, demux in ipairs { 'connected', 'shared' } do
    for _, state in ipairs { 'half-open', 'idle' } do
      spawn({ 'serve', state, demux, tostring(peers) }, function(chunk)
        if chunk then return io.write(chunk) end
        assert(coroutine.resume(thread))
      end)
      coroutine.yield()
    end
  end
end

if arg[1] == 'load' then
  load(arg[2], tonumber(arg[3]), arg[4], tonumber(arg[5]))
elseif arg[1] == 'serve' then
  serve(arg[2], arg[3], tonumber(arg[4]))
else
  coroutine.wrap(main)(tonumber(arg[1] or '2000'))
end
uv.run()
