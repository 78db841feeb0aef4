/*
 * Targets and stages that are Lua scripts on the core's own API. With SCRIPT it is a target: the script returns a
 * function that gets each input as a string; an error in it is a find.
 */
#include "fixed.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <lualib.h>
#include <sanitizer/lsan_interface.h>

int luaopen_dtls_core(lua_State *L);

/* ── net ── */

static struct sockaddr_in loopback(int port) {
  return (struct sockaddr_in){
      .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

/* net.open() → descriptor, port: a UDP socket on the loopback interface */
static int net_open(lua_State *L) {
  struct sockaddr_in address = loopback(0);
  socklen_t size = sizeof address;
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0 || bind(fd, (struct sockaddr *)&address, size) != 0 ||
      getsockname(fd, (struct sockaddr *)&address, &size) != 0)
    return luaL_error(L, "no socket");
  lua_pushinteger(L, fd);
  lua_pushinteger(L, ntohs(address.sin_port));
  return 2;
}

/* net.connect(descriptor, port) */
static int net_connect(lua_State *L) {
  struct sockaddr_in peer = loopback((int)luaL_checkinteger(L, 2));
  if (connect((int)luaL_checkinteger(L, 1), (struct sockaddr *)&peer, sizeof peer) != 0)
    return luaL_error(L, "cannot connect");
  return 0;
}

/* net.send(descriptor, data, port) */
static int net_send(lua_State *L) {
  size_t size;
  const char *data = luaL_checklstring(L, 2, &size);
  struct sockaddr_in peer = loopback((int)luaL_checkinteger(L, 3));
  sendto((int)luaL_checkinteger(L, 1), data, size, 0, (struct sockaddr *)&peer, sizeof peer);
  return 0;
}

/* net.receive(descriptor) → data, port | nil */
static int net_receive(lua_State *L) {
  static char data[65536];
  struct sockaddr_in peer = {0};
  socklen_t peer_size = sizeof peer;
  ssize_t size = recvfrom((int)luaL_checkinteger(L, 1), data, sizeof data, 0, (struct sockaddr *)&peer, &peer_size);
  if (size < 0) return 0;
  lua_pushlstring(L, data, (size_t)size);
  lua_pushinteger(L, ntohs(peer.sin_port));
  return 2;
}

/* net.fix([seed]): randomness and clock start anew; net.advance(ms); net.allocated() → bytes */
static int net_fix(lua_State *L) {
  fuzz_fix((unsigned)luaL_optinteger(L, 1, 0));
  return 0;
}

static int net_advance(lua_State *L) {
  fuzz_advance((unsigned)luaL_checkinteger(L, 1));
  return 0;
}

static int net_allocated(lua_State *L) {
  lua_pushnumber(L, (lua_Number)fuzz_allocated());
  return 1;
}

/* ── the state ── */

static void finish(lua_State *L, int status) {
  if (status == 0) return;
  fprintf(stderr, "%s\n", lua_tostring(L, -1));
  abort();
}

static int traceback(lua_State *L) {
  luaL_traceback(L, L, lua_tostring(L, 1), 1);
  return 1;
}

lua_State *fuzz_run(const char *script) {
  static const luaL_Reg net[] = {
      {"open", net_open}, {"connect", net_connect}, {"send", net_send},           {"receive", net_receive},
      {"fix", net_fix},   {"advance", net_advance}, {"allocated", net_allocated}, {NULL, NULL}};
  __lsan_disable();
  lua_State *L = luaL_newstate();
  luaL_openlibs(L);
  luaL_register(L, "net", net);
  lua_getglobal(L, "package");
  lua_getfield(L, -1, "preload");
  lua_pushcfunction(L, luaopen_dtls_core);
  lua_setfield(L, -2, "dtls.core");
  lua_settop(L, 0);
  lua_pushcfunction(L, traceback);
  finish(L, luaL_loadfile(L, script));
  finish(L, lua_pcall(L, 0, 1, 1));
  __lsan_enable();
  return L;
}

#ifdef SCRIPT

static lua_State *state;

int LLVMFuzzerInitialize(int *argc, char ***argv) {
  (void)argc, (void)argv;
  state = fuzz_run(SCRIPT);
  return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size) {
  lua_pushvalue(state, 2);
  lua_pushlstring(state, (const char *)input, size);
  finish(state, lua_pcall(state, 1, 0, 1));
  return 0;
}

#endif
