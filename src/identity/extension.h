/* ALPN (RFC 7301), SRTP (RFC 5764) and the longest fragment (RFC 6066 §4). */
#ifndef DTLS_IDENTITY_EXTENSION_H
#define DTLS_IDENTITY_EXTENSION_H

#include "base/openssl.h"
#include "identity/context.h"

dtls_option_taker dtls_extension_take;
void dtls_extension_free(dtls_config *c);
int dtls_extension_alpn(lua_State *L, const SSL *ssl); /* pushes the protocol or nothing; returns how many */
int dtls_extension_srtp(lua_State *L, SSL *ssl);

#endif
