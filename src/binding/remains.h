/* What stays known of an association when it is closed. */
#ifndef DTLS_BINDING_REMAINS_H
#define DTLS_BINDING_REMAINS_H

#include "association/types.h"
#include "binding/lua.h"

void dtls_remains_init(lua_State *L);
/* An object with the methods of remains.c, for an association that is about to be closed; path: where its addresses are. */
void dtls_remains_push(lua_State *L, dtls_association *a, const dtls_path *path);

#endif
