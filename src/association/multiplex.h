/* Datagrams of other protocols on the port of an association (RFC 7983). */
#ifndef DTLS_ASSOCIATION_MULTIPLEX_H
#define DTLS_ASSOCIATION_MULTIPLEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "association/types.h"
#include "binding/lua.h"

typedef struct dtls_other dtls_other;

bool dtls_multiplex_is_other(const uint8_t *data, size_t size);
dtls_association *dtls_multiplex_taker(const dtls_path *path); /* the one whose application asks for them; NULL: none */
void dtls_multiplex_keep(dtls_association *a, const uint8_t *data, size_t size); /* of its own socket, until Lua takes it */
void dtls_multiplex_free(dtls_association *a);
const char *dtls_multiplex_check(lua_State *L, int index, size_t *size); /* what may be sent; else pushes nil, err and returns NULL */
extern const luaL_Reg dtls_multiplex_methods[];

#endif
