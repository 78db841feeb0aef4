/*
 * When a peer that has gone may begin a handshake again. A flight costs its server hundreds of microseconds and is many times
 * as long as the hello that it answers, so an address and port that has proved itself gets one in a retransmission interval.
 * The path of a peer knows when that is over; here is kept what paths knew that are gone. Owns a table of fixed size.
 */
#include "association/pace.h"

#include <string.h>

#include "base/clock.h"
#include "base/openssl.h"

enum { SLOTS = 4096 };

struct dtls_pace {
  uint64_t seed; /* whoever has many addresses could choose them to collide */
  struct {
    uint64_t tag;   /* of a peer's address and the local one */
    uint64_t until; /* ms; 0: nobody's */
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

static uint64_t slot_of(uint64_t tag) { return (tag >> 32) % SLOTS; }

/* Two peers of one slot that are both gone: the later one is remembered. More ports would gain an attacker as much. */
void dtls_pace_remember(dtls_pace *pace, const dtls_address *local, const dtls_address *peer, uint64_t until) {
  if (until <= dtls_now()) return;
  uint64_t tag = dtls_address_hash(pace->seed, local, peer), slot = slot_of(tag);
  pace->slots[slot].tag = tag;
  pace->slots[slot].until = until;
}

uint64_t dtls_pace_recall(const dtls_pace *pace, const dtls_address *local, const dtls_address *peer) {
  uint64_t tag = dtls_address_hash(pace->seed, local, peer), slot = slot_of(tag);
  return pace->slots[slot].tag == tag ? pace->slots[slot].until : 0;
}
