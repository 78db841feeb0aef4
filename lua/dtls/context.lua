--- Options → core context. The secure profile is here, and what every option may be; OpenSSL's side is src/context.c.

local core = require 'dtls.core'

-- The LuaJIT of Debian 12 (2.1.0-beta3 of 2022) compiles some loops over pairs() wrongly: one connect in a thousand
-- then met an option named by a stray number. Nothing in this file is hot.
jit.off(true, true)

local context = {}

--- The secure profile (RFC 9325, RFC 7925). SECURITY-CONSIDERATIONS.txt says why.
context.profile = {
  ciphers = table.concat({
    'ECDHE-ECDSA-AES128-GCM-SHA256', 'ECDHE-RSA-AES128-GCM-SHA256',
    'ECDHE-ECDSA-CHACHA20-POLY1305', 'ECDHE-RSA-CHACHA20-POLY1305',
    'ECDHE-ECDSA-AES256-GCM-SHA384', 'ECDHE-RSA-AES256-GCM-SHA384',
  }, ':'),
  pskCiphers = table.concat({
    'ECDHE-PSK-CHACHA20-POLY1305', 'PSK-AES256-GCM-SHA384', 'PSK-AES128-GCM-SHA256', 'PSK-CHACHA20-POLY1305',
  }, ':'),
  groups = 'X25519:P-256:P-384',
  sigalgs = table.concat({
    'ECDSA+SHA256', 'ECDSA+SHA384', 'ECDSA+SHA512', 'ed25519', 'ed448',
    'rsa_pss_pss_sha256', 'rsa_pss_pss_sha384', 'rsa_pss_pss_sha512',
    'rsa_pss_rsae_sha256', 'rsa_pss_rsae_sha384', 'rsa_pss_rsae_sha512',
    'RSA+SHA256', 'RSA+SHA384', 'RSA+SHA512',
  }, ':'),
}

--- What holds when nothing is said.
context.defaults = { handshakeTimeout = 30000, mtu = 1228, allowFragments = false }

---@class dtls.Context
---@field role 'server'|'client'
---@field package core userdata
---@field package settings table connection settings that came with it
---@field package carries table<string, boolean> the options that made it
local Context = {}
Context.__index = Context

-- ── what an option may be ──
-- A checker returns the value as it is used, or nil and what was expected; then also true when the type was right.

local function of_type(expected)
  return function(value)
    if type(value) == expected then return value end
    return nil, 'a ' .. expected
  end
end

local function whole_number(min, max)
  return function(value)
    local number = type(value) == 'number'
    if number and value % 1 == 0 and value >= min and value <= max then return value end
    return nil, ('a whole number from %d to %d'):format(min, max), number
  end
end

local function one_of(...)
  local values = { ... }
  return function(value)
    for _, each in ipairs(values) do
      if value == each then return value end
    end
    return nil, "'" .. table.concat(values, "' or '") .. "'", type(value) == 'string'
  end
end

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
    for i, text in ipairs(type(value) == 'table' and value or { value }) do
      if type(text) ~= 'string' then return nil, expected end
      list[i] = convert(text)
      if not list[i] then return nil, expected, true end
    end
    if #list < min or #list > max then return nil, expected, type(value) == 'table' end
    return list
  end
end

local fingerprints = text_list('a SHA-256 fingerprint in hexadecimal, or a list of them', 1, math.huge, function(text)
  local hex = text:gsub(':', '')
  if #hex ~= 64 or hex:find('%X') then return nil end
  return (hex:gsub('%x%x', function(byte) return string.char(tonumber(byte, 16)) end))
end)

context.cookieSecrets = text_list('a string of at least 32 bytes, or {current, previous}', 1, 2, function(text)
  return #text >= 32 and text or nil
end)

local function retransmit_timeout(value)
  if type(value) == 'function' then return value end
  local good, expected, right_type = whole_number(1, 60000)(value)
  return good, 'a function, or ' .. (expected or ''), right_type
end

-- What makes an SSL_CTX.
local credentials = {
  cert = pem_list, key = pem_list, passphrase = of_type 'string', ca = pem_list, crl = pem_list,
  ciphers = of_type 'string', groups = of_type 'string', sigalgs = of_type 'string',
  minVersion = of_type 'string', maxVersion = of_type 'string',
  psk = of_type 'table', pskIdentityHint = of_type 'string',
  requestCert = of_type 'boolean', rejectUnauthorized = of_type 'boolean', fingerprint = fingerprints,
}

-- What a connection does; may come with a context, too.
local settings = {
  mtu = whole_number(228, 18445), linkMtu = whole_number(256, 18493),
  handshakeTimeout = whole_number(1, 2 ^ 31 - 1), retransmitTimeout = retransmit_timeout,
  timeout = whole_number(0, 2 ^ 31 - 1), allowFragments = of_type 'boolean',
}

-- What only one role has.
local roles = {
  server = {
    cookieSecret = context.cookieSecrets,
    demux = one_of('connected', 'shared'),
    maxConnections = whole_number(1, 2 ^ 31 - 1), maxConnectionsPerHost = whole_number(1, 2 ^ 31 - 1),
    maxHandshakes = whole_number(1, 2 ^ 31 - 1),
    reusePort = of_type 'boolean', ipv6Only = of_type 'boolean',
    recvBufferSize = whole_number(1, 2 ^ 30), sendBufferSize = whole_number(1, 2 ^ 30),
  },
  client = {
    host = of_type 'string', port = whole_number(1, 65535), servername = of_type 'string', hostname = of_type 'string',
    localAddress = of_type 'string', localPort = whole_number(0, 65535),
    handle = function(value)
      if type(value) == 'userdata' or type(value) == 'table' then return value end
      return nil, 'a luv UDP handle or a dgram socket'
    end,
  },
}

local function check_context(value)
  if getmetatable(value) == Context then return value end
  return nil, 'a Context'
end

local function config_error(message)
  return nil, core.error('ERR_DTLS_CONFIG', message)
end

-- Checks every option against the given tables of checkers. Raises for an unknown name or a wrong type; nil, err for a
-- value that cannot be.
local function check(options, level, ...)
  if type(options) ~= 'table' then error('options: expected a table, got ' .. type(options), level) end
  local checked = {}
  for name, value in pairs(options) do
    local checker
    for i = 1, select('#', ...) do checker = checker or select(i, ...)[name] end
    if not checker then error(("unknown option '%s'"):format(tostring(name)), level) end
    local good, expected, right_type = checker(value)
    if right_type and good == nil then return config_error(('%s: expected %s'):format(name, expected)) end
    if good == nil then error(("option '%s': expected %s, got %s"):format(name, expected, type(value)), level) end
    checked[name] = good
  end
  if checked.mtu and checked.linkMtu then return config_error('mtu and linkMtu say the same thing: give one') end
  return checked
end

-- ── making one ──

local function check_versions(options)
  for _, name in ipairs { 'minVersion', 'maxVersion' } do
    local version = options[name]
    if version and version ~= 'DTLSv1.2' then
      return config_error(("%s: '%s' is not supported; DTLSv1.2 is the one version with AEAD suites"):format(name, version))
    end
  end
  return true
end

-- A client gives {identity=, key=}, a server {[identity] = key}.
local function psk_map(role, psk)
  if not psk then return {} end
  if role == 'client' then
    if type(psk.identity) ~= 'string' or type(psk.key) ~= 'string' then return config_error('psk: a client needs {identity=, key=}') end
    return { [psk.identity] = psk.key }
  end
  for identity, key in pairs(psk) do
    local good = type(identity) == 'string' and type(key) == 'string'
    if not good then return config_error('psk: a server needs {[identity] = key}, both strings') end
  end
  return psk
end

local function choose_ciphers(role, options)
  local profile = context.profile
  if options.ciphers then return options.ciphers end
  if not options.psk then return profile.ciphers end
  -- A client with a key and no CA must not let the server choose a certificate that nobody checks.
  if role == 'client' and not (options.ca or options.fingerprint) then return profile.pskCiphers end
  return profile.pskCiphers .. ':' .. profile.ciphers
end

local function make(role, options)
  local ok, err = check_versions(options)
  if not ok then return nil, err end
  local certs, keys = options.cert or {}, options.key or {}
  if #certs ~= #keys then return config_error(('cert and key come in pairs: there are %d and %d'):format(#certs, #keys)) end
  if role == 'server' and #certs == 0 and not options.psk then return config_error('a server needs cert and key, or psk') end
  local psk, psk_err = psk_map(role, options.psk)
  if not psk then return nil, psk_err end
  local reject = options.rejectUnauthorized ~= false
  return core.context(role, {
    cert = certs, key = keys, passphrase = options.passphrase, ca = options.ca, crl = options.crl,
    system_ca = role == 'client' and not (options.ca or options.fingerprint or options.psk),
    pins = options.fingerprint, psk = psk, psk_hint = options.pskIdentityHint,
    ciphers = choose_ciphers(role, options), groups = options.groups or context.profile.groups,
    sigalgs = options.sigalgs or context.profile.sigalgs,
    request_cert = options.requestCert, reject = reject,
  })
end

local function pick(options, names)
  local picked = {}
  for name in pairs(names) do picked[name] = options[name] end
  return picked
end

local function new_context(role, options)
  local made, err = make(role, options)
  if not made then return nil, err end
  local carries = {}
  for name in pairs(options) do carries[name] = true end
  -- With a pinned certificate, a key, or nobody to check, there is no name to check either.
  local checks_name = role == 'client' and options.rejectUnauthorized ~= false and
    (options.ca ~= nil or not (options.fingerprint or options.psk))
  return setmetatable({
    role = role, core = made, settings = pick(options, settings), carries = carries, checksName = checks_name,
  }, Context)
end

local function create(role, options, level)
  local checked, err = check(options, level, credentials, settings)
  if not checked then return nil, err end
  return new_context(role, checked)
end

--- A reusable SSL_CTX for `options.context` or `server:setContext`.
---@param role 'server'|'client'
---@param options table the options that server, client and context share
---@return dtls.Context? context
---@return dtls.Error? err ERR_DTLS_CONFIG: a value of the right type but with the wrong content
function context.create(role, options)
  if role ~= 'server' and role ~= 'client' then error("role: expected 'server' or 'client'", 2) end
  return create(role, options, 3) -- a tail call, which is no level
end

local function check_given(made, checked, role, level)
  if made.role ~= role then error(("option 'context': it is one for a %s"):format(made.role), level) end
  for name in pairs(checked) do
    local twice = credentials[name] or made.carries[name]
    if twice then error(("option '%s' belongs to the context that is given, too"):format(name), level) end
  end
end

--- The settings of a connection: `first` where it says something, then `second`, then the defaults.
function context.settle(first, second)
  local resolved = {}
  for name in pairs(settings) do
    local value = first[name]
    if value == nil then value = second[name] end
    if value == nil then value = context.defaults[name] end
    resolved[name] = value
  end
  if first.mtu then resolved.linkMtu = nil elseif resolved.linkMtu then resolved.mtu = nil end
  return resolved
end

--- Splits the options of a server or a client: its context (made, or taken from `options.context`), the connection
--- settings with every default filled in, and what the role itself needs.
---@return dtls.Context? context
---@return table settings_or_err
---@return table? own
---@return table? given the connection settings among the options
function context.resolve(role, options)
  local checked, err = check(options, 4, credentials, settings, roles[role], { context = check_context })
  if not checked then return nil, err end
  local made = checked.context
  if made then check_given(made, checked, role, 4) else made, err = new_context(role, checked) end
  if not made then return nil, err end
  local given = pick(checked, settings)
  return made, context.settle(given, made.settings), pick(checked, roles[role]), given
end

--- A server context from a Context or from options, for `setContext`.
function context.coerce(role, value)
  local given = check_context(value)
  if not given then return create(role, value, 4) end
  if given.role ~= role then error(('context: it is one for a %s'):format(given.role), 3) end
  return given
end

return context
