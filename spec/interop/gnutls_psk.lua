--- A client with a pre-shared key whose identity is any bytes, which the programs of GnuTLS do not send but its library
--- does. Each visit sends one message, prints what comes back, and resumes the visit before it.
---
---   luajit spec/interop/gnutls_psk.lua PORT IDENTITY KEY VISITS   -- identity and key in hexadecimal

local ffi = require 'ffi'

ffi.cdef [[
  typedef struct { unsigned char *data; unsigned size; } datum;
  int gnutls_init(void **session, unsigned flags);
  void gnutls_deinit(void *session);
  int gnutls_psk_allocate_client_credentials(void **credentials);
  int gnutls_psk_set_client_credentials2(void *credentials, const datum *identity, const datum *key, int hexadecimal);
  int gnutls_credentials_set(void *session, int kind, void *credentials);
  int gnutls_priority_set_direct(void *session, const char *priorities, const char **wrong);
  void gnutls_transport_set_int2(void *session, int receive, int send);
  void gnutls_handshake_set_timeout(void *session, unsigned ms);
  int gnutls_handshake(void *session);
  int gnutls_error_is_fatal(int number);
  const char *gnutls_strerror(int number);
  ssize_t gnutls_record_send(void *session, const void *data, size_t size);
  ssize_t gnutls_record_recv(void *session, void *data, size_t size);
  int gnutls_bye(void *session, int how);
  int gnutls_session_get_data2(void *session, datum *data);
  int gnutls_session_set_data(void *session, const void *data, size_t size);
  int gnutls_session_is_resumed(void *session);
  int socket(int domain, int type, int protocol);
  int connect(int fd, const void *address, unsigned size);
  int close(int fd);
]]

local gnutls = ffi.load 'gnutls.so.30'
local CLIENT, DATAGRAM, PSK, WRITE = 2, 4, 4, 1 -- GNUTLS_…
local AF_INET, SOCK_DGRAM = 2, 2

local function check(number, what)
  if number >= 0 then return number end
  print(('%s: %s'):format(what, ffi.string(gnutls.gnutls_strerror(number))))
  os.exit(1)
end

local function datum(hex)
  local text = hex:gsub('%x%x', function(byte) return string.char(tonumber(byte, 16)) end)
  local bytes = ffi.new('unsigned char[?]', #text + 1, text)
  return ffi.new('datum', { bytes, #text }), bytes -- the second keeps the first one's bytes
end

local function connected(port)
  local fd = ffi.C.socket(AF_INET, SOCK_DGRAM, 0)
  local address = ffi.new('unsigned char[16]', { AF_INET, 0, math.floor(port / 256), port % 256, 127, 0, 0, 1 })
  assert(ffi.C.connect(fd, address, 16) == 0, 'connect')
  return fd
end

local function visit(port, credentials, before)
  local holder, fd = ffi.new 'void *[1]', connected(port)
  check(gnutls.gnutls_init(holder, CLIENT + DATAGRAM), 'init')
  local session = holder[0]
  check(gnutls.gnutls_credentials_set(session, PSK, credentials), 'credentials')
  check(gnutls.gnutls_priority_set_direct(session, 'NORMAL:-VERS-ALL:+VERS-DTLS1.2:-KX-ALL:+PSK', nil), 'priorities')
  if before then check(gnutls.gnutls_session_set_data(session, before.data, before.size), 'session') end
  gnutls.gnutls_transport_set_int2(session, fd, fd)
  gnutls.gnutls_handshake_set_timeout(session, 10000)
  local result
  repeat result = gnutls.gnutls_handshake(session) until result >= 0 or gnutls.gnutls_error_is_fatal(result) ~= 0
  check(result, 'handshake')
  check(gnutls.gnutls_record_send(session, 'hello', 5), 'send')
  local buffer = ffi.new 'char[64]'
  local size = check(gnutls.gnutls_record_recv(session, buffer, 64), 'receive')
  print(('%s %s'):format(gnutls.gnutls_session_is_resumed(session) ~= 0 and 'resumed' or 'new', ffi.string(buffer, size)))
  local kept = ffi.new 'datum'
  check(gnutls.gnutls_session_get_data2(session, kept), 'session')
  gnutls.gnutls_bye(session, WRITE)
  gnutls.gnutls_deinit(session)
  ffi.C.close(fd)
  return kept
end

local port, identity, key, visits = unpack(arg)
local credentials = ffi.new 'void *[1]'
local identity_datum, identity_bytes = datum(identity)
local key_datum, key_bytes = datum(key)
check(gnutls.gnutls_psk_allocate_client_credentials(credentials), 'credentials')
check(gnutls.gnutls_psk_set_client_credentials2(credentials[0], identity_datum, key_datum, 0), 'credentials')
local before
for _ = 1, tonumber(visits) do before = visit(tonumber(port), credentials[0], before) end
assert(identity_bytes and key_bytes)
