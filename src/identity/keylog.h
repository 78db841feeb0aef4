/*
 * The key log (SSLKEYLOGFILE's format): to a file that nobody but its owner may open, and as lines for the application. A context
 * owns the descriptor of the file, a dtls_peer its lines.
 */
#ifndef DTLS_IDENTITY_KEYLOG_H
#define DTLS_IDENTITY_KEYLOG_H

#include <stdbool.h>

#include "base/failure.h"
#include "base/openssl.h"

typedef struct {
  bool event; /* lines are kept for the application (dtls_peer.keylog) */
  int fd;     /* of the file; -1: none */
} dtls_keylog_config;

bool dtls_keylog_use(SSL_CTX *ctx, const char *file, bool event, dtls_failure *f); /* file: NULL for none */
void dtls_keylog_free(dtls_keylog_config *k);                                      /* closes the file */

#endif
