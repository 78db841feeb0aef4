/* Certificates as tables and as texts. */
#ifndef DTLS_IDENTITY_CERTIFICATE_H
#define DTLS_IDENTITY_CERTIFICATE_H

#include <stdbool.h>

#include "base/openssl.h"
#include "binding/lua.h"

void dtls_certificate_init(lua_State *L);
/* A memory BIO that the collector frees, since Lua may raise at any push; NULL: none. One value is pushed in any case. */
BIO *dtls_certificate_push_scratch(lua_State *L);
/* Sets a field of the table on top to what has been written to a memory BIO, which is emptied. */
void dtls_certificate_set_written(lua_State *L, BIO *scratch, const char *field);
enum { DTLS_FINGERPRINT_SIZE = EVP_MAX_MD_SIZE * 3 + 1 };
bool dtls_certificate_fingerprint(const X509 *cert, const EVP_MD *digest, char out[DTLS_FINGERPRINT_SIZE]);
/* Writes "DNS:a.example, IP Address:192.0.2.1", ASCII whatever is in the names. False: there are none. */
bool dtls_certificate_write_alt_names(BIO *out, const X509 *cert);
/* Pushes a table with Node's fields, of the one that was refused if one was; whole: with issuerCertificate as far as the
   peer's chain goes. False: there is none, or no memory for all of it. */
bool dtls_certificate_push(lua_State *L, const SSL *ssl, bool whole);

#endif
