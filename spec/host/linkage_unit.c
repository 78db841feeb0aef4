/*
 * The version rule of linkage.c, callable with any two versions: no installed OpenSSL has them all.
 */
#include "base/linkage.c"

#include <lauxlib.h>
#include <lua.h>

int luaopen_linkage_unit(lua_State *L);

const dtls_import dtls_imports[] = {{NULL, NULL, NULL}};

static int fits(lua_State *L) {
  lua_pushboolean(L, version_fits((unsigned long)luaL_checknumber(L, 1), (unsigned long)luaL_checknumber(L, 2)));
  return 1;
}

int luaopen_linkage_unit(lua_State *L) {
  lua_pushcfunction(L, fits);
  return 1;
}
