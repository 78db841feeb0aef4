-- How events become calls: in a coroutine, read() waits for the next message and write() for room, nothing else does.
--   luvit coroutine.lua          a server and two clients in one program; luajit works as well

local dtls = require 'dtls'

local luvit = rawget(_G, 'args') -- its command line
local uv = require(luvit and 'uv' or 'luv')

local function check(value, err)
  if value then return value end
  io.stderr:write('coroutine: ', tostring(err), '\n')
  os.exit(1)
end

-- Messages that nobody has read yet; like a socket's buffer it loses what comes when it is full.
local LONGEST_QUEUE = 1000

-- Gives two functions. read() → message; nil at the end, with what went wrong if something did. write(message) → true,
-- or nil and what went wrong. One coroutine may read while another writes.
local function calls(conn)
  local queue, waiting, failure = {}, {}, nil

  -- Waits for what has this name.
  local function wait(name)
    waiting[name] = coroutine.running()
    coroutine.yield()
  end
  local function wake(name)
    local thread = waiting[name]
    waiting[name] = nil
    if thread then assert(coroutine.resume(thread)) end -- an error in it is reported like any listener's
  end

  conn:on('connection', function() wake 'room' end)
  conn:on('drain', function() wake 'room' end)
  conn:on('message', function(message)
    if #queue < LONGEST_QUEUE then queue[#queue + 1] = message end
    wake 'message'
  end)
  conn:on('receiveTimeout', function() conn:destroy 'nothing came' end)
  conn:on('error', function(err) failure = err end)
  conn:on('close', function()
    wake 'message'
    wake 'room'
  end)

  local function read()
    while not queue[1] and not conn.destroyed do wait 'message' end
    if queue[1] then return table.remove(queue, 1) end
    return nil, failure
  end

  local function write(message)
    while true do
      local ok, err = conn:send(message)
      local connecting = not ok and err.code == 'ENOTCONN' and not conn.destroyed
      if ok or not connecting and err.code ~= 'EAGAIN' and err.code ~= 'ENOBUFS' then return ok, failure or err end
      wait 'room'
    end
  end

  return read, write
end

-- ── what it is good for ──

local identity = check(dtls.selfSigned())
local server = check(dtls.createServer({ cert = identity.cert, key = identity.key }, function(conn)
  coroutine.wrap(function()
    local read, write = calls(conn)
    for message in read do write('you said ' .. message) end
    print 'server: the client has gone'
  end)()
end))
check(server:listen(0, '127.0.0.1'))

local function connect(fingerprint)
  local conn = check(dtls.connect {
    host = '127.0.0.1', port = server:address().port, fingerprint = fingerprint, receiveTimeout = 5000,
  })
  return conn, calls(conn)
end

coroutine.wrap(function()
  local conn, read, write = connect(identity.fingerprint)
  for _, word in ipairs { 'one', 'two', 'three' } do
    check(write(word)) -- the first one waits for the handshake
    print('client: ' .. check(read()))
  end
  conn:close()
  print('client: ' .. tostring(select(2, write 'too late')))

  local _, read_nothing = connect(('00'):rep(32))
  local message, err = read_nothing()
  print(('another client: %s, %s'):format(tostring(message), err.code))
  server:close()
end)()

if not luvit then uv.run() end -- luvit does it by itself
