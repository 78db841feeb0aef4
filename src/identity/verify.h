/* Who the peer may be. */
#ifndef DTLS_IDENTITY_VERIFY_H
#define DTLS_IDENTITY_VERIFY_H

#include <stdbool.h>

#include "base/failure.h"
#include "base/openssl.h"
#include "identity/context.h"
#include "wire/name.h"

/* Beside OpenSSL's X509_V_ERR_…: the peer chose a key that is dear to use. */
enum { DTLS_VERIFY_KEY_TOO_LARGE = 10000 };

dtls_option_taker dtls_verify_take;
void dtls_verify_free(dtls_config *c);
const char *dtls_verify_result_name(long result); /* OpenSSL's and Node's name of a verification result */
bool dtls_verify_fail(dtls_failure *f, const SSL *ssl); /* the peer's certificate was refused; returns false */
/* What a client calls its server: SNI unless it is an IP address; with check, the name that its certificate must have.
   No name (size 0) is one that no certificate has. */
bool dtls_verify_name(SSL *ssl, const dtls_name *name, bool check);

#endif
