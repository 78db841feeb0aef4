/* The longest datagram that an association sends: what was set last, the fall-back, and what the path has said (RFC 6347 §4.1.1.1). */
#ifndef DTLS_ASSOCIATION_MTU_H
#define DTLS_ASSOCIATION_MTU_H

#include <stdbool.h>
#include <stddef.h>

#include "association/types.h"
#include "base/failure.h"

typedef struct {
  size_t payload; /* bytes of UDP payload; caps every datagram */
  size_t message; /* once open: the longest message that fits one datagram */
  long overhead;  /* bytes of IP and UDP headers */
} dtls_mtu;

void dtls_mtu_meet(dtls_association *a); /* it has another peer, or its BIO is new */
void dtls_mtu_use(dtls_association *a, size_t payload);
bool dtls_mtu_set(dtls_association *a, long payload, dtls_failure *f);     /* false: out of range */
bool dtls_mtu_set_link(dtls_association *a, long packet, dtls_failure *f); /* bytes of IP packet, headers included */
void dtls_mtu_learn(dtls_association *a);                                  /* a datagram was too large for the path */
/* the longest plaintext of a record: max_fragment_length, or 2^14 */
size_t dtls_mtu_fragment(const dtls_association *a);
size_t dtls_mtu_message(const dtls_association *a); /* 0 before the handshake has chosen a suite (DTLS_get_data_mtu) */

#endif
