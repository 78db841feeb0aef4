-- Syslog over DTLS (RFC 6012): a receiver and a sender that know each other's certificates by their fingerprints.
--   luvit syslog.lua identity NAME                            makes NAME.pem, and prints its fingerprint
--   luvit syslog.lua receive NAME FINGERPRINT [port [host]]   prints what the sender with that fingerprint has to say
--   luvit syslog.lua send NAME FINGERPRINT [port [host]]      sends each line of its input to the receiver
-- luajit works as well.

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

-- A message of DTLS is one or more of syslog's, each with its length in front (RFC 6012 §5.4).
local function each_untrusted(data, callback)
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
    local who = conn:getPeerCertificate().subject.CN
    print('-- connected: ' .. who)
    conn:on('message', function(data)
      if not each_untrusted(data, show) then print('-- no syslog message from ' .. who) end
    end)
    conn:on('error', function(err) print('-- ' .. who .. ': ' .. err.message) end)
    conn:on('close', function() print('-- closed: ' .. who) end)
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

-- Calls back with each line of standard input, and with nil at its end. Nothing else waits for a terminal or a pipe.
local function read_lines(callback)
  local rest = ''
  local function received(err, data)
    check(not err, err)
    local lines = rest .. (data or '\n')
    for line in lines:gmatch '([^\n]+)\n' do callback(line) end
    rest = lines:match '[^\n]*$'
    if not data then callback(nil) end
  end
  local kind = uv.guess_handle(0)
  if kind == 'file' then
    received(nil, io.read '*a')
    return received(nil, nil)
  end
  local input = kind == 'tty' and uv.new_tty(0, true) or uv.new_pipe(false)
  if kind ~= 'tty' then check(input:open(0)) end
  input:read_start(received)
end

local function send()
  local pem = read_identity()
  local conn = check(dtls.connect { host = host, port = port, cert = pem, key = pem, fingerprint = fingerprint })
  local done
  conn:on('connection', function()
    read_lines(function(line)
      done = not line
      if done then return conn:close() end
      local ok, err = conn:send(compose(line, conn:getDataMtu()))
      if not ok then io.stderr:write('syslog: lost: ' .. err .. '\n') end
    end)
  end)
  conn:on('error', function(err) check(nil, err) end)
  conn:on('close', function() check(done, 'the receiver has closed') end)
end

local run = ({ identity = make_identity, receive = receive, send = send })[command]
check(run and (fingerprint or run == make_identity and name),
  'usage: syslog.lua identity NAME, or syslog.lua receive|send NAME FINGERPRINT [port [host]]')
run()

if not luvit then uv.run() end -- luvit does it by itself
