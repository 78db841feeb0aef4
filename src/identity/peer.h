/*
 * What one SSL knows beyond libssl: the settings that hold for it alone, and what its peer has shown. The app data of the SSL
 * points here. Whoever runs the handshake embeds it, and answers for the application.
 */
#ifndef DTLS_IDENTITY_PEER_H
#define DTLS_IDENTITY_PEER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/openssl.h"
#include "identity/context.h"

typedef struct dtls_peer dtls_peer;

typedef enum { DTLS_UNANSWERED, DTLS_YES, DTLS_NO } dtls_answer; /* UNANSWERED: the question has been put, come back */

/* What only the application can answer. */
typedef struct {
  dtls_answer (*verify)(dtls_peer *peer); /* whether a certificate with a good chain is good enough */
  /* The key, or NULL: there is none. failed becomes true when there was no answer. */
  const dtls_psk *(*psk)(const dtls_peer *peer, bool *failed);
  SSL_SESSION *(*session)(dtls_peer *peer, const uint8_t *id, size_t size); /* the stored session of that id, or NULL */
} dtls_questions;

/* What was set for this SSL and not for its context: it holds whatever identity the name in the hello chooses. */
typedef struct {
  bool verify, depth, ciphers, ccm8;
  int level;              /* of security, that the list of suites asks for */
  char *groups, *sigalgs; /* OpenSSL's lists */
  uint64_t options;
  long modes; /* bits that were set or cleared */
} dtls_overrides;

/* The certificate or the raw public key that was refused. */
typedef struct {
  STACK_OF(X509) * chain; /* as the peer sent it; NULL: none was refused */
  EVP_PKEY *key;          /* the raw public key; NULL: none was refused */
  char *detail;           /* what was wanted and what came, as ASCII; NULL: there is nothing to say, or no memory */
} dtls_refusal;

struct dtls_peer {
  const dtls_questions *questions;
  dtls_config *base;    /* of the context that the SSL was made with: its ticket keys hold for every name */
  bool stores_sessions; /* the application keeps sessions, which then have no tickets */
  bool reject;          /* a peer that is not authorized ends the handshake */
  bool identity_lost;   /* no memory for the PSK identity of its ClientKeyExchange */
  dtls_overrides overrides;
  dtls_refusal refusal;
  char *keylog; /* lines that the application has not taken yet */
};

static inline dtls_peer *dtls_peer_of(const SSL *ssl) { return SSL_get_app_data(ssl); }
/* Makes peer the app data of ssl, with ssl's context as its base. False: libssl has no memory. */
bool dtls_peer_init(dtls_peer *peer, SSL *ssl, const dtls_questions *questions);
void dtls_peer_free(dtls_peer *peer); /* what it owns, not itself */

/* The suite about to be used, else the one in use; NULL: none yet. */
static inline const SSL_CIPHER *dtls_suite(const SSL *ssl) {
  const SSL_CIPHER *pending = SSL_get_pending_cipher(ssl);
  return pending ? pending : SSL_get_current_cipher(ssl);
}

#endif
