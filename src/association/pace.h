/* When a peer that has gone may begin a handshake again. */
#ifndef DTLS_ASSOCIATION_PACE_H
#define DTLS_ASSOCIATION_PACE_H

#include <stdint.h>

#include "net/address.h"

typedef struct dtls_pace dtls_pace;

dtls_pace *dtls_pace_new(void); /* NULL: no memory */
void dtls_pace_free(dtls_pace *pace);
/* until: when a peer may begin a handshake again, in ms of dtls_now(); it is asked for when the peer has no path. */
void dtls_pace_remember(dtls_pace *pace, const dtls_address *local, const dtls_address *peer, uint64_t until);
uint64_t dtls_pace_recall(const dtls_pace *pace, const dtls_address *local, const dtls_address *peer); /* 0: at once */

#endif
