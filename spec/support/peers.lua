--- The other side: the DTLS programs of OpenSSL and GnuTLS, each behind the same few calls.

local process = require 'spec.support.process'

local peers = { names = { 'openssl', 'gnutls' } }

local Peer = {}
Peer.__index = Peer

local function list(...)
  local all = {}
  for i = 1, select('#', ...) do
    for _, each in ipairs((select(i, ...))) do all[#all + 1] = each end
  end
  return all
end

-- The arguments of those options that are given.
local function given(options, translation)
  local all = {}
  for _, entry in ipairs(translation) do
    local value = options[entry[1]]
    if value then
      for _, text in ipairs(entry[2]) do all[#all + 1] = text:gsub('%%s', function() return tostring(value) end) end
    end
  end
  return all
end

local function hex(bytes)
  return (bytes:gsub('.', function(byte) return ('%02x'):format(byte:byte()) end))
end

local function bracketed(ip, port)
  return ('%s:%d'):format(ip:find(':', 1, true) and '[' .. ip .. ']' or ip, port)
end

local kinds = { openssl = {}, gnutls = {} }

-- ── OpenSSL ──

local openssl = {
  { 'cert', { '-cert', '%s', '-cert_chain', '%s' } }, { 'key', { '-key', '%s' } }, { 'ca', { '-CAfile', '%s' } },
  { 'ciphers', { '-cipher', '%s' } }, { 'mtu', { '-mtu', '%s' } },
  { 'saves', { '-sess_out', '%s' } }, { 'resumes', { '-sess_in', '%s' } }, { 'noTickets', { '-no_ticket' } },
  { 'exports', { '-keymatexport', '%s', '-keymatexportlen', '60' } },
}

local function opensslExtensions(options)
  return list(
    options.alpn and { '-alpn', table.concat(options.alpn, ',') } or {},
    options.srtp and { '-use_srtp', table.concat(options.srtp, ':') } or {})
end

-- Its programs take a raw public key out of a certificate.
local function opensslRaw(raw)
  return raw and { '-cert', raw.cert, '-key', raw.key, '-enable_client_rpk', '-enable_server_rpk' } or {}
end

function kinds.openssl.client(options)
  return 'openssl', list(
    { 's_client', '-dtls1_2', '-connect', bracketed(options.ip, options.port) },
    given(options, openssl),
    opensslExtensions(options),
    opensslRaw(options.raw),
    options.servername and { '-servername', options.servername } or { '-noservername' },
    options.ca and { '-verify_return_error' } or {},
    options.ca and options.servername and { '-verify_hostname', options.servername } or {},
    options.psk and { '-psk_identity', options.psk.identity, '-psk', hex(options.psk.key) } or {})
end

function kinds.openssl.server(options)
  return 'openssl', list(
    { 's_server', '-dtls1_2', '-accept', bracketed(options.ip, options.port) },
    given(options, openssl),
    opensslExtensions(options),
    opensslRaw(options.raw),
    options.named and list(
      { '-cert2', options.named.cert, '-key2', options.named.key }, { '-servername', options.named.name, '-servername_fatal' }) or {},
    options.requireCert and { '-Verify', '1' } or {},
    options.requireCert and not options.raw and { '-verify_return_error' } or {},
    options.psk and { '-nocert', '-psk_identity', options.psk.identity, '-psk', hex(options.psk.key) } or {},
    options.hint and { '-psk_hint', options.hint } or {},
    options.cookies and { '-listen' } or {})
end

kinds.openssl.ready = '(ACCEPT)'
-- Printed without a name when there was no handshake.
kinds.openssl.clientConnected = 'Cipher is (%w[%w-]+)\n.-Protocol  : (%S+)'
kinds.openssl.serverConnected = 'CIPHER is (%w[%w-]+)'
kinds.openssl.protocol = 'ALPN protocol[s selected]*: (%S+)'
kinds.openssl.profile = 'SRTP Extension negotiated, profile=(%S+)'
kinds.openssl.exported = 'Keying material: (%x+)\n'
kinds.openssl.quit = 'Q\n'
kinds.openssl.hint = 'PSK identity hint: ([^\n]+)'

function kinds.openssl.cipher(self)
  return (self.child:expect(self.connectedBy))
end

-- ── GnuTLS ──

local gnutls = {
  { 'cert', { '--x509certfile', '%s' } }, { 'key', { '--x509keyfile', '%s' } }, { 'ca', { '--x509cafile', '%s' } },
  { 'mtu', { '--mtu', '%s' } }, { 'again', { '--resume' } }, { 'noTickets', { '--noticket' } }, { 'priority', { '--priority', '%s' } },
  { 'exports', { '--keymatexport', '%s', '--keymatexportsize', '60' } },
}

-- The names of its SRTP profiles differ from OpenSSL's in one place.
local function gnutlsExtensions(options)
  local all = {}
  for _, name in ipairs(options.alpn or {}) do all = list(all, { '--alpn', name }) end
  return list(all, options.srtp and { '--srtp-profiles', (table.concat(options.srtp, ':'):gsub('_CM_', '_CM_HMAC_')) } or {})
end

-- Plain PSK alone: GnuTLS 3.7's programs die of ECDHE-PSK.
local gnutlsPsk = { '--priority', 'NORMAL:-KX-ALL:+PSK' }

local function gnutlsRaw(raw)
  return raw and {
    '--rawpkkeyfile', raw.key, '--rawpkfile', raw.publicKey, '--priority', 'NORMAL:+CTYPE-CLI-RAWPK:+CTYPE-SRV-RAWPK',
  } or {}
end

function kinds.gnutls.client(options)
  return 'gnutls-cli', list(
    { '--udp', '--port', tostring(options.port) },
    given(options, gnutls),
    gnutlsExtensions(options),
    gnutlsRaw(options.raw),
    options.servername and { '--sni-hostname', options.servername, '--verify-hostname', options.servername } or { '--disable-sni' },
    options.ca and {} or { '--insecure' },
    options.psk and list(gnutlsPsk, { '--pskusername', options.psk.identity, '--pskkey', hex(options.psk.key) }) or {},
    { options.ip })
end

function kinds.gnutls.server(options)
  if options.psk then
    options.pskFile = options.pki:write('psk.txt', ('%s:%s\n'):format(options.psk.identity, hex(options.psk.key)))
  end
  -- It listens on every address.
  return 'gnutls-serv', list(
    { '--udp', '--echo', '--port', tostring(options.port) },
    given(options, gnutls),
    gnutlsExtensions(options),
    gnutlsRaw(options.raw),
    options.named and { '--sni-hostname', options.named.name, '--sni-hostname-fatal' } or {},
    options.requireCert and { '--require-client-cert', not options.raw and '--verify-client-cert' or nil } or { '--disable-client-cert' },
    options.cookies == false and { '--nocookie' } or {},
    options.psk and list(gnutlsPsk, { '--pskpasswd', options.pskFile }) or {},
    options.hint and { '--pskhint', options.hint } or {})
end

kinds.gnutls.protocol = '%- Application protocol: (%S+)'
kinds.gnutls.profile = '%- SRTP profile: (%S+)'
kinds.gnutls.exported = '%- Key material: (%x+)\n'
kinds.gnutls.clientConnected = '%- Description: (%S+)\n.-Simple Client Mode'
-- Its output stays in a buffer, so the server says nothing that could be waited for.
kinds.gnutls.quit = nil
kinds.gnutls.hint = "PSK hint '([^\n]+)'"

local gnutlsSuites = {
  ['AES-128-GCM'] = 'AES128-GCM-SHA256', ['AES-256-GCM'] = 'AES256-GCM-SHA384', ['CHACHA20-POLY1305'] = 'CHACHA20-POLY1305',
}

-- (DTLS1.2-X.509)-(ECDHE-X25519)-(ECDSA-SHA256)-(AES-128-GCM), in OpenSSL's words.
function kinds.gnutls.cipher(self)
  local description = self.child:expect(self.connectedBy)
  local bulk = gnutlsSuites[description:match '%(([^()]+)%)$']
  local exchange = description:match '^%(DTLS1%.2%-X%.509%)%-%((%u+)'
  local signature = description:match '%((%u+)%-[^()]*SHA'
  return table.concat(exchange == 'PSK' and { 'PSK', bulk } or { exchange, signature, bulk }, '-')
end

-- ── both ──

local function start(name, role, options)
  local kind = assert(kinds[name], name)
  local self = setmetatable({ kind = kind, role = role, connectedBy = kind[role .. 'Connected'] }, Peer)
  self.child = process.spawn(kind[role](options))
  return self
end

--- Starts a client: it connects at once.
---@param name 'openssl'|'gnutls'
---@param options table ip, port; servername, ca: what it checks; cert, key: its own files; psk = {identity=, key=}; ciphers,
---   mtu; alpn, srtp: lists of names; exports: the label of keying material; noTickets; OpenSSL: saves, resumes: the file of a
---   session; GnuTLS: again: it connects twice and resumes; priority; raw = {cert=, key=, publicKey=}: files, whose key it shows as
---   a raw public key, and it takes any raw public key
function peers.client(name, options)
  return start(name, 'client', options)
end

--- Starts a server and waits until it listens.
---@param name 'openssl'|'gnutls'
---@param options table ip, port, cert, key, chain; ca with requireCert; psk = {identity=, key=}, hint; pki: where files may
---   be put; mtu, cookies, noTickets, alpn, srtp, exports; named = {name=, cert=, key=}: an identity for a name
---   (GnuTLS: the one name), others are refused
function peers.server(name, options)
  local self = start(name, 'server', options)
  local family = options.ip:find(':', 1, true) and 'IPv6' or 'IPv4'
  self.child:expect(self.kind.ready or ('(%s %%S+ port %d%%.%%.%%.done)'):format(family, options.port))
  return self
end

--- Waits until its handshake is complete; gives the cipher suite by OpenSSL's name.
function Peer:cipher()
  return self.kind.cipher(self)
end

--- Waits until a client has printed the identity hint of its server.
function Peer:hint()
  return (self.child:expect(self.kind.hint))
end

--- The application protocol that it has agreed to. Servers of GnuTLS do not tell, neither this nor what follows.
function Peer:protocol()
  return (self.child:expect(self.kind.protocol))
end

--- The SRTP profile that it has agreed to, by OpenSSL's name.
function Peer:profile()
  return (self.child:expect(self.kind.profile):gsub('_CM_HMAC_', '_CM_'))
end

--- The 60 bytes of keying material that it has exported.
function Peer:exported()
  return (self.child:expect(self.kind.exported):gsub('%x%x', function(byte) return string.char(tonumber(byte, 16)) end))
end

--- Sends a line.
function Peer:send(line)
  self.child:write(line .. '\n')
end

--- Waits until it has printed this text.
function Peer:receive(text)
  self.child:expect('(' .. text:gsub('%p', '%%%0') .. ')')
end

--- Waits until it has been told, by an alert, that it is not wanted.
function Peer:refused()
  self.child:expect '([Aa]lert %w+ %w+)'
end

--- Lets it say goodbye to its peer.
function Peer:quit()
  if self.kind.quit then self.child:write(self.kind.quit) else self.child:finish() end
end

return peers
