/* What is counted for an association and for an endpoint: datagrams, messages, and why something was dropped. */
#ifndef DTLS_BASE_COUNTERS_H
#define DTLS_BASE_COUNTERS_H

#include <stddef.h>
#include <stdint.h>

/* Why a datagram or record was dropped: constant, name in stats().drops. */
/* clang-format off */
#define DTLS_DROP_REASONS(X) \
  X(EMPTY, "empty")               /* a datagram without bytes, or an authentic record without data; from OpenSSL 3.2 on that is INVALID */ \
  X(SHORT, "short")               /* less than a record header */ \
  X(TYPE, "type")                 /* content type that DTLS 1.2 does not have */ \
  X(VERSION, "version")           /* record version that is not DTLS 1.x */ \
  X(LENGTH, "length")             /* length field that says more than there is, or more than is allowed; a datagram longer than any record */ \
  X(UNDERSIZED, "undersized")     /* protected record shorter than nonce and tag */ \
  X(UNPROTECTED, "unprotected")   /* application data in epoch 0 */ \
  X(HANDSHAKE, "handshake")       /* handshake record or ChangeCipherSpec that cannot be genuine */ \
  X(ALERT, "alert")               /* unauthenticated alert; a fatal one is a soft error, see soft_error.h */ \
  X(EARLY, "early")               /* protected record before a suite is chosen, or before ChangeCipherSpec and not Finished */ \
  X(EPOCH, "epoch")               /* an epoch that is over, or never exists without renegotiation */ \
  X(REPLAY, "replay")             /* a handshake message that has been read, or an open association's own hello */ \
  X(INVALID, "invalid")           /* protected data that is forged, altered, or has been read */ \
  X(HELLO, "hello")               /* malformed ClientHello, or one cut before its cipher suites end */ \
  X(PACE, "pace")                 /* verified hello within a retransmission interval of the last handshake its sender began */ \
  X(STRANGER, "stranger")         /* not a hello, from an address without an association */ \
  X(QUEUE, "queue")               /* no room or memory to keep it until its turn, its second dispatch, or its reader */ \
  X(OVERFLOWED, "overflow")       /* a datagram that the kernel dropped: the socket's receive buffer was full (or its checksum was wrong) */ \
  X(AGAIN, "EAGAIN")              /* outgoing: the socket's send buffer was full, or a signal came */ \
  X(NOBUFS, "ENOBUFS")            /* outgoing: the interface's queue was full; or no memory, for a hello, too */ \
  X(MSGSIZE, "EMSGSIZE")          /* outgoing: larger than the path takes, as far as the system knows it */ \
  X(REFUSED, "ECONNREFUSED")      /* ICMP port unreachable, in or out */ \
  X(UNREACHABLE, "EHOSTUNREACH")  /* ICMP or routing failure other than that */
/* clang-format on */

typedef enum {
#define X(id, name) DTLS_DROP_##id,
  DTLS_DROP_REASONS(X)
#undef X
      DTLS_DROP_COUNT
} dtls_drop;

typedef struct {
  uint64_t datagrams_in, datagrams_out, bytes_in, bytes_out; /* UDP payloads, as on the wire */
  uint64_t messages_in, messages_out;                        /* application messages */
  uint64_t retransmits;                                      /* flights repeated by our timer */
  uint64_t drops[DTLS_DROP_COUNT];
} dtls_counters;

static inline void dtls_count_in(dtls_counters *counters, size_t size) {
  counters->datagrams_in++;
  counters->bytes_in += size;
}
static inline void dtls_count_out(dtls_counters *counters, size_t size) {
  counters->datagrams_out++;
  counters->bytes_out += size;
}

#endif
