/* The filter BIO between libssl and the dgram BIO. */
#ifndef DTLS_ASSOCIATION_RECORD_FILTER_H
#define DTLS_ASSOCIATION_RECORD_FILTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/counters.h"
#include "base/openssl.h"
#include "association/types.h"
#include "wire/record.h"

/* Where libssl's datagrams come from. */
typedef struct {
  const uint8_t *data; /* a datagram that was handed in; valid until the endpoint takes its next one */
  size_t size;
  bool reads_socket;       /* false: only datagrams handed in are read */
  unsigned reads_left;     /* of its socket, until it wants to read again; libssl itself goes on after a forged record */
  unsigned unread;         /* protected records with data that libssl got since it last had nothing more to say */
  size_t protected_min;    /* once open: the shortest protected record */
  uint64_t epoch0_number;  /* of the last record of epoch 0 that libssl has got */
} dtls_input;

/* What becomes of the datagrams that libssl writes. */
typedef struct {
  uint64_t epoch0_shift; /* what is added to the numbers of records of epoch 0 */
  bool rehearses;        /* the cookie exchange: what libssl writes is not sent (listener.c) */
  bool silent;           /* nothing is sent until the peer goes on with this handshake (dtls_path_silence) */
  int write_error;       /* errno of the last datagram that did not leave */
} dtls_output;

BIO *dtls_filter_new(dtls_association *a);
ssize_t dtls_filter_put(dtls_association *a, const char *data, size_t size); /* a datagram to its peer, like send(2) */
dtls_drop dtls_filter_reason(int number); /* what a failed system call on a socket counts as */
bool dtls_filter_is_final(int number);    /* the socket is beyond use */
/* The size of the first record of a datagram, or of all of it when it is none. good: libssl may see it. */
size_t dtls_filter_record_untrusted(dtls_association *a, const uint8_t *data, size_t size, bool *good);
/* Removes from a datagram, in place, every record that can only do harm; returns what is left. */
size_t dtls_filter_filter_untrusted(dtls_association *a, uint8_t *data, size_t size);

void dtls_filter_collect(dtls_association *a); /* keeps what has arrived until the question is answered */

/* The shortest protected record of the suite in use or about to be: nonce and tag. 0: no suite yet. */
size_t dtls_filter_protected_min(const SSL *ssl);
enum { DTLS_FINISHED_SIZE = DTLS_HANDSHAKE_HEADER + 12 }; /* of every suite of TLS 1.2 (RFC 5246 §7.4.9) */

#endif
