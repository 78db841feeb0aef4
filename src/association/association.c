/*
 * An association: one SSL with its BIOs. Handshake, read, write, shutdown, retransmission timer, MTU. Every call is
 * non-blocking; waiting is the caller's affair. Owns the SSL; the path under it decides where datagrams go.
 */
#include "association/association.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "association/endpoint.h"
#include "association/listener.h"
#include "association/record_filter.h"
#include "association/retransmit.h"
#include "base/clock.h"
#include "binding/counters.h"
#include "binding/error.h"
#include "binding/socket.h"
#include "identity/certificate.h"
#include "identity/extension.h"
#include "identity/psk.h"
#include "identity/session.h"
#include "identity/settings.h"
#include "identity/verify.h"

static const char TYPE[] = "dtls.association";

enum { EXPORT_MAX = 65536 };

/* ── life ── */

/* The longest plaintext of a record: what a client has negotiated (RFC 6066 §4, SSL_SESSION_get_max_fragment_length), or 2^14. */
static size_t max_fragment(const dtls_association *a) {
  const SSL_SESSION *session = SSL_get0_session(a->ssl);
  uint8_t code = session ? SSL_SESSION_get_max_fragment_length(session) : TLSEXT_max_fragment_length_DISABLED;
  bool negotiated = code >= TLSEXT_max_fragment_length_512 && code <= TLSEXT_max_fragment_length_4096;
  return negotiated ? (size_t)512 << (code - TLSEXT_max_fragment_length_512) : DTLS_MESSAGE_MAX;
}

/* DTLS_get_data_mtu knows nothing of max_fragment_length, and libssl ends an association at a longer SSL_write. */
static size_t data_mtu(const dtls_association *a) {
  size_t fits = DTLS_get_data_mtu(a->ssl), allowed = max_fragment(a);
  return fits < allowed ? fits : allowed;
}

void dtls_association_use_mtu(dtls_association *a, size_t mtu) {
  a->mtu = mtu;
  SSL_set_mtu(a->ssl, (long)mtu);
  if (a->open) a->data_mtu = data_mtu(a);
}

static long min_mtu(dtls_association *a) {
  return (long)DTLS_get_link_min_mtu(a->ssl) - BIO_ctrl(a->dgram, BIO_CTRL_DGRAM_GET_MTU_OVERHEAD, 0, NULL);
}

/* RFC 6347 §4.1.1.1. What the kernel has learned of the path, which it tells for a socket that is connected to the peer. */
void dtls_association_learn_mtu(dtls_association *a) {
  if (!a->path || a->path->fd < 0) return;
  long known = BIO_ctrl(a->dgram, BIO_CTRL_DGRAM_QUERY_MTU, 0, NULL);
  if (known >= min_mtu(a) && (size_t)known < a->mtu) dtls_association_use_mtu(a, (size_t)known);
}

static void on_info(const SSL *ssl, int where, int value) {
  if (where == SSL_CB_READ_ALERT) dtls_association_of(ssl)->alert_read = value;
}

void dtls_association_prepare(SSL_CTX *ctx) {
  dtls_hello_callbacks(ctx);
  dtls_callback_callbacks(ctx);
}

dtls_association *dtls_association_new(SSL_CTX *ctx, dtls_endpoint *ep, int fd) {
  dtls_association *a = OPENSSL_zalloc(sizeof *a);
  BIO *screen = NULL;
  if (!a) return NULL;
  a->owner = LUA_NOREF;
  a->fork_generation = dtls_fork_generation();
  a->server = ep != NULL;
  a->suspect_alert = -1;
  a->first_timeout = a->interval = DTLS_FIRST_TIMEOUT;
  a->mtu = DTLS_DEFAULT_MTU;
  a->ssl = SSL_new(ctx);
  screen = dtls_filter_new(a);
  a->dgram = BIO_new_dgram(fd, BIO_NOCLOSE);
  if (!a->ssl || !screen || !a->dgram || !dtls_peer_init(&a->peer, a->ssl, &dtls_callback_questions)) goto fail;
  BIO_push(screen, a->dgram);
  SSL_set_bio(a->ssl, screen, screen);
  SSL_set_mtu(a->ssl, (long)a->mtu); /* SSL_OP_NO_QUERY_MTU is on the context */
  SSL_set_info_callback(a->ssl, on_info);
  dtls_retransmit_watch(a);
  dtls_reassembly_watch(a);
  if (a->server)
    SSL_set_accept_state(a->ssl);
  else
    SSL_set_connect_state(a->ssl);
  if (ep) {
    a->endpoint = ep;
    a->number = ++ep->associations;
    ep->refs++;
    a->asks_hello = ep->asks_hello;
    a->peer.stores_sessions = ep->stores_sessions;
    if (a->peer.stores_sessions) SSL_set_options(a->ssl, SSL_OP_NO_TICKET);
  }
  return a;
fail:
  BIO_free(screen);
  BIO_free(a->dgram);
  SSL_free(a->ssl);
  OPENSSL_free(a);
  return NULL;
}

void dtls_association_free(dtls_association *a) {
  if (!a) return;
  dtls_path_detach(a);
  if (a->endpoint) {
    if (a->endpoint->reader == a) a->endpoint->reader = NULL;
    dtls_endpoint_unref(a->endpoint);
  }
  dtls_callback_free(a);
  dtls_reassembly_free(a);
  dtls_multiplex_free(a);
  dtls_peer_free(&a->peer);
  SSL_free(a->ssl);
  SSL_SESSION_free(a->offered);
  OPENSSL_free(a);
}

/* NULL: no memory. The caller frees it. */
static BIO_ADDR *bio_address(const dtls_address *address) {
  BIO_ADDR *out = BIO_ADDR_new();
  int ok = 0;
  if (out && address->sa.sa_family == AF_INET6)
    ok = BIO_ADDR_rawmake(out, AF_INET6, &address->v6.sin6_addr, sizeof address->v6.sin6_addr, address->v6.sin6_port);
  else if (out)
    ok = BIO_ADDR_rawmake(out, AF_INET, &address->v4.sin_addr, sizeof address->v4.sin_addr, address->v4.sin_port);
  if (!ok) {
    BIO_ADDR_free(out);
    return NULL;
  }
  return out;
}

/* Points the BIO below at the path's socket and peer, so that its MTU and address queries are real. */
bool dtls_association_set_peer(dtls_association *a, const dtls_path *path) {
  BIO_ADDR *peer = bio_address(&path->peer);
  if (!peer) return false;
  if (path->fd >= 0) {
    BIO_set_fd(a->dgram, path->fd, BIO_NOCLOSE);
    BIO_ctrl_set_connected(a->dgram, peer);
  } else {
    BIO_dgram_set_peer(a->dgram, peer);
  }
  BIO_ADDR_free(peer);
  return true;
}

dtls_box *dtls_association_push(lua_State *L) { return dtls_box_push(L, TYPE); }

static int forked(lua_State *L) {
  dtls_failure f;
  dtls_fail_forked(&f);
  return dtls_error_push(L, &f);
}

static bool is_foreign(const dtls_association *a) { return a->fork_generation != dtls_fork_generation(); }

dtls_association *dtls_association_check(lua_State *L) { return dtls_check(L, 1, TYPE); }
static dtls_association *check(lua_State *L) { return dtls_association_check(L); }

static void disown(lua_State *L, dtls_association *a) {
  luaL_unref(L, LUA_REGISTRYINDEX, a->owner);
  a->owner = LUA_NOREF;
}

/*
 * association:close() → heir | nil
 * Frees it, without a word to the peer. heir: the owner of the parallel handshake that now is the one on this path
 * and, in the connected strategy, has to watch its descriptor.
 */
static int association_close(lua_State *L) {
  dtls_box *box = dtls_box_check(L, 1, TYPE);
  dtls_association *a = box->object;
  if (!a) return 0;
  box->object = NULL;
  disown(L, a);
  dtls_association *heir = dtls_path_detach(a);
  dtls_association_free(a);
  if (!heir) return 0;
  lua_rawgeti(L, LUA_REGISTRYINDEX, heir->owner);
  return 1;
}

static int association_gc(lua_State *L) {
  if (dtls_box_test(L, 1, TYPE)) association_close(L);
  return 0;
}

/*
 * What arrived before connect() is from anybody, and a server says nothing of DTLS before it is spoken to; what its peer said
 * in other protocols somebody may ask for.
 */
static void empty_socket_untrusted(dtls_association *a) {
  uint8_t data[DTLS_DATAGRAM_MAX];
  for (int i = 0; i < DTLS_DRAIN_MAX; i++) {
    dtls_address sender;
    ssize_t size = dtls_udp_receive(a->path->fd, data, sizeof data, &sender);
    if (size < 0 && errno == EAGAIN) return;
    if (size < 0 || (size_t)size > sizeof data || !a->takes_others || !dtls_address_equal(&sender, &a->path->peer)) continue;
    if (!dtls_multiplex_is_other(data, (size_t)size)) continue;
    dtls_association_count_in(a, (size_t)size);
    dtls_multiplex_keep(a, data, (size_t)size);
  }
}

typedef struct {
  dtls_name name;
  const char *session; /* NULL: none */
  size_t session_size;
  bool check_name;
} client_options;

static bool prepare_client(dtls_association *a, const client_options *o) {
  const char *name = o->name.text;
  if (!dtls_verify_name(a->ssl, &o->name, o->check_name) || !dtls_session_bind(a->ssl, name, o->name.size)) return false;
  a->offered = o->session ? dtls_session_parse(o->session, o->session_size) : NULL;
  if (a->offered) dtls_session_offer(a->ssl, a->offered, name);
  return true;
}

/*
 * core.client(context, fd[, {servername=, check_name=, session=, duplicate=, take_others=}]) → association | nil, err
 * fd: a connected UDP socket; it stays the caller's. check_name: the certificate must have the name. session: what
 * association:session() gave; not offered when it has expired or belongs to another name or context. duplicate: the
 * association has a descriptor of its own, see fd(), so that the caller may close his at any time. take_others: as
 * association:take_others(), for what waits in the socket, too.
 */
int dtls_association_client(lua_State *L) {
  SSL_CTX *ctx = dtls_context_check(L, 1, false);
  int fd = (int)luaL_checkinteger(L, 2);
  dtls_address local, peer;
  if (lua_isnoneornil(L, 3)) {
    lua_settop(L, 2);
    lua_newtable(L);
  }
  luaL_checktype(L, 3, LUA_TTABLE);
  lua_settop(L, 3);
  lua_getfield(L, 3, "servername");
  lua_getfield(L, 3, "session");
  lua_getfield(L, 3, "check_name");
  lua_getfield(L, 3, "duplicate");
  lua_getfield(L, 3, "take_others");
  client_options options = {.check_name = lua_toboolean(L, 6)};
  size_t name_size = 0;
  const char *name = lua_tolstring(L, 4, &name_size);
  const char *wrong = name ? dtls_name_parse_untrusted(name, name_size, &options.name) : NULL;
  if (wrong) return dtls_error(L, "ERR_DTLS_CONFIG", "servername: %s", wrong);
  options.session = lua_tolstring(L, 5, &options.session_size);
  if (!dtls_udp_local(fd, &local) || !dtls_udp_peer(fd, &peer)) return dtls_error_system(L, errno, "the socket has no peer");
  bool duplicate = lua_toboolean(L, 7);
  dtls_box *box = dtls_association_push(L); /* what may raise comes first */
  if (duplicate && (fd = dtls_udp_duplicate(fd)) < 0) return dtls_error_system(L, errno, "cannot make a client");
  dtls_udp_announce_errors(fd);
  ERR_clear_error();
  dtls_association *a = dtls_association_new(ctx, NULL, fd);
  dtls_path *path = a ? dtls_path_new(NULL, &local, &peer, fd, duplicate) : NULL;
  if (!path && duplicate) close(fd);
  if (path && !dtls_association_set_peer(a, path)) {
    dtls_path_free(path);
    path = NULL;
  }
  if (path) {
    a->takes_others = lua_toboolean(L, 8);
    dtls_path_attach(path, a);
    empty_socket_untrusted(a);
  }
  if (!path || !prepare_client(a, &options)) {
    dtls_association_free(a);
    return dtls_error_openssl(L, "ERR_DTLS_CONFIG", "cannot make a client");
  }
  box->object = a;
  return 1;
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

static int no_peer(lua_State *L) { return dtls_error(L, "ENOTCONN", "the association has no peer"); }

void dtls_association_suspect(dtls_association *a, int alert, int number) {
  bool first = a->suspect_deadline == 0 || a->suspect_state != SSL_get_state(a->ssl);
  if (!first && (a->suspect_alert >= 0 || alert < 0)) return; /* an alert says more than the ICMP error before it */
  a->suspect_alert = alert;
  a->suspect_errno = number;
  a->suspect_state = SSL_get_state(a->ssl);
  a->suspect_repeated = false;
  uint64_t until = dtls_now() + a->interval;
  if (first || until < a->suspect_deadline) a->suspect_deadline = until;
}

void dtls_association_clear_suspicion(dtls_association *a) {
  a->suspect_deadline = 0;
  a->suspect_alert = -1;
  a->suspect_errno = 0;
}

/* A wrong key is silence: Finished cannot be decrypted, and what cannot be decrypted is dropped (RFC 6347 §4.1.2.7). */
static bool looks_like_wrong_key(const dtls_association *a) {
  bool waits_for_finished = a->server ? a->peer_changed_cipher : a->last.written && a->last.type == SSL3_MT_FINISHED;
  return dtls_psk_suite(a->ssl) && !SSL_session_reused(a->ssl) && waits_for_finished;
}

/* Pushes all bytes of the identity that the peer has, or says that it has; or nil. */
static int push_identity(lua_State *L, const dtls_association *a) {
  size_t size;
  const char *identity = dtls_psk_identity(a->ssl, &size);
  if (!identity) identity = dtls_callback_identity(a, &size);
  if (identity) lua_pushlstring(L, identity, size); else lua_pushnil(L);
  return 1;
}

/* nil and an error are on top: the error says who it was that had no success, where a pre-shared key has a name for that. */
static int identify(lua_State *L, const dtls_association *a) {
  if (a->open || !dtls_psk_suite(a->ssl)) return 2;
  push_identity(L, a);
  lua_setfield(L, -2, "identity");
  return 2;
}

static int refused_certificate(lua_State *L, const dtls_association *a) {
  dtls_failure f;
  dtls_verify_fail(&f, a->ssl);
  dtls_error_push(L, &f);
  int err = lua_gettop(L);
  if (dtls_certificate_push(L, a->ssl, true)) lua_setfield(L, err, "certificate");
  lua_settop(L, err);
  return 2;
}

/* What came and was not believed (dtls_association_suspect) is the best guess there is when nothing else came. */
static int timed_out(lua_State *L, const dtls_association *a, const char *what) {
  dtls_failure f;
  const char *unanswered = dtls_callback_unanswered(a);
  if (unanswered)
    dtls_fail(&f, "ERR_DTLS_HANDSHAKE_TIMEOUT", "%s: %s has not answered yet", what, unanswered);
  else if (a->suspect_alert < 0 && looks_like_wrong_key(a)) /* with an alert the peer has said itself what is wrong */
    /* A client whose server says nothing cannot know whether the server has looked for a key at all. */
    dtls_fail(&f, "ERR_DTLS_PSK_KEY", "%s; probably the two pre-shared keys are not the same%s", what,
               a->server ? "" : ", or the server has not found its own yet");
  else
    dtls_fail(&f, "ERR_DTLS_HANDSHAKE_TIMEOUT", "%s", what);
  if (a->suspect_deadline != 0) dtls_failure_add_seen(&f, a->suspect_alert, a->suspect_errno);
  dtls_error_push(L, &f);
  return identify(L, a);
}

/* libssl has repeated a flight as often as it does, in DTLSv1_handle_timeout or while it looked for something to read. */
static int gave_up(lua_State *L, const dtls_association *a) {
  ERR_clear_error();
  return timed_out(L, a, "the peer did not answer any of the repeated flights");
}

static int protocol_error(lua_State *L, const char *what, const char *message, const char *reason) {
  ERR_clear_error();
  dtls_error(L, "ERR_DTLS_PROTOCOL", "%s: %s", what, message);
  lua_pushstring(L, reason);
  lua_setfield(L, -2, "reason");
  return 2;
}

/* What ends an open association is no matter of the handshake, although libssl uses the reasons of one. */
static int open_failed(lua_State *L, const dtls_association *a, const char *what) {
  dtls_failure f;
  switch (ERR_GET_REASON(ERR_peek_last_error())) {
    case SSL_R_READ_TIMEOUT_EXPIRED:
      return protocol_error(L, what, "the peer repeated its Finished more often than OpenSSL allows", "TOO_MANY_FINISHED");
    case SSL_R_TOO_MANY_WARN_ALERTS: /* OpenSSL 3.0 reads each warning five times, and takes that for five warnings */
      ERR_clear_error();
      dtls_fail_warning(&f, a->alert_read & 0xff);
      return dtls_error_push(L, &f);
    default: return dtls_error_openssl(L, "ERR_DTLS_PROTOCOL", what);
  }
}

/* Nobody has a key for the identity of a client, or this client has none for its server, which may have sent a hint. */
static int no_key(lua_State *L, const dtls_association *a, const char *what) {
  dtls_error_openssl(L, "ERR_DTLS_PSK_IDENTITY", what); /* with OpenSSL's reason */
  int err = lua_gettop(L);
  if (a->server) push_identity(L, a); else lua_pushstring(L, SSL_get_psk_identity_hint(a->ssl));
  size_t size = 0;
  const char *text = lua_tolstring(L, -1, &size);
  lua_pushstring(L, a->server ? "there is no key for the identity " : text ? "there is no key for a server with the hint " : "there is no key for this server");
  char quoted[DTLS_QUOTE_MAX];
  dtls_quote_untrusted(quoted, text ? text : "", size);
  if (text) lua_pushstring(L, quoted); else lua_pushliteral(L, "");
  lua_concat(L, 2);
  lua_setfield(L, err, "message");
  lua_settop(L, err);
  return identify(L, a);
}

/* The names of the first suites of a list, of which a client may send hundreds. */
static void push_suites(lua_State *L, const STACK_OF(SSL_CIPHER) *suites) {
  enum { SHOWN_MAX = 12 };
  int count = suites ? sk_SSL_CIPHER_num(suites) : 0;
  lua_pushliteral(L, "");
  for (int i = 0, shown = 0; i < count && shown <= SHOWN_MAX; i++) {
    const SSL_CIPHER *suite = sk_SSL_CIPHER_value(suites, i);
    if (SSL_CIPHER_get_kx_nid(suite) == NID_kx_any) continue; /* TLS 1.3's are always there */
    lua_pushfstring(L, "%s%s", shown > 0 ? ":" : "", shown < SHOWN_MAX ? SSL_CIPHER_get_name(suite) : "...");
    lua_concat(L, 2);
    shown++;
  }
}

/* Both may have a suite, and no certificate or group for it. */
static int no_shared_suite(lua_State *L, const dtls_association *a, const char *what) {
  dtls_error_openssl(L, "ERR_DTLS_PROTOCOL", what); /* with OpenSSL's reason */
  int err = lua_gettop(L);
  lua_getfield(L, err, "message");
  lua_pushliteral(L, "; the client offers '");
  push_suites(L, SSL_get_client_ciphers(a->ssl)); /* those that this OpenSSL knows */
  lua_pushliteral(L, "', and this server has '");
  push_suites(L, SSL_get_ciphers(a->ssl));
  lua_pushliteral(L, "'");
  lua_concat(L, 6);
  lua_setfield(L, err, "message");
  return identify(L, a);
}

/* nil, err for an SSL call that failed for good. number: errno after it. */
static int failed(lua_State *L, dtls_association *a, int error, int number, const char *what) {
  if (error == SSL_ERROR_SYSCALL && ERR_peek_error() == 0) {
    if (number == 0) return dtls_error(L, "ERR_DTLS_PROTOCOL", "%s: OpenSSL gave up without saying why", what);
    return dtls_error_system(L, number, what);
  }
  if (a->open) return open_failed(L, a, what);
  switch (ERR_GET_REASON(ERR_peek_last_error())) {
    case SSL_R_CERTIFICATE_VERIFY_FAILED: return refused_certificate(L, a);
    case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE: return dtls_error_openssl(L, "ERR_DTLS_CERTIFICATE", what);
    case SSL_R_NO_SHARED_CIPHER: return no_shared_suite(L, a, what);
    case SSL_R_PSK_IDENTITY_NOT_FOUND: return no_key(L, a, what);
    case SSL_R_READ_TIMEOUT_EXPIRED: return gave_up(L, a);
    default: dtls_error_openssl(L, "ERR_DTLS_PROTOCOL", what); return identify(L, a);
  }
}

/*
 * A handshake message in an open association, even a fragment of one, puts libssl back into a handshake that never ends: it
 * delivers and sends no data any more. Renegotiation is refused (SSL_OP_NO_RENEGOTIATION), a message that comes whole and in
 * turn is answered with an alert and forgotten; one that leaves libssl there ends the association.
 */
static int began_handshake(lua_State *L, const char *what) {
  return protocol_error(L, what, "the peer began another handshake in an open association", "UNEXPECTED_MESSAGE");
}

/* nil, 'want_read' | 'closed', or nil, err for a call to SSL_do_handshake or SSL_read_ex that did not succeed. */
static int unfinished(lua_State *L, dtls_association *a, int result, const char *what) {
  int number = errno;
  int error = SSL_get_error(a->ssl, result);
  if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_ZERO_RETURN) return failed(L, a, error, number, what);
  if (error == SSL_ERROR_WANT_READ && a->open && SSL_in_init(a->ssl)) return began_handshake(L, what);
  lua_pushnil(L);
  lua_pushstring(L, error == SSL_ERROR_WANT_READ ? "want_read" : "closed");
  return 2;
}

/* An idle peer would hold 34 KB of record buffers. */
void dtls_association_release(dtls_association *a) {
  if (a->open && !dtls_callback_pending(a)) dtls_callback_free(a);
  if (a->open && !dtls_reassembly_pending(a)) dtls_reassembly_free(a);
  if (a->open && a->buffered && SSL_free_buffers(a->ssl) == 1) a->buffered = false;
}

/* For DTLS, only reading makes the buffers anew: a write without them ends in a NULL pointer inside libssl 3.0. */
static bool need_buffers(dtls_association *a) {
  if (!a->buffered) a->buffered = SSL_alloc_buffers(a->ssl) == 1;
  return a->buffered;
}

static void completed(dtls_association *a) {
  a->open = a->buffered = true;
  a->protected_min = dtls_filter_protected_min(a->ssl);
  a->data_mtu = data_mtu(a);
  a->repeat_at = 0;
  dtls_association_clear_suspicion(a);
  dtls_reassembly_completed(a);
  if (a->path) a->path->paced_until = 0;
}

/* libssl stops at a ChangeCipherSpec before its turn, although there may be more that no readable socket will announce. */
static int proceed(dtls_association *a) {
  int result;
  do {
    ERR_clear_error();
    errno = 0;
    result = SSL_do_handshake(a->ssl);
  } while (result != 1 && SSL_get_error(a->ssl, result) == SSL_ERROR_WANT_READ && !dtls_callback_asks(a) &&
           (dtls_reassembly_pending(a) || dtls_callback_pending(a)));
  return result;
}

/*
 * association:handshake() → true | nil, 'want_read' | nil, err (SSL_do_handshake)
 *   → nil, 'ask_hello', servername (nil: none, false: it is no host name), session id or nil | nil, 'ask_psk', identity (a client: hint or nil) |
 *     nil, 'ask_verify': answer with answer_hello() or refuse_hello(), answer_psk(), answer_verify(), now or later,
 *     and call handshake() again
 *   → nil, 'want_answer': the question is still open
 */
static int association_handshake(lua_State *L) {
  dtls_association *a = check(L);
  if (is_foreign(a)) return forked(L);
  if (!a->path) return no_peer(L);
  a->reads_left = DTLS_READS_MAX;
  if (dtls_callback_asks(a)) {
    dtls_filter_collect(a);
    lua_pushnil(L);
    lua_pushliteral(L, "want_answer");
    return 2;
  }
  if (!a->server && SSL_in_before(a->ssl)) dtls_session_trim(a->ssl, a->mtu);
  int result = proceed(a);
  if (dtls_callback_asks(a)) {
    ERR_clear_error();
    return dtls_callback_push(L, a);
  }
  /* One call may do both, take a valid flight and then an alert: only what came after the alert counts. */
  if (a->suspect_deadline != 0 && SSL_get_state(a->ssl) != a->suspect_state && result != 1) dtls_association_clear_suspicion(a);
  if (result != 1 && SSL_get_error(a->ssl, result) == SSL_ERROR_ZERO_RETURN)
    return dtls_error(L, "ERR_DTLS_ALERT", "the peer closed the association during the handshake");
  if (result != 1) return unfinished(L, a, result, "handshake");
  /* A client's setVerify may have come between the offer and here; a server asks again what it binds to. */
  if (!a->server && a->peer.reject && SSL_session_reused(a->ssl) && SSL_get_verify_result(a->ssl) != X509_V_OK)
    return refused_certificate(L, a);
  if (!a->open) completed(a);
  lua_pushboolean(L, 1);
  return 1;
}

/* SSL_read_ex, but for records without data, which Mbed TLS sends for an empty write. */
static int read_message(dtls_association *a, char message[DTLS_MESSAGE_MAX], size_t *size) {
  int result;
  do {
    ERR_clear_error();
    errno = 0;
    *size = 0;
    result = SSL_read_ex(a->ssl, message, DTLS_MESSAGE_MAX, size);
    if (result != 1) break;
    if (a->unread > 0) a->unread--;
    if (*size == 0) DTLS_DROP(a, EMPTY);
  } while (*size == 0);
  return result;
}

/*
 * association:read() → message, more | nil, 'want_read' | nil, 'closed' | nil, err (SSL_read_ex)
 * more: the datagram held more than this message, which no readable socket will announce. Of its own socket it takes so
 * many datagrams (DTLS_READS_MAX) and says want_read, whether or not there are more.
 */
static int association_read(lua_State *L) {
  dtls_association *a = check(L);
  if (is_foreign(a)) return forked(L);
  if (!a->path) return no_peer(L);
  char message[DTLS_MESSAGE_MAX]; /* a shorter buffer would cut a message in two */
  size_t size;
  a->buffered = true;
  int result = read_message(a, message, &size);
  if (result == 1) {
    DTLS_COUNT(a, messages_in, 1);
    lua_pushlstring(L, message, size);
    lua_pushboolean(L, a->datagram || dtls_reassembly_pending(a) || dtls_callback_pending(a) || SSL_has_pending(a->ssl));
    return 2;
  }
  a->reads_left = DTLS_READS_MAX;
  DTLS_COUNT(a, drops[DTLS_DROP_INVALID], a->unread); /* libssl says nothing of what it drops */
  a->unread = 0;
  int results = unfinished(L, a, result, "read");
  dtls_association_release(a);
  return results;
}

/* libssl 3.2 and later have an error of their own for a BIO that failed. */
static int write_failed(lua_State *L, dtls_association *a, int written, int number) {
  if (a->write_error != 0) return dtls_error_system(L, a->write_error, "the message was not sent");
  int error = SSL_get_error(a->ssl, written);
  return error == SSL_ERROR_WANT_READ && SSL_in_init(a->ssl) ? began_handshake(L, "write") : failed(L, a, error, number, "write");
}

/*
 * association:write(message[, allow_fragments]) → true | nil, err[, true] (SSL_write)
 * EMSGSIZE: longer than data_mtu(), or than a record. EAGAIN, ENOBUFS: the system dropped it; nothing else is wrong.
 * A third result says that the association is beyond use.
 */
static int association_write(lua_State *L) {
  dtls_association *a = check(L);
  size_t size;
  const char *message = luaL_checklstring(L, 2, &size);
  if (is_foreign(a)) return forked(L);
  if (!a->open) return dtls_error(L, "ENOTCONN", "the handshake is not complete");
  if (size == 0) return dtls_error(L, "EINVAL", "an empty message cannot be sent: DTLS has no empty records for the application");
  size_t limit = lua_toboolean(L, 3) ? max_fragment(a) : a->data_mtu;
  if (size > limit) return dtls_error(L, "EMSGSIZE", "a message of %zu bytes does not fit: the limit is %zu", size, limit);
  ERR_clear_error();
  errno = 0;
  a->write_error = 0;
  bool idle = !a->buffered;
  int written = need_buffers(a) ? SSL_write(a->ssl, message, (int)size) : -1;
  if (written <= 0) {
    write_failed(L, a, written, errno);
    lua_pushboolean(L, 1);
    return 3;
  }
  if (idle) dtls_association_release(a);
  if (a->write_error != 0) return dtls_error_system(L, a->write_error, "the message was not sent");
  DTLS_COUNT(a, messages_out, 1);
  lua_pushboolean(L, 1);
  return 1;
}

/* association:shutdown() → true: close_notify is on its way, if there is anybody to tell (SSL_shutdown) */
static int association_shutdown(lua_State *L) {
  dtls_association *a = check(L);
  ERR_clear_error();
  if (a->open && !is_foreign(a) && need_buffers(a)) SSL_shutdown(a->ssl);
  ERR_clear_error();
  lua_pushboolean(L, 1);
  return 1;
}

/*
 * association:promote() → displaced | nil
 * A parallel handshake has completed: it takes its path over. displaced: the owner of the association that had it.
 */
static int association_promote(lua_State *L) {
  dtls_association *a = check(L);
  dtls_association *old = a->path && a->path->successor == a ? a->path->current : NULL;
  if (!old) return 0;
  dtls_path_detach(old);
  lua_rawgeti(L, LUA_REGISTRYINDEX, old->owner);
  return 1;
}

/* ── timer (DTLSv1_handle_timeout) ── */

/* association:timeout() → ms until handle_timeout() wants to be called, or nil: never, or not before an answer */
static int association_timeout(lua_State *L) {
  dtls_association *a = check(L);
  uint64_t now = dtls_now(), until = UINT64_MAX;
  if (dtls_callback_asks(a)) return 0;
  if (a->repeat_at != 0) until = a->repeat_at;
  if (a->suspect_deadline != 0 && a->suspect_deadline < until) until = a->suspect_deadline;
  if (until == UINT64_MAX) return 0;
  lua_pushnumber(L, until > now ? (lua_Number)(until - now) : 0);
  return 1;
}

/*
 * association:answered() → true: the peer's first flight, or an alert, has come
 *   → false, how often the first flight was repeated, what the system said of the path to the peer or nil
 */
static int association_answered(lua_State *L) {
  dtls_association *a = check(L);
  bool suspect = a->suspect_deadline != 0;
  bool answered = a->next_seq > 0 || (suspect && a->suspect_alert >= 0);
  lua_pushboolean(L, answered);
  if (answered) return 1;
  lua_pushnumber(L, (lua_Number)a->counters.retransmits);
  if (!suspect) return 2;
  dtls_error_system(L, a->suspect_errno, "no answer from the peer");
  lua_remove(L, -2);
  return 3;
}

/* association:expired(ms) → nil, err: the error of a handshake that did not complete within ms */
static int association_expired(lua_State *L) {
  dtls_association *a = check(L);
  char what[80];
  snprintf(what, sizeof what, "the handshake did not complete within %.0f ms", luaL_checknumber(L, 2));
  return timed_out(L, a, what);
}

/* association:handle_timeout() → true | nil, err. Repeats the last flight when it is due. */
static int association_handle_timeout(lua_State *L) {
  dtls_association *a = check(L);
  if (is_foreign(a)) return forked(L);
  bool due = a->suspect_deadline != 0 && !a->open && dtls_now() >= a->suspect_deadline;
  /* What was in the way may be gone when the flight is repeated; that one must have the time to be answered. */
  bool again = due && a->suspect_alert < 0 && a->repeat_at != 0 && !a->suspect_repeated;
  if (due && !again) {
    if (a->suspect_alert < 0) return dtls_error_system(L, a->suspect_errno, "no answer from the peer");
    dtls_failure f;
    dtls_fail_alert(&f, a->suspect_alert);
    dtls_error_push(L, &f);
    return identify(L, a);
  }
  ERR_clear_error();
  errno = 0;
  long repeated = DTLSv1_handle_timeout(a->ssl);
  if (repeated >= 0) {
    if (repeated == 0) dtls_retransmit_postpone(a);
    if (again) {
      a->suspect_repeated = true;
      a->suspect_deadline = a->repeat_at;
    }
    lua_pushboolean(L, 1);
    return 1;
  }
  int number = errno;
  if (ERR_peek_error() == 0) return dtls_error_system(L, number, "cannot repeat a flight");
  if (ERR_GET_REASON(ERR_peek_last_error()) != SSL_R_READ_TIMEOUT_EXPIRED) return dtls_error_openssl(L, "ERR_DTLS_PROTOCOL", "cannot repeat a flight");
  return gave_up(L, a);
}

/* association:set_retransmit(first_ms, next_ms): the first interval of a flight; the one after the current (0: double). */
static int association_set_retransmit(lua_State *L) {
  dtls_association *a = check(L);
  lua_Integer first = luaL_checkinteger(L, 2), next = luaL_checkinteger(L, 3);
  luaL_argcheck(L, first >= 1 && first <= DTLS_TIMEOUT_MAX, 2, "expected 1 to 60000 ms");
  luaL_argcheck(L, next >= 0 && next <= DTLS_TIMEOUT_MAX, 3, "expected 0 to 60000 ms");
  a->first_timeout = (unsigned)first;
  a->next_timeout = (unsigned)next;
  if (a->path && a->counters.datagrams_out == 0) dtls_path_pace(a->path, a->first_timeout); /* it has begun just now */
  return 0;
}

/* ── MTU ── */

static int apply_mtu(lua_State *L, dtls_association *a, lua_Integer mtu) {
  long min = min_mtu(a);
  if (mtu < min || mtu > DTLS_DATAGRAM_MAX)
    return dtls_error(L, "ERR_DTLS_CONFIG", "an MTU of %ld is out of range: %ld to %d bytes of UDP payload", (long)mtu, min, DTLS_DATAGRAM_MAX);
  dtls_association_use_mtu(a, (size_t)mtu);
  lua_pushboolean(L, 1);
  return 1;
}

/* association:set_mtu(bytes of UDP payload) → true | nil, err (SSL_set_mtu) */
static int association_set_mtu(lua_State *L) {
  dtls_association *a = check(L);
  return apply_mtu(L, a, luaL_checkinteger(L, 2));
}

/* association:set_link_mtu(bytes of IP packet) → true | nil, err. What DTLS_set_link_mtu does, but at any time. */
static int association_set_link_mtu(lua_State *L) {
  dtls_association *a = check(L);
  lua_Integer packet = luaL_checkinteger(L, 2), overhead = BIO_ctrl(a->dgram, BIO_CTRL_DGRAM_GET_MTU_OVERHEAD, 0, NULL);
  return apply_mtu(L, a, packet > overhead ? packet - overhead : 0);
}

/* association:mtu() → bytes of UDP payload that no datagram exceeds */
static int association_mtu(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)check(L)->mtu);
  return 1;
}

/* association:link_min_mtu() → bytes of IP packet (DTLS_get_link_min_mtu) */
static int association_link_min_mtu(lua_State *L) {
  lua_pushinteger(L, DTLS_get_link_min_mtu(check(L)->ssl));
  return 1;
}

/* association:data_mtu() → the longest message that fits one datagram; 0 before the handshake chose a suite (DTLS_get_data_mtu) */
static int association_data_mtu(lua_State *L) {
  dtls_association *a = check(L);
  lua_pushinteger(L, (lua_Integer)(a->open ? a->data_mtu : data_mtu(a)));
  return 1;
}

/* ── what is known about it ── */

/* association:fd() → the descriptor to watch for reading, or nil: its datagrams come through others */
static int association_fd(lua_State *L) {
  dtls_association *a = check(L);
  if (!a->reads_socket) return 0;
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

static int push_address(lua_State *L, const dtls_association *a, size_t offset) {
  if (!a->path) return 0;
  dtls_address_push(L, (const dtls_address *)(const void *)((const char *)a->path + offset));
  return 1;
}

/* association:local_address(), remote_address() → {ip=, port=, family=} | nil */
static int association_local_address(lua_State *L) { return push_address(L, check(L), offsetof(dtls_path, local)); }
static int association_remote_address(lua_State *L) { return push_address(L, check(L), offsetof(dtls_path, peer)); }

/* association:protocol() → 'DTLSv1.2' (SSL_get_version) */
static int association_protocol(lua_State *L) {
  lua_pushstring(L, SSL_get_version(check(L)->ssl));
  return 1;
}

/* association:cipher() → {name=, standard_name=, version=, bits=} | nil (SSL_get_current_cipher) */
static int association_cipher(lua_State *L) {
  const SSL_CIPHER *cipher = SSL_get_current_cipher(check(L)->ssl);
  if (!cipher) return 0;
  lua_createtable(L, 0, 4);
  lua_pushstring(L, SSL_CIPHER_get_name(cipher));
  lua_setfield(L, -2, "name");
  lua_pushstring(L, SSL_CIPHER_standard_name(cipher));
  lua_setfield(L, -2, "standardName");
  lua_pushstring(L, SSL_CIPHER_get_version(cipher));
  lua_setfield(L, -2, "version");
  lua_pushinteger(L, SSL_CIPHER_get_bits(cipher, NULL));
  lua_setfield(L, -2, "bits");
  return 1;
}

/* association:authorized() → true | false, reason: whether the peer's identity was proved, and why not */
static int association_authorized(lua_State *L) {
  dtls_association *a = check(L);
  long result = SSL_get_verify_result(a->ssl);
  if (a->open && result == X509_V_OK && (SSL_get0_peer_certificate(a->ssl) || SSL_get_psk_identity(a->ssl))) {
    lua_pushboolean(L, 1);
    return 1;
  }
  lua_pushboolean(L, 0);
  lua_pushstring(L, !a->open ? "HANDSHAKE_NOT_COMPLETE" : result != X509_V_OK ? dtls_verify_result_name(result) : "NO_PEER_CERTIFICATE");
  return 2;
}

/* association:servername() → the host name that the client asked for, a server's in lower case | nil (SSL_get_servername) */
static int association_servername(lua_State *L) {
  const dtls_association *a = check(L);
  const char *asked = SSL_get_servername(a->ssl, TLSEXT_NAMETYPE_host_name);
  dtls_name name = {.size = 0};
  const dtls_name *held = a->server && !asked ? dtls_callback_name(a) : NULL;
  if (held) asked = held->text;
  if (asked && a->server && dtls_name_of_client_untrusted(asked, strlen(asked), &name)) asked = name.text;
  if (!asked || (a->server && name.size == 0)) return 0;
  lua_pushstring(L, asked);
  return 1;
}

/* association:psk_identity() → bytes | nil (SSL_get_psk_identity) */
static int association_psk_identity(lua_State *L) { return push_identity(L, check(L)); }

/* association:export_keying_material(length, label[, context]) → bytes | nil, err (RFC 5705, SSL_export_keying_material) */
static int association_export(lua_State *L) {
  dtls_association *a = check(L);
  lua_Integer length = luaL_checkinteger(L, 2);
  size_t label_size, context_size = 0;
  const char *label = luaL_checklstring(L, 3, &label_size), *context = luaL_optlstring(L, 4, NULL, &context_size);
  luaL_argcheck(L, length >= 1 && length <= EXPORT_MAX, 2, "expected 1 to 65536 bytes");
  if (is_foreign(a)) return forked(L); /* SRTP of both with one key would use nonces twice, too */
  if (!a->open) return dtls_error(L, "ENOTCONN", "the handshake is not complete");
  ERR_clear_error();
  unsigned char *out = lua_newuserdata(L, (size_t)length);
  if (SSL_export_keying_material(a->ssl, out, (size_t)length, label, label_size, (const uint8_t *)context, context_size, context != NULL) != 1)
    return dtls_error_openssl(L, "ERR_DTLS_PROTOCOL", "cannot export keying material");
  lua_pushlstring(L, (const char *)out, (size_t)length);
  OPENSSL_cleanse(out, (size_t)length);
  return 1;
}

/* association:alpn() → the application protocol | nil (SSL_get0_alpn_selected) */
static int association_alpn(lua_State *L) { return dtls_extension_alpn(L, check(L)->ssl); }

/* association:srtp_profile() → OpenSSL's name of it | nil (SSL_get_selected_srtp_profile) */
static int association_srtp_profile(lua_State *L) { return dtls_extension_srtp(L, check(L)->ssl); }

/* association:extended_master_secret() → whether both sides have it (RFC 7627, SSL_get_extms_support) */
static int association_extended_master_secret(lua_State *L) {
  dtls_association *a = check(L);
  lua_pushboolean(L, a->open && SSL_get_extms_support(a->ssl) == 1);
  return 1;
}

/* association:peer_certificate([chain]) → table | nil, certificate.c. Once open, asked about it or refused: before, an offered session has one, too. */
static int association_peer_certificate(lua_State *L) {
  dtls_association *a = check(L);
  bool known = a->open || dtls_callback_asks(a) || a->peer.refusal.chain;
  return known && dtls_certificate_push(L, a->ssl, lua_toboolean(L, 2));
}

/*
 * association:session() → id, blob | nil: what resumes it (i2d_SSL_SESSION). It holds the master secret. None for a client
 * that has changed how it verifies: its sessions are bound to what its context said.
 */
static int association_session(lua_State *L) {
  dtls_association *a = check(L);
  const dtls_overrides *own = &a->peer.overrides;
  bool bound = a->server || !(own->verify || own->depth || own->ciphers || own->groups || own->sigalgs);
  return a->open && bound ? dtls_session_push(L, a->ssl) : 0;
}

/* association:session_reused() → boolean (SSL_session_reused) */
static int association_session_reused(lua_State *L) {
  lua_pushboolean(L, SSL_session_reused(check(L)->ssl));
  return 1;
}

/* association:keylog() → lines that nobody has taken yet, each with its newline | nil */
static int association_keylog(lua_State *L) {
  dtls_association *a = check(L);
  if (!a->peer.keylog) return 0;
  lua_pushstring(L, a->peer.keylog);
  OPENSSL_clear_free(a->peer.keylog, strlen(a->peer.keylog));
  a->peer.keylog = NULL;
  return 1;
}

/* association:stats() → its counters, and recvBufferSize, sendBufferSize of its socket if it has one of its own */
static int association_stats(lua_State *L) {
  const dtls_association *a = check(L);
  bool has_socket = a->path && a->path->fd >= 0;
  if (has_socket) dtls_path_count_overflow(a->path);
  dtls_counters_push(L, &a->counters);
  if (has_socket) dtls_udp_push_buffers(L, a->path->fd);
  return 1;
}

void dtls_association_init(lua_State *L) {
  static const luaL_Reg methods[] = {
      {"close", association_close},
      {"handshake", association_handshake},
      {"read", association_read},
      {"write", association_write},
      {"shutdown", association_shutdown},
      {"promote", association_promote},
      {"timeout", association_timeout},
      {"handle_timeout", association_handle_timeout},
      {"answered", association_answered},
      {"expired", association_expired},
      {"set_retransmit", association_set_retransmit},
      {"set_mtu", association_set_mtu},
      {"set_link_mtu", association_set_link_mtu},
      {"mtu", association_mtu},
      {"link_min_mtu", association_link_min_mtu},
      {"data_mtu", association_data_mtu},
      {"fd", association_fd},
      {"set_owner", association_set_owner},
      {"local_address", association_local_address},
      {"remote_address", association_remote_address},
      {"protocol", association_protocol},
      {"cipher", association_cipher},
      {"authorized", association_authorized},
      {"servername", association_servername},
      {"psk_identity", association_psk_identity},
      {"export_keying_material", association_export},
      {"alpn", association_alpn},
      {"srtp_profile", association_srtp_profile},
      {"extended_master_secret", association_extended_master_secret},
      {"peer_certificate", association_peer_certificate},
      {"session", association_session},
      {"session_reused", association_session_reused},
      {"keylog", association_keylog},
      {"stats", association_stats},
      {"__gc", association_gc},
      {NULL, NULL}};
  dtls_register(L, TYPE, methods);
  dtls_register(L, TYPE, dtls_association_settings);
  dtls_register(L, TYPE, dtls_callback_methods);
  dtls_register(L, TYPE, dtls_multiplex_methods);
}
