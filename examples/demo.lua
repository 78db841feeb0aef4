-- A DTLS server and a client in one process and one event loop: `make demo`.
-- The server makes itself a certificate; the client trusts exactly that one, by its fingerprint.

local dtls = require 'dtls'

local luvit = rawget(_G, 'args') -- its command line
local uv = require(luvit and 'uv' or 'luv')

local MEASURE_MS, WINDOW, SIZE = 1500, 32, 100
local DEADLINE_MS = 20000

local function say(topic, ...)
  print(('%-10s'):format(topic) .. string.format(...))
end

local function fail(what)
  io.stderr:write('The demo failed: ', tostring(what), '.\n')
  os.exit(1)
end

local function check(value, err)
  return value or fail(err)
end

local deadline = uv.new_timer()
deadline:start(DEADLINE_MS, 0, function() fail('it is not done after ' .. DEADLINE_MS / 1000 .. ' seconds') end)

-- ── the server sends back what it gets ──

local identity = check(dtls.selfSigned { commonName = 'demo' })
local server = check(dtls.createServer { cert = identity.cert, key = identity.key })
server:on('clientError', fail)
server:on('connection', function(conn)
  conn:on('message', function(data) conn:send(data) end)
  conn:on('error', fail)
  conn:on('close', function() say('closed', 'the server\'s side') end)
end)
check(server:listen(0, '127.0.0.1'))

-- ── the client ──

local client = check(dtls.connect {
  host = '127.0.0.1', port = server:address().port, fingerprint = identity.fingerprint,
})
client:on('error', fail)

local function goodbye()
  client:close(function()
    say('closed', 'the client\'s side')
    server:close(function()
      say('closed', 'the server')
      deadline:close() -- the last handle: the loop ends by itself
    end)
  end)
end

-- Keeps WINDOW messages on their way for a while: each answer lets the next one go.
local function measure()
  local message = ('x'):rep(SIZE)
  local start, answers, inFlight = uv.hrtime(), 0, 0
  local function send()
    check(client:send(message))
    inFlight = inFlight + 1
  end
  client:on('message', function(data)
    if data ~= message then fail 'an answer is not what was sent' end
    answers, inFlight = answers + 1, inFlight - 1
    local ms = (uv.hrtime() - start) / 1e6
    if ms < MEASURE_MS then return send() end
    if inFlight > 0 then return end
    say('speed', '%d round trips of %d bytes in %.2f s: %d messages per second', answers, SIZE, ms / 1000, answers * 2000 / ms)
    goodbye()
  end)
  for _ = 1, WINDOW do send() end
end

client:on('connection', function()
  local stats, cipher = server:stats(), client:getCipher()
  if stats.cookiesAccepted < 1 then fail 'the server did not verify the client\'s address' end
  if not client.authorized then fail('the server could not prove who it is: ' .. client.authorizationError) end
  say('address', 'verified by cookie: %d sent, %d came back (before that, the server keeps nothing)',
    stats.cookiesSent, stats.cookiesAccepted)
  say('protocol', '%s', client:getProtocol())
  say('cipher', '%s, %d bits', cipher.name, cipher.bits)
  say('peer', 'authorized: its certificate has the pinned fingerprint')
  say('data MTU', '%d bytes is the longest message that fits one datagram', client:getDataMtu())

  client:once('message', function(answer)
    if answer ~= 'hello' then fail 'the answer is not what was sent' end
    say('message', '"hello" went there and back')
    measure()
  end)
  check(client:send('hello'))
end)

say('dtls', '%s with %s (%s)', dtls.VERSION, dtls.OPENSSL.text, dtls.OPENSSL.linkage)
say('server', '%s port %d, certificate %s…', server:address().ip, server:address().port, identity.fingerprint:sub(1, 23))

-- luvit runs the event loop after the script; luajit is told to.
if not luvit then
  uv.run()
  say('done', 'nothing is left open')
end
