-- Two peers as of WebRTC: each knows the other's certificate by its fingerprint alone; STUN, DTLS and media share a port.
--   luvit webrtc_pair.lua offer                            prints how to answer it, and reads the answer's fingerprint
--   luvit webrtc_pair.lua answer IP PORT FINGERPRINT       prints its own fingerprint, for the other's input
-- What is printed and read here is what goes through signalling (SDP) otherwise. luajit works as well.

local dtls = require 'dtls'

local luvit = rawget(_G, 'args')
local uv = require(luvit and 'uv' or 'luv')
local role, ip, port, fingerprint = unpack(luvit or arg, luvit and 2 or 1)

local function check(value, err)
  if value then return value end
  io.stderr:write('webrtc_pair: ', tostring(err), '\n')
  os.exit(1)
end

check(role == 'offer' or fingerprint, 'usage: webrtc_pair.lua offer, or webrtc_pair.lua answer IP PORT FINGERPRINT')
io.stdout:setvbuf 'line'

local identity = check(dtls.selfSigned())
local PROFILE, KEY, SALT = 'SRTP_AEAD_AES_128_GCM', 16, 12 -- bytes (RFC 7714)
local BEAT_MS = 50

-- ── what shares the port (RFC 7983): STUN's first byte is 0 or 1, that of media 128 to 191 ──

local REQUEST, RESPONSE = '\0\1', '\1\1' -- of the method Binding (RFC 8489)

-- Without attributes: the real ones authenticate it.
local function stun(kind, transaction)
  return kind .. '\0\0' .. '\33\18\164\66' .. transaction
end

local function response_untrusted(data)
  local transaction = data:sub(9, 20)
  return data == stun(REQUEST, transaction) and stun(RESPONSE, transaction)
end

-- What that role sends: RTP's header and what libsrtp would encrypt and authenticate.
local function media(sender)
  return '\128\96' .. ('\0'):rep(10) .. 'media of the ' .. sender
end

-- ── one peer, from before the handshake to the end ──

local function hex(bytes)
  return (bytes:gsub('.', function(byte) return ('%02x'):format(byte:byte()) end))
end

-- RFC 5764 §4.2: the client's key, the server's, the client's salt, the server's. libsrtp gets them, and nobody sees them.
local function show_keys(conn)
  check(conn.srtpProfile == PROFILE, 'the other side has no such SRTP profile')
  local bytes = check(conn:exportKeyingMaterial(2 * (KEY + SALT), 'EXTRACTOR-dtls_srtp'))
  local client, server = bytes:sub(1, KEY), bytes:sub(KEY + 1, 2 * KEY)
  if role == 'offer' then client, server = server, client end
  print(('%s: sends with %s…, receives with %s…'):format(PROFILE, hex(client:sub(1, 4)), hex(server:sub(1, 4))))
end

local function start(conn)
  local beat, checks, seen, open = uv.new_timer(), {}, {}, false
  local theirs = role == 'offer' and media 'answer' or media 'offer'

  local function see(what)
    if not seen[what] then print(what) end
    seen[what] = true
    if role == 'answer' and seen['media came'] and seen['STUN answered after the handshake'] then conn:close() end
  end

  -- The first beat finds a client without a socket, and sends nothing.
  beat:start(0, BEAT_MS, function()
    local transaction = uv.random(12)
    checks[transaction] = true
    conn:sendDatagram(stun(REQUEST, transaction))
    if open and role == 'answer' then conn:sendDatagram(media(role)) end
  end)
  -- Nobody has proved who sent these: they are compared, and nothing in them is used.
  conn:on('datagram', function(data)
    local response, transaction = response_untrusted(data), data:sub(9, 20)
    if response then
      conn:sendDatagram(response)
    elseif checks[transaction] and data == stun(RESPONSE, transaction) then
      see(open and 'STUN answered after the handshake' or 'STUN answered before the handshake')
    elseif open and data == theirs then
      see 'media came'
      if role == 'offer' then conn:sendDatagram(media(role)) end
    end
  end)
  conn:on('connection', function()
    open = true
    show_keys(conn)
  end)
  conn:on('error', function(err) io.stderr:write('webrtc_pair: ' .. err .. '\n') end)
  conn:on('close', function(failed)
    beat:close()
    if failed and role == 'answer' then os.exit(1) end
    print 'closed'
  end)
end

local function offer()
  local server = check(dtls.createServer {
    cert = identity.cert, key = identity.key, srtpProfiles = PROFILE, requestCert = true,
  })
  server:setBusy(true) -- until the answer is here, nobody gets in
  server:on('datagram', function(data, address)
    local response = response_untrusted(data)
    if response then server:sendDatagram(response, address) end
  end)
  server:on('accept', start)
  server:on('connection', function(conn)
    conn:on('close', function() server:close() end)
  end)
  check(server:listen(0, '127.0.0.1'))
  local address = server:address()
  print(('answer with: webrtc_pair.lua answer %s %d %s'):format(address.ip, address.port, identity.fingerprint))
  uv.fs_read(0, 4096, -1, function(_, line)
    check(server:setContext { fingerprint = check((line or ''):match '%S+', 'no answer has come') })
    server:setBusy(false)
  end)
end

local function answer()
  print(identity.fingerprint)
  start(check(dtls.connect {
    host = ip, port = port, cert = identity.cert, key = identity.key, fingerprint = fingerprint, srtpProfiles = PROFILE,
    retransmitTimeout = 100, -- the other side may not know our fingerprint yet
  }))
end

if role == 'offer' then offer() else answer() end

if not luvit then uv.run() end -- luvit does it by itself
