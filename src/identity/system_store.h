/* The authorities that this machine trusts. */
#ifndef DTLS_IDENTITY_SYSTEM_STORE_H
#define DTLS_IDENTITY_SYSTEM_STORE_H

#include <stddef.h>

#include "base/openssl.h"

/* Adds their certificates. NULL, or a sentence, in buf: there are none, and where they were looked for. */
const char *dtls_system_store_fill(X509_STORE *store, char *buf, size_t size);
/* Gives a context the store that all contexts of this process share, which nobody adds to. It is filled anew when a file or
   folder that certificates are looked for in has changed. NULL, or a sentence, as above: the context keeps its own store. */
const char *dtls_system_store_share(SSL_CTX *ctx, char *buf, size_t size);

#endif
