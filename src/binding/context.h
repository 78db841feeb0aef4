/* Contexts as Lua objects. */
#ifndef DTLS_BINDING_CONTEXT_H
#define DTLS_BINDING_CONTEXT_H

#include <stdbool.h>

#include "base/openssl.h"
#include "binding/lua.h"

void dtls_context_init(lua_State *L);
int dtls_context_new(lua_State *L);                                /* core.context(role, options) */
SSL_CTX *dtls_context_check(lua_State *L, int index, bool server); /* a context of that role */
SSL_CTX *dtls_context_self(lua_State *L);                          /* the one at index 1 */

#endif
