/* What associations of a shared socket send during a turn of the event loop leaves together when the turn ends. */
#ifndef DTLS_ASSOCIATION_DEFERRAL_H
#define DTLS_ASSOCIATION_DEFERRAL_H

#include <stdbool.h>
#include <stddef.h>

#include "association/types.h"
#include "net/outbox.h"

typedef struct {
  dtls_outbox *box;         /* NULL where each peer has a socket of its own, and once closed */
  bool defers;              /* what is sent now waits for the end of the turn */
  unsigned fork_generation; /* of the process that filled the box, base/fork.h */
} dtls_deferral;

bool dtls_deferral_open(dtls_endpoint *ep);  /* of an endpoint with a shared socket; false: no memory */
void dtls_deferral_begin(dtls_endpoint *ep); /* from now on, until the end */
/* False: the socket takes no more at the moment; the rest waits for another end. */
bool dtls_deferral_end(dtls_endpoint *ep);
void dtls_deferral_settle(dtls_endpoint *ep); /* what waits leaves, so that the counters tell of it; the turn goes on */
void dtls_deferral_close(dtls_endpoint *ep);  /* what the socket takes leaves, the rest is dropped */

bool dtls_deferral_applies(const dtls_association *a);                      /* to what this association sends now */
bool dtls_deferral_add(dtls_association *a, const char *data, size_t size); /* false: errno says why */
void dtls_deferral_forget(dtls_association *a);                             /* it is freed */

#endif
