/* Plaintext records of a handshake wait for their turn. */
#ifndef DTLS_ASSOCIATION_REASSEMBLY_H
#define DTLS_ASSOCIATION_REASSEMBLY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "association/types.h"
#include "wire/record.h"

typedef struct dtls_reassembly dtls_reassembly;

/* Type and length of a handshake message: its first four bytes. */
static inline uint32_t dtls_message_shape(const uint8_t *message) { return (uint32_t)message[0] << 24 | dtls_u24(message + 1); }

void dtls_reassembly_watch(dtls_association *a); /* knows from then on which message libssl reads next */
void dtls_reassembly_completed(dtls_association *a);
void dtls_reassembly_free(dtls_association *a);
bool dtls_reassembly_take(dtls_association *a, const uint8_t *data, size_t size); /* a datagram; false: out of memory */
bool dtls_reassembly_pending(const dtls_association *a); /* there is more that libssl can read now */
/* For an open association, one after the other: what came before Finished, and what is left of the datagram with Finished. */
size_t dtls_reassembly_rest(dtls_association *a, uint8_t *out, size_t capacity);
/* The next record of it that libssl may read now; 0: there is none. */
size_t dtls_reassembly_next_untrusted(dtls_association *a, uint8_t *out, size_t capacity);
/* The same of what came before its turn. */
size_t dtls_reassembly_waiting_untrusted(dtls_association *a, uint8_t *out, size_t capacity);

#endif
