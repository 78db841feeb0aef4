/*
 * OpenSSL's setters by its own names: options, modes, verification, suites, groups, signature algorithms, for a
 * context or for one association. A setter that fails leaves everything as it was.
 */
#include "identity/settings.h"

#include <stdio.h>
#include <string.h>

#include "binding/association.h"
#include "binding/error.h"
#include "identity/opener.h"
#include "identity/peer.h"

typedef struct {
  const char *name;
  uint64_t bits;
  const char *why; /* it may not be changed; NULL: it may */
} flag;

#define FLAG(prefix, name) {#name, (uint64_t)prefix##name, NULL}
#define FIXED(prefix, name, why) {#name, (uint64_t)prefix##name, why}

static const flag options[] = {
    FLAG(SSL_OP_, NO_EXTENDED_MASTER_SECRET), FLAG(SSL_OP_, CLEANSE_PLAINTEXT), FLAG(SSL_OP_, LEGACY_SERVER_CONNECT),
    FLAG(SSL_OP_, TLSEXT_PADDING), FLAG(SSL_OP_, DISABLE_TLSEXT_CA_NAMES), FLAG(SSL_OP_, NO_TICKET),
    FLAG(SSL_OP_, CISCO_ANYCONNECT), FLAG(SSL_OP_, NO_SESSION_RESUMPTION_ON_RENEGOTIATION), FLAG(SSL_OP_, NO_ENCRYPT_THEN_MAC),
    FLAG(SSL_OP_, PRIORITIZE_CHACHA), FLAG(SSL_OP_, CIPHER_SERVER_PREFERENCE), FLAG(SSL_OP_, CRYPTOPRO_TLSEXT_BUG),
    FLAG(SSL_OP_, SAFARI_ECDHE_ECDSA_BUG), FLAG(SSL_OP_, TLS_ROLLBACK_BUG), FLAG(SSL_OP_, NO_DTLSv1),
    FIXED(SSL_OP_, NO_COMPRESSION, "compression leaks plaintext by its length (CRIME)"),
    FIXED(SSL_OP_, NO_QUERY_MTU, "the MTU is this module's own business, see mtu and linkMtu"),
    FIXED(SSL_OP_, COOKIE_EXCHANGE, "every peer proves its address already, and libssl sets it itself"),
    FIXED(SSL_OP_, NO_RENEGOTIATION, "renegotiation is not supported"),
    FIXED(SSL_OP_, ALLOW_CLIENT_RENEGOTIATION, "renegotiation is not supported"),
    FIXED(SSL_OP_, ALLOW_UNSAFE_LEGACY_RENEGOTIATION, "renegotiation is not supported"),
    FIXED(SSL_OP_, NO_DTLSv1_2, "DTLS 1.2 is the one version"),
    {NULL, 0, NULL}};

static const flag modes[] = {FLAG(SSL_MODE_, ENABLE_PARTIAL_WRITE), FLAG(SSL_MODE_, ACCEPT_MOVING_WRITE_BUFFER),
                             FLAG(SSL_MODE_, AUTO_RETRY), FLAG(SSL_MODE_, NO_AUTO_CHAIN),
                             FLAG(SSL_MODE_, RELEASE_BUFFERS), FLAG(SSL_MODE_, SEND_FALLBACK_SCSV),
                             FLAG(SSL_MODE_, DTLS_SCTP_LABEL_LENGTH_BUG),
                             FIXED(SSL_MODE_, ASYNC, "nothing here waits for an engine"),
                             {NULL, 0, NULL}};

static const flag verify_modes[] = {FLAG(SSL_VERIFY_, NONE), FLAG(SSL_VERIFY_, PEER), FLAG(SSL_VERIFY_, FAIL_IF_NO_PEER_CERT),
                                    FLAG(SSL_VERIFY_, CLIENT_ONCE), {NULL, 0, NULL}};

/* ── lists of names ── */

/* The bits of the names in the list at index. NULL, or a sentence, pushed. */
static const char *read_flags(lua_State *L, int index, const flag *table, const char *what, uint64_t *bits) {
  *bits = 0;
  for (size_t i = 1, count = lua_objlen(L, index); i <= count; i++) {
    lua_rawgeti(L, index, (int)i);
    const char *name = luaL_checkstring(L, -1);
    const flag *each = table;
    while (each->name && strcmp(each->name, name) != 0) each++;
    if (!each->name) return lua_pushfstring(L, "%s: there is none for DTLS 1.2 that is called '%s'", what, name);
    if (each->why) return lua_pushfstring(L, "%s: %s cannot be changed: %s", what, name, each->why);
    *bits |= each->bits;
    lua_pop(L, 1);
  }
  return NULL;
}

static int push_flags(lua_State *L, const flag *table, uint64_t bits) {
  int count = 0;
  lua_newtable(L);
  for (const flag *each = table; each->name; each++) {
    if (each->bits == 0 || (bits & each->bits) != each->bits) continue;
    lua_pushstring(L, each->name);
    lua_rawseti(L, -2, ++count);
  }
  return 1;
}

static int done(lua_State *L) {
  lua_pushboolean(L, 1);
  return 1;
}

/* ── options and modes (SSL_CTX_set_options, SSL_set_mode and their kin) ── */

static int change_options(lua_State *L, dtls_target t, bool on) {
  uint64_t bits;
  luaL_checktype(L, 2, LUA_TTABLE);
  const char *failed = read_flags(L, 2, options, "options", &bits);
  if (failed) return dtls_error(L, "ERR_DTLS_CONFIG", "%s", failed);
  if (t.ssl) dtls_peer_of(t.ssl)->overrides.options |= bits;
  if (t.ssl && on) SSL_set_options(t.ssl, bits);
  if (t.ssl && !on) SSL_clear_options(t.ssl, bits);
  if (!t.ssl && on) SSL_CTX_set_options(t.ctx, bits);
  if (!t.ssl && !on) SSL_CTX_clear_options(t.ctx, bits);
  return done(L);
}

static int set_options(lua_State *L, dtls_target t) { return change_options(L, t, true); }
static int clear_options(lua_State *L, dtls_target t) { return change_options(L, t, false); }
static int get_options(lua_State *L, dtls_target t) { return push_flags(L, options, t.ssl ? SSL_get_options(t.ssl) : SSL_CTX_get_options(t.ctx)); }

static int set_modes(lua_State *L, dtls_target t) {
  uint64_t bits;
  luaL_checktype(L, 2, LUA_TTABLE);
  const char *failed = read_flags(L, 2, modes, "modes", &bits);
  if (failed) return dtls_error(L, "ERR_DTLS_CONFIG", "%s", failed);
  if (t.ssl) dtls_peer_of(t.ssl)->overrides.modes |= (long)bits;
  if (t.ssl)
    SSL_set_mode(t.ssl, (long)bits);
  else
    SSL_CTX_set_mode(t.ctx, (long)bits);
  return done(L);
}

static int get_modes(lua_State *L, dtls_target t) {
  return push_flags(L, modes, (uint64_t)(t.ssl ? SSL_get_mode(t.ssl) : SSL_CTX_get_mode(t.ctx)));
}

/* What a client offers to resume was made under other settings than those that it has from now on. */
static void withdraw_session(dtls_target t) {
  if (t.ssl && !SSL_is_server(t.ssl) && SSL_in_before(t.ssl)) SSL_set_session(t.ssl, NULL);
}

/* ── verification (SSL_CTX_set_verify, SSL_CTX_set_verify_depth) ── */

/* set_verify(modes or nil, depth or nil). What does not verify is refused from then on. */
static int set_verify(lua_State *L, dtls_target t) {
  uint64_t bits = 0;
  int depth = (int)luaL_optinteger(L, 3, -1);
  if (!lua_isnoneornil(L, 2)) {
    luaL_checktype(L, 2, LUA_TTABLE);
    const char *failed = read_flags(L, 2, verify_modes, "mode", &bits);
    if (failed) return dtls_error(L, "ERR_DTLS_CONFIG", "%s", failed);
    if (t.ssl) {
      SSL_set_verify(t.ssl, (int)bits, NULL);
      dtls_peer_of(t.ssl)->reject = bits != SSL_VERIFY_NONE;
      dtls_peer_of(t.ssl)->overrides.verify = true;
    } else {
      SSL_CTX_set_verify(t.ctx, (int)bits, NULL);
      dtls_config_of(t.ctx)->reject = bits != SSL_VERIFY_NONE;
    }
  }
  if (depth >= 0 && t.ssl) {
    SSL_set_verify_depth(t.ssl, depth);
    dtls_peer_of(t.ssl)->overrides.depth = true;
  }
  if (depth >= 0 && !t.ssl) SSL_CTX_set_verify_depth(t.ctx, depth);
  withdraw_session(t);
  return done(L);
}

/* get_verify() → modes, depth (-1: OpenSSL's own limit) */
static int get_verify(lua_State *L, dtls_target t) {
  push_flags(L, verify_modes, (uint64_t)(t.ssl ? SSL_get_verify_mode(t.ssl) : SSL_CTX_get_verify_mode(t.ctx)));
  lua_pushinteger(L, t.ssl ? SSL_get_verify_depth(t.ssl) : SSL_CTX_get_verify_depth(t.ctx));
  return 2;
}

/* ── suites, groups, signature algorithms (SSL_CTX_set_cipher_list and its kin) ── */

static bool is_ccm8(const SSL_CIPHER *suite) { return strstr(SSL_CIPHER_get_name(suite), "CCM8") != NULL; }

/* Why this module has no use for a suite of OpenSSL's; NULL: it has. The short tag of CCM_8 (RFC 6655) is for those who name it. */
static const char *flaw(const SSL_CIPHER *suite) {
  int exchange = SSL_CIPHER_get_kx_nid(suite);
  if (!SSL_CIPHER_is_aead(suite)) return "it has no AEAD, and with CBC one forged record can end a session";
  if (exchange == NID_kx_any) return "it is one of TLS 1.3";
  if (SSL_CIPHER_get_auth_nid(suite) == NID_auth_null) return "it is anonymous";
  if (exchange == NID_kx_rsa || exchange == NID_kx_rsa_psk) return "static RSA has no forward secrecy (RFC 9325 section 4.1)";
  return NULL;
}

static bool is_good(const SSL_CIPHER *suite, const char *list) { return !flaw(suite) && (!is_ccm8(suite) || strstr(list, "CCM8")); }

/* Which suite of DTLS 1.2 has that name; NULL: none. The context loses the suites that it has. */
static const SSL_CIPHER *find_suite(SSL_CTX *scratch, const char *name) {
  if (SSL_CTX_set_cipher_list(scratch, name) != 1) return NULL;
  STACK_OF(SSL_CIPHER) *suites = SSL_CTX_get_ciphers(scratch);
  for (int i = 0; i < sk_SSL_CIPHER_num(suites); i++) {
    const SSL_CIPHER *suite = sk_SSL_CIPHER_value(suites, i);
    if (SSL_CIPHER_get_kx_nid(suite) != NID_kx_any) return suite; /* those of TLS 1.3 are always there */
  }
  return NULL;
}

/* libssl leaves a suite out of every handshake that the security level is too high for. */
static bool level_allows(const SSL_CTX *scratch, const SSL_CIPHER *suite) {
  int bits = SSL_CIPHER_get_bits(suite, NULL);
  return is_ccm8(suite) ||
         SSL_CTX_get_security_callback(scratch)(NULL, scratch, SSL_SECOP_CIPHER_SUPPORTED, bits, 0, (void *)(uintptr_t)suite, NULL) != 0;
}

/*
 * The suites that a list names one by one must be there in the end: OpenSSL passes over what it does not know, and a device
 * with one suite would meet no_shared_cipher years later. Only their names have a '-' or '_'; what begins with '!', '-' or '+'
 * takes away or reorders. NULL, or a sentence, in buf.
 */
static const char *check_literals(SSL_CTX *scratch, const char *list, int level, char *buf, size_t capacity) {
  static const char separators[] = ":;, "; /* ssl_ciph.c, ITEM_SEP */
  SSL_CTX_set_security_level(scratch, level);
  for (const char *word = list + strspn(list, separators), *next; *word; word = next + strspn(next, separators)) {
    char name[128];
    next = word + strcspn(word, separators);
    int size = (int)strcspn(word, ":;, @");
    if (strchr("!-+@", *word) || memchr(word, '+', (size_t)size)) continue;
    if (!memchr(word, '-', (size_t)size) && !memchr(word, '_', (size_t)size)) continue;
    bool fits = snprintf(name, sizeof name, "%.*s", size, word) == size && (size_t)size < sizeof name;
    const SSL_CIPHER *suite = fits ? find_suite(scratch, name) : NULL;
    const char *why = !suite ? "OpenSSL has no suite of this name for DTLS 1.2" : flaw(suite);
    if (!why && !level_allows(scratch, suite)) why = "the security level of the list (@SECLEVEL) does not allow it";
    if (!why) continue;
    snprintf(buf, capacity, "ciphers: %s: %s", name, why);
    return buf;
  }
  return NULL;
}

/*
 * The suites of a list that have AEAD, as a list: with CBC and encrypt-then-MAC one forged record ends a session, and
 * DTLS 1.2 has better. NULL: none. The caller frees it.
 */
static char *aead_suites(const SSL_CTX *scratch, const char *list) {
  STACK_OF(SSL_CIPHER) *suites = SSL_CTX_get_ciphers(scratch);
  char *kept = NULL;
  size_t used = 0;
  for (int i = 0; i < sk_SSL_CIPHER_num(suites); i++) {
    const SSL_CIPHER *suite = sk_SSL_CIPHER_value(suites, i);
    const char *name = SSL_CIPHER_get_name(suite);
    if (!is_good(suite, list)) continue;
    char *grown = OPENSSL_realloc(kept, used + strlen(name) + 2);
    if (!grown) {
      OPENSSL_free(kept);
      return NULL;
    }
    kept = grown;
    used += (size_t)snprintf(kept + used, strlen(name) + 2, "%s:", name);
  }
  return kept;
}

/* What aead_suites() says of a list. level: as it was, or what the list says of it (@SECLEVEL). failed: NULL, or a sentence, perhaps in buf. */
static char *read_suites(const char *list, int *level, const char **failed, char *buf, size_t size) {
  SSL_CTX *scratch = SSL_CTX_new(DTLS_method()); /* a list that fails leaves a context without suites */
  char *suites = NULL;
  *failed = "ciphers: no suite of this list exists for DTLS 1.2 with AEAD";
  if (!scratch) return NULL;
  SSL_CTX_set_security_level(scratch, 0);
  if (SSL_CTX_set_cipher_list(scratch, list) == 1) {
    if (strstr(list, "@SECLEVEL=")) *level = SSL_CTX_get_security_level(scratch);
    suites = aead_suites(scratch, list);
  }
  if (*level < DTLS_SECURITY_LEVEL) {
    *failed = "ciphers: a list may raise the security level (@SECLEVEL), and not lower it below 2";
  } else {
    const char *wrong = check_literals(scratch, list, *level, buf, size);
    if (wrong || suites) *failed = wrong;
  }
  ERR_clear_error(); /* of the names that do not exist */
  SSL_CTX_free(scratch);
  return suites;
}

/* OpenSSL 3.2 counts CCM_8 as 64 bits and wants security level 0 for it, which would let everything else in, too. */
static int allow_ccm8(const SSL *ssl, const SSL_CTX *ctx, int operation, int bits, int nid, void *other, void *extra) {
  bool is_suite = operation == SSL_SECOP_CIPHER_SUPPORTED || operation == SSL_SECOP_CIPHER_SHARED || operation == SSL_SECOP_CIPHER_CHECK;
  const dtls_config *c = extra;
  return is_suite && is_ccm8(other) ? 1 : c->default_security(ssl, ctx, operation, bits, nid, other, extra);
}

static void set_security(dtls_target t, bool ccm8) {
  dtls_config *c = dtls_config_of(t.ctx);
  if (!c->default_security) c->default_security = SSL_CTX_get_security_callback(t.ctx);
  if (t.ssl) {
    SSL_set0_security_ex_data(t.ssl, c);
    SSL_set_security_callback(t.ssl, ccm8 ? allow_ccm8 : c->default_security);
  } else {
    SSL_CTX_set0_security_ex_data(t.ctx, c);
    SSL_CTX_set_security_callback(t.ctx, ccm8 ? allow_ccm8 : c->default_security);
  }
}

const char *dtls_settings_ciphers(dtls_target t, const char *list, char *buf, size_t size) {
  int level = t.ssl ? SSL_get_security_level(t.ssl) : SSL_CTX_get_security_level(t.ctx);
  const char *failed;
  char *suites = read_suites(list, &level, &failed, buf, size);
  if (!failed) {
    set_security(t, strstr(suites, "CCM8") != NULL);
    if ((t.ssl ? SSL_set_cipher_list(t.ssl, suites) : SSL_CTX_set_cipher_list(t.ctx, suites)) != 1) failed = "ciphers: OpenSSL does not take this list";
  }
  if (!failed && t.ssl) {
    dtls_overrides *own = &dtls_peer_of(t.ssl)->overrides;
    SSL_set_security_level(t.ssl, level);
    own->ciphers = true;
    own->ccm8 = strstr(suites, "CCM8") != NULL;
    own->level = level;
    withdraw_session(t);
  }
  if (!failed && !t.ssl) SSL_CTX_set_security_level(t.ctx, level);
  OPENSSL_free(suites);
  return failed;
}

static int set_ciphers(lua_State *L, dtls_target t) {
  ERR_clear_error();
  char sentence[DTLS_SENTENCE_MAX];
  const char *failed = dtls_settings_ciphers(t, luaL_checkstring(L, 2), sentence, sizeof sentence);
  return failed ? dtls_error_openssl(L, "ERR_DTLS_CONFIG", failed) : done(L);
}

static int set_groups(lua_State *L, dtls_target t) {
  const char *list = luaL_checkstring(L, 2);
  ERR_clear_error();
  char *copy = OPENSSL_strdup(list);
  if (!copy || (t.ssl ? SSL_set1_groups_list(t.ssl, list) : SSL_CTX_set1_groups_list(t.ctx, list)) != 1) {
    OPENSSL_free(copy);
    return dtls_error_openssl(L, "ERR_DTLS_CONFIG", "groups: OpenSSL does not know this list");
  }
  if (t.ssl) {
    dtls_overrides *own = &dtls_peer_of(t.ssl)->overrides;
    OPENSSL_free(own->groups);
    own->groups = copy;
    withdraw_session(t);
  } else {
    dtls_config *c = dtls_config_of(t.ctx);
    OPENSSL_free(c->groups);
    c->groups = copy;
  }
  return done(L);
}

/* Beside an opener the list of what the server signs with stays; what others may sign with can be set. */
static bool use_sigalgs(dtls_target t, const char *list) {
  if (dtls_opener_needed(dtls_config_of(t.ctx)))
    return (t.ssl ? SSL_set1_client_sigalgs_list(t.ssl, list) : SSL_CTX_set1_client_sigalgs_list(t.ctx, list)) == 1;
  return (t.ssl ? SSL_set1_sigalgs_list(t.ssl, list) : SSL_CTX_set1_sigalgs_list(t.ctx, list)) == 1;
}

static int set_sigalgs(lua_State *L, dtls_target t) {
  const char *list = luaL_checkstring(L, 2);
  ERR_clear_error();
  char *copy = OPENSSL_strdup(list);
  if (!copy || !use_sigalgs(t, list)) {
    OPENSSL_free(copy);
    return dtls_error_openssl(L, "ERR_DTLS_CONFIG", "sigalgs: OpenSSL does not know this list");
  }
  if (t.ssl) {
    dtls_overrides *own = &dtls_peer_of(t.ssl)->overrides;
    OPENSSL_free(own->sigalgs);
    own->sigalgs = copy;
    withdraw_session(t);
  } else {
    dtls_config *c = dtls_config_of(t.ctx);
    OPENSSL_free(c->sigalgs);
    c->sigalgs = copy;
  }
  return done(L);
}

/* What SSL_set_SSL_CTX takes away with the certificates. */
bool dtls_settings_restore(SSL *ssl) {
  dtls_overrides *own = &dtls_peer_of(ssl)->overrides;
  dtls_target t = {.ctx = SSL_get_SSL_CTX(ssl), .ssl = ssl};
  if (own->ciphers) {
    set_security(t, own->ccm8);
    SSL_set_security_level(ssl, own->level);
  }
  return !own->sigalgs || use_sigalgs(t, own->sigalgs);
}

static int get_ciphers(lua_State *L, dtls_target t) {
  STACK_OF(SSL_CIPHER) *suites = t.ssl ? SSL_get_ciphers(t.ssl) : SSL_CTX_get_ciphers(t.ctx);
  int count = 0;
  lua_newtable(L);
  for (int i = 0; i < sk_SSL_CIPHER_num(suites); i++) {
    const SSL_CIPHER *suite = sk_SSL_CIPHER_value(suites, i);
    if (!SSL_CIPHER_is_aead(suite) || SSL_CIPHER_get_kx_nid(suite) == NID_kx_any) continue; /* TLS 1.3's are always there */
    lua_pushstring(L, SSL_CIPHER_get_name(suite));
    lua_rawseti(L, -2, ++count);
  }
  return 1;
}

/* ── the methods of both objects ── */

static dtls_target of_context(lua_State *L) { return (dtls_target){.ctx = dtls_context_self(L)}; }

static dtls_target of_association(lua_State *L) {
  SSL *ssl = dtls_association_check(L)->ssl;
  return (dtls_target){.ctx = SSL_get_SSL_CTX(ssl), .ssl = ssl};
}

#define SETTINGS(X) \
  X(set_options) X(clear_options) X(get_options) X(set_modes) X(get_modes) X(set_verify) X(get_verify) X(set_ciphers) \
  X(get_ciphers) X(set_groups) X(set_sigalgs)

#define X(name) \
  static int context_##name(lua_State *L) { return name(L, of_context(L)); } \
  static int association_##name(lua_State *L) { return name(L, of_association(L)); }
SETTINGS(X)
#undef X

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

/* options, modes: lists of names among the options of a context. */
const char *dtls_settings_take(lua_State *L, SSL_CTX *ctx, dtls_config *c) {
  uint64_t bits = 0;
  const char *failed = NULL;
  (void)c;
  if (dtls_option_list(L, "options") > 0 && !(failed = read_flags(L, lua_gettop(L), options, "options", &bits))) SSL_CTX_set_options(ctx, bits);
  if (failed) return failed;
  if (dtls_option_list(L, "modes") > 0 && !(failed = read_flags(L, lua_gettop(L), modes, "modes", &bits))) SSL_CTX_set_mode(ctx, (long)bits);
  if (!failed) lua_pop(L, 2);
  return failed;
}
