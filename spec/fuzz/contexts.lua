--- The contexts of the fuzz targets: what a handshake can differ in, by name.

local core = require 'dtls.core'

local SUITES = 'ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-CHACHA20-POLY1305'
local KEY = 'sixteen bytes, 16'

local function identity(type)
  local made = assert(core.self_signed { type = type })
  return { made.cert }, { made.key }, made.fingerprint
end

local cert, key = identity 'ec'

local map = { identity = KEY }

local kinds = {
  certificate = { {}, { ca = cert, reject = true } },
  mutual = { { ca = cert, request_cert = true, reject = true }, { ca = cert, cert = cert, key = key, reject = true } },
  asked = { {}, { ca = cert, reject = true, asks_verify = true } },
  psk = { { psk = map, ciphers = 'PSK-AES128-GCM-SHA256' }, { psk = map, ciphers = 'PSK-AES128-GCM-SHA256' } },
  psk_asked = {
    { psk = true, psk_hint = 'hint', ciphers = 'ECDHE-PSK-CHACHA20-POLY1305' }, { psk = true, ciphers = 'ECDHE-PSK-CHACHA20-POLY1305' },
  },
  chacha = { { ciphers = 'ECDHE-ECDSA-CHACHA20-POLY1305' }, { ca = cert, reject = true } },
  gcm256 = { { ciphers = 'ECDHE-ECDSA-AES256-GCM-SHA384' }, { ca = cert, reject = true, ciphers = 'ECDHE-ECDSA-AES256-GCM-SHA384' } },
  ccm = { { psk = map, ciphers = 'PSK-AES128-CCM' }, { psk = map, ciphers = 'PSK-AES128-CCM' } },
  ccm8 = { { psk = map, ciphers = 'PSK-AES128-CCM8' }, { psk = true, ciphers = 'PSK-AES128-CCM8' } },
}

local contexts = { KEY = KEY }

local function context(role, options, keylog)
  local all = {
    ciphers = SUITES, groups = 'X25519:P-256', sigalgs = 'ECDSA+SHA256:ed25519:ed448', alpn = { 'coap' },
    keylog_event = keylog,
  }
  for name, value in pairs(options) do all[name] = value end
  if role == 'server' and not all.psk and not all.cert then all.cert, all.key = cert, key end
  return assert(core.context(role, all))
end

--- Both contexts of a kind: {server=, client=}
---@param keylog boolean? associations tell their secrets
function contexts.pair(kind, keylog)
  return { server = context('server', kinds[kind][1], keylog), client = context('client', kinds[kind][2], keylog) }
end

--- A server's, with keys of these types: EdDSA and RSA-PSS need placeholder certificates (placeholder.c).
function contexts.serverWith(...)
  local certs, keys = {}, {}
  for i, type in ipairs { ... } do
    local one, other = identity(type)
    certs[i], keys[i] = one[1], other[1]
  end
  return context('server', { cert = certs, key = keys, ciphers = SUITES .. ':ECDHE-RSA-AES128-GCM-SHA256' })
end

--- What a handshake can differ in, and what the protection of records can.
contexts.kinds = { 'certificate', 'mutual', 'asked', 'psk', 'psk_asked', 'ccm8' }
contexts.ciphers = { 'certificate', 'gcm256', 'chacha', 'mutual', 'psk', 'psk_asked', 'ccm', 'ccm8' }

return contexts
