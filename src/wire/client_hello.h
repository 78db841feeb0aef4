/* A ClientHello as it is on the wire (RFC 6347 §4.2.1). */
#ifndef DTLS_WIRE_CLIENT_HELLO_H
#define DTLS_WIRE_CLIENT_HELLO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct dtls_hello dtls_hello;

struct dtls_hello {
  uint16_t message_seq;
  const uint8_t *version; /* 2 bytes */
  const uint8_t *random;  /* DTLS_RANDOM_SIZE bytes */
  const uint8_t *session, *cookie, *suites;
  size_t session_size, cookie_size, suites_size;
};

/* True for the first fragment of a ClientHello, complete up to its cipher suites. */
bool dtls_hello_parse_untrusted(const uint8_t *data, size_t size, dtls_hello *out);

#endif
