/* Failures as Lua values: OpenSSL's queue and errno as error objects. */
#ifndef DTLS_BINDING_ERROR_H
#define DTLS_BINDING_ERROR_H

#include <stddef.h>

#include "binding/lua.h"

void dtls_error_init(lua_State *L);
/* Each pushes nil and an error object {code, message[, reason][, alert]} and returns 2. The message is bounded: what comes
   from the network may be in it, as dtls_error_push_text makes it. */
int dtls_error(lua_State *L, const char *code, const char *format, ...) __attribute__((format(printf, 3, 4)));
int dtls_error_system(lua_State *L, int number, const char *what);
int dtls_error_alert(lua_State *L, int description);
int dtls_error_warning(lua_State *L, int description); /* an alert that should not, but did end an association */
/* detail: what was wanted and what came, or NULL. */
int dtls_error_certificate(lua_State *L, long verify_result, const char *detail);
/* The error on top also tells of an alert (≥ 0), else of an errno, that nobody has authenticated and that was not believed. */
void dtls_error_add_seen(lua_State *L, int alert, int number);
/* Pushes bytes of anybody for a message: in quotes, without anything that is not printable, cut where they are long. */
void dtls_error_push_text(lua_State *L, const char *bytes, size_t size);
int dtls_error_openssl(lua_State *L, const char *code, const char *what); /* the oldest entry of the queue; clears it */
const char *dtls_error_verify_name(long verify_result);
int dtls_error_new(lua_State *L); /* core.error(code, message[, fields]) */
int dtls_fork_error(lua_State *L); /* pushes nil and the error of an association of the parent */

#endif
