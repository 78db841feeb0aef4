--- Protected records made outside of libssl (RFC 6347 §4.1.2): whoever has an association's master secret seals any
--- content type, sequence number and content, as an authenticated peer that means harm can. Key derivation is RFC 5246
--- §6.3's; the AEAD ciphers are those of RFC 5288 (GCM), 6655 (CCM, CCM_8) and 7905 (ChaCha20-Poly1305).
---
---   local keys = sealed.keysOf(proxy, keylog_line, suite)   -- of the association that a proxy carries
---   proxy:inject('server', sealed.record(keys, 'client', 23, 1, 7, 'hello'))

local bit = require 'bit'
local ffi = require 'ffi'
local wire = require 'spec.support.wire'

-- A second definition, after busted has unloaded this module, would raise.
pcall(ffi.cdef, [[
  typedef struct spec_evp_cipher spec_evp_cipher;
  typedef struct spec_evp_cipher_ctx spec_evp_cipher_ctx;
  typedef struct spec_evp_md spec_evp_md;
  const spec_evp_cipher *EVP_aes_128_gcm(void), *EVP_aes_256_gcm(void), *EVP_aes_128_ccm(void), *EVP_aes_256_ccm(void),
    *EVP_chacha20_poly1305(void);
  const spec_evp_md *EVP_sha256(void), *EVP_sha384(void);
  unsigned char *HMAC(const spec_evp_md *md, const void *key, int key_size, const char *data, size_t size,
    unsigned char *out, unsigned *out_size);
  spec_evp_cipher_ctx *EVP_CIPHER_CTX_new(void);
  void EVP_CIPHER_CTX_free(spec_evp_cipher_ctx *ctx);
  int EVP_CIPHER_CTX_ctrl(spec_evp_cipher_ctx *ctx, int command, int size, void *pointer);
  int EVP_CipherInit_ex(spec_evp_cipher_ctx *ctx, const spec_evp_cipher *cipher, void *engine, const char *key,
    const char *nonce, int encrypt);
  int EVP_CipherUpdate(spec_evp_cipher_ctx *ctx, unsigned char *out, int *out_size, const char *data, int size);
  int EVP_CipherFinal_ex(spec_evp_cipher_ctx *ctx, unsigned char *out, int *out_size);
]])

local crypto = ffi.load 'crypto'

local sealed = {}

local number, read = wire.number, wire.read

local HEADER, RANDOM = 13, 32
local HANDSHAKE, SERVER_HELLO = 22, 2
local SET_NONCE_SIZE, GET_TAG, SET_TAG = 9, 16, 17 -- EVP_CTRL_AEAD_…
local FIXED_NONCE, EXPLICIT_NONCE, NONCE = 4, 8, 12

local function unhex(text)
  return (text:gsub('%x%x', function(byte) return string.char(tonumber(byte, 16)) end))
end

-- ── keys ──

local function hmac(md, key, data)
  local out, size = ffi.new 'unsigned char[64]', ffi.new 'unsigned[1]'
  assert(crypto.HMAC(md, key, #key, data, #data, out, size) ~= nil, 'HMAC')
  return ffi.string(out, size[0])
end

-- RFC 5246 §5
local function prf(md, secret, label, seed, size)
  local a, out = label .. seed, ''
  while #out < size do
    a = hmac(md, secret, a)
    out = out .. hmac(md, secret, a .. label .. seed)
  end
  return out:sub(1, size)
end

-- What a suite's name says: OpenSSL's or IANA's.
local function algorithm(suite)
  local name = suite:upper():gsub('[-_]', '')
  local large = name:find('AES256', 1, true)
  if name:find('CHACHA20', 1, true) then return { cipher = crypto.EVP_chacha20_poly1305(), key = 32, tag = 16, implicit = true } end
  if name:find('GCM', 1, true) then
    return { cipher = large and crypto.EVP_aes_256_gcm() or crypto.EVP_aes_128_gcm(), key = large and 32 or 16, tag = 16 }
  end
  assert(name:find('CCM', 1, true), 'no AEAD suite: ' .. suite)
  return {
    cipher = large and crypto.EVP_aes_256_ccm() or crypto.EVP_aes_128_ccm(), key = large and 32 or 16,
    tag = name:find('CCM8', 1, true) and 8 or 16, ccm = true,
  }
end

--- The keys of both directions.
---@param master string the 48 bytes of the master secret
---@param client_random string 32 bytes
---@param server_random string 32 bytes
---@param suite string as getCipher().name or .standardName
---@return {client: table, server: table} by who writes with them
function sealed.keys(master, client_random, server_random, suite)
  local how = algorithm(suite)
  local iv = how.implicit and NONCE or FIXED_NONCE
  local md = suite:find('SHA384', 1, true) and crypto.EVP_sha384() or crypto.EVP_sha256()
  local block = prf(md, master, 'key expansion', server_random .. client_random, 2 * how.key + 2 * iv)
  local at = 0
  local function take(size)
    at = at + size
    return block:sub(at - size + 1, at)
  end
  local keys = { client = { how = how }, server = { how = how } }
  keys.client.key, keys.server.key = take(how.key), take(how.key)
  keys.client.iv, keys.server.iv = take(iv), take(iv)
  return keys
end

--- What a line of the key log says: client random and master secret.
---@param line string 'CLIENT_RANDOM <hex> <hex>'
---@return string? client_random
---@return string? master
function sealed.secret(line)
  local random, master = line:match '^CLIENT_RANDOM (%x+) (%x+)'
  if random then return unhex(random), unhex(master) end
end

--- The random of the last ServerHello among datagrams, or nil.
---@param datagrams string[]
function sealed.serverRandom(datagrams)
  local from = HEADER + 12 + 2 + 1
  for i = #datagrams, 1, -1 do
    local data = datagrams[i]
    if #data >= from + RANDOM and data:byte(1) == HANDSHAKE and read(data, 4, 2) == 0 and data:byte(HEADER + 1) == SERVER_HELLO then
      return data:sub(from, from + RANDOM - 1)
    end
  end
end

--- The keys of the association whose handshake a proxy carried last.
---@param proxy table spec.support.proxy
---@param line string of the key log of either end
---@param suite string
function sealed.keysOf(proxy, line, suite)
  local client_random, master = sealed.secret(line)
  local server_random = assert(sealed.serverRandom(proxy.recorded.client), 'no ServerHello has passed')
  return sealed.keys(master, client_random, server_random, suite)
end

-- ── records ──

-- RFC 5116: `explicit` is the half of the nonce that travels with the record, '' if none does.
local function crypt(key, encrypt, nonce, additional, data, tag)
  local how, size = key.how, ffi.new 'int[1]'
  local out = ffi.new('unsigned char[?]', #data + 16)
  local ctx = ffi.gc(crypto.EVP_CIPHER_CTX_new(), crypto.EVP_CIPHER_CTX_free)
  local tag_bytes = ffi.new('unsigned char[16]', tag or '')
  local function set(command, length, pointer) assert(crypto.EVP_CIPHER_CTX_ctrl(ctx, command, length, pointer) == 1) end
  assert(crypto.EVP_CipherInit_ex(ctx, how.cipher, nil, nil, nil, encrypt) == 1)
  set(SET_NONCE_SIZE, NONCE, nil)
  if tag or how.ccm then set(SET_TAG, how.tag, tag and tag_bytes or nil) end
  assert(crypto.EVP_CipherInit_ex(ctx, nil, nil, key.key, nonce, encrypt) == 1)
  if how.ccm then assert(crypto.EVP_CipherUpdate(ctx, nil, size, nil, #data) == 1) end
  assert(crypto.EVP_CipherUpdate(ctx, nil, size, additional, #additional) == 1)
  local good = crypto.EVP_CipherUpdate(ctx, out, size, data, #data) == 1
  local text = good and ffi.string(out, #data)
  if not (how.ccm and tag) then good = crypto.EVP_CipherFinal_ex(ctx, out, size) == 1 and good end
  if encrypt == 1 then set(GET_TAG, how.tag, tag_bytes) end
  crypto.EVP_CIPHER_CTX_free(ffi.gc(ctx, nil))
  if good then return text, ffi.string(tag_bytes, how.tag) end
end

local function xor(a, b)
  local out = {}
  for i = 1, #a do out[i] = string.char(bit.bxor(a:byte(i), b:byte(i))) end
  return table.concat(out)
end

local function nonce_of(key, explicit)
  if key.how.implicit then return xor(key.iv, ('\0'):rep(NONCE - EXPLICIT_NONCE) .. explicit) end
  return key.iv .. explicit
end

--- A record as the end with that role would send it. A datagram may have several of them, one behind the other.
---@param keys table what sealed.keys gave
---@param from 'client'|'server' who writes
---@param type integer content type
---@param epoch integer
---@param sequence integer
---@param plaintext string
---@param version string? of the record: '\254\253'
function sealed.record(keys, from, type, epoch, sequence, plaintext, version)
  local key, full = keys[from], number(epoch, 2) .. number(sequence, 6)
  local head = string.char(type) .. (version or '\254\253')
  local text, tag = crypt(key, 1, nonce_of(key, full), full .. head .. number(#plaintext, 2), plaintext)
  local body = (key.how.implicit and '' or full) .. assert(text, 'cannot seal') .. tag
  return head .. full .. number(#body, 2) .. body
end

--- What a record says that the end with that role has sent; nil: it is not protected with these keys.
---@param keys table what sealed.keys gave
---@param from 'client'|'server' who wrote it
---@param record {type: integer, whole: string, body: string} as wire.records gives it
---@return string? plaintext
function sealed.open(keys, from, record)
  local key, full = keys[from], record.whole:sub(4, 11)
  local explicit = key.how.implicit and 0 or EXPLICIT_NONCE
  local size = #record.body - explicit - key.how.tag
  if size < 0 then return nil end
  local nonce = nonce_of(key, explicit > 0 and record.body:sub(1, explicit) or full)
  local additional = full .. record.whole:sub(1, 3) .. number(size, 2)
  return (crypt(key, 0, nonce, additional, record.body:sub(explicit + 1, explicit + size), record.body:sub(-key.how.tag)))
end

return sealed
