/*
 * Resumption: tickets (RFC 5077) and their keys, sessions that an application stores, and what ties a session to the name and the
 * identity context that it was made under.
 */
#ifndef DTLS_IDENTITY_SESSION_H
#define DTLS_IDENTITY_SESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/failure.h"
#include "base/openssl.h"
#include "identity/verify.h"

enum { DTLS_TICKET_KEY_SIZE = 80 };

typedef struct {
  uint8_t policy[DTLS_DIGEST_SIZE]; /* of all that decides who may resume */
  uint64_t timeout;                 /* ms */
  bool own_ticket_keys;             /* random ones, which are rotated after that time */
  unsigned ticket_keys;             /* 0 to 2: the current one, the previous one */
  uint8_t ticket_key[2][DTLS_TICKET_KEY_SIZE];
  uint64_t ticket_keys_since; /* ms */
} dtls_session_config;

/* policy: what else decides who may resume. timeout: seconds. A server seals tickets with random keys until it is given some. */
bool dtls_session_use(SSL_CTX *ctx, const void *policy, size_t size, long timeout, dtls_failure *f);
/* One or two keys of 80 bytes, the current one first (SSL_CTX_set_tlsext_ticket_keys). */
bool dtls_session_set_ticket_keys(SSL_CTX *ctx, const char *const keys[2], const size_t sizes[2], size_t count,
                                  dtls_failure *f);
void dtls_session_free(dtls_session_config *c); /* cleanses the keys */

/* Ties the session that this handshake makes or resumes to the server name and to the identity context. */
bool dtls_session_bind(SSL *ssl, const char *name, size_t size); /* ASCII letters in either case are the same */
SSL_SESSION *dtls_session_parse(const void *blob, size_t size);  /* a session from its bytes; NULL: it is none */
bool dtls_session_in_time(const SSL_SESSION *session);
/* Has a client offer the session; false: it is too old, or was made under another name or context. */
bool dtls_session_offer(SSL *ssl, SSL_SESSION *session, const char *name);
/* Before a client's hello: withdraws a ticket that would make it too long for a datagram. */
void dtls_session_trim(SSL *ssl, size_t mtu);
SSL_SESSION *dtls_session_of(SSL *ssl); /* the session, which libssl owns; NULL: it cannot be resumed */

#endif
