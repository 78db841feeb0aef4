/* IPv4 and IPv6 addresses with their ports: compared, hashed, and read from text. */
#include "net/address.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <string.h>

socklen_t dtls_address_size(const dtls_address *address) {
  return address->sa.sa_family == AF_INET6 ? sizeof address->v6 : sizeof address->v4;
}

bool dtls_address_equal(const dtls_address *a, const dtls_address *b) {
  if (a->sa.sa_family != b->sa.sa_family) return false;
  if (a->sa.sa_family == AF_INET)
    return a->v4.sin_port == b->v4.sin_port && a->v4.sin_addr.s_addr == b->v4.sin_addr.s_addr;
  return a->v6.sin6_port == b->v6.sin6_port && a->v6.sin6_scope_id == b->v6.sin6_scope_id &&
         memcmp(&a->v6.sin6_addr, &b->v6.sin6_addr, sizeof a->v6.sin6_addr) == 0;
}

void dtls_address_bytes(const dtls_address *address, uint8_t out[DTLS_ADDRESS_BYTES]) {
  memset(out + 18, 0, 4);
  if (address->sa.sa_family == AF_INET) {
    memset(out, 0, 10);
    memset(out + 10, 0xff, 2);
    memcpy(out + 12, &address->v4.sin_addr, 4);
    memcpy(out + 16, &address->v4.sin_port, 2);
  } else {
    memcpy(out, &address->v6.sin6_addr, 16);
    memcpy(out + 16, &address->v6.sin6_port, 2);
    memcpy(out + 18, &address->v6.sin6_scope_id, 4);
  }
}

uint64_t dtls_address_hash(uint64_t seed, const dtls_address *local, const dtls_address *peer) {
  uint8_t bytes[2 * DTLS_ADDRESS_BYTES];
  uint64_t hash = seed;
  dtls_address_bytes(local, bytes);
  dtls_address_bytes(peer, bytes + DTLS_ADDRESS_BYTES);
  for (size_t i = 0; i < sizeof bytes; i += 4) {
    uint32_t word;
    memcpy(&word, bytes + i, sizeof word);
    hash = (hash ^ word) * 0x9e3779b97f4a7c15u;
    hash ^= hash >> 32;
  }
  return hash;
}

/* The address behind a zone's '%', or all of it. */
static bool parse_v6(const char *ip, struct sockaddr_in6 *out) {
  char text[INET6_ADDRSTRLEN];
  struct in_addr v4;
  size_t length = strcspn(ip, "%");
  if (length >= sizeof text) return false;
  memcpy(text, ip, length);
  text[length] = '\0';
  if (ip[length] == '%' && (out->sin6_scope_id = if_nametoindex(ip + length + 1)) == 0) return false;
  if (inet_pton(AF_INET6, text, &out->sin6_addr) == 1) return true;
  if (ip[length] == '%' || inet_pton(AF_INET, text, &v4) != 1) return false;
  memset(&out->sin6_addr.s6_addr[10], 0xff, 2);
  memcpy(&out->sin6_addr.s6_addr[12], &v4, sizeof v4);
  return true;
}

bool dtls_address_parse(const char *ip, unsigned port, int family, dtls_address *out) {
  memset(out, 0, sizeof *out);
  if (family == AF_INET) {
    out->v4.sin_family = AF_INET;
    out->v4.sin_port = htons((uint16_t)port);
    return inet_pton(AF_INET, ip, &out->v4.sin_addr) == 1;
  }
  out->v6.sin6_family = AF_INET6;
  out->v6.sin6_port = htons((uint16_t)port);
  return parse_v6(ip, &out->v6);
}
