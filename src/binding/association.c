/*
 * Associations as Lua objects. What fails gives nil and an error object; an error of a handshake also says whose identity or
 * certificate it was.
 */
#include "binding/association.h"

#include <stdio.h>
#include <string.h>

#include "association/client.h"
#include "association/diagnosis.h"
#include "association/endpoint.h"
#include "base/clock.h"
#include "binding/callbacks.h"
#include "binding/certificate.h"
#include "binding/context.h"
#include "binding/deferral.h"
#include "binding/error.h"
#include "binding/facts.h"
#include "binding/mtu.h"
#include "binding/remains.h"
#include "binding/settings.h"
#include "identity/psk.h"

static const char TYPE[] = "dtls.association";
_Static_assert(DTLS_NO_OWNER == LUA_NOREF, "an association without an owner has no reference");

dtls_box *dtls_association_push(lua_State *L) { return dtls_box_push(L, TYPE); }
dtls_association *dtls_association_check(lua_State *L, int index) { return dtls_check(L, index, TYPE); }
static dtls_association *check(lua_State *L) { return dtls_association_check(L, 1); }

/* nil, err. Of a handshake, err.identity is the pre-shared key's, if its suite has one, and err.certificate or err.publicKey what
   was refused. */
static int failed(lua_State *L, const dtls_association *a, const dtls_failure *f) {
  dtls_error_push(L, f);
  if (a->open) return 2;
  int err = lua_gettop(L);
  if (dtls_psk_suite(a->ssl) && dtls_association_push_identity(L, a)) lua_setfield(L, err, "identity");
  if (strcmp(f->code, "ERR_DTLS_CERTIFICATE") == 0 && dtls_certificate_push(L, a->ssl, true))
    lua_setfield(L, err, "certificate");
  if (a->peer.refusal.key && dtls_public_key_push(L, a->ssl)) lua_setfield(L, err, "publicKey");
  lua_settop(L, err);
  return 2;
}

/* ── life ── */

static void disown(lua_State *L, dtls_association *a) {
  luaL_unref(L, LUA_REGISTRYINDEX, a->owner);
  a->owner = DTLS_NO_OWNER;
}

void dtls_association_push_owner(lua_State *L, const dtls_association *a) {
  lua_rawgeti(L, LUA_REGISTRYINDEX, a->owner);
}

static void let_go(lua_State *L, dtls_box *box) {
  dtls_association *a = box->object;
  if (!a) return;
  box->object = NULL;
  disown(L, a);
  dtls_association_free(a);
}

/*
 * association:close([addressed]) → what remains of it (remains.c) | nothing: it was closed before
 * Frees it, without a word to the peer. addressed: the association that has its addresses now.
 */
static int association_close(lua_State *L) {
  dtls_box *box = dtls_box_check(L, 1, TYPE);
  dtls_association *a = box->object;
  if (!a) return 0;
  dtls_remains_push(L, a, lua_isnoneornil(L, 2) ? a->path : dtls_association_check(L, 2)->path);
  let_go(L, box);
  return 1;
}

static int association_gc(lua_State *L) {
  dtls_box *box = dtls_box_test(L, 1, TYPE);
  if (box) let_go(L, box);
  return 0;
}

static bool option(lua_State *L, int index, const char *name) {
  lua_getfield(L, index, name);
  bool value = lua_toboolean(L, -1);
  lua_pop(L, 1);
  return value;
}

/*
 * core.client(context, fd[, {servername=, check_name=, session=, duplicate=, take_others=}]) → association | nil, err
 * fd: a connected UDP socket; it stays the caller's. check_name: the certificate must have the name. session: what
 * association:session() gave; not offered when it has expired or belongs to another name or context. duplicate: the
 * association has a descriptor of its own, see fd(), so that the caller may close its own at any time. take_others: as
 * association:take_others(), for what waits in the socket, too.
 */
int dtls_association_client(lua_State *L) {
  SSL_CTX *ctx = dtls_context_check(L, 1, false);
  int fd = (int)luaL_checkinteger(L, 2);
  if (lua_isnoneornil(L, 3)) {
    lua_settop(L, 2);
    lua_newtable(L);
  }
  luaL_checktype(L, 3, LUA_TTABLE);
  lua_settop(L, 3);
  dtls_client_options options = {.check_name = option(L, 3, "check_name"),
                                 .duplicate = option(L, 3, "duplicate"),
                                 .takes_others = option(L, 3, "take_others")};
  lua_getfield(L, 3, "servername");
  lua_getfield(L, 3, "session"); /* both stay alive on the stack */
  size_t name_size = 0;
  const char *name = lua_tolstring(L, 4, &name_size);
  const char *wrong = name ? dtls_name_parse_untrusted(name, name_size, &options.name) : NULL;
  if (wrong) return dtls_error(L, "ERR_DTLS_CONFIG", "servername: %s", wrong);
  options.session = lua_tolstring(L, 5, &options.session_size);
  dtls_box *box = dtls_association_push(L); /* what may raise comes first */
  dtls_failure f;
  box->object = dtls_client_new(ctx, fd, &options, dtls_deferral_get(L), &f);
  return box->object ? 1 : dtls_error_push(L, &f);
}

/*
 * core.draft(context) → association | nil, err
 * A client's without a socket: it takes every setting that an association takes, or says why not, and never has a peer.
 */
int dtls_association_draft(lua_State *L) {
  SSL_CTX *ctx = dtls_context_check(L, 1, false);
  dtls_box *box = dtls_association_push(L);
  ERR_clear_error();
  box->object = dtls_association_new(ctx, NULL, -1);
  return box->object ? 1 : dtls_error_openssl(L, "ERR_DTLS_CONFIG", "cannot make a client");
}

/* ── progress ── */

/* What a call that may have to wait came to, when it is not done. */
static int unfinished(lua_State *L, const dtls_association *a, dtls_result result, const dtls_failure *f) {
  if (result == DTLS_FAILED) return failed(L, a, f);
  if (result == DTLS_ASKED) return dtls_callback_push(L, a);
  lua_pushnil(L);
  lua_pushstring(L, result == DTLS_WANT_READ ? "want_read" : result == DTLS_CLOSED ? "closed" : "want_answer");
  return 2;
}

/* Pushes the ms until handle_timeout() wants to be called, or nothing: never, or not before an answer. */
static int push_timeout(lua_State *L, const dtls_association *a) {
  uint64_t until = dtls_association_deadline(a), now = dtls_now();
  if (until == UINT64_MAX) return 0;
  lua_pushnumber(L, until > now ? (lua_Number)(until - now) : 0);
  return 1;
}

/*
 * association:handshake([table]) → true | nil, 'want_read', timeout() | nil, err (SSL_do_handshake)
 *   → nil, 'ask_hello', servername (nil: none, false: it is no host name), session id or nil | nil, 'ask_psk', identity (a client: hint or nil) |
 *     nil, 'ask_verify': answer with answer_hello() or refuse_hello(), answer_psk(), answer_verify(), now or later,
 *     and call handshake() again
 *   → nil, 'want_answer': the question is still open
 * table: the fields of what the handshake says of the peer so far are set in it, see dtls_association_learn.
 */
static int association_handshake(lua_State *L) {
  dtls_association *a = check(L);
  if (!lua_isnoneornil(L, 2)) luaL_checktype(L, 2, LUA_TTABLE);
  lua_settop(L, 2);
  dtls_failure f;
  dtls_result result = dtls_association_handshake(a, &f);
  if (lua_istable(L, 2)) dtls_association_learn(L, 2, a);
  if (result == DTLS_DONE) return dtls_done(L);
  int results = unfinished(L, a, result, &f);
  return result == DTLS_WANT_READ ? results + push_timeout(L, a) : results;
}

/*
 * association:read() → message, more | nil, 'want_read' | nil, 'closed' | nil, err (SSL_read_ex)
 * more: the datagram held more than this message, which no readable socket will announce. A client takes so many datagrams of its
 * socket (DTLS_READS_MAX) and says want_read, whether or not there are more; a server's get theirs from endpoint:next().
 */
static int association_read(lua_State *L) {
  dtls_association *a = check(L);
  char message[DTLS_MESSAGE_MAX]; /* a shorter buffer would cut a message in two */
  size_t size;
  bool more;
  dtls_failure f;
  dtls_result result = dtls_association_read(a, message, &size, &more, &f);
  if (result != DTLS_DONE) return unfinished(L, a, result, &f);
  lua_pushlstring(L, message, size);
  lua_pushboolean(L, more);
  return 2;
}

static bool write_message(lua_State *L, dtls_association *a, int index, bool *fatal, dtls_failure *f) {
  size_t size;
  const char *message = luaL_checklstring(L, index, &size);
  return dtls_association_write(a, message, size, lua_toboolean(L, 3), fatal, f);
}

/* The messages of a list, until one cannot be sent; sent: how many came before it. */
static bool write_list(lua_State *L, dtls_association *a, int *sent, bool *fatal, dtls_failure *f) {
  bool reserved = dtls_association_reserve(a), written = true;
  for (lua_rawgeti(L, 2, 1); lua_type(L, -1) == LUA_TSTRING; lua_rawgeti(L, 2, *sent + 1)) {
    written = write_message(L, a, -1, fatal, f);
    if (!written) break;
    lua_pop(L, 1);
    ++*sent;
  }
  if (reserved) dtls_association_release(a);
  return written;
}

/*
 * association:write(message or list[, allow_fragments]) → true | nil, err, fatal[, sent] (SSL_write)
 * EMSGSIZE: longer than data_mtu(), or than a record. EAGAIN, ENOBUFS: the system dropped it; nothing else is wrong.
 * fatal: the association is beyond use. sent: of a list, how many messages came before the one that err is about.
 */
static int association_write(lua_State *L) {
  dtls_association *a = check(L);
  bool list = lua_istable(L, 2) && lua_objlen(L, 2) > 0, fatal = false;
  int sent = 0;
  dtls_failure f;
  if (list ? write_list(L, a, &sent, &fatal, &f) : write_message(L, a, 2, &fatal, &f)) return dtls_done(L);
  dtls_error_push(L, &f);
  lua_pushboolean(L, fatal);
  if (!list) return 3;
  lua_pushinteger(L, sent);
  return 4;
}

/* association:count_dropped(): a message that read() has given had no room to wait for its reader. */
static int association_count_dropped(lua_State *L) {
  dtls_association *a = check(L);
  DTLS_DROP(a, QUEUE);
  return 0;
}

/* association:shutdown() → true: close_notify is on its way, if there is anybody to tell (SSL_shutdown) */
static int association_shutdown(lua_State *L) {
  dtls_association_shutdown(check(L));
  return dtls_done(L);
}

/*
 * association:promote() → displaced | nil
 * A parallel handshake has completed: it takes its path over. displaced: the owner of the association that had it.
 */
static int association_promote(lua_State *L) {
  const dtls_association *old = dtls_association_promote(check(L));
  if (!old) return 0;
  dtls_association_push_owner(L, old);
  return 1;
}

/* ── the timer (DTLSv1_handle_timeout) ── */

/* association:timeout() → ms until handle_timeout() wants to be called, or nil: never, or not before an answer */
static int association_timeout(lua_State *L) { return push_timeout(L, check(L)); }

/* association:handle_timeout() → true | nil, err. Repeats the last flight when it is due. */
static int association_handle_timeout(lua_State *L) {
  dtls_association *a = check(L);
  dtls_failure f;
  return dtls_association_handle_timeout(a, &f) ? dtls_done(L) : failed(L, a, &f);
}

/* association:expired(ms) → nil, err: the error of a handshake that did not complete within ms */
static int association_expired(lua_State *L) {
  dtls_association *a = check(L);
  dtls_failure f;
  char what[80];
  snprintf(what, sizeof what, "the handshake did not complete within %.0f ms", luaL_checknumber(L, 2));
  dtls_diagnose_timeout(a, what, &f);
  return failed(L, a, &f);
}

/*
 * association:answered() → true: the peer's first flight, or an alert, has come
 *   → false, how often the first flight was repeated, what the system said of the path to the peer or nil
 */
static int association_answered(lua_State *L) {
  const dtls_association *a = check(L);
  const dtls_soft_error *e = &a->soft_error;
  bool answered = a->handshake.next_seq > 0 || (e->deadline != 0 && e->alert >= 0);
  lua_pushboolean(L, answered);
  if (answered) return 1;
  lua_pushnumber(L, (lua_Number)a->counters.retransmits);
  if (e->deadline == 0) return 2;
  dtls_error_system(L, e->number, "no answer from the peer");
  lua_remove(L, -2);
  return 3;
}

/* association:set_retransmit(first_ms, next_ms): the first interval of a flight; the one after the current (0: double). */
static int association_set_retransmit(lua_State *L) {
  dtls_association *a = check(L);
  lua_Integer first = luaL_checkinteger(L, 2), next = luaL_checkinteger(L, 3);
  luaL_argcheck(L, first >= 1 && first <= DTLS_TIMEOUT_MAX, 2, "expected 1 to 60000 ms");
  luaL_argcheck(L, next >= 0 && next <= DTLS_TIMEOUT_MAX, 3, "expected 0 to 60000 ms");
  dtls_association_set_retransmit(a, (unsigned)first, (unsigned)next);
  return 0;
}

/* ── datagrams of other protocols (RFC 7983) ── */

/* association:take_others(boolean): whether its peer's datagrams of other protocols are passed on; they are dropped otherwise. */
static int association_take_others(lua_State *L) {
  dtls_association *a = check(L);
  luaL_checktype(L, 2, LUA_TBOOLEAN);
  a->others.wanted = lua_toboolean(L, 2);
  return 0;
}

/* association:datagram() → the next one that its own socket had, or nil */
static int association_datagram(lua_State *L) {
  dtls_queue *q = &check(L)->others.queue;
  if (!q->oldest) return 0;
  lua_pushlstring(L, (const char *)q->oldest->data, q->oldest->size);
  dtls_queue_remove(q, q->oldest);
  return 1;
}

/* association:send_datagram(data) → true | nil, err: as it is, to the peer. */
static int association_send_datagram(lua_State *L) {
  dtls_association *a = check(L);
  size_t size;
  const char *data = luaL_checklstring(L, 2, &size);
  dtls_failure f;
  return dtls_multiplex_check(data, size, &f) && dtls_association_send_other(a, data, size, &f)
             ? dtls_done(L)
             : dtls_error_push(L, &f);
}

/* ── its owner ── */

/* association:await_room() → whether the association's own socket of a server tells by endpoint:next() when it takes datagrams */
static int association_await_room(lua_State *L) {
  dtls_association *a = check(L);
  bool own = a->endpoint && a->path && a->path->fd >= 0;
  if (own) dtls_intake_await_room(a);
  lua_pushboolean(L, own);
  return 1;
}

/* association:fd() → the descriptor of its own socket, for a client to watch; nil: its datagrams come through others */
static int association_fd(lua_State *L) {
  dtls_association *a = check(L);
  if (!a->path || a->path->fd < 0) return 0;
  lua_pushinteger(L, a->path->fd);
  return 1;
}

/* association:set_owner(value): what endpoint:next(), close() and promote() return for it. Held until close(). */
static int association_set_owner(lua_State *L) {
  dtls_association *a = check(L);
  luaL_checkany(L, 2);
  lua_settop(L, 2);
  disown(L, a);
  a->owner = luaL_ref(L, LUA_REGISTRYINDEX);
  return 0;
}

void dtls_association_init(lua_State *L) {
  static const luaL_Reg methods[] = {{"close", association_close},
                                     {"handshake", association_handshake},
                                     {"read", association_read},
                                     {"write", association_write},
                                     {"count_dropped", association_count_dropped},
                                     {"shutdown", association_shutdown},
                                     {"promote", association_promote},
                                     {"timeout", association_timeout},
                                     {"handle_timeout", association_handle_timeout},
                                     {"answered", association_answered},
                                     {"expired", association_expired},
                                     {"set_retransmit", association_set_retransmit},
                                     {"await_room", association_await_room},
                                     {"fd", association_fd},
                                     {"set_owner", association_set_owner},
                                     {"take_others", association_take_others},
                                     {"datagram", association_datagram},
                                     {"send_datagram", association_send_datagram},
                                     {"__gc", association_gc},
                                     {NULL, NULL}};
  dtls_register(L, TYPE, methods);
  dtls_register(L, TYPE, dtls_association_facts);
  dtls_register(L, TYPE, dtls_association_mtu);
  dtls_register(L, TYPE, dtls_association_settings);
  dtls_register(L, TYPE, dtls_callback_methods);
}
