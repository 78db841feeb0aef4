/*
 * Lists of suites as OpenSSL reads them: which of their suites this module takes, and why not the others. Remembers the
 * list that it has read last, because nearly all contexts of a process are given the same one, and to read it takes
 * OpenSSL longer than all else that makes a context.
 */
#include "identity/suites.h"

#include <stdio.h>
#include <string.h>

#include "identity/context.h"

bool dtls_suite_is_ccm8(const SSL_CIPHER *suite) { return strstr(SSL_CIPHER_get_name(suite), "CCM8") != NULL; }

/* Why this module has no use for a suite of OpenSSL's; NULL: it has. The short tag of CCM_8 (RFC 6655) is for those who name it. */
static const char *flaw(const SSL_CIPHER *suite) {
  int exchange = SSL_CIPHER_get_kx_nid(suite);
  if (!SSL_CIPHER_is_aead(suite)) return "it has no AEAD, and with CBC one forged record can end a session";
  if (exchange == NID_kx_any) return "it is one of TLS 1.3";
  if (SSL_CIPHER_get_auth_nid(suite) == NID_auth_null) return "it is anonymous";
  if (exchange == NID_kx_rsa || exchange == NID_kx_rsa_psk)
    return "static RSA has no forward secrecy (RFC 9325 section 4.1)";
  return NULL;
}

static bool is_good(const SSL_CIPHER *suite, const char *list) {
  return !flaw(suite) && (!dtls_suite_is_ccm8(suite) || strstr(list, "CCM8"));
}

/* The suite of DTLS 1.2 that has this name; NULL: none. scratch loses its list of suites. */
static const SSL_CIPHER *find_suite(SSL_CTX *scratch, const char *name) {
  if (SSL_CTX_set_cipher_list(scratch, name) != 1) return NULL;
  STACK_OF(SSL_CIPHER) *suites = SSL_CTX_get_ciphers(scratch);
  for (int i = 0; i < sk_SSL_CIPHER_num(suites); i++) {
    const SSL_CIPHER *suite = sk_SSL_CIPHER_value(suites, i);
    if (SSL_CIPHER_get_kx_nid(suite) != NID_kx_any) return suite; /* those of TLS 1.3 are always there */
  }
  return NULL;
}

/* libssl leaves a suite out of every handshake that the security level is too high for. */
static bool level_allows(const SSL_CTX *scratch, const SSL_CIPHER *suite) {
  int bits = SSL_CIPHER_get_bits(suite, NULL);
  return dtls_suite_is_ccm8(suite) ||
         SSL_CTX_get_security_callback(scratch)(NULL, scratch, SSL_SECOP_CIPHER_SUPPORTED, bits, 0,
                                                (void *)(uintptr_t)suite, NULL) != 0;
}

/*
 * The suites that a list names one by one must be there in the end: OpenSSL passes over what it does not know, and a device
 * with one suite would meet no_shared_cipher years later. Only their names have a '-' or '_'; what begins with '!', '-' or '+'
 * takes away or reorders. NULL, or a sentence, in buf.
 */
static const char *check_literals(SSL_CTX *scratch, const char *list, int level, char *buf, size_t capacity) {
  static const char separators[] = ":;, "; /* ssl_ciph.c, ITEM_SEP */
  SSL_CTX_set_security_level(scratch, level);
  for (const char *word = list + strspn(list, separators), *next; *word; word = next + strspn(next, separators)) {
    char name[128];
    next = word + strcspn(word, separators);
    int size = (int)strcspn(word, ":;, @");
    if (strchr("!-+@", *word) || memchr(word, '+', (size_t)size)) continue;
    if (!memchr(word, '-', (size_t)size) && !memchr(word, '_', (size_t)size)) continue;
    bool fits = snprintf(name, sizeof name, "%.*s", size, word) == size && (size_t)size < sizeof name;
    const SSL_CIPHER *suite = fits ? find_suite(scratch, name) : NULL;
    const char *why = !suite ? "OpenSSL has no suite of this name for DTLS 1.2" : flaw(suite);
    if (!why && !level_allows(scratch, suite)) why = "the security level of the list (@SECLEVEL) does not allow it";
    if (!why) continue;
    snprintf(buf, capacity, "ciphers: %s: %s", name, why);
    return buf;
  }
  return NULL;
}

/*
 * The suites of a list that have AEAD, as a list: with CBC and encrypt-then-MAC one forged record ends a session, and
 * DTLS 1.2 has better. NULL: none. The caller frees it.
 */
static char *aead_suites(const SSL_CTX *scratch, const char *list) {
  STACK_OF(SSL_CIPHER) *suites = SSL_CTX_get_ciphers(scratch);
  char *kept = NULL;
  size_t used = 0;
  for (int i = 0; i < sk_SSL_CIPHER_num(suites); i++) {
    const SSL_CIPHER *suite = sk_SSL_CIPHER_value(suites, i);
    const char *name = SSL_CIPHER_get_name(suite);
    if (!is_good(suite, list)) continue;
    char *grown = OPENSSL_realloc(kept, used + strlen(name) + 2);
    if (!grown) {
      OPENSSL_free(kept);
      return NULL;
    }
    kept = grown;
    used += (size_t)snprintf(kept + used, strlen(name) + 2, "%s:", name);
  }
  return kept;
}

static char *parse(const char *list, int *level, const char **failed, char *buf, size_t size) {
  SSL_CTX *scratch = SSL_CTX_new(DTLS_method()); /* a list that fails leaves a context without suites */
  char *suites = NULL;
  *failed = "ciphers: no suite of this list exists for DTLS 1.2 with AEAD";
  if (!scratch) return NULL;
  SSL_CTX_set_security_level(scratch, 0);
  if (SSL_CTX_set_cipher_list(scratch, list) == 1) {
    if (strstr(list, "@SECLEVEL=")) *level = SSL_CTX_get_security_level(scratch);
    suites = aead_suites(scratch, list);
  }
  if (*level < DTLS_SECURITY_LEVEL) {
    *failed = "ciphers: a list may raise the security level (@SECLEVEL), and not lower it below 2";
  } else {
    const char *wrong = check_literals(scratch, list, *level, buf, size);
    if (wrong || suites) *failed = wrong;
  }
  ERR_clear_error(); /* of the names that do not exist */
  SSL_CTX_free(scratch);
  return suites;
}

/* ── the list that was read last ── */

static struct {
  CRYPTO_RWLOCK *lock; /* Lua states of several threads share the list */
  char *list, *suites; /* of a list that has not failed */
  int asked, level;    /* the level that it was read with, and that came of it */
} last;
static CRYPTO_ONCE last_once = CRYPTO_ONCE_STATIC_INIT;
static void make_lock(void) { last.lock = CRYPTO_THREAD_lock_new(); }

/* NULL: another list, or no memory. */
static char *recall(const char *list, int *level) {
  char *suites = NULL;
  if (!CRYPTO_THREAD_run_once(&last_once, make_lock) || !last.lock || !CRYPTO_THREAD_read_lock(last.lock)) return NULL;
  if (last.list && last.asked == *level && strcmp(last.list, list) == 0) suites = OPENSSL_strdup(last.suites);
  if (suites) *level = last.level;
  CRYPTO_THREAD_unlock(last.lock);
  return suites;
}

static void remember(const char *list, int asked, const char *suites, int level) {
  char *list_copy = OPENSSL_strdup(list), *suites_copy = OPENSSL_strdup(suites);
  if (list_copy && suites_copy && last.lock && CRYPTO_THREAD_write_lock(last.lock)) {
    char *former_list = last.list, *former_suites = last.suites;
    last.list = list_copy;
    last.suites = suites_copy;
    last.asked = asked;
    last.level = level;
    list_copy = former_list;
    suites_copy = former_suites;
    CRYPTO_THREAD_unlock(last.lock);
  }
  OPENSSL_free(list_copy);
  OPENSSL_free(suites_copy);
}

char *dtls_suites_read(const char *list, int *level, const char **failed, char *buf, size_t size) {
  int asked = *level;
  char *suites = recall(list, level);
  *failed = NULL;
  if (suites) return suites;
  suites = parse(list, level, failed, buf, size);
  if (suites && !*failed) remember(list, asked, suites, *level);
  return suites;
}
