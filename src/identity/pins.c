/* Pins as a list that grows while a context is made, and does not change after that. */
#include "identity/pins.h"

#include <string.h>

bool dtls_pins_add(dtls_pins *pins, const char digest[DTLS_DIGEST_SIZE], dtls_failure *f) {
  void *grown = OPENSSL_realloc(pins->digest, (pins->count + 1) * sizeof *pins->digest);
  if (!grown) return dtls_fail_config(f, "out of memory");
  pins->digest = grown;
  memcpy(pins->digest[pins->count++], digest, DTLS_DIGEST_SIZE);
  return true;
}

bool dtls_pins_have(const dtls_pins *pins, const uint8_t digest[DTLS_DIGEST_SIZE]) {
  for (size_t i = 0; i < pins->count; i++)
    if (memcmp(pins->digest[i], digest, DTLS_DIGEST_SIZE) == 0) return true;
  return false;
}

void dtls_pins_free(dtls_pins *pins) { OPENSSL_free(pins->digest); }
