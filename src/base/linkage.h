/* Which OpenSSL this is, and whether it is one usable copy. */
#ifndef DTLS_BASE_LINKAGE_H
#define DTLS_BASE_LINKAGE_H

#include <stddef.h>

/* The functions of OpenSSL that the core imports, and those that libssl does, NULL behind each list; the Makefile writes them. A
   static build has none. */
extern const char *const dtls_imports[], *const dtls_libssl_imports[];

/* "static" (inside the module), "host" (exported by the executable) or "shared". */
const char *dtls_linkage_name(void);
/* NULL when the OpenSSL in use is one usable copy, else a sentence (written to buf): what is wrong, what to do. */
const char *dtls_linkage_check(char *buf, size_t size);

#endif
