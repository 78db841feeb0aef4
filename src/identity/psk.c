/*
 * Pre-shared keys (RFC 4279): those of the configuration, and those that the application answers with (dtls_questions).
 */
#include "identity/psk.h"

#include <stdlib.h>
#include <string.h>

#include "identity/context.h"
#include "identity/peer.h"
#include "wire/record.h"

#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)

/* ── identities are bytes (RFC 4279 §5.1), while libssl ends one at its first NUL ── */

/* An identity that has a NUL is kept whole as the session's ticket appdata, and so in tickets and in stored sessions, too. */
void dtls_psk_identify_untrusted(SSL *ssl, const uint8_t *message, size_t size) {
  enum { PREFIX = 2 };
  const uint8_t *body = message + DTLS_HANDSHAKE_HEADER, *identity = body + PREFIX;
  if (!SSL_is_server(ssl) || message[0] != SSL3_MT_CLIENT_KEY_EXCHANGE || !dtls_psk_suite(ssl) ||
      size < DTLS_HANDSHAKE_HEADER + PREFIX)
    return;
  size_t length = dtls_u16(body);
  if (length > size - DTLS_HANDSHAKE_HEADER - PREFIX || !memchr(identity, '\0', length))
    return; /* libssl refuses a wrong length, and has the whole of an identity without NUL */
  dtls_peer_of(ssl)->identity_lost = SSL_SESSION_set1_ticket_appdata(SSL_get0_session(ssl), identity, length) != 1;
}

/* The whole identity of which libssl knows the bytes before the first NUL; NULL: libssl knows none. */
static const char *identity_of(const SSL *ssl, const char *up_to_nul, size_t *size) {
  void *whole = NULL;
  SSL_SESSION *session = SSL_get0_session(ssl);
  *size = up_to_nul ? strlen(up_to_nul) : 0;
  if (up_to_nul && session && SSL_SESSION_get0_ticket_appdata(session, &whole, size) == 1 && whole) return whole;
  if (up_to_nul) *size = strlen(up_to_nul);
  return up_to_nul;
}

const char *dtls_psk_identity(const SSL *ssl, size_t *size) {
  return identity_of(ssl, SSL_get_psk_identity(ssl), size);
}

static int compare(const void *a, const void *b) {
  const dtls_psk *one = a, *other = b;
  size_t common = one->identity_size < other->identity_size ? one->identity_size : other->identity_size;
  int order = memcmp(one->identity, other->identity, common);
  return order ? order : (one->identity_size > other->identity_size) - (one->identity_size < other->identity_size);
}

/* ── what libssl asks ── */

static const dtls_psk *find(const dtls_psk_config *p, const dtls_psk *wanted) {
  return p->count > 0 ? bsearch(wanted, p->keys, p->count, sizeof *p->keys, compare) : NULL;
}

static unsigned give(const dtls_psk *psk, unsigned char *key, unsigned max) {
  if (!psk || psk->key_size > max) return 0;
  memcpy(key, psk->key, psk->key_size);
  return (unsigned)psk->key_size;
}

/* Returning 0 refuses the client with the alert unknown_psk_identity (RFC 4279 §2), returning more than PSK_MAX_PSK_LEN with
   internal_error. */
unsigned dtls_psk_for_server(SSL *ssl, const char *identity, unsigned char *key, unsigned max) {
  const dtls_peer *peer = dtls_peer_of(ssl);
  const dtls_config *c = dtls_config_of_ssl(ssl);
  dtls_psk wanted = {0};
  bool failed = peer->identity_lost;
  wanted.identity = (char *)(uintptr_t)identity_of(ssl, identity, &wanted.identity_size);
  const dtls_psk *psk = c->psk.asks ? peer->questions->psk(peer, &failed) : find(&c->psk, &wanted);
  if (failed) return PSK_MAX_PSK_LEN + 1;
  /* a forged ClientKeyExchange may have made the application look up another identity */
  return psk && compare(psk, &wanted) == 0 ? give(psk, key, max) : 0;
}

static unsigned for_client(SSL *ssl, const char *hint, char *identity, unsigned max_identity, unsigned char *key,
                           unsigned max) {
  const dtls_config *c = dtls_config_of_ssl(ssl);
  bool failed = false;
  const dtls_peer *peer = dtls_peer_of(ssl);
  const dtls_psk *psk = c->psk.asks ? peer->questions->psk(peer, &failed) : c->psk.keys;
  (void)hint;
  if (failed || !psk || psk->identity_size >= max_identity) return 0;
  memcpy(identity, psk->identity, psk->identity_size + 1);
  return give(psk, key, max);
}

bool dtls_psk_suite(const SSL *ssl) {
  const SSL_CIPHER *cipher = dtls_suite(ssl);
  if (!cipher) return false;
  int kx = SSL_CIPHER_get_kx_nid(cipher);
  return kx == NID_kx_psk || kx == NID_kx_ecdhe_psk || kx == NID_kx_dhe_psk || kx == NID_kx_rsa_psk;
}

/* ── keys of a context ── */

static void psk_free(const dtls_psk *psk) {
  OPENSSL_free(psk->identity);
  OPENSSL_clear_free(psk->key, psk->key_size);
}

bool dtls_psk_add(SSL_CTX *ctx, const char *identity, size_t identity_size, const char *key, size_t key_size,
                  dtls_failure *f) {
  dtls_config *c = dtls_config_of(ctx);
  dtls_psk_config *p = &c->psk;
  if (identity_size > (c->server ? PSK_MAX_IDENTITY_LEN : DTLS_OWN_IDENTITY_MAX))
    return dtls_fail_config(
        f, "psk: an identity has at most " TEXT(PSK_MAX_IDENTITY_LEN) " bytes, a client's own one fewer");
  if (!c->server && strlen(identity) != identity_size)
    return dtls_fail_config(f, "psk: OpenSSL cannot send an identity that has a NUL");
  if (key_size == 0 || key_size > PSK_MAX_PSK_LEN)
    return dtls_fail_config(f, "psk: a key has 1 to " TEXT(PSK_MAX_PSK_LEN) " bytes");
  dtls_psk *grown = OPENSSL_realloc(p->keys, (p->count + 1) * sizeof *grown);
  if (!grown) return dtls_fail_config(f, "out of memory");
  p->keys = grown;
  dtls_psk entry = {.identity = OPENSSL_memdup(identity, identity_size + 1),
                    .identity_size = identity_size,
                    .key = OPENSSL_memdup(key, key_size),
                    .key_size = key_size};
  if (entry.identity && entry.key) {
    p->keys[p->count++] = entry;
    return true;
  }
  psk_free(&entry);
  return dtls_fail_config(f, "out of memory");
}

bool dtls_psk_set_hint(SSL_CTX *ctx, const char *hint, size_t size, dtls_failure *f) {
  if (strlen(hint) == size && SSL_CTX_use_psk_identity_hint(ctx, hint) == 1) return true;
  return dtls_fail_config(
      f, "pskIdentityHint: a hint has at most " TEXT(PSK_MAX_IDENTITY_LEN) " bytes and no NUL among them");
}

void dtls_psk_use(SSL_CTX *ctx, bool asks) {
  dtls_config *c = dtls_config_of(ctx);
  c->psk.asks = asks;
  if (c->psk.count > 0) qsort(c->psk.keys, c->psk.count, sizeof *c->psk.keys, compare);
  if (!dtls_psk_is_used(&c->psk)) return;
  if (c->server)
    SSL_CTX_set_psk_server_callback(ctx, dtls_psk_for_server);
  else
    SSL_CTX_set_psk_client_callback(ctx, for_client);
}

void dtls_psk_free(dtls_psk_config *p) {
  for (size_t i = 0; i < p->count; i++) psk_free(&p->keys[i]);
  OPENSSL_free(p->keys);
}
