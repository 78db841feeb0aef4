/*
 * SSL_CTX: who we are, the policy of handshakes, and the configuration that hangs on it. The configuration is freed with its
 * SSL_CTX; each part of it belongs to the file whose struct it is.
 */
#ifndef DTLS_IDENTITY_CONTEXT_H
#define DTLS_IDENTITY_CONTEXT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/failure.h"
#include "base/openssl.h"
#include "identity/extension.h"
#include "identity/keylog.h"
#include "identity/placeholder.h"
#include "identity/psk.h"
#include "identity/session.h"
#include "identity/verify.h"

enum { DTLS_SECURITY_LEVEL = 2 };

typedef struct dtls_config {
  bool server;
  char *groups, *sigalgs; /* OpenSSL's lists, as they were set last; SSL_set_SSL_CTX does not take groups along */
  /* NULL: still in use (settings.c) */
  int (*default_security)(const SSL *, const SSL_CTX *, int, int, int, void *, void *);
  dtls_placeholder_config placeholder;
  dtls_verify_config verify;
  dtls_psk_config psk;
  dtls_alpn_config alpn; /* extension.c */
  dtls_session_config session;
  dtls_keylog_config keylog;
} dtls_config;

typedef struct {
  const char *bytes;
  size_t size;
} dtls_text;

/* with what every association of this module relies on; NULL: OpenSSL's queue says why */
SSL_CTX *dtls_context_make(bool server);
dtls_config *dtls_config_of(const SSL_CTX *ctx);
static inline const dtls_config *dtls_config_of_ssl(const SSL *ssl) { return dtls_config_of(SSL_get_SSL_CTX(ssl)); }

/* A certificate with its chain, and its key; both PEM. A context may have one of each kind of key. */
bool dtls_context_use_identity(SSL_CTX *ctx, dtls_text cert, dtls_text key, const char *passphrase, dtls_failure *f);
/* OpenSSL's lists; NULL: as they are. After the identities. */
bool dtls_context_use_policy(SSL_CTX *ctx, const char *ciphers, const char *groups, const char *sigalgs,
                             dtls_failure *f);
/* The handshake goes on with another identity: all that SSL_set_SSL_CTX takes along, and all that it does not. */
bool dtls_context_adopt(SSL *ssl, SSL_CTX *ctx);

#endif
