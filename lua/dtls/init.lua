--- DTLS over UDP for luvit and for LuaJIT with luv.

if _VERSION ~= 'Lua 5.1' then error(('dtls: this module needs LuaJIT, and cannot run in %s'):format(_VERSION), 0) end

local core = require 'dtls.core'
local client = require 'dtls.client'
local context = require 'dtls.context'
local server = require 'dtls.server'

---@class dtls.Error
---@field code string stable: a system error's name, or ERR_DTLS_…
---@field message string one sentence
---@field reason string? why a certificate was refused
---@field alert string? the alert that the peer sent, by its RFC name
---@field cause any what destroy() was given, if that was no error object

---@class dtls.Address
---@field ip string
---@field port integer
---@field family 'inet'|'inet6'

local selfSignedOptions = { type = 'string', commonName = 'string', altNames = 'table', days = 'number' }
local keyTypes = { ec = true, ed25519 = true, ed448 = true, rsa = true, ['rsa-pss'] = true }

--- A private key and a certificate that it signed itself, for tests and for peers that pin each other.
---@param options? {type?: 'ec'|'ed25519'|'ed448'|'rsa'|'rsa-pss', commonName?: string, altNames?: string[], days?: integer}
---   defaults: P-256, 'localhost', the common name, 365
---@return {cert: string, key: string, fingerprint: string}? pair PEM texts, and the SHA-256 of the certificate
---@return dtls.Error? err
local function selfSigned(options)
  options = options or {}
  for name, value in pairs(options) do
    local expected = selfSignedOptions[name]
    if not expected then error(("unknown option '%s'"):format(tostring(name)), 2) end
    if type(value) ~= expected then error(("option '%s': expected a %s, got %s"):format(name, expected, type(value)), 2) end
  end
  local kind, common_name = options.type or 'ec', options.commonName or 'localhost'
  if not keyTypes[kind] then error("option 'type': expected 'ec', 'ed25519', 'ed448', 'rsa' or 'rsa-pss'", 2) end
  return core.self_signed {
    type = kind, common_name = common_name, alt_names = options.altNames or { common_name }, days = options.days,
  }
end

return {
  VERSION = core.VERSION,
  OPENSSL = core.openssl(),
  createServer = server.create,
  connect = client.connect,
  createContext = context.create,
  selfSigned = selfSigned,
  DEFAULT_CIPHERS = context.DEFAULT_CIPHERS,
  fd = core.fd,
}
