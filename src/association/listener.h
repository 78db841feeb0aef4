/* What a ClientHello gets: silence, a HelloVerifyRequest, or an association. */
#ifndef DTLS_ASSOCIATION_LISTENER_H
#define DTLS_ASSOCIATION_LISTENER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "association/types.h"
#include "base/openssl.h"
#include "wire/record.h"

/* Which hello made an association of a server. */
typedef struct {
  uint8_t random[DTLS_RANDOM_SIZE];
  /* one more than that of the association before it on its path whose hello had the same random, or 0 */
  uint16_t cookie_generation;
} dtls_origin;

void dtls_listener_prepare(SSL_CTX *ctx);
/* Looks at the current datagram, of the peer of that path (NULL: of a new peer): dropped, answered, or (true) verified.
   Nothing is kept of it. */
bool dtls_listener_hear_untrusted(dtls_endpoint *ep, const dtls_path *path);
/* Brings a new association to where it reads a verified hello, the datagram there. False: libssl failed. */
bool dtls_listener_begin_untrusted(dtls_association *a, const dtls_path *path, const uint8_t *data, size_t size);

#endif
