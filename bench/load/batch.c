#include "batch.h"

#include <netinet/in.h>
#include <netinet/udp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif

enum { DATAGRAM_MAX = 2048, IN_MAX = 32, OUT_MAX = 64, OUT_BYTES = 60000 };

/* What has come in this turn. */
static struct {
  struct mmsghdr messages[IN_MAX];
  struct iovec vectors[IN_MAX];
  unsigned char bytes[IN_MAX][DATAGRAM_MAX];
  int count, next;
  bool has_read;
} in;

/* What has been written, and how long each datagram of it is. */
static struct {
  unsigned char bytes[OUT_BYTES];
  size_t used, segment;
  int count;
} out;

void batch_begin(void) {
  in.count = in.next = 0;
  in.has_read = false;
}

void batch_flush(int fd) {
  _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(uint16_t))] = {0};
  struct iovec vector = {out.bytes, out.used};
  struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1};
  uint16_t segment = (uint16_t)out.segment;
  if (out.count == 0) return;
  if (out.count > 1) {
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    struct cmsghdr *c = CMSG_FIRSTHDR(&message);
    c->cmsg_level = IPPROTO_UDP;
    c->cmsg_type = UDP_SEGMENT;
    c->cmsg_len = CMSG_LEN(sizeof segment);
    memcpy(CMSG_DATA(c), &segment, sizeof segment);
  }
  (void)sendmsg(fd, &message, 0); /* what does not leave is lost like any other datagram */
  out.used = 0;
  out.count = 0;
}

static int fd_of(BIO *bio) { return (int)(intptr_t)BIO_get_data(bio); }

static int write_datagram(BIO *bio, const char *data, int length) {
  size_t size = (size_t)length;
  BIO_clear_retry_flags(bio);
  if (out.count > 0 && (size != out.segment || out.count == OUT_MAX || out.used + size > OUT_BYTES))
    batch_flush(fd_of(bio));
  if (size > OUT_BYTES) return -1;
  memcpy(out.bytes + out.used, data, size);
  out.segment = size;
  out.used += size;
  out.count++;
  return length;
}

static int read_datagram(BIO *bio, char *data, int room) {
  BIO_clear_retry_flags(bio);
  if (!in.has_read) {
    in.has_read = true;
    in.count = recvmmsg(fd_of(bio), in.messages, IN_MAX, MSG_DONTWAIT, NULL);
  }
  if (in.next >= in.count) {
    BIO_set_retry_read(bio);
    return -1;
  }
  int length = (int)in.messages[in.next].msg_len;
  if (length > room) length = room;
  memcpy(data, in.bytes[in.next++], (size_t)length);
  return length;
}

static long control(BIO *bio, int command, long number, void *pointer) {
  (void)number, (void)pointer;
  if (command == BIO_CTRL_FLUSH) batch_flush(fd_of(bio));
  return command == BIO_CTRL_FLUSH || command == BIO_CTRL_DGRAM_SET_NEXT_TIMEOUT;
}

static BIO_METHOD *make_method(void) {
  BIO_METHOD *method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "batch");
  if (!method) abort();
  BIO_meth_set_write(method, write_datagram);
  BIO_meth_set_read(method, read_datagram);
  BIO_meth_set_ctrl(method, control);
  for (int i = 0; i < IN_MAX; i++) {
    in.vectors[i] = (struct iovec){in.bytes[i], DATAGRAM_MAX};
    in.messages[i].msg_hdr = (struct msghdr){.msg_iov = &in.vectors[i], .msg_iovlen = 1};
  }
  return method;
}

BIO *batch_bio(int fd) {
  static BIO_METHOD *method;
  if (!method) method = make_method();
  BIO *bio = BIO_new(method);
  if (!bio) abort();
  BIO_set_data(bio, (void *)(intptr_t)fd);
  BIO_set_init(bio, 1);
  return bio;
}
