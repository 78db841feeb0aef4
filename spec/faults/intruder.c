/*
 * For LD_PRELOAD: somebody else is always faster. While a socket has its port but not its peer yet, which is when the
 * kernel gives it what anybody sends to that port, a datagram of a third party comes, from a socket of its own. What it
 * is, the environment says in hexadecimal: DTLS_INTRUDER. With DTLS_INTRUDER_LATE the kernel queues it only after the first
 * read of the connected socket, as it does with what it looked up before connect() and delivers afterwards. At the end of
 * the process what it was answered goes to stdout.
 */
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

typedef union {
  struct sockaddr sa;
  struct sockaddr_in v4;
  struct sockaddr_in6 v6;
} address;

static int intruder = -1;
static int late = -1; /* the socket whose next read finds nothing yet */

static void intrude(int fd, const char *text) {
  uint8_t data[512];
  size_t size = 0;
  address bound = {0};
  socklen_t length = sizeof bound;
  address peer;
  socklen_t peer_length = sizeof peer;
  if (getsockname(fd, &bound.sa, &length) != 0 || bound.v4.sin_port == 0) return; /* sin6_port is in the same place */
  if (getpeername(fd, &peer.sa, &peer_length) == 0) return;
  /* NOLINTNEXTLINE(cert-err34-c): two digits do not overflow */
  for (unsigned byte; size < sizeof data && sscanf(text + 2 * size, "%2x", &byte) == 1; size++)
    data[size] = (uint8_t)byte;
  /* Of sockets that share a port the sender's own port chooses one: the listening one gets some, until this one has got one. */
  struct pollfd arrival = {.fd = fd, .events = POLLIN};
  for (int i = 0; i < 64 && poll(&arrival, 1, 0) == 0; i++) {
    if (intruder >= 0) close(intruder);
    intruder = socket(bound.sa.sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    sendto(intruder, data, size, 0, &bound.sa, length);
  }
  if (getenv("DTLS_INTRUDER_LATE")) late = fd;
}

int connect(int fd, const struct sockaddr *peer, socklen_t size) {
  const char *text = getenv("DTLS_INTRUDER");
  if (text && peer->sa_family != AF_UNSPEC) intrude(fd, text);
  return (int)syscall(SYS_connect, fd, peer, size);
}

/* Whether this read is the one that finds nothing. */
static bool is_early(int fd) {
  if (fd != late) return false;
  late = -1;
  errno = EAGAIN;
  return true;
}

ssize_t recvfrom(int fd, void *data, size_t size, int flags, struct sockaddr *sender, socklen_t *sender_size) {
  if (is_early(fd)) return -1;
  return syscall(SYS_recvfrom, fd, data, size, flags, sender, sender_size);
}

ssize_t recvmsg(int fd, struct msghdr *message, int flags) {
  if (is_early(fd)) return -1;
  return syscall(SYS_recvmsg, fd, message, flags);
}

ssize_t recv(int fd, void *data, size_t size, int flags) { return recvfrom(fd, data, size, flags, NULL, NULL); }

__attribute__((destructor)) static void report(void) {
  uint8_t data[512];
  for (ssize_t n; intruder >= 0 && (n = recv(intruder, data, sizeof data, MSG_DONTWAIT)) >= 0;) {
    for (ssize_t i = 0; i < n; i++) printf("%02x", data[i]);
    printf("\n");
  }
}
