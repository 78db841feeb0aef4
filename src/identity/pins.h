/* SHA-256 digests that pin a peer's certificate or its public key. */
#ifndef DTLS_IDENTITY_PINS_H
#define DTLS_IDENTITY_PINS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/failure.h"
#include "identity/certificate.h"

typedef struct {
  size_t count;
  uint8_t (*digest)[DTLS_DIGEST_SIZE];
} dtls_pins;

bool dtls_pins_add(dtls_pins *pins, const char digest[DTLS_DIGEST_SIZE], dtls_failure *f);
bool dtls_pins_have(const dtls_pins *pins, const uint8_t digest[DTLS_DIGEST_SIZE]);
void dtls_pins_free(dtls_pins *pins); /* what it owns */

#endif
