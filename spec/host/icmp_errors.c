/*
 * For LD_PRELOAD: a network whose routers answer with every kind of ICMP error, one at every second read.
 */
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static bool fails(void) {
  static const int errors[] = {EACCES, ENONET,      ECONNREFUSED, EHOSTUNREACH, ENETUNREACH,
                               EPROTO, ENOPROTOOPT, EHOSTDOWN,    EMSGSIZE};
  static unsigned calls;
  unsigned call = calls++;
  errno = errors[call / 2 % (sizeof errors / sizeof *errors)];
  return call % 2 == 1;
}

ssize_t recvfrom(int fd, void *data, size_t size, int flags, struct sockaddr *peer, socklen_t *peer_size) {
  return fails() ? -1 : syscall(SYS_recvfrom, fd, data, size, flags, peer, peer_size);
}

ssize_t recvmsg(int fd, struct msghdr *message, int flags) {
  return fails() ? -1 : syscall(SYS_recvmsg, fd, message, flags);
}
