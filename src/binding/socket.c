/*
 * What Lua sees of sockets: the descriptor inside a luv UDP handle, socket options, and addresses as luv's tables.
 */
#include "binding/socket.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <string.h>

#include "binding/error.h"

/* ── addresses ── */

void dtls_address_push(lua_State *L, const dtls_address *address) {
  bool v6 = address->sa.sa_family == AF_INET6;
  char ip[INET6_ADDRSTRLEN + 1 + IF_NAMESIZE] = "";
  inet_ntop(address->sa.sa_family, v6 ? (const void *)&address->v6.sin6_addr : &address->v4.sin_addr, ip,
            INET6_ADDRSTRLEN);
  if (v6 && address->v6.sin6_scope_id != 0) {
    size_t end = strlen(ip);
    ip[end] = '%';
    if (!if_indextoname(address->v6.sin6_scope_id, ip + end + 1)) ip[end] = '\0';
  }
  lua_createtable(L, 0, 3);
  lua_pushstring(L, ip);
  lua_setfield(L, -2, "ip");
  lua_pushinteger(L, ntohs(v6 ? address->v6.sin6_port : address->v4.sin_port));
  lua_setfield(L, -2, "port");
  lua_pushstring(L, v6 ? "inet6" : "inet");
  lua_setfield(L, -2, "family");
}

/* IPv4, mapped or not: the address. IPv6: its /64 on its link, because whoever has one address there has 2^64. */
void dtls_address_push_host(lua_State *L, const dtls_address *address) {
  uint8_t bytes[DTLS_ADDRESS_BYTES];
  dtls_address_bytes(address, bytes);
  if (address->sa.sa_family == AF_INET || IN6_IS_ADDR_V4MAPPED(&address->v6.sin6_addr)) {
    lua_pushlstring(L, (const char *)bytes, 16);
  } else {
    memcpy(bytes + 8, &address->v6.sin6_scope_id, 4);
    lua_pushlstring(L, (const char *)bytes, 12);
  }
}

/* ── descriptors of luv handles ── */

/* Calls handle:name() without letting an error through; leaves the result on the stack, or nil. */
static void call_method(lua_State *L, int index, const char *name) {
  lua_getfield(L, index, name);
  lua_pushvalue(L, index);
  if (lua_pcall(L, 1, 1, 0) != 0) {
    lua_pop(L, 1);
    lua_pushnil(L);
  }
}

/* Of the handle or dgram socket at index 1. -1: nil and an error are on top. */
static int descriptor(lua_State *L) {
  luaL_checkany(L, 1);
  lua_pushvalue(L, 1);
  if (lua_istable(L, -1)) { /* luvit's dgram socket keeps its luv handle in _handle, until it is closed */
    lua_getfield(L, -1, "_handle");
    lua_getfield(L, -2, "recvStart");
    bool is_closed_dgram = lua_isnil(L, -2) && !lua_isnil(L, -1);
    lua_pop(L, 1);
    lua_replace(L, -2);
    if (is_closed_dgram) {
      lua_pop(L, 1);
      dtls_error(L, "EBADF", "the UDP socket is closed");
      return -1;
    }
  }
  int handle = lua_gettop(L);
  /* One binary serves every host because the descriptor comes through luv's own method; the metatable says that
     the userdata really is luv's. */
  bool is_udp = lua_isuserdata(L, handle) && lua_getmetatable(L, handle);
  if (is_udp) {
    luaL_getmetatable(L, "uv_udp");
    is_udp = !lua_isnil(L, -1) && lua_rawequal(L, -1, -2);
    lua_pop(L, 2);
  }
  if (!is_udp)
    luaL_argerror(L, 1, lua_pushfstring(L, "expected a luv UDP handle or a dgram socket, got %s", luaL_typename(L, 1)));

  call_method(L, handle, "is_closing");
  bool closing = lua_isnil(L, -1) || lua_toboolean(L, -1);
  call_method(L, handle, "fileno");
  int fd = !closing && lua_isnumber(L, -1) ? (int)lua_tointeger(L, -1) : -1;
  lua_settop(L, handle - 1);
  if (fd < 0)
    dtls_error(L, "EBADF",
               closing ? "the UDP handle is closed" : "the UDP handle has no socket yet: bind or connect it first");
  return fd;
}

int dtls_udp_fd_lua(lua_State *L) {
  int fd = descriptor(L);
  if (fd < 0) return 2;
  lua_pushinteger(L, fd);
  return 1;
}

/* ── socket options ── */

dtls_buffers dtls_udp_take_buffers(lua_State *L, int index) {
  return (dtls_buffers){.receive = (int)dtls_option_integer(L, index, "receive_buffer", 0, 0, INT32_MAX / 2),
                        .send = (int)dtls_option_integer(L, index, "send_buffer", 0, 0, INT32_MAX / 2)};
}

void dtls_udp_push_buffers(lua_State *L, dtls_buffers given) {
  lua_pushinteger(L, given.receive);
  lua_setfield(L, -2, "recvBufferSize");
  lua_pushinteger(L, given.send);
  lua_setfield(L, -2, "sendBufferSize");
}

/*
 * core.configure_socket(fd, {reuse_port=bool, receive_buffer=bytes, send_buffer=bytes, ttl=hops}) → true | nil, err
 */
int dtls_udp_socket_lua(lua_State *L) {
  int fd = (int)luaL_checkinteger(L, 1);
  luaL_checktype(L, 2, LUA_TTABLE);
  dtls_socket_options options = {.buffers = dtls_udp_take_buffers(L, 2),
                                 .ttl = (int)dtls_option_integer(L, 2, "ttl", 0, 0, 255)};
  lua_getfield(L, 2, "reuse_port");
  options.reuse_port = lua_toboolean(L, -1);
  if (!dtls_udp_configure(fd, options)) return dtls_error_system(L, errno, "cannot set a socket option");
  return dtls_done(L);
}
