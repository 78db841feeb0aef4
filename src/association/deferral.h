/*
 * What associations send during a turn of the event loop leaves together when the turn ends. One deferral serves all associations
 * of an event loop.
 */
#ifndef DTLS_ASSOCIATION_DEFERRAL_H
#define DTLS_ASSOCIATION_DEFERRAL_H

#include <stdbool.h>
#include <stddef.h>

#include "association/types.h"

dtls_deferral *dtls_deferral_new(void); /* NULL: no memory */
void dtls_deferral_ref(dtls_deferral *d);
void dtls_deferral_unref(dtls_deferral *d); /* what waits when the last one goes is dropped */
void dtls_deferral_begin(dtls_deferral *d); /* what is sent from now on waits for the end */
/* What waits leaves. False: a socket takes no more at the moment; its datagrams wait for another end. */
bool dtls_deferral_end(dtls_deferral *d);
void dtls_deferral_settle(dtls_deferral *d); /* what waits leaves, so that the counters tell of it; the turn goes on */
/* An association whose socket took no more at the last end, each once; NULL: no other one. */
dtls_association *dtls_deferral_blocked(dtls_deferral *d);

void dtls_deferral_join(dtls_deferral *d, dtls_association *a); /* what it sends may wait; until it is freed */
/* Takes a datagram that waits for the end of the turn. False: it is to leave now, unless others of the association wait. */
bool dtls_deferral_take(dtls_association *a, const char *data, size_t size);
bool dtls_deferral_holds(const dtls_association *a); /* something of the association waits */
void dtls_deferral_leave(dtls_association *a);       /* it loses its path: what waits leaves now, or is dropped */
void dtls_deferral_close(dtls_deferral *d, int fd);  /* the same for all that send through this socket */

#endif
