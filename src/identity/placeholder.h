/* Placeholder certificates: EdDSA and RSA-PSS keys, which libssl takes for DTLS only beside others. */
#ifndef DTLS_IDENTITY_PLACEHOLDER_H
#define DTLS_IDENTITY_PLACEHOLDER_H

#include <stdbool.h>

#include "base/openssl.h"

enum { DTLS_KEY_ED25519 = 1, DTLS_KEY_ED448 = 2, DTLS_KEY_EC = 4, DTLS_KEY_RSA_PSS = 8, DTLS_KEY_RSA = 16 };

enum { DTLS_PLACEHOLDER_CURVES = 3 };

typedef struct {
  X509 *cert;
  EVP_PKEY *key;
} dtls_key_pair;

typedef struct {
  unsigned keys; /* DTLS_KEY_…, of the identities of the context */
  dtls_key_pair ec[DTLS_PLACEHOLDER_CURVES], rsa;
} dtls_placeholder_config;

void dtls_placeholder_note(dtls_placeholder_config *p, const EVP_PKEY *key); /* a real key of the context */
bool dtls_placeholder_make(SSL_CTX *ctx, const char *sigalgs);               /* after the real keys, if they need one */
void dtls_placeholder_free(dtls_placeholder_config *p);                      /* what it owns */
bool dtls_placeholder_needed(const SSL_CTX *ctx); /* then what it signs with is not for others to set */
bool dtls_placeholder_use_untrusted(SSL *ssl);    /* for the hello that libssl is looking at */

#endif
