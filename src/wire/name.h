/* What a peer may be called: a host name (RFC 1123 §2.1) or an IP address. */
#ifndef DTLS_WIRE_NAME_H
#define DTLS_WIRE_NAME_H

#include <stdbool.h>
#include <stddef.h>

#include "base/platform.h"

enum { DTLS_NAME_MAX = 253 }; /* of a host name without its final dot, RFC 1035 §2.3.4 */

typedef struct {
  int family; /* of an IP address; AF_UNSPEC: a host name, or none when size is 0 */
  size_t size;
  char text[DTLS_NAME_MAX + 1]; /* without a final dot, without a zone */
} dtls_name;

/* NULL, or what is wrong with the text, which then is no name. A zone must be the name of an interface. */
const char *dtls_name_parse_untrusted(const char *text, size_t size, dtls_name *out);
/* The host that a server_name extension names, in lower case; none for an IP address, which RFC 6066 §3 does not allow.
   False: it is no name, and out has none. */
bool dtls_name_of_client_untrusted(const char *text, size_t size, dtls_name *out);

#endif
