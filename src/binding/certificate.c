/*
 * Certificates for Lua: the peer's as a table with the fields of Node's getPeerCertificate(), and self-signed ones.
 */
#include "binding/certificate.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "binding/error.h"
#include "identity/certificate.h"
#include "identity/pem.h"
#include "identity/self_signed.h"

static const char TYPE[] = "dtls.scratch", CHAIN[] = "dtls.chain";

/* A memory BIO that the collector frees: Lua may raise at any push. */
static BIO *push_scratch(lua_State *L) {
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

static void free_chain(dtls_box *box) {
  sk_X509_pop_free(box->object, X509_free);
  box->object = NULL;
}

static int chain_gc(lua_State *L) {
  dtls_box *box = dtls_box_test(L, 1, CHAIN);
  if (box) free_chain(box);
  return 0;
}

void dtls_certificate_init(lua_State *L) {
  static const luaL_Reg scratch[] = {{"__gc", scratch_gc}, {NULL, NULL}}, chain[] = {{"__gc", chain_gc}, {NULL, NULL}};
  dtls_register(L, TYPE, scratch);
  dtls_register(L, CHAIN, chain);
}

static void set_written(lua_State *L, BIO *scratch, const char *field) {
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
      set_written(L, scratch, key);
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
  set_written(L, scratch, "serialNumber");
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
  if (dtls_certificate_write_alt_names(scratch, cert)) set_written(L, scratch, "subjectaltname");
  ASN1_TIME_print(scratch, X509_get0_notBefore(cert));
  set_written(L, scratch, "valid_from");
  ASN1_TIME_print(scratch, X509_get0_notAfter(cert));
  set_written(L, scratch, "valid_to");
  set_serial(L, scratch, cert);
  bool ok = set_fingerprint(L, cert, EVP_sha1(), "fingerprint") &&
            set_fingerprint(L, cert, EVP_sha256(), "fingerprint256") &&
            set_fingerprint(L, cert, EVP_sha512(), "fingerprint512");
  set_purposes(L, cert);
  ok = PEM_write_bio_X509(scratch, cert) == 1 && ok;
  set_written(L, scratch, "pem");
  ok = i2d_X509_bio(scratch, cert) == 1 && ok;
  set_written(L, scratch, "raw");
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

/* Leaves a table on the stack, or nothing: as dtls_certificate_push. */
static bool push(lua_State *L, X509 *leaf, STACK_OF(X509) * chain) {
  ERR_clear_error();
  BIO *scratch = push_scratch(L);
  if (!scratch) {
    ERR_clear_error();
    return false;
  }
  int box = lua_gettop(L);
  bool ok = push_one(L, scratch, leaf);
  lua_pushvalue(L, -1);
  for (int i = 0; i < sk_X509_num(chain); i++) {
    X509 *issuer = sk_X509_value(chain, i);
    if (X509_cmp(issuer, leaf) == 0) continue;
    ok = push_one(L, scratch, issuer) && ok;
    lua_pushvalue(L, -1);
    lua_setfield(L, -3, "issuerCertificate");
    lua_remove(L, -2);
  }
  lua_pop(L, 1);
  /* and not when Lua collects it: a peer decides how many certificates are shown */
  free_scratch(lua_touserdata(L, box));
  lua_remove(L, box);
  return !ran_out_of_memory() && ok;
}

bool dtls_certificate_push(lua_State *L, const SSL *ssl, bool whole) {
  X509 *leaf = dtls_certificate_leaf(ssl);
  return leaf && push(L, leaf, whole ? dtls_certificate_chain(ssl) : NULL);
}

bool dtls_certificate_push_der(lua_State *L, const uint8_t *der, size_t size, bool whole) {
  if (size == 0) return false;
  dtls_box *box = dtls_box_push(L, CHAIN);
  int index = lua_gettop(L);
  STACK_OF(X509) *chain = box->object = dtls_certificate_decode(der, size);
  bool ok = chain && push(L, sk_X509_value(chain, 0), whole ? chain : NULL);
  free_chain(box);
  lua_remove(L, index);
  return ok;
}

/* ── public keys ── */

typedef struct {
  uint8_t digest[DTLS_DIGEST_SIZE];
  char type[32];
  int bits;
} key_facts;

/* Writes the SubjectPublicKeyInfo into scratch. */
static bool describe_key(BIO *scratch, const EVP_PKEY *key, key_facts *facts) {
  char *der;
  if (!scratch || !key || i2d_PUBKEY_bio(scratch, key) != 1) return false;
  long size = BIO_get_mem_data(scratch, &der);
  const char *type = EVP_PKEY_get0_type_name(key);
  snprintf(facts->type, sizeof facts->type, "%s", type ? type : "");
  facts->bits = EVP_PKEY_get_bits(key);
  return EVP_Digest(der, (size_t)size, facts->digest, NULL, EVP_sha256(), NULL) == 1;
}

/* Leaves a table on the stack, or nothing, instead of the box with what describe_key has written. */
static bool push_key(lua_State *L, BIO *scratch, bool ok, const key_facts *facts) {
  int box = lua_gettop(L);
  if (ok) {
    char text[DTLS_FINGERPRINT_SIZE];
    lua_createtable(L, 0, 5);
    set_written(L, scratch, "raw");
    lua_getfield(L, -1, "raw");
    long size = (long)lua_objlen(L, -1);
    ok = PEM_write_bio(scratch, PEM_STRING_PUBLIC, "", (const unsigned char *)lua_tostring(L, -1), size) > 0;
    lua_pop(L, 1);
    set_written(L, scratch, "pem");
    dtls_fingerprint_write(facts->digest, DTLS_DIGEST_SIZE, text);
    lua_pushstring(L, text);
    lua_setfield(L, -2, "fingerprint256");
    lua_pushstring(L, facts->type);
    lua_setfield(L, -2, "keyType");
    lua_pushinteger(L, facts->bits);
    lua_setfield(L, -2, "bits");
  }
  free_scratch(lua_touserdata(L, box));
  lua_remove(L, box);
  ERR_clear_error();
  return ok;
}

bool dtls_public_key_push(lua_State *L, const SSL *ssl) {
  key_facts facts;
  BIO *scratch = push_scratch(L);
  return push_key(L, scratch, describe_key(scratch, dtls_certificate_key(ssl), &facts), &facts);
}

bool dtls_public_key_push_der(lua_State *L, const uint8_t *der, size_t size, bool raw) {
  key_facts facts;
  if (size == 0) return false;
  BIO *scratch = push_scratch(L);
  EVP_PKEY *key = dtls_certificate_decode_key(der, size, raw);
  bool ok = describe_key(scratch, key, &facts);
  EVP_PKEY_free(key);
  return push_key(L, scratch, ok, &facts);
}

/* The digest of the next public key of a PEM text; false: there is none, or it is none that OpenSSL knows. */
static bool read_digest(BIO *pem, uint8_t digest[DTLS_DIGEST_SIZE]) {
  unsigned char *der = NULL;
  long size = 0;
  if (PEM_bytes_read_bio(&der, &size, NULL, PEM_STRING_PUBLIC, pem, dtls_pem_passphrase, NULL) != 1) return false;
  const unsigned char *p = der;
  EVP_PKEY *key = d2i_PUBKEY(NULL, &p, size);
  bool ok = key && p == der + size && dtls_public_key_digest(key, digest);
  EVP_PKEY_free(key);
  OPENSSL_free(der);
  return ok;
}

/* core.public_keys(pem) → the SHA-256 of the SubjectPublicKeyInfo of each | nil: this is no list of public keys */
int dtls_public_key_digests(lua_State *L) {
  size_t size;
  const char *text = luaL_checklstring(L, 1, &size);
  uint8_t digest[DTLS_DIGEST_SIZE];
  BIO *pem = push_scratch(L);
  int count = 0;
  ERR_clear_error();
  if (!pem || size > INT_MAX || BIO_write(pem, text, (int)size) != (int)size) return 0;
  lua_newtable(L);
  while (read_digest(pem, digest)) {
    lua_pushlstring(L, (const char *)digest, sizeof digest);
    lua_rawseti(L, -2, ++count);
  }
  bool at_end = dtls_pem_at_end();
  ERR_clear_error();
  return count > 0 && at_end;
}

/* ── self-signed ones ── */

static dtls_text text_at(lua_State *L, int index) {
  dtls_text text = {.size = 0};
  text.bytes = lua_tolstring(L, index, &text.size);
  return text;
}

/*
 * core.self_signed({type='ec'|'ed25519'|'ed448'|'rsa'|'rsa-pss', common_name=, alt_names={...}, days=})
 *   → {cert=, key=, publicKey=, fingerprint=} | nil, err
 * P-256, an Edwards curve or RSA-2048; PEM (the key as PKCS #8); the fingerprint is SHA-256.
 */
int dtls_certificate_self_signed(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 1);
  dtls_self_signed_options options = {.days = dtls_option_integer(L, 1, "days", 365, 1, 36500)};
  lua_getfield(L, 1, "common_name");
  lua_getfield(L, 1, "alt_names");
  lua_getfield(L, 1, "type");
  options.type = luaL_optstring(L, 4, "ec");
  options.common_name = lua_isnil(L, 2) ? (dtls_text){"localhost", strlen("localhost")} : text_at(L, 2);
  if (!options.common_name.bytes) return luaL_argerror(L, 1, "common_name: expected a string");
  options.alt_names_count = lua_istable(L, 3) ? lua_objlen(L, 3) : 0;
  dtls_text *names = lua_newuserdata(L, (options.alt_names_count + 1) * sizeof *names);
  for (size_t i = 0; i < options.alt_names_count; i++) {
    lua_rawgeti(L, 3, (int)i + 1);
    /* stays alive in the list; '' is refused */
    names[i] = lua_type(L, -1) == LUA_TSTRING ? text_at(L, -1) : (dtls_text){"", 0};
    lua_pop(L, 1);
  }
  options.alt_names = names;
  char fingerprint[DTLS_FINGERPRINT_SIZE];
  dtls_failure f;
  BIO *cert_pem = push_scratch(L), *key_pem = push_scratch(L), *public_pem = push_scratch(L);
  if (!dtls_self_signed(&options, cert_pem, key_pem, public_pem, fingerprint, &f)) return dtls_error_push(L, &f);
  lua_createtable(L, 0, 4);
  set_written(L, cert_pem, "cert");
  set_written(L, key_pem, "key");
  set_written(L, public_pem, "publicKey");
  lua_pushstring(L, fingerprint);
  lua_setfield(L, -2, "fingerprint");
  return 1;
}
