/* Questions that only the application can answer, for Lua. */
#ifndef DTLS_BINDING_CALLBACKS_H
#define DTLS_BINDING_CALLBACKS_H

#include "association/types.h"
#include "binding/lua.h"

int dtls_callback_push(lua_State *L, const dtls_association *a); /* nil, kind, subject… of the question that waits */
extern const luaL_Reg dtls_callback_methods[];

#endif
