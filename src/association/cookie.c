/*
 * Stateless cookies (RFC 6347 §4.2.1): HMAC-SHA256 over the client's address and parameters, with a current and a
 * previous secret. Owns the secrets and their rotation; knows nothing of records or sockets.
 */
#include "association/cookie.h"

#include <string.h>

#include "base/clock.h"
#include "base/openssl.h"

enum { SECRET_SIZE = 32, ROTATION_MS = 5 * 60 * 1000 };

struct dtls_cookies {
  EVP_MAC_CTX *current, *previous; /* keyed; previous may be NULL */
  bool given;                      /* the application set the secret and rotates it */
  uint64_t rotated;
};

static EVP_MAC_CTX *keyed(const void *secret, size_t size) {
  EVP_MAC *mac = EVP_MAC_fetch(NULL, "HMAC", NULL);
  EVP_MAC_CTX *ctx = mac ? EVP_MAC_CTX_new(mac) : NULL;
  EVP_MAC_free(mac);
  char digest[] = "SHA256";
  OSSL_PARAM params[] = {OSSL_PARAM_construct_utf8_string("digest", digest, 0), OSSL_PARAM_construct_end()};
  if (ctx && EVP_MAC_init(ctx, secret, size, params)) return ctx;
  EVP_MAC_CTX_free(ctx);
  return NULL;
}

static EVP_MAC_CTX *random_key(void) {
  uint8_t secret[SECRET_SIZE];
  EVP_MAC_CTX *ctx = RAND_priv_bytes(secret, sizeof secret) == 1 ? keyed(secret, sizeof secret) : NULL;
  OPENSSL_cleanse(secret, sizeof secret);
  return ctx;
}

dtls_cookies *dtls_cookies_new(void) {
  dtls_cookies *cookies = OPENSSL_zalloc(sizeof *cookies);
  if (!cookies) return NULL;
  cookies->current = random_key();
  cookies->rotated = dtls_now();
  if (cookies->current) return cookies;
  OPENSSL_free(cookies);
  return NULL;
}

void dtls_cookies_free(dtls_cookies *cookies) {
  if (!cookies) return;
  EVP_MAC_CTX_free(cookies->current);
  EVP_MAC_CTX_free(cookies->previous);
  OPENSSL_free(cookies);
}

static void replace(dtls_cookies *cookies, EVP_MAC_CTX *current, EVP_MAC_CTX *previous) {
  if (cookies->previous != previous) EVP_MAC_CTX_free(cookies->previous);
  if (cookies->current != previous) EVP_MAC_CTX_free(cookies->current);
  cookies->current = current;
  cookies->previous = previous;
  cookies->rotated = dtls_now();
}

bool dtls_cookies_set(dtls_cookies *cookies, const void *current, size_t size, const void *previous,
                      size_t previous_size) {
  EVP_MAC_CTX *first = keyed(current, size);
  EVP_MAC_CTX *second = previous ? keyed(previous, previous_size) : NULL;
  if (!first || (previous && !second)) {
    EVP_MAC_CTX_free(first);
    EVP_MAC_CTX_free(second);
    return false;
  }
  replace(cookies, first, second);
  cookies->given = true;
  return true;
}

/*
 * The client's parameters are in the MAC as RFC 6347 asks, so that a cookie serves the hello that it was made for; but not
 * the session id: an Mbed TLS 2.28 client with a ticket makes up another one for its second hello.
 */
static bool compute(EVP_MAC_CTX *key, const dtls_address *peer, const dtls_hello *hello, uint16_t generation,
                    uint8_t out[DTLS_COOKIE_SIZE]) {
  uint8_t address[DTLS_ADDRESS_BYTES];
  const uint8_t sizes[4] = {(uint8_t)(hello->suites_size >> 8), (uint8_t)hello->suites_size, (uint8_t)(generation >> 8),
                            (uint8_t)generation};
  size_t size = 0;
  dtls_address_bytes(peer, address);
  return EVP_MAC_init(key, NULL, 0, NULL) && EVP_MAC_update(key, address, sizeof address) &&
         EVP_MAC_update(key, sizes, sizeof sizes) && EVP_MAC_update(key, hello->version, 2) &&
         EVP_MAC_update(key, hello->random, DTLS_RANDOM_SIZE) &&
         EVP_MAC_update(key, hello->suites, hello->suites_size) && EVP_MAC_final(key, out, &size, DTLS_COOKIE_SIZE) &&
         size == DTLS_COOKIE_SIZE;
}

/* The secrets are as old as they look: a server that nobody greets takes no older cookies than a busy one. */
static void rotate(dtls_cookies *cookies) {
  uint64_t due = cookies->rotated + ROTATION_MS, now = dtls_now();
  if (cookies->given || now <= due) return;
  EVP_MAC_CTX *next = random_key();
  if (!next) return;
  bool recent = now <= due + ROTATION_MS;
  replace(cookies, next, recent ? cookies->current : NULL);
  if (recent) cookies->rotated = due;
}

bool dtls_cookies_make(dtls_cookies *cookies, const dtls_address *peer, const dtls_hello *hello, uint16_t generation,
                       uint8_t out[DTLS_COOKIE_SIZE]) {
  rotate(cookies);
  return compute(cookies->current, peer, hello, generation, out);
}

bool dtls_cookies_verify(dtls_cookies *cookies, const dtls_address *peer, const dtls_hello *hello,
                         uint16_t generation) {
  uint8_t expected[DTLS_COOKIE_SIZE];
  rotate(cookies);
  if (hello->cookie_size != DTLS_COOKIE_SIZE) return false;
  if (compute(cookies->current, peer, hello, generation, expected) &&
      CRYPTO_memcmp(expected, hello->cookie, DTLS_COOKIE_SIZE) == 0)
    return true;
  return cookies->previous && compute(cookies->previous, peer, hello, generation, expected) &&
         CRYPTO_memcmp(expected, hello->cookie, DTLS_COOKIE_SIZE) == 0;
}
