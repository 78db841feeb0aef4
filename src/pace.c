/*
 * How often an address that has proved itself may begin a handshake: once in a retransmission interval, until it completes
 * one. A flight costs its server hundreds of microseconds and is many times as long as the hello that it answers. Owns a table
 * of fixed size, in which a handshake leaves its mark also when it has ended; knows nothing of associations.
 */
#include "core.h"

#include <string.h>

enum { SLOTS = 4096 };

struct dtls_pace {
  uint64_t seed;   /* whoever has many addresses could choose them to collide */
  struct {
    uint64_t tag; /* of the 4-tuple, 0: none */
    uint64_t until; /* ms */
  } slots[SLOTS];
};

dtls_pace *dtls_pace_new(void) {
  dtls_pace *pace = OPENSSL_zalloc(sizeof *pace);
  if (!pace) return NULL;
  if (RAND_bytes((unsigned char *)&pace->seed, sizeof pace->seed) == 1) return pace;
  OPENSSL_free(pace);
  return NULL;
}

void dtls_pace_free(dtls_pace *pace) { OPENSSL_free(pace); }

/* Zero stands for no address. */
static uint64_t tag_of(const dtls_pace *pace, const dtls_address *local, const dtls_address *peer) {
  return dtls_address_hash(pace->seed, local, peer) | 1u;
}

bool dtls_pace_allows(const dtls_pace *pace, const dtls_address *local, const dtls_address *peer) {
  uint64_t tag = tag_of(pace, local, peer), slot = (tag >> 32) % SLOTS;
  return pace->slots[slot].tag != tag || dtls_now() >= pace->slots[slot].until;
}

/* An older mark of another address in the same slot is lost. */
void dtls_pace_begin(dtls_pace *pace, const dtls_address *local, const dtls_address *peer, unsigned interval) {
  uint64_t tag = tag_of(pace, local, peer), slot = (tag >> 32) % SLOTS;
  pace->slots[slot].tag = tag;
  pace->slots[slot].until = dtls_now() + interval;
}

void dtls_pace_complete(dtls_pace *pace, const dtls_address *local, const dtls_address *peer) {
  uint64_t tag = tag_of(pace, local, peer), slot = (tag >> 32) % SLOTS;
  if (pace->slots[slot].tag == tag) pace->slots[slot].tag = 0;
}
