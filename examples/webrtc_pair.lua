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
-- SRTP's profiles by OpenSSL's names, the better one first (RFC 7714; RFC 8827 demands the other), and the bytes of their salts.
local PROFILES, KEY = { 'SRTP_AEAD_AES_128_GCM', 'SRTP_AES128_CM_SHA1_80' }, 16
local SALTS = { SRTP_AEAD_AES_128_GCM = 12, SRTP_AES128_CM_SHA1_80 = 14 }
local BEAT_MS = 50

-- ── what shares the port (RFC 7983): STUN's first byte is 0 or 1, that of media 128 to 191 ──

local REQUEST, RESPONSE, COOKIE = '\0\1', '\1\1', '\33\18\164\66' -- of the method Binding (RFC 8489)

-- Without the attributes that prove who asks and who answers: ICE has them.
local function stun(kind, transaction, attributes)
  return kind .. string.char(0, #attributes) .. COOKIE .. transaction .. attributes
end

-- XOR-MAPPED-ADDRESS (§14.2): where a request came from. This pair talks IPv4.
local function mapped(address)
  local plain = { math.floor(address.port / 256), address.port % 256, address.ip:match '^(%d+)%.(%d+)%.(%d+)%.(%d+)$' }
  local attribute, masks = '\0\32\0\8\0\1', { (COOKIE:sub(1, 2) .. COOKIE):byte(1, -1) }
  for i, mask in ipairs(masks) do attribute = attribute .. string.char(bit.bxor(plain[i], mask)) end
  return attribute
end

-- The transaction of a whole message of that kind.
local function transaction_untrusted(kind, data)
  local whole = #data >= 20 and #data == 20 + data:byte(3) * 256 + data:byte(4)
  return whole and data:sub(1, 2) == kind and data:sub(5, 8) == COOKIE and data:sub(9, 20) or nil
end

local function response_untrusted(data, address)
  local transaction = transaction_untrusted(REQUEST, data)
  return transaction and stun(RESPONSE, transaction, mapped(address))
end

-- What that role sends: RTP's header and what libsrtp would encrypt and authenticate.
local function media(sender)
  return '\128\96' .. ('\0'):rep(10) .. 'media of the ' .. sender
end

-- ── one peer, from before the handshake to the end ──

local function hex(bytes)
  return (bytes:gsub('.', function(byte) return ('%02x'):format(byte:byte()) end))
end

-- RFC 5764 §4.2: the client's key, the server's, the client's salt, the server's. libsrtp gets them; here the beginnings are shown.
local function show_keys(conn)
  local salt = check(SALTS[conn.srtpProfile], 'the other side has none of these SRTP profiles')
  local bytes = check(conn:exportKeyingMaterial(2 * (KEY + salt), 'EXTRACTOR-dtls_srtp'))
  local function begins(at) return hex(bytes:sub(at + 1, at + 4)) .. '…' end
  local client = begins(0) .. ' ' .. begins(2 * KEY)
  local server = begins(KEY) .. ' ' .. begins(2 * KEY + salt)
  if role == 'offer' then client, server = server, client end
  print(('%s: sends with %s, receives with %s'):format(conn.srtpProfile, client, server))
end

local function start(conn)
  local beat, transaction, seen, open = uv.new_timer(), uv.random(12), {}, false
  local theirs = role == 'offer' and media 'answer' or media 'offer'

  local function see(what)
    if not seen[what] then print(what) end
    seen[what] = true
    if role == 'answer' and seen['media came'] and seen['STUN answered after the handshake'] then conn:close() end
  end

  -- A check is repeated until it is answered. The first beat finds a client without a socket, and sends nothing.
  beat:start(0, BEAT_MS, function()
    conn:sendDatagram(stun(REQUEST, transaction, ''))
    if open and role == 'answer' then conn:sendDatagram(media(role)) end
  end)
  -- Nobody has proved who sent these: they are compared, and nothing in them is used.
  conn:on('datagram', function(data, address)
    local response = response_untrusted(data, address)
    if response then
      conn:sendDatagram(response)
    elseif transaction_untrusted(RESPONSE, data) == transaction then
      transaction = uv.random(12)
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

-- Calls back with the first line of standard input, or nil. luvit's is not for fs_read: it does not block.
local function read_line(callback)
  local kind = uv.guess_handle(0)
  if kind == 'file' then return callback(io.read()) end
  local input, rest = kind == 'tty' and uv.new_tty(0, true) or uv.new_pipe(false), ''
  if kind ~= 'tty' then check(input:open(0)) end
  input:read_start(function(_, data)
    rest = rest .. (data or '')
    local line = rest:match '^([^\n]*)\n'
    if data and not line then return end
    input:close()
    callback(line)
  end)
end

local function offer()
  local server = check(dtls.createServer {
    cert = identity.cert, key = identity.key, srtpProfiles = PROFILES, requestCert = true,
  })
  server:setBusy(true) -- until the answer is here, nobody gets in
  server:on('datagram', function(data, address)
    local response = response_untrusted(data, address)
    if response then server:sendDatagram(response, address) end
  end)
  server:on('accept', start)
  server:on('connection', function(conn)
    conn:on('close', function() server:close() end)
  end)
  check(server:listen(0, '127.0.0.1'))
  local address = server:address()
  print(('answer with: webrtc_pair.lua answer %s %d %s'):format(address.ip, address.port, identity.fingerprint))
  read_line(function(line)
    check(server:setContext { fingerprint = check((line or ''):match '%S+', 'no answer has come') })
    server:setBusy(false)
  end)
end

local function answer()
  print(identity.fingerprint)
  start(check(dtls.connect {
    host = ip, port = port, cert = identity.cert, key = identity.key, fingerprint = fingerprint, srtpProfiles = PROFILES,
    retransmitTimeout = 100, -- the other side may not know our fingerprint yet
  }))
end

if role == 'offer' then offer() else answer() end

if not luvit then uv.run() end -- luvit does it by itself
