/* The filter BIO between libssl and the datagram BIO: where datagrams come from, and what becomes of those that libssl writes. */
#ifndef DTLS_ASSOCIATION_BIO_H
#define DTLS_ASSOCIATION_BIO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "association/types.h"
#include "base/counters.h"
#include "base/openssl.h"
#include "net/outbox.h"

/* Where libssl's datagrams come from. */
typedef struct {
  const uint8_t *data; /* a datagram that was handed in; valid until the endpoint takes its next one */
  size_t size;
  /* of a client: datagrams that this call may still read from its socket; libssl itself reads on after a forged record */
  unsigned reads_left;
  int socket_error;       /* errno: the socket is beyond use, which the next call is told */
  unsigned unread;        /* protected records with data that libssl got since it last had nothing more to say */
  size_t protected_min;   /* once open: the shortest protected record */
  uint64_t epoch0_number; /* of the last record of epoch 0 that libssl has got */
} dtls_input;

/* What becomes of the datagrams that libssl writes. */
typedef struct {
  uint64_t epoch0_shift; /* what is added to the numbers of records of epoch 0 */
  bool rehearses;        /* the cookie exchange: what libssl writes is not sent (listener.c) */
  bool silent;           /* nothing is sent until the peer goes on with this handshake (dtls_path_silence) */
  bool awaits_room;      /* it has asked, and was not told (dtls_intake_await_room) */
  int write_error;       /* errno of the last datagram that did not leave */
  dtls_deferral *deferral;
  dtls_sender sender; /* of the deferral's outbox */
} dtls_output;

BIO *dtls_bio_new(dtls_association *a);
/* A datagram to its peer, counted. False: errno says why. */
bool dtls_bio_put(dtls_association *a, const char *data, size_t size);
/* A datagram that was to leave did not, or ICMP says so: errno. */
void dtls_bio_failed(dtls_association *a, int number);
void dtls_bio_collect(dtls_association *a); /* keeps what has arrived until the question is answered */

dtls_drop dtls_socket_drop_reason(int number); /* what a failed system call on a socket counts as */
bool dtls_socket_is_final(int number);         /* the socket is beyond use */

#endif
