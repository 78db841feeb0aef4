/*
 * A server: every datagram of its sockets, the listening one's and in the connected strategy those of its peers. Owns all of a server
 * that is not an association. Each association holds a reference to its memory.
 */
#ifndef DTLS_ASSOCIATION_ENDPOINT_H
#define DTLS_ASSOCIATION_ENDPOINT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "association/association.h"
#include "association/cookie.h"
#include "association/footprint.h"
#include "association/intake.h"
#include "association/pace.h"
#include "association/path.h"
#include "association/types.h"
#include "base/counters.h"
#include "base/failure.h"
#include "base/openssl.h"
#include "net/batch.h"
#include "net/socket.h"

enum {
  DTLS_READS_MAX = 64,  /* datagrams of one socket, before the event loop gets its turn */
  DTLS_DRAIN_MAX = 4096 /* datagrams that may have queued up in a socket before it was connected */
};

typedef struct {
  bool shared;          /* the shared demux strategy, else each peer gets a socket of its own */
  bool asks_hello;      /* the application is asked about each hello */
  bool stores_sessions; /* sessions get ids and no tickets; the application keeps them */
  bool duplicate;       /* the endpoint has a descriptor of its own, so that the caller may close its own at any time */
  dtls_buffers buffers; /* of the peers' sockets */
} dtls_endpoint_options;

/* The datagram that next() has taken, until it takes another one. */
typedef struct {
  dtls_datagram datagram;
  uint64_t seen_by;         /* the number of the association that has had it, when it is for another one, too; or 0 */
  dtls_association *reader; /* the association it was handed to */
  bool verified;            /* it is a verified hello, which accept() may take */
} dtls_current;

struct dtls_endpoint {
  unsigned refs; /* the owner and one per association */
  int fd;        /* -1 once closed */
  bool owns_fd;  /* a duplicate, else borrowed */
  dtls_endpoint_options options;
  bool takes_others; /* the application asks for datagrams of other protocols, of peers without an association */
  dtls_address bound;
  uint32_t overflow_seen; /* drops at its own socket that have been counted */
  SSL_CTX *ctx;
  dtls_cookies *cookies;
  dtls_paths *paths;
  dtls_pace *pace;
  dtls_intake intake;
  dtls_deferral *deferral; /* of its associations */
  dtls_current current;
  dtls_busy busy;
  struct {
    uint64_t hellos, cookies_sent, cookies_accepted, cookies_refused;
  } stats;
  uint64_t associations; /* that it has made */
  dtls_counters counters;
};

/* What next() has found. */
typedef enum {
  DTLS_FOUND_NOTHING, /* nothing is left, or the turn is over */
  DTLS_FOUND_DATA, /* a datagram, or an error of its socket, waits in that association: handshake() or read() takes it */
  DTLS_FOUND_ROOM,  /* the socket of that association has room again for datagrams, see dtls_intake_await_room() */
  DTLS_FOUND_HELLO, /* a peer has proved its address: accept() makes its association, ignoring it refuses */
  DTLS_FOUND_OTHER  /* a datagram of another protocol (RFC 7983), for that association or (NULL) for the server */
} dtls_found;

/* fd: a bound, unconnected, non-blocking UDP socket, which stays the caller's. NULL: failure. */
dtls_endpoint *dtls_endpoint_new(SSL_CTX *ctx, int fd, dtls_endpoint_options options, dtls_deferral *deferral,
                                 dtls_failure *f);
/* Drops what is queued. Associations live on, but hear nothing any more; in the shared strategy they can no longer send. */
void dtls_endpoint_close(dtls_endpoint *ep);
void dtls_endpoint_unref(dtls_endpoint *ep);

/* Begins a turn (dtls_intake_turn). Associations that have been idle for a while give back what they hold. */
unsigned dtls_endpoint_turn(dtls_endpoint *ep, unsigned datagrams, bool of_peers);
/* What was found before is withdrawn. association: as dtls_found says. known, of a hello: its peer has an association already. */
dtls_found dtls_endpoint_next(dtls_endpoint *ep, dtls_association **association, bool *known);
/*
 * After next() found a hello. displaced: an unfinished association of the same peer that has lost its place and is to be freed, or
 * NULL. A finished one stays beside the new one until that has finished, too. NULL: failure.
 */
dtls_association *dtls_endpoint_accept(dtls_endpoint *ep, dtls_association **displaced, dtls_failure *f);
bool dtls_endpoint_set_context(dtls_endpoint *ep, SSL_CTX *ctx, dtls_failure *f); /* for the hellos to come */
/* A datagram of another protocol, as it is, to anybody. */
bool dtls_endpoint_send_other(dtls_endpoint *ep, const dtls_address *local, const dtls_address *peer, const char *data,
                              size_t size, dtls_failure *f);
void dtls_endpoint_count_overflow(dtls_endpoint *ep); /* what the kernel has dropped at all of its sockets */

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
