/*
 * Datagrams in batches, together with the local address that each was sent to. Owns the memory that they are received into.
 */
#include "net/batch.h"

#include <errno.h>
#include <string.h>

#include <openssl/crypto.h>

#include "net/control.h"
#include "net/socket.h"
#include "wire/record.h"

enum { BATCH = 32 };

struct dtls_batch {
  dtls_message messages[BATCH];
  struct iovec vectors[BATCH];
  dtls_address peers[BATCH], bound[BATCH];
  _Alignas(struct cmsghdr) uint8_t control[BATCH][DTLS_CONTROL_IN_MAX];
  unsigned count, next;
  int error; /* came behind the datagrams of the last receive, and is for the next one of that socket to report; 0: none */
  int error_of; /* the socket */
  uint8_t bytes[BATCH][DTLS_DATAGRAM_MAX];
};

/* The kernel has written how much of their room it has used. */
static void begin(dtls_batch *batch) {
  for (unsigned i = 0; i < batch->count; i++) {
    batch->messages[i].msg_hdr.msg_namelen = sizeof batch->peers[i];
    batch->messages[i].msg_hdr.msg_controllen = DTLS_CONTROL_IN_MAX;
  }
  batch->next = batch->count = 0;
}

dtls_batch *dtls_batch_new(void) {
  dtls_batch *batch = OPENSSL_malloc(sizeof *batch); /* not zeroed: most of it is never touched */
  if (!batch) return NULL;
  memset(batch, 0, offsetof(dtls_batch, bytes));
  batch->next = batch->count = BATCH;
  for (unsigned i = 0; i < BATCH; i++) {
    batch->vectors[i] = (struct iovec){batch->bytes[i], DTLS_DATAGRAM_MAX};
    batch->messages[i].msg_hdr = (struct msghdr){
        .msg_name = &batch->peers[i], .msg_iov = &batch->vectors[i], .msg_iovlen = 1, .msg_control = batch->control[i]};
  }
  begin(batch);
  return batch;
}

void dtls_batch_free(dtls_batch *batch) { OPENSSL_free(batch); }

/* One recvmsg after the other. What fails behind a datagram is kept for the next time, as recvmmsg does it. */
static int receive_each(dtls_batch *batch, int fd, unsigned from) {
  int error = batch->error;
  unsigned i = from;
  batch->error = 0;
  if (error != 0 && batch->error_of == fd) {
    errno = error;
    return -1;
  }
  for (; i < BATCH; i++) {
    ssize_t size = dtls_udp_receive_message(fd, &batch->messages[i].msg_hdr);
    if (size < 0) break;
    batch->messages[i].msg_len = (unsigned)size;
  }
  if (i == from) return -1;
  if (i < BATCH && errno != EAGAIN) batch->error = errno;
  batch->error_of = fd;
  return (int)(i - from);
}

/* recvmmsg where there is one, in the kernel, and no seccomp filter forbids it. */
static int receive_many(dtls_batch *batch, int fd, unsigned from) {
#if DTLS_HAS_MMSG
  int n = recvmmsg(fd, batch->messages + from, BATCH - from, MSG_DONTWAIT | MSG_TRUNC, NULL);
  if (n >= 0 || (errno != ENOSYS && errno != EPERM)) return n;
#endif
  return receive_each(batch, fd, from);
}

bool dtls_batch_receive(dtls_batch *batch, int fd, const dtls_address *bound) {
  if (dtls_batch_pending(batch) == 0) begin(batch);
  unsigned from = batch->count;
  int n = receive_many(batch, fd, from);
  if (n <= 0) return false;
  batch->count += (unsigned)n;
  for (unsigned i = from; i < batch->count; i++) batch->bound[i] = *bound;
  return true;
}

unsigned dtls_batch_pending(const dtls_batch *batch) { return batch->count - batch->next; }

bool dtls_batch_is_full(const dtls_batch *batch) { return batch->count == BATCH && dtls_batch_pending(batch) > 0; }

bool dtls_batch_next(dtls_batch *batch, dtls_datagram *out) {
  if (dtls_batch_pending(batch) == 0) return false;
  unsigned i = batch->next++;
  out->data = batch->bytes[i];
  out->size = batch->messages[i].msg_len;
  out->peer = batch->peers[i];
  dtls_control_local(&batch->messages[i].msg_hdr, &batch->bound[i], &out->local);
  return true;
}
