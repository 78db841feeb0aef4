/* Datagrams in batches, each with the local address that it was sent to. */
#ifndef DTLS_NET_BATCH_H
#define DTLS_NET_BATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "net/address.h"

/* One received datagram. The bytes belong to whoever received it. */
typedef struct {
  const uint8_t *data;
  size_t size;
  dtls_address local, peer;
} dtls_datagram;

typedef struct dtls_batch dtls_batch; /* room for one recvmmsg, or for several that together bring no more */

dtls_batch *dtls_batch_new(void);
void dtls_batch_free(dtls_batch *batch);
/* Adds what a socket has and there is room for. bound: the socket's own address. False: errno says why. */
bool dtls_batch_receive(dtls_batch *batch, int fd, const dtls_address *bound);
unsigned dtls_batch_pending(const dtls_batch *batch); /* how many datagrams next() will give; 0: all its room is free */
bool dtls_batch_is_full(const dtls_batch *batch);     /* nothing can be added; its last socket may have more */
bool dtls_batch_next(dtls_batch *batch, dtls_datagram *out);

#endif
