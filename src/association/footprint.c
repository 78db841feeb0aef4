/*
 * What libssl holds in memory for an association without need, and how it is given back: the record buffers, the write buffer of
 * epoch 0, and what is unused of the handshake buffer. The busy associations of a server keep their record buffers, because to have
 * them anew for each datagram costs time. Decides which ones those are; owns nothing.
 */
#include "association/footprint.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "association/association.h"
#include "association/endpoint.h"
#include "base/clock.h"
#include "base/platform.h"

enum {
  PERIOD = 1000, /* ms */
  FEW = 64,      /* busy associations, whose memory does not matter */
  MOST = 4096    /* which bounds what a server holds that nobody sends anything to any more */
};

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

/* ── the record buffers ── */

static void free_buffers(dtls_association *a) {
  if (a->open && a->footprint.buffered && SSL_free_buffers(a->ssl) == 1) a->footprint.buffered = false;
}

/* ── the busy associations ── */

static void enter(dtls_association *a) {
  dtls_busy *busy = &a->endpoint->busy;
  a->footprint.busy = true;
  a->footprint.before = NULL;
  a->footprint.after = busy->first;
  if (busy->first) busy->first->footprint.before = a;
  busy->first = a;
  busy->count++;
}

static void leave(dtls_association *a) {
  dtls_footprint *f = &a->footprint;
  f->busy = false;
  if (f->before)
    f->before->footprint.after = f->after;
  else
    a->endpoint->busy.first = f->after;
  if (f->after) f->after->footprint.before = f->before;
  a->endpoint->busy.count--;
}

/* Where there are few, all are busy, else those that were used in this period or the last one, and were open then. */
void dtls_footprint_use(dtls_association *a) {
  const dtls_busy *busy = &a->endpoint->busy;
  bool again = a->footprint.used_open && busy->period < a->footprint.idle_from;
  a->footprint.idle_from = busy->period + 2;
  a->footprint.used_open = a->open;
  if (!a->footprint.busy && (busy->count < FEW || (again && busy->count < MOST))) enter(a);
}

void dtls_footprint_look(dtls_endpoint *ep) {
  uint64_t period = dtls_now() / PERIOD;
  if (period == ep->busy.period) return;
  ep->busy.period = period;
  for (dtls_association *a = ep->busy.first, *after; a; a = after) {
    after = a->footprint.after;
    if (period < a->footprint.idle_from) continue;
    leave(a);
    free_buffers(a);
    reduce(a);
  }
}

void dtls_footprint_forget(dtls_association *a) {
  if (a->footprint.busy) leave(a);
}

/* ── use ── */

/* For DTLS, only reading makes the buffers anew: a write without them ends in a NULL pointer inside libssl 3.0. A write that finds
   them is part of a use, of one that has begun with a datagram, or it keeps a busy association busy. */
bool dtls_footprint_need(dtls_association *a) {
  bool lacks = !a->footprint.buffered;
  if (a->endpoint && lacks) dtls_footprint_look(a->endpoint);
  if (a->endpoint && (lacks || a->footprint.busy)) dtls_footprint_use(a);
  if (lacks) a->footprint.buffered = SSL_alloc_buffers(a->ssl) == 1;
  return a->footprint.buffered;
}

/* A client's handshake buffer is filled with zeroes once more when the first message comes. */
void dtls_footprint_idle(dtls_association *a) {
  if (!a->footprint.busy) free_buffers(a);
  if (a->endpoint ? a->endpoint->busy.count >= FEW : a->open) reduce(a);
}
