/* Reading PEM: the passphrase that was given or none, and the end of a text with several objects. */
#include "identity/pem.h"

#include <string.h>

#include "base/openssl.h"

int dtls_no_passphrase(char *buffer, int size, int writing, void *secret) {
  const char *given = secret;
  size_t length = given ? strlen(given) : 0;
  (void)writing;
  if (!given || length > (size_t)size) return -1;
  memcpy(buffer, given, length);
  return (int)length;
}

bool dtls_at_end_of_pem(void) {
  unsigned long error = ERR_peek_last_error();
  if (ERR_GET_LIB(error) != ERR_LIB_PEM || ERR_GET_REASON(error) != PEM_R_NO_START_LINE) return false;
  ERR_clear_error();
  return true;
}
