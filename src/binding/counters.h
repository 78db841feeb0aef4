/* Counters as a table. */
#ifndef DTLS_BINDING_COUNTERS_H
#define DTLS_BINDING_COUNTERS_H

#include "base/counters.h"
#include "binding/lua.h"

void dtls_counters_push(lua_State *L, const dtls_counters *counters); /* pushes a table */

#endif
