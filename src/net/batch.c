/*
 * Datagrams in batches, together with the local address that each was sent to. Owns the memory that they are received into.
 */
#include "net/batch.h"

#include <errno.h>
#include <string.h>

#include <openssl/crypto.h>

#include "wire/record.h"

enum { BATCH = 32, CONTROL_SIZE = CMSG_SPACE(sizeof(struct in6_pktinfo)) + CMSG_SPACE(sizeof(struct in_pktinfo)) };

struct dtls_batch {
  struct mmsghdr messages[BATCH];
  struct iovec vectors[BATCH];
  dtls_address peers[BATCH];
  _Alignas(struct cmsghdr) uint8_t control[BATCH][CONTROL_SIZE];
  dtls_address bound;
  unsigned count, next;
  uint8_t bytes[BATCH][DTLS_DATAGRAM_MAX];
};

dtls_batch *dtls_batch_new(void) {
  dtls_batch *batch = OPENSSL_malloc(sizeof *batch); /* not zeroed: most of it is never touched */
  if (!batch) return NULL;
  memset(batch, 0, offsetof(dtls_batch, bytes));
  for (unsigned i = 0; i < BATCH; i++) {
    batch->vectors[i] = (struct iovec){batch->bytes[i], DTLS_DATAGRAM_MAX};
    batch->messages[i].msg_hdr = (struct msghdr){
        .msg_name = &batch->peers[i], .msg_iov = &batch->vectors[i], .msg_iovlen = 1, .msg_control = batch->control[i]};
  }
  return batch;
}

void dtls_batch_free(dtls_batch *batch) { OPENSSL_free(batch); }

/* recvmmsg where there is one; a kernel or a seccomp filter without it gets one recvmsg after the other. */
static int receive_many(int fd, struct mmsghdr *messages) {
  int n = recvmmsg(fd, messages, BATCH, MSG_DONTWAIT | MSG_TRUNC, NULL);
  if (n >= 0 || (errno != ENOSYS && errno != EPERM)) return n;
  for (n = 0; n < BATCH; n++) {
    ssize_t size = recvmsg(fd, &messages[n].msg_hdr, MSG_DONTWAIT | MSG_TRUNC);
    if (size < 0) return n > 0 ? n : -1;
    messages[n].msg_len = (unsigned)size;
  }
  return n;
}

bool dtls_batch_receive(dtls_batch *batch, int fd, const dtls_address *bound) {
  for (unsigned i = 0; i < BATCH; i++) {
    batch->messages[i].msg_hdr.msg_namelen = sizeof batch->peers[i];
    batch->messages[i].msg_hdr.msg_controllen = CONTROL_SIZE;
  }
  int n = receive_many(fd, batch->messages);
  batch->bound = *bound;
  batch->next = 0;
  batch->count = n > 0 ? (unsigned)n : 0;
  return n > 0;
}

/* The address a datagram was sent to, from its control messages; the port is the socket's own. */
static void local_address(struct msghdr *message, const dtls_address *bound, dtls_address *out) {
  *out = *bound;
  for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
    if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO && bound->sa.sa_family == AF_INET) {
      struct in_pktinfo info;
      memcpy(&info, CMSG_DATA(c), sizeof info);
      out->v4.sin_addr = info.ipi_spec_dst; /* ipi_addr would be the group for a multicast hello */
    } else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO && bound->sa.sa_family == AF_INET6) {
      struct in6_pktinfo info;
      memcpy(&info, CMSG_DATA(c), sizeof info);
      out->v6.sin6_addr = info.ipi6_addr;
      out->v6.sin6_scope_id = IN6_IS_ADDR_LINKLOCAL(&info.ipi6_addr) ? info.ipi6_ifindex : 0;
    }
  }
}

bool dtls_batch_pending(const dtls_batch *batch) { return batch->next < batch->count; }

bool dtls_batch_next(dtls_batch *batch, dtls_datagram *out) {
  if (!dtls_batch_pending(batch)) return false;
  unsigned i = batch->next++;
  out->data = batch->bytes[i];
  out->size = batch->messages[i].msg_len;
  out->peer = batch->peers[i];
  local_address(&batch->messages[i].msg_hdr, &batch->bound, &out->local);
  return true;
}
