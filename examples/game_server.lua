-- A game over DTLS: everybody walks on one board, and is told ten times a second where all of them are.
--   luvit game_server.lua [port [host [seconds]]]
-- Who has nothing to say for so many seconds (30 by default) is taken off the board. luajit works as well. A player is
-- dtlscat.lua as this prints it; each line is a step: up, down, left or right.

local dtls = require 'dtls'

local luvit = rawget(_G, 'args')
local uv = require(luvit and 'uv' or 'luv')
local port, host, seconds = unpack(luvit or arg, luvit and 2 or 1)

local function check(value, err)
  if value then return value end
  io.stderr:write('game_server: ', tostring(err), '\n')
  os.exit(1)
end

local STEP_MS, REPORT_MS, SIZE = 100, 1000, 10
local MOST_PLAYERS = 60 -- a datagram has room for them
local directions = { up = { 0, -1 }, down = { 0, 1 }, left = { -1, 0 }, right = { 1, 0 } }

io.stdout:setvbuf 'line'

-- The next step makes old steps worthless: a small buffer that overflows is better than one full of them.
local identity = check(dtls.selfSigned())
local server = check(dtls.createServer {
  cert = identity.cert, key = identity.key, receiveTimeout = tonumber(seconds or 30) * 1000,
  maxConnections = MOST_PLAYERS, recvBufferSize = 64 * 1024,
})

local players, joined = {}, 0 -- by connection

local function walk_untrusted(player, data)
  local step = directions[data:match '^%l*']
  if not step then return end
  player.x = math.min(math.max(player.x + step[1], 1), SIZE)
  player.y = math.min(math.max(player.y + step[2], 1), SIZE)
end

server:on('connection', function(conn)
  joined = joined + 1
  local player = { name = 'p' .. joined, x = 1, y = 1 }
  players[conn] = player
  print(player.name .. ' has come')
  conn:on('message', function(data) walk_untrusted(player, data) end)
  conn:on('receiveTimeout', function()
    print(player.name .. ' has vanished')
    conn:close()
  end)
  conn:on('error', function(err) print(player.name .. ': ' .. err.message) end)
  conn:on('close', function()
    players[conn] = nil
    print(player.name .. ' has left')
  end)
end)
server:on('clientError', function(err) print('did not get in: ' .. err.message) end)

-- A socket that is full is no reason to wait: the next board is better than this one.
local function broadcast()
  local places = {}
  for _, player in pairs(players) do places[#places + 1] = ('%s at %d,%d'):format(player.name, player.x, player.y) end
  table.sort(places)
  local board = table.concat(places, '; ') .. '\n'
  for conn in pairs(players) do conn:send(board) end
end

-- What the kernel dropped because steps came faster than they were read, and what it did not take from us.
local lost = 0
local function report()
  local drops = server:stats().drops
  local overflow, full = drops.overflow or 0, (drops.EAGAIN or 0) + (drops.ENOBUFS or 0)
  if overflow + full == lost then return end
  lost = overflow + full
  print(('lost: %d for a full receive buffer, %d for a full send buffer'):format(overflow, full))
end

check(server:listen(port or 4433, host or '127.0.0.1'))
local address = server:address()
print(('play with: dtlscat.lua %s %d --fingerprint %s'):format(address.ip, address.port, identity.fingerprint))

local steps, reports, interrupt = uv.new_timer(), uv.new_timer(), uv.new_signal()
steps:start(STEP_MS, STEP_MS, broadcast)
reports:start(REPORT_MS, REPORT_MS, report)
interrupt:start('sigint', function()
  for _, handle in ipairs { steps, reports, interrupt } do handle:close() end
  server:close(function() print 'closed' end)
end)

if not luvit then uv.run() end -- luvit does it by itself
