/* When a flight is repeated. */
#ifndef DTLS_ASSOCIATION_RETRANSMIT_H
#define DTLS_ASSOCIATION_RETRANSMIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "association/types.h"

enum { DTLS_FIRST_TIMEOUT = 1000, DTLS_TIMEOUT_MAX = 60000 }; /* ms, of a wait for an answer (RFC 6347 §4.2.4.1) */

typedef struct {
  unsigned first_timeout; /* ms, before a flight is repeated for the first time */
  unsigned next_timeout;  /* ms, the wait after the one that runs; 0: double it */
  unsigned interval;      /* ms, the wait that runs */
  uint64_t repeat_at;     /* ms, when it ends; 0: no flight waits for an answer */
  unsigned timeouts;      /* of the flight that waits for an answer */
  size_t longest;         /* datagram of that flight that was sent */
  bool answered;          /* a part of the answer has come, so all of that flight has arrived */
} dtls_retransmit;

void dtls_retransmit_watch(dtls_association *a);
/* libssl has set its timer (BIO_CTRL_DGRAM_SET_NEXT_TIMEOUT). until: a struct timeval; zero: libssl has stopped it */
void dtls_retransmit_set(dtls_association *a, const void *until);
void dtls_retransmit_postpone(dtls_association *a); /* the timer has run out, and libssl did not repeat the flight */

#endif
