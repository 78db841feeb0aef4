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

/* Raw public keys (RFC 7250) begin with 3.2: before, no peer has one, and no list of certificate types can be set. */
#if OPENSSL_VERSION_NUMBER >= 0x30200000L
#define DTLS_HAS_RAW_PUBLIC_KEYS 1
#else
#define DTLS_HAS_RAW_PUBLIC_KEYS 0
#define TLSEXT_cert_type_x509 0
#define TLSEXT_cert_type_rpk 2
#define X509_V_ERR_RPK_UNTRUSTED 95
#define SSL_get0_peer_rpk(ssl) ((void)(ssl), (EVP_PKEY *)NULL)
#define SSL_get_negotiated_server_cert_type(ssl) ((void)(ssl), TLSEXT_cert_type_x509)
#define X509_STORE_CTX_get0_rpk(store) ((void)(store), (EVP_PKEY *)NULL)
#define SSL_CTX_set1_client_cert_type(ctx, types, size) ((void)(ctx), (void)(types), (size) == 0)
#define SSL_CTX_set1_server_cert_type(ctx, types, size) ((void)(ctx), (void)(types), (size) == 0)
#define SSL_set1_client_cert_type(ssl, types, size) ((void)(ssl), (void)(types), (size) == 0)
#define SSL_set1_server_cert_type(ssl, types, size) ((void)(ssl), (void)(types), (size) == 0)
#endif

#endif
