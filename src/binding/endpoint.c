/* Endpoints, the listening sockets of servers, as Lua objects. */
#include "binding/endpoint.h"

#include "association/deferral.h"
#include "association/endpoint.h"
#include "binding/association.h"
#include "binding/context.h"
#include "binding/counters.h"
#include "binding/deferral.h"
#include "binding/error.h"
#include "binding/socket.h"

static const char TYPE[] = "dtls.endpoint";

static dtls_endpoint *check(lua_State *L) { return dtls_check(L, 1, TYPE); }

/* ── life ── */

static dtls_endpoint_options read_options(lua_State *L) {
  static const char *const strategies[] = {"connected", "shared", NULL};
  dtls_endpoint_options options = {.shared = luaL_checkoption(L, 3, NULL, strategies) == 1};
  if (lua_isnoneornil(L, 4)) return options;
  options.buffers = dtls_udp_take_buffers(L, 4);
  lua_getfield(L, 4, "asks_hello");
  lua_getfield(L, 4, "stores_sessions");
  lua_getfield(L, 4, "duplicate");
  options.asks_hello = lua_toboolean(L, -3);
  options.stores_sessions = lua_toboolean(L, -2);
  options.duplicate = lua_toboolean(L, -1);
  return options;
}

/*
 * core.endpoint(context, fd, demux[, {asks_hello=, stores_sessions=, duplicate=, receive_buffer=, send_buffer=}]) → endpoint | nil, err
 * demux: 'connected' or 'shared'. asks_hello: handshake() asks for each hello. stores_sessions: sessions get ids and
 * no tickets; the application keeps them. receive_buffer, send_buffer: bytes, of the peers' sockets.
 * fd: a bound, unconnected, non-blocking UDP socket. It stays the caller's, who closes the endpoint first; or, with
 * duplicate, closes it when he likes: the endpoint has a descriptor of its own, see fd().
 */
int dtls_endpoint_core(lua_State *L) {
  SSL_CTX *ctx = dtls_context_check(L, 1, true);
  int fd = (int)luaL_checkinteger(L, 2);
  dtls_endpoint_options options = read_options(L);
  dtls_failure f;
  dtls_box *box = dtls_box_push(L, TYPE);
  box->object = dtls_endpoint_new(ctx, fd, options, dtls_deferral_get(L), &f);
  return box->object ? 1 : dtls_error_push(L, &f);
}

/* endpoint:close(): drops what is queued. Associations live on; in the shared strategy they can no longer send. */
static int endpoint_close(lua_State *L) {
  dtls_box *box = dtls_box_check(L, 1, TYPE);
  dtls_endpoint *ep = box->object;
  box->object = NULL;
  if (ep) dtls_endpoint_close(ep);
  return 0;
}

static int endpoint_gc(lua_State *L) { return dtls_box_test(L, 1, TYPE) ? endpoint_close(L) : 0; }

/* ── datagrams ── */

/* Pushes what was found, and whose association it is; nil for none. The owner comes first: pushing a string may set the collector
   off, which frees an association without an owner. */
static void push_found(lua_State *L, const char *found, const dtls_association *a) {
  if (a)
    dtls_association_push_owner(L, a);
  else
    lua_pushnil(L);
  lua_pushstring(L, found);
  lua_insert(L, -2);
}

static int push_handshake(lua_State *L, const dtls_association *a) {
  push_found(L, "handshake", a);
  return 2;
}

/* Reads what waits in an open association. 0: nobody needs to know. */
static int push_read(lua_State *L, dtls_association *a) {
  char message[DTLS_MESSAGE_MAX];
  size_t size;
  bool more;
  dtls_failure f;
  dtls_result result = dtls_association_read(a, message, &size, &more, &f);
  if (result == DTLS_WANT_READ) return 0;
  push_found(L, "read", a);
  if (result == DTLS_FAILED) return 2 + dtls_error_push(L, &f);
  if (result == DTLS_DONE)
    lua_pushlstring(L, message, size);
  else
    lua_pushnil(L);
  if (result == DTLS_DONE)
    lua_pushboolean(L, more);
  else
    lua_pushliteral(L, "closed");
  return 4;
}

static int push_hello(lua_State *L, const dtls_endpoint *ep, bool known) {
  lua_pushliteral(L, "hello");
  dtls_address_push_host(L, &ep->current.datagram.peer);
  lua_pushboolean(L, known);
  return 3;
}

static int push_other(lua_State *L, const dtls_endpoint *ep, const dtls_association *taker) {
  const dtls_datagram *d = &ep->current.datagram;
  push_found(L, "datagram", taker);
  lua_pushlstring(L, (const char *)d->data, d->size);
  dtls_address_push(L, &d->peer);
  if (taker) return 4; /* it answers by itself from the address that it has */
  dtls_address_push(L, &d->local);
  lua_setfield(L, -2, "localAddress");
  return 4;
}

/*
 * endpoint:next() → 'read', owner, message, more | nil, 'closed' | nil, err   what read() gave of that owner's open association
 *                 → 'handshake', owner     a datagram waits in that owner's association: call handshake()
 *                 → 'hello', host, known   a peer proved its address: accept() makes its association, ignoring it refuses.
 *                                     host: a key, the same for all addresses that have one owner. known: the peer has
 *                                     an association already, and this one is to take its place
 *                 → 'datagram', owner or nil, data, address   of another protocol (RFC 7983); no owner: address.localAddress
 *                                     says where to
 *                 → 'room', owner   its socket takes datagrams again, as association:await_room() has asked
 *                 → nil, pending   nothing left, or the turn is over. pending: there is a datagram that no readable socket will
 *                                     announce
 * What was handed out is withdrawn by the following call.
 */
static int endpoint_next(lua_State *L) {
  dtls_endpoint *ep = check(L);
  dtls_association *a = NULL;
  bool known = false;
  int results = 0;
  while (results == 0) {
    switch (dtls_endpoint_next(ep, &a, &known)) {
      case DTLS_FOUND_DATA: results = a->open ? push_read(L, a) : push_handshake(L, a); break;
      case DTLS_FOUND_ROOM: push_found(L, "room", a); return 2;
      case DTLS_FOUND_HELLO: return push_hello(L, ep, known);
      case DTLS_FOUND_OTHER: return push_other(L, ep, a);
      default:
        lua_pushnil(L);
        lua_pushboolean(L, dtls_intake_pending(ep));
        return 2;
    }
  }
  return results;
}

/*
 * endpoint:turn(datagrams[, of_peers]) → how many are there at once
 * So many datagrams may be taken now, those that nobody needs to know of included: of the peers' sockets, or of the endpoint's own.
 */
static int endpoint_turn(lua_State *L) {
  dtls_endpoint *ep = check(L);
  lua_Integer datagrams = luaL_checkinteger(L, 2);
  luaL_argcheck(L, datagrams > 0 && datagrams <= INT32_MAX, 2, "expected a positive number");
  lua_pushinteger(L, (lua_Integer)dtls_endpoint_turn(ep, (unsigned)datagrams, lua_toboolean(L, 3)));
  return 1;
}

/* endpoint:has_requeued() → whether next() has a datagram of a peer socket that is closed. What is left of a batch comes without being
   asked for: whoever takes it is not done. */
static int endpoint_has_requeued(lua_State *L) {
  lua_pushboolean(L, dtls_intake_has_requeued(check(L)));
  return 1;
}

/*
 * endpoint:accept() → association[, displaced] | nil, err
 * After next() said 'hello'. displaced: the owner of an unfinished association of the same peer, which has lost its
 * place; the caller closes it. A finished one stays beside the new one until that has finished too (promote()).
 */
static int endpoint_accept(lua_State *L) {
  dtls_endpoint *ep = check(L);
  dtls_association *displaced = NULL;
  dtls_failure f;
  dtls_box *box = dtls_association_push(L); /* what may raise comes first */
  box->object = dtls_endpoint_accept(ep, &displaced, &f);
  if (!box->object) return dtls_error_push(L, &f);
  if (!displaced) return 1;
  dtls_association_push_owner(L, displaced);
  return 2;
}

/* endpoint:take_others(boolean): whether datagrams of other protocols from whoever has no association are passed on. */
static int endpoint_take_others(lua_State *L) {
  dtls_endpoint *ep = check(L);
  luaL_checktype(L, 2, LUA_TBOOLEAN);
  ep->takes_others = lua_toboolean(L, 2);
  return 0;
}

/*
 * endpoint:send_datagram(data, ip, port[, local_ip]) → true | nil, err: a datagram of another protocol, as it is, to anybody.
 * local_ip: the address that it comes from, on a wildcard socket; else the kernel chooses.
 */
static int endpoint_send_datagram(lua_State *L) {
  dtls_endpoint *ep = check(L);
  size_t size;
  const char *data = luaL_checklstring(L, 2, &size), *ip = luaL_checkstring(L, 3),
             *local_ip = luaL_optstring(L, 5, NULL);
  unsigned port = (unsigned)luaL_checkinteger(L, 4);
  int family = ep->bound.sa.sa_family;
  dtls_address peer, local = ep->bound;
  dtls_failure f;
  if (!dtls_multiplex_check(data, size, &f)) return dtls_error_push(L, &f);
  if (!dtls_address_parse(ip, port, family, &peer))
    return dtls_error(L, "EINVAL", "'%s' is not an IP address that this socket can send to", ip);
  if (local_ip && !dtls_address_parse(local_ip, 0, family, &local))
    return dtls_error(L, "EINVAL", "'%s' is not an IP address of this socket's", local_ip);
  if (!dtls_endpoint_send_other(ep, &local, &peer, data, size, &f)) return dtls_error_push(L, &f);
  return dtls_done(L);
}

/* ── settings ── */

/* endpoint:fd() → the descriptor to watch for reading */
static int endpoint_fd(lua_State *L) {
  lua_pushinteger(L, check(L)->fd);
  return 1;
}

/* endpoint:peers_fd() → the descriptor to watch for a turn of the peers' sockets, another one after fork(); nil: they have none */
static int endpoint_peers_fd(lua_State *L) {
  int fd = dtls_intake_peers_fd(check(L));
  if (fd < 0) return 0;
  lua_pushinteger(L, fd);
  return 1;
}

/* endpoint:set_context(context): for the hellos to come */
static int endpoint_set_context(lua_State *L) {
  dtls_endpoint *ep = check(L);
  dtls_failure f;
  if (!dtls_endpoint_set_context(ep, dtls_context_check(L, 2, true), &f)) return dtls_error_push(L, &f);
  return dtls_done(L);
}

/* endpoint:set_cookie_secret(current[, previous]) → true | nil, err. From then on the caller rotates it. */
static int endpoint_set_cookie_secret(lua_State *L) {
  dtls_endpoint *ep = check(L);
  size_t size, previous_size = 0;
  const char *current = luaL_checklstring(L, 2, &size), *previous = luaL_optlstring(L, 3, NULL, &previous_size);
  luaL_argcheck(L, size >= 32, 2, "a cookie secret has at least 32 bytes");
  luaL_argcheck(L, !previous || previous_size >= 32, 3, "a cookie secret has at least 32 bytes");
  if (!dtls_cookies_set(ep->cookies, current, size, previous, previous_size))
    return dtls_error_openssl(L, "ERR_DTLS_CONFIG", "cannot set the secret");
  return dtls_done(L);
}

/* endpoint:stats() → counters, those of its associations included, hellos, cookiesSent, cookiesAccepted, cookiesRefused, and
   recvBufferSize, sendBufferSize of its socket */
static int endpoint_stats(lua_State *L) {
  dtls_endpoint *ep = check(L);
  dtls_deferral_settle(ep->deferral);
  dtls_endpoint_count_overflow(ep);
  dtls_counters_push(L, &ep->counters);
  dtls_buffers given;
  if (dtls_udp_buffers(ep->fd, &given)) dtls_udp_push_buffers(L, given);
  const struct {
    const char *name;
    uint64_t value;
  } fields[] = {{"hellos", ep->stats.hellos},
                {"cookiesSent", ep->stats.cookies_sent},
                {"cookiesAccepted", ep->stats.cookies_accepted},
                {"cookiesRefused", ep->stats.cookies_refused}};
  for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
    lua_pushnumber(L, (lua_Number)fields[i].value);
    lua_setfield(L, -2, fields[i].name);
  }
  return 1;
}

void dtls_endpoint_init(lua_State *L) {
  static const luaL_Reg methods[] = {{"close", endpoint_close},
                                     {"turn", endpoint_turn},
                                     {"next", endpoint_next},
                                     {"has_requeued", endpoint_has_requeued},
                                     {"take_others", endpoint_take_others},
                                     {"send_datagram", endpoint_send_datagram},
                                     {"accept", endpoint_accept},
                                     {"fd", endpoint_fd},
                                     {"peers_fd", endpoint_peers_fd},
                                     {"set_context", endpoint_set_context},
                                     {"set_cookie_secret", endpoint_set_cookie_secret},
                                     {"stats", endpoint_stats},
                                     {"__gc", endpoint_gc},
                                     {NULL, NULL}};
  dtls_register(L, TYPE, methods);
}
