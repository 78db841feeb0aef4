/*
 * Why something failed. A function that can fail for reasons of the world outside fills in what it was given and says that it
 * has failed (false, NULL, DTLS_FAILED); the binding makes an error object of it.
 */
#ifndef DTLS_BASE_FAILURE_H
#define DTLS_BASE_FAILURE_H

#include <stdbool.h>
#include <stddef.h>

enum { DTLS_SENTENCE_MAX = 1024 };

typedef struct {
  const char *code;                /* err.code, a constant: ERR_DTLS_…, or the name of an errno */
  char message[DTLS_SENTENCE_MAX]; /* one sentence */
  char reason[64];                 /* OpenSSL's or the system's name of what went wrong; "": none */
  char alert[48];                  /* RFC 5246's name of an alert; "": none */
} dtls_failure;

/* Empties OpenSSL's error queue, where it is empty nearly always: to look at it costs less than to clear it. */
void dtls_clear_errors(void);

/* Each returns false, so that a function can return what it returns. */
bool dtls_fail(dtls_failure *f, const char *code, const char *format, ...) __attribute__((format(printf, 3, 4)));
bool dtls_fail_system(dtls_failure *f, int number, const char *what);
/* the oldest entry of the error queue; clears it */
bool dtls_fail_openssl(dtls_failure *f, const char *code, const char *what);
bool dtls_fail_config(dtls_failure *f, const char *what); /* dtls_fail_openssl with ERR_DTLS_CONFIG */
bool dtls_fail_alert(dtls_failure *f, int description);
bool dtls_fail_warning(dtls_failure *f, int description); /* an alert that should not, but did end an association */
bool dtls_fail_forked(dtls_failure *f);                   /* the association belongs to the parent process, fork.h */

/* Adds an alert (≥ 0), else an errno, that nobody has authenticated and that was not believed. */
void dtls_failure_add_seen(dtls_failure *f, int alert, int number);

/* Writes bytes of anybody for a message: in quotes, without anything that is not printable, cut where they are long. */
enum { DTLS_QUOTE_MAX = 64 * 4 + 6 };
void dtls_quote_untrusted(char out[DTLS_QUOTE_MAX], const char *bytes, size_t size);

#endif
