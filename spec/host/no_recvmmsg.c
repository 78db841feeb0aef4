/*
 * For LD_PRELOAD: a system without recvmmsg, as some seccomp filters make it.
 */
#include <errno.h>
#include <sys/socket.h>

int recvmmsg(int fd, struct mmsghdr *messages, unsigned int count, int flags, struct timespec *timeout) {
  (void)fd, (void)messages, (void)count, (void)flags, (void)timeout;
  errno = ENOSYS;
  return -1;
}
