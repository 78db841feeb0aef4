-- A CoAP server (RFC 7252) for devices with pre-shared keys, which a database gives while their handshakes wait, and for devices
-- with certificates:
--   luvit coap_gateway.lua [port [host [seconds [IDENTITY.pem CA.pem]]]]
-- Who gets in puts, gets and observes values (RFC 7641); who says nothing for so many seconds is let go. IDENTITY.pem is the
-- gateway's certificate and key, CA.pem what vouches for those of devices. luajit works as well. The other side is
-- coap_client.lua, or libcoap's (Debian: libcoap3-bin):
--   coap-client-openssl -u kitchen -k 'key of the kitchen' -m put -e 21.5 coaps://127.0.0.1/temperature
--   coap-client-openssl -u hall -k 'key of the hall...' -s 60 coaps://127.0.0.1/temperature

local dtls = require 'dtls'

local luvit = rawget(_G, 'args')
local uv = require(luvit and 'uv' or 'luv')
if not luvit then package.path = (arg[0]:match '^.*/' or './') .. '?.lua;' .. package.path end
local coap = require(luvit and './coap' or 'coap')
local port, host, seconds, identity, ca = unpack(luvit or arg, luvit and 2 or 1)

local function check(value, err)
  if value then return value end
  io.stderr:write('coap_gateway: ', tostring(err), '\n')
  os.exit(1)
end

local function read(path)
  local file = path and check(io.open(path))
  local text = file and file:read '*a'
  if file then file:close() end
  return text
end

-- Stands for a database somewhere in the network: the coroutine waits for its answer, everything else goes on.
local keys = { kitchen = 'key of the kitchen', hall = 'key of the hall...' }
local function find_key(name)
  local waiting, answer = coroutine.running(), uv.new_timer()
  answer:start(50, 0, function()
    answer:close()
    assert(coroutine.resume(waiting, keys[name]))
  end)
  return coroutine.yield()
end

-- ── resources, and who observes them ──

local MOST_VALUES, MOST_OBSERVATIONS = 1000, 16 -- of a device
local values, count = {}, 0
local observers = {} -- path → list of {device=, token=, id=}
local changes = 0 -- numbers the notifications, in 24 bits

local function forget(path, matches)
  local list = observers[path] or {}
  for i = #list, 1, -1 do
    local device = list[i].device
    if matches(list[i]) then
      device.observations = device.observations - 1
      table.remove(list, i)
    end
  end
  observers[path] = list[1] and list
end

local function forget_everywhere(matches)
  for path in pairs(observers) do forget(path, matches) end
end

local function stop_observing(path, device, token)
  forget(path, function(observer) return observer.device == device and observer.token == token end)
end

-- Whether there was room for one more.
local function observe(path, device, token)
  stop_observing(path, device, token)
  if device.observations == MOST_OBSERVATIONS then return false end
  device.observations = device.observations + 1
  observers[path] = observers[path] or {}
  table.insert(observers[path], { device = device, token = token })
  return true
end

-- A device has sent what stands in a log: not as a command to the terminal.
local function log(device, text)
  print((('%s: %s'):format(device.name, text):gsub('%c', '?')))
end

local function say(device, message)
  local ok, err = device.conn:send(coap.compose(message))
  if not ok then log(device, 'not told: ' .. err.message) end
end

-- A device that has forgotten its request answers with RST. Nobody is told for ever in vain: silent devices are let go.
local function notify(path)
  changes = (changes + 1) % 2 ^ 24
  for _, observer in ipairs(observers[path] or {}) do
    observer.id = coap.next_id()
    say(observer.device, {
      kind = coap.NON, code = coap.CONTENT, id = observer.id, token = observer.token, observe = changes, payload = values[path],
    })
  end
end

local function get(device, request)
  local path, value = request.path, values[request.path]
  if not value then return coap.NOT_FOUND end
  if request.observe == 1 then stop_observing(path, device, request.token) end
  local observes = request.observe == 0 and observe(path, device, request.token)
  return coap.CONTENT, value, observes and changes or nil
end

local function put(request)
  local path, old = request.path, values[request.path]
  if not old and count == MOST_VALUES then return coap.UNAVAILABLE end
  if not old then count = count + 1 end
  values[path] = request.payload
  if old ~= request.payload then notify(path) end
  return old and coap.CHANGED or coap.CREATED
end

-- Both methods are idempotent: a request that comes again is done again (§4.5).
local function respond(device, request, bytes)
  if request.critical then return coap.BAD_OPTION end -- §5.4.1
  if bytes > coap.MOST_BYTES then return coap.TOO_LARGE end
  if request.code == coap.GET then return get(device, request) end
  if request.code == coap.PUT then return put(request) end
  return coap.NOT_ALLOWED
end

local function serve(device, data)
  local request = coap.parse_untrusted(data)
  if not request then return end -- others may be rejected in silence (§4.3)
  if request.kind == coap.RST then
    return forget_everywhere(function(observer) return observer.device == device and observer.id == request.id end)
  end
  local confirmable = request.kind == coap.CON
  if not request.code or request.code == coap.EMPTY or request.code >= 32 then -- no request
    if confirmable then say(device, { kind = coap.RST, code = coap.EMPTY, id = request.id }) end -- §4.2
    return
  end
  if not confirmable and (request.kind ~= coap.NON or request.critical) then return end
  local code, payload, number = respond(device, request, #data)
  log(device, ('%s %s'):format(request.path, coap.describe(code)))
  say(device, {
    kind = confirmable and coap.ACK or coap.NON, id = confirmable and request.id or coap.next_id(),
    code = code, token = request.token, observe = number, payload = payload,
  })
end

-- ── associations ──

io.stdout:setvbuf 'line'
local pem = read(identity)
local server = check(dtls.createServer {
  psk = find_key, cert = pem, key = pem, ca = read(ca), requestCert = pem and true, receiveTimeout = tonumber(seconds or 300) * 1000,
})

local function name_of(conn)
  if conn.pskIdentity then return conn.pskIdentity end
  local certificate = conn:getPeerCertificate()
  local name = certificate.subject.CN
  return type(name) == 'string' and name or certificate.fingerprint256 -- there may be none, or several
end

server:on('connection', function(conn)
  local device = { conn = conn, name = name_of(conn), observations = 0 }
  log(device, 'connected')
  conn:on('message', function(data) serve(device, data) end)
  conn:on('receiveTimeout', function() conn:close() end)
  -- A device that lost its power comes back from the same port, with a new association that takes the place of this one.
  conn:on('error', function(err) log(device, err.message) end)
  conn:on('close', function()
    forget_everywhere(function(observer) return observer.device == device end)
    log(device, 'closed')
  end)
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
