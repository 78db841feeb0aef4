/*
 * Who the peer may be: authorities, revocation lists, pinned certificates, the name of a server. libssl asks `verify`, also of
 * a raw public key; the verdict stays in SSL_get_verify_result.
 */
#include "identity/verify.h"

#include <stdio.h>
#include <string.h>

#include <openssl/core_names.h>

#include "identity/certificate.h"
#include "identity/peer.h"
#include "identity/pem.h"
#include "identity/system_store.h"

static bool pinned(const dtls_config *c, X509 *cert) {
  uint8_t digest[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  if (!cert || !X509_digest(cert, EVP_sha256(), digest, &size) || size != DTLS_DIGEST_SIZE) return false;
  return dtls_pins_have(&c->verify.pins, digest);
}

/*
 * Whether a key costs its owner nothing and us much: one modular power with a 16384-bit modulus, or with an exponent as long
 * as the modulus, takes milliseconds. libcrypto itself bounds the exponent only above 3072 bits.
 */
static bool is_dear(const EVP_PKEY *key) {
  enum { BITS_MAX = 8192, EXPONENT_BITS_MAX = 32 };
  BIGNUM *exponent = NULL;
  if (!key) return false; /* nothing can be done with it */
  bool dear = EVP_PKEY_get_bits(key) > BITS_MAX;
  bool is_rsa = EVP_PKEY_get_base_id(key) == EVP_PKEY_RSA || EVP_PKEY_get_base_id(key) == EVP_PKEY_RSA_PSS;
  if (!dear && is_rsa)
    dear =
        EVP_PKEY_get_bn_param(key, OSSL_PKEY_PARAM_RSA_E, &exponent) != 1 || BN_num_bits(exponent) > EXPONENT_BITS_MAX;
  BN_free(exponent);
  return dear;
}

static bool has_dear_key(X509_STORE_CTX *store) {
  STACK_OF(X509) *sent = X509_STORE_CTX_get0_untrusted(store);
  const X509 *leaf = X509_STORE_CTX_get0_cert(store);
  bool dear = is_dear(leaf ? X509_get0_pubkey(leaf) : X509_STORE_CTX_get0_rpk(store));
  for (int i = 0; !dear && i < sk_X509_num(sent); i++) dear = is_dear(X509_get0_pubkey(sk_X509_value(sent, i)));
  return dear;
}

/* ── what a refusal says ── */

/* A name that no certificate has (RFC 2606 §2). It stands for a name that the application did not give. */
static const char NOBODY[] = "invalid";

static void write_subject(BIO *out, const X509_NAME *name) {
  if (X509_NAME_entry_count(name) == 0) BIO_puts(out, "nobody");
  X509_NAME_print_ex(out, name, 0, XN_FLAG_RFC2253); /* whose escapes leave printable ASCII */
}

static void write_names(BIO *out, const char *wanted, const X509 *cert) {
  BIO_printf(out, "%s is not among ", wanted && strcmp(wanted, NOBODY) != 0 ? wanted : "no name");
  if (!dtls_certificate_write_alt_names(out, cert)) BIO_puts(out, "its names, of which it has none (subjectAltName)");
}

static void write_pins(BIO *out, const char *came, const dtls_pins *pins) {
  BIO_printf(out, "it is %s", came);
  if (pins->count == 1) {
    char wanted[DTLS_FINGERPRINT_SIZE];
    dtls_fingerprint_write(pins->digest[0], DTLS_DIGEST_SIZE, wanted);
    BIO_printf(out, " and not %s", wanted);
  } else if (pins->count == 0) {
    BIO_puts(out, " and none is pinned");
  } else {
    BIO_printf(out, " and not one of the %zu that are pinned", pins->count);
  }
}

static void write_fingerprints(BIO *out, const dtls_config *c, const X509 *cert) {
  char came[DTLS_FINGERPRINT_SIZE];
  if (dtls_certificate_fingerprint(cert, EVP_sha256(), came)) write_pins(out, came, &c->verify.pins);
}

static void write_raw_key(BIO *out, const dtls_config *c, int verdict, const EVP_PKEY *key) {
  uint8_t digest[DTLS_DIGEST_SIZE];
  char came[DTLS_FINGERPRINT_SIZE];
  if (!dtls_public_key_digest(key, digest)) return;
  dtls_fingerprint_write(digest, sizeof digest, came);
  if (verdict == X509_V_ERR_RPK_UNTRUSTED)
    write_pins(out, came, &c->raw.pins);
  else
    BIO_printf(out, "it is %s", came);
}

/* Writes the subject of the certificate at fault, and its date or its issuer, whichever the verdict is about. */
static void write_fault(BIO *out, int verdict, const X509 *cert) {
  write_subject(out, X509_get_subject_name(cert));
  if (verdict == X509_V_ERR_CERT_HAS_EXPIRED || verdict == X509_V_ERR_CERT_NOT_YET_VALID) {
    bool expired = verdict == X509_V_ERR_CERT_HAS_EXPIRED;
    BIO_puts(out, expired ? " was valid until " : " is valid from ");
    ASN1_TIME_print(out, expired ? X509_get0_notAfter(cert) : X509_get0_notBefore(cert));
  } else if (X509_NAME_cmp(X509_get_subject_name(cert), X509_get_issuer_name(cert)) != 0) {
    BIO_puts(out, ", issued by ");
    write_subject(out, X509_get_issuer_name(cert));
  }
}

static void describe(BIO *out, X509_STORE_CTX *store, const dtls_config *c) {
  X509_VERIFY_PARAM *wanted = X509_STORE_CTX_get0_param(store);
  X509 *leaf = X509_STORE_CTX_get0_cert(store), *fault = X509_STORE_CTX_get_current_cert(store);
  int verdict = X509_STORE_CTX_get_error(store);
  char *ip = NULL;
  if (!leaf) {
    write_raw_key(out, c, verdict, X509_STORE_CTX_get0_rpk(store));
    return;
  }
  switch (verdict) {
    case X509_V_ERR_HOSTNAME_MISMATCH: write_names(out, X509_VERIFY_PARAM_get0_host(wanted, 0), leaf); break;
    case X509_V_ERR_IP_ADDRESS_MISMATCH:
      ip = X509_VERIFY_PARAM_get1_ip_asc(wanted);
      write_names(out, ip, leaf);
      OPENSSL_free(ip);
      break;
    case X509_V_ERR_APPLICATION_VERIFICATION: write_fingerprints(out, c, leaf); break;
    default: write_fault(out, verdict, fault ? fault : leaf); break;
  }
}

/* Keeps what was refused and a sentence about it in the dtls_peer: libssl keeps nothing that a server has refused. */
static void refuse(SSL *ssl, X509_STORE_CTX *store) {
  enum { DETAIL_MAX = 320 }; /* a peer may have as many names as it likes */
  BIO *out = BIO_new(BIO_s_mem());
  char *text;
  dtls_refusal *refusal = &dtls_peer_of(ssl)->refusal;
  EVP_PKEY *key = X509_STORE_CTX_get0_rpk(store);
  sk_X509_pop_free(refusal->chain, X509_free);
  EVP_PKEY_free(refusal->key);
  OPENSSL_free(refusal->detail);
  refusal->detail = NULL;
  refusal->chain = key ? NULL : X509_chain_up_ref(X509_STORE_CTX_get0_untrusted(store));
  refusal->key = key && EVP_PKEY_up_ref(key) == 1 ? key : NULL;
  if (!out || !(key || X509_STORE_CTX_get0_cert(store))) goto done;
  describe(out, store, dtls_config_of_ssl(ssl));
  long size = BIO_get_mem_data(out, &text);
  if (size > DETAIL_MAX) memcpy(text + DETAIL_MAX - 3, "...", 3);
  refusal->detail = size > 0 ? OPENSSL_strndup(text, size < DETAIL_MAX ? (size_t)size : DETAIL_MAX) : NULL;
done:
  BIO_free(out);
}

/* ── the verdict ── */

/* Sets the flags for this verification alone: other contexts may share the X509_STORE, and a server name may have given the SSL
   another context. */
static bool verify_chain(X509_STORE_CTX *store, const dtls_config *c) {
  if (c->verify.policy.partial_chain) X509_STORE_CTX_set_flags(store, X509_V_FLAG_PARTIAL_CHAIN);
  if (c->verify.policy.ignores_dates) X509_STORE_CTX_set_flags(store, X509_V_FLAG_NO_CHECK_TIME);
  if (c->verify.policy.time >= 0) X509_STORE_CTX_set_time(store, 0, c->verify.policy.time);
  return X509_verify_cert(store) == 1;
}

/* Pins without a CA replace the chain and the name; with one, both must hold. */
static bool verify_certificate(X509_STORE_CTX *store, const dtls_config *c) {
  bool good = dtls_accepts_certificates(&c->raw);
  if (!good) X509_STORE_CTX_set_error(store, DTLS_VERIFY_RAW_PUBLIC_KEY_REQUIRED);
  if (good && (c->verify.pins.count == 0 || c->verify.has_ca)) good = verify_chain(store, c);
  if (good && c->verify.pins.count > 0) {
    good = pinned(c, X509_STORE_CTX_get0_cert(store));
    X509_STORE_CTX_set_error(store, good ? X509_V_OK : X509_V_ERR_APPLICATION_VERIFICATION);
  }
  return good;
}

/* The application is asked last, and of certificates alone. */
static int verify(X509_STORE_CTX *store, void *argument) {
  SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
  dtls_peer *peer = dtls_peer_of(ssl);
  const dtls_config *c = dtls_config_of_ssl(ssl);
  (void)argument;
  if (has_dear_key(store)) { /* even where unauthorized peers are accepted: libssl would use the key next */
    X509_STORE_CTX_set_error(store, DTLS_VERIFY_KEY_TOO_LARGE);
    refuse(ssl, store);
    /* libssl ignores the verdict at a client that has SSL_VERIFY_NONE */
    SSL_set_verify(ssl, SSL_get_verify_mode(ssl) | SSL_VERIFY_PEER, NULL);
    return 0;
  }
  bool raw = X509_STORE_CTX_get0_rpk(store) != NULL;
  bool good = raw ? dtls_raw_public_key_verify(store, &c->raw) : verify_certificate(store, c);
  if (good && !raw && c->verify.policy.asks) {
    dtls_answer answer = peer->questions->verify(peer);
    if (answer == DTLS_UNANSWERED) return SSL_set_retry_verify(ssl);
    good = answer == DTLS_YES;
    if (!good) X509_STORE_CTX_set_error(store, X509_V_ERR_HOSTNAME_MISMATCH);
  }
  bool accepted = good || !peer->reject;
  if (!accepted) refuse(ssl, store);
  /* an entry that X509_verify_cert left in the error queue would pass for the failure of a handshake that goes on */
  if (accepted) dtls_clear_errors();
  return accepted;
}

bool dtls_verify_name(SSL *ssl, const dtls_name *name, bool check) {
  X509_VERIFY_PARAM *param = SSL_get0_param(ssl);
  if (name->size == 0) return !check || X509_VERIFY_PARAM_set1_host(param, NOBODY, 0) == 1;
  if (name->family != AF_UNSPEC) return !check || X509_VERIFY_PARAM_set1_ip_asc(param, name->text) == 1;
  /* RFC 9525 §6 */
  X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
  return (!check || X509_VERIFY_PARAM_set1_host(param, name->text, name->size) == 1) &&
         SSL_set_tlsext_host_name(ssl, name->text) == 1;
}

/* ── the verdict's name and sentence ── */

/* clang-format off */
/* OpenSSL's and Node's names: the constant without its prefix. */
const char *dtls_verify_result_name(long result) {
  switch (result) {
#define X(name) \
  case X509_V_ERR_##name: return #name;
    X(UNSPECIFIED) X(UNABLE_TO_GET_ISSUER_CERT) X(UNABLE_TO_GET_CRL) X(UNABLE_TO_DECRYPT_CERT_SIGNATURE)
    X(UNABLE_TO_DECRYPT_CRL_SIGNATURE) X(UNABLE_TO_DECODE_ISSUER_PUBLIC_KEY) X(CERT_SIGNATURE_FAILURE) X(CRL_SIGNATURE_FAILURE)
    X(CERT_NOT_YET_VALID) X(CERT_HAS_EXPIRED) X(CRL_NOT_YET_VALID) X(CRL_HAS_EXPIRED) X(ERROR_IN_CERT_NOT_BEFORE_FIELD)
    X(ERROR_IN_CERT_NOT_AFTER_FIELD) X(ERROR_IN_CRL_LAST_UPDATE_FIELD) X(ERROR_IN_CRL_NEXT_UPDATE_FIELD) X(OUT_OF_MEM)
    X(DEPTH_ZERO_SELF_SIGNED_CERT) X(SELF_SIGNED_CERT_IN_CHAIN) X(UNABLE_TO_GET_ISSUER_CERT_LOCALLY)
    X(UNABLE_TO_VERIFY_LEAF_SIGNATURE) X(CERT_CHAIN_TOO_LONG) X(CERT_REVOKED) X(INVALID_CA) X(PATH_LENGTH_EXCEEDED)
    X(INVALID_PURPOSE) X(CERT_UNTRUSTED) X(CERT_REJECTED) X(HOSTNAME_MISMATCH) X(EMAIL_MISMATCH) X(IP_ADDRESS_MISMATCH)
    X(EE_KEY_TOO_SMALL) X(CA_KEY_TOO_SMALL) X(CA_MD_TOO_WEAK) X(UNHANDLED_CRITICAL_EXTENSION) X(KEYUSAGE_NO_CERTSIGN)
    X(PERMITTED_VIOLATION) X(EXCLUDED_VIOLATION) X(RPK_UNTRUSTED)
#undef X
    case X509_V_ERR_APPLICATION_VERIFICATION: return "FINGERPRINT_MISMATCH"; /* what our pins set */
    case DTLS_VERIFY_KEY_TOO_LARGE: return "KEY_TOO_LARGE";
    case DTLS_VERIFY_RAW_PUBLIC_KEY_REQUIRED: return "RAW_PUBLIC_KEY_REQUIRED";
    default: return "CERTIFICATE_NOT_VALID";
  }
}
/* clang-format on */

bool dtls_verify_fail(dtls_failure *f, const SSL *ssl) {
  long result = SSL_get_verify_result(ssl);
  const dtls_refusal *refusal = &dtls_peer_of(ssl)->refusal;
  const char *what = refusal->key ? "raw public key" : "certificate", *text = X509_verify_cert_error_string(result);
  if (result == X509_V_ERR_APPLICATION_VERIFICATION) text = "fingerprint mismatch";
  if (result == DTLS_VERIFY_KEY_TOO_LARGE)
    text = "a key of its chain is larger than 8192 bits, or has an RSA exponent of more than 32";
  if (result == DTLS_VERIFY_RAW_PUBLIC_KEY_REQUIRED) text = "only raw public keys are accepted";
  if (result == X509_V_ERR_RPK_UNTRUSTED) text = "it is not pinned";
  ERR_clear_error();
  dtls_fail(f, "ERR_DTLS_CERTIFICATE", "the peer's %s was refused: %s%s%s", what, text, refusal->detail ? ": " : "",
            refusal->detail ? refusal->detail : "");
  snprintf(f->reason, sizeof f->reason, "%s", dtls_verify_result_name(result));
  return false;
}

/* ── authorities and policy ── */

static bool add_ca(SSL_CTX *ctx, BIO *bio, bool server) {
  X509_STORE *store = SSL_CTX_get_cert_store(ctx);
  X509 *cert;
  int count = 0;
  bool ok = true;
  while (ok && (cert = PEM_read_bio_X509(bio, NULL, dtls_pem_passphrase, NULL))) {
    ok = X509_STORE_add_cert(store, cert) == 1 && (!server || SSL_CTX_add_client_CA(ctx, cert) == 1);
    X509_free(cert);
    count++;
  }
  return ok && count > 0 && dtls_pem_at_end();
}

static bool add_crl(SSL_CTX *ctx, BIO *bio) {
  X509_STORE *store = SSL_CTX_get_cert_store(ctx);
  X509_CRL *crl;
  int count = 0;
  bool ok = true;
  while (ok && (crl = PEM_read_bio_X509_CRL(bio, NULL, dtls_pem_passphrase, NULL))) {
    ok = X509_STORE_add_crl(store, crl) == 1 &&
         X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL) == 1;
    X509_CRL_free(crl);
    count++;
  }
  return ok && count > 0 && dtls_pem_at_end();
}

bool dtls_verify_add_ca(SSL_CTX *ctx, const char *pem, size_t size, dtls_failure *f) {
  dtls_config *c = dtls_config_of(ctx);
  BIO *bio = dtls_pem_open(pem, size);
  bool ok = bio && add_ca(ctx, bio, c->server);
  BIO_free(bio);
  c->verify.has_ca = true;
  return ok || dtls_fail_config(f, "ca: this is not a list of PEM certificates");
}

bool dtls_verify_add_crl(SSL_CTX *ctx, const char *pem, size_t size, dtls_failure *f) {
  BIO *bio = dtls_pem_open(pem, size);
  bool ok = bio && add_crl(ctx, bio);
  BIO_free(bio);
  dtls_config_of(ctx)->verify.has_crl = true;
  return ok || dtls_fail_config(f, "crl: this is not a list of PEM revocation lists");
}

bool dtls_verify_use_system_store(SSL_CTX *ctx, bool required, dtls_failure *f) {
  char sentence[DTLS_SENTENCE_MAX];
  dtls_verify_config *v = &dtls_config_of(ctx)->verify;
  /* authorities and revocation lists that were given are this context's alone, and lie in its store */
  bool has_own = v->has_ca || v->has_crl;
  const char *missing = has_own ? dtls_system_store_fill(SSL_CTX_get_cert_store(ctx), sentence, sizeof sentence)
                                : dtls_system_store_share(ctx, sentence, sizeof sentence);
  v->has_ca = true;
  return !missing || !required || dtls_fail_config(f, missing);
}

bool dtls_verify_pin(SSL_CTX *ctx, const char *digest, size_t size, dtls_failure *f) {
  if (size != DTLS_DIGEST_SIZE) return dtls_fail_config(f, "fingerprint: a SHA-256 fingerprint has 32 bytes");
  return dtls_pins_add(&dtls_config_of(ctx)->verify.pins, digest, f);
}

void dtls_verify_use(SSL_CTX *ctx, const dtls_verify_policy *policy) {
  dtls_config *c = dtls_config_of(ctx);
  int mode = !c->server || policy->request ? SSL_VERIFY_PEER : SSL_VERIFY_NONE;
  if (c->server && policy->request && policy->reject) mode |= SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
  c->verify.policy = *policy;
  SSL_CTX_set_verify(ctx, mode, NULL);
  SSL_CTX_set_cert_verify_callback(ctx, verify, NULL);
}

void dtls_verify_free(dtls_verify_config *v) { dtls_pins_free(&v->pins); }
