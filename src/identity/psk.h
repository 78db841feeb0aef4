/*
 * Pre-shared keys (RFC 4279, 5487, 5489, 8442). A context owns copies of the identities and keys that it was given, and cleanses
 * the keys when it is freed.
 */
#ifndef DTLS_IDENTITY_PSK_H
#define DTLS_IDENTITY_PSK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/failure.h"
#include "base/openssl.h"

enum { DTLS_OWN_IDENTITY_MAX = PSK_MAX_IDENTITY_LEN - 1 }; /* a client's, which libssl wants with its NUL */

typedef struct {
  char *identity; /* bytes, and a NUL behind them */
  uint8_t *key;
  size_t identity_size, key_size;
} dtls_psk;

typedef struct {
  bool asks; /* the application knows identities and keys */
  size_t count;
  dtls_psk *keys; /* sorted by identity; a client has one */
} dtls_psk_config;

bool dtls_psk_add(SSL_CTX *ctx, const char *identity, size_t identity_size, const char *key, size_t key_size,
                  dtls_failure *f);
bool dtls_psk_set_hint(SSL_CTX *ctx, const char *hint, size_t size, dtls_failure *f);
void dtls_psk_use(SSL_CTX *ctx, bool asks); /* after the last key; asks: the application knows the keys instead */
void dtls_psk_free(dtls_psk_config *p);     /* what it owns */
static inline bool dtls_psk_is_used(const dtls_psk_config *p) { return p->count > 0 || p->asks; }

/* SSL_psk_server_cb_func */
unsigned dtls_psk_for_server(SSL *ssl, const char *identity, unsigned char *key, unsigned max);
/* Before libssl reads a ClientKeyExchange: keeps an identity that has a NUL, at which libssl would end it. */
void dtls_psk_identify_untrusted(SSL *ssl, const uint8_t *message, size_t size);
const char *dtls_psk_identity(const SSL *ssl, size_t *size); /* whole, whatever bytes it has; NULL: there is none */
bool dtls_psk_suite(const SSL *ssl); /* whether the suite in use, or about to be, has a pre-shared key */

#endif
