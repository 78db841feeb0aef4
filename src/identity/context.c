/*
 * SSL_CTX: credentials, policy, and the configuration that hangs on it. Which suites, groups and versions are good is
 * said in lua/dtls/context.lua; what every DTLS association of this module needs is said here.
 */
#include "identity/context.h"

#include "identity/extension.h"
#include "identity/keylog.h"
#include "identity/placeholder.h"
#include "identity/peer.h"
#include "identity/pem.h"
#include "identity/psk.h"
#include "identity/raw_public_key.h"
#include "identity/session.h"
#include "identity/settings.h"
#include "identity/verify.h"
#include "wire/record.h"

/* ── the configuration on its SSL_CTX ── */

static void config_free(dtls_config *c) {
  if (!c) return;
  dtls_verify_free(&c->verify);
  dtls_raw_public_key_free(&c->raw);
  dtls_psk_free(&c->psk);
  dtls_alpn_free(&c->alpn);
  dtls_session_free(&c->session);
  dtls_keylog_free(&c->keylog);
  dtls_placeholder_free(&c->placeholder);
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

/* ── credentials ── */

/* Reads the leaf, and into chain the certificates that follow it. NULL: the text is no such chain. */
static X509 *read_chain(BIO *bio, STACK_OF(X509) * chain) {
  X509 *leaf = PEM_read_bio_X509(bio, NULL, dtls_pem_passphrase, NULL), *next;
  if (!leaf) return NULL;
  while ((next = PEM_read_bio_X509(bio, NULL, dtls_pem_passphrase, NULL)))
    if (!sk_X509_push(chain, next)) {
      X509_free(next);
      break;
    }
  if (dtls_pem_at_end()) return leaf;
  X509_free(leaf);
  return NULL;
}

typedef struct {
  BIO *bio;
  X509 *leaf;
  STACK_OF(X509) * chain;
  EVP_PKEY *key;
} credential;

static void credential_free(credential *c) {
  BIO_free(c->bio);
  X509_free(c->leaf);
  sk_X509_pop_free(c->chain, X509_free);
  EVP_PKEY_free(c->key);
}

static EVP_PKEY *read_key(dtls_text key, const char *passphrase) {
  BIO *bio = dtls_pem_open(key.bytes, key.size);
  EVP_PKEY *found = NULL;
  if (bio) found = PEM_read_bio_PrivateKey(bio, NULL, dtls_pem_passphrase, (void *)(uintptr_t)passphrase);
  BIO_free(bio);
  return found;
}

static const char *why_no_key(const char *passphrase) {
  return passphrase ? "key: this is not a PEM private key that the passphrase opens"
                    : "key: this is not a PEM private key, or it needs a passphrase";
}

bool dtls_context_use_identity(SSL_CTX *ctx, dtls_text cert, dtls_text key, const char *passphrase, dtls_failure *f) {
  credential c = {.chain = sk_X509_new_null()};
  const char *failed = "cert: this is not a PEM certificate chain";
  c.bio = dtls_pem_open(cert.bytes, cert.size);
  if (c.bio && c.chain) c.leaf = read_chain(c.bio, c.chain);
  if (!c.leaf) goto done;
  failed = why_no_key(passphrase);
  c.key = read_key(key, passphrase);
  if (!c.key) goto done;
  failed = "key: it does not match the certificate";
  if (X509_check_private_key(c.leaf, c.key) != 1) goto done;
  failed = "cert: OpenSSL does not accept it";
  if (SSL_CTX_use_cert_and_key(ctx, c.leaf, c.key, c.chain, 1) == 1) failed = NULL;
  dtls_placeholder_note(&dtls_config_of(ctx)->placeholder, c.key);
done:
  credential_free(&c);
  return !failed || dtls_fail_config(f, failed);
}

/* libssl looks at the strength of a certificate's key alone. */
bool dtls_context_use_key(SSL_CTX *ctx, dtls_text key, const char *passphrase, dtls_failure *f) {
  enum { SECURITY_BITS_MIN = 112 }; /* DTLS_SECURITY_LEVEL's */
  const char *failed = why_no_key(passphrase);
  EVP_PKEY *own = read_key(key, passphrase);
  if (own) {
    failed = "key: it is too small";
    if (EVP_PKEY_get_security_bits(own) >= SECURITY_BITS_MIN)
      failed = SSL_CTX_use_PrivateKey(ctx, own) == 1 ? NULL : "key: OpenSSL does not accept it";
    dtls_placeholder_note(&dtls_config_of(ctx)->placeholder, own);
  }
  EVP_PKEY_free(own);
  return !failed || dtls_fail_config(f, failed);
}

/* ── policy ── */

bool dtls_context_use_policy(SSL_CTX *ctx, const char *ciphers, const char *groups, const char *sigalgs,
                             dtls_failure *f) {
  dtls_target target = {.ctx = ctx};
  if (!dtls_placeholder_make(ctx)) return dtls_fail_config(f, "key: OpenSSL cannot use it");
  return (!ciphers || dtls_settings_set_ciphers(target, ciphers, f)) &&
         (!groups || dtls_settings_set_groups(target, groups, f)) &&
         (!sigalgs || dtls_settings_set_sigalgs(target, sigalgs, f));
}

/* ── making one ── */

enum { READ_BUFFER_ALIGNMENT = 16 }; /* libssl takes a few bytes of its read buffer to align the records' bodies */

/* What every association of this module relies on, whatever the options. */
static bool use_foundation(SSL_CTX *ctx, const dtls_config *c) {
  SSL_CTX_set_security_level(ctx, DTLS_SECURITY_LEVEL);
  SSL_CTX_set_options(ctx, SSL_OP_NO_QUERY_MTU | SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION |
                               SSL_OP_CIPHER_SERVER_PREFERENCE);
  SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_default_read_buffer_len(ctx, DTLS_DATAGRAM_MAX + READ_BUFFER_ALIGNMENT);
  SSL_CTX_set_dh_auto(ctx, 1); /* for DHE-PSK, which is in no default list of suites */
  if (c->server) SSL_CTX_set_max_cert_list(ctx, DTLS_HANDSHAKE_MESSAGE_MAX); /* bounds what fragments can allocate */
  return SSL_CTX_set_min_proto_version(ctx, DTLS1_2_VERSION) == 1 &&
         SSL_CTX_set_max_proto_version(ctx, DTLS1_2_VERSION) == 1;
}

SSL_CTX *dtls_context_make(bool server) {
  if (!CRYPTO_THREAD_run_once(&config_once, make_index) || config_index < 0) return NULL;
  SSL_CTX *ctx = SSL_CTX_new(server ? DTLS_server_method() : DTLS_client_method());
  dtls_config *c = ctx ? OPENSSL_zalloc(sizeof *c) : NULL;
  if (c) {
    c->server = server;
    c->keylog.fd = -1;
  }
  if (c && SSL_CTX_set_ex_data(ctx, config_index, c) == 1) {
    if (use_foundation(ctx, c)) return ctx;
  } else {
    config_free(c);
  }
  SSL_CTX_free(ctx);
  return NULL;
}

/* ── another identity for a handshake ── */

/* Gives the SSL the options and modes in which the two contexts differ; a bit that was set for the SSL itself stays. */
static void adopt_flags(SSL *ssl, SSL_CTX *from, SSL_CTX *to) {
  const dtls_peer *peer = dtls_peer_of(ssl);
  uint64_t had = SSL_CTX_get_options(from), has = SSL_CTX_get_options(to);
  long had_mode = SSL_CTX_get_mode(from), has_mode = SSL_CTX_get_mode(to);
  SSL_clear_options(ssl, had & ~has & ~peer->overrides.options);
  SSL_set_options(ssl, (has & ~had & ~peer->overrides.options) | (peer->stores_sessions ? SSL_OP_NO_TICKET : 0));
  SSL_clear_mode(ssl, had_mode & ~has_mode & ~peer->overrides.modes);
  SSL_set_mode(ssl, has_mode & ~had_mode & ~peer->overrides.modes);
}

/* SSL_set_SSL_CTX changes certificates, suites, signature algorithms, the security level and what libssl looks up in the
   SSL_CTX itself; SSL_new copied the rest. Ticket keys and stored sessions stay with the context that the SSL was made with. */
bool dtls_context_adopt(SSL *ssl, SSL_CTX *ctx) {
  dtls_peer *peer = dtls_peer_of(ssl);
  const dtls_config *c = dtls_config_of(ctx);
  adopt_flags(ssl, SSL_get_SSL_CTX(ssl), ctx);
  if (SSL_set_SSL_CTX(ssl, ctx) != ctx) return false;
  if (!peer->overrides.verify) {
    SSL_set_verify(ssl, SSL_CTX_get_verify_mode(ctx), NULL);
    peer->reject = c->verify.policy.reject;
  }
  if (!peer->overrides.depth) SSL_set_verify_depth(ssl, SSL_CTX_get_verify_depth(ctx));
  if (!peer->overrides.groups && c->groups && SSL_set1_groups_list(ssl, c->groups) != 1) return false;
  SSL_set_psk_server_callback(ssl, dtls_psk_is_used(&c->psk) ? dtls_psk_for_server : NULL);
  return dtls_raw_public_key_adopt(ssl, ctx) && dtls_settings_restore(ssl);
}
