/* Pre-shared keys (RFC 4279, 5487, 5489, 8442). */
#ifndef DTLS_IDENTITY_PSK_H
#define DTLS_IDENTITY_PSK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/openssl.h"
#include "identity/context.h"

enum { DTLS_OWN_IDENTITY_MAX = PSK_MAX_IDENTITY_LEN - 1 }; /* a client's, which libssl wants with its NUL */

dtls_option_taker dtls_psk_take;
void dtls_psk_free(dtls_config *c);
unsigned dtls_psk_for_server(SSL *ssl, const char *identity, unsigned char *key, unsigned max);
/* A ClientKeyExchange that libssl is about to look at: its identity may have a NUL, where libssl ends it. */
void dtls_psk_identify_untrusted(SSL *ssl, const uint8_t *message, size_t size);
const char *dtls_psk_identity(const SSL *ssl, size_t *size); /* all bytes of it; NULL: libssl knows none */
bool dtls_psk_suite(const SSL *ssl); /* whether the suite in use, or about to be, has a pre-shared key */

#endif
