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

enum {
  BATCH = 32,      /* messages, each of one datagram or of several that the kernel has put together */
  DATAGRAMS = 128, /* so many are enough, whatever else another socket has */
  ROOM = 67000     /* IP carries 65,535 bytes; the rest keeps messages from the same lines of the cache */
};

struct dtls_batch {
  dtls_message messages[BATCH];
  struct iovec vectors[BATCH];
  dtls_address peers[BATCH], locals[BATCH];
  _Alignas(struct cmsghdr) uint8_t control[BATCH][DTLS_CONTROL_IN_MAX];
  size_t segments[BATCH]; /* how long the datagrams of a message are; the last of several may be shorter */
  unsigned count, next;   /* messages */
  size_t at;              /* in the next one */
  unsigned pending;       /* datagrams */
  bool full;              /* nothing more is added; the socket of the last receive may have more */
  uint8_t bytes[BATCH][ROOM];
};

/* The kernel has written how much of their room it has used. */
static void begin(dtls_batch *batch) {
  for (unsigned i = 0; i < batch->count; i++) {
    batch->messages[i].msg_hdr.msg_namelen = sizeof batch->peers[i];
    batch->messages[i].msg_hdr.msg_controllen = DTLS_CONTROL_IN_MAX;
  }
  batch->next = batch->count = 0;
  batch->full = false;
}

dtls_batch *dtls_batch_new(void) {
  dtls_batch *batch = OPENSSL_malloc(sizeof *batch); /* not zeroed: most of it is never touched */
  if (!batch) return NULL;
  memset(batch, 0, offsetof(dtls_batch, bytes));
  batch->count = BATCH;
  for (unsigned i = 0; i < BATCH; i++) {
    batch->vectors[i] = (struct iovec){batch->bytes[i], ROOM};
    batch->messages[i].msg_hdr = (struct msghdr){
        .msg_name = &batch->peers[i], .msg_iov = &batch->vectors[i], .msg_iovlen = 1, .msg_control = batch->control[i]};
  }
  begin(batch);
  return batch;
}

void dtls_batch_free(dtls_batch *batch) { OPENSSL_free(batch); }

/* recvmmsg where there is one, in the kernel, and no seccomp filter forbids it; else one recvmsg. full: there may be more. */
static int receive(dtls_batch *batch, int fd, bool *full) {
  dtls_message *next = batch->messages + batch->count;
#if DTLS_HAS_MMSG
  int n = recvmmsg(fd, next, BATCH - batch->count, MSG_DONTWAIT | MSG_TRUNC, NULL);
  *full = n == (int)(BATCH - batch->count);
  if (n >= 0 || (errno != ENOSYS && errno != EPERM)) return n;
#endif
  ssize_t size = dtls_udp_receive_message(fd, &next->msg_hdr);
  *full = true;
  if (size < 0) return -1;
  next->msg_len = (unsigned)size;
  return 1;
}

/* A message that has come. */
static void add(dtls_batch *batch, const dtls_address *bound) {
  unsigned i = batch->count++;
  size_t size = batch->messages[i].msg_len;
  batch->locals[i] = *bound;
  size_t segment = dtls_control_read(&batch->messages[i].msg_hdr, &batch->locals[i]);
  bool several = segment > 0 && segment < size;
  batch->segments[i] = several ? segment : size;
  batch->pending += several ? (unsigned)((size + segment - 1) / segment) : 1;
}

bool dtls_batch_receive(dtls_batch *batch, int fd, const dtls_address *bound) {
  if (batch->pending == 0) begin(batch);
  bool full;
  int n = receive(batch, fd, &full);
  if (n <= 0) return false;
  for (int i = 0; i < n; i++) add(batch, bound);
  batch->full = full || batch->pending >= DATAGRAMS;
  return true;
}

unsigned dtls_batch_pending(const dtls_batch *batch) { return batch->pending; }

bool dtls_batch_is_full(const dtls_batch *batch) { return batch->full && batch->pending > 0; }

bool dtls_batch_next(dtls_batch *batch, dtls_datagram *out) {
  if (batch->pending == 0) return false;
  unsigned i = batch->next;
  size_t rest = batch->messages[i].msg_len - batch->at;
  bool last = rest <= batch->segments[i];
  *out = (dtls_datagram){.data = batch->bytes[i] + batch->at,
                         .size = last ? rest : batch->segments[i],
                         .local = batch->locals[i],
                         .peer = batch->peers[i]};
  batch->pending--;
  batch->at = last ? 0 : batch->at + batch->segments[i];
  if (last) batch->next++;
  return true;
}
