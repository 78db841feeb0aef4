/*
 * Raw public keys (RFC 7250). Nobody vouches for such a key: it is trusted when it is pinned, and never else. The pins are looked
 * up here, and not by SSL_add_expected_rpk, which would want them for each SSL anew, also for the context that a server name chose.
 */
#include "identity/raw_public_key.h"

#include <string.h>

#include "identity/context.h"

static bool has_type(const dtls_certificate_types *types, uint8_t type) {
  return types->count > 0 ? memchr(types->type, type, types->count) != NULL : type == TLSEXT_cert_type_x509;
}

/* RFC 7250 §4.1: who has X.509 alone says nothing of types. */
static dtls_certificate_types said(const dtls_certificate_types *types) {
  return has_type(types, TLSEXT_cert_type_rpk) ? *types : (dtls_certificate_types){.count = 0};
}

static const uint8_t *list_of(const dtls_certificate_types *types) { return types->count > 0 ? types->type : NULL; }

bool dtls_raw_public_key_use(SSL_CTX *ctx, const dtls_certificate_types *own, const dtls_certificate_types *peer,
                             dtls_failure *f) {
  if (!DTLS_HAS_RAW_PUBLIC_KEYS)
    return dtls_fail(f, "ERR_DTLS_CONFIG",
                     "rawPublicKey: raw public keys need OpenSSL 3.2 or later, and this module was compiled against %s",
                     OPENSSL_VERSION_TEXT);
  dtls_config *c = dtls_config_of(ctx);
  c->raw.own = *own;
  c->raw.peer = *peer;
  const dtls_certificate_types of_server = said(c->server ? own : peer), of_client = said(c->server ? peer : own);
  return (SSL_CTX_set1_server_cert_type(ctx, list_of(&of_server), of_server.count) == 1 &&
          SSL_CTX_set1_client_cert_type(ctx, list_of(&of_client), of_client.count) == 1) ||
         dtls_fail_config(f, "rawPublicKey: OpenSSL does not take the types of certificates");
}

/* Only servers have another context chosen by a name. */
bool dtls_raw_public_key_adopt(SSL *ssl, const SSL_CTX *ctx) {
  const dtls_raw_public_key_config *c = &dtls_config_of(ctx)->raw;
  const dtls_certificate_types of_server = said(&c->own), of_client = said(&c->peer);
  return SSL_set1_server_cert_type(ssl, list_of(&of_server), of_server.count) == 1 &&
         SSL_set1_client_cert_type(ssl, list_of(&of_client), of_client.count) == 1;
}

bool dtls_raw_public_key_unwanted(const SSL *ssl) {
  const dtls_config *c = dtls_config_of_ssl(ssl);
  bool has_others = has_type(&c->raw.own, TLSEXT_cert_type_x509) || dtls_psk_is_used(&c->psk);
  return !has_others && SSL_get_negotiated_server_cert_type(ssl) == TLSEXT_cert_type_x509;
}

bool dtls_raw_public_key_pin(SSL_CTX *ctx, const char *digest, size_t size, dtls_failure *f) {
  if (size != DTLS_DIGEST_SIZE) return dtls_fail_config(f, "peerPublicKey: a SHA-256 has 32 bytes");
  return dtls_pins_add(&dtls_config_of(ctx)->raw.pins, digest, f);
}

void dtls_raw_public_key_free(dtls_raw_public_key_config *c) { dtls_pins_free(&c->pins); }

bool dtls_accepts_certificates(const dtls_raw_public_key_config *c) {
  return has_type(&c->peer, TLSEXT_cert_type_x509);
}

static bool pinned(const dtls_raw_public_key_config *c, const EVP_PKEY *key) {
  uint8_t digest[DTLS_DIGEST_SIZE];
  return dtls_public_key_digest(key, digest) && dtls_pins_have(&c->pins, digest);
}

bool dtls_raw_public_key_verify(X509_STORE_CTX *store, const dtls_raw_public_key_config *c) {
  /* Whether the key is strong enough; the best that libcrypto says of a raw public key is "untrusted". */
  X509_verify_cert(store);
  if (X509_STORE_CTX_get_error(store) == X509_V_OK) X509_STORE_CTX_set_error(store, X509_V_ERR_UNSPECIFIED);
  if (X509_STORE_CTX_get_error(store) != X509_V_ERR_RPK_UNTRUSTED) return false;
  if (!pinned(c, X509_STORE_CTX_get0_rpk(store))) return false;
  X509_STORE_CTX_set_error(store, X509_V_OK);
  return true;
}
