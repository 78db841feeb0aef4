/*
 * When a flight is repeated (RFC 6347 §4.2.4.1), on the monotonic clock: libssl's own timer runs on the wall clock, which
 * may be set. Forward, a flight is repeated once too early. Back, libssl repeats nothing until its time has come again, and
 * nothing can tell it to: such a handshake gets through without a loss, or ends at its deadline.
 *
 * And what a flight without an answer says about the MTU (RFC 6347 §4.1.1.1).
 */
#include "association/retransmit.h"

#include <sys/time.h>

#include "association/association.h"
#include "association/endpoint.h"
#include "base/clock.h"

/*
 * A slow round trip outlasts two timeouts as well: at first 1 + 2 s. The third one comes after 7 s, so that the flights of
 * both sides, one after the other, still find a small path within the default deadline of a handshake, 30 s.
 */
enum { TIMEOUTS_BEFORE_FALLBACK = 3 };

/* Not an answer but a datagram longer than the fall-back must be what was lost: a short one passes every path. */
static void reconsider_mtu(dtls_association *a) {
  /* libssl falls back only when it may query the MTU, which for an unconnected or loopback socket is worthless. */
  size_t fallback = (size_t)BIO_ctrl(a->dgram, BIO_CTRL_DGRAM_GET_FALLBACK_MTU, 0, NULL);
  a->retransmit.timeouts++;
  if (a->retransmit.timeouts < TIMEOUTS_BEFORE_FALLBACK || a->retransmit.answered ||
      a->retransmit.longest <= fallback || a->mtu.payload <= fallback)
    return;
  dtls_mtu_use(a, fallback);
}

/* The flight has had no answer for an interval. */
static void lengthen(dtls_association *a) {
  unsigned doubled = a->retransmit.interval < DTLS_TIMEOUT_MAX / 2 ? a->retransmit.interval * 2 : DTLS_TIMEOUT_MAX;
  a->retransmit.interval = a->retransmit.next_timeout ? a->retransmit.next_timeout : doubled;
  a->retransmit.next_timeout = 0;
  DTLS_COUNT(a, retransmits, 1);
  a->handshake.repeating = true;
  if (a->path && !a->output.silent) dtls_path_pace(a->path, a->retransmit.first_timeout);
  reconsider_mtu(a);
}

/* libssl asks here for the next interval, with 0 for the first one of a flight. */
static unsigned int next_interval(SSL *ssl, unsigned int last_us) {
  dtls_association *a = dtls_association_of(ssl);
  if (last_us == 0) { /* after an answer, which may have been a HelloVerifyRequest */
    a->retransmit.interval = a->retransmit.first_timeout;
    a->retransmit.timeouts = 0;
    a->retransmit.longest = 0;
    a->retransmit.answered = false;
    dtls_soft_error_clear(a);
  } else {
    lengthen(a);
  }
  return a->retransmit.interval * 1000;
}

void dtls_retransmit_watch(dtls_association *a) { DTLS_set_timer_cb(a->ssl, next_interval); }

void dtls_retransmit_set(dtls_association *a, const void *until) {
  const struct timeval *wall = until;
  a->retransmit.repeat_at = wall->tv_sec != 0 || wall->tv_usec != 0 ? dtls_now() + a->retransmit.interval : 0;
}

void dtls_retransmit_postpone(dtls_association *a) {
  struct timeval left;
  uint64_t now = dtls_now();
  if (a->retransmit.repeat_at == 0 || now < a->retransmit.repeat_at || DTLSv1_get_timeout(a->ssl, &left) != 1) return;
  uint64_t ms = (uint64_t)left.tv_sec * 1000 + ((uint64_t)left.tv_usec + 999) / 1000;
  a->retransmit.repeat_at = now + (ms < a->retransmit.interval ? ms : a->retransmit.interval);
}
