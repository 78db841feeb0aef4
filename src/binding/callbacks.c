/*
 * Questions that only the application can answer, for Lua: what handshake() gives of them, and the methods that answer.
 */
#include "binding/callbacks.h"

#include <string.h>

#include "association/association.h"
#include "binding/association.h"
#include "binding/context.h"
#include "binding/error.h"
#include "identity/psk.h"

static int push_hello(lua_State *L, const dtls_association *a) {
  const dtls_name *name = dtls_callback_name(a);
  size_t size;
  const uint8_t *id = dtls_callback_session_id(a, &size);
  lua_pushliteral(L, "ask_hello");
  if (!dtls_callback_is_name(a))
    lua_pushboolean(L, 0);
  else
    lua_pushstring(L, name ? name->text : NULL);
  if (id)
    lua_pushlstring(L, (const char *)id, size);
  else
    lua_pushnil(L);
  return 4;
}

static int push_psk(lua_State *L, const dtls_association *a) {
  size_t size;
  const char *identity = dtls_callback_identity(a, &size);
  lua_pushliteral(L, "ask_psk");
  if (identity)
    lua_pushlstring(L, identity, size);
  else
    lua_pushstring(L, SSL_get_psk_identity_hint(a->ssl));
  return 3;
}

int dtls_callback_push(lua_State *L, const dtls_association *a) {
  lua_pushnil(L);
  switch (dtls_callback_asked(a)) {
    case DTLS_ASK_HELLO: return push_hello(L, a);
    case DTLS_ASK_PSK: return push_psk(L, a);
    default: lua_pushliteral(L, "ask_verify"); return 2;
  }
}

static dtls_association *answering(lua_State *L, dtls_question question) {
  dtls_association *a = dtls_association_check(L, 1);
  if (dtls_callback_asked(a) != question) luaL_error(L, "nothing of the kind was asked");
  return a;
}

/*
 * association:answer_hello([context[, session]]) → true[, stale] | nil, err
 * The identity to use (nil: its own), and what the store had for the id. stale: the stored session can no longer be resumed.
 */
static int answer_hello(lua_State *L) {
  dtls_association *a = answering(L, DTLS_ASK_HELLO);
  SSL_CTX *ctx = lua_isnoneornil(L, 2) ? NULL : dtls_context_check(L, 2, true);
  size_t size = 0;
  const char *session = luaL_optlstring(L, 3, NULL, &size);
  bool stale;
  dtls_failure f;
  if (!dtls_callback_answer_hello(a, ctx, session, size, &stale, &f)) return dtls_error_push(L, &f);
  lua_pushboolean(L, 1);
  lua_pushboolean(L, stale);
  return 2;
}

/* association:refuse_hello(alert): 'unrecognized_name' or 'internal_error' */
static int refuse_hello(lua_State *L) {
  dtls_association *a = answering(L, DTLS_ASK_HELLO);
  static const char *const names[] = {"unrecognized_name", "internal_error", NULL};
  dtls_callback_refuse_hello(a, luaL_checkoption(L, 2, NULL, names) == 0 ? SSL_AD_UNRECOGNIZED_NAME
                                                                         : SSL_AD_INTERNAL_ERROR);
  return 0;
}

/* association:answer_psk([key[, identity]]): a client says its identity; a server's key is for the one that was asked. No key: refused. */
static int answer_psk(lua_State *L) {
  dtls_association *a = answering(L, DTLS_ASK_PSK);
  size_t key_size = 0, identity_size = 0;
  const char *key = luaL_optlstring(L, 2, NULL, &key_size), *identity = luaL_optlstring(L, 3, NULL, &identity_size);
  luaL_argcheck(L, !key || (key_size >= 1 && key_size <= PSK_MAX_PSK_LEN), 2, "a key has 1 to 512 bytes");
  luaL_argcheck(
      L, !key || a->server || (identity && identity_size <= DTLS_OWN_IDENTITY_MAX && strlen(identity) == identity_size),
      3, "an identity has at most 255 bytes and no NUL among them");
  dtls_callback_answer_psk(a, identity, identity_size, key, key_size);
  return 0;
}

/* association:refuse_psk(): the application's psk function has failed. A server's peer gets the alert internal_error. */
static int refuse_psk(lua_State *L) {
  dtls_callback_refuse_psk(answering(L, DTLS_ASK_PSK));
  return 0;
}

/* association:answer_verify(good[, strict]) → whether that ends the handshake. strict: a no does whatever its context says */
static int answer_verify(lua_State *L) {
  dtls_association *a = answering(L, DTLS_ASK_VERIFY);
  lua_pushboolean(L, dtls_callback_answer_verify(a, lua_toboolean(L, 2), lua_toboolean(L, 3)));
  return 1;
}

const luaL_Reg dtls_callback_methods[] = {{"answer_hello", answer_hello},   {"refuse_hello", refuse_hello},
                                          {"answer_psk", answer_psk},       {"refuse_psk", refuse_psk},
                                          {"answer_verify", answer_verify}, {NULL, NULL}};
