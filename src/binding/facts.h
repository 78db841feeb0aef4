/* What is known of an association and its peer, for Lua. */
#ifndef DTLS_BINDING_FACTS_H
#define DTLS_BINDING_FACTS_H

#include "association/types.h"
#include "binding/lua.h"

extern const luaL_Reg dtls_association_facts[];
/* the PSK identity, or nothing; returns how many */
int dtls_association_push_identity(lua_State *L, const dtls_association *a);

#endif
