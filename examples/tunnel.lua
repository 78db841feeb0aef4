-- UDP through DTLS: what an application sends to the near end comes out at the far end, and the answers come back.
--   luvit tunnel.lua far  SECRET port targetHost targetPort        talks to the target for its near ends
--   luvit tunnel.lua near SECRET port farHost farPort [seconds]    takes the application's datagrams
-- SECRET is a key in hexadecimal. Hosts are addresses; port 0 is any free one. The near end connects again when nothing
-- has come back for so many seconds (5 by default). luajit works as well.

local dtls = require 'dtls'

local luvit = rawget(_G, 'args')
local uv = require(luvit and 'uv' or 'luv')
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
local patience = tonumber(seconds or 5) * 1000

-- The first byte of a message. UDP does not say that a peer has gone; a PONG that stays away does.
local PING, PONG, DATA = '\0', '\1', '\2'

-- Joins an open association and a UDP socket. `write` sends a datagram to whoever the last one of the socket came from.
local function join(conn, udp, write)
  local back, kept
  local function received(err, data, from)
    if err or not data then return end
    back = from or back
    local ok, why = conn:send(DATA .. data)
    if ok then return end
    if why.code ~= 'EAGAIN' and why.code ~= 'ENOBUFS' then return print('dropped: ' .. why.message) end
    udp:recv_stop() -- until there is room again, the kernel keeps what comes
    kept = data
  end
  conn:on('drain', function()
    local data = kept
    kept = nil
    udp:recv_start(received)
    if data then received(nil, data) end
  end)
  conn:on('message', function(message)
    local kind = message:sub(1, 1)
    if kind == PING then conn:send(PONG) end
    if kind == DATA then write(message:sub(2), back) end
  end)
  udp:recv_start(received)
end

local function far()
  local server = check(dtls.createServer { psk = { tunnel = key }, receiveTimeout = 60000 })
  server:on('connection', function(conn)
    local udp = uv.new_udp()
    check(udp:connect(host, tonumber(hostPort))) -- nobody else is heard
    join(conn, udp, function(data) udp:try_send(data, nil, nil) end)
    conn:on('receiveTimeout', function() conn:close() end)
    conn:on('error', function(err) print('lost: ' .. err.message) end)
    conn:on('close', function() udp:close() end)
  end)
  check(server:listen(port, '0.0.0.0'))
  print('far end on port ' .. server:address().port)
end

local function near()
  local udp, pings = uv.new_udp(), uv.new_timer()
  check(udp:bind('127.0.0.1', tonumber(port)))
  print('near end on port ' .. udp:getsockname().port)

  local function connect()
    local conn = check(dtls.connect {
      host = host, port = hostPort, psk = { identity = 'tunnel', key = key },
      receiveTimeout = patience, handshakeTimeout = patience,
    })
    conn:on('connection', function()
      print('connected')
      join(conn, udp, function(data, back)
        if back then udp:try_send(data, back.ip, back.port) end
      end)
      pings:start(0, math.ceil(patience / 3), function() conn:send(PING) end)
    end)
    conn:on('receiveTimeout', function() conn:destroy 'the far end is silent' end)
    conn:on('error', function(err) print('not connected: ' .. err.message) end)
    conn:on('close', function()
      udp:recv_stop()
      pings:start(500, 0, connect)
    end)
  end
  connect()
end

if role == 'far' then far() else near() end

if not luvit then uv.run() end -- luvit does it by itself
