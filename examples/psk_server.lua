-- Devices with pre-shared keys, looked up in a file for every handshake, without ever waiting for the disk:
--   luvit psk_server.lua keys.txt [port [host]]
-- Each line of the file is an identity, a colon, and the key in hexadecimal. A device gets in as soon as its line is
-- there. The other side: luvit dtlscat.lua 127.0.0.1 5684 --psk-identity me --psk-key 001122334455667788

local dtls = require 'dtls'

local luvit = rawget(_G, 'args')
local uv = require(luvit and 'uv' or 'luv')
local path, port, host = unpack(luvit or arg, luvit and 2 or 1)

local function check(value, err)
  if value then return value end
  io.stderr:write('psk_server: ', tostring(err), '\n')
  os.exit(1)
end

check(path, 'give it a file with keys')
io.stdout:setvbuf 'line'

-- Calls a function of luv that wants a callback, and waits for it: only the coroutine does, the loop goes on.
local function await(call, ...)
  local waiting, arguments = coroutine.running(), { ... }
  arguments[#arguments + 1] = function(err, value) assert(coroutine.resume(waiting, value, err)) end
  assert(call(unpack(arguments)))
  return coroutine.yield()
end

local function read_file()
  local file = assert(await(uv.fs_open, path, 'r', 0))
  local text = await(uv.fs_read, file, 1024 * 1024, 0)
  uv.fs_close(file)
  return assert(text)
end

local function find_key(identity)
  for line in read_file():gmatch '[^\r\n]+' do
    local who, hex = line:match '^(.*):(%x+)$'
    if who == identity then
      return (hex:gsub('%x%x', function(byte) return string.char(tonumber(byte, 16)) end))
    end
  end
end

local server = check(dtls.createServer { psk = find_key })

server:on('connection', function(conn)
  local identity = conn.pskIdentity
  print('connected: ' .. identity)
  conn:on('message', function(data) conn:send(('%s said %s'):format(identity, data)) end)
  conn:on('close', function() print('closed: ' .. identity) end)
end)
server:on('clientError', function(err) print('did not get in: ' .. err.message) end)

check(server:listen(tonumber(port or 5684), host or '127.0.0.1'))
print('listening on port ' .. server:address().port)

local interrupt = uv.new_signal()
interrupt:start('sigint', function()
  interrupt:close()
  server:close(function() print 'closed' end)
end)

if not luvit then uv.run() end -- luvit does it by itself
