/* What is known of an association and its peer, for Lua: getters, keying material, counters. */
#include "binding/facts.h"

#include <stddef.h>
#include <string.h>

#include "association/association.h"
#include "association/deferral.h"
#include "binding/association.h"
#include "binding/certificate.h"
#include "binding/counters.h"
#include "binding/error.h"
#include "binding/session.h"
#include "identity/extension.h"
#include "identity/verify.h"

enum { EXPORT_MAX = 65536 };

static dtls_association *check(lua_State *L) { return dtls_association_check(L, 1); }

static int push_bytes(lua_State *L, const char *bytes, size_t size) {
  if (!bytes) return 0;
  lua_pushlstring(L, bytes, size);
  return 1;
}

int dtls_association_push_identity(lua_State *L, const dtls_association *a) {
  size_t size;
  const char *identity = dtls_association_identity(a, &size);
  return push_bytes(L, identity, size);
}

static int push_address(lua_State *L, const dtls_address *address) {
  if (!address) return 0;
  dtls_address_push(L, address);
  return 1;
}

/* association:local_address() → {ip=, port=, family=} | nil */
static int association_local_address(lua_State *L) {
  const dtls_path *path = check(L)->path;
  return push_address(L, path ? &path->local : NULL);
}

/* association:remote_address() → {ip=, port=, family=} | nil */
static int association_remote_address(lua_State *L) {
  const dtls_path *path = check(L)->path;
  return push_address(L, path ? &path->peer : NULL);
}

/* association:protocol() → 'DTLSv1.2' (SSL_get_version) */
static int association_protocol(lua_State *L) {
  lua_pushstring(L, SSL_get_version(check(L)->ssl));
  return 1;
}

int dtls_cipher_push(lua_State *L, const SSL_CIPHER *cipher) {
  if (!cipher) return 0;
  lua_createtable(L, 0, 4);
  lua_pushstring(L, SSL_CIPHER_get_name(cipher));
  lua_setfield(L, -2, "name");
  lua_pushstring(L, SSL_CIPHER_standard_name(cipher));
  lua_setfield(L, -2, "standardName");
  lua_pushstring(L, SSL_CIPHER_get_version(cipher));
  lua_setfield(L, -2, "version");
  lua_pushinteger(L, SSL_CIPHER_get_bits(cipher, NULL));
  lua_setfield(L, -2, "bits");
  return 1;
}

/* association:cipher() → {name=, standardName=, version=, bits=} | nil (SSL_get_current_cipher) */
static int association_cipher(lua_State *L) { return dtls_cipher_push(L, SSL_get_current_cipher(check(L)->ssl)); }

/* Why the identity of the peer of a complete handshake was not proved; NULL: it was. */
static const char *why_unauthorized(const dtls_association *a) {
  long result = SSL_get_verify_result(a->ssl);
  if (result != X509_V_OK) return dtls_verify_result_name(result);
  bool has_shown = SSL_get0_peer_certificate(a->ssl) || SSL_get0_peer_rpk(a->ssl) || SSL_get_psk_identity(a->ssl);
  return has_shown ? NULL : "NO_PEER_CERTIFICATE";
}

/* The host name that the client asked for, a server's in lower case: libssl's, or in name. NULL: none. */
static const char *servername(const dtls_association *a, dtls_name *name) {
  const char *asked = SSL_get_servername(a->ssl, TLSEXT_NAMETYPE_host_name);
  const dtls_name *held = a->server && !asked ? dtls_callback_name(a) : NULL;
  if (held) asked = held->text;
  if (!asked || !a->server) return asked;
  return dtls_name_of_client_untrusted(asked, strlen(asked), name) && name->size > 0 ? name->text : NULL;
}

/* Sets a field of the table; NULL: leaves it as it is. */
static void set_bytes(lua_State *L, int table, const char *field, const char *bytes, size_t size) {
  if (!bytes) return;
  lua_pushlstring(L, bytes, size);
  lua_setfield(L, table, field);
}

void dtls_association_learn(lua_State *L, int table, const dtls_association *a) {
  dtls_name name = {.size = 0};
  size_t size;
  const char *text = servername(a, &name);
  set_bytes(L, table, "servername", text, text ? strlen(text) : 0);
  text = dtls_alpn_chosen(a->ssl, &size);
  set_bytes(L, table, "alpnProtocol", text, size);
  text = dtls_srtp_chosen(a->ssl);
  set_bytes(L, table, "srtpProfile", text, text ? strlen(text) : 0);
  text = dtls_association_identity(a, &size);
  set_bytes(L, table, "pskIdentity", text, size);
  if (!a->open) return;
  lua_pushboolean(L, SSL_get_extms_support(a->ssl) == 1);
  lua_setfield(L, table, "extendedMasterSecret");
  text = why_unauthorized(a);
  lua_pushboolean(L, text == NULL);
  lua_setfield(L, table, "authorized");
  lua_pushstring(L, text);
  lua_setfield(L, table, "authorizationError");
}

/* association:export_keying_material(length, label[, context]) → bytes | nil, err (RFC 5705, SSL_export_keying_material) */
static int association_export(lua_State *L) {
  dtls_association *a = check(L);
  lua_Integer length = luaL_checkinteger(L, 2);
  size_t label_size, context_size = 0;
  const char *label = luaL_checklstring(L, 3, &label_size), *context = luaL_optlstring(L, 4, NULL, &context_size);
  luaL_argcheck(L, length >= 1 && length <= EXPORT_MAX, 2, "expected 1 to 65536 bytes");
  if (dtls_association_is_foreign(a)) { /* with one key, SRTP of both processes would use nonces twice, too */
    dtls_failure f;
    dtls_fail_forked(&f);
    return dtls_error_push(L, &f);
  }
  if (!a->open) return dtls_error(L, "ENOTCONN", "the handshake is not complete");
  ERR_clear_error();
  unsigned char *out = lua_newuserdata(L, (size_t)length);
  if (SSL_export_keying_material(a->ssl, out, (size_t)length, label, label_size, (const uint8_t *)context, context_size,
                                 context != NULL) != 1)
    return dtls_error_openssl(L, "ERR_DTLS_PROTOCOL", "cannot export keying material");
  lua_pushlstring(L, (const char *)out, (size_t)length);
  OPENSSL_cleanse(out, (size_t)length);
  return 1;
}

/* Before that it could be what the session has that a client offers. */
bool dtls_association_knows_certificate(const dtls_association *a) {
  return a->open || dtls_callback_asks(a) || a->peer.refusal.chain || a->peer.refusal.key;
}

/* association:peer_certificate([chain]) → table | nil, as certificate.c makes it: once the association is open, the application is
   asked or the certificate is refused */
static int association_peer_certificate(lua_State *L) {
  const dtls_association *a = check(L);
  return dtls_association_knows_certificate(a) && dtls_certificate_push(L, a->ssl, lua_toboolean(L, 2));
}

/* association:peer_public_key() → table | nil, as certificate.c makes it: a raw one, or that of the certificate */
static int association_peer_public_key(lua_State *L) {
  const dtls_association *a = check(L);
  return dtls_association_knows_certificate(a) && dtls_public_key_push(L, a->ssl);
}

/*
 * association:session() → id, blob | nil: what resumes it (i2d_SSL_SESSION). It holds the master secret. None for a client
 * that has changed how it verifies: its sessions are bound to what its context said.
 */
static int association_session(lua_State *L) {
  dtls_association *a = check(L);
  const dtls_overrides *own = &a->peer.overrides;
  bool bound = a->server || !(own->verify || own->depth || own->ciphers || own->groups || own->sigalgs);
  return a->open && bound ? dtls_session_push(L, a->ssl) : 0;
}

/* association:session_reused() → boolean (SSL_session_reused) */
static int association_session_reused(lua_State *L) {
  lua_pushboolean(L, SSL_session_reused(check(L)->ssl));
  return 1;
}

/* association:keylog() → lines that nobody has taken yet, each with its newline | nil */
static int association_keylog(lua_State *L) {
  dtls_association *a = check(L);
  if (!a->peer.keylog) return 0;
  lua_pushstring(L, a->peer.keylog);
  OPENSSL_clear_free(a->peer.keylog, strlen(a->peer.keylog));
  a->peer.keylog = NULL;
  return 1;
}

bool dtls_association_take_stock(dtls_association *a, dtls_buffers *given) {
  bool has_socket = a->path && a->path->fd >= 0;
  if (a->output.deferral) dtls_deferral_settle(a->output.deferral);
  if (has_socket) dtls_path_count_overflow(a->path);
  return has_socket && dtls_udp_buffers(a->path->fd, given);
}

/* association:stats() → its counters, and recvBufferSize, sendBufferSize of its socket if it has one of its own */
static int association_stats(lua_State *L) {
  dtls_association *a = check(L);
  dtls_buffers given;
  bool has_buffers = dtls_association_take_stock(a, &given);
  dtls_counters_push(L, &a->counters);
  if (has_buffers) dtls_udp_push_buffers(L, given);
  return 1;
}

const luaL_Reg dtls_association_facts[] = {{"local_address", association_local_address},
                                           {"remote_address", association_remote_address},
                                           {"protocol", association_protocol},
                                           {"cipher", association_cipher},
                                           {"export_keying_material", association_export},
                                           {"peer_certificate", association_peer_certificate},
                                           {"peer_public_key", association_peer_public_key},
                                           {"session", association_session},
                                           {"session_reused", association_session_reused},
                                           {"keylog", association_keylog},
                                           {"stats", association_stats},
                                           {NULL, NULL}};
