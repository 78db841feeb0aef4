/*
 * OpenSSL as this module uses it: every header, and every difference between the supported versions
 * (3.0 to 4.x), in one place. Elsewhere only linkage.c, whose business it is, looks at OPENSSL_VERSION_NUMBER.
 */
#ifndef DTLS_BASE_OPENSSL_H
#define DTLS_BASE_OPENSSL_H

#include <openssl/bio.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/lhash.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#if OPENSSL_VERSION_NUMBER < 0x30000000L
#error "luvit-dtls needs OpenSSL 3.0 or later"
#endif

/* When a session was made, in seconds; the older name of the function is deprecated from 3.4 on. */
#if OPENSSL_VERSION_NUMBER >= 0x30300000L
#define DTLS_SESSION_TIME(session) SSL_SESSION_get_time_ex(session)
#else
#define DTLS_SESSION_TIME(session) SSL_SESSION_get_time(session)
#endif

#endif
