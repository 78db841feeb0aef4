/*
 * Randomness and time that are the same in every run, so that an input always does the same: OpenSSL's generator is
 * replaced, and so is the clock of whoever asks for it in seconds, microseconds or since the start of the machine.
 * libFuzzer itself reads the real-time clock, which runs on.
 */
#define OPENSSL_SUPPRESS_DEPRECATED
#include "fixed.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include <openssl/rand.h>
#include <sanitizer/allocator_interface.h>

#include "base/linkage.h"

const dtls_import dtls_imports[] = {{NULL, NULL, NULL}}; /* a fuzz target has one OpenSSL: nothing to check */

enum { START = 1767225600 }; /* s: 2026-01-01 */

static uint64_t random_state, elapsed; /* ms */

void fuzz_fix(unsigned seed) {
  random_state = 0x9e3779b97f4a7c15u * (2 * (uint64_t)seed + 1);
  elapsed = 0;
}

void fuzz_advance(unsigned ms) { elapsed += ms; }

size_t fuzz_allocated(void) { return __sanitizer_get_current_allocated_bytes(); }

void fuzz_failed(const char *file, int line, const char *what) {
  fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, what);
  abort();
}

/* ── the clock ── */

time_t time(time_t *out) {
  time_t now = START + (time_t)(elapsed / 1000);
  if (out) *out = now;
  return now;
}

int gettimeofday(struct timeval *restrict out, void *restrict zone) {
  (void)zone;
  *out = (struct timeval){.tv_sec = START + (time_t)(elapsed / 1000), .tv_usec = (suseconds_t)(elapsed % 1000 * 1000)};
  return 0;
}

int clock_gettime(clockid_t clock, struct timespec *out) {
  if (clock != CLOCK_MONOTONIC) return (int)syscall(SYS_clock_gettime, clock, out);
  *out = (struct timespec){.tv_sec = (time_t)(1000 + elapsed / 1000), .tv_nsec = (long)(elapsed % 1000 * 1000000)};
  return 0;
}

/* ── randomness: xorshift64* ── */

static int random_bytes(unsigned char *out, int size) {
  for (int i = 0; i < size; i++) {
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    out[i] = (unsigned char)((random_state * 0x2545f4914f6cdd1du) >> 56);
  }
  return 1;
}

static int random_status(void) { return 1; }

__attribute__((constructor)) static void replace_randomness(void) {
  static const RAND_METHOD method = {.bytes = random_bytes, .pseudorand = random_bytes, .status = random_status};
  fuzz_fix(0);
  RAND_set_rand_method(&method);
}
