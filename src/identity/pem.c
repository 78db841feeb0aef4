/* PEM texts: as a BIO, their passphrase, and the end of a text with several objects. */
#include "identity/pem.h"

#include <limits.h>
#include <string.h>

BIO *dtls_pem_open(const char *text, size_t size) { return size <= INT_MAX ? BIO_new_mem_buf(text, (int)size) : NULL; }

int dtls_pem_passphrase(char *buffer, int size, int writing, void *secret) {
  const char *given = secret;
  size_t length = given ? strlen(given) : 0;
  (void)writing;
  if (!given || length > (size_t)size) return -1;
  memcpy(buffer, given, length);
  return (int)length;
}

bool dtls_pem_at_end(void) {
  unsigned long error = ERR_peek_last_error();
  if (ERR_GET_LIB(error) != ERR_LIB_PEM || ERR_GET_REASON(error) != PEM_R_NO_START_LINE) return false;
  ERR_clear_error();
  return true;
}
