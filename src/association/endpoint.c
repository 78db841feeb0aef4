/*
 * The listening socket of a server: takes datagrams in, finds out whose they are, and makes associations of verified
 * hellos. In the connected strategy it sees first contacts and strays, in the shared one everything; the path of a
 * datagram is the same. Owns all of a server that is not an association.
 */
#include "association/endpoint.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

#include "association/listener.h"
#include "association/record_filter.h"
#include "base/clock.h"
#include "binding/counters.h"
#include "binding/error.h"
#include "binding/socket.h"

static const char TYPE[] = "dtls.endpoint";

enum { STASH_MAX = 1024 };

/* A datagram that was read on the wrong socket, or at the wrong moment. */
struct dtls_stashed {
  struct dtls_stashed *next;
  dtls_address local, peer;
  uint64_t seen_by; /* the number of the association that has had it, or 0 */
  size_t size;
  uint8_t data[];
};

/* ── life ── */

void dtls_endpoint_unref(dtls_endpoint *ep) {
  if (--ep->refs == 0) OPENSSL_free(ep);
}

static void release_reader(dtls_endpoint *ep) {
  if (!ep->reader) return;
  ep->reader->datagram = NULL;
  dtls_association_release(ep->reader);
  ep->reader = NULL;
}

static void release_hand(dtls_endpoint *ep) {
  release_reader(ep);
  OPENSSL_free(ep->held);
  ep->held = NULL;
  ep->hand.data = NULL;
  ep->verified = false;
}

/* Lets go of everything but the memory that associations still point to. */
static void endpoint_shut(dtls_endpoint *ep) {
  release_hand(ep);
  while (ep->stash) {
    struct dtls_stashed *next = ep->stash->next;
    OPENSSL_free(ep->stash);
    ep->stash = next;
  }
  ep->stash_end = &ep->stash;
  ep->stash_count = 0;
  if (ep->owns_fd && ep->fd >= 0) close(ep->fd);
  ep->fd = -1;
  ep->hand_seen_by = 0;
  dtls_batch_free(ep->batch);
  ep->batch = NULL;
  dtls_paths_free(ep->paths);
  ep->paths = NULL;
  dtls_pace_free(ep->pace);
  ep->pace = NULL;
  dtls_cookies_free(ep->cookies);
  ep->cookies = NULL;
  SSL_CTX_free(ep->ctx);
  ep->ctx = NULL;
}

static bool ask_for_local_addresses(int fd, int family) {
  int on = 1;
  return setsockopt(fd, family == AF_INET6 ? IPPROTO_IPV6 : IPPROTO_IP, family == AF_INET6 ? IPV6_RECVPKTINFO : IP_PKTINFO, &on, sizeof on) == 0;
}

/* Peer sockets share the port. The option is set after bind, so that a port in use is still an error there. */
static bool allow_peer_sockets(int fd) {
  int on = 1;
  return setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) == 0;
}

/*
 * core.endpoint(context, fd, demux[, {asks_hello=, stores_sessions=, duplicate=, receive_buffer=, send_buffer=}]) → endpoint | nil, err
 * demux: 'connected' or 'shared'. asks_hello: handshake() asks for each hello. stores_sessions: sessions get ids and
 * no tickets; the application keeps them. receive_buffer, send_buffer: bytes, of the peers' sockets.
 * fd: a bound, unconnected, non-blocking UDP socket. It stays the caller's, who closes the endpoint first; or, with
 * duplicate, closes it when he likes: the endpoint has a descriptor of its own, see fd().
 */
int dtls_endpoint_new(lua_State *L) {
  SSL_CTX *ctx = dtls_context_check(L, 1, true);
  int fd = (int)luaL_checkinteger(L, 2);
  static const char *const strategies[] = {"connected", "shared", NULL};
  bool shared = luaL_checkoption(L, 3, NULL, strategies) == 1, asks_hello = false, stores_sessions = false, duplicate = false;
  dtls_buffers buffers = {0, 0};
  if (!lua_isnoneornil(L, 4)) {
    buffers = dtls_udp_take_buffers(L, 4);
    lua_getfield(L, 4, "asks_hello");
    lua_getfield(L, 4, "stores_sessions");
    lua_getfield(L, 4, "duplicate");
    asks_hello = lua_toboolean(L, -3);
    stores_sessions = lua_toboolean(L, -2);
    duplicate = lua_toboolean(L, -1);
  }
  dtls_address bound, peer;
  if (!dtls_udp_local(fd, &bound) || !ask_for_local_addresses(fd, bound.sa.sa_family) || (!shared && !allow_peer_sockets(fd)))
    return dtls_error_system(L, errno, "cannot listen on this socket");
  if (bound.v4.sin_port == 0) return dtls_error(L, "EINVAL", "cannot listen on a socket that is not bound"); /* sin6_port is in the same place */
  if (dtls_udp_peer(fd, &peer)) return dtls_error(L, "EISCONN", "cannot listen on a socket that is connected to one peer");

  dtls_udp_announce_errors(fd);
  dtls_box *box = dtls_box_push(L, TYPE);
  if (duplicate && (fd = dtls_udp_duplicate(fd)) < 0) return dtls_error_system(L, errno, "cannot listen");
  dtls_endpoint *ep = OPENSSL_zalloc(sizeof *ep);
  if (!ep) {
    if (duplicate) close(fd);
    return dtls_error_system(L, ENOMEM, "cannot listen");
  }
  ep->refs = 1;
  ep->fd = fd;
  ep->owns_fd = duplicate;
  ep->shared = shared;
  ep->asks_hello = asks_hello;
  ep->stores_sessions = stores_sessions;
  ep->bound = bound;
  ep->peer_buffers = buffers;
  (void)dtls_udp_overflow(fd, &ep->overflow_seen); /* what it lost before */
  ep->stash_end = &ep->stash;
  ep->left = UINT_MAX;
  ep->cookies = dtls_cookies_new();
  ep->paths = dtls_paths_new();
  ep->pace = dtls_pace_new();
  ep->batch = dtls_batch_new();
  if (SSL_CTX_up_ref(ctx)) ep->ctx = ctx;
  box->object = ep;
  if (!ep->cookies || !ep->paths || !ep->pace || !ep->batch || !ep->ctx) {
    box->object = NULL;
    endpoint_shut(ep);
    dtls_endpoint_unref(ep);
    return dtls_error_openssl(L, "ERR_DTLS_CONFIG", "cannot listen");
  }
  return 1;
}

static dtls_endpoint *check(lua_State *L) { return dtls_check(L, 1, TYPE); }

/* endpoint:close(): drops what is queued. Associations live on; in the shared strategy they can no longer send. */
static int endpoint_close(lua_State *L) {
  dtls_box *box = dtls_box_check(L, 1, TYPE);
  dtls_endpoint *ep = box->object;
  box->object = NULL;
  if (ep) {
    endpoint_shut(ep);
    dtls_endpoint_unref(ep);
  }
  return 0;
}

static int endpoint_gc(lua_State *L) {
  return dtls_box_test(L, 1, TYPE) ? endpoint_close(L) : 0;
}

/* ── datagrams ── */

void dtls_endpoint_stash(dtls_endpoint *ep, const dtls_path *path, const dtls_address *peer, const uint8_t *data, size_t size, uint64_t seen_by) {
  struct dtls_stashed *entry = ep->fd >= 0 && ep->stash_count < STASH_MAX ? OPENSSL_malloc(sizeof *entry + size) : NULL;
  if (!entry) {
    ep->counters.drops[DTLS_DROP_STASH]++;
    return;
  }
  *entry = (struct dtls_stashed){.local = path->local, .peer = *peer, .seen_by = seen_by, .size = size};
  memcpy(entry->data, data, size);
  *ep->stash_end = entry;
  ep->stash_end = &entry->next;
  ep->stash_count++;
}

/* An error that the kernel reports, which takes one read, is no reason to leave the datagrams behind it. */
static bool receive(dtls_endpoint *ep) {
  for (int reads = 0; reads < DTLS_READS_MAX; reads++) {
    if (dtls_batch_receive(ep->batch, ep->fd, &ep->bound)) return true;
    if (errno == EAGAIN || dtls_filter_is_final(errno)) return false;
    ep->counters.drops[dtls_filter_reason(errno)]++;
  }
  return false;
}

/*
 * The next datagram into the hand: the stash first, then the batch, then the socket. A batch is brought to its end even
 * when the turn is over.
 */
static bool take(dtls_endpoint *ep, uint64_t *seen_by) {
  bool over = ep->left == 0;
  if (!over) ep->left--;
  *seen_by = 0;
  if (ep->stash && !over) {
    struct dtls_stashed *entry = ep->stash;
    ep->stash = entry->next;
    if (!ep->stash) ep->stash_end = &ep->stash;
    ep->stash_count--;
    ep->held = entry;
    ep->hand = (dtls_datagram){.data = entry->data, .size = entry->size, .local = entry->local, .peer = entry->peer};
    *seen_by = entry->seen_by;
    return true;
  }
  if (!dtls_batch_next(ep->batch, &ep->hand) && (over || !receive(ep) || !dtls_batch_next(ep->batch, &ep->hand))) return false;
  dtls_count_in(&ep->counters, ep->hand.size);
  return true;
}

static void hand_over(dtls_endpoint *ep, dtls_association *a) {
  a->datagram = ep->hand.data;
  a->datagram_size = ep->hand.size;
  dtls_count_in(&a->counters, ep->hand.size);
  ep->reader = a;
}

static int hand_to(lua_State *L, dtls_endpoint *ep, dtls_association *a) {
  hand_over(ep, a);
  lua_pushliteral(L, "data");
  lua_rawgeti(L, LUA_REGISTRYINDEX, a->owner);
  return 2;
}

/* Whether the sender of the datagram in hand must wait before it begins another handshake. */
static bool is_paced(const dtls_endpoint *ep, const dtls_path *path) {
  uint64_t until = path ? path->paced_until : dtls_pace_recall(ep->pace, &ep->hand.local, &ep->hand.peer);
  return dtls_now() < until;
}

/* A hello in hand: what next() returns, 0 when it is done with. */
static int greet(lua_State *L, dtls_endpoint *ep, dtls_path *path) {
  if (!dtls_hello_untrusted(ep, path)) return 0;
  if (is_paced(ep, path)) {
    ep->counters.drops[DTLS_DROP_PACE]++;
    if (path) dtls_path_silence(path);
    return 0;
  }
  ep->verified = true;
  lua_pushliteral(L, "hello");
  dtls_address_push_host(L, &ep->hand.peer);
  lua_pushboolean(L, path != NULL);
  return 3;
}

/* The datagram in hand was for both associations of its path, and one has had it. The other one may have taken its place. */
static int hand_to_other(lua_State *L, dtls_endpoint *ep, const dtls_path *path, uint64_t seen_by) {
  dtls_association *other = path ? dtls_path_newest(path) : NULL;
  return other && other->number != seen_by ? hand_to(L, ep, other) : 0;
}

/* The datagram in hand is of another protocol. 0: nobody asks for it. */
static int announce_other(lua_State *L, const dtls_endpoint *ep, const dtls_path *path) {
  const dtls_association *taker = path ? dtls_multiplex_taker(path) : NULL;
  if (!taker && (path || !ep->takes_others)) return 0;
  lua_pushliteral(L, "datagram");
  if (taker)
    lua_rawgeti(L, LUA_REGISTRYINDEX, taker->owner);
  else
    lua_pushnil(L);
  lua_pushlstring(L, (const char *)ep->hand.data, ep->hand.size);
  dtls_address_push(L, &ep->hand.peer);
  if (taker) return 4; /* it answers by itself from the address that it has */
  dtls_address_push(L, &ep->hand.local);
  lua_setfield(L, -2, "localAddress");
  return 4;
}

/* The datagram in hand is longer than any record, and has been cut. */
static int drop_cut(dtls_endpoint *ep, const dtls_path *path) {
  if (path)
    DTLS_DROP(path->current, LENGTH);
  else
    ep->counters.drops[DTLS_DROP_LENGTH]++;
  return 0;
}

/* The datagram in hand goes where it belongs; returns what next() returns, 0 when nobody needs to know. */
static int dispatch_untrusted(lua_State *L, dtls_endpoint *ep, uint64_t seen_by) {
  dtls_path *path = dtls_paths_find(ep->paths, &ep->hand.local, &ep->hand.peer);
  if (ep->hand.size > DTLS_DATAGRAM_MAX) return drop_cut(ep, path);
  if (seen_by != 0) return hand_to_other(L, ep, path, seen_by);
  int others = dtls_multiplex_is_other(ep->hand.data, ep->hand.size) ? announce_other(L, ep, path) : 0;
  if (others > 0) return others;
  if (!path) {
    if (ep->hand.size >= DTLS_RECORD_HEADER && ep->hand.data[0] == SSL3_RT_HANDSHAKE && dtls_record_epoch(ep->hand.data) == 0) return greet(L, ep, NULL);
    ep->counters.drops[ep->hand.size == 0 ? DTLS_DROP_EMPTY : DTLS_DROP_STRANGER]++;
    return 0;
  }
  switch (dtls_path_classify_untrusted(path, ep->hand.data, ep->hand.size)) {
    case DTLS_TO_CURRENT: return hand_to(L, ep, path->current);
    case DTLS_TO_SUCCESSOR: return hand_to(L, ep, path->successor);
    case DTLS_TO_BOTH: ep->hand_seen_by = path->current->number; return hand_to(L, ep, path->current);
    default: return greet(L, ep, path);
  }
}

/*
 * endpoint:next() → 'data', owner    a datagram waits in that owner's association: call handshake() or read()
 *                 → 'hello', host, known   a peer proved its address: accept() makes its association, ignoring it refuses.
 *                                     host: a key, the same for all addresses that have one owner. known: the peer has
 *                                     an association already, and this one is to take its place
 *                 → 'datagram', owner or nil, data, address   of another protocol (RFC 7983); no owner: address.localAddress
 *                                     says where to
 *                 → nil               nothing left, or the turn is over
 * What was handed out is withdrawn by the following call.
 */
static int endpoint_next(lua_State *L) {
  dtls_endpoint *ep = check(L);
  int results = 0;
  uint64_t seen_by = ep->hand_seen_by;
  if (seen_by != 0) {
    ep->hand_seen_by = 0;
    release_reader(ep);
    results = dispatch_untrusted(L, ep, seen_by);
  }
  while (results == 0) {
    release_hand(ep);
    if (!take(ep, &seen_by)) break;
    results = dispatch_untrusted(L, ep, seen_by);
  }
  return results;
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
  const char *data = dtls_multiplex_check(L, 2, &size), *ip = luaL_checkstring(L, 3), *local_ip = luaL_optstring(L, 5, NULL);
  unsigned port = (unsigned)luaL_checkinteger(L, 4);
  dtls_address peer, local = ep->bound;
  if (!data) return 2;
  if (!dtls_address_parse(ip, port, ep->bound.sa.sa_family, &peer)) return dtls_error(L, "EINVAL", "'%s' is not an IP address that this socket can send to", ip);
  if (local_ip && !dtls_address_parse(local_ip, 0, ep->bound.sa.sa_family, &local)) return dtls_error(L, "EINVAL", "'%s' is not an IP address of this socket's", local_ip);
  if (dtls_udp_send(ep->fd, &local, &peer, data, size) < 0) return dtls_error_system(L, errno, "the datagram was not sent");
  dtls_count_out(&ep->counters, size);
  lua_pushboolean(L, 1);
  return 1;
}

/* endpoint:turn(datagrams): so many may be taken now, those that nobody needs to know of included. Before the first call: any number. */
static int endpoint_turn(lua_State *L) {
  dtls_endpoint *ep = check(L);
  lua_Integer datagrams = luaL_checkinteger(L, 2);
  luaL_argcheck(L, datagrams > 0 && datagrams <= INT32_MAX, 2, "expected a positive number");
  ep->left = (unsigned)datagrams;
  return 0;
}

/* endpoint:pending() → whether next() has work that no readable socket will announce */
static int endpoint_pending(lua_State *L) {
  dtls_endpoint *ep = check(L);
  lua_pushboolean(L, ep->stash || ep->hand_seen_by != 0 || dtls_batch_pending(ep->batch));
  return 1;
}

/*
 * What a peer socket holds that the association on it does not read: the port's other traffic, of which the kernel gives
 * it all between bind and connect, and what came behind the association's last datagram. An ICMP error takes one read and
 * is no reason to leave the datagrams behind it.
 */
void dtls_endpoint_drain(dtls_endpoint *ep, const dtls_path *path) {
  uint8_t data[DTLS_DATAGRAM_MAX];
  for (int i = 0; i < DTLS_DRAIN_MAX; i++) {
    dtls_address sender;
    ssize_t n = dtls_udp_receive(path->fd, data, sizeof data, &sender);
    if (n >= 0) dtls_count_in(&ep->counters, (size_t)n);
    if (n > (ssize_t)sizeof data) {
      ep->counters.drops[DTLS_DROP_LENGTH]++;
    } else if (n >= 0) {
      dtls_endpoint_stash(ep, path, &sender, data, (size_t)n, 0);
    } else if (errno == EAGAIN || dtls_filter_is_final(errno)) {
      return;
    } else {
      ep->counters.drops[dtls_filter_reason(errno)]++;
    }
  }
}

/*
 * A port that was bound by another user (a server that has given up root) or is privileged gets no second socket. The
 * endpoint's own socket then serves this peer, as in the shared strategy.
 */
static bool needs_shared_socket(int number) { return number == EADDRINUSE || number == EACCES; }

static dtls_path *open_path(dtls_endpoint *ep) {
  int fd = ep->shared ? -1 : dtls_udp_peer_socket(ep->fd, &ep->hand.local, &ep->hand.peer, ep->peer_buffers);
  if (fd < 0 && !ep->shared && !needs_shared_socket(errno)) return NULL;
  dtls_path *path = dtls_path_new(ep, &ep->hand.local, &ep->hand.peer, fd, true);
  if (!path && fd >= 0) close(fd);
  if (!path) errno = ENOMEM;
  return path;
}

/* An association for the verified hello in hand, which it will read first. NULL: OpenSSL's queue may say why. */
static dtls_association *new_association(dtls_endpoint *ep, const dtls_path *path) {
  ERR_clear_error();
  dtls_association *a = dtls_association_new(ep->ctx, ep, ep->fd);
  if (a && dtls_association_set_peer(a, path) && dtls_hello_begin_untrusted(a, path, ep->hand.data, ep->hand.size)) return a;
  dtls_association_free(a);
  return NULL;
}

/*
 * endpoint:accept() → association[, displaced] | nil, err
 * After next() said 'hello'. displaced: the owner of an unfinished association of the same peer, which has lost its
 * place; the caller closes it. A finished one stays beside the new one until that has finished too (promote()).
 */
static int endpoint_accept(lua_State *L) {
  dtls_endpoint *ep = check(L);
  if (!ep->verified) return dtls_error(L, "ERR_DTLS_PROTOCOL", "there is no verified hello to accept");
  dtls_box *box = dtls_association_push(L); /* what may raise comes first */
  dtls_path *path = dtls_paths_find(ep->paths, &ep->hand.local, &ep->hand.peer);
  bool fresh = path == NULL;
  if (fresh) path = open_path(ep);
  if (!path) return dtls_error_system(L, errno, "cannot open a socket for the peer");
  dtls_association *a = new_association(ep, path), *displaced = NULL;
  if (!a) {
    if (fresh) dtls_path_free(path);
    return dtls_error_openssl(L, "ENOMEM", "cannot accept the peer");
  }
  if (path->successor)
    displaced = path->successor;
  else if (path->current && !path->current->open)
    displaced = path->current;

  box->object = a;
  bool in_place = displaced && displaced == path->current;
  if (displaced && !in_place) dtls_path_detach(displaced);
  dtls_path_attach(path, a);
  if (in_place) dtls_path_detach(displaced); /* the new one is its heir, so the path and its socket stay */
  if (fresh && path->fd >= 0) dtls_endpoint_drain(ep, path);
  hand_over(ep, a);
  ep->verified = false;
  dtls_path_pace(path, a->first_timeout);
  if (!displaced) return 1;
  lua_rawgeti(L, LUA_REGISTRYINDEX, displaced->owner);
  return 2;
}

/* ── settings ── */

/* endpoint:fd() → the descriptor to watch for reading */
static int endpoint_fd(lua_State *L) {
  lua_pushinteger(L, check(L)->fd);
  return 1;
}

/* endpoint:set_context(context): for the hellos to come */
static int endpoint_set_context(lua_State *L) {
  dtls_endpoint *ep = check(L);
  SSL_CTX *ctx = dtls_context_check(L, 2, true);
  if (!SSL_CTX_up_ref(ctx)) return dtls_error_openssl(L, "ERR_DTLS_CONFIG", "cannot use the context");
  SSL_CTX_free(ep->ctx);
  ep->ctx = ctx;
  ep->verified = false;
  lua_pushboolean(L, 1);
  return 1;
}

/* endpoint:set_cookie_secret(current[, previous]) → true | nil, err. From then on the caller rotates it. */
static int endpoint_set_cookie_secret(lua_State *L) {
  dtls_endpoint *ep = check(L);
  size_t size, previous_size = 0;
  const char *current = luaL_checklstring(L, 2, &size), *previous = luaL_optlstring(L, 3, NULL, &previous_size);
  luaL_argcheck(L, size >= 32, 2, "a cookie secret has at least 32 bytes");
  luaL_argcheck(L, !previous || previous_size >= 32, 3, "a cookie secret has at least 32 bytes");
  if (!dtls_cookies_set(ep->cookies, current, size, previous, previous_size)) return dtls_error_openssl(L, "ERR_DTLS_CONFIG", "cannot set the secret");
  lua_pushboolean(L, 1);
  return 1;
}

/* endpoint:stats() → counters, those of its associations included, hellos, cookiesSent, cookiesAccepted, cookiesRefused, and
   recvBufferSize, sendBufferSize of its socket */
static int endpoint_stats(lua_State *L) {
  dtls_endpoint *ep = check(L);
  ep->counters.drops[DTLS_DROP_OVERFLOWED] += dtls_udp_overflow(ep->fd, &ep->overflow_seen);
  dtls_paths_count_overflow(ep->paths);
  dtls_counters_push(L, &ep->counters);
  dtls_udp_push_buffers(L, ep->fd);
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
                                     {"pending", endpoint_pending},
                                     {"take_others", endpoint_take_others},
                                     {"send_datagram", endpoint_send_datagram},
                                     {"accept", endpoint_accept},
                                     {"fd", endpoint_fd},
                                     {"set_context", endpoint_set_context},
                                     {"set_cookie_secret", endpoint_set_cookie_secret},
                                     {"stats", endpoint_stats},
                                     {"__gc", endpoint_gc},
                                     {NULL, NULL}};
  dtls_register(L, TYPE, methods);
}
