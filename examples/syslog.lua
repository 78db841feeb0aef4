-- Syslog over DTLS (RFC 6012): a receiver and a sender that know each other's certificates by their fingerprints.
--   luvit syslog.lua identity NAME                            makes NAME.pem, and prints its fingerprint
--   luvit syslog.lua receive NAME FINGERPRINT [port [host]]   prints what the sender with that fingerprint has to say
--   luvit syslog.lua send NAME FINGERPRINT [port [host]]      sends each line of its input to the receiver
-- luajit works as well.

local coro = require 'dtls/coro'
local dtls = require 'dtls'

local luvit = rawget(_G, 'args')
local uv = require(luvit and 'uv' or 'luv')
local command, name, fingerprint, port, host = unpack(luvit or arg, luvit and 2 or 1)
port, host = port or 6514, host or '127.0.0.1'

local function check(value, err)
  if value then return value end
  io.stderr:write('syslog: ', tostring(err), '\n')
  os.exit(1)
end

io.stdout:setvbuf 'line'

-- NAME may be a path; its last part goes into the certificate and into messages.
local program = name and name:match '[^/]*$'

local function make_identity()
  local identity = check(dtls.selfSigned { commonName = program, days = 365 })
  local file = check(uv.fs_open(name .. '.pem', 'wx', 384)) -- 0600
  check(uv.fs_write(file, identity.cert .. identity.key, 0))
  uv.fs_close(file)
  print(identity.fingerprint)
end

-- PEM text with a certificate and its key serves as either.
local function read_identity()
  local file = check(io.open(name .. '.pem'))
  local pem = file:read '*a'
  file:close()
  return pem
end

-- ── the receiver ──

-- A message of DTLS is one or more of syslog's, each with its length in front (RFC 6012 §5.4). That of rsyslog's omdtls is one
-- without a length.
local function each_untrusted(data, callback)
  if data:find '^<%d+>' then
    callback(data)
    return true
  end
  while data ~= '' do
    local length, rest = data:match '^([1-9]%d?%d?%d?%d?) (.*)$'
    length = tonumber(length)
    if not length or length > #rest then return false end
    callback(rest:sub(1, length))
    data = rest:sub(length + 1)
  end
  return true
end

-- What a terminal might take for commands is not printed.
local function show(message)
  print((message:gsub('%c', '?')))
end

local function receive()
  local pem = read_identity()
  local server = check(dtls.createServer { cert = pem, key = pem, requestCert = true, fingerprint = fingerprint })
  server:on('connection', function(conn)
    local title = conn:getPeerCertificate().subject.CN
    local who = type(title) == 'string' and title or fingerprint -- there may be none, or several
    show('-- connected: ' .. who)
    conn:on('message', function(data)
      if not each_untrusted(data, show) then show('-- no syslog message from ' .. who) end
    end)
    conn:on('error', function(err) show('-- ' .. who .. ': ' .. err.message) end)
    conn:on('close', function() show('-- closed: ' .. who) end)
  end)
  server:on('clientError', function(err) print('-- did not get in: ' .. err.message) end)
  check(server:listen(port, host))
  print('-- listening on port ' .. server:address().port)
  local interrupt = uv.new_signal()
  interrupt:start('sigint', function()
    interrupt:close()
    server:close()
  end)
end

-- ── the sender ──

-- RFC 5424: 13 is facility user, severity notice. What does not fit a datagram is cut off.
local function compose(text, longest)
  local message = ('<13>1 %s %s %s - - - %s'):format(os.date '!%Y-%m-%dT%H:%M:%SZ', uv.os_gethostname(), program, text)
  message = message:sub(1, longest - #'65535 ')
  return #message .. ' ' .. message
end

-- What gives standard input piece by piece, and nil at its end, to the coroutine that called this. Nothing but `read_start` waits
-- for a terminal or a pipe.
local function pieces()
  local kind = uv.guess_handle(0)
  if kind == 'file' then return function() return io.read(4096) end end
  local waiting, input = coroutine.running(), kind == 'tty' and uv.new_tty(0, true) or uv.new_pipe(false)
  if kind ~= 'tty' then check(input:open(0)) end
  local function received(err, data)
    check(not err, err)
    input:read_stop()
    check(coroutine.resume(waiting, data))
  end
  return function()
    input:read_start(received)
    return coroutine.yield()
  end
end

-- How often the socket had no room. `write` tries again; the end does not.
local function dropped(conn)
  local drops = conn:stats().drops
  return (drops.EAGAIN or 0) + (drops.ENOBUFS or 0)
end

-- `write` waits while the socket is full, and nothing is read meanwhile.
local function send()
  local pem = read_identity()
  local read, write, conn = coro.connect { host = host, port = port, cert = pem, key = pem, fingerprint = fingerprint }
  check(read, write)
  local before -- the end: how often the socket had no room
  conn:on('error', function(err) check(nil, err) end)
  conn:on('close', function()
    check(before, 'the receiver has closed')
    check(dropped(conn) == before, 'the socket was full at the end, and the last messages may be lost')
  end)
  local rest = ''
  for piece in pieces() do
    local text = rest .. piece
    for line in text:gmatch '([^\n]+)\n' do check(write(compose(line, conn:getDataMtu()))) end
    rest = text:match '[^\n]*$'
  end
  if rest ~= '' then check(write(compose(rest, conn:getDataMtu()))) end
  before = dropped(conn)
  write()
end

local run = ({ identity = make_identity, receive = receive, send = coroutine.wrap(send) })[command]
check(run and (fingerprint or run == make_identity and name),
  'usage: syslog.lua identity NAME, or syslog.lua receive|send NAME FINGERPRINT [port [host]]')
run()

if not luvit then uv.run() end -- luvit does it by itself
