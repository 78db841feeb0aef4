/*
 * The last OpenSSL before 3.0, as far as it tells its version; linked in front of the real one, whose definitions of
 * these two functions lose.
 */
#include <openssl/crypto.h>

unsigned long OpenSSL_version_num(void) { return 0x1010117fL; }

const char *OpenSSL_version(int type) {
  (void)type;
  return "OpenSSL 1.1.1w  11 Sep 2023";
}
