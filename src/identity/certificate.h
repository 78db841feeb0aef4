/* Certificates and public keys as texts and bytes, and which of them a peer has shown. */
#ifndef DTLS_IDENTITY_CERTIFICATE_H
#define DTLS_IDENTITY_CERTIFICATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/openssl.h"

enum { DTLS_DIGEST_SIZE = 32 }; /* of SHA-256 */
enum { DTLS_FINGERPRINT_SIZE = EVP_MAX_MD_SIZE * 3 + 1 };
void dtls_fingerprint_write(const uint8_t *digest, size_t size, char out[DTLS_FINGERPRINT_SIZE]);
bool dtls_certificate_fingerprint(const X509 *cert, const EVP_MD *digest, char out[DTLS_FINGERPRINT_SIZE]);
/* Writes "DNS:a.example, IP Address:192.0.2.1", ASCII whatever is in the names. False: there are none. */
bool dtls_certificate_write_alt_names(BIO *out, const X509 *cert);

/* SHA-256 of the SubjectPublicKeyInfo. */
bool dtls_public_key_digest(const EVP_PKEY *key, uint8_t out[DTLS_DIGEST_SIZE]);

/* The peer's certificate, the one that was refused if one was; NULL: it has shown none. */
X509 *dtls_certificate_leaf(const SSL *ssl);
/* The peer's chain as it was verified, else as the peer sent it; with or without the leaf. */
STACK_OF(X509) * dtls_certificate_chain(const SSL *ssl);
/* The peer's raw public key, the one that was refused if one was; NULL: it has shown certificates, or nothing. */
EVP_PKEY *dtls_certificate_raw_key(const SSL *ssl);
/* The same, or else the key of its certificate. */
EVP_PKEY *dtls_certificate_key(const SSL *ssl);

/* The leaf and the rest of the chain as DER, one certificate behind the other, or else the raw public key, into out; NULL: only
   their size is wanted. 0: there is none, or no memory. */
size_t dtls_certificate_encode(const SSL *ssl, uint8_t *out);
/* What dtls_certificate_encode has written of certificates, leaf first. NULL: no memory. The caller frees it. */
STACK_OF(X509) * dtls_certificate_decode(const uint8_t *der, size_t size);
/* The raw public key that dtls_certificate_encode has written, else that of the leaf. NULL: no memory. The caller frees it. */
EVP_PKEY *dtls_certificate_decode_key(const uint8_t *der, size_t size, bool raw);

#endif
