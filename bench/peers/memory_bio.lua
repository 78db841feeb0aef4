--- DTLS as a TLS library for Lua makes it possible: luv's UDP socket, an SSL for each peer with a memory BIO on both sides, and Lua
--- that carries every datagram from one to the other. libssl is called by LuaJIT's ffi, which is the fastest way there is. A
--- memory BIO knows no peer, hence there are no cookies, and what libssl has written is cut into records again. Flights are not
--- repeated.
---
---   luajit bench/peers/memory_bio.lua CERT KEY MODE         MODE: echo, as in load.c

package.path = 'bench/?.lua;' .. package.path

local ffi = require 'ffi'
local uv = require 'luv'
local answer = require 'answer'

ffi.cdef [[
typedef struct ssl_st SSL;
typedef struct ssl_ctx_st SSL_CTX;
typedef struct bio_st BIO;
const void *DTLS_server_method(void);
SSL_CTX *SSL_CTX_new(const void *);
int SSL_CTX_use_certificate_chain_file(SSL_CTX *, const char *);
int SSL_CTX_use_PrivateKey_file(SSL_CTX *, const char *, int);
SSL *SSL_new(SSL_CTX *);
void SSL_free(SSL *);
void SSL_set_bio(SSL *, BIO *, BIO *);
uint64_t SSL_set_options(SSL *, uint64_t);
long SSL_ctrl(SSL *, int, long, void *);
void SSL_set_accept_state(SSL *);
int SSL_do_handshake(SSL *);
int SSL_read(SSL *, void *, int);
int SSL_write(SSL *, const void *, int);
int SSL_get_shutdown(const SSL *);
const void *BIO_s_mem(void);
BIO *BIO_new(const void *);
int BIO_read(BIO *, void *, int);
int BIO_write(BIO *, const void *, int);
long BIO_ctrl(BIO *, int, long, void *);
void ERR_clear_error(void);
]]
local ssl = ffi.load 'ssl'

local PEM, SET_MTU, MTU, NO_QUERY_MTU, SET_MEM_EOF_RETURN, RECORD_HEADER = 1, 17, 1472, 0x1000, 130, 13
local SIZE = 65536
local buffer = ffi.new('uint8_t[?]', SIZE)

local cert, key = unpack(arg)
local ctx = ssl.SSL_CTX_new(ssl.DTLS_server_method())
assert(ssl.SSL_CTX_use_certificate_chain_file(ctx, cert) == 1)
assert(ssl.SSL_CTX_use_PrivateKey_file(ctx, key, PEM) == 1)

local socket = uv.new_udp()
assert(socket:bind('127.0.0.1', 0))
socket:recv_buffer_size(4194304)
local peers = {}

local function memory_bio()
  local bio = ssl.BIO_new(ssl.BIO_s_mem())
  ssl.BIO_ctrl(bio, SET_MEM_EOF_RETURN, -1, nil) -- empty: try again later
  return bio
end

local function new_peer(ip, port)
  local peer = { ip = ip, port = port, ssl = ssl.SSL_new(ctx), input = memory_bio(), output = memory_bio() }
  ssl.SSL_set_bio(peer.ssl, peer.input, peer.output)
  ssl.SSL_set_options(peer.ssl, NO_QUERY_MTU)
  ssl.SSL_ctrl(peer.ssl, SET_MTU, MTU, nil)
  ssl.SSL_set_accept_state(peer.ssl)
  return peer
end

-- Each record is a datagram.
local function send_records(peer)
  local size, at = ssl.BIO_read(peer.output, buffer, SIZE), 0
  while at < size do
    local length = RECORD_HEADER + buffer[at + 11] * 256 + buffer[at + 12]
    socket:try_send(ffi.string(buffer + at, length), peer.ip, peer.port)
    at = at + length
  end
end

local function serve(peer, data)
  ssl.ERR_clear_error()
  ssl.BIO_write(peer.input, data, #data)
  if not peer.open then
    peer.open = ssl.SSL_do_handshake(peer.ssl) == 1
    send_records(peer)
  end
  while peer.open do
    local size = ssl.SSL_read(peer.ssl, buffer, SIZE)
    if size <= 0 then break end
    local message = ffi.string(buffer, size)
    ssl.SSL_write(peer.ssl, message, #message)
    send_records(peer)
  end
  return ssl.SSL_get_shutdown(peer.ssl) == 0
end

socket:recv_start(function(_, data, address)
  if not data or not address then return end
  local name = address.ip .. ':' .. address.port
  local peer = peers[name] or new_peer(address.ip, address.port)
  peers[name] = peer
  if serve(peer, data) then return end
  ssl.SSL_free(peer.ssl)
  peers[name] = nil
end)
answer(socket:getsockname().port)
uv.run()
