/* Certificates and public keys for Lua. */
#ifndef DTLS_BINDING_CERTIFICATE_H
#define DTLS_BINDING_CERTIFICATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/openssl.h"
#include "binding/lua.h"

void dtls_certificate_init(lua_State *L);
/* Pushes a table with Node's fields, of the one that was refused if one was; whole: with issuerCertificate as far as the
   peer's chain goes. False: there is none, or no memory for all of it. */
bool dtls_certificate_push(lua_State *L, const SSL *ssl, bool whole);
/* The same of what dtls_certificate_encode has written. */
bool dtls_certificate_push_der(lua_State *L, const uint8_t *der, size_t size, bool whole);
/* Pushes a table of the peer's public key, raw or of its certificate, the one that was refused if one was. False: as above. */
bool dtls_public_key_push(lua_State *L, const SSL *ssl);
/* The same of what dtls_certificate_encode has written. */
bool dtls_public_key_push_der(lua_State *L, const uint8_t *der, size_t size, bool raw);
int dtls_public_key_digests(lua_State *L);      /* core.public_keys(pem) */
int dtls_certificate_self_signed(lua_State *L); /* core.self_signed(options) */

#endif
