/*
 * What only the application can answer; the handshake is suspended meanwhile. Owns the question, its answer, and the datagrams
 * that wait for it.
 */
#ifndef DTLS_ASSOCIATION_CALLBACKS_H
#define DTLS_ASSOCIATION_CALLBACKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "association/types.h"
#include "base/failure.h"
#include "base/openssl.h"
#include "identity/peer.h"
#include "wire/name.h"

typedef struct dtls_callback dtls_callback;
typedef enum { DTLS_ASK_NOTHING, DTLS_ASK_HELLO, DTLS_ASK_PSK, DTLS_ASK_VERIFY } dtls_question;

extern const dtls_questions dtls_callback_questions;

void dtls_callback_prepare(SSL_CTX *ctx); /* the callback of libssl that asks about a hello */
void dtls_callback_free(dtls_association *a);

/* What waits for its answer. */
dtls_question dtls_callback_asked(const dtls_association *a);
static inline bool dtls_callback_asks(const dtls_association *a) { return dtls_callback_asked(a) != DTLS_ASK_NOTHING; }
/* names the option that has not answered yet; NULL: nothing was asked */
const char *dtls_callback_unanswered(const dtls_association *a);
/* What a server's client said of itself before libssl took it in, or would not take it in. NULL: nothing, or nothing was asked. */
const dtls_name *dtls_callback_name(const dtls_association *a);
const char *dtls_callback_identity(const dtls_association *a, size_t *size);
bool dtls_callback_is_name(const dtls_association *a); /* false: the hello asks for what is no host name */
const uint8_t *dtls_callback_session_id(const dtls_association *a, size_t *size); /* of the hello; NULL: it has none */

/* Answers, each to the question of its kind that waits. */
/* ctx: whose identity the name has; NULL: the server's own. session: what the store had for the id. stale: the stored session can no longer be resumed. */
bool dtls_callback_answer_hello(dtls_association *a, SSL_CTX *ctx, const char *session, size_t size, bool *stale,
                                dtls_failure *f);
void dtls_callback_refuse_hello(dtls_association *a, int alert);
/* A client says its identity; a server's key is for the identity that was asked about. key NULL: there is none. */
void dtls_callback_answer_psk(dtls_association *a, const char *identity, size_t identity_size, const char *key,
                              size_t key_size);
/* the application's psk function has failed; a server's peer gets the alert internal_error */
void dtls_callback_refuse_psk(dtls_association *a);
/* True: that ends the handshake. strict: a no does whatever its context says. */
bool dtls_callback_answer_verify(dtls_association *a, bool good, bool strict);

/* Whether the plaintext handshake record there asks for what only the application knows. It and what is behind it in its
   datagram, size bytes in all, then are kept and come back through dtls_callback_next(). */
bool dtls_callback_untrusted(dtls_association *a, const uint8_t *record, size_t size);
void dtls_callback_keep(dtls_association *a, const uint8_t *data, size_t size); /* behind what is kept already */
/* something is kept, and nothing asked */
bool dtls_callback_pending(const dtls_association *a);
size_t dtls_callback_next(dtls_association *a, uint8_t *out, size_t capacity);

#endif
