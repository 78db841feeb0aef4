/* The longest datagram that an association sends, and the longest message that fits one. */
#include "association/mtu.h"

#include "association/association.h"
#include "wire/record.h"

size_t dtls_mtu_fragment(const dtls_association *a) {
  const SSL_SESSION *session = SSL_get0_session(a->ssl);
  /* RFC 6066 §4 */
  uint8_t code = session ? SSL_SESSION_get_max_fragment_length(session) : TLSEXT_max_fragment_length_DISABLED;
  bool negotiated = code >= TLSEXT_max_fragment_length_512 && code <= TLSEXT_max_fragment_length_4096;
  return negotiated ? (size_t)512 << (code - TLSEXT_max_fragment_length_512) : DTLS_MESSAGE_MAX;
}

/* DTLS_get_data_mtu knows nothing of max_fragment_length, and libssl ends an association at a longer SSL_write. */
size_t dtls_mtu_message(const dtls_association *a) {
  size_t fits = DTLS_get_data_mtu(a->ssl), allowed = dtls_mtu_fragment(a);
  return fits < allowed ? fits : allowed;
}

void dtls_mtu_use(dtls_association *a, size_t payload) {
  a->mtu.payload = payload;
  SSL_set_mtu(a->ssl, (long)payload);
  if (a->open) a->mtu.message = dtls_mtu_message(a);
}

void dtls_mtu_meet(dtls_association *a) {
  a->mtu.overhead = BIO_ctrl(a->dgram, BIO_CTRL_DGRAM_GET_MTU_OVERHEAD, 0, NULL);
}

static long min_payload(const dtls_association *a) { return (long)DTLS_get_link_min_mtu(a->ssl) - a->mtu.overhead; }

bool dtls_mtu_set(dtls_association *a, long payload, dtls_failure *f) {
  long min = min_payload(a);
  if (payload < min || payload > DTLS_DATAGRAM_MAX)
    return dtls_fail(f, "ERR_DTLS_CONFIG", "an MTU of %ld is out of range: %ld to %d bytes of UDP payload", payload,
                     min, DTLS_DATAGRAM_MAX);
  dtls_mtu_use(a, (size_t)payload);
  return true;
}

/* What DTLS_set_link_mtu does, but at any time. */
bool dtls_mtu_set_link(dtls_association *a, long packet, dtls_failure *f) {
  long headers = a->mtu.overhead;
  return dtls_mtu_set(a, packet > headers ? packet - headers : 0, f);
}

/* What the kernel has learned of the path, which it tells for a socket that is connected to the peer. */
void dtls_mtu_learn(dtls_association *a) {
  if (!a->path || a->path->fd < 0) return;
  long known = BIO_ctrl(a->dgram, BIO_CTRL_DGRAM_QUERY_MTU, 0, NULL);
  if (known >= min_payload(a) && (size_t)known < a->mtu.payload) dtls_mtu_use(a, (size_t)known);
}
