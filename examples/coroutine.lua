-- Coroutines instead of events: read() waits for the next message and write() for room; nothing else does.
--   luvit coroutine.lua          a server and two clients in one program; luajit works as well

local coro = require 'dtls/coro'
local dtls = require 'dtls'

local luvit = rawget(_G, 'args') -- its command line
local uv = require(luvit and 'uv' or 'luv')

local function check(...)
  if (...) then return ... end
  io.stderr:write('coroutine: ', tostring((select(2, ...))), '\n')
  os.exit(1)
end

local identity = check(dtls.selfSigned())

-- Runs for each client, in a coroutine of its own. The connection is closed when it returns.
local function serve(read, write)
  for message in read do check(write('you said ' .. message)) end
  print 'server: the client has gone'
end

local server = check(coro.createServer({ cert = identity.cert, key = identity.key, host = '127.0.0.1', port = 0 }, serve))

local function connect(fingerprint)
  return coro.connect { host = '127.0.0.1', port = server:address().port, fingerprint = fingerprint }
end

coroutine.wrap(function()
  local read, write, conn = check(connect(identity.fingerprint))
  for _, word in ipairs { 'one', 'two', 'three' } do
    check(write(word))
    print('client: ' .. check(read(5000)))
  end
  conn:close()
  print('client: ' .. tostring(select(2, write 'too late')))

  local other, err = connect(('00'):rep(32))
  print(('another client: %s, %s'):format(tostring(other), err.code))
  server:close()
end)()

if not luvit then uv.run() end -- luvit does it by itself
