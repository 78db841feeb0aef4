/*
 * For LD_PRELOAD: somebody else is always faster. While a socket has its port but not its peer yet, which is when the
 * kernel gives it what anybody sends to that port, a datagram of a third party comes, from a socket of its own. What it
 * is, the environment says in hexadecimal: DTLS_INTRUDER. At the end of the process what it was answered goes to stdout.
 */
#include <netinet/in.h>
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

static void intrude(int fd, const char *text) {
  uint8_t data[512];
  size_t size = 0;
  address bound = {0};
  socklen_t length = sizeof bound;
  if (getsockname(fd, &bound.sa, &length) != 0 || bound.v4.sin_port == 0) return; /* sin6_port is in the same place */
  /* NOLINTNEXTLINE(cert-err34-c): two digits do not overflow */
  for (unsigned byte; size < sizeof data && sscanf(text + 2 * size, "%2x", &byte) == 1; size++) data[size] = (uint8_t)byte;
  if (intruder < 0) intruder = socket(bound.sa.sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  sendto(intruder, data, size, 0, &bound.sa, length);
}

int connect(int fd, const struct sockaddr *peer, socklen_t size) {
  const char *text = getenv("DTLS_INTRUDER");
  if (text && peer->sa_family != AF_UNSPEC) intrude(fd, text);
  return (int)syscall(SYS_connect, fd, peer, size);
}

__attribute__((destructor)) static void report(void) {
  uint8_t data[512];
  for (ssize_t n; intruder >= 0 && (n = recv(intruder, data, sizeof data, MSG_DONTWAIT)) >= 0;) {
    for (ssize_t i = 0; i < n; i++) printf("%02x", data[i]);
    printf("\n");
  }
}
