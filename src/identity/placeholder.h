/*
 * Placeholder certificates: a server that has an EdDSA or RSA-PSS key gets an ECDSA or RSA certificate beside it, without which
 * libssl offers no suite for that key in DTLS. A context owns its placeholders and the set of its real keys.
 */
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
/* After the last real key: makes what those keys need, and has the context sign with the real keys alone. */
bool dtls_placeholder_make(SSL_CTX *ctx);
void dtls_placeholder_free(dtls_placeholder_config *p); /* what it owns */
bool dtls_placeholder_needed(const SSL_CTX *ctx); /* then SSL_CTX_set1_sigalgs_list would undo dtls_placeholder_make */
bool dtls_placeholder_use_untrusted(SSL *ssl);    /* in the ClientHello callback: loads what its client needs */

#endif
