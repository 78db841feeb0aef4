/*
 * "A ClientHello arrived": it is dropped, answered with a HelloVerifyRequest, or has proved its address. Every new
 * peer of a server passes through dtls_hello_untrusted, whatever the strategy; OpenSSL 4.1's own DTLS listener
 * would slot in there. Keeps no state for a hello that is not verified.
 */
#include "core.h"

#include <string.h>

/* Takes a vector with a length prefix of one or two bytes off the front. */
static bool take_vector(const uint8_t **p, const uint8_t *end, unsigned prefix, const uint8_t **out, size_t *size) {
  if ((size_t)(end - *p) < prefix) return false;
  size_t n = prefix == 1 ? **p : dtls_u16(*p);
  *p += prefix;
  if ((size_t)(end - *p) < n) return false;
  *out = *p;
  *size = n;
  *p += n;
  return true;
}

bool dtls_hello_parse_untrusted(const uint8_t *data, size_t size, dtls_hello *out) {
  enum { CLIENT_HELLO = 1, FIXED = 2 + DTLS_RANDOM_SIZE };
  if (size < DTLS_RECORD_HEADER + DTLS_HANDSHAKE_HEADER + FIXED) return false;
  const uint8_t *message = data + DTLS_RECORD_HEADER, *body = message + DTLS_HANDSHAKE_HEADER;
  size_t record = dtls_record_size(data), fragment = dtls_u24(message + 9);
  if (data[0] != SSL3_RT_HANDSHAKE || data[1] != DTLS1_VERSION_MAJOR || dtls_record_epoch(data) != 0 || record > size) return false;
  if (message[0] != CLIENT_HELLO || dtls_u24(message + 6) != 0) return false; /* only the first fragment carries the cookie */
  if (fragment < FIXED || record != DTLS_RECORD_HEADER + DTLS_HANDSHAKE_HEADER + fragment) return false;
  const uint8_t *p = body + FIXED, *end = body + fragment;
  out->version = body;
  out->random = body + 2;
  return take_vector(&p, end, 1, &out->session, &out->session_size) && take_vector(&p, end, 1, &out->cookie, &out->cookie_size) &&
         take_vector(&p, end, 2, &out->suites, &out->suites_size);
}

/* DTLSv1_listen asks for cookies through the SSL alone; the datagram in hand is the endpoint's. */
static int generate_cookie(SSL *ssl, unsigned char *cookie, unsigned int *size) {
  dtls_endpoint *ep = dtls_association_of(ssl)->endpoint;
  *size = DTLS_COOKIE_SIZE;
  return dtls_cookies_make(ep->cookies, &ep->hand.peer, &ep->hello, cookie);
}

static int verify_cookie(SSL *ssl, const unsigned char *cookie, unsigned int size) {
  dtls_association *a = dtls_association_of(ssl);
  dtls_endpoint *ep = a->endpoint;
  (void)cookie; /* the same bytes as in ep->hello */
  (void)size;
  if (a->path) return 1; /* SSL_accept asks again, perhaps much later; what DTLSv1_listen accepted is good */
  /* DTLSv1_listen takes it with the number of the first hello, too; libssl then waits for this one (RFC 6347 §4.2.2). */
  bool second = dtls_u16(ep->hand.data + DTLS_RECORD_HEADER + 4) == 1;
  bool good = second && dtls_cookies_verify(ep->cookies, &ep->hand.peer, &ep->hello);
  if (good)
    ep->stats.cookies_accepted++;
  else
    ep->stats.cookies_refused++;
  return good;
}

void dtls_hello_callbacks(SSL_CTX *ctx) {
  SSL_CTX_set_cookie_generate_cb(ctx, generate_cookie);
  SSL_CTX_set_cookie_verify_cb(ctx, verify_cookie);
}

bool dtls_hello_untrusted(dtls_endpoint *ep) {
  if (!dtls_hello_parse_untrusted(ep->hand.data, ep->hand.size, &ep->hello)) {
    ep->counters.drops[DTLS_DROP_HELLO]++;
    return false;
  }
  ep->stats.hellos++;
  unsigned revision = dtls_config_of(ep->ctx)->revision;
  if (ep->waiting && ep->waiting_revision != revision) {
    dtls_association_free(ep->waiting); /* a setting of its context has changed */
    ep->waiting = NULL;
  }
  if (!ep->waiting) ep->waiting = dtls_association_new(ep->ctx, ep, ep->fd);
  ep->waiting_revision = revision;
  if (!ep->waiting) {
    ERR_clear_error();
    ep->counters.drops[DTLS_DROP_NOBUFS]++;
    return false;
  }
  dtls_association *a = ep->waiting;
  a->datagram = ep->hand.data;
  a->datagram_size = ep->hand.size;
  ep->answered = false;
  /* 0 says both "answered" and "bad datagram", and -1 is not fatal either: what screen saw leave is what counts. */
  int result = DTLSv1_listen(a->ssl, ep->scratch);
  ERR_clear_error();
  a->datagram = NULL;
  if (result == 1) {
    memcpy(a->random, ep->hello.random, DTLS_RANDOM_SIZE);
    return true;
  }
  if (ep->answered) ep->stats.cookies_sent++;
  return false;
}
