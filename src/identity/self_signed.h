/* Self-signed certificates. */
#ifndef DTLS_IDENTITY_SELF_SIGNED_H
#define DTLS_IDENTITY_SELF_SIGNED_H

#include <stdbool.h>

#include "base/openssl.h"
#include "binding/lua.h"

int dtls_selfsigned(lua_State *L); /* core.self_signed(options) */
/* type: as for core.self_signed, or a curve ("P-384"). Uses the key if there is one. The caller frees both, whatever is returned. */
bool dtls_selfsigned_nameless(const char *type, X509 **cert, EVP_PKEY **key);

#endif
