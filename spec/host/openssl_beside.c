/*
 * A second libcrypto, which the symbol versions keep apart from the first: a function that the core imports, and one that libssl
 * alone imports.
 */
#include <openssl/comp.h>
#include <openssl/err.h>

void ERR_clear_error(void) {}

const char *COMP_get_name(const COMP_METHOD *method) {
  (void)method;
  return NULL;
}
