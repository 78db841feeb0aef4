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
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

enum { IN_MAX = 16, IN_BYTES = 65535, OUT_MAX = 64, OUT_BYTES = 60000 };
enum { CONTROL_IN = CMSG_SPACE(sizeof(int)), CONTROL_OUT = CMSG_SPACE(sizeof(uint16_t)) };

/* What has come in this turn: messages of the kernel's, each a datagram or several of one length that it has put together. */
static struct {
  struct mmsghdr messages[IN_MAX];
  struct iovec vectors[IN_MAX];
  _Alignas(struct cmsghdr) unsigned char control[IN_MAX][CONTROL_IN];
  unsigned char bytes[IN_MAX][IN_BYTES];
  int count, next;
  size_t at; /* in the next message */
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
  in.at = 0;
  in.has_read = false;
}

void batch_flush(int fd) {
  _Alignas(struct cmsghdr) char control[CONTROL_OUT] = {0};
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

static void receive(int fd) {
  for (int i = 0; i < IN_MAX; i++) in.messages[i].msg_hdr.msg_controllen = CONTROL_IN;
  in.has_read = true;
  in.count = recvmmsg(fd, in.messages, IN_MAX, MSG_DONTWAIT, NULL);
}

/* How long the datagrams of a message are, all but the last of them, which may be shorter. */
static size_t segment_of(struct mmsghdr *message) {
  const struct cmsghdr *c = CMSG_FIRSTHDR(&message->msg_hdr);
  int segment = 0;
  if (c && c->cmsg_level == IPPROTO_UDP && c->cmsg_type == UDP_GRO) memcpy(&segment, CMSG_DATA(c), sizeof segment);
  return segment > 0 ? (size_t)segment : message->msg_len;
}

static int read_datagram(BIO *bio, char *data, int room) {
  BIO_clear_retry_flags(bio);
  if (!in.has_read) receive(fd_of(bio));
  if (in.next >= in.count) {
    BIO_set_retry_read(bio);
    return -1;
  }
  struct mmsghdr *message = &in.messages[in.next];
  size_t length = message->msg_len - in.at, segment = segment_of(message);
  if (length > segment) length = segment;
  if (length > (size_t)room) abort(); /* libssl has room for the longest record */
  memcpy(data, in.bytes[in.next] + in.at, length);
  in.at += length;
  if (in.at == message->msg_len) {
    in.next++;
    in.at = 0;
  }
  return (int)length;
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
    in.vectors[i] = (struct iovec){in.bytes[i], IN_BYTES};
    in.messages[i].msg_hdr = (struct msghdr){.msg_iov = &in.vectors[i], .msg_iovlen = 1, .msg_control = in.control[i]};
  }
  return method;
}

BIO *batch_bio(int fd) {
  static BIO_METHOD *method;
  int on = 1;
  if (!method) method = make_method();
  (void)setsockopt(fd, IPPROTO_UDP, UDP_GRO, &on, sizeof on); /* a kernel without it hands out one datagram at a time */
  BIO *bio = BIO_new(method);
  if (!bio) abort();
  BIO_set_data(bio, (void *)(intptr_t)fd);
  BIO_set_init(bio, 1);
  return bio;
}
