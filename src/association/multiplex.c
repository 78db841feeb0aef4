/*
 * Datagrams of other protocols on the port of an association (RFC 7983): STUN, TURN, SRTP. The first byte tells them from
 * DTLS. They go past libssl, to the application when it asks for them.
 */
#include "association/multiplex.h"

#include "association/association.h"
#include "association/endpoint.h"

/* As many as one call reads of a socket. */
static const dtls_queue_limit WAITING_MAX = {.count = DTLS_READS_MAX,
                                             .bytes = (size_t)DTLS_READS_MAX * DTLS_DATAGRAM_MAX};

bool dtls_multiplex_is_other_untrusted(const uint8_t *data, size_t size) {
  return size > 0 && (data[0] < 20 || data[0] > 63);
}

bool dtls_multiplex_check(const char *data, size_t size, dtls_failure *f) {
  if (size == 0) return dtls_fail(f, "EINVAL", "an empty datagram belongs to no protocol");
  if (dtls_multiplex_is_other_untrusted((const uint8_t *)data, size)) return true;
  return dtls_fail(f, "EINVAL", "its first byte, 20 to 63, says that this datagram is DTLS (RFC 7983)");
}

dtls_association *dtls_multiplex_taker(const dtls_path *path) {
  if (path->current->others.wanted) return path->current;
  return path->successor && path->successor->others.wanted ? path->successor : NULL;
}

void dtls_multiplex_keep(dtls_association *a, const uint8_t *data, size_t size) {
  if (!dtls_queue_add(&a->others.queue, WAITING_MAX, NULL, 0, data, size)) DTLS_DROP(a, QUEUE);
}
