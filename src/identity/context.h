/*
 * Contexts: an SSL_CTX and, as its ex data, a dtls_config. The dtls_config is freed with its SSL_CTX; each struct in it belongs to
 * the file that declares the struct, which alone changes it.
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
#include "identity/raw_public_key.h"
#include "identity/session.h"
#include "identity/verify.h"

enum { DTLS_SECURITY_LEVEL = 2 };

typedef struct dtls_config {
  bool server;
  char *groups, *sigalgs; /* OpenSSL's lists, as settings.c set them last; SSL_set_SSL_CTX does not take groups along */
  /* libssl's security callback, once settings.c has looked at it */
  int (*default_security)(const SSL *, const SSL_CTX *, int, int, int, void *, void *);
  dtls_placeholder_config placeholder;
  dtls_verify_config verify;
  dtls_raw_public_key_config raw;
  dtls_psk_config psk;
  dtls_alpn_config alpn; /* extension.c */
  dtls_session_config session;
  dtls_keylog_config keylog;
} dtls_config;

typedef struct {
  const char *bytes;
  size_t size;
} dtls_text;

/* A context with the versions, options and limits that every association relies on; NULL: OpenSSL's error queue says why. */
SSL_CTX *dtls_context_make(bool server);
dtls_config *dtls_config_of(const SSL_CTX *ctx);
static inline const dtls_config *dtls_config_of_ssl(const SSL *ssl) { return dtls_config_of(SSL_get_SSL_CTX(ssl)); }

/* A certificate with its chain, and its key; both PEM. A context may have one of each kind of key. */
bool dtls_context_use_identity(SSL_CTX *ctx, dtls_text cert, dtls_text key, const char *passphrase, dtls_failure *f);
/* A key alone, PEM, to be shown as a raw public key. */
bool dtls_context_use_key(SSL_CTX *ctx, dtls_text key, const char *passphrase, dtls_failure *f);
/* OpenSSL's lists; NULL leaves libssl's own. To be called after the identities: the keys decide on placeholder certificates. */
bool dtls_context_use_policy(SSL_CTX *ctx, const char *ciphers, const char *groups, const char *sigalgs,
                             dtls_failure *f);
/* The handshake of ssl goes on with the identity of ctx: does what SSL_set_SSL_CTX does, and takes along what that leaves. */
bool dtls_context_adopt(SSL *ssl, SSL_CTX *ctx);

#endif
