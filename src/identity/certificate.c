/*
 * The peer's certificate as a Lua table, with the fields of Node's getPeerCertificate().
 */
#include "identity/certificate.h"

#include <stdio.h>
#include <string.h>

#include "identity/peer.h"

static const char TYPE[] = "dtls.scratch";

/* A memory BIO that the collector frees: Lua may raise at any push. */
BIO *dtls_certificate_push_scratch(lua_State *L) {
  dtls_box *box = dtls_box_push(L, TYPE);
  box->object = BIO_new(BIO_s_mem());
  return box->object;
}

static void free_scratch(dtls_box *box) {
  BIO_free(box->object);
  box->object = NULL;
}

static int scratch_gc(lua_State *L) {
  dtls_box *box = dtls_box_test(L, 1, TYPE);
  if (box) free_scratch(box);
  return 0;
}

void dtls_certificate_init(lua_State *L) {
  static const luaL_Reg methods[] = {{"__gc", scratch_gc}, {NULL, NULL}};
  dtls_register(L, TYPE, methods);
}

void dtls_certificate_set_written(lua_State *L, BIO *scratch, const char *field) {
  char *text;
  long size = BIO_get_mem_data(scratch, &text);
  lua_pushlstring(L, text, (size_t)(size > 0 ? size : 0));
  lua_setfield(L, -2, field);
  (void)BIO_reset(scratch);
}

/* {CN=, O=, …}; a name that comes more than once has a list. */
static void set_name(lua_State *L, BIO *scratch, const X509_NAME *name, const char *field) {
  lua_newtable(L);
  for (int i = 0; i < X509_NAME_entry_count(name); i++) {
    const X509_NAME_ENTRY *entry = X509_NAME_get_entry(name, i);
    char key[80];
    int nid = OBJ_obj2nid(X509_NAME_ENTRY_get_object(entry));
    if (nid != NID_undef)
      snprintf(key, sizeof key, "%s", OBJ_nid2sn(nid));
    else
      OBJ_obj2txt(key, sizeof key, X509_NAME_ENTRY_get_object(entry), 1);
    ASN1_STRING_print_ex(scratch, X509_NAME_ENTRY_get_data(entry), ASN1_STRFLGS_UTF8_CONVERT);
    lua_getfield(L, -1, key);
    if (lua_isnil(L, -1)) {
      lua_pop(L, 1);
      dtls_certificate_set_written(L, scratch, key);
      continue;
    }
    if (!lua_istable(L, -1)) {
      lua_createtable(L, 2, 0);
      lua_insert(L, -2);
      lua_rawseti(L, -2, 1);
      lua_pushvalue(L, -1);
      lua_setfield(L, -3, key);
    }
    char *text;
    long size = BIO_get_mem_data(scratch, &text);
    lua_pushlstring(L, text, (size_t)(size > 0 ? size : 0));
    lua_rawseti(L, -2, (int)lua_objlen(L, -2) + 1);
    (void)BIO_reset(scratch);
    lua_pop(L, 1);
  }
  lua_setfield(L, -2, field);
}

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
      case GEN_DNS: BIO_puts(out, "DNS:"); write_alt_text(out, name->d.dNSName); break;
      case GEN_URI: BIO_puts(out, "URI:"); write_alt_text(out, name->d.uniformResourceIdentifier); break;
      case GEN_EMAIL: BIO_puts(out, "email:"); write_alt_text(out, name->d.rfc822Name); break;
      case GEN_IPADD: case GEN_RID: GENERAL_NAME_print(out, name); break;
      default: BIO_puts(out, "othername:<unsupported>"); break;
    }
  }
  GENERAL_NAMES_free(names);
  return count > 0;
}

bool dtls_certificate_fingerprint(const X509 *cert, const EVP_MD *digest, char out[DTLS_FINGERPRINT_SIZE]) {
  uint8_t bytes[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  if (X509_digest(cert, digest, bytes, &size) != 1 || size == 0) return false;
  for (size_t i = 0; i < size; i++) snprintf(out + i * 3, 4, "%02X:", bytes[i]);
  out[size * 3 - 1] = '\0';
  return true;
}

static bool set_fingerprint(lua_State *L, const X509 *cert, const EVP_MD *digest, const char *field) {
  char text[DTLS_FINGERPRINT_SIZE];
  if (!dtls_certificate_fingerprint(cert, digest, text)) return false;
  lua_pushstring(L, text);
  lua_setfield(L, -2, field);
  return true;
}

static void set_serial(lua_State *L, BIO *scratch, const X509 *cert) {
  BIGNUM *number = ASN1_INTEGER_to_BN(X509_get0_serialNumber(cert), NULL);
  char *hex = number ? BN_bn2hex(number) : NULL; /* whole bytes, which BN_print does not insist on */
  if (hex) BIO_puts(scratch, hex);
  OPENSSL_free(hex);
  BN_free(number);
  dtls_certificate_set_written(L, scratch, "serialNumber");
}

static void set_purposes(lua_State *L, const X509 *cert) {
  EXTENDED_KEY_USAGE *purposes = X509_get_ext_d2i(cert, NID_ext_key_usage, NULL, NULL);
  char oids[16][80];
  int count = sk_ASN1_OBJECT_num(purposes);
  if (count > 16) count = 16;
  for (int i = 0; i < count; i++) OBJ_obj2txt(oids[i], sizeof oids[i], sk_ASN1_OBJECT_value(purposes, i), 1);
  EXTENDED_KEY_USAGE_free(purposes);
  if (count <= 0) return;
  lua_createtable(L, count, 0);
  for (int i = 0; i < count; i++) {
    lua_pushstring(L, oids[i]);
    lua_rawseti(L, -2, i + 1);
  }
  lua_setfield(L, -2, "ext_key_usage");
}

/* Leaves a table on the stack. False: something is missing in it. */
static bool push_one(lua_State *L, BIO *scratch, X509 *cert) {
  EVP_PKEY *key = X509_get0_pubkey(cert);
  lua_createtable(L, 0, 16);
  set_name(L, scratch, X509_get_subject_name(cert), "subject");
  set_name(L, scratch, X509_get_issuer_name(cert), "issuer");
  if (dtls_certificate_write_alt_names(scratch, cert)) dtls_certificate_set_written(L, scratch, "subjectaltname");
  ASN1_TIME_print(scratch, X509_get0_notBefore(cert));
  dtls_certificate_set_written(L, scratch, "valid_from");
  ASN1_TIME_print(scratch, X509_get0_notAfter(cert));
  dtls_certificate_set_written(L, scratch, "valid_to");
  set_serial(L, scratch, cert);
  bool ok = set_fingerprint(L, cert, EVP_sha1(), "fingerprint") && set_fingerprint(L, cert, EVP_sha256(), "fingerprint256") &&
            set_fingerprint(L, cert, EVP_sha512(), "fingerprint512");
  set_purposes(L, cert);
  ok = PEM_write_bio_X509(scratch, cert) == 1 && ok;
  dtls_certificate_set_written(L, scratch, "pem");
  ok = i2d_X509_bio(scratch, cert) == 1 && ok;
  dtls_certificate_set_written(L, scratch, "raw");
  lua_pushboolean(L, X509_check_ca(cert) > 0);
  lua_setfield(L, -2, "ca");
  if (!key) return ok;
  lua_pushstring(L, EVP_PKEY_get0_type_name(key));
  lua_setfield(L, -2, "keyType");
  lua_pushinteger(L, EVP_PKEY_get_bits(key));
  lua_setfield(L, -2, "bits");
  return ok;
}

/* Half a name, or none, could pass for another one: a table for which memory did not suffice is no table. */
static bool ran_out_of_memory(void) {
  bool found = false;
  unsigned long entry;
  while ((entry = ERR_get_error()) != 0) found = found || ERR_GET_REASON(entry) == ERR_R_MALLOC_FAILURE;
  return found;
}

/* The peer's chain, with or without the leaf: as it was verified, or as it was sent. */
static STACK_OF(X509) *chain_of(const SSL *ssl) {
  STACK_OF(X509) *refused = dtls_peer_of(ssl)->refusal.chain;
  if (refused) return refused;
  STACK_OF(X509) *verified = SSL_get_verify_result(ssl) == X509_V_OK ? SSL_get0_verified_chain(ssl) : NULL;
  return verified ? verified : SSL_get_peer_cert_chain(ssl);
}

bool dtls_certificate_push(lua_State *L, const SSL *ssl, bool whole) {
  STACK_OF(X509) *chain = chain_of(ssl);
  bool refused = dtls_peer_of(ssl)->refusal.chain != NULL;
  X509 *leaf = refused ? NULL : SSL_get0_peer_certificate(ssl);
  if (!leaf && (refused || !SSL_is_server(ssl))) leaf = sk_X509_value(chain, 0); /* or while a client verifies it */
  if (!leaf) return false;
  ERR_clear_error();
  BIO *scratch = dtls_certificate_push_scratch(L);
  if (!scratch) {
    ERR_clear_error();
    return false;
  }
  int box = lua_gettop(L);
  bool ok = push_one(L, scratch, leaf);
  lua_pushvalue(L, -1);
  for (int i = 0; whole && i < sk_X509_num(chain); i++) {
    X509 *issuer = sk_X509_value(chain, i);
    if (X509_cmp(issuer, leaf) == 0) continue;
    ok = push_one(L, scratch, issuer) && ok;
    lua_pushvalue(L, -1);
    lua_setfield(L, -3, "issuerCertificate");
    lua_remove(L, -2);
  }
  lua_pop(L, 1);
  free_scratch(lua_touserdata(L, box)); /* and not when Lua collects it: a peer decides how many certificates are shown */
  lua_remove(L, box);
  return !ran_out_of_memory() && ok;
}
