/* Endpoints as Lua objects. */
#ifndef DTLS_BINDING_ENDPOINT_H
#define DTLS_BINDING_ENDPOINT_H

#include "binding/lua.h"

void dtls_endpoint_init(lua_State *L);
int dtls_endpoint_core(lua_State *L); /* core.endpoint(context, fd, demux[, options]) */

#endif
