/* When a flight is repeated. */
#ifndef DTLS_ASSOCIATION_RETRANSMIT_H
#define DTLS_ASSOCIATION_RETRANSMIT_H

#include "association/types.h"

enum { DTLS_FIRST_TIMEOUT = 1000, DTLS_TIMEOUT_MAX = 60000 }; /* ms, of a wait for an answer (RFC 6347 §4.2.4.1) */

void dtls_retransmit_watch(dtls_association *a);
void dtls_retransmit_set(dtls_association *a, const void *until); /* libssl has set its own, a timeval; zero: no longer */
void dtls_retransmit_postpone(dtls_association *a); /* the timer has run out, and libssl did not repeat the flight */

#endif
