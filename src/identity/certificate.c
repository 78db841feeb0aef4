/* Certificates and public keys as texts and bytes: fingerprints, alternative names; and which of them a peer has shown. */
#include "identity/certificate.h"

#include <stdio.h>
#include <string.h>

#include "identity/peer.h"

/* A name that could be mistaken for two, or for one of another kind, is quoted as JSON would. */
static void write_alt_text(BIO *scratch, const ASN1_STRING *string) {
  const unsigned char *text = ASN1_STRING_get0_data(string);
  int size = ASN1_STRING_length(string);
  bool plain = true;
  for (int i = 0; i < size; i++) plain = plain && text[i] > ' ' && text[i] < 0x7f && !strchr("\"\\,'", text[i]);
  if (plain) {
    BIO_write(scratch, text, size);
    return;
  }
  BIO_puts(scratch, "\"");
  for (int i = 0; i < size; i++) {
    if (text[i] < ' ' || text[i] >= 0x7f || text[i] == '"' || text[i] == '\\')
      BIO_printf(scratch, "\\u%04x", text[i]);
    else
      BIO_write(scratch, text + i, 1);
  }
  BIO_puts(scratch, "\"");
}

bool dtls_certificate_write_alt_names(BIO *out, const X509 *cert) {
  GENERAL_NAMES *names = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
  int count = sk_GENERAL_NAME_num(names);
  for (int i = 0; i < count; i++) {
    GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
    if (i > 0) BIO_puts(out, ", ");
    switch (name->type) {
      case GEN_DNS:
        BIO_puts(out, "DNS:");
        write_alt_text(out, name->d.dNSName);
        break;
      case GEN_URI:
        BIO_puts(out, "URI:");
        write_alt_text(out, name->d.uniformResourceIdentifier);
        break;
      case GEN_EMAIL:
        BIO_puts(out, "email:");
        write_alt_text(out, name->d.rfc822Name);
        break;
      case GEN_IPADD:
      case GEN_RID: GENERAL_NAME_print(out, name); break;
      default: BIO_puts(out, "othername:<unsupported>"); break;
    }
  }
  GENERAL_NAMES_free(names);
  return count > 0;
}

void dtls_fingerprint_write(const uint8_t *digest, size_t size, char out[DTLS_FINGERPRINT_SIZE]) {
  for (size_t i = 0; i < size; i++) snprintf(out + i * 3, 4, "%02X:", digest[i]);
  out[size * 3 - 1] = '\0';
}

bool dtls_certificate_fingerprint(const X509 *cert, const EVP_MD *digest, char out[DTLS_FINGERPRINT_SIZE]) {
  uint8_t bytes[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  if (X509_digest(cert, digest, bytes, &size) != 1 || size == 0) return false;
  dtls_fingerprint_write(bytes, size, out);
  return true;
}

bool dtls_public_key_digest(const EVP_PKEY *key, uint8_t out[DTLS_DIGEST_SIZE]) {
  uint8_t *der = NULL;
  int size = i2d_PUBKEY(key, &der);
  bool ok = size > 0 && EVP_Digest(der, (size_t)size, out, NULL, EVP_sha256(), NULL) == 1;
  OPENSSL_free(der);
  return ok;
}

STACK_OF(X509) * dtls_certificate_chain(const SSL *ssl) {
  STACK_OF(X509) *refused = dtls_peer_of(ssl)->refusal.chain;
  if (refused) return refused;
  STACK_OF(X509) *verified = SSL_get_verify_result(ssl) == X509_V_OK ? SSL_get0_verified_chain(ssl) : NULL;
  return verified ? verified : SSL_get_peer_cert_chain(ssl);
}

X509 *dtls_certificate_leaf(const SSL *ssl) {
  bool refused = dtls_peer_of(ssl)->refusal.chain != NULL;
  X509 *leaf = refused ? NULL : SSL_get0_peer_certificate(ssl);
  /* a client that is still verifying it finds it in the chain */
  if (!leaf && (refused || !SSL_is_server(ssl))) leaf = sk_X509_value(dtls_certificate_chain(ssl), 0);
  return leaf;
}

EVP_PKEY *dtls_certificate_raw_key(const SSL *ssl) {
  EVP_PKEY *refused = dtls_peer_of(ssl)->refusal.key;
  return refused ? refused : SSL_get0_peer_rpk(ssl);
}

EVP_PKEY *dtls_certificate_key(const SSL *ssl) {
  EVP_PKEY *key = dtls_certificate_raw_key(ssl);
  X509 *leaf = key ? NULL : dtls_certificate_leaf(ssl);
  return leaf ? X509_get0_pubkey(leaf) : key;
}

size_t dtls_certificate_encode(const SSL *ssl, uint8_t *out) {
  const EVP_PKEY *key = dtls_certificate_raw_key(ssl);
  STACK_OF(X509) *chain = key ? NULL : dtls_certificate_chain(ssl);
  X509 *leaf = key ? NULL : dtls_certificate_leaf(ssl);
  uint8_t **end = out ? &out : NULL; /* which i2d_X509 moves */
  int size = leaf ? i2d_X509(leaf, end) : 0;
  if (key) size = i2d_PUBKEY(key, end);
  size_t total = size > 0 ? (size_t)size : 0;
  for (int i = 0; size > 0 && i < sk_X509_num(chain); i++) {
    X509 *issuer = sk_X509_value(chain, i);
    if (X509_cmp(issuer, leaf) == 0) continue;
    size = i2d_X509(issuer, end);
    total += size > 0 ? (size_t)size : 0;
  }
  return size > 0 ? total : 0;
}

STACK_OF(X509) * dtls_certificate_decode(const uint8_t *der, size_t size) {
  STACK_OF(X509) *chain = sk_X509_new_null();
  const uint8_t *end = der + size;
  while (chain && der < end) {
    X509 *cert = d2i_X509(NULL, &der, (long)(end - der));
    if (cert && sk_X509_push(chain, cert) > 0) continue;
    X509_free(cert);
    sk_X509_pop_free(chain, X509_free);
    return NULL;
  }
  return chain;
}

EVP_PKEY *dtls_certificate_decode_key(const uint8_t *der, size_t size, bool raw) {
  if (raw) return d2i_PUBKEY(NULL, &der, (long)size);
  X509 *leaf = d2i_X509(NULL, &der, (long)size);
  EVP_PKEY *key = leaf ? X509_get_pubkey(leaf) : NULL;
  X509_free(leaf);
  return key;
}
