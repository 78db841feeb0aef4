/*
 * OpenSSL's setters: options, modes, verification, suites, groups, signature algorithms, for a context or for one SSL. A setter
 * that fails leaves everything as it was.
 */
#include "identity/settings.h"

#include <stdio.h>
#include <string.h>

#include "identity/context.h"
#include "identity/peer.h"
#include "identity/placeholder.h"
#include "identity/suites.h"

/* ── flags by their names ── */

/* clang-format off */
#define FLAG(prefix, name) {#name, (uint64_t)prefix##name, NULL}
#define FIXED(prefix, name, why) {#name, (uint64_t)prefix##name, why}
/* clang-format on */

const dtls_flag dtls_option_flags[] = {
    FLAG(SSL_OP_, NO_EXTENDED_MASTER_SECRET),
    FLAG(SSL_OP_, CLEANSE_PLAINTEXT),
    FLAG(SSL_OP_, LEGACY_SERVER_CONNECT),
    FLAG(SSL_OP_, TLSEXT_PADDING),
    FLAG(SSL_OP_, DISABLE_TLSEXT_CA_NAMES),
    FLAG(SSL_OP_, NO_TICKET),
    FLAG(SSL_OP_, CISCO_ANYCONNECT),
    FLAG(SSL_OP_, NO_SESSION_RESUMPTION_ON_RENEGOTIATION),
    FLAG(SSL_OP_, NO_ENCRYPT_THEN_MAC),
    FLAG(SSL_OP_, PRIORITIZE_CHACHA),
    FLAG(SSL_OP_, CIPHER_SERVER_PREFERENCE),
    FLAG(SSL_OP_, CRYPTOPRO_TLSEXT_BUG),
    FLAG(SSL_OP_, SAFARI_ECDHE_ECDSA_BUG),
    FLAG(SSL_OP_, TLS_ROLLBACK_BUG),
    FLAG(SSL_OP_, NO_DTLSv1),
    FIXED(SSL_OP_, NO_COMPRESSION, "compression leaks plaintext by its length (CRIME)"),
    FIXED(SSL_OP_, NO_QUERY_MTU, "the MTU is this module's own business, see mtu and linkMtu"),
    FIXED(SSL_OP_, COOKIE_EXCHANGE, "every peer proves its address already, and libssl sets it itself"),
    FIXED(SSL_OP_, NO_RENEGOTIATION, "renegotiation is not supported"),
    FIXED(SSL_OP_, ALLOW_CLIENT_RENEGOTIATION, "renegotiation is not supported"),
    FIXED(SSL_OP_, ALLOW_UNSAFE_LEGACY_RENEGOTIATION, "renegotiation is not supported"),
    FIXED(SSL_OP_, NO_DTLSv1_2, "DTLS 1.2 is the one version"),
    {NULL, 0, NULL}};

const dtls_flag dtls_mode_flags[] = {FLAG(SSL_MODE_, ENABLE_PARTIAL_WRITE),
                                     FLAG(SSL_MODE_, ACCEPT_MOVING_WRITE_BUFFER),
                                     FLAG(SSL_MODE_, AUTO_RETRY),
                                     FLAG(SSL_MODE_, NO_AUTO_CHAIN),
                                     FLAG(SSL_MODE_, RELEASE_BUFFERS),
                                     FLAG(SSL_MODE_, SEND_FALLBACK_SCSV),
                                     FLAG(SSL_MODE_, DTLS_SCTP_LABEL_LENGTH_BUG),
                                     FIXED(SSL_MODE_, ASYNC, "nothing here waits for an engine"),
                                     {NULL, 0, NULL}};

const dtls_flag dtls_verify_flags[] = {FLAG(SSL_VERIFY_, NONE),
                                       FLAG(SSL_VERIFY_, PEER),
                                       FLAG(SSL_VERIFY_, FAIL_IF_NO_PEER_CERT),
                                       FLAG(SSL_VERIFY_, CLIENT_ONCE),
                                       {NULL, 0, NULL}};

bool dtls_flag_find(const dtls_flag *table, const char *name, const char *what, uint64_t *bits, dtls_failure *f) {
  const dtls_flag *each = table;
  while (each->name && strcmp(each->name, name) != 0) each++;
  if (!each->name)
    return dtls_fail(f, "ERR_DTLS_CONFIG", "%s: there is none for DTLS 1.2 that is called '%s'", what, name);
  if (each->why) return dtls_fail(f, "ERR_DTLS_CONFIG", "%s: %s cannot be changed: %s", what, name, each->why);
  *bits |= each->bits;
  return true;
}

/* ── options and modes (SSL_CTX_set_options, SSL_set_mode and their kin) ── */

void dtls_settings_change_options(dtls_target t, uint64_t bits, bool on) {
  if (t.ssl) dtls_peer_of(t.ssl)->overrides.options |= bits;
  if (t.ssl && on) SSL_set_options(t.ssl, bits);
  if (t.ssl && !on) SSL_clear_options(t.ssl, bits);
  if (!t.ssl && on) SSL_CTX_set_options(t.ctx, bits);
  if (!t.ssl && !on) SSL_CTX_clear_options(t.ctx, bits);
}

uint64_t dtls_settings_options(dtls_target t) { return t.ssl ? SSL_get_options(t.ssl) : SSL_CTX_get_options(t.ctx); }

void dtls_settings_set_modes(dtls_target t, uint64_t bits) {
  if (t.ssl) dtls_peer_of(t.ssl)->overrides.modes |= (long)bits;
  if (t.ssl)
    SSL_set_mode(t.ssl, (long)bits);
  else
    SSL_CTX_set_mode(t.ctx, (long)bits);
}

uint64_t dtls_settings_modes(dtls_target t) {
  return (uint64_t)(t.ssl ? SSL_get_mode(t.ssl) : SSL_CTX_get_mode(t.ctx));
}

/* ── verification (SSL_CTX_set_verify, SSL_CTX_set_verify_depth) ── */

/* The session that a client was to offer was made under other settings than those that the client has from now on. */
static void withdraw_session(dtls_target t) {
  if (t.ssl && !SSL_is_server(t.ssl) && SSL_in_before(t.ssl)) SSL_set_session(t.ssl, NULL);
}

/* From now on a peer whose certificate does not verify is refused. */
void dtls_settings_set_verify(dtls_target t, uint64_t modes) {
  bool reject = modes != SSL_VERIFY_NONE;
  if (t.ssl) {
    SSL_set_verify(t.ssl, (int)modes, NULL);
    dtls_peer_of(t.ssl)->reject = reject;
    dtls_peer_of(t.ssl)->overrides.verify = true;
  } else {
    SSL_CTX_set_verify(t.ctx, (int)modes, NULL);
    dtls_config_of(t.ctx)->verify.policy.reject = reject;
  }
  withdraw_session(t);
}

void dtls_settings_set_verify_depth(dtls_target t, int depth) {
  if (t.ssl) {
    SSL_set_verify_depth(t.ssl, depth);
    dtls_peer_of(t.ssl)->overrides.depth = true;
  } else {
    SSL_CTX_set_verify_depth(t.ctx, depth);
  }
  withdraw_session(t);
}

uint64_t dtls_settings_verify(dtls_target t, int *depth) {
  *depth = t.ssl ? SSL_get_verify_depth(t.ssl) : SSL_CTX_get_verify_depth(t.ctx);
  return (uint64_t)(t.ssl ? SSL_get_verify_mode(t.ssl) : SSL_CTX_get_verify_mode(t.ctx));
}

/* ── suites, groups, signature algorithms (SSL_CTX_set_cipher_list and its kin) ── */

/* OpenSSL 3.2 counts CCM_8 as 64 bits and wants security level 0 for it, which would let everything else in, too. */
static int allow_ccm8(const SSL *ssl, const SSL_CTX *ctx, int operation, int bits, int nid, void *other, void *extra) {
  bool is_suite = operation == SSL_SECOP_CIPHER_SUPPORTED || operation == SSL_SECOP_CIPHER_SHARED ||
                  operation == SSL_SECOP_CIPHER_CHECK;
  const dtls_config *c = extra;
  return is_suite && dtls_suite_is_ccm8(other) ? 1 : c->default_security(ssl, ctx, operation, bits, nid, other, extra);
}

static void set_security(dtls_target t, bool ccm8) {
  dtls_config *c = dtls_config_of(t.ctx);
  if (!c->default_security) c->default_security = SSL_CTX_get_security_callback(t.ctx);
  if (t.ssl) {
    SSL_set0_security_ex_data(t.ssl, c);
    SSL_set_security_callback(t.ssl, ccm8 ? allow_ccm8 : c->default_security);
  } else {
    SSL_CTX_set0_security_ex_data(t.ctx, c);
    SSL_CTX_set_security_callback(t.ctx, ccm8 ? allow_ccm8 : c->default_security);
  }
}

bool dtls_settings_set_ciphers(dtls_target t, const char *list, dtls_failure *f) {
  int level = t.ssl ? SSL_get_security_level(t.ssl) : SSL_CTX_get_security_level(t.ctx);
  char sentence[DTLS_SENTENCE_MAX];
  const char *failed;
  char *suites = dtls_suites_read(list, &level, &failed, sentence, sizeof sentence);
  if (!failed) {
    set_security(t, strstr(suites, "CCM8") != NULL);
    if ((t.ssl ? SSL_set_cipher_list(t.ssl, suites) : SSL_CTX_set_cipher_list(t.ctx, suites)) != 1)
      failed = "ciphers: OpenSSL does not take this list";
  }
  if (!failed && t.ssl) {
    dtls_overrides *own = &dtls_peer_of(t.ssl)->overrides;
    SSL_set_security_level(t.ssl, level);
    own->ciphers = true;
    own->ccm8 = strstr(suites, "CCM8") != NULL;
    own->level = level;
    withdraw_session(t);
  }
  if (!failed && !t.ssl) SSL_CTX_set_security_level(t.ctx, level);
  OPENSSL_free(suites);
  return !failed || dtls_fail_config(f, failed);
}

STACK_OF(SSL_CIPHER) * dtls_settings_suites(dtls_target t) {
  return t.ssl ? SSL_get_ciphers(t.ssl) : SSL_CTX_get_ciphers(t.ctx);
}

/* Replaces the list that an SSL's overrides or a context keeps. */
static void keep(char **kept, char *copy) {
  OPENSSL_free(*kept);
  *kept = copy;
}

bool dtls_settings_set_groups(dtls_target t, const char *list, dtls_failure *f) {
  ERR_clear_error();
  char *copy = OPENSSL_strdup(list);
  if (!copy || (t.ssl ? SSL_set1_groups_list(t.ssl, list) : SSL_CTX_set1_groups_list(t.ctx, list)) != 1) {
    OPENSSL_free(copy);
    return dtls_fail_config(f, "groups: OpenSSL does not know this list");
  }
  keep(t.ssl ? &dtls_peer_of(t.ssl)->overrides.groups : &dtls_config_of(t.ctx)->groups, copy);
  withdraw_session(t);
  return true;
}

/* A server that has placeholder certificates keeps the list that it signs with; the list for its clients' signatures changes. */
static bool use_sigalgs(dtls_target t, const char *list) {
  if (dtls_placeholder_needed(t.ctx))
    return (t.ssl ? SSL_set1_client_sigalgs_list(t.ssl, list) : SSL_CTX_set1_client_sigalgs_list(t.ctx, list)) == 1;
  return (t.ssl ? SSL_set1_sigalgs_list(t.ssl, list) : SSL_CTX_set1_sigalgs_list(t.ctx, list)) == 1;
}

bool dtls_settings_set_sigalgs(dtls_target t, const char *list, dtls_failure *f) {
  ERR_clear_error();
  char *copy = OPENSSL_strdup(list);
  if (!copy || !use_sigalgs(t, list)) {
    OPENSSL_free(copy);
    return dtls_fail_config(f, "sigalgs: OpenSSL does not know this list");
  }
  keep(t.ssl ? &dtls_peer_of(t.ssl)->overrides.sigalgs : &dtls_config_of(t.ctx)->sigalgs, copy);
  withdraw_session(t);
  return true;
}

/* SSL_set_SSL_CTX replaces suites' security and signature algorithms together with the certificates. */
bool dtls_settings_restore(SSL *ssl) {
  dtls_overrides *own = &dtls_peer_of(ssl)->overrides;
  dtls_target t = {.ctx = SSL_get_SSL_CTX(ssl), .ssl = ssl};
  if (own->ciphers) {
    set_security(t, own->ccm8);
    SSL_set_security_level(ssl, own->level);
  }
  return !own->sigalgs || use_sigalgs(t, own->sigalgs);
}
