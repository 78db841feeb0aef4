/*
 * A key and a certificate that it signs itself: for tests, demos, and peers that pin each other's fingerprint.
 */
#include "identity/self_signed.h"

#include <string.h>

#include <openssl/rsa.h>

#include "identity/certificate.h"

enum { SERIAL_BITS = 127, HOUR = 60 * 60, RSA_BITS = 2048 };

static EVP_PKEY *make_rsa_pss(void) {
  EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, "RSA-PSS", NULL);
  EVP_PKEY *key = NULL;
  if (ctx && EVP_PKEY_keygen_init(ctx) == 1 && EVP_PKEY_CTX_set_rsa_keygen_bits(ctx, RSA_BITS) == 1)
    EVP_PKEY_generate(ctx, &key);
  EVP_PKEY_CTX_free(ctx);
  return key;
}

static EVP_PKEY *make_key(const char *type) {
  if (strcmp(type, "ec") == 0) return EVP_EC_gen("P-256");
  if (strncmp(type, "P-", 2) == 0) return EVP_EC_gen(type);
  if (strcmp(type, "rsa") == 0) return EVP_RSA_gen(RSA_BITS);
  if (strcmp(type, "rsa-pss") == 0) return make_rsa_pss();
  return EVP_PKEY_Q_keygen(NULL, NULL, strcmp(type, "ed448") == 0 ? "ED448" : "ED25519");
}

static bool set_serial(X509 *cert) {
  BIGNUM *number = BN_new();
  bool ok = number && BN_rand(number, SERIAL_BITS, BN_RAND_TOP_ANY, BN_RAND_BOTTOM_ANY) == 1 &&
            BN_to_ASN1_INTEGER(number, X509_get_serialNumber(cert)) != NULL;
  BN_free(number);
  return ok;
}

static bool set_name(X509 *cert, const char *common_name) {
  X509_NAME *name = X509_NAME_new();
  bool ok = name &&
            X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, (const unsigned char *)common_name, -1, -1, 0) == 1 &&
            X509_set_subject_name(cert, name) == 1 && X509_set_issuer_name(cert, name) == 1;
  X509_NAME_free(name);
  return ok;
}

static bool add_extension(X509 *cert, int nid, const char *value) {
  X509V3_CTX ctx;
  X509V3_set_ctx(&ctx, cert, cert, NULL, NULL, 0);
  X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
  bool ok = extension && X509_add_ext(cert, extension, -1) == 1;
  X509_EXTENSION_free(extension);
  return ok;
}

/* Built from objects and not from a configuration string, so that a name is a name whatever it contains. */
static bool add_alt_name(GENERAL_NAMES *names, const char *text) {
  GENERAL_NAME *name = GENERAL_NAME_new();
  ASN1_OCTET_STRING *ip = a2i_IPADDRESS(text);
  ASN1_STRING *dns = ip ? NULL : ASN1_IA5STRING_new();
  if (!name || (!ip && (!dns || !ASN1_STRING_set(dns, text, -1)))) goto fail;
  GENERAL_NAME_set0_value(name, ip ? GEN_IPADD : GEN_DNS, ip ? (void *)ip : (void *)dns);
  ip = NULL;
  dns = NULL;
  if (sk_GENERAL_NAME_push(names, name)) return true;
fail:
  ERR_clear_error();
  GENERAL_NAME_free(name);
  ASN1_OCTET_STRING_free(ip);
  ASN1_STRING_free(dns);
  return false;
}

/* A certificate would have a name only up to its NUL. */
static bool is_alt_name(const char *text, size_t size) {
  for (size_t i = 0; i < size; i++)
    if (text[i] == '\0' || (unsigned char)text[i] > 127) return false;
  return size > 0;
}

/* What is wrong with the names, or NULL. */
static const char *check_names(const dtls_self_signed_options *o) {
  if (memchr(o->common_name.bytes, '\0', o->common_name.size)) return "commonName: there is a NUL in this name";
  for (size_t i = 0; i < o->alt_names_count; i++)
    if (!is_alt_name(o->alt_names[i].bytes, o->alt_names[i].size))
      return "altNames: a name is not empty, in ASCII, and without NUL";
  return NULL;
}

static bool set_alt_names(X509 *cert, const dtls_self_signed_options *o) {
  GENERAL_NAMES *names = sk_GENERAL_NAME_new_null();
  bool ok = names != NULL;
  for (size_t i = 0; i < o->alt_names_count && ok; i++) ok = add_alt_name(names, o->alt_names[i].bytes);
  ERR_clear_error(); /* a2i_IPADDRESS complains about names that are not addresses */
  ok = ok &&
       (o->alt_names_count == 0 || X509_add1_ext_i2d(cert, NID_subject_alt_name, names, 0, X509V3_ADD_DEFAULT) == 1);
  GENERAL_NAMES_free(names);
  return ok;
}

static bool fill(X509 *cert, EVP_PKEY *key, const char *common_name, long days) {
  /* An hour back: the peer's clock may be behind. */
  return X509_set_version(cert, 2) == 1 && set_serial(cert) && X509_gmtime_adj(X509_getm_notBefore(cert), -HOUR) &&
         X509_time_adj_ex(X509_getm_notAfter(cert), (int)days, 0, NULL) && set_name(cert, common_name) &&
         X509_set_pubkey(cert, key) == 1 && add_extension(cert, NID_basic_constraints, "critical,CA:FALSE") &&
         add_extension(cert, NID_subject_key_identifier, "hash");
}

static bool sign(X509 *cert, EVP_PKEY *key) {
  bool eddsa = EVP_PKEY_is_a(key, "ED25519") || EVP_PKEY_is_a(key, "ED448"); /* which has a digest of its own */
  return X509_sign(cert, key, eddsa ? NULL : EVP_sha256()) > 0;
}

bool dtls_self_signed_nameless(const char *type, X509 **cert, EVP_PKEY **key) {
  if (!*key) *key = make_key(type);
  *cert = X509_new();
  return *key && *cert && fill(*cert, *key, "-", 1) && sign(*cert, *key);
}

bool dtls_self_signed(const dtls_self_signed_options *o, BIO *cert_pem, BIO *key_pem, BIO *public_pem,
                      char fingerprint[DTLS_FINGERPRINT_SIZE], dtls_failure *f) {
  const char *wrong = check_names(o);
  if (wrong) return dtls_fail(f, "ERR_DTLS_CONFIG", "%s", wrong);
  ERR_clear_error();
  EVP_PKEY *key = make_key(o->type);
  X509 *cert = X509_new();
  bool ok = key && cert && cert_pem && key_pem && public_pem && fill(cert, key, o->common_name.bytes, o->days) &&
            set_alt_names(cert, o) && sign(cert, key) && PEM_write_bio_X509(cert_pem, cert) == 1 &&
            PEM_write_bio_PKCS8PrivateKey(key_pem, key, NULL, NULL, 0, NULL, NULL) == 1 &&
            PEM_write_bio_PUBKEY(public_pem, key) == 1 && dtls_certificate_fingerprint(cert, EVP_sha256(), fingerprint);
  X509_free(cert);
  EVP_PKEY_free(key);
  if (ok) ERR_clear_error();
  return ok || dtls_fail_config(f, "cannot make a self-signed certificate");
}
