-- netcat over DTLS: what comes in on standard input goes to the peer, what the peer sends to standard output.

local HELP = [[
usage: dtlscat [options] host port        connects
       dtlscat [options] -l [host] port   waits for one peer; port 0 is any free one

  -l                    listen; without --cert and --psk-key a certificate is made for this
                        run, and its fingerprint is printed for the peer
  --fingerprint HEX     the peer's certificate is the one with this SHA-256, and no other
  --ca FILE             authorities (PEM) that may have signed the peer's certificate
  --servername NAME     the name in the server's certificate, if it is not the host's
  --insecure            talk to anybody; the certificate is not checked
  --cert FILE           our certificate (PEM), with ...
  --key FILE            ... its private key
  --psk-identity NAME   a pre-shared key in place of certificates: its name, and ...
  --psk-key HEX         ... the key
  --alpn NAME,NAME      application protocols, of which both sides must have one (RFC 7301)
  --mtu BYTES           no datagram is longer, 228 or more (default 1228)
  --keylog FILE         append the session's keys, in the format of SSLKEYLOGFILE
  -q SECONDS            after the end of standard input, wait this long for the peer to
                        close (negative: for ever; default 0, but for ever with -l when
                        standard input was empty)
  -w SECONDS            give up when there is no connection within this time, or when
                        nothing was sent or received for so long
  -v                    show the handshake: addresses, cookie, cipher, certificate, MTU,
                        repeated flights; and what was counted at the end
  -p                    show how many bytes have been sent and received, and how fast, while
                        standard error is a terminal
  --help                this text

A line from a terminal is one message. What comes from a pipe or a file is cut into messages
that fit a datagram. Like every datagram, they can get lost.
SIGINT and SIGTERM close the connection with a close_notify.

Exit status:
  0  there was a connection, and it was closed: by either side, or by a signal
  1  there was none, or it failed
  2  the command line is wrong
  3  time is up: -w, or 30 seconds for a handshake
A signal ends a dtlscat that has no connection yet in the usual way (130, 143 in a shell).
]]

local dtls = require 'dtls'

-- luvit has its command line, itself included, in `args`; luajit has the script's in `arg`.
local luvit = rawget(_G, 'args')
local uv = require(luvit and 'uv' or 'luv')
local arguments = { unpack(luvit or arg, luvit and 2 or 1) }

-- On a terminal the last line may show the progress: what is said begins by clearing it.
local clear = ''
local function note(text, ...)
  io.stderr:write((clear .. 'dtlscat: ' .. text .. '\n'):format(...))
end

local FAILED, MISUSED, EXPIRED = 1, 2, 3

local function fail(err)
  note('%s', type(err) == 'table' and err.message or err)
  os.exit(FAILED)
end

-- ── the command line ──

local function misused(...)
  note(...)
  note('--help explains the options')
  os.exit(MISUSED)
end

local function fromHex(name, text, bytes)
  local hex = text:gsub(':', '')
  if hex == '' or hex:find '%X' or #hex % 2 == 1 or (bytes and #hex ~= 2 * bytes) then
    misused('%s: expected %shexadecimal digits', name, bytes and 2 * bytes .. ' ' or 'pairs of ')
  end
  return (hex:gsub('%x%x', function(byte) return string.char(tonumber(byte, 16)) end))
end

local function readFile(name, path)
  local file, err = io.open(path)
  if not file then misused('%s: %s', name, err) end
  local text = file:read '*a'
  file:close()
  return text
end

local function seconds(name, text)
  return tonumber(text) or misused('%s: expected a number of seconds', name)
end

local FLAGS = { ['-l'] = true, ['-v'] = true, ['-p'] = true, ['--insecure'] = true }

local VALUES = {
  ['--fingerprint'] = function(name, text)
    fromHex(name, text, 32)
    return text
  end,
  ['--ca'] = readFile, ['--cert'] = readFile, ['--key'] = readFile,
  ['--servername'] = function(_, text) return text end,
  ['--psk-identity'] = function(_, text) return text end,
  ['--psk-key'] = fromHex,
  ['--alpn'] = function(_, text)
    local names = {}
    for name in (text .. ','):gmatch '(.-),' do names[#names + 1] = name end
    return names
  end,
  ['--mtu'] = function(name, text) return tonumber(text) or misused('%s: expected a number of bytes', name) end,
  ['--keylog'] = function(_, text) return text end,
  ['-q'] = seconds,
  ['-w'] = function(name, text)
    local wait = seconds(name, text)
    if wait < 0.001 then misused('%s: expected more than 0 seconds', name) end
    return wait
  end,
}

local given, place = {}, {}
do
  local i = 1
  while arguments[i] do
    local name = arguments[i]
    if name == '--help' then
      io.stdout:write(HELP)
      os.exit(0)
    elseif FLAGS[name] then
      given[name] = true
    elseif VALUES[name] then
      i = i + 1
      if not arguments[i] then misused('%s: expected a value', name) end
      given[name] = VALUES[name](name, arguments[i])
    elseif name:sub(1, 1) == '-' then
      misused('unknown option %s', name)
    else
      place[#place + 1] = name
    end
    i = i + 1
  end
end

local listening = given['-l']
if listening and #place == 1 then table.insert(place, 1, '0.0.0.0') end
if #place ~= 2 then misused('expected %s', listening and '[host] port' or 'host port') end
local host, port = place[1], tonumber(place[2])
if not port or port % 1 ~= 0 or port < (listening and 0 or 1) or port > 65535 then misused('%s is not a port', place[2]) end
for _, pair in ipairs { { '--cert', '--key' }, { '--psk-identity', '--psk-key' } } do
  if (given[pair[1]] == nil) ~= (given[pair[2]] == nil) then misused('%s and %s come together', unpack(pair)) end
end
if listening and given['--servername'] then misused('--servername is for the side that connects') end

-- ── what both sides are made from ──

local options = {
  cert = given['--cert'], key = given['--key'], ca = given['--ca'], fingerprint = given['--fingerprint'],
  ALPNProtocols = given['--alpn'], mtu = given['--mtu'], keylog = given['--keylog'],
}
local limit = given['-w'] and math.floor(given['-w'] * 1000)
if limit then options.handshakeTimeout, options.timeout = limit, limit end
if given['--insecure'] then options.rejectUnauthorized = false end

local function serverOptions()
  local identity, key = given['--psk-identity'], given['--psk-key']
  if key then options.psk = { [identity] = key } end
  if not key and not options.cert then
    local pair = dtls.selfSigned()
    options.cert, options.key = pair.cert, pair.key
    note('fingerprint %s', pair.fingerprint)
  end
  -- A peer that is to be checked needs a certificate of its own.
  if options.ca or options.fingerprint then options.requestCert = true end
  options.maxConnections = 1
  return options
end

local function clientOptions()
  if given['--psk-key'] then options.psk = { identity = given['--psk-identity'], key = given['--psk-key'] } end
  options.host, options.port, options.servername = host, port, given['--servername']
  return options
end

-- ── standard input and output: terminals and pipes are streams of the event loop, files are not ──

local function openStream(fd)
  local kind = uv.guess_handle(fd)
  if kind == 'tty' then return uv.new_tty(fd, fd == 0) end
  if kind ~= 'pipe' then return nil end
  local pipe = uv.new_pipe(false)
  pipe:open(fd)
  return pipe
end

-- Calls onData(text) again and again, and then onEnd(empty). Returns a function that stops it.
local function readInput(onData, onEnd)
  local stream, stopped, empty = openStream(0), false, true
  local function received(err, data)
    if stopped then return end
    if err then note('standard input: %s', err) end
    if err or not data or data == '' then return onEnd(empty) end
    empty = false
    onData(data)
    return true
  end
  local function readFileOn(...)
    if received(...) then uv.fs_read(0, 4096, -1, readFileOn) end
  end
  if stream then stream:read_start(received) else uv.fs_read(0, 4096, -1, readFileOn) end
  return function()
    if stream and not stopped then stream:close() end
    stopped = true
  end
end

-- Returns write(text), and finish(callback), which waits until everything is written.
local function openOutput()
  local stream = openStream(1)
  local function written(err)
    if err then fail('standard output: ' .. err) end
  end
  local function write(text)
    if stream then return stream:write(text, written) end
    local ok, err = uv.fs_write(1, text, -1)
    if not ok then written(err) end
  end
  local function finish(callback)
    if not stream then return callback() end
    stream:shutdown(function() stream:close(callback) end)
  end
  return write, finish
end

-- ── what is said about a connection ──

local function show(address)
  return ('%s port %d'):format(address.ip, address.port)
end

-- There is no connection when not even a socket could be had for it.
local function describe(conn)
  return conn and show(conn:remoteAddress()) or 'a client'
end

local function detail(...)
  if given['-v'] then note(...) end
end

-- A listener that does not ask for certificates knows nobody, and has not meant to.
local function standing(conn)
  if listening and not (options.psk or options.requestCert) then return '' end
  return conn.authorized and ', authorized' or ', not authorized: ' .. conn.authorizationError
end

local function showCounts(conn)
  local stats, drops = conn:stats(), {}
  for reason, count in pairs(stats.drops) do
    if count > 0 then drops[#drops + 1] = ('%d %s'):format(count, reason) end
  end
  table.sort(drops)
  detail('datagrams: %d sent, %d received, dropped: %s; flights repeated: %d', stats.datagramsOut or 0, stats.datagramsIn or 0,
    drops[1] and table.concat(drops, ', ') or 'none', stats.retransmits or 0)
end

local function showHandshake(conn)
  local cipher, certificate, stats = conn:getCipher(), conn:getPeerCertificate(), conn:stats()
  detail('handshake: %d ms, from %s to %s', stats.connectedAt - stats.createdAt, show(conn:localAddress()), describe(conn))
  detail('%s, cipher %s, %d bits', conn:getProtocol(), cipher.standardName, cipher.bits)
  if certificate then
    detail('certificate: %s, for %s, valid from %s to %s, fingerprint %s', certificate.subject.CN or 'without a common name',
      certificate.subjectaltname or 'no name', certificate.valid_from, certificate.valid_to, certificate.fingerprint256)
  elseif conn.pskIdentity then
    detail('pre-shared key: %s', conn.pskIdentity)
  else
    detail('certificate: none')
  end
  if conn.servername then detail('name asked for: %s', conn.servername) end
  if conn.alpnProtocol then detail('application protocol: %s', conn.alpnProtocol) end
  detail('MTU: messages of up to %d bytes', conn:getDataMtu())
  showCounts(conn)
end

-- ── the progress ──

local PROGRESS_MS = 500

-- '1.2 MB'
local function size(bytes)
  for _, unit in ipairs { 'bytes', 'kB', 'MB', 'GB' } do
    if bytes < 1000 or unit == 'GB' then return (unit == 'bytes' and '%d %s' or '%.1f %s'):format(bytes, unit) end
    bytes = bytes / 1000
  end
end

-- Shows from now on what of `counts`, {sent=, received=}, has changed. Returns a function that ends it.
local function showProgress(counts)
  if not given['-p'] or uv.guess_handle(2) ~= 'tty' then return function() end end
  clear = '\r\27[K'
  local timer, began = uv.new_timer(), uv.hrtime()
  local last, last_time = { sent = 0, received = 0 }, began
  local function line(since, since_time)
    local elapsed = (uv.hrtime() - since_time) / 1e9
    local function side(name) return ('%s %s, %s/s'):format(size(counts[name]), name, size((counts[name] - since[name]) / elapsed)) end
    return side 'sent' .. '; ' .. side 'received'
  end
  timer:start(PROGRESS_MS, PROGRESS_MS, function()
    io.stderr:write(clear .. line(last, last_time))
    last, last_time = { sent = counts.sent, received = counts.received }, uv.hrtime()
  end)
  return function()
    timer:close()
    note('%s, in %.1f s', line({ sent = 0, received = 0 }, began), (uv.hrtime() - began) / 1e9)
    clear = ''
  end
end

-- ── the conversation ──

local status = 0

local function failed(err)
  note('%s', err.message)
  status = err.code == 'ERR_DTLS_HANDSHAKE_TIMEOUT' and EXPIRED or FAILED
end

local function finished()
  if status ~= 0 then os.exit(status) end
end

-- `conn` is open. Calls done() when it is closed and everything is written.
local function talk(conn, done)
  local write, finish = openOutput()
  note('connected to %s with %s%s', describe(conn), conn:getCipher().name, standing(conn))
  showHandshake(conn)

  local longest, counts = conn:getDataMtu(), { sent = 0, received = 0 }
  local endProgress = showProgress(counts)
  local function send(text)
    for i = 1, #text, longest do
      local message = text:sub(i, i + longest - 1)
      local ok, err = conn:send(message)
      if ok then counts.sent = counts.sent + #message else note('a message was not sent: %s', err.message) end
    end
  end

  local patience = uv.new_timer()
  local function close() conn:close() end -- says close_notify
  local function inputEnded(empty)
    -- A listener in the background has nothing to say, and is there to hear.
    local wait = given['-q'] or (listening and empty and -1 or 0)
    if wait >= 0 then patience:start(wait * 1000, 0, close) end
  end
  local stopInput = readInput(send, inputEnded)
  local handles = { patience }
  for _, name in ipairs { 'sigint', 'sigterm' } do
    local signal = uv.new_signal()
    signal:start(name, close)
    handles[#handles + 1] = signal
  end

  conn:on('message', function(data)
    counts.received = counts.received + #data
    write(data)
  end)
  conn:on('timeout', function()
    note('nothing was sent or received for %g seconds', given['-w'])
    status = EXPIRED
    close()
  end)
  conn:on('close', function()
    endProgress()
    showCounts(conn)
    stopInput()
    for _, handle in ipairs(handles) do handle:close() end
    finish(done)
  end)
end

-- Ends a listener that nobody has connected to. Returns what calls that off.
local function expectPeer()
  if not limit then return function() end end
  local timer = uv.new_timer()
  timer:start(limit, 0, function()
    note('nobody connected within %g seconds', given['-w'])
    os.exit(EXPIRED)
  end)
  return function()
    if not timer:is_closing() then timer:close() end
  end
end

local function listen()
  local server, err = dtls.createServer(serverOptions())
  if not server then fail(err) end
  local ok
  ok, err = server:listen(port, host)
  if not ok then fail(err) end
  note('listening on %s', show(server:address()))

  local peerCame = expectPeer()
  server:on('accept', function(conn) detail('%s has a good cookie, its handshake begins', describe(conn)) end)
  server:on('clientError', function(why, conn)
    note('%s did not get in: %s', describe(conn), why.message)
    if conn then showCounts(conn) end
  end)
  server:on('connection', function(conn)
    peerCame()
    conn:on('error', failed)
    talk(conn, function() server:close(finished) end)
  end)
end

local function connect()
  local conn, err = dtls.connect(clientOptions())
  if not conn then fail(err) end
  detail('looking for %s port %d', host, port)
  local talking = false
  conn:on('error', failed)
  conn:on('connection', function()
    talking = true
    talk(conn, finished)
  end)
  conn:on('close', function()
    if talking then return end
    showCounts(conn)
    finished()
  end)
end

if listening then listen() else connect() end

if not luvit then uv.run() end -- luvit does it by itself
