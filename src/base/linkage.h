/* Which OpenSSL this is, and whether it is one usable copy. */
#ifndef DTLS_BASE_LINKAGE_H
#define DTLS_BASE_LINKAGE_H

#include <stddef.h>

/* A function of OpenSSL that the core imports, and the address that the dynamic linker bound it to; or one that libssl imports, and
   the version that it asks for. The Makefile writes the list; a static build has an empty one. */
typedef struct {
  const char *symbol, *version;
  const void *address;
} dtls_import;

extern const dtls_import dtls_imports[]; /* ends with a symbol of NULL */

/* "static" (inside the module), "host" (exported by the executable) or "shared". */
const char *dtls_linkage_name(void);
/* NULL when the OpenSSL in use is one usable copy, else a sentence (written to buf): what is wrong, what to do. */
const char *dtls_linkage_check(char *buf, size_t size);

#endif
