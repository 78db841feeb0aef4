--- OpenSSL's setters by its own names: of a Context, for the handshakes to come, and of a Connection, for itself (a
--- client's right after connect and a server's in `accept`, before the handshake runs). One that fails leaves everything as
--- it was.

local arguments = require 'dtls.arguments'
local options = require 'dtls.options'

local argument = arguments.check

jit.off(true, true) -- see options.lua

--- A class that has them has `_set(method, …)` and `_get(method)`, which call its core object.
---@class dtls.Setters
local Setters = {}

local function set_checked(self, method, value, err)
  if not value then return nil, err end
  return self:_set(method, value)
end

--- Switches options on: names without their prefix, `{'NO_TICKET'}` (SSL_CTX_set_options, SSL_set_options).
---@param names string|string[]
---@return true? ok
---@return dtls.Error? err ERR_DTLS_CONFIG: there is none of that name, or this module relies on it; ENOTCONN
function Setters:setOptions(names) return set_checked(self, 'set_options', argument('setOptions', 'names', options.names, names)) end

--- Switches options off (SSL_CTX_clear_options, SSL_clear_options).
---@param names string|string[]
---@return true? ok
---@return dtls.Error? err
function Setters:clearOptions(names) return set_checked(self, 'clear_options', argument('clearOptions', 'names', options.names, names)) end

--- The options that are on (SSL_CTX_get_options, SSL_get_options).
---@return string[]?
---@return dtls.Error? err
function Setters:options() return self:_get 'get_options' end

--- Switches modes on: names without their prefix (SSL_CTX_set_mode, SSL_set_mode).
---@param names string|string[]
---@return true? ok
---@return dtls.Error? err
function Setters:setModes(names) return set_checked(self, 'set_modes', argument('setModes', 'names', options.names, names)) end

--- The modes that are on (SSL_CTX_get_mode, SSL_get_mode).
---@return string[]?
---@return dtls.Error? err
function Setters:modes() return self:_get 'get_modes' end

local verify_depth = options.wholeNumber(0, 100)

local function verify_table(value)
  if type(value) == 'table' then return value end
  return nil, '{mode=, depth=}'
end

--- How peers are verified. `mode`, by OpenSSL's names: 'NONE', 'PEER', 'FAIL_IF_NO_PEER_CERT', 'CLIENT_ONCE'
--- (SSL_CTX_set_verify, SSL_set_verify); any but NONE refuses what does not verify. `depth`: how many certificates may stand
--- between the peer's and the authority's (SSL_CTX_set_verify_depth, SSL_set_verify_depth).
---@param given {mode?: string|string[], depth?: integer}
---@return true? ok
---@return dtls.Error? err
function Setters:setVerify(given)
  arguments.insist('setVerify', 'given', verify_table, given)
  for name in pairs(given) do
    if name ~= 'mode' and name ~= 'depth' then error(("setVerify: there is no '%s', but mode and depth"):format(tostring(name)), 2) end
  end
  local mode, err
  if given.mode ~= nil then
    mode, err = argument('setVerify', 'mode', options.names, given.mode)
    if not mode then return nil, err end
  end
  local depth = given.depth
  if depth ~= nil then arguments.insist('setVerify', 'depth', verify_depth, depth) end
  return self:_set('set_verify', mode, depth)
end

--- Suites, as OpenSSL's list; only those with AEAD are kept (SSL_CTX_set_cipher_list, SSL_set_cipher_list).
---@param list string
---@return true? ok
---@return dtls.Error? err
function Setters:setCiphers(list) return set_checked(self, 'set_ciphers', argument('setCiphers', 'list', options.text, list)) end

--- Groups, as OpenSSL's list (SSL_CTX_set1_groups_list, SSL_set1_groups_list).
---@param list string
---@return true? ok
---@return dtls.Error? err
function Setters:setGroups(list) return set_checked(self, 'set_groups', argument('setGroups', 'list', options.text, list)) end

--- Signature algorithms, as OpenSSL's list (SSL_CTX_set1_sigalgs_list, SSL_set1_sigalgs_list).
---@param list string
---@return true? ok
---@return dtls.Error? err
function Setters:setSigalgs(list) return set_checked(self, 'set_sigalgs', argument('setSigalgs', 'list', options.text, list)) end

return Setters
