/*
 * Who the peer may be: authorities, revocation lists, pinned certificates, the name of a server. libssl asks `verify`;
 * the verdict stays in SSL_get_verify_result.
 */
#include "core.h"

#include <string.h>

#include <openssl/core_names.h>

static bool pinned(const dtls_config *c, X509 *cert) {
  uint8_t digest[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  if (!cert || !X509_digest(cert, EVP_sha256(), digest, &size) || size != DTLS_DIGEST_SIZE) return false;
  for (size_t i = 0; i < c->pins; i++)
    if (memcmp(c->pin[i], digest, DTLS_DIGEST_SIZE) == 0) return true;
  return false;
}

/*
 * What a key costs its owner nothing and us much: one modular power with a 16384-bit modulus, or with an exponent as long
 * as the modulus, takes milliseconds. libcrypto itself bounds the exponent only above 3072 bits.
 */
static bool is_dear(X509 *cert) {
  enum { BITS_MAX = 8192, EXPONENT_BITS_MAX = 32 };
  const EVP_PKEY *key = X509_get0_pubkey(cert);
  BIGNUM *exponent = NULL;
  if (!key) return false; /* nothing can be done with it */
  bool dear = EVP_PKEY_get_bits(key) > BITS_MAX;
  bool is_rsa = EVP_PKEY_get_base_id(key) == EVP_PKEY_RSA || EVP_PKEY_get_base_id(key) == EVP_PKEY_RSA_PSS;
  if (!dear && is_rsa) dear = EVP_PKEY_get_bn_param(key, OSSL_PKEY_PARAM_RSA_E, &exponent) != 1 || BN_num_bits(exponent) > EXPONENT_BITS_MAX;
  BN_free(exponent);
  return dear;
}

static bool has_dear_key(X509_STORE_CTX *store) {
  STACK_OF(X509) *sent = X509_STORE_CTX_get0_untrusted(store);
  bool dear = X509_STORE_CTX_get0_cert(store) && is_dear(X509_STORE_CTX_get0_cert(store));
  for (int i = 0; !dear && i < sk_X509_num(sent); i++) dear = is_dear(sk_X509_value(sent, i));
  return dear;
}

/* Here and not in the X509_STORE, which may be another context's as well, nor in the SSL, which a name may give another context. */
static bool verify_chain(X509_STORE_CTX *store, const dtls_config *c) {
  if (c->partial_chain) X509_STORE_CTX_set_flags(store, X509_V_FLAG_PARTIAL_CHAIN);
  if (c->ignores_dates) X509_STORE_CTX_set_flags(store, X509_V_FLAG_NO_CHECK_TIME);
  if (c->verify_time >= 0) X509_STORE_CTX_set_time(store, 0, c->verify_time);
  return X509_verify_cert(store) == 1;
}

/* Pins without a CA replace the chain and the name; with one, both must hold. The application is asked last. */
static int verify(X509_STORE_CTX *store, void *argument) {
  SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
  dtls_association *a = dtls_association_of(ssl);
  const dtls_config *c = dtls_config_of_ssl(ssl);
  (void)argument;
  if (has_dear_key(store)) { /* whoever may be accepted unauthorized: libssl would use the key next */
    X509_STORE_CTX_set_error(store, DTLS_VERIFY_KEY_TOO_LARGE);
    SSL_set_verify(ssl, SSL_get_verify_mode(ssl) | SSL_VERIFY_PEER, NULL); /* a client with SSL_VERIFY_NONE takes no verdict */
    return 0;
  }
  bool good = true;
  if (c->pins == 0 || c->has_ca) good = verify_chain(store, c);
  if (good && c->pins > 0) {
    good = pinned(c, X509_STORE_CTX_get0_cert(store));
    X509_STORE_CTX_set_error(store, good ? X509_V_OK : X509_V_ERR_APPLICATION_VERIFICATION);
  }
  if (good && c->asks_verify) {
    dtls_answer answer = dtls_hold_ask_verify(a);
    if (answer == DTLS_UNANSWERED) return SSL_set_retry_verify(ssl);
    good = answer == DTLS_YES;
    if (!good) X509_STORE_CTX_set_error(store, X509_V_ERR_HOSTNAME_MISMATCH);
  }
  bool accepted = good || !a->reject;
  if (accepted) ERR_clear_error(); /* what the chain left there would pass for the failure of a handshake that goes on */
  return accepted;
}

bool dtls_verify_name(SSL *ssl, const dtls_name *name, bool check) {
  X509_VERIFY_PARAM *param = SSL_get0_param(ssl);
  if (name->size == 0) return !check || X509_VERIFY_PARAM_set1_host(param, "invalid", 0) == 1; /* RFC 2606 §2: nobody's */
  if (name->family != AF_UNSPEC) return !check || X509_VERIFY_PARAM_set1_ip_asc(param, name->text) == 1;
  X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT); /* RFC 9525 §6 */
  return (!check || X509_VERIFY_PARAM_set1_host(param, name->text, name->size) == 1) && SSL_set_tlsext_host_name(ssl, name->text) == 1;
}

/* ── options ── */

static bool add_ca(SSL_CTX *ctx, BIO *bio, bool server) {
  X509_STORE *store = SSL_CTX_get_cert_store(ctx);
  X509 *cert;
  int count = 0;
  bool ok = true;
  while (ok && (cert = PEM_read_bio_X509(bio, NULL, dtls_no_passphrase, NULL))) {
    ok = X509_STORE_add_cert(store, cert) == 1 && (!server || SSL_CTX_add_client_CA(ctx, cert) == 1);
    X509_free(cert);
    count++;
  }
  return ok && count > 0 && dtls_at_end_of_pem();
}

static bool add_crl(SSL_CTX *ctx, BIO *bio) {
  X509_STORE *store = SSL_CTX_get_cert_store(ctx);
  X509_CRL *crl;
  int count = 0;
  bool ok = true;
  while (ok && (crl = PEM_read_bio_X509_CRL(bio, NULL, dtls_no_passphrase, NULL))) {
    ok = X509_STORE_add_crl(store, crl) == 1 && X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL) == 1;
    X509_CRL_free(crl);
    count++;
  }
  return ok && count > 0 && dtls_at_end_of_pem();
}

static const char *take_authorities(lua_State *L, SSL_CTX *ctx, dtls_config *c) {
  static const char *const names[] = {"ca", "crl"};
  const char *failed = NULL;
  for (int kind = 0; kind < 2 && !failed; kind++) {
    size_t count = dtls_option_list(L, names[kind]);
    for (size_t i = 1; i <= count && !failed; i++) {
      lua_rawgeti(L, -1, (int)i);
      BIO *bio = dtls_text_bio(L, -1);
      if (!bio || !(kind == 0 ? add_ca(ctx, bio, c->server) : add_crl(ctx, bio)))
        failed = kind == 0 ? "ca: this is not a list of PEM certificates" : "crl: this is not a list of PEM revocation lists";
      BIO_free(bio);
      lua_pop(L, 1);
    }
    if (kind == 0) c->has_ca = count > 0;
    lua_pop(L, 1);
  }
  if (!failed && dtls_option_boolean(L, "system_ca")) {
    char sentence[DTLS_SENTENCE_MAX];
    const char *missing = dtls_system_store_fill(SSL_CTX_get_cert_store(ctx), sentence, sizeof sentence);
    c->has_ca = true;
    if (missing && dtls_option_boolean(L, "reject")) { /* without it every peer is taken, and said to be unauthorized */
      lua_pushstring(L, missing);
      failed = lua_tostring(L, -1); /* alive as long as it is on the stack */
    }
  }
  return failed;
}

static const char *take_pins(lua_State *L, dtls_config *c) {
  size_t count = dtls_option_list(L, "pins");
  if (count > 0) {
    c->pin = OPENSSL_zalloc(count * DTLS_DIGEST_SIZE);
    if (!c->pin) return "out of memory";
  }
  for (size_t i = 0; i < count; i++) {
    size_t size = 0;
    lua_rawgeti(L, -1, (int)i + 1);
    const char *pin = lua_tolstring(L, -1, &size);
    if (!pin || size != DTLS_DIGEST_SIZE) return "fingerprint: a SHA-256 fingerprint has 32 bytes";
    memcpy(c->pin[c->pins++], pin, DTLS_DIGEST_SIZE);
    lua_pop(L, 1);
  }
  lua_pop(L, 1);
  return NULL;
}

/* verify_time: false, or Unix seconds. */
static void take_time(lua_State *L, dtls_config *c) {
  lua_getfield(L, 2, "verify_time");
  c->ignores_dates = lua_isboolean(L, -1) && !lua_toboolean(L, -1);
  c->verify_time = lua_isnumber(L, -1) ? (time_t)lua_tonumber(L, -1) : -1;
  lua_pop(L, 1);
}

const char *dtls_verify_take(lua_State *L, SSL_CTX *ctx, dtls_config *c) {
  const char *failed = take_authorities(L, ctx, c);
  if (!failed) failed = take_pins(L, c);
  if (failed) return failed;
  bool request = dtls_option_boolean(L, "request_cert");
  c->reject = dtls_option_boolean(L, "reject");
  c->asks_verify = dtls_option_boolean(L, "asks_verify");
  c->partial_chain = dtls_option_boolean(L, "partial_chain");
  take_time(L, c);
  int mode = !c->server || request ? SSL_VERIFY_PEER : SSL_VERIFY_NONE;
  if (c->server && request && c->reject) mode |= SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
  SSL_CTX_set_verify(ctx, mode, NULL);
  SSL_CTX_set_cert_verify_callback(ctx, verify, NULL);
  return NULL;
}

void dtls_verify_free(dtls_config *c) { OPENSSL_free(c->pin); }
