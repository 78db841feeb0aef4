/* The monotonic clock: deadlines and intervals, whatever happens to the time of day. */
#include "base/clock.h"

#include <time.h>

uint64_t dtls_now(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}
