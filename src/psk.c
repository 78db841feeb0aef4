/*
 * Pre-shared keys (RFC 4279): those of the configuration, and those that the application answers with (hold.c).
 */
#include "core.h"

#include <stdlib.h>
#include <string.h>

#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)

/* ── what libssl asks ── */

static int compare(const void *a, const void *b) { return strcmp(((const dtls_psk *)a)->identity, ((const dtls_psk *)b)->identity); }

static const dtls_psk *find(const dtls_config *c, const char *identity) {
  dtls_psk wanted = {.identity = (char *)(uintptr_t)identity};
  return c->psks > 0 ? bsearch(&wanted, c->psk, c->psks, sizeof *c->psk, compare) : NULL;
}

static unsigned give(const dtls_psk *psk, unsigned char *key, unsigned max) {
  if (!psk || psk->key_size > max) return 0;
  memcpy(key, psk->key, psk->key_size);
  return (unsigned)psk->key_size;
}

/* 0 refuses with the alert unknown_psk_identity (RFC 4279 §2). */
unsigned dtls_psk_for_server(SSL *ssl, const char *identity, unsigned char *key, unsigned max) {
  const dtls_config *c = dtls_config_of_ssl(ssl);
  return give(c->asks_psk ? dtls_hold_psk(dtls_association_of(ssl), identity) : find(c, identity), key, max);
}

static unsigned for_client(SSL *ssl, const char *hint, char *identity, unsigned max_identity, unsigned char *key, unsigned max) {
  const dtls_config *c = dtls_config_of_ssl(ssl);
  const dtls_psk *psk = c->asks_psk ? dtls_hold_psk(dtls_association_of(ssl), NULL) : c->psk;
  (void)hint;
  if (!psk || strlen(psk->identity) >= max_identity) return 0;
  memcpy(identity, psk->identity, strlen(psk->identity) + 1);
  return give(psk, key, max);
}

bool dtls_psk_suite(const SSL *ssl) {
  const SSL_CIPHER *cipher = dtls_suite(ssl);
  if (!cipher) return false;
  int kx = SSL_CIPHER_get_kx_nid(cipher);
  return kx == NID_kx_psk || kx == NID_kx_ecdhe_psk || kx == NID_kx_dhe_psk || kx == NID_kx_rsa_psk;
}

/* ── options ── */

/* The entry whose identity and key are at the top of the stack (key above). */
static const char *add(lua_State *L, dtls_config *c) {
  size_t identity_size, key_size;
  const char *identity = luaL_checklstring(L, -2, &identity_size), *key = luaL_checklstring(L, -1, &key_size);
  if (identity_size > (c->server ? PSK_MAX_IDENTITY_LEN : DTLS_OWN_IDENTITY_MAX) || strlen(identity) != identity_size)
    return "psk: an identity has at most " TEXT(PSK_MAX_IDENTITY_LEN) " bytes, a client's own one fewer, and no NUL among them";
  if (key_size == 0 || key_size > PSK_MAX_PSK_LEN) return "psk: a key has 1 to " TEXT(PSK_MAX_PSK_LEN) " bytes";
  dtls_psk *grown = OPENSSL_realloc(c->psk, (c->psks + 1) * sizeof *grown);
  if (!grown) return "out of memory";
  c->psk = grown;
  dtls_psk *entry = &c->psk[c->psks];
  entry->identity = OPENSSL_strdup(identity);
  entry->key = OPENSSL_memdup(key, key_size);
  entry->key_size = key_size;
  c->psks++;
  return entry->identity && entry->key ? NULL : "out of memory";
}

static const char *take_keys(lua_State *L, dtls_config *c) {
  const char *failed = NULL;
  lua_getfield(L, 2, "psk"); /* identity → key, or true */
  c->asks_psk = lua_isboolean(L, -1) && lua_toboolean(L, -1);
  if (lua_istable(L, -1)) {
    lua_pushnil(L);
    while (!failed && lua_next(L, -2)) {
      failed = add(L, c);
      lua_pop(L, 1);
    }
    if (c->psks > 0) qsort(c->psk, c->psks, sizeof *c->psk, compare);
  }
  if (!failed) lua_pop(L, 1);
  return failed;
}

static const char *take_hint(lua_State *L, SSL_CTX *ctx) {
  size_t size;
  lua_getfield(L, 2, "psk_hint");
  const char *hint = lua_tolstring(L, -1, &size); /* stays alive in the table */
  lua_pop(L, 1);
  if (!hint || (strlen(hint) == size && SSL_CTX_use_psk_identity_hint(ctx, hint) == 1)) return NULL;
  return "pskIdentityHint: a hint has at most " TEXT(PSK_MAX_IDENTITY_LEN) " bytes and no NUL among them";
}

const char *dtls_psk_take(lua_State *L, SSL_CTX *ctx, dtls_config *c) {
  const char *failed = take_keys(L, c);
  if (failed) return failed;
  if (c->psks > 0 || c->asks_psk) {
    if (c->server)
      SSL_CTX_set_psk_server_callback(ctx, dtls_psk_for_server);
    else
      SSL_CTX_set_psk_client_callback(ctx, for_client);
  }
  return take_hint(L, ctx);
}

void dtls_psk_free(dtls_config *c) {
  for (size_t i = 0; i < c->psks; i++) {
    OPENSSL_free(c->psk[i].identity);
    OPENSSL_clear_free(c->psk[i].key, c->psk[i].key_size);
  }
  OPENSSL_free(c->psk);
}
