/*
 * OpenSSL's setters, for a context or for one SSL. What is set for an SSL is noted in the overrides of its dtls_peer, and holds
 * whatever context the server name chooses. A setter that fails changes nothing.
 */
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
  const char *why; /* the reason why nobody may change this flag; NULL: everybody may */
} dtls_flag;

extern const dtls_flag dtls_option_flags[], dtls_mode_flags[], dtls_verify_flags[];
/* Adds the bits of a flag to *bits. what: the option that the name came from, for the message. */
bool dtls_flag_find(const dtls_flag *table, const char *name, const char *what, uint64_t *bits, dtls_failure *f);

void dtls_settings_change_options(dtls_target t, uint64_t bits, bool on);
uint64_t dtls_settings_options(dtls_target t);
void dtls_settings_set_modes(dtls_target t, uint64_t bits);
uint64_t dtls_settings_modes(dtls_target t);
void dtls_settings_set_verify(dtls_target t, uint64_t modes);
void dtls_settings_set_verify_depth(dtls_target t, int depth);
uint64_t dtls_settings_verify(dtls_target t, int *depth); /* depth -1: OpenSSL's own limit */
bool dtls_settings_set_ciphers(dtls_target t, const char *list, dtls_failure *f);
STACK_OF(SSL_CIPHER) * dtls_settings_suites(dtls_target t);
bool dtls_settings_set_groups(dtls_target t, const char *list, dtls_failure *f);
bool dtls_settings_set_sigalgs(dtls_target t, const char *list, dtls_failure *f);
bool dtls_settings_restore(SSL *ssl); /* after SSL_set_SSL_CTX: sets the overrides that it has replaced once more */

#endif
