/* A key and a certificate that it signs itself: for tests, demos, placeholders, and peers that pin each other's fingerprint. */
#ifndef DTLS_IDENTITY_SELF_SIGNED_H
#define DTLS_IDENTITY_SELF_SIGNED_H

#include <stdbool.h>
#include <stddef.h>

#include "base/failure.h"
#include "base/openssl.h"
#include "identity/certificate.h"
#include "identity/context.h"

typedef struct {
  const char *type; /* 'ec' (P-256), 'ed25519', 'ed448', 'rsa' (2048 bits), 'rsa-pss' */
  dtls_text common_name;
  const dtls_text *alt_names; /* host names and IP addresses, each with a NUL behind it */
  size_t alt_names_count;
  long days;
} dtls_self_signed_options;

/* Writes all three as PEM, the key as PKCS #8; the fingerprint is SHA-256. */
bool dtls_self_signed(const dtls_self_signed_options *o, BIO *cert_pem, BIO *key_pem, BIO *public_pem,
                      char fingerprint[DTLS_FINGERPRINT_SIZE], dtls_failure *f);
/* type: as above, or a curve ("P-384"). Uses the key if there is one. The caller frees both, whatever is returned. */
bool dtls_self_signed_nameless(const char *type, X509 **cert, EVP_PKEY **key);

#endif
