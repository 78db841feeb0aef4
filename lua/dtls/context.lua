--- Options → core context. The secure profile is here; what an option may be says options.lua, and OpenSSL's side of it
--- is src/binding/context.c.

local arguments = require 'dtls.arguments'
local core = require 'dtls.core'
local options = require 'dtls.options'
local setters = require 'dtls.setters'

jit.off(true, true) -- see options.lua

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
  pskGroups = 'P-256:X25519:P-384', -- devices have P-256 in hardware, and some cannot do ECDHE-PSK with X25519
  sigalgs = table.concat({
    'ECDSA+SHA256', 'ECDSA+SHA384', 'ECDSA+SHA512', 'ed25519', 'ed448',
    'rsa_pss_pss_sha256', 'rsa_pss_pss_sha384', 'rsa_pss_pss_sha512',
    'rsa_pss_rsae_sha256', 'rsa_pss_rsae_sha384', 'rsa_pss_rsae_sha512',
    'RSA+SHA256', 'RSA+SHA384', 'RSA+SHA512',
  }, ':'),
}

--- The profile as a list of suites, for those who want more: those with a pre-shared key come first, and are without effect
--- where there is none.
context.DEFAULT_CIPHERS = context.profile.pskCiphers .. ':' .. context.profile.ciphers

--- What holds when nothing is said.
context.defaults = { handshakeTimeout = 30000, mtu = 1228, allowFragments = false }

---@class dtls.Context: dtls.Setters
---@field role 'server'|'client'
---@field package core userdata
---@field package settings table connection settings that came with it
---@field package checksName boolean the server's certificate must have its name
---@field package rejects boolean whoever is not authorized
---@field package callbacks {psk?: function, checkServerIdentity?: function} what its handshakes ask
---@field package keylogs boolean its connections emit `keylog`
---@field package given table the options that made it, checked
---@field package calls table<string, dtls.Call> its setters' last successful calls, for contexts that are laid over this one
local Context = {}
Context.__index = Context

--- A call of a core setter. `option`: the option that says the same.
---@class dtls.Call
---@field option string
---@field method string
---@field n integer how many arguments
for name, method in pairs(setters) do Context[name] = method end

-- ── making one ──

local function check_context(value)
  if getmetatable(value) == Context then return value end
  return nil, 'a Context'
end

local check_role_name = options.oneOf('server', 'client')

local function check_versions(given)
  for _, name in ipairs { 'minVersion', 'maxVersion' } do
    local version = given[name]
    if version and version ~= 'DTLSv1.2' then
      return options.failure(("%s: '%s' is not supported; DTLSv1.2 is"):format(name, version))
    end
  end
  return true
end

-- What the core takes: {[identity] = key}, of which a client has one, or true when there is a function to ask.
local function psk_map(role, psk)
  if not psk then return {} end
  if type(psk) == 'function' then return true end
  if role == 'client' then
    if type(psk.identity) ~= 'string' or type(psk.key) ~= 'string' then return options.failure('psk: a client needs {identity=, key=}') end
    return { [psk.identity] = psk.key }
  end
  for identity, key in pairs(psk) do
    local good = type(identity) == 'string' and type(key) == 'string'
    if not good then return options.failure('psk: a server needs {[identity] = key}, both strings') end
  end
  return psk
end

local function choose_ciphers(role, given)
  local profile = context.profile
  if given.ciphers then return given.ciphers end
  if not given.psk then return profile.ciphers end
  -- A client with a key and no CA must not let the server choose a certificate that nobody checks.
  if role == 'client' and not (given.ca or given.fingerprint or given.peerPublicKey) then return profile.pskCiphers end
  return context.DEFAULT_CIPHERS
end

-- All that decides who a peer may be, as one string: a session must not be resumed where its handshake would have
-- been refused.
local function identity_context(given, psk)
  local parts = {
    given.sessionIdContext or '', tostring(given.rejectUnauthorized), tostring(given.requestCert), tostring(psk == true),
    tostring(given.checkServerIdentity ~= nil), -- which does without the check of the name
    tostring(given.allowPartialTrustChain), tostring(given.verifyTime), tostring(given.rawPublicKey),
  }
  local function add(kind, list)
    for _, each in ipairs(list or {}) do parts[#parts + 1] = kind .. each end
  end
  add('ca ', given.ca)
  add('crl ', given.crl)
  add('pin ', given.fingerprint)
  add('key ', given.peerPublicKey)
  add('fragment ', { given.maxFragmentLength }) -- a session keeps its length, and libssl refuses another one
  local identities = {}
  for identity in pairs(psk == true and {} or psk) do identities[#identities + 1] = identity end
  table.sort(identities)
  for _, identity in ipairs(identities) do add('psk ', { identity, psk[identity] }) end
  for i, part in ipairs(parts) do parts[i] = #part .. ':' .. part end
  return table.concat(parts)
end

local function keylog_file(keylog)
  if keylog == 'env' then return os.getenv 'SSLKEYLOGFILE' end
  return type(keylog) == 'string' and keylog or nil
end

-- What the other role alone can do, and so would be silently without effect.
local others = {
  server = { 'checkServerIdentity', 'maxFragmentLength' },
  client = { 'requestCert', 'pskIdentityHint', 'ticketKeys' },
}

local function check_role(role, given)
  for _, name in ipairs(others[role]) do
    if given[name] ~= nil then return options.failure(('%s: a %s has none'):format(name, role)) end
  end
  return true
end

local function check_chain(given)
  if not (given.allowPartialTrustChain and given.crl) then return true end
  return options.failure('allowPartialTrustChain: with a crl OpenSSL wants those of all authorities up to a root')
end

local function check_raw_public_keys(role, given)
  local pins = given.peerPublicKey
  if pins and not given.rawPublicKey then
    return options.failure('peerPublicKey: it checks raw public keys, which rawPublicKey = true allows')
  end
  if pins and role == 'server' and not given.requestCert then
    return options.failure('peerPublicKey: a server asks its clients for their keys with requestCert = true')
  end
  if not given.rawPublicKey or given.key then return true end
  if role == 'server' then return options.failure 'rawPublicKey: a server needs key' end
  if pins or given.rejectUnauthorized == false then return true end
  return options.failure('rawPublicKey: there is no key to show (key), and none of a server to accept (peerPublicKey)')
end

-- Which types of certificates (RFC 7250) this side shows and accepts, the preferred one first. A raw public key that nobody has
-- pinned is asked for where it would be refused only if nothing else could be accepted: then the error says which key it is.
local function certificate_types(role, given)
  local own, peer = { given.key and 'raw' }, {}
  if given.cert then own[#own + 1] = 'x509' end
  local pins, hasOthers = given.peerPublicKey, given.ca or given.fingerprint
  if pins or given.rejectUnauthorized == false or role == 'server' and not hasOthers then peer[1] = 'raw' end
  if hasOthers or not pins then peer[#peer + 1] = 'x509' end
  return own, peer
end

local function make(role, given)
  local ok, err = check_versions(given)
  if ok then ok, err = check_role(role, given) end
  if ok then ok, err = check_chain(given) end
  if ok then ok, err = check_raw_public_keys(role, given) end
  if not ok then return nil, err end
  local certs, keys = given.cert or {}, given.key or {}
  local onlyKeys = given.rawPublicKey and #certs == 0
  if #certs ~= #keys and not onlyKeys then
    return options.failure(('cert and key come in pairs: there are %d and %d'):format(#certs, #keys))
  end
  if role == 'server' and #certs == 0 and not (given.psk or onlyKeys) then return options.failure('a server needs cert and key, or psk') end
  local psk, psk_err = psk_map(role, given.psk)
  if not psk then return nil, psk_err end
  local own, peer = certificate_types(role, given)
  return core.context(role, {
    cert = certs, key = keys, passphrase = given.passphrase, ca = given.ca, crl = given.crl,
    system_ca = role == 'client' and not (given.ca or given.fingerprint or given.peerPublicKey or given.psk),
    raw_public_key = given.rawPublicKey, own_types = own, peer_types = peer, key_pins = given.peerPublicKey,
    pins = given.fingerprint, psk = psk, psk_hint = given.pskIdentityHint,
    ciphers = choose_ciphers(role, given), groups = given.groups or context.profile[given.psk and 'pskGroups' or 'groups'],
    sigalgs = given.sigalgs or context.profile.sigalgs,
    partial_chain = given.allowPartialTrustChain, verify_time = given.verifyTime,
    request_cert = given.requestCert, reject = given.rejectUnauthorized ~= false,
    asks_verify = role == 'client' and given.checkServerIdentity ~= nil,
    max_fragment_length = given.maxFragmentLength,
    alpn = given.ALPNProtocols, srtp = given.srtpProfiles and table.concat(given.srtpProfiles, ':'),
    ticket_keys = given.ticketKeys, session_timeout = given.sessionTimeout and math.floor(given.sessionTimeout / 1000),
    session_context = identity_context(given, psk),
    keylog_event = given.keylog == true, keylog_file = keylog_file(given.keylog),
    options = given.options, modes = given.modes,
  })
end

-- What is given of the options in these tables.
local function pick(given, ...)
  local picked = {}
  for name, value in pairs(given) do
    for i = 1, select('#', ...) do
      if (select(i, ...))[name] then picked[name] = value end
    end
  end
  return picked
end

local function new_context(role, given)
  local made, err = make(role, given)
  if not made then return nil, err end
  -- With a pinned certificate or a key there is no name to check; nor when the application does that.
  local pinned = given.fingerprint or given.peerPublicKey or given.psk
  local checks_name = role == 'client' and not given.checkServerIdentity and (given.ca ~= nil or not pinned)
  return setmetatable({
    role = role, core = made, settings = pick(given, options.settings), checksName = checks_name,
    given = pick(given, options.credentials, options.settings), calls = {},
    rejects = given.rejectUnauthorized ~= false,
    callbacks = { psk = type(given.psk) == 'function' and given.psk or nil, checkServerIdentity = given.checkServerIdentity },
    keylogs = given.keylog == true,
  }, Context)
end

local function create(prefix, role, given, level)
  local checked, err = options.check(prefix, given, level, options.credentials, options.settings)
  if not checked then return nil, err end
  return new_context(role, checked)
end

--- A reusable SSL_CTX for `options.context`, `sni` or `server:setContext`.
---@param role 'server'|'client'
---@param given dtls.ContextOptions the options that server, client and context share
---@return dtls.Context? context
---@return dtls.Error? err ERR_DTLS_CONFIG: a value of the right type but with the wrong content
function context.create(role, given)
  arguments.insist('createContext', 'role', check_role_name, role)
  return create('createContext: ', role, given, 3) -- a tail call, which is no level
end

local function check_given(prefix, made, checked, role, level)
  if made.role ~= role then error(("%soption 'context': it is one for a %s"):format(prefix, made.role), level) end
  for name in pairs(checked) do
    local twice = options.credentials[name] or made.given[name] ~= nil
    if twice then error(("%soption '%s' belongs to the context that is given, too"):format(prefix, name), level) end
  end
end

--- The settings of a connection: `first` where it says something, then `second`, then the defaults.
function context.settle(first, second)
  local resolved = {}
  for name in pairs(options.settings) do
    local value = first[name]
    if value == nil then value = second[name] end
    if value == nil then value = context.defaults[name] end
    if value ~= nil then resolved[name] = value end
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
function context.resolve(role, all)
  local prefix = role == 'server' and 'createServer: ' or 'connect: '
  local checked, err = options.check(prefix, all, 4, options.credentials, options.settings, options.roles[role], {
    context = check_context,
  })
  if not checked then return nil, err end
  local made = checked.context
  if made then check_given(prefix, made, checked, role, 4) else made, err = new_context(role, checked) end
  if not made then return nil, err end
  local given = pick(checked, options.settings)
  return made, context.settle(given, made.settings), pick(checked, options.roles[role]), given
end

local function check_same_role(prefix, made, role, level)
  if made.role ~= role then error(('%scontext: it is one for a %s'):format(prefix, made.role), level) end
  return made
end

--- A server context from a Context or from options, for `sni` and `SNICallback`. Raises at `level`; 0: nowhere. The text begins
--- with `prefix`.
function context.coerce(prefix, role, value, level)
  local made = check_context(value)
  if not made then return create(prefix, role, value, level > 0 and level + 1 or 0) end
  return check_same_role(prefix, made, role, level) -- a tail call, which is no level
end

-- What a setter changed counts until the option that says the same is given anew.
local function repeat_calls(made, calls, given)
  for key, call in pairs(calls) do
    if given[call.option] == nil then
      local ok, err = made.core[call.method](made.core, unpack(call, 1, call.n))
      if not ok then return nil, err end
      made.calls[key] = call
    end
  end
  return made
end

--- For setContext: a Context as it is, or options laid over those of another context: what is not given stays. Raises at `level`.
---@param base dtls.Context
---@param value dtls.Context|table
---@return dtls.Context? context
---@return dtls.Error? err
function context.overlay(base, value, level)
  local made = check_context(value)
  if made then return check_same_role('setContext: ', made, base.role, level) end -- a tail call, too
  local given, err = options.check('setContext: ', value, level + 1, options.credentials, options.settings)
  if not given then return nil, err end
  local all = pick(base.given, options.credentials, options.settings)
  if given.mtu or given.linkMtu then all.mtu, all.linkMtu = nil, nil end -- they say the same
  for name, each in pairs(given) do all[name] = each end
  made, err = new_context(base.role, all)
  if not made then return nil, err end
  return repeat_calls(made, base.calls, given)
end

-- ── setters ──

local option_of = {
  set_options = 'options', clear_options = 'options', set_modes = 'modes', set_ciphers = 'ciphers', set_groups = 'groups',
  set_sigalgs = 'sigalgs', set_ticket_keys = 'ticketKeys',
}

-- Keeps the last call of each kind, so that a context whose keys are rotated for years does not grow.
local function keep(self, kind, option, method, ...)
  self.calls[kind] = { option = option, method = method, n = select('#', ...), ... }
end

function Context:_set(method, ...)
  local ok, err = self.core[method](self.core, ...)
  if not ok then return nil, err end
  local option = option_of[method]
  if method == 'set_verify' then
    local mode, depth = ...
    if mode then keep(self, 'mode', 'requestCert', method, mode) end
    if depth then keep(self, 'depth', 'depth', method, nil, depth) end
  elseif option == 'options' or option == 'modes' then
    for _, name in ipairs((...)) do keep(self, option .. ' ' .. name, option, method, { name }) end
  else
    keep(self, option, option, method, ...)
  end
  return true
end

function Context:_get(method) return self.core[method](self.core) end

--- Tickets are made with the current key and read with both; from then on rotation is the caller's.
---@param keys string|string[] 80 bytes, or {current, previous}
---@return true? ok
---@return dtls.Error? err
function Context:setTicketKeys(keys)
  local list, err = arguments.check('setTicketKeys', 'keys', options.ticketKeys, keys)
  if not list then return nil, err end
  if self.role ~= 'server' then return options.failure('ticketKeys: a client has none') end
  return self:_set('set_ticket_keys', list)
end

--- What it is set to.
---@return {role: string, ciphers: string[], options: string[], modes: string[], verify: {mode: string[], depth: integer?}}
function Context:info()
  local mode, depth = self.core:get_verify()
  return {
    role = self.role, ciphers = self.core:get_ciphers(), options = self:options(), modes = self:modes(),
    verify = { mode = mode, depth = depth >= 0 and depth or nil }, minVersion = 'DTLSv1.2', maxVersion = 'DTLSv1.2',
  }
end

arguments.methods(Context, 'Context', function(value) return getmetatable(value) == Context end, {})

return context
