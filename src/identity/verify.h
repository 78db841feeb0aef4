/*
 * Who the peer may be: authorities, revocation lists, pinned certificates, the name of a server. A context owns its pins; its
 * authorities and lists are in its X509_STORE.
 */
#ifndef DTLS_IDENTITY_VERIFY_H
#define DTLS_IDENTITY_VERIFY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "base/failure.h"
#include "base/openssl.h"
#include "identity/pins.h"
#include "wire/name.h"

/* Beside OpenSSL's X509_V_ERR_…: the peer chose a key that is dear to use; it has shown a certificate of X.509 where none counts. */
enum { DTLS_VERIFY_KEY_TOO_LARGE = 10000, DTLS_VERIFY_RAW_PUBLIC_KEY_REQUIRED };

typedef struct {
  bool request;       /* a server asks its clients for certificates */
  bool reject;        /* a peer that is not authorized ends the handshake */
  bool asks;          /* the application looks at a good chain, too */
  bool partial_chain; /* any certificate among the authorities is an anchor */
  bool ignores_dates;
  time_t time; /* at which certificates are looked at; -1: now */
} dtls_verify_policy;

typedef struct {
  dtls_verify_policy policy;
  bool has_ca, has_crl;
  dtls_pins pins; /* of certificates */
} dtls_verify_config;

bool dtls_verify_add_ca(SSL_CTX *ctx, const char *pem, size_t size, dtls_failure *f);
bool dtls_verify_add_crl(SSL_CTX *ctx, const char *pem, size_t size, dtls_failure *f);
/* false: this machine has no authorities, and required is set */
bool dtls_verify_use_system_store(SSL_CTX *ctx, bool required, dtls_failure *f);
bool dtls_verify_pin(SSL_CTX *ctx, const char *digest, size_t size, dtls_failure *f);
void dtls_verify_use(SSL_CTX *ctx, const dtls_verify_policy *policy);
void dtls_verify_free(dtls_verify_config *v); /* what it owns */

const char *dtls_verify_result_name(long result);       /* OpenSSL's and Node's name of a verification result */
bool dtls_verify_fail(dtls_failure *f, const SSL *ssl); /* what the peer has shown was refused; returns false */
/* Sets the name of a client's server: as SNI unless it is an IP address, and, with check, as the name that the server's certificate
   must have. With check, an empty name refuses every certificate. */
bool dtls_verify_name(SSL *ssl, const dtls_name *name, bool check);

#endif
