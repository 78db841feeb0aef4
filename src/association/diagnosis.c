/*
 * Why an association ended: which of OpenSSL's errors is an answer to what the user asks (whose certificate, which key, who
 * said no), and what silence probably means.
 */
#include "association/diagnosis.h"

#include <stdio.h>

#include "association/association.h"
#include "identity/psk.h"
#include "identity/raw_public_key.h"
#include "identity/verify.h"

/* A wrong key is silence: Finished cannot be decrypted, and what cannot be decrypted is dropped (RFC 6347 §4.1.2.7). */
static bool looks_like_wrong_key(const dtls_association *a) {
  bool waits_for_finished = a->server ? a->handshake.peer_changed_cipher
                                      : a->handshake.last.written && a->handshake.last.type == SSL3_MT_FINISHED;
  return dtls_psk_suite(a->ssl) && !SSL_session_reused(a->ssl) && waits_for_finished;
}

void dtls_diagnose_timeout(const dtls_association *a, const char *what, dtls_failure *f) {
  const dtls_soft_error *e = &a->soft_error;
  const char *unanswered = dtls_callback_unanswered(a);
  if (unanswered)
    dtls_fail(f, "ERR_DTLS_HANDSHAKE_TIMEOUT", "%s: %s has not answered yet", what, unanswered);
  else if (e->alert < 0 && looks_like_wrong_key(a)) /* with an alert the peer has said itself what is wrong */
    /* A client whose server says nothing cannot know whether the server has looked for a key at all. */
    dtls_fail(f, "ERR_DTLS_PSK_KEY", "%s; probably the two pre-shared keys are not the same%s", what,
              a->server ? "" : ", or the server has not found its own yet");
  else
    dtls_fail(f, "ERR_DTLS_HANDSHAKE_TIMEOUT", "%s", what);
  if (e->deadline != 0) dtls_failure_add_seen(f, e->alert, e->number);
}

/* libssl has repeated a flight as often as it does, in DTLSv1_handle_timeout or while it looked for something to read. */
static bool gave_up(const dtls_association *a, dtls_failure *f) {
  ERR_clear_error();
  dtls_diagnose_timeout(a, "the peer did not answer any of the repeated flights", f);
  return false;
}

static bool protocol_error(dtls_failure *f, const char *what, const char *message, const char *reason) {
  ERR_clear_error();
  dtls_fail(f, "ERR_DTLS_PROTOCOL", "%s: %s", what, message);
  snprintf(f->reason, sizeof f->reason, "%s", reason);
  return false;
}

/* What ends an open association is no matter of the handshake, although libssl uses the reasons of one. */
static bool open_failed(const dtls_association *a, const char *what, dtls_failure *f) {
  switch (ERR_GET_REASON(ERR_peek_last_error())) {
    case SSL_R_READ_TIMEOUT_EXPIRED:
      return protocol_error(f, what, "the peer repeated its Finished more often than OpenSSL allows",
                            "TOO_MANY_FINISHED");
    case SSL_R_TOO_MANY_WARN_ALERTS: /* OpenSSL 3.0 reads each warning five times, and takes that for five warnings */
      ERR_clear_error();
      return dtls_fail_warning(f, a->alert_read & 0xff);
    default: return dtls_fail_openssl(f, "ERR_DTLS_PROTOCOL", what);
  }
}

/* Nobody has a key for the identity of a client, or this client has none for its server, which may have sent a hint. */
static bool no_key(const dtls_association *a, const char *what, dtls_failure *f) {
  char quoted[DTLS_QUOTE_MAX];
  size_t size = 0;
  const char *text = a->server ? dtls_association_identity(a, &size) : SSL_get_psk_identity_hint(a->ssl);
  if (text && !a->server) size = strlen(text);
  dtls_fail_openssl(f, "ERR_DTLS_PSK_IDENTITY", what); /* with OpenSSL's reason */
  if (text) dtls_quote_untrusted(quoted, text, size);
  if (a->server)
    snprintf(f->message, sizeof f->message, "there is no key for the identity %s", text ? quoted : "");
  else
    snprintf(f->message, sizeof f->message,
             text ? "there is no key for a server with the hint %s" : "there is no key for this server", quoted);
  return false;
}

/*
 * A handshake message in an open association, even a fragment of one, puts libssl back into a handshake that never ends: it
 * delivers and sends no data any more. Renegotiation is refused (SSL_OP_NO_RENEGOTIATION), a message that comes whole and in
 * turn is answered with an alert and forgotten; one that leaves libssl there ends the association.
 */
static bool began_handshake(const char *what, dtls_failure *f) {
  return protocol_error(f, what, "the peer began another handshake in an open association", "UNEXPECTED_MESSAGE");
}

/* Writes the names of the first suites of a list, of which a client may send hundreds. */
static void write_suites(char *out, size_t capacity, const STACK_OF(SSL_CIPHER) * suites) {
  enum { SHOWN_MAX = 12 };
  int count = suites ? sk_SSL_CIPHER_num(suites) : 0;
  size_t used = 0;
  *out = '\0';
  for (int i = 0, shown = 0; i < count && shown <= SHOWN_MAX; i++) {
    const SSL_CIPHER *suite = sk_SSL_CIPHER_value(suites, i);
    if (SSL_CIPHER_get_kx_nid(suite) == NID_kx_any) continue; /* TLS 1.3's are always there */
    int size = snprintf(out + used, capacity - used, "%s%s", shown > 0 ? ":" : "",
                        shown < SHOWN_MAX ? SSL_CIPHER_get_name(suite) : "...");
    if (size < 0 || (size_t)size >= capacity - used) return;
    used += (size_t)size;
    shown++;
  }
}

/* Both may have a suite, and no certificate or group for it. */
static bool no_shared_suite(const dtls_association *a, const char *what, dtls_failure *f) {
  char theirs[DTLS_SENTENCE_MAX / 2 - 128], ours[sizeof theirs];
  dtls_fail_openssl(f, "ERR_DTLS_PROTOCOL", what); /* with OpenSSL's reason */
  size_t size = strlen(f->message);
  if (dtls_raw_public_key_unwanted(a->ssl)) {
    snprintf(f->message + size, sizeof f->message - size,
             "; the client takes no raw public keys, and this server has nothing else to show");
    return false;
  }
  write_suites(theirs, sizeof theirs, SSL_get_client_ciphers(a->ssl)); /* those that this OpenSSL knows */
  write_suites(ours, sizeof ours, SSL_get_ciphers(a->ssl));
  snprintf(f->message + size, sizeof f->message - size, "; the client offers '%s', and this server has '%s'", theirs,
           ours);
  return false;
}

bool dtls_diagnose(const dtls_association *a, int error, int number, const char *what, dtls_failure *f) {
  if (a->open && error == SSL_ERROR_WANT_READ && SSL_in_init(a->ssl)) return began_handshake(what, f);
  if (error == SSL_ERROR_SYSCALL && ERR_peek_error() == 0) {
    if (number == 0) return dtls_fail(f, "ERR_DTLS_PROTOCOL", "%s: OpenSSL gave up without saying why", what);
    return dtls_fail_system(f, number, what);
  }
  if (a->open) return open_failed(a, what, f);
  switch (ERR_GET_REASON(ERR_peek_last_error())) {
    case SSL_R_CERTIFICATE_VERIFY_FAILED: return dtls_verify_fail(f, a->ssl);
    case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE: return dtls_fail_openssl(f, "ERR_DTLS_CERTIFICATE", what);
    case SSL_R_NO_SHARED_CIPHER: return no_shared_suite(a, what, f);
    case SSL_R_PSK_IDENTITY_NOT_FOUND: return no_key(a, what, f);
    case SSL_R_READ_TIMEOUT_EXPIRED: return gave_up(a, f);
    default: return dtls_fail_openssl(f, "ERR_DTLS_PROTOCOL", what);
  }
}

bool dtls_diagnose_timer(const dtls_association *a, int number, dtls_failure *f) {
  if (ERR_peek_error() == 0) return dtls_fail_system(f, number, "cannot repeat a flight");
  if (ERR_GET_REASON(ERR_peek_last_error()) != SSL_R_READ_TIMEOUT_EXPIRED)
    return dtls_fail_openssl(f, "ERR_DTLS_PROTOCOL", "cannot repeat a flight");
  return gave_up(a, f);
}
