/*
 * The filter BIO between libssl and the datagram BIO. Reads: a datagram handed in first, else the socket; libssl gets what the
 * record filter and the reassembly let through. Writes: datagrams are kept within the MTU, and a socket error never ends an
 * association. Owns nothing.
 */
#include "association/bio.h"

#include <errno.h>
#include <string.h>
#include <sys/types.h>

#include "association/association.h"
#include "association/callbacks.h"
#include "association/deferral.h"
#include "association/endpoint.h"
#include "association/record_filter.h"
#include "association/retransmit.h"

/* ── what a failed system call means ── */

/* The socket itself is beyond use. All else is the network's: ICMP alone can bring EACCES, ENONET and a dozen more. */
bool dtls_socket_is_final(int number) {
  switch (number) {
    case EBADF:
    case ENOTSOCK:
    case EFAULT:
    case EOPNOTSUPP:
    case ENOTCONN:
    case EDESTADDRREQ: return true;
    default: return false;
  }
}

dtls_drop dtls_socket_drop_reason(int number) {
  switch (number) {
    case EAGAIN:
    case EINTR: return DTLS_DROP_AGAIN;
    case ENOBUFS:
    case ENOMEM: return DTLS_DROP_NOBUFS;
    case EMSGSIZE: return DTLS_DROP_MSGSIZE;
    case ECONNREFUSED: return DTLS_DROP_REFUSED;
    default: return DTLS_DROP_UNREACHABLE;
  }
}

/* ── numbers of records of epoch 0 ── */

static void set_number(uint8_t *record, uint64_t number) {
  for (int i = 0; i < 6; i++) record[5 + i] = (uint8_t)(number >> (8 * (5 - i)));
}

/*
 * Records of epoch 0 get numbers of our own, behind the hello's. Anybody can send one with a number so high that libssl
 * would take all genuine ones after it for replays; which messages are new it knows by their own message_seq.
 */
static void renumber(dtls_association *a, uint8_t *record) {
  if (dtls_record_epoch(record) != 0) return;
  set_number(record, ++a->input.epoch0_number);
}

/* ── reading ── */

/* An ICMP message that the kernel reports is a hint and nothing more: whoever guesses two ports can send one. */
void dtls_bio_failed(dtls_association *a, int number) {
  dtls_drop reason = dtls_socket_drop_reason(number);
  DTLS_COUNT(a, drops[reason], 1);
  if (reason == DTLS_DROP_MSGSIZE) dtls_mtu_learn(a);
  if (!a->open && (reason == DTLS_DROP_REFUSED || reason == DTLS_DROP_UNREACHABLE)) dtls_soft_error_note(a, -1, number);
}

/* The datagram that was handed in. */
static int take_handed_in(dtls_association *a, uint8_t *out, size_t capacity) {
  size_t size = a->input.size < capacity ? a->input.size : capacity;
  memcpy(out, a->input.data, size);
  a->input.data = NULL;
  if (size == 0) DTLS_DROP(a, EMPTY);
  return (int)size;
}

/* One read of a client's socket: the size of a datagram that is for it; 0: what came is not; -1: nothing came (errno says why). */
static int take_from_socket(dtls_association *a, uint8_t *out, size_t capacity) {
  dtls_address sender;
  ssize_t size = dtls_udp_receive(a->path->fd, out, capacity, &sender);
  if (size < 0) return -1;
  if (!dtls_address_equal(&sender, &a->path->peer)) {
    DTLS_DROP(a, STRANGER); /* the kernel may queue a datagram that came before the socket was connected */
    return 0;
  }
  dtls_association_count_in(a, (size_t)size);
  if ((size_t)size > capacity) { /* it is longer than any record, and has been cut */
    DTLS_DROP(a, LENGTH);
    return 0;
  }
  if (size == 0) DTLS_DROP(a, EMPTY);
  if (!a->others.wanted || !dtls_multiplex_is_other_untrusted(out, (size_t)size)) return (int)size;
  dtls_multiplex_keep(a, out, (size_t)size);
  return 0;
}

/* The next datagram that is for it: its size; 0: there is none, or none for this call; -1: the socket is beyond use. */
static int receive(dtls_association *a, uint8_t *out, size_t capacity) {
  if (dtls_callback_pending(a)) return (int)dtls_callback_next(a, out, capacity);
  int size = a->input.data ? take_handed_in(a, out, capacity) : 0;
  while (size <= 0 && !a->server && a->path && a->input.reads_left > 0) {
    a->input.reads_left--;
    size = take_from_socket(a, out, capacity);
    if (size >= 0) continue;
    if (errno == EAGAIN) return 0;
    if (dtls_socket_is_final(errno)) return -1;
    dtls_bio_failed(a, errno); /* the kernel reports it once; datagrams may wait behind it */
  }
  if (size <= 0 && a->input.socket_error != 0) {
    errno = a->input.socket_error;
    return -1;
  }
  return size > 0 ? size : 0;
}

/* A hello to answer, or an open association: what is left of a datagram when the record filter has looked at it. */
static int read_datagram(dtls_association *a, uint8_t *out, size_t capacity) {
  int size;
  do {
    size = (int)dtls_reassembly_rest(a, out, capacity);
    if (size == 0) size = receive(a, out, capacity);
    if (size <= 0) return size;
    size = (int)dtls_filter_datagram_untrusted(a, out, (size_t)size);
  } while (size == 0);
  return size;
}

/* A handshake: one record whose turn it is. New ones come before those that wait. */
static int read_record(dtls_association *a, uint8_t *out, size_t capacity) {
  int size = 0;
  while (!dtls_callback_asks(a)) {
    size = (int)dtls_reassembly_next_untrusted(a, out, capacity);
    if (size > 0 || dtls_callback_asks(a)) break;
    size = receive(a, out, capacity);
    if (size < 0) return -1;
    if (size == 0) {
      size = (int)dtls_reassembly_waiting_untrusted(a, out, capacity);
      break;
    }
    if (!dtls_reassembly_take(a, out, (size_t)size)) DTLS_DROP(a, QUEUE);
  }
  if (size > 0) renumber(a, out);
  return size;
}

static int bio_read(BIO *bio, char *out, int capacity) {
  dtls_association *a = BIO_get_data(bio);
  bool whole = a->open || !a->path;
  /* what is longer is cut, and dropped */
  size_t room = capacity < DTLS_DATAGRAM_MAX ? (size_t)capacity : DTLS_DATAGRAM_MAX;
  BIO_clear_retry_flags(bio);
  int size = whole ? read_datagram(a, (uint8_t *)out, room) : read_record(a, (uint8_t *)out, room);
  if (size > 0) return size;
  if (size == 0) BIO_set_retry_read(bio);
  return -1;
}

void dtls_bio_collect(dtls_association *a) {
  uint8_t data[DTLS_DATAGRAM_MAX];
  int size;
  while ((size = receive(a, data, sizeof data)) > 0) {
    size = (int)dtls_filter_datagram_untrusted(a, data, (size_t)size);
    if (size > 0) dtls_callback_keep(a, data, (size_t)size);
  }
}

/* ── writing ── */

static ssize_t put(dtls_association *a, const char *data, size_t size) {
  dtls_endpoint *ep = a->endpoint;
  if (a->path && a->path->fd >= 0) return BIO_write(a->dgram, data, (int)size);
  if (!ep || ep->fd < 0) {
    errno = EBADF;
    return -1;
  }
  if (a->path) return dtls_udp_send(ep->fd, &a->path->local, &a->path->peer, data, size);
  errno = ENOTCONN; /* displaced: its peer is another one's now */
  return -1;
}

/* What ICMP brought is about an earlier datagram; reporting it has cleared it, and this one has not been sent. */
static ssize_t put_again(dtls_association *a, const char *data, size_t size, int *earlier) {
  ssize_t sent = put(a, data, size);
  *earlier = 0;
  if (sent >= 0 || (errno != ECONNREFUSED && errno != EMSGSIZE)) return sent;
  *earlier = errno;
  dtls_bio_failed(a, errno);
  return put(a, data, size);
}

/* One datagram, now or at the end of the turn. False: it did not leave, errno says why; earlier: ICMP had said so before. */
static bool depart(dtls_association *a, const char *data, size_t size, int *earlier) {
  *earlier = 0;
  if (dtls_deferral_take(a, data, size)) return true;
  if (dtls_deferral_holds(a)) {
    errno = EAGAIN; /* what is sent now would come before it */
    return false;
  }
  if (put_again(a, data, size, earlier) < 0) return false;
  dtls_association_count_out(a, size);
  return true;
}

bool dtls_bio_put(dtls_association *a, const char *data, size_t size) {
  int earlier;
  return depart(a, data, size, &earlier);
}

/* One datagram of libssl's. False only when the socket itself is beyond use. */
static bool send_datagram(dtls_association *a, const char *data, size_t size) {
  int earlier;
  bool departed = depart(a, data, size, &earlier);
  /* retransmit.c: it may be too long for the path */
  if ((departed || errno == EMSGSIZE) && size > a->retransmit.longest) a->retransmit.longest = size;
  if (departed) return true;
  if (errno == EINVAL) errno = EADDRNOTAVAIL; /* the local address is gone */
  a->output.write_error = errno;
  if (dtls_socket_is_final(errno)) return false;
  if (errno != earlier) dtls_bio_failed(a, errno);
  return true;
}

/* libssl forgets the nonce and tag of Finished when it fills a flight: cut at record boundaries what is too long. */
static size_t within_mtu(const dtls_association *a, const char *data, size_t size) {
  const uint8_t *bytes = (const uint8_t *)data;
  size_t end = 0;
  while (size - end >= DTLS_RECORD_HEADER) {
    size_t record = dtls_record_size(bytes + end);
    if (end > 0 && end + record > a->mtu.payload) return end;
    end += record;
    if (end >= size) break;
  }
  return size;
}

/* An open association writes a Finished only to repeat it. */
static void count_finished(dtls_association *a, const char *data, size_t size) {
  const uint8_t *bytes = (const uint8_t *)data;
  for (size_t at = 0; size - at >= DTLS_RECORD_HEADER; at += dtls_record_size(bytes + at)) {
    if (bytes[at] == SSL3_RT_HANDSHAKE && dtls_record_epoch(bytes + at) != 0) a->handshake.repeated_finished++;
    if (dtls_record_size(bytes + at) > size - at) return;
  }
}

/* RFC 6347 §4.2.1: a server's records go on from the number of the hello's, and not from libssl's own. */
static void shift_numbers(const dtls_association *a, uint8_t *data, size_t size) {
  for (size_t at = 0; size - at >= DTLS_RECORD_HEADER; at += dtls_record_size(data + at)) {
    if (dtls_record_epoch(data + at) == 0)
      set_number(data + at, dtls_record_number(data + at) + a->output.epoch0_shift);
    if (dtls_record_size(data + at) > size - at) return;
  }
}

static int write_datagrams(dtls_association *a, const char *data, size_t size) {
  for (size_t at = 0, part; at < size; at += part) {
    part = size - at > a->mtu.payload ? within_mtu(a, data + at, size - at) : size - at;
    if (!send_datagram(a, data + at, part)) return -1;
  }
  return (int)size;
}

static int write_shifted(dtls_association *a, const char *data, size_t size) {
  uint8_t shifted[DTLS_DATAGRAM_MAX];
  if (size > sizeof shifted) return write_datagrams(a, data, size);
  memcpy(shifted, data, size);
  shift_numbers(a, shifted, size);
  return write_datagrams(a, (const char *)shifted, size);
}

static int bio_write(BIO *bio, const char *data, int size) {
  dtls_association *a = BIO_get_data(bio);
  BIO_clear_retry_flags(bio);
  if (a->output.rehearses || a->output.silent) return size;
  if (data[0] == SSL3_RT_APPLICATION_DATA) return write_datagrams(a, data, (size_t)size);
  if (a->open) count_finished(a, data, (size_t)size);
  return a->output.epoch0_shift != 0 ? write_shifted(a, data, (size_t)size) : write_datagrams(a, data, (size_t)size);
}

/* ── the BIO method ── */

static long bio_ctrl(BIO *bio, int command, long number, void *pointer) {
  switch (command) {
    case BIO_CTRL_FLUSH: return 1;
    /* Asked for every record. The dgram BIO would say the same: the kernel protects none, and nothing is kept back. */
    case BIO_CTRL_GET_KTLS_SEND:
    case BIO_CTRL_GET_KTLS_RECV:
    case BIO_CTRL_WPENDING: return 0;
    /* asked twice for every message of a handshake */
    case BIO_CTRL_DGRAM_GET_MTU_OVERHEAD: return ((dtls_association *)BIO_get_data(bio))->mtu.overhead;
    /* The dgram BIO would spend three system calls per read on a timeout that a non-blocking socket ignores. */
    case BIO_CTRL_DGRAM_SET_NEXT_TIMEOUT: dtls_retransmit_set(BIO_get_data(bio), pointer); return 1;
    default: return BIO_next(bio) ? BIO_ctrl(BIO_next(bio), command, number, pointer) : 0;
  }
}

static BIO_METHOD *method;
static CRYPTO_ONCE method_once = CRYPTO_ONCE_STATIC_INIT;

static void make_method(void) {
  method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_FILTER, "DTLS record filter");
  if (method && (!BIO_meth_set_read(method, bio_read) || !BIO_meth_set_write(method, bio_write) ||
                 !BIO_meth_set_ctrl(method, bio_ctrl))) {
    BIO_meth_free(method);
    method = NULL;
  }
}

BIO *dtls_bio_new(dtls_association *a) {
  if (!CRYPTO_THREAD_run_once(&method_once, make_method) || !method) return NULL;
  BIO *bio = BIO_new(method);
  if (!bio) return NULL;
  BIO_set_data(bio, a);
  BIO_set_init(bio, 1);
  return bio;
}
