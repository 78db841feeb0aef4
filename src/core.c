/*
 * The module table of dtls.core, what is done at load, and the few helpers that every file uses.
 */
#include "core.h"

#include <time.h>

#ifndef DTLS_VERSION
#define DTLS_VERSION "0.1.0"
#endif

/* ── shared helpers ── */

uint64_t dtls_now(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

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
  *box = (dtls_box){.type = type};
  dtls_push_metatable(L, type);
  lua_setmetatable(L, -2);
  return box;
}

/* Whoever has Lua's debug library can give our metatable to any userdata, so the box itself is looked at, too. */
dtls_box *dtls_box_test(lua_State *L, int index, const char *type) {
  dtls_box *box = lua_type(L, index) == LUA_TUSERDATA ? lua_touserdata(L, index) : NULL;
  if (!box || !lua_getmetatable(L, index)) return NULL;
  dtls_push_metatable(L, type);
  bool ours = lua_rawequal(L, -1, -2) && lua_objlen(L, index) == sizeof *box && box->type == type;
  lua_pop(L, 2);
  return ours ? box : NULL;
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

long dtls_option_integer(lua_State *L, int index, const char *name, long fallback, long min, long max) {
  lua_getfield(L, index, name);
  long value = fallback;
  if (!lua_isnil(L, -1)) {
    value = lua_type(L, -1) == LUA_TNUMBER ? (long)lua_tointeger(L, -1) : min - 1;
    if (value < min || value > max || (lua_Number)value != lua_tonumber(L, -1))
      luaL_argerror(L, index, lua_pushfstring(L, "%s: expected a whole number from %d to %d", name, (int)min, (int)max));
  }
  lua_pop(L, 1);
  return value;
}

static void set_count(lua_State *L, const char *name, uint64_t value) {
  lua_pushnumber(L, (lua_Number)value);
  lua_setfield(L, -2, name);
}

void dtls_counters_push(lua_State *L, const dtls_counters *counters) {
  static const char *const names[] = {
#define X(id, name) name,
      DTLS_DROP_REASONS(X)
#undef X
  };
  lua_createtable(L, 0, 24);
  set_count(L, "datagramsIn", counters->datagrams_in);
  set_count(L, "datagramsOut", counters->datagrams_out);
  set_count(L, "bytesIn", counters->bytes_in);
  set_count(L, "bytesOut", counters->bytes_out);
  set_count(L, "messagesIn", counters->messages_in);
  set_count(L, "messagesOut", counters->messages_out);
  set_count(L, "retransmits", counters->retransmits);
  lua_createtable(L, 0, 4);
  for (int i = 0; i < DTLS_DROP_COUNT; i++)
    if (counters->drops[i] != 0) set_count(L, names[i], counters->drops[i]);
  lua_setfield(L, -2, "drops");
}

/* ── the module ── */

/* core.openssl() → {text=, number=, linkage='shared'|'static'|'host'} */
static int core_openssl(lua_State *L) {
  lua_createtable(L, 0, 3);
  lua_pushstring(L, OpenSSL_version(OPENSSL_VERSION));
  lua_setfield(L, -2, "text");
  lua_pushnumber(L, (lua_Number)OpenSSL_version_num());
  lua_setfield(L, -2, "number");
  lua_pushstring(L, dtls_linkage_name());
  lua_setfield(L, -2, "linkage");
  return 1;
}

__attribute__((visibility("default"))) int luaopen_dtls_core(lua_State *L);
__attribute__((visibility("default"))) int luaopen_core(lua_State *L);

int luaopen_dtls_core(lua_State *L) {
  static const luaL_Reg functions[] = {{"fd", dtls_udp_fd_lua},
                                       {"configure_socket", dtls_udp_socket_lua},
                                       {"context", dtls_context_new},
                                       {"endpoint", dtls_endpoint_new},
                                       {"client", dtls_association_client},
                                       {"draft", dtls_association_draft},
                                       {"self_signed", dtls_selfsigned},
                                       {"is_session", dtls_session_is},
                                       {"name", dtls_name_lua},
                                       {"error", dtls_error_new},
                                       {"openssl", core_openssl},
                                       {NULL, NULL}};
  char problem[1024];
  if (!luaL_register || !lua_objlen) return luaL_error(L, "dtls: this module needs LuaJIT, or Lua 5.1");
  const char *sentence = dtls_linkage_check(problem, sizeof problem);
  if (sentence) return luaL_error(L, "dtls: %s", sentence);
  if (!dtls_fork_watch()) return luaL_error(L, "dtls: no memory to watch fork() with");
  dtls_error_init(L);
  dtls_context_init(L);
  dtls_certificate_init(L);
  dtls_association_init(L);
  dtls_endpoint_init(L);
  lua_newtable(L);
  luaL_register(L, NULL, functions);
  lua_pushliteral(L, DTLS_VERSION);
  lua_setfield(L, -2, "VERSION");
  return 1;
}

/* luvit's require opens a C module by the last part of its name. */
int luaopen_core(lua_State *L) { return luaopen_dtls_core(L); }
