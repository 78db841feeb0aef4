/* Sessions that resume associations, as bytes for Lua (i2d_SSL_SESSION). They hold the master secret. */
#include "binding/session.h"

#include "identity/session.h"

/* core.is_session(blob) → boolean: whether association:session() may have given it */
int dtls_session_is(lua_State *L) {
  size_t size;
  const char *blob = luaL_checklstring(L, 1, &size);
  SSL_SESSION *session = dtls_session_parse(blob, size);
  lua_pushboolean(L, session != NULL);
  SSL_SESSION_free(session);
  return 1;
}

int dtls_session_push(lua_State *L, SSL *ssl) {
  SSL_SESSION *session = dtls_session_of(ssl);
  int size = session ? i2d_SSL_SESSION(session, NULL) : 0;
  if (size <= 0) return 0;
  unsigned id_size;
  const unsigned char *id = SSL_SESSION_get_id(session, &id_size);
  lua_pushlstring(L, (const char *)id, id_size);
  unsigned char *p = lua_newuserdata(L, (size_t)size); /* so that it is freed whatever happens */
  unsigned char *blob = p;
  i2d_SSL_SESSION(session, &p);
  lua_pushlstring(L, (const char *)blob, (size_t)size);
  OPENSSL_cleanse(blob, (size_t)size);
  lua_remove(L, -2);
  return 2;
}
