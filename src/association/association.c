/*
 * An association: one SSL with its BIOs. Handshake, read, write, shutdown. Every call is non-blocking; waiting is the
 * caller's affair. Owns the SSL; the path under it decides where datagrams go.
 */
#include "association/association.h"

#include <errno.h>

#include "association/deferral.h"
#include "association/diagnosis.h"
#include "association/endpoint.h"
#include "association/record_filter.h"
#include "base/clock.h"
#include "base/fork.h"
#include "identity/psk.h"
#include "identity/session.h"
#include "identity/verify.h"

/* ── life ── */

/* During a handshake on_message (reassembly.c) sees alerts, and libssl calls this for each of its steps, too. */
static void on_info(const SSL *ssl, int where, int value) {
  if (where == SSL_CB_READ_ALERT) dtls_association_of(ssl)->alert_read = value;
}

void dtls_association_prepare(SSL_CTX *ctx) {
  dtls_listener_prepare(ctx);
  dtls_callback_prepare(ctx);
}

dtls_association *dtls_association_new(SSL_CTX *ctx, dtls_endpoint *ep, int fd) {
  dtls_association *a = OPENSSL_zalloc(sizeof *a);
  if (!a) return NULL;
  a->owner = DTLS_NO_OWNER;
  a->fork_generation = dtls_fork_generation();
  a->server = ep != NULL;
  dtls_soft_error_clear(a);
  a->retransmit.first_timeout = a->retransmit.interval = DTLS_FIRST_TIMEOUT;
  a->mtu.payload = DTLS_DEFAULT_MTU;
  a->ssl = SSL_new(ctx);
  BIO *filter = dtls_bio_new(a);
  a->dgram = BIO_new_dgram(fd, BIO_NOCLOSE);
  if (!a->ssl || !filter || !a->dgram || !dtls_peer_init(&a->peer, a->ssl, &dtls_callback_questions)) goto fail;
  BIO_push(filter, a->dgram);
  dtls_mtu_meet(a);
  SSL_set_bio(a->ssl, filter, filter);
  SSL_set_mtu(a->ssl, (long)a->mtu.payload); /* SSL_OP_NO_QUERY_MTU is on the context */
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
    dtls_deferral_join(ep->deferral, a);
    a->asks_hello = ep->options.asks_hello;
    a->peer.stores_sessions = ep->options.stores_sessions;
    if (a->peer.stores_sessions) SSL_set_options(a->ssl, SSL_OP_NO_TICKET);
  }
  return a;
fail:
  BIO_free(filter);
  BIO_free(a->dgram);
  SSL_free(a->ssl);
  OPENSSL_free(a);
  return NULL;
}

void dtls_association_free(dtls_association *a) {
  if (!a) return;
  dtls_path_detach(a);
  dtls_footprint_forget(a);
  if (a->endpoint) {
    if (a->endpoint->current.reader == a) a->endpoint->current.reader = NULL;
    dtls_endpoint_unref(a->endpoint);
  }
  dtls_callback_free(a);
  dtls_reassembly_free(a);
  dtls_queue_clear(&a->others.queue);
  dtls_peer_free(&a->peer);
  SSL_free(a->ssl);
  SSL_SESSION_free(a->offered);
  dtls_deferral_unref(a->output.deferral);
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
  dtls_mtu_meet(a);
  return true;
}

const char *dtls_association_identity(const dtls_association *a, size_t *size) {
  const char *identity = dtls_psk_identity(a->ssl, size);
  return identity ? identity : dtls_callback_identity(a, size);
}

bool dtls_association_is_foreign(const dtls_association *a) { return a->fork_generation != dtls_fork_generation(); }

/* Neither of the parent process nor without a peer. */
static bool is_usable(const dtls_association *a, dtls_failure *f) {
  if (dtls_association_is_foreign(a)) return dtls_fail_forked(f);
  return a->path || dtls_fail(f, "ENOTCONN", "the association has no peer");
}

void dtls_association_release(dtls_association *a) {
  if (a->open && !dtls_callback_pending(a)) dtls_callback_free(a);
  if (a->open && !dtls_reassembly_pending(a)) dtls_reassembly_free(a);
  dtls_footprint_idle(a);
}

bool dtls_association_reserve(dtls_association *a) {
  return a->open && !a->footprint.buffered && !dtls_association_is_foreign(a) && dtls_footprint_need(a);
}

/* ── the handshake ── */

static void completed(dtls_association *a) {
  a->open = a->footprint.buffered = true;
  a->input.protected_min = dtls_filter_protected_min(a->ssl);
  a->mtu.message = dtls_mtu_message(a);
  a->retransmit.repeat_at = 0;
  dtls_soft_error_clear(a);
  dtls_reassembly_completed(a);
  SSL_set_info_callback(a->ssl, on_info);
  if (a->path) a->path->paced_until = 0;
}

/* Before a call of libssl that SSL_get_error and errno explain. */
static void begin_call(void) {
  dtls_clear_errors();
  errno = 0;
}

/* libssl stops at a ChangeCipherSpec before its turn, although there may be more that no readable socket will announce. */
static int proceed(dtls_association *a) {
  int result;
  do {
    begin_call();
    result = dtls_footprint_handshake(a);
  } while (result != 1 && SSL_get_error(a->ssl, result) == SSL_ERROR_WANT_READ && !dtls_callback_asks(a) &&
           (dtls_reassembly_pending(a) || dtls_callback_pending(a)));
  return result;
}

/* What SSL_do_handshake or SSL_read_ex comes to that did not succeed. */
static dtls_result unfinished(dtls_association *a, int result, const char *what, dtls_failure *f) {
  int number = errno;
  int error = SSL_get_error(a->ssl, result);
  if (error == SSL_ERROR_ZERO_RETURN) return DTLS_CLOSED;
  if (error == SSL_ERROR_WANT_READ && !(a->open && SSL_in_init(a->ssl))) return DTLS_WANT_READ;
  dtls_diagnose(a, error, number, what, f);
  return DTLS_FAILED;
}

dtls_result dtls_association_handshake(dtls_association *a, dtls_failure *f) {
  if (!is_usable(a, f)) return DTLS_FAILED;
  a->input.reads_left = DTLS_READS_MAX;
  if (dtls_callback_asks(a)) {
    dtls_bio_collect(a);
    return DTLS_WANT_ANSWER;
  }
  if (!a->server && SSL_in_before(a->ssl)) dtls_session_trim(a->ssl, a->mtu.payload);
  int result = proceed(a);
  if (dtls_callback_asks(a)) {
    ERR_clear_error();
    return DTLS_ASKED;
  }
  /* One call may do both, take a valid flight and then an alert: only what came after the alert counts. */
  if (a->soft_error.deadline != 0 && SSL_get_state(a->ssl) != a->soft_error.state && result != 1)
    dtls_soft_error_clear(a);
  if (result != 1) {
    dtls_result ended = unfinished(a, result, "handshake", f);
    if (ended != DTLS_CLOSED) return ended;
    dtls_fail(f, "ERR_DTLS_ALERT", "the peer closed the association during the handshake");
    return DTLS_FAILED;
  }
  /* A client's setVerify may have come between the offer of a session and here; a server asks again what it binds to. And libssl
     before 3.2.4, 3.3.3 and 3.4.1 goes on when its client has refused a raw public key (CVE-2024-12797). */
  if (!a->server && !a->open && a->peer.reject && SSL_get_verify_result(a->ssl) != X509_V_OK) {
    dtls_verify_fail(f, a->ssl);
    return DTLS_FAILED;
  }
  if (!a->open) completed(a);
  return DTLS_DONE;
}

/* ── messages ── */

/* SSL_read_ex, but for records without data, which Mbed TLS sends for an empty write. */
static int read_message(dtls_association *a, char message[DTLS_MESSAGE_MAX], size_t *size) {
  int result;
  do {
    begin_call();
    *size = 0;
    result = SSL_read_ex(a->ssl, message, DTLS_MESSAGE_MAX, size);
    if (result != 1) break;
    if (a->input.unread > 0) a->input.unread--;
    if (*size == 0) DTLS_DROP(a, EMPTY);
  } while (*size == 0);
  return result;
}

dtls_result dtls_association_read(dtls_association *a, char message[DTLS_MESSAGE_MAX], size_t *size, bool *more,
                                  dtls_failure *f) {
  if (!is_usable(a, f)) return DTLS_FAILED;
  a->footprint.buffered = true;
  int result = read_message(a, message, size);
  if (result == 1) {
    DTLS_COUNT(a, messages_in, 1);
    *more = a->input.data || dtls_reassembly_pending(a) || dtls_callback_pending(a) || SSL_has_pending(a->ssl);
    return DTLS_DONE;
  }
  a->input.reads_left = DTLS_READS_MAX;
  DTLS_COUNT(a, drops[DTLS_DROP_INVALID], a->input.unread); /* libssl says nothing of what it drops */
  a->input.unread = 0;
  dtls_result ended = unfinished(a, result, "read", f);
  dtls_association_release(a);
  return ended;
}

static bool not_sent(const dtls_association *a, dtls_failure *f) {
  return dtls_fail_system(f, a->output.write_error, "the message was not sent");
}

bool dtls_association_write(dtls_association *a, const char *message, size_t size, bool fragments, bool *fatal,
                            dtls_failure *f) {
  *fatal = false;
  if (dtls_association_is_foreign(a)) return dtls_fail_forked(f);
  if (!a->open) return dtls_fail(f, "ENOTCONN", "the handshake is not complete");
  if (size == 0)
    return dtls_fail(f, "EINVAL", "an empty message cannot be sent: DTLS has no empty records for the application");
  size_t limit = fragments ? dtls_mtu_fragment(a) : a->mtu.message;
  if (size > limit)
    return dtls_fail(f, "EMSGSIZE", "a message of %zu bytes does not fit: the limit is %zu", size, limit);
  begin_call();
  a->output.write_error = 0;
  bool idle = !a->footprint.buffered;
  int written = dtls_footprint_need(a) ? SSL_write(a->ssl, message, (int)size) : -1;
  if (written <= 0) {
    int number = errno;
    *fatal = true;
    /* libssl 3.2 and later have an error of their own for a BIO that failed. */
    return a->output.write_error != 0 ? not_sent(a, f)
                                      : dtls_diagnose(a, SSL_get_error(a->ssl, written), number, "write", f);
  }
  if (idle) dtls_association_release(a);
  if (a->output.write_error != 0) return not_sent(a, f);
  DTLS_COUNT(a, messages_out, 1);
  return true;
}

void dtls_association_shutdown(dtls_association *a) {
  dtls_clear_errors();
  if (a->open && !dtls_association_is_foreign(a) && dtls_footprint_need(a)) SSL_shutdown(a->ssl);
  dtls_clear_errors();
}

bool dtls_association_send_other(dtls_association *a, const char *data, size_t size, dtls_failure *f) {
  if (dtls_association_is_foreign(a)) return dtls_fail_forked(f);
  return dtls_bio_put(a, data, size) || dtls_fail_system(f, errno, "the datagram was not sent");
}

dtls_association *dtls_association_promote(dtls_association *a) {
  dtls_association *old = a->path && a->path->successor == a ? a->path->current : NULL;
  if (old) dtls_path_detach(old);
  return old;
}

/* ── the timer ── */

uint64_t dtls_association_deadline(const dtls_association *a) {
  uint64_t until = UINT64_MAX;
  if (dtls_callback_asks(a)) return until;
  if (a->retransmit.repeat_at != 0) until = a->retransmit.repeat_at;
  return a->soft_error.deadline != 0 && a->soft_error.deadline < until ? a->soft_error.deadline : until;
}

/* What a soft error says when nothing valid has followed. */
static bool soft_error_counts(const dtls_association *a, dtls_failure *f) {
  const dtls_soft_error *e = &a->soft_error;
  return e->alert < 0 ? dtls_fail_system(f, e->number, "no answer from the peer") : dtls_fail_alert(f, e->alert);
}

bool dtls_association_handle_timeout(dtls_association *a, dtls_failure *f) {
  dtls_soft_error *e = &a->soft_error;
  if (dtls_association_is_foreign(a)) return dtls_fail_forked(f);
  bool due = e->deadline != 0 && !a->open && dtls_now() >= e->deadline;
  /* What was in the way may be gone when the flight is repeated; the repetition must have the time to be answered. */
  bool again = due && e->alert < 0 && a->retransmit.repeat_at != 0 && !e->repeated;
  if (due && !again) return soft_error_counts(a, f);
  begin_call();
  long repeated = DTLSv1_handle_timeout(a->ssl);
  if (repeated < 0) return dtls_diagnose_timer(a, errno, f);
  if (repeated == 0) dtls_retransmit_postpone(a);
  if (again) {
    e->repeated = true;
    e->deadline = a->retransmit.repeat_at;
  }
  return true;
}

void dtls_association_set_retransmit(dtls_association *a, unsigned first, unsigned next) {
  a->retransmit.first_timeout = first;
  a->retransmit.next_timeout = next;
  if (a->path && a->counters.datagrams_out == 0) dtls_path_pace(a->path, first); /* it has begun just now */
}
