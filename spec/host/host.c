/*
 * A stand-in for luvi: LuaJIT, luv and libuv in one static executable that exports all its symbols. What it exports of
 * OpenSSL is decided by what host.mk links beside this file. Usage: host BOOTSTRAP SCRIPT [ARGUMENT…]; the bootstrap
 * gets the rest as its arguments, and what it returns is the exit status.
 */
#include <stdio.h>

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

int luaopen_luv(lua_State *L);

/* Before any script runs luvi has loaded luv: 2.15 under both names, as the same table; 2.14 under `uv` alone. */
static void open_luv(lua_State *L) {
  lua_getglobal(L, "package");
  lua_getfield(L, -1, "loaded");
  lua_pushcfunction(L, luaopen_luv);
  lua_call(L, 0, 1);
#ifndef HOST_UV_ALONE
  lua_pushvalue(L, -1);
  lua_setfield(L, -3, "luv");
#endif
  lua_setfield(L, -2, "uv");
  lua_pop(L, 2);
}

static int traceback(lua_State *L) {
  if (lua_isstring(L, 1)) luaL_traceback(L, L, lua_tostring(L, 1), 1);
  return 1;
}

static int run(lua_State *L, int argc, char **argv) {
  int status = 0;

  luaL_openlibs(L);
  open_luv(L);
  lua_pushcfunction(L, traceback);
  if (luaL_loadfile(L, argv[1]) != 0) goto fail;
  for (int i = 2; i < argc; i++) lua_pushstring(L, argv[i]);
  if (lua_pcall(L, argc - 2, 1, 1) != 0) goto fail;
  if (lua_isnumber(L, -1)) status = (int)lua_tointeger(L, -1);
  return status;

fail:
  fprintf(stderr, "%s\n", lua_tostring(L, -1));
  return 255;
}

int main(int argc, char **argv) {
  lua_State *L;
  int status;

  if (argc < 3) {
    fprintf(stderr, "usage: %s BOOTSTRAP SCRIPT [ARGUMENT...]\n", argv[0]);
    return 2;
  }
  L = luaL_newstate();
  if (!L) return 255;
  status = run(L, argc, argv);
  lua_close(L);
  return status;
}
