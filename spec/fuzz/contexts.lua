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
  ccm8 = { { psk = map, ciphers = 'PSK-AES128-CCM8' }, { psk = true, ciphers = 'PSK-AES128-CCM8' } },
}

local contexts = { KEY = KEY }

local function context(role, options)
  local all = { ciphers = SUITES, groups = 'X25519:P-256', sigalgs = 'ECDSA+SHA256:ed25519:ed448', alpn = { 'coap' } }
  for name, value in pairs(options) do all[name] = value end
  if role == 'server' and not all.psk and not all.cert then all.cert, all.key = cert, key end
  return assert(core.context(role, all))
end

--- Both contexts of a kind: {server=, client=}
function contexts.pair(kind)
  return { server = context('server', kinds[kind][1]), client = context('client', kinds[kind][2]) }
end

--- A server's, whose key libssl takes only with help (opener.c).
function contexts.opened(...)
  local certs, keys = {}, {}
  for i, type in ipairs { ... } do
    local one, other = identity(type)
    certs[i], keys[i] = one[1], other[1]
  end
  return context('server', { cert = certs, key = keys, ciphers = SUITES .. ':ECDHE-RSA-AES128-GCM-SHA256' })
end

contexts.kinds = { 'certificate', 'mutual', 'asked', 'psk', 'psk_asked', 'ccm8' }

return contexts
