/*
 * For LD_PRELOAD: a network whose routers answer with every kind of ICMP error, one at every second read.
 */
#include <errno.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

ssize_t recvfrom(int fd, void *data, size_t size, int flags, struct sockaddr *peer, socklen_t *peer_size) {
  static const int errors[] = {EACCES, ENONET,      ECONNREFUSED, EHOSTUNREACH, ENETUNREACH,
                               EPROTO, ENOPROTOOPT, EHOSTDOWN,    EMSGSIZE};
  static unsigned calls;
  unsigned call = calls++;
  if (call % 2 == 1) {
    errno = errors[call / 2 % (sizeof errors / sizeof *errors)];
    return -1;
  }
  return syscall(SYS_recvfrom, fd, data, size, flags, peer, peer_size);
}
