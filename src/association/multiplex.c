/*
 * Datagrams of other protocols on the port of an association (RFC 7983): STUN, TURN, SRTP. The first byte tells them from
 * DTLS. Nobody has authenticated them. They go past libssl, to the application when it asks for them: a server's through
 * endpoint:next(); those that an association met in a socket of its own wait here until association:datagram() takes them.
 * Owns what waits.
 */
#include "association/multiplex.h"

#include <errno.h>
#include <string.h>

#include "association/association.h"
#include "association/endpoint.h"
#include "association/record_filter.h"
#include "base/fork.h"
#include "binding/error.h"

enum { WAITING_MAX = DTLS_READS_MAX }; /* what one call reads of a socket */

struct dtls_other {
  dtls_other *next;
  size_t size;
  uint8_t data[];
};

bool dtls_multiplex_is_other(const uint8_t *data, size_t size) { return size > 0 && (data[0] < 20 || data[0] > 63); }

dtls_association *dtls_multiplex_taker(const dtls_path *path) {
  if (path->current->takes_others) return path->current;
  return path->successor && path->successor->takes_others ? path->successor : NULL;
}

void dtls_multiplex_keep(dtls_association *a, const uint8_t *data, size_t size) {
  unsigned count = 0;
  dtls_other **end = &a->others;
  for (; *end; end = &(*end)->next) count++;
  dtls_other *entry = count < WAITING_MAX ? OPENSSL_malloc(sizeof *entry + size) : NULL;
  if (!entry) {
    DTLS_DROP(a, STASH);
    return;
  }
  *entry = (dtls_other){.size = size};
  memcpy(entry->data, data, size);
  *end = entry;
}

static void remove_first(dtls_association *a) {
  dtls_other *first = a->others;
  a->others = first->next;
  OPENSSL_free(first);
}

void dtls_multiplex_free(dtls_association *a) {
  while (a->others) remove_first(a);
}

/* association:take_others(boolean): whether its peer's datagrams of other protocols are passed on; they are dropped otherwise. */
static int take_others(lua_State *L) {
  dtls_association *a = dtls_association_check(L);
  luaL_checktype(L, 2, LUA_TBOOLEAN);
  a->takes_others = lua_toboolean(L, 2);
  return 0;
}

/* association:datagram() → the next one that its own socket had, or nil */
static int next_datagram(lua_State *L) {
  dtls_association *a = dtls_association_check(L);
  if (!a->others) return 0;
  lua_pushlstring(L, (const char *)a->others->data, a->others->size);
  remove_first(a);
  return 1;
}

const char *dtls_multiplex_check(lua_State *L, int index, size_t *size) {
  const char *data = luaL_checklstring(L, index, size);
  if (dtls_multiplex_is_other((const uint8_t *)data, *size)) return data;
  dtls_error(L, "EINVAL", *size == 0 ? "an empty datagram belongs to no protocol"
                                     : "its first byte, 20 to 63, says that this datagram is DTLS (RFC 7983)");
  return NULL;
}

/* association:send_datagram(data) → true | nil, err: as it is, to the peer. */
static int send_datagram(lua_State *L) {
  dtls_association *a = dtls_association_check(L);
  size_t size;
  const char *data = dtls_multiplex_check(L, 2, &size);
  if (!data) return 2;
  if (a->fork_generation != dtls_fork_generation()) {
    dtls_failure f;
    dtls_fail_forked(&f);
    return dtls_error_push(L, &f);
  }
  if (dtls_filter_put(a, data, size) < 0) return dtls_error_system(L, errno, "the datagram was not sent");
  dtls_association_count_out(a, size);
  lua_pushboolean(L, 1);
  return 1;
}

const luaL_Reg dtls_multiplex_methods[] = {
    {"take_others", take_others}, {"datagram", next_datagram}, {"send_datagram", send_datagram}, {NULL, NULL}};
