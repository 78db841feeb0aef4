/* Failures as Lua values. Each function but dtls_error_new pushes nil and an error object and returns 2. */
#ifndef DTLS_BINDING_ERROR_H
#define DTLS_BINDING_ERROR_H

#include "base/failure.h"
#include "binding/lua.h"

void dtls_error_init(lua_State *L);
int dtls_error_push(lua_State *L, const dtls_failure *f);
int dtls_error(lua_State *L, const char *code, const char *format, ...) __attribute__((format(printf, 3, 4)));
int dtls_error_system(lua_State *L, int number, const char *what);
/* the oldest entry of the error queue; clears it */
int dtls_error_openssl(lua_State *L, const char *code, const char *what);
int dtls_error_new(lua_State *L); /* core.error(code, message[, fields]) */

#endif
