/* A ClientHello as it is on the wire (RFC 6347 §4.2.1), as far as a server needs it before it makes an association. */
#include "wire/client_hello.h"

#include "wire/record.h"

/* Takes a vector with a length prefix of one or two bytes off the front. */
static bool take_vector(const uint8_t **p, const uint8_t *end, unsigned prefix, const uint8_t **out, size_t *size) {
  if ((size_t)(end - *p) < prefix) return false;
  size_t n = prefix == 1 ? **p : dtls_u16(*p);
  *p += prefix;
  if ((size_t)(end - *p) < n) return false;
  *out = *p;
  *size = n;
  *p += n;
  return true;
}

bool dtls_hello_parse_untrusted(const uint8_t *data, size_t size, dtls_hello *out) {
  enum { CLIENT_HELLO = 1, FIXED = 2 + DTLS_RANDOM_SIZE };
  if (size < DTLS_RECORD_HEADER + DTLS_HANDSHAKE_HEADER + FIXED) return false;
  const uint8_t *message = data + DTLS_RECORD_HEADER, *body = message + DTLS_HANDSHAKE_HEADER;
  size_t record = dtls_record_size(data), fragment = dtls_u24(message + 9);
  size_t whole = dtls_u24(message + 1);
  /* the record filter would drop a longer one */
  if (fragment > whole || whole > DTLS_HANDSHAKE_MESSAGE_MAX) return false;
  if (data[0] != DTLS_HANDSHAKE || data[1] != DTLS_VERSION_MAJOR || dtls_record_epoch(data) != 0 || record > size)
    return false;
  /* only the first fragment carries the cookie */
  if (message[0] != CLIENT_HELLO || dtls_u24(message + 6) != 0) return false;
  if (fragment < FIXED || record != DTLS_RECORD_HEADER + DTLS_HANDSHAKE_HEADER + fragment) return false;
  const uint8_t *p = body + FIXED, *end = body + fragment;
  out->message_seq = dtls_u16(message + 4);
  out->version = body;
  out->random = body + 2;
  return take_vector(&p, end, 1, &out->session, &out->session_size) &&
         take_vector(&p, end, 1, &out->cookie, &out->cookie_size) &&
         take_vector(&p, end, 2, &out->suites, &out->suites_size);
}
