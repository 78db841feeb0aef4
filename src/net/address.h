/* IPv4 and IPv6 addresses with their ports. */
#ifndef DTLS_NET_ADDRESS_H
#define DTLS_NET_ADDRESS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/platform.h"

typedef union {
  struct sockaddr sa;
  struct sockaddr_in v4;
  struct sockaddr_in6 v6;
} dtls_address;

socklen_t dtls_address_size(const dtls_address *address);
bool dtls_address_equal(const dtls_address *a, const dtls_address *b);
/* What cookies and hashes are made of: the IPv6 form (IPv4 mapped) and the port, in network order, and the scope id, which
   tells the links apart that have one link-local address. */
enum { DTLS_ADDRESS_BYTES = 16 + 2 + 4 };
void dtls_address_bytes(const dtls_address *address, uint8_t out[DTLS_ADDRESS_BYTES]);
uint64_t dtls_address_hash(uint64_t seed, const dtls_address *local, const dtls_address *peer);
bool dtls_address_parse(const char *ip, unsigned port, int family, dtls_address *out); /* of a socket of that family */

#endif
