/*
 * A BIO for the connected UDP socket of a client, which is faster than the server that it loads: datagrams come by recvmmsg and UDP
 * GRO, and those that are equally long leave together by UDP GSO. Clients take turns: only one of them reads and writes at a time.
 */
#ifndef BENCH_BATCH_H
#define BENCH_BATCH_H

#include <openssl/bio.h>

BIO *batch_bio(int fd);

/* Begins a client's turn, in which its socket is read once, and forgets what the last one has not read. */
void batch_begin(void);

/* Sends what the client has written. libssl calls this at the end of a flight, and the client does after its messages. */
void batch_flush(int fd);

#endif
