/* The deferral of a Lua state, which all its endpoints and associations use; the registry holds it. */
#include "binding/deferral.h"

#include <stdbool.h>
#include <stdint.h>

#include "binding/association.h"

static const char TYPE[] = "dtls.deferral";

/* The registry has the deferral at this key. */
static void push_key(lua_State *L) {
  static const char key;
  lua_pushlightuserdata(L, (void *)(uintptr_t)&key);
}

static int deferral_gc(lua_State *L) {
  dtls_box *box = dtls_box_test(L, 1, TYPE);
  if (box) dtls_deferral_unref(box->object);
  if (box) box->object = NULL;
  return 0;
}

void dtls_deferral_init(lua_State *L) {
  static const luaL_Reg methods[] = {{"__gc", deferral_gc}, {NULL, NULL}};
  dtls_register(L, TYPE, methods);
  push_key(L);
  lua_rawget(L, LUA_REGISTRYINDEX);
  bool is_there = !lua_isnil(L, -1); /* the module has been opened before */
  lua_pop(L, 1);
  if (is_there) return;
  push_key(L);
  dtls_box *box = dtls_box_push(L, TYPE);
  box->object = dtls_deferral_new();
  if (!box->object) luaL_error(L, "dtls: no memory");
  lua_rawset(L, LUA_REGISTRYINDEX);
}

dtls_deferral *dtls_deferral_get(lua_State *L) {
  push_key(L);
  lua_rawget(L, LUA_REGISTRYINDEX);
  dtls_deferral *d = dtls_check(L, -1, TYPE);
  lua_pop(L, 1);
  return d;
}

/* core.defer(): what associations send from now on leaves at flush() */
int dtls_deferral_defer(lua_State *L) {
  dtls_deferral_begin(dtls_deferral_get(L));
  return 0;
}

/*
 * core.flush() → nil | {owner, …}: the owners of associations whose sockets take no more at the moment; what they have sent waits for
 * another flush(). Ends what defer() began.
 */
int dtls_deferral_flush(lua_State *L) {
  dtls_deferral *d = dtls_deferral_get(L);
  int count = 0;
  if (dtls_deferral_end(d)) return 0;
  lua_newtable(L);
  for (const dtls_association *a; (a = dtls_deferral_blocked(d));) {
    dtls_association_push_owner(L, a);
    if (lua_isnil(L, -1))
      lua_pop(L, 1);
    else
      lua_rawseti(L, -2, ++count);
  }
  return 1;
}
