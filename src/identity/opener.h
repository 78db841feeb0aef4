/* EdDSA and RSA-PSS keys, which libssl takes for DTLS only beside others. */
#ifndef DTLS_IDENTITY_OPENER_H
#define DTLS_IDENTITY_OPENER_H

#include <stdbool.h>

#include "base/openssl.h"
#include "identity/context.h"

enum { DTLS_KEY_ED25519 = 1, DTLS_KEY_ED448 = 2, DTLS_KEY_EC = 4, DTLS_KEY_RSA_PSS = 8, DTLS_KEY_RSA = 16 };

void dtls_opener_note(dtls_config *c, const EVP_PKEY *key); /* a real key of the configuration */
const char *dtls_opener_take(SSL_CTX *ctx, dtls_config *c, const char *sigalgs); /* after the real keys */
void dtls_opener_free(dtls_config *c);
bool dtls_opener_needed(const dtls_config *c); /* then what it signs with is not for others to set */
bool dtls_opener_use_untrusted(SSL *ssl);      /* for the hello that libssl is looking at */

#endif
