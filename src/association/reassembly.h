/* Records of a handshake, plaintext and protected, wait for their turn. */
#ifndef DTLS_ASSOCIATION_REASSEMBLY_H
#define DTLS_ASSOCIATION_REASSEMBLY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "association/types.h"
#include "base/openssl.h"

typedef struct dtls_reassembly dtls_reassembly;

/* How far the handshake is, as libssl shows its messages (SSL_set_msg_callback); libssl's own states are renumbered at times. */
typedef struct {
  struct {
    uint8_t type;              /* SSL3_MT_… */
    bool written;              /* by us, else read */
  } last;                      /* the message that libssl has read or written last */
  uint16_t next_seq;           /* message_seq of the message that libssl reads next */
  uint16_t first_fragment_seq; /* message_seq that first_fragment belongs to */
  uint32_t first_fragment;     /* type and length that the first fragment of that message said; 0: none has come */
  bool repeating;              /* libssl repeats a flight, until it has read a message */
  bool wants_certificate;      /* our CertificateRequest has been sent */
  bool peer_changed_cipher;    /* libssl has read the peer's ChangeCipherSpec, and can read protected records */
  bool was_shown_cipher;       /* libssl was shown a ChangeCipherSpec, in the state state_before_cipher */
  OSSL_HANDSHAKE_STATE state_before_cipher;
  unsigned repeated_finished; /* how often our last flight was repeated because the peer repeated its Finished */
} dtls_handshake;

void dtls_reassembly_watch(dtls_association *a); /* knows from then on which message libssl reads next */
void dtls_reassembly_completed(dtls_association *a);
void dtls_reassembly_free(dtls_association *a);
bool dtls_reassembly_take(dtls_association *a, const uint8_t *data, size_t size); /* a datagram; false: out of memory */
bool dtls_reassembly_pending(const dtls_association *a); /* there is more that libssl can read now */
/* For an open association, one after the other: what came before Finished, and what is left of the datagram with Finished. */
size_t dtls_reassembly_rest(dtls_association *a, uint8_t *out, size_t capacity);
/* The next record of the datagram taken that libssl may read now; 0: there is none. */
size_t dtls_reassembly_next_untrusted(dtls_association *a, uint8_t *out, size_t capacity);
/* The next of the records that came before their turn, if libssl may read it now; 0: there is none. */
size_t dtls_reassembly_waiting_untrusted(dtls_association *a, uint8_t *out, size_t capacity);

#endif
