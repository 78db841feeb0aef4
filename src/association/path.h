/* The 4-tuple (local, peer) without the protocol, and the associations on it. */
#ifndef DTLS_ASSOCIATION_PATH_H
#define DTLS_ASSOCIATION_PATH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "association/types.h"
#include "net/address.h"

struct dtls_path {
  dtls_endpoint *endpoint; /* NULL for a client */
  dtls_address local, peer;
  int fd;                    /* the peer socket, or the client's; -1 when the endpoint's socket is shared */
  bool owns_fd;              /* the path closes fd */
  unsigned fork_generation;  /* of the process that opened it, base/fork.h */
  bool given_up;             /* another one's: dtls_paths_take_foreign() has given it */
  uint64_t seed;             /* of the table that it is in */
  dtls_path *before, *after; /* in the list of that table's */
  dtls_association *current;
  dtls_association *successor; /* a parallel handshake (RFC 6347 §4.2.8) */
  uint32_t overflow_seen;      /* drops at the socket that have been counted */
  /* ms, when the peer may begin another handshake; it may at once when it has completed one */
  uint64_t paced_until;
};

/* Where a datagram on a path belongs. BOTH: only the keys can tell. */
typedef enum { DTLS_TO_CURRENT, DTLS_TO_SUCCESSOR, DTLS_TO_BOTH, DTLS_TO_HELLO } dtls_destination;

dtls_path *dtls_path_new(dtls_endpoint *ep, const dtls_address *local, const dtls_address *peer, int fd, bool owns_fd);
void dtls_path_free(dtls_path *path); /* for a path that no association is on; others go with their last one */
const dtls_association *dtls_path_of_random(const dtls_path *path, const uint8_t *random); /* NULL: none has it */
dtls_destination dtls_path_classify_untrusted(const dtls_path *path, const uint8_t *data, size_t size);
/* Counts what the kernel has dropped at the path's own socket since the last time. */
void dtls_path_count_overflow(dtls_path *path);
void dtls_path_attach(dtls_path *path, dtls_association *a);
/* Takes an association off its path, where the parallel handshake takes the place of the current one. */
void dtls_path_detach(dtls_association *a);
/* The parallel handshake if there is one, else the current association. */
static inline dtls_association *dtls_path_newest(const dtls_path *path) {
  return path->successor ? path->successor : path->current;
}
/* A flight leaves: the peer may begin no handshake for so many ms. */
void dtls_path_pace(dtls_path *path, unsigned interval);
/* The peer has begun another handshake before it may: what the unfinished one would repeat could only disturb that one. */
void dtls_path_silence(dtls_path *path);

typedef struct dtls_paths dtls_paths; /* the table: (local, peer) → path, from dtls_path_new to dtls_path_free */
dtls_paths *dtls_paths_new(void);
void dtls_paths_free(dtls_paths *paths);
void dtls_paths_count_overflow(const dtls_paths *paths); /* of each */
/* One that has a socket of the parent process's, each once; NULL: there is no other one. */
dtls_path *dtls_paths_take_foreign(dtls_paths *paths);
dtls_path *dtls_paths_find(dtls_paths *paths, const dtls_address *local, const dtls_address *peer);

#endif
