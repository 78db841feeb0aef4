/*
 * For LD_PRELOAD: overrides a function that libssl takes from libcrypto and our module does not use at all.
 */
#include <openssl/comp.h>

const char *COMP_get_name(const COMP_METHOD *method) {
  (void)method;
  return NULL;
}
