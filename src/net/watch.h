/* Many sockets watched through one descriptor (epoll(7)), which can be read as long as one of them is ready. */
#ifndef DTLS_NET_WATCH_H
#define DTLS_NET_WATCH_H

#include <stdbool.h>

typedef struct dtls_watch dtls_watch;

/* What a socket is ready for. A pending error is something to read. */
typedef struct {
  void *of; /* what add() was given */
  bool reads, writes;
} dtls_ready;

/* older: the watch that this one takes the place of, which is closed when this one is; or NULL. NULL: errno says why. */
dtls_watch *dtls_watch_new(dtls_watch *older);
void dtls_watch_free(dtls_watch *watch); /* or NULL */
int dtls_watch_fd(const dtls_watch *watch);
/* After fork(): the watch is the parent process's. Nothing else may be asked of it here. */
bool dtls_watch_is_foreign(const dtls_watch *watch);
bool dtls_watch_add(dtls_watch *watch, int fd, void *of); /* false: errno says why */
void dtls_watch_remove(dtls_watch *watch, int fd, const void *of);
void dtls_watch_room(dtls_watch *watch, int fd, void *of, bool wanted); /* or it is ready only to be read */
/* Asks the kernel, for next() to tell. False: there are no more sockets ready than that. */
bool dtls_watch_look(dtls_watch *watch);
bool dtls_watch_next(dtls_watch *watch, dtls_ready *out); /* false: the last look has found no other one */

#endif
