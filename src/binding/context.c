/*
 * Contexts as Lua objects. core.context reads its options in the order in which OpenSSL wants to hear of them. Which suites,
 * groups and versions are good is said in lua/dtls/context.lua, and lua/dtls/options.lua has the types: nothing is checked twice.
 */
#include "binding/context.h"

#include "association/association.h"
#include "binding/error.h"
#include "binding/settings.h"
#include "identity/context.h"

static const char TYPE[] = "dtls.context";

enum { DEFAULT_SESSION_TIMEOUT = 300 }; /* s */

/* ── options, of the table at index 2 ── */

/* The bytes are NULL without the option. Its table keeps a string alive; nothing would keep the text of a number. */
static dtls_text text_option(lua_State *L, const char *name) {
  dtls_text text = {.size = 0};
  lua_getfield(L, 2, name);
  if (lua_toboolean(L, -1)) {
    if (lua_type(L, -1) != LUA_TSTRING) luaL_error(L, "%s: expected a string", name);
    text.bytes = lua_tolstring(L, -1, &text.size);
  }
  lua_pop(L, 1);
  return text;
}

static const char *string_option(lua_State *L, const char *name) { return text_option(L, name).bytes; }

static bool boolean_option(lua_State *L, const char *name) {
  lua_getfield(L, 2, name);
  bool value = lua_toboolean(L, -1);
  lua_pop(L, 1);
  return value;
}

/* Pushes the list (or nil) of that name; returns its length. */
static size_t push_list(lua_State *L, const char *name) {
  lua_getfield(L, 2, name);
  return lua_istable(L, -1) ? lua_objlen(L, -1) : 0;
}

/* The i-th text of the list at index, which keeps it alive; for what is not a string an empty one, which no option takes. */
static dtls_text text_of_list(lua_State *L, int index, size_t i) {
  dtls_text text = {.bytes = ""};
  lua_rawgeti(L, index, (int)i);
  if (lua_type(L, -1) == LUA_TSTRING) text.bytes = lua_tolstring(L, -1, &text.size);
  lua_pop(L, 1);
  return text;
}

typedef bool taker(SSL_CTX *ctx, const char *bytes, size_t size, dtls_failure *f);

/* Gives each text of a list to a function. */
static bool take_list(lua_State *L, SSL_CTX *ctx, const char *name, taker *take, dtls_failure *f) {
  size_t count = push_list(L, name);
  bool ok = true;
  for (size_t i = 1; i <= count && ok; i++) {
    dtls_text text = text_of_list(L, lua_gettop(L), i);
    ok = take(ctx, text.bytes, text.size, f);
  }
  lua_pop(L, 1);
  return ok;
}

static bool take_identities(lua_State *L, SSL_CTX *ctx, dtls_failure *f) {
  const char *passphrase = string_option(L, "passphrase");
  size_t certs = push_list(L, "cert"), keys = push_list(L, "key");
  int top = lua_gettop(L);
  bool alone = certs == 0 && boolean_option(L, "raw_public_key");
  bool ok = alone || certs == keys || dtls_fail_config(f, "cert and key come in pairs");
  for (size_t i = 1; i <= keys && ok; i++) {
    dtls_text key = text_of_list(L, top, i);
    ok = alone ? dtls_context_use_key(ctx, key, passphrase, f)
               : dtls_context_use_identity(ctx, text_of_list(L, top - 1, i), key, passphrase, f);
  }
  lua_pop(L, 2);
  return ok;
}

/* Where time_t has 32 bits, time ends in 2038: a later one would turn into another. */
static bool take_verify_time(lua_State *L, dtls_verify_policy *policy, dtls_failure *f) {
  const lua_Number end = sizeof(time_t) > sizeof(int32_t) ? 0x1p53 : INT32_MAX;
  lua_getfield(L, 2, "verify_time");
  lua_Number time = lua_isnumber(L, -1) ? lua_tonumber(L, -1) : -1;
  policy->ignores_dates = lua_isboolean(L, -1) && !lua_toboolean(L, -1);
  lua_pop(L, 1);
  if (time > end) return dtls_fail_config(f, "verifyTime: this system knows no time after 2038");
  policy->time = (time_t)time;
  return true;
}

static bool take_verification(lua_State *L, SSL_CTX *ctx, dtls_failure *f) {
  dtls_verify_policy policy = {.request = boolean_option(L, "request_cert"),
                               .reject = boolean_option(L, "reject"),
                               .asks = boolean_option(L, "asks_verify"),
                               .partial_chain = boolean_option(L, "partial_chain")};
  if (!take_verify_time(L, &policy, f)) return false;
  if (!take_list(L, ctx, "ca", dtls_verify_add_ca, f) || !take_list(L, ctx, "crl", dtls_verify_add_crl, f))
    return false;
  /* Without reject every peer is taken, and said to be unauthorized. */
  if (boolean_option(L, "system_ca") && !dtls_verify_use_system_store(ctx, policy.reject, f)) return false;
  if (!take_list(L, ctx, "pins", dtls_verify_pin, f)) return false;
  dtls_verify_use(ctx, &policy);
  return true;
}

/* The list ('raw', 'x509') of that name. */
static dtls_certificate_types types_option(lua_State *L, const char *name) {
  static const char *const names[] = {"raw", "x509", NULL};
  static const uint8_t types[] = {TLSEXT_cert_type_rpk, TLSEXT_cert_type_x509};
  dtls_certificate_types found = {.count = 0};
  size_t count = push_list(L, name);
  for (size_t i = 1; i <= count && i <= sizeof found.type; i++) {
    lua_rawgeti(L, -1, (int)i);
    found.type[found.count++] = types[luaL_checkoption(L, -1, NULL, names)];
    lua_pop(L, 1);
  }
  lua_pop(L, 1);
  return found;
}

static bool take_raw_public_keys(lua_State *L, SSL_CTX *ctx, dtls_failure *f) {
  if (!boolean_option(L, "raw_public_key")) return true;
  dtls_certificate_types own = types_option(L, "own_types"), peer = types_option(L, "peer_types");
  return dtls_raw_public_key_use(ctx, &own, &peer, f) && take_list(L, ctx, "key_pins", dtls_raw_public_key_pin, f);
}

static bool take_psk(lua_State *L, SSL_CTX *ctx, dtls_failure *f) {
  dtls_text hint = text_option(L, "psk_hint");
  bool ok = true;
  lua_getfield(L, 2, "psk"); /* {identity = key}, or true */
  bool asks = lua_isboolean(L, -1) && lua_toboolean(L, -1);
  for (bool more = lua_istable(L, -1) && (lua_pushnil(L), lua_next(L, -2)); more; more = lua_next(L, -2)) {
    size_t identity_size, key_size;
    const char *identity = luaL_checklstring(L, -2, &identity_size), *key = luaL_checklstring(L, -1, &key_size);
    ok = dtls_psk_add(ctx, identity, identity_size, key, key_size, f);
    lua_pop(L, 1);
    if (!ok) break;
  }
  lua_settop(L, 3);
  dtls_psk_use(ctx, asks);
  return ok && (!hint.bytes || dtls_psk_set_hint(ctx, hint.bytes, hint.size, f));
}

static bool take_extensions(lua_State *L, SSL_CTX *ctx, dtls_failure *f) {
  const char *profiles = string_option(L, "srtp");
  long length = dtls_option_integer(L, 2, "max_fragment_length", 0, 512, 4096);
  return take_list(L, ctx, "alpn", dtls_alpn_add, f) && dtls_alpn_use(ctx, f) &&
         (!profiles || dtls_srtp_use(ctx, profiles, f)) && (length == 0 || dtls_fragment_length_use(ctx, length, f));
}

/* The list of ticket keys at index. */
static bool take_ticket_keys(lua_State *L, int index, SSL_CTX *ctx, dtls_failure *f) {
  const char *keys[2] = {NULL, NULL};
  size_t sizes[2] = {0, 0}, count = lua_objlen(L, index);
  for (size_t i = 0; i < count && i < 2; i++) {
    dtls_text key = text_of_list(L, index, i + 1);
    keys[i] = key.bytes;
    sizes[i] = key.size;
  }
  return dtls_session_set_ticket_keys(ctx, keys, sizes, count, f);
}

static bool take_sessions(lua_State *L, SSL_CTX *ctx, dtls_failure *f) {
  dtls_text policy = text_option(L, "session_context");
  long timeout = dtls_option_integer(L, 2, "session_timeout", DEFAULT_SESSION_TIMEOUT, 1, 24L * 60 * 60);
  if (!dtls_session_use(ctx, policy.bytes ? policy.bytes : "", policy.size, timeout, f)) return false;
  bool ok = push_list(L, "ticket_keys") == 0 || take_ticket_keys(L, lua_gettop(L), ctx, f);
  lua_pop(L, 1);
  return ok;
}

static bool take_keylog(lua_State *L, SSL_CTX *ctx, dtls_failure *f) {
  return dtls_keylog_use(ctx, string_option(L, "keylog_file"), boolean_option(L, "keylog_event"), f);
}

static bool take_flags(lua_State *L, SSL_CTX *ctx, dtls_failure *f) {
  dtls_target target = {.ctx = ctx};
  uint64_t bits;
  bool ok = true;
  if (push_list(L, "options") > 0 &&
      (ok = dtls_settings_read_flags(L, lua_gettop(L), dtls_option_flags, "options", &bits, f)))
    dtls_settings_change_options(target, bits, true);
  if (ok && push_list(L, "modes") > 0 &&
      (ok = dtls_settings_read_flags(L, lua_gettop(L), dtls_mode_flags, "modes", &bits, f)))
    dtls_settings_set_modes(target, bits);
  lua_settop(L, 3);
  return ok;
}

static bool take_policy(lua_State *L, SSL_CTX *ctx, dtls_failure *f) {
  return dtls_context_use_policy(ctx, string_option(L, "ciphers"), string_option(L, "groups"),
                                 string_option(L, "sigalgs"), f);
}

/*
 * core.context('server'|'client', options) → context | nil, err
 * options, all optional: cert, key (lists of PEM, pairwise, or key alone), passphrase, ca, crl (lists of PEM), system_ca, pins (list
 * of 32-byte SHA-256 digests), raw_public_key, own_types, peer_types (lists of 'raw' and 'x509': what is shown, what is accepted, the
 * preferred one first), key_pins (as pins), request_cert, reject, asks_verify, partial_chain (booleans), verify_time (false or Unix
 * seconds), psk ({identity = key}, a client gives one; or true: association:answer_psk), psk_hint, ciphers, groups, sigalgs (OpenSSL's lists), options, modes (lists
 * of names), alpn (list), srtp (OpenSSL's list), max_fragment_length (a client's: 512 to 4096),
 * ticket_keys (one or two of 80 bytes), session_timeout (s), session_context (bytes: what else decides who may resume),
 * keylog_event, keylog_file.
 */
int dtls_context_new(lua_State *L) {
  static const char *const roles[] = {"server", "client", NULL};
  static bool (*const takers[])(lua_State *, SSL_CTX *, dtls_failure *) = {
      take_identities, take_verification, take_raw_public_keys, take_psk,   take_extensions,
      take_sessions,   take_keylog,       take_flags,           take_policy};
  bool server = luaL_checkoption(L, 1, NULL, roles) == 0;
  luaL_checktype(L, 2, LUA_TTABLE);
  lua_settop(L, 2);
  ERR_clear_error();
  dtls_box *box = dtls_box_push(L, TYPE);
  SSL_CTX *ctx = box->object = dtls_context_make(server);
  dtls_failure f;
  if (!ctx) return dtls_error_openssl(L, "ERR_DTLS_CONFIG", "cannot make a context");
  if (server) dtls_association_prepare(ctx);
  for (size_t i = 0; i < sizeof takers / sizeof *takers; i++)
    if (!takers[i](L, ctx, &f)) return dtls_error_push(L, &f);
  return 1;
}

SSL_CTX *dtls_context_self(lua_State *L) { return dtls_check(L, 1, TYPE); }

SSL_CTX *dtls_context_check(lua_State *L, int index, bool server) {
  SSL_CTX *ctx = dtls_check(L, index, TYPE);
  if (dtls_config_of(ctx)->server != server)
    luaL_argerror(L, index, server ? "expected a context for servers" : "expected a context for clients");
  return ctx;
}

static int context_gc(lua_State *L) {
  dtls_box *box = dtls_box_test(L, 1, TYPE); /* the collector must not be interrupted by an error */
  if (!box) return 0;
  SSL_CTX_free(box->object);
  box->object = NULL;
  return 0;
}

/* context:set_ticket_keys({current[, previous]}) → true | nil, err: 80 bytes each (SSL_CTX_set_tlsext_ticket_keys) */
static int context_set_ticket_keys(lua_State *L) {
  SSL_CTX *ctx = dtls_context_self(L);
  dtls_failure f;
  luaL_checktype(L, 2, LUA_TTABLE);
  if (!take_ticket_keys(L, 2, ctx, &f)) return dtls_error_push(L, &f);
  return dtls_done(L);
}

void dtls_context_init(lua_State *L) {
  static const luaL_Reg methods[] = {{"set_ticket_keys", context_set_ticket_keys}, {"__gc", context_gc}, {NULL, NULL}};
  dtls_register(L, TYPE, methods);
  dtls_register(L, TYPE, dtls_context_settings);
}
