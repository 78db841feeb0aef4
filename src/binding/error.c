/*
 * Failures as Lua values: nil and an error object {code=, message=[, reason=][, alert=]} whose tostring is
 * "code: message", which concatenates with texts.
 */
#include "binding/error.h"

#include <stdarg.h>
#include <stdio.h>

static const char TYPE[] = "dtls.error";

static int error_tostring(lua_State *L) {
  lua_getfield(L, 1, "code");
  lua_pushliteral(L, ": ");
  lua_getfield(L, 1, "message");
  lua_concat(L, 3);
  return 1;
}

/* 'x: ' .. err, as if the error were its text. */
static int error_concat(lua_State *L) {
  for (int i = 1; i <= 2; i++) {
    if (luaL_callmeta(L, i, "__tostring")) lua_replace(L, i);
    if (!lua_isstring(L, i))
      return luaL_error(L, "attempt to concatenate a %s value with an error", luaL_typename(L, i));
  }
  lua_concat(L, 2);
  return 1;
}

void dtls_error_init(lua_State *L) {
  static const luaL_Reg methods[] = {{"__tostring", error_tostring}, {"__concat", error_concat}, {NULL, NULL}};
  dtls_register(L, TYPE, methods);
}

static void set_text(lua_State *L, const char *field, const char *text) {
  if (*text == '\0') return;
  lua_pushstring(L, text);
  lua_setfield(L, -2, field);
}

static void push_object(lua_State *L, const char *code, const char *message) {
  lua_createtable(L, 0, 3);
  lua_pushstring(L, code);
  lua_setfield(L, -2, "code");
  lua_pushstring(L, message);
  lua_setfield(L, -2, "message");
  dtls_push_metatable(L, TYPE);
  lua_setmetatable(L, -2);
}

int dtls_error_push(lua_State *L, const dtls_failure *f) {
  lua_pushnil(L);
  push_object(L, f->code, f->message);
  set_text(L, "reason", f->reason);
  set_text(L, "alert", f->alert);
  return 2;
}

int dtls_error(lua_State *L, const char *code, const char *format, ...) {
  char message[DTLS_SENTENCE_MAX];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);
  lua_pushnil(L);
  push_object(L, code, message);
  return 2;
}

int dtls_error_system(lua_State *L, int number, const char *what) {
  dtls_failure f;
  dtls_fail_system(&f, number, what);
  return dtls_error_push(L, &f);
}

int dtls_error_openssl(lua_State *L, const char *code, const char *what) {
  dtls_failure f;
  dtls_fail_openssl(&f, code, what);
  return dtls_error_push(L, &f);
}

/* core.error(code, message[, {reason=, alert=}]) → an error object */
int dtls_error_new(lua_State *L) {
  const char *code = luaL_checkstring(L, 1);
  const char *message = luaL_checkstring(L, 2);
  lua_settop(L, 3);
  push_object(L, code, message);
  if (lua_istable(L, 3)) {
    lua_pushnil(L);
    while (lua_next(L, 3)) {
      lua_pushvalue(L, -2);
      lua_insert(L, -2);
      lua_rawset(L, -4);
    }
  }
  return 1;
}
