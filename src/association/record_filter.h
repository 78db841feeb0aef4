/* The record filter: what libssl may see of a datagram. */
#ifndef DTLS_ASSOCIATION_RECORD_FILTER_H
#define DTLS_ASSOCIATION_RECORD_FILTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "association/types.h"
#include "base/openssl.h"
#include "wire/record.h"

/* The size of the first record of a datagram, or of all of it when it is none. good: libssl may see it. */
size_t dtls_filter_record_untrusted(dtls_association *a, const uint8_t *data, size_t size, bool *good);
/* Removes from a datagram, in place, every record that can only do harm; returns what is left. */
size_t dtls_filter_datagram_untrusted(dtls_association *a, uint8_t *data, size_t size);

/* The shortest protected record of the suite in use or about to be: nonce and tag. 0: no suite yet. */
size_t dtls_filter_protected_min(const SSL *ssl);
enum { DTLS_FINISHED_SIZE = DTLS_HANDSHAKE_HEADER + 12 }; /* of every suite of TLS 1.2 (RFC 5246 §7.4.9) */

#endif
