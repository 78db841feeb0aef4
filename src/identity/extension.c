/*
 * Extensions of the hello: the application protocol (ALPN, RFC 7301), the SRTP profile (RFC 5764), the longest fragment
 * (RFC 6066 §4).
 */
#include "identity/extension.h"

#include <string.h>

#include "identity/context.h"

enum { ALPN_NAME_MAX = 255, ALPN_LIST_MAX = 65535 - 2 };

/* Protocols as on the wire, each behind its size, for a message. */
static void quote_protocols_untrusted(char out[DTLS_QUOTE_MAX], const uint8_t *list, size_t size) {
  char names[DTLS_QUOTE_MAX];
  size_t length = 0;
  for (size_t at = 0; at < size && length < sizeof names; at += 1 + (size_t)list[at]) {
    if (length > 0) names[length++] = ' ';
    for (size_t i = 1; i <= list[at] && at + i < size && length < sizeof names; i++)
      names[length++] = (char)list[at + i];
  }
  dtls_quote_untrusted(out, names, length);
}

/* libssl's entry for this reason comes behind this one, which says what there was to choose from. */
static int choose_none_untrusted(const dtls_config *c, const uint8_t *offered, size_t size) {
  char theirs[DTLS_QUOTE_MAX], ours[DTLS_QUOTE_MAX];
  quote_protocols_untrusted(theirs, offered, size);
  quote_protocols_untrusted(ours, c->alpn.list, c->alpn.size);
  ERR_raise_data(ERR_LIB_SSL, SSL_R_NO_APPLICATION_PROTOCOL, "the client offers %s, and this server has %s", theirs,
                 ours);
  return SSL_TLSEXT_ERR_ALERT_FATAL;
}

/* The server's order counts. Nothing in common ends the handshake with no_application_protocol (RFC 7301 §3.2). */
static int choose(SSL *ssl, const unsigned char **out, unsigned char *size, const unsigned char *offered,
                  unsigned int offered_size, void *argument) {
  const dtls_config *c = dtls_config_of_ssl(ssl);
  (void)argument;
  if (c->alpn.size == 0) return SSL_TLSEXT_ERR_NOACK;
  unsigned char *chosen;
  if (SSL_select_next_proto(&chosen, size, c->alpn.list, (unsigned)c->alpn.size, offered, offered_size) !=
      OPENSSL_NPN_NEGOTIATED)
    return choose_none_untrusted(c, offered, offered_size);
  *out = chosen;
  return SSL_TLSEXT_ERR_OK;
}

bool dtls_alpn_add(SSL_CTX *ctx, const char *name, size_t size, dtls_failure *f) {
  dtls_alpn_config *a = &dtls_config_of(ctx)->alpn;
  if (size == 0 || size > ALPN_NAME_MAX)
    return dtls_fail_config(f, "ALPNProtocols: a protocol's name has 1 to 255 bytes");
  if (a->size + 1 + size > ALPN_LIST_MAX) return dtls_fail_config(f, "ALPNProtocols: the list is too long");
  uint8_t *grown = OPENSSL_realloc(a->list, a->size + 1 + size);
  if (!grown) return dtls_fail_config(f, "out of memory");
  a->list = grown;
  a->list[a->size] = (uint8_t)size;
  memcpy(a->list + a->size + 1, name, size);
  a->size += 1 + size;
  return true;
}

bool dtls_alpn_use(SSL_CTX *ctx, dtls_failure *f) {
  const dtls_config *c = dtls_config_of(ctx);
  if (c->server) SSL_CTX_set_alpn_select_cb(ctx, choose, NULL);
  if (c->server || c->alpn.size == 0) return true;
  return SSL_CTX_set_alpn_protos(ctx, c->alpn.list, (unsigned)c->alpn.size) == 0 || /* 0: success */
         dtls_fail_config(f, "ALPNProtocols: OpenSSL does not accept them");
}

void dtls_alpn_free(dtls_alpn_config *a) { OPENSSL_free(a->list); }

const char *dtls_alpn_chosen(const SSL *ssl, size_t *size) {
  const unsigned char *name;
  unsigned length;
  SSL_get0_alpn_selected(ssl, &name, &length);
  *size = length;
  return length > 0 ? (const char *)name : NULL;
}

bool dtls_srtp_use(SSL_CTX *ctx, const char *profiles, dtls_failure *f) {
  return SSL_CTX_set_tlsext_use_srtp(ctx, profiles) == 0 || /* 0: success */
         dtls_fail_config(f, "srtpProfiles: OpenSSL does not know one of them");
}

const char *dtls_srtp_chosen(SSL *ssl) {
  const SRTP_PROTECTION_PROFILE *profile = SSL_get_selected_srtp_profile(ssl);
  return profile ? profile->name : NULL;
}

bool dtls_fragment_length_use(SSL_CTX *ctx, long bytes, dtls_failure *f) {
  uint8_t code = TLSEXT_max_fragment_length_512;
  while (512L << (code - TLSEXT_max_fragment_length_512) < bytes) code++;
  return SSL_CTX_set_tlsext_max_fragment_length(ctx, code) == 1 ||
         dtls_fail_config(f, "maxFragmentLength: OpenSSL does not accept it");
}
