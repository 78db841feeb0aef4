/*
 * Userdata that cannot be mistaken for others, and integer options.
 */
#include "binding/lua.h"

#include <stdbool.h>
#include <stdint.h>

/* Not by the text: a second copy of this module in the same state has metatables of its own. */
void dtls_push_metatable(lua_State *L, const char *type) {
  lua_pushlightuserdata(L, (void *)(uintptr_t)type);
  lua_rawget(L, LUA_REGISTRYINDEX);
}

void dtls_register(lua_State *L, const char *type, const luaL_Reg *methods) {
  dtls_push_metatable(L, type);
  if (lua_isnil(L, -1)) {
    lua_pop(L, 1);
    lua_newtable(L);
    lua_pushvalue(L, -1);
    lua_setfield(L, -2, "__index");
    lua_pushlightuserdata(L, (void *)(uintptr_t)type);
    lua_pushvalue(L, -2);
    lua_rawset(L, LUA_REGISTRYINDEX);
  }
  luaL_register(L, NULL, methods);
  lua_pop(L, 1);
}

dtls_box *dtls_box_push(lua_State *L, const char *type) {
  dtls_box *box = lua_newuserdata(L, sizeof *box);
  *box = (dtls_box){.type = type, .self = box};
  dtls_push_metatable(L, type);
  lua_setmetatable(L, -2);
  return box;
}

dtls_box *dtls_box_test(lua_State *L, int index, const char *type) {
  if (lua_type(L, index) != LUA_TUSERDATA || lua_objlen(L, index) < sizeof(dtls_box)) return NULL;
  dtls_box *box = lua_touserdata(L, index);
  return box->type == type && box->self == box ? box : NULL;
}

dtls_box *dtls_box_check(lua_State *L, int index, const char *type) {
  dtls_box *box = dtls_box_test(L, index, type);
  if (!box) luaL_argerror(L, index, lua_pushfstring(L, "%s expected, got %s", type, luaL_typename(L, index)));
  return box;
}

void *dtls_check(lua_State *L, int index, const char *type) {
  void *object = dtls_box_check(L, index, type)->object;
  if (!object) luaL_argerror(L, index, lua_pushfstring(L, "the %s is closed", type));
  return object;
}

int dtls_done(lua_State *L) {
  lua_pushboolean(L, 1);
  return 1;
}

long dtls_option_integer(lua_State *L, int index, const char *name, long fallback, long min, long max) {
  lua_getfield(L, index, name);
  long value = fallback;
  if (!lua_isnil(L, -1)) {
    value = lua_type(L, -1) == LUA_TNUMBER ? (long)lua_tointeger(L, -1) : min - 1;
    if (value < min || value > max || (lua_Number)value != lua_tonumber(L, -1))
      luaL_argerror(L, index,
                    lua_pushfstring(L, "%s: expected a whole number from %d to %d", name, (int)min, (int)max));
  }
  lua_pop(L, 1);
  return value;
}
