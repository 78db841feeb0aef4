/* Lists of suites as OpenSSL reads them. */
#ifndef DTLS_IDENTITY_SUITES_H
#define DTLS_IDENTITY_SUITES_H

#include <stdbool.h>
#include <stddef.h>

#include "base/openssl.h"

bool dtls_suite_is_ccm8(const SSL_CIPHER *suite); /* RFC 6655: with a tag of 8 bytes */
/* The suites of a list that have AEAD, as a list that OpenSSL takes; the caller frees it. level: that of security, replaced by the
   list's @SECLEVEL if it has one. failed: NULL, or a sentence, perhaps in buf. */
char *dtls_suites_read(const char *list, int *level, const char **failed, char *buf, size_t size);

#endif
