/*
 * Resumption: tickets (RFC 5077) and their keys, sessions that an application stores, and what ties a session to the
 * name and the identity context that it was made under. libssl keeps no session itself.
 */
#include "identity/session.h"

#include <limits.h>
#include <string.h>
#include <time.h>

#include <openssl/core_names.h>

#include "base/clock.h"
#include "identity/context.h"
#include "identity/peer.h"

/* ── ticket keys, in OpenSSL's layout: name, HMAC key, AES key ── */

enum { NAME_SIZE = 16, SECRET_SIZE = 32 };

static bool rotate_own_keys(dtls_session_config *c) {
  uint64_t now = dtls_now();
  if (!c->own_ticket_keys || (c->ticket_keys > 0 && now - c->ticket_keys_since < c->timeout)) return true;
  memcpy(c->ticket_key[1], c->ticket_key[0], DTLS_TICKET_KEY_SIZE);
  if (RAND_priv_bytes(c->ticket_key[0], DTLS_TICKET_KEY_SIZE) != 1) return false;
  if (c->ticket_keys < 2) c->ticket_keys++;
  c->ticket_keys_since = now;
  return true;
}

static bool use_key(const uint8_t *key, unsigned char *iv, EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac, bool sealing) {
  const uint8_t *hmac = key + NAME_SIZE, *aes = hmac + SECRET_SIZE;
  char digest[] = "SHA256";
  OSSL_PARAM params[] = {OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, (void *)(uintptr_t)hmac, SECRET_SIZE),
                         OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
                         OSSL_PARAM_construct_end()};
  if (EVP_MAC_CTX_set_params(mac, params) != 1) return false;
  return sealing ? EVP_EncryptInit_ex(cipher, EVP_aes_256_cbc(), NULL, aes, iv) == 1
                 : EVP_DecryptInit_ex(cipher, EVP_aes_256_cbc(), NULL, aes, iv) == 1;
}

/* 1: done; 2: done, and the client gets a new ticket; 0: a full handshake; -1: failure (SSL_CTX_set_tlsext_ticket_key_evp_cb) */
static int on_ticket(SSL *ssl, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac,
                     int sealing) {
  dtls_session_config *c = &dtls_peer_of(ssl)->base->session;
  if (!rotate_own_keys(c)) return -1;
  if (sealing) {
    memcpy(name, c->ticket_key[0], NAME_SIZE);
    return RAND_bytes(iv, EVP_CIPHER_get_iv_length(EVP_aes_256_cbc())) == 1 &&
                   use_key(c->ticket_key[0], iv, cipher, mac, true)
               ? 1
               : -1;
  }
  for (unsigned i = 0; i < c->ticket_keys; i++)
    if (CRYPTO_memcmp(name, c->ticket_key[i], NAME_SIZE) == 0)
      return use_key(c->ticket_key[i], iv, cipher, mac, false) ? (int)i + 1 : -1;
  return 0;
}

bool dtls_session_set_ticket_keys(SSL_CTX *ctx, const char *const keys[2], const size_t sizes[2], size_t count,
                                  dtls_failure *f) {
  dtls_session_config *c = &dtls_config_of(ctx)->session;
  if (count < 1 || count > 2) return dtls_fail(f, "ERR_DTLS_CONFIG", "ticketKeys: there are one or two");
  for (size_t i = 0; i < count; i++)
    if (!keys[i] || sizes[i] != DTLS_TICKET_KEY_SIZE)
      return dtls_fail(f, "ERR_DTLS_CONFIG", "ticketKeys: a key has 80 bytes");
  for (size_t i = 0; i < count; i++) memcpy(c->ticket_key[i], keys[i], DTLS_TICKET_KEY_SIZE);
  c->ticket_keys = (unsigned)count;
  c->own_ticket_keys = false;
  return true;
}

/* ── what a session is tied to ── */

/* A session keeps its suite. When it is resumed, libssl ends the handshake if the client no longer has that suite, and does not
   look whether the server still has it. */
static bool digest_suites(EVP_MD_CTX *md, const SSL *ssl) {
  STACK_OF(SSL_CIPHER) *suites = SSL_get_ciphers(ssl);
  bool ok = true;
  for (int i = 0; ok && i < sk_SSL_CIPHER_num(suites); i++) {
    uint16_t id = SSL_CIPHER_get_protocol_id(sk_SSL_CIPHER_value(suites, i));
    uint8_t bytes[2] = {(uint8_t)(id >> 8), (uint8_t)id};
    ok = EVP_DigestUpdate(md, bytes, sizeof bytes) == 1;
  }
  return ok;
}

static bool digest_text(EVP_MD_CTX *md, const char *text) {
  return EVP_DigestUpdate(md, text ? text : "", text ? strlen(text) + 1 : 1) == 1;
}

/* Which signatures, curves and key sizes a certificate may have: a resumed handshake shows no certificate to check again. */
static bool digest_strength(EVP_MD_CTX *md, const SSL *ssl) {
  const dtls_peer *peer = dtls_peer_of(ssl);
  const dtls_config *c = dtls_config_of_ssl(ssl);
  uint8_t level = (uint8_t)SSL_get_security_level(ssl);
  return EVP_DigestUpdate(md, &level, 1) == 1 &&
         digest_text(md, peer->overrides.sigalgs ? peer->overrides.sigalgs : c->sigalgs) &&
         digest_text(md, peer->overrides.groups ? peer->overrides.groups : c->groups);
}

/* RFC 6066 §3 forbids to resume a session under another server name. libssl does not compare names, but it compares session id
   contexts: the name is part of ours. */
static bool digest_context(const SSL *ssl, const char *name, size_t size, uint8_t out[EVP_MAX_MD_SIZE]) {
  const dtls_peer *peer = dtls_peer_of(ssl);
  uint8_t checks[3] = {(uint8_t)SSL_get_verify_mode(ssl), (uint8_t)SSL_get_verify_depth(ssl), peer->reject};
  EVP_MD_CTX *md = EVP_MD_CTX_new();
  bool ok = md && EVP_DigestInit_ex(md, EVP_sha256(), NULL) == 1 &&
            EVP_DigestUpdate(md, dtls_config_of_ssl(ssl)->session.policy, DTLS_DIGEST_SIZE) == 1 &&
            EVP_DigestUpdate(md, checks, sizeof checks) == 1 && digest_suites(md, ssl) && digest_strength(md, ssl);
  for (size_t i = 0; ok && i < size; i++) {
    char c = (char)(name[i] >= 'A' && name[i] <= 'Z' ? name[i] - 'A' + 'a' : name[i]);
    ok = EVP_DigestUpdate(md, &c, 1) == 1;
  }
  ok = ok && EVP_DigestFinal_ex(md, out, NULL) == 1;
  EVP_MD_CTX_free(md);
  return ok;
}

bool dtls_session_bind(SSL *ssl, const char *name, size_t size) {
  uint8_t digest[EVP_MAX_MD_SIZE];
  return digest_context(ssl, name, size, digest) && SSL_set_session_id_context(ssl, digest, DTLS_DIGEST_SIZE) == 1;
}

/* ── sessions ── */

SSL_SESSION *dtls_session_parse(const void *blob, size_t size) {
  const unsigned char *p = blob;
  SSL_SESSION *session = size <= LONG_MAX ? d2i_SSL_SESSION(NULL, &p, (long)size) : NULL;
  if (session && (size_t)(p - (const unsigned char *)blob) == size) return session;
  SSL_SESSION_free(session);
  ERR_clear_error();
  return NULL;
}

static SSL_SESSION *on_lookup(SSL *ssl, const unsigned char *id, int size, int *copy) {
  dtls_peer *peer = dtls_peer_of(ssl);
  *copy = 0;
  return peer->questions->session(peer, id, (size_t)size);
}

/* libssl gives a client without a ticket a session id, which is removed where no store would find the session again. The timeout
   is that of the context which the server name has chosen; libssl takes that of the context which the SSL was made with. */
static int on_new_session(SSL *ssl, int forward_secure) {
  (void)forward_secure;
  /* a ticket that could not be decrypted leaves an entry in the error queue, which would pass for this handshake's failure */
  dtls_clear_errors();
  SSL_SESSION_set_timeout(SSL_get0_session(ssl), (long)(dtls_config_of_ssl(ssl)->session.timeout / 1000));
  if (!dtls_peer_of(ssl)->stores_sessions) SSL_SESSION_set1_id(SSL_get0_session(ssl), (const unsigned char *)"", 0);
  return 0;
}

/* A hello with a ticket that does not fit one datagram would go out in fragments, which some servers refuse. */
static bool fits(SSL *ssl, const SSL_SESSION *session, size_t mtu) {
  enum { HELLO_WITHOUT_NAMES = 320 };
  const unsigned char *ticket;
  size_t size = 0;
  const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
  SSL_SESSION_get0_ticket(session, &ticket, &size);
  return size + HELLO_WITHOUT_NAMES + (name ? strlen(name) : 0) + dtls_config_of_ssl(ssl)->alpn.size <= mtu;
}

/* Servers that share a store may have clocks that differ a little. */
bool dtls_session_in_time(const SSL_SESSION *session) {
  enum { SKEW = 60 };
  int64_t age = (int64_t)time(NULL) - (int64_t)DTLS_SESSION_TIME(session);
  return age > -SKEW && age < SSL_SESSION_get_timeout(session);
}

bool dtls_session_offer(SSL *ssl, SSL_SESSION *session, const char *name) {
  uint8_t digest[EVP_MAX_MD_SIZE];
  unsigned size;
  const unsigned char *context = SSL_SESSION_get0_id_context(session, &size);
  bool same =
      digest_context(ssl, name, strlen(name), digest) && size == DTLS_DIGEST_SIZE && memcmp(context, digest, size) == 0;
  return same && dtls_session_in_time(session) && SSL_SESSION_is_resumable(session) &&
         SSL_set_session(ssl, session) == 1;
}

void dtls_session_trim(SSL *ssl, size_t mtu) {
  SSL_SESSION *session = SSL_get0_session(ssl);
  if (session && !fits(ssl, session, mtu)) SSL_set_session(ssl, NULL);
}

SSL_SESSION *dtls_session_of(SSL *ssl) {
  SSL_SESSION *session = SSL_get0_session(ssl);
  return session && SSL_SESSION_is_resumable(session) ? session : NULL;
}

/* ── the sessions of a context ── */

bool dtls_session_use(SSL_CTX *ctx, const void *policy, size_t size, long timeout, dtls_failure *f) {
  dtls_config *c = dtls_config_of(ctx);
  if (!EVP_Digest(policy, size, c->session.policy, NULL, EVP_sha256(), NULL))
    return dtls_fail_config(f, "cannot make a digest");
  SSL_CTX_set_timeout(ctx, timeout);
  c->session.timeout = (uint64_t)timeout * 1000;
  if (!c->server) return true;
  c->session.own_ticket_keys = true;
  /* Without a mode libssl gives no session ids, and the internal cache stays empty. */
  SSL_CTX_set_session_cache_mode(ctx,
                                 SSL_SESS_CACHE_SERVER | SSL_SESS_CACHE_NO_INTERNAL | SSL_SESS_CACHE_NO_AUTO_CLEAR);
  SSL_CTX_sess_set_get_cb(ctx, on_lookup);
  SSL_CTX_set_tlsext_ticket_key_evp_cb(ctx, on_ticket);
  SSL_CTX_set_not_resumable_session_callback(ctx, on_new_session);
  return true;
}

void dtls_session_free(dtls_session_config *c) { OPENSSL_cleanse(c->ticket_key, sizeof c->ticket_key); }
