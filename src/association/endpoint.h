/* The listening socket of a server; every datagram of it that no peer socket took. */
#ifndef DTLS_ASSOCIATION_ENDPOINT_H
#define DTLS_ASSOCIATION_ENDPOINT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "association/association.h"
#include "association/cookie.h"
#include "association/pace.h"
#include "association/path.h"
#include "association/types.h"
#include "base/counters.h"
#include "base/openssl.h"
#include "binding/lua.h"
#include "net/batch.h"
#include "net/socket.h"

enum {
  DTLS_READS_MAX = 64,  /* datagrams of one socket, before the event loop gets its turn */
  DTLS_DRAIN_MAX = 4096 /* datagrams that may have queued up in a socket before it was connected */
};

struct dtls_endpoint {
  unsigned refs; /* the userdata and one per association */
  int fd;        /* -1 once closed */
  bool owns_fd;  /* a duplicate, else borrowed */
  bool shared;   /* the shared demux strategy */
  bool asks_hello, stores_sessions; /* what its associations do */
  bool takes_others; /* the application asks for datagrams of other protocols, of peers without an association */
  dtls_address bound;
  dtls_buffers peer_buffers; /* of the peers' sockets */
  uint32_t overflow_seen;    /* drops at its own socket that have been counted */
  SSL_CTX *ctx;
  dtls_cookies *cookies;
  dtls_paths *paths;
  dtls_pace *pace;
  dtls_batch *batch;
  struct dtls_stashed *stash, **stash_end; /* copies that wait to be dispatched again, a FIFO */
  size_t stash_count;
  unsigned left; /* datagrams that may still be taken in this turn of the event loop */
  struct dtls_stashed *held; /* the stash entry that `hand` points into */
  dtls_datagram hand;        /* the datagram in hand */
  uint64_t hand_seen_by;     /* the number of the association that has had it, when it is for another one, too; or 0 */
  dtls_association *reader;  /* the association it was handed to */
  bool verified;             /* the datagram in hand is a verified hello, which accept() may take */
  struct {
    uint64_t hellos, cookies_sent, cookies_accepted, cookies_refused;
  } stats;
  uint64_t associations; /* that it has made */
  dtls_counters counters;
};

void dtls_endpoint_init(lua_State *L);
int dtls_endpoint_new(lua_State *L); /* core.endpoint(context, fd, demux[, options]) */
void dtls_endpoint_unref(dtls_endpoint *ep);
/* Copies a datagram for later dispatch. seen_by: the number of the association that has had it, or 0. */
void dtls_endpoint_stash(dtls_endpoint *ep, const dtls_path *path, const dtls_address *peer, const uint8_t *data, size_t size, uint64_t seen_by);
/* Copies all that a peer socket holds for later dispatch, each datagram with its own sender. */
void dtls_endpoint_drain(dtls_endpoint *ep, const dtls_path *path);

/* Counts on the association and, for a server, on its endpoint. */
#define DTLS_COUNT(a, field, n) \
  do { \
    (a)->counters.field += (n); \
    if ((a)->endpoint) (a)->endpoint->counters.field += (n); \
  } while (0)
#define DTLS_DROP(a, reason) DTLS_COUNT(a, drops[DTLS_DROP_##reason], 1)
static inline void dtls_association_count_in(dtls_association *a, size_t size) {
  dtls_count_in(&a->counters, size);
  if (a->endpoint) dtls_count_in(&a->endpoint->counters, size);
}
static inline void dtls_association_count_out(dtls_association *a, size_t size) {
  dtls_count_out(&a->counters, size);
  if (a->endpoint) dtls_count_out(&a->endpoint->counters, size);
}

#endif
