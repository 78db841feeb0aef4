/*
 * Raw public keys (RFC 7250): which types of certificates a side shows and accepts, and the keys of peers that are pinned, by
 * the SHA-256 of their SubjectPublicKeyInfo. A context owns its pins.
 */
#ifndef DTLS_IDENTITY_RAW_PUBLIC_KEY_H
#define DTLS_IDENTITY_RAW_PUBLIC_KEY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/failure.h"
#include "base/openssl.h"
#include "identity/pins.h"

/* TLSEXT_cert_type_…, the preferred one first. None: X.509 alone, and nothing is said of types in the hello. */
typedef struct {
  uint8_t type[2];
  size_t count;
} dtls_certificate_types;

typedef struct {
  dtls_certificate_types own, peer; /* what this side shows, what it accepts */
  dtls_pins pins;
} dtls_raw_public_key_config;

/* After the identities. False: this OpenSSL has no raw public keys. */
bool dtls_raw_public_key_use(SSL_CTX *ctx, const dtls_certificate_types *own, const dtls_certificate_types *peer,
                             dtls_failure *f);
bool dtls_raw_public_key_pin(SSL_CTX *ctx, const char *digest, size_t size, dtls_failure *f);
bool dtls_raw_public_key_adopt(SSL *ssl, const SSL_CTX *ctx); /* what SSL_set_SSL_CTX leaves */
void dtls_raw_public_key_free(dtls_raw_public_key_config *c); /* what it owns */

/* Whether a server has nothing but a raw public key to show, and its client does not take one. */
bool dtls_raw_public_key_unwanted(const SSL *ssl);
bool dtls_accepts_certificates(const dtls_raw_public_key_config *c); /* X.509's */
/* Whether the key that store is about is pinned and strong enough; the verdict is the store's error. */
bool dtls_raw_public_key_verify(X509_STORE_CTX *store, const dtls_raw_public_key_config *c);

#endif
