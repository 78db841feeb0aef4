/*
 * What libssl holds in memory for an association without need, and how it is given back: the record buffers, the write buffer of
 * epoch 0, and what is unused of the handshake buffer. The busy associations of a server keep it all, because to have it anew for
 * each datagram costs time. Decides which ones those are; owns nothing.
 */
#include "association/footprint.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "association/association.h"
#include "association/endpoint.h"
#include "base/clock.h"
#include "base/platform.h"

enum { IDLE_TIME = 1000 }; /* ms */

/* ── the write buffer of epoch 0 ── */

/*
 * As long as the last flight may have to be repeated, libssl keeps the record layer that wrote its plaintext messages. From
 * OpenSSL 3.2 on this layer has a write buffer of its own, 16 KB, which SSL_free_buffers does not reach. A record layer follows
 * the mode that the SSL had when the layer was made, and those of epoch 0 are made in the first call. Those that come later carry
 * the messages of the application, and would make a buffer for each.
 */
static int begin(SSL *ssl) {
  SSL_set_mode(ssl, SSL_MODE_RELEASE_BUFFERS);
  int result = SSL_do_handshake(ssl);
  SSL_clear_mode(ssl, SSL_MODE_RELEASE_BUFFERS);
  return result;
}

int dtls_footprint_handshake(dtls_association *a) {
  bool begins = SSL_in_before(a->ssl) && ((unsigned long)SSL_get_mode(a->ssl) & SSL_MODE_RELEASE_BUFFERS) == 0;
  int result = begins ? begin(a->ssl) : SSL_do_handshake(a->ssl);
  /* libssl may have moved the buffer, and failed before it could show the message that it had moved it for. */
  if (result != 1 && SSL_get_error(a->ssl, result) != SSL_ERROR_WANT_READ) a->footprint.handshake_buffer = NULL;
  return result;
}

/* ── the handshake buffer ── */

static size_t capacity; /* of a handshake buffer; 0: not known */
static CRYPTO_ONCE capacity_once = CRYPTO_ONCE_STATIC_INIT;

/* As libssl makes one (state_machine of ssl/statem/statem.c), which was looked up in OpenSSL 3.0, 3.5 and 4.0. */
static void find_capacity(void) {
  BUF_MEM *buffer = OpenSSL_version_num() < 0x40100000L ? BUF_MEM_new() : NULL;
  if (buffer && BUF_MEM_grow(buffer, SSL3_RT_MAX_PLAIN_LENGTH) != 0) capacity = buffer->max;
  BUF_MEM_free(buffer);
}

void dtls_footprint_message(dtls_association *a, const void *message) { a->footprint.handshake_buffer = message; }

static void give_pages_back(const uint8_t *pages, size_t size) {
#if DTLS_HAS_ZERO_PAGES
  (void)madvise((void *)(uintptr_t)pages, size, MADV_DONTNEED);
#else
  (void)pages, (void)size;
#endif
}

static bool is_zero(const uint8_t *data, size_t size) {
  return size == 0 || (data[0] == 0 && memcmp(data, data + 1, size - 1) == 0);
}

/*
 * libssl has every message of a handshake at the beginning of one buffer, which it keeps as long as the SSL. It has filled WRITTEN
 * bytes of the buffer with zeroes, and does so again with all that is behind a message that it reads; what is behind WRITTEN is
 * only touched by a message that long. The pages of zeroes at the end are given back to the kernel. Whoever touches them again
 * gets pages of zeroes: for libssl nothing has changed, whatever it does with the buffer later.
 *
 * The buffer is where the last message was shown. libssl takes a longer one only for a longer message, which it shows before it
 * waits for the next; and there is none of more than 18 KB behind ChangeCipherSpec (reassembly.c, settle_cipher).
 */
static void reduce(dtls_association *a) {
  enum { WRITTEN = SSL3_RT_MAX_PLAIN_LENGTH };
  const uint8_t *buffer = a->footprint.handshake_buffer;
  if (!buffer || a->footprint.reduced || !CRYPTO_THREAD_run_once(&capacity_once, find_capacity)) return;
  a->footprint.reduced = true;
  size_t page = (size_t)sysconf(_SC_PAGESIZE), first = (page - (uintptr_t)buffer % page) % page;
  size_t end = capacity < first ? first : first + (capacity - first) / page * page, from = end;
  while (from > first) {
    size_t next = from - page, written = next < WRITTEN ? WRITTEN - next : 0;
    if (!is_zero(buffer + next, written < page ? written : page)) break;
    from = next;
  }
  if (from < WRITTEN && from < end) give_pages_back(buffer + from, end - from);
}

/* ── who keeps what ── */

/* A client's handshake buffer is filled with zeroes once more when the first message comes. */
static void give_back(dtls_association *a) {
  if (a->open && a->footprint.buffered && SSL_free_buffers(a->ssl) == 1) a->footprint.buffered = false;
  if (a->open || a->server) reduce(a);
}

static uint64_t bit_of(const dtls_association *a) { return UINT64_C(1) << (a->footprint.place - 1); }

static void leave_place(dtls_association *a) {
  dtls_places *p = &a->endpoint->places;
  p->taken &= ~bit_of(a);
  p->used &= ~bit_of(a);
  p->busy[a->footprint.place - 1] = NULL;
  a->footprint.place = 0;
}

/* Where all places are taken, others do without: to take turns would only bring back memory that no cache holds any more. */
static bool take_place(dtls_association *a) {
  dtls_places *p = &a->endpoint->places;
  unsigned i = 0;
  if (p->taken == UINT64_MAX) return false;
  while (p->taken >> i & 1) i++;
  p->busy[i] = a;
  a->footprint.place = i + 1;
  p->taken |= bit_of(a);
  return true;
}

void dtls_footprint_idle(dtls_association *a) {
  bool keeps = a->footprint.place != 0 || (a->endpoint && take_place(a));
  if (keeps)
    a->endpoint->places.used |= bit_of(a);
  else
    give_back(a);
}

void dtls_footprint_look(dtls_endpoint *ep) {
  dtls_places *p = &ep->places;
  uint64_t now, idle = p->taken & ~p->used;
  if (p->taken == 0 || (now = dtls_now()) < p->next_look) return;
  p->next_look = now + IDLE_TIME;
  p->used = 0;
  for (unsigned i = 0; i < DTLS_PLACES; i++) {
    dtls_association *a = idle >> i & 1 ? p->busy[i] : NULL;
    if (!a) continue;
    leave_place(a);
    give_back(a);
  }
}

/* For DTLS, only reading makes the buffers anew: a write without them ends in a NULL pointer inside libssl 3.0. */
bool dtls_footprint_need(dtls_association *a) {
  if (a->footprint.place != 0) a->endpoint->places.used |= bit_of(a);
  if (!a->footprint.buffered) a->footprint.buffered = SSL_alloc_buffers(a->ssl) == 1;
  return a->footprint.buffered;
}

void dtls_footprint_forget(dtls_association *a) {
  if (a->footprint.place != 0) leave_place(a);
}
