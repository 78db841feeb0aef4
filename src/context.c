/*
 * SSL_CTX: credentials, policy and the callbacks that decide in C. Which suites, groups and versions are good is
 * said in lua/dtls/context.lua; what every DTLS association of this module needs is said here. Owns the SSL_CTX and,
 * hanging on it, what the callbacks read.
 */
#include "core.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TYPE "dtls.context"
#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)

enum { PIN_SIZE = 32, SECURITY_LEVEL = 2, SERVER_CERT_LIST_MAX = 32 * 1024 };

typedef struct {
  char *identity;
  uint8_t *key;
  size_t key_size;
} psk_entry;

typedef struct {
  bool server;
  bool reject;   /* a peer that is not authorized ends the handshake */
  bool has_ca;
  size_t pins;
  uint8_t (*pin)[PIN_SIZE];
  size_t psks;
  psk_entry *psk; /* sorted by identity; a client has one */
} config;

/* ── the configuration on its SSL_CTX ── */

static void config_free(config *c) {
  if (!c) return;
  for (size_t i = 0; i < c->psks; i++) {
    OPENSSL_free(c->psk[i].identity);
    OPENSSL_clear_free(c->psk[i].key, c->psk[i].key_size);
  }
  OPENSSL_free(c->psk);
  OPENSSL_free(c->pin);
  OPENSSL_free(c);
}

static void free_with_ctx(void *parent, void *pointer, CRYPTO_EX_DATA *data, int index, long argl, void *argp) {
  (void)parent, (void)data, (void)index, (void)argl, (void)argp;
  config_free(pointer);
}

static int config_index = -1;
static CRYPTO_ONCE config_once = CRYPTO_ONCE_STATIC_INIT;
static void make_index(void) { config_index = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, free_with_ctx); }
static config *config_of(SSL_CTX *ctx) { return SSL_CTX_get_ex_data(ctx, config_index); }

/* ── callbacks ── */

static bool pinned(const config *c, X509 *cert) {
  uint8_t digest[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  if (!cert || !X509_digest(cert, EVP_sha256(), digest, &size) || size != PIN_SIZE) return false;
  for (size_t i = 0; i < c->pins; i++)
    if (memcmp(c->pin[i], digest, PIN_SIZE) == 0) return true;
  return false;
}

/* Pins without a CA replace the chain and the name; with one, both must hold. The verdict stays in the result. */
static int verify(X509_STORE_CTX *store, void *argument) {
  SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
  const config *c = config_of(SSL_get_SSL_CTX(ssl));
  (void)argument;
  bool good = true;
  if (c->pins == 0 || c->has_ca) good = X509_verify_cert(store) == 1;
  if (good && c->pins > 0) {
    good = pinned(c, X509_STORE_CTX_get0_cert(store));
    X509_STORE_CTX_set_error(store, good ? X509_V_OK : X509_V_ERR_APPLICATION_VERIFICATION);
  }
  return good || !c->reject;
}

static const psk_entry *find_psk(const config *c, const char *identity) {
  size_t low = 0, high = c->psks;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    int order = strcmp(identity, c->psk[middle].identity);
    if (order == 0) return &c->psk[middle];
    if (order < 0)
      high = middle;
    else
      low = middle + 1;
  }
  return NULL;
}

/* 0 refuses with the alert unknown_psk_identity (RFC 4279 §2). */
static unsigned psk_server(SSL *ssl, const char *identity, unsigned char *key, unsigned max) {
  const psk_entry *entry = find_psk(config_of(SSL_get_SSL_CTX(ssl)), identity);
  if (!entry || entry->key_size > max) return 0;
  memcpy(key, entry->key, entry->key_size);
  return (unsigned)entry->key_size;
}

static unsigned psk_client(SSL *ssl, const char *hint, char *identity, unsigned max_identity, unsigned char *key, unsigned max) {
  const config *c = config_of(SSL_get_SSL_CTX(ssl));
  (void)hint;
  size_t size = strlen(c->psk[0].identity);
  if (size >= max_identity || c->psk[0].key_size > max) return 0;
  memcpy(identity, c->psk[0].identity, size + 1);
  memcpy(key, c->psk[0].key, c->psk[0].key_size);
  return (unsigned)c->psk[0].key_size;
}

/* ── options, each from the table at index 2. False: OpenSSL's queue or what() says why. ── */

/* Never asks at a terminal, which libcrypto would do without a callback. */
static int passphrase(char *buffer, int size, int writing, void *argument) {
  const char *given = argument;
  size_t length = given ? strlen(given) : 0;
  (void)writing;
  if (!given || length > (size_t)size) return -1;
  memcpy(buffer, given, length);
  return (int)length;
}

/* True when the last PEM read failed only because the text was at its end. */
static bool at_end_of_pem(void) {
  unsigned long error = ERR_peek_last_error();
  if (ERR_GET_LIB(error) != ERR_LIB_PEM || ERR_GET_REASON(error) != PEM_R_NO_START_LINE) return false;
  ERR_clear_error();
  return true;
}

static BIO *text_bio(lua_State *L, int index) {
  size_t size;
  const char *text = luaL_checklstring(L, index, &size);
  return BIO_new_mem_buf(text, (int)size);
}

/* The leaf, and the rest of the text as its chain. */
static X509 *read_chain(BIO *bio, STACK_OF(X509) *chain) {
  X509 *leaf = PEM_read_bio_X509(bio, NULL, passphrase, NULL), *next;
  if (!leaf) return NULL;
  while ((next = PEM_read_bio_X509(bio, NULL, passphrase, NULL)))
    if (!sk_X509_push(chain, next)) {
      X509_free(next);
      break;
    }
  if (at_end_of_pem()) return leaf;
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

/* Which kinds of key a context has. */
typedef struct {
  bool eddsa, ec, rsa;
} key_kinds;

static void note_kind(key_kinds *kinds, const EVP_PKEY *key) {
  if (EVP_PKEY_is_a(key, "ED25519") || EVP_PKEY_is_a(key, "ED448"))
    kinds->eddsa = true;
  else if (EVP_PKEY_is_a(key, "EC"))
    kinds->ec = true;
  else
    kinds->rsa = true;
}

/*
 * ssl_set_masks() of libssl allows EdDSA for TLS 1.2 by comparing with TLS1_get_version(), which DTLS never matches;
 * an ECDSA key opens the same suites. One that nobody sees will do: the signature algorithms leave only EdDSA (and
 * RSA, if there is such a key) to sign with, and have a list of their own for what clients may sign with.
 */
static bool enable_eddsa(SSL_CTX *ctx, const key_kinds *kinds, const char *sigalgs) {
  X509 *cert = NULL;
  EVP_PKEY *key = NULL;
  const char *own = kinds->rsa ? "ed25519:ed448:rsa_pss_pss_sha256:rsa_pss_rsae_sha256:rsa_pss_rsae_sha384:RSA+SHA256:RSA+SHA384" : "ed25519:ed448";
  bool ok = dtls_selfsigned_ec(&cert, &key) && SSL_CTX_use_cert_and_key(ctx, cert, key, NULL, 1) == 1 &&
            SSL_CTX_set1_sigalgs_list(ctx, own) == 1 && (!sigalgs || SSL_CTX_set1_client_sigalgs_list(ctx, sigalgs) == 1);
  X509_free(cert);
  EVP_PKEY_free(key);
  return ok;
}

/* One certificate chain and its key, at the top of the stack (key above). Returns what failed, or NULL. */
static const char *use_credential(lua_State *L, SSL_CTX *ctx, const char *secret, key_kinds *kinds) {
  credential c = {.chain = sk_X509_new_null()};
  const char *failed = "cert: this is not a PEM certificate chain";
  c.bio = text_bio(L, -2);
  if (c.bio && c.chain) c.leaf = read_chain(c.bio, c.chain);
  if (!c.leaf) goto done;
  BIO_free(c.bio);
  failed = secret ? "key: this is not a PEM private key that the passphrase opens" : "key: this is not a PEM private key, or it needs a passphrase";
  c.bio = text_bio(L, -1);
  if (c.bio) c.key = PEM_read_bio_PrivateKey(c.bio, NULL, passphrase, (void *)(uintptr_t)secret);
  if (!c.key) goto done;
  failed = "key: it does not match the certificate";
  if (X509_check_private_key(c.leaf, c.key) != 1) goto done;
  failed = "cert: OpenSSL does not accept it";
  if (SSL_CTX_use_cert_and_key(ctx, c.leaf, c.key, c.chain, 1) == 1) failed = NULL;
  note_kind(kinds, c.key);
done:
  credential_free(&c);
  return failed;
}

static const char *use_credentials(lua_State *L, SSL_CTX *ctx, key_kinds *kinds) {
  lua_getfield(L, 2, "passphrase");
  const char *secret = lua_tostring(L, -1), *failed = NULL;
  lua_getfield(L, 2, "cert");
  lua_getfield(L, 2, "key");
  int certs = lua_gettop(L) - 1, keys = certs + 1;
  size_t count = lua_istable(L, certs) ? lua_objlen(L, certs) : 0;
  for (size_t i = 1; i <= count && !failed; i++) {
    lua_rawgeti(L, certs, (int)i);
    lua_rawgeti(L, keys, (int)i);
    failed = use_credential(L, ctx, secret, kinds);
    lua_pop(L, 2);
  }
  lua_settop(L, certs - 2);
  return failed;
}

static bool add_ca(SSL_CTX *ctx, BIO *bio, bool server) {
  X509_STORE *store = SSL_CTX_get_cert_store(ctx);
  X509 *cert;
  int count = 0;
  bool ok = true;
  while (ok && (cert = PEM_read_bio_X509(bio, NULL, passphrase, NULL))) {
    ok = X509_STORE_add_cert(store, cert) == 1 && (!server || SSL_CTX_add_client_CA(ctx, cert) == 1);
    X509_free(cert);
    count++;
  }
  return ok && count > 0 && at_end_of_pem();
}

static bool add_crl(SSL_CTX *ctx, BIO *bio) {
  X509_STORE *store = SSL_CTX_get_cert_store(ctx);
  X509_CRL *crl;
  int count = 0;
  bool ok = true;
  while (ok && (crl = PEM_read_bio_X509_CRL(bio, NULL, passphrase, NULL))) {
    ok = X509_STORE_add_crl(store, crl) == 1 && X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK) == 1;
    X509_CRL_free(crl);
    count++;
  }
  return ok && count > 0 && at_end_of_pem();
}

static const char *use_authorities(lua_State *L, SSL_CTX *ctx, config *c) {
  static const char *const names[] = {"ca", "crl"};
  const char *failed = NULL;
  for (int kind = 0; kind < 2 && !failed; kind++) {
    lua_getfield(L, 2, names[kind]);
    size_t count = lua_istable(L, -1) ? lua_objlen(L, -1) : 0;
    for (size_t i = 1; i <= count && !failed; i++) {
      lua_rawgeti(L, -1, (int)i);
      BIO *bio = text_bio(L, -1);
      if (!bio || !(kind == 0 ? add_ca(ctx, bio, c->server) : add_crl(ctx, bio)))
        failed = kind == 0 ? "ca: this is not a list of PEM certificates" : "crl: this is not a list of PEM revocation lists";
      BIO_free(bio);
      lua_pop(L, 1);
    }
    if (kind == 0) c->has_ca = count > 0;
    lua_pop(L, 1);
  }
  lua_getfield(L, 2, "system_ca");
  if (!failed && lua_toboolean(L, -1)) {
    if (SSL_CTX_set_default_verify_paths(ctx) != 1) failed = "ca: the system's certificates cannot be read";
    c->has_ca = true;
  }
  lua_pop(L, 1);
  return failed;
}

static const char *use_pins(lua_State *L, config *c) {
  lua_getfield(L, 2, "pins");
  size_t count = lua_istable(L, -1) ? lua_objlen(L, -1) : 0;
  if (count > 0) {
    c->pin = OPENSSL_zalloc(count * PIN_SIZE);
    if (!c->pin) return "out of memory";
  }
  for (size_t i = 0; i < count; i++) {
    size_t size = 0;
    lua_rawgeti(L, -1, (int)i + 1);
    const char *pin = lua_tolstring(L, -1, &size);
    if (!pin || size != PIN_SIZE) return "fingerprint: a SHA-256 fingerprint has 32 bytes";
    memcpy(c->pin[c->pins++], pin, PIN_SIZE);
    lua_pop(L, 1);
  }
  lua_pop(L, 1);
  return NULL;
}

static int compare_psk(const void *a, const void *b) { return strcmp(((const psk_entry *)a)->identity, ((const psk_entry *)b)->identity); }

/* The entry whose identity and key are at the top of the stack (key above). */
static const char *add_psk(lua_State *L, config *c) {
  size_t identity_size, key_size;
  const char *identity = luaL_checklstring(L, -2, &identity_size), *key = luaL_checklstring(L, -1, &key_size);
  if (identity_size > PSK_MAX_IDENTITY_LEN || strlen(identity) != identity_size) return "psk: an identity has at most " TEXT(PSK_MAX_IDENTITY_LEN) " bytes and no NUL among them";
  if (key_size == 0 || key_size > PSK_MAX_PSK_LEN) return "psk: a key has 1 to " TEXT(PSK_MAX_PSK_LEN) " bytes";
  psk_entry *grown = OPENSSL_realloc(c->psk, (c->psks + 1) * sizeof *grown);
  if (!grown) return "out of memory";
  c->psk = grown;
  psk_entry *entry = &c->psk[c->psks];
  entry->identity = OPENSSL_strdup(identity);
  entry->key = OPENSSL_memdup(key, key_size);
  entry->key_size = key_size;
  c->psks++;
  return entry->identity && entry->key ? NULL : "out of memory";
}

static const char *use_psk(lua_State *L, SSL_CTX *ctx, config *c) {
  const char *failed = NULL;
  lua_getfield(L, 2, "psk"); /* identity → key */
  if (lua_istable(L, -1)) {
    lua_pushnil(L);
    while (!failed && lua_next(L, -2)) {
      failed = add_psk(L, c);
      lua_pop(L, 1);
    }
    if (!failed && c->psks > 0) {
      qsort(c->psk, c->psks, sizeof *c->psk, compare_psk);
      if (c->server)
        SSL_CTX_set_psk_server_callback(ctx, psk_server);
      else
        SSL_CTX_set_psk_client_callback(ctx, psk_client);
    }
  }
  if (failed) return failed;
  lua_pop(L, 1);
  lua_getfield(L, 2, "psk_hint");
  if (lua_isstring(L, -1) && SSL_CTX_use_psk_identity_hint(ctx, lua_tostring(L, -1)) != 1) failed = "pskIdentityHint: OpenSSL does not accept it";
  lua_pop(L, 1);
  return failed;
}

/* Only AEAD suites: with CBC and encrypt-then-MAC one forged record ends a session, and DTLS 1.2 has better. */
static bool keep_aead(SSL_CTX *ctx) {
  STACK_OF(SSL_CIPHER) *suites = SSL_CTX_get_ciphers(ctx);
  char list[8192] = "";
  size_t used = 0;
  for (int i = 0; i < sk_SSL_CIPHER_num(suites); i++) {
    const SSL_CIPHER *suite = sk_SSL_CIPHER_value(suites, i);
    const char *name = SSL_CIPHER_get_name(suite);
    if (!SSL_CIPHER_is_aead(suite) || SSL_CIPHER_get_kx_nid(suite) == NID_kx_any || used + strlen(name) + 2 > sizeof list) continue;
    used += (size_t)snprintf(list + used, sizeof list - used, "%s:", name);
  }
  return used > 0 && SSL_CTX_set_cipher_list(ctx, list) == 1;
}

static const char *string_option(lua_State *L, const char *name) {
  lua_getfield(L, 2, name);
  const char *value = lua_tostring(L, -1); /* stays alive in the table */
  lua_pop(L, 1);
  return value;
}

static const char *use_policy(lua_State *L, SSL_CTX *ctx, config *c, const key_kinds *kinds) {
  const char *ciphers = string_option(L, "ciphers"), *groups = string_option(L, "groups"), *sigalgs = string_option(L, "sigalgs");
  if (ciphers && (SSL_CTX_set_cipher_list(ctx, ciphers) != 1 || !keep_aead(ctx))) return "ciphers: no suite of this list exists for DTLS 1.2 with AEAD";
  if (groups && SSL_CTX_set1_groups_list(ctx, groups) != 1) return "groups: OpenSSL does not know this list";
  if (sigalgs && SSL_CTX_set1_sigalgs_list(ctx, sigalgs) != 1) return "sigalgs: OpenSSL does not know this list";
  if (DTLS_EDDSA_NEEDS_ECDSA && c->server && kinds->eddsa && !kinds->ec && !enable_eddsa(ctx, kinds, sigalgs)) return "key: EdDSA cannot be used";
  lua_getfield(L, 2, "request_cert");
  bool request = lua_toboolean(L, -1);
  lua_getfield(L, 2, "reject");
  c->reject = lua_toboolean(L, -1);
  lua_pop(L, 2);
  int mode = !c->server || request ? SSL_VERIFY_PEER : SSL_VERIFY_NONE;
  if (c->server && request && c->reject) mode |= SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
  SSL_CTX_set_verify(ctx, mode, NULL);
  return NULL;
}

/* What every association of this module relies on, whatever the options. */
static bool use_foundation(SSL_CTX *ctx, config *c) {
  SSL_CTX_set_security_level(ctx, SECURITY_LEVEL);
  SSL_CTX_set_options(ctx, SSL_OP_NO_QUERY_MTU | SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION | SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_NO_TICKET);
  SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_cert_verify_callback(ctx, verify, NULL);
  if (c->server) {
    SSL_CTX_set_max_cert_list(ctx, SERVER_CERT_LIST_MAX); /* bounds what libssl allocates for fragments */
    dtls_hello_callbacks(ctx);
  }
  return SSL_CTX_set_min_proto_version(ctx, DTLS1_2_VERSION) == 1 && SSL_CTX_set_max_proto_version(ctx, DTLS1_2_VERSION) == 1;
}

/* ── the Lua object ── */

static SSL_CTX *context_make(bool server) {
  if (!CRYPTO_THREAD_run_once(&config_once, make_index) || config_index < 0) return NULL;
  SSL_CTX *ctx = SSL_CTX_new(server ? DTLS_server_method() : DTLS_client_method());
  config *c = ctx ? OPENSSL_zalloc(sizeof *c) : NULL;
  if (c && SSL_CTX_set_ex_data(ctx, config_index, c) == 1) {
    c->server = server;
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
 * of 32-byte SHA-256 digests), psk ({identity = key}; a client gives one), psk_hint, ciphers, groups, sigalgs
 * (OpenSSL's lists), request_cert, reject (booleans). Nothing is checked twice: lua/dtls/context.lua has the types.
 */
int dtls_context_new(lua_State *L) {
  static const char *const roles[] = {"server", "client", NULL};
  bool server = luaL_checkoption(L, 1, NULL, roles) == 0;
  luaL_checktype(L, 2, LUA_TTABLE);
  lua_settop(L, 2);
  ERR_clear_error();
  SSL_CTX **box = lua_newuserdata(L, sizeof *box);
  *box = NULL;
  luaL_getmetatable(L, TYPE);
  lua_setmetatable(L, -2);
  *box = context_make(server);
  if (!*box) return dtls_error_openssl(L, "ERR_DTLS_CONFIG", "cannot make a context");
  config *c = config_of(*box);
  key_kinds kinds = {false, false, false};
  const char *failed = use_credentials(L, *box, &kinds);
  if (!failed) failed = use_authorities(L, *box, c);
  if (!failed) failed = use_pins(L, c);
  if (!failed) failed = use_psk(L, *box, c);
  if (!failed) failed = use_policy(L, *box, c, &kinds);
  if (failed) return dtls_error_openssl(L, "ERR_DTLS_CONFIG", failed);
  lua_settop(L, 3);
  return 1;
}

SSL_CTX *dtls_context_check(lua_State *L, int index, bool server) {
  SSL_CTX *ctx = dtls_check(L, index, TYPE);
  if (config_of(ctx)->server != server) luaL_argerror(L, index, server ? "expected a context for servers" : "expected a context for clients");
  return ctx;
}

static int context_gc(lua_State *L) {
  SSL_CTX **box = luaL_checkudata(L, 1, TYPE);
  SSL_CTX_free(*box);
  *box = NULL;
  return 0;
}

void dtls_context_init(lua_State *L) {
  static const luaL_Reg methods[] = {{"__gc", context_gc}, {NULL, NULL}};
  dtls_register(L, TYPE, methods);
}
