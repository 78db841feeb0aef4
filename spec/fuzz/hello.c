/*
 * dtls_hello_parse_untrusted and dtls_path_classify_untrusted: what is a hello, and where does a datagram on a path
 * belong. The first byte says what is on the path, the rest is the datagram.
 */
#include "fixed.h"

#include <stdlib.h>
#include <string.h>

#include "association/association.h"
#include "wire/client_hello.h"

enum { CURRENT_OPEN = 1, CURRENT_RANDOM = 2, SUCCESSOR = 4, SUCCESSOR_RANDOM = 8 };

/* [p, p + n) lies within the datagram. */
static bool within(const uint8_t *data, size_t size, const uint8_t *p, size_t n) {
  return p >= data && n <= size && (size_t)(p - data) <= size - n;
}

/* A hello that somebody on the path has sent already. */
static void repeat(dtls_association *a, const dtls_hello *hello) {
  memcpy(a->origin.random, hello->random, DTLS_RANDOM_SIZE);
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
  (void)argc, (void)argv;
  return 0;
}

static void check_hello(const uint8_t *data, size_t size, const dtls_hello *hello) {
  FUZZ_CHECK(within(data, size, hello->version, 2) && within(data, size, hello->random, DTLS_RANDOM_SIZE));
  FUZZ_CHECK(within(data, size, hello->session, hello->session_size) &&
             within(data, size, hello->cookie, hello->cookie_size));
  FUZZ_CHECK(within(data, dtls_record_size(data), hello->suites, hello->suites_size));
  FUZZ_CHECK(dtls_record_size(data) <= size);
}

static bool is_of(const dtls_association *a, const dtls_hello *hello) {
  return memcmp(hello->random, a->origin.random, DTLS_RANDOM_SIZE) == 0;
}

/* Whether it is the one that the unfinished handshake of the path has begun with. */
static bool is_repetition(const dtls_path *path, const dtls_hello *hello) {
  if (hello->cookie_size == 0) return false; /* without a cookie nothing begins */
  if (path->successor && is_of(path->successor, hello)) return true;
  return is_of(path->current, hello) && !path->current->open;
}

/* hello: NULL when the datagram is none. */
static void classify(unsigned flags, const uint8_t *data, size_t size, const dtls_hello *hello) {
  dtls_association current = {.open = flags & CURRENT_OPEN}, successor = {.server = true};
  dtls_path path = {.current = &current, .successor = flags & SUCCESSOR ? &successor : NULL};
  if (hello && flags & CURRENT_RANDOM) repeat(&current, hello);
  if (hello && flags & SUCCESSOR_RANDOM) repeat(&successor, hello);
  dtls_destination to = dtls_path_classify_untrusted(&path, data, size);
  FUZZ_CHECK((to == DTLS_TO_HELLO) == (hello && !is_repetition(&path, hello)));
  FUZZ_CHECK((to != DTLS_TO_SUCCESSOR && to != DTLS_TO_BOTH) || path.successor);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size) {
  if (size < 1) return 0;
  uint8_t flags = *input++;
  uint8_t *data = malloc(--size); /* as large as the datagram: whoever reads past it is seen */
  if (size > 0) memcpy(data, input, size);
  dtls_hello hello;
  bool is_hello = dtls_hello_parse_untrusted(data, size, &hello);
  if (is_hello) check_hello(data, size, &hello);
  classify(flags, data, size, is_hello ? &hello : NULL);
  free(data);
  return 0;
}
