/*
 * "A ClientHello arrived": it is dropped, answered with a HelloVerifyRequest, or has proved its address. Every new
 * peer of a server passes through dtls_listener_hear_untrusted, whatever the strategy; libssl sees verified hellos alone. Keeps no
 * state for a hello that is not verified.
 */
#include "association/listener.h"

#include <errno.h>
#include <string.h>

#include "association/association.h"
#include "association/cookie.h"
#include "association/endpoint.h"

/* ── what a hello gets ── */

/*
 * RFC 6347 §4.2.1: the record and the message have the numbers of the hello's. A client that has been asked before (its
 * cookie was made with a secret that is gone) would take the numbers of the first request for a replay. The version is
 * DTLS 1.0's, whatever comes later.
 */
static void answer(dtls_endpoint *ep, const dtls_hello *hello, uint16_t generation) {
  enum { MESSAGE = 2 + 1 + DTLS_COOKIE_SIZE, RECORD = DTLS_HANDSHAKE_HEADER + MESSAGE };
  uint8_t request[DTLS_RECORD_HEADER + RECORD] = {
      SSL3_RT_HANDSHAKE, 0xfe,           0xff,        [12] = RECORD, [13] = DTLS1_MT_HELLO_VERIFY_REQUEST,
      [16] = MESSAGE,    [24] = MESSAGE, [25] = 0xfe, [26] = 0xff,   [27] = DTLS_COOKIE_SIZE};
  memcpy(request + 5, ep->current.datagram.data + 5, 6);
  memcpy(request + DTLS_RECORD_HEADER + 4, ep->current.datagram.data + DTLS_RECORD_HEADER + 4, 2);
  if (!dtls_cookies_make(ep->cookies, &ep->current.datagram.peer, hello, generation,
                         request + sizeof request - DTLS_COOKIE_SIZE)) {
    ERR_clear_error();
    ep->counters.drops[DTLS_DROP_NOBUFS]++;
    return;
  }
  if (dtls_udp_send(ep->fd, &ep->current.datagram.local, &ep->current.datagram.peer, request, sizeof request) < 0) {
    ep->counters.drops[dtls_socket_drop_reason(errno)]++;
    return;
  }
  dtls_count_out(&ep->counters, sizeof request);
  ep->stats.cookies_sent++;
}

/*
 * A device without entropy reboots with the random that it had, and then has the same cookie. So that its hello is not taken
 * for the network's replay of the one that made the open association, nor that for a reboot, each association's cookies are
 * of another generation than those of the one before it.
 */
static uint16_t generation_untrusted(const dtls_path *path, const dtls_hello *hello) {
  const dtls_association *before = path ? dtls_path_of_random(path, hello->random) : NULL;
  return before ? (uint16_t)(before->origin.cookie_generation + before->open) : 0;
}

static bool is_replay_untrusted(dtls_endpoint *ep, const dtls_path *path, const dtls_hello *hello,
                                uint16_t generation) {
  if (generation == 0 ||
      !dtls_cookies_verify(ep->cookies, &ep->current.datagram.peer, hello, (uint16_t)(generation - 1)))
    return false;
  DTLS_DROP(path->current, REPLAY);
  return true;
}

bool dtls_listener_hear_untrusted(dtls_endpoint *ep, const dtls_path *path) {
  dtls_hello hello;
  if (!dtls_hello_parse_untrusted(ep->current.datagram.data, ep->current.datagram.size, &hello)) {
    ep->counters.drops[DTLS_DROP_HELLO]++;
    return false;
  }
  uint16_t generation = generation_untrusted(path, &hello);
  ep->stats.hellos++;
  if (hello.cookie_size > 0) {
    if (is_replay_untrusted(ep, path, &hello, generation)) return false;
    bool again = hello.message_seq > 0 && hello.message_seq < DTLS_HELLOS_MAX; /* RFC 6347 §4.2.2: the first one is 0 */
    if (again && dtls_cookies_verify(ep->cookies, &ep->current.datagram.peer, &hello, generation)) {
      ep->stats.cookies_accepted++;
      return true;
    }
    ep->stats.cookies_refused++;
  }
  answer(ep, &hello, generation);
  return false;
}

/* ── what libssl gets ── */

/* The hello before it, as far as libssl needs it: whatever it says, a HelloVerifyRequest follows and it is forgotten. */
static void rehearse(dtls_association *a, uint16_t message_seq) {
  enum { BODY = 2 + DTLS_RANDOM_SIZE + 1 + 1 + 2 + 2 + 2, RECORD = DTLS_HANDSHAKE_HEADER + BODY };
  uint8_t hello[DTLS_RECORD_HEADER + RECORD] = {SSL3_RT_HANDSHAKE,
                                                0xfe,
                                                0xff,
                                                [10] = (uint8_t)message_seq,
                                                [12] = RECORD,
                                                [13] = SSL3_MT_CLIENT_HELLO,
                                                [16] = BODY,
                                                [18] = (uint8_t)message_seq,
                                                [24] = BODY,
                                                [25] = 0xfe,
                                                [26] = 0xfd,
                                                [62] = 2,
                                                [64] = 0xff,
                                                [65] = 1};
  a->input.data = hello;
  a->input.size = sizeof hello;
  dtls_footprint_handshake(a);
  a->input.data = NULL;
}

/*
 * The cookie exchange was ours, and libssl has not seen it. It must know how many messages there were, and that the last
 * hello is the one that Finished covers: it goes through the exchange by itself, and what it answers is not sent. (With
 * DTLSv1_listen it would take the second hello and no other, and it numbers its records 0 in OpenSSL 3.2 and later.)
 */
bool dtls_listener_begin_untrusted(dtls_association *a, const dtls_path *path, const uint8_t *data, size_t size) {
  dtls_hello hello;
  if (!dtls_hello_parse_untrusted(data, size, &hello)) return false;
  SSL_set_options(a->ssl, SSL_OP_COOKIE_EXCHANGE);
  a->output.rehearses = true;
  for (uint16_t seq = 0; seq < hello.message_seq; seq++) rehearse(a, seq);
  a->output.rehearses = false;
  dtls_clear_errors();
  if (a->handshake.next_seq != hello.message_seq || !a->handshake.last.written ||
      a->handshake.last.type != DTLS1_MT_HELLO_VERIFY_REQUEST)
    return false;
  memcpy(a->origin.random, hello.random, DTLS_RANDOM_SIZE);
  a->origin.cookie_generation = path->current ? generation_untrusted(path, &hello) : 0;
  a->input.epoch0_number = hello.message_seq - 1u;
  a->output.epoch0_shift = dtls_record_number(data) - hello.message_seq;
  return true;
}

static int make_cookie(SSL *ssl, unsigned char *cookie, unsigned int *size) {
  (void)ssl;
  memset(cookie, 0, DTLS_COOKIE_SIZE); /* it is not sent */
  *size = DTLS_COOKIE_SIZE;
  return 1;
}

/* libssl asks during the exchange that it goes through by itself: dtls_listener_hear_untrusted has verified the genuine cookie. */
static int take_cookie(SSL *ssl, const unsigned char *cookie, unsigned int size) {
  (void)ssl, (void)cookie, (void)size;
  return 1;
}

void dtls_listener_prepare(SSL_CTX *ctx) {
  SSL_CTX_set_cookie_generate_cb(ctx, make_cookie);
  SSL_CTX_set_cookie_verify_cb(ctx, take_cookie);
}
