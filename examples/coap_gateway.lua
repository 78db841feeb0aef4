-- A CoAP server (RFC 7252) for devices with pre-shared keys, which a database gives while their handshakes wait:
--   luvit coap_gateway.lua [port [host [seconds]]]
-- Who has a key puts and gets; who says nothing for so many seconds is let go. luajit works as well.
-- The other side, libcoap's (Debian: libcoap3-bin):
--   coap-client-openssl -u kitchen -k 'key of the kitchen' -m put -e 21.5 coaps://127.0.0.1/temperature
--   coap-client-openssl -u hall -k 'key of the hall...' coaps://127.0.0.1/temperature

local dtls = require 'dtls'

local luvit = rawget(_G, 'args')
local uv = require(luvit and 'uv' or 'luv')
local port, host, seconds = unpack(luvit or arg, luvit and 2 or 1)

local function check(value, err)
  if value then return value end
  io.stderr:write('coap_gateway: ', tostring(err), '\n')
  os.exit(1)
end

-- Stands for a database somewhere in the network: the coroutine waits for its answer, everything else goes on.
local keys = { kitchen = 'key of the kitchen', hall = 'key of the hall...' }
local function find_key(identity)
  local waiting, answer = coroutine.running(), uv.new_timer()
  answer:start(50, 0, function()
    answer:close()
    assert(coroutine.resume(waiting, keys[identity]))
  end)
  return coroutine.yield()
end

-- ── messages (RFC 7252 §3) ──

local CON, ACK, RST = 0, 2, 3
local GET, PUT = 1, 3
local CREATED, CHANGED, CONTENT, BAD_OPTION, NOT_FOUND, NOT_ALLOWED = 65, 68, 69, 130, 132, 133
local URI_PATH = 11
local understood = { [3] = true, [7] = true, [URI_PATH] = true, [15] = true } -- Uri-Host, -Port, -Path, -Query

-- The delta or the length of an option, and where the bytes go on that extend its four bits; nil when they are not there.
local function number_untrusted(data, bits, at)
  if bits < 13 then return bits, at end
  if bits == 13 and at <= #data then return 13 + data:byte(at), at + 1 end
  if bits == 14 and at < #data then return 269 + data:byte(at) * 256 + data:byte(at + 1), at + 2 end
end

-- Gives nil for what is no message, and one without a code for what breaks off.
local function parse_untrusted(data)
  local first, code = data:byte(1, 2)
  if #data < 4 or first < 64 or first > 127 then return nil end
  local at, option = 5 + first % 16, 0
  local message = { kind = math.floor(first / 16) % 4, id = data:sub(3, 4), token = data:sub(5, at - 1), path = '' }
  if at > 13 or at > #data + 1 then return message end
  while at <= #data and data:byte(at) ~= 255 do
    local bits, length = data:byte(at), nil
    local delta, after = number_untrusted(data, math.floor(bits / 16), at + 1)
    if delta then length, at = number_untrusted(data, bits % 16, after) end
    if not length or at + length > #data + 1 then return message end
    option = option + delta
    if option == URI_PATH then message.path = message.path .. '/' .. data:sub(at, at + length - 1) end
    if option % 2 == 1 and not understood[option] then message.critical = option end
    at = at + length
  end
  message.code, message.payload = code, data:sub(at + 1)
  return message
end

-- ── resources ──

local values = {}

-- Both methods are idempotent: a request that comes again is done again (§4.5).
local function respond(request)
  local path, old = request.path, values[request.path]
  if request.critical then return BAD_OPTION end -- §5.4.1
  if request.code == GET then return old and CONTENT or NOT_FOUND, old end
  if request.code ~= PUT then return NOT_ALLOWED end
  values[path] = request.payload
  return old and CHANGED or CREATED
end

local function serve(conn, data)
  local request = parse_untrusted(data)
  if not request or request.kind ~= CON then return end -- others may be rejected in silence (§4.3)
  if not request.code or request.code == 0 then return conn:send(string.char(64 + RST * 16, 0) .. request.id) end -- §4.2
  local code, payload = respond(request)
  print(('%s: %s %d.%02d'):format(conn.pskIdentity, request.path, math.floor(code / 32), code % 32))
  local header = string.char(64 + ACK * 16 + #request.token, code) .. request.id .. request.token
  conn:send(payload and payload ~= '' and header .. '\255' .. payload or header)
end

-- ── associations ──

io.stdout:setvbuf 'line'
local server = check(dtls.createServer { psk = find_key, receiveTimeout = tonumber(seconds or 300) * 1000 })

server:on('connection', function(conn)
  print(conn.pskIdentity .. ': connected')
  conn:on('message', function(data) serve(conn, data) end)
  conn:on('receiveTimeout', function() conn:close() end)
  -- A device that lost its power comes back from the same port, with a new association that takes the place of this one.
  conn:on('error', function(err) print(('%s: %s'):format(conn.pskIdentity, err.message)) end)
  conn:on('close', function() print(conn.pskIdentity .. ': closed') end)
end)
server:on('clientError', function(err) print('did not get in: ' .. err.message) end)

check(server:listen(port or 5684, host or '127.0.0.1'))
print('listening on port ' .. server:address().port)

local interrupt = uv.new_signal()
interrupt:start('sigint', function()
  interrupt:close()
  server:close(function() print 'closed' end)
end)

if not luvit then uv.run() end -- luvit does it by itself
