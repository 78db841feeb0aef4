--- What an option may be. A wrong type or an unknown name raises; the right type with the wrong content is nil, err.

local core = require 'dtls.core'

-- The LuaJIT of Debian 12 (2.1.0-beta3 of 2022) compiles some loops over pairs() wrongly: one connect in a thousand
-- then met an option named by a stray number. Nothing in this file is hot.
jit.off(true, true)

local options = {}

--- nil and the error of a value of the right type with the wrong content.
---@return nil
---@return dtls.Error
function options.failure(message)
  return nil, core.error('ERR_DTLS_CONFIG', message)
end

-- ── checkers ──
-- Each returns the value as it is used, or nil and what was expected; then also true when the type was right.

function options.ofType(...)
  local types = { ... }
  return function(value)
    for _, each in ipairs(types) do
      if type(value) == each then return value end
    end
    return nil, 'a ' .. table.concat(types, ' or a ')
  end
end

local of_type = options.ofType

-- A text for OpenSSL or the system, which would read it up to a zero byte and take the rest for granted.
local function without_zero(text)
  return not text:find('\0', 1, true) and text or nil
end

function options.text(value)
  if type(value) ~= 'string' then return nil, 'a string' end
  return without_zero(value), 'a string without a zero byte', true
end
local c_text = options.text

function options.wholeNumber(min, max)
  return function(value)
    local number = type(value) == 'number'
    if number and value % 1 == 0 and value >= min and value <= max then return value end
    return nil, ('a whole number from %d to %d'):format(min, max), number
  end
end

local whole_number = options.wholeNumber

-- A port, also as text: command lines and configuration files have it so.
function options.portFrom(min)
  return function(value)
    local number = type(value) == 'string' and value:find '^%d+$' and tonumber(value) or value
    local expected = ('a port from %d to 65535'):format(min)
    if type(number) == 'number' and number % 1 == 0 and number >= min and number <= 65535 then return number end
    return nil, expected, type(value) == 'number' or type(value) == 'string'
  end
end

function options.oneOf(...)
  local values = { ... }
  return function(value)
    for _, each in ipairs(values) do
      if value == each then return value end
    end
    return nil, "'" .. table.concat(values, "' or '") .. "'", type(value) == 'string'
  end
end

local one_of = options.oneOf

-- PEM text, an object that exports it, or a list of either: as a list of texts.
local function pem_list(value)
  if type(value) ~= 'table' or value.export then value = { value } end
  local list = {}
  for i = 1, #value do
    local item = value[i]
    if type(item) ~= 'string' then
      local indexable = type(item) == 'table' or type(item) == 'userdata'
      local ok, text = pcall(function() return indexable and item:export() end)
      item = ok and text
    end
    if type(item) ~= 'string' then return nil, 'PEM text, an object with an export method, or a list of them' end
    list[i] = item
  end
  return list
end

-- A text or a list of texts, as a list; convert(text) gives what is used, or nil.
local function text_list(expected, min, max, convert)
  return function(value)
    local list = {}
    if type(value) ~= 'table' and type(value) ~= 'string' then return nil, expected end
    for i, text in ipairs(type(value) == 'table' and value or { value }) do
      if type(text) ~= 'string' then return nil, expected end
      list[i] = convert(text)
      if not list[i] then return nil, expected, true end
    end
    if #list < min or #list > max then return nil, expected, type(value) == 'table' end
    return list
  end
end

local function sized(min, max)
  return function(text) return #text >= min and #text <= max and text or nil end
end

-- The bytes of a SHA-256 in hexadecimal.
local function digest(text)
  local hex = text:gsub(':', '')
  if #hex ~= 64 or hex:find('%X') then return nil end
  return (hex:gsub('%x%x', function(byte) return string.char(tonumber(byte, 16)) end))
end

local fingerprints = text_list('a SHA-256 fingerprint in hexadecimal, or a list of them', 1, math.huge, digest)

-- As 32-byte digests.
local function public_keys(value)
  local expected = "a PEM public key, a public key's SHA-256 in hexadecimal, or a list of them"
  local texts, digests = pem_list(value), {}
  if not texts then return nil, expected end
  for _, text in ipairs(texts) do
    local found = digest(text)
    for _, each in ipairs(found and { found } or core.public_keys(text) or {}) do digests[#digests + 1], found = each, true end
    if not found then return nil, expected, true end
  end
  if not digests[1] then return nil, expected, true end
  return digests
end

options.cookieSecret = text_list('a string of at least 32 bytes, or {current, previous}', 1, 2, sized(32, math.huge))
options.ticketKeys = text_list('a string of 80 bytes, or {current, previous}', 1, 2, sized(80, 80))
options.names = text_list('a list of names', 0, math.huge, without_zero)

-- As a table of its own: the caller may go on with his.
local function psk(value)
  if type(value) == 'function' then return value end
  if type(value) ~= 'table' then return nil, 'a table or a function' end
  local copy = {}
  for name, each in pairs(value) do copy[name] = each end
  return copy
end

local function retransmit_timeout(value)
  if type(value) == 'function' then return value end
  local good, expected, right_type = whole_number(1, 60000)(value)
  return good, 'a function, or ' .. (expected or ''), right_type
end

-- RFC 6066 §4
local function fragment_length(value)
  if value == 512 or value == 1024 or value == 2048 or value == 4096 then return value end
  return nil, '512, 1024, 2048 or 4096', type(value) == 'number'
end

local function keylog(value)
  local good = value
  if type(value) == 'string' then good = without_zero(value) elseif type(value) ~= 'boolean' then good = nil end
  return good, "true, a file name, or 'env'", type(value) == 'string'
end

local function session(value)
  local text = type(value) == 'string'
  if text and core.is_session(value) then return value end
  return nil, 'what getSession() gave', text
end

local function session_store(value)
  local good = type(value) == 'table'
  for _, name in ipairs { 'get', 'set', 'remove' } do good = good and type(value[name]) == 'function' end
  if good then return value end
  return nil, 'a table with the functions get, set and remove'
end

local function ip_family(value)
  if value == 4 or value == 6 then return value end
  return nil, '4 or 6', type(value) == 'number'
end

-- Until the end of the year 9999, which is the last one of certificates (RFC 5280 §4.1.2.5).
local function verify_time(value)
  if value == false then return false end
  local good, _, right_type = whole_number(0, 253402300799)(value)
  return good, 'false, or Unix seconds as a whole number', right_type or value == true
end

local function udp_handle(value)
  if pcall(core.fd, value) then return value end -- it raises for anything else, and says no to what is closed
  return nil, 'a luv UDP handle or a dgram socket'
end

local any_port = options.portFrom(0)

--- What a server listens on: a port as a number, or a handle.
function options.portOrHandle(value)
  local port, expected, right_type = any_port(value)
  if port or right_type then return port, expected, right_type end
  local handle, other = udp_handle(value)
  return handle, ('%s, or %s'):format(expected, other)
end

local function is_ip(value) return type(value) == 'string' and not value:find '%z' end

--- Several messages to send.
function options.messages(value)
  local expected = 'a string or a list of strings'
  if type(value) ~= 'table' or #value == 0 then return nil, expected end
  for _, each in ipairs(value) do
    if type(each) ~= 'string' then return nil, expected end
  end
  return value
end

--- Where a datagram goes to, and what it comes from if that is given: {ip=, port=[, localAddress={ip=}]}.
function options.address(value)
  local from = type(value) == 'table' and value.localAddress
  local good = type(value) == 'table' and is_ip(value.ip) and type(value.port) == 'number' and whole_number(1, 65535)(value.port)
    and (not from or type(from) == 'table' and is_ip(from.ip))
  if good then return value end
  return nil, 'an address, {ip=, port=} with a port from 1 to 65535'
end

-- ── the options ──

--- What makes an SSL_CTX.
options.credentials = {
  cert = pem_list, key = pem_list, passphrase = c_text, ca = pem_list, crl = pem_list,
  ciphers = c_text, groups = c_text, sigalgs = c_text,
  minVersion = c_text, maxVersion = c_text,
  psk = psk, pskIdentityHint = c_text, rawPublicKey = of_type 'boolean', peerPublicKey = public_keys,
  requestCert = of_type 'boolean', rejectUnauthorized = of_type 'boolean', fingerprint = fingerprints,
  checkServerIdentity = of_type 'function', allowPartialTrustChain = of_type 'boolean', verifyTime = verify_time,
  ALPNProtocols = text_list("a protocol's name of 1 to 255 bytes, or a list of them", 1, math.huge, sized(1, 255)),
  srtpProfiles = text_list('the name of an SRTP profile, or a list of them', 1, math.huge, without_zero),
  maxFragmentLength = fragment_length,
  ticketKeys = options.ticketKeys, sessionTimeout = whole_number(1000, 24 * 60 * 60 * 1000),
  sessionIdContext = of_type 'string', keylog = keylog, options = options.names, modes = options.names,
}

--- What a connection does; may come with a context, too.
options.settings = {
  mtu = whole_number(228, 18445), linkMtu = whole_number(256, 18493),
  handshakeTimeout = whole_number(1, 2 ^ 31 - 1), retransmitTimeout = retransmit_timeout,
  timeout = whole_number(0, 2 ^ 31 - 1), receiveTimeout = whole_number(0, 2 ^ 31 - 1), allowFragments = of_type 'boolean',
}

--- What only one role has.
options.roles = {
  server = {
    sni = of_type 'table', SNICallback = of_type 'function', sessionStore = session_store,
    cookieSecret = options.cookieSecret,
    demux = one_of('connected', 'shared'),
    maxConnections = whole_number(1, 2 ^ 31 - 1), maxConnectionsPerHost = whole_number(1, 2 ^ 31 - 1),
    maxHandshakes = whole_number(1, 2 ^ 31 - 1),
    reusePort = of_type 'boolean', ipv6Only = of_type 'boolean',
    recvBufferSize = whole_number(1, 2 ^ 30), sendBufferSize = whole_number(1, 2 ^ 30), udpTTL = whole_number(1, 255),
  },
  client = {
    host = of_type 'string', port = options.portFrom(1), servername = of_type 'string', hostname = of_type 'string',
    family = ip_family, localAddress = c_text, localPort = options.portFrom(0), handle = udp_handle, session = session,
    recvBufferSize = whole_number(1, 2 ^ 30), sendBufferSize = whole_number(1, 2 ^ 30), udpTTL = whole_number(1, 255),
  },
}

-- What is no option there, but perhaps one elsewhere.
local function unknown(prefix, name)
  local owners = {}
  if options.roles.server[name] or name == 'context' then owners[1] = 'createServer' end
  if options.roles.client[name] or name == 'context' then owners[#owners + 1] = 'connect' end
  if not owners[1] then return ("%sunknown option '%s'"):format(prefix, tostring(name)) end
  local where = prefix:match '^(%w+): ' or 'a context'
  return ("%soption '%s' belongs to %s and cannot be set by %s"):format(prefix, name, table.concat(owners, ' and '), where)
end

--- Checks every option against the given tables of checkers. Raises, at `level`, for an unknown name or a wrong type; the
--- text then begins with `prefix`, which ends with the function that was called.
---@return table? checked
---@return dtls.Error? err ERR_DTLS_CONFIG: a value that cannot be
function options.check(prefix, given, level, ...)
  if type(given) ~= 'table' then error(('%soptions: expected a table, got %s'):format(prefix, type(given)), level) end
  local checked = {}
  for name, value in pairs(given) do
    local checker
    for i = 1, select('#', ...) do checker = checker or select(i, ...)[name] end
    if not checker then error(unknown(prefix, name), level) end
    local good, expected, right_type = checker(value)
    if right_type and good == nil then return options.failure(('%s: expected %s'):format(name, expected)) end
    if good == nil then error(("%soption '%s': expected %s, got %s"):format(prefix, name, expected, type(value)), level) end
    checked[name] = good
  end
  if checked.mtu and checked.linkMtu then return options.failure('mtu and linkMtu say the same thing: give one') end
  return checked
end

return options
