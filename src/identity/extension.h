/*
 * Extensions of the hello: the application protocol (ALPN, RFC 7301), the SRTP profile (RFC 5764), the longest fragment
 * (RFC 6066 §4).
 */
#ifndef DTLS_IDENTITY_EXTENSION_H
#define DTLS_IDENTITY_EXTENSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/failure.h"
#include "base/openssl.h"

typedef struct {
  uint8_t *list; /* protocol names with their lengths before them, as on the wire */
  size_t size;
} dtls_alpn_config;

bool dtls_alpn_add(SSL_CTX *ctx, const char *name, size_t size, dtls_failure *f); /* the most wanted first */
bool dtls_alpn_use(SSL_CTX *ctx, dtls_failure *f);                                /* after the last one */
void dtls_alpn_free(dtls_alpn_config *a);                                         /* what it owns */
/* what both sides agreed on; NULL: nothing */
const char *dtls_alpn_chosen(const SSL *ssl, size_t *size);

bool dtls_srtp_use(SSL_CTX *ctx, const char *profiles, dtls_failure *f); /* OpenSSL's list */
const char *dtls_srtp_chosen(SSL *ssl);                                  /* OpenSSL's name of it; NULL: none */

/* 512 to 4096, of a client, who alone asks for it */
bool dtls_fragment_length_use(SSL_CTX *ctx, long bytes, dtls_failure *f);

#endif
