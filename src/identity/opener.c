/*
 * Keys that libssl takes for TLS and not for DTLS. Its ssl_set_masks() offers the suites of a server's EdDSA and RSA-PSS
 * keys only when TLS1_get_version() says TLS 1.2, which DTLS never does (openssl issue 20122). An ECDSA key opens the
 * suites of EdDSA, an RSA key those of RSA-PSS; one that nobody sees will do. The list of what the server signs with has
 * its real keys alone, so the opener never signs and is never sent, and it is there only for clients that say they
 * take what the real key makes: others must not be offered suites that lead nowhere.
 */
#include "identity/opener.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "identity/self_signed.h"
#include "wire/record.h"

void dtls_opener_note(dtls_config *c, const EVP_PKEY *key) {
  if (EVP_PKEY_is_a(key, "ED25519"))
    c->keys |= DTLS_KEY_ED25519;
  else if (EVP_PKEY_is_a(key, "ED448"))
    c->keys |= DTLS_KEY_ED448;
  else if (EVP_PKEY_is_a(key, "EC"))
    c->keys |= DTLS_KEY_EC;
  else
    c->keys |= EVP_PKEY_is_a(key, "RSA-PSS") ? DTLS_KEY_RSA_PSS : DTLS_KEY_RSA;
}

static bool has(const dtls_config *c, unsigned keys) { return (c->keys & keys) != 0; }
static bool needs_ec(const dtls_config *c) { return has(c, DTLS_KEY_ED25519 | DTLS_KEY_ED448) && !has(c, DTLS_KEY_EC); }
static bool needs_rsa(const dtls_config *c) { return has(c, DTLS_KEY_RSA_PSS) && !has(c, DTLS_KEY_RSA); }

bool dtls_opener_needed(const dtls_config *c) { return c->server && (needs_ec(c) || needs_rsa(c)); }

/* An ECDSA certificate counts for a client that has its curve (RFC 8422 §5.1). */
static const struct {
  uint16_t group;
  const char *name;
} curves[DTLS_OPENER_CURVES] = {{23, "P-256"}, {24, "P-384"}, {25, "P-521"}};

/* Making an RSA key stops the loop for a tenth of a second and more; all contexts of the process share one. */
static bool make_rsa(dtls_key_pair *opener) {
  static _Atomic(EVP_PKEY *) shared;
  EVP_PKEY *found = atomic_load(&shared), *none = NULL;
  if (found) EVP_PKEY_up_ref(found);
  opener->key = found;
  if (!dtls_selfsigned_nameless("rsa", &opener->cert, &opener->key)) return false;
  if (!found && atomic_compare_exchange_strong(&shared, &none, opener->key)) EVP_PKEY_up_ref(opener->key);
  return true;
}

const char *dtls_opener_take(SSL_CTX *ctx, dtls_config *c, const char *sigalgs) {
  static const struct {
    unsigned key;
    const char *algorithms;
  } all[] = {{DTLS_KEY_ED25519, "ed25519:"},
             {DTLS_KEY_ED448, "ed448:"},
             {DTLS_KEY_EC, "ECDSA+SHA256:ECDSA+SHA384:ECDSA+SHA512:"},
             {DTLS_KEY_RSA_PSS, "rsa_pss_pss_sha256:rsa_pss_pss_sha384:rsa_pss_pss_sha512:"},
             {DTLS_KEY_RSA, "rsa_pss_rsae_sha256:rsa_pss_rsae_sha384:rsa_pss_rsae_sha512:RSA+SHA256:RSA+SHA384:RSA+SHA512:"}};
  char own[256] = "";
  size_t used = 0;
  if (!dtls_opener_needed(c)) return NULL;
  for (size_t i = 0; i < sizeof all / sizeof *all; i++)
    if (has(c, all[i].key)) used += (size_t)snprintf(own + used, sizeof own - used, "%s", all[i].algorithms);
  own[used - 1] = '\0';
  bool ok = true;
  for (int i = 0; ok && needs_ec(c) && i < DTLS_OPENER_CURVES; i++)
    ok = dtls_selfsigned_nameless(curves[i].name, &c->ec_opener[i].cert, &c->ec_opener[i].key);
  ok = ok && (!needs_rsa(c) || make_rsa(&c->rsa_opener)) &&
       SSL_CTX_set1_sigalgs_list(ctx, own) == 1 && (!sigalgs || SSL_CTX_set1_client_sigalgs_list(ctx, sigalgs) == 1);
  return ok ? NULL : "key: OpenSSL cannot use it";
}

void dtls_opener_free(dtls_config *c) {
  for (int i = 0; i < DTLS_OPENER_CURVES; i++) {
    X509_free(c->ec_opener[i].cert);
    EVP_PKEY_free(c->ec_opener[i].key);
  }
  X509_free(c->rsa_opener.cert);
  EVP_PKEY_free(c->rsa_opener.key);
}

/* Calls each(number, argument) for the numbers of an extension that is a list of them; false: there is no such extension. */
static bool walk_untrusted(SSL *ssl, unsigned extension, void (*each)(uint16_t, unsigned *), unsigned *argument) {
  const uint8_t *list;
  size_t size;
  if (SSL_client_hello_get0_ext(ssl, extension, &list, &size) != 1) return false;
  for (size_t i = 2; i + 1 < size; i += 2) each(dtls_u16(list + i), argument); /* after the length of the list */
  return true;
}

/* RFC 8422 §5.1.3, RFC 8446 §4.2.3 */
static void note_algorithm(uint16_t algorithm, unsigned *keys) {
  enum { ED25519 = 0x0807, ED448 = 0x0808, RSA_PSS_PSS_SHA256 = 0x0809, RSA_PSS_PSS_SHA512 = 0x080b };
  if (algorithm == ED25519) *keys |= DTLS_KEY_ED25519;
  if (algorithm == ED448) *keys |= DTLS_KEY_ED448;
  if (algorithm >= RSA_PSS_PSS_SHA256 && algorithm <= RSA_PSS_PSS_SHA512) *keys |= DTLS_KEY_RSA_PSS;
}

static void note_curve(uint16_t group, unsigned *mask) {
  for (int i = 0; i < DTLS_OPENER_CURVES; i++)
    if (curves[i].group == group) *mask |= 1u << i;
}

/* The opener that the client can take as an ECDSA certificate, or NULL. */
static const dtls_key_pair *ec_opener_untrusted(SSL *ssl, const dtls_config *c) {
  unsigned mask = 0;
  if (!walk_untrusted(ssl, TLSEXT_TYPE_supported_groups, note_curve, &mask)) mask = 1;
  for (int i = 0; i < DTLS_OPENER_CURVES; i++)
    if (mask >> i & 1) return &c->ec_opener[i];
  return NULL;
}

/* It protects nothing, so its strength is nobody's concern. */
static bool load(SSL *ssl, const dtls_key_pair *opener) {
  int level = SSL_get_security_level(ssl);
  SSL_set_security_level(ssl, 0);
  bool ok = SSL_use_cert_and_key(ssl, opener->cert, opener->key, NULL, 1) == 1;
  SSL_set_security_level(ssl, level);
  return ok;
}

bool dtls_opener_use_untrusted(SSL *ssl) {
  const dtls_config *c = dtls_config_of_ssl(ssl);
  unsigned keys = 0;
  if (!dtls_opener_needed(c)) return true;
  walk_untrusted(ssl, TLSEXT_TYPE_signature_algorithms, note_algorithm, &keys);
  keys &= c->keys;
  const dtls_key_pair *ec = needs_ec(c) && (keys & (DTLS_KEY_ED25519 | DTLS_KEY_ED448)) ? ec_opener_untrusted(ssl, c) : NULL;
  bool rsa = needs_rsa(c) && (keys & DTLS_KEY_RSA_PSS);
  return (!ec || load(ssl, ec)) && (!rsa || load(ssl, &c->rsa_opener));
}
