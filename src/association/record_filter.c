/*
 * The record filter: what libssl may see of a datagram. Everything that can only do harm is dropped and counted, record by
 * record: what is no record, what nobody may say at this point, and unauthenticated alerts.
 */
#include "association/record_filter.h"

#include <string.h>

#include "association/association.h"
#include "association/endpoint.h"

/* libssl ends an association at the 13th repetition of the peer's Finished (DTLS1_TMO_ALERT_COUNT). */
enum { REPEATED_FINISHED_MAX = 12 };

static bool drop(dtls_association *a, dtls_drop reason) {
  DTLS_COUNT(a, drops[reason], 1);
  return false;
}

/* The plaintext handshake messages that each side may get (RFC 6347 §4.3.2). Finished is never in plain text. */
#define BIT(type) (UINT32_C(1) << (type))
static const uint32_t to_server = BIT(SSL3_MT_CLIENT_HELLO) | BIT(SSL3_MT_CERTIFICATE) |
                                  BIT(SSL3_MT_CLIENT_KEY_EXCHANGE) | BIT(SSL3_MT_CERTIFICATE_VERIFY);
static const uint32_t to_client = BIT(SSL3_MT_SERVER_HELLO) | BIT(DTLS1_MT_HELLO_VERIFY_REQUEST) |
                                  BIT(SSL3_MT_NEWSESSION_TICKET) | BIT(SSL3_MT_CERTIFICATE) |
                                  BIT(SSL3_MT_SERVER_KEY_EXCHANGE) | BIT(SSL3_MT_CERTIFICATE_REQUEST) |
                                  BIT(SSL3_MT_SERVER_DONE);
#undef BIT

/* libssl's own limits. It sets aside what the first fragment says. */
static size_t max_length(const dtls_association *a, uint8_t type) {
  switch (type) {
    case SSL3_MT_SERVER_DONE: return 0;
    case DTLS1_MT_HELLO_VERIFY_REQUEST: return 258;
    case SSL3_MT_CLIENT_KEY_EXCHANGE: return 2048;
    case SSL3_MT_CERTIFICATE_VERIFY: return SSL3_RT_MAX_PLAIN_LENGTH;
    default: return (size_t)SSL_get_max_cert_list(a->ssl);
  }
}

/* A fragment that contradicts itself or is larger than allowed would end the handshake, and anybody can send one. */
static bool handshake_is_sound_untrusted(const dtls_association *a, const uint8_t *p, size_t size) {
  uint32_t allowed = a->server ? to_server : to_client;
  while (size >= DTLS_HANDSHAKE_HEADER) {
    size_t length = dtls_u24(p + 1), offset = dtls_u24(p + 6), fragment = dtls_u24(p + 9);
    if (p[0] > 31 || !(allowed >> p[0] & 1)) return false;
    if (length > max_length(a, p[0]) || offset + fragment > length || fragment > size - DTLS_HANDSHAKE_HEADER ||
        (fragment == 0) != (length == 0))
      return false;
    p += DTLS_HANDSHAKE_HEADER + fragment;
    size -= DTLS_HANDSHAKE_HEADER + fragment;
  }
  return size == 0;
}

/* A record of epoch 0: nobody has authenticated it. */
static bool admit_plain(dtls_association *a, const uint8_t *record) {
  const uint8_t *body = record + DTLS_RECORD_HEADER;
  size_t size = dtls_record_size(record) - DTLS_RECORD_HEADER;
  if (a->open && (record[0] == SSL3_RT_HANDSHAKE || record[0] == SSL3_RT_CHANGE_CIPHER_SPEC))
    return drop(a, DTLS_DROP_EPOCH);
  switch (record[0]) {
    case SSL3_RT_HANDSHAKE: return handshake_is_sound_untrusted(a, body, size) || drop(a, DTLS_DROP_HANDSHAKE);
    case SSL3_RT_CHANGE_CIPHER_SPEC: return (size == 1 && body[0] == SSL3_MT_CCS) || drop(a, DTLS_DROP_HANDSHAKE);
    case SSL3_RT_APPLICATION_DATA: return drop(a, DTLS_DROP_UNPROTECTED);
    case SSL3_RT_ALERT:
      if (!a->open && size == 2 && body[0] == SSL3_AL_FATAL) dtls_soft_error_note(a, body[1], 0);
      return drop(a, DTLS_DROP_ALERT);
    default: return true;
  }
}

/* Nonce and tag of an AEAD suite; libssl of some versions ends the session at a record that is shorter. */
size_t dtls_filter_protected_min(const SSL *ssl) {
  const SSL_CIPHER *cipher = dtls_suite(ssl);
  if (!cipher) return 0;
  if (!SSL_CIPHER_is_aead(cipher)) return 1;
  if (SSL_CIPHER_get_cipher_nid(cipher) == NID_chacha20_poly1305) return 16;
  return strstr(SSL_CIPHER_get_name(cipher), "CCM8") ? 8 + 8 : 8 + 16;
}

/*
 * A protected handshake record. During the handshake the one genuine message is Finished, or a fragment of it; libssl sets
 * aside 16 KB and more for each other message that a record of an authenticated peer announces. Of an open association, only
 * the end that wrote the last flight has something to repeat when the peer repeats its Finished (RFC 6347 §4.2.4).
 */
static bool admit_protected_handshake(dtls_association *a, size_t plaintext) {
  bool is_finished = plaintext > DTLS_HANDSHAKE_HEADER && plaintext <= DTLS_FINISHED_SIZE;
  if (!a->open) return is_finished || drop(a, DTLS_DROP_HANDSHAKE);
  if (a->handshake.repeated_finished >= REPEATED_FINISHED_MAX || (is_finished && !a->handshake.last.written))
    return drop(a, DTLS_DROP_REPLAY);
  return true;
}

static bool admit_protected(dtls_association *a, const uint8_t *record) {
  if (dtls_record_epoch(record) != 1) return drop(a, DTLS_DROP_EPOCH);
  size_t min = a->open ? a->input.protected_min : dtls_filter_protected_min(a->ssl),
         size = dtls_record_size(record) - DTLS_RECORD_HEADER;
  if (min == 0) return drop(a, DTLS_DROP_EARLY); /* no suite yet, so it cannot be for us */
  if (size < min) return drop(a, DTLS_DROP_UNDERSIZED);
  /* without renegotiation there is no second one */
  if (record[0] == SSL3_RT_CHANGE_CIPHER_SPEC) return drop(a, DTLS_DROP_HANDSHAKE);
  if (record[0] == SSL3_RT_HANDSHAKE) return admit_protected_handshake(a, size - min);
  if (!a->open && !a->handshake.peer_changed_cipher) return drop(a, DTLS_DROP_EARLY);
  if (a->open && record[0] == SSL3_RT_APPLICATION_DATA) a->input.unread++;
  return true;
}

static bool admit(dtls_association *a, const uint8_t *record) {
  if (record[0] < SSL3_RT_CHANGE_CIPHER_SPEC || record[0] > SSL3_RT_APPLICATION_DATA) return drop(a, DTLS_DROP_TYPE);
  if (record[1] != DTLS1_VERSION_MAJOR || (a->open && dtls_u16(record + 1) != SSL_version(a->ssl)))
    return drop(a, DTLS_DROP_VERSION);
  return dtls_record_epoch(record) == 0 ? admit_plain(a, record) : admit_protected(a, record);
}

size_t dtls_filter_record_untrusted(dtls_association *a, const uint8_t *data, size_t size, bool *good) {
  size_t length = size < DTLS_RECORD_HEADER ? 0 : dtls_record_size(data);
  *good = false;
  if (size < DTLS_RECORD_HEADER) {
    drop(a, DTLS_DROP_SHORT);
    return size;
  }
  if (length > size || length > DTLS_RECORD_HEADER + DTLS_RECORD_MAX || length == DTLS_RECORD_HEADER) {
    drop(a, DTLS_DROP_LENGTH);
    return size;
  }
  *good = admit(a, data);
  return length;
}

size_t dtls_filter_datagram_untrusted(dtls_association *a, uint8_t *data, size_t size) {
  size_t kept = 0;
  bool good;
  for (size_t at = 0, length; at < size; at += length) {
    length = dtls_filter_record_untrusted(a, data + at, size - at, &good);
    if (!good) continue;
    if (kept != at) memmove(data + kept, data + at, length);
    kept += length;
  }
  return kept;
}
