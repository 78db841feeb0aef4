/* One epoll instance, and what it has found. Owns both. */
#include "net/watch.h"

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <openssl/crypto.h>

#include "base/descriptor.h"
#include "base/fork.h"
#include "base/platform.h"

enum { FOUND_MAX = 64 };

struct dtls_watch {
  int fd;
  unsigned fork_generation; /* of the process that made it */
  dtls_watch *older;
  unsigned next, count;
  dtls_ready found[FOUND_MAX];
};

/* ── the kernel's ── */

typedef enum { ADD, CHANGE, REMOVE } operation;

#if DTLS_HAS_EPOLL
#include <sys/epoll.h>

static int make(void) { return epoll_create1(EPOLL_CLOEXEC); }

static bool control(const dtls_watch *watch, operation what, int fd, bool writes, void *of) {
  static const int operations[] = {[ADD] = EPOLL_CTL_ADD, [CHANGE] = EPOLL_CTL_MOD, [REMOVE] = EPOLL_CTL_DEL};
  struct epoll_event event = {.events = writes ? EPOLLIN | EPOLLOUT : EPOLLIN, .data.ptr = of};
  return epoll_ctl(watch->fd, operations[what], fd, &event) == 0;
}

static unsigned ask(const dtls_watch *watch, dtls_ready found[FOUND_MAX]) {
  struct epoll_event events[FOUND_MAX];
  int count = epoll_wait(watch->fd, events, FOUND_MAX, 0);
  for (int i = 0; i < count; i++)
    found[i] = (dtls_ready){.of = events[i].data.ptr,
                            .reads = (events[i].events & ~(uint32_t)EPOLLOUT) != 0,
                            .writes = (events[i].events & EPOLLOUT) != 0};
  return count > 0 ? (unsigned)count : 0;
}

#else

static int make(void) {
  errno = ENOSYS;
  return -1;
}

static bool control(const dtls_watch *watch, operation what, int fd, bool writes, void *of) {
  (void)watch, (void)what, (void)fd, (void)writes, (void)of;
  return false;
}

static unsigned ask(const dtls_watch *watch, dtls_ready found[FOUND_MAX]) {
  (void)watch, (void)found;
  return 0;
}

#endif

/* ── everybody's ── */

dtls_watch *dtls_watch_new(dtls_watch *older) {
  dtls_watch *watch = OPENSSL_malloc(sizeof *watch);
  int fd = watch ? dtls_descriptor_lift(make()) : -1, saved = watch ? errno : ENOMEM;
  if (fd < 0) {
    OPENSSL_free(watch);
    errno = saved;
    return NULL;
  }
  watch->fd = fd;
  watch->fork_generation = dtls_fork_generation();
  watch->older = older;
  watch->next = watch->count = 0;
  return watch;
}

void dtls_watch_free(dtls_watch *watch) {
  while (watch) {
    dtls_watch *older = watch->older;
    close(watch->fd);
    OPENSSL_free(watch);
    watch = older;
  }
}

int dtls_watch_fd(const dtls_watch *watch) { return watch->fd; }

bool dtls_watch_is_foreign(const dtls_watch *watch) { return watch->fork_generation != dtls_fork_generation(); }

bool dtls_watch_add(dtls_watch *watch, int fd, void *of) { return control(watch, ADD, fd, false, of); }

/* A socket that a child process has, too, would stay watched when its descriptor is closed here. */
void dtls_watch_remove(dtls_watch *watch, int fd, const void *of) {
  (void)control(watch, REMOVE, fd, false, NULL);
  for (unsigned i = watch->next; i < watch->count; i++)
    if (watch->found[i].of == of) watch->found[i].of = NULL;
}

void dtls_watch_room(dtls_watch *watch, int fd, void *of, bool wanted) { (void)control(watch, CHANGE, fd, wanted, of); }

bool dtls_watch_look(dtls_watch *watch) {
  watch->next = 0;
  watch->count = ask(watch, watch->found);
  return watch->count == FOUND_MAX;
}

bool dtls_watch_next(dtls_watch *watch, dtls_ready *out) {
  while (watch->next < watch->count) {
    *out = watch->found[watch->next++];
    if (out->of) return true;
  }
  return false;
}
