/* OpenSSL's setters, for a context or for one SSL. */
#ifndef DTLS_IDENTITY_SETTINGS_H
#define DTLS_IDENTITY_SETTINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/failure.h"
#include "base/openssl.h"

typedef struct {
  SSL_CTX *ctx;
  SSL *ssl; /* NULL: the context itself */
} dtls_target;

typedef struct {
  const char *name; /* OpenSSL's, without its prefix; NULL ends a table */
  uint64_t bits;
  const char *why; /* it may not be changed; NULL: it may */
} dtls_flag;

extern const dtls_flag dtls_option_flags[], dtls_mode_flags[], dtls_verify_flags[];
/* Adds the bits of a name. what: of which list it is, for the sentence. */
bool dtls_flag_find(const dtls_flag *table, const char *name, const char *what, uint64_t *bits, dtls_failure *f);

void dtls_settings_change_options(dtls_target t, uint64_t bits, bool on);
uint64_t dtls_settings_options(dtls_target t);
void dtls_settings_set_modes(dtls_target t, uint64_t bits);
uint64_t dtls_settings_modes(dtls_target t);
void dtls_settings_set_verify(dtls_target t, uint64_t modes);
void dtls_settings_set_verify_depth(dtls_target t, int depth);
uint64_t dtls_settings_verify(dtls_target t, int *depth); /* depth -1: OpenSSL's own limit */
bool dtls_settings_ciphers(dtls_target t, const char *list, dtls_failure *f);
STACK_OF(SSL_CIPHER) * dtls_settings_suites(dtls_target t);
bool dtls_settings_set_groups(dtls_target t, const char *list, dtls_failure *f);
bool dtls_settings_set_sigalgs(dtls_target t, const char *list, dtls_failure *f);
bool dtls_settings_restore(SSL *ssl); /* what was set for it alone holds, whatever identity its name has got */

#endif
