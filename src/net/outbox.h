/* Datagrams that wait for the end of a turn of the event loop, and then leave one socket together. */
#ifndef DTLS_NET_OUTBOX_H
#define DTLS_NET_OUTBOX_H

#include <stdbool.h>
#include <stddef.h>

#include "net/address.h"

/* What an outbox keeps at each sender: whoever sends to one peer from one address. All of it is zero at first. */
typedef struct {
  unsigned flow; /* the sender's place among the flows of the outbox, if that flow is the sender's */
  bool unsplit;  /* its path takes no datagrams that the kernel has to cut (UDP_SEGMENT) */
} dtls_sender;

typedef struct dtls_outbox dtls_outbox;

/* Is told what became of a datagram. sender: NULL once it was forgotten. error: an errno; 0: the datagram has left. */
typedef void dtls_outbox_told(void *whom, dtls_sender *sender, size_t size, int error);

dtls_outbox *dtls_outbox_new(int fd, dtls_outbox_told *told, void *whom); /* NULL: no memory */
void dtls_outbox_free(dtls_outbox *box);                                  /* what has not left is dropped, untold */
void dtls_outbox_clear(dtls_outbox *box);                                 /* the same, and the outbox goes on */
bool dtls_outbox_is_empty(const dtls_outbox *box);
/*
 * Copies a datagram. The order of a sender's datagrams is kept. fits: IP need not cut it. When there is no room, what is there
 * leaves first; false: the socket takes nothing at the moment either (EAGAIN).
 */
bool dtls_outbox_add(dtls_outbox *box, dtls_sender *sender, const dtls_address *local, const dtls_address *peer,
                     const void *data, size_t size, bool fits);
bool dtls_outbox_flush(dtls_outbox *box); /* false: the socket takes no more at the moment; the rest waits */
void dtls_outbox_forget(dtls_outbox *box, dtls_sender *sender); /* it goes; its datagrams still leave */

#endif
