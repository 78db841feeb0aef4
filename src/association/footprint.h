/* What libssl holds in memory for an association: what is needed again soon is kept, the rest given back. */
#ifndef DTLS_ASSOCIATION_FOOTPRINT_H
#define DTLS_ASSOCIATION_FOOTPRINT_H

#include <stdbool.h>
#include <stdint.h>

#include "association/types.h"

enum { DTLS_PLACES = 64 };

/* Of an association. */
typedef struct {
  bool buffered;                /* libssl holds record buffers for it (open ones only) */
  unsigned place;               /* among the busy ones of its endpoint, from 1 on; 0: it has none */
  const void *handshake_buffer; /* libssl's, where the last handshake message was; NULL: it may be elsewhere by now */
  bool reduced;                 /* pages of the handshake buffer have been given back */
} dtls_footprint;

/* Of an endpoint: its busy associations, which keep what they have. */
typedef struct {
  dtls_association *busy[DTLS_PLACES]; /* NULL: the place is free */
  uint64_t taken;                      /* bits: places that are not free */
  uint64_t used;                       /* bits: places whose association has been used since the last look */
  uint64_t next_look;                  /* ms, when it is looked again who is busy no more */
} dtls_places;

int dtls_footprint_handshake(dtls_association *a); /* SSL_do_handshake */
/* libssl shows a handshake message, whole (SSL_set_msg_callback). */
void dtls_footprint_message(dtls_association *a, const void *message);
bool dtls_footprint_need(dtls_association *a);   /* before libssl writes; false: no memory */
void dtls_footprint_idle(dtls_association *a);   /* it has nothing to do at the moment */
void dtls_footprint_look(dtls_endpoint *ep);     /* the endpoint, or a peer's socket, has nothing more at the moment */
void dtls_footprint_forget(dtls_association *a); /* it is freed */

#endif
