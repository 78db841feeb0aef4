/* Records and handshake headers: the wire format (RFC 6347 §4.1, §4.2.2), its limits and how its fields are read. */
#ifndef DTLS_WIRE_RECORD_H
#define DTLS_WIRE_RECORD_H

#include <stddef.h>
#include <stdint.h>

enum {
  DTLS_HANDSHAKE = 22,      /* content type of a record (RFC 6347 §4.3.1); libssl's SSL3_RT_HANDSHAKE */
  DTLS_VERSION_MAJOR = 0xfe /* of DTLS 1.x, in a record's version */
};

enum {
  DTLS_RECORD_HEADER = 13,
  DTLS_HANDSHAKE_HEADER = 12,
  DTLS_RANDOM_SIZE = 32,
  DTLS_COOKIE_SIZE = 32,
  DTLS_HELLOS_MAX = 8, /* of one client, each with a cookie whose secret had gone when it came but the last */
  /* that a server takes: certificates, and ClientHellos (SSL_CTX_set_max_cert_list) */
  DTLS_HANDSHAKE_MESSAGE_MAX = 32 * 1024,
  DTLS_MESSAGE_MAX = 16384,              /* plaintext of one record, RFC 6347 §4.1 */
  DTLS_RECORD_MAX = 16384 + 2048,        /* its ciphertext */
  DTLS_DATAGRAM_MAX = 13 + 16384 + 2048, /* what is longer is dropped: no record is, header included */
  DTLS_DEFAULT_MTU = 1228                /* UDP payload that every known peer can receive */
};

static inline uint16_t dtls_u16(const uint8_t *p) { return (uint16_t)(p[0] << 8 | p[1]); }
static inline uint32_t dtls_u24(const uint8_t *p) { return (uint32_t)p[0] << 16 | (uint32_t)p[1] << 8 | p[2]; }
static inline uint16_t dtls_record_epoch(const uint8_t *record) { return dtls_u16(record + 3); }
static inline uint64_t dtls_record_number(const uint8_t *record) {
  return (uint64_t)dtls_u24(record + 5) << 24 | dtls_u24(record + 8);
}
static inline size_t dtls_record_size(const uint8_t *record) {
  return DTLS_RECORD_HEADER + (size_t)dtls_u16(record + 11);
}

#endif
