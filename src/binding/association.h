/* Associations as Lua objects: core.client, core.draft, and the methods of both roles. */
#ifndef DTLS_BINDING_ASSOCIATION_H
#define DTLS_BINDING_ASSOCIATION_H

#include "association/association.h"
#include "binding/lua.h"

void dtls_association_init(lua_State *L);
int dtls_association_client(lua_State *L); /* core.client(context, fd[, options]) */
int dtls_association_draft(lua_State *L);  /* core.draft(context) */
dtls_association *dtls_association_check(lua_State *L, int index);
dtls_box *dtls_association_push(lua_State *L); /* an empty box, which owns what is put into it */
/* what set_owner() was given; nil: nothing */
void dtls_association_push_owner(lua_State *L, const dtls_association *a);

#endif
