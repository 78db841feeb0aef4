/* OpenSSL's setters, for a context or for one association. */
#ifndef DTLS_IDENTITY_SETTINGS_H
#define DTLS_IDENTITY_SETTINGS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/openssl.h"
#include "binding/lua.h"
#include "identity/context.h"

typedef struct {
  SSL_CTX *ctx;
  SSL *ssl; /* NULL: the context itself */
} dtls_target;

typedef dtls_target dtls_target_check(lua_State *L); /* of the object at index 1 */
extern const luaL_Reg dtls_context_settings[], dtls_association_settings[];
dtls_option_taker dtls_settings_take;
/* NULL, or a sentence, perhaps in buf. */
const char *dtls_settings_ciphers(dtls_target t, const char *list, char *buf, size_t size);
bool dtls_settings_restore(SSL *ssl); /* what was set for it alone holds, whatever identity its name has got */

#endif
