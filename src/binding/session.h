/* Sessions that resume associations, as bytes for Lua. */
#ifndef DTLS_BINDING_SESSION_H
#define DTLS_BINDING_SESSION_H

#include "base/openssl.h"
#include "binding/lua.h"

int dtls_session_is(lua_State *L);             /* core.is_session(blob) */
int dtls_session_push(lua_State *L, SSL *ssl); /* pushes id, blob, or nothing when it cannot be resumed */

#endif
