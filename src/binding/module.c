/*
 * The module table of dtls.core, and what is done at load.
 */
#include <lauxlib.h>
#include <lua.h>

#include "base/fork.h"
#include "base/linkage.h"
#include "base/openssl.h"
#include "base/platform.h"
#include "binding/association.h"
#include "binding/certificate.h"
#include "binding/context.h"
#include "binding/deferral.h"
#include "binding/endpoint.h"
#include "binding/error.h"
#include "binding/lua.h"
#include "binding/remains.h"
#include "binding/session.h"
#include "binding/socket.h"
#include "wire/name.h"

#ifndef DTLS_VERSION
#define DTLS_VERSION "0.1.0"
#endif

/* core.name(text) → the name without its final dot or its zone, 'host' | 'inet' | 'inet6' | nil, err */
static int core_name(lua_State *L) {
  size_t size;
  const char *text = luaL_checklstring(L, 1, &size);
  dtls_name name;
  const char *wrong = dtls_name_parse_untrusted(text, size, &name);
  if (wrong) return dtls_error(L, "ERR_DTLS_CONFIG", "%s", wrong);
  lua_pushlstring(L, name.text, name.size);
  lua_pushstring(L, name.family == AF_INET ? "inet" : name.family == AF_INET6 ? "inet6" : "host");
  return 2;
}

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

/* core.platform() → {mmsg=true, …}: what of platform.h this core was built with */
static int core_platform(lua_State *L) {
  lua_newtable(L);
#define X(id, name) \
  lua_pushboolean(L, DTLS_HAS_##id); \
  lua_setfield(L, -2, name);
  DTLS_FEATURES(X)
#undef X
  return 1;
}

__attribute__((visibility("default"))) int luaopen_dtls_core(lua_State *L);
__attribute__((visibility("default"))) int luaopen_core(lua_State *L);

int luaopen_dtls_core(lua_State *L) {
  static const luaL_Reg functions[] = {{"fd", dtls_udp_fd_lua},
                                       {"configure_socket", dtls_udp_socket_lua},
                                       {"context", dtls_context_new},
                                       {"endpoint", dtls_endpoint_core},
                                       {"client", dtls_association_client},
                                       {"draft", dtls_association_draft},
                                       {"defer", dtls_deferral_defer},
                                       {"flush", dtls_deferral_flush},
                                       {"self_signed", dtls_certificate_self_signed},
                                       {"public_keys", dtls_public_key_digests},
                                       {"is_session", dtls_session_is},
                                       {"name", core_name},
                                       {"error", dtls_error_new},
                                       {"openssl", core_openssl},
                                       {"platform", core_platform},
                                       {NULL, NULL}};
  char problem[1024];
  if (!luaL_register || !lua_objlen) return luaL_error(L, "dtls: this module needs LuaJIT, or Lua 5.1");
  const char *sentence = dtls_linkage_check(problem, sizeof problem);
  if (sentence) return luaL_error(L, "dtls: %s", sentence);
  if (!dtls_fork_watch()) return luaL_error(L, "dtls: no memory to watch fork() with");
  dtls_error_init(L);
  dtls_deferral_init(L);
  dtls_context_init(L);
  dtls_certificate_init(L);
  dtls_association_init(L);
  dtls_remains_init(L);
  dtls_endpoint_init(L);
  lua_newtable(L);
  luaL_register(L, NULL, functions);
  lua_pushliteral(L, DTLS_VERSION);
  lua_setfield(L, -2, "VERSION");
  return 1;
}

/* luvit's require opens a C module by the last part of its name. */
int luaopen_core(lua_State *L) { return luaopen_dtls_core(L); }
