/* What comes through the sockets of an endpoint, datagram by datagram: as many as a turn of the event loop may take. */
#ifndef DTLS_ASSOCIATION_INTAKE_H
#define DTLS_ASSOCIATION_INTAKE_H

#include <stdbool.h>
#include <stddef.h>

#include "association/queue.h"
#include "association/types.h"
#include "net/batch.h"

typedef struct {
  dtls_batch *batch;
  dtls_queue requeued; /* copies of what the sockets of peers had when they were closed */
  dtls_queued *taken;  /* the one of them that was taken last, until release(); or NULL */
  unsigned left;       /* datagrams that may still be taken in this turn */
  dtls_path *path;     /* whose socket is read; NULL: the endpoint's own */
  bool exhausted;      /* the socket has had nothing more in this turn */
  bool failed;         /* the association that reads the path's socket has to hear of an error */
} dtls_intake;

bool dtls_intake_open(dtls_endpoint *ep); /* false: no memory */
void dtls_intake_close(dtls_endpoint *ep);
/*
 * A turn begins: so many datagrams may be taken, those that nobody needs to know of included. reader: the socket to be read is that of
 * its path, if there is one; else, or NULL: the endpoint's own. Before the first turn any number may be taken of that. Returns how
 * many datagrams are there at once.
 */
unsigned dtls_intake_turn(dtls_endpoint *ep, unsigned datagrams, const dtls_association *reader);
/* The next datagram, until release(): first the requeued ones, then those of the socket. False: there is none, or the turn is over. */
bool dtls_intake_take(dtls_endpoint *ep, dtls_datagram *out);
void dtls_intake_release(dtls_endpoint *ep);
/* The association that has to hear of an error of its socket (handshake() and read() say which), once; NULL: none. */
dtls_association *dtls_intake_failed(dtls_endpoint *ep);
bool dtls_intake_pending(const dtls_endpoint *ep);      /* there is a datagram that no readable socket will announce */
bool dtls_intake_has_requeued(const dtls_endpoint *ep); /* there is one of a peer socket that is closed */
/* The socket of a peer is closed: nothing more is read of it, and all that it holds is copied, each datagram with its own sender. */
void dtls_intake_drain(dtls_endpoint *ep, const dtls_path *path);
void dtls_intake_abandon(dtls_endpoint *ep, const dtls_path *path); /* nothing more is read of the path's socket */

#endif
