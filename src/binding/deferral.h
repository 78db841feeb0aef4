/* The deferral of a Lua state: what its associations send during a turn of the event loop. */
#ifndef DTLS_BINDING_DEFERRAL_H
#define DTLS_BINDING_DEFERRAL_H

#include "association/deferral.h"
#include "binding/lua.h"

void dtls_deferral_init(lua_State *L); /* once, when the module is loaded */
dtls_deferral *dtls_deferral_get(lua_State *L);
int dtls_deferral_defer(lua_State *L);
int dtls_deferral_flush(lua_State *L);

#endif
