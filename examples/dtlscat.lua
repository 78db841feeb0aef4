-- netcat over DTLS: what comes in on standard input goes to the peer, what the peer sends to standard output.

local HELP = [[
usage: dtlscat.lua [options] host port        connects
       dtlscat.lua [options] -l [host] port   waits for one peer; port 0 is any free one

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
  -q SECONDS            after the end of standard input, wait this long for the peer to
                        close (default 0; negative: for ever)
  --help                this text

A line from a terminal is one message. What comes from a pipe or a file is cut into messages
that fit a datagram. Like every datagram, they can get lost.
Exit status: 0 done, 1 something failed, 2 wrong usage.
]]

local dtls = require 'dtls'

-- luvit has its command line, itself included, in `args`; luajit has the script's in `arg`.
local luvit = rawget(_G, 'args')
local uv = require(luvit and 'uv' or 'luv')
local arguments = { unpack(luvit or arg, luvit and 2 or 1) }

local function note(text, ...)
  io.stderr:write(('dtlscat: ' .. text .. '\n'):format(...))
end

local function fail(err)
  note('%s', type(err) == 'table' and err.message or err)
  os.exit(1)
end

-- ── the command line ──

local function misused(...)
  note(...)
  note('--help explains the options')
  os.exit(2)
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

local FLAGS = { ['-l'] = true, ['--insecure'] = true }

local VALUES = {
  ['--fingerprint'] = function(name, text)
    fromHex(name, text, 32)
    return text
  end,
  ['--ca'] = readFile, ['--cert'] = readFile, ['--key'] = readFile,
  ['--servername'] = function(_, text) return text end,
  ['--psk-identity'] = function(_, text) return text end,
  ['--psk-key'] = fromHex,
  ['-q'] = function(name, text) return tonumber(text) or misused('%s: expected a number of seconds', name) end,
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
}
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

-- Calls onData(text) again and again, and then onEnd(). Returns a function that stops it.
local function readInput(onData, onEnd)
  local stream, stopped = openStream(0), false
  local function received(err, data)
    if stopped then return end
    if err then note('standard input: %s', err) end
    if err or not data or data == '' then return onEnd() end
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

-- ── the conversation ──

-- There is no connection when not even a socket could be had for it.
local function describe(conn)
  if not conn then return 'a client' end
  local address = conn:remoteAddress()
  return ('%s port %d'):format(address.ip, address.port)
end

-- `conn` is open. Calls finished() when it is closed and everything is written.
local function talk(conn, finished)
  local write, finish = openOutput()
  local authorized, reason = conn:authorized()
  note('connected to %s with %s, %s', describe(conn), conn:getCipher().name,
    authorized and 'authorized' or 'not authorized: ' .. reason)

  local limit = conn:getDataMtu()
  local function send(text)
    for i = 1, #text, limit do
      local ok, err = conn:send(text:sub(i, i + limit - 1))
      if not ok then note('a message was not sent: %s', err.message) end
    end
  end

  local patience, interrupt = uv.new_timer(), uv.new_signal()
  local function close() conn:close() end -- says close_notify
  local function inputEnded()
    local wait = given['-q'] or 0
    if wait >= 0 then patience:start(wait * 1000, 0, close) end
  end
  local stopInput = readInput(send, inputEnded)
  interrupt:start('sigint', close)

  conn:on('message', write)
  conn:on('close', function()
    stopInput()
    patience:close()
    interrupt:close()
    finish(finished)
  end)
end

local function listen()
  local server, err = dtls.createServer(serverOptions())
  if not server then fail(err) end
  local ok
  ok, err = server:listen(port, host)
  if not ok then fail(err) end
  note('listening on %s port %d', server:address().ip, server:address().port)

  local failed = false
  server:on('clientError', function(why, conn) note('%s did not get in: %s', describe(conn), why.message) end)
  server:on('connection', function(conn)
    conn:on('error', function(why)
      note('%s', why.message)
      failed = true
    end)
    talk(conn, function()
      server:close(function()
        if failed then os.exit(1) end
      end)
    end)
  end)
end

local function connect()
  local conn, err = dtls.connect(clientOptions())
  if not conn then fail(err) end
  local failed, talking = false, false
  local function finished()
    if failed then os.exit(1) end
  end
  conn:on('error', function(why)
    note('%s', why.message)
    failed = true
  end)
  conn:on('connection', function()
    talking = true
    talk(conn, finished)
  end)
  conn:on('close', function()
    if not talking then finished() end
  end)
end

if listening then listen() else connect() end

if not luvit then uv.run() end -- luvit does it by itself
