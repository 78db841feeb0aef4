-- Gets, puts or observes a value of a CoAP server over DTLS (RFC 7252, RFC 7641):
--   luvit coap_client.lua get|put|observe coaps://HOST[:PORT]/PATH psk  IDENTITY KEY           [VALUE]
--   luvit coap_client.lua get|put|observe coaps://HOST[:PORT]/PATH cert IDENTITY.pem CA.pem    [VALUE]
-- VALUE is for put. `observe` prints each value that it hears of, until Ctrl-C. luajit works as well. The other side is
-- coap_gateway.lua, or libcoap's coap-server (Debian: libcoap3-bin).

local dtls = require 'dtls'

local luvit = rawget(_G, 'args')
local uv = require(luvit and 'uv' or 'luv')
if not luvit then package.path = (arg[0]:match '^.*/' or './') .. '?.lua;' .. package.path end
local coap = require(luvit and './coap' or 'coap')
local method, uri, kind, first, second, value = unpack(luvit or arg, luvit and 2 or 1)

local function check(value_, err)
  if value_ then return value_ end
  io.stderr:write('coap_client: ', tostring(err), '\n')
  os.exit(1)
end

local codes = { get = coap.GET, put = coap.PUT, observe = coap.GET }
local host, port, path = (uri or ''):match '^coaps://([^:/%[]+):?(%d*)(/.*)$'
if not host then host, port, path = (uri or ''):match '^coaps://%[([%x:.]+)%]:?(%d*)(/.*)$' end -- IPv6
check(codes[method] and host and second and (kind == 'psk' or kind == 'cert') and (value ~= nil) == (method == 'put'),
  'usage: coap_client.lua get|put|observe coaps://HOST[:PORT]/PATH psk|cert IDENTITY KEY|CA.pem [VALUE]')
io.stdout:setvbuf 'line'

local function read(file_path)
  local file = check(io.open(file_path))
  local text = file:read '*a'
  file:close()
  return text
end

local options = { host = host, port = port ~= '' and port or 5684 }
if kind == 'psk' then
  options.psk = { identity = first, key = second }
else
  options.cert, options.key, options.ca = read(first), read(first), read(second)
end

local conn = check(dtls.connect(options))

-- ── a confirmable request: repeated until something answers it (RFC 7252 §4.2) ──

local ACK_TIMEOUT_MS, MAX_RETRANSMIT = 2000, 4
local timer = uv.new_timer()
local token = uv.random(4)
local pending -- the id of the request that nobody has acknowledged

local function request(observe)
  local message = coap.compose {
    kind = coap.CON, code = codes[method], id = coap.next_id(), token = token, observe = observe, path = path, payload = value,
  }
  local wait, times = ACK_TIMEOUT_MS * (1 + uv.random(1):byte() / 512), 0
  pending = message:sub(3, 4)
  local function send()
    if times > MAX_RETRANSMIT then return conn:destroy 'the server does not answer' end
    local ok, err = conn:send(message)
    if not ok and err.code == 'EMSGSIZE' then return conn:destroy(err) end
    timer:start(math.floor(wait * 2 ^ times), 0, send)
    times = times + 1
  end
  send()
end

-- ── what comes back ──

local latest, leaving, done -- the number of the last notification; what ends the program has been sent, or has come

-- RFC 7641 §3.4, without the clock: whether a notification is not older than one that was here before it.
local function fresh(number)
  local ahead = number and latest and (number - latest) % 2 ^ 24
  if ahead and ahead >= 2 ^ 23 then return false end
  latest = number or latest
  return true
end

local function finish()
  done = true
  conn:close()
end

local function respond(message)
  if leaving then return finish() end
  if message.code >= 128 then
    return conn:destroy(('%s %s'):format(coap.describe(message.code), (message.payload:gsub('%c', '?'))))
  end
  -- Of a value in several blocks (RFC 7959) this is one.
  if message.critical then return conn:destroy(('the response needs option %d, which this client lacks'):format(message.critical)) end
  if fresh(message.observe) then print(method == 'put' and coap.describe(message.code) or message.payload) end
  if method ~= 'observe' then return finish() end
  if not message.observe then conn:destroy 'this value cannot be observed' end
end

conn:on('message', function(data)
  local message = coap.parse_untrusted(data)
  if not message or not message.code then return end
  if message.id == pending and (message.kind == coap.ACK or message.kind == coap.RST) then
    pending = nil
    timer:stop()
    if message.kind == coap.RST then return conn:destroy 'the server has rejected the request' end
  end
  if message.code == coap.EMPTY then return end -- the answer comes by itself
  local ours = message.token == token
  if message.kind == coap.CON then
    conn:send(coap.compose { kind = ours and coap.ACK or coap.RST, code = coap.EMPTY, id = message.id })
  end
  if ours then respond(message) end
end)

conn:on('connection', function() request(method == 'observe' and 0 or nil) end)
conn:on('error', function(err) check(nil, err.message) end)

local interrupt = uv.new_signal()
interrupt:start('sigint', function()
  if leaving or method ~= 'observe' then return finish() end
  leaving = true
  request(1) -- no more notifications
end)
conn:on('close', function()
  timer:close()
  interrupt:close()
  check(done, 'the server has closed')
end)

if not luvit then uv.run() end -- luvit does it by itself
