/* How long datagrams and messages of an association may be, for Lua. */
#include "binding/mtu.h"

#include "binding/association.h"
#include "binding/error.h"

/* association:set_mtu(bytes of UDP payload) → true | nil, err (SSL_set_mtu) */
static int association_set_mtu(lua_State *L) {
  dtls_association *a = dtls_association_check(L, 1);
  dtls_failure f;
  return dtls_mtu_set(a, (long)luaL_checkinteger(L, 2), &f) ? dtls_done(L) : dtls_error_push(L, &f);
}

/* association:set_link_mtu(bytes of IP packet) → true | nil, err. What DTLS_set_link_mtu does, but at any time. */
static int association_set_link_mtu(lua_State *L) {
  dtls_association *a = dtls_association_check(L, 1);
  dtls_failure f;
  return dtls_mtu_set_link(a, (long)luaL_checkinteger(L, 2), &f) ? dtls_done(L) : dtls_error_push(L, &f);
}

static int push_size(lua_State *L, size_t size) {
  lua_pushinteger(L, (lua_Integer)size);
  return 1;
}

/* association:mtu() → bytes of UDP payload that no datagram exceeds */
static int association_mtu(lua_State *L) { return push_size(L, dtls_association_check(L, 1)->mtu.payload); }

/* association:link_min_mtu() → bytes of IP packet (DTLS_get_link_min_mtu) */
static int association_link_min_mtu(lua_State *L) {
  return push_size(L, (size_t)DTLS_get_link_min_mtu(dtls_association_check(L, 1)->ssl));
}

/* association:data_mtu() → the longest message that fits one datagram; 0 before the handshake chose a suite (DTLS_get_data_mtu) */
static int association_data_mtu(lua_State *L) {
  const dtls_association *a = dtls_association_check(L, 1);
  return push_size(L, a->open ? a->mtu.message : dtls_mtu_message(a));
}

const luaL_Reg dtls_association_mtu[] = {{"set_mtu", association_set_mtu},   {"set_link_mtu", association_set_link_mtu},
                                         {"mtu", association_mtu},           {"link_min_mtu", association_link_min_mtu},
                                         {"data_mtu", association_data_mtu}, {NULL, NULL}};
