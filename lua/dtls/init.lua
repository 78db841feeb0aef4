--- DTLS over UDP for luvit and for LuaJIT with luv.

if _VERSION ~= 'Lua 5.1' then error(('dtls: this module needs LuaJIT, and cannot run in %s'):format(_VERSION), 0) end

local arguments = require 'dtls.arguments'
local core = require 'dtls.core'
local options = require 'dtls.options'
local client = require 'dtls.client'
local context = require 'dtls.context'
local server = require 'dtls.server'

---@class dtls.Error
---@field code string stable: a system error's name, or ERR_DTLS_…
---@field message string one sentence
---@field reason string? why a certificate was refused
---@field alert string? the alert that the peer sent, by its RFC name
---@field identity string? the pre-shared key's, in an error of its handshake
---@field certificate dtls.PeerCertificate? the one that was refused
---@field publicKey dtls.PublicKey? the raw one that was refused
---@field cause any what destroy() was given, if that was no error object

---@class dtls.Address
---@field ip string
---@field port integer
---@field family 'inet'|'inet6'

local selfSignedOptions = {
  type = options.oneOf('ec', 'ed25519', 'ed448', 'rsa', 'rsa-pss'), commonName = options.ofType 'string', altNames = options.ofType 'table',
  days = options.wholeNumber(1, 36500),
}

--- A private key and a certificate that it signed itself, for tests and for peers that pin each other.
---@param given? {type?: 'ec'|'ed25519'|'ed448'|'rsa'|'rsa-pss', commonName?: string, altNames?: string[], days?: integer}
---   defaults: P-256, 'localhost', the common name, 365
---@return {cert: string, key: string, publicKey: string, fingerprint: string}? pair PEM texts, and the SHA-256 of the certificate
---@return dtls.Error? err
local function selfSigned(given)
  given = given == nil and {} or given
  arguments.insist('selfSigned', 'options', options.ofType 'table', given)
  for name, value in pairs(given) do
    local check = selfSignedOptions[name]
    if not check then error(("selfSigned: unknown option '%s'"):format(tostring(name)), 2) end
    arguments.insist('selfSigned', ("option '%s'"):format(name), check, value)
  end
  local common_name = given.commonName or 'localhost'
  return core.self_signed {
    type = given.type or 'ec', common_name = common_name, alt_names = given.altNames or { common_name }, days = given.days,
  }
end

--- The functions are annotated where they are defined.
---@class dtls
---@field VERSION string of this module, 'x.y.z'
---@field OPENSSL {text: string, number: integer, linkage: 'shared'|'static'|'host'} the OpenSSL that it uses
---@field DEFAULT_CIPHERS string the suites of the secure profile, as OpenSSL's list
---@field fd fun(handle: uv_udp_t|table): integer?, dtls.Error? the descriptor of a luv UDP handle or a luvit dgram socket; EBADF
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
