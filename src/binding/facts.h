/* What is known of an association and its peer, for Lua. */
#ifndef DTLS_BINDING_FACTS_H
#define DTLS_BINDING_FACTS_H

#include <stdbool.h>

#include "association/types.h"
#include "base/openssl.h"
#include "binding/lua.h"
#include "binding/socket.h"

extern const luaL_Reg dtls_association_facts[];
/* Each returns how many values it has pushed: one, or none. */
int dtls_association_push_identity(lua_State *L, const dtls_association *a); /* the PSK identity */
int dtls_cipher_push(lua_State *L, const SSL_CIPHER *cipher);                /* as a table; NULL: there is none */
/*
 * Sets the fields of what the handshake says of the peer so far: servername (SSL_get_servername), alpnProtocol
 * (SSL_get0_alpn_selected), srtpProfile (SSL_get_selected_srtp_profile), pskIdentity (SSL_get_psk_identity), and once it is complete
 * extendedMasterSecret (SSL_get_extms_support), authorized: whether the peer's identity was proved, and authorizationError: why not.
 */
void dtls_association_learn(lua_State *L, int table, const dtls_association *a);

bool dtls_association_knows_certificate(const dtls_association *a); /* whether what libssl has is its peer's */
/* Brings its counters up to date. False: it has no socket of its own, whose buffers are of the given sizes. */
bool dtls_association_take_stock(dtls_association *a, dtls_buffers *given);

#endif
