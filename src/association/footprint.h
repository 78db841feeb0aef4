/* What libssl holds in memory for an association: what is needed again soon is kept, the rest given back. */
#ifndef DTLS_ASSOCIATION_FOOTPRINT_H
#define DTLS_ASSOCIATION_FOOTPRINT_H

#include <stdbool.h>
#include <stdint.h>

#include "association/types.h"

/* Of an association. */
typedef struct {
  bool buffered;                    /* libssl holds record buffers for it (open ones only) */
  bool busy;                        /* in the list of its endpoint's busy ones */
  uint64_t idle_from;               /* the period from which on it is idle; 0: it was never used */
  bool used_open;                   /* it was open when it was used last */
  dtls_association *before, *after; /* in that list */
  const void *handshake_buffer; /* libssl's, where the last handshake message was; NULL: it may be elsewhere by now */
  bool reduced;                 /* pages of the handshake buffer have been given back */
} dtls_footprint;

/* Of an endpoint: its busy associations, which keep their record buffers. */
typedef struct {
  dtls_association *first;
  unsigned count;
  uint64_t period; /* of the clock, at the last look */
} dtls_busy;

int dtls_footprint_handshake(dtls_association *a); /* SSL_do_handshake */
/* libssl shows a handshake message, whole (SSL_set_msg_callback). */
void dtls_footprint_message(dtls_association *a, const void *message);
void dtls_footprint_use(dtls_association *a);    /* a datagram has come for it; a server's */
bool dtls_footprint_need(dtls_association *a);   /* before libssl writes; false: no memory */
void dtls_footprint_idle(dtls_association *a);   /* it has nothing to do at the moment */
void dtls_footprint_look(dtls_endpoint *ep);     /* for those that have been idle for a while */
void dtls_footprint_forget(dtls_association *a); /* it is freed */

#endif
