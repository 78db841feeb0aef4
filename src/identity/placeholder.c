/*
 * Placeholder certificates. What: an ECDSA or RSA certificate that is loaded beside an EdDSA or RSA-PSS key, and is neither sent
 * nor signed with. Why: libssl's ssl_set_masks() lets such a key enable ECDHE-ECDSA or ECDHE-RSA suites only when the version is
 * TLS 1.2's own number, which DTLS 1.2 never has (openssl issue 20122): the handshake would end with "no shared cipher". How: the
 * placeholder enables the suites, and the context's signature algorithms, which are those of its real keys, make libssl choose the
 * real one. It is loaded only for a client whose signature_algorithms accept the real key.
 */
#include "identity/placeholder.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "identity/context.h"
#include "identity/self_signed.h"
#include "wire/record.h"

void dtls_placeholder_note(dtls_placeholder_config *p, const EVP_PKEY *key) {
  if (EVP_PKEY_is_a(key, "ED25519"))
    p->keys |= DTLS_KEY_ED25519;
  else if (EVP_PKEY_is_a(key, "ED448"))
    p->keys |= DTLS_KEY_ED448;
  else if (EVP_PKEY_is_a(key, "EC"))
    p->keys |= DTLS_KEY_EC;
  else
    p->keys |= EVP_PKEY_is_a(key, "RSA-PSS") ? DTLS_KEY_RSA_PSS : DTLS_KEY_RSA;
}

static bool has(const dtls_placeholder_config *p, unsigned keys) { return (p->keys & keys) != 0; }
static bool needs_ec(const dtls_placeholder_config *p) {
  return has(p, DTLS_KEY_ED25519 | DTLS_KEY_ED448) && !has(p, DTLS_KEY_EC);
}
static bool needs_rsa(const dtls_placeholder_config *p) { return has(p, DTLS_KEY_RSA_PSS) && !has(p, DTLS_KEY_RSA); }

bool dtls_placeholder_needed(const SSL_CTX *ctx) {
  const dtls_config *c = dtls_config_of(ctx);
  return c->server && (needs_ec(&c->placeholder) || needs_rsa(&c->placeholder));
}

/* libssl uses an ECDSA certificate only for a client that supports its curve (RFC 8422 §5.1). */
static const struct {
  uint16_t group;
  const char *name;
} curves[DTLS_PLACEHOLDER_CURVES] = {{23, "P-256"}, {24, "P-384"}, {25, "P-521"}};

/* Making an RSA key stops the event loop for a tenth of a second and more: all contexts of the process share one key. */
static bool make_rsa(dtls_key_pair *placeholder) {
  static _Atomic(EVP_PKEY *) shared;
  EVP_PKEY *found = atomic_load(&shared), *none = NULL;
  if (found) EVP_PKEY_up_ref(found);
  placeholder->key = found;
  if (!dtls_self_signed_nameless("rsa", &placeholder->cert, &placeholder->key)) return false;
  if (!found && atomic_compare_exchange_strong(&shared, &none, placeholder->key)) EVP_PKEY_up_ref(placeholder->key);
  return true;
}

bool dtls_placeholder_make(SSL_CTX *ctx) {
  static const struct {
    unsigned key;
    const char *algorithms;
  } all[] = {
      {DTLS_KEY_ED25519, "ed25519:"},
      {DTLS_KEY_ED448, "ed448:"},
      {DTLS_KEY_EC, "ECDSA+SHA256:ECDSA+SHA384:ECDSA+SHA512:"},
      {DTLS_KEY_RSA_PSS, "rsa_pss_pss_sha256:rsa_pss_pss_sha384:rsa_pss_pss_sha512:"},
      {DTLS_KEY_RSA, "rsa_pss_rsae_sha256:rsa_pss_rsae_sha384:rsa_pss_rsae_sha512:RSA+SHA256:RSA+SHA384:RSA+SHA512:"}};
  char own[256] = "";
  size_t used = 0;
  dtls_placeholder_config *p = &dtls_config_of(ctx)->placeholder;
  if (!dtls_placeholder_needed(ctx)) return true;
  for (size_t i = 0; i < sizeof all / sizeof *all; i++)
    if (has(p, all[i].key)) used += (size_t)snprintf(own + used, sizeof own - used, "%s", all[i].algorithms);
  own[used - 1] = '\0';
  bool ok = true;
  for (int i = 0; ok && needs_ec(p) && i < DTLS_PLACEHOLDER_CURVES; i++)
    ok = dtls_self_signed_nameless(curves[i].name, &p->ec[i].cert, &p->ec[i].key);
  return ok && (!needs_rsa(p) || make_rsa(&p->rsa)) && SSL_CTX_set1_sigalgs_list(ctx, own) == 1;
}

void dtls_placeholder_free(dtls_placeholder_config *p) {
  for (int i = 0; i < DTLS_PLACEHOLDER_CURVES; i++) {
    X509_free(p->ec[i].cert);
    EVP_PKEY_free(p->ec[i].key);
  }
  X509_free(p->rsa.cert);
  EVP_PKEY_free(p->rsa.key);
}

/* Calls each(number, argument) for the numbers of an extension that is a list of them; false: there is no such extension. */
static bool walk_untrusted(SSL *ssl, unsigned extension, void (*each)(uint16_t, unsigned *), unsigned *argument) {
  const uint8_t *list;
  size_t size;
  if (SSL_client_hello_get0_ext(ssl, extension, &list, &size) != 1) return false;
  for (size_t i = 2; i + 1 < size; i += 2) each(dtls_u16(list + i), argument); /* after the length of the list */
  return true;
}

/* Adds the kind of key that a SignatureScheme needs (RFC 8422 §5.1.3, RFC 8446 §4.2.3). */
static void note_algorithm(uint16_t algorithm, unsigned *keys) {
  enum { ED25519 = 0x0807, ED448 = 0x0808, RSA_PSS_PSS_SHA256 = 0x0809, RSA_PSS_PSS_SHA512 = 0x080b };
  if (algorithm == ED25519) *keys |= DTLS_KEY_ED25519;
  if (algorithm == ED448) *keys |= DTLS_KEY_ED448;
  if (algorithm >= RSA_PSS_PSS_SHA256 && algorithm <= RSA_PSS_PSS_SHA512) *keys |= DTLS_KEY_RSA_PSS;
}

static void note_curve(uint16_t group, unsigned *mask) {
  for (int i = 0; i < DTLS_PLACEHOLDER_CURVES; i++)
    if (curves[i].group == group) *mask |= 1u << i;
}

/* The placeholder that the client can take as an ECDSA certificate, or NULL. */
static const dtls_key_pair *ec_placeholder_untrusted(SSL *ssl, const dtls_placeholder_config *p) {
  unsigned mask = 0;
  if (!walk_untrusted(ssl, TLSEXT_TYPE_supported_groups, note_curve, &mask)) mask = 1;
  for (int i = 0; i < DTLS_PLACEHOLDER_CURVES; i++)
    if (mask >> i & 1) return &p->ec[i];
  return NULL;
}

/* A placeholder's key protects nothing: it need not be as strong as the security level asks. */
static bool load(SSL *ssl, const dtls_key_pair *placeholder) {
  int level = SSL_get_security_level(ssl);
  SSL_set_security_level(ssl, 0);
  bool ok = SSL_use_cert_and_key(ssl, placeholder->cert, placeholder->key, NULL, 1) == 1;
  SSL_set_security_level(ssl, level);
  return ok;
}

bool dtls_placeholder_use_untrusted(SSL *ssl) {
  const dtls_placeholder_config *p = &dtls_config_of_ssl(ssl)->placeholder;
  unsigned keys = 0;
  if (!dtls_placeholder_needed(SSL_get_SSL_CTX(ssl))) return true;
  walk_untrusted(ssl, TLSEXT_TYPE_signature_algorithms, note_algorithm, &keys);
  keys &= p->keys;
  const dtls_key_pair *ec =
      needs_ec(p) && (keys & (DTLS_KEY_ED25519 | DTLS_KEY_ED448)) ? ec_placeholder_untrusted(ssl, p) : NULL;
  bool rsa = needs_rsa(p) && (keys & DTLS_KEY_RSA_PSS);
  return (!ec || load(ssl, ec)) && (!rsa || load(ssl, &p->rsa));
}
