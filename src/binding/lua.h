/* What every file that knows Lua needs: boxes (userdata with a type), and options. */
#ifndef DTLS_BINDING_LUA_H
#define DTLS_BINDING_LUA_H

#include <lauxlib.h>
#include <lua.h>

/* What Lua 5.2 and later lack: weak, so that there, too, the module can be opened and say why it does not run (module.c). */
#pragma weak luaL_register
#pragma weak lua_insert
#pragma weak lua_newuserdata
#pragma weak lua_objlen
#pragma weak lua_pcall
#pragma weak lua_remove
#pragma weak lua_replace
#pragma weak lua_tointeger
#pragma weak lua_tonumber

/* Lua's header does not say that this one never returns. */
_Noreturn int luaL_error(lua_State *L, const char *format, ...);

typedef struct dtls_box dtls_box;

/* makes or extends the metatable of a type */
void dtls_register(lua_State *L, const char *type, const luaL_Reg *methods);
void dtls_push_metatable(lua_State *L, const char *type);
/* A userdata of a type, and in it the object, NULL once closed. */
struct dtls_box {
  void *object;
  const char *type;     /* the address of its name, not the text: a second copy of this module has types of its own */
  const dtls_box *self; /* where the box lies, which no userdata of others has in this place */
};
dtls_box *dtls_box_push(lua_State *L, const char *type); /* empty */
/* NULL for anything else, whatever its metatable: Lua's debug library gives any userdata any metatable */
dtls_box *dtls_box_test(lua_State *L, int index, const char *type);
dtls_box *dtls_box_check(lua_State *L, int index, const char *type); /* raises for that */
/* the object in a box; raises also when it is closed */
void *dtls_check(lua_State *L, int index, const char *type);
/* Pushes true, what a method returns that has done what it should. */
int dtls_done(lua_State *L);
/* An integer option of the table at index: its value, or fallback when absent; raises outside [min, max]. */
long dtls_option_integer(lua_State *L, int index, const char *name, long fallback, long min, long max);

#endif
