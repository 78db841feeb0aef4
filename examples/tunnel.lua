-- UDP and TCP through DTLS: what an application sends to the near end comes out at the far end, and the answers come back.
--   luvit tunnel.lua far  SECRET port targetHost targetPort        talks to the target for its near ends
--   luvit tunnel.lua near SECRET port farHost farPort [seconds]    takes the application's datagrams and TCP connections
-- SECRET is a key in hexadecimal. Hosts are addresses; port 0 is any free one. The near end connects again when nothing
-- has come back for so many seconds (5 by default). luajit works as well. The plain sockets are in tunnel_datagrams.lua, TCP's
-- streams in tunnel_streams.lua.

local dtls = require 'dtls'

local luvit = rawget(_G, 'args')
local uv = require(luvit and 'uv' or 'luv')
if not luvit then package.path = (arg[0]:match '^.*/' or './') .. '?.lua;' .. package.path end
local datagrams = require(luvit and './tunnel_datagrams' or 'tunnel_datagrams')
local streams = require(luvit and './tunnel_streams' or 'tunnel_streams')
local role, secret, port, host, hostPort, seconds = unpack(luvit or arg, luvit and 2 or 1)

local function check(value, err)
  if value then return value end
  io.stderr:write('tunnel: ', tostring(err), '\n')
  os.exit(1)
end

check(hostPort, 'usage: tunnel.lua far|near SECRET port host port')
check(#secret % 2 == 0 and not secret:find '%X', 'SECRET is not hexadecimal')
io.stdout:setvbuf 'line'
local key = secret:gsub('%x%x', function(byte) return string.char(tonumber(byte, 16)) end)
local patience, PEER_PATIENCE = tonumber(seconds or 5) * 1000, 60000

-- Whoever closes a TCP connection early must not end this process.
local broken = uv.new_signal()
broken:start('sigpipe', function() end)
broken:unref()

-- A message is a datagram of the application as it is, unless it begins with this byte; what does so itself gets ESCAPE in front.
-- UDP does not say that a peer has gone; a PONG that stays away does.
local MARK, ESCAPE, PING, PONG = 255, '\255\0', '\255\1', '\255\2'

-- Joins an open association, the datagrams of a socket and TCP connections; `connect` is for streams.new.
local function join(conn, socket, connect)
  local mux, waiting, complained = streams.new(conn, connect), {}, nil
  local function forward(list)
    while list[1] do
      local ok, why, sent = conn:send(list)
      if ok then return end
      if why.code == 'EAGAIN' or why.code == 'ENOBUFS' then
        waiting = { unpack(list, sent + 1) }
        return socket:stop() -- until there is room again, the kernel keeps what comes
      end
      if not complained then print('dropped, as others may be: ' .. why.message) end
      complained = true
      list = { unpack(list, sent + 2) }
    end
  end
  local function received(list)
    for i, data in ipairs(list) do
      local first = data:byte()
      if first == MARK or not first then list[i] = ESCAPE .. data end
    end
    forward(list)
  end
  conn:on('drain', function()
    local list = waiting
    waiting = {}
    socket:read(received)
    forward(list)
    mux:drained()
  end)
  conn:on('message', function(message)
    if message:byte() ~= MARK then return socket:write(message) end
    local kind = message:sub(1, 2)
    if kind == ESCAPE then return socket:write(message:sub(3)) end
    if kind == PING then return conn:send(PONG) end
    mux:received_untrusted(message)
  end)
  conn:on('close', function() mux:close() end)
  socket:read(received)
  return mux
end

local function far()
  local server = check(dtls.createServer { psk = { tunnel = key }, receiveTimeout = PEER_PATIENCE })
  server:on('connection', function(conn)
    local udp = uv.new_udp()
    conn:on('error', function(err) print('lost: ' .. err.message) end)
    local ok, err = udp:connect(host, tonumber(hostPort)) -- nobody else is heard
    if not ok then
      print('no way to the target: ' .. err)
      udp:close()
      return conn:close()
    end
    local socket = datagrams.new(udp)
    conn:on('close', function() socket:close() end)
    join(conn, socket, function(connected)
      local tcp = uv.new_tcp()
      if tcp:connect(host, tonumber(hostPort), connected) then return tcp end
      tcp:close()
    end)
    conn:on('receiveTimeout', function() conn:close() end)
  end)
  check(server:listen(port, '0.0.0.0'))
  print('far end on port ' .. server:address().port)
end

-- A UDP socket and a TCP server on the same port.
local function open(accept)
  local udp, tcp = uv.new_udp(), uv.new_tcp()
  check(udp:bind('127.0.0.1', tonumber(port)))
  local address = udp:getsockname()
  tcp:bind(address.ip, address.port)
  local ok, err = tcp:listen(128, function()
    local client = uv.new_tcp()
    tcp:accept(client)
    accept(client)
  end)
  if ok then return udp, address.port end
  check(port == '0', err)
  udp:close()
  tcp:close()
  return open(accept) -- another free one
end

local function near()
  local mux -- of the association, while it is open
  local udp, own = open(function(client)
    if mux then mux:open(client) else client:close() end
  end)
  local socket, pings = datagrams.new(udp), uv.new_timer()
  print('near end on port ' .. own)

  local function connect()
    local conn = check(dtls.connect {
      host = host, port = hostPort, psk = { identity = 'tunnel', key = key },
      receiveTimeout = patience, handshakeTimeout = patience,
      recvBufferSize = 2 ^ 22, -- for bursts, as a server's socket has it
    })
    conn:on('connection', function()
      print('connected')
      mux = join(conn, socket)
      pings:start(0, math.ceil(math.min(patience, PEER_PATIENCE) / 3), function() conn:send(PING) end)
    end)
    conn:on('receiveTimeout', function() conn:destroy 'the far end is silent' end)
    conn:on('error', function(err) print('not connected: ' .. err.message) end)
    conn:on('close', function()
      mux = nil
      socket:stop()
      pings:start(500, 0, connect)
    end)
  end
  connect()
end

if role == 'far' then far() else near() end

if not luvit then uv.run() end -- luvit does it by itself
