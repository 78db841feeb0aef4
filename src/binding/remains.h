/* What stays known of an association when it is closed. */
#ifndef DTLS_BINDING_REMAINS_H
#define DTLS_BINDING_REMAINS_H

#include "binding/lua.h"

void dtls_remains_init(lua_State *L);
int dtls_association_remains(lua_State *L); /* association:remains([addressed]) */

#endif
