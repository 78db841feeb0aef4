/*
 * Failures: errno, OpenSSL's error queue and alerts, each as a code, a sentence and the names that go with it.
 */
#include "base/failure.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/openssl.h"
#include "base/platform.h"

bool dtls_fail(dtls_failure *f, const char *code, const char *format, ...) {
  va_list arguments;
  f->code = code;
  f->reason[0] = f->alert[0] = '\0';
  va_start(arguments, format);
  vsnprintf(f->message, sizeof f->message, format, arguments);
  va_end(arguments);
  return false;
}

/* ── errno ── */

/* clang-format off */
static const char *errno_name(int number) {
  switch (number) {
#define X(name) \
  case name: return #name;
    X(EACCES) X(EADDRINUSE) X(EADDRNOTAVAIL) X(EAFNOSUPPORT) X(EAGAIN) X(EBADF) X(ECONNREFUSED) X(ECONNRESET) X(EDESTADDRREQ)
    X(EFAULT) X(EHOSTDOWN) X(EHOSTUNREACH) X(EINTR) X(EINVAL) X(EIO) X(EISCONN) X(EMFILE) X(EMSGSIZE) X(ENETDOWN) X(ENETUNREACH)
    X(ENFILE) X(ENOBUFS) X(ENODEV) X(ENOENT) X(ENOMEM) X(ENOPROTOOPT) X(ENOTCONN) X(ENOTSOCK) X(EOPNOTSUPP) X(EPERM) X(EPIPE)
    X(EPROTO) X(ETIMEDOUT)
#undef X
    default: return "ERR_DTLS_SYSTEM";
  }
}
/* clang-format on */

/* The system's words for it: strerror's, without the buffer that all threads share. */
static const char *errno_text(int number, char *buf, size_t size) {
#if DTLS_HAS_GNU_STRERROR
  return strerror_r(number, buf, size);
#else
  if (strerror_r(number, buf, size) != 0) snprintf(buf, size, "error %d", number);
  return buf;
#endif
}

bool dtls_fail_system(dtls_failure *f, int number, const char *what) {
  char reason[128];
  ERR_clear_error();
  return dtls_fail(f, errno_name(number), "%s: %s", what, errno_text(number, reason, sizeof reason));
}

bool dtls_fail_forked(dtls_failure *f) {
  return dtls_fail(f, "ERR_DTLS_FORKED",
                   "the association belongs to the parent process: after fork() both would use the same nonces");
}

/* ── alerts ── */

/* RFC 5246's name of an alert: "handshake_failure". */
static void set_alert(dtls_failure *f, int description) {
  snprintf(f->alert, sizeof f->alert, "%s", SSL_alert_desc_string_long(description));
  for (char *p = f->alert; *p; p++) *p = (char)(*p == ' ' ? '_' : tolower((unsigned char)*p));
}

/* before and after: the sentence around the alert's name. */
static bool fail_alert(dtls_failure *f, int description, const char *before, const char *after) {
  set_alert(f, description);
  char name[sizeof f->alert];
  memcpy(name, f->alert, sizeof name);
  dtls_fail(f, "ERR_DTLS_ALERT", "%s %s%s", before, name, after);
  memcpy(f->alert, name, sizeof name);
  return false;
}

bool dtls_fail_alert(dtls_failure *f, int description) {
  return fail_alert(f, description, "the peer ended the association with the alert", "");
}

bool dtls_fail_warning(dtls_failure *f, int description) {
  return fail_alert(f, description, "the peer sent the warning alert", ", at which this OpenSSL ends an association");
}

void dtls_failure_add_seen(dtls_failure *f, int alert, int number) {
  size_t size = strlen(f->message);
  if (alert >= 0)
    set_alert(f, alert);
  else
    snprintf(f->reason, sizeof f->reason, "%s", errno_name(number));
  snprintf(f->message + size, sizeof f->message - size, "%s %s",
           alert >= 0 ? "; unauthenticated, and therefore not believed, came the alert" : "; the system said",
           alert >= 0 ? f->alert : f->reason);
}

/* ── OpenSSL's error queue ── */

void dtls_clear_errors(void) {
  if (ERR_peek_error() != 0) ERR_clear_error();
}

/* OpenSSL's SSL_R_… without its prefix: "no shared cipher" is NO_SHARED_CIPHER. */
static void set_reason(dtls_failure *f, const char *text) {
  snprintf(f->reason, sizeof f->reason, "%.*s", (int)sizeof f->reason - 1, text);
  for (char *p = f->reason; *p; p++) *p = (char)(isalnum((unsigned char)*p) ? toupper((unsigned char)*p) : '_');
}

/* The first entry is where it went wrong; later ones are callers that gave up. */
bool dtls_fail_openssl(dtls_failure *f, const char *code, const char *what) {
  const char *data;
  int flags;
  unsigned long entry = ERR_get_error_all(NULL, NULL, NULL, &data, &flags);
  int reason = ERR_GET_REASON(entry);
  char detail[2 * DTLS_QUOTE_MAX + 64] = ""; /* of our own entry, extension.c */
  bool detailed =
      ERR_GET_LIB(entry) == ERR_LIB_SSL && reason == SSL_R_NO_APPLICATION_PROTOCOL && (flags & ERR_TXT_STRING);
  if (detailed) snprintf(detail, sizeof detail, "; %s", data);
  ERR_clear_error();
  if (entry == 0) return dtls_fail(f, code, "%s", what);
  if (reason == ERR_R_MALLOC_FAILURE) return dtls_fail_system(f, ENOMEM, what);
  if (ERR_GET_LIB(entry) == ERR_LIB_SSL && reason >= SSL_AD_REASON_OFFSET && reason < SSL_AD_REASON_OFFSET + 256)
    return dtls_fail_alert(f, reason - SSL_AD_REASON_OFFSET);
  char buffer[128];
  const char *text = ERR_reason_error_string(entry);
  if (!text) {
    ERR_error_string_n(entry, buffer, sizeof buffer);
    text = buffer;
  }
  dtls_fail(f, code, "%s: %s%s", what, text, detail);
  if (ERR_GET_LIB(entry) != ERR_LIB_SSL) return false;
  /* as authorized() says */
  set_reason(f, reason == SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE ? "NO_PEER_CERTIFICATE" : text);
  return false;
}

bool dtls_fail_config(dtls_failure *f, const char *what) { return dtls_fail_openssl(f, "ERR_DTLS_CONFIG", what); }

/* ── bytes of anybody ── */

void dtls_quote_untrusted(char out[DTLS_QUOTE_MAX], const char *bytes, size_t size) {
  enum { SHOWN_MAX = 64 };
  size_t length = (size_t)snprintf(out, DTLS_QUOTE_MAX, "'");
  for (size_t i = 0; i < size && i < SHOWN_MAX; i++) {
    unsigned char byte = (unsigned char)bytes[i];
    bool plain = byte >= ' ' && byte <= '~' && byte != '\\';
    length += (size_t)snprintf(out + length, DTLS_QUOTE_MAX - length, plain ? "%c" : "\\x%02x", byte);
  }
  snprintf(out + length, DTLS_QUOTE_MAX - length, size > SHOWN_MAX ? "...'" : "'");
}
