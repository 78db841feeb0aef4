/* Datagrams that wait for the end of a turn of the event loop, and then leave together, those of each socket by few system calls. */
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

/* The way of a sender's datagrams: a socket and, where that is connected to nobody, the addresses. */
typedef struct {
  int fd;
  const dtls_address *local, *peer; /* copied; NULL: the socket is connected to the peer */
} dtls_route;

typedef struct dtls_outbox dtls_outbox;

/* The outbox tells what became of a sender's datagram. error: an errno; 0: the datagram has left. size 0: the error is about an
   earlier datagram. */
typedef void dtls_outbox_told(dtls_sender *sender, size_t size, int error);

dtls_outbox *dtls_outbox_new(dtls_outbox_told *told);                      /* NULL: no memory */
void dtls_outbox_free(dtls_outbox *box);                                   /* what has not left is dropped, untold */
void dtls_outbox_clear(dtls_outbox *box);                                  /* the same, and the outbox goes on */
bool dtls_outbox_waits(const dtls_outbox *box, const dtls_sender *sender); /* a datagram of the sender waits */
/*
 * Copies a datagram. The order of a sender's datagrams is kept. fits: IP need not cut it. When there is no room, what is there
 * leaves first, but for what a full socket keeps waiting; false: there is no room even then, or that is the sender's socket (EAGAIN).
 */
bool dtls_outbox_add(dtls_outbox *box, dtls_sender *sender, dtls_route route, const void *data, size_t size, bool fits);
bool dtls_outbox_flush(dtls_outbox *box); /* false: a socket takes no more at the moment; its datagrams wait */
/* A sender whose socket took no more at the last flush, each once; NULL: no other one. */
dtls_sender *dtls_outbox_blocked(dtls_outbox *box);
/* The sender, or the socket, goes: what still waits there leaves now, or is dropped and told as EAGAIN. */
void dtls_outbox_end(dtls_outbox *box, dtls_sender *sender);
void dtls_outbox_end_socket(dtls_outbox *box, int fd);

#endif
