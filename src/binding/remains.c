/*
 * What stays known of an association when it is closed: the facts that Lua may ask for, as they are here and not as Lua's tables.
 * Most connections end without a question, and these bytes are a third of what the tables would take.
 */
#include "binding/remains.h"

#include <string.h>

#include "association/association.h"
#include "binding/association.h"
#include "binding/certificate.h"
#include "binding/counters.h"
#include "binding/facts.h"
#include "identity/certificate.h"

static const char TYPE[] = "dtls.remains";

typedef struct {
  dtls_box box; /* its object is what it lies in */
  const char *protocol;
  const SSL_CIPHER *cipher;                        /* libssl's own, as the text before it */
  bool session_reused, has_path, has_buffers, raw; /* raw: its peer has shown a raw public key */
  dtls_address local, peer;
  dtls_buffers buffers;
  dtls_counters counters;
  size_t size; /* of what its peer has shown, as dtls_certificate_encode writes it; 0: nothing */
  uint8_t shown[];
} remains;

static const remains *check(lua_State *L) { return dtls_check(L, 1, TYPE); }

static remains *push(lua_State *L, size_t size) {
  remains *r = lua_newuserdata(L, sizeof *r + size);
  *r = (remains){.box = {.object = r, .type = TYPE, .self = &r->box}, .size = size};
  dtls_push_metatable(L, TYPE);
  lua_setmetatable(L, -2);
  return r;
}

void dtls_remains_push(lua_State *L, dtls_association *a, const dtls_path *path) {
  remains *r = push(L, dtls_association_knows_certificate(a) ? dtls_certificate_encode(a->ssl, NULL) : 0);
  if (r->size > 0 && dtls_certificate_encode(a->ssl, r->shown) != r->size) r->size = 0;
  r->raw = dtls_certificate_raw_key(a->ssl) != NULL;
  dtls_clear_errors();
  r->protocol = SSL_get_version(a->ssl);
  r->cipher = SSL_get_current_cipher(a->ssl);
  r->session_reused = SSL_session_reused(a->ssl);
  r->has_path = path != NULL;
  if (path) {
    r->local = path->local;
    r->peer = path->peer;
  }
  r->has_buffers = dtls_association_take_stock(a, &r->buffers);
  r->counters = a->counters;
}

/* ── the methods of the association that it is what remains of ── */

static int remains_protocol(lua_State *L) {
  lua_pushstring(L, check(L)->protocol);
  return 1;
}

static int remains_cipher(lua_State *L) { return dtls_cipher_push(L, check(L)->cipher); }

static int remains_session_reused(lua_State *L) {
  lua_pushboolean(L, check(L)->session_reused);
  return 1;
}

static int remains_local_address(lua_State *L) {
  const remains *r = check(L);
  if (r->has_path) dtls_address_push(L, &r->local);
  return r->has_path;
}

static int remains_remote_address(lua_State *L) {
  const remains *r = check(L);
  if (r->has_path) dtls_address_push(L, &r->peer);
  return r->has_path;
}

static int remains_peer_certificate(lua_State *L) {
  const remains *r = check(L);
  return !r->raw && dtls_certificate_push_der(L, r->shown, r->size, lua_toboolean(L, 2));
}

static int remains_peer_public_key(lua_State *L) {
  const remains *r = check(L);
  return dtls_public_key_push_der(L, r->shown, r->size, r->raw);
}

static int remains_stats(lua_State *L) {
  const remains *r = check(L);
  dtls_counters_push(L, &r->counters);
  if (r->has_buffers) dtls_udp_push_buffers(L, r->buffers);
  return 1;
}

void dtls_remains_init(lua_State *L) {
  static const luaL_Reg methods[] = {{"protocol", remains_protocol},
                                     {"cipher", remains_cipher},
                                     {"session_reused", remains_session_reused},
                                     {"local_address", remains_local_address},
                                     {"remote_address", remains_remote_address},
                                     {"peer_certificate", remains_peer_certificate},
                                     {"peer_public_key", remains_peer_public_key},
                                     {"stats", remains_stats},
                                     {NULL, NULL}};
  dtls_register(L, TYPE, methods);
}
