/* What comes through the sockets of an endpoint, datagram by datagram: as many as a turn of the event loop may take. */
#ifndef DTLS_ASSOCIATION_INTAKE_H
#define DTLS_ASSOCIATION_INTAKE_H

#include <stdbool.h>
#include <stddef.h>

#include "association/queue.h"
#include "association/types.h"
#include "net/batch.h"
#include "net/watch.h"

/* What an association has to hear of its own socket. */
typedef enum { DTLS_NO_NEWS, DTLS_SOCKET_FAILED, DTLS_SOCKET_HAS_ROOM } dtls_news;

typedef struct {
  dtls_batch *batch;
  dtls_queue requeued; /* copies of what the sockets of peers had when they were closed */
  dtls_queued *taken;  /* the one of them that was taken last, until release(); or NULL */
  unsigned left;       /* datagrams that may still be taken in this turn */
  dtls_watch *peers;   /* their sockets; NULL as long as none has had one */
  bool of_peers;       /* those are read in this turn, else the endpoint's own socket */
  bool exhausted;      /* and have had nothing more in this turn */
  dtls_news news;      /* for an association of that path */
  dtls_path *path;
} dtls_intake;

bool dtls_intake_open(dtls_endpoint *ep); /* false: no memory */
void dtls_intake_close(dtls_endpoint *ep);
/*
 * A turn begins: so many datagrams may be taken, those that nobody needs to know of included, of the peers' sockets or of the endpoint's
 * own. Returns how many datagrams are there at once.
 */
unsigned dtls_intake_turn(dtls_endpoint *ep, unsigned datagrams, bool of_peers);
/* The next datagram, until release(): first the requeued ones, then those of the socket. False: there is none, or the turn is over. */
bool dtls_intake_take(dtls_endpoint *ep, dtls_datagram *out);
void dtls_intake_release(dtls_endpoint *ep);
/* What the association has to hear, once. handshake() and read() say what has failed. */
dtls_news dtls_intake_news(dtls_endpoint *ep, dtls_association **out);
bool dtls_intake_pending(const dtls_endpoint *ep);      /* there is a datagram that no readable socket will announce */
bool dtls_intake_has_requeued(const dtls_endpoint *ep); /* there is one of a peer socket that is closed */
/* The descriptor that can be read when a peer's socket is ready; -1: there is none, or it is the parent process's. */
int dtls_intake_peers_fd(const dtls_endpoint *ep);
bool dtls_intake_add_peer(dtls_endpoint *ep, dtls_path *path); /* its socket is read, too; false: errno says why not */
void dtls_intake_await_room(dtls_association *a); /* news of its socket will tell that it takes datagrams, once */
void dtls_intake_remove_peer(dtls_endpoint *ep,
                             const dtls_path *path); /* nothing more is read of its socket, if it has one */
/* The socket of a peer is closed: all that it holds is copied, each datagram with its own sender. */
void dtls_intake_drain(dtls_endpoint *ep, const dtls_path *path);

#endif
