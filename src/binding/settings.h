/* OpenSSL's setters for Lua: the methods that a context and an association share. */
#ifndef DTLS_BINDING_SETTINGS_H
#define DTLS_BINDING_SETTINGS_H

#include "base/failure.h"
#include "binding/lua.h"
#include "identity/settings.h"

extern const luaL_Reg dtls_context_settings[], dtls_association_settings[];
/* Adds the bits of the names in the list at index. */
bool dtls_settings_read_flags(lua_State *L, int index, const dtls_flag *table, const char *what, uint64_t *bits,
                              dtls_failure *f);

#endif
