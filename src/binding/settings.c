/* OpenSSL's setters for Lua: lists of names in and out. */
#include "binding/settings.h"

#include "binding/association.h"
#include "binding/context.h"
#include "binding/error.h"

/* ── lists of names ── */

bool dtls_settings_read_flags(lua_State *L, int index, const dtls_flag *table, const char *what, uint64_t *bits,
                              dtls_failure *f) {
  bool ok = true;
  *bits = 0;
  for (size_t i = 1, count = lua_objlen(L, index); i <= count && ok; i++) {
    lua_rawgeti(L, index, (int)i);
    ok = dtls_flag_find(table, luaL_checkstring(L, -1), what, bits, f);
    lua_pop(L, 1);
  }
  return ok;
}

static int push_flags(lua_State *L, const dtls_flag *table, uint64_t bits) {
  int count = 0;
  lua_newtable(L);
  for (const dtls_flag *each = table; each->name; each++) {
    if (each->bits == 0 || (bits & each->bits) != each->bits) continue;
    lua_pushstring(L, each->name);
    lua_rawseti(L, -2, ++count);
  }
  return 1;
}

/* ── the methods ── */

static int change_options(lua_State *L, dtls_target t, bool on) {
  uint64_t bits;
  dtls_failure f;
  luaL_checktype(L, 2, LUA_TTABLE);
  if (!dtls_settings_read_flags(L, 2, dtls_option_flags, "options", &bits, &f)) return dtls_error_push(L, &f);
  dtls_settings_change_options(t, bits, on);
  return dtls_done(L);
}

static int set_options(lua_State *L, dtls_target t) { return change_options(L, t, true); }
static int clear_options(lua_State *L, dtls_target t) { return change_options(L, t, false); }
static int get_options(lua_State *L, dtls_target t) {
  return push_flags(L, dtls_option_flags, dtls_settings_options(t));
}

static int set_modes(lua_State *L, dtls_target t) {
  uint64_t bits;
  dtls_failure f;
  luaL_checktype(L, 2, LUA_TTABLE);
  if (!dtls_settings_read_flags(L, 2, dtls_mode_flags, "modes", &bits, &f)) return dtls_error_push(L, &f);
  dtls_settings_set_modes(t, bits);
  return dtls_done(L);
}

static int get_modes(lua_State *L, dtls_target t) { return push_flags(L, dtls_mode_flags, dtls_settings_modes(t)); }

/* set_verify(modes or nil, depth or nil). With modes, a peer whose certificate does not verify is refused from then on. */
static int set_verify(lua_State *L, dtls_target t) {
  uint64_t bits = 0;
  dtls_failure f;
  int depth = (int)luaL_optinteger(L, 3, -1);
  if (!lua_isnoneornil(L, 2)) {
    luaL_checktype(L, 2, LUA_TTABLE);
    if (!dtls_settings_read_flags(L, 2, dtls_verify_flags, "mode", &bits, &f)) return dtls_error_push(L, &f);
    dtls_settings_set_verify(t, bits);
  }
  if (depth >= 0) dtls_settings_set_verify_depth(t, depth);
  return dtls_done(L);
}

/* get_verify() → modes, depth (-1: OpenSSL's own limit) */
static int get_verify(lua_State *L, dtls_target t) {
  int depth;
  push_flags(L, dtls_verify_flags, dtls_settings_verify(t, &depth));
  lua_pushinteger(L, depth);
  return 2;
}

typedef bool setter(dtls_target t, const char *list, dtls_failure *f);

static int set_list(lua_State *L, dtls_target t, setter *set) {
  const char *list = luaL_checkstring(L, 2);
  dtls_failure f;
  return set(t, list, &f) ? dtls_done(L) : dtls_error_push(L, &f);
}

static int set_ciphers(lua_State *L, dtls_target t) { return set_list(L, t, dtls_settings_set_ciphers); }
static int set_groups(lua_State *L, dtls_target t) { return set_list(L, t, dtls_settings_set_groups); }
static int set_sigalgs(lua_State *L, dtls_target t) { return set_list(L, t, dtls_settings_set_sigalgs); }

static int get_ciphers(lua_State *L, dtls_target t) {
  STACK_OF(SSL_CIPHER) *suites = dtls_settings_suites(t);
  int count = 0;
  lua_newtable(L);
  for (int i = 0; i < sk_SSL_CIPHER_num(suites); i++) {
    const SSL_CIPHER *suite = sk_SSL_CIPHER_value(suites, i);
    /* libssl's list always has the suites of TLS 1.3 */
    if (!SSL_CIPHER_is_aead(suite) || SSL_CIPHER_get_kx_nid(suite) == NID_kx_any) continue;
    lua_pushstring(L, SSL_CIPHER_get_name(suite));
    lua_rawseti(L, -2, ++count);
  }
  return 1;
}

/* ── the methods of both objects ── */

static dtls_target of_context(lua_State *L) { return (dtls_target){.ctx = dtls_context_self(L)}; }

static dtls_target of_association(lua_State *L) {
  SSL *ssl = dtls_association_check(L, 1)->ssl;
  return (dtls_target){.ctx = SSL_get_SSL_CTX(ssl), .ssl = ssl};
}

/* clang-format off */
#define SETTINGS(X) \
  X(set_options) X(clear_options) X(get_options) X(set_modes) X(get_modes) X(set_verify) X(get_verify) X(set_ciphers) \
  X(get_ciphers) X(set_groups) X(set_sigalgs)

#define X(name) \
  static int context_##name(lua_State *L) { return name(L, of_context(L)); } \
  static int association_##name(lua_State *L) { return name(L, of_association(L)); }
SETTINGS(X)
#undef X
/* clang-format on */

const luaL_Reg dtls_context_settings[] = {
#define X(name) {#name, context_##name},
    SETTINGS(X)
#undef X
        {NULL, NULL}};

const luaL_Reg dtls_association_settings[] = {
#define X(name) {#name, association_##name},
    SETTINGS(X)
#undef X
        {NULL, NULL}};
