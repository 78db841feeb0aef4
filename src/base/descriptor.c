/* The numbers of descriptors. */
#include "base/descriptor.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

int dtls_descriptor_duplicate(int fd) { return fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1); }

int dtls_descriptor_lift(int fd) {
  if (fd < 0 || fd > STDERR_FILENO) return fd;
  int above = dtls_descriptor_duplicate(fd), saved = errno;
  close(fd);
  errno = saved;
  return above;
}
