/* Certificates as texts, and which certificates a peer has shown. */
#ifndef DTLS_IDENTITY_CERTIFICATE_H
#define DTLS_IDENTITY_CERTIFICATE_H

#include <stdbool.h>

#include "base/openssl.h"

enum { DTLS_FINGERPRINT_SIZE = EVP_MAX_MD_SIZE * 3 + 1 };
bool dtls_certificate_fingerprint(const X509 *cert, const EVP_MD *digest, char out[DTLS_FINGERPRINT_SIZE]);
/* Writes "DNS:a.example, IP Address:192.0.2.1", ASCII whatever is in the names. False: there are none. */
bool dtls_certificate_write_alt_names(BIO *out, const X509 *cert);

/* The peer's certificate, the one that was refused if one was; NULL: it has shown none. */
X509 *dtls_certificate_leaf(const SSL *ssl);
/* The peer's chain as it was verified, else as the peer sent it; with or without the leaf. */
STACK_OF(X509) * dtls_certificate_chain(const SSL *ssl);

#endif
