/*
 * SSL_CTX: credentials, policy, and the configuration that hangs on it. Which suites, groups and versions are good is
 * said in lua/dtls/context.lua; what every DTLS association of this module needs is said here.
 */
#include "identity/context.h"

#include <limits.h>
#include <string.h>

#include "association/association.h"
#include "binding/error.h"
#include "identity/extension.h"
#include "identity/keylog.h"
#include "identity/opener.h"
#include "identity/peer.h"
#include "identity/psk.h"
#include "identity/session.h"
#include "identity/settings.h"
#include "identity/verify.h"
#include "wire/record.h"

static const char TYPE[] = "dtls.context";

/* ── the configuration on its SSL_CTX ── */

static void config_free(dtls_config *c) {
  if (!c) return;
  dtls_verify_free(c);
  dtls_psk_free(c);
  dtls_extension_free(c);
  dtls_session_free(c);
  dtls_keylog_free(c);
  dtls_opener_free(c);
  OPENSSL_free(c->groups);
  OPENSSL_free(c->sigalgs);
  OPENSSL_free(c);
}

static void free_with_ctx(void *parent, void *pointer, CRYPTO_EX_DATA *data, int index, long argl, void *argp) {
  (void)parent, (void)data, (void)index, (void)argl, (void)argp;
  config_free(pointer);
}

static int config_index = -1;
static CRYPTO_ONCE config_once = CRYPTO_ONCE_STATIC_INIT;
static void make_index(void) { config_index = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, free_with_ctx); }
dtls_config *dtls_config_of(const SSL_CTX *ctx) { return SSL_CTX_get_ex_data(ctx, config_index); }

/* ── reading options: from the table at index 2 ── */

const char *dtls_option_string(lua_State *L, const char *name) {
  lua_getfield(L, 2, name);
  const char *value = lua_tostring(L, -1); /* stays alive in the table */
  lua_pop(L, 1);
  return value;
}

bool dtls_option_boolean(lua_State *L, const char *name) {
  lua_getfield(L, 2, name);
  bool value = lua_toboolean(L, -1);
  lua_pop(L, 1);
  return value;
}

size_t dtls_option_list(lua_State *L, const char *name) {
  lua_getfield(L, 2, name);
  return lua_istable(L, -1) ? lua_objlen(L, -1) : 0;
}

int dtls_no_passphrase(char *buffer, int size, int writing, void *secret) {
  const char *given = secret;
  size_t length = given ? strlen(given) : 0;
  (void)writing;
  if (!given || length > (size_t)size) return -1;
  memcpy(buffer, given, length);
  return (int)length;
}

bool dtls_at_end_of_pem(void) {
  unsigned long error = ERR_peek_last_error();
  if (ERR_GET_LIB(error) != ERR_LIB_PEM || ERR_GET_REASON(error) != PEM_R_NO_START_LINE) return false;
  ERR_clear_error();
  return true;
}

BIO *dtls_text_bio(lua_State *L, int index) {
  size_t size;
  const char *text = lua_tolstring(L, index, &size);
  return text && size <= INT_MAX ? BIO_new_mem_buf(text, (int)size) : NULL;
}

/* ── credentials ── */

/* The leaf, and the rest of the text as its chain. */
static X509 *read_chain(BIO *bio, STACK_OF(X509) *chain) {
  X509 *leaf = PEM_read_bio_X509(bio, NULL, dtls_no_passphrase, NULL), *next;
  if (!leaf) return NULL;
  while ((next = PEM_read_bio_X509(bio, NULL, dtls_no_passphrase, NULL)))
    if (!sk_X509_push(chain, next)) {
      X509_free(next);
      break;
    }
  if (dtls_at_end_of_pem()) return leaf;
  X509_free(leaf);
  return NULL;
}

typedef struct {
  BIO *bio;
  X509 *leaf;
  STACK_OF(X509) *chain;
  EVP_PKEY *key;
} credential;

static void credential_free(credential *c) {
  BIO_free(c->bio);
  X509_free(c->leaf);
  sk_X509_pop_free(c->chain, X509_free);
  EVP_PKEY_free(c->key);
}

/* One certificate chain and its key, at the top of the stack (key above). Returns what failed, or NULL. */
static const char *use_credential(lua_State *L, SSL_CTX *ctx, const char *secret, dtls_config *config) {
  credential c = {.chain = sk_X509_new_null()};
  const char *failed = "cert: this is not a PEM certificate chain";
  c.bio = dtls_text_bio(L, -2);
  if (c.bio && c.chain) c.leaf = read_chain(c.bio, c.chain);
  if (!c.leaf) goto done;
  BIO_free(c.bio);
  failed = secret ? "key: this is not a PEM private key that the passphrase opens" : "key: this is not a PEM private key, or it needs a passphrase";
  c.bio = dtls_text_bio(L, -1);
  if (c.bio) c.key = PEM_read_bio_PrivateKey(c.bio, NULL, dtls_no_passphrase, (void *)(uintptr_t)secret);
  if (!c.key) goto done;
  failed = "key: it does not match the certificate";
  if (X509_check_private_key(c.leaf, c.key) != 1) goto done;
  failed = "cert: OpenSSL does not accept it";
  if (SSL_CTX_use_cert_and_key(ctx, c.leaf, c.key, c.chain, 1) == 1) failed = NULL;
  dtls_opener_note(config, c.key);
done:
  credential_free(&c);
  return failed;
}

static const char *take_credentials(lua_State *L, SSL_CTX *ctx, dtls_config *c) {
  lua_getfield(L, 2, "passphrase");
  const char *secret = lua_tostring(L, -1), *failed = NULL;
  lua_getfield(L, 2, "cert");
  lua_getfield(L, 2, "key");
  int certs = lua_gettop(L) - 1, keys = certs + 1;
  size_t count = lua_istable(L, certs) ? lua_objlen(L, certs) : 0;
  if (count != (lua_istable(L, keys) ? lua_objlen(L, keys) : 0)) failed = "cert and key come in pairs";
  for (size_t i = 1; i <= count && !failed; i++) {
    lua_rawgeti(L, certs, (int)i);
    lua_rawgeti(L, keys, (int)i);
    failed = use_credential(L, ctx, secret, c);
    lua_pop(L, 2);
  }
  lua_settop(L, certs - 2);
  return failed;
}

/* ── policy ── */

static const char *take_policy(lua_State *L, SSL_CTX *ctx, dtls_config *c) {
  const char *ciphers = dtls_option_string(L, "ciphers"), *groups = dtls_option_string(L, "groups"), *sigalgs = dtls_option_string(L, "sigalgs");
  char sentence[DTLS_SENTENCE_MAX];
  const char *failed = ciphers ? dtls_settings_ciphers((dtls_target){.ctx = ctx}, ciphers, sentence, sizeof sentence) : NULL;
  if (failed) {
    lua_pushstring(L, failed);
    return lua_tostring(L, -1); /* alive as long as it is on the stack */
  }
  if (groups && (SSL_CTX_set1_groups_list(ctx, groups) != 1 || !(c->groups = OPENSSL_strdup(groups)))) return "groups: OpenSSL does not know this list";
  if (sigalgs && (SSL_CTX_set1_sigalgs_list(ctx, sigalgs) != 1 || !(c->sigalgs = OPENSSL_strdup(sigalgs)))) return "sigalgs: OpenSSL does not know this list";
  return dtls_opener_take(ctx, c, sigalgs);
}

enum { READ_BUFFER_ALIGNMENT = 16 }; /* libssl takes a few bytes of its read buffer to align the records' bodies */

/* What every association of this module relies on, whatever the options. */
static bool use_foundation(SSL_CTX *ctx, const dtls_config *c) {
  SSL_CTX_set_security_level(ctx, DTLS_SECURITY_LEVEL);
  SSL_CTX_set_options(ctx, SSL_OP_NO_QUERY_MTU | SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION | SSL_OP_CIPHER_SERVER_PREFERENCE);
  SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_default_read_buffer_len(ctx, DTLS_DATAGRAM_MAX + READ_BUFFER_ALIGNMENT);
  SSL_CTX_set_dh_auto(ctx, 1); /* for DHE-PSK, which nobody gets without asking */
  if (c->server) {
    SSL_CTX_set_max_cert_list(ctx, DTLS_HANDSHAKE_MESSAGE_MAX); /* bounds what libssl allocates for fragments */
  }
  return SSL_CTX_set_min_proto_version(ctx, DTLS1_2_VERSION) == 1 && SSL_CTX_set_max_proto_version(ctx, DTLS1_2_VERSION) == 1;
}

/* ── the Lua object ── */

static SSL_CTX *context_make(bool server) {
  if (!CRYPTO_THREAD_run_once(&config_once, make_index) || config_index < 0) return NULL;
  SSL_CTX *ctx = SSL_CTX_new(server ? DTLS_server_method() : DTLS_client_method());
  dtls_config *c = ctx ? OPENSSL_zalloc(sizeof *c) : NULL;
  if (c) {
    c->server = server;
    c->keylog_fd = -1;
  }
  if (c && SSL_CTX_set_ex_data(ctx, config_index, c) == 1) {
    if (use_foundation(ctx, c)) return ctx;
  } else {
    config_free(c);
  }
  SSL_CTX_free(ctx);
  return NULL;
}

/*
 * core.context('server'|'client', options) → context | nil, err
 * options, all optional: cert, key (lists of PEM, pairwise), passphrase, ca, crl (lists of PEM), system_ca, pins (list
 * of 32-byte SHA-256 digests), request_cert, reject, asks_verify, partial_chain (booleans), verify_time (false or Unix seconds), psk ({identity = key}, a client gives
 * one; or true: association:answer_psk), psk_hint, ciphers, groups, sigalgs (OpenSSL's lists), options, modes (lists
 * of names), alpn (list), srtp (OpenSSL's list), max_fragment_length (a client's: 512 to 4096),
 * ticket_keys (one or two of 80 bytes), session_timeout (s), session_context (bytes: what else decides who may resume),
 * keylog_event, keylog_file.
 * Nothing is checked twice: lua/dtls/options.lua has the types.
 */
int dtls_context_new(lua_State *L) {
  static const char *const roles[] = {"server", "client", NULL};
  static dtls_option_taker *const takers[] = {dtls_verify_take, dtls_psk_take, dtls_extension_take, dtls_session_take, dtls_keylog_take, dtls_settings_take};
  bool server = luaL_checkoption(L, 1, NULL, roles) == 0;
  luaL_checktype(L, 2, LUA_TTABLE);
  lua_settop(L, 2);
  ERR_clear_error();
  dtls_box *box = dtls_box_push(L, TYPE);
  SSL_CTX *ctx = box->object = context_make(server);
  if (ctx && server) dtls_association_prepare(ctx);
  if (!ctx) return dtls_error_openssl(L, "ERR_DTLS_CONFIG", "cannot make a context");
  dtls_config *c = dtls_config_of(ctx);
  const char *failed = take_credentials(L, ctx, c);
  for (size_t i = 0; i < sizeof takers / sizeof *takers && !failed; i++) failed = takers[i](L, ctx, c);
  if (!failed) failed = take_policy(L, ctx, c);
  if (failed) return dtls_error_openssl(L, "ERR_DTLS_CONFIG", failed);
  lua_settop(L, 3);
  return 1;
}

/* Options and modes in which the two differ; what was set for the SSL itself stays. */
static void adopt_flags(SSL *ssl, SSL_CTX *from, SSL_CTX *to) {
  const dtls_peer *peer = dtls_peer_of(ssl);
  uint64_t had = SSL_CTX_get_options(from), has = SSL_CTX_get_options(to);
  long had_mode = SSL_CTX_get_mode(from), has_mode = SSL_CTX_get_mode(to);
  SSL_clear_options(ssl, had & ~has & ~peer->overrides.options);
  SSL_set_options(ssl, (has & ~had & ~peer->overrides.options) | (peer->stores_sessions ? SSL_OP_NO_TICKET : 0));
  SSL_clear_mode(ssl, had_mode & ~has_mode & ~peer->overrides.modes);
  SSL_set_mode(ssl, has_mode & ~had_mode & ~peer->overrides.modes);
}

/* SSL_set_SSL_CTX changes certificates, suites, signature algorithms, the security level and what is asked of the
   SSL_CTX itself; the rest was copied when the SSL was made. Tickets and stored sessions stay with the first one. */
bool dtls_context_adopt(SSL *ssl, SSL_CTX *ctx) {
  dtls_peer *peer = dtls_peer_of(ssl);
  const dtls_config *c = dtls_config_of(ctx);
  adopt_flags(ssl, SSL_get_SSL_CTX(ssl), ctx);
  if (SSL_set_SSL_CTX(ssl, ctx) != ctx) return false;
  if (!peer->overrides.verify) {
    SSL_set_verify(ssl, SSL_CTX_get_verify_mode(ctx), NULL);
    peer->reject = c->reject;
  }
  if (!peer->overrides.depth) SSL_set_verify_depth(ssl, SSL_CTX_get_verify_depth(ctx));
  if (!peer->overrides.groups && c->groups && SSL_set1_groups_list(ssl, c->groups) != 1) return false;
  SSL_set_psk_server_callback(ssl, c->psks > 0 || c->asks_psk ? dtls_psk_for_server : NULL);
  return dtls_settings_restore(ssl);
}

SSL_CTX *dtls_context_self(lua_State *L) { return dtls_check(L, 1, TYPE); }

SSL_CTX *dtls_context_check(lua_State *L, int index, bool server) {
  SSL_CTX *ctx = dtls_check(L, index, TYPE);
  if (dtls_config_of(ctx)->server != server) luaL_argerror(L, index, server ? "expected a context for servers" : "expected a context for clients");
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
  dtls_config *c = dtls_config_of(dtls_context_self(L));
  luaL_checktype(L, 2, LUA_TTABLE);
  const char *failed = dtls_session_take_keys(L, 2, c);
  if (failed) return dtls_error(L, "ERR_DTLS_CONFIG", "%s", failed);
  lua_pushboolean(L, 1);
  return 1;
}

void dtls_context_init(lua_State *L) {
  static const luaL_Reg methods[] = {{"set_ticket_keys", context_set_ticket_keys}, {"__gc", context_gc}, {NULL, NULL}};
  dtls_register(L, TYPE, methods);
  dtls_register(L, TYPE, dtls_context_settings);
}
