/* What only the application can answer; the handshake is suspended meanwhile. */
#ifndef DTLS_ASSOCIATION_CALLBACKS_H
#define DTLS_ASSOCIATION_CALLBACKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/openssl.h"
#include "association/types.h"
#include "identity/context.h"
#include "identity/peer.h"
#include "wire/name.h"
#include "binding/lua.h"

typedef struct dtls_callback dtls_callback;

void dtls_callback_callbacks(SSL_CTX *ctx); /* the one that asks about a hello */
void dtls_callback_free(dtls_association *a);
bool dtls_callback_asks(const dtls_association *a); /* a question waits for its answer */
/* Whether the plaintext handshake record there asks for what only the application knows. It and what is behind it in its
   datagram, size bytes in all, then are kept and come back through dtls_callback_next(). */
bool dtls_callback_untrusted(dtls_association *a, const uint8_t *record, size_t size);
void dtls_callback_keep(dtls_association *a, const uint8_t *data, size_t size); /* behind what is kept already */
bool dtls_callback_pending(const dtls_association *a);                          /* something is kept, and nothing asked */
size_t dtls_callback_next(dtls_association *a, uint8_t *out, size_t capacity);
extern const dtls_questions dtls_callback_questions;
const char *dtls_callback_unanswered(const dtls_association *a); /* names what has not answered yet; NULL: nothing was asked */
/* What a server's client said of itself before libssl took it in, or would not take it in. NULL: nothing, or nothing was asked. */
const dtls_name *dtls_callback_name(const dtls_association *a);
const char *dtls_callback_identity(const dtls_association *a, size_t *size);
int dtls_callback_push(lua_State *L, dtls_association *a); /* nil, kind, subject… of the question */
extern const luaL_Reg dtls_callback_methods[];

#endif
