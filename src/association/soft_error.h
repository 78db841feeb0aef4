/*
 * A soft error: an unauthenticated sign that the handshake is futile, an alert or an errno (ICMP). Anybody can forge one, so it
 * counts only when nothing valid follows: an alert within one retransmission interval, an errno until the flight has been
 * repeated and has had no answer either.
 */
#ifndef DTLS_ASSOCIATION_SOFT_ERROR_H
#define DTLS_ASSOCIATION_SOFT_ERROR_H

#include <stdbool.h>
#include <stdint.h>

#include "association/types.h"
#include "base/openssl.h"

typedef struct {
  uint64_t deadline;          /* ms, when it counts; 0: there is no soft error */
  int alert, number;          /* an alert's description (≥ 0), or -1 and an errno */
  OSSL_HANDSHAKE_STATE state; /* of the handshake when it was seen */
  bool repeated;              /* an errno, and the flight has been repeated since */
} dtls_soft_error;

void dtls_soft_error_note(dtls_association *a, int alert, int number); /* alert: -1 for an errno */
void dtls_soft_error_clear(dtls_association *a);

#endif
