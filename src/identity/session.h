/* Resumption. */
#ifndef DTLS_IDENTITY_SESSION_H
#define DTLS_IDENTITY_SESSION_H

#include <stdbool.h>
#include <stddef.h>

#include "base/openssl.h"
#include "identity/context.h"

dtls_option_taker dtls_session_take;
const char *dtls_session_take_keys(lua_State *L, int index, dtls_config *c); /* ticket keys from the list there */
void dtls_session_free(dtls_config *c);
/* Ties what this handshake makes or resumes to the name and to the identity context. */
bool dtls_session_bind(SSL *ssl, const char *name, size_t size); /* ASCII letters in either case are the same */
/* A session from its bytes; NULL: it is none. */
SSL_SESSION *dtls_session_parse(const void *blob, size_t size);
bool dtls_session_in_time(const SSL_SESSION *session);
int dtls_session_is(lua_State *L); /* core.is_session(blob) */
/* Whether a client may offer it now, which then is done: in time, and made under the same name and context. */
bool dtls_session_offer(SSL *ssl, SSL_SESSION *session, const char *name);
void dtls_session_trim(SSL *ssl, size_t mtu); /* a client's hello is about to be made: it must fit a datagram */
int dtls_session_push(lua_State *L, SSL *ssl); /* pushes id, blob, or nothing when it cannot be resumed */

#endif
