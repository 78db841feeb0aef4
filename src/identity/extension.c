/*
 * Extensions of the hello: the application protocol (ALPN, RFC 7301), the SRTP profile (RFC 5764), the longest fragment
 * (RFC 6066 §4).
 */
#include "identity/extension.h"

#include <string.h>

enum { ALPN_NAME_MAX = 255, ALPN_LIST_MAX = 65535 - 2 };

/* Protocols as on the wire, each behind its size, for a message. */
static void quote_protocols_untrusted(char out[DTLS_QUOTE_MAX], const uint8_t *list, size_t size) {
  char names[DTLS_QUOTE_MAX];
  size_t length = 0;
  for (size_t at = 0; at < size && length < sizeof names; at += 1 + (size_t)list[at]) {
    if (length > 0) names[length++] = ' ';
    for (size_t i = 1; i <= list[at] && at + i < size && length < sizeof names; i++) names[length++] = (char)list[at + i];
  }
  dtls_quote_untrusted(out, names, length);
}

/* libssl's entry for this reason comes behind this one, which says what there was to choose from. */
static int choose_none_untrusted(const dtls_config *c, const uint8_t *offered, size_t size) {
  char theirs[DTLS_QUOTE_MAX], ours[DTLS_QUOTE_MAX];
  quote_protocols_untrusted(theirs, offered, size);
  quote_protocols_untrusted(ours, c->alpn, c->alpn_size);
  ERR_raise_data(ERR_LIB_SSL, SSL_R_NO_APPLICATION_PROTOCOL, "the client offers %s, and this server has %s", theirs, ours);
  return SSL_TLSEXT_ERR_ALERT_FATAL;
}

/* The server's order counts. Nothing in common ends the handshake with no_application_protocol (RFC 7301 §3.2). */
static int choose(SSL *ssl, const unsigned char **out, unsigned char *size, const unsigned char *offered, unsigned int offered_size, void *argument) {
  const dtls_config *c = dtls_config_of_ssl(ssl);
  (void)argument;
  if (c->alpn_size == 0) return SSL_TLSEXT_ERR_NOACK;
  unsigned char *chosen;
  if (SSL_select_next_proto(&chosen, size, c->alpn, (unsigned)c->alpn_size, offered, offered_size) != OPENSSL_NPN_NEGOTIATED)
    return choose_none_untrusted(c, offered, offered_size);
  *out = chosen;
  return SSL_TLSEXT_ERR_OK;
}

static const char *take_alpn(lua_State *L, dtls_config *c) {
  size_t count = dtls_option_list(L, "alpn"), room = 0, size;
  for (size_t i = 1; i <= count; i++) {
    lua_rawgeti(L, -1, (int)i);
    luaL_checklstring(L, -1, &size);
    if (size == 0 || size > ALPN_NAME_MAX) return "ALPNProtocols: a protocol's name has 1 to 255 bytes";
    room += 1 + size;
    lua_pop(L, 1);
  }
  if (room > ALPN_LIST_MAX) return "ALPNProtocols: the list is too long";
  if (room > 0 && !(c->alpn = OPENSSL_malloc(room))) return "out of memory";
  for (size_t i = 1; i <= count; i++) {
    lua_rawgeti(L, -1, (int)i);
    const char *name = lua_tolstring(L, -1, &size);
    c->alpn[c->alpn_size] = (uint8_t)size;
    memcpy(c->alpn + c->alpn_size + 1, name, size);
    c->alpn_size += 1 + size;
    lua_pop(L, 1);
  }
  lua_pop(L, 1);
  return NULL;
}

/* 512 to 4096, of a client, who alone asks for it. */
static const char *take_fragment_length(lua_State *L, SSL_CTX *ctx) {
  long wanted = dtls_option_integer(L, 2, "max_fragment_length", 0, 512, 4096);
  uint8_t code = TLSEXT_max_fragment_length_512;
  if (wanted == 0) return NULL;
  while (512L << (code - TLSEXT_max_fragment_length_512) < wanted) code++;
  return SSL_CTX_set_tlsext_max_fragment_length(ctx, code) == 1 ? NULL : "maxFragmentLength: OpenSSL does not accept it";
}

const char *dtls_extension_take(lua_State *L, SSL_CTX *ctx, dtls_config *c) {
  const char *failed = take_alpn(L, c), *profiles = dtls_option_string(L, "srtp");
  if (failed) return failed;
  /* These two return 0 for success. */
  if (!c->server && c->alpn_size > 0 && SSL_CTX_set_alpn_protos(ctx, c->alpn, (unsigned)c->alpn_size) != 0) return "ALPNProtocols: OpenSSL does not accept them";
  if (profiles && SSL_CTX_set_tlsext_use_srtp(ctx, profiles) != 0) return "srtpProfiles: OpenSSL does not know one of them";
  if (c->server) SSL_CTX_set_alpn_select_cb(ctx, choose, NULL);
  return take_fragment_length(L, ctx);
}

void dtls_extension_free(dtls_config *c) { OPENSSL_free(c->alpn); }

int dtls_extension_alpn(lua_State *L, const SSL *ssl) {
  const unsigned char *name;
  unsigned size;
  SSL_get0_alpn_selected(ssl, &name, &size);
  if (size == 0) return 0;
  lua_pushlstring(L, (const char *)name, size);
  return 1;
}

int dtls_extension_srtp(lua_State *L, SSL *ssl) {
  const SRTP_PROTECTION_PROFILE *profile = SSL_get_selected_srtp_profile(ssl);
  if (!profile) return 0;
  lua_pushstring(L, profile->name);
  return 1;
}
